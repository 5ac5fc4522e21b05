/* model/config_json.c - rt_model_config from and to the config.json of transformers.
 *
 * Two generations of the format are read: `rope_parameters` (since transformers 5; for gemma3 one
 * dictionary a layer type) and the older `rope_theta` with `rope_scaling`.  A key that is absent or null
 * has the default of the family's configuration class.  Both generations are written, so that older
 * programs find theirs. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "model/config_reader.h"

static void read_yarn(rt_rope_config *rope, rt_config_reader *in)
{
    rope->beta_fast = rt_config_number(in, "beta_fast", 32);
    rope->beta_slow = rt_config_number(in, "beta_slow", 1);
    rope->attention_factor = rt_config_number(in, "attention_factor", 0);
    const double mscale = rt_config_number(in, "mscale", 0),
                 all_dim = rt_config_number(in, "mscale_all_dim", 0);
    if (rope->attention_factor == 0 && mscale != 0 && all_dim != 0 && rope->factor > 1)
        rope->attention_factor =
            (0.1 * mscale * log(rope->factor) + 1) / (0.1 * all_dim * log(rope->factor) + 1);
    rope->mscale_all_dim = all_dim;
    if (in->status == RT_OK && !rt_config_bool(in, "truncate", true))
        in->status = rt_error_set(in->err, RT_UNSUPPORTED, "%s: %struncate = false is not supported for yarn",
                                  in->where, in->inside);
}

/* One dictionary of rope parameters; `outer` holds what may stand beside it. */
static void read_rope(rt_rope_config *rope, rt_config_reader *in, const rt_config_reader *outer,
                      size_t n_context)
{
    rope->theta = rt_config_number(in, "rope_theta", rope->theta);
    const char *type = rt_config_string(in, "rope_type", rt_config_string(in, "type", "default"));
    if (in->status != RT_OK)
        return;
    if (!strcmp(type, "default"))
        rope->scaling = RT_ROPE_PLAIN;
    else if (!strcmp(type, "linear"))
        rope->scaling = RT_ROPE_LINEAR;
    else if (!strcmp(type, "llama3"))
        rope->scaling = RT_ROPE_LLAMA3;
    else if (!strcmp(type, "yarn"))
        rope->scaling = RT_ROPE_YARN;
    else
        in->status =
            rt_error_set(in->err, RT_UNSUPPORTED,
                         "%s: %srope_type \"%.40s\" is not known; default, linear, llama3 and yarn are",
                         in->where, in->inside, type);
    if (in->status == RT_OK && rt_config_number(in, "partial_rotary_factor", 1) != 1)
        in->status =
            rt_error_set(in->err, RT_UNSUPPORTED, "%s: %spartial_rotary_factor other than 1 is not supported",
                         in->where, in->inside);
    if (rope->scaling == RT_ROPE_PLAIN || in->status != RT_OK)
        return;
    rope->factor = rt_config_number(in, "factor", 0);
    if (rope->scaling == RT_ROPE_LINEAR)
        return;
    rt_config_reader beside = *outer; /* transformers lets the outer key win */
    rope->original_context =
        rt_config_size(&beside, "original_max_position_embeddings",
                       rt_config_size(in, "original_max_position_embeddings", n_context));
    if (beside.status != RT_OK)
        in->status = beside.status;
    if (rope->scaling == RT_ROPE_LLAMA3) {
        rope->low_freq_factor = rt_config_number(in, "low_freq_factor", 0);
        rope->high_freq_factor = rt_config_number(in, "high_freq_factor", 0);
    } else {
        read_yarn(rope, in);
    }
}

