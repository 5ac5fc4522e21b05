/* student/feature.h - losses on what lies inside the models: hidden states through a learned projection, and
 * the relations between tokens (METHODS 9).
 *
 * Hidden, with x = W h_s (W [d_t, d_s]; NULL: the identity, d_s = d_t) and y = h_t of one token:
 *   MSE             mean_i (x_i - y_i)^2
 *   MSE_NORMALISED  |x/|x| - y/|y||^2
 *   COSINE          1 - cos(x, y)
 *
 * Relation of one head over one sequence of n tokens, states S [n, d_s] and T [n, d_t]: row i of
 * softmax(S S'/sqrt(d_s)) over tokens 0..i against the teacher's, sum_i w_i KL(teacher_i || student_i). */
#ifndef RT_STUDENT_FEATURE_H
#define RT_STUDENT_FEATURE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum rt_hidden_kind { RT_HIDDEN_MSE, RT_HIDDEN_MSE_NORMALISED, RT_HIDDEN_COSINE } rt_hidden_kind;
bool rt_hidden_kind_from_name(rt_hidden_kind *out, const char *name); /* "mse", "mse_normalised", "cosine" */

/* n tokens in float32: returns sum_t scales[t] L_t; writes the gradient to dhs [n, d_s], leaves scales[t]
 * dL/dx in room [n, d_t].  The gradient of W is room' hs, see rt_hidden_projection. */
double rt_hidden_block(rt_hidden_kind kind, const float *hs, const float *ht, const float *w,
                       const double *scales, size_t n, size_t d_s, size_t d_t, float *dhs, float *room);
/* Rows [begin, end) of dw += room' hs. */
void rt_hidden_projection(float *dw, const float *room, const float *hs, size_t n, size_t d_s, size_t d_t,
                          size_t begin, size_t end);
/* The meaning, in double; dw [d_t, d_s] is written.  room [d_t]. */
double rt_hidden_ref(rt_hidden_kind kind, const double *hs, const double *ht, const double *w,
                     const double *scales, size_t n, size_t d_s, size_t d_t, double *dhs, double *dw,
                     double *room);

typedef struct rt_relation_states { /* rows of one head's states, ld elements apart */
    const float *x;
    size_t ld, d;
} rt_relation_states;
/* Returns the weighted loss; ds [n, d_s] (rows ldd apart) += its gradient.  room [2 n n]. */
double rt_relation_block(const rt_relation_states *student, const rt_relation_states *teacher,
                         const double *weights, size_t n, float *ds, size_t ldd, float *room);
/* The meaning, in double: states dense; ds is written.  room [2 n n]. */
double rt_relation_ref(const double *s, size_t d_s, const double *t, size_t d_t, const double *weights,
                       size_t n, double *ds, double *room);

/* Student layer l -> the teacher's round((l + 1) L_t / L_s) - 1. */
size_t rt_layer_map_uniform(size_t layer, size_t n_student, size_t n_teacher);

#endif
