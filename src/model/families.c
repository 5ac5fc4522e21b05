/* model/families.c - the table of families.
 *
 * Defaults are those of the configuration classes of transformers 5 (a config.json leaves out what
 * equals them); names are those that transformers and GGUF files use. */
#include "model/families.h"

#include <string.h>

#define COMMON_KEYS                                                                                          \
    {                                                                                                        \
        .n_layers = "num_hidden_layers", .n_embd = "hidden_size", .n_heads = "num_attention_heads",          \
        .n_heads_kv = "num_key_value_heads", .head_dim = "head_dim", .n_ff = "intermediate_size",            \
        .n_context = "max_position_embeddings", .norm_eps = "rms_norm_eps", .act = "hidden_act"              \
    }

static const char *const model_prefixes[] = {"model.", "", NULL};
static const char *const gemma3_prefixes[] = {"model.", "language_model.model.", "model.language_model.", "",
                                              NULL};
static const char *const gpt2_prefixes[] = {"transformer.", "", NULL};

static const char *const llama_hf_roles[RT_ROLE_COUNT] = {
    [RT_ROLE_NORM1] = "input_layernorm.weight",
    [RT_ROLE_Q] = "self_attn.q_proj.weight",
    [RT_ROLE_Q_BIAS] = "self_attn.q_proj.bias",
    [RT_ROLE_K] = "self_attn.k_proj.weight",
    [RT_ROLE_K_BIAS] = "self_attn.k_proj.bias",
    [RT_ROLE_V] = "self_attn.v_proj.weight",
    [RT_ROLE_V_BIAS] = "self_attn.v_proj.bias",
    [RT_ROLE_Q_NORM] = "self_attn.q_norm.weight",
    [RT_ROLE_K_NORM] = "self_attn.k_norm.weight",
    [RT_ROLE_O] = "self_attn.o_proj.weight",
    [RT_ROLE_O_BIAS] = "self_attn.o_proj.bias",
    [RT_ROLE_NORM2] = "post_attention_layernorm.weight",
    [RT_ROLE_GATE] = "mlp.gate_proj.weight",
    [RT_ROLE_GATE_BIAS] = "mlp.gate_proj.bias",
    [RT_ROLE_UP] = "mlp.up_proj.weight",
    [RT_ROLE_UP_BIAS] = "mlp.up_proj.bias",
    [RT_ROLE_DOWN] = "mlp.down_proj.weight",
    [RT_ROLE_DOWN_BIAS] = "mlp.down_proj.bias",
    [RT_ROLE_ROUTER] = "mlp.gate.weight",
    [RT_ROLE_EXPERT_GATE] = "mlp.experts.*.gate_proj.weight",
    [RT_ROLE_EXPERT_UP] = "mlp.experts.*.up_proj.weight",
    [RT_ROLE_EXPERT_DOWN] = "mlp.experts.*.down_proj.weight",
};
static const char *const deepseek_hf_roles[RT_ROLE_COUNT] = {
    [RT_ROLE_NORM1] = "input_layernorm.weight",
    [RT_ROLE_Q] = "self_attn.q_proj.weight",
    [RT_ROLE_Q_A] = "self_attn.q_a_proj.weight",
    [RT_ROLE_Q_A_BIAS] = "self_attn.q_a_proj.bias",
    [RT_ROLE_Q_A_NORM] = "self_attn.q_a_layernorm.weight",
    [RT_ROLE_Q_B] = "self_attn.q_b_proj.weight",
    [RT_ROLE_KV_A] = "self_attn.kv_a_proj_with_mqa.weight",
    [RT_ROLE_KV_A_BIAS] = "self_attn.kv_a_proj_with_mqa.bias",
    [RT_ROLE_KV_A_NORM] = "self_attn.kv_a_layernorm.weight",
    [RT_ROLE_KV_B] = "self_attn.kv_b_proj.weight",
    [RT_ROLE_O] = "self_attn.o_proj.weight",
    [RT_ROLE_O_BIAS] = "self_attn.o_proj.bias",
    [RT_ROLE_NORM2] = "post_attention_layernorm.weight",
    [RT_ROLE_GATE] = "mlp.gate_proj.weight",
    [RT_ROLE_UP] = "mlp.up_proj.weight",
    [RT_ROLE_DOWN] = "mlp.down_proj.weight",
    [RT_ROLE_ROUTER] = "mlp.gate.weight",
    [RT_ROLE_ROUTER_BIAS] = "mlp.gate.e_score_correction_bias",
    [RT_ROLE_SHARED_GATE] = "mlp.shared_experts.gate_proj.weight",
    [RT_ROLE_SHARED_UP] = "mlp.shared_experts.up_proj.weight",
    [RT_ROLE_SHARED_DOWN] = "mlp.shared_experts.down_proj.weight",
    [RT_ROLE_EXPERT_GATE] = "mlp.experts.*.gate_proj.weight",
    [RT_ROLE_EXPERT_UP] = "mlp.experts.*.up_proj.weight",
    [RT_ROLE_EXPERT_DOWN] = "mlp.experts.*.down_proj.weight",
};
static const char *const gemma3_hf_roles[RT_ROLE_COUNT] = {
    [RT_ROLE_NORM1] = "input_layernorm.weight",
    [RT_ROLE_Q] = "self_attn.q_proj.weight",
    [RT_ROLE_Q_BIAS] = "self_attn.q_proj.bias",
    [RT_ROLE_K] = "self_attn.k_proj.weight",
    [RT_ROLE_K_BIAS] = "self_attn.k_proj.bias",
    [RT_ROLE_V] = "self_attn.v_proj.weight",
    [RT_ROLE_V_BIAS] = "self_attn.v_proj.bias",
    [RT_ROLE_Q_NORM] = "self_attn.q_norm.weight",
    [RT_ROLE_K_NORM] = "self_attn.k_norm.weight",
    [RT_ROLE_O] = "self_attn.o_proj.weight",
    [RT_ROLE_O_BIAS] = "self_attn.o_proj.bias",
    [RT_ROLE_NORM1_POST] = "post_attention_layernorm.weight",
    [RT_ROLE_NORM2] = "pre_feedforward_layernorm.weight",
    [RT_ROLE_GATE] = "mlp.gate_proj.weight",
    [RT_ROLE_UP] = "mlp.up_proj.weight",
    [RT_ROLE_DOWN] = "mlp.down_proj.weight",
    [RT_ROLE_NORM2_POST] = "post_feedforward_layernorm.weight",
};
static const char *const gpt2_hf_roles[RT_ROLE_COUNT] = {
    [RT_ROLE_NORM1] = "ln_1.weight",      [RT_ROLE_NORM1_BIAS] = "ln_1.bias",
    [RT_ROLE_Q] = "attn.c_attn.weight",   [RT_ROLE_Q_BIAS] = "attn.c_attn.bias",
    [RT_ROLE_K] = "attn.c_attn.weight",   [RT_ROLE_K_BIAS] = "attn.c_attn.bias",
    [RT_ROLE_V] = "attn.c_attn.weight",   [RT_ROLE_V_BIAS] = "attn.c_attn.bias",
    [RT_ROLE_O] = "attn.c_proj.weight",   [RT_ROLE_O_BIAS] = "attn.c_proj.bias",
    [RT_ROLE_NORM2] = "ln_2.weight",      [RT_ROLE_NORM2_BIAS] = "ln_2.bias",
    [RT_ROLE_UP] = "mlp.c_fc.weight",     [RT_ROLE_UP_BIAS] = "mlp.c_fc.bias",
    [RT_ROLE_DOWN] = "mlp.c_proj.weight", [RT_ROLE_DOWN_BIAS] = "mlp.c_proj.bias",
};
static const char *const llama_hf_globals[RT_GLOBAL_COUNT] = {
    [RT_GLOBAL_EMBED] = "embed_tokens.weight",
    [RT_GLOBAL_NORM] = "norm.weight",
    [RT_GLOBAL_HEAD] = "lm_head.weight",
};
static const char *const gpt2_hf_globals[RT_GLOBAL_COUNT] = {
    [RT_GLOBAL_EMBED] = "wte.weight",    [RT_GLOBAL_POSITIONS] = "wpe.weight",
    [RT_GLOBAL_NORM] = "ln_f.weight",    [RT_GLOBAL_NORM_BIAS] = "ln_f.bias",
    [RT_GLOBAL_HEAD] = "lm_head.weight",
};

