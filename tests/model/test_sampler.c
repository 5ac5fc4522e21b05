/* tests/model/test_sampler.c - each rule of the sampler on logits made by hand, and the draws' frequencies.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/size.h"
#include "model/sampler.h"
#include "tensor/cpu.h"

enum { VOCAB = 8, DRAWS = 20000 };

/* Probabilities .4 .2 .15 .1 .06 .04 .03 .02, out of order. */
static const double masses[VOCAB] = {0.1, 0.4, 0.03, 0.2, 0.02, 0.15, 0.06, 0.04};

static rt_sampler *sampler;

static int32_t draw(const rt_sampling *how, const int32_t *seen, size_t n_seen, uint64_t stream,
                    uint64_t position)
{
    float logits[VOCAB];
    for (size_t i = 0; i < VOCAB; i++)
        logits[i] = (float)(log(masses[i]) + 3); /* a shift changes nothing */
    return rt_sample(sampler, how, logits, seen, n_seen, stream, position);
}

static rt_sampling warm(double temperature, uint64_t seed)
{
    rt_sampling how = rt_sampling_default();
    how.temperature = temperature;
    how.seed = seed;
    return how;
}

/* The draws follow `expected` (any scale; 0: never drawn).  The 99.99% quantile of chi-square with 7 degrees
 * of freedom is 29.9, with fewer it is smaller; the seed is fixed. */
static void check_frequencies(const rt_sampling *how, const double expected[VOCAB])
{
    size_t counts[VOCAB] = {0};
    double total = 0, chi_square = 0;
    for (size_t i = 0; i < VOCAB; i++)
        total += expected[i];
    for (uint64_t i = 0; i < DRAWS; i++)
        counts[draw(how, NULL, 0, i / 100, i % 100)]++;
    for (size_t i = 0; i < VOCAB; i++) {
        const double want = expected[i] / total * DRAWS;
        if (expected[i] == 0) {
            assert_int_equal(counts[i], 0);
            continue;
        }
        chi_square += ((double)counts[i] - want) * ((double)counts[i] - want) / want;
    }
    if (!(chi_square < 29.9))
        fail_msg("chi-square %g", chi_square);
}

static void greedy_takes_the_first_of_the_largest(void **state)
{
    (void)state;
    const rt_sampling how = rt_sampling_default();
    assert_int_equal(draw(&how, NULL, 0, 0, 0), 1);
    float logits[VOCAB] = {0, 2, 5, -1, 5, 5, 0, 0};
    assert_int_equal(rt_sample(sampler, &how, logits, NULL, 0, 9, 9), 2);
}

static void plain_draws_follow_the_probabilities(void **state)
{
    (void)state;
    const rt_sampling how = warm(1, 1);
    check_frequencies(&how, masses);
}

static void temperature_sharpens_and_flattens(void **state)
{
    (void)state;
    static const double temperatures[] = {0.5, 2};
    for (size_t t = 0; t < 2; t++) {
        double expected[VOCAB];
        for (size_t i = 0; i < VOCAB; i++)
            expected[i] = pow(masses[i], 1 / temperatures[t]);
        const rt_sampling how = warm(temperatures[t], 2);
        check_frequencies(&how, expected);
    }
    const rt_sampling cold = warm(1e-4, 3); /* a number so small is as good as greedy */
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(draw(&cold, NULL, 0, 0, i), 1);
}

static void top_k_keeps_the_k_likeliest(void **state)
{
    (void)state;
    const double three[VOCAB] = {0, 0.4, 0, 0.2, 0, 0.15, 0, 0};
    rt_sampling how = warm(1, 4);
    how.top_k = 3;
    check_frequencies(&how, three);
    how.top_k = 1000; /* more than there are */
    check_frequencies(&how, masses);
    how.top_k = 1;
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(draw(&how, NULL, 0, 0, i), 1);
}

static void top_p_keeps_the_smallest_set_that_reaches_the_mass(void **state)
{
    (void)state;
    const double three[VOCAB] = {0, 0.4, 0, 0.2, 0, 0.15, 0, 0}, one[VOCAB] = {0, 0.4};
    rt_sampling how = warm(1, 5);
    how.top_p = 0.7; /* .4 + .2 is not enough, the third crosses it */
    check_frequencies(&how, three);
    how.top_p = 0.3;
    check_frequencies(&how, one);
    how.top_k = 2; /* of their mass .6: .4 is two thirds, so .5 needs one id, .7 both */
    how.top_p = 0.5;
    check_frequencies(&how, one);
    const double two[VOCAB] = {0, 0.4, 0, 0.2};
    how.top_p = 0.7;
    check_frequencies(&how, two);
}

static void min_p_keeps_what_is_near_the_best(void **state)
{
    (void)state;
    const double four[VOCAB] = {0.1, 0.4, 0, 0.2, 0, 0.15, 0, 0};
    rt_sampling how = warm(1, 6);
    how.min_p = 0.2; /* .08 and more */
    check_frequencies(&how, four);
    how.min_p = 1;
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(draw(&how, NULL, 0, 0, i), 1);
}

