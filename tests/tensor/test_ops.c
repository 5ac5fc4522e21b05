/* tests/tensor/test_ops.c - each variant agrees with the reference, each gradient with finite differences.
 *
 * Tolerances: float32 sums of n terms in 16 lanes are off by about sqrt(n) / 2^24 of the largest term; exp is
 * good to 2e-7.  2e-5 relative to the largest entry leaves room for both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "tensor/cpu.h"
#include "tensor/gemm.h"
#include "tensor/ops.h"

enum { N = 71, HEAD = 20 }; /* odd on purpose: vector loops have a tail */

static const rt_ops *variant(const char *level)
{
    assert_int_equal(setenv("RETORT_CPU", level, 1), 0);
    rt_cpu_reset();
    return rt_ops_get();
}

static void fill(float *x, size_t n, uint64_t stream, double scale)
{
    rt_rng rng = rt_rng_make(11, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * rt_rng_normal(&rng));
}

static void assert_near(const float *a, const float *b, size_t n)
{
    double largest = 1e-3;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)b[i]));
    for (size_t i = 0; i < n; i++)
        assert_true(fabs((double)a[i] - (double)b[i]) <= 2e-5 * largest);
}

/* Runs every op of a table into one long row of results. */
static size_t run_all(const rt_ops *ops, float *out)
{
    float x[N], w[N], b[N], dy[N], up[N], c[N], s[N];
    fill(x, N, 1, 1.5);
    fill(w, N, 2, 1);
    fill(b, N, 3, 1);
    fill(dy, N, 4, 1);
    fill(up, N, 5, 2);
    for (size_t i = 0; i < N; i++) {
        c[i] = cosf((float)i);
        s[i] = sinf((float)i);
    }
    size_t at = 0;
    float mean, r;
#define TAKE() (at += N, out + at - N)
    memset(out, 0, 40 * N * sizeof *out);
    rt_bf16 half[N];
    ops->to_bf16(half, x, N);
    ops->from_bf16(TAKE(), half, N);
    *TAKE() = (float)ops->dot(x, w, N);
    float *y = TAKE();
    memcpy(y, x, sizeof x);
    ops->add(y, w, N);
    ops->axpy(y, 0.3f, b, N);
    ops->scale(y, 1.7f, N);
    r = ops->rms_norm(TAKE(), x, w, N, 1e-5f);
    *TAKE() = r;
    float *dx = TAKE(), *dw = TAKE();
    ops->rms_norm_backward(dx, dw, dy, x, w, r, N);
    r = ops->layer_norm(TAKE(), &mean, x, w, b, N, 1e-5f);
    dx = TAKE();
    dw = TAKE();
    ops->layer_norm_backward(dx, dw, TAKE(), dy, x, w, mean, r, N);
    y = TAKE();
    memcpy(y, x, sizeof x);
    ops->rope(y, c, s, N / 2, 1.0f);
    ops->silu_gate(TAKE(), x, up, N);
    dx = TAKE();
    ops->silu_gate_backward(dx, TAKE(), dy, x, up, N);
    ops->gelu_gate(TAKE(), x, up, N);
    dx = TAKE();
    ops->gelu_gate_backward(dx, TAKE(), dy, x, up, N);
    ops->gelu(TAKE(), x, N);
    ops->gelu_backward(TAKE(), dy, x, N);
    ops->silu(TAKE(), x, N);
    ops->silu_backward(TAKE(), dy, x, N);
    y = TAKE();
    memcpy(y, x, sizeof x);
    ops->softcap(y, 2.0f, N);
    y = TAKE();
    memcpy(y, up, sizeof up);
    const float lse = ops->softmax(y, N, 3.0f);
    *TAKE() = lse;
    float *again = TAKE();
    memcpy(again, up, sizeof up);
    ops->softmax_again(again, N, 3.0f, lse);
    ops->softmax_backward(TAKE(), again, dy, 0.2f, 3.0f, N);
    return at;
}

static void a_variant_agrees_with_the_reference(void **state)
{
    (void)state;
    float *want = calloc(40 * N, sizeof *want), *got = calloc(40 * N, sizeof *got);
    const size_t n = run_all(&rt_ops_reference, want);
    const char *levels[] = {"ref", "avx2", "avx512", "avx512bf16"};
    for (size_t l = 0; l < 4; l++) {
        assert_int_equal(run_all(variant(levels[l]), got), n);
        for (size_t at = 0; at < n; at += N)
            assert_near(got + at, want + at, N);
    }
    free(want);
    free(got);
}

