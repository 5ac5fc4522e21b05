/* tests/judge/test_task.c - figures of answers by hand and against their definition; which right answers are
 * kept. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/size.h"
#include "judge/harvest.h"
#include "judge/task.h"

/* C(n-c, k) / C(n, k) by counting all choices. */
static double pass_by_hand(size_t n, size_t c, size_t k)
{
    size_t all = 0, some = 0;
    for (uint32_t set = 0; set < (1u << n); set++) {
        if ((size_t)__builtin_popcount(set) != k)
            continue;
        all++;
        some += (set & ((1u << c) - 1)) != 0;
    }
    return (double)some / (double)all;
}

static void pass_at_k_is_the_share_of_choices_with_a_right_one(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 10; n++)
        for (size_t c = 0; c <= n; c++)
            for (size_t k = 1; k <= n; k++)
                assert_true(fabs(rt_pass_at(n, c, k) - pass_by_hand(n, c, k)) < 1e-12);
}

static rt_task_answer said(size_t problem, rt_verdict verdict, const char *final)
{
    return (rt_task_answer){problem, verdict, (char *)(uintptr_t) final};
}

static void figures_by_hand(void **state)
{
    (void)state;
    const rt_verdict yes = RT_VERDICT_RIGHT, no = RT_VERDICT_WRONG;
    const rt_task_answer answers[] = {
        said(4, no, "7"),
        said(1, yes, "3"),
        said(4, yes, "8"),
        said(1, no, "5"),
        said(4, yes, "8"),
        said(1, no, "5"),
        said(4, RT_VERDICT_NONE, ""),
        said(1, RT_VERDICT_STOPPED, ""),
        /* a tie: the first that was said */
        said(2, yes, "1"),
        said(2, no, "2"),
        said(2, no, "2"),
        said(2, yes, "1"),
    };
    rt_task_figures f;
    rt_error err = {0};
    assert_int_equal(rt_task_count(&f, answers, sizeof answers / sizeof answers[0], 6, 1, &err), RT_OK);
    assert_int_equal(f.problems, 3);
    assert_int_equal(f.right, 5);
    assert_int_equal(f.wrong, 5);
    assert_int_equal(f.none, 1);
    assert_int_equal(f.stopped, 1);
    assert_true(fabs(f.accuracy.value - (2. / 4 + 1. / 4 + 2. / 4) / 3) < 1e-12);
    assert_true(fabs(f.majority.value - 2. / 3) < 1e-12); /* 4 and 2, not 1 */
    assert_int_equal(f.n_pass, 3);
    assert_int_equal(f.pass_k[2], 4);
    assert_true(fabs(f.pass[2].value - 1) < 1e-12);
    assert_true(f.accuracy.lo <= f.accuracy.value && f.accuracy.value <= f.accuracy.hi);
    assert_int_equal(rt_task_count(&f, NULL, 0, 6, 1, &err), RT_OK);
    assert_int_equal(f.problems, 0);
}

/* 95% intervals of a known share hold it about 95 times in 100. */
static void two_models_are_compared_problem_by_problem(void **state)
{
    (void)state;
    const rt_verdict yes = RT_VERDICT_RIGHT, no = RT_VERDICT_WRONG;
    /* problem 0: 1/2 and 0/1; 1: only here; 2: 1/1 and 1/2 (majority wrong, the first said); 5: only there;
     * 7: both */
    const rt_task_answer answers[] = {said(7, yes, "4"), said(0, yes, "1"), said(1, yes, "2"),
                                      said(0, no, "3"), said(2, yes, "6")};
    const rt_task_answer before[] = {said(2, no, "5"), said(0, no, "9"), said(5, yes, "1"), said(2, yes, "6"),
                                     said(7, yes, "4")};
    rt_task_difference d;
    rt_error err = {0};
    assert_int_equal(rt_task_compare(&d, answers, 5, before, 5, 8, 1, &err), RT_OK);
    assert_int_equal(d.problems, 3);
    assert_true(fabs(d.accuracy.value - (0.5 + 0.5 + 0) / 3) < 1e-12);
    assert_true(fabs(d.majority.value - (1.0 + 1 + 0) / 3) < 1e-12);
    assert_true(d.accuracy.lo >= 0 && d.accuracy.hi <= 0.5 && d.accuracy.lo < d.accuracy.hi);
    /* where both answer alike nothing is left to chance, however unlike the problems are */
    assert_int_equal(rt_task_compare(&d, before, 5, before, 5, 8, 1, &err), RT_OK);
    assert_true(d.problems == 4 && d.accuracy.lo == 0 && d.accuracy.hi == 0 && d.majority.hi == 0);
    assert_int_equal(rt_task_compare(&d, answers + 2, 1, before, 5, 8, 1, &err), RT_OK);
    assert_int_equal(d.problems, 0);
}

static void intervals_hold_what_they_promise(void **state)
{
    (void)state;
    enum { TIMES = 300, PROBLEMS = 80, SAMPLES = 3 };
    static rt_task_answer answers[PROBLEMS * SAMPLES];
    rt_rng rng = rt_rng_make(8, 0);
    size_t held = 0;
    for (size_t time = 0; time < TIMES; time++) {
        for (size_t p = 0; p < PROBLEMS; p++) {
            const double chance = rt_rng_uniform(&rng); /* mean 1/2; answers of a problem go together */
            for (size_t i = 0; i < SAMPLES; i++)
                answers[p * SAMPLES + i] =
                    said(p, rt_rng_uniform(&rng) < chance ? RT_VERDICT_RIGHT : RT_VERDICT_WRONG, "");
        }
        rt_task_figures f;
        rt_error err = {0};
        assert_int_equal(rt_task_count(&f, answers, PROBLEMS * SAMPLES, PROBLEMS, time, &err), RT_OK);
        held += f.accuracy.lo <= 0.5 && 0.5 <= f.accuracy.hi;
    }
    /* binomial(300, .94): 260 is six standard deviations below */
    if (held < 260 || held == TIMES)
        fail_msg("%zu of %d intervals hold the truth", held, (int)TIMES);
}

