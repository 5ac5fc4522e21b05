/* model/config.h - what a decoder looks like, whatever file it came from.
 *
 * A family (llama, qwen2, ...) is a table entry in model/families.c that fills this from config.json
 * or GGUF metadata and maps tensor names; the decoder reads only this. */
#ifndef RT_MODEL_CONFIG_H
#define RT_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "model/weights.h"

enum { RT_LAYERS_MAX = 256 };

typedef enum rt_norm_kind { RT_NORM_RMS, RT_NORM_LAYER } rt_norm_kind;
typedef enum rt_act_kind { RT_ACT_SILU, RT_ACT_GELU_TANH } rt_act_kind;
typedef enum rt_rope_scaling { RT_ROPE_PLAIN, RT_ROPE_LINEAR, RT_ROPE_LLAMA3, RT_ROPE_YARN } rt_rope_scaling;

typedef struct rt_rope_config {
    double theta;
    rt_rope_scaling scaling;
    double factor;                            /* linear, llama3, yarn */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn; 32 and 1 by default */
    double attention_factor; /* yarn: cos and sin are multiplied by it; 0: 0.1 ln(factor) + 1 */
    double mscale_all_dim;   /* yarn with latent attention (rt_latent_scale); 0: absent */
    size_t original_context; /* llama3, yarn */
} rt_rope_config;

/* Latent attention: queries, keys and values come through narrow projections with a norm between (MLA of
 * DeepSeek-V2 and V3).  The decoder sees plain attention with as many kv heads as heads and
 * head_dim = max(nope + rope, value); what a head lacks is zero. */
typedef struct rt_latent_config {
    size_t kv_rank;           /* 0: plain attention, the rest is unused */
    size_t q_rank;            /* 0: queries have one projection */
    size_t nope, rope, value; /* of a head: query and key without and with rope, value */
    double norm_eps;          /* of the two norms between */
    bool interleaved;         /* in safetensors the rows that rope turns are stored as pairs (2i, 2i + 1) */
} rt_latent_config;

typedef enum rt_router_kind { RT_ROUTER_SOFTMAX, RT_ROUTER_SIGMOID } rt_router_kind;

/* A mixture of experts in place of the MLP (model/router.h says how experts are chosen). */
typedef struct rt_expert_config {
    size_t count;               /* 0: no layer has experts, the rest is unused */
    size_t used;                /* of them for a token */
    size_t n_ff, n_ff_shared;   /* inner width of an expert; of the MLP that every token passes, 0: none */
    size_t groups, groups_used; /* experts are chosen from the best groups; 1 of 1: from all */
    rt_router_kind router;
    bool normalised; /* the weights of a token's experts add up to `scale` */
    bool bias;       /* a bias that counts in the choice, not in the weights */
    double scale;
    bool sparse[RT_LAYERS_MAX]; /* the layers that have experts; the others have the MLP of n_ff */
} rt_expert_config;

typedef struct rt_model_config {
    char family[24]; /* "llama", "qwen2", ...: the model_type of config.json; "gemma3" for both of its */
    size_t n_layers, n_embd, n_heads, n_heads_kv, head_dim, n_ff, n_vocab;
    size_t n_context; /* longest sequence that the model was made for, tokens */
    rt_norm_kind norm;
    double norm_eps;
    bool norm_plus_one; /* gemma: the weight file holds w - 1 */
    bool post_norms;    /* gemma: a norm after attention and after the MLP, before the residual */
    bool qk_norm;       /* RMS norm on each head of q and k before rope */
    bool bias_qkv, bias_o, bias_mlp;
    bool gated_mlp;         /* down(act(gate) * up), else down(act(up)) */
    bool learned_positions; /* gpt2: position embeddings [n_context, n_embd] and no rope */
    bool tied;              /* the head is the embedding */
    bool conv1d;            /* gpt2 in safetensors: linear weights stored [in, out], fused qkv */
    rt_act_kind act;
    double attention_scale; /* of the scores; 1/sqrt(head_dim) unless the family says other */
    double embed_scale;     /* gemma: sqrt(n_embd), else 1 */
    double attention_softcap, logit_softcap; /* 0: none */
    rt_rope_config rope, rope_local;         /* rope_local: layers with a window, where has_rope_local */
    bool has_rope_local;
    rt_latent_config latent;
    rt_expert_config experts;
    size_t window[RT_LAYERS_MAX]; /* tokens that a query sees, itself included; 0: all before it */
    int bos_id, eos_id, pad_id;   /* -1: none */
} rt_model_config;

/* Reads and checks the configuration of an opened weight file; every size is checked for sense
 * (heads divide, head_dim even, no product overflows) before anything is made from it. */
rt_status rt_model_config_read(rt_model_config *out, const rt_weights *weights, rt_error *err);
/* From a parsed config.json (`where` names it in errors). */
rt_status rt_model_config_from_json(rt_model_config *out, const json_t *json, const char *where,
                                    rt_error *err);
/* A config.json in the way of transformers, for a student folder; the caller owns the result. */
json_t *rt_model_config_to_json(const rt_model_config *config);
size_t rt_model_config_parameters(const rt_model_config *config); /* a tied embedding counts once */

/* The configuration of a model that has n of the layers of `from`: its layer l is layers[l] there. */
void rt_model_config_take_layers(rt_model_config *out, const rt_model_config *from, const size_t *layers,
                                 size_t n);

