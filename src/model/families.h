/* model/families.h - the families of decoders that this build knows, one table entry each.
 *
 * An entry says how the family differs from the common decoder: the defaults of its config.json, the
 * traits that no key tells, and the names of its tensors in both kinds of file.  To add a family of
 * the same shape is one entry in families.c; for the readers and canonical.c only. */
#ifndef RT_MODEL_FAMILIES_H
#define RT_MODEL_FAMILIES_H

#include "model/config.h"

/* Which layers have a sliding window when config.json does not list them. */
typedef enum rt_window_rule {
    RT_WINDOW_NEVER,
    RT_WINDOW_ALL,      /* mistral */
    RT_WINDOW_FROM,     /* qwen: when use_sliding_window, from layer max_window_layers on */
    RT_WINDOW_SWITCHED, /* qwen3_moe: all, when use_sliding_window */
    RT_WINDOW_PATTERN,  /* gemma3: all but each sixth (sliding_window_pattern) */
} rt_window_rule;

/* Which projections the key attention_bias speaks of (families without the key have fixed biases). */
typedef enum rt_bias_rule {
    RT_BIAS_NONE,   /* no projection has one */
    RT_BIAS_BY_KEY, /* attention_bias: q, k, v and the output; mlp_bias: the MLP, where has_mlp_bias_key */
    RT_BIAS_QKV,    /* qwen2: q, k, v always, nothing else */
    RT_BIAS_ALL,    /* gpt2 */
} rt_bias_rule;

/* How config.json says which layers have experts and how they are chosen (model/config_experts.c). */
typedef enum rt_expert_rule { RT_EXPERTS_NONE, RT_EXPERTS_QWEN, RT_EXPERTS_DEEPSEEK } rt_expert_rule;

typedef struct rt_config_keys { /* the names of sizes in config.json; NULL: the family has no such key */
    const char *n_layers, *n_embd, *n_heads, *n_heads_kv, *head_dim, *n_ff, *n_context, *norm_eps, *act;
} rt_config_keys;

typedef struct rt_config_defaults { /* of the family's config class, for keys that a file leaves out */
    size_t n_layers, n_embd, n_heads, n_heads_kv, head_dim, n_ff, n_vocab, n_context;
    double norm_eps, theta, theta_local;
    size_t window;
    int bos_id, eos_id, pad_id;
    bool tied;
    const char *act;
} rt_config_defaults; /* n_heads_kv 0: n_heads; head_dim 0: n_embd / n_heads; n_ff 0: 4 n_embd */

typedef struct rt_family {
    const char *name;         /* "llama"; goes into rt_model_config.family */
    const char *model_type;   /* what to_json writes */
    const char *architecture; /* the class that transformers loads */
    const char *gguf_arch;    /* general.architecture */
    rt_config_keys keys;
    rt_config_defaults defaults;
    rt_norm_kind norm;
    rt_window_rule window_rule;
    rt_bias_rule bias_rule;
    bool has_mlp_bias_key;
    bool norm_plus_one; /* in safetensors; GGUF holds the sum */
    bool post_norms, qk_norm, gated_mlp, learned_positions, conv1d;
    bool embed_scaled, has_rope_local, has_query_scalar;
    bool latent_attention; /* deepseek: the keys *_lora_rank and *_head_dim of config.json */
    rt_expert_rule experts;
    bool gguf_permuted;            /* q and k rows in GGUF are in the order of interleaved rope */
    bool gguf_fused_qkv;           /* one tensor [q rows, k rows, v rows] */
    const char *const *prefixes;   /* of tensor names in safetensors, the usual one first; ends with NULL */
    const char *layer_prefix;      /* "layers": "<prefix>layers.3.<role>" */
    const char *const *hf_roles;   /* [RT_ROLE_COUNT]; NULL: none */
    const char *const *hf_globals; /* [RT_GLOBAL_COUNT]; the head's carries its own prefix */
    const char *const *gguf_roles; /* "blk.3.<role>" */
    const char *const *gguf_globals;
} rt_family;

/* By model_type of config.json or, for GGUF, general.architecture.  RT_UNSUPPORTED names the family,
 * and says whether it is one that is merely not built yet. */
rt_status rt_family_by_model_type(const rt_family **out, const char *model_type, const char *where,
                                  rt_error *err);
rt_status rt_family_by_gguf_arch(const rt_family **out, const char *arch, const char *where, rt_error *err);
const rt_family *rt_family_of(const rt_model_config *config); /* of a config that a reader has filled */

/* Fills from a parsed config.json or GGUF metadata; config_json.c and config_gguf.c.  The caller checks. */
rt_status rt_config_fill_json(rt_model_config *out, const json_t *json, const char *where, rt_error *err);
rt_status rt_config_fill_gguf(rt_model_config *out, const rt_weights *weights, rt_error *err);
/* The traits that the family alone decides. */
void rt_config_fill_family(rt_model_config *out, const rt_family *family);
/* "silu", "gelu_pytorch_tanh", ... */
bool rt_act_from_name(rt_act_kind *out, const char *name);
/* What YaRN multiplies the scale of latent attention by: (0.1 mscale_all_dim ln(factor) + 1)². */
double rt_latent_scale(const rt_model_config *config);
/* Sizes and numbers make sense together; `where` names the file. */
rt_status rt_model_config_check(const rt_model_config *config, const char *where, rt_error *err);
/* Every role of every layer is in the file with the shape that the configuration gives it. */
rt_status rt_canonical_check(const rt_weights *weights, const rt_model_config *config, rt_error *err);

/* Rows of a tensor that rope turns: of every `stride` rows the `count` from `first`; count 0: none.  Here
 * they are in rotate-half order, row i with row i + count/2; some files have them as pairs, 2i with 2i + 1.
 */
typedef struct rt_rope_rows {
    size_t stride, first, count;
} rt_rope_rows;
rt_rope_rows rt_rope_rows_of(const rt_model_config *config, rt_role role);
bool rt_rope_rows_are_pairs(const rt_model_config *config, bool gguf); /* in that kind of file */
/* Where the file with pairs has row `row`. */
size_t rt_rope_rows_stored(const rt_rope_rows *pairs, size_t row);
size_t rt_rope_rows_of_pair(const rt_rope_rows *pairs, size_t stored); /* the other way round */

/* GGUF's rope_freqs.weight (frequency divisors) to and from the parameters of llama3 scaling. */
rt_status rt_rope_from_factors(rt_rope_config *rope, size_t head_dim, const float *factors, const char *where,
                               rt_error *err);
void rt_rope_to_factors(float *factors /* [head_dim/2] */, const rt_rope_config *rope, size_t head_dim);

#endif
