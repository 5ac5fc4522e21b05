/* tests/model/test_experts.c - routers, files with experts in every form, gradients of shapes that no
 * reference vectors cover, and files that are wrong. */
#include "export_help.h"

#include <math.h>

#include "base/file.h"
#include "base/rng.h"
#include "base/size.h"
#include "model/decoder.h"
#include "model/export.h"
#include "model/gguf_write.h"
#include "model/router.h"
#include "model/safetensors_write.h"
#include "model/session.h"

static rt_pool *pool;

/* ---- the router ---- */

static void groups_and_bias_decide_and_scores_weigh(void **state)
{
    (void)state;
    const rt_expert_config c = {.count = 8,
                                .used = 3,
                                .groups = 4,
                                .groups_used = 2,
                                .router = RT_ROUTER_SIGMOID,
                                .normalised = true,
                                .scale = 2.5};
    const float logits[] = {0, 0, 3, -9, 1, 1, -1, 2}; /* sums of groups by sigmoid: 1, .95, 1.46, 1.15 */
    float weights[3], room[16], bias[8] = {0};
    uint32_t ids[3];
    rt_router_choose(ids, weights, logits, NULL, &c, room);
    assert_true(ids[0] == 4 && ids[1] == 5 && ids[2] == 7); /* not 2, which is the best of all */
    const double s1 = 1 / (1 + exp(-1)), s2 = 1 / (1 + exp(-2)), sum = 2 * s1 + s2;
    assert_true(fabs((double)weights[0] - 2.5 * s1 / sum) < 1e-6 &&
                fabs((double)weights[2] - 2.5 * s2 / sum) < 1e-6);
    bias[2] = 1; /* now the second group is one of the best */
    rt_router_choose(ids, weights, logits, bias, &c, room);
    assert_true(ids[0] == 2 && ids[1] == 4 && ids[2] == 5);
    const double s3 = 1 / (1 + exp(-3)), with = 2 * s1 + s3; /* the bias does not count here */
    assert_true(fabs((double)weights[0] - 2.5 * s3 / with) < 1e-6);
}

static void of_equal_experts_the_first_are_taken(void **state)
{
    (void)state;
    const rt_expert_config c = {.count = 6, .used = 2, .groups = 1, .groups_used = 1, .scale = 1};
    const float logits[6] = {1, 2, 2, 2, 1, 2};
    float weights[2], room[12];
    uint32_t ids[2];
    rt_router_choose(ids, weights, logits, NULL, &c, room);
    assert_true(ids[0] == 1 && ids[1] == 2 && weights[0] == weights[1]);
}

static void logits_that_are_not_finite_give_ids_in_range(void **state)
{
    (void)state;
    const float bad[][4] = {{NAN, NAN, NAN, NAN},
                            {INFINITY, 0, 0, 0},
                            {-INFINITY, -INFINITY, -INFINITY, -INFINITY},
                            {0, NAN, 1, -INFINITY}};
    for (size_t k = 0; k < 2; k++)
        for (size_t g = 1; g <= 2; g++)
            for (size_t i = 0; i < 4; i++) {
                const rt_expert_config c = {.count = 4,
                                            .used = 2,
                                            .groups = g,
                                            .groups_used = 1,
                                            .router = (rt_router_kind)k,
                                            .normalised = true,
                                            .scale = 1};
                float weights[2], room[8];
                uint32_t ids[2] = {99, 99};
                rt_router_choose(ids, weights, bad[i], NULL, &c, room);
                assert_true(ids[0] < 4 && ids[1] < 4);
            }
}

