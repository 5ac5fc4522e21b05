/* student/adapter.h - low-rank adapters on a frozen base: LoRA (Hu et al. 2021) and DoRA (Liu et al. 2024).
 *
 *   LoRA   W' = W + s B A              A [r, cols], B [rows, r], s = alpha / r
 *   DoRA   W' = m (W + s B A) / n      m [rows] trained, n = the row norms of W + s B A, held constant by the
 *                                      gradient as the paper proposes (its section 4.3)
 *
 * A starts uniform in +-1/sqrt(cols), B at zero, m at the norms of W: the first step's model is the base to
 * the last bit.  The decoder runs on merged matrices, so forward and gradient of the activations cost what
 * they always do; of the weights only A, B and m have a gradient:  dB = s c (dyᵀ (x Aᵀ)),
 * dA = (dy (s c B))ᵀ x, c = m / n (LoRA: 1), and dm = rowsum(dW' W') / m.
 *
 * W stays as its file holds it (quantised blocks too).  Merged matrices are either kept, one copy of the
 * model in the activation type, or made for the layer at hand in room for one layer (`from_file`): then a
 * quantised base costs its own size. */
#ifndef RT_STUDENT_ADAPTER_H
#define RT_STUDENT_ADAPTER_H

#include "model/decoder.h"

enum { RT_ADAPTER_TARGETS = 7, RT_ADAPTER_RANK_MAX = 1024 };
typedef enum rt_adapter_kind { RT_ADAPTER_LORA, RT_ADAPTER_DORA } rt_adapter_kind;

typedef struct rt_adapter_options {
    rt_adapter_kind kind;
    size_t rank;
    double alpha;
    unsigned targets; /* bits in the order of rt_adapter_targets */
    bool from_file;   /* a layer's matrices are made when it is its turn */
    uint64_t seed;
    size_t tokens_max; /* of a batch */
    rt_precision precision;
} rt_adapter_options;

extern const char *const rt_adapter_targets[RT_ADAPTER_TARGETS]; /* q, k, v, o, gate, up, down */

typedef struct rt_adapter { /* of one matrix; offsets in the trained values */
    const rt_param *param;
    size_t a, b, m;
    float *norms, *factors; /* [rows] n and c = m / n; NULL: LoRA */
} rt_adapter;

typedef struct rt_adapters rt_adapters;

/* weights stay open as long as the adapters; layer_map as in rt_params_load.  RT_UNSUPPORTED for families
 * with experts, latent attention or fused projections. */
rt_status rt_adapters_open(rt_adapters **out, const rt_adapter_options *options,
                           const rt_model_config *config, const rt_weights *weights,
                           const rt_model_config *file_config, const size_t *layer_map, rt_pool *pool,
                           rt_error *err);
/* What adapters of these options take, before any weights are read: trained values, and rt_adapters_bytes of
 * a base whose matrices lie in its file as they are used. */
rt_status rt_adapters_size(size_t *total, size_t *bytes, const rt_adapter_options *options,
                           const rt_model_config *config, rt_pool *pool, rt_error *err);
void rt_adapters_close(rt_adapters *adapters);
const rt_adapter_options *rt_adapters_options(const rt_adapters *adapters);
size_t rt_adapters_total(const rt_adapters *adapters); /* trained values */
size_t rt_adapters_count(const rt_adapters *adapters);
const rt_adapter *rt_adapters_at(const rt_adapters *adapters, size_t index);
size_t rt_adapters_bytes(const rt_adapters *adapters); /* merged matrices and room for the gradient */
uint64_t rt_adapters_base_hash(const rt_adapters *adapters);

/* Where the parts lie from now on: the trained values and their gradient [total], and for the view: base
 * [layout total] float32, half the same in bf16 (NULL: F32).  Untouched pages of the two cost nothing.
 * With from_file the view's layers are led to the room of the first. */
void rt_adapters_bind(rt_adapters *adapters, rt_model *view, const float *values, float *grads, float *base,
                      rt_bf16 *half);
/* Fills the frozen parts of base and half, and values [total] with the start.  RT_NOT_FINITE names a tensor.
 */
rt_status rt_adapters_start(rt_adapters *adapters, float *values, rt_error *err);
/* After values were written.  hold: DoRA's norms stay as they are (finite differences). */
void rt_adapters_sync(rt_adapters *adapters, bool hold);
/* from_file: makes the layer's matrices; otherwise nothing. */
void rt_adapters_layer(rt_adapters *adapters, size_t layer);
/* An rt_backward_hooks.weight. */
void rt_adapters_gradient(void *adapters, size_t layer, const rt_weight_gradient *part);

/* A tensor of the merged model, as an export takes it. */
rt_status rt_adapters_tensor(const rt_adapters *adapters, rt_canonical *out, size_t layer, int which,
                             rt_error *err);
/* DIR/adapter_config.json and DIR/adapter_model.safetensors in the layout of PEFT. */
rt_status rt_adapters_write(const rt_adapters *adapters, const char *dir, const char *base_name,
                            rt_error *err);

#endif
