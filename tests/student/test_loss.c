/* tests/student/test_loss.c - gradients are slopes, bounds hold, fast code agrees with the reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "student/loss.h"
#include "tensor/cpu.h"
#include "tensor/row.h"

enum { SMALL = 7 };

static void *scratch(size_t n)
{
    void *work = aligned_alloc(64, (rt_loss_work_bytes(n) + 63) / 64 * 64);
    assert_non_null(work);
    return work;
}

static void fill(float *x, size_t n, uint64_t stream, double sd)
{
    rt_rng rng = rt_rng_make(4711, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(sd * rt_rng_normal(&rng));
}

/* one of each kind, and again where parameters switch formulas */
static const rt_loss_spec specs[] = {
    {.kind = RT_LOSS_CE, .tau = 1},
    {.kind = RT_LOSS_CE, .tau = 2, .label_smoothing = 0.1},
    {.kind = RT_LOSS_CE, .tau = 0.7, .z_loss = 1e-3},
    {.kind = RT_LOSS_FKL, .tau = 1.5},
    {.kind = RT_LOSS_RKL, .tau = 1.5},
    {.kind = RT_LOSS_JSD, .tau = 1, .beta = 0},
    {.kind = RT_LOSS_JSD, .tau = 2, .beta = 0.3},
    {.kind = RT_LOSS_JSD, .tau = 1, .beta = 1},
    {.kind = RT_LOSS_JSD_NORM, .tau = 1, .beta = 0.9},
    {.kind = RT_LOSS_SKL, .tau = 1, .alpha = 0.1},
    {.kind = RT_LOSS_SKL, .tau = 1, .alpha = 0},
    {.kind = RT_LOSS_SRKL, .tau = 3, .alpha = 0.1},
    {.kind = RT_LOSS_SRKL, .tau = 1, .alpha = 0},
    {.kind = RT_LOSS_TVD, .tau = 1},
    {.kind = RT_LOSS_AB, .tau = 1, .alpha = 0.2, .beta = 0.7},
    {.kind = RT_LOSS_AB, .tau = 1, .alpha = 2, .beta = 0},
    {.kind = RT_LOSS_AB, .tau = 1, .alpha = 0, .beta = 0.5},
    {.kind = RT_LOSS_AB, .tau = 1, .alpha = 0.5, .beta = -0.5},
    {.kind = RT_LOSS_AB, .tau = 1, .alpha = 0, .beta = 0},
    {.kind = RT_LOSS_MSE},
    {.kind = RT_LOSS_MSE_CENTRED},
};
enum { SPECS = sizeof specs / sizeof *specs };

static void every_gradient_is_the_slope_of_its_loss(void **state)
{
    (void)state;
    float z[SMALL], zt[SMALL];
    double grad[SMALL], unused[SMALL];
    void *work = scratch(SMALL);
    fill(z, SMALL, 1, 2);
    fill(zt, SMALL, 2, 2);
    for (size_t k = 0; k < SPECS; k++) {
        bool finite;
        (void)rt_loss_ref(&specs[k], z, zt, 3, SMALL, grad, &finite, work);
        assert_true(finite);
        for (size_t i = 0; i < SMALL; i++) {
            const float kept = z[i], above = kept + 0x1p-11f, below = kept - 0x1p-11f;
            z[i] = above;
            const double hi = rt_loss_ref(&specs[k], z, zt, 3, SMALL, unused, &finite, work);
            z[i] = below;
            const double lo = rt_loss_ref(&specs[k], z, zt, 3, SMALL, unused, &finite, work);
            z[i] = kept;
            const double slope = (hi - lo) / ((double)above - (double)below);
            assert_true(fabs(slope - grad[i]) < 1e-5 * (1 + fabs(slope)));
        }
    }
    free(work);
}

