/* student/feature.c - see feature.h. */
#include "student/feature.h"

#include <math.h>
#include <string.h>

#include "tensor/gemm.h"

bool rt_hidden_kind_from_name(rt_hidden_kind *out, const char *name)
{
    static const char *const names[] = {"mse", "mse_normalised", "cosine"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (rt_hidden_kind)i;
            return true;
        }
    }
    return false;
}

size_t rt_layer_map_uniform(size_t layer, size_t n_student, size_t n_teacher)
{
    const size_t twice = 2 * (layer + 1) * n_teacher + n_student; /* rounds halves up */
    const size_t map = twice / (2 * n_student);
    return map > 0 ? map - 1 : 0;
}

/* ---- hidden states ---- */

typedef struct direction { /* of the kinds that compare directions: L = weight (1 - cos) */
    double norm_x, norm_y, cos, weight;
} direction;

static direction direction_of(rt_hidden_kind kind, double xx, double yy, double xy)
{
    const double nx = fmax(sqrt(xx), 1e-12), ny = fmax(sqrt(yy), 1e-12);
    return (direction){nx, ny, xy / (nx * ny), kind == RT_HIDDEN_COSINE ? 1 : 2};
}

/* dL/dx_i = weight (cos x_i/|x| - y_i/|y|) / |x| */
static double direction_slope(const direction *d, double x, double y)
{
    return d->weight * (d->cos * x / d->norm_x - y / d->norm_y) / d->norm_x;
}

/* Over x comes scale * dL/dx. */
static double row_float(rt_hidden_kind kind, float *x, const float *y, size_t d, double scale)
{
    double loss = 0, xx = 0, yy = 0, xy = 0;
    if (kind == RT_HIDDEN_MSE) {
        for (size_t i = 0; i < d; i++) {
            const double diff = (double)x[i] - (double)y[i];
            loss += diff * diff;
            x[i] = (float)(scale * 2 * diff / (double)d);
        }
        return loss / (double)d;
    }
    for (size_t i = 0; i < d; i++) {
        xx += (double)x[i] * (double)x[i];
        yy += (double)y[i] * (double)y[i];
        xy += (double)x[i] * (double)y[i];
    }
    const direction to = direction_of(kind, xx, yy, xy);
    for (size_t i = 0; i < d; i++)
        x[i] = (float)(scale * direction_slope(&to, (double)x[i], (double)y[i]));
    return to.weight * (1 - to.cos);
}

double rt_hidden_block(rt_hidden_kind kind, const float *hs, const float *ht, const float *w,
                       const double *scales, size_t n, size_t d_s, size_t d_t, float *dhs, float *room)
{
    double loss = 0;
    if (w) {
        const rt_gemm_spec project = {.m = n,
                                      .n = d_t,
                                      .k = d_s,
                                      .lda = d_s,
                                      .ldb = d_s,
                                      .ldc = d_t,
                                      .ab = RT_F32,
                                      .c = RT_F32,
                                      .b_transposed = true};
        rt_gemm(&project, hs, w, room);
    } else {
        memcpy(room, hs, n * d_s * sizeof *room);
    }
    for (size_t t = 0; t < n; t++)
        loss += scales[t] * row_float(kind, room + t * d_t, ht + t * d_t, d_t, scales[t]);
    if (w) {
        const rt_gemm_spec back = {
            .m = n, .n = d_s, .k = d_t, .lda = d_t, .ldb = d_s, .ldc = d_s, .ab = RT_F32, .c = RT_F32};
        rt_gemm(&back, room, w, dhs);
    } else {
        memcpy(dhs, room, n * d_s * sizeof *dhs);
    }
    return loss;
}

void rt_hidden_projection(float *dw, const float *room, const float *hs, size_t n, size_t d_s, size_t d_t,
                          size_t begin, size_t end)
{
    const rt_gemm_spec spec = {.m = end - begin,
                               .n = d_s,
                               .k = n,
                               .lda = d_t,
                               .ldb = d_s,
                               .ldc = d_s,
                               .ab = RT_F32,
                               .c = RT_F32,
                               .a_transposed = true,
                               .accumulate = true};
    rt_gemm(&spec, room + begin, hs, dw + begin * d_s);
}

