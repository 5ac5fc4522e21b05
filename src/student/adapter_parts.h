/* student/adapter_parts.h - what adapter.c, adapter_gradient.c and adapter_files.c share. */
#ifndef RT_STUDENT_ADAPTER_PARTS_H
#define RT_STUDENT_ADAPTER_PARTS_H

#include "student/adapter.h"

struct rt_adapters {
    rt_adapter_options options;
    rt_model_config config, file_config;
    rt_layout layout;
    const rt_weights *weights; /* borrowed */
    size_t layer_map[RT_LAYERS_MAX];
    rt_canonical *frozen; /* [layout.count] of the matrices; data NULL: a vector */
    size_t *index;        /* [layout.count] in list, SIZE_MAX: no adapter */
    rt_adapter *list;
    size_t count, total, rows_max, cols_max;
    float *dora;    /* norms and factors of all */
    void *acts;     /* [total] A and s c B again, in the activation type */
    void *u, *w;    /* [tokens_max, rank] each: x Aᵀ and dy (s c B) */
    float *scratch; /* [threads][scratch_floats] */
    size_t scratch_floats;
    rt_pool *pool;
    /* bound */
    const rt_model *model;
    const float *values;
    float *grads, *base;
    rt_bf16 *half;
};

static inline float rt_adapters_scale(const rt_adapters *a)
{
    return (float)(a->options.alpha / (double)a->options.rank);
}
static inline size_t rt_adapters_act_size(const rt_adapters *a)
{
    return a->options.precision == RT_PRECISION_F32 ? sizeof(float) : sizeof(rt_bf16);
}
static inline float *rt_adapters_scratch(const rt_adapters *a, unsigned thread)
{
    return a->scratch + thread * a->scratch_floats;
}
/* Row r of a merged matrix: out [cols].  hold: with DoRA's norm as it is, else it is made anew in *norm. */
void rt_adapters_row(const rt_adapters *a, const float *values, size_t param, size_t r, float *out,
                     float *norm, bool hold);
/* Where a layer's matrix lies among the merged ones, in elements. */
size_t rt_adapters_place(const rt_adapters *a, const rt_param *param);
const void *rt_adapters_act_at(const rt_adapters *a, const void *base, size_t index);

#endif