/* AKL and TAID hold a part of themselves constant, so a plain difference is not their gradient. */
static void a_detached_weight_has_no_slope(void **state)
{
    (void)state;
    float z[SMALL], zt[SMALL], mixed[SMALL];
    double grad[SMALL], fkl[SMALL], rkl[SMALL];
    void *work = scratch(SMALL);
    bool finite;
    fill(z, SMALL, 3, 2);
    fill(zt, SMALL, 4, 2);
    const rt_loss_spec f = {.kind = RT_LOSS_FKL}, r = {.kind = RT_LOSS_RKL};
    const rt_loss_spec akl = {.kind = RT_LOSS_AKL, .mu = 0.5}, taid = {.kind = RT_LOSS_TAID, .t = 0.4};
    const double lf = rt_loss_ref(&f, z, zt, 0, SMALL, fkl, &finite, work);
    const double lr = rt_loss_ref(&r, z, zt, 0, SMALL, rkl, &finite, work);
    const double la = rt_loss_ref(&akl, z, zt, 0, SMALL, grad, &finite, work), h = (la - lr) / (lf - lr);
    for (size_t i = 0; i < SMALL; i++)
        assert_true(fabs(grad[i] - h * fkl[i] - (1 - h) * rkl[i]) < 1e-12);
    for (size_t i = 0; i < SMALL; i++)
        mixed[i] = (float)(0.6 * (double)z[i] + 0.4 * (double)zt[i]);
    const double lt = rt_loss_ref(&taid, z, zt, 0, SMALL, grad, &finite, work);
    assert_true(fabs(lt - rt_loss_ref(&f, z, mixed, 0, SMALL, fkl, &finite, work)) < 1e-6);
    for (size_t i = 0; i < SMALL; i++)
        assert_true(fabs(grad[i] - fkl[i]) < 1e-6);
    free(work);
}

static void equal_rows_have_no_loss_and_no_gradient(void **state)
{
    (void)state;
    float z[300], dz[300];
    void *work = scratch(300);
    fill(z, 300, 5, 3);
    for (size_t k = 0; k < SPECS; k++) {
        if (specs[k].kind == RT_LOSS_CE)
            continue;
        const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, specs[k]}}};
        rt_loss_stats stats;
        rt_loss_row(&mix, z, z, 0, 300, 1, dz, NULL, &stats, work);
        assert_true(stats.finite && fabs(stats.loss) < 1e-13);
        for (size_t i = 0; i < 300; i++)
            assert_true(fabsf(dz[i]) < 1e-8f);
    }
    free(work);
}

static void divergences_keep_their_bounds(void **state)
{
    (void)state;
    float z[SMALL], zt[SMALL];
    double grad[SMALL];
    void *work = scratch(SMALL);
    bool finite;
    for (uint64_t round = 0; round < 50; round++) {
        fill(z, SMALL, 100 + round, 1 + (double)round);
        fill(zt, SMALL, 200 + round, 1 + (double)round);
        for (double b = 0.1; b < 0.95; b += 0.2) {
            const rt_loss_spec jsd = {.kind = RT_LOSS_JSD, .beta = b},
                               skl = {.kind = RT_LOSS_SKL, .alpha = b};
            const double h = -b * log(b) - (1 - b) * log1p(-b),
                         l = rt_loss_ref(&jsd, z, zt, 0, SMALL, grad, &finite, work);
            assert_true(l >= 0 && l <= h + 1e-12 && h <= log(2) + 1e-15);
            assert_true(rt_loss_ref(&skl, z, zt, 0, SMALL, grad, &finite, work) <= -log(b) + 1e-12);
        }
        const rt_loss_spec tvd = {.kind = RT_LOSS_TVD};
        const double l = rt_loss_ref(&tvd, z, zt, 0, SMALL, grad, &finite, work);
        assert_true(l >= 0 && l <= 1 + 1e-12);
    }
    free(work);
}

static const rt_loss_mix fast_mixes[] = {
    {1, {{1, {.kind = RT_LOSS_CE}}}},
    {1, {{1, {.kind = RT_LOSS_CE, .label_smoothing = 0.1, .z_loss = 1e-4}}}},
    {1, {{1, {.kind = RT_LOSS_FKL}}}},
    {1, {{1, {.kind = RT_LOSS_FKL, .tau = 2, .tau2 = true}}}},
    {1, {{1, {.kind = RT_LOSS_RKL}}}},
    {1, {{0.5, {.kind = RT_LOSS_JSD, .beta = 0.5}}}},
    {1, {{1, {.kind = RT_LOSS_JSD, .beta = 0.1, .tau = 4}}}},
    {1, {{1, {.kind = RT_LOSS_JSD_NORM, .beta = 0.9}}}},
    {2, {{0.5, {.kind = RT_LOSS_CE}}, {0.5, {.kind = RT_LOSS_FKL, .tau = 2, .tau2 = true}}}},
    {3, {{0.2, {.kind = RT_LOSS_CE}}, {0.5, {.kind = RT_LOSS_FKL}}, {0.3, {.kind = RT_LOSS_RKL}}}},
    {4,
     {{0.1, {.kind = RT_LOSS_CE}},
      {0.2, {.kind = RT_LOSS_JSD, .beta = 0.3}},
      {0.3, {.kind = RT_LOSS_JSD, .beta = 0.6}},
      {0.4, {.kind = RT_LOSS_RKL, .tau = 0.5}}}},
};