static void one_position_attends_as_the_reference_does(void **state)
{
    (void)state;
    enum { GROUP = 3, KEYS = 19, LD = 2 * HEAD, LDS = KEYS + 5 };
    float q[GROUP * HEAD], keys[KEYS * LD], want[GROUP * LDS] = {0}, got[GROUP * LDS] = {0};
    float out_want[GROUP * HEAD], out_got[GROUP * HEAD];
    rt_bf16 qh[GROUP * HEAD], kh[KEYS * LD];
    fill(q, GROUP * HEAD, 1, 1);
    fill(keys, KEYS * LD, 2, 1);
    rt_ops_reference.to_bf16(qh, q, GROUP * HEAD);
    rt_ops_reference.to_bf16(kh, keys, KEYS * LD);
    const char *levels[] = {"avx2", "avx512", "avx512bf16"};
    for (size_t l = 0; l < 3; l++) {
        const rt_ops *ops = variant(levels[l]);
        rt_ops_reference.scores_f32(want, LDS, q, GROUP, keys, LD, KEYS, HEAD);
        ops->scores_f32(got, LDS, q, GROUP, keys, LD, KEYS, HEAD);
        assert_near(got, want, GROUP * LDS);
        rt_ops_reference.weigh_f32(out_want, want, LDS, GROUP, keys, LD, KEYS, HEAD);
        ops->weigh_f32(out_got, want, LDS, GROUP, keys, LD, KEYS, HEAD);
        assert_near(out_got, out_want, GROUP * HEAD);
        rt_ops_reference.scores_bf16(want, LDS, qh, GROUP, kh, LD, KEYS, HEAD);
        ops->scores_bf16(got, LDS, qh, GROUP, kh, LD, KEYS, HEAD);
        assert_near(got, want, GROUP * LDS);
        rt_ops_reference.weigh_bf16(out_want, want, LDS, GROUP, kh, LD, KEYS, HEAD);
        ops->weigh_bf16(out_got, want, LDS, GROUP, kh, LD, KEYS, HEAD);
        assert_near(out_got, out_want, GROUP * HEAD);
    }
}

/* ---- finite differences: f(x) = dy . op(x), df/dx_i against the gradient ---- */

typedef void (*op_fn)(float *out, const float *x, const float *other);

static void slope_check(op_fn op, const float *x, const float *other, const float *dy, const float *gradient)
{
    float at[N], above[N], below[N];
    memcpy(at, x, sizeof at);
    for (size_t i = 0; i < N; i++) {
        const float step = 1e-2f;
        at[i] = x[i] + step;
        op(above, at, other);
        at[i] = x[i] - step;
        op(below, at, other);
        at[i] = x[i];
        double slope = 0;
        for (size_t k = 0; k < N; k++)
            slope += (double)dy[k] * ((double)above[k] - (double)below[k]) / (2 * (double)step);
        assert_true(fabs(slope - (double)gradient[i]) <= 2e-3 * (1 + fabs(slope)));
    }
}

static float norm_weight[N], norm_bias[N];
static void op_rms(float *out, const float *x, const float *o)
{
    (void)o;
    (void)rt_ops_reference.rms_norm(out, x, norm_weight, N, 1e-5f);
}
static void op_layer(float *out, const float *x, const float *o)
{
    float mean;
    (void)o;
    (void)rt_ops_reference.layer_norm(out, &mean, x, norm_weight, norm_bias, N, 1e-5f);
}
static void op_silu_gate(float *out, const float *x, const float *o)
{
    rt_ops_reference.silu_gate(out, x, o, N);
}
static void op_silu_up(float *out, const float *x, const float *o)
{
    rt_ops_reference.silu_gate(out, o, x, N);
}
static void op_gelu_gate(float *out, const float *x, const float *o)
{
    rt_ops_reference.gelu_gate(out, x, o, N);
}
static void op_gelu_up(float *out, const float *x, const float *o)
{
    rt_ops_reference.gelu_gate(out, o, x, N);
}
static void op_gelu(float *out, const float *x, const float *o)
{
    (void)o;
    rt_ops_reference.gelu(out, x, N);
}
static void op_silu(float *out, const float *x, const float *o)
{
    (void)o;
    rt_ops_reference.silu(out, x, N);
}
static void op_softmax(float *out, const float *x, const float *o)
{
    (void)o;
    memcpy(out, x, N * sizeof *out);
    (void)rt_ops_reference.softmax(out, N, 1.3f);
}

static void gradients_match_finite_differences(void **state)
{
    (void)state;
    const rt_ops *ops = &rt_ops_reference;
    float x[N], other[N], dy[N], y[N], dx[N], dup[N], mean;
    fill(x, N, 1, 1);
    fill(other, N, 2, 1);
    fill(dy, N, 3, 1);
    fill(norm_weight, N, 4, 1);
    fill(norm_bias, N, 5, 1);
    memset(dx, 0, sizeof dx);
    ops->rms_norm_backward(dx, NULL, dy, x, norm_weight, ops->rms_norm(y, x, norm_weight, N, 1e-5f), N);
    slope_check(op_rms, x, NULL, dy, dx);
    memset(dx, 0, sizeof dx);
    const float r = ops->layer_norm(y, &mean, x, norm_weight, norm_bias, N, 1e-5f);
    ops->layer_norm_backward(dx, NULL, NULL, dy, x, norm_weight, mean, r, N);
    slope_check(op_layer, x, NULL, dy, dx);
    ops->silu_gate_backward(dx, dup, dy, x, other, N);
    slope_check(op_silu_gate, x, other, dy, dx);
    slope_check(op_silu_up, other, x, dy, dup);
    ops->gelu_gate_backward(dx, dup, dy, x, other, N);
    slope_check(op_gelu_gate, x, other, dy, dx);
    slope_check(op_gelu_up, other, x, dy, dup);
    ops->gelu_backward(dx, dy, x, N);
    slope_check(op_gelu, x, NULL, dy, dx);
    ops->silu_backward(dx, dy, x, N);
    slope_check(op_silu, x, NULL, dy, dx);
    op_softmax(y, x, NULL);
    ops->softmax_backward(dx, y, dy, (float)ops->dot(y, dy, N), 1.3f, N);
    slope_check(op_softmax, x, NULL, dy, dx);
}

