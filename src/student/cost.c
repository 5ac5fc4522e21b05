/* student/cost.c - see cost.h. */
#include "student/cost.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

/* ---- shapes that the decoder runs ---- */

static double shape_weights(const rt_model_config *config, size_t layer, rt_role role)
{
    size_t rows, cols;
    rt_role_shape(config, layer, (int)role, &rows, &cols);
    return (double)rows * (double)cols; /* a vector is not multiplied */
}

void rt_cost_shape_of(rt_cost_shape *out, const rt_model_config *config)
{
    const double layers = (double)config->n_layers, d = (double)config->n_embd;
    const double heads = (double)config->n_heads, hd = (double)config->head_dim;
    const double experts = (double)config->experts.count, used = (double)config->experts.used;
    double weights = 0, idle = 0; /* multiplied for a token; of experts that it does not go to */
    for (size_t l = 0; l < config->n_layers; l++)
        for (rt_role role = 0; role < RT_ROLE_COUNT; role++) {
            const double one = shape_weights(config, l, role);
            weights += rt_role_is_expert(role) ? used * one : one;
            idle += rt_role_is_expert(role) ? (experts - used) * one : 0;
        }
    *out = (rt_cost_shape){.n_layers = config->n_layers,
                           .n_embd = config->n_embd,
                           .n_vocab = config->n_vocab,
                           .n_context = config->n_context,
                           .parameters = (double)rt_model_config_parameters(config),
                           .head = d * (double)config->n_vocab,
                           .kv_a_token = 2 * layers * (double)config->n_heads_kv * hd};
    (void)snprintf(out->family, sizeof out->family, "%s", config->family);
    out->active = out->parameters - idle;
    out->matmul = weights + out->head;
    out->embedding = config->tied ? 0 : out->head;
    for (size_t l = 0; l < config->n_layers; l++) {
        out->key_flops[config->window[l] > 0] += 4 * heads * hd;
        out->window = rt_size_max(out->window, config->window[l]);
    }
}

/* ---- mixtures of experts, from config.json ---- */

/* A count of config.json; the first failure is kept. */
typedef struct counts {
    const json_t *json;
    const char *where;
    rt_error *err;
    rt_status status;
} counts;

enum { COUNT_MAX = 1 << 24 }; /* no size of a model comes near; products of three stay exact in double */

static double count_or(counts *c, const char *key, double otherwise)
{
    const json_t *value = json_object_get(c->json, key);
    if (!value || json_is_null(value) || c->status != RT_OK)
        return otherwise;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > COUNT_MAX) {
        c->status = rt_error_set(c->err, RT_CORRUPT, "%s: %s must be a whole number from 0 to %d", c->where,
                                 key, (int)COUNT_MAX);
        return otherwise;
    }
    return (double)json_integer_value(value);
}

static double count_needed(counts *c, const char *key)
{
    const double value = count_or(c, key, 0);
    if (value < 1 && c->status == RT_OK)
        c->status = rt_error_set(c->err, RT_CORRUPT, "%s: %s is missing or 0", c->where, key);
    return value;
}

typedef struct mixture { /* what both families have */
    double layers, dense_layers, d, n_ff, expert_ff, experts, chosen, shared, vocab;
    double attention;         /* matrices of a layer's attention */
    double attention_vectors; /* norms inside it */
    double router_vectors;
    double key_flops, kv_a_token; /* of a layer */
    bool tied;
} mixture;

static void fill_mixture(rt_cost_shape *out, const mixture *m)
{
    const double moe_layers = m->layers - m->dense_layers, expert = 3 * m->d * m->expert_ff;
    const double router = m->d * m->experts, vectors = 2 * m->d + m->attention_vectors;
    const double fixed = m->layers * (m->attention + vectors) + m->dense_layers * 3 * m->d * m->n_ff +
                         moe_layers * (router + m->router_vectors + m->shared * expert) + m->d;
    out->head = m->d * m->vocab;
    out->embedding = m->tied ? 0 : out->head;
    out->experts = moe_layers * m->experts * expert;
    out->parameters = fixed + out->experts + out->head + out->embedding;
    out->active = fixed + moe_layers * m->chosen * expert + out->head + out->embedding;
    out->matmul = m->layers * m->attention + m->dense_layers * 3 * m->d * m->n_ff +
                  moe_layers * (router + (m->shared + m->chosen) * expert) + out->head;
    out->key_flops[0] = m->layers * m->key_flops;
    out->kv_a_token = m->layers * m->kv_a_token;
}

