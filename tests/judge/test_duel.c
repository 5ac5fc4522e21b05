/* tests/judge/test_duel.c - win rates: a liking for a place cancels, a liking for length is taken out, and
 * intervals hold the truth as often as they say. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "judge/duel.h"

enum { N = 400, RUNS = 200 };

static double logistic(double x) { return 1 / (1 + exp(-x)); }

/* A judge of `quality` in favour of the second model, with likings for length and for the first place; the
 * second model's answers are `longer` bytes longer on average. */
static void simulate(rt_duel_round *rounds, size_t n, uint64_t seed, double quality, double length,
                     double place, double longer)
{
    rt_rng rng = rt_rng_make(seed, 0);
    for (size_t i = 0; i < n; i++) {
        const double a = 300 + 200 * rt_rng_uniform(&rng), b = 300 + longer + 200 * rt_rng_uniform(&rng);
        const double taste = 2 * (rt_rng_uniform(&rng) - 0.5),
                     logit = quality + length * tanh((b - a) / 82) + taste;
        rounds[i] = (rt_duel_round){logistic(logit - place), logistic(logit + place), a, b};
    }
}

static void a_liking_for_a_place_cancels(void **state)
{
    (void)state;
    rt_duel_round rounds[N];
    rt_duel_figures f;
    rt_error err;
    simulate(rounds, N, 1, 0, 0, 2, 0);
    assert_int_equal(rt_duel_count(&f, rounds, N, 1, &err), RT_OK);
    assert_true(f.win_rate.lo < 0.5 && 0.5 < f.win_rate.hi);
    assert_true(f.first_place > 0.8); /* and it is said */
    assert_true(f.consistent < 0.3);
}

static void a_liking_for_length_is_taken_out(void **state)
{
    (void)state;
    rt_duel_round rounds[N];
    rt_duel_figures f;
    rt_error err;
    simulate(rounds, N, 2, 0, 1.5, 0, 80);
    assert_int_equal(rt_duel_count(&f, rounds, N, 1, &err), RT_OK);
    assert_true(f.win_rate.lo > 0.55);
    assert_true(f.length > 0.8);
    assert_true(fabs(f.length_controlled.value - 0.5) < 0.05); /* two standard errors */
    assert_true(f.length_controlled.value < f.win_rate.value - 0.05);
    simulate(rounds, N, 3, 1, 1.5, 0, -80); /* better, though shorter */
    assert_int_equal(rt_duel_count(&f, rounds, N, 1, &err), RT_OK);
    assert_true(f.length_controlled.lo > 0.6);
    assert_true(f.length_controlled.value > f.win_rate.value + 0.05);
}

static void intervals_hold_the_truth_about_as_often_as_they_say(void **state)
{
    (void)state;
    rt_duel_round rounds[100];
    rt_duel_figures f;
    rt_error err;
    size_t held = 0, controlled = 0;
    for (uint64_t run = 0; run < RUNS; run++) {
        simulate(rounds, 100, 100 + run, 0, 1, 0.5, 0);
        assert_int_equal(rt_duel_count(&f, rounds, 100, run, &err), RT_OK);
        held += f.win_rate.lo <= 0.5 && 0.5 <= f.win_rate.hi;
        controlled += f.length_controlled.lo <= 0.5 && 0.5 <= f.length_controlled.hi;
    }
    /* 95% of 200 is 190; below 180 has a chance under 1e-4 even at 93%, which is what 100 draws give */
    assert_true(held >= 174 && controlled >= 174);
}

static void a_walk_over_and_a_single_request_have_finite_figures(void **state)
{
    (void)state;
    rt_duel_round rounds[20];
    rt_duel_figures f;
    rt_error err;
    for (size_t i = 0; i < 20; i++)
        rounds[i] = (rt_duel_round){1, 1, 100, 100};
    assert_int_equal(rt_duel_count(&f, rounds, 20, 1, &err), RT_OK);
    assert_true(f.win_rate.value == 1 && isfinite(f.length_controlled.value) &&
                f.length_controlled.value > 0.95);
    assert_true(f.length == 0);
    assert_int_equal(rt_duel_count(&f, rounds, 1, 1, &err), RT_OK);
    assert_true(f.win_rate.value == 1 && isnan(f.win_rate.lo));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_liking_for_a_place_cancels),
        cmocka_unit_test(a_liking_for_length_is_taken_out),
        cmocka_unit_test(intervals_hold_the_truth_about_as_often_as_they_say),
        cmocka_unit_test(a_walk_over_and_a_single_request_have_finite_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
