/* model/config_gguf.c - rt_model_config from the metadata and tensors of a GGUF file.
 *
 * What no key tells is read off the tensors: the vocabulary from the embedding's rows, biases, the
 * norms on q and k, and the tie from what is there.  A file that has output.weight counts as untied
 * whatever the original's config said (some converters store a second, differently quantised copy of a
 * tied matrix): the embedding is token_embd.weight and the head output.weight, as every GGUF runtime
 * computes it.  A student that must be tied takes token_embd.weight: that is the tensor which both
 * of the original's uses came from by name, and the choice must not depend on quantisation types. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/families.h"

typedef struct reader {
    const rt_weights *weights;
    const char *where, *arch;
    rt_error *err;
    rt_status status;
    char key[128];
} reader;

static const char *full_key(reader *in, const char *suffix)
{
    (void)snprintf(in->key, sizeof in->key, "%s.%s", in->arch, suffix);
    return in->key;
}

static size_t read_size(reader *in, const char *suffix, size_t absent)
{
    uint64_t value;
    if (in->status == RT_OK && rt_weights_meta_u64(in->weights, full_key(in, suffix), &value))
        return (size_t)value;
    return absent;
}

static size_t need_size(reader *in, const char *suffix)
{
    const size_t value = read_size(in, suffix, SIZE_MAX);
    if (value != SIZE_MAX)
        return value;
    if (in->status == RT_OK)
        in->status =
            rt_error_set(in->err, RT_CORRUPT, "%s: the metadata key %s is missing or not a whole number",
                         in->where, full_key(in, suffix));
    return 0;
}

/* GGUF numbers are mostly float32: 1e-5 comes back as 9.99999975e-06.  The shortest decimal of the same
 * float32 is what the original config said. */
static double shortest(double value)
{
    char text[32];
    if ((double)(float)value != value)
        return value;
    (void)snprintf(text, sizeof text, "%.7g", value);
    const double rounded = strtod(text, NULL);
    return (double)(float)rounded == value ? rounded : value;
}

static double read_number(reader *in, const char *suffix, double absent)
{
    double value;
    return rt_weights_meta_f64(in->weights, full_key(in, suffix), &value) ? shortest(value) : absent;
}

static bool has_tensor(const reader *in, const char *name)
{
    return rt_weights_find(in->weights, name) != NULL;
}

static void read_heads(rt_model_config *out, reader *in, const rt_family *family)
{
    out->head_dim = read_size(in, "attention.key_length", 0);
    if (out->head_dim == 0) {
        if (out->n_heads == 0 || out->n_embd % out->n_heads != 0) {
            in->status =
                rt_error_set(in->err, RT_CORRUPT,
                             "%s: %s.attention.head_count (%zu) does not divide %s.embedding_length (%zu)",
                             in->where, in->arch, out->n_heads, in->arch, out->n_embd);
            return;
        }
        out->head_dim = out->n_embd / out->n_heads;
    }
    const size_t value_length = read_size(in, "attention.value_length", out->head_dim);
    const size_t rotated = read_size(in, "rope.dimension_count", out->head_dim);
    if (value_length != out->head_dim || (rotated != out->head_dim && !family->learned_positions))
        in->status =
            rt_error_set(in->err, RT_UNSUPPORTED,
                         "%s: %s.attention.value_length (%zu) and %s.rope.dimension_count (%zu) must equal "
                         "the key length (%zu)",
                         in->where, in->arch, value_length, in->arch, rotated, out->head_dim);
}

/* Files that are made for attention over the latents count one kv head of the latent's width; their lengths
 * of a head stand under names of their own. */
static void read_latent(rt_model_config *out, reader *in)
{
    rt_latent_config *lat = &out->latent;
    const size_t key = read_size(in, "attention.key_length_mla", need_size(in, "attention.key_length"));
    lat->value = read_size(in, "attention.value_length_mla", need_size(in, "attention.value_length"));
    lat->kv_rank = need_size(in, "attention.kv_lora_rank");
    lat->q_rank = read_size(in, "attention.q_lora_rank", 0);
    lat->rope = need_size(in, "rope.dimension_count");
    lat->interleaved = true;
    out->n_heads_kv = out->n_heads;
    if (in->status == RT_OK && (lat->kv_rank == 0 || key <= lat->rope))
        in->status =
            rt_error_set(in->err, RT_CORRUPT,
                         "%s: %s.attention.kv_lora_rank is %zu and a key has %zu values, %zu of them "
                         "turned by rope; each must be above zero and the key longer than that",
                         in->where, in->arch, lat->kv_rank, key, lat->rope);
    if (in->status != RT_OK)
        return;
    lat->nope = key - lat->rope;
    out->head_dim = rt_size_max(key, lat->value);
}

