/* tensor/cpu/qmat_vector.h - the vector operations of qmat_body.h for the instruction set being compiled.
 *
 * VI and VF hold LANES 32-bit values, one for each matrix row: 16 with AVX-512 (a whole strip), 8 with AVX2
 * (half of one).  dot_vectors is the integer product of code vectors with one activation row. */
#ifndef RT_TENSOR_CPU_QMAT_VECTOR_H
#define RT_TENSOR_CPU_QMAT_VECTOR_H

#include <immintrin.h>

#include "tensor/cpu/qmat_format.h"

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512BW__)
#define LANES 16u
#define SUBTILE 16u
typedef __m512i VI;
typedef __m512 VF;
INLINE VI vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE VI vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
INLINE VI vi_bytes(int x) { return _mm512_set1_epi8((char)x); }
INLINE VI vi_and(VI a, VI b) { return _mm512_and_si512(a, b); }
INLINE VI vi_or(VI a, VI b) { return _mm512_or_si512(a, b); }
INLINE VI vi_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
INLINE VI vi_sub(VI a, VI b) { return _mm512_sub_epi32(a, b); }
INLINE VI vi_add16(VI a, VI b) { return _mm512_add_epi16(a, b); }
INLINE VI vi_right(VI a, unsigned n) { return _mm512_srli_epi16(a, n); }
INLINE VI vi_left(VI a, unsigned n) { return _mm512_slli_epi16(a, n); }
INLINE VI vi_left32(VI a, unsigned n) { return _mm512_slli_epi32(a, n); }
INLINE VI vi_sign_right32(VI a, unsigned n) { return _mm512_srai_epi32(a, n); }
INLINE VI vi_pairs(VI u8, VI s8) { return _mm512_maddubs_epi16(u8, s8); }
INLINE VI vi_widen(VI s16) { return _mm512_madd_epi16(s16, _mm512_set1_epi16(1)); }
INLINE VF vf_set1(float x) { return _mm512_set1_ps(x); }
INLINE VF vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, VF x) { _mm512_storeu_ps(p, x); }
INLINE VF vf_add(VF a, VF b) { return _mm512_add_ps(a, b); }
INLINE VF vf_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
INLINE VF vf_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
INLINE VF vf_of_int(VI x) { return _mm512_cvtepi32_ps(x); }
INLINE VF vf_load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
INLINE VF vf_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
#else
#define LANES 8u
#define SUBTILE 4u
typedef __m256i VI;
typedef __m256 VF;
INLINE VI vi_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE VI vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
INLINE VI vi_bytes(int x) { return _mm256_set1_epi8((char)x); }
INLINE VI vi_and(VI a, VI b) { return _mm256_and_si256(a, b); }
INLINE VI vi_or(VI a, VI b) { return _mm256_or_si256(a, b); }
INLINE VI vi_add(VI a, VI b) { return _mm256_add_epi32(a, b); }
INLINE VI vi_sub(VI a, VI b) { return _mm256_sub_epi32(a, b); }
INLINE VI vi_add16(VI a, VI b) { return _mm256_add_epi16(a, b); }
INLINE VI vi_right(VI a, unsigned n) { return _mm256_srli_epi16(a, (int)n); }
INLINE VI vi_left(VI a, unsigned n) { return _mm256_slli_epi16(a, (int)n); }
INLINE VI vi_left32(VI a, unsigned n) { return _mm256_slli_epi32(a, (int)n); }
INLINE VI vi_sign_right32(VI a, unsigned n) { return _mm256_srai_epi32(a, (int)n); }
INLINE VI vi_pairs(VI u8, VI s8) { return _mm256_maddubs_epi16(u8, s8); }
INLINE VI vi_widen(VI s16) { return _mm256_madd_epi16(s16, _mm256_set1_epi16(1)); }
INLINE VF vf_set1(float x) { return _mm256_set1_ps(x); }
INLINE VF vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, VF x) { _mm256_storeu_ps(p, x); }
INLINE VF vf_add(VF a, VF b) { return _mm256_add_ps(a, b); }
INLINE VF vf_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
INLINE VF vf_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
INLINE VF vf_of_int(VI x) { return _mm256_cvtepi32_ps(x); }
INLINE VF vf_load_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
INLINE VF vf_load_i8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
#endif

/* The four activations that vector z meets, in every lane. */
INLINE VI vi_activations(const int8_t *x, unsigned z)
{
    int32_t four;
    __builtin_memcpy(&four, x + 4 * z, sizeof four);
    return vi_set1(four);
}

#if defined(__AVX512VNNI__)
INLINE VI dot_vectors(VI start, const VI codes[8], const int8_t *x, unsigned begin, unsigned end,
                      unsigned bits)
{
    (void)bits;
    VI other = vi_set1(0); /* two chains: half the latency for the scheduler to hide */
    for (unsigned z = begin; z < end; z += 2) {
        start = _mm512_dpbusd_epi32(start, codes[z], vi_activations(x, z));
        other = _mm512_dpbusd_epi32(other, codes[z + 1], vi_activations(x, z + 1));
    }
    return vi_add(start, other);
}
#else
/* Products of unsigned bytes with signed ones go pairwise into 16 bits: with codes below 2^bits as many
 * vectors may be added up there as stay below 32,768 (2 * 127 * 15 * 8, * 31 * 4, * 63 * 2). */
INLINE VI dot_small(VI start, const VI codes[8], const int8_t *x, unsigned begin, unsigned end, unsigned bits)
{
    const unsigned run = bits == 4 ? 8 : bits == 5 ? 4 : 2;
    for (unsigned z = begin; z < end;) {
        VI sum = vi_pairs(codes[z], vi_activations(x, z));
        for (z++; z < end && z % run != 0; z++)
            sum = vi_add16(sum, vi_pairs(codes[z], vi_activations(x, z)));
        start = vi_add(start, vi_widen(sum));
    }
    return start;
}

/* 8-bit codes as two 4-bit ones. */
INLINE VI dot_vectors(VI start, const VI codes[8], const int8_t *x, unsigned begin, unsigned end,
                      unsigned bits)
{
    if (bits < 8)
        return dot_small(start, codes, x, begin, end, bits);
    VI low[8], high[8];
    for (unsigned z = begin; z < end; z++) {
        low[z] = vi_and(codes[z], vi_bytes(0x0F));
        high[z] = vi_and(vi_right(codes[z], 4), vi_bytes(0x0F));
    }
    const VI highs = dot_small(vi_set1(0), high, x, begin, end, 4);
    return vi_add(dot_small(start, low, x, begin, end, 4), vi_left32(highs, 4));
}
#endif

#endif
