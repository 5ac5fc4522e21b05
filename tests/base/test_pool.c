/* tests/base/test_pool.c - every task runs exactly once, whatever the number of threads, jobs and nests. */
#include <stdatomic.h>
#include <stdbool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/pool.h"

enum { TASKS_MAX = 2000 };

typedef struct counts {
    rt_pool *pool;
    atomic_uint runs[TASKS_MAX];
    atomic_uint thread_runs[8];
    atomic_bool is_in_use[8]; /* two tasks at once with one thread number would share scratch memory */
    atomic_uint clashes;
    unsigned n_threads;
} counts;

static void count_task(void *context, size_t index, unsigned thread)
{
    counts *c = context;
    if (thread >= c->n_threads || atomic_exchange(&c->is_in_use[thread], true))
        atomic_fetch_add(&c->clashes, 1);
    atomic_fetch_add(&c->runs[index], 1);
    atomic_fetch_add(&c->thread_runs[thread], 1);
    if (thread < c->n_threads)
        atomic_store(&c->is_in_use[thread], false);
}

static void each_task_of_many_jobs_runs_once_on_1_to_8_threads(void **state)
{
    (void)state;
    static counts c;
    for (unsigned n_threads = 1; n_threads <= 8; n_threads++) {
        rt_error err = {0};
        rt_pool *pool = NULL;
        assert_int_equal(rt_pool_open(&pool, n_threads, &err), RT_OK);
        assert_int_equal(rt_pool_threads(pool), n_threads);
        memset(&c, 0, sizeof c);
        c.n_threads = n_threads;
        for (size_t job = 0; job < 400; job++) {
            const size_t n_tasks = job * 5 % 97; /* 0, 1, fewer and more than threads */
            for (size_t i = 0; i < n_tasks; i++)
                atomic_store(&c.runs[i], 0);
            atomic_store(&c.runs[n_tasks], 0);
            rt_pool_run(pool, n_tasks, count_task, &c);
            for (size_t i = 0; i < n_tasks; i++)
                assert_int_equal(atomic_load(&c.runs[i]), 1);
            assert_int_equal(atomic_load(&c.runs[n_tasks]), 0);
        }
        assert_int_equal(atomic_load(&c.clashes), 0);
        rt_pool_close(pool);
    }
}

static void square_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    ((double *)context)[index] = (double)index * (double)index;
}

static void plain_memory_written_by_tasks_is_seen_by_the_caller(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_pool *pool = NULL;
    static double squares[TASKS_MAX];
    assert_int_equal(rt_pool_open(&pool, 4, &err), RT_OK);
    for (size_t job = 0; job < 50; job++) {
        memset(squares, 0, sizeof squares);
        rt_pool_run(pool, TASKS_MAX, square_task, squares);
        for (size_t i = 0; i < TASKS_MAX; i++)
            assert_true(squares[i] == (double)i * (double)i);
    }
    rt_pool_close(pool);
}

typedef struct nest {
    rt_pool *pool;
    counts *inner;
    atomic_uint outer_runs;
} nest;

static void inner_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    counts *c = context;
    atomic_fetch_add(&c->runs[index], 1);
}

static void outer_task(void *context, size_t index, unsigned thread)
{
    (void)index;
    (void)thread;
    nest *n = context;
    rt_pool_run(n->pool, 10, inner_task, n->inner);
    atomic_fetch_add(&n->outer_runs, 1);
}

static void calls_from_inside_a_task_run_in_it(void **state)
{
    (void)state;
    static counts inner;
    memset(&inner, 0, sizeof inner);
    rt_error err = {0};
    nest n = {.inner = &inner};
    assert_int_equal(rt_pool_open(&n.pool, 3, &err), RT_OK);
    for (size_t job = 0; job < 100; job++)
        rt_pool_run(n.pool, 20, outer_task, &n);
    assert_int_equal(atomic_load(&n.outer_runs), 2000);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(atomic_load(&inner.runs[i]), 2000);
    rt_pool_close(n.pool);
}

static void no_pool_means_the_caller_alone(void **state)
{
    (void)state;
    double squares[5] = {0};
    rt_pool_run(NULL, 5, square_task, squares);
    assert_true(squares[4] == 16.0);
    assert_int_equal(rt_pool_threads(NULL), 1);
    rt_pool_close(NULL);
}

static void opening_and_closing_leaves_nothing_behind_and_too_many_threads_are_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_pool *pool = NULL;
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(rt_pool_open(&pool, (unsigned)(i % 5), &err), RT_OK);
        if (i % 2)
            rt_pool_run(pool, 3, square_task, (double[3]){0});
        rt_pool_close(pool);
    }
    assert_int_equal(rt_pool_open(&pool, 100000, &err), RT_INVALID);
    assert_null(pool);
    assert_non_null(strstr(err.text, "100000 threads"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_task_of_many_jobs_runs_once_on_1_to_8_threads),
        cmocka_unit_test(plain_memory_written_by_tasks_is_seen_by_the_caller),
        cmocka_unit_test(calls_from_inside_a_task_run_in_it),
        cmocka_unit_test(no_pool_means_the_caller_alone),
        cmocka_unit_test(opening_and_closing_leaves_nothing_behind_and_too_many_threads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
