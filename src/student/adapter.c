/* student/adapter.c - see adapter.h: which matrices have adapters, and the merged matrices. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/size.h"
#include "student/adapter_parts.h"
#include "tensor/quant.h"

enum { MERGE_ROWS = 64, GRADIENT_ROWS = 256, DORA_ROWS = 64 };

const char *const rt_adapter_targets[RT_ADAPTER_TARGETS] = {"q", "k", "v", "o", "gate", "up", "down"};
static const rt_role target_roles[RT_ADAPTER_TARGETS] = {RT_ROLE_Q,    RT_ROLE_K,  RT_ROLE_V,   RT_ROLE_O,
                                                         RT_ROLE_GATE, RT_ROLE_UP, RT_ROLE_DOWN};

/* ---- opening ---- */

static bool is_target(const rt_adapters *a, const rt_param *p)
{
    if (p->layer == RT_NO_LAYER || !p->cols)
        return false;
    for (unsigned i = 0; i < RT_ADAPTER_TARGETS; i++)
        if (p->which == (int)target_roles[i])
            return (a->options.targets >> i & 1U) != 0;
    return false;
}

static rt_status check(const rt_adapter_options *o, const rt_model_config *config, rt_error *err)
{
    if (config->experts.count || config->latent.kv_rank || config->learned_positions)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "adapters: %s has experts, latents or fused projections; adapters are for llama, "
                            "qwen2, qwen3, mistral and gemma3",
                            config->family);
    if (o->rank == 0 || o->rank > RT_ADAPTER_RANK_MAX || !(o->alpha > 0) || !isfinite(o->alpha))
        return rt_error_set(err, RT_INVALID, "adapters: rank 1 to %d and alpha above 0 are possible",
                            (int)RT_ADAPTER_RANK_MAX);
    return RT_OK;
}

