/* student/init_slice.c - a narrower student's weights cut out of its teacher's, every tensor by the same
 * lists. */
#include <stdlib.h>
#include <string.h>

#include "student/init.h"

/* An axis of a tensor: which kind of thing its indices count. */
typedef enum axis { AXIS_WHOLE, AXIS_CHANNEL, AXIS_UNIT, AXIS_HEAD, AXIS_GROUP } axis;

typedef struct axes {
    axis rows, cols;
} axes;

static axes axes_of_role(rt_role role)
{
    static const axes table[RT_ROLE_COUNT] = {
        [RT_ROLE_NORM1] = {AXIS_CHANNEL, AXIS_WHOLE},      [RT_ROLE_NORM1_BIAS] = {AXIS_CHANNEL, AXIS_WHOLE},
        [RT_ROLE_Q] = {AXIS_HEAD, AXIS_CHANNEL},           [RT_ROLE_Q_BIAS] = {AXIS_HEAD, AXIS_WHOLE},
        [RT_ROLE_K] = {AXIS_GROUP, AXIS_CHANNEL},          [RT_ROLE_V] = {AXIS_GROUP, AXIS_CHANNEL},
        [RT_ROLE_K_BIAS] = {AXIS_GROUP, AXIS_WHOLE},       [RT_ROLE_V_BIAS] = {AXIS_GROUP, AXIS_WHOLE},
        [RT_ROLE_O] = {AXIS_CHANNEL, AXIS_HEAD},           [RT_ROLE_O_BIAS] = {AXIS_CHANNEL, AXIS_WHOLE},
        [RT_ROLE_NORM1_POST] = {AXIS_CHANNEL, AXIS_WHOLE}, [RT_ROLE_NORM2] = {AXIS_CHANNEL, AXIS_WHOLE},
        [RT_ROLE_NORM2_BIAS] = {AXIS_CHANNEL, AXIS_WHOLE}, [RT_ROLE_GATE] = {AXIS_UNIT, AXIS_CHANNEL},
        [RT_ROLE_GATE_BIAS] = {AXIS_UNIT, AXIS_WHOLE},     [RT_ROLE_UP] = {AXIS_UNIT, AXIS_CHANNEL},
        [RT_ROLE_UP_BIAS] = {AXIS_UNIT, AXIS_WHOLE},       [RT_ROLE_DOWN] = {AXIS_CHANNEL, AXIS_UNIT},
        [RT_ROLE_DOWN_BIAS] = {AXIS_CHANNEL, AXIS_WHOLE},  [RT_ROLE_NORM2_POST] = {AXIS_CHANNEL, AXIS_WHOLE},
    };
    return table[role];
}

static axes axes_of_global(rt_global global)
{
    const bool vector = global == RT_GLOBAL_NORM || global == RT_GLOBAL_NORM_BIAS;
    return vector ? (axes){AXIS_CHANNEL, AXIS_WHOLE} : (axes){AXIS_WHOLE, AXIS_CHANNEL};
}

typedef struct slicer {
    const rt_model_config *config;
    const rt_width_map *map;
    size_t layer; /* of the student */
} slicer;

/* Where index i of the student's axis lies on the teacher's. */
static size_t source_of(const slicer *s, axis kind, size_t i)
{
    const size_t hd = s->config->head_dim;
    if (kind == AXIS_CHANNEL && s->map->channels)
        return s->map->channels[i];
    if (kind == AXIS_UNIT && s->map->units)
        return s->map->units[s->layer * s->config->n_ff + i];
    if (kind == AXIS_HEAD && s->map->heads)
        return s->map->heads[s->layer * s->config->n_heads + i / hd] * hd + i % hd;
    if (kind == AXIS_GROUP && s->map->groups)
        return s->map->groups[s->layer * s->config->n_heads_kv + i / hd] * hd + i % hd;
    return i;
}

/* tensor [rows, cols] is the teacher's. */
static rt_status slice_one(float *out, const rt_param *to, const float *tensor, size_t rows, size_t cols,
                           const slicer *s, rt_error *err)
{
    const bool global = to->layer == RT_NO_LAYER;
    const axes kinds = global ? axes_of_global((rt_global)to->which) : axes_of_role((rt_role)to->which);
    const size_t n = to->cols ? to->cols : 1, from_cols = cols ? cols : 1;
    for (size_t r = 0; r < to->rows; r++) {
        const size_t row = source_of(s, kinds.rows, r);
        for (size_t c = 0; c < n; c++) {
            const size_t col = to->cols ? source_of(s, kinds.cols, c) : 0;
            if (row >= rows || col >= from_cols)
                return rt_error_set(err, RT_MISMATCH,
                                    "row %zu, column %zu is asked of a tensor of [%zu, %zu]", row, col, rows,
                                    cols);
            out[r * n + c] = tensor[row * from_cols + col];
        }
    }
    return RT_OK;
}