static void read_ropes(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    rt_config_reader rope, typed;
    out->rope.theta = rt_config_number(in, "rope_theta", family->defaults.theta);
    if (rt_config_enter(&rope, in, "rope_parameters", "rope_parameters.")) {
        bool by_type = false;
        if (rt_config_enter(&typed, &rope, "full_attention", "rope_parameters.full_attention.")) {
            by_type = true;
            read_rope(&out->rope, &typed, in, out->n_context);
            rope.status = rope.status != RT_OK ? rope.status : typed.status;
        }
        if (family->has_rope_local) {
            out->rope_local.theta =
                rt_config_number(in, "rope_local_base_freq", family->defaults.theta_local);
            if (rt_config_enter(&typed, &rope, "sliding_attention", "rope_parameters.sliding_attention.")) {
                by_type = true;
                read_rope(&out->rope_local, &typed, in, out->n_context);
                rope.status = rope.status != RT_OK ? rope.status : typed.status;
            }
        }
        if (!by_type && rope.status == RT_OK)
            read_rope(&out->rope, &rope, in, out->n_context);
    } else {
        if (rt_config_enter(&rope, in, "rope_scaling", "rope_scaling."))
            read_rope(&out->rope, &rope, in, out->n_context);
        else
            rope.status = RT_OK;
        if (family->has_rope_local)
            out->rope_local.theta =
                rt_config_number(in, "rope_local_base_freq", family->defaults.theta_local);
    }
    if (in->status == RT_OK)
        in->status = rope.status;
}

/* layer_types as a list: true when there was one. */
static bool read_layer_types(rt_model_config *out, rt_config_reader *in, size_t window)
{
    const json_t *types = rt_config_look(in, "layer_types");
    if (!types || in->status != RT_OK)
        return false;
    if (!json_is_array(types) || json_array_size(types) < out->n_layers) {
        rt_config_bad_type(in, "layer_types", "a list with one entry for each layer");
        return true;
    }
    for (size_t i = 0; i < out->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type && !strcmp(type, "sliding_attention")) {
            out->window[i] = window;
        } else if (!type || strcmp(type, "full_attention") != 0) {
            in->status = rt_error_set(in->err, RT_UNSUPPORTED,
                                      "%s: %slayer_types[%zu] = \"%.40s\" is not known; full_attention and "
                                      "sliding_attention are",
                                      in->where, in->inside, i, type ? type : "(no string)");
            return true;
        }
        if (out->window[i] == 0 && type[0] == 's') {
            rt_config_bad_type(in, "sliding_window",
                               "a number above zero, because layer_types has sliding_attention");
            return true;
        }
    }
    return true;
}

static void read_windows(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    if (family->window_rule == RT_WINDOW_NEVER)
        return;
    /* an explicit null means none, an absent key the default */
    size_t window = rt_config_size(
        in, "sliding_window", json_object_get(in->object, "sliding_window") ? 0 : family->defaults.window);
    if ((family->window_rule == RT_WINDOW_FROM || family->window_rule == RT_WINDOW_SWITCHED) &&
        !rt_config_bool(in, "use_sliding_window", false))
        window = 0;
    const bool all = family->window_rule == RT_WINDOW_ALL || family->window_rule == RT_WINDOW_SWITCHED;
    if (!all && read_layer_types(out, in, window))
        return;
    const size_t from = rt_config_size(in, "max_window_layers", 28);
    const size_t pattern = rt_config_size(in, "sliding_window_pattern", 6);
    if (pattern == 0 && in->status == RT_OK)
        rt_config_bad_type(in, "sliding_window_pattern", "above zero");
    if (in->status != RT_OK)
        return;
    for (size_t i = 0; i < out->n_layers; i++)
        if (all || (family->window_rule == RT_WINDOW_FROM && i >= from) ||
            (family->window_rule == RT_WINDOW_PATTERN && (i + 1) % pattern != 0))
            out->window[i] = window;
}

static void read_heads(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    const rt_config_keys *keys = &family->keys;
    const rt_config_defaults *defaults = &family->defaults;
    const bool kv_null = keys->n_heads_kv && json_is_null(json_object_get(in->object, keys->n_heads_kv));
    out->n_heads_kv = rt_config_size(in, keys->n_heads_kv, kv_null ? 0 : defaults->n_heads_kv);
    if (out->n_heads_kv == 0 && !rt_config_look(in, keys->n_heads_kv))
        out->n_heads_kv = out->n_heads;
    out->head_dim = rt_config_size(in, keys->head_dim, defaults->head_dim);
    if (out->head_dim != 0 || rt_config_look(in, keys->head_dim))
        return;
    if (out->n_heads == 0 || out->n_embd % out->n_heads != 0) {
        if (in->status == RT_OK)
            in->status = rt_error_set(in->err, RT_CORRUPT, "%s: %s (%zu) does not divide %s (%zu)", in->where,
                                      keys->n_heads, out->n_heads, keys->n_embd, out->n_embd);
        return;
    }
    out->head_dim = out->n_embd / out->n_heads;
}