/* How deepseek2 files without the key choose: V2 by softmax, V3 (it has the bias) by sigmoid. */
static rt_router_kind router_of(reader *in, const rt_family *family, bool bias)
{
    enum { SOFTMAX = 1, SIGMOID = 2 };
    const bool sigmoid = family->experts == RT_EXPERTS_DEEPSEEK && bias;
    const size_t kind = read_size(in, "expert_gating_func", sigmoid ? SIGMOID : SOFTMAX);
    if (kind != SOFTMAX && kind != SIGMOID && in->status == RT_OK)
        in->status =
            rt_error_set(in->err, RT_UNSUPPORTED, "%s: %s is %zu; 1 (softmax) and 2 (sigmoid) are supported",
                         in->where, full_key(in, "expert_gating_func"), kind);
    return kind == SIGMOID ? RT_ROUTER_SIGMOID : RT_ROUTER_SOFTMAX;
}

static void read_experts(rt_model_config *out, reader *in, const rt_family *family)
{
    rt_expert_config *e = &out->experts;
    const size_t count = read_size(in, "expert_count", 0);
    char name[64];
    bool any = false;
    if (count && family->experts == RT_EXPERTS_NONE) {
        in->status = rt_error_set(in->err, RT_UNSUPPORTED,
                                  "%s: %s.expert_count is not zero; experts of this family are not supported",
                                  in->where, in->arch);
        return;
    }
    for (size_t l = 0; l < out->n_layers && count; l++) { /* the router tells a layer with experts */
        (void)snprintf(name, sizeof name, "blk.%zu.%s", l, family->gguf_roles[RT_ROLE_ROUTER]);
        const bool sparse = l >= read_size(in, "leading_dense_block_count", 0) || has_tensor(in, name);
        (void)snprintf(name, sizeof name, "blk.%zu.%s", l, family->gguf_roles[RT_ROLE_GATE]);
        e->sparse[l] = sparse && !has_tensor(in, name);
        (void)snprintf(name, sizeof name, "blk.%zu.%s", l, family->gguf_roles[RT_ROLE_ROUTER_BIAS]);
        e->bias = e->bias || (e->sparse[l] && has_tensor(in, name));
        any = any || e->sparse[l];
    }
    if (!any)
        return;
    const bool qwen = family->experts == RT_EXPERTS_QWEN;
    e->count = count;
    e->used = need_size(in, "expert_used_count");
    e->n_ff = read_size(in, "expert_feed_forward_length", out->n_ff);
    const size_t shared = read_size(in, "expert_shared_count", 0);
    if (!rt_size_mul(shared, e->n_ff, &e->n_ff_shared) && in->status == RT_OK)
        in->status = rt_error_set(in->err, RT_CORRUPT, "%s: %s is %zu; that is too many", in->where,
                                  full_key(in, "expert_shared_count"), shared);
    e->groups = read_size(in, "expert_group_count", 1);
    e->groups_used = read_size(in, "expert_group_used_count", 1);
    if (!e->groups) /* written as zero by some converters */
        e->groups = e->groups_used = 1;
    e->router = router_of(in, family, e->bias);
    e->normalised = qwen;
    (void)rt_weights_meta_bool(in->weights, full_key(in, "expert_weights_norm"), &e->normalised);
    e->scale = read_number(in, "expert_weights_scale", 1);
    if (e->scale == 0)
        e->scale = 1;
}

static void read_sizes(rt_model_config *out, reader *in, const rt_family *family)
{
    out->n_layers = need_size(in, "block_count");
    out->n_embd = need_size(in, "embedding_length");
    out->n_ff = need_size(in, "feed_forward_length");
    out->n_context = need_size(in, "context_length");
    out->n_heads = need_size(in, "attention.head_count");
    out->n_heads_kv = read_size(in, "attention.head_count_kv", out->n_heads);
    if (in->status != RT_OK)
        return;
    if (family->latent_attention)
        read_latent(out, in);
    else
        read_heads(out, in, family);
    if (in->status == RT_OK && (out->n_layers == 0 || out->n_layers > RT_LAYERS_MAX))
        in->status =
            rt_error_set(in->err, RT_CORRUPT, "%s: %s.block_count is %zu; 1 to %d layers are supported",
                         in->where, in->arch, out->n_layers, (int)RT_LAYERS_MAX);
    if (in->status == RT_OK)
        read_experts(out, in, family);
}