static void the_routers_gradient_agrees_with_differences(void **state)
{
    (void)state;
    enum { N = 12, K = 4 };
    rt_rng rng = rt_rng_make(3, 0);
    for (int kind = 0; kind < 4; kind++) {
        const rt_expert_config c = {.count = N,
                                    .used = K,
                                    .groups = 1,
                                    .groups_used = 1,
                                    .router = kind % 2 ? RT_ROUTER_SIGMOID : RT_ROUTER_SOFTMAX,
                                    .normalised = kind / 2,
                                    .scale = 1.5};
        float logits[N], dweights[K], weights[K], room[2 * N], grad[N];
        uint32_t ids[K];
        for (size_t i = 0; i < N; i++)
            logits[i] = (float)rt_rng_normal(&rng);
        for (size_t j = 0; j < K; j++)
            dweights[j] = (float)rt_rng_normal(&rng);
        rt_router_choose(ids, weights, logits, NULL, &c, room);
        rt_router_backward(grad, dweights, logits, ids, &c);
        for (size_t i = 0; i < N; i++) {
            double loss[2] = {0};
            for (int side = 0; side < 2; side++) {
                float moved[N];
                memcpy(moved, logits, sizeof moved);
                moved[i] += side ? 0.01f : -0.01f;
                rt_router_weigh(weights, ids, moved, &c, room);
                for (size_t j = 0; j < K; j++)
                    loss[side] += (double)dweights[j] * (double)weights[j];
            }
            assert_true(fabs((loss[1] - loss[0]) / 0.02 - (double)grad[i]) < 2e-4);
        }
    }
}

/* ---- gradients of whole models ---- */

typedef struct net {
    rt_model_config config;
    rt_layout layout;
    float *values, *grads, *upstream, *dhidden;
    rt_model *model;
    rt_pass *pass;
    int32_t ids[24];
    rt_segment segments[2];
} net;

static void net_open(net *n, const char *json)
{
    rt_error err = {0};
    *n = (net){0};
    json_t *parsed = json_loads(json, 0, NULL);
    assert_non_null(parsed);
    if (rt_model_config_from_json(&n->config, parsed, "config", &err) != RT_OK ||
        rt_layout_build(&n->layout, &n->config, &err) != RT_OK)
        fail_msg("%s", err.text);
    json_decref(parsed);
    n->values = calloc(n->layout.total, sizeof(float));
    n->grads = calloc(n->layout.total, sizeof(float));
    n->upstream = calloc(24 * n->config.n_embd, sizeof(float));
    n->dhidden = calloc(24 * n->config.n_embd, sizeof(float));
    assert_true(n->values && n->grads && n->upstream && n->dhidden);
    rt_rng rng = rt_rng_make(5, 0);
    for (size_t i = 0; i < n->layout.total; i++)
        n->values[i] = (float)(0.3 * rt_rng_normal(&rng));
    for (size_t i = 0; i < 24 * n->config.n_embd; i++)
        n->upstream[i] = (float)rt_rng_normal(&rng);
    for (size_t i = 0; i < 24; i++)
        n->ids[i] = (int32_t)rt_rng_below(&rng, n->config.n_vocab);
    n->segments[0] = (rt_segment){.begin = 0, .count = 15};
    n->segments[1] = (rt_segment){.begin = 15, .count = 9};
    if (rt_model_view(&n->model, &n->config, &n->layout, n->values, NULL, RT_PRECISION_F32, pool, &err) !=
            RT_OK ||
        rt_pass_open(&n->pass, n->model, 24, true, &err) != RT_OK)
        fail_msg("%s", err.text);
}

static void net_close(net *n)
{
    rt_pass_close(n->pass);
    rt_model_close(n->model);
    rt_layout_free(&n->layout);
    free(n->values);
    free(n->grads);
    free(n->upstream);
    free(n->dhidden);
}

static double net_loss(net *n)
{
    const rt_batch batch = {n->ids, 24, n->segments, 2};
    double loss = 0;
    rt_forward(n->model, n->pass, &batch, NULL, NULL);
    for (size_t i = 0; i < 24 * n->config.n_embd; i++)
        loss += (double)rt_pass_hidden(n->pass)[i] * (double)n->upstream[i];
    return loss;
}

/* For each tensor: the slope along its own gradient, by differences; the choice of experts is held. */
static void check_slopes(net *n)
{
    const rt_batch batch = {n->ids, 24, n->segments, 2};
    (void)net_loss(n);
    memcpy(n->dhidden, n->upstream, 24 * n->config.n_embd * sizeof(float));
    rt_backward(n->model, n->pass, &batch, &n->layout, n->dhidden, n->grads);
    rt_pass_hold_choice(n->pass, n->pass, n->model);
    for (size_t k = 0; k < n->layout.count; k++) {
        const rt_param *p = &n->layout.list[k];
        double norm = 0, loss[2];
        char name[128];
        rt_param_name(name, &n->config, p);
        for (size_t i = 0; i < p->count; i++)
            norm += (double)n->grads[p->offset + i] * (double)n->grads[p->offset + i];
        norm = sqrt(norm);
        if (norm < 1e-3) /* the head, experts that nobody chose, the router's bias */
            continue;
        const double step = 2e-3;
        float *values = n->values + p->offset, *kept = calloc(p->count, sizeof *kept);
        memcpy(kept, values, p->count * sizeof *kept);
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < p->count; i++)
                values[i] =
                    (float)((double)kept[i] + (side ? step : -step) * (double)n->grads[p->offset + i] / norm);
            loss[side] = net_loss(n);
        }
        memcpy(values, kept, p->count * sizeof *kept);
        free(kept);
        const double slope = (loss[1] - loss[0]) / (2 * step);
        if (fabs(slope - norm) > 0.02 * norm + 0.02)
            fail_msg("%s: the gradient says %g, differences say %g", name, norm, slope);
    }
}

