/* tensor/ops.c - which table of row ops this run uses. */
#include "tensor/ops.h"

#include "tensor/cpu.h"
#include "tensor/cpu/ops_tables.h"

const rt_ops *rt_ops_get(void)
{
#if defined(__x86_64__)
    const unsigned level = rt_cpu_level();
    if (level >= RT_CPU_AVX512BF16)
        return &rt_ops_avx512bf16;
    if (level >= RT_CPU_AVX512)
        return &rt_ops_avx512;
    if (level >= RT_CPU_AVX2)
        return &rt_ops_avx2;
#endif
    return &rt_ops_reference;
}
