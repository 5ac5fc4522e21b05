/* tensor/quant_decode_body.h - from blocks to float32, for quant_variant_body.h.
 *
 * Codes are unpacked 16 bytes at a time in GNU C's vectors.  Products and sums are rounded one by
 * one (the build forbids contraction), so every instruction set gives the same bits.
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

#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef unsigned char byte;
typedef byte byte16 __attribute__((vector_size(16)));

static inline byte16 load_bytes16(const byte *p)
{
    byte16 out;
    memcpy(&out, p, sizeof out);
    return out;
}

/* x[j] = scale * (codes[j] - zero) and x[j] = scale * codes[j] + offset for 16 codes in one register.
 * By hand where one instruction widens bytes: compilers split that step badly. */
static inline void scaled16(float *x, byte16 codes, int zero, float scale)
{
#if defined(__AVX512F__)
    const __m512i q = _mm512_sub_epi32(_mm512_cvtepu8_epi32((__m128i)codes), _mm512_set1_epi32(zero));
    _mm512_storeu_ps(x, _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(q)));
#elif defined(__AVX2__)
    const __m256i low = _mm256_cvtepu8_epi32((__m128i)codes), z = _mm256_set1_epi32(zero);
    const __m256i high = _mm256_cvtepu8_epi32(_mm_srli_si128((__m128i)codes, 8));
    const __m256 s = _mm256_set1_ps(scale);
    _mm256_storeu_ps(x, _mm256_mul_ps(s, _mm256_cvtepi32_ps(_mm256_sub_epi32(low, z))));
    _mm256_storeu_ps(x + 8, _mm256_mul_ps(s, _mm256_cvtepi32_ps(_mm256_sub_epi32(high, z))));
#else
    byte plain[16];
    memcpy(plain, &codes, sizeof plain);
    for (int j = 0; j < 16; j++)
        x[j] = scale * (float)(plain[j] - zero);
#endif
}

static inline void affine16(float *x, byte16 codes, float scale, float offset)
{
#if defined(__AVX512F__)
    const __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)codes));
    _mm512_storeu_ps(x, _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(scale), q), _mm512_set1_ps(offset)));
#elif defined(__AVX2__)
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32((__m128i)codes));
    const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128((__m128i)codes, 8)));
    const __m256 s = _mm256_set1_ps(scale), o = _mm256_set1_ps(offset);
    _mm256_storeu_ps(x, _mm256_add_ps(_mm256_mul_ps(s, low), o));
    _mm256_storeu_ps(x + 8, _mm256_add_ps(_mm256_mul_ps(s, high), o));
#else
    byte plain[16];
    memcpy(plain, &codes, sizeof plain);
    for (int j = 0; j < 16; j++)
        x[j] = scale * (float)plain[j] + offset;
#endif
}

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
    size_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(b + 2 * i))));
#endif
    for (; i < n; i++)
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

/* 8-bit floats, E4M3 without infinities: as the upper bits of an f16, whose exponent is 8 larger. */
static void decode_f8_e4m3(float *restrict x, const byte *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t code = b[i];
        const float value = 256.0f * float_of_half((uint16_t)((code & 0x80) << 8 | (code & 0x7F) << 7));
        x[i] = (code & 0x7F) == 0x7F ? float_of_bits(0x7FC00000u) : value;
    }
}

static void decode_q4_0(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 18, x += 32) {
        const byte16 both = load_bytes16(b + 2);
        const float d = load_half(b);
        scaled16(x, both & 15, 8, d);
        scaled16(x + 16, both >> 4, 8, d);
    }
}

static void decode_q4_1(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 20, x += 32) {
        const byte16 both = load_bytes16(b + 4);
        const float d = load_half(b), m = load_half(b + 2);
        affine16(x, both & 15, d, m);
        affine16(x + 16, both >> 4, d, m);
    }
}

