/* tensor/quant.h - between float32 and the block formats of GGUF.
 *
 * The layouts are those of GGUF files (little-endian).  Reading is exact: the float32 that the format
 * defines.  Writing rounds each block to nearest by the format's own scale search. */
#ifndef RT_TENSOR_QUANT_H
#define RT_TENSOR_QUANT_H

#include "retort/error.h"
#include "tensor/dtype.h"

/* x[0..n) from n elements of `dtype` at `blocks`; n is a whole number of blocks.  Any dtype of
 * dtype.h that stands for real numbers (F32, F16, BF16, F64, Q*).  Safe from any thread. */
void rt_dequantise(float *x, const void *blocks, rt_dtype dtype, size_t n);
/* The same to bf16 (round to nearest even of the float32). */
void rt_dequantise_bf16(rt_bf16 *x, const void *blocks, rt_dtype dtype, size_t n);
/* True for the types that rt_quantise writes: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q4_K Q6_K. */
bool rt_can_quantise(rt_dtype dtype);
void rt_quantise(void *blocks, const float *x, rt_dtype dtype, size_t n);

#endif