#define TINY                                                                                                 \
    "\"vocab_size\": 31, \"hidden_size\": 16, \"intermediate_size\": 20, \"num_hidden_layers\": 3,"          \
    "\"num_attention_heads\": 2, \"max_position_embeddings\": 64, \"moe_intermediate_size\": 12,"
#define DEEPSEEK                                                                                             \
    "{\"model_type\": \"deepseek_v3\", " TINY "\"kv_lora_rank\": 10, \"qk_rope_head_dim\": 4,"               \
    "\"first_k_dense_replace\": 1, \"n_routed_experts\": 6, \"num_experts_per_tok\": 3,"

static void gradients_agree_with_differences_for_shapes_without_vectors(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "{\"model_type\": \"qwen3_moe\", " TINY "\"num_key_value_heads\": 1, \"num_experts\": 5,"
        "\"num_experts_per_tok\": 2, \"norm_topk_prob\": false, \"decoder_sparse_step\": 2}",
        "{\"model_type\": \"qwen3_moe\", " TINY "\"num_key_value_heads\": 2, \"num_experts\": 5,"
        "\"num_experts_per_tok\": 1, \"norm_topk_prob\": false, \"attention_bias\": true, "
        "\"mlp_only_layers\": [2]}",
        DEEPSEEK
        "\"q_lora_rank\": null, \"qk_nope_head_dim\": 6, \"v_head_dim\": 14, \"n_shared_experts\": 2,"
        "\"n_group\": 1, \"topk_group\": 1, \"norm_topk_prob\": false}",
        DEEPSEEK "\"q_lora_rank\": 12, \"qk_nope_head_dim\": 6, \"v_head_dim\": 5, \"n_shared_experts\": 0,"
                 "\"n_group\": 3, \"topk_group\": 2, \"attention_bias\": true, \"rope_interleave\": false}",
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        net n;
        net_open(&n, configs[i]);
        check_slopes(&n);
        net_close(&n);
    }
}

static void the_bits_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    rt_pool *used = pool;
    net a, b;
    net_open(&a, DEEPSEEK "\"q_lora_rank\": 12, \"qk_nope_head_dim\": 6, \"v_head_dim\": 5, \"n_group\": 1, "
                          "\"topk_group\": 1}");
    pool = NULL;
    net_open(&b, DEEPSEEK "\"q_lora_rank\": 12, \"qk_nope_head_dim\": 6, \"v_head_dim\": 5, \"n_group\": 1, "
                          "\"topk_group\": 1}");
    pool = used;
    const rt_batch batch = {a.ids, 24, a.segments, 2};
    (void)net_loss(&a);
    (void)net_loss(&b);
    assert_memory_equal(rt_pass_hidden(a.pass), rt_pass_hidden(b.pass), 24 * a.config.n_embd * sizeof(float));
    memcpy(a.dhidden, a.upstream, 24 * a.config.n_embd * sizeof(float));
    memcpy(b.dhidden, b.upstream, 24 * a.config.n_embd * sizeof(float));
    rt_backward(a.model, a.pass, &batch, &a.layout, a.dhidden, a.grads);
    rt_backward(b.model, b.pass, &batch, &b.layout, b.dhidden, b.grads);
    assert_memory_equal(a.grads, b.grads, a.layout.total * sizeof(float));
    net_close(&a);
    net_close(&b);
}

/* ---- files ---- */

typedef struct edit {                   /* what becomes of the tensors of a folder */
    const char *drop, *shrink, *poison; /* names: left out, one row short, first value NaN */
    bool stack;                         /* experts of a layer in one tensor */
    const char *from, *to;              /* in config.json */
} edit;

