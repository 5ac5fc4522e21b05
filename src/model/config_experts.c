/* model/config_experts.c - latent attention and mixtures of experts, from and to config.json.
 *
 * Keys and defaults are those of Qwen3MoeConfig and DeepseekV3Config of transformers 5. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "model/config_reader.h"

/* --- latent attention --- */

void rt_config_read_latent(rt_model_config *out, rt_config_reader *in)
{
    const bool low = !json_is_null(json_object_get(in->object, "q_lora_rank"));
    out->n_heads_kv = out->n_heads; /* the file's number counts heads before the latent is opened */
    out->latent = (rt_latent_config){
        .kv_rank = rt_config_size(in, "kv_lora_rank", 512),
        .q_rank = rt_config_size(in, "q_lora_rank", low ? 1536 : 0),
        .nope = rt_config_size(in, "qk_nope_head_dim", 128),
        .rope = rt_config_size(in, "qk_rope_head_dim", 64),
        .value = rt_config_size(in, "v_head_dim", 128),
        .norm_eps = 1e-6, /* not a key: these norms have the default of their class */
        .interleaved = rt_config_bool(in, "rope_interleave", true),
    };
    const rt_latent_config *lat = &out->latent;
    if (lat->kv_rank == 0 && in->status == RT_OK)
        rt_config_bad_type(in, "kv_lora_rank", "above zero");
    if (lat->nope < SIZE_MAX / 2 && lat->rope < SIZE_MAX / 2)
        out->head_dim = rt_size_max(lat->nope + lat->rope, lat->value);
}

double rt_latent_scale(const rt_model_config *config)
{
    const rt_rope_config *rope = &config->rope;
    if (!config->latent.kv_rank || rope->scaling != RT_ROPE_YARN || rope->factor <= 1)
        return 1;
    const double scale = 0.1 * rope->mscale_all_dim * log(rope->factor) + 1;
    return scale * scale;
}

