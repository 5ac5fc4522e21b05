/* tensor/quant_tables.h - the tables of block decoders that tensor/quant.c chooses from. */
#ifndef RT_TENSOR_QUANT_TABLES_H
#define RT_TENSOR_QUANT_TABLES_H

#include "tensor/dtype.h"

/* x[0 .. n_blocks * block_elements) from n_blocks blocks, which may be unaligned. */
typedef void (*rt_decode_fn)(float *restrict x, const unsigned char *restrict blocks, size_t n_blocks);
typedef struct rt_decoders {
    rt_decode_fn of[RT_DTYPE_COUNT];
} rt_decoders;

extern const rt_decoders rt_decoders_ref;
#if defined(__x86_64__)
extern const rt_decoders rt_decoders_avx2, rt_decoders_avx512;
#endif

#endif
