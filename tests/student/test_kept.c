/* tests/student/test_kept.c - losses against truncated teachers: gradients are slopes, fast code agrees with
 * the meaning, sums over many draws are unbiased, and what cannot be had is refused with the reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "student/kept.h"

enum { V = 40, K = 6, N = 9 }; /* ids, top-k, entries of a row */

typedef struct world {
    float z[V], logits[V];
    uint32_t ids[N];
    float logq[N];
    uint16_t counts[N];
    rt_kept_row row;
    void *work;
} world;

static void fill(float *x, size_t n, uint64_t stream, double sd)
{
    rt_rng rng = rt_rng_make(815, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(sd * rt_rng_normal(&rng));
}

static double lse(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i]);
    return log(sum);
}

static void make(world *w, uint64_t stream)
{
    memset(w, 0, sizeof *w);
    fill(w->z, V, stream, 2);
    fill(w->logits, V, stream + 1000, 2);
    bool taken[V] = {false};
    const double all = lse(w->logits, V);
    double mass = 0;
    for (size_t i = 0; i < N; i++) {
        size_t best = V;
        for (size_t j = 0; j < V; j++)
            if (!taken[j] && (best == V || w->logits[j] > w->logits[best]))
                best = j;
        taken[best] = true;
        w->ids[i] = (uint32_t)best;
        w->logq[i] = (float)((double)w->logits[best] - all);
        w->counts[i] = (uint16_t)(i % 3);
        mass += i < K ? exp((double)w->logq[i]) : 0;
    }
    w->row = (rt_kept_row){.ids = w->ids,
                           .logq = w->logq,
                           .counts = w->counts,
                           .n = N,
                           .n_topk = K,
                           .n_draws = 9,
                           .tail_logprob = log1p(-mass)};
    w->work = aligned_alloc(64, (rt_kept_work_bytes(V, N) + 63) / 64 * 64);
    assert_non_null(w->work);
}

static const rt_loss_spec specs[] = {
    {.kind = RT_LOSS_CE, .tau = 1, .label_smoothing = 0.1, .z_loss = 1e-3},
    {.kind = RT_LOSS_FKL, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_RKL, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_JSD, .beta = 0.3, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_JSD_NORM, .beta = 0.7, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_SKL, .alpha = 0.1, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_SRKL, .alpha = 0.1, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_TVD, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_AB, .alpha = 0.2, .beta = 0.7, .tail = RT_TAIL_BUCKET},
    {.kind = RT_LOSS_FKL, .tau = 2, .tail = RT_TAIL_RENORM},
    {.kind = RT_LOSS_FKL, .tau = 2, .tail = RT_TAIL_RENORM_BOTH},
    {.kind = RT_LOSS_RKL, .tau = 0.7, .tail = RT_TAIL_RENORM_BOTH},
    {.kind = RT_LOSS_RKL, .tau = 2, .tail = RT_TAIL_FLOOR},
    {.kind = RT_LOSS_FKL, .tail = RT_TAIL_PARTIAL},
    {.kind = RT_LOSS_FKL, .tail = RT_TAIL_UNIFORM},
    {.kind = RT_LOSS_RSKD},
    {.kind = RT_LOSS_RSKD, .self_normalised = true},
};
enum { SPECS = sizeof specs / sizeof *specs };

static void every_gradient_is_the_slope_of_its_loss(void **state)
{
    (void)state;
    world w;
    double grad[V], unused[V];
    bool finite;
    make(&w, 1);
    for (size_t k = 0; k < SPECS; k++) {
        (void)rt_kept_ref(&specs[k], w.z, &w.row, 3, V, grad, &finite, w.work);
        assert_true(finite);
        for (size_t i = 0; i < V; i++) {
            const float kept = w.z[i], above = kept + 0x1p-11f, below = kept - 0x1p-11f;
            w.z[i] = above;
            const double hi = rt_kept_ref(&specs[k], w.z, &w.row, 3, V, unused, &finite, w.work);
            w.z[i] = below;
            const double lo = rt_kept_ref(&specs[k], w.z, &w.row, 3, V, unused, &finite, w.work);
            w.z[i] = kept;
            const double slope = (hi - lo) / ((double)above - (double)below);
            assert_true(fabs(slope - grad[i]) < 1e-5 * (1 + fabs(slope)));
        }
    }
    free(w.work);
}

