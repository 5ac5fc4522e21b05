/* tensor/quant.h - between float32 and the block formats of GGUF.
 *
 * The layouts are those of GGUF files (little-endian).  Reading is exact: the float32 that the format
 * defines.  Writing rounds each block to nearest by the format's own scale search. */
#ifndef RT_TENSOR_QUANT_H
#define RT_TENSOR_QUANT_H

#include "retort/error.h"
#include "tensor/dtype.h"

/* x[0..n) from n elements of `dtype` at `blocks` (which may be unaligned); n is a whole number of blocks.
 * Every dtype of dtype.h; integers give their value.  Safe from any thread. */
void rt_dequantise(float *x, const void *blocks, rt_dtype dtype, size_t n);
/* The same to bf16 (round to nearest even of the float32). */
void rt_dequantise_bf16(rt_bf16 *x, const void *blocks, rt_dtype dtype, size_t n);
/* True for the types that rt_quantise writes: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q4_K Q6_K. */
bool rt_can_quantise(rt_dtype dtype);
/* Block types cannot hold what is not finite: it counts as 0 there, and a scale past f16 is cut to
 * 65504; a caller to whom that matters looks first. */
void rt_quantise(void *blocks, const float *x, rt_dtype dtype, size_t n);

#endif