static rt_status list_adapters(rt_adapters *a, rt_error *err)
{
    const size_t rank = a->options.rank;
    size_t rows = 0;
    a->frozen = calloc(a->layout.count, sizeof *a->frozen);
    a->index = calloc(a->layout.count, sizeof *a->index);
    a->list = calloc(a->layout.count, sizeof *a->list);
    if (!a->frozen || !a->index || !a->list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a table of adapters");
    for (size_t i = 0; i < a->layout.count; i++) {
        const rt_param *p = &a->layout.list[i];
        a->index[i] = SIZE_MAX;
        a->rows_max = rt_size_max(a->rows_max, p->cols ? p->rows : 0);
        a->cols_max = rt_size_max(a->cols_max, p->cols);
        if (!is_target(a, p))
            continue;
        if (rank > rt_size_min(p->rows, p->cols))
            return rt_error_set(err, RT_INVALID, "adapters.rank %zu is more than a matrix of %zu x %zu has",
                                rank, p->rows, p->cols);
        rt_adapter *adapter = &a->list[a->count];
        a->index[i] = a->count++;
        *adapter = (rt_adapter){.param = p, .a = a->total, .b = a->total + rank * p->cols};
        adapter->m = adapter->b + rank * p->rows;
        a->total = adapter->m + (a->options.kind == RT_ADAPTER_DORA ? p->rows : 0);
        rows += p->rows;
    }
    if (!a->count)
        return rt_error_set(err, RT_INVALID, "adapters.targets names no matrix that %s has",
                            a->config.family);
    if (a->options.kind != RT_ADAPTER_DORA)
        return RT_OK;
    a->dora = calloc(2 * rows, sizeof *a->dora);
    if (!a->dora)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows' norms", rows);
    float *at = a->dora;
    for (size_t i = 0; i < a->count; i++) {
        a->list[i].norms = at;
        a->list[i].factors = at + a->list[i].param->rows;
        at += 2 * a->list[i].param->rows;
    }
    return RT_OK;
}

static rt_status take_frozen(rt_adapters *a, rt_error *err)
{
    for (size_t i = 0; i < a->layout.count; i++) {
        const rt_param *p = &a->layout.list[i];
        if (!p->cols)
            continue;
        rt_canonical *c = &a->frozen[i];
        const rt_status status =
            p->layer == RT_NO_LAYER
                ? rt_canonical_global(c, a->weights, &a->file_config, (rt_global)p->which, err)
                : rt_canonical_layer(c, a->weights, &a->file_config, a->layer_map[p->layer], p->which, err);
        if (status != RT_OK)
            return status;
        char name[128];
        rt_param_name(name, &a->config, p);
        if (c->rows != p->rows || c->cols != p->cols)
            return rt_error_set(err, RT_MISMATCH,
                                "%s: tensor %s is [%zu, %zu] in the file, [%zu, %zu] wanted",
                                rt_weights_path(a->weights), name, c->rows, c->cols, p->rows, p->cols);
    }
    return RT_OK;
}

static size_t scratch_of(const rt_adapters *a)
{
    return rt_size_round_up(rt_size_max(GRADIENT_ROWS * a->options.rank, (DORA_ROWS + 1) * a->cols_max), 16);
}

static rt_status take_room(rt_adapters *a, rt_error *err)
{
    const size_t rank = a->options.rank, act = rt_adapters_act_size(a);
    size_t bytes;
    a->scratch_floats = scratch_of(a);
    if (!rt_size_mul(a->options.tokens_max, rank * act, &bytes))
        return rt_error_set(err, RT_NO_MEMORY, "the adapters are too large");
    a->acts = calloc(a->total, act);
    a->u = calloc(1, bytes);
    a->w = calloc(1, bytes);
    a->scratch = calloc(rt_pool_threads(a->pool), a->scratch_floats * sizeof *a->scratch);
    return a->acts && a->u && a->w && a->scratch
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu values of adapters", a->total);
}

rt_status rt_adapters_open(rt_adapters **out, const rt_adapter_options *options,
                           const rt_model_config *config, const rt_weights *weights,
                           const rt_model_config *file_config, const size_t *layer_map, rt_pool *pool,
                           rt_error *err)
{
    *out = NULL;
    if (check(options, config, err) != RT_OK)
        return err->status;
    rt_adapters *a = calloc(1, sizeof *a);
    if (!a)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for adapters");
    a->options = *options;
    a->config = *config;
    a->file_config = *file_config;
    a->weights = weights;
    a->pool = pool;
    for (size_t l = 0; l < config->n_layers; l++)
        a->layer_map[l] = layer_map ? layer_map[l] : l;
    if (rt_layout_build(&a->layout, config, err) != RT_OK || list_adapters(a, err) != RT_OK ||
        take_frozen(a, err) != RT_OK || take_room(a, err) != RT_OK) {
        rt_adapters_close(a);
        return err->status;
    }
    *out = a;
    return RT_OK;
}

void rt_adapters_close(rt_adapters *a)
{
    if (!a)
        return;
    for (size_t i = 0; a->frozen && i < a->layout.count; i++)
        free(a->frozen[i].owned);
    rt_layout_free(&a->layout);
    free(a->frozen);
    free(a->index);
    free(a->list);
    free(a->dora);
    free(a->acts);
    free(a->u);
    free(a->w);
    free(a->scratch);
    free(a);
}

const rt_adapter_options *rt_adapters_options(const rt_adapters *a) { return &a->options; }
size_t rt_adapters_total(const rt_adapters *a) { return a->total; }
size_t rt_adapters_count(const rt_adapters *a) { return a->count; }
const rt_adapter *rt_adapters_at(const rt_adapters *a, size_t index) { return &a->list[index]; }

size_t rt_adapters_bytes(const rt_adapters *a)
{
    const size_t act = rt_adapters_act_size(a);
    size_t elements = 0, bytes = 0;
    for (size_t i = 0; i < a->layout.count; i++) {
        const rt_param *p = &a->layout.list[i];
        if (!a->options.from_file || p->layer == RT_NO_LAYER || p->layer == 0)
            elements += p->count;
        if (a->frozen[i].owned && rt_dtype_bytes(&bytes, a->frozen[i].dtype, p->count))
            elements += bytes / act;
    }
    return (elements + a->total + 2 * a->options.tokens_max * a->options.rank) * act +
           rt_pool_threads(a->pool) * a->scratch_floats * sizeof(float);
}

rt_status rt_adapters_size(size_t *total, size_t *bytes, const rt_adapter_options *options,
                           const rt_model_config *config, rt_pool *pool, rt_error *err)
{
    rt_adapters *a = calloc(1, sizeof *a);
    if (!a)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for adapters");
    a->options = *options;
    a->config = *config;
    a->pool = pool;
    rt_status status = check(options, config, err);
    if (status == RT_OK)
        status = rt_layout_build(&a->layout, config, err);
    if (status == RT_OK)
        status = list_adapters(a, err);
    a->scratch_floats = scratch_of(a);
    if (status == RT_OK) {
        *total = a->total;
        *bytes = rt_adapters_bytes(a);
    }
    rt_adapters_close(a);
    return status;
}

uint64_t rt_adapters_base_hash(const rt_adapters *a)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < rt_weights_count(a->weights); i++) {
        const rt_weight *w = rt_weights_at(a->weights, i);
        sum = rt_hash64(w->data, w->bytes, rt_hash64(w->name, strlen(w->name), sum));
    }
    return sum;
}

