/* model/params.c - see params.h. */
#include "model/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "tensor/quant.h"

enum { GROUP_ALIGN = 64 };

/* Roles in the order of memory; a new group starts at an aligned offset. */
typedef struct placed_role {
    rt_role role;
    bool starts_group;
} placed_role;

static const placed_role order[] = {
    {RT_ROLE_NORM1, true},      {RT_ROLE_NORM1_BIAS, true},  {RT_ROLE_Q, true},
    {RT_ROLE_K, false},         {RT_ROLE_V, false},          {RT_ROLE_Q_BIAS, true},
    {RT_ROLE_K_BIAS, false},    {RT_ROLE_V_BIAS, false},     {RT_ROLE_Q_A, false},
    {RT_ROLE_KV_A, false},      {RT_ROLE_Q_A_BIAS, true},    {RT_ROLE_KV_A_BIAS, false},
    {RT_ROLE_Q_A_NORM, true},   {RT_ROLE_KV_A_NORM, true},   {RT_ROLE_Q_B, true},
    {RT_ROLE_KV_B, true},       {RT_ROLE_Q_NORM, true},      {RT_ROLE_K_NORM, true},
    {RT_ROLE_O, true},          {RT_ROLE_O_BIAS, true},      {RT_ROLE_NORM1_POST, true},
    {RT_ROLE_NORM2, true},      {RT_ROLE_NORM2_BIAS, true},  {RT_ROLE_GATE, true},
    {RT_ROLE_UP, false},        {RT_ROLE_GATE_BIAS, true},   {RT_ROLE_UP_BIAS, false},
    {RT_ROLE_DOWN, true},       {RT_ROLE_DOWN_BIAS, true},   {RT_ROLE_NORM2_POST, true},
    {RT_ROLE_ROUTER, true},     {RT_ROLE_ROUTER_BIAS, true}, {RT_ROLE_SHARED_GATE, true},
    {RT_ROLE_SHARED_UP, false}, {RT_ROLE_SHARED_DOWN, true},
};
static const placed_role expert_order[] = {/* of each expert */
                                           {RT_ROLE_EXPERT_GATE, true},
                                           {RT_ROLE_EXPERT_UP, false},
                                           {RT_ROLE_EXPERT_DOWN, true}};
enum { EXPERT_ORDER_COUNT = sizeof expert_order / sizeof expert_order[0] };
enum { ORDER_COUNT = sizeof order / sizeof order[0] };
static const rt_global globals_first[] = {RT_GLOBAL_EMBED, RT_GLOBAL_POSITIONS};
static const rt_global globals_last[] = {RT_GLOBAL_NORM, RT_GLOBAL_NORM_BIAS, RT_GLOBAL_HEAD};

static bool place(rt_layout *layout, size_t layer, int which, size_t rows, size_t cols, bool starts_group)
{
    if (!rows)
        return true;
    size_t offset = layout->total, count;
    if (starts_group)
        offset = rt_size_round_up(offset, GROUP_ALIGN);
    if (!rt_size_mul(rows, cols ? cols : 1, &count) || !rt_size_add(offset, count, &layout->total) ||
        layout->total > SIZE_MAX / 64)
        return false;
    layout->list[layout->count++] = (rt_param){
        .layer = layer, .which = which, .offset = offset, .rows = rows, .cols = cols, .count = count};
    return true;
}

static bool place_layer(rt_layout *out, const rt_model_config *config, size_t l)
{
    size_t rows, cols;
    bool fits = true;
    out->first[l] = out->count;
    for (size_t i = 0; i < ORDER_COUNT; i++) {
        rt_role_shape(config, l, (int)order[i].role, &rows, &cols);
        /* a projection of its own that comes first in a group begins it, whoever its neighbour is */
        const bool starts = order[i].starts_group || (order[i].role == RT_ROLE_Q_A && rows);
        fits = fits && place(out, l, (int)order[i].role, rows, cols, starts);
    }
    out->experts[l] = out->count;
    for (size_t e = 0; e < config->experts.count && config->experts.sparse[l]; e++)
        for (size_t i = 0; i < EXPERT_ORDER_COUNT; i++) {
            const int which = rt_expert_role(expert_order[i].role, e);
            rt_role_shape(config, l, which, &rows, &cols);
            fits = fits && place(out, l, which, rows, cols, expert_order[i].starts_group);
        }
    return fits;
}

