/* tensor/quant_body.h - the block decoders, written so that the compiler vectorises them.
 *
 * Included once by each quant_<isa>.c, which is compiled for that instruction set and defines
 * DECODERS.  Products and sums are rounded one by one (the build forbids contraction), so every
 * instruction set gives the same bits.
 *
 * The formats, all little-endian, d and m being f16 (q: code, unsigned unless said):
 *   Q4_0  d, 16 bytes of nibbles               x = d (q - 8)      element j low, j + 16 high nibble
 *   Q4_1  d, m, 16 bytes of nibbles            x = d q + m
 *   Q5_0  d, 32 fifth bits, nibbles            x = d (q - 16)
 *   Q5_1  d, m, 32 fifth bits, nibbles         x = d q + m
 *   Q8_0  d, 32 int8                           x = d q
 *   Q2_K  16 (scale, min) nibbles, 2-bit codes, d, dmin             x = (d s) q - (dmin m)
 *   Q3_K  third bits, 2-bit codes, 16 6-bit scales, d               x = d (s - 32) (q - 4)
 *   Q4_K  d, dmin, 8 6-bit (scale, min), nibbles                    x = (d s) q - (dmin m)
 *   Q5_K  d, dmin, 8 6-bit (scale, min), fifth bits, nibbles        x = (d s) q - (dmin m)
 *   Q6_K  nibbles, upper 2 bits, 16 int8 scales, d                  x = (d s) (q - 32)
 * The K types hold 256 elements; scales go with 16 (Q2_K, Q3_K, Q6_K) or 32 (Q4_K, Q5_K) in a row. */
#include "tensor/quant_tables.h"

typedef unsigned char byte;

static inline float float_of_bits(uint32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* Without branches, so that loops over it become vectors; exact, subnormals and infinities too. */
static inline float float_of_half(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7FFFu;
    const float small = (float)(int32_t)rest * 0x1p-24f; /* right when the exponent is 0 */
    uint32_t small_bits;
    memcpy(&small_bits, &small, sizeof small_bits);
    const uint32_t normal = (rest << 13) + (112u << 23);
    const uint32_t special = rest << 13 | 0x7F800000u;
    const uint32_t bits = rest < 0x400u ? small_bits : rest >= 0x7C00u ? special : normal;
    return float_of_bits(sign | bits);
}

static inline uint16_t load16(const byte *p)
{
    uint16_t out;
    memcpy(&out, p, sizeof out);
    return out;
}

static inline float load_half(const byte *p) { return float_of_half(load16(p)); }

static void decode_f32(float *restrict x, const byte *restrict b, size_t n) { memcpy(x, b, n * sizeof *x); }

static void decode_f16(float *restrict x, const byte *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = float_of_half(load16(b + 2 * i));
}

static void decode_bf16(float *restrict x, const byte *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = float_of_bits((uint32_t)load16(b + 2 * i) << 16);
}

#define DECODE_PLAIN(name, type)                                                                             \
    static void decode_##name(float *restrict x, const byte *restrict b, size_t n)                           \
    {                                                                                                        \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type value;                                                                                      \
            memcpy(&value, b + sizeof value * i, sizeof value);                                              \
            x[i] = (float)value;                                                                             \
        }                                                                                                    \
    }
DECODE_PLAIN(f64, double)
DECODE_PLAIN(i8, int8_t)
DECODE_PLAIN(i16, int16_t)
DECODE_PLAIN(i32, int32_t)
DECODE_PLAIN(i64, int64_t)
DECODE_PLAIN(u8, uint8_t)
#undef DECODE_PLAIN

static void decode_q4_0(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 18, x += 32) {
        const float d = load_half(b);
        for (int j = 0; j < 16; j++)
            x[j] = d * (float)((b[2 + j] & 15) - 8);
        for (int j = 0; j < 16; j++)
            x[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static void decode_q4_1(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 20, x += 32) {
        const float d = load_half(b), m = load_half(b + 2);
        for (int j = 0; j < 16; j++)
            x[j] = d * (float)(b[4 + j] & 15) + m;
        for (int j = 0; j < 16; j++)
            x[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* The 32 five-bit codes of a Q5 block: nibbles at `low`, fifth bits at `high`. */
static inline void codes5(int32_t codes[32], const byte *high, const byte *low)
{
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    for (int j = 0; j < 16; j++) {
        codes[j] = (int32_t)((low[j] & 15u) | (bits >> j & 1u) << 4);
        codes[j + 16] = (int32_t)((uint32_t)(low[j] >> 4) | (bits >> (j + 16) & 1u) << 4);
    }
}

static void decode_q5_0(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 22, x += 32) {
        const float d = load_half(b);
        int32_t codes[32];
        codes5(codes, b + 2, b + 6);
        for (int j = 0; j < 32; j++)
            x[j] = d * (float)(codes[j] - 16);
    }
}

static void decode_q5_1(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 24, x += 32) {
        const float d = load_half(b), m = load_half(b + 2);
        int32_t codes[32];
        codes5(codes, b + 4, b + 8);
        for (int j = 0; j < 32; j++)
            x[j] = d * (float)codes[j] + m;
    }
}

static void decode_q8_0(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 34, x += 32) {
        const float d = load_half(b);
        for (int j = 0; j < 32; j++)
            x[j] = d * (float)(int8_t)b[2 + j];
    }
}

static void decode_q2_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 84) {
        const float d = load_half(b + 80), dmin = load_half(b + 82);
        for (int group = 0; group < 16; group++, x += 16) { /* 16 elements with one scale */
            const float scale = d * (float)(b[group] & 15), min = dmin * (float)(b[group] >> 4);
            const byte *codes = b + 16 + 32 * (group / 8) + 16 * (group % 2);
            const int shift = group % 8 / 2 * 2;
            for (int j = 0; j < 16; j++)
                x[j] = scale * (float)(codes[j] >> shift & 3) - min;
        }
    }
}