static void reference_of_mix(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n,
                             double *loss, double *total, double *grad, void *work)
{
    *loss = 0;
    memset(total, 0, n * sizeof *total);
    for (size_t k = 0; k < mix->n_terms; k++) {
        const rt_loss_spec *spec = &mix->terms[k].spec;
        const double tau = spec->tau > 0 ? spec->tau : 1,
                     f = mix->terms[k].weight * (spec->tau2 ? tau * tau : 1);
        bool finite;
        *loss += f * rt_loss_ref(spec, z, zt, label, n, grad, &finite, work);
        for (size_t i = 0; i < n; i++)
            total[i] += f * grad[i];
    }
}

/* The tolerances of the golden vectors, for float32: loss 5e-6, gradient 2e-6. */
static void check_fast(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n)
{
    double loss, *total = malloc(n * sizeof *total), *grad = malloc(n * sizeof *grad);
    float *dz = malloc(n * sizeof *dz);
    rt_bf16 *half = malloc(n * sizeof *half);
    void *work = scratch(n);
    assert_true(total && grad && dz && half);
    rt_loss_stats stats;
    reference_of_mix(mix, z, zt, label, n, &loss, total, grad, work);
    rt_loss_row(mix, z, zt, label, n, 0.25, dz, half, &stats, work);
    assert_true(stats.finite);
    assert_true(fabs(stats.loss - loss) <= 5e-6 * (1 + fabs(loss)));
    for (size_t i = 0; i < n; i++) {
        assert_true(fabs(4 * (double)dz[i] - total[i]) <= 2e-6 * (1 + fabs(total[i])));
        assert_int_equal(half[i], rt_f32_to_bf16(dz[i]));
    }
    float *zs = malloc(n * sizeof *zs), *zts = malloc(n * sizeof *zts);
    assert_true(zs && zts);
    memcpy(zs, z, n * sizeof *zs);
    memcpy(zts, zt, n * sizeof *zts);
    rt_loss_row_in_place(mix, zs, zts, label, n, 0.25, false, &stats, work);
    assert_true(stats.finite && fabs(stats.loss - loss) <= 5e-6 * (1 + fabs(loss)));
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(4 * (double)zs[i] - total[i]) <= 2e-6 * (1 + fabs(total[i])));
    free(zs);
    free(zts);
    const rt_loss_spec fkl = {.kind = RT_LOSS_FKL}, rkl = {.kind = RT_LOSS_RKL}, ce = {.kind = RT_LOSS_CE};
    bool finite;
    assert_true(fabs(stats.kl_forward - rt_loss_ref(&fkl, z, zt, label, n, grad, &finite, work)) < 5e-6);
    assert_true(fabs(stats.kl_reverse - rt_loss_ref(&rkl, z, zt, label, n, grad, &finite, work)) < 5e-6);
    assert_true(fabs(stats.nll_student - rt_loss_ref(&ce, z, NULL, label, n, grad, &finite, work)) < 5e-6);
    assert_true(fabs(stats.nll_teacher - rt_loss_ref(&ce, zt, NULL, label, n, grad, &finite, work)) < 5e-6);
    for (size_t i = 0; i < n; i++) {
        assert_true(z[i] < z[stats.top1_student] ||
                    (z[i] == z[stats.top1_student] && i >= stats.top1_student));
        assert_true(zt[i] < zt[stats.top1_teacher] ||
                    (zt[i] == zt[stats.top1_teacher] && i >= stats.top1_teacher));
    }
    free(total);
    free(grad);
    free(dz);
    free(half);
    free(work);
}

/* TAID has fast code where the rows may be destroyed. */
static void taid_in_place_agrees_with_the_reference(void **state)
{
    (void)state;
    static const rt_loss_mix mixes[] = {
        {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_TAID, .tau = 1, .t = 0.4}}}},
        {.n_terms = 2,
         .terms = {{0.8, {.kind = RT_LOSS_TAID, .tau = 2, .t = 0.7, .tau2 = true}},
                   {0.2, {.kind = RT_LOSS_CE, .tau = 2}}}},
        {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_TAID, .tau = 1, .t = 1}}}}};
    static float z[513], zt[513];
    for (size_t k = 0; k < 3; k++) {
        fill(z, 513, 30 + k, 2.5);
        fill(zt, 513, 40 + k, 2.5);
        check_fast(&mixes[k], z, zt, 171, 513);
    }
}

static void fast_rows_agree_with_the_reference_at_every_level(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 300, 513, 49152};
    static float z[49152], zt[49152];
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512BF16; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            fill(z, sizes[s], 10 + s, 2.5);
            fill(zt, sizes[s], 20 + s, 2.5);
            for (size_t k = 0; k < sizeof fast_mixes / sizeof *fast_mixes; k++) {
                assert_true(rt_loss_mix_is_fast(&fast_mixes[k]));
                check_fast(&fast_mixes[k], z, zt, sizes[s] / 3, sizes[s]);
            }
        }
    }
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
}

