/* model/shape.c - a model without weights: what it would take in memory, before anything is read. */
#include "base/size.h"
#include "model/load_parts.h"

/* The file's type of a tensor; F32 when there is no file or no such tensor. */
static rt_dtype type_in_file(const rt_weights *weights, const rt_model_config *config, const rt_param *p)
{
    const rt_weight *weight = NULL;
    rt_error unused;
    if (weights)
        (void)rt_canonical_source(&weight, weights, config, p->layer, p->which, &unused);
    const bool split = weight && weight->n_dims == 3 && p->layer != RT_NO_LAYER && p->which == RT_ROLE_KV_B;
    return weight && !split ? weight->dtype : RT_F32; /* a kv_b in two parts is put together in float32 */
}

/* Sizes of the group as load_group would make it; the bytes are added to *bytes. */
void rt_shape_group(rt_proj *proj, const rt_model *model, const rt_weights *weights,
                    const rt_param *const *parts, size_t count, size_t *bytes)
{
    bool pack = model->precision == RT_PRECISION_INT8 && weights;
    size_t packed = 0;
    for (size_t i = 0; i < count; i++) {
        const rt_dtype dtype = pack ? type_in_file(weights, &model->config, parts[i]) : RT_F32;
        const size_t one = pack ? rt_qmat_packed_bytes(dtype, parts[i]->rows, parts[i]->cols) : 0;
        proj->rows += parts[i]->rows;
        proj->cols = parts[i]->cols;
        packed += one;
        pack = pack && one > 0;
    }
    proj->n_packed = pack ? count : 0;
    *bytes += pack ? packed : rt_size_round_up(proj->rows * proj->cols * (model->act == RT_F32 ? 4 : 2), 64);
}

void rt_shape_layer(rt_model *model, const rt_weights *weights, const rt_layout *layout, size_t l,
                    size_t *bytes)
{
    for (int g = 0; g < rt_group_count(&model->config, l); g++) {
        const rt_group_parts parts = rt_group_parts_of(&model->config, l, g);
        const rt_param *params[3];
        for (size_t i = 0; i < parts.count; i++)
            params[i] = rt_layout_role(layout, l, parts.weights[i]);
        if (parts.count)
            rt_shape_group(rt_group_of(&model->layers[l], g), model, weights, params, parts.count, bytes);
    }
}

rt_status rt_model_shape(rt_model **out, const rt_model_config *config, const rt_weights *weights,
                         rt_precision precision, rt_pool *pool, size_t *weight_bytes, rt_error *err)
{
    rt_layout layout;
    rt_model *model;
    *out = NULL;
    *weight_bytes = 0;
    if (rt_layout_build(&layout, config, err) != RT_OK)
        return err->status;
    if (rt_model_new(&model, config, precision, pool, err) == RT_OK) {
        for (size_t l = 0; l < config->n_layers; l++)
            rt_shape_layer(model, weights, &layout, l, weight_bytes);
        rt_proj table = {0};
        const rt_param *embed = rt_layout_global(&layout, RT_GLOBAL_EMBED),
                       *head = rt_layout_global(&layout, RT_GLOBAL_HEAD);
        rt_shape_group(&table, model, weights, &embed, 1, weight_bytes);
        model->head = table;
        if (head) {
            model->head = (rt_proj){0};
            rt_shape_group(&model->head, model, weights, &head, 1, weight_bytes);
        }
        for (size_t i = 0; i < layout.count; i++) /* vectors are held in float32, biases twice */
            *weight_bytes += layout.list[i].cols ? 0 : layout.list[i].count * sizeof(float);
        *out = model;
    }
    rt_layout_free(&layout);
    return *out ? RT_OK : err->status;
}
