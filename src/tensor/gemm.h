/* tensor/gemm.h - matrix products, serial in the calling thread.
 *
 * C [m, n] = A' [m, k] B' [k, n], where A' is A or its transpose, all row-major.  The product itself is
 * oneDNN's (plain C at level ref); parallel work calls this from tasks of the pool, one tile a task, so
 * that the result of a tile does not depend on the number of threads.  Below the level avx512bf16 the
 * bf16 operands are widened and multiplied in float32 (the same values, other rounding of sums). */
#ifndef RT_TENSOR_GEMM_H
#define RT_TENSOR_GEMM_H

#include <stdbool.h>

#include "tensor/dtype.h"

typedef struct rt_gemm_spec {
    size_t m, n, k;
    size_t lda, ldb, ldc; /* elements from row to row of A, B and C as stored */
    rt_dtype ab, c;       /* F32 or BF16; C may be F32 or, when A and B are BF16, BF16 */
    bool a_transposed;    /* A is stored [k, m] */
    bool b_transposed;    /* B is stored [n, k], as linear weights are */
    bool accumulate;      /* C += instead of C = (C is F32) */
} rt_gemm_spec;

/* Neither fails nor, after the first call with a shape in a thread, allocates. */
void rt_gemm(const rt_gemm_spec *spec, const void *a, const void *b, void *c);

#endif
