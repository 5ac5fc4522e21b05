/* tensor/adamw.h - the two loops of the optimiser that run over every parameter (student/optimiser.h). */
#ifndef RT_TENSOR_ADAMW_H
#define RT_TENSOR_ADAMW_H

#include <stddef.h>

#include "tensor/dtype.h"

typedef struct rt_adamw_step { /* the factors of one update */
    float decay;               /* 1 - lr wd */
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
    float rate;        /* lr / (1 - beta1^s) */
    float root_factor; /* 1 / sqrt(1 - beta2^s) */
    float eps, clip;
} rt_adamw_step;

typedef struct rt_adamw_ops {
    /* weights may be NULL; no two arrays overlap.  The same bits at every level. */
    void (*update)(const rt_adamw_step *step, const float *grad, float *master, float *m, float *v,
                   rt_bf16 *weights, size_t n);
    double (*sum_squares)(const float *x,
                          size_t n); /* 16 running sums, added up in order: the same bits too */
} rt_adamw_ops;

const rt_adamw_ops *rt_adamw_ops_get(void); /* the table of rt_cpu_level() */

#endif