static void read_latent_attention(mixture *m, counts *c)
{
    const double heads = count_needed(c, "num_attention_heads"), q_rank = count_or(c, "q_lora_rank", 0);
    const double kv_rank = count_needed(c, "kv_lora_rank"), nope = count_needed(c, "qk_nope_head_dim");
    const double rope = count_needed(c, "qk_rope_head_dim"), v = count_needed(c, "v_head_dim");
    const double q = heads * (nope + rope);
    m->attention = (q_rank > 0 ? m->d * q_rank + q_rank * q : m->d * q) + m->d * (kv_rank + rope) +
                   kv_rank * heads * (nope + v) + heads * v * m->d;
    m->attention_vectors = q_rank + kv_rank;
    m->key_flops = 2 * heads * (nope + rope + v); /* keys and values written out, as in training */
    m->kv_a_token = kv_rank + rope;
}

static void read_grouped_attention(mixture *m, counts *c)
{
    const double heads = count_needed(c, "num_attention_heads");
    const double kv = count_or(c, "num_key_value_heads", heads), hd = count_or(c, "head_dim", m->d / heads);
    m->attention = 2 * m->d * heads * hd + 2 * m->d * kv * hd;
    m->attention_vectors = 2 * hd; /* norms of q and k */
    m->key_flops = 4 * heads * hd;
    m->kv_a_token = 2 * kv * hd;
}

static rt_status shape_of_mixture(rt_cost_shape *out, const json_t *json, const char *where, bool latent,
                                  rt_error *err)
{
    counts c = {.json = json, .where = where, .err = err};
    mixture m = {.layers = count_needed(&c, "num_hidden_layers"),
                 .d = count_needed(&c, "hidden_size"),
                 .n_ff = count_needed(&c, "intermediate_size"),
                 .expert_ff = count_needed(&c, "moe_intermediate_size"),
                 .chosen = count_needed(&c, "num_experts_per_tok"),
                 .vocab = count_needed(&c, "vocab_size"),
                 .tied = json_is_true(json_object_get(json, "tie_word_embeddings"))};
    if (latent) {
        m.dense_layers = count_or(&c, "first_k_dense_replace", 0);
        m.experts = count_needed(&c, "n_routed_experts");
        m.shared = count_or(&c, "n_shared_experts", 0);
        m.router_vectors = m.experts; /* the correction of the choice */
        read_latent_attention(&m, &c);
    } else {
        m.experts = count_or(&c, "num_experts", count_or(&c, "num_local_experts", 0));
        const json_t *dense = json_object_get(json, "mlp_only_layers");
        const double step = count_or(&c, "decoder_sparse_step", 1);
        for (size_t l = 0; l < (size_t)m.layers; l++) {
            bool listed = false;
            for (size_t i = 0; i < json_array_size(dense); i++)
                listed = listed || json_integer_value(json_array_get(dense, i)) == (json_int_t)l;
            m.dense_layers += listed || step < 1 || (l + 1) % (size_t)step != 0;
        }
        read_grouped_attention(&m, &c);
    }
    if (c.status == RT_OK &&
        (m.layers > RT_LAYERS_MAX || m.dense_layers > m.layers || m.experts < 1 || m.chosen > m.experts))
        return rt_error_set(err, RT_CORRUPT,
                            "%s: %g layers of which %g dense, %g of %g experts a token: these numbers do "
                            "not fit together",
                            where, m.layers, m.dense_layers, m.chosen, m.experts);
    if (c.status != RT_OK)
        return c.status;
    *out = (rt_cost_shape){.n_layers = (size_t)m.layers,
                           .n_embd = (size_t)m.d,
                           .n_vocab = (size_t)m.vocab,
                           .n_context = (size_t)count_or(&c, "max_position_embeddings", 4096)};
    fill_mixture(out, &m);
    return c.status;
}