/* 16 where a bit of p[0..2) is set. */
static inline byte16 fifth_bits(const byte *p)
{
    static const byte16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const byte a = p[0], b = p[1];
    const byte16 spread = {a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
    return (byte16)((spread & bit) != 0) & 16;
}

static void decode_q5_0(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 22, x += 32) {
        const byte16 both = load_bytes16(b + 6);
        const float d = load_half(b);
        scaled16(x, (both & 15) | fifth_bits(b + 2), 16, d);
        scaled16(x + 16, both >> 4 | fifth_bits(b + 4), 16, d);
    }
}

static void decode_q5_1(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 24, x += 32) {
        const byte16 both = load_bytes16(b + 8);
        const float d = load_half(b), m = load_half(b + 2);
        affine16(x, (both & 15) | fifth_bits(b + 4), d, m);
        affine16(x + 16, both >> 4 | fifth_bits(b + 6), d, m);
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

/* In the types with 16 scales, 16 bytes hold codes of four groups that lie 32 elements apart. */
static void decode_q2_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 84, x += 256) {
        const float d = load_half(b + 80), dmin = load_half(b + 82);
        for (int part = 0; part < 4; part++) { /* half of the block, side of 32 elements */
            const byte16 codes = load_bytes16(b + 16 + 16 * part);
            const int first = part / 2 * 8 + part % 2;
            for (int k = 0; k < 4; k++) {
                const byte packed = b[first + 2 * k];
                affine16(x + 16 * (first + 2 * k), codes >> (byte)(2 * k) & 3, d * (float)(packed & 15),
                         -(dmin * (float)(packed >> 4)));
            }
        }
    }
}

static void decode_q3_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 110, x += 256) {
        const float d = load_half(b + 108);
        const byte *packed = b + 96;
        float scales[16];
        for (int i = 0; i < 16; i++) {
            const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
            scales[i] = d * (float)((low | (packed[8 + i % 4] >> (2 * (i / 4)) & 3) << 4) - 32);
        }
        for (int part = 0; part < 4; part++) {
            const byte16 codes = load_bytes16(b + 32 + 16 * part);
            const byte16 third = load_bytes16(b + 16 * (part % 2)) >> (byte)(part / 2 * 4);
            const int first = part / 2 * 8 + part % 2;
            for (int k = 0; k < 4; k++) {
                const byte16 q = (codes >> (byte)(2 * k) & 3) | (third >> (byte)k & 1) << 2;
                scaled16(x + 16 * (first + 2 * k), q, 4, scales[first + 2 * k]);
            }
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
            for (int side = 0; side < 32; side += 16) {
                const byte16 both = load_bytes16(codes + side);
                affine16(x + side, both & 15, scales[2 * pair], -mins[2 * pair]);
                affine16(x + 32 + side, both >> 4, scales[2 * pair + 1], -mins[2 * pair + 1]);
            }
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
            const byte shift = (byte)(group % 2 * 4), bit = (byte)group;
            for (int side = 0; side < 32; side += 16) {
                const byte16 low = load_bytes16(codes + side) >> shift & 15;
                const byte16 high = load_bytes16(fifth + side) >> bit & 1;
                affine16(x + side, low | high << 4, scales[group], -mins[group]);
            }
        }
    }
}

static void decode_q6_k(float *restrict x, const byte *restrict b, size_t n)
{
    for (; n--; b += 210, x += 256) {
        const float d = load_half(b + 208);
        for (int part = 0; part < 4; part++) {
            const byte *at = b + part / 2 * 64 + part % 2 * 16;
            const byte16 low[2] = {load_bytes16(at), load_bytes16(at + 32)},
                         high = load_bytes16(b + 128 + 16 * part);
            const int first = part / 2 * 8 + part % 2;
            for (int k = 0; k < 4; k++) {
                const byte16 q = (low[k % 2] >> (byte)(k / 2 * 4) & 15) | (high >> (byte)(2 * k) & 3) << 4;
                scaled16(x + 16 * (first + 2 * k), q, 32, d * (float)(int8_t)b[192 + first + 2 * k]);
            }
        }
    }
}
