/* tensor/cpu/qmat_format.h - how rt_qmat and its activations lie in memory, and the kernels' table.
 *
 * A matrix is cut into strips of 16 rows, a strip into groups of 32 columns.  A strip is three planes:
 *   codes   [groups] of 64 * code_bits bytes.  With "vector z" for the 64 bytes that hold columns 4z..4z+3
 *           of 16 rows (byte 4 * row + column % 4), z < 8:
 *             8 bits: the vectors 0..7;
 *             4 bits: 4 vectors, vector z in the low and vector z + 4 in the high half of each byte;
 *             5 bits: the same, then 64 bytes whose bit z is bit 4 of the code in vector z;
 *             6 bits: the same, then 128 bytes: bits 4 and 5 of vectors 0..3, then of vectors 4..7, two bits
 *                     for each vector.
 *   scales  [groups]: plain types: d[16] then, where the type has one, min[16], both f16.
 *           K types: for each half of the group (one where the type's sub-blocks have 32 values) int8
 * scale[16], then for each half int8 min[16]. supers  K types only, [groups / 8]: D[16], and Dmin[16] where
 * the type has one, f16. The value of a weight is d * (code - offset) + min; a type has either an offset or a
 * min.
 *
 * Activations are tiles of 16 rows, then one of 8, then one of the 1 to 7 rows that are left.  Planes, each
 * [tile][group][row of the tile]: codes (32 bytes), scale da (f32), da * sum (f32), -128 * sum and -128 * sum
 * of the first 16 codes (i32).  The sums carry the weights' offset into the integer product's start value:
 * offset o starts at (-128 * sum) / (128 / o). */
#ifndef RT_TENSOR_CPU_QMAT_FORMAT_H
#define RT_TENSOR_CPU_QMAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

enum { RT_QSTRIP_ROWS = 16, RT_QGROUP = 32, RT_QTILE_ROWS = 16, RT_QSUPER_GROUPS = 8 };

/* type, bits of a code, scales a group, offset (0: the type stores a min), K type, log2(128 / offset) */
#define RT_QFORMAT_MAP(X)                                                                                    \
    X(Q4_0, 4, 1, 8, 0, 4)                                                                                   \
    X(Q4_1, 4, 1, 0, 0, 0)                                                                                   \
    X(Q5_0, 5, 1, 16, 0, 3)                                                                                  \
    X(Q5_1, 5, 1, 0, 0, 0)                                                                                   \
    X(Q8_0, 8, 1, 128, 0, 0)                                                                                 \
    X(Q2_K, 4, 2, 0, 1, 0)                                                                                   \
    X(Q3_K, 4, 2, 4, 1, 5)                                                                                   \
    X(Q4_K, 4, 1, 0, 1, 0)                                                                                   \
    X(Q5_K, 5, 1, 0, 1, 0)                                                                                   \
    X(Q6_K, 6, 2, 32, 1, 2)

typedef enum rt_qformat_id {
#define RT_QFORMAT_ENUM(name, bits, halves, offset, k, shift) RT_QFORMAT_##name,
    RT_QFORMAT_MAP(RT_QFORMAT_ENUM)
#undef RT_QFORMAT_ENUM
        RT_QFORMATS
} rt_qformat_id;

typedef struct rt_qformat {
    rt_dtype dtype;
    unsigned code_bits, halves, offset;
    bool k;
    unsigned shift; /* log2(128 / offset) */
} rt_qformat;

static inline size_t rt_qcode_bytes(const rt_qformat *f) { return (size_t)64 * f->code_bits; }
static inline size_t rt_qscale_bytes(const rt_qformat *f)
{
    const size_t vectors = f->offset ? 1 : 2;
    return f->k ? RT_QSTRIP_ROWS * f->halves * vectors : RT_QSTRIP_ROWS * 2 * vectors;
}
static inline size_t rt_qsuper_bytes(const rt_qformat *f)
{
    return f->k ? (size_t)RT_QSTRIP_ROWS * 2 * (f->offset ? 1 : 2) : 0;
}

typedef struct rt_qstrip {
    const uint8_t *codes, *scales, *supers;
    size_t groups;
    bool prefetch; /* fetch what follows in memory: for the first tile that meets the strip */
} rt_qstrip;

typedef struct rt_qact_tile {
    const int8_t *codes;
    const float *scales, *scaled_sums;
    const int32_t *neg_sums, *neg_half_sums;
    size_t rows; /* 16, or 1 to 8 */
} rt_qact_tile;

/* The planes of one tile for writing, moved on by whole groups. */
typedef struct rt_qact_out {
    int8_t *codes;
    float *scales, *scaled_sums;
    int32_t *neg_sums, *neg_half_sums;
} rt_qact_out;

/* y[i*ldy + r] (+)= strip rows r < 16, tile rows i.  Every level gives the same bits: the integer dots are
 * exact and the float part is, group by group, y = fma((float)dot, d * da, y), then y = fma(min, da * sum,
 * y). */
typedef void (*rt_qtile_fn)(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile, bool add);

typedef struct rt_qmat_kernels {
    rt_qtile_fn tile[RT_QFORMATS];
    /* One activation row: its group g goes to entry g * stride of the planes (codes: 32 * g * stride). */
    void (*quantise_row)(const rt_qact_out *out, size_t stride, const float *x, size_t groups);
} rt_qmat_kernels;

extern const rt_qmat_kernels rt_qmat_kernels_ref;
#if defined(__x86_64__)
extern const rt_qmat_kernels rt_qmat_kernels_avx2, rt_qmat_kernels_avx512, rt_qmat_kernels_avx512bf16;
#endif

/* The smallest |x| that is not taken for zero: its reciprocal times 127 is still finite. */
#define RT_QACT_TINY_BITS 0x08800000 /* 2^-110 */

/* qmat_pack.c: rows [0, n_rows <= 16) of file blocks, row_bytes apart, into a strip; and one row back. */
void rt_qstrip_pack(uint8_t *codes, uint8_t *scales, uint8_t *supers, const rt_qformat *format,
                    const uint8_t *blocks, size_t row_bytes, size_t n_rows, size_t groups);
void rt_qstrip_row(float *out, const rt_qstrip *strip, const rt_qformat *format, size_t row);

#endif
