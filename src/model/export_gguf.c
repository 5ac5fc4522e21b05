/* model/export_gguf.c - the GGUF file that llama.cpp loads: metadata, types, tensors.
 *
 * Metadata keys are those that llama.cpp reads for the architecture; what it does not know (mistral's
 * window, qwen's) is written under the general names, so that nothing is lost on the way back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/export_parts.h"
#include "model/families.h"
#include "tensor/quant.h"

/* --- types --- */

typedef struct fallbacks { /* how many tensors did not get the type asked for */
    size_t q8_0, f16, example_cols;
    rt_dtype asked;
} fallbacks;

static rt_dtype fit_blocks(rt_dtype type, size_t cols, fallbacks *fallen)
{
    if (cols % rt_dtype_get(type)->block_elements == 0)
        return type;
    fallen->example_cols = cols;
    fallen->asked = type;
    const bool q8_0 = cols % rt_dtype_get(RT_Q8_0)->block_elements == 0;
    fallen->q8_0 += q8_0;
    fallen->f16 += !q8_0;
    return q8_0 ? RT_Q8_0 : RT_F16;
}

static bool is_four_bits(rt_dtype type) { return type == RT_Q4_0 || type == RT_Q4_1 || type == RT_Q4_K; }

static rt_status choose_type(rt_export_item *item, const rt_export_source *source,
                             const rt_export_options *options, fallbacks *fallen, rt_error *err)
{
    const bool is_embed = item->layer == RT_NO_LAYER && item->which[0] == RT_GLOBAL_EMBED;
    const bool is_head = item->layer == RT_NO_LAYER && item->which[0] == RT_GLOBAL_HEAD;
    item->dtype = RT_F32;
    if (item->cols == 0 || (item->layer == RT_NO_LAYER && item->which[0] == RT_GLOBAL_POSITIONS))
        return RT_OK;
    if (options->keep) {
        rt_canonical tensor = {0};
        if (source->tensor(source->context, &tensor, item->layer, item->which[0], err) != RT_OK)
            return err->status;
        free(tensor.owned);
        item->dtype = tensor.dtype == RT_F64 ? RT_F32 : tensor.dtype;
        return RT_OK;
    }
    rt_dtype type = options->type;
    if (is_four_bits(type) && (is_head || (is_embed && source->config->tied)))
        type = item->cols % rt_dtype_get(RT_Q6_K)->block_elements == 0 ? RT_Q6_K : RT_Q8_0;
    item->dtype = fit_blocks(type, item->cols, fallen);
    return RT_OK;
}

static rt_status choose_types(rt_export_plan *plan, const rt_export_source *source,
                              const rt_export_options *options, rt_error *err)
{
    fallbacks fallen = {0};
    if (!options->keep && !rt_can_quantise(options->type))
        return rt_error_set(err, RT_INVALID,
                            "the type %s can be read but not written; F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
                            "Q4_K and Q6_K can",
                            rt_dtype_get(options->type)->name);
    for (size_t i = 0; i < plan->count; i++)
        if (choose_type(&plan->list[i], source, options, &fallen, err) != RT_OK)
            return err->status;
    if (fallen.q8_0 || fallen.f16)
        rt_export_note(options,
                       "%zu tensors are Q8_0 and %zu F16 instead of %s: their rows (of %zu) are no whole "
                       "blocks; Q4_0, Q4_1 "
                       "and Q8_0 have blocks of 32",
                       fallen.q8_0, fallen.f16, rt_dtype_get(fallen.asked)->name, fallen.example_cols);
    return RT_OK;
}

/* --- metadata --- */

typedef struct keys { /* "<arch>.<suffix>" */
    rt_gguf_writer *writer;
    const char *arch;
    char key[128];
} keys;

static const char *key_of(keys *to, const char *suffix)
{
    (void)snprintf(to->key, sizeof to->key, "%s.%s", to->arch, suffix);
    return to->key;
}
static void put_size(keys *to, const char *suffix, size_t value)
{
    rt_gguf_writer_u32(to->writer, key_of(to, suffix), (uint32_t)value);
}
static void put_number(keys *to, const char *suffix, double value)
{
    rt_gguf_writer_f32(to->writer, key_of(to, suffix), (float)value);
}