/* GGUF gives one set of names to all families; gpt2's fused tensor stands for q, k and v. */
#define GGUF_ROLES_BUT_QKV                                                                                   \
    [RT_ROLE_NORM1] = "attn_norm.weight", [RT_ROLE_NORM1_BIAS] = "attn_norm.bias",                           \
    [RT_ROLE_Q_NORM] = "attn_q_norm.weight", [RT_ROLE_K_NORM] = "attn_k_norm.weight",                        \
    [RT_ROLE_O] = "attn_output.weight", [RT_ROLE_O_BIAS] = "attn_output.bias",                               \
    [RT_ROLE_NORM1_POST] = "post_attention_norm.weight", [RT_ROLE_NORM2] = "ffn_norm.weight",                \
    [RT_ROLE_NORM2_BIAS] = "ffn_norm.bias", [RT_ROLE_GATE] = "ffn_gate.weight",                              \
    [RT_ROLE_GATE_BIAS] = "ffn_gate.bias", [RT_ROLE_UP] = "ffn_up.weight",                                   \
    [RT_ROLE_UP_BIAS] = "ffn_up.bias", [RT_ROLE_DOWN] = "ffn_down.weight",                                   \
    [RT_ROLE_DOWN_BIAS] = "ffn_down.bias", [RT_ROLE_NORM2_POST] = "post_ffw_norm.weight",                    \
    [RT_ROLE_Q_A] = "attn_q_a.weight", [RT_ROLE_Q_A_BIAS] = "attn_q_a.bias",                                 \
    [RT_ROLE_Q_A_NORM] = "attn_q_a_norm.weight", [RT_ROLE_Q_B] = "attn_q_b.weight",                          \
    [RT_ROLE_KV_A] = "attn_kv_a_mqa.weight", [RT_ROLE_KV_A_BIAS] = "attn_kv_a_mqa.bias",                     \
    [RT_ROLE_KV_A_NORM] = "attn_kv_a_norm.weight", [RT_ROLE_KV_B] = "attn_kv_b.weight",                      \
    [RT_ROLE_ROUTER] = "ffn_gate_inp.weight", [RT_ROLE_ROUTER_BIAS] = "exp_probs_b.bias",                    \
    [RT_ROLE_SHARED_GATE] = "ffn_gate_shexp.weight", [RT_ROLE_SHARED_UP] = "ffn_up_shexp.weight",            \
    [RT_ROLE_SHARED_DOWN] = "ffn_down_shexp.weight", [RT_ROLE_EXPERT_GATE] = "ffn_gate_exps.weight",         \
    [RT_ROLE_EXPERT_UP] = "ffn_up_exps.weight", [RT_ROLE_EXPERT_DOWN] = "ffn_down_exps.weight"