/* The fast code's loss and gradient against the sum of the references. */
static void compare(world *w, const rt_loss_mix *mix, size_t label, double scale)
{
    double total[V] = {0}, grad[V], loss = 0;
    float z[V], bf16_room[V];
    rt_loss_stats stats;
    bool finite, all = true;
    for (size_t k = 0; k < mix->n_terms; k++) {
        const rt_loss_spec *s = &mix->terms[k].spec;
        const double tau = s->tau > 0 ? s->tau : 1, f = mix->terms[k].weight * (s->tau2 ? tau * tau : 1);
        loss += f * rt_kept_ref(s, w->z, &w->row, label, V, grad, &finite, w->work);
        all = all && finite;
        for (size_t i = 0; i < V; i++)
            total[i] += scale * f * grad[i];
    }
    memcpy(z, w->z, sizeof z);
    rt_kept_loss_row_in_place(mix, z, &w->row, label, V, scale, false, &stats, w->work);
    assert_int_equal(stats.finite, all);
    memcpy(bf16_room, w->z, sizeof bf16_room);
    rt_loss_stats again;
    rt_kept_loss_row_in_place(mix, bf16_room, &w->row, label, V, scale, true, &again, w->work);
    for (size_t i = 0; i < V; i++) {
        rt_bf16 half;
        memcpy(&half, (unsigned char *)bf16_room + i * sizeof half, sizeof half);
        if (!all) {
            assert_true(z[i] == 0 && half == 0);
            continue;
        }
        assert_true(fabs((double)z[i] - total[i]) <= 2e-6 * (1 + fabs(total[i])));
        assert_int_equal(half, rt_f32_to_bf16(z[i]));
    }
    if (all)
        assert_true(fabs(stats.loss - loss) <= 5e-6 * (1 + fabs(loss)));
    else
        assert_false(isfinite(stats.loss));
}

static void fast_code_agrees_with_the_meaning(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 20; round++) {
        world w;
        make(&w, 10 + round);
        for (size_t k = 0; k < SPECS; k++) {
            const rt_loss_mix one = {.n_terms = 1, .terms = {{1.5, specs[k]}}};
            const rt_loss_mix two = {.n_terms = 2,
                                     .terms = {{0.7, specs[k]}, {0.3, {.kind = RT_LOSS_CE, .tau = 1}}}};
            compare(&w, &one, w.ids[round % N], 0.25);
            compare(&w, &two, w.ids[round % N], 0.25);
            compare(&w, &two, round % V, 2);
        }
        free(w.work);
    }
}

static void extreme_rows_hold(void **state)
{
    (void)state;
    const float spreads[] = {80, 300, 70000};
    for (size_t k = 1; k < SPECS; k++) {
        for (size_t s = 0; s < 3; s++) {
            world w;
            make(&w, 50 + s);
            const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, specs[k]}}};
            for (size_t i = 0; i < V; i++)
                w.z[i] *= spreads[s] / 2;
            if (s < 2) /* the digits of larger losses are fewer in float32 */
                compare(&w, &mix, 1, 1);
            for (size_t i = 0; i < V; i++)
                w.z[i] = 70000 + (float)i / 8;
            compare(&w, &mix, 1, 1);
            for (size_t i = 0; i < N; i++) /* the student gives the kept ids nearly everything */
                w.z[w.ids[i]] += 60;
            compare(&w, &mix, 1, 1);
            w.z[w.ids[0]] = -INFINITY; /* q > 0 = p: +inf, and never a NaN, where the loss divides by p */
            compare(&w, &mix, 1, 1);
            free(w.work);
        }
    }
}