/* The number that general.file_type has for a file of mostly this type. */
static uint32_t file_type(const rt_export_plan *plan)
{
    static const struct {
        rt_dtype dtype;
        uint32_t number;
    } types[] = {{RT_F32, 0},   {RT_F16, 1},   {RT_Q4_0, 2},  {RT_Q4_1, 3},  {RT_Q8_0, 7},
                 {RT_Q5_0, 8},  {RT_Q5_1, 9},  {RT_Q2_K, 10}, {RT_Q3_K, 12}, {RT_Q4_K, 14},
                 {RT_Q5_K, 16}, {RT_Q6_K, 18}, {RT_BF16, 32}};
    size_t counts[RT_DTYPE_COUNT] = {0};
    rt_dtype most = RT_F32;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->list[i].cols && ++counts[plan->list[i].dtype] > counts[most])
            most = plan->list[i].dtype;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == most)
            return types[i].number;
    return 0;
}

/* Name, licence and the like of a GGUF that the model comes from. */
static void put_general(const rt_export_source *source, rt_gguf_writer *writer, const char *arch,
                        const rt_export_plan *plan)
{
    static const char *const ours[] = {"general.architecture", "general.file_type",
                                       "general.quantization_version", "general.alignment", "general.type"};
    rt_gguf_writer_string(writer, "general.architecture", arch);
    rt_gguf_writer_string(writer, "general.type", "model");
    if (source->name)
        rt_gguf_writer_string(writer, "general.name", source->name);
    for (size_t i = 0; source->meta && i < rt_weights_meta_count(source->meta); i++) {
        const rt_meta *meta = rt_weights_meta_at(source->meta, i);
        bool skip = meta->key_size < 8 || memcmp(meta->key, "general.", 8) != 0;
        for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
            skip |= meta->key_size == strlen(ours[k]) && !memcmp(meta->key, ours[k], meta->key_size);
        /* a student with a name of its own is not what the teacher's name, size and origin say */
        const bool licence = meta->key_size >= 15 && !memcmp(meta->key, "general.license", 15);
        const bool languages = meta->key_size == 17 && !memcmp(meta->key, "general.languages", 17);
        if (!skip && (!source->name || licence || languages))
            rt_gguf_writer_put(writer, meta);
    }
    rt_gguf_writer_u32(writer, "general.file_type", file_type(plan));
    rt_gguf_writer_u32(writer, "general.quantization_version", 2);
}

static void put_rope(keys *to, const rt_model_config *config)
{
    const rt_rope_config *rope = &config->rope;
    put_number(to, "rope.freq_base", rope->theta);
    put_size(to, "rope.dimension_count", config->latent.kv_rank ? config->latent.rope : config->head_dim);
    if (config->has_rope_local)
        put_number(to, "rope.freq_base_swa", config->rope_local.theta);
    if (rope->scaling == RT_ROPE_LINEAR || rope->scaling == RT_ROPE_YARN) {
        rt_gguf_writer_string(to->writer, key_of(to, "rope.scaling.type"),
                              rope->scaling == RT_ROPE_YARN ? "yarn" : "linear");
        put_number(to, "rope.scaling.factor", rope->factor);
    }
    if (rope->scaling == RT_ROPE_YARN) {
        put_size(to, "rope.scaling.original_context_length", rope->original_context);
        if (rope->beta_fast != 32 || rope->beta_slow != 1) {
            put_number(to, "rope.scaling.yarn_beta_fast", rope->beta_fast);
            put_number(to, "rope.scaling.yarn_beta_slow", rope->beta_slow);
        }
        if (config->latent.kv_rank) /* cosines stay as they are; the scores are scaled */
            put_number(to, "rope.scaling.yarn_log_multiplier", 0.1 * rope->mscale_all_dim);
        else if (rope->attention_factor != 0) /* relative to the default there */
            put_number(to, "rope.scaling.attn_factor",
                       rope->attention_factor / (0.1 * log(rope->factor) + 1));
    }
}

