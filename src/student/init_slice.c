/* student/init_slice.c - a narrower student's weights cut out of its teacher's, every tensor by the same
 * lists. */
#include <string.h>

#include "student/init.h"

/* An axis of a tensor: which kind of thing its indices count. */
typedef enum axis { AXIS_WHOLE, AXIS_CHANNEL, AXIS_UNIT, AXIS_HEAD } axis;

typedef struct axes {
    axis rows, cols;
} axes;

static axes axes_of_role(rt_role role)
{
    static const axes table[RT_ROLE_COUNT] = {
        [RT_ROLE_NORM1] = {AXIS_CHANNEL, AXIS_WHOLE},      [RT_ROLE_NORM1_BIAS] = {AXIS_CHANNEL, AXIS_WHOLE},
        [RT_ROLE_Q] = {AXIS_HEAD, AXIS_CHANNEL},           [RT_ROLE_Q_BIAS] = {AXIS_HEAD, AXIS_WHOLE},
        [RT_ROLE_K] = {AXIS_WHOLE, AXIS_CHANNEL},          [RT_ROLE_V] = {AXIS_WHOLE, AXIS_CHANNEL},
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
    return i;
}

static rt_status slice_one(float *values, const rt_param *to, const float *from, const rt_param *source,
                           const slicer *s, axes kinds, rt_error *err)
{
    const size_t cols = to->cols ? to->cols : 1, from_cols = source->cols ? source->cols : 1;
    for (size_t r = 0; r < to->rows; r++) {
        const size_t row = source_of(s, kinds.rows, r);
        for (size_t c = 0; c < cols; c++) {
            const size_t col = to->cols ? source_of(s, kinds.cols, c) : 0;
            if (row >= source->rows || col >= from_cols)
                return rt_error_set(err, RT_MISMATCH,
                                    "row %zu, column %zu is asked of a tensor of [%zu, %zu]", row, col,
                                    source->rows, source->cols);
            values[to->offset + r * cols + c] = from[source->offset + row * from_cols + col];
        }
    }
    return RT_OK;
}

rt_status rt_params_slice(float *values, const rt_layout *layout, const rt_model_config *config,
                          const float *from, const rt_layout *from_layout, const rt_model_config *from_config,
                          const rt_width_map *map, rt_error *err)
{
    if (config->experts.count || config->latent.kv_rank || from_config->experts.count ||
        from_config->latent.kv_rank)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "a %s cannot be cut in width: experts and latents have no slices; take some of its "
            "layers instead",
            from_config->family);
    if (config->head_dim != from_config->head_dim || config->n_heads_kv != from_config->n_heads_kv ||
        config->n_vocab != from_config->n_vocab || config->tied != from_config->tied ||
        config->gated_mlp != from_config->gated_mlp)
        return rt_error_set(
            err, RT_MISMATCH,
            "a student cut out of its teacher keeps head_dim, kv heads, vocabulary, tying and "
            "the kind of MLP");
    memset(values, 0, layout->total * sizeof *values);
    for (size_t i = 0; i < layout->count; i++) {
        const rt_param *to = &layout->list[i];
        slicer s = {config, map, to->layer};
        const bool global = to->layer == RT_NO_LAYER;
        const size_t layer = global || !map->layers ? to->layer : map->layers[to->layer];
        const rt_param *source = global ? rt_layout_global(from_layout, (rt_global)to->which)
                                        : rt_layout_role(from_layout, layer, to->which);
        if (!source)
            return rt_error_set(err, RT_MISMATCH, "the teacher has no layer %zu or no such tensor in it",
                                layer);
        const axes kinds = global ? axes_of_global((rt_global)to->which) : axes_of_role((rt_role)to->which);
        if (slice_one(values, to, from, source, &s, kinds, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}
