/* tests/evidence/test_tails.c - tails at their edges, and statistics under a null that is known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "evidence/combine.h"
#include "evidence/rank.h"
#include "evidence/reading.h"
#include "evidence/saddle.h"
#include "evidence/tails.h"

#define assert_near(x, ref, tolerance) assert_true(fabs((x) - (ref)) <= (tolerance))

static void nothing_and_everything_have_their_exact_tails(void **state)
{
    (void)state;
    assert_true(rt_log10_binomial(0, 0, 0.25) == 0);
    assert_true(rt_log10_binomial(7, 0, 0) == 0);
    assert_true(rt_log10_binomial(7, 7, 1) == 0);
    assert_true(isinf(rt_log10_binomial(7, 1, 0)));
    assert_near(rt_log10_binomial(7, 7, 0.25), 7 * log10(0.25), 1e-12);
    assert_near(rt_log10_binomial(1000000000, 250000000, 0.25), log10(0.5), 1e-4);
    assert_true(rt_log10_gamma(3, 0) == 0);
    assert_near(rt_log10_gamma(1, 690), -690 / log(10), 1e-9);
    assert_near(rt_log10_normal(-40), 0, 1e-300);
    assert_near(rt_log10_chi2(3.841458820694124, 1), log10(0.05), 1e-12);
    assert_near(rt_log10_student(2.228138851986274, 10), log10(0.025), 1e-12);
    const rt_range none = rt_clopper_pearson(0, 0, 0.95), all = rt_clopper_pearson(20, 20, 0.95);
    assert_true(none.lo == 0 && none.hi == 1 && all.hi == 1);
}

static void the_quantile_turns_the_normal_tail_round(void **state)
{
    (void)state;
    for (double z = -8; z < 60; z += 0.37)
        assert_near(rt_normal_upper_quantile(rt_log10_normal(z)), z, 1e-7 * (1 + fabs(z)));
}

static void a_perfect_order_has_the_permutations_p_and_not_zero(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4, 5}, y[] = {2, 4, 6, 8, 10};
    rt_spearman s;
    rt_error err = {0};
    assert_int_equal(rt_spearman_test(&s, x, y, 5, &err), RT_OK);
    assert_true(s.rho == 1);
    assert_near(s.log10_greater, -log10(120), 1e-9);
    assert_true(s.log10_less == 0);
}

static void ranks_of_canaries_sum_exactly(void **state)
{
    (void)state;
    double p;
    rt_error err = {0};
    assert_int_equal(rt_canary_exact(&p, 2, 2, 10, &err), RT_OK);
    assert_near(p, -2, 1e-9);
    assert_int_equal(rt_canary_exact(&p, 20, 2, 10, &err), RT_OK);
    assert_near(p, 0, 1e-9);
}

static void uniform_and_crowded_samples_are_told_apart_by_ks(void **state)
{
    (void)state;
    double x[1000];
    rt_rng rng = rt_rng_make(3, 1);
    for (size_t i = 0; i < 1000; i++)
        x[i] = rt_rng_uniform(&rng);
    assert_true(rt_ks_p(rt_ks_statistic(x, 1000), 1000) > 0.01);
    for (size_t i = 0; i < 1000; i++)
        x[i] *= x[i];
    assert_true(rt_ks_p(rt_ks_statistic(x, 1000), 1000) < 1e-10);
    /* the exact and the doubled one-sided form meet */
    assert_near(rt_ks_p(0.0575, 1000) / rt_ks_p(0.0580, 1000), 1.12, 0.03);
}

/* Random text, random keys: each scheme's p is uniform, in its tails too. */
static void p_is_uniform(rt_scheme scheme, size_t length)
{
    enum { KEYS = 400 };
    double p[KEYS];
    size_t small = 0;
    int32_t ids[4000];
    rt_error err = {0};
    rt_watermark mark = rt_watermark_default(scheme);
    rt_pairs *pairs;
    rt_scorer *scorer;
    rt_rng rng = rt_rng_make(11, scheme);
    for (size_t i = 0; i < length; i++)
        ids[i] = (int32_t)rt_rng_below(&rng, 300);
    assert_int_equal(rt_pairs_open(&pairs, mark.h, RT_DEDUP_PAIR, &err), RT_OK);
    assert_int_equal(rt_pairs_add(pairs, ids, length, &err), RT_OK);
    assert_int_equal(rt_scorer_open(&scorer, &mark, &err), RT_OK);
    for (size_t k = 0; k < KEYS; k++) {
        uint8_t key[16];
        rt_score score;
        for (size_t b = 0; b < 16; b++)
            key[b] = (uint8_t)rt_rng_u32(&rng);
        rt_scorer_set_key(scorer, key);
        assert_int_equal(rt_scorer_run(scorer, pairs, &score, &err), RT_OK);
        p[k] = pow(10, score.log10_p);
        /* a discrete tail is spread over its step, so that it can be uniform */
        if (scheme == RT_SCHEME_KGW || scheme == RT_SCHEME_UNIGRAM) {
            const double above = pow(10, rt_log10_binomial(score.n, score.ones + 1, mark.gamma));
            p[k] = above + rt_rng_uniform(&rng) * (p[k] - above);
        }
        small += p[k] < 0.01;
    }
    rt_scorer_close(scorer);
    rt_pairs_close(pairs);
    const double ks = rt_ks_p(rt_ks_statistic(p, KEYS), KEYS);
    if (!(ks > 0.01 && small <= 12))
        fail_msg("%s: KS p %g, %zu of %d below 0.01", rt_scheme_word(scheme), ks, small, (int)KEYS);
}

