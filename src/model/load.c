/* model/load.c - makes a model that can run: from a weight file (frozen) or over trainable parameters.
 *
 * Projections that read the same input become one matrix.  In INT8 precision a group is packed when
 * every part of it is stored in blocks that can be packed; otherwise it is held in bf16. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/load_parts.h"
#include "model/stream.h"
#include "tensor/quant.h"

static rt_status check_supported(const rt_model_config *config, rt_error *err)
{
    if (config->attention_softcap > 0)
        return rt_error_set(err, RT_UNSUPPORTED, "attention logit soft-capping (family %s) is not supported",
                            config->family);
    return RT_OK;
}

/* One table for the experts of all layers. */
static rt_proj *take_experts(rt_layer *layers, const rt_model_config *config)
{
    size_t sparse = 0;
    for (size_t l = 0; l < config->n_layers; l++)
        sparse += config->experts.sparse[l];
    rt_proj *out = calloc(sparse * config->experts.count * 2 + 1, sizeof *out), *at = out;
    for (size_t l = 0; l < config->n_layers && out; l++)
        if (config->experts.sparse[l]) {
            layers[l].experts = at;
            at += 2 * config->experts.count;
        }
    return out;
}

rt_status rt_model_new(rt_model **out, const rt_model_config *config, rt_precision precision, rt_pool *pool,
                       rt_error *err)
{
    *out = NULL;
    if (check_supported(config, err) != RT_OK)
        return err->status;
    rt_model *model = calloc(1, sizeof *model);
    rt_layer *layers = calloc(config->n_layers, sizeof *layers);
    rt_proj *experts = layers ? take_experts(layers, config) : NULL;
    if (!model || !layers || !experts) {
        free(model);
        free(layers);
        free(experts);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a model of %zu layers", config->n_layers);
    }
    *model = (rt_model){.config = *config,
                        .precision = precision,
                        .act = precision == RT_PRECISION_F32 ? RT_F32 : RT_BF16,
                        .layers = layers,
                        .experts = experts,
                        .pool = pool,
                        .ops = rt_ops_get()};
    const rt_rope_config *configs[] = {&config->rope, &config->rope_local};
    rt_rope **ropes[] = {&model->rope, &model->rope_local};
    for (size_t i = 0; i < 2; i++) {
        if (config->learned_positions || (i == 1 && !config->has_rope_local))
            continue;
        *ropes[i] = calloc(1, sizeof **ropes[i]);
        if (!*ropes[i] || rt_rope_init(*ropes[i], configs[i],
                                       config->latent.kv_rank ? config->latent.rope : config->head_dim,
                                       config->n_context, err) != RT_OK) {
            rt_model_close(model);
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a context of %zu tokens",
                                config->n_context);
        }
    }
    *out = model;
    return RT_OK;
}

void rt_model_close(rt_model *model)
{
    if (!model)
        return;
    rt_stream_close(model);
    for (size_t i = 0; i < model->n_owned; i++)
        rt_qmat_free(model->owned[i]);
    rt_rope *ropes[] = {model->rope, model->rope_local};
    for (size_t i = 0; i < 2; i++) {
        if (ropes[i])
            rt_rope_deinit(ropes[i]);
        free(ropes[i]);
    }
    free(model->owned);
    free(model->head_ids);
    free(model->layers);
    free(model->experts);
    rt_arena_deinit(&model->arena);
    free(model);
}

size_t rt_model_weight_bytes(const rt_model *model)
{
    size_t bytes = model->arena.used;
    for (size_t i = 0; i < model->n_owned; i++)
        bytes += rt_qmat_bytes(model->owned[i]);
    return bytes + rt_stream_bytes(model);
}

int rt_group_count(const rt_model_config *config, size_t layer)
{
    return RT_GROUP_EXPERTS + (config->experts.sparse[layer] ? 2 * (int)config->experts.count : 0);
}

static rt_group_parts expert_parts(int index)
{
    const size_t expert = (size_t)index / 2;
    if (index % 2)
        return (rt_group_parts){.weights = {rt_expert_role(RT_ROLE_EXPERT_DOWN, expert)}, .count = 1};
    return (rt_group_parts){
        .weights = {rt_expert_role(RT_ROLE_EXPERT_GATE, expert), rt_expert_role(RT_ROLE_EXPERT_UP, expert)},
        .count = 2};
}