static void masked_ids_of_the_student_leave_the_support(void **state)
{
    (void)state;
    world w;
    make(&w, 70);
    for (size_t i = 0, masked = 0; i < V && masked < 5; i++) {
        bool in_row = false;
        for (size_t k = 0; k < N; k++)
            in_row = in_row || w.ids[k] == i;
        if (!in_row) {
            w.z[i] = -INFINITY;
            masked++;
        }
    }
    for (size_t k = 1; k < SPECS; k++) {
        const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, specs[k]}}};
        compare(&w, &mix, w.ids[0], 1);
    }
    free(w.work);
}

static void all_ids_kept_is_the_whole_divergence(void **state)
{
    (void)state;
    world w;
    uint32_t ids[V];
    float logq[V];
    double grad[V], whole[V];
    bool finite;
    make(&w, 80);
    const double all = lse(w.logits, V);
    for (size_t i = 0; i < V; i++) {
        ids[i] = (uint32_t)i;
        logq[i] = (float)((double)w.logits[i] - all);
    }
    const rt_kept_row row = {.ids = ids, .logq = logq, .n = V, .n_topk = V, .tail_logprob = (double)NAN};
    void *work = aligned_alloc(64, (rt_kept_work_bytes(V, V) + 63) / 64 * 64);
    for (size_t k = 1; k < SPECS; k++) {
        if (specs[k].tail != RT_TAIL_BUCKET)
            continue;
        rt_loss_spec dense = specs[k];
        dense.tail = RT_TAIL_NONE;
        const double loss = rt_kept_ref(&specs[k], w.z, &row, 0, V, grad, &finite, work);
        assert_true(finite);
        assert_true(fabs(loss - rt_loss_ref(&dense, w.z, w.logits, 0, V, whole, &finite, work)) < 1e-6);
        for (size_t i = 0; i < V; i++)
            assert_true(fabs(grad[i] - whole[i]) < 1e-6);
    }
    free(work);
    free(w.work);
}

static void a_tail_of_nothing_is_dropped(void **state)
{
    (void)state;
    world w;
    double grad[V];
    bool finite;
    make(&w, 90);
    for (size_t i = 0; i < N; i++)
        w.logq[i] = i == 0 ? 0.0f : -40.0f; /* Q = 1 after rounding */
    w.row.tail_logprob = (double)NAN;
    for (size_t k = 1; k < SPECS; k++) {
        const double loss = rt_kept_ref(&specs[k], w.z, &w.row, 0, V, grad, &finite, w.work);
        assert_true(finite && isfinite(loss));
    }
    w.row.tail_logprob = -HUGE_VAL;
    for (size_t k = 1; k < SPECS; k++) {
        const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, specs[k]}}};
        compare(&w, &mix, 1, 1);
    }
    free(w.work);
}

static void a_row_without_draws_teaches_nothing(void **state)
{
    (void)state;
    world w;
    make(&w, 95);
    float z[V];
    rt_loss_stats stats;
    memset(w.counts, 0, sizeof w.counts);
    w.row.n_draws = 0;
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_RSKD}}}};
    memcpy(z, w.z, sizeof z);
    rt_kept_loss_row_in_place(&mix, z, &w.row, RT_LABEL_NONE, V, 1, false, &stats, w.work);
    assert_true(stats.finite && stats.loss == 0);
    for (size_t i = 0; i < V; i++)
        assert_true(z[i] == 0);
    free(w.work);
}