/* llama3 scaling is stored as one divisor for each frequency. */
static void read_rope_factors(rt_model_config *out, reader *in)
{
    const rt_weight *weight = rt_weights_find(in->weights, "rope_freqs.weight");
    if (!weight || in->status != RT_OK)
        return;
    float factors[512];
    const size_t n = out->head_dim / 2;
    if (weight->dtype != RT_F32 || weight->n_dims != 1 || weight->shape[0] != n ||
        n > sizeof factors / sizeof *factors) {
        in->status =
            rt_error_set(in->err, RT_CORRUPT, "%s: rope_freqs.weight must be %zu float32 values, one a pair",
                         in->where, n);
        return;
    }
    memcpy(factors, weight->data, n * sizeof *factors);
    in->status = rt_rope_from_factors(&out->rope, out->head_dim, factors, in->where, in->err);
}

static void read_rope(rt_model_config *out, reader *in, const rt_family *family)
{
    rt_rope_config *rope = &out->rope;
    rope->theta = read_number(in, "rope.freq_base", 1e4);
    const char *type = "none";
    size_t size = 4;
    const double factor = read_number(in, "rope.scaling.factor", read_number(in, "rope.scale_linear", 1));
    if (!rt_weights_meta_string(in->weights, full_key(in, "rope.scaling.type"), &type, &size) &&
        factor != 1) {
        type = "linear"; /* older files give the factor alone */
        size = 6;
    }
    if (size == 6 && !memcmp(type, "linear", 6) && factor != 1) {
        rope->scaling = RT_ROPE_LINEAR;
        rope->factor = factor;
    } else if (size == 4 && !memcmp(type, "yarn", 4)) {
        rope->scaling = RT_ROPE_YARN;
        rope->factor = factor;
        rope->original_context = read_size(in, "rope.scaling.original_context_length", out->n_context);
        rope->beta_fast = read_number(in, "rope.scaling.yarn_beta_fast", 32);
        rope->beta_slow = read_number(in, "rope.scaling.yarn_beta_slow", 1);
        /* relative to the default there, absolute here */
        const double relative = read_number(in, "rope.scaling.attn_factor", 1);
        rope->attention_factor = relative != 1 && factor >= 1 ? relative * (0.1 * log(factor) + 1) : 0;
        if (family->latent_attention) { /* the multiplier holds 0.1 mscale_all_dim, and cosines stay as they
                                           are */
            rope->mscale_all_dim = 10 * read_number(in, "rope.scaling.yarn_log_multiplier", 0);
            rope->attention_factor = relative;
        }
    } else if (!(size == 4 && !memcmp(type, "none", 4)) && !(size == 6 && !memcmp(type, "linear", 6))) {
        in->status =
            rt_error_set(in->err, RT_UNSUPPORTED, "%s: %s \"%.*s\" is not known; none, linear and yarn are",
                         in->where, full_key(in, "rope.scaling.type"), (int)rt_size_min(size, 40), type);
    }
    read_rope_factors(out, in);
    if (family->has_rope_local)
        out->rope_local.theta = read_number(in, "rope.freq_base_swa", family->defaults.theta_local);
}

/* The list of layers that slide: booleans (or numbers), one a layer. */
static bool layer_slides(const rt_meta *list, size_t layer)
{
    const unsigned char *data = list->data;
    const size_t bytes = list->bytes / list->count;
    for (size_t i = 0; i < bytes; i++) /* little-endian: any bit set */
        if (data[layer * bytes + i])
            return true;
    return false;
}

static void read_windows(rt_model_config *out, reader *in, const rt_family *family)
{
    static const char key[] = "attention.sliding_window_pattern";
    const size_t window = read_size(in, "attention.sliding_window", 0);
    if (window == 0)
        return;
    const rt_meta *list = NULL;
    (void)full_key(in, key);
    for (size_t i = 0; i < rt_weights_meta_count(in->weights); i++) {
        const rt_meta *meta = rt_weights_meta_at(in->weights, i);
        if (meta->key_size == strlen(in->key) && !memcmp(meta->key, in->key, meta->key_size) &&
            meta->type == RT_META_ARRAY)
            list = meta;
    }
    if (list &&
        (list->count < out->n_layers || list->element == RT_META_STRING || list->element == RT_META_ARRAY)) {
        in->status = rt_error_set(in->err, RT_CORRUPT, "%s: %s must have one entry for each layer", in->where,
                                  in->key);
        return;
    }
    const size_t period = read_size(in, key, 6); /* or a number: each such layer is a full one */
    for (size_t i = 0; i < out->n_layers; i++)
        if (list ? layer_slides(list, i)
                 : family->window_rule != RT_WINDOW_PATTERN || period == 0 || (i + 1) % period != 0)
            out->window[i] = window;
}