static rt_group_parts mlp_parts(const rt_model_config *config, size_t layer, int group)
{
    const bool shared = config->experts.sparse[layer], up = group == RT_GROUP_GATE_UP;
    if (!rt_layer_ff(config, layer))
        return (rt_group_parts){0};
    if (shared && up)
        return (rt_group_parts){.weights = {RT_ROLE_SHARED_GATE, RT_ROLE_SHARED_UP}, .count = 2};
    if (shared)
        return (rt_group_parts){.weights = {RT_ROLE_SHARED_DOWN}, .count = 1};
    if (up && config->gated_mlp)
        return (rt_group_parts){{RT_ROLE_GATE, RT_ROLE_UP}, {RT_ROLE_GATE_BIAS, RT_ROLE_UP_BIAS}, 2};
    return up ? (rt_group_parts){{RT_ROLE_UP}, {RT_ROLE_UP_BIAS}, 1}
              : (rt_group_parts){{RT_ROLE_DOWN}, {RT_ROLE_DOWN_BIAS}, 1};
}

rt_group_parts rt_group_parts_of(const rt_model_config *config, size_t layer, int group)
{
    const bool latent = config->latent.kv_rank > 0, low = latent && config->latent.q_rank > 0;
    switch (group) {
    case RT_GROUP_QKV:
        if (low)
            return (rt_group_parts){{RT_ROLE_Q_A, RT_ROLE_KV_A}, {RT_ROLE_Q_A_BIAS, RT_ROLE_KV_A_BIAS}, 2};
        if (latent)
            return (rt_group_parts){.weights = {RT_ROLE_Q, RT_ROLE_KV_A}, .count = 2};
        return (rt_group_parts){
            {RT_ROLE_Q, RT_ROLE_K, RT_ROLE_V}, {RT_ROLE_Q_BIAS, RT_ROLE_K_BIAS, RT_ROLE_V_BIAS}, 3};
    case RT_GROUP_Q_B:
        return (rt_group_parts){.weights = {RT_ROLE_Q_B}, .count = low};
    case RT_GROUP_KV_B:
        return (rt_group_parts){.weights = {RT_ROLE_KV_B}, .count = latent};
    case RT_GROUP_O:
        return (rt_group_parts){{RT_ROLE_O}, {RT_ROLE_O_BIAS}, 1};
    case RT_GROUP_GATE_UP:
    case RT_GROUP_DOWN:
        return mlp_parts(config, layer, group);
    default:
        return expert_parts(group - RT_GROUP_EXPERTS);
    }
}

rt_proj *rt_group_of(rt_layer *layer, int group)
{
    rt_proj *const projections[RT_GROUP_EXPERTS] = {&layer->qkv, &layer->q_b,     &layer->kv_b,
                                                    &layer->o,   &layer->gate_up, &layer->down};
    return group < RT_GROUP_EXPERTS ? projections[group] : &layer->experts[group - RT_GROUP_EXPERTS];
}

/* The vectors of a layer, and the router, which is used in float32. */
typedef struct layer_vector {
    const float **to;
    rt_role role;
} layer_vector;
enum { LAYER_VECTORS = 12 };

static void vectors_of(layer_vector out[LAYER_VECTORS], rt_layer *layer)
{
    const layer_vector list[LAYER_VECTORS] = {
        {&layer->norm1, RT_ROLE_NORM1},           {&layer->norm1_bias, RT_ROLE_NORM1_BIAS},
        {&layer->q_norm, RT_ROLE_Q_NORM},         {&layer->k_norm, RT_ROLE_K_NORM},
        {&layer->norm1_post, RT_ROLE_NORM1_POST}, {&layer->norm2, RT_ROLE_NORM2},
        {&layer->norm2_bias, RT_ROLE_NORM2_BIAS}, {&layer->norm2_post, RT_ROLE_NORM2_POST},
        {&layer->q_a_norm, RT_ROLE_Q_A_NORM},     {&layer->kv_a_norm, RT_ROLE_KV_A_NORM},
        {&layer->router, RT_ROLE_ROUTER},         {&layer->router_bias, RT_ROLE_ROUTER_BIAS},
    };
    memcpy(out, list, sizeof list);
}

/* ---- a view of parameters ---- */

typedef struct param_view {
    const rt_layout *layout;
    const float *values;
    const rt_bf16 *half; /* NULL in F32 */
} param_view;

static const float *view_vector(const param_view *view, const rt_param *p)
{
    return p ? view->values + p->offset : NULL;
}