static void copy_config(const char *in, const char *out, const edit *e)
{
    char path[600];
    rt_error err = {0};
    char *text;
    size_t size;
    (void)snprintf(path, sizeof path, "%s/config.json", in);
    assert_int_equal(rt_file_read(&text, &size, path, 1 << 20, &err), RT_OK);
    (void)snprintf(path, sizeof path, "%s/config.json", out);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    const char *at = e->from ? strstr(text, e->from) : NULL;
    assert_true(!e->from || at);
    if (at)
        assert_true(fprintf(file, "%.*s%s%s", (int)(at - text), text, e->to, at + strlen(e->from)) > 0);
    else
        assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    free(text);
}

static bool is_expert(const char *name) { return strstr(name, ".experts.") != NULL; }

/* Either declares the stacked tensors of a layer or, with `parts`, writes their bytes. */
static void put_stacks(rt_safetensors_writer *writer, const opened_model *m, size_t layer, bool bytes)
{
    static const char *const parts[2][2] = {{"gate_proj", "up_proj"}, {"down_proj", NULL}};
    const rt_expert_config *c = &m->config.experts;
    rt_error err = {0};
    char name[128];
    for (size_t k = 0; k < 2; k++) {
        const size_t d = m->config.n_embd, shape[2][3] = {{c->count, 2 * c->n_ff, d}, {c->count, d, c->n_ff}};
        (void)snprintf(name, sizeof name, "model.layers.%zu.mlp.experts.%s", layer,
                       k ? "down_proj" : "gate_up_proj");
        if (!bytes)
            assert_int_equal(rt_safetensors_writer_tensor(writer, name, RT_F32, 3, shape[k], &err), RT_OK);
        for (size_t e = 0; bytes && e < c->count; e++)
            for (size_t p = 0; p < 2 && parts[k][p]; p++) {
                (void)snprintf(name, sizeof name, "model.layers.%zu.mlp.experts.%zu.%s.weight", layer, e,
                               parts[k][p]);
                const rt_weight *w = rt_weights_find(m->weights, name);
                assert_int_equal(rt_safetensors_writer_data(writer, w->data, w->bytes, &err), RT_OK);
            }
    }
}

static void write_edited(const char *in, const char *out, const edit *e)
{
    rt_error err = {0};
    rt_safetensors_writer *writer;
    char path[600];
    opened_model m = open_model(in);
    assert_int_equal(rt_dir_make(out, &err), RT_OK);
    copy_config(in, out, e);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", out);
    assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
    for (int bytes = 0; bytes < 2; bytes++) {
        if (bytes)
            assert_int_equal(rt_safetensors_writer_begin(writer, &err), RT_OK);
        for (size_t i = 0; i < rt_weights_count(m.weights); i++) {
            rt_weight w = *rt_weights_at(m.weights, i);
            float *copy = malloc(w.bytes);
            assert_non_null(copy);
            memcpy(copy, w.data, w.bytes);
            if (e->shrink && !strcmp(w.name, e->shrink)) {
                w.bytes -= w.bytes / w.shape[0];
                w.shape[0]--;
            }
            if (e->poison && !strcmp(w.name, e->poison))
                copy[0] = NAN;
            const bool skip = (e->drop && !strcmp(w.name, e->drop)) || (e->stack && is_expert(w.name));
            if (!skip && !bytes)
                assert_int_equal(
                    rt_safetensors_writer_tensor(writer, w.name, w.dtype, w.n_dims, w.shape, &err), RT_OK);
            else if (!skip)
                assert_int_equal(rt_safetensors_writer_data(writer, copy, w.bytes, &err), RT_OK);
            free(copy);
        }
        for (size_t l = 0; l < m.config.n_layers && e->stack; l++)
            if (m.config.experts.sparse[l])
                put_stacks(writer, &m, l, bytes);
    }
    assert_int_equal(rt_safetensors_writer_commit(writer, &err), RT_OK);
    rt_weights_close(m.weights);
}