/* The roles of a layer's tensors, in the order of the forward pass. */
#define RT_ROLE_MAP(X)                                                                                       \
    X(NORM1, "attention norm")                                                                               \
    X(NORM1_BIAS, "attention norm bias")                                                                     \
    X(Q, "query")                                                                                            \
    X(Q_BIAS, "query bias")                                                                                  \
    X(K, "key")                                                                                              \
    X(K_BIAS, "key bias")                                                                                    \
    X(V, "value")                                                                                            \
    X(V_BIAS, "value bias")                                                                                  \
    X(Q_NORM, "query norm")                                                                                  \
    X(K_NORM, "key norm")                                                                                    \
    X(O, "attention output")                                                                                 \
    X(O_BIAS, "attention output bias")                                                                       \
    X(NORM1_POST, "norm after attention")                                                                    \
    X(NORM2, "mlp norm")                                                                                     \
    X(NORM2_BIAS, "mlp norm bias")                                                                           \
    X(GATE, "mlp gate")                                                                                      \
    X(GATE_BIAS, "mlp gate bias")                                                                            \
    X(UP, "mlp up")                                                                                          \
    X(UP_BIAS, "mlp up bias")                                                                                \
    X(DOWN, "mlp down")                                                                                      \
    X(DOWN_BIAS, "mlp down bias")                                                                            \
    X(NORM2_POST, "norm after mlp")                                                                          \
    X(Q_A, "query, narrow")                                                                                  \
    X(Q_A_BIAS, "query bias, narrow")                                                                        \
    X(Q_A_NORM, "query latent norm")                                                                         \
    X(KV_A, "key and value, narrow")                                                                         \
    X(KV_A_BIAS, "key and value bias, narrow")                                                               \
    X(KV_A_NORM, "key and value latent norm")                                                                \
    X(Q_B, "query out of its latent")                                                                        \
    X(KV_B, "key and value out of their latent")                                                             \
    X(ROUTER, "router")                                                                                      \
    X(ROUTER_BIAS, "router bias")                                                                            \
    X(SHARED_GATE, "shared expert gate")                                                                     \
    X(SHARED_UP, "shared expert up")                                                                         \
    X(SHARED_DOWN, "shared expert down")                                                                     \
    X(EXPERT_GATE, "expert gate")                                                                            \
    X(EXPERT_UP, "expert up")                                                                                \
    X(EXPERT_DOWN, "expert down")
typedef enum rt_role {
#define RT_ROLE_ENUM(name, text) RT_ROLE_##name,
    RT_ROLE_MAP(RT_ROLE_ENUM)
#undef RT_ROLE_ENUM
        RT_ROLE_COUNT
} rt_role;
typedef enum rt_global { /* tensors outside the layers */
                         RT_GLOBAL_EMBED,
                         RT_GLOBAL_POSITIONS,
                         RT_GLOBAL_NORM,
                         RT_GLOBAL_NORM_BIAS,
                         RT_GLOBAL_HEAD,
                         RT_GLOBAL_COUNT
} rt_global;

/* A tensor of a layer is named by `which`: an rt_role, or for the EXPERT roles rt_expert_role(role, expert)
 * (expert 0: the role itself). */
static inline int rt_expert_role(rt_role role, size_t expert)
{
    return (int)role + (int)RT_ROLE_COUNT * (int)expert;
}
static inline rt_role rt_role_of(int which) { return (rt_role)(which % (int)RT_ROLE_COUNT); }
static inline size_t rt_role_expert(int which) { return (size_t)which / (size_t)RT_ROLE_COUNT; }
static inline bool rt_role_is_expert(rt_role role) { return role >= RT_ROLE_EXPERT_GATE; }
static inline int rt_role_span(const rt_model_config *config) /* `which` is below it */
{
    return (int)RT_ROLE_COUNT * (int)(config->experts.count ? config->experts.count : 1);
}

/* Shape [rows, cols] of a layer's tensor or global under a configuration (cols 0: a vector of `rows`; rows 0:
 * there is no such tensor).  Linear weights are [out, in]. */
void rt_role_shape(const rt_model_config *config, size_t layer, int which, size_t *rows, size_t *cols);
/* The width of the MLP that every token passes: n_ff, n_ff_shared, or 0. */
size_t rt_layer_ff(const rt_model_config *config, size_t layer);
void rt_global_shape(const rt_model_config *config, rt_global global, size_t *rows, size_t *cols);

/* A tensor as the decoder wants it: canonical layout ([out, in] rows, rotate-half rope order, qkv apart). */
typedef struct rt_canonical {
    rt_dtype dtype;
    size_t rows, cols; /* cols 0: a vector */
    const void *data;  /* points into the map where possible, else into `owned` */
    void *owned;       /* free() it; NULL when data points into the map */
} rt_canonical;
/* Fetches one tensor in canonical layout, whatever the file's names and layout are: GGUF's permuted
 * rows of llama's q and k are put back (whole rows move, blocks stay as they are), gpt2's fused and
 * transposed weights are split and turned, gemma's norm weights are used as the file's format holds them
 * (GGUF holds 1 + w; config.norm_plus_one tells which).  RT_NOT_FOUND names the tensor looked for. */
rt_status rt_canonical_layer(rt_canonical *out, const rt_weights *weights, const rt_model_config *config,
                             size_t layer, int which, rt_error *err);
rt_status rt_canonical_global(rt_canonical *out, const rt_weights *weights, const rt_model_config *config,
                              rt_global global, rt_error *err);
/* The tensor of the file that one comes from; its data are not touched. */
rt_status rt_canonical_source(const rt_weight **out, const rt_weights *weights, const rt_model_config *config,
                              size_t layer, int which, rt_error *err); /* layer SIZE_MAX: an rt_global */
/* The name that transformers gives the tensor (what golden gradients are called); gpt2: the fused name. */
void rt_role_hf_name(char out[128], const rt_model_config *config, size_t layer, int which);
void rt_global_hf_name(char out[128], const rt_model_config *config, rt_global global);

#endif