static void the_gradient_may_overwrite_the_logits(void **state)
{
    (void)state;
    float z[1000], zt[1000], dz[1000];
    void *work = scratch(1000);
    rt_loss_stats stats;
    for (size_t k = 0; k < sizeof fast_mixes / sizeof *fast_mixes; k++) {
        fill(z, 1000, 30, 2);
        fill(zt, 1000, 31, 2);
        rt_loss_row(&fast_mixes[k], z, zt, 9, 1000, 1, dz, NULL, &stats, work);
        rt_loss_row(&fast_mixes[k], z, zt, 9, 1000, 1, z, NULL, &stats, work);
        assert_memory_equal(z, dz, sizeof dz);
    }
    free(work);
}

/* The gradient over z, for every mixture, with masked ids and without, against rt_loss_row. */
static void rows_in_place_give_the_same_gradient(void **state)
{
    (void)state;
    enum { N = 1003 };
    static float z[N], zt[N], zs[N], zts[N], dz[N];
    void *work = scratch(N);
    for (size_t round = 0; round < 4 * sizeof fast_mixes / sizeof *fast_mixes; round++) {
        const rt_loss_mix *mix = &fast_mixes[round / 4];
        const bool bf16 = round % 2, masked = round % 4 >= 2;
        rt_loss_stats a, b;
        fill(z, N, 50, 2);
        fill(zt, N, 51, 2);
        if (masked)
            z[17] = zt[17] = -INFINITY;
        memcpy(zs, z, sizeof z);
        memcpy(zts, zt, sizeof zt);
        rt_loss_row(mix, z, zt, 9, N, 0.5, dz, NULL, &a, work);
        rt_loss_row_in_place(mix, zs, rt_loss_mix_needs_teacher(mix) || !masked ? zts : NULL, 9, N, 0.5, bf16,
                             &b, work);
        assert_true(fabs(a.loss - b.loss) < 5e-6 * (1 + fabs(a.loss)) && a.finite == b.finite);
        assert_true(a.top1_student == b.top1_student && fabs(a.nll_student - b.nll_student) < 1e-5);
        for (size_t i = 0; i < N; i++) {
            rt_bf16 half;
            memcpy(&half, (unsigned char *)zs + i * sizeof half, sizeof half);
            const double got = (double)(bf16 ? rt_bf16_to_f32(half) : zs[i]), want = (double)dz[i];
            assert_true(fabs(got - want) <= 2e-6 + (bf16 ? fabs(want) / 256 : 0));
        }
    }
    free(work);
}

static void rows_with_masked_ids_and_nans_are_told_apart(void **state)
{
    (void)state;
    float z[20], zt[20], dz[20];
    void *work = scratch(20);
    rt_loss_stats stats;
    const rt_loss_mix *fkl = &fast_mixes[2], *rkl = &fast_mixes[4];
    fill(z, 20, 40, 2);
    fill(zt, 20, 41, 2);
    z[5] = zt[5] = -INFINITY; /* out of the support on both sides */
    rt_loss_row(fkl, z, zt, 0, 20, 1, dz, NULL, &stats, work);
    assert_true(stats.finite && stats.loss > 0 && dz[5] == 0.0f);
    zt[6] = -INFINITY; /* q = 0 < p */
    rt_loss_row(fkl, z, zt, 0, 20, 1, dz, NULL, &stats, work);
    assert_true(stats.finite && dz[6] > 0.0f);
    rt_loss_row(rkl, z, zt, 0, 20, 1, dz, NULL, &stats, work);
    assert_true(!stats.finite && stats.loss == (double)INFINITY && dz[6] == 0.0f);
    z[7] = NAN;
    rt_loss_row(fkl, z, zt, 0, 20, 1, dz, NULL, &stats, work);
    assert_true(!stats.finite && isnan(stats.loss));
    for (size_t i = 0; i < 20; i++)
        z[i] = zt[i] = -INFINITY;
    rt_loss_row(fkl, z, zt, 0, 20, 1, dz, NULL, &stats, work);
    assert_true(stats.finite && stats.loss == 0 && dz[3] == 0.0f);
    free(work);
}