static const char *const gguf_roles[RT_ROLE_COUNT] = {
    GGUF_ROLES_BUT_QKV,
    [RT_ROLE_Q] = "attn_q.weight",
    [RT_ROLE_Q_BIAS] = "attn_q.bias",
    [RT_ROLE_K] = "attn_k.weight",
    [RT_ROLE_K_BIAS] = "attn_k.bias",
    [RT_ROLE_V] = "attn_v.weight",
    [RT_ROLE_V_BIAS] = "attn_v.bias",
};
static const char *const gguf_fused_roles[RT_ROLE_COUNT] = {
    GGUF_ROLES_BUT_QKV,
    [RT_ROLE_Q] = "attn_qkv.weight",
    [RT_ROLE_Q_BIAS] = "attn_qkv.bias",
    [RT_ROLE_K] = "attn_qkv.weight",
    [RT_ROLE_K_BIAS] = "attn_qkv.bias",
    [RT_ROLE_V] = "attn_qkv.weight",
    [RT_ROLE_V_BIAS] = "attn_qkv.bias",
};
static const char *const gguf_globals[RT_GLOBAL_COUNT] = {
    [RT_GLOBAL_EMBED] = "token_embd.weight", [RT_GLOBAL_POSITIONS] = "position_embd.weight",
    [RT_GLOBAL_NORM] = "output_norm.weight", [RT_GLOBAL_NORM_BIAS] = "output_norm.bias",
    [RT_GLOBAL_HEAD] = "output.weight",
};

