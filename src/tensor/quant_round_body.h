/* tensor/quant_round_body.h - from float32 to blocks, for quant_variant_body.h; values are finite.
 *
 * The 32-element formats use the reference rounding of GGUF: the scale is what maps the largest value
 * to the largest code, in float32, rounded to f16 after the codes were found.
 *
 * In the K types a sub-block (32 or 16 values) gets the scale, and in Q4_K the offset, with the least
 * squared error among some that map its range to a few more or fewer codes than there are; the best fit
 * for the codes that each gives is found by linear least squares.  Then the scales are rounded to the
 * format's small integers, each beside its neighbours, the least error winning again.  Sums run in 16
 * lanes that are added in a fixed order, so every instruction set chooses the same. */
#include <math.h>

#include "tensor/quant_tables.h"

/* The nearest f16, cut to its range: gives back what was written. */
static inline float store_scale(byte *p, float scale)
{
    const float most = 65504;
    const uint16_t half = rt_f32_to_f16(scale > most ? most : scale < -most ? -most : scale);
    memcpy(p, &half, sizeof half);
    return rt_f16_to_f32(half);
}

/* 1 / d, or 0 where that is no use: then all codes stand for zero. */
static float inverse_of(float d)
{
    const float inverse = d == 0 ? 0 : 1 / d;
    return isfinite(inverse) ? inverse : 0;
}

static int clamp_code(float x, int max) /* truncates; x is finite */
{
    return x <= 0 ? 0 : x >= (float)max ? max : (int)x;
}

static void put_nibbles(byte *p, const int codes[32])
{
    for (int j = 0; j < 16; j++)
        p[j] = (byte)(codes[j] | codes[j + 16] << 4);
}

static void round_q4_0(byte *b, const float *x)
{
    float top = 0; /* the first value of the largest magnitude, with its sign */
    int codes[32];
    for (int j = 0; j < 32; j++)
        if (fabsf(x[j]) > fabsf(top))
            top = x[j];
    const float d = top / -8, inverse = inverse_of(d);
    for (int j = 0; j < 32; j++)
        codes[j] = clamp_code(x[j] * inverse + 8.5f, 15);
    (void)store_scale(b, d);
    put_nibbles(b + 2, codes);
}

