/* tensor/ops.h - the row operations of a decoder: forward and gradient side by side, all in float32.
 *
 * One table per instruction set.  The reference (tensor/ref/ops_ref.c, plain C with sums in double)
 * is the meaning of every op; a variant is right when it agrees within the tolerances of
 * tests/tensor/test_ops.c, and each gradient when it agrees with finite differences.  Buffers may not
 * overlap unless a comment says so.  Gradients are added to (dx +=, dw +=) where the name says `add`. */
#ifndef RT_TENSOR_OPS_H
#define RT_TENSOR_OPS_H

#include "tensor/dtype.h"

typedef struct rt_ops {
    const char *name;
    void (*to_bf16)(rt_bf16 *out, const float *x, size_t n);
    void (*from_bf16)(float *out, const rt_bf16 *x, size_t n);
    double (*dot)(const float *a, const float *b, size_t n);
    void (*add)(float *y, const float *x, size_t n);           /* y += x */
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a x */
    void (*scale)(float *y, float a, size_t n);                /* y *= a */

    /* out = x w / sqrt(mean(x²) + eps); returns 1/sqrt(...).  out may be x. */
    float (*rms_norm)(float *out, const float *x, const float *w, size_t n, float eps);
    /* dx_add[i] += r (w dy - x r² mean(w dy x)); dw_add[i] += dy x r.  dw_add may be NULL. */
    void (*rms_norm_backward)(float *dx_add, float *dw_add, const float *dy, const float *x, const float *w,
                              float r, size_t n);
    /* out = (x - mean) r w + b, r = 1/sqrt(var + eps); returns r, mean in *mean. */
    float (*layer_norm)(float *out, float *mean, const float *x, const float *w, const float *b, size_t n,
                        float eps);
    void (*layer_norm_backward)(float *dx_add, float *dw_add, float *db_add, const float *dy, const float *x,
                                const float *w, float mean, float r, size_t n);
    /* Rotates the pairs (x[i], x[i + half]) by the angles whose cosines and sines are given; sign -1
     * turns back, which is also the gradient. */
    void (*rope)(float *x, const float *cosines, const float *sines, size_t half, float sign);

    /* out = act(gate) up, and the gradients of gate and up. */
    void (*silu_gate)(float *out, const float *gate, const float *up, size_t n);
    void (*silu_gate_backward)(float *dgate, float *dup, const float *dout, const float *gate,
                               const float *up, size_t n);
    void (*gelu_gate)(float *out, const float *gate, const float *up, size_t n); /* tanh form */
    void (*gelu_gate_backward)(float *dgate, float *dup, const float *dout, const float *gate,
                               const float *up, size_t n);
    void (*gelu)(float *out, const float *x, size_t n);
    void (*gelu_backward)(float *dx, const float *dout, const float *x, size_t n);
    void (*silu)(float *out, const float *x, size_t n);
    void (*silu_backward)(float *dx, const float *dout, const float *x, size_t n);
    /* y = cap tanh(x / cap), in place. */
    void (*softcap)(float *x, float cap, size_t n);

    /* x = softmax(scale x) in place; returns the log of the sum of exp(scale x). n > 0. */
    float (*softmax)(float *x, size_t n, float scale);
    /* x = exp(scale x - lse): the same probabilities from a kept log-sum-exp. */
    void (*softmax_again)(float *x, size_t n, float scale, float lse);
    /* ds = p (dp - delta) scale: gradient through the softmax of scaled scores; ds may be dp. */
    void (*softmax_backward)(float *ds, const float *p, const float *dp, float delta, float scale, size_t n);

    /* Attention of one position for the `group` query heads that share a kv head.  q [group, head_dim];
     * keys, values: n rows `ld` apart; scores [group] rows ld_scores apart.
     * scores[g, t] = q[g] . keys[t];  out[g] = sum_t weights[g, t] values[t] (out [group, head_dim]). */
    void (*scores_f32)(float *scores, size_t ld_scores, const void *q, size_t group, const void *keys,
                       size_t ld, size_t n, size_t head_dim);
    void (*scores_bf16)(float *scores, size_t ld_scores, const void *q, size_t group, const void *keys,
                        size_t ld, size_t n, size_t head_dim);
    void (*weigh_f32)(float *out, const float *weights, size_t ld_weights, size_t group, const void *values,
                      size_t ld, size_t n, size_t head_dim);
    void (*weigh_bf16)(float *out, const float *weights, size_t ld_weights, size_t group, const void *values,
                       size_t ld, size_t n, size_t head_dim);
} rt_ops;

/* Asks for data that will be read soon and once: a hint that changes no result. */
static inline void rt_prefetch(const void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)data + at, 0, 2);
}

extern const rt_ops rt_ops_reference;
/* The table for rt_cpu_level(). */
const rt_ops *rt_ops_get(void);

#endif