static void put_windows(keys *to, const rt_model_config *config, const rt_family *family,
                        const rt_export_options *options)
{
    size_t window = 0;
    bool sliding[RT_LAYERS_MAX], usual = true;
    for (size_t i = 0; i < config->n_layers; i++) {
        sliding[i] = config->window[i] != 0;
        window = sliding[i] ? config->window[i] : window;
        usual &= sliding[i] == (family->window_rule != RT_WINDOW_PATTERN || (i + 1) % 6 != 0);
    }
    if (window == 0 && (family->window_rule != RT_WINDOW_PATTERN || usual))
        return;
    put_size(to, "attention.sliding_window", window ? window : family->defaults.window);
    if (!usual) {
        rt_gguf_writer_numbers(to->writer, key_of(to, "attention.sliding_window_pattern"), RT_META_BOOL,
                               sliding, config->n_layers);
        if (family->window_rule == RT_WINDOW_PATTERN)
            rt_export_note(options,
                           "which layers have the window is written as a list; llama.cpp takes each sixth "
                           "layer of gemma3 for a full one");
    }
    if (family->window_rule != RT_WINDOW_PATTERN)
        rt_export_note(options,
                       "llama.cpp ignores the sliding window of %s: beyond %zu tokens it attends to more",
                       config->family, window);
}

static void put_experts(keys *to, const rt_model_config *config)
{
    const rt_expert_config *e = &config->experts;
    size_t dense = 0;
    if (rt_family_of(config)->experts == RT_EXPERTS_NONE)
        return;
    put_size(to, "expert_count", e->count);
    while (dense < config->n_layers && !e->sparse[dense])
        dense++;
    if (rt_family_of(config)->experts == RT_EXPERTS_DEEPSEEK)
        put_size(to, "leading_dense_block_count", dense);
    if (!e->count)
        return;
    put_size(to, "expert_used_count", e->used);
    put_size(to, "expert_feed_forward_length", e->n_ff);
    rt_gguf_writer_bool(to->writer, key_of(to, "expert_weights_norm"), e->normalised);
    if (rt_family_of(config)->experts != RT_EXPERTS_DEEPSEEK)
        return;
    put_size(to, "expert_shared_count", e->n_ff_shared / e->n_ff);
    put_size(to, "expert_group_count", e->groups);
    put_size(to, "expert_group_used_count", e->groups_used);
    put_size(to, "expert_gating_func", e->router == RT_ROUTER_SIGMOID ? 2 : 1);
    put_number(to, "expert_weights_scale", e->scale);
}

static void put_architecture(keys *to, const rt_model_config *config, const rt_export_options *options)
{
    const rt_family *family = rt_family_of(config);
    put_size(to, "block_count", config->n_layers);
    put_size(to, "context_length", config->n_context);
    put_size(to, "embedding_length", config->n_embd);
    put_size(to, "feed_forward_length", config->n_ff);
    put_size(to, "vocab_size", config->n_vocab);
    put_size(to, "attention.head_count", config->n_heads);
    put_size(to, "attention.head_count_kv", config->n_heads_kv);
    put_number(to,
               config->norm == RT_NORM_LAYER ? "attention.layer_norm_epsilon"
                                             : "attention.layer_norm_rms_epsilon",
               config->norm_eps);
    const rt_latent_config *lat = &config->latent;
    const size_t key = lat->kv_rank ? lat->nope + lat->rope : config->head_dim;
    if (!config->learned_positions) {
        put_size(to, "attention.key_length", key);
        put_size(to, "attention.value_length", lat->kv_rank ? lat->value : config->head_dim);
        put_rope(to, config);
    }
    if (lat->kv_rank)
        put_size(to, "attention.kv_lora_rank", lat->kv_rank);
    if (lat->q_rank)
        put_size(to, "attention.q_lora_rank", lat->q_rank);
    put_experts(to, config);
    const double usual = rt_latent_scale(config) / sqrt((double)key);
    if (fabs(config->attention_scale - usual) > 1e-9 * usual)
        put_number(to, "attention.scale", config->attention_scale);
    if (config->attention_softcap != 0)
        put_number(to, "attn_logit_softcapping", config->attention_softcap);
    if (config->logit_softcap != 0)
        put_number(to, "final_logit_softcapping", config->logit_softcap);
    put_windows(to, config, family, options);
}