static rt_status check_slice(const rt_model_config *config, const rt_model_config *from,
                             const rt_width_map *map, rt_error *err)
{
    if (config->experts.count || config->latent.kv_rank || from->experts.count || from->latent.kv_rank)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "a %s cannot be cut in width: experts and latents have no slices; take some of its "
            "layers instead",
            from->family);
    if (config->head_dim != from->head_dim || (!map->groups && config->n_heads_kv != from->n_heads_kv) ||
        config->n_vocab != from->n_vocab || config->tied != from->tied ||
        config->gated_mlp != from->gated_mlp)
        return rt_error_set(
            err, RT_MISMATCH,
            "a student cut out of its teacher keeps head_dim, kv heads, vocabulary, tying and "
            "the kind of MLP");
    return RT_OK;
}

/* Where in the teacher's layout a tensor of the student comes from. */
static const rt_param *source_param(const rt_layout *from, const rt_param *to, const rt_width_map *map,
                                    rt_error *err)
{
    const bool global = to->layer == RT_NO_LAYER;
    const size_t layer = global || !map->layers ? to->layer : map->layers[to->layer];
    const rt_param *source =
        global ? rt_layout_global(from, (rt_global)to->which) : rt_layout_role(from, layer, to->which);
    if (!source)
        (void)rt_error_set(err, RT_MISMATCH, "the teacher has no layer %zu or no such tensor in it", layer);
    return source;
}

rt_status rt_params_slice(float *values, const rt_layout *layout, const rt_model_config *config,
                          const float *from, const rt_layout *from_layout, const rt_model_config *from_config,
                          const rt_width_map *map, rt_error *err)
{
    if (check_slice(config, from_config, map, err) != RT_OK)
        return err->status;
    memset(values, 0, layout->total * sizeof *values);
    for (size_t i = 0; i < layout->count; i++) {
        const rt_param *to = &layout->list[i], *source = source_param(from_layout, to, map, err);
        const slicer s = {config, map, to->layer};
        if (!source || slice_one(values + to->offset, to, from + source->offset, source->rows, source->cols,
                                 &s, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

/* ---- straight from the file, a tensor at a time ---- */

typedef struct load_job {
    float *values;
    const rt_layout *layout, *from_layout;
    const rt_model_config *config, *from_config;
    const rt_weights *weights;
    const rt_width_map *map;
    rt_error *errors; /* [layout->count] */
} load_job;

static void load_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const load_job *job = context;
    rt_error *err = &job->errors[index];
    const rt_param *to = &job->layout->list[index];
    const rt_param *source = source_param(job->from_layout, to, job->map, err);
    if (!source)
        return;
    rt_param one = *source;
    one.offset = 0;
    const rt_layout alone = {.list = &one, .count = 1, .total = one.count};
    const slicer s = {job->config, job->map, to->layer};
    float *tensor = calloc(one.count, sizeof *tensor);
    if (!tensor)
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for a tensor of %zu values", one.count);
    else if (rt_params_load(tensor, &alone, job->from_config, job->weights, job->from_config, NULL, NULL,
                            err) == RT_OK)
        (void)slice_one(job->values + to->offset, to, tensor, one.rows, one.cols, &s, err);
    free(tensor);
}

rt_status rt_params_load_slice(float *values, const rt_layout *layout, const rt_model_config *config,
                               const rt_weights *weights, const rt_model_config *from_config,
                               const rt_width_map *map, rt_pool *pool, rt_error *err)
{
    rt_layout from;
    if (check_slice(config, from_config, map, err) != RT_OK ||
        rt_layout_build(&from, from_config, err) != RT_OK)
        return err->status;
    rt_error *errors = calloc(layout->count, sizeof *errors);
    rt_status status =
        errors ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to load %zu tensors", layout->count);
    load_job job = {values, layout, &from, config, from_config, weights, map, errors};
    if (status == RT_OK)
        rt_pool_run(pool, layout->count, load_task, &job);
    for (size_t i = 0; status == RT_OK && i < layout->count; i++) {
        if (errors[i].status != RT_OK)
            *err = errors[i];
        status = errors[i].status;
    }
    free(errors);
    rt_layout_free(&from);
    return status;
}
