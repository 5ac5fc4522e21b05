/* tests/base/test_rng.c - Philox gives the published values; what is built on it is uniform. */
#include <math.h>
#include <stdbool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"

/* The known answers that Random123 ships for philox4x32 with 10 rounds (kat_vectors): zeros, ones, digits of
 * pi. */
static void philox_gives_the_published_values(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t out[4];
        rt_philox4x32(cases[i].key, cases[i].counter, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void a_position_decides_its_number_whatever_was_drawn_before(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(42, 7);
    uint32_t words[100];
    for (size_t i = 0; i < 100; i++)
        words[i] = rt_rng_u32(&rng);
    for (size_t i = 100; i-- > 0;) {
        rt_rng jumped = rt_rng_make(42, 7);
        jumped.index = i;
        assert_int_equal(rt_rng_u32(&jumped), words[i]);
    }
    rt_rng other = rt_rng_make(42, 8), seed = rt_rng_make(43, 7);
    size_t same = 0;
    for (size_t i = 0; i < 100; i++) {
        same += rt_rng_u32(&other) == words[i];
        same += rt_rng_u32(&seed) == words[i];
    }
    assert_int_equal(same, 0);
}

/* 64 cells, 640,000 draws: chi-square with 63 degrees of freedom has mean 63 and deviation 11.2; 130 is six
 * deviations away (and the seed is fixed, so the outcome is too). */
static double chi_square_of_cells(uint64_t n_values, bool below)
{
    enum { CELLS = 64, DRAWS = 640000 };
    size_t cells[CELLS] = {0};
    rt_rng rng = rt_rng_make(1, n_values);
    for (size_t i = 0; i < DRAWS; i++) {
        const double x =
            below ? (double)rt_rng_below(&rng, n_values) / (double)n_values : rt_rng_uniform(&rng);
        assert_true(x >= 0 && x < 1);
        cells[(size_t)(x * CELLS)]++;
    }
    double chi = 0;
    for (size_t i = 0; i < CELLS; i++) {
        const double d = (double)cells[i] - (double)DRAWS / CELLS;
        chi += d * d / ((double)DRAWS / CELLS);
    }
    return chi;
}

static void uniform_and_below_are_uniform(void **state)
{
    (void)state;
    const double values[] = {chi_square_of_cells(0, false), chi_square_of_cells(64, true),
                             chi_square_of_cells(64ull << 55, true), chi_square_of_cells(UINT64_MAX, true)};
    for (size_t i = 0; i < 4; i++)
        assert_true(values[i] > 20 && values[i] < 130);
    rt_rng rng = rt_rng_make(3, 3);
    assert_int_equal(rt_rng_below(&rng, 1), 0);
}

static void normal_has_mean_0_variance_1_and_the_tails_of_a_gaussian(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    rt_rng rng = rt_rng_make(5, 0);
    double sum = 0, squares = 0;
    size_t beyond_2 = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        const double x = rt_rng_normal(&rng);
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
        beyond_2 += fabs(x) > 2;
    }
    assert_true(fabs(sum / DRAWS) < 0.01);         /* deviation 0.0022 */
    assert_true(fabs(squares / DRAWS - 1) < 0.02); /* deviation 0.0032 */
    assert_true(fabs((double)beyond_2 / DRAWS - 0.0455) < 0.003);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_values),
        cmocka_unit_test(a_position_decides_its_number_whatever_was_drawn_before),
        cmocka_unit_test(uniform_and_below_are_uniform),
        cmocka_unit_test(normal_has_mean_0_variance_1_and_the_tails_of_a_gaussian),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
