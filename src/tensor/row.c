/* tensor/row.c - picks the table of row passes for this run's instruction set. */
#include "tensor/row.h"

#include <math.h>

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

double rt_log_sum_exp(const float *x, size_t n)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, (double)x[i]);
    if (!isfinite(top))
        return top;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    return top + log(sum);
}