static void put(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static void put_size(json_t *object, const char *key, size_t value)
{
    put(object, key, json_integer((json_int_t)value));
}

void rt_config_put_latent(json_t *out, const rt_model_config *config)
{
    const rt_latent_config *lat = &config->latent;
    put_size(out, "kv_lora_rank", lat->kv_rank);
    put(out, "q_lora_rank", lat->q_rank ? json_integer((json_int_t)lat->q_rank) : json_null());
    put_size(out, "qk_nope_head_dim", lat->nope);
    put_size(out, "qk_rope_head_dim", lat->rope);
    put_size(out, "v_head_dim", lat->value);
    put(out, "rope_interleave", json_boolean(lat->interleaved));
}

/* --- experts --- */

static void read_qwen(rt_model_config *out, rt_config_reader *in)
{
    rt_expert_config *e = &out->experts;
    *e = (rt_expert_config){
        .count = rt_config_size(in, "num_experts", rt_config_size(in, "num_local_experts", 128)),
        .used = rt_config_size(in, "num_experts_per_tok", 8),
        .n_ff = rt_config_size(in, "moe_intermediate_size", 768),
        .groups = 1,
        .groups_used = 1,
        .router = RT_ROUTER_SOFTMAX,
        .normalised = rt_config_bool(in, "norm_topk_prob", false),
        .scale = 1,
    };
    const size_t step = rt_config_size(in, "decoder_sparse_step", 1);
    if (step == 0 && in->status == RT_OK)
        rt_config_bad_type(in, "decoder_sparse_step", "above zero");
    for (size_t l = 0; l < out->n_layers && in->status == RT_OK; l++)
        e->sparse[l] = e->count > 0 && (l + 1) % step == 0;
    const json_t *dense = rt_config_look(in, "mlp_only_layers"), *layer;
    if (dense && !json_is_array(dense) && in->status == RT_OK)
        rt_config_bad_type(in, "mlp_only_layers", "a list of layers");
    size_t i;
    json_array_foreach(dense, i, layer)
    {
        const json_int_t l = json_integer_value(layer);
        if (!json_is_integer(layer) || l < 0) {
            if (in->status == RT_OK)
                rt_config_bad_type(in, "mlp_only_layers", "a list of layers");
        } else if ((size_t)l < out->n_layers) {
            e->sparse[l] = false;
        }
    }
}

/* Keys that files of deepseek-ai carry for their own code; other values mean another choice of experts. */
static void refuse_deepseek(rt_config_reader *in)
{
    const char *scoring = rt_config_string(in, "scoring_func", "sigmoid");
    const char *method = rt_config_string(in, "topk_method", "noaux_tc");
    if (in->status == RT_OK && (strcmp(scoring, "sigmoid") != 0 || strcmp(method, "noaux_tc") != 0))
        in->status = rt_error_set(in->err, RT_UNSUPPORTED,
                                  "%s: %sscoring_func \"%.40s\" with topk_method \"%.40s\" is not supported; "
                                  "sigmoid with noaux_tc is",
                                  in->where, in->inside, scoring, method);
    if (rt_config_size(in, "moe_layer_freq", 1) != 1 && in->status == RT_OK)
        in->status =
            rt_error_set(in->err, RT_UNSUPPORTED, "%s: %smoe_layer_freq other than 1 is not supported",
                         in->where, in->inside);
}

static void read_deepseek(rt_model_config *out, rt_config_reader *in)
{
    rt_expert_config *e = &out->experts;
    refuse_deepseek(in);
    *e = (rt_expert_config){
        .count = rt_config_size(in, "n_routed_experts", rt_config_size(in, "num_local_experts", 256)),
        .used = rt_config_size(in, "num_experts_per_tok", 8),
        .n_ff = rt_config_size(in, "moe_intermediate_size", 2048),
        .groups = rt_config_size(in, "n_group", 8),
        .groups_used = rt_config_size(in, "topk_group", 4),
        .router = RT_ROUTER_SIGMOID,
        .normalised = rt_config_bool(in, "norm_topk_prob", true),
        .bias = true,
        .scale = rt_config_number(in, "routed_scaling_factor", 2.5),
    };
    const size_t shared = rt_config_size(in, "n_shared_experts", 1);
    if (!rt_size_mul(shared, e->n_ff, &e->n_ff_shared) && in->status == RT_OK)
        rt_config_bad_type(in, "n_shared_experts", "a small number");
    const size_t first = rt_config_size(in, "first_k_dense_replace", 3);
    for (size_t l = first; l < out->n_layers && in->status == RT_OK; l++)
        e->sparse[l] = e->count > 0;
}

void rt_config_read_experts(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    bool any = false;
    if (family->experts == RT_EXPERTS_QWEN)
        read_qwen(out, in);
    else if (family->experts == RT_EXPERTS_DEEPSEEK)
        read_deepseek(out, in);
    for (size_t l = 0; l < out->n_layers; l++)
        any = any || out->experts.sparse[l];
    if (!any) /* nothing of it is used */
        out->experts = (rt_expert_config){0};
}

/* The first so many layers are dense, as deepseek's key can say; SIZE_MAX: another pattern. */
static size_t dense_first(const rt_model_config *config)
{
    size_t first = 0;
    while (first < config->n_layers && !config->experts.sparse[first])
        first++;
    for (size_t l = first; l < config->n_layers; l++)
        if (!config->experts.sparse[l])
            return SIZE_MAX;
    return first;
}

void rt_config_put_experts(json_t *out, const rt_model_config *config, const rt_family *family)
{
    const rt_expert_config *e = &config->experts;
    if (family->experts == RT_EXPERTS_NONE)
        return;
    put_size(out, "num_experts_per_tok", e->count ? e->used : 1);
    put_size(out, "moe_intermediate_size", e->count ? e->n_ff : 1);
    put(out, "norm_topk_prob", json_boolean(e->normalised));
    if (family->experts == RT_EXPERTS_QWEN) {
        json_t *dense = json_array();
        for (size_t l = 0; l < config->n_layers; l++)
            if (!e->sparse[l])
                (void)json_array_append_new(dense, json_integer((json_int_t)l));
        put_size(out, "num_experts", e->count);
        put_size(out, "num_local_experts", e->count);
        put_size(out, "decoder_sparse_step", 1);
        put(out, "mlp_only_layers", dense);
        return;
    }
    const size_t first = dense_first(config);
    put_size(out, "n_routed_experts", e->count ? e->count : 1);
    put_size(out, "n_shared_experts", e->count ? e->n_ff_shared / e->n_ff : 0);
    put_size(out, "n_group", e->count ? e->groups : 1);
    put_size(out, "topk_group", e->count ? e->groups_used : 1);
    put(out, "routed_scaling_factor", json_real(e->count ? e->scale : 1));
    put_size(out, "first_k_dense_replace", first == SIZE_MAX ? 0 : first);
}