#define LLAMA_NAMES                                                                                          \
    .prefixes = model_prefixes, .layer_prefix = "layers", .hf_roles = llama_hf_roles,                        \
    .hf_globals = llama_hf_globals, .gguf_roles = gguf_roles, .gguf_globals = gguf_globals

static const rt_family families[] = {
    {
        .name = "llama",
        .model_type = "llama",
        .architecture = "LlamaForCausalLM",
        .gguf_arch = "llama",
        .keys = COMMON_KEYS,
        .defaults = {.n_layers = 32,
                     .n_embd = 4096,
                     .n_heads = 32,
                     .n_ff = 11008,
                     .n_vocab = 32000,
                     .n_context = 2048,
                     .norm_eps = 1e-6,
                     .theta = 1e4,
                     .bos_id = 1,
                     .eos_id = 2,
                     .pad_id = -1,
                     .act = "silu"},
        .norm = RT_NORM_RMS,
        .bias_rule = RT_BIAS_BY_KEY,
        .has_mlp_bias_key = true,
        .gated_mlp = true,
        .gguf_permuted = true,
        LLAMA_NAMES,
    },
    {
        .name = "mistral",
        .model_type = "mistral",
        .architecture = "MistralForCausalLM",
        .gguf_arch = "llama",
        .keys = COMMON_KEYS,
        .defaults = {.n_layers = 32,
                     .n_embd = 4096,
                     .n_heads = 32,
                     .n_heads_kv = 8,
                     .n_ff = 14336,
                     .n_vocab = 32000,
                     .n_context = 131072,
                     .norm_eps = 1e-6,
                     .theta = 1e4,
                     .window = 4096,
                     .bos_id = 1,
                     .eos_id = 2,
                     .pad_id = -1,
                     .act = "silu"},
        .norm = RT_NORM_RMS,
        .window_rule = RT_WINDOW_ALL,
        .gated_mlp = true,
        .gguf_permuted = true,
        LLAMA_NAMES,
    },
    {
        .name = "qwen2",
        .model_type = "qwen2",
        .architecture = "Qwen2ForCausalLM",
        .gguf_arch = "qwen2",
        .keys = COMMON_KEYS,
        .defaults = {.n_layers = 32,
                     .n_embd = 4096,
                     .n_heads = 32,
                     .n_heads_kv = 32,
                     .n_ff = 22016,
                     .n_vocab = 151936,
                     .n_context = 32768,
                     .norm_eps = 1e-6,
                     .theta = 1e4,
                     .window = 4096,
                     .bos_id = -1,
                     .eos_id = -1,
                     .pad_id = -1,
                     .act = "silu"},
        .norm = RT_NORM_RMS,
        .window_rule = RT_WINDOW_FROM,
        .bias_rule = RT_BIAS_QKV,
        .gated_mlp = true,
        LLAMA_NAMES,
    },
    {
        .name = "qwen3",
        .model_type = "qwen3",
        .architecture = "Qwen3ForCausalLM",
        .gguf_arch = "qwen3",
        .keys = COMMON_KEYS,
        .defaults = {.n_layers = 32,
                     .n_embd = 4096,
                     .n_heads = 32,
                     .n_heads_kv = 32,
                     .head_dim = 128,
                     .n_ff = 22016,
                     .n_vocab = 151936,
                     .n_context = 32768,
                     .norm_eps = 1e-6,
                     .theta = 1e4,
                     .window = 4096,
                     .bos_id = -1,
                     .eos_id = -1,
                     .pad_id = -1,
                     .act = "silu"},
        .norm = RT_NORM_RMS,
        .window_rule = RT_WINDOW_FROM,
        .bias_rule = RT_BIAS_BY_KEY,
        .qk_norm = true,
        .gated_mlp = true,
        LLAMA_NAMES,
    },
    {
        .name = "qwen3_moe",
        .model_type = "qwen3_moe",
        .architecture = "Qwen3MoeForCausalLM",
        .gguf_arch = "qwen3moe",
        .keys = COMMON_KEYS,
        .defaults = {.n_layers = 24,
                     .n_embd = 2048,
                     .n_heads = 32,
                     .n_heads_kv = 4,
                     .n_ff = 6144,
                     .n_vocab = 151936,
                     .n_context = 32768,
                     .norm_eps = 1e-6,
                     .theta = 1e4,
                     .window = 4096,
                     .bos_id = -1,
                     .eos_id = -1,
                     .pad_id = -1,
                     .act = "silu"},
        .norm = RT_NORM_RMS,
        .window_rule = RT_WINDOW_SWITCHED,
        .bias_rule = RT_BIAS_BY_KEY,
        .qk_norm = true,
        .gated_mlp = true,
        .experts = RT_EXPERTS_QWEN,
        LLAMA_NAMES,
    },
    {
        .name = "deepseek_v3",
        .model_type = "deepseek_v3",
        .architecture = "DeepseekV3ForCausalLM",
        .gguf_arch = "deepseek2",
        .keys = {.n_layers = "num_hidden_layers",
                 .n_embd = "hidden_size",
                 .n_heads = "num_attention_heads",
                 .n_heads_kv = "num_key_value_heads",
                 .n_ff = "intermediate_size",
                 .n_context = "max_position_embeddings",
                 .norm_eps = "rms_norm_eps",
                 .act = "hidden_act"},
        .defaults = {.n_layers = 61,
                     .n_embd = 7168,
                     .n_heads = 128,
                     .n_ff = 18432,
                     .n_vocab = 129280,
                     .n_context = 4096,
                     .norm_eps = 1e-6,
                     .theta = 1e4,
                     .bos_id = 0,
                     .eos_id = 1,
                     .pad_id = -1,
                     .act = "silu"},
        .norm = RT_NORM_RMS,
        .bias_rule = RT_BIAS_BY_KEY,
        .gated_mlp = true,
        .latent_attention = true,
        .experts = RT_EXPERTS_DEEPSEEK,
        .gguf_permuted = true,
        .prefixes = model_prefixes,
        .layer_prefix = "layers",
        .hf_roles = deepseek_hf_roles,
        .hf_globals = llama_hf_globals,
        .gguf_roles = gguf_roles,
        .gguf_globals = gguf_globals,
    },
    {
        .name = "gemma3",
        .model_type = "gemma3_text",
        .architecture = "Gemma3ForCausalLM",
        .gguf_arch = "gemma3",
        .keys = {.n_layers = "num_hidden_layers",
                 .n_embd = "hidden_size",
                 .n_heads = "num_attention_heads",
                 .n_heads_kv = "num_key_value_heads",
                 .head_dim = "head_dim",
                 .n_ff = "intermediate_size",
                 .n_context = "max_position_embeddings",
                 .norm_eps = "rms_norm_eps",
                 .act = "hidden_activation"},
        .defaults = {.n_layers = 26,
                     .n_embd = 2304,
                     .n_heads = 8,
                     .n_heads_kv = 4,
                     .head_dim = 256,
                     .n_ff = 9216,
                     .n_vocab = 262208,
                     .n_context = 131072,
                     .norm_eps = 1e-6,
                     .theta = 1e6,
                     .theta_local = 1e4,
                     .window = 4096,
                     .bos_id = 2,
                     .eos_id = 1,
                     .pad_id = 0,
                     .tied = true,
                     .act = "gelu_pytorch_tanh"},
        .norm = RT_NORM_RMS,
        .window_rule = RT_WINDOW_PATTERN,
        .bias_rule = RT_BIAS_BY_KEY,
        .norm_plus_one = true,
        .post_norms = true,
        .qk_norm = true,
        .gated_mlp = true,
        .embed_scaled = true,
        .has_rope_local = true,
        .has_query_scalar = true,
        .prefixes = gemma3_prefixes,
        .layer_prefix = "layers",
        .hf_roles = gemma3_hf_roles,
        .hf_globals = llama_hf_globals,
        .gguf_roles = gguf_roles,
        .gguf_globals = gguf_globals,
    },
    {
        .name = "gpt2",
        .model_type = "gpt2",
        .architecture = "GPT2LMHeadModel",
        .gguf_arch = "gpt2",
        .keys = {.n_layers = "n_layer",
                 .n_embd = "n_embd",
                 .n_heads = "n_head",
                 .n_ff = "n_inner",
                 .n_context = "n_positions",
                 .norm_eps = "layer_norm_epsilon",
                 .act = "activation_function"},
        .defaults = {.n_layers = 12,
                     .n_embd = 768,
                     .n_heads = 12,
                     .n_vocab = 50257,
                     .n_context = 1024,
                     .norm_eps = 1e-5,
                     .bos_id = 50256,
                     .eos_id = 50256,
                     .pad_id = -1,
                     .tied = true,
                     .act = "gelu_new"},
        .norm = RT_NORM_LAYER,
        .bias_rule = RT_BIAS_ALL,
        .learned_positions = true,
        .conv1d = true,
        .gguf_fused_qkv = true,
        .prefixes = gpt2_prefixes,
        .layer_prefix = "h",
        .hf_roles = gpt2_hf_roles,
        .hf_globals = gpt2_hf_globals,
        .gguf_roles = gguf_fused_roles,
        .gguf_globals = gguf_globals,
    },
};
enum { N_FAMILIES = sizeof families / sizeof *families };