static rt_harvest_answer grown(size_t problem, const char *text, size_t tokens, rt_verdict verdict,
                               bool stopped)
{
    return (rt_harvest_answer){.problem = problem,
                               .text = text,
                               .n = strlen(text),
                               .tokens = tokens,
                               .stopped = stopped,
                               .verdict = verdict};
}

static void right_whole_short_and_different_answers_are_kept(void **state)
{
    (void)state;
    static const char loop[] =
        "So it is so. It is so. It is so. It is so. It is so. It is so. It is so. It is so. It is so. "
        "It is so. It is so. It is so. It is so. It is so. It is so. It is so. It is so. It is so. ";
    const rt_verdict yes = RT_VERDICT_RIGHT;
    const rt_harvest_answer given[] = {
        grown(0, "long and right", 90, yes, true),
        grown(0, "short and right", 20, yes, true),
        grown(0, "wrong", 5, RT_VERDICT_WRONG, true),
        grown(0, "short and right", 20, yes, true),
        grown(0, "cut", 10, yes, false),
        grown(0, "too long", 300, yes, true),
        grown(1, loop, 60, yes, true),
        grown(1, "another", 50, yes, true),
        grown(2, "nothing found", 5, RT_VERDICT_NONE, true),
    };
    enum { N = sizeof given / sizeof given[0] };
    static const struct {
        rt_keep keep;
        size_t most;
        bool kept[N];
        size_t n_beyond;
    } cases[] = {
        {RT_KEEP_ALL, 0, {1, 1, 0, 0, 0, 0, 0, 1, 0}, 0},
        {RT_KEEP_ALL, 1, {1, 0, 0, 0, 0, 0, 0, 1, 0}, 2},
        {RT_KEEP_SHORTEST, 0, {0, 1, 0, 0, 0, 0, 0, 1, 0}, 1},
        {RT_KEEP_FIRST, 0, {1, 0, 0, 0, 0, 0, 0, 1, 0}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_harvest_answer answers[N];
        memcpy(answers, given, sizeof given);
        const rt_harvest_options options = {cases[i].keep, cases[i].most, 200};
        rt_harvest_counts counts;
        rt_error err = {0};
        assert_int_equal(rt_harvest(answers, N, &options, &counts, &err), RT_OK);
        size_t kept = 0;
        for (size_t k = 0; k < N; k++) {
            if (answers[k].kept != cases[i].kept[k])
                fail_msg("case %zu: answer %zu is %s", i, k, answers[k].kept ? "kept" : "not kept");
            kept += answers[k].kept;
        }
        assert_int_equal(counts.right, 7);
        assert_int_equal(counts.kept, kept);
        assert_int_equal(counts.cut, 1);
        assert_int_equal(counts.long_, 1);
        assert_int_equal(counts.looping, 1);
        assert_int_equal(counts.beyond, cases[i].n_beyond);
        assert_int_equal(counts.right, counts.kept + counts.cut + counts.long_ + counts.looping +
                                           counts.twice + counts.beyond);
    }
}

static void loops_are_told_from_tables(void **state)
{
    (void)state;
    assert_false(rt_text_loops("", 0));
    assert_false(rt_text_loops("aaaa", 4));
    static const char table[] =
        "1 x 2 = 2\n2 x 2 = 4\n3 x 2 = 6\n4 x 2 = 8\n5 x 2 = 10\n6 x 2 = 12\n7 x 2 = 14\n8 x 2 = 16";
    assert_false(rt_text_loops(table, sizeof table - 1));
    char text[3000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "the same words again, "[i % 22];
    assert_true(rt_text_loops(text, sizeof text));
}

static void shared_runs_of_words_are_found(void **state)
{
    (void)state;
    rt_overlap *overlap;
    rt_error err = {0};
    static const char test[] =
        "Ann has seven red apples and gives three of them to Bob; how many are left for her?";
    assert_int_equal(rt_overlap_open(&overlap, 5, &err), RT_OK);
    assert_false(rt_overlap_shares(overlap, test, sizeof test - 1));
    assert_int_equal(rt_overlap_add(overlap, test, sizeof test - 1, &err), RT_OK);
    static const char same[] = "Once: \"GIVES three, of them: to\" nobody.",
                      other[] = "Ann has seven red pears and gives two.";
    assert_true(rt_overlap_shares(overlap, same, sizeof same - 1));
    assert_false(rt_overlap_shares(overlap, other, sizeof other - 1));
    /* many of them */
    for (size_t i = 0; i < 5000; i++) {
        char text[64];
        const int n = snprintf(text, sizeof text, "one two three %zu five six %zu", i, i * 7);
        assert_int_equal(rt_overlap_add(overlap, text, (size_t)n, &err), RT_OK);
    }
    assert_true(rt_overlap_shares(overlap, "two three 4321 five six", 23));
    assert_false(rt_overlap_shares(overlap, "two three 5001 five six", 23));
    rt_overlap_close(overlap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass_at_k_is_the_share_of_choices_with_a_right_one),
        cmocka_unit_test(figures_by_hand),
        cmocka_unit_test(two_models_are_compared_problem_by_problem),
        cmocka_unit_test(intervals_hold_what_they_promise),
        cmocka_unit_test(right_whole_short_and_different_answers_are_kept),
        cmocka_unit_test(loops_are_told_from_tables),
        cmocka_unit_test(shared_runs_of_words_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
