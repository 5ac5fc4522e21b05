/* student/optimiser.h - AdamW with float32 master weights and moments, and clipping by the global norm.
 *
 *   w *= 1 - lr wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   w -= lr/(1-b1^s) * m / (sqrt(v)/sqrt(1-b2^s) + eps),  s from 1, g = clip * gradient
 *   bf16 copy of w rounded to nearest even (METHODS 17)
 *
 * An update is a flat range of a parameter group, so that tasks can share a group out in any way.  No
 * multiply-add is fused and each value depends on its own index alone: the result is the same bits for every
 * instruction set, thread count and split.  Pure functions: safe from any thread on ranges that do not
 * overlap. */
#ifndef RT_STUDENT_OPTIMISER_H
#define RT_STUDENT_OPTIMISER_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/adamw.h"
#include "tensor/dtype.h"

typedef struct rt_adamw_options {
    double lr, beta1, beta2, eps;
    double weight_decay; /* 0 for norms and biases */
} rt_adamw_options;

/* The factors of one update: step counts from 1, lr_factor is the schedule's multiplier, clip that of
 * rt_clip_factor. */
rt_adamw_step rt_adamw_step_make(const rt_adamw_options *options, uint64_t step, double lr_factor,
                                 double clip);

/* Updates [begin, end) of a group; all arrays are the whole group's.  weights may be NULL. */
void rt_adamw_update(const rt_adamw_step *step, const float *grad, float *master, float *m, float *v,
                     rt_bf16 *weights, size_t begin, size_t end);

/* The global norm: sums of squares over chunks of RT_NORM_CHUNK values in double, each by any thread, then
 * added up in the order of their index (all groups' chunks one after another), so that the norm is always the
 * same bits. */
enum { RT_NORM_CHUNK = 65536 };
size_t rt_norm_chunks(size_t n); /* ceil(n / RT_NORM_CHUNK) */
double rt_norm_chunk(const float *grad, size_t n, size_t chunk_index);
double rt_norm_total(const double *chunks, size_t count); /* the square root of their sum */
/* min(1, max_norm / (norm + 1e-6)); max_norm <= 0 stands for no clipping.  The caller stops at a norm that is
 * not finite. */
double rt_clip_factor(double norm, double max_norm);

#endif
