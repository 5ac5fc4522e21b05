/* model/config.c - a decoder's configuration: reading it from either kind of file, its checks, and
 * what follows from it (shapes, the number of parameters).
 *
 * Everything that a decoder allocates is computed from these numbers, so they are bounded here once:
 * below the bounds no product of two sizes and a layer count can overflow. */
#include "model/config.h"

#include <math.h>

#include "base/size.h"
#include "model/families.h"

enum {
    EMBD_MAX = 1 << 17,
    HEADS_MAX = 1 << 12,
    HEAD_DIM_MAX = 1 << 12,
    FF_MAX = 1 << 20,
    VOCAB_MAX = 1 << 22,
    CONTEXT_MAX = 1 << 30,
    EXPERTS_MAX = 1 << 12,
};

static rt_status check_size(const char *where, const char *what, size_t value, size_t max, rt_error *err)
{
    if (value > 0 && value <= max)
        return RT_OK;
    return rt_error_set(err, RT_CORRUPT, "%s: %s is %zu; it must be between 1 and %zu", where, what, value,
                        max);
}

static rt_status check_positive(const char *where, const char *what, double value, double max, rt_error *err)
{
    if (isfinite(value) && value > 0 && value <= max)
        return RT_OK;
    return rt_error_set(err, RT_CORRUPT, "%s: %s is %g; it must be above 0 and at most %g", where, what,
                        value, max);
}

static rt_status check_rope(const rt_rope_config *rope, const char *where, const char *what, rt_error *err)
{
    if (check_positive(where, what, rope->theta, 1e15, err) != RT_OK)
        return RT_CORRUPT;
    if (rope->theta <= 1)
        return rt_error_set(err, RT_CORRUPT, "%s: %s is %g; it must be above 1", where, what, rope->theta);
    if (rope->scaling == RT_ROPE_PLAIN)
        return RT_OK;
    if (!(isfinite(rope->factor) && rope->factor >= 1 && rope->factor <= 1e6))
        return rt_error_set(err, RT_CORRUPT,
                            "%s: the rope scaling factor is %g; it must be between 1 and 1e6", where,
                            rope->factor);
    if (rope->scaling == RT_ROPE_LINEAR)
        return RT_OK;
    if (check_size(where, "original_max_position_embeddings", rope->original_context, CONTEXT_MAX, err) !=
        RT_OK)
        return RT_CORRUPT;
    if (rope->scaling == RT_ROPE_LLAMA3 && !(isfinite(rope->high_freq_factor) && rope->low_freq_factor > 0 &&
                                             rope->high_freq_factor > rope->low_freq_factor))
        return rt_error_set(err, RT_CORRUPT,
                            "%s: low_freq_factor (%g) must be above 0 and below high_freq_factor (%g)", where,
                            rope->low_freq_factor, rope->high_freq_factor);
    if (rope->scaling == RT_ROPE_YARN &&
        !(isfinite(rope->beta_fast) && rope->beta_slow > 0 && rope->beta_fast > rope->beta_slow))
        return rt_error_set(err, RT_CORRUPT, "%s: beta_slow (%g) must be above 0 and below beta_fast (%g)",
                            where, rope->beta_slow, rope->beta_fast);
    if (rope->scaling == RT_ROPE_YARN &&
        !(isfinite(rope->attention_factor) && rope->attention_factor >= 0 && rope->attention_factor < 1e6))
        return rt_error_set(err, RT_CORRUPT, "%s: attention_factor is %g; it must be a positive number",
                            where, rope->attention_factor);
    return RT_OK;
}

static rt_status check_latent(const rt_model_config *config, const char *where, rt_error *err)
{
    const rt_latent_config *lat = &config->latent;
    if (!lat->kv_rank)
        return RT_OK;
    if (check_size(where, "kv_lora_rank", lat->kv_rank, EMBD_MAX, err) != RT_OK ||
        check_size(where, "qk_nope_head_dim", lat->nope, HEAD_DIM_MAX, err) != RT_OK ||
        check_size(where, "qk_rope_head_dim", lat->rope, HEAD_DIM_MAX, err) != RT_OK ||
        check_size(where, "v_head_dim", lat->value, HEAD_DIM_MAX, err) != RT_OK ||
        check_positive(where, "the latent norm's epsilon", lat->norm_eps, 1, err) != RT_OK)
        return RT_CORRUPT;
    if (lat->q_rank > EMBD_MAX)
        return rt_error_set(err, RT_CORRUPT, "%s: q_lora_rank is %zu; it must be at most %d", where,
                            lat->q_rank, (int)EMBD_MAX);
    if (!lat->q_rank && config->bias_qkv)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "%s: attention_bias without q_lora_rank is not supported for latent attention",
                            where);
    if (lat->rope % 2 != 0)
        return rt_error_set(err, RT_CORRUPT,
                            "%s: qk_rope_head_dim is %zu; it must be even, because rope turns pairs", where,
                            lat->rope);
    return RT_OK;
}

