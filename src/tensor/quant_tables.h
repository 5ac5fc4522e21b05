/* tensor/quant_tables.h - what tensor/quant.c chooses from: the same functions compiled for each
 * instruction set. */
#ifndef RT_TENSOR_QUANT_TABLES_H
#define RT_TENSOR_QUANT_TABLES_H

#include "tensor/dtype.h"

/* x[0 .. n_blocks * block_elements) from n_blocks blocks, which may be unaligned. */
typedef void (*rt_decode_fn)(float *restrict x, const unsigned char *restrict blocks, size_t n_blocks);
/* One block from as many finite values as it holds. */
typedef void (*rt_round_fn)(unsigned char *block, const float *x);

typedef struct rt_quant_variant {
    rt_decode_fn decode[RT_DTYPE_COUNT];
    rt_round_fn round[RT_DTYPE_COUNT]; /* NULL: not a block type, or one that is only read */
} rt_quant_variant;

extern const rt_quant_variant rt_quant_ref;
#if defined(__x86_64__)
extern const rt_quant_variant rt_quant_avx2, rt_quant_avx512;
#endif

#endif