static void decode_q3_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 110) {
        const float d = load_half(b + 108);
        const byte *packed = b + 96;
        for (int group = 0; group < 16; group++, x += 16) {
            const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
            const int high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
            const float scale = d * (float)((low | high << 4) - 32);
            const byte *codes = b + 32 + 32 * (group / 8) + 16 * (group % 2), *third = b + 16 * (group % 2);
            const int shift = group % 8 / 2 * 2, bit = group / 2;
            for (int j = 0; j < 16; j++)
                x[j] = scale * (float)((codes[j] >> shift & 3) + 4 * (third[j] >> bit & 1) - 4);
        }
    }
}

/* The 6-bit scales and mins of Q4_K and Q5_K: the first four plain, the upper bits of the others above them.
 */
static inline void scales_k(float scales[8], float mins[8], const byte p[12], float d, float dmin)
{
    for (int j = 0; j < 4; j++) {
        scales[j] = d * (float)(p[j] & 63);
        mins[j] = dmin * (float)(p[j + 4] & 63);
        scales[j + 4] = d * (float)((p[j + 8] & 15) | (p[j] >> 6) << 4);
        mins[j + 4] = dmin * (float)(p[j + 8] >> 4 | (p[j + 4] >> 6) << 4);
    }
}

static void decode_q4_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 144) {
        float scales[8], mins[8];
        scales_k(scales, mins, b + 4, load_half(b), load_half(b + 2));
        const byte *codes = b + 16;
        for (int pair = 0; pair < 4; pair++, codes += 32, x += 64) {
            const float s0 = scales[2 * pair], m0 = mins[2 * pair];
            const float s1 = scales[2 * pair + 1], m1 = mins[2 * pair + 1];
            for (int j = 0; j < 32; j++)
                x[j] = s0 * (float)(codes[j] & 15) - m0;
            for (int j = 0; j < 32; j++)
                x[j + 32] = s1 * (float)(codes[j] >> 4) - m1;
        }
    }
}

static void decode_q5_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 176) {
        float scales[8], mins[8];
        scales_k(scales, mins, b + 4, load_half(b), load_half(b + 2));
        const byte *fifth = b + 16;
        for (int group = 0; group < 8; group++, x += 32) {
            const byte *codes = b + 48 + 32 * (group / 2);
            const int shift = group % 2 * 4;
            const float scale = scales[group], min = mins[group];
            for (int j = 0; j < 32; j++)
                x[j] = scale * (float)((codes[j] >> shift & 15) + 16 * (fifth[j] >> group & 1)) - min;
        }
    }
}

static void decode_q6_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 210) {
        const float d = load_half(b + 208);
        for (int group = 0; group < 16; group++, x += 16) {
            const int half = group / 8, quarter = group % 8 / 2, side = 16 * (group % 2);
            const byte *low = b + 64 * half + 32 * (quarter % 2) + side;
            const byte *high = b + 128 + 32 * half + side;
            const int low_shift = quarter / 2 * 4, high_shift = quarter * 2;
            const float scale = d * (float)(int8_t)b[192 + group];
            for (int j = 0; j < 16; j++)
                x[j] = scale * (float)((low[j] >> low_shift & 15) + 16 * (high[j] >> high_shift & 3) - 32);
        }
    }
}

const rt_decoders DECODERS = {
    .of = {
        [RT_F32] = decode_f32,   [RT_F16] = decode_f16,   [RT_BF16] = decode_bf16, [RT_F64] = decode_f64,
        [RT_I8] = decode_i8,     [RT_I16] = decode_i16,   [RT_I32] = decode_i32,   [RT_I64] = decode_i64,
        [RT_U8] = decode_u8,     [RT_BOOL] = decode_u8,   [RT_Q4_0] = decode_q4_0, [RT_Q4_1] = decode_q4_1,
        [RT_Q5_0] = decode_q5_0, [RT_Q5_1] = decode_q5_1, [RT_Q8_0] = decode_q8_0, [RT_Q2_K] = decode_q2_k,
        [RT_Q3_K] = decode_q3_k, [RT_Q4_K] = decode_q4_k, [RT_Q5_K] = decode_q5_k, [RT_Q6_K] = decode_q6_k,
    }};