static rt_status check_experts(const rt_model_config *config, const char *where, rt_error *err)
{
    const rt_expert_config *e = &config->experts;
    if (!e->count)
        return RT_OK;
    if (check_size(where, "the number of experts", e->count, EXPERTS_MAX, err) != RT_OK ||
        check_size(where, "moe_intermediate_size", e->n_ff, FF_MAX, err) != RT_OK ||
        check_positive(where, "routed_scaling_factor", e->scale, 1e6, err) != RT_OK)
        return RT_CORRUPT;
    if (e->n_ff_shared > FF_MAX)
        return rt_error_set(err, RT_CORRUPT,
                            "%s: the shared experts have %zu units; at most %d are supported", where,
                            e->n_ff_shared, (int)FF_MAX);
    if (e->used == 0 || e->used > e->count)
        return rt_error_set(err, RT_CORRUPT,
                            "%s: num_experts_per_tok is %zu; it must be between 1 and the %zu experts", where,
                            e->used, e->count);
    if (e->groups == 0 || e->count % e->groups != 0 || (e->groups > 1 && e->count / e->groups < 2))
        return rt_error_set(err, RT_CORRUPT,
                            "%s: n_group (%zu) must divide the %zu experts into groups of two or more", where,
                            e->groups, e->count);
    if (e->groups_used == 0 || e->groups_used > e->groups ||
        e->used > e->groups_used * (e->count / e->groups))
        return rt_error_set(err, RT_CORRUPT,
                            "%s: topk_group is %zu of %zu groups of %zu experts; a token needs %zu of them",
                            where, e->groups_used, e->groups, e->count / e->groups, e->used);
    if (config->post_norms || !config->gated_mlp || config->bias_mlp)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "%s: experts with biases, without a gate or with a norm after them are not supported", where);
    return RT_OK;
}

static rt_status check_sizes(const rt_model_config *config, const char *where, rt_error *err)
{
    const rt_config_keys *keys = &rt_family_of(config)->keys;
    if (check_size(where, keys->n_layers, config->n_layers, RT_LAYERS_MAX, err) != RT_OK ||
        check_size(where, keys->n_embd, config->n_embd, EMBD_MAX, err) != RT_OK ||
        check_size(where, keys->n_heads, config->n_heads, HEADS_MAX, err) != RT_OK ||
        check_size(where, "num_key_value_heads", config->n_heads_kv, HEADS_MAX, err) != RT_OK ||
        check_size(where, "head_dim", config->head_dim, HEAD_DIM_MAX, err) != RT_OK ||
        check_size(where, keys->n_ff, config->n_ff, FF_MAX, err) != RT_OK ||
        check_size(where, "vocab_size", config->n_vocab, VOCAB_MAX, err) != RT_OK ||
        check_size(where, keys->n_context, config->n_context, CONTEXT_MAX, err) != RT_OK)
        return RT_CORRUPT;
    rt_status status = check_latent(config, where, err);
    if (status == RT_OK)
        status = check_experts(config, where, err);
    if (status != RT_OK)
        return status;
    if (config->n_heads % config->n_heads_kv != 0)
        return rt_error_set(err, RT_CORRUPT, "%s: num_key_value_heads (%zu) does not divide %s (%zu)", where,
                            config->n_heads_kv, keys->n_heads, config->n_heads);
    if (config->head_dim % 2 != 0 && !config->learned_positions && !config->latent.kv_rank)
        return rt_error_set(err, RT_CORRUPT, "%s: head_dim is %zu; it must be even, because rope turns pairs",
                            where, config->head_dim);
    if (config->conv1d && config->n_heads * config->head_dim != config->n_embd)
        return rt_error_set(err, RT_CORRUPT, "%s: %s (%zu) does not divide %s (%zu)", where, keys->n_heads,
                            config->n_heads, keys->n_embd, config->n_embd);
    return RT_OK;
}