/* ---- merged matrices ---- */

size_t rt_adapters_place(const rt_adapters *a, const rt_param *p)
{
    if (!a->options.from_file || p->layer == RT_NO_LAYER)
        return p->offset;
    const rt_layout *l = &a->layout;
    return p->offset - l->list[l->first[p->layer]].offset + l->list[l->first[0]].offset;
}

void rt_adapters_bind(rt_adapters *a, rt_model *view, const float *values, float *grads, float *base,
                      rt_bf16 *half)
{
    a->model = view;
    a->values = values;
    a->grads = grads;
    a->base = base;
    a->half = half;
    for (size_t l = 1; a->options.from_file && l < a->config.n_layers; l++) {
        view->layers[l].qkv.w = view->layers[0].qkv.w;
        view->layers[l].o.w = view->layers[0].o.w;
        view->layers[l].gate_up.w = view->layers[0].gate_up.w;
        view->layers[l].down.w = view->layers[0].down.w;
    }
}

void rt_adapters_row(const rt_adapters *a, const float *values, size_t param, size_t r, float *out,
                     float *norm, bool hold)
{
    const rt_canonical *frozen = &a->frozen[param];
    const rt_ops *ops = rt_ops_get();
    const size_t cols = frozen->cols, rank = a->options.rank;
    size_t row_bytes = 0;
    (void)rt_dtype_bytes(&row_bytes, frozen->dtype, cols);
    rt_dequantise(out, (const unsigned char *)frozen->data + r * row_bytes, frozen->dtype, cols);
    if (a->index[param] == SIZE_MAX)
        return;
    const rt_adapter *adapter = &a->list[a->index[param]];
    const float *b = values + adapter->b + r * rank, scale = rt_adapters_scale(a);
    for (size_t k = 0; k < rank; k++)
        if (b[k] != 0)
            ops->axpy(out, scale * b[k], values + adapter->a + k * cols, cols);
    if (a->options.kind != RT_ADAPTER_DORA)
        return;
    if (!hold)
        *norm = (float)sqrt(ops->dot(out, out, cols));
    const float factor = *norm > 0 ? values[adapter->m + r] / *norm : 0;
    if (factor != 1)
        ops->scale(out, factor, cols);
}

typedef struct merge_job {
    rt_adapters *a;
    size_t param;
    bool hold;
} merge_job;

static void merge_task(void *context, size_t index, unsigned thread)
{
    const merge_job *job = context;
    const rt_adapters *a = job->a;
    const rt_param *p = &a->layout.list[job->param];
    const rt_adapter *adapter = a->index[job->param] == SIZE_MAX ? NULL : &a->list[a->index[job->param]];
    const size_t end = rt_size_min((index + 1) * MERGE_ROWS, p->rows), place = rt_adapters_place(a, p);
    const bool dora = adapter && adapter->norms;
    float *row = rt_adapters_scratch(a, thread), unused = 0;
    for (size_t r = index * MERGE_ROWS; r < end; r++) {
        rt_adapters_row(a, a->values, job->param, r, row, dora ? &adapter->norms[r] : &unused, job->hold);
        if (a->half)
            rt_ops_get()->to_bf16(a->half + place + r * p->cols, row, p->cols);
        else
            memcpy(a->base + place + r * p->cols, row, p->cols * sizeof *row);
        if (dora)
            adapter->factors[r] = adapter->norms[r] > 0 ? a->values[adapter->m + r] / adapter->norms[r] : 0;
    }
}

static void store_act(const rt_adapters *a, size_t at, float x)
{
    if (a->half)
        ((rt_bf16 *)a->acts)[at] = rt_f32_to_bf16(x);
    else
        ((float *)a->acts)[at] = x;
}

/* A and s c B in the activation type. */
static void copy_factors(rt_adapters *a, const rt_adapter *adapter)
{
    const size_t rank = a->options.rank;
    const float scale = rt_adapters_scale(a);
    for (size_t i = 0; i < rank * adapter->param->cols; i++)
        store_act(a, adapter->a + i, a->values[adapter->a + i]);
    for (size_t r = 0; r < adapter->param->rows; r++) {
        const float factor = adapter->factors ? scale * adapter->factors[r] : scale;
        for (size_t k = 0; k < rank; k++)
            store_act(a, adapter->b + r * rank + k, factor * a->values[adapter->b + r * rank + k]);
    }
}