rt_status rt_cost_shape_from_json(rt_cost_shape *out, const json_t *json, const char *where, rt_error *err)
{
    const char *type = json_string_value(json_object_get(json, "model_type"));
    const bool latent = type && strcmp(type, "deepseek_v3") == 0;
    if (latent || (type && strcmp(type, "qwen3_moe") == 0)) {
        if (shape_of_mixture(out, json, where, latent, err) != RT_OK)
            return err->status;
        (void)snprintf(out->family, sizeof out->family, "%.23s", type);
        return RT_OK;
    }
    rt_model_config config;
    if (rt_model_config_from_json(&config, json, where, err) != RT_OK)
        return err->status;
    rt_cost_shape_of(out, &config);
    return RT_OK;
}

/* ---- operations ---- */

double rt_cost_mean_keys(double n, size_t window)
{
    const double w = (double)window;
    if (n < 1)
        return 0;
    if (window == 0 || n <= w)
        return (n + 1) / 2;
    return (w * (w + 1) / 2 + (n - w) * w) / n;
}

double rt_cost_attention(const rt_cost_shape *shape, double n)
{
    return shape->key_flops[0] * rt_cost_mean_keys(n, 0) +
           shape->key_flops[1] * rt_cost_mean_keys(n, shape->window);
}

double rt_cost_forward(const rt_cost_shape *shape, double n)
{
    return 2 * shape->matmul + rt_cost_attention(shape, n);
}

double rt_cost_train(const rt_cost_shape *shape, double n, bool recomputed)
{
    return (recomputed ? 4 : 3) * rt_cost_forward(shape, n);
}

double rt_cost_training_rule(double active, double tokens) { return 6 * active * tokens; }

double rt_cost_train_adapters(const rt_cost_shape *shape, double n)
{
    return 2 * rt_cost_forward(shape, n) + rt_cost_attention(shape, n);
}

/* ---- the scaling law ---- */

const rt_scaling_supervised rt_scaling_supervised_2025 = {
    .e = 1.220, .a = 3355, .b = 18186, .alpha = 0.408, .beta = 0.431, .gamma = 0.452};
const rt_scaling_distilled rt_scaling_distilled_2025 = {.a = 2243,
                                                        .b = 24181,
                                                        .alpha = 0.321,
                                                        .beta = 0.637,
                                                        .gamma = 0.764,
                                                        .c0 = 2.549,
                                                        .c1 = 522.6,
                                                        .f1 = 0.090,
                                                        .d1 = 1.315};

double rt_scaling_loss_supervised(const rt_scaling_supervised *law, double n_student, double tokens)
{
    return law->e + pow(law->a / pow(n_student, law->alpha) + law->b / pow(tokens, law->beta), law->gamma);
}

double rt_scaling_loss_distilled(const rt_scaling_distilled *law, const rt_scaling_supervised *supervised,
                                 double n_student, double tokens, double teacher_loss)
{
    const double alone = rt_scaling_loss_supervised(supervised, n_student, tokens);
    /* log1p: the power of a number just above 1 by an exponent of tens */
    const double gap = exp(-law->c1 * law->f1 * log1p(pow(teacher_loss / (alone * law->d1), 1 / law->f1)));
    const double capacity =
        pow(law->a / pow(n_student, law->alpha) + law->b / pow(tokens, law->beta), law->gamma);
    return teacher_loss + pow(teacher_loss, -law->c0) * gap * capacity;
}

bool rt_scaling_is_valid(double n_parameters, double tokens)
{
    return n_parameters >= 143e6 && n_parameters <= 12.6e9 && tokens > 0 && tokens <= 512e9;
}
