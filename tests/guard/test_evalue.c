/* tests/guard/test_evalue.c - evidence over time: what benign accounts meet, ever, and what collectors do. */
#include "guard/evalue.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

enum { BENIGN = 1000, WEEKS = 40 };

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double normal(rt_rng *rng)
{
    return rt_evalue_deviate((double)(rt_rng_below(rng, UINT32_MAX) + 1) / ((double)UINT32_MAX + 1));
}

/* The conformal p-value of a score among sorted benign ones. */
static double conformal(const double *benign, double score)
{
    size_t low = 0, high = BENIGN;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (benign[middle] < score)
            low = middle + 1;
        else
            high = middle;
    }
    return (double)(1 + BENIGN - low) / (BENIGN + 1.0);
}

static void a_bet_has_mean_one_or_less_among_benign_accounts(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 19, 20, 99, 252, 1017, 20000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const double n = (double)sizes[i] + 1;
        double sum = 0, before = 1e300;
        for (size_t k = 1; k <= sizes[i] + 1; k++) {
            const double bet = rt_evalue_bet((double)k / n, 1 / n);
            assert_true(bet >= 0 && bet <= before);
            before = bet;
            sum += bet;
        }
        assert_true(sum / n <= 1 + 1e-9);
    }
    assert_true(rt_evalue_bet((double)NAN, 0.01) == 0);
    assert_true(isfinite(rt_evalue_bet(0, 0)));
}

static void deviates_are_the_inverse_of_the_normal_tail(void **state)
{
    (void)state;
    for (double p = 1e-6; p < 1; p = p < 0.9 ? p * 1.7 : p + 0.03)
        assert_true(fabs(0.5 * erfc(rt_evalue_deviate(p) * M_SQRT1_2) - p) < 1e-9);
    assert_true(rt_evalue_deviate(0) == 6 && rt_evalue_deviate(1) == -6);
}

static void the_past_never_makes_a_block_stronger(void **state)
{
    (void)state;
    for (double p = 1e-4; p < 1; p *= 1.5)
        for (double sum = -20; sum <= 20; sum += 2)
            for (uint32_t blocks = 0; blocks < 30; blocks += 7)
                assert_true(rt_evalue_p_after(p, sum, blocks, 0.5) >= p);
    assert_true(rt_evalue_p_after(0.01, 2.3, 1, 0.5) > 0.05); /* as odd as the week before: a habit */
}

/* The share of accounts whose e-value ever reaches 1 / alpha, looked at after every week.  The scores of an
 * account's weeks are correlated by `habit`; the guard takes them to be correlated by 1/2. */
static void ever_over(double *shares, const double *alphas, size_t n, double habit, double shift,
                      size_t accounts)
{
    rt_rng rng = rt_rng_make(7, (uint64_t)(habit * 100));
    double benign[BENIGN];
    for (size_t i = 0; i < n; i++)
        shares[i] = 0;
    for (size_t a = 0; a < accounts; a++) {
        if (a % 500 == 0) { /* another calibration sample: the promise is about the mean over them */
            for (size_t i = 0; i < BENIGN; i++)
                benign[i] = normal(&rng);
            qsort(benign, BENIGN, sizeof *benign, ascending);
        }
        rt_evalue_path path = {0};
        const double own = sqrt(habit) * normal(&rng);
        double most = 0;
        for (size_t week = 0; week < WEEKS; week++) {
            const double score = own + sqrt(1 - habit) * normal(&rng) + shift, raw = conformal(benign, score);
            const double p = rt_evalue_p_after(raw, (double)path.own_sum, path.blocks, 0.5);
            const double bet = rt_evalue_bet(p, 1 / (BENIGN + 1.0));
            most = fmax(most, rt_evalue_log(&path, bet));
            rt_evalue_close_block(&path, bet, rt_evalue_deviate(raw), 0);
        }
        for (size_t i = 0; i < n; i++)
            shares[i] += most >= log(1 / alphas[i]);
    }
    for (size_t i = 0; i < n; i++)
        shares[i] /= (double)accounts;
}