static const void *view_matrix(const param_view *view, const rt_param *p)
{
    return view->half ? (const void *)(view->half + p->offset) : (const void *)(view->values + p->offset);
}

static void view_layer(rt_layer *layer, size_t l, const rt_model_config *config, const param_view *view)
{
    layer_vector vectors[LAYER_VECTORS];
    vectors_of(vectors, layer);
    for (size_t i = 0; i < LAYER_VECTORS; i++)
        *vectors[i].to = view_vector(view, rt_layout_role(view->layout, l, (int)vectors[i].role));
    for (int g = 0; g < rt_group_count(config, l); g++) {
        const rt_group_parts parts = rt_group_parts_of(config, l, g);
        rt_proj *proj = rt_group_of(layer, g);
        if (!parts.count)
            continue;
        for (size_t i = 0; i < parts.count; i++)
            proj->rows += rt_layout_role(view->layout, l, parts.weights[i])->rows;
        const rt_param *first = rt_layout_role(view->layout, l, parts.weights[0]);
        proj->cols = first->cols;
        proj->w = view_matrix(view, first);
        if (parts.biases[0] != RT_ROLE_NORM1) /* the zero of a group without biases */
            proj->bias = view_vector(view, rt_layout_role(view->layout, l, (int)parts.biases[0]));
    }
}

rt_status rt_model_view(rt_model **out, const rt_model_config *config, const rt_layout *layout,
                        const float *values, const rt_bf16 *half, rt_precision precision, rt_pool *pool,
                        rt_error *err)
{
    assert(precision != RT_PRECISION_INT8 && (precision == RT_PRECISION_F32 || half));
    rt_model *model;
    if (rt_model_new(&model, config, precision, pool, err) != RT_OK)
        return err->status;
    const param_view view = {layout, values, precision == RT_PRECISION_F32 ? NULL : half};
    for (size_t l = 0; l < config->n_layers; l++)
        view_layer(&model->layers[l], l, config, &view);
    const rt_param *embed = rt_layout_global(layout, RT_GLOBAL_EMBED),
                   *head = rt_layout_global(layout, RT_GLOBAL_HEAD);
    model->embed = view_matrix(&view, embed);
    model->positions = view_vector(&view, rt_layout_global(layout, RT_GLOBAL_POSITIONS));
    model->norm = view_vector(&view, rt_layout_global(layout, RT_GLOBAL_NORM));
    model->norm_bias = view_vector(&view, rt_layout_global(layout, RT_GLOBAL_NORM_BIAS));
    model->head =
        (rt_proj){.rows = embed->rows, .cols = embed->cols, .w = view_matrix(&view, head ? head : embed)};
    *out = model;
    return RT_OK;
}

/* ---- a frozen model ---- */

static rt_status fetch(rt_canonical *out, const rt_loader *f, const rt_param *p, rt_error *err)
{
    const rt_status status =
        p->layer == RT_NO_LAYER
            ? rt_canonical_global(out, f->weights, &f->model->config, (rt_global)p->which, err)
            : rt_canonical_layer(out, f->weights, &f->model->config, p->layer, p->which, err);
    if (status != RT_OK)
        return status;
    if (out->rows != p->rows || out->cols != p->cols) {
        char name[128];
        rt_param_name(name, &f->model->config, p);
        free(out->owned);
        return rt_error_set(err, RT_MISMATCH, "%s: tensor %s has shape [%zu, %zu] where [%zu, %zu] is wanted",
                            rt_weights_path(f->weights), name, out->rows, out->cols, p->rows, p->cols);
    }
    return RT_OK;
}

typedef struct widen_job {
    const rt_canonical *tensor;
    void *out;
    rt_dtype to;
    size_t rows_a_task, row_bytes;
} widen_job;

static void widen_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const widen_job *job = context;
    const size_t cols = job->tensor->cols, begin = index * job->rows_a_task;
    const size_t rows = rt_size_min(job->rows_a_task, job->tensor->rows - begin);
    const unsigned char *from = (const unsigned char *)job->tensor->data + begin * job->row_bytes;
    if (job->to == RT_F32)
        rt_dequantise((float *)job->out + begin * cols, from, job->tensor->dtype, rows * cols);
    else
        rt_dequantise_bf16((rt_bf16 *)job->out + begin * cols, from, job->tensor->dtype, rows * cols);
}