/* The status of opening the edited folder as a model that runs. */
static rt_status open_edited(void **state, const char *family, const edit *e, rt_error *err)
{
    char in[512], out[512];
    rt_weights *weights;
    rt_model *model = NULL;
    (void)work_path(out, state, "edited");
    write_edited(golden_path(in, family), out, e);
    assert_int_equal(rt_weights_open(&weights, out, err), RT_OK);
    const rt_status status = rt_model_open(&model, weights, RT_PRECISION_BF16, pool, err);
    rt_model_close(model);
    rt_weights_close(weights);
    return status;
}

#define LAYER "model.layers.1.mlp."

static void files_that_are_wrong_are_refused_by_name(void **state)
{
    static const struct {
        const char *family;
        edit e;
        rt_status status;
        const char *says;
    } cases[] = {
        {"qwen3_moe",
         {.drop = LAYER "experts.5.up_proj.weight"},
         RT_NOT_FOUND,
         "experts.5.up_proj.weight is missing"},
        {"qwen3_moe", {.drop = LAYER "gate.weight"}, RT_NOT_FOUND, "mlp.gate.weight is missing"},
        {"qwen3_moe",
         {.shrink = LAYER "experts.7.down_proj.weight"},
         RT_MISMATCH,
         "[31, 24], but the configuration means [32, 24]"},
        {"qwen3_moe",
         {.shrink = LAYER "gate.weight"},
         RT_MISMATCH,
         "[7, 32], but the configuration means [8, 32]"},
        {"qwen3_moe", {.poison = LAYER "gate.weight"}, RT_NOT_FINITE, "mlp.gate.weight holds a NaN"},
        {"qwen3_moe",
         {.from = "\"num_local_experts\": 8", .to = "\"num_local_experts\": 9"},
         RT_MISMATCH,
         "[8, 32], but the configuration means [9, 32]"},
        {"qwen3_moe",
         {.from = "\"moe_intermediate_size\": 24", .to = "\"moe_intermediate_size\": 25"},
         RT_MISMATCH,
         "[25, 32]"},
        {"qwen3_moe",
         {.from = "\"num_experts_per_tok\": 2", .to = "\"num_experts_per_tok\": 9"},
         RT_CORRUPT,
         "num_experts_per_tok is 9"},
        {"qwen3_moe",
         {.from = "\"mlp_only_layers\": []", .to = "\"mlp_only_layers\": [1]"},
         RT_NOT_FOUND,
         "layers.1.mlp.gate_proj.weight is missing"},
        {"deepseek_v3",
         {.drop = LAYER "gate.e_score_correction_bias"},
         RT_NOT_FOUND,
         "e_score_correction_bias is missing"},
        {"deepseek_v3",
         {.poison = LAYER "gate.e_score_correction_bias"},
         RT_NOT_FINITE,
         "e_score_correction_bias"},
        {"deepseek_v3",
         {.drop = LAYER "shared_experts.up_proj.weight"},
         RT_NOT_FOUND,
         "shared_experts.up_proj.weight is missing"},
        {"deepseek_v3",
         {.drop = "model.layers.0.self_attn.kv_b_proj.weight"},
         RT_NOT_FOUND,
         "kv_b_proj.weight is missing"},
        {"deepseek_v3",
         {.shrink = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"},
         RT_MISMATCH,
         "kv_a_proj_with_mqa"},
        {"deepseek_v3", {.from = "\"n_group\": 4", .to = "\"n_group\": 3"}, RT_CORRUPT, "n_group (3)"},
        {"deepseek_v3",
         {.from = "\"q_lora_rank\": 24", .to = "\"q_lora_rank\": 23"},
         RT_MISMATCH,
         "q_a_proj"},
        {"deepseek_v3",
         {.from = "\"first_k_dense_replace\": 1", .to = "\"first_k_dense_replace\": 0"},
         RT_NOT_FOUND,
         "layers.0.mlp.gate.weight is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rt_error err = {0};
        const rt_status status = open_edited(state, cases[i].family, &cases[i].e, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: status %d, \"%s\" where \"%s\" is meant", i, (int)status, err.text,
                     cases[i].says);
    }
}

static void assert_same_tensors(const opened_model *a, const opened_model *b)
{
    rt_error err = {0};
    for (size_t l = 0; l < a->config.n_layers; l++)
        for (int which = 0; which < rt_role_span(&a->config); which++) {
            size_t rows, cols;
            rt_canonical x, y;
            rt_role_shape(&a->config, l, which, &rows, &cols);
            if (!rows)
                continue;
            assert_int_equal(rt_canonical_layer(&x, a->weights, &a->config, l, which, &err), RT_OK);
            if (rt_canonical_layer(&y, b->weights, &b->config, l, which, &err) != RT_OK)
                fail_msg("%s", err.text);
            assert_int_equal(x.dtype, y.dtype);
            assert_memory_equal(x.data, y.data, rows * rt_size_max(cols, 1) * sizeof(float));
            free(x.owned);
            free(y.owned);
        }
}

static void experts_may_be_stacked_in_safetensors(void **state)
{
    static const char *const families[] = {"qwen3_moe", "deepseek_v3"};
    for (size_t i = 0; i < 2; i++) {
        char in[512], out[512];
        const edit e = {.stack = true};
        (void)work_path(out, state, i ? "stack1" : "stack0");
        write_edited(golden_path(in, families[i]), out, &e);
        opened_model a = open_model(in), b = open_model(out);
        assert_non_null(rt_weights_find(b.weights, "model.layers.1.mlp.experts.gate_up_proj"));
        assert_null(rt_weights_find(b.weights, "model.layers.1.mlp.experts.0.gate_proj.weight"));
        assert_same_tensors(&a, &b);
        rt_weights_close(a.weights);
        rt_weights_close(b.weights);
    }
}

/* The two parts that newer files have in the place of kv_b. */
static void write_split(const opened_model *m, const char *out)
{
    const rt_latent_config *lat = &m->config.latent;
    const size_t heads = m->config.n_heads, rank = lat->kv_rank, head = (lat->nope + lat->value) * rank;
    const size_t k_shape[] = {heads, rank, lat->nope}, v_shape[] = {heads, lat->value, rank};
    rt_gguf_writer *writer;
    rt_error err = {0};
    char name[64];
    assert_int_equal(rt_gguf_writer_open(&writer, out, &err), RT_OK);
    for (size_t i = 0; i < rt_weights_meta_count(m->weights); i++) {
        const rt_meta *meta = rt_weights_meta_at(m->weights, i);
        if (meta->key_size != 30 || memcmp(meta->key, "deepseek2.attention.key_length", 30) != 0)
            rt_gguf_writer_put(writer, meta);
    }
    rt_gguf_writer_u32(writer, "deepseek2.attention.key_length", (uint32_t)(rank + lat->rope));
    rt_gguf_writer_u32(writer, "deepseek2.attention.key_length_mla", (uint32_t)(lat->nope + lat->rope));
    rt_gguf_writer_u32(writer, "deepseek2.attention.value_length_mla", (uint32_t)lat->value);
    for (int bytes = 0; bytes < 2; bytes++) {
        if (bytes)
            assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_OK);
        for (size_t i = 0; i < rt_weights_count(m->weights); i++) {
            const rt_weight *w = rt_weights_at(m->weights, i);
            if (!strstr(w->name, "attn_kv_b")) {
                const rt_status status =
                    bytes ? rt_gguf_writer_data(writer, w->data, w->bytes, &err)
                          : rt_gguf_writer_tensor(writer, w->name, w->dtype, w->n_dims, w->shape, &err);
                assert_int_equal(status, RT_OK);
                continue;
            }
            if (!bytes) {
                (void)snprintf(name, sizeof name, "%.6sattn_k_b.weight", w->name);
                assert_int_equal(rt_gguf_writer_tensor(writer, name, RT_F32, 3, k_shape, &err), RT_OK);
                (void)snprintf(name, sizeof name, "%.6sattn_v_b.weight", w->name);
                assert_int_equal(rt_gguf_writer_tensor(writer, name, RT_F32, 3, v_shape, &err), RT_OK);
                continue;
            }
            const float *data = w->data;
            float *k = calloc(heads * rank * lat->nope, sizeof *k),
                  *v = calloc(heads * rank * lat->value, sizeof *v);
            assert_true(k && v);
            for (size_t h = 0; h < heads; h++) {
                for (size_t c = 0; c < rank; c++)
                    for (size_t r = 0; r < lat->nope; r++)
                        k[(h * rank + c) * lat->nope + r] = data[h * head + r * rank + c];
                memcpy(v + h * lat->value * rank, data + h * head + lat->nope * rank,
                       lat->value * rank * sizeof *v);
            }
            assert_int_equal(rt_gguf_writer_data(writer, k, heads * rank * lat->nope * sizeof *k, &err),
                             RT_OK);
            assert_int_equal(rt_gguf_writer_data(writer, v, heads * rank * lat->value * sizeof *v, &err),
                             RT_OK);
            free(k);
            free(v);
        }
    }
    assert_int_equal(rt_gguf_writer_commit(writer, &err), RT_OK);
}

static void gguf_may_hold_keys_and_values_of_the_latent_apart(void **state)
{
    char in[512], whole[512], split[512];
    rt_error err = {0};
    const rt_export_options options = {.keep = true};
    (void)work_path(whole, state, "whole.gguf");
    (void)work_path(split, state, "split.gguf");
    if (rt_export_path(golden_path(in, "deepseek_v3"), whole, &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    opened_model a = open_model(whole);
    write_split(&a, split);
    opened_model b = open_model(split);
    assert_null(rt_weights_find(b.weights, "blk.0.attn_kv_b.weight"));
    assert_true(b.config.latent.nope == 8 && b.config.latent.value == 8 && b.config.head_dim == 12);
    assert_same_tensors(&a, &b);
    rt_weights_close(a.weights);
    rt_weights_close(b.weights);
}

/* ---- quantised files ---- */

static rt_status tensor_of_net(void *context, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const net *n = context;
    const rt_param *p = layer == RT_NO_LAYER ? rt_layout_global(&n->layout, (rt_global)which)
                                             : rt_layout_role(&n->layout, layer, which);
    if (!p)
        return rt_error_set(err, RT_NOT_FOUND, "no such tensor");
    *out = (rt_canonical){.dtype = RT_F32, .rows = p->rows, .cols = p->cols, .data = n->values + p->offset};
    return RT_OK;
}

/* The states of 9 tokens: alone, or in front of 31 others, which goes the way of large batches. */
static void final_states(const char *path, rt_precision precision, bool large, float *out)
{
    rt_error err = {0};
    rt_weights *weights;
    rt_model *model;
    rt_pass *pass;
    int32_t ids[40];
    if (rt_weights_open(&weights, path, &err) != RT_OK ||
        rt_model_open(&model, weights, precision, pool, &err) != RT_OK ||
        rt_pass_open(&pass, model, 40, false, &err) != RT_OK)
        fail_msg("%s", err.text);
    if (precision == RT_PRECISION_INT8)
        assert_true(model->layers[1].experts[0].n_packed == 2 && model->layers[1].experts[1].n_packed == 1);
    for (int32_t i = 0; i < 40; i++)
        ids[i] = (7 * i + 3) % 64;
    const rt_segment segments[] = {{.begin = 0, .count = 9}, {.begin = 9, .count = 31}};
    const rt_batch batch = {ids, large ? 40 : 9, segments, large ? 2 : 1};
    rt_forward(model, pass, &batch, NULL, NULL);
    memcpy(out, rt_pass_hidden(pass), 9 * model->config.n_embd * sizeof *out);
    rt_pass_close(pass);
    rt_model_close(model);
    rt_weights_close(weights);
}

/* All experts are used, so that no choice can turn; what is left is the rounding of activations to 8 bits. */
static void quantised_experts_are_multiplied_in_int8(void **state)
{
    static const char *const configs[] = {
        "{\"model_type\": \"qwen3_moe\", \"vocab_size\": 64, \"hidden_size\": 64, \"intermediate_size\": 64,"
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 32,"
        "\"max_position_embeddings\": 64, \"moe_intermediate_size\": 32, \"num_experts\": 4,"
        "\"num_experts_per_tok\": 4}",
        "{\"model_type\": \"deepseek_v3\", \"vocab_size\": 64, \"hidden_size\": 64, \"intermediate_size\": "
        "64,"
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"max_position_embeddings\": 64,"
        "\"kv_lora_rank\": 32, \"q_lora_rank\": 32, \"qk_nope_head_dim\": 24, \"qk_rope_head_dim\": 8,"
        "\"v_head_dim\": 16, \"first_k_dense_replace\": 1, \"moe_intermediate_size\": 32,"
        "\"n_routed_experts\": 4, \"num_experts_per_tok\": 4, \"n_group\": 1, \"topk_group\": 1}"};
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        rt_error err = {0};
        net n;
        net_open(&n, configs[i]);
        const rt_export_source source = {.config = &n.config, .tensor = tensor_of_net, .context = &n};
        const rt_export_options options = {.type = RT_Q8_0};
        if (rt_export_gguf(&source, work_path(path, state, "quantised.gguf"), &options, &err) != RT_OK)
            fail_msg("%s", err.text);
        const size_t count = 9 * n.config.n_embd;
        float *want = calloc(count, sizeof *want), *got = calloc(count, sizeof *got);
        assert_true(want && got);
        final_states(path, RT_PRECISION_F32, true, want);
        for (int large = 0; large < 2; large++) {
            final_states(path, RT_PRECISION_INT8, large, got);
            double off = 0, all = 0;
            for (size_t k = 0; k < count; k++) {
                off += pow((double)got[k] - (double)want[k], 2);
                all += pow((double)want[k], 2);
            }
            if (!(sqrt(off / all) < 0.03) || off == 0)
                fail_msg("configuration %zu, large %d: off by %g", i, large, sqrt(off / all));
        }
        free(want);
        free(got);
        net_close(&n);
    }
}

/* Logits after the last of 50 tokens, in pieces that end at cuts[]; another text may run beside. */
static void served(const rt_model *model, const int32_t *ids, const size_t *cuts, bool beside, float *logits)
{
    rt_error err = {0};
    rt_session *session;
    assert_int_equal(rt_session_open(&session, model, 2, 64, &err), RT_OK);
    for (size_t at = 0, i = 0; at < 50; at = cuts[i++]) {
        const rt_piece pieces[] = {{0, ids + at, cuts[i] - at}, {1, ids + 3, 5}};
        assert_int_equal(rt_session_append(session, pieces, beside ? 2 : 1, true, &err), RT_OK);
        const size_t last = cuts[i] - at - 1;
        rt_session_logits(session, &last, 1, logits);
    }
    rt_session_close(session);
}

static void the_bits_do_not_depend_on_how_a_text_was_cut_when_served(void **state)
{
    (void)state;
    static const char *const families[] = {"qwen3_moe", "deepseek_v3"};
    static const size_t cuts[][4] = {{50}, {7, 8, 50}, {33, 49, 50}};
    for (size_t i = 0; i < 4; i++) {
        char path[512];
        rt_error err = {0};
        rt_weights *weights;
        rt_model *model;
        int32_t ids[50];
        assert_int_equal(rt_weights_open(&weights, golden_path(path, families[i / 2]), &err), RT_OK);
        assert_int_equal(
            rt_model_open(&model, weights, i % 2 ? RT_PRECISION_BF16 : RT_PRECISION_F32, pool, &err), RT_OK);
        rt_weights_close(weights);
        rt_rng rng = rt_rng_make(4, i);
        for (size_t k = 0; k < 50; k++)
            ids[k] = (int32_t)rt_rng_below(&rng, model->config.n_vocab);
        const size_t bytes = model->config.n_vocab * sizeof(float);
        float *want = malloc(bytes), *got = malloc(bytes);
        assert_true(want && got);
        served(model, ids, cuts[0], false, want);
        for (size_t k = 0; k < 6; k++) {
            served(model, ids, cuts[k % 3], k >= 3, got);
            assert_memory_equal(want, got, bytes);
        }
        free(want);
        free(got);
        rt_model_close(model);
    }
}

static int open_all(void **state)
{
    rt_error err = {0};
    return rt_pool_open(&pool, 2, &err) != RT_OK || make_work(state);
}

static int close_all(void **state)
{
    rt_pool_close(pool);
    return drop_work(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_and_bias_decide_and_scores_weigh),
        cmocka_unit_test(of_equal_experts_the_first_are_taken),
        cmocka_unit_test(logits_that_are_not_finite_give_ids_in_range),
        cmocka_unit_test(the_routers_gradient_agrees_with_differences),
        cmocka_unit_test(gradients_agree_with_differences_for_shapes_without_vectors),
        cmocka_unit_test(the_bits_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(files_that_are_wrong_are_refused_by_name),
        cmocka_unit_test(experts_may_be_stacked_in_safetensors),
        cmocka_unit_test(gguf_may_hold_keys_and_values_of_the_latent_apart),
        cmocka_unit_test(quantised_experts_are_multiplied_in_int8),
        cmocka_unit_test(the_bits_do_not_depend_on_how_a_text_was_cut_when_served),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