static void read_sizes(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    const rt_config_keys *keys = &family->keys;
    const rt_config_defaults *defaults = &family->defaults;
    out->n_layers = rt_config_size(in, keys->n_layers, defaults->n_layers);
    out->n_embd = rt_config_size(in, keys->n_embd, defaults->n_embd);
    out->n_heads = rt_config_size(in, keys->n_heads, defaults->n_heads);
    if (family->latent_attention)
        rt_config_read_latent(out, in);
    else
        read_heads(out, in, family);
    out->n_ff = rt_config_size(in, keys->n_ff, defaults->n_ff);
    if (out->n_ff == 0 && !rt_config_look(in, keys->n_ff) && out->n_embd <= SIZE_MAX / 4)
        out->n_ff = 4 * out->n_embd;
    out->n_vocab = rt_config_size(in, "vocab_size", defaults->n_vocab);
    out->n_context = rt_config_size(in, keys->n_context, defaults->n_context);
    if (in->status == RT_OK && (out->n_layers == 0 || out->n_layers > RT_LAYERS_MAX))
        in->status = rt_error_set(in->err, RT_CORRUPT, "%s: %s is %zu; 1 to %d layers are supported",
                                  in->where, keys->n_layers, out->n_layers, (int)RT_LAYERS_MAX);
}

static void read_biases(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    switch (family->bias_rule) {
    case RT_BIAS_NONE:
        break;
    case RT_BIAS_BY_KEY:
        out->bias_qkv = out->bias_o = rt_config_bool(in, "attention_bias", false);
        if (family->has_mlp_bias_key)
            out->bias_mlp = rt_config_bool(in, "mlp_bias", false);
        break;
    case RT_BIAS_QKV:
        out->bias_qkv = true;
        break;
    case RT_BIAS_ALL:
        out->bias_qkv = out->bias_o = out->bias_mlp = true;
        break;
    }
}

static void read_numbers(rt_model_config *out, rt_config_reader *in, const rt_family *family)
{
    out->norm_eps = rt_config_number(in, family->keys.norm_eps, family->defaults.norm_eps);
    const char *act = rt_config_string(in, family->keys.act, family->defaults.act);
    if (in->status == RT_OK && !rt_act_from_name(&out->act, act))
        in->status = rt_error_set(in->err, RT_UNSUPPORTED,
                                  "%s: %s \"%.40s\" is not known; silu, gelu_new and gelu_pytorch_tanh are",
                                  in->where, family->keys.act, act);
    const rt_latent_config *lat = &out->latent;
    out->attention_scale = 1 / sqrt((double)(lat->kv_rank ? lat->nope + lat->rope : out->head_dim));
    if (family->has_query_scalar)
        out->attention_scale = 1 / sqrt(rt_config_number(in, "query_pre_attn_scalar", 256));
    out->embed_scale = family->embed_scaled ? sqrt((double)out->n_embd) : 1;
    if (family->has_query_scalar) {
        out->attention_softcap = rt_config_number(in, "attn_logit_softcapping", 0);
        out->logit_softcap = rt_config_number(in, "final_logit_softcapping", 0);
    }
    if (family->learned_positions && !rt_config_bool(in, "scale_attn_weights", true))
        out->attention_scale = 1;
}

