/* tensor/mark.c - picks the watermark's loops for this run's instruction set. */
#include "tensor/mark.h"

#include "tensor/cpu.h"
#include "tensor/cpu/mark_tables.h"

const rt_mark_ops *rt_mark_ops_get(void)
{
#if defined(__x86_64__)
    const unsigned level = rt_cpu_level();
    if (level >= RT_CPU_AVX512)
        return &rt_mark_ops_avx512;
    if (level >= RT_CPU_AVX2)
        return &rt_mark_ops_avx2;
#endif
    return &rt_mark_ops_ref;
}