static void round_q4_1(byte *b, const float *x)
{
    float low = x[0], high = x[0];
    int codes[32];
    for (int j = 1; j < 32; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    const float d = high / 15 - low / 15 > 65504 ? 65504 : (high - low) / 15, inverse = inverse_of(d);
    for (int j = 0; j < 32; j++)
        codes[j] = clamp_code((x[j] - low) * inverse + 0.5f, 15);
    (void)store_scale(b, d);
    (void)store_scale(b + 2, low);
    put_nibbles(b + 4, codes);
}

static void round_q8_0(byte *b, const float *x)
{
    float top = 0;
    for (int j = 0; j < 32; j++)
        top = fabsf(x[j]) > top ? fabsf(x[j]) : top;
    const float d = top / 127, inverse = inverse_of(d);
    (void)store_scale(b, d);
    for (int j = 0; j < 32; j++) {
        const float code = roundf(x[j] * inverse);
        b[2 + j] = (byte)(int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
    }
}

enum { LANES = 16 };

static inline float sum_lanes(const float lanes[LANES])
{
    float half[8];
    for (int j = 0; j < 8; j++)
        half[j] = lanes[j] + lanes[j + 8];
    return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

static inline float clamp(float x, float low, float high) /* a NaN gives `low` */
{
    return x > low ? (x < high ? x : high) : low;
}

/* The integer from `low` to `high` nearest to x; in a form that vectorises. */
static inline float nearest(float x, float low, float high)
{
    const float shift = 0x1.8p23f;
    return (clamp(x, low, high) + shift) - shift;
}

/* Squared error of x = scale * code - min with the best codes 0 .. 15 for it. */
static inline float error_affine(const float x[32], float scale, float min)
{
    const float inverse = scale > 0 ? 1 / scale : 0;
    float lanes[LANES] = {0};
    for (int i = 0; i < 32; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            const float off = scale * nearest((x[i + j] + min) * inverse, 0, 15) - min - x[i + j];
            lanes[j] += off * off;
        }
    }
    return sum_lanes(lanes);
}

typedef struct affine_fit {
    float scale, min, error;
} affine_fit;

/* Least squares for scale and min >= 0 given the codes that (x + min) * inverse rounds to, and the
 * squared error with these codes; scale 0 when there is none. */
static inline affine_fit fit_affine(const float x[32], float inverse, float min)
{
    float xs[LANES] = {0}, xxs[LANES] = {0}, qs[LANES] = {0}, qqs[LANES] = {0}, qxs[LANES] = {0};
    for (int i = 0; i < 32; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            const float q = nearest((x[i + j] + min) * inverse, 0, 15);
            xs[j] += x[i + j];
            xxs[j] += x[i + j] * x[i + j];
            qs[j] += q;
            qqs[j] += q * q;
            qxs[j] += q * x[i + j];
        }
    }
    const float x_sum = sum_lanes(xs), q_sum = sum_lanes(qs), qq = sum_lanes(qqs), qx = sum_lanes(qxs);
    const float det = 32 * qq - q_sum * q_sum;
    float a = det > 0 ? (32 * qx - q_sum * x_sum) / det : 0,
          b = det > 0 ? (q_sum * qx - qq * x_sum) / det : 0;
    if (b < 0) { /* a min below zero cannot be written */
        b = 0;
        a = qq > 0 ? qx / qq : 0;
    }
    const float error = sum_lanes(xxs) + a * (a * qq - 2 * qx) + b * (32 * b + 2 * x_sum - 2 * a * q_sum);
    return (affine_fit){a > 0 ? a : 0, b, error};
}

static void search_affine(const float x[32], float *best_scale, float *best_min)
{
    float low = 0, high = x[0], best = INFINITY;
    for (int j = 0; j < 32; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    const float range = high - low;
    *best_min = -low;
    *best_scale = range / 15;
    if (!(range > 0))
        return;
    for (int step = -10; step <= 10; step++) {
        const affine_fit fit = fit_affine(x, (15 + 0.1f * (float)step) / range, -low);
        if (fit.scale > 0 && fit.error < best) {
            best = fit.error;
            *best_scale = fit.scale;
            *best_min = fit.min;
        }
    }
}

/* The 6-bit scale and min near the wanted ones with the least error. */
static void settle_affine(const float x[32], float d, float dmin, float scale, float min, int *scale_code,
                          int *min_code)
{
    const int s = (int)nearest(d > 0 ? scale / d : 0, 0, 63);
    const int m = (int)nearest(dmin > 0 ? min / dmin : 0, 0, 63);
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

static void put_scales(byte p[12], const int scales[8], const int mins[8])
{
    for (int j = 0; j < 4; j++) {
        p[j] = (byte)(scales[j] | (scales[j + 4] >> 4) << 6);
        p[j + 4] = (byte)(mins[j] | (mins[j + 4] >> 4) << 6);
        p[j + 8] = (byte)((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

static void round_q4_k(byte block[144], const float x[256])
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
        byte *codes = block + 16 + 32 * (group / 2);
        settle_affine(from, d, dmin, scales[group], mins[group], &scale_codes[group], &min_codes[group]);
        const float scale = d * (float)scale_codes[group], min = dmin * (float)min_codes[group];
        const float inverse = scale > 0 ? 1 / scale : 0;
        for (int j = 0; j < 32; j++) {
            const int code = (int)nearest((from[j] + min) * inverse, 0, 15);
            codes[j] = (byte)(codes[j] | code << (4 * (group % 2)));
        }
    }
    put_scales(block + 4, scale_codes, min_codes);
}

static inline float error_linear(const float x[16], float scale)
{
    const float inverse = scale != 0 ? 1 / scale : 0;
    float lanes[LANES];
    for (int j = 0; j < LANES; j++) {
        const float off = scale * nearest(x[j] * inverse, -32, 31) - x[j];
        lanes[j] = off * off;
    }
    return sum_lanes(lanes);
}

/* The scale with which codes -32 .. 31 come nearest to x, its sign such that the largest value is at
 * -32.  With codes q the best scale is (q x) / (q q), and its error the less the larger (q x)^2 / (q q). */
static float search_linear(const float x[16])
{
    float top = 0, best = 0;
    for (int j = 0; j < 16; j++)
        if (fabsf(x[j]) > fabsf(top))
            top = x[j];
    float best_scale = top / -32;
    for (int step = -9; step <= 9 && top != 0; step++) {
        const float inverse = -(32 + 0.1f * (float)step) / top;
        float qqs[LANES], qxs[LANES];
        for (int j = 0; j < LANES; j++) {
            const float q = nearest(x[j] * inverse, -32, 31);
            qqs[j] = q * q;
            qxs[j] = q * x[j];
        }
        const float qq = sum_lanes(qqs), qx = sum_lanes(qxs);
        if (qx * qx > best * qq) {
            best = qx * qx / qq;
            best_scale = qx / qq;
        }
    }
    return best_scale;
}

static int settle_linear(const float x[16], float d, float scale)
{
    const int wanted = (int)nearest(d != 0 ? scale / d : 0, -128, 127);
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

static void round_q6_k(byte block[210], const float x[256])
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
        byte *low = block + 64 * half + 32 * (quarter % 2) + side, *high = block + 128 + 32 * half + side;
        const int scale_code = settle_linear(from, d, scales[group]);
        const float scale = d * (float)scale_code, inverse = scale != 0 ? 1 / scale : 0;
        block[192 + group] = (byte)(int8_t)scale_code;
        for (int j = 0; j < 16; j++) {
            const int code = 32 + (int)nearest(from[j] * inverse, -32, 31);
            low[j] = (byte)(low[j] | (code & 15) << (quarter / 2 * 4));
            high[j] = (byte)(high[j] | (code >> 4) << (quarter * 2));
        }
    }
}