static void widen_matrix(void *out, rt_dtype to, const rt_canonical *tensor, rt_pool *pool)
{
    widen_job job = {.tensor = tensor, .out = out, .to = to, .rows_a_task = 256};
    (void)rt_dtype_bytes(&job.row_bytes, tensor->dtype, tensor->cols);
    rt_pool_run(pool, rt_size_ceil_div(tensor->rows, job.rows_a_task), widen_task, &job);
}

static rt_status load_vector(const float **out, const rt_loader *f, const rt_param *p, rt_error *err)
{
    if (!p)
        return RT_OK;
    float *to = rt_arena_push_raw(&f->model->arena, p->count, sizeof(float));
    assert(to);
    *out = to;
    rt_param at_zero = *p;
    at_zero.offset = 0;
    const rt_layout only = {.list = &at_zero, .count = 1, .total = p->count};
    return rt_params_load(to, &only, &f->model->config, f->weights, &f->model->config, NULL, NULL, err);
}

rt_status rt_model_own(rt_model *model, rt_qmat *mat, rt_error *err)
{
    rt_qmat **grown = realloc(model->owned, (model->n_owned + 1) * sizeof *grown);
    if (!grown) {
        rt_qmat_free(mat);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the model's table");
    }
    model->owned = grown;
    model->owned[model->n_owned++] = mat;
    return RT_OK;
}

/* Packs one part: into memory of its own, or into the loader's arena, where the next layer will lie. */
static rt_status pack_part(rt_proj *proj, const rt_loader *f, const rt_canonical *t, rt_error *err)
{
    rt_qmat *mat;
    void *room = NULL;
    if (f->reused) {
        room = rt_arena_push_raw(f->arena, rt_qmat_packed_bytes(t->dtype, t->rows, t->cols), 1);
        assert(room);
    }
    if (rt_qmat_pack_into(&mat, room, t->data, t->dtype, t->rows, t->cols, f->model->pool, err) != RT_OK)
        return err->status;
    if (!f->reused && rt_model_own(f->model, mat, err) != RT_OK)
        return err->status;
    proj->packed[proj->n_packed++] = mat;
    return RT_OK;
}

/* Loads the parts of a group, which follow each other, as packed blocks or as one widened matrix. */
rt_status rt_load_group(rt_proj *proj, const rt_loader *f, const rt_param *const *parts, size_t count,
                        rt_error *err)
{
    rt_model *model = f->model;
    rt_canonical tensors[3] = {{0}};
    rt_status status = RT_OK;
    size_t n = 0;
    bool pack = model->precision == RT_PRECISION_INT8;
    for (; n < count && status == RT_OK; n++) {
        status = fetch(&tensors[n], f, parts[n], err);
        if (status != RT_OK)
            break;
        proj->rows += parts[n]->rows;
        proj->cols = parts[n]->cols;
        pack = pack && rt_qmat_can_pack(tensors[n].dtype, parts[n]->rows, parts[n]->cols);
    }
    if (status == RT_OK && pack) {
        for (size_t i = 0; i < count && status == RT_OK; i++)
            status = pack_part(proj, f, &tensors[i], err);
    } else if (status == RT_OK) {
        const size_t size = rt_dtype_get(model->act)->block_bytes;
        unsigned char *w = rt_arena_push_raw(f->arena, proj->rows * proj->cols, size);
        assert(w);
        proj->w = w;
        for (size_t i = 0; i < count; i++) {
            widen_matrix(w, model->act, &tensors[i], model->pool);
            w += parts[i]->count * size;
        }
    }
    for (size_t i = 0; i < n; i++)
        free(tensors[i].owned);
    return status;
}

/* Biases of a group lie side by side, as its rows do. */
static rt_status load_biases(const float **out, const rt_loader *f, size_t l, const rt_group_parts *parts,
                             rt_error *err)
{
    const rt_param *first = rt_layout_role(f->layout, l, parts->weights[0]);
    float *bias = NULL;
    size_t rows = 0;
    for (size_t i = 0; i < parts->count; i++)
        rows += rt_layout_role(f->layout, l, parts->weights[i])->rows;
    for (size_t i = 0; i < parts->count; i++) {
        const rt_param *b = rt_layout_role(f->layout, l, (int)parts->biases[i]);
        if (!b || parts->biases[i] == RT_ROLE_NORM1) /* the zero of a group without biases */
            continue;
        if (!bias)
            bias = rt_arena_push_raw(&f->model->arena, rows, sizeof(float));
        assert(bias);
        const float *values;
        if (load_vector(&values, f, b, err) != RT_OK)
            return err->status;
        const size_t before = rt_layout_role(f->layout, l, parts->weights[i])->offset - first->offset;
        memcpy(bias + before / first->cols, values, b->count * sizeof *bias);
    }
    *out = bias;
    return RT_OK;
}

