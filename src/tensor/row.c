/* tensor/row.c - picks the table of row passes for this run's instruction set. */
#include "tensor/row.h"

#include "tensor/cpu.h"
#include "tensor/cpu/row_tables.h"

const rt_row_ops *rt_row_ops_get(void)
{
#if defined(__x86_64__)
    const unsigned level = rt_cpu_level();
    if (level >= RT_CPU_AVX512)
        return &rt_row_ops_avx512;
    if (level >= RT_CPU_AVX2)
        return &rt_row_ops_avx2;
#endif
    return &rt_row_ops_ref;
}
