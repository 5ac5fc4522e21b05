/* model/backward_parts.h - what backward.c shares with the backward passes of experts and latents. */
#ifndef RT_MODEL_BACKWARD_PARTS_H
#define RT_MODEL_BACKWARD_PARTS_H

#include "model/pass.h"

typedef struct rt_back_job {
    const rt_model *model;
    rt_pass *pass;
    const rt_batch *batch;
    const rt_layout *layout;
    size_t layer;
    float *dx; /* [T, d] gradient of the residual stream */
    float *grads;
    const rt_backward_hooks *hooks;
} rt_back_job;

/* Where the partial sums of a block lie. */
typedef struct rt_vector_sums {
    float *norm, *norm_bias, *post, *out_bias; /* [d] each */
    float *bias;                               /* gate_up or qkv */
    float *q_norm, *k_norm;                    /* [head_dim]; with latent attention of the latents' norms */
} rt_vector_sums;

typedef struct rt_weight_part { /* dW [rows, cols] += dyᵀ x over all tokens */
    const void *dy, *x;
    size_t rows, cols;
    float *dw;
    int role;
} rt_weight_part;
enum { RT_WEIGHT_PARTS = 4 };

/* out [n, cols] = dy [n, rows] W [rows, cols] */
void rt_through_weights(const rt_model *model, const rt_proj *proj, const void *dy, size_t n, float *out);

/* ---- experts (experts_backward.c) ---- */

/* After back.dx_act and back.h are there: the gradients of the experts' matrices, and mixture.out and
 * mixture.dweights for rt_experts_input_backward. */
void rt_experts_backward(const rt_back_job *job);
/* dh [n, n_embd] += the gradient that comes through the experts and the router, for rows [begin, begin + n);
 * h [n, n_embd] their normed states.  Leaves mixture.dlogits. */
void rt_experts_input_backward(const rt_back_job *job, size_t begin, size_t n, const float *h, float *dh,
                               rt_carver *scratch);
size_t rt_experts_backward_scratch(const rt_model *model, size_t block);

/* ---- latents (latent_backward.c) ---- */

/* From back.dq, dk, dv of rows [begin, begin + n): back.dqkv, and for the weights back.dq_b, dkv_b, cq and
 * ckv.  qkv.rows sums of biases, and those of the two norms, in sums. */
void rt_latent_backward(const rt_back_job *job, size_t begin, size_t n, const rt_vector_sums *sums,
                        rt_carver *scratch);
size_t rt_latent_backward_scratch(const rt_model *model, size_t block);

#endif