static rt_status put_lineage(rt_gguf_writer *writer, const json_t *lineage, rt_error *err)
{
    if (!lineage)
        return RT_OK;
    char *text = json_dumps(lineage, JSON_COMPACT);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the lineage");
    rt_gguf_writer_string(writer, "retort.lineage", text);
    free(text);
    return RT_OK;
}

/* llama.cpp then takes ids as they are; the special ones are all that is known. */
static void put_no_tokenizer(rt_gguf_writer *writer, const rt_model_config *config)
{
    const struct {
        const char *key;
        int id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", config->bos_id},
               {"tokenizer.ggml.eos_token_id", config->eos_id},
               {"tokenizer.ggml.padding_token_id", config->pad_id}};
    rt_gguf_writer_string(writer, "tokenizer.ggml.model", "none");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= 0)
            rt_gguf_writer_u32(writer, ids[i].key, (uint32_t)ids[i].id);
}

/* --- the file --- */

static rt_status to_gguf(void *context, const void *data, size_t size, rt_error *err)
{
    return rt_gguf_writer_data(context, data, size, err);
}

static rt_status write_file(rt_gguf_writer *writer, const rt_export_source *source, rt_export_plan *plan,
                            const rt_export_options *options, rt_error *err)
{
    const rt_model_config *config = source->config;
    const rt_family *family = rt_family_of(config);
    const bool has_factors = config->rope.scaling == RT_ROPE_LLAMA3 && !config->learned_positions;
    const size_t n_factors = config->head_dim / 2;
    keys to = {.writer = writer, .arch = family->gguf_arch};
    put_general(source, writer, family->gguf_arch, plan);
    put_architecture(&to, config, options);
    if (put_lineage(writer, source->lineage, err) != RT_OK)
        return err->status;
    if (!source->tokenizer_path)
        put_no_tokenizer(writer, config);
    else if (rt_export_tokenizer_gguf(writer, source->tokenizer_path, config->n_vocab, err) != RT_OK)
        return err->status;
    if (has_factors &&
        rt_gguf_writer_tensor(writer, "rope_freqs.weight", RT_F32, 1, &n_factors, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < plan->count; i++) {
        size_t shape[3];
        const size_t n_dims = rt_export_shape(&plan->list[i], shape);
        if (rt_gguf_writer_tensor(writer, plan->list[i].name, plan->list[i].dtype, n_dims, shape, err) !=
            RT_OK)
            return err->status;
    }
    rt_status status = rt_gguf_writer_begin(writer, err);
    if (status == RT_OK && has_factors) {
        float *factors = malloc(n_factors * sizeof *factors);
        if (!factors)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for rope_freqs.weight");
        rt_rope_to_factors(factors, &config->rope, config->head_dim);
        status = rt_gguf_writer_data(writer, factors, n_factors * sizeof *factors, err);
        free(factors);
    }
    for (size_t i = 0; i < plan->count && status == RT_OK; i++)
        status = rt_export_emit(&plan->list[i], source, options->pool, to_gguf, writer, err);
    return status;
}

rt_status rt_export_gguf(const rt_export_source *source, const char *path, const rt_export_options *options,
                         rt_error *err)
{
    rt_error own = {0};
    rt_export_plan plan;
    rt_gguf_writer *writer = NULL;
    err = err ? err : &own;
    rt_status status = rt_export_plan_build(&plan, source->config, true, err);
    if (status == RT_OK)
        status = choose_types(&plan, source, options, err);
    if (status == RT_OK)
        status = rt_gguf_writer_open(&writer, path, err);
    if (status == RT_OK)
        status = write_file(writer, source, &plan, options, err);
    if (status == RT_OK)
        status = rt_gguf_writer_commit(writer, err);
    else
        rt_gguf_writer_abort(writer);
    rt_export_plan_free(&plan);
    return status;
}
