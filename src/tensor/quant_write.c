/* tensor/quant_write.c - rounds float32 to the plain types and the 32-element blocks.
 *
 * The 32-element formats use the reference rounding of GGUF: the scale is what maps the largest value
 * to the largest code, in float32, rounded to f16 after the codes were found.  The K types, whose
 * scales are searched for, are in quant_write_k.c. */
#include <assert.h>
#include <math.h>

#include "base/size.h"
#include "tensor/quant.h"
#include "tensor/quant_write.h"

static const float half_max = 65504.0f;

uint16_t rt_half_of_scale(float scale)
{
    return rt_f32_to_f16(scale > half_max ? half_max : scale < -half_max ? -half_max : scale);
}

static void put_half(unsigned char *p, float scale)
{
    const uint16_t half = rt_half_of_scale(scale);
    memcpy(p, &half, sizeof half);
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

static void put_nibbles(unsigned char *p, const int codes[32])
{
    for (int j = 0; j < 16; j++)
        p[j] = (unsigned char)(codes[j] | codes[j + 16] << 4);
}

static void round_q4_0(unsigned char *b, const float *x)
{
    float top = 0; /* the first value of the largest magnitude, with its sign */
    int codes[32];
    for (int j = 0; j < 32; j++)
        if (fabsf(x[j]) > fabsf(top))
            top = x[j];
    const float d = top / -8, inverse = inverse_of(d);
    for (int j = 0; j < 32; j++)
        codes[j] = clamp_code(x[j] * inverse + 8.5f, 15);
    put_half(b, d);
    put_nibbles(b + 2, codes);
}

static void round_q4_1(unsigned char *b, const float *x)
{
    float low = x[0], high = x[0];
    int codes[32];
    for (int j = 1; j < 32; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    const float d = high / 15 - low / 15 > half_max ? half_max : (high - low) / 15, inverse = inverse_of(d);
    for (int j = 0; j < 32; j++)
        codes[j] = clamp_code((x[j] - low) * inverse + 0.5f, 15);
    put_half(b, d);
    put_half(b + 2, low);
    put_nibbles(b + 4, codes);
}

static void round_q8_0(unsigned char *b, const float *x)
{
    float top = 0;
    for (int j = 0; j < 32; j++)
        top = fabsf(x[j]) > top ? fabsf(x[j]) : top;
    const float d = top / 127, inverse = inverse_of(d);
    put_half(b, d);
    for (int j = 0; j < 32; j++) {
        const float code = roundf(x[j] * inverse);
        b[2 + j] = (unsigned char)(int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
    }
}

typedef void (*round_fn)(unsigned char *block, const float *x);

static round_fn round_of(rt_dtype dtype)
{
    switch ((int)dtype) {
    case RT_Q4_0:
        return round_q4_0;
    case RT_Q4_1:
        return round_q4_1;
    case RT_Q8_0:
        return round_q8_0;
    case RT_Q4_K:
        return rt_round_q4_k;
    case RT_Q6_K:
        return rt_round_q6_k;
    default:
        return NULL;
    }
}

bool rt_can_quantise(rt_dtype dtype)
{
    return dtype == RT_F32 || dtype == RT_F16 || dtype == RT_BF16 || round_of(dtype) != NULL;
}

static void write_plain16(unsigned char *out, const float *x, rt_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint16_t bits = dtype == RT_F16 ? rt_f32_to_f16(x[i]) : rt_f32_to_bf16(x[i]);
        memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

void rt_quantise(void *blocks, const float *x, rt_dtype dtype, size_t n)
{
    const rt_dtype_info *info = rt_dtype_get(dtype);
    const round_fn round_block = round_of(dtype);
    unsigned char *out = blocks;
    float finite[RT_BLOCK_ELEMENTS_MAX];
    assert(rt_can_quantise(dtype) && n % info->block_elements == 0);
    if (dtype == RT_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    if (!round_block) {
        write_plain16(out, x, dtype, n);
        return;
    }
    for (size_t i = 0; i < n; i += info->block_elements, out += info->block_bytes) {
        for (size_t j = 0; j < info->block_elements; j++)
            finite[j] = isfinite(x[i + j]) ? x[i + j] : 0;
        round_block(out, finite);
    }
}
