/* tensor/cpu/attend_avx512bf16.c - attention of one position, for decoding: it reads the whole cache once a
 * token.
 *
 * Scores: 16 keys at a time; a product of 32 pairs is one instruction (bf16 times bf16, float32 sums), and
 * the 16 sums are folded together by a tree of shuffles.  Weighted values: 64 dimensions of up to 4 heads
 * stay in registers while the positions stream by.  Dimensions that are no whole number of registers go
 * through masks. */
#include <immintrin.h>

#include "tensor/cpu/ops_tables.h"

enum { KEYS = 16, WIDE = 32, HEADS = 4 };

/* The sums of the 16 lanes of each of 16 registers, in order. */
static inline __m512 fold(const __m512 v[KEYS])
{
    __m512 t[8], u[4];
    for (int i = 0; i < 8; i++)
        t[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const __m512 w0 =
        _mm512_add_ps(_mm512_shuffle_f32x4(u[0], u[1], 0x88), _mm512_shuffle_f32x4(u[0], u[1], 0xdd));
    const __m512 w1 =
        _mm512_add_ps(_mm512_shuffle_f32x4(u[2], u[3], 0x88), _mm512_shuffle_f32x4(u[2], u[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(w0, w1, 0x88), _mm512_shuffle_f32x4(w0, w1, 0xdd));
}

static inline __mmask32 lanes_left(size_t left)
{
    return left >= WIDE ? ~(__mmask32)0 : ((__mmask32)1 << left) - 1;
}

static inline __m512bh load_pairs(__mmask32 mask, const rt_bf16 *x)
{
    return (__m512bh)_mm512_maskz_loadu_epi16(mask, x);
}

/* The scores of 16 keys for one query; `parts` and the count are known when this is compiled into a loop, so
 * that the sums stay in registers. */
__attribute__((always_inline)) static inline __m512 score_tile(const rt_bf16 *query, const rt_bf16 *keys,
                                                               size_t ld, size_t head_dim, size_t parts)
{
    __m512 sums[KEYS];
    for (size_t i = 0; i < KEYS; i++)
        sums[i] = _mm512_setzero_ps();
    for (size_t part = 0; part < parts; part++) {
        const __mmask32 mask = lanes_left(head_dim - part * WIDE);
        const __m512bh q = load_pairs(mask, query + part * WIDE);
#pragma GCC unroll 16
        for (size_t i = 0; i < KEYS; i++)
            sums[i] = _mm512_dpbf16_ps(sums[i], q, load_pairs(mask, keys + i * ld + part * WIDE));
    }
    return fold(sums);
}

/* Fewer than 16 keys are left: one at a time. */
static void score_rest(float *scores, const rt_bf16 *query, const rt_bf16 *keys, size_t ld, size_t count,
                       size_t head_dim)
{
    for (size_t i = 0; i < count; i++) {
        __m512 sums[KEYS];
        for (size_t j = 0; j < KEYS; j++)
            sums[j] = _mm512_setzero_ps();
        for (size_t at = 0; at < head_dim; at += WIDE) {
            const __mmask32 mask = lanes_left(head_dim - at);
            sums[0] =
                _mm512_dpbf16_ps(sums[0], load_pairs(mask, query + at), load_pairs(mask, keys + i * ld + at));
        }
        scores[i] = _mm512_cvtss_f32(fold(sums));
    }
}

void rt_scores_avx512bf16(float *scores, size_t ld_scores, const void *q, size_t group, const void *keys,
                          size_t ld, size_t n, size_t head_dim)
{
    const rt_bf16 *queries = q, *k = keys;
    const size_t parts = (head_dim + WIDE - 1) / WIDE, whole = n / KEYS * KEYS;
    for (size_t t = 0; t < whole; t += KEYS) {
        for (size_t g = 0; g < group; g++) {
            const rt_bf16 *query = queries + g * head_dim;
            const __m512 tile = parts == 2 ? score_tile(query, k + t * ld, ld, head_dim, 2)
                                           : score_tile(query, k + t * ld, ld, head_dim, parts);
            _mm512_storeu_ps(scores + g * ld_scores + t, tile);
        }
    }
    for (size_t g = 0; g < group; g++)
        score_rest(scores + g * ld_scores + whole, queries + g * head_dim, k + whole * ld, ld, n - whole,
                   head_dim);
}

/* 16 dimensions of a value as float32. */
static inline __m512 widen(__mmask16 mask, const rt_bf16 *x)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16));
}

static inline __mmask16 float_lanes(size_t dim, size_t head_dim)
{
    const size_t left = dim < head_dim ? head_dim - dim : 0;
    return (__mmask16)(left >= 16 ? 0xFFFFu : (1u << left) - 1);
}

/* out[h, dim .. dim + 64) for the heads first .. first + heads; `heads` is known where this is inlined, and
 * every loop over sums is unrolled, so that they stay in registers. */
__attribute__((always_inline)) static inline void weigh_tile(float *out, const float *weights,
                                                             size_t ld_weights, size_t first, size_t heads,
                                                             const rt_bf16 *v, size_t ld, size_t n,
                                                             size_t head_dim, size_t dim)
{
    __m512 sums[HEADS * 4];
    __mmask16 masks[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++)
        masks[j] = float_lanes(dim + 16 * j, head_dim);
#pragma GCC unroll 16
    for (size_t i = 0; i < 4 * heads; i++)
        sums[i] = _mm512_setzero_ps();
    weights += first * ld_weights;
    for (size_t t = 0; t < n; t++, v += ld) {
        __m512 value[4];
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++)
            value[j] = widen(masks[j], v + dim + 16 * j);
#pragma GCC unroll 16
        for (size_t i = 0; i < 4 * heads; i++)
            sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(weights[i / 4 * ld_weights + t]), value[i % 4], sums[i]);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < 4 * heads; i++)
        _mm512_mask_storeu_ps(out + (first + i / 4) * head_dim + dim + 16 * (i % 4), masks[i % 4], sums[i]);
}

void rt_weigh_avx512bf16(float *out, const float *weights, size_t ld_weights, size_t group,
                         const void *values, size_t ld, size_t n, size_t head_dim)
{
    for (size_t first = 0; first < group; first += HEADS) {
        const size_t heads = group - first;
        for (size_t dim = 0; dim < head_dim; dim += 64) {
            switch (heads) { /* the number of heads is known in each, so that sums stay in registers */
            case 1:
                weigh_tile(out, weights, ld_weights, first, 1, values, ld, n, head_dim, dim);
                break;
            case 2:
                weigh_tile(out, weights, ld_weights, first, 2, values, ld, n, head_dim, dim);
                break;
            case 3:
                weigh_tile(out, weights, ld_weights, first, 3, values, ld, n, head_dim, dim);
                break;
            default:
                weigh_tile(out, weights, ld_weights, first, HEADS, values, ld, n, head_dim, dim);
                break;
            }
        }
    }
}
