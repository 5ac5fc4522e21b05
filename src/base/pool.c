/* base/pool.c - see pool.h.
 *
 * A job is announced by one 64-bit ticket: generation (upper 32 bits), an open bit, and the number
 * of workers that have joined it.  A worker joins by adding one while the job is open; the caller
 * closes the job when no task is left to claim and waits for those who joined, so a worker that
 * the kernel has not scheduled in time is not waited for.  Workers and caller spin briefly, then
 * sleep on a condition variable. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { SPIN_TURNS = 1000, THREADS_MAX = 256 };
#define TICKET_OPEN ((uint64_t)1 << 31)
#define TICKET_JOINED (TICKET_OPEN - 1)
#define TICKET_NEXT ((uint64_t)1 << 32)

struct rt_pool {
    unsigned n_threads; /* the caller's included */
    pthread_t *threads; /* [n_threads - 1] */
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    rt_task_fn fn;
    void *context;
    size_t n_tasks;
    atomic_size_t next; /* the next task to claim */
    _Atomic uint64_t ticket;
    atomic_bool stop;
    atomic_uint sleeping; /* workers asleep, or about to be */
    bool waiting;         /* under lock: the caller sleeps */
};

typedef struct worker_start {
    rt_pool *pool;
    unsigned thread;
} worker_start;

static _Thread_local bool inside_task;
static _Thread_local unsigned current_thread;

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void work(rt_pool *pool)
{
    inside_task = true;
    for (;;) {
        const size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->n_tasks)
            break;
        pool->fn(pool->context, index, current_thread);
    }
    inside_task = false;
}

static bool has_news(const rt_pool *pool, uint64_t seen)
{
    const uint64_t now = atomic_load((const _Atomic uint64_t *)&pool->ticket);
    return (now >> 32) != seen && (now & TICKET_OPEN);
}

/* Waits for a job newer than `seen` and joins it; its generation, or `seen` when the pool stops. */
static uint64_t join_job(rt_pool *pool, uint64_t seen)
{
    for (;;) {
        for (int turn = 0; turn < SPIN_TURNS && !has_news(pool, seen); turn++)
            relax();
        if (!has_news(pool, seen)) {
            (void)pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleeping, 1);
            while (!has_news(pool, seen) && !atomic_load(&pool->stop))
                (void)pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->sleeping, 1);
            (void)pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->stop))
            return seen;
        uint64_t now = atomic_load(&pool->ticket);
        if ((now & TICKET_OPEN) && atomic_compare_exchange_strong(&pool->ticket, &now, now + 1))
            return now >> 32;
    }
}

static void *worker(void *argument)
{
    const worker_start start = *(worker_start *)argument;
    free(argument);
    rt_pool *pool = start.pool;
    current_thread = start.thread;
    for (uint64_t seen = 0;;) {
        const uint64_t now = join_job(pool, seen);
        if (now == seen)
            return NULL; /* stopped */
        seen = now;
        work(pool);
        const uint64_t left = atomic_fetch_sub(&pool->ticket, 1) - 1;
        if (!(left & TICKET_OPEN) && !(left & TICKET_JOINED)) {
            (void)pthread_mutex_lock(&pool->lock);
            if (pool->waiting)
                (void)pthread_cond_signal(&pool->finished);
            (void)pthread_mutex_unlock(&pool->lock);
        }
    }
}

static bool is_joined(const rt_pool *pool)
{
    return (atomic_load((const _Atomic uint64_t *)&pool->ticket) & TICKET_JOINED) != 0;
}

static void await_joined(rt_pool *pool)
{
    for (int turn = 0; turn < SPIN_TURNS && is_joined(pool); turn++)
        relax();
    if (!is_joined(pool))
        return;
    (void)pthread_mutex_lock(&pool->lock);
    pool->waiting = true;
    while (is_joined(pool))
        (void)pthread_cond_wait(&pool->finished, &pool->lock);
    pool->waiting = false;
    (void)pthread_mutex_unlock(&pool->lock);
}

void rt_pool_run(rt_pool *pool, size_t n_tasks, rt_task_fn fn, void *context)
{
    if (!pool || pool->n_threads == 1 || n_tasks <= 1 || inside_task) {
        for (size_t i = 0; i < n_tasks; i++)
            fn(context, i, current_thread);
        return;
    }
    pool->fn = fn;
    pool->context = context;
    pool->n_tasks = n_tasks;
    atomic_store(&pool->next, 0);
    const uint64_t generation = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, generation * TICKET_NEXT | TICKET_OPEN);
    if (atomic_load(&pool->sleeping)) {
        (void)pthread_mutex_lock(&pool->lock);
        (void)pthread_cond_broadcast(&pool->wake);
        (void)pthread_mutex_unlock(&pool->lock);
    }
    work(pool);
    atomic_fetch_and(&pool->ticket, ~TICKET_OPEN);
    await_joined(pool);
}

static unsigned processors(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    const int n = CPU_COUNT(&set);
    return n < 1 ? 1u : (unsigned)n;
}

rt_status rt_pool_open(rt_pool **out, unsigned n_threads, rt_error *err)
{
    *out = NULL;
    if (n_threads == 0)
        n_threads = processors();
    if (n_threads > THREADS_MAX)
        return rt_error_set(err, RT_INVALID, "%u threads are more than the %d that are allowed", n_threads,
                            (int)THREADS_MAX);
    rt_pool *pool = calloc(1, sizeof *pool);
    pthread_t *threads = calloc(n_threads, sizeof *threads);
    if (!pool || !threads) {
        free(pool);
        free(threads);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the thread pool");
    }
    pool->threads = threads;
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    (void)pthread_cond_init(&pool->finished, NULL);
    pool->n_threads = 1;
    for (unsigned i = 1; i < n_threads; i++) {
        worker_start *start = malloc(sizeof *start);
        if (start)
            *start = (worker_start){pool, i};
        if (!start || pthread_create(&pool->threads[i - 1], NULL, worker, start) != 0) {
            free(start);
            rt_pool_close(pool);
            return rt_error_set(err, RT_NO_MEMORY, "cannot start thread %u of %u", i + 1, n_threads);
        }
        pool->n_threads = i + 1;
    }
    *out = pool;
    return RT_OK;
}

void rt_pool_close(rt_pool *pool)
{
    if (!pool)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i + 1 < pool->n_threads; i++)
        (void)pthread_join(pool->threads[i], NULL);
    (void)pthread_cond_destroy(&pool->wake);
    (void)pthread_cond_destroy(&pool->finished);
    (void)pthread_mutex_destroy(&pool->lock);
    free(pool->threads);
    free(pool);
}

unsigned rt_pool_threads(const rt_pool *pool) { return pool ? pool->n_threads : 1; }