static void rope_turns_back(void **state)
{
    (void)state;
    float x[N], y[N], c[N], s[N];
    fill(x, N, 1, 1);
    memcpy(y, x, sizeof y);
    for (size_t i = 0; i < N; i++) {
        c[i] = cosf(0.1f * (float)i);
        s[i] = sinf(0.1f * (float)i);
    }
    rt_ops_get()->rope(y, c, s, N / 2, 1.0f);
    rt_ops_get()->rope(y, c, s, N / 2, -1.0f);
    assert_near(y, x, N);
}

/* ---- products ---- */

static void product_case(const rt_gemm_spec *spec)
{
    const size_t a_rows = spec->a_transposed ? spec->k : spec->m,
                 b_rows = spec->b_transposed ? spec->n : spec->k;
    const size_t na = a_rows * spec->lda, nb = b_rows * spec->ldb, nc = spec->m * spec->ldc;
    float *a = calloc(na, 4), *b = calloc(nb, 4), *c = calloc(nc, 4);
    rt_bf16 *ah = calloc(na, 2), *bh = calloc(nb, 2), *ch = calloc(nc, 2);
    fill(a, na, 1, 1);
    fill(b, nb, 2, 1);
    fill(c, nc, 3, 1);
    const bool half = spec->ab == RT_BF16;
    rt_ops_reference.to_bf16(ah, a, na);
    rt_ops_reference.to_bf16(bh, b, nb);
    if (half) {
        rt_ops_reference.from_bf16(a, ah, na);
        rt_ops_reference.from_bf16(b, bh, nb);
    }
    double *want = calloc(nc, sizeof *want), largest = 1;
    for (size_t i = 0; i < spec->m; i++) {
        for (size_t j = 0; j < spec->n; j++) {
            double sum = spec->accumulate ? (double)c[i * spec->ldc + j] : 0;
            for (size_t k = 0; k < spec->k; k++)
                sum += (double)a[spec->a_transposed ? k * spec->lda + i : i * spec->lda + k] *
                       (double)b[spec->b_transposed ? j * spec->ldb + k : k * spec->ldb + j];
            want[i * spec->ldc + j] = sum;
            largest = fmax(largest, fabs(sum));
        }
    }
    const bool out_half = spec->c == RT_BF16;
    rt_gemm(spec, half ? (void *)ah : (void *)a, half ? (void *)bh : (void *)b,
            out_half ? (void *)ch : (void *)c);
    for (size_t i = 0; i < spec->m; i++) {
        for (size_t j = 0; j < spec->n; j++) {
            const size_t at = i * spec->ldc + j;
            const double got = out_half ? (double)rt_bf16_to_f32(ch[at]) : (double)c[at];
            assert_true(fabs(got - want[at]) <= (out_half ? 0x1p-8 : 2e-6) * largest);
        }
    }
    free(a);
    free(b);
    free(c);
    free(ah);
    free(bh);
    free(ch);
    free(want);
}

static void products_agree_with_double_sums(void **state)
{
    (void)state;
    const rt_dtype types[][2] = {{RT_F32, RT_F32}, {RT_BF16, RT_F32}, {RT_BF16, RT_BF16}};
    for (size_t type = 0; type < 3; type++) {
        for (int flags = 0; flags < 8; flags++) {
            const bool ta = flags & 1, tb = flags & 2, add = flags & 4;
            if (add && types[type][1] == RT_BF16)
                continue;
            const size_t m = 33, n = 18, k = 40;
            product_case(&(rt_gemm_spec){.m = m,
                                         .n = n,
                                         .k = k,
                                         .lda = (ta ? m : k) + 3,
                                         .ldb = (tb ? k : n) + 2,
                                         .ldc = n + 5,
                                         .ab = types[type][0],
                                         .c = types[type][1],
                                         .a_transposed = ta,
                                         .b_transposed = tb,
                                         .accumulate = add});
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_double_sums), /* first: the level of products is read once */
        cmocka_unit_test(a_variant_agrees_with_the_reference),
        cmocka_unit_test(one_position_attends_as_the_reference_does),
        cmocka_unit_test(gradients_match_finite_differences),
        cmocka_unit_test(rope_turns_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
