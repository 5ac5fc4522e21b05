/* tensor/quant_write_k.c - rounds 256 float32 to a block of Q4_K or Q6_K.
 *
 * A sub-block (32 or 16 values) gets the scale, and for Q4_K the offset, with the least squared error
 * among some that map its range to a few more or fewer codes than there are; the best fit for the
 * codes that each gives is found by linear least squares.  Then the scales are rounded to the format's
 * small integers, each beside its neighbours, the least error winning again. */
#include <math.h>
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant_write.h"

/* Nearest integer (ties to even) of |x| < 2^22, in a form that vectorises. */
static inline float nearest(float x)
{
    const float shift = 0x1.8p23f;
    return (x + shift) - shift;
}

static inline float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

static inline float store_scale(unsigned char *p,
                                float scale) /* writes it as f16, gives back what was written */
{
    const uint16_t half = rt_half_of_scale(scale);
    memcpy(p, &half, sizeof half);
    return rt_f16_to_f32(half);
}

/* Squared error of x ≈ scale × code - min with the best codes 0 .. 15 for it. */
static float error_affine(const float x[32], float scale, float min)
{
    const float inverse = scale > 0 ? 1 / scale : 0;
    float lanes[8] = {0}, sum = 0;
    for (int i = 0; i < 32; i += 8) {
        for (int j = 0; j < 8; j++) {
            const float code = clamp(nearest(clamp((x[i + j] + min) * inverse, -1, 16)), 0, 15);
            const float off = scale * code - min - x[i + j];
            lanes[j] += off * off;
        }
    }
    for (int j = 0; j < 8; j++)
        sum += lanes[j];
    return sum;
}

/* Least squares for scale and min >= 0 given the codes that (x + min) × inverse rounds to. */
static void fit_affine(const float x[32], float inverse, float *scale, float *min)
{
    float sum_x = 0, sum_q = 0, sum_qq = 0, sum_qx = 0;
    for (int j = 0; j < 32; j++) {
        const float q = clamp(nearest(clamp((x[j] + *min) * inverse, -1, 16)), 0, 15);
        sum_x += x[j];
        sum_q += q;
        sum_qq += q * q;
        sum_qx += q * x[j];
    }
    const float det = 32 * sum_qq - sum_q * sum_q;
    if (det <= 0)
        return;
    float a = (32 * sum_qx - sum_q * sum_x) / det, b = (sum_q * sum_qx - sum_qq * sum_x) / det;
    if (b < 0) { /* a min below zero cannot be written */
        b = 0;
        a = sum_qq > 0 ? sum_qx / sum_qq : 0;
    }
    if (a > 0) {
        *scale = a;
        *min = b;
    }
}