static void benign_accounts_ever_over_the_threshold_are_no_more_than_promised(void **state)
{
    (void)state;
    static const double alphas[] = {0.05, 0.01, 0.005, 0.001}, habits[] = {0, 0.25, 0.5, 0.7};
    enum { ACCOUNTS = 20000, N = 4 };
    for (size_t h = 0; h < N; h++) {
        double shares[N];
        ever_over(shares, alphas, N, habits[h], 0, ACCOUNTS);
        for (size_t i = 0; i < N; i++) {
            print_message("habit %.2f, alpha %.3f: %.5f of %d benign accounts in %d weeks\n", habits[h],
                          alphas[i], shares[i], ACCOUNTS, WEEKS);
            assert_true(shares[i] <= alphas[i] + 3 * sqrt(alphas[i] / ACCOUNTS));
        }
    }
}

static void collectors_who_go_on_are_over_the_threshold(void **state)
{
    (void)state;
    static const double alphas[] = {0.005, 0.001};
    double shares[2];
    ever_over(shares, alphas, 2, 0.25, 4.5, 2000);
    print_message("collectors 4.5 deviates out, alone, against %d benign accounts: %.3f ever over 200, %.3f "
                  "over 1000\n",
                  BENIGN, shares[0], shares[1]);
    assert_true(shares[0] > 0.8);
    /* a cluster's p is no longer bounded by the sample: one week is enough */
    const rt_evalue_path path = {0};
    assert_true(rt_evalue_log(&path, 0.5 * rt_evalue_bet(1e-5, 1e-6)) > log(1000));
}

static void an_honest_past_shields_nobody(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(11, 0);
    rt_evalue_path path = {0};
    for (size_t week = 0; week < 52; week++) {
        const double p = (double)(rt_rng_below(&rng, 950) + 50) / 1001;
        rt_evalue_close_block(&path, rt_evalue_bet(p, 1 / 1001.0), rt_evalue_deviate(p), 0);
    }
    size_t weeks = 0;
    while (rt_evalue_log_closed(&path) < log(200) && weeks < 10) {
        const double p = rt_evalue_p_after(1 / 1001.0, (double)path.own_sum, path.blocks, 0.5);
        rt_evalue_close_block(&path, rt_evalue_bet(p, 1 / 1001.0), rt_evalue_deviate(1 / 1001.0), 0);
        weeks++;
    }
    assert_true(weeks <= 4);
}

static void ebh_rejects_what_it_should_and_keeps_its_rate_under_any_dependence(void **state)
{
    (void)state;
    double e[] = {1, 30, 0.2, 400, 45, 2};
    assert_true(rt_ebh_threshold(e, 6, 0.2) ==
                30); /* the third largest is over 6 / (0.2 x 3) = 10, the fourth not over 7.5 */
    double none[] = {1, 2, 3};
    assert_true(isinf(rt_ebh_threshold(none, 3, 0.1)));
    assert_true(isinf(rt_ebh_threshold(none, 0, 0.1)));
    /* a hundred null accounts that all have one and the same e-value: a list is false as a whole or empty */
    rt_rng rng = rt_rng_make(3, 0);
    size_t lists = 0;
    for (size_t round = 0; round < 20000; round++) {
        double same[100];
        const double p = (double)(rt_rng_below(&rng, 1000) + 1) / 1000;
        for (size_t i = 0; i < 100; i++)
            same[i] = rt_evalue_bet(p, 0.001);
        lists += isfinite(rt_ebh_threshold(same, 100, 0.1));
    }
    assert_true((double)lists / 20000 <= 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bet_has_mean_one_or_less_among_benign_accounts),
        cmocka_unit_test(deviates_are_the_inverse_of_the_normal_tail),
        cmocka_unit_test(the_past_never_makes_a_block_stronger),
        cmocka_unit_test(benign_accounts_ever_over_the_threshold_are_no_more_than_promised),
        cmocka_unit_test(collectors_who_go_on_are_over_the_threshold),
        cmocka_unit_test(an_honest_past_shields_nobody),
        cmocka_unit_test(ebh_rejects_what_it_should_and_keeps_its_rate_under_any_dependence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
