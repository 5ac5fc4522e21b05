/* tests/judge/test_metrics.c - the judge's figures are their definitions; intervals come from documents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "judge/bootstrap.h"
#include "judge/metrics.h"
#include "student/loss.h"
#include "tensor/cpu.h"

enum { V = 101, DOCS = 9, RESAMPLES = 400 };

static void fill(float *x, size_t n, uint64_t stream)
{
    rt_rng rng = rt_rng_make(5, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(2 * rt_rng_normal(&rng));
}

static void softmax(double *p, const float *z)
{
    double sum = 0;
    for (size_t i = 0; i < V; i++)
        sum += p[i] = exp((double)z[i]);
    for (size_t i = 0; i < V; i++)
        p[i] /= sum;
}

static size_t before_by(const float *z, size_t id) /* its place in the order of falling logit */
{
    size_t rank = 0;
    for (size_t i = 0; i < V; i++)
        rank += z[i] > z[id] || (z[i] == z[id] && i < id);
    return rank;
}

static void check_row(const float *z, const float *zt, size_t label, void *work)
{
    double p[V], q[V], fkl = 0, rkl = 0, tvd = 0, top = 0;
    rt_token_metrics got;
    softmax(p, z);
    softmax(q, zt);
    size_t first_s = 0, first_t = 0;
    for (size_t i = 0; i < V; i++) {
        fkl += q[i] > 0 ? q[i] * log(q[i] / p[i]) : 0;
        rkl += p[i] > 0 ? p[i] * log(p[i] / q[i]) : 0;
        tvd += 0.5 * fabs(p[i] - q[i]);
        top = p[i] > top ? p[i] : top;
        first_s = before_by(z, i) == 0 ? i : first_s;
        first_t = before_by(zt, i) == 0 ? i : first_t;
    }
    rt_metrics_row(&got, z, zt, label, V, work);
    assert_true(fabs(got.nll_student + log(p[label])) < 5e-6 && fabs(got.nll_teacher + log(q[label])) < 5e-6);
    assert_true(fabs(got.kl_forward - fkl) < 5e-6 && fabs(got.kl_reverse - rkl) < 5e-6);
    assert_true(fabs(got.tvd - tvd) < 5e-6 && fabs(got.confidence - top) < 5e-6);
    assert_int_equal(got.correct, first_s == label);
    assert_int_equal(got.top1_agree, first_s == first_t);
    assert_int_equal(got.top5_agree, before_by(z, first_t) < 5);
}

static void every_figure_of_a_token_is_its_definition(void **state)
{
    (void)state;
    float z[V], zt[V];
    void *work = malloc(rt_loss_work_bytes(V));
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512BF16; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        for (uint64_t round = 0; round < 40; round++) {
            fill(z, V, 2 * round);
            fill(zt, V, round % 3 ? 2 * round + 1 : 2 * round);
            z[round] = z[(7 * round + 3) % V]; /* ties */
            check_row(z, zt, round % V, work);
        }
    }
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
    free(work);
}

static void masked_ids_do_not_spoil_a_token(void **state)
{
    (void)state;
    float z[V], zt[V];
    rt_token_metrics got;
    void *work = malloc(rt_loss_work_bytes(V));
    fill(z, V, 1);
    fill(zt, V, 2);
    z[4] = zt[4] = -INFINITY;
    rt_metrics_row(&got, z, zt, 0, V, work);
    assert_true(isfinite(got.kl_forward) && isfinite(got.kl_reverse) && got.tvd > 0 && got.tvd < 1);
    assert_true(got.confidence > 0 && got.confidence < 1);
    free(work);
}

static void bins_close_on_their_right(void **state)
{
    (void)state;
    rt_metrics_sum sum = {0};
    rt_metrics_add_token(&sum, &(rt_token_metrics){.confidence = 3.0 / 15, .correct = true});
    rt_metrics_add_token(&sum, &(rt_token_metrics){.confidence = 1});
    rt_metrics_add_token(&sum, &(rt_token_metrics){.confidence = 0});
    assert_true(sum.bin_count[2] == 1 && sum.bin_count[14] == 1 && sum.bin_count[0] == 1);
    assert_true(fabs(rt_metrics_ece(&sum) - (0.8 + 1 + 0) / 3) < 1e-12);
    assert_true(rt_metrics_ece(&(rt_metrics_sum){0}) == 0 &&
                rt_metrics_perplexity(&(rt_metrics_sum){0}) == 1);
}

static void drafts_yield_the_geometric_sum(void **state)
{
    (void)state;
    assert_true(fabs(rt_tokens_per_round(0.6, 4) - (1 - pow(0.6, 5)) / 0.4) < 1e-12);
    assert_true(rt_tokens_per_round(1, 4) == 5 && rt_tokens_per_round(0, 4) == 1);
}

static void quantiles_interpolate(void **state)
{
    (void)state;
    const double x[] = {1, 2, 4, 8};
    assert_true(rt_quantile(x, 4, 0) == 1 && rt_quantile(x, 4, 1) == 8);
    assert_true(fabs(rt_quantile(x, 4, 0.5) - 3) < 1e-12 && fabs(rt_quantile(x, 4, 0.975) - 7.7) < 1e-12);
    assert_true(rt_quantile(x, 1, 0.3) == 1);
}

static void intervals_hold_the_figure_and_pairs_cancel(void **state)
{
    (void)state;
    static uint32_t resamples[RESAMPLES * DOCS], again[RESAMPLES * DOCS];
    static double scratch[RESAMPLES];
    rt_metrics_sum a[DOCS] = {0}, b[DOCS] = {0};
    for (size_t d = 0; d < DOCS; d++) {
        for (size_t t = 0; t < 5 + d; t++) {
            rt_metrics_add_token(&a[d], &(rt_token_metrics){.kl_forward = 0.1 * (double)(d + t)});
            rt_metrics_add_token(&b[d], &(rt_token_metrics){.kl_forward = 0.1 * (double)(d + t) - 0.25});
        }
    }
    rt_bootstrap_draw(resamples, DOCS, RESAMPLES, 12);
    rt_bootstrap_draw(again, DOCS, RESAMPLES, 12);
    assert_memory_equal(resamples, again, sizeof again);
    const rt_interval i = rt_bootstrap_figure(rt_metrics_kl_forward, a, DOCS, resamples, RESAMPLES, scratch);
    assert_true(i.lo < i.value && i.value < i.hi);
    const rt_interval d =
        rt_bootstrap_difference(rt_metrics_kl_forward, a, b, DOCS, resamples, RESAMPLES, scratch);
    assert_true(fabs(d.lo - 0.25) < 1e-12 && fabs(d.hi - 0.25) < 1e-12 && fabs(d.value - 0.25) < 1e-12);
    double num[DOCS], den[DOCS];
    for (size_t k = 0; k < DOCS; k++) {
        num[k] = a[k].kl_forward;
        den[k] = a[k].tokens;
    }
    rt_bootstrap_ratios(scratch, num, den, DOCS, resamples, RESAMPLES);
    const rt_interval r = rt_interval_make(i.value, scratch, RESAMPLES);
    assert_true(fabs(r.lo - i.lo) < 1e-12 && fabs(r.hi - i.hi) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_figure_of_a_token_is_its_definition),
        cmocka_unit_test(masked_ids_do_not_spoil_a_token),
        cmocka_unit_test(bins_close_on_their_right),
        cmocka_unit_test(drafts_yield_the_geometric_sum),
        cmocka_unit_test(quantiles_interpolate),
        cmocka_unit_test(intervals_hold_the_figure_and_pairs_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
