/* tensor/cpu/ops_body.h - the row ops written so that the compiler vectorises them.
 *
 * Included once by each ops_<isa>.c, which is compiled for that instruction set and defines OPS_TABLE.
 * Sums run in 16 lanes of float32 (pairs of lanes are added in a fixed order at the end), so a result
 * does not depend on the instruction set's width.  exp is a degree-6 polynomial after reduction by
 * powers of two: relative error below 2e-7 on the whole range. */
#include <math.h>

#include "tensor/ops.h"

enum { LANES = 16 };

static inline float bits_to_float(uint32_t bits)
{
    float out;
    __builtin_memcpy(&out, &bits, sizeof out);
    return out;
}

static inline uint32_t float_to_bits(float x)
{
    uint32_t out;
    __builtin_memcpy(&out, &x, sizeof out);
    return out;
}

/* e^x for x in [-87, 88]; smaller x give 0, larger ones e^88. */
static inline float exp_fast(float x)
{
    const float clamped = x > 88.0f ? 88.0f : x < -87.0f ? -87.0f : x;
    const float shifted =
        __builtin_fmaf(clamped, 1.44269504f, 12582912.0f); /* 1.5 * 2^23: rounds to an integer */
    const float n = shifted - 12582912.0f;
    float r = __builtin_fmaf(n, -0.693359375f, clamped); /* ln 2 in two parts */
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r) + 1.0f;
    const float power = bits_to_float((float_to_bits(shifted) + (127u - 0x4B400000u)) << 23);
    return x < -87.0f ? 0.0f : p * power;
}

static inline float tanh_fast(float x)
{
    const float e = exp_fast(2.0f * x);
    return 1.0f - 2.0f / (e + 1.0f);
}

static inline float sigmoid_fast(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

static void to_bf16(rt_bf16 *restrict out, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = float_to_bits(x[i]);
        const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
        const uint32_t quiet = bits >> 16 | 0x40u;
        out[i] = (rt_bf16)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
    }
}

static void from_bf16(float *restrict out, const rt_bf16 *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = bits_to_float((uint32_t)x[i] << 16);
}

