/* tensor/quant.c - chooses the decoders of this machine; see quant.h. */
#include "tensor/quant.h"

#include <assert.h>

#include "base/size.h"
#include "tensor/cpu.h"
#include "tensor/quant_tables.h"

static const rt_decoders *decoders(void)
{
#if defined(__x86_64__)
    const unsigned level = rt_cpu_level();
    if (level >= RT_CPU_AVX512)
        return &rt_decoders_avx512;
    if (level >= RT_CPU_AVX2)
        return &rt_decoders_avx2;
#endif
    return &rt_decoders_ref;
}

void rt_dequantise(float *x, const void *blocks, rt_dtype dtype, size_t n)
{
    const size_t elements = rt_dtype_get(dtype)->block_elements;
    assert(n % elements == 0);
    decoders()->of[dtype](x, blocks, n / elements);
}

void rt_dequantise_bf16(rt_bf16 *x, const void *blocks, rt_dtype dtype, size_t n)
{
    enum { PIECE = 1024 }; /* a whole number of blocks of any type, small enough for the first cache */
    if (dtype == RT_BF16) {
        memcpy(x, blocks, n * sizeof *x);
        return;
    }
    const rt_dtype_info *info = rt_dtype_get(dtype);
    const unsigned char *from = blocks;
    float piece[PIECE];
    while (n) {
        const size_t count = rt_size_min(n, PIECE);
        rt_dequantise(piece, from, dtype, count);
        for (size_t i = 0; i < count; i++)
            x[i] = rt_f32_to_bf16(piece[i]);
        x += count;
        n -= count;
        from += count / info->block_elements * info->block_bytes;
    }
}
