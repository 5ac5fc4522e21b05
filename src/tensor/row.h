/* tensor/row.h - passes over rows of logits, one token's whole vocabulary at a time.
 *
 * These are the inner loops of the losses and of the judge (METHODS 16).  A row and its teacher's row
 * (2 x 192 KiB at 49,152 ids) stay in the second-level cache between passes, so exps are computed again
 * rather than stored.  Each side's own maximum is taken off first: logits with a large common shift
 * lose no digits.  Exps are float; sums are float over at most 512 values and double above that.
 *
 * The result of a pass depends on the level of tensor/cpu.h only in rounding.  Rows need no alignment.
 * Pure functions: safe from any thread. */
#ifndef RT_TENSOR_ROW_H
#define RT_TENSOR_ROW_H

#include <stdbool.h>
#include <stddef.h>

#include "tensor/dtype.h"

enum { RT_ROW_BLOCK = 512 }; /* values: gradients are made a block at a time */

typedef struct rt_row_sums { /* x = (z - max z)/tau, y the same of the teacher; e^x, e^y <= 1 */
    double s, t;             /* sum e^x, sum e^y */
    double sx, ty;           /* sum e^x (x - y), sum e^y (y - x) */
} rt_row_sums;

typedef struct rt_row_side { /* log p_i = (z_i - max) * inv_tau - log_sum */
    float max, log_sum;
} rt_row_side;

/* The gradient of one term group at one temperature:
 *   g_i = p_i a - q_i b + r p_i (log(p_i/q_i) - rkl) + j p_i (log(p_i/m_i) - jsd_centre) - c
 * with m = beta q + (1-beta) p.  A part whose coefficient is 0 costs nothing. */
typedef struct rt_row_grad {
    rt_row_side student, teacher;
    float inv_tau;
    float a, b, c, r, j; /* each with every factor: weight, scale, 1/tau */
    float rkl, jsd_centre, beta;
} rt_row_grad;

typedef struct rt_row_jsd {
    double t_sum; /* sum q log(q/m) */
    double s_sum; /* sum p log(p/m) */
} rt_row_jsd;

typedef struct rt_row_ops {
    /* The largest value and its first index; n > 0.  False when a value is not finite (a NaN may be passed
     * over). */
    bool (*argmax)(const float *x, size_t n, float *max, size_t *index);
    /* zt NULL: only `s`.  A value that is not finite (a masked id, a NaN) makes a sum of the pair not finite,
     * except that without a teacher -inf adds 0. */
    void (*sums)(const float *z, const float *zt, size_t n, float max_s, float max_t, float inv_tau,
                 rt_row_sums *out);
    void (*jsd)(const float *z, const float *zt, size_t n, const rt_row_grad *c, rt_row_jsd *out);
    /* sum |p - q|: twice the total variation. */
    double (*l1)(const float *z, const float *zt, size_t n, const rt_row_grad *c);
    /* g[0..n) = (add: +=) the gradient; zt may be NULL when b, r and j are 0.  g may be z or zt itself. */
    void (*grad)(float *g, const float *z, const float *zt, size_t n, const rt_row_grad *c, bool add);
    /* sums(), with e^x written over z and e^y over zt.  All values are finite. */
    void (*exps)(float *z, float *zt, size_t n, float max_s, float max_t, float inv_tau, rt_row_sums *out);
    /* From those: g = a e^x - b e^y - c, as floats over ex, or as bf16 from where ex begins.  ey may be NULL
     * if b is 0. */
    void (*blend)(float *ex, const float *ey, size_t n, float a, float b, float c, bool bf16);
    void (*to_bf16)(rt_bf16 *out, const float *x, size_t n); /* finite values only; to nearest even */
    void (*exp)(float *out, const float *x, size_t n);       /* x < -87 gives 0; x <= 88 */
} rt_row_ops;

const rt_row_ops *rt_row_ops_get(void); /* the table of rt_cpu_level() */
/* log sum e^x_i in double, for places that are not hot.  -inf where all are. */
double rt_log_sum_exp(const float *x, size_t n);

#endif