static void read_numbers(rt_model_config *out, reader *in, const rt_family *family)
{
    out->norm_eps = read_number(in,
                                family->norm == RT_NORM_LAYER ? "attention.layer_norm_epsilon"
                                                              : "attention.layer_norm_rms_epsilon",
                                (double)NAN);
    if (isnan(out->norm_eps) && in->status == RT_OK)
        in->status = rt_error_set(in->err, RT_CORRUPT, "%s: the metadata key %s is missing or no number",
                                  in->where, in->key);
    (void)rt_act_from_name(&out->act, family->defaults.act);
    out->embed_scale = family->embed_scaled ? sqrt((double)out->n_embd) : 1;
    /* Only the 27B gemma3 (62 layers) scales its scores by the width that each head gets of the embedding. */
    const rt_latent_config *lat = &out->latent;
    double scale = 1 / sqrt((double)(lat->kv_rank ? lat->nope + lat->rope : out->head_dim));
    scale *= rt_latent_scale(out);
    out->latent.norm_eps = lat->kv_rank ? out->norm_eps : 0;
    if (family->has_query_scalar && out->n_layers == 62)
        scale = 1 / sqrt((double)out->n_embd / (double)out->n_heads);
    out->attention_scale = read_number(in, "attention.scale", scale);
    out->attention_softcap = read_number(in, "attn_logit_softcapping", 0);
    out->logit_softcap = read_number(in, "final_logit_softcapping", 0);
}

static void read_from_tensors(rt_model_config *out, reader *in, const rt_family *family)
{
    const rt_weight *embed = rt_weights_find(in->weights, family->gguf_globals[RT_GLOBAL_EMBED]);
    if (!embed || embed->n_dims != 2) {
        if (in->status == RT_OK)
            in->status = rt_error_set(in->err, RT_CORRUPT, "%s: the tensor %s is missing or no matrix",
                                      in->where, family->gguf_globals[RT_GLOBAL_EMBED]);
        return;
    }
    out->n_vocab = embed->shape[0];
    out->tied = !has_tensor(in, family->gguf_globals[RT_GLOBAL_HEAD]);
    out->qk_norm = has_tensor(in, "blk.0.attn_q_norm.weight");
    out->bias_qkv = has_tensor(in, "blk.0.attn_q.bias") || has_tensor(in, "blk.0.attn_qkv.bias") ||
                    has_tensor(in, "blk.0.attn_kv_a_mqa.bias");
    out->bias_o = has_tensor(in, "blk.0.attn_output.bias");
    out->bias_mlp = has_tensor(in, "blk.0.ffn_up.bias");
}

static int read_id(reader *in, const char *key)
{
    uint64_t id;
    return rt_weights_meta_u64(in->weights, key, &id) && id <= INT32_MAX ? (int)id : -1;
}

rt_status rt_config_fill_gguf(rt_model_config *out, const rt_weights *weights, rt_error *err)
{
    const char *where = rt_weights_path(weights), *name;
    size_t size;
    char arch[32];
    if (!rt_weights_meta_string(weights, "general.architecture", &name, &size) || size >= sizeof arch)
        return rt_error_set(err, RT_CORRUPT,
                            "%s: the metadata key general.architecture is missing or too long", where);
    memcpy(arch, name, size);
    arch[size] = '\0';
    const rt_family *family;
    const rt_status status = rt_family_by_gguf_arch(&family, arch, where, err);
    if (status != RT_OK)
        return status;
    reader in = {.weights = weights, .where = where, .arch = arch, .err = err};
    *out = (rt_model_config){0};
    uint64_t window;
    if (!strcmp(arch, "llama") && rt_weights_meta_u64(weights, "llama.attention.sliding_window", &window) &&
        window)
        (void)rt_family_by_model_type(&family, "mistral", where, err); /* llama itself has no windows */
    rt_config_fill_family(out, family);
    out->norm_plus_one = out->conv1d = false;
    read_sizes(out, &in, family);
    if (in.status != RT_OK)
        return in.status;
    if (!family->learned_positions)
        read_rope(out, &in, family);
    read_windows(out, &in, family);
    read_numbers(out, &in, family);
    read_from_tensors(out, &in, family);
    out->bos_id = read_id(&in, "tokenizer.ggml.bos_token_id");
    out->eos_id = read_id(&in, "tokenizer.ggml.eos_token_id");
    out->pad_id = read_id(&in, "tokenizer.ggml.padding_token_id");
    return in.status;
}
