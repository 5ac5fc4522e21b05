/* model/load_parts.h - what load.c, shape.c and stream.c share: the parts of a layer, and loading them one by
 * one.  Internal to the model room. */
#ifndef RT_MODEL_LOAD_PARTS_H
#define RT_MODEL_LOAD_PARTS_H

#include "model/decoder.h"

/* Projections that read the same input are one matrix.  From RT_GROUP_EXPERTS on: gate_up and down of each
 * expert. */
enum {
    RT_GROUP_QKV,
    RT_GROUP_Q_B,
    RT_GROUP_KV_B,
    RT_GROUP_O,
    RT_GROUP_GATE_UP,
    RT_GROUP_DOWN,
    RT_GROUP_EXPERTS
};
typedef struct rt_group_parts {
    int weights[3]; /* as rt_canonical_layer takes them */
    rt_role biases[3];
    size_t count; /* 0: the layer has no such group */
} rt_group_parts;
int rt_group_count(const rt_model_config *config, size_t layer);
rt_group_parts rt_group_parts_of(const rt_model_config *config, size_t layer, int group);
rt_proj *rt_group_of(rt_layer *layer, int group);

typedef struct rt_loader {
    rt_model *model;
    const rt_weights *weights;
    const rt_layout *layout;
    rt_arena *arena; /* for matrices; vectors lie in the model's */
    bool reused;     /* the arena will hold other matrices later: packed ones go there too, and are not the
                        model's     to free */
} rt_loader;

rt_status rt_model_new(rt_model **out, const rt_model_config *config, rt_precision precision, rt_pool *pool,
                       rt_error *err);
/* Takes the packed matrix over; it is freed with the model, or at once on failure. */
rt_status rt_model_own(rt_model *model, rt_qmat *mat, rt_error *err);
rt_status rt_load_group(rt_proj *proj, const rt_loader *loader, const rt_param *const *parts, size_t count,
                        rt_error *err);
rt_status rt_load_layer_vectors(const rt_loader *loader, size_t layer, rt_error *err);
rt_status rt_load_layer_matrices(const rt_loader *loader, size_t layer, rt_error *err);
rt_status rt_load_outer_vectors(const rt_loader *loader, rt_error *err);
/* Sizes of the group as rt_load_group would make it; the bytes are added to *bytes. */
void rt_shape_group(rt_proj *proj, const rt_model *model, const rt_weights *weights,
                    const rt_param *const *parts, size_t count, size_t *bytes);
void rt_shape_layer(rt_model *model, const rt_weights *weights, const rt_layout *layout, size_t layer,
                    size_t *bytes);

#endif