static void p_is_uniform_over_random_keys_for_each_native_scheme(void **state)
{
    (void)state;
    p_is_uniform(RT_SCHEME_KGW, 4000);
    p_is_uniform(RT_SCHEME_UNIGRAM, 4000);
    p_is_uniform(RT_SCHEME_GUMBEL, 2000);
    p_is_uniform(RT_SCHEME_TOURNAMENT, 1000);
}

static void pooled_reading_is_uniform_over_random_keys_and_one_for_equal_models(void **state)
{
    (void)state;
    enum { KEYS = 400, ROWS = 200, LISTED = 20 };
    static const rt_scheme schemes[] = {RT_SCHEME_KGW, RT_SCHEME_GUMBEL, RT_SCHEME_TOURNAMENT};
    rt_error err = {0};
    for (size_t s = 0; s < 3; s++) {
        double p[KEYS];
        rt_watermark mark = rt_watermark_default(schemes[s]);
        rt_reading *reading, *same;
        rt_scorer *scorer;
        rt_reading_result result;
        rt_rng rng = rt_rng_make(5, s);
        assert_int_equal(rt_reading_open(&reading, 2, &err), RT_OK);
        assert_int_equal(rt_reading_open(&same, 2, &err), RT_OK);
        for (size_t i = 0; i < ROWS; i++) {
            const int32_t context[2] = {(int32_t)rt_rng_below(&rng, 20), (int32_t)rt_rng_below(&rng, 20)};
            for (size_t j = 0; j < LISTED; j++) {
                const int32_t token = (int32_t)rt_rng_below(&rng, 100);
                const double a = 0.2 * (rt_rng_uniform(&rng) - 0.4);
                assert_int_equal(rt_reading_add(reading, context, token, a, &err), RT_OK);
                assert_int_equal(rt_reading_add(same, context, token, 0.25, &err), RT_OK);
                assert_int_equal(rt_reading_add(same, context, token, -0.25, &err), RT_OK);
            }
        }
        assert_int_equal(rt_reading_freeze(reading, 1e-4, &err), RT_OK);
        assert_int_equal(rt_reading_freeze(same, 1e-4, &err), RT_OK);
        assert_int_equal(rt_scorer_open(&scorer, &mark, &err), RT_OK);
        for (size_t k = 0; k < KEYS; k++) {
            uint8_t key[16];
            for (size_t b = 0; b < 16; b++)
                key[b] = (uint8_t)rt_rng_u32(&rng);
            rt_scorer_set_key(scorer, key);
            assert_int_equal(rt_reading_test(reading, scorer, &result, &err), RT_OK);
            p[k] = pow(10, result.log10_p);
        }
        const double ks = rt_ks_p(rt_ks_statistic(p, KEYS), KEYS);
        if (!(ks > 0.01))
            fail_msg("%s: KS p %g", rt_scheme_word(schemes[s]), ks);
        assert_int_equal(rt_reading_test(same, scorer, &result, &err), RT_OK);
        assert_true(result.variance == 0 && result.log10_p == 0);
        rt_scorer_close(scorer);
        rt_reading_close(reading);
        rt_reading_close(same);
    }
}

static void a_probability_that_is_not_a_number_is_refused(void **state)
{
    (void)state;
    const int32_t context[2] = {1, 2};
    rt_reading *reading;
    rt_error err = {0};
    assert_int_equal(rt_reading_open(&reading, 2, &err), RT_OK);
    assert_int_equal(rt_reading_add(reading, context, 3, (double)NAN, &err), RT_CORRUPT);
    rt_reading_close(reading);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_and_everything_have_their_exact_tails),
        cmocka_unit_test(the_quantile_turns_the_normal_tail_round),
        cmocka_unit_test(a_perfect_order_has_the_permutations_p_and_not_zero),
        cmocka_unit_test(ranks_of_canaries_sum_exactly),
        cmocka_unit_test(uniform_and_crowded_samples_are_told_apart_by_ks),
        cmocka_unit_test(p_is_uniform_over_random_keys_for_each_native_scheme),
        cmocka_unit_test(pooled_reading_is_uniform_over_random_keys_and_one_for_equal_models),
        cmocka_unit_test(a_probability_that_is_not_a_number_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