static inline float lanes_sum(const float lanes[LANES])
{
    float s[8];
    for (int i = 0; i < 8; i++)
        s[i] = lanes[i] + lanes[i + 8];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static inline float dot_float(const float *restrict a, const float *restrict b, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lanes[j] = __builtin_fmaf(a[i + j], b[i + j], lanes[j]);
    for (size_t j = 0; i < n; i++, j++)
        lanes[j] = __builtin_fmaf(a[i], b[i], lanes[j]);
    return lanes_sum(lanes);
}

static double dot(const float *a, const float *b, size_t n) { return (double)dot_float(a, b, n); }

static void add(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void axpy(float *restrict y, float a, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = __builtin_fmaf(a, x[i], y[i]);
}

static void scale_by(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= a;
}

static float rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    const float r = 1.0f / sqrtf(dot_float(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * r * w[i];
    return r;
}

static void rms_norm_backward(float *restrict dx_add, float *restrict dw_add, const float *restrict dy,
                              const float *restrict x, const float *restrict w, float r, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lanes[j] = __builtin_fmaf(w[i + j] * dy[i + j], x[i + j], lanes[j]);
    for (size_t j = 0; i < n; i++, j++)
        lanes[j] = __builtin_fmaf(w[i] * dy[i], x[i], lanes[j]);
    const float pull = r * r * lanes_sum(lanes) / (float)n;
    for (i = 0; i < n; i++)
        dx_add[i] = __builtin_fmaf(r, __builtin_fmaf(-x[i], pull, w[i] * dy[i]), dx_add[i]);
    if (dw_add)
        for (i = 0; i < n; i++)
            dw_add[i] = __builtin_fmaf(dy[i], x[i] * r, dw_add[i]);
}

static float layer_norm(float *out, float *mean, const float *x, const float *w, const float *b, size_t n,
                        float eps)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    const float m = (float)(sum / (double)n);
    for (size_t i = 0; i < n; i++)
        squares += (double)(x[i] - m) * (double)(x[i] - m);
    const float r = (float)(1.0 / sqrt(squares / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = __builtin_fmaf((x[i] - m) * r, w[i], b[i]);
    *mean = m;
    return r;
}

static void layer_norm_backward(float *restrict dx_add, float *restrict dw_add, float *restrict db_add,
                                const float *restrict dy, const float *restrict x, const float *restrict w,
                                float mean, float r, size_t n)
{
    double sum = 0, along = 0;
    for (size_t i = 0; i < n; i++) {
        const float g = w[i] * dy[i];
        sum += (double)g;
        along += (double)(g * ((x[i] - mean) * r));
    }
    const float g_mean = (float)(sum / (double)n), g_along = (float)(along / (double)n);
    for (size_t i = 0; i < n; i++) {
        const float unit = (x[i] - mean) * r;
        dx_add[i] += r * (w[i] * dy[i] - g_mean - unit * g_along);
    }
    if (!dw_add)
        return;
    for (size_t i = 0; i < n; i++) {
        dw_add[i] = __builtin_fmaf(dy[i], (x[i] - mean) * r, dw_add[i]);
        db_add[i] += dy[i];
    }
}

static void rope(float *x, const float *restrict cosines, const float *restrict sines, size_t half,
                 float sign)
{
    float *restrict low = x, *restrict high = x + half;
    for (size_t i = 0; i < half; i++) {
        const float a = low[i], b = high[i], c = cosines[i], s = sign * sines[i];
        low[i] = a * c - b * s;
        high[i] = b * c + a * s;
    }
}

static void silu_gate(float *restrict out, const float *restrict gate, const float *restrict up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gate[i] * sigmoid_fast(gate[i]) * up[i];
}

static void silu_gate_backward(float *restrict dgate, float *restrict dup, const float *restrict dout,
                               const float *restrict gate, const float *restrict up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float s = sigmoid_fast(gate[i]), d = dout[i];
        dup[i] = d * gate[i] * s;
        dgate[i] = d * up[i] * (s * __builtin_fmaf(gate[i], 1.0f - s, 1.0f));
    }
}

static inline float gelu_tanh_of(float x)
{
    return tanh_fast(0.797884561f * __builtin_fmaf(0.044715f * x, x * x, x));
}

static inline float gelu_value(float x) { return 0.5f * x * (1.0f + gelu_tanh_of(x)); }

static inline float gelu_slope(float x)
{
    const float t = gelu_tanh_of(x);
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * 0.797884561f * __builtin_fmaf(0.134145f * x, x, 1.0f);
}

static void gelu_gate(float *restrict out, const float *restrict gate, const float *restrict up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gelu_value(gate[i]) * up[i];
}

static void gelu_gate_backward(float *restrict dgate, float *restrict dup, const float *restrict dout,
                               const float *restrict gate, const float *restrict up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        dgate[i] = dout[i] * up[i] * gelu_slope(gate[i]);
        dup[i] = dout[i] * gelu_value(gate[i]);
    }
}

static void gelu(float *restrict out, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gelu_value(x[i]);
}

static void gelu_backward(float *restrict dx, const float *restrict dout, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = dout[i] * gelu_slope(x[i]);
}

static void silu(float *restrict out, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * sigmoid_fast(x[i]);
}

static void silu_backward(float *restrict dx, const float *restrict dout, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float s = sigmoid_fast(x[i]);
        dx[i] = dout[i] * s * __builtin_fmaf(x[i], 1.0f - s, 1.0f);
    }
}

static void softcap(float *x, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_fast(x[i] / cap);
}

static float softmax(float *x, size_t n, float scale)
{
    float tops[LANES];
    for (size_t j = 0; j < LANES; j++)
        tops[j] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            tops[j] = x[i + j] > tops[j] ? x[i + j] : tops[j];
    for (size_t j = 0; i < n; i++, j++)
        tops[j] = x[i] > tops[j] ? x[i] : tops[j];
    float top = tops[0];
    for (size_t j = 1; j < LANES; j++)
        top = tops[j] > top ? tops[j] : top;
    top *= scale;
    float lanes[LANES] = {0};
    for (i = 0; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            const float e = exp_fast(__builtin_fmaf(x[i + j], scale, -top));
            x[i + j] = e;
            lanes[j] += e;
        }
    }
    for (size_t j = 0; i < n; i++, j++) {
        x[i] = exp_fast(__builtin_fmaf(x[i], scale, -top));
        lanes[j] += x[i];
    }
    const float sum = lanes_sum(lanes), inverse = 1.0f / sum;
    for (i = 0; i < n; i++)
        x[i] *= inverse;
    return top + logf(sum);
}

