/* tensor/quant.c - chooses the block functions of this machine; see quant.h. */
#include "tensor/quant.h"

#include <assert.h>
#include <math.h>

#include "base/size.h"
#include "tensor/cpu.h"
#include "tensor/ops.h"
#include "tensor/quant_tables.h"

static const rt_quant_variant *variant(void)
{
#if defined(__x86_64__)
    const unsigned level = rt_cpu_level();
    if (level >= RT_CPU_AVX512)
        return &rt_quant_avx512;
    if (level >= RT_CPU_AVX2)
        return &rt_quant_avx2;
#endif
    return &rt_quant_ref;
}

void rt_dequantise(float *x, const void *blocks, rt_dtype dtype, size_t n)
{
    const size_t elements = rt_dtype_get(dtype)->block_elements;
    assert(n % elements == 0);
    variant()->decode[dtype](x, blocks, n / elements);
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
        rt_ops_get()->to_bf16(x, piece, count);
        x += count;
        n -= count;
        from += count / info->block_elements * info->block_bytes;
    }
}

bool rt_can_quantise(rt_dtype dtype)
{
    return dtype == RT_F32 || dtype == RT_F16 || dtype == RT_BF16 || rt_quant_ref.round[dtype] != NULL;
}

static void write_halves(unsigned char *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint16_t bits = rt_f32_to_f16(x[i]);
        memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

static void write_bf16(unsigned char *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const rt_bf16 bits = rt_f32_to_bf16(x[i]);
        memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

static void write_blocks(unsigned char *out, const float *x, rt_dtype dtype, size_t n)
{
    enum { BLOCK_ELEMENTS_MAX = 256 };
    const rt_dtype_info *info = rt_dtype_get(dtype);
    const rt_round_fn round_block = variant()->round[dtype];
    float finite[BLOCK_ELEMENTS_MAX];
    for (size_t i = 0; i < n; i += info->block_elements, out += info->block_bytes) {
        for (size_t j = 0; j < info->block_elements; j++)
            finite[j] = isfinite(x[i + j]) ? x[i + j] : 0;
        round_block(out, finite);
    }
}

void rt_quantise(void *blocks, const float *x, rt_dtype dtype, size_t n)
{
    assert(rt_can_quantise(dtype) && n % rt_dtype_get(dtype)->block_elements == 0);
    if (dtype == RT_F32)
        memcpy(blocks, x, n * sizeof *x);
    else if (dtype == RT_F16)
        write_halves(blocks, x, n);
    else if (dtype == RT_BF16)
        write_bf16(blocks, x, n);
    else
        write_blocks(blocks, x, dtype, n);
}