static void search_affine(const float x[32], float *best_scale, float *best_min)
{
    float low = 0, high = x[0];
    for (int j = 0; j < 32; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    *best_min = -low;
    *best_scale = 0;
    if (high <= low)
        return;
    const float range = high - low;
    *best_scale = range / 15;
    float best = error_affine(x, *best_scale, *best_min);
    for (int step = -10; step <= 10; step++) {
        float scale = range / 15, min = -low;
        fit_affine(x, (15 + 0.1f * (float)step) / range, &scale, &min);
        const float error = error_affine(x, scale, min);
        if (error < best) {
            best = error;
            *best_scale = scale;
            *best_min = min;
        }
    }
}

/* The 6-bit scale and min near the wanted ones with the least error. */
static void settle_affine(const float x[32], float d, float dmin, float scale, float min, int *scale_code,
                          int *min_code)
{
    const int s = (int)clamp(nearest(d > 0 ? clamp(scale / d, 0, 63) : 0), 0, 63);
    const int m = (int)clamp(nearest(dmin > 0 ? clamp(min / dmin, 0, 63) : 0), 0, 63);
    float best = INFINITY;
    *scale_code = s;
    *min_code = m;
    for (int i = s > 0 ? s - 1 : 0; i <= s + 1 && i <= 63; i++) {
        for (int j = m > 0 ? m - 1 : 0; j <= m + 1 && j <= 63; j++) {
            const float error = error_affine(x, d * (float)i, dmin * (float)j);
            if (error < best) {
                best = error;
                *scale_code = i;
                *min_code = j;
            }
        }
    }
}

static void put_scales(unsigned char p[12], const int scales[8], const int mins[8])
{
    for (int j = 0; j < 4; j++) {
        p[j] = (unsigned char)(scales[j] | (scales[j + 4] >> 4) << 6);
        p[j + 4] = (unsigned char)(mins[j] | (mins[j + 4] >> 4) << 6);
        p[j + 8] = (unsigned char)((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

void rt_round_q4_k(unsigned char block[144], const float x[256])
{
    float scales[8], mins[8], top_scale = 0, top_min = 0;
    int scale_codes[8], min_codes[8];
    for (int group = 0; group < 8; group++) {
        search_affine(x + 32 * group, &scales[group], &mins[group]);
        top_scale = fmaxf(top_scale, scales[group]);
        top_min = fmaxf(top_min, mins[group]);
    }
    const float d = store_scale(block, top_scale / 63), dmin = store_scale(block + 2, top_min / 63);
    memset(block + 16, 0, 128);
    for (int group = 0; group < 8; group++) {
        const float *from = x + 32 * group;
        unsigned char *codes = block + 16 + 32 * (group / 2);
        settle_affine(from, d, dmin, scales[group], mins[group], &scale_codes[group], &min_codes[group]);
        const float scale = d * (float)scale_codes[group], min = dmin * (float)min_codes[group];
        const float inverse = scale > 0 ? 1 / scale : 0;
        for (int j = 0; j < 32; j++) {
            const int code = (int)clamp(nearest(clamp((from[j] + min) * inverse, -1, 16)), 0, 15);
            codes[j] = (unsigned char)(codes[j] | code << (4 * (group % 2)));
        }
    }
    put_scales(block + 4, scale_codes, min_codes);
}

static float error_linear(const float x[16], float scale)
{
    const float inverse = scale != 0 ? 1 / scale : 0;
    float sum = 0;
    for (int j = 0; j < 16; j++) {
        const float off = scale * nearest(clamp(x[j] * inverse, -32, 31)) - x[j];
        sum += off * off;
    }
    return sum;
}

/* The scale with which codes -32 .. 31 come nearest to x: its sign puts the largest value at -32. */
static float search_linear(const float x[16])
{
    float top = 0;
    for (int j = 0; j < 16; j++)
        if (fabsf(x[j]) > fabsf(top))
            top = x[j];
    if (top == 0)
        return 0;
    float best_scale = top / -32, best = error_linear(x, best_scale);
    for (int step = -9; step <= 9; step++) {
        const float inverse = -(32 + 0.1f * (float)step) / top;
        float sum_qq = 0, sum_qx = 0;
        for (int j = 0; j < 16; j++) {
            const float q = nearest(clamp(x[j] * inverse, -32, 31));
            sum_qq += q * q;
            sum_qx += q * x[j];
        }
        const float scale = sum_qq > 0 ? sum_qx / sum_qq : 0, error = error_linear(x, scale);
        if (scale != 0 && error < best) {
            best = error;
            best_scale = scale;
        }
    }
    return best_scale;
}

static int settle_linear(const float x[16], float d, float scale)
{
    const int wanted = (int)nearest(d != 0 ? clamp(scale / d, -128, 127) : 0);
    int best_code = wanted;
    float best = INFINITY;
    for (int code = wanted - 1; code <= wanted + 1; code++) {
        const float error = code < -128 || code > 127 ? INFINITY : error_linear(x, d * (float)code);
        if (error < best) {
            best = error;
            best_code = code;
        }
    }
    return best_code;
}

void rt_round_q6_k(unsigned char block[210], const float x[256])
{
    float scales[16], top = 0;
    for (int group = 0; group < 16; group++) {
        scales[group] = search_linear(x + 16 * group);
        if (fabsf(scales[group]) > fabsf(top))
            top = scales[group];
    }
    const float d = store_scale(block + 208, top / -128);
    memset(block, 0, 192);
    for (int group = 0; group < 16; group++) {
        const float *from = x + 16 * group;
        const int half = group / 8, quarter = group % 8 / 2, side = 16 * (group % 2);
        unsigned char *low = block + 64 * half + 32 * (quarter % 2) + side,
                      *high = block + 128 + 32 * half + side;
        const int scale_code = settle_linear(from, d, scales[group]);
        const float scale = d * (float)scale_code, inverse = scale != 0 ? 1 / scale : 0;
        block[192 + group] = (unsigned char)(int8_t)scale_code;
        for (int j = 0; j < 16; j++) {
            const int code = 32 + (int)nearest(clamp(from[j] * inverse, -32, 31));
            low[j] = (unsigned char)(low[j] | (code & 15) << (quarter / 2 * 4));
            high[j] = (unsigned char)(high[j] | (code >> 4) << (quarter * 2));
        }
    }
}