rt_status rt_load_layer_vectors(const rt_loader *f, size_t l, rt_error *err)
{
    rt_layer *layer = &f->model->layers[l];
    layer_vector vectors[LAYER_VECTORS];
    vectors_of(vectors, layer);
    for (size_t i = 0; i < LAYER_VECTORS; i++)
        if (load_vector(vectors[i].to, f, rt_layout_role(f->layout, l, (int)vectors[i].role), err) != RT_OK)
            return err->status;
    for (int g = 0; g < RT_GROUP_EXPERTS; g++) {
        const rt_group_parts parts = rt_group_parts_of(&f->model->config, l, g);
        if (parts.count && load_biases(&rt_group_of(layer, g)->bias, f, l, &parts, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_load_layer_matrices(const rt_loader *f, size_t l, rt_error *err)
{
    for (int g = 0; g < rt_group_count(&f->model->config, l); g++) {
        const rt_group_parts parts = rt_group_parts_of(&f->model->config, l, g);
        rt_proj *proj = rt_group_of(&f->model->layers[l], g);
        const rt_param *params[3];
        proj->rows = proj->n_packed = 0;
        for (size_t i = 0; i < parts.count; i++)
            params[i] = rt_layout_role(f->layout, l, parts.weights[i]);
        if (parts.count && rt_load_group(proj, f, params, parts.count, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_load_outer_vectors(const rt_loader *f, rt_error *err)
{
    rt_model *model = f->model;
    if (load_vector(&model->positions, f, rt_layout_global(f->layout, RT_GLOBAL_POSITIONS), err) != RT_OK ||
        load_vector(&model->norm, f, rt_layout_global(f->layout, RT_GLOBAL_NORM), err) != RT_OK ||
        load_vector(&model->norm_bias, f, rt_layout_global(f->layout, RT_GLOBAL_NORM_BIAS), err) != RT_OK)
        return err->status;
    return RT_OK;
}

static rt_status load_outer(const rt_loader *f, rt_error *err)
{
    rt_model *model = f->model;
    const rt_param *embed = rt_layout_global(f->layout, RT_GLOBAL_EMBED),
                   *head = rt_layout_global(f->layout, RT_GLOBAL_HEAD);
    rt_proj table = {0};
    if (rt_load_group(&table, f, &embed, 1, err) != RT_OK || rt_load_outer_vectors(f, err) != RT_OK)
        return err->status;
    model->embed = table.w;
    model->embed_packed = table.n_packed ? table.packed[0] : NULL;
    if (!head) {
        model->head = table;
        return RT_OK;
    }
    return rt_load_group(&model->head, f, &head, 1, err);
}

rt_status rt_model_open(rt_model **out, const rt_weights *weights, rt_precision precision, rt_pool *pool,
                        rt_error *err)
{
    *out = NULL;
    rt_model_config config;
    rt_layout layout;
    rt_model *model = NULL;
    if (rt_model_config_read(&config, weights, err) != RT_OK ||
        rt_layout_build(&layout, &config, err) != RT_OK)
        return err->status;
    rt_status status = rt_model_new(&model, &config, precision, pool, err);
    /* an upper bound: every value widened, and vectors twice; pages are touched only when used */
    size_t bytes;
    if (status == RT_OK && !rt_size_mul(layout.total, 2 * sizeof(float), &bytes))
        status = rt_error_set(err, RT_NO_MEMORY, "%s: the model is too large", rt_weights_path(weights));
    if (status == RT_OK)
        status = rt_arena_init(&model->arena, bytes + layout.count * 64 + 4096, err);
    const rt_loader f = {model, weights, &layout, &model->arena, false};
    if (status == RT_OK)
        status = load_outer(&f, err);
    for (size_t l = 0; l < config.n_layers && status == RT_OK; l++) {
        status = rt_load_layer_vectors(&f, l, err);
        if (status == RT_OK)
            status = rt_load_layer_matrices(&f, l, err);
    }
    rt_layout_free(&layout);
    if (status != RT_OK) {
        rt_model_close(model);
        return status;
    }
    *out = model;
    return RT_OK;
}