static void penalties_change_the_logits_of_what_was_seen(void **state)
{
    (void)state;
    const int32_t seen[] = {1, 3, 1, 1, -5, 99}; /* ids out of range are passed over */
    float logits[VOCAB] = {0, 4, -2, -3, 0, 0, 0, 1};
    rt_sampling how = rt_sampling_default();
    how.repetition_penalty = 2;
    assert_int_equal(rt_sample(sampler, &how, logits, seen, 6, 0, 0), 1);
    assert_float_equal(logits[1], 2, 0);  /* positive: divided, once */
    assert_float_equal(logits[3], -6, 0); /* negative: multiplied */
    assert_float_equal(logits[2], -2, 0); /* not seen */
    how.repetition_penalty = 1;
    how.frequency_penalty = 0.5;
    how.presence_penalty = 0.25;
    assert_int_equal(rt_sample(sampler, &how, logits, seen, 6, 0, 0), 7);
    assert_float_equal(logits[1], 0.25f, 1e-6f);
    assert_float_equal(logits[3], -6.75f, 1e-6f);
    how = rt_sampling_default();
    how.repetition_penalty = 1.5; /* nothing is left of the calls before */
    float again[VOCAB] = {3, 1};
    (void)rt_sample(sampler, &how, again, NULL, 0, 0, 0);
    assert_float_equal(again[0], 3, 0);
    assert_float_equal(again[1], 1, 0);
}

static void a_draw_depends_on_seed_stream_and_position_alone(void **state)
{
    (void)state;
    const rt_sampling how = warm(1, 7), other = warm(1, 8);
    size_t same_stream = 0, same_position = 0, same_seed = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        const int32_t id = draw(&how, NULL, 0, i, i + 3);
        (void)draw(&how, NULL, 0, i + 1, 0); /* history does not matter */
        assert_int_equal(draw(&how, NULL, 0, i, i + 3), id);
        same_stream += draw(&how, NULL, 0, i + 5000, i + 3) == id;
        same_position += draw(&how, NULL, 0, i, i + 4) == id;
        same_seed += draw(&other, NULL, 0, i, i + 3) == id;
    }
    /* two independent draws agree with probability sum p² = 0.2390: 239 ± 4 × 13.5 of 1,000 */
    assert_in_range(same_stream, 185, 293);
    assert_in_range(same_position, 185, 293);
    assert_in_range(same_seed, 185, 293);
}

static void masked_and_enormous_logits_do_no_harm(void **state)
{
    (void)state;
    rt_sampling how = warm(1, 9);
    for (uint64_t i = 0; i < 200; i++) {
        float logits[VOCAB] = {-INFINITY, 1e30f, 1e30f, -INFINITY, -1e30f, 0, 0, 0};
        how.top_p = i % 2 ? 0.9 : 1;
        const int32_t id = rt_sample(sampler, &how, logits, NULL, 0, 0, i);
        assert_true(id == 1 || id == 2);
    }
}

static void settings_out_of_range_are_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_sampling how = rt_sampling_default();
    assert_int_equal(rt_sampling_check(&how, &err), RT_OK);
    const struct {
        size_t offset;
        double value;
        const char *word;
    } wrong[] = {{offsetof(rt_sampling, temperature), -1, "temperature"},
                 {offsetof(rt_sampling, temperature), (double)NAN, "temperature"},
                 {offsetof(rt_sampling, top_p), 0, "top_p"},
                 {offsetof(rt_sampling, top_p), 1.5, "top_p"},
                 {offsetof(rt_sampling, min_p), -0.1, "min_p"},
                 {offsetof(rt_sampling, repetition_penalty), 0, "repetition_penalty"},
                 {offsetof(rt_sampling, frequency_penalty), (double)INFINITY, "penalty"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        how = rt_sampling_default();
        memcpy((char *)&how + wrong[i].offset, &wrong[i].value, sizeof(double));
        assert_int_equal(rt_sampling_check(&how, &err), RT_INVALID);
        assert_non_null(strstr(err.text, wrong[i].word));
    }
}

/* Rows of an output layer beyond the tokenizer's ids, however likely, and whatever the filters. */
static void padding_is_never_drawn(void **state)
{
    (void)state;
    rt_sampling how = rt_sampling_default();
    float logits[VOCAB], p[VOCAB];
    rt_sampler_limit(sampler, 3);
    for (int turn = 0; turn < 300; turn++) {
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)i;
        how.temperature = turn % 3;
        how.top_k = turn % 4 == 1 ? VOCAB : 0;
        how.top_p = turn % 4 == 2 ? 0.9999 : 1;
        assert_in_range(rt_sample(sampler, &how, logits, NULL, 0, 1, (uint64_t)turn), 0, 2);
    }
    how = rt_sampling_default();
    how.temperature = 1;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)i;
    rt_sampler_distribution(sampler, &how, logits, NULL, 0, p);
    assert_true(fabs((double)(p[0] + p[1] + p[2]) - 1) < 1e-6 && p[3] == 0);
    rt_sampler_limit(sampler, VOCAB);
}

static int open_sampler(void **state)
{
    (void)state;
    rt_error err = {0};
    return rt_sampler_open(&sampler, VOCAB, &err);
}

static int close_sampler(void **state)
{
    (void)state;
    rt_sampler_close(sampler);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(plain_draws_follow_the_probabilities),
        cmocka_unit_test(temperature_sharpens_and_flattens),
        cmocka_unit_test(top_k_keeps_the_k_likeliest),
        cmocka_unit_test(top_p_keeps_the_smallest_set_that_reaches_the_mass),
        cmocka_unit_test(min_p_keeps_what_is_near_the_best),
        cmocka_unit_test(penalties_change_the_logits_of_what_was_seen),
        cmocka_unit_test(a_draw_depends_on_seed_stream_and_position_alone),
        cmocka_unit_test(masked_and_enormous_logits_do_no_harm),
        cmocka_unit_test(settings_out_of_range_are_refused),
        cmocka_unit_test(padding_is_never_drawn),
    };
    return cmocka_run_group_tests(tests, open_sampler, close_sampler);
}