rt_status rt_model_config_check(const rt_model_config *config, const char *where, rt_error *err)
{
    const rt_config_keys *keys = &rt_family_of(config)->keys;
    const rt_status status = check_sizes(config, where, err);
    if (status != RT_OK)
        return status;
    if (check_positive(where, keys->norm_eps, config->norm_eps, 1, err) != RT_OK ||
        check_positive(where, "the scale of attention scores", config->attention_scale, 1e6, err) != RT_OK)
        return RT_CORRUPT;
    if (!(config->attention_softcap >= 0 && config->attention_softcap < 1e6) ||
        !(config->logit_softcap >= 0 && config->logit_softcap < 1e6))
        return rt_error_set(err, RT_CORRUPT, "%s: a soft cap (%g, %g) must be zero or a positive number",
                            where, config->attention_softcap, config->logit_softcap);
    if (!config->learned_positions && check_rope(&config->rope, where, "rope_theta", err) != RT_OK)
        return RT_CORRUPT;
    if (config->has_rope_local &&
        check_rope(&config->rope_local, where, "the local rope_theta", err) != RT_OK)
        return RT_CORRUPT;
    for (size_t i = 0; i < config->n_layers; i++)
        if (config->window[i] > CONTEXT_MAX)
            return rt_error_set(err, RT_CORRUPT, "%s: sliding_window is %zu; at most %d tokens are supported",
                                where, config->window[i], (int)CONTEXT_MAX);
    return RT_OK;
}

rt_status rt_model_config_from_json(rt_model_config *out, const json_t *json, const char *where,
                                    rt_error *err)
{
    rt_status status = rt_config_fill_json(out, json, where, err);
    if (status == RT_OK)
        status = rt_model_config_check(out, where, err);
    return status;
}

rt_status rt_model_config_read(rt_model_config *out, const rt_weights *weights, rt_error *err)
{
    const char *where = rt_weights_path(weights);
    rt_status status;
    if (rt_weights_get_format(weights) == RT_FORMAT_GGUF) {
        status = rt_config_fill_gguf(out, weights, err);
    } else {
        const json_t *json = rt_weights_config_json(weights);
        if (!json)
            return rt_error_set(err, RT_NOT_FOUND,
                                "%s: there is no config.json; give the folder that holds it and the weights",
                                where);
        status = rt_config_fill_json(out, json, where, err);
    }
    if (status == RT_OK)
        status = rt_model_config_check(out, where, err);
    if (status == RT_OK)
        status = rt_canonical_check(weights, out, err);
    return status;
}

void rt_model_config_take_layers(rt_model_config *out, const rt_model_config *from, const size_t *layers,
                                 size_t n)
{
    bool any = false;
    *out = *from;
    out->n_layers = n;
    for (size_t l = 0; l < RT_LAYERS_MAX; l++) {
        out->window[l] = l < n ? from->window[layers[l]] : 0;
        out->experts.sparse[l] = l < n && from->experts.sparse[layers[l]];
        any = any || out->experts.sparse[l];
    }
    if (!any)
        out->experts = (rt_expert_config){0};
}

size_t rt_layer_ff(const rt_model_config *config, size_t layer)
{
    return config->experts.sparse[layer] ? config->experts.n_ff_shared : config->n_ff;
}