static bool take_list(rt_layout *out, const rt_model_config *config)
{
    size_t most = config->n_layers * ORDER_COUNT + RT_GLOBAL_COUNT;
    for (size_t l = 0; l < config->n_layers; l++)
        most += config->experts.sparse[l] ? config->experts.count * EXPERT_ORDER_COUNT : 0;
    out->list = calloc(most, sizeof *out->list);
    out->first = calloc(config->n_layers, sizeof *out->first);
    out->experts = calloc(config->n_layers, sizeof *out->experts);
    out->n_layers = config->n_layers;
    return out->list && out->first && out->experts;
}

rt_status rt_layout_build(rt_layout *out, const rt_model_config *config, rt_error *err)
{
    *out = (rt_layout){0};
    if (!take_list(out, config)) {
        rt_layout_free(out);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a table of the parameters of %zu layers",
                            config->n_layers);
    }
    bool fits = true;
    size_t rows, cols;
    for (size_t i = 0; i < sizeof globals_first / sizeof globals_first[0]; i++) {
        rt_global_shape(config, globals_first[i], &rows, &cols);
        fits = fits && place(out, RT_NO_LAYER, (int)globals_first[i], rows, cols, true);
    }
    for (size_t l = 0; l < config->n_layers; l++)
        fits = fits && place_layer(out, config, l);
    for (size_t i = 0; i < sizeof globals_last / sizeof globals_last[0]; i++) {
        rt_global_shape(config, globals_last[i], &rows, &cols);
        fits = fits && place(out, RT_NO_LAYER, (int)globals_last[i], rows, cols, true);
    }
    if (!fits) {
        rt_layout_free(out);
        return rt_error_set(err, RT_INVALID, "the model's size overflows");
    }
    out->total = rt_size_round_up(out->total, GROUP_ALIGN);
    return RT_OK;
}

void rt_layout_free(rt_layout *layout)
{
    free(layout->list);
    free(layout->first);
    free(layout->experts);
    *layout = (rt_layout){0};
}

static const rt_param *find(const rt_layout *layout, size_t from, size_t layer, int which)
{
    for (size_t i = from; i < layout->count && layout->list[i].layer == layer; i++)
        if (layout->list[i].which == which)
            return &layout->list[i];
    return NULL;
}

const rt_param *rt_layout_role(const rt_layout *layout, size_t layer, int which)
{
    if (layer >= layout->n_layers)
        return NULL;
    if (!rt_role_is_expert(rt_role_of(which)))
        return find(layout, layout->first[layer], layer, which);
    return find(layout, layout->experts[layer] + rt_role_expert(which) * EXPERT_ORDER_COUNT, layer, which);
}

const rt_param *rt_layout_global(const rt_layout *layout, rt_global global)
{
    for (size_t i = 0; i < layout->count; i++) /* at both ends of the list */
        if (layout->list[i].layer == RT_NO_LAYER && layout->list[i].which == (int)global)
            return &layout->list[i];
    return NULL;
}

void rt_param_name(char out[128], const rt_model_config *config, const rt_param *param)
{
    if (param->layer == RT_NO_LAYER)
        rt_global_hf_name(out, config, (rt_global)param->which);
    else
        rt_role_hf_name(out, config, param->layer, param->which);
}

static bool is_norm(const rt_param *p)
{
    if (p->cols)
        return false;
    if (p->layer == RT_NO_LAYER)
        return p->which == RT_GLOBAL_NORM;
    return p->which == RT_ROLE_NORM1 || p->which == RT_ROLE_NORM2 || p->which == RT_ROLE_NORM1_POST ||
           p->which == RT_ROLE_NORM2_POST || p->which == RT_ROLE_Q_NORM || p->which == RT_ROLE_K_NORM ||
           p->which == RT_ROLE_Q_A_NORM || p->which == RT_ROLE_KV_A_NORM;
}

