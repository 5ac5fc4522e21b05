/* cli/measure.h - what this machine can do at best, to set beside what retort does.
 *
 * Short runs, the best of several rounds: the best is what the machine can do when nobody disturbs it. */
#ifndef RT_CLI_MEASURE_H
#define RT_CLI_MEASURE_H

#include "base/pool.h"
#include "tensor/dtype.h"

/* Floating point operations a second of matrix products with the shapes of a small model's layers, all
 * threads of the pool together; dtype F32 or BF16.  `seconds`: about how long to measure. */
rt_status cli_measure_gemm(double *flops_per_s, rt_pool *pool, rt_dtype dtype, double seconds, rt_error *err);
/* Bytes a second read from memory by all threads together, from a buffer larger than the caches. */
rt_status cli_measure_read(double *bytes_per_s, rt_pool *pool, double seconds, rt_error *err);

#endif