void rt_role_shape(const rt_model_config *config, size_t layer, int which, size_t *rows, size_t *cols)
{
    const rt_role role = rt_role_of(which);
    const rt_latent_config *lat = &config->latent;
    const rt_expert_config *experts = &config->experts;
    const size_t d = config->n_embd, heads = config->n_heads;
    const size_t n_q = heads * config->head_dim, n_kv = config->n_heads_kv * config->head_dim;
    const size_t qk = heads * (lat->nope + lat->rope), n_a = lat->kv_rank + lat->rope;
    const bool latent = lat->kv_rank > 0, plain = !latent, low = latent && lat->q_rank > 0;
    const bool sparse = experts->sparse[layer], dense = !sparse, shared = sparse && experts->n_ff_shared > 0;
    const bool norm_bias = config->norm == RT_NORM_LAYER, gated = dense && config->gated_mlp;
    const struct {
        bool there;
        size_t rows, cols;
    } shapes[RT_ROLE_COUNT] = {
        [RT_ROLE_NORM1] = {true, d, 0},
        [RT_ROLE_NORM1_BIAS] = {norm_bias, d, 0},
        [RT_ROLE_Q] = {plain || !low, latent ? qk : n_q, d},
        [RT_ROLE_Q_BIAS] = {plain && config->bias_qkv, n_q, 0},
        [RT_ROLE_K] = {plain, n_kv, d},
        [RT_ROLE_K_BIAS] = {plain && config->bias_qkv, n_kv, 0},
        [RT_ROLE_V] = {plain, n_kv, d},
        [RT_ROLE_V_BIAS] = {plain && config->bias_qkv, n_kv, 0},
        [RT_ROLE_Q_NORM] = {config->qk_norm, config->head_dim, 0},
        [RT_ROLE_K_NORM] = {config->qk_norm, config->head_dim, 0},
        [RT_ROLE_O] = {true, d, latent ? heads * lat->value : n_q},
        [RT_ROLE_O_BIAS] = {config->bias_o, d, 0},
        [RT_ROLE_NORM1_POST] = {config->post_norms, d, 0},
        [RT_ROLE_NORM2] = {true, d, 0},
        [RT_ROLE_NORM2_BIAS] = {norm_bias, d, 0},
        [RT_ROLE_GATE] = {gated, config->n_ff, d},
        [RT_ROLE_GATE_BIAS] = {gated && config->bias_mlp, config->n_ff, 0},
        [RT_ROLE_UP] = {dense, config->n_ff, d},
        [RT_ROLE_UP_BIAS] = {dense && config->bias_mlp, config->n_ff, 0},
        [RT_ROLE_DOWN] = {dense, d, config->n_ff},
        [RT_ROLE_DOWN_BIAS] = {dense && config->bias_mlp, d, 0},
        [RT_ROLE_NORM2_POST] = {config->post_norms, d, 0},
        [RT_ROLE_Q_A] = {low, lat->q_rank, d},
        [RT_ROLE_Q_A_BIAS] = {low && config->bias_qkv, lat->q_rank, 0},
        [RT_ROLE_Q_A_NORM] = {low, lat->q_rank, 0},
        [RT_ROLE_KV_A] = {latent, n_a, d},
        [RT_ROLE_KV_A_BIAS] = {latent && config->bias_qkv, n_a, 0},
        [RT_ROLE_KV_A_NORM] = {latent, lat->kv_rank, 0},
        [RT_ROLE_Q_B] = {low, qk, lat->q_rank},
        [RT_ROLE_KV_B] = {latent, heads * (lat->nope + lat->value), lat->kv_rank},
        [RT_ROLE_ROUTER] = {sparse, experts->count, d},
        [RT_ROLE_ROUTER_BIAS] = {sparse && experts->bias, experts->count, 0},
        [RT_ROLE_SHARED_GATE] = {shared, experts->n_ff_shared, d},
        [RT_ROLE_SHARED_UP] = {shared, experts->n_ff_shared, d},
        [RT_ROLE_SHARED_DOWN] = {shared, d, experts->n_ff_shared},
        [RT_ROLE_EXPERT_GATE] = {sparse, experts->n_ff, d},
        [RT_ROLE_EXPERT_UP] = {sparse, experts->n_ff, d},
        [RT_ROLE_EXPERT_DOWN] = {sparse, d, experts->n_ff},
    };
    const size_t expert = rt_role_expert(which);
    const bool there =
        shapes[role].there && (expert == 0 || (rt_role_is_expert(role) && expert < experts->count));
    *rows = there ? shapes[role].rows : 0;
    *cols = there ? shapes[role].cols : 0;
}

void rt_global_shape(const rt_model_config *config, rt_global global, size_t *rows, size_t *cols)
{
    const struct {
        bool there;
        size_t rows, cols;
    } shapes[RT_GLOBAL_COUNT] = {
        [RT_GLOBAL_EMBED] = {true, config->n_vocab, config->n_embd},
        [RT_GLOBAL_POSITIONS] = {config->learned_positions, config->n_context, config->n_embd},
        [RT_GLOBAL_NORM] = {true, config->n_embd, 0},
        [RT_GLOBAL_NORM_BIAS] = {config->norm == RT_NORM_LAYER, config->n_embd, 0},
        [RT_GLOBAL_HEAD] = {!config->tied, config->n_vocab, config->n_embd},
    };
    *rows = shapes[global].there ? shapes[global].rows : 0;
    *cols = shapes[global].there ? shapes[global].cols : 0;
}

size_t rt_model_config_parameters(const rt_model_config *config)
{
    size_t total = 0, rows, cols;
    for (size_t layer = 0; layer < config->n_layers; layer++)
        for (int role = 0; role < (int)RT_ROLE_COUNT; role++) {
            rt_role_shape(config, layer, role, &rows, &cols);
            total +=
                rows * rt_size_max(cols, 1) * (rt_role_is_expert((rt_role)role) ? config->experts.count : 1);
        }
    for (rt_global global = 0; global < RT_GLOBAL_COUNT; global++) {
        rt_global_shape(config, global, &rows, &cols);
        total += rows * rt_size_max(cols, 1);
    }
    return total;
}