typedef struct load_job {
    float *values;
    const rt_layout *layout;
    const rt_model_config *config, *file_config;
    const rt_weights *weights;
    const size_t *layer_map;
    bool inner;       /* without embedding and head */
    rt_error *errors; /* [layout->count] */
} load_job;

static bool all_finite(const float *x, size_t n)
{
    uint32_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFFu;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7F800000u;
}

static rt_status load_one(const load_job *job, const rt_param *p, rt_error *err)
{
    rt_canonical tensor;
    rt_status status;
    if (p->layer == RT_NO_LAYER)
        status = rt_canonical_global(&tensor, job->weights, job->file_config, (rt_global)p->which, err);
    else
        status = rt_canonical_layer(&tensor, job->weights, job->file_config,
                                    job->layer_map ? job->layer_map[p->layer] : p->layer, p->which, err);
    if (status != RT_OK)
        return status;
    char name[128];
    rt_param_name(name, job->config, p);
    float *out = job->values + p->offset;
    if (tensor.rows != p->rows || tensor.cols != p->cols) {
        status =
            rt_error_set(err, RT_MISMATCH, "%s: tensor %s is [%zu, %zu] in the file, [%zu, %zu] wanted",
                         rt_weights_path(job->weights), name, tensor.rows, tensor.cols, p->rows, p->cols);
    } else {
        rt_dequantise(out, tensor.data, tensor.dtype, p->count);
        if (job->file_config->norm_plus_one && is_norm(p)) /* the decoder multiplies by 1 + w */
            for (size_t i = 0; i < p->count; i++)
                out[i] += 1.0f;
        if (!all_finite(out, p->count))
            status = rt_error_set(err, RT_NOT_FINITE, "%s: tensor %s holds a NaN or an infinity",
                                  rt_weights_path(job->weights), name);
    }
    free(tensor.owned);
    return status;
}

static void load_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const load_job *job = context;
    const rt_param *p = &job->layout->list[index];
    if (job->inner && p->layer == RT_NO_LAYER && (p->which == RT_GLOBAL_EMBED || p->which == RT_GLOBAL_HEAD))
        return;
    (void)load_one(job, p, &job->errors[index]);
}

static rt_status load(float *values, const rt_layout *layout, const rt_model_config *config,
                      const rt_weights *weights, const rt_model_config *file_config, const size_t *layer_map,
                      bool inner, rt_pool *pool, rt_error *err)
{
    rt_error *errors = calloc(layout->count, sizeof *errors);
    if (!errors)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to load %zu tensors", layout->count);
    load_job job = {values, layout, config, file_config, weights, layer_map, inner, errors};
    rt_pool_run(pool, layout->count, load_task, &job);
    rt_status status = RT_OK;
    for (size_t i = 0; i < layout->count && status == RT_OK; i++) {
        if (errors[i].status != RT_OK) {
            *err = errors[i];
            status = err->status;
        }
    }
    free(errors);
    return status;
}

rt_status rt_params_load(float *values, const rt_layout *layout, const rt_model_config *config,
                         const rt_weights *weights, const rt_model_config *file_config,
                         const size_t *layer_map, rt_pool *pool, rt_error *err)
{
    return load(values, layout, config, weights, file_config, layer_map, false, pool, err);
}

rt_status rt_params_load_inner(float *values, const rt_layout *layout, const rt_model_config *config,
                               const rt_weights *weights, const rt_model_config *file_config,
                               const size_t *layer_map, rt_pool *pool, rt_error *err)
{
    return load(values, layout, config, weights, file_config, layer_map, true, pool, err);
}

void rt_params_init(float *values, const rt_layout *layout, const rt_model_config *config, uint64_t seed)
{
    (void)config;
    memset(values, 0, layout->total * sizeof *values);
    for (size_t k = 0; k < layout->count; k++) {
        const rt_param *p = &layout->list[k];
        float *out = values + p->offset;
        rt_rng rng = rt_rng_make(seed, k);
        for (size_t i = 0; i < p->count; i++)
            out[i] = p->cols ? (float)(0.02 * rt_rng_normal(&rng)) : is_norm(p) ? 1.0f : 0.0f;
    }
}