/* Switches of the families' classes that change the arithmetic in ways the decoder does not have. */
static void refuse_switches(rt_config_reader *in)
{
    static const char *const switches[] = {"scale_attn_by_inverse_layer_idx", "add_cross_attention",
                                           "use_bidirectional_attention"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (rt_config_bool(in, switches[i], false) && in->status == RT_OK)
            in->status = rt_error_set(in->err, RT_UNSUPPORTED, "%s: %s = true is not supported", in->where,
                                      switches[i]);
}

rt_status rt_config_fill_json(rt_model_config *out, const json_t *json, const char *where, rt_error *err)
{
    if (!json_is_object(json))
        return rt_error_set(err, RT_CORRUPT, "%s: the configuration must be a JSON object", where);
    rt_config_reader in = {.object = json, .where = where, .inside = "", .err = err}, outer = in;
    const char *model_type = rt_config_string(&in, "model_type", NULL);
    if (in.status != RT_OK)
        return in.status;
    if (!model_type)
        return rt_error_set(err, RT_CORRUPT, "%s: model_type is missing, so the family is not known", where);
    const rt_family *family;
    if (rt_family_by_model_type(&family, model_type, where, err) != RT_OK)
        return err ? err->status : RT_UNSUPPORTED;
    if (rt_config_enter(&in, &outer, "text_config", "text_config.") || outer.status != RT_OK)
        in.status = outer.status; /* gemma3 with vision: the decoder's part */
    *out = (rt_model_config){0};
    rt_config_fill_family(out, family);
    read_sizes(out, &in, family);
    if (in.status != RT_OK) /* window[] is indexed by layers from here on */
        return in.status;
    read_biases(out, &in, family);
    rt_config_read_experts(out, &in, family);
    read_numbers(out, &in, family);
    if (!family->learned_positions)
        read_ropes(out, &in, family);
    out->attention_scale *= rt_latent_scale(out);
    read_windows(out, &in, family);
    refuse_switches(&in);
    out->tied = rt_config_bool(&in, "tie_word_embeddings",
                               rt_config_bool(&outer, "tie_word_embeddings", family->defaults.tied));
    out->bos_id =
        rt_config_id(&in, "bos_token_id", rt_config_id(&outer, "bos_token_id", family->defaults.bos_id));
    out->eos_id =
        rt_config_id(&in, "eos_token_id", rt_config_id(&outer, "eos_token_id", family->defaults.eos_id));
    out->pad_id =
        rt_config_id(&in, "pad_token_id", rt_config_id(&outer, "pad_token_id", family->defaults.pad_id));
    return in.status != RT_OK ? in.status : outer.status;
}

/* --- writing --- */

static void put(json_t *object, const char *key, json_t *value)
{
    if (key)
        (void)json_object_set_new(object, key, value);
    else
        json_decref(value);
}

static void put_size(json_t *object, const char *key, size_t value)
{
    put(object, key, json_integer((json_int_t)value));
}

static void put_id(json_t *object, const char *key, int id)
{
    put(object, key, id < 0 ? json_null() : json_integer(id));
}

static json_t *rope_to_json(const rt_rope_config *rope)
{
    static const char *const types[] = {[RT_ROPE_PLAIN] = "default",
                                        [RT_ROPE_LINEAR] = "linear",
                                        [RT_ROPE_LLAMA3] = "llama3",
                                        [RT_ROPE_YARN] = "yarn"};
    json_t *out = json_object();
    put(out, "rope_type", json_string(types[rope->scaling]));
    put(out, "rope_theta", json_real(rope->theta));
    if (rope->scaling != RT_ROPE_PLAIN)
        put(out, "factor", json_real(rope->factor));
    if (rope->scaling == RT_ROPE_LLAMA3 || rope->scaling == RT_ROPE_YARN)
        put_size(out, "original_max_position_embeddings", rope->original_context);
    if (rope->scaling == RT_ROPE_LLAMA3) {
        put(out, "low_freq_factor", json_real(rope->low_freq_factor));
        put(out, "high_freq_factor", json_real(rope->high_freq_factor));
    }
    if (rope->scaling == RT_ROPE_YARN) {
        put(out, "beta_fast", json_real(rope->beta_fast));
        put(out, "beta_slow", json_real(rope->beta_slow));
        if (rope->attention_factor != 0)
            put(out, "attention_factor", json_real(rope->attention_factor));
        if (rope->mscale_all_dim != 0)
            put(out, "mscale_all_dim", json_real(rope->mscale_all_dim));
    }
    return out;
}

static void put_ropes(json_t *out, const rt_model_config *config)
{
    if (config->has_rope_local) {
        json_t *by_type = json_object();
        put(by_type, "full_attention", rope_to_json(&config->rope));
        put(by_type, "sliding_attention", rope_to_json(&config->rope_local));
        put(out, "rope_parameters", by_type);
        put(out, "rope_local_base_freq", json_real(config->rope_local.theta));
    } else {
        put(out, "rope_parameters", rope_to_json(&config->rope));
    }
    put(out, "rope_theta", json_real(config->rope.theta));
    if (config->rope.scaling != RT_ROPE_PLAIN && !config->has_rope_local)
        put(out, "rope_scaling", rope_to_json(&config->rope));
}

static void put_windows(json_t *out, const rt_model_config *config, const rt_family *family)
{
    size_t window = 0, n_sliding = 0;
    json_t *types = json_array();
    for (size_t i = 0; i < config->n_layers; i++) {
        window = rt_size_max(window, config->window[i]);
        n_sliding += config->window[i] != 0;
        (void)json_array_append_new(types,
                                    json_string(config->window[i] ? "sliding_attention" : "full_attention"));
    }
    if (window == 0 && family->window_rule == RT_WINDOW_PATTERN)
        window = family->defaults.window; /* transformers wants one even when no layer uses it */
    put(out, "sliding_window", window ? json_integer((json_int_t)window) : json_null());
    if (family->window_rule == RT_WINDOW_SWITCHED)
        put(out, "use_sliding_window", json_boolean(n_sliding != 0));
    if (family->window_rule == RT_WINDOW_ALL || family->window_rule == RT_WINDOW_SWITCHED) {
        json_decref(types); /* one window for all */
        return;
    }
    put(out, "layer_types", types);
    if (family->window_rule == RT_WINDOW_FROM) {
        put(out, "use_sliding_window", json_boolean(n_sliding != 0));
        put_size(out, "max_window_layers", config->n_layers - n_sliding);
    }
}

json_t *rt_model_config_to_json(const rt_model_config *config)
{
    const rt_family *family = rt_family_of(config);
    const rt_config_keys *keys = &family->keys;
    json_t *out = json_object();
    put(out, "architectures", json_pack("[s]", family->architecture));
    put(out, "model_type", json_string(family->model_type));
    put_size(out, keys->n_layers, config->n_layers);
    put_size(out, keys->n_embd, config->n_embd);
    put_size(out, keys->n_heads, config->n_heads);
    put_size(out, keys->n_heads_kv, config->n_heads_kv);
    if (config->latent.kv_rank)
        rt_config_put_latent(out, config);
    else
        put_size(out, keys->head_dim, config->head_dim);
    rt_config_put_experts(out, config, family);
    put_size(out, keys->n_ff, config->n_ff);
    put_size(out, keys->n_context, config->n_context);
    put_size(out, "vocab_size", config->n_vocab);
    put(out, keys->norm_eps, json_real(config->norm_eps));
    put(out, keys->act,
        json_string(config->act == RT_ACT_SILU  ? "silu"
                    : family->learned_positions ? "gelu_new"
                                                : "gelu_pytorch_tanh"));
    if (family->bias_rule == RT_BIAS_BY_KEY)
        put(out, "attention_bias", json_boolean(config->bias_qkv));
    if (family->has_mlp_bias_key)
        put(out, "mlp_bias", json_boolean(config->bias_mlp));
    if (family->has_query_scalar) {
        const double scalar = 1 / (config->attention_scale * config->attention_scale);
        put(out, "query_pre_attn_scalar", json_integer((json_int_t)llround(scalar)));
        put(out, "attn_logit_softcapping",
            config->attention_softcap != 0 ? json_real(config->attention_softcap) : json_null());
        put(out, "final_logit_softcapping",
            config->logit_softcap != 0 ? json_real(config->logit_softcap) : json_null());
    }
    if (family->learned_positions)
        put(out, "scale_attn_weights", json_boolean(config->attention_scale != 1 || config->head_dim == 1));
    else
        put_ropes(out, config);
    if (family->window_rule != RT_WINDOW_NEVER)
        put_windows(out, config, family);
    put(out, "tie_word_embeddings", json_boolean(config->tied));
    put_id(out, "bos_token_id", config->bos_id);
    put_id(out, "eos_token_id", config->eos_id);
    put_id(out, "pad_token_id", config->pad_id);
    return out;
}
