/* tensor/ref/ops_ref.c - what each row op means: plain C, sums in double, one formula a function. */
#include "tensor/ops.h"

#include <math.h>

static void to_bf16(rt_bf16 *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = rt_f32_to_bf16(x[i]);
}

static void from_bf16(float *out, const rt_bf16 *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = rt_bf16_to_f32(x[i]);
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void scale_by(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= a;
}

static float rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    const float r = (float)(1.0 / sqrt(dot(x, x, n) / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * r * w[i];
    return r;
}

static void rms_norm_backward(float *dx_add, float *dw_add, const float *dy, const float *x, const float *w,
                              float r, size_t n)
{
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)w[i] * (double)dy[i] * (double)x[i];
    const double rd = (double)r, pull = rd * rd * mean / (double)n;
    for (size_t i = 0; i < n; i++) {
        dx_add[i] += (float)(rd * ((double)w[i] * (double)dy[i] - (double)x[i] * pull));
        if (dw_add)
            dw_add[i] += dy[i] * x[i] * r;
    }
}

static float layer_norm(float *out, float *mean, const float *x, const float *w, const float *b, size_t n,
                        float eps)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    const double m = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - m) * ((double)x[i] - m);
    const double r = 1.0 / sqrt(squares / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(((double)x[i] - m) * r) * w[i] + b[i];
    *mean = (float)m;
    return (float)r;
}

static void layer_norm_backward(float *dx_add, float *dw_add, float *db_add, const float *dy, const float *x,
                                const float *w, float mean, float r, size_t n)
{
    double sum = 0, along = 0; /* means of g = w dy, and of g times the normalised x */
    for (size_t i = 0; i < n; i++) {
        const double g = (double)w[i] * (double)dy[i];
        sum += g;
        along += g * ((double)x[i] - (double)mean) * (double)r;
    }
    sum /= (double)n;
    along /= (double)n;
    for (size_t i = 0; i < n; i++) {
        const double unit = ((double)x[i] - (double)mean) * (double)r;
        dx_add[i] += (float)((double)r * ((double)w[i] * (double)dy[i] - sum - unit * along));
        if (dw_add) {
            dw_add[i] += (float)((double)dy[i] * unit);
            db_add[i] += dy[i];
        }
    }
}

static void rope(float *x, const float *cosines, const float *sines, size_t half, float sign)
{
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half], c = cosines[i], s = sign * sines[i];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

static void silu_gate(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((double)gate[i] * sigmoid((double)gate[i]) * (double)up[i]);
}

static double silu_slope(double x)
{
    const double s = sigmoid(x);
    return s * (1 + x * (1 - s));
}

static void silu_gate_backward(float *dgate, float *dup, const float *dout, const float *gate,
                               const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double g = (double)gate[i], d = (double)dout[i], u = (double)up[i];
        dgate[i] = (float)(d * u * silu_slope(g));
        dup[i] = (float)(d * g * sigmoid(g));
    }
}

/* gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))) */
static const double gelu_root = 0.79788456080286535588, gelu_cubic = 0.044715;

static double gelu_value(double x) { return 0.5 * x * (1 + tanh(gelu_root * (x + gelu_cubic * x * x * x))); }

static double gelu_slope(double x)
{
    const double t = tanh(gelu_root * (x + gelu_cubic * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * gelu_root * (1 + 3 * gelu_cubic * x * x);
}

static void gelu_gate(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(gelu_value((double)gate[i]) * (double)up[i]);
}

static void gelu_gate_backward(float *dgate, float *dup, const float *dout, const float *gate,
                               const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double g = (double)gate[i], d = (double)dout[i];
        dgate[i] = (float)(d * (double)up[i] * gelu_slope(g));
        dup[i] = (float)(d * gelu_value(g));
    }
}

static void gelu(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)gelu_value((double)x[i]);
}

static void gelu_backward(float *dx, const float *dout, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)((double)dout[i] * gelu_slope((double)x[i]));
}

static void silu(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((double)x[i] * sigmoid((double)x[i]));
}

static void silu_backward(float *dx, const float *dout, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)((double)dout[i] * silu_slope((double)x[i]));
}

static void softcap(float *x, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((double)cap * tanh((double)x[i] / (double)cap));
}

static float softmax(float *x, size_t n, float scale)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, (double)x[i] * (double)scale);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] * (double)scale - top);
    const double lse = top + log(sum);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)exp((double)x[i] * (double)scale - lse);
    return (float)lse;
}

static void softmax_again(float *x, size_t n, float scale, float lse)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)exp((double)x[i] * (double)scale - (double)lse);
}

static void softmax_backward(float *ds, const float *p, const float *dp, float delta, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ds[i] = p[i] * (dp[i] - delta) * scale;
}

static void scores_f32(float *scores, size_t ld_scores, const void *q, size_t group, const void *keys,
                       size_t ld, size_t n, size_t head_dim)
{
    for (size_t g = 0; g < group; g++)
        for (size_t t = 0; t < n; t++)
            scores[g * ld_scores + t] =
                (float)dot((const float *)q + g * head_dim, (const float *)keys + t * ld, head_dim);
}

static void scores_bf16(float *scores, size_t ld_scores, const void *q, size_t group, const void *keys,
                        size_t ld, size_t n, size_t head_dim)
{
    for (size_t g = 0; g < group; g++) {
        for (size_t t = 0; t < n; t++) {
            double sum = 0;
            for (size_t i = 0; i < head_dim; i++)
                sum += (double)rt_bf16_to_f32(((const rt_bf16 *)q)[g * head_dim + i]) *
                       (double)rt_bf16_to_f32(((const rt_bf16 *)keys)[t * ld + i]);
            scores[g * ld_scores + t] = (float)sum;
        }
    }
}

static void weigh_f32(float *out, const float *weights, size_t ld_weights, size_t group, const void *values,
                      size_t ld, size_t n, size_t head_dim)
{
    for (size_t g = 0; g < group; g++) {
        for (size_t i = 0; i < head_dim; i++) {
            double sum = 0;
            for (size_t t = 0; t < n; t++)
                sum += (double)weights[g * ld_weights + t] * (double)((const float *)values)[t * ld + i];
            out[g * head_dim + i] = (float)sum;
        }
    }
}

static void weigh_bf16(float *out, const float *weights, size_t ld_weights, size_t group, const void *values,
                       size_t ld, size_t n, size_t head_dim)
{
    for (size_t g = 0; g < group; g++) {
        for (size_t i = 0; i < head_dim; i++) {
            double sum = 0;
            for (size_t t = 0; t < n; t++)
                sum += (double)weights[g * ld_weights + t] *
                       (double)rt_bf16_to_f32(((const rt_bf16 *)values)[t * ld + i]);
            out[g * head_dim + i] = (float)sum;
        }
    }
}

const rt_ops rt_ops_reference = {
    .name = "reference",
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
    .scores_bf16 = scores_bf16,
    .weigh_f32 = weigh_f32,
    .weigh_bf16 = weigh_bf16,
};