static void softmax_again(float *x, size_t n, float scale, float lse)
{
    for (size_t i = 0; i < n; i++)
        x[i] = exp_fast(__builtin_fmaf(x[i], scale, -lse));
}

static void softmax_backward(float *ds, const float *p, const float *dp, float delta, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ds[i] = p[i] * (dp[i] - delta) * scale;
}

/* 16 lanes over the head's dimensions; keys are read once for all query heads of the group. */
#define SCORES_BODY(type, load)                                                                              \
    const type *restrict k = keys;                                                                           \
    const type *restrict queries = q;                                                                        \
    for (size_t t = 0; t < n; t++, k += ld) {                                                                \
        for (size_t g = 0; g < group; g++) {                                                                 \
            const type *restrict row = queries + g * head_dim;                                               \
            float lanes[LANES] = {0};                                                                        \
            size_t i = 0;                                                                                    \
            for (; i + LANES <= head_dim; i += LANES)                                                        \
                for (size_t j = 0; j < LANES; j++)                                                           \
                    lanes[j] = __builtin_fmaf(load(row[i + j]), load(k[i + j]), lanes[j]);                   \
            for (size_t j = 0; i < head_dim; i++, j++)                                                       \
                lanes[j] = __builtin_fmaf(load(row[i]), load(k[i]), lanes[j]);                               \
            scores[g * ld_scores + t] = lanes_sum(lanes);                                                    \
        }                                                                                                    \
    }
#define WEIGH_BODY(type, load)                                                                               \
    for (size_t i = 0; i < group * head_dim; i++)                                                            \
        out[i] = 0;                                                                                          \
    const type *restrict v = values;                                                                         \
    for (size_t t = 0; t < n; t++, v += ld) {                                                                \
        for (size_t g = 0; g < group; g++) {                                                                 \
            const float w = weights[g * ld_weights + t];                                                     \
            float *restrict to = out + g * head_dim;                                                         \
            for (size_t i = 0; i < head_dim; i++)                                                            \
                to[i] = __builtin_fmaf(w, load(v[i]), to[i]);                                                \
        }                                                                                                    \
    }
#define LOAD_F32(x) (x)
#define LOAD_BF16(x) bits_to_float((uint32_t)(x) << 16)

static void scores_f32(float *restrict scores, size_t ld_scores, const void *q, size_t group,
                       const void *keys, size_t ld, size_t n, size_t head_dim)
{
    SCORES_BODY(float, LOAD_F32)
}

#ifndef OPS_SCORES_BF16
#define OPS_SCORES_BF16 scores_bf16
static void scores_bf16(float *restrict scores, size_t ld_scores, const void *q, size_t group,
                        const void *keys, size_t ld, size_t n, size_t head_dim)
{
    SCORES_BODY(rt_bf16, LOAD_BF16)
}
#endif

static void weigh_f32(float *restrict out, const float *restrict weights, size_t ld_weights, size_t group,
                      const void *values, size_t ld, size_t n, size_t head_dim)
{
    WEIGH_BODY(float, LOAD_F32)
}

#ifndef OPS_WEIGH_BF16
#define OPS_WEIGH_BF16 weigh_bf16
static void weigh_bf16(float *restrict out, const float *restrict weights, size_t ld_weights, size_t group,
                       const void *values, size_t ld, size_t n, size_t head_dim)
{
    WEIGH_BODY(rt_bf16, LOAD_BF16)
}
#endif

const rt_ops OPS_TABLE = {
    .name = OPS_NAME,
    .to_bf16 = to_bf16,
    .from_bf16 = from_bf16,
    .dot = dot,
    .add = add,
    .axpy = axpy,
    .scale = scale_by,
    .rms_norm = rms_norm,
    .rms_norm_backward = rms_norm_backward,
    .layer_norm = layer_norm,
    .layer_norm_backward = layer_norm_backward,
    .rope = rope,
    .silu_gate = silu_gate,
    .silu_gate_backward = silu_gate_backward,
    .gelu_gate = gelu_gate,
    .gelu_gate_backward = gelu_gate_backward,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .silu = silu,
    .silu_backward = silu_backward,
    .softcap = softcap,
    .softmax = softmax,
    .softmax_again = softmax_again,
    .softmax_backward = softmax_backward,
    .scores_f32 = scores_f32,
    .scores_bf16 = OPS_SCORES_BF16,
    .weigh_f32 = weigh_f32,
    .weigh_bf16 = OPS_WEIGH_BF16,
};