static rt_status unknown_family(const char *name, const char *where, rt_error *err)
{
    return rt_error_set(
        err, RT_UNSUPPORTED,
        "%s: the family \"%.64s\" is not known; this build reads llama, mistral, qwen2, qwen3, "
        "qwen3_moe, deepseek_v3, gemma3 and gpt2",
        where, name);
}

rt_status rt_family_by_model_type(const rt_family **out, const char *model_type, const char *where,
                                  rt_error *err)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!strcmp(model_type, families[i].model_type) || !strcmp(model_type, families[i].name)) {
            *out = &families[i];
            return RT_OK;
        }
    return unknown_family(model_type, where, err);
}

rt_status rt_family_by_gguf_arch(const rt_family **out, const char *arch, const char *where, rt_error *err)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!strcmp(arch, families[i].gguf_arch)) {
            *out = &families[i];
            return RT_OK;
        }
    return unknown_family(arch, where, err);
}

const rt_family *rt_family_of(const rt_model_config *config)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!strcmp(config->family, families[i].name))
            return &families[i];
    return &families[0]; /* a configuration made by hand: the common decoder */
}

void rt_config_fill_family(rt_model_config *out, const rt_family *family)
{
    memcpy(out->family, family->name, strlen(family->name) + 1); /* the table's names are short */
    out->norm = family->norm;
    out->norm_plus_one = family->norm_plus_one;
    out->post_norms = family->post_norms;
    out->qk_norm = family->qk_norm;
    out->gated_mlp = family->gated_mlp;
    out->learned_positions = family->learned_positions;
    out->conv1d = family->conv1d;
    out->has_rope_local = family->has_rope_local;
}

bool rt_act_from_name(rt_act_kind *out, const char *name)
{
    static const struct {
        const char *name;
        rt_act_kind kind;
    } acts[] = {
        {"silu", RT_ACT_SILU},           {"swish", RT_ACT_SILU},
        {"gelu_new", RT_ACT_GELU_TANH},  {"gelu_pytorch_tanh", RT_ACT_GELU_TANH},
        {"gelu_fast", RT_ACT_GELU_TANH},
    };
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (!strcmp(name, acts[i].name)) {
            *out = acts[i].kind;
            return true;
        }
    return false;
}
