/* tensor/adamw.c - picks the optimiser's loops for this run's instruction set. */
#include "tensor/adamw.h"

#include "tensor/cpu.h"
#include "tensor/cpu/adamw_tables.h"

const rt_adamw_ops *rt_adamw_ops_get(void)
{
#if defined(__x86_64__)
    const unsigned level = rt_cpu_level();
    if (level >= RT_CPU_AVX512)
        return &rt_adamw_ops_avx512;
    if (level >= RT_CPU_AVX2)
        return &rt_adamw_ops_avx2;
#endif
    return &rt_adamw_ops_ref;
}