/* The mean gradient over many rows of draws is the forward KL's within five standard errors. */
static void draws_are_unbiased(void **state)
{
    (void)state;
    enum { ROUNDS = 4000, DRAWS = 4 };
    world w;
    double sum[V] = {0}, grad[V], fkl[V];
    bool finite;
    make(&w, 99);
    const rt_loss_spec dense = {.kind = RT_LOSS_FKL}, rskd = {.kind = RT_LOSS_RSKD};
    (void)rt_loss_ref(&dense, w.z, w.logits, 0, V, fkl, &finite, w.work);
    const double all = lse(w.logits, V);
    rt_rng rng = rt_rng_make(3, 3);
    for (size_t round = 0; round < ROUNDS; round++) {
        uint32_t ids[V];
        float logq[V];
        uint16_t counts[V] = {0};
        for (size_t i = 0; i < V; i++) {
            ids[i] = (uint32_t)i;
            logq[i] = (float)((double)w.logits[i] - all);
        }
        for (size_t d = 0; d < DRAWS; d++) {
            double left = rt_rng_uniform(&rng);
            size_t id = 0;
            while (id + 1 < V && (left -= exp((double)logq[id])) > 0)
                id++;
            counts[id]++;
        }
        const rt_kept_row row = {.ids = ids, .logq = logq, .counts = counts, .n = V, .n_draws = DRAWS};
        void *work = aligned_alloc(64, (rt_kept_work_bytes(V, V) + 63) / 64 * 64);
        (void)rt_kept_ref(&rskd, w.z, &row, 0, V, grad, &finite, work);
        free(work);
        for (size_t i = 0; i < V; i++)
            sum[i] += grad[i];
    }
    for (size_t i = 0; i < V; i++) {
        const double q = exp((double)w.logits[i] - all), var = q * (1 - q) / DRAWS; /* METHODS 6 */
        assert_true(fabs(sum[i] / ROUNDS - fkl[i]) < 5 * sqrt(var / ROUNDS) + 1e-9);
    }
    free(w.work);
}

static void refused(const rt_loss_spec spec, bool topk, bool draws, const char *reason)
{
    rt_error err = {0};
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, spec}}};
    assert_int_equal(rt_kept_mix_check(&mix, topk, draws, 1, &err), RT_INVALID);
    assert_non_null(strstr(err.text, reason));
}

static void what_cannot_be_had_is_refused_with_the_reason(void **state)
{
    (void)state;
    rt_error err = {0};
    refused((rt_loss_spec){.kind = RT_LOSS_FKL, .tau = 2, .tail = RT_TAIL_BUCKET}, true, true,
            "cannot be had from their mass");
    refused((rt_loss_spec){.kind = RT_LOSS_FKL, .tau = 2, .tail = RT_TAIL_UNIFORM}, true, true,
            "tail=renorm");
    refused((rt_loss_spec){.kind = RT_LOSS_RKL, .tail = RT_TAIL_RENORM}, true, true, "is a form of fkl");
    refused((rt_loss_spec){.kind = RT_LOSS_FKL, .tail = RT_TAIL_FLOOR}, true, true, "is a form of rkl");
    refused((rt_loss_spec){.kind = RT_LOSS_FKL}, true, true, "tail=bucket");
    refused((rt_loss_spec){.kind = RT_LOSS_FKL, .tail = RT_TAIL_BUCKET}, false, true, "drawn ids only");
    refused((rt_loss_spec){.kind = RT_LOSS_RSKD}, true, false, "no drawn ids");
    refused((rt_loss_spec){.kind = RT_LOSS_RSKD, .tau = 2}, true, true, "temperature 1");
    refused((rt_loss_spec){.kind = RT_LOSS_TAID, .t = 1, .tail = RT_TAIL_BUCKET}, true, true,
            "logits of all ids");
    const rt_loss_mix online = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_RSKD}}}};
    assert_int_equal(rt_loss_mix_check(&online, &err), RT_INVALID);
    const rt_loss_mix tail = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_FKL, .tail = RT_TAIL_BUCKET}}}};
    assert_int_equal(rt_loss_mix_check(&tail, &err), RT_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_is_the_slope_of_its_loss),
        cmocka_unit_test(fast_code_agrees_with_the_meaning),
        cmocka_unit_test(extreme_rows_hold),
        cmocka_unit_test(masked_ids_of_the_student_leave_the_support),
        cmocka_unit_test(all_ids_kept_is_the_whole_divergence),
        cmocka_unit_test(a_tail_of_nothing_is_dropped),
        cmocka_unit_test(a_row_without_draws_teaches_nothing),
        cmocka_unit_test(draws_are_unbiased),
        cmocka_unit_test(what_cannot_be_had_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