static void large_opposite_shifts_lose_no_digits(void **state)
{
    (void)state;
    float z[SMALL] = {0, 1, -1, 2, 0.5f, 0.25f, -3}, zt[SMALL] = {1, 0, 2, -1, 0.75f, 1.25f, 0}, zs[SMALL],
          zts[SMALL];
    void *work = scratch(SMALL);
    rt_loss_stats plain, shifted;
    for (size_t i = 0; i < SMALL; i++) {
        zs[i] = z[i] + 70000;
        zts[i] = zt[i] - 70000;
    }
    for (size_t k = 2; k < sizeof fast_mixes / sizeof *fast_mixes; k++) { /* not z_loss, which sees shifts */
        rt_loss_row(&fast_mixes[k], z, zt, 1, SMALL, 1, NULL, NULL, &plain, work);
        rt_loss_row(&fast_mixes[k], zs, zts, 1, SMALL, 1, NULL, NULL, &shifted, work);
        assert_true(fabs(plain.loss - shifted.loss) < 1e-12);
    }
    free(work);
}

static void parameters_without_meaning_are_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    const rt_loss_mix none = {0}, tau = {1, {{1, {.kind = RT_LOSS_FKL, .tau = -1}}}};
    const rt_loss_mix beta = {1, {{1, {.kind = RT_LOSS_JSD, .beta = 1.5}}}};
    const rt_loss_mix nan_alpha = {1, {{1, {.kind = RT_LOSS_SKL, .alpha = (double)NAN}}}};
    assert_int_equal(rt_loss_mix_check(&none, &err), RT_INVALID);
    assert_int_equal(rt_loss_mix_check(&tau, &err), RT_INVALID);
    assert_int_equal(rt_loss_mix_check(&beta, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "beta"));
    assert_int_equal(rt_loss_mix_check(&nan_alpha, NULL), RT_INVALID);
    for (size_t k = 0; k < sizeof fast_mixes / sizeof *fast_mixes; k++)
        assert_int_equal(rt_loss_mix_check(&fast_mixes[k], &err), RT_OK);
}

static void the_step_normalises_by_all_its_tokens(void **state)
{
    (void)state;
    const rt_step_counts counts = {.tokens = 8, .sequences = 4, .sequences_with_tokens = 2, .constant = 17};
    assert_true(rt_reduction_scale(RT_TOKEN_MEAN, &counts, 3) == 1.0 / 8);
    assert_true(rt_reduction_scale(RT_SEQ_MEAN_OF_MEANS, &counts, 3) == 1.0 / 6);
    assert_true(rt_reduction_scale(RT_SEQ_SUM_MEAN, &counts, 3) == 1.0 / 4);
    assert_true(rt_reduction_scale(RT_SUM_OVER_CONST, &counts, 3) == 1.0 / 17);
    const rt_step_counts empty = {.sequences = 4, .constant = 17};
    for (int r = RT_TOKEN_MEAN; r <= RT_SUM_OVER_CONST; r++)
        assert_true(rt_reduction_scale((rt_reduction)r, &empty, 0) == 0);
}

static void exp_is_right_to_a_rounding_and_flushes_to_zero(void **state)
{
    (void)state;
    float x[4096], y[4096];
    for (size_t i = 0; i < 4096; i++)
        x[i] = -87.0f + (float)i * (175.0f / 4096);
    rt_row_ops_get()->exp(y, x, 4096);
    for (size_t i = 0; i < 4096; i++)
        /* roundings, and ln 2 as one float: 2e-9 for each power of two */
        assert_true(fabs((double)y[i] / exp((double)x[i]) - 1) < 1.5e-7 + 3e-9 * fabs((double)x[i]));
    const float edge[3] = {-INFINITY, -87.5f, NAN};
    rt_row_ops_get()->exp(y, edge, 3);
    assert_true(y[0] == 0.0f && y[1] == 0.0f && isnan(y[2]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_is_the_slope_of_its_loss),
        cmocka_unit_test(a_detached_weight_has_no_slope),
        cmocka_unit_test(equal_rows_have_no_loss_and_no_gradient),
        cmocka_unit_test(divergences_keep_their_bounds),
        cmocka_unit_test(fast_rows_agree_with_the_reference_at_every_level),
        cmocka_unit_test(taid_in_place_agrees_with_the_reference),
        cmocka_unit_test(the_gradient_may_overwrite_the_logits),
        cmocka_unit_test(rows_in_place_give_the_same_gradient),
        cmocka_unit_test(rows_with_masked_ids_and_nans_are_told_apart),
        cmocka_unit_test(large_opposite_shifts_lose_no_digits),
        cmocka_unit_test(parameters_without_meaning_are_refused),
        cmocka_unit_test(the_step_normalises_by_all_its_tokens),
        cmocka_unit_test(exp_is_right_to_a_rounding_and_flushes_to_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
