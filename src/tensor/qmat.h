/* tensor/qmat.h - a weight matrix in quantised blocks, packed for integer dot products.
 *
 * y[m, :] = W x[m, :] for m activations rows at a time, m from 1 (decoding) to thousands (prefill, a
 * teacher's forward).  Activations are rounded to int8 with one scale for each 32 values (as peers do);
 * weights keep the file's values exactly: w = d * code + min, code 4 or 8 bits, d and min f16 (or f32 where
 * f16 cannot hold them).  Rows are interleaved 16 at a time so that one vector register holds the same
 * columns of 16 rows and no horizontal sum is needed. */
#ifndef RT_TENSOR_QMAT_H
#define RT_TENSOR_QMAT_H

#include "base/pool.h"
#include "tensor/dtype.h"

typedef struct rt_qmat rt_qmat;

/* Can a matrix of this type be packed?  (Q4_0 Q4_1 Q5_0 Q5_1 Q8_0, and the K types whose scales allow.) */
bool rt_qmat_can_pack(rt_dtype dtype, size_t rows, size_t cols);
/* Memory that a packed matrix takes; 0 when it cannot be packed. */
size_t rt_qmat_packed_bytes(rt_dtype dtype, size_t rows, size_t cols);
/* Packs [rows, cols] blocks; the result owns its memory (64-byte aligned).  The pool speeds it up. */
rt_status rt_qmat_pack(rt_qmat **out, const void *blocks, rt_dtype dtype, size_t rows, size_t cols,
                       rt_pool *pool, rt_error *err);
/* The same in the caller's memory: rt_qmat_packed_bytes of it at `room`, 64-byte aligned, which must outlive
 * the matrix. */
rt_status rt_qmat_pack_into(rt_qmat **out, void *room, const void *blocks, rt_dtype dtype, size_t rows,
                            size_t cols, rt_pool *pool, rt_error *err);
void rt_qmat_free(rt_qmat *mat);
size_t rt_qmat_rows(const rt_qmat *mat);
size_t rt_qmat_cols(const rt_qmat *mat);
size_t rt_qmat_bytes(const rt_qmat *mat);
/* One row back as float32 (embedding look-up), exactly the file's values. */
void rt_qmat_row(const rt_qmat *mat, size_t row, float *out);

/* Activations rounded for the product: memory for m rows of `cols` values (best 64-byte aligned, must be 4),
 * then the rounding.  A group of 32 that holds a value that is not finite makes the products NaN. */
size_t rt_qact_bytes(size_t m, size_t cols);
void rt_qact_quantise(void *qact, const float *x, size_t ldx, size_t m, size_t cols);
/* The rows [row_begin, row_end) of the same (multiples of 16, or the end), so that threads share the work. */
void rt_qact_quantise_rows(void *qact, const float *x, size_t ldx, size_t m, size_t cols, size_t row_begin,
                           size_t row_end);

/* y[i*ldy + r] for i < m and r in [row_begin, row_end) (multiples of 16, or the end): the product of rows
 * of W with the quantised activations; add: y += instead of y =.  Serial: the caller shares out row ranges.
 */
void rt_qmat_mul(float *y, size_t ldy, const rt_qmat *mat, size_t row_begin, size_t row_end, const void *qact,
                 size_t m, bool add);

#endif