static void merge(rt_adapters *a, size_t param, bool hold)
{
    merge_job job = {a, param, hold};
    rt_pool_run(a->pool, rt_size_ceil_div(a->layout.list[param].rows, MERGE_ROWS), merge_task, &job);
    if (a->index[param] != SIZE_MAX)
        copy_factors(a, &a->list[a->index[param]]);
}

void rt_adapters_sync(rt_adapters *a, bool hold)
{
    for (size_t i = 0; !a->options.from_file && i < a->layout.count; i++)
        if (a->index[i] != SIZE_MAX)
            merge(a, i, hold);
}

void rt_adapters_layer(rt_adapters *a, size_t layer)
{
    for (size_t i = a->layout.first[layer];
         a->options.from_file && i < a->layout.count && a->layout.list[i].layer == layer; i++)
        if (a->layout.list[i].cols)
            merge(a, i, false);
}

/* ---- the start ---- */

static rt_status load_vectors(rt_adapters *a, rt_error *err)
{
    rt_param *list = calloc(a->layout.count, sizeof *list);
    if (!list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a table of vectors");
    rt_layout vectors = {.list = list, .n_layers = a->layout.n_layers, .total = a->layout.total};
    for (size_t i = 0; i < a->layout.count; i++)
        if (!a->layout.list[i].cols)
            list[vectors.count++] = a->layout.list[i];
    const rt_status status = rt_params_load(a->base, &vectors, &a->config, a->weights, &a->file_config,
                                            a->layer_map, a->pool, err);
    free(list);
    return status;
}

typedef struct row_check {
    const rt_adapters *a;
    size_t param;
    float *magnitudes; /* [rows] of the frozen rows */
} row_check;

static void measure_task(void *context, size_t index, unsigned thread)
{
    const row_check *job = context;
    const rt_canonical *frozen = &job->a->frozen[job->param];
    const size_t end = rt_size_min((index + 1) * MERGE_ROWS, frozen->rows);
    float *row = rt_adapters_scratch(job->a, thread);
    size_t bytes = 0;
    (void)rt_dtype_bytes(&bytes, frozen->dtype, frozen->cols);
    for (size_t r = index * MERGE_ROWS; r < end; r++) {
        rt_dequantise(row, (const unsigned char *)frozen->data + r * bytes, frozen->dtype, frozen->cols);
        job->magnitudes[r] = (float)sqrt(rt_ops_get()->dot(row, row, frozen->cols));
    }
}

static rt_status start_one(rt_adapters *a, size_t i, float *values, float *magnitudes, rt_error *err)
{
    const rt_param *p = &a->layout.list[i];
    row_check job = {a, i, magnitudes};
    rt_pool_run(a->pool, rt_size_ceil_div(p->rows, MERGE_ROWS), measure_task, &job);
    for (size_t r = 0; r < p->rows; r++) {
        if (isfinite(magnitudes[r]))
            continue;
        char name[128];
        rt_param_name(name, &a->config, p);
        return rt_error_set(err, RT_NOT_FINITE, "%s: tensor %s holds a NaN or an infinity",
                            rt_weights_path(a->weights), name);
    }
    if (a->index[i] == SIZE_MAX)
        return RT_OK;
    const rt_adapter *adapter = &a->list[a->index[i]];
    const double bound = 1 / sqrt((double)p->cols);
    rt_rng rng = rt_rng_make(a->options.seed, i);
    for (size_t k = 0; k < a->options.rank * p->cols; k++)
        values[adapter->a + k] = (float)((2 * rt_rng_uniform(&rng) - 1) * bound);
    memset(values + adapter->b, 0, a->options.rank * p->rows * sizeof *values);
    if (adapter->norms)
        memcpy(values + adapter->m, magnitudes, p->rows * sizeof *values);
    return RT_OK;
}

rt_status rt_adapters_start(rt_adapters *a, float *values, rt_error *err)
{
    float *magnitudes = calloc(a->rows_max, sizeof *magnitudes);
    rt_status status = magnitudes ? load_vectors(a, err)
                                  : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu norms", a->rows_max);
    for (size_t i = 0; status == RT_OK && i < a->layout.count; i++)
        if (a->layout.list[i].cols)
            status = start_one(a, i, values, magnitudes, err);
    for (size_t i = 0; status == RT_OK && i < a->layout.count; i++) {
        const rt_param *p = &a->layout.list[i];
        if (p->cols && (p->layer == RT_NO_LAYER || !a->options.from_file))
            merge(a, i, false);
    }
    free(magnitudes);
    return status;
}