double rt_hidden_ref(rt_hidden_kind kind, const double *hs, const double *ht, const double *w,
                     const double *scales, size_t n, size_t d_s, size_t d_t, double *dhs, double *dw,
                     double *room)
{
    double total = 0;
    memset(dw, 0, d_t * d_s * sizeof *dw);
    memset(dhs, 0, n * d_s * sizeof *dhs);
    for (size_t t = 0; t < n; t++) {
        const double *h = hs + t * d_s, *y = ht + t * d_t;
        double loss = 0, xx = 0, yy = 0, xy = 0;
        for (size_t i = 0; i < d_t; i++) {
            room[i] = 0;
            for (size_t k = 0; k < d_s; k++)
                room[i] += w[i * d_s + k] * h[k];
            loss += (room[i] - y[i]) * (room[i] - y[i]) / (double)d_t;
            xx += room[i] * room[i];
            yy += y[i] * y[i];
            xy += room[i] * y[i];
        }
        const direction to = direction_of(kind, xx, yy, xy);
        if (kind != RT_HIDDEN_MSE)
            loss = to.weight * (1 - to.cos);
        total += scales[t] * loss;
        for (size_t i = 0; i < d_t; i++) {
            const double g = scales[t] * (kind == RT_HIDDEN_MSE ? 2 * (room[i] - y[i]) / (double)d_t
                                                                : direction_slope(&to, room[i], y[i]));
            for (size_t k = 0; k < d_s; k++) {
                dhs[t * d_s + k] += g * w[i * d_s + k];
                dw[i * d_s + k] += g * h[k];
            }
        }
    }
    return total;
}

/* ---- relations ---- */

static void gram(float *out, const rt_relation_states *s, size_t n)
{
    const rt_gemm_spec spec = {.m = n,
                               .n = n,
                               .k = s->d,
                               .lda = s->ld,
                               .ldb = s->ld,
                               .ldc = n,
                               .ab = RT_F32,
                               .c = RT_F32,
                               .b_transposed = true};
    rt_gemm(&spec, s->x, s->x, out);
}

static double row_lse(const float *x, size_t n, double factor)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)x[i] * factor);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] * factor - max);
    return max + log(sum);
}

double rt_relation_block(const rt_relation_states *student, const rt_relation_states *teacher,
                         const double *weights, size_t n, float *ds, size_t ldd, float *room)
{
    float *a = room, *b = room + n * n; /* student, teacher */
    const double fs = 1 / sqrt((double)student->d), ft = 1 / sqrt((double)teacher->d);
    double total = 0;
    gram(a, student, n);
    gram(b, teacher, n);
    for (size_t i = 0; i < n; i++) {
        float *ai = a + i * n;
        const float *bi = b + i * n;
        double kl = 0;
        if (weights[i] == 0) {
            memset(ai, 0, n * sizeof *ai);
            continue;
        }
        const double ls = row_lse(ai, i + 1, fs), lt = row_lse(bi, i + 1, ft);
        for (size_t j = 0; j <= i; j++) {
            const double lp = (double)ai[j] * fs - ls, lq = (double)bi[j] * ft - lt, q = exp(lq);
            kl += q > 0 ? q * (lq - lp) : 0;
            ai[j] = (float)(weights[i] * fs * (exp(lp) - q)); /* d loss / d (S S')_ij */
        }
        memset(ai + i + 1, 0, (n - i - 1) * sizeof *ai);
        total += weights[i] * kl;
    }
    rt_gemm_spec spec = {.m = n,
                         .n = student->d,
                         .k = n,
                         .lda = n,
                         .ldb = student->ld,
                         .ldc = ldd,
                         .ab = RT_F32,
                         .c = RT_F32,
                         .accumulate = true};
    rt_gemm(&spec, a, student->x, ds);
    spec.a_transposed = true;
    rt_gemm(&spec, a, student->x, ds);
    return total;
}

static void gram_ref(double *out, const double *s, size_t d, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            out[i * n + j] = 0;
            for (size_t k = 0; k < d; k++)
                out[i * n + j] += s[i * d + k] * s[j * d + k] / sqrt((double)d);
        }
    }
}

static double lse_ref(const double *x, size_t n)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

double rt_relation_ref(const double *s, size_t d_s, const double *t, size_t d_t, const double *weights,
                       size_t n, double *ds, double *room)
{
    double *a = room, *b = room + n * n, total = 0;
    gram_ref(a, s, d_s, n);
    gram_ref(b, t, d_t, n);
    memset(ds, 0, n * d_s * sizeof *ds);
    for (size_t i = 0; i < n; i++) {
        const double ls = lse_ref(a + i * n, i + 1), lt = lse_ref(b + i * n, i + 1);
        for (size_t j = 0; j <= i; j++) {
            const double lp = a[i * n + j] - ls, lq = b[i * n + j] - lt, q = exp(lq);
            total += weights[i] * (q > 0 ? q * (lq - lp) : 0);
            const double g = weights[i] * (exp(lp) - q) / sqrt((double)d_s);
            for (size_t k = 0; k < d_s; k++) {
                ds[i * d_s + k] += g * s[j * d_s + k];
                ds[j * d_s + k] += g * s[i * d_s + k];
            }
        }
    }
    return total;
}
