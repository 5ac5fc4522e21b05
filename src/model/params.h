/* model/params.h - the trainable parameters of a decoder in one flat array.
 *
 * Every tensor has an offset; projections that are multiplied together (q k v; gate up) lie next to each
 * other, so that they are one matrix.  Gradients, AdamW moments and the bf16 copy are arrays of the same
 * layout.  Padding elements between tensors are zero and stay zero. */
#ifndef RT_MODEL_PARAMS_H
#define RT_MODEL_PARAMS_H

#include "base/arena.h"
#include "base/pool.h"
#include "model/config.h"

#define RT_NO_LAYER SIZE_MAX

typedef struct rt_param {
    size_t layer;      /* RT_NO_LAYER: `which` is an rt_global, else an rt_role */
    int which;         /* RT_ROLE of an expert's tensor: rt_expert_role */
    size_t offset;     /* elements */
    size_t rows, cols; /* cols 0: a vector of `rows` */
    size_t count;      /* elements */
} rt_param;

typedef struct rt_layout {
    rt_param *list; /* in order of offset */
    size_t count;
    size_t *first, *experts; /* [n_layers] where in the list a layer begins, and its experts */
    size_t n_layers;
    size_t total; /* elements, a multiple of 64 */
} rt_layout;

rt_status rt_layout_build(rt_layout *out, const rt_model_config *config, rt_error *err);
void rt_layout_free(rt_layout *layout);
/* NULL when the family has no such tensor. */
const rt_param *rt_layout_role(const rt_layout *layout, size_t layer, int which);
const rt_param *rt_layout_global(const rt_layout *layout, rt_global global);
/* The name in a Hugging Face file. */
void rt_param_name(char out[128], const rt_model_config *config, const rt_param *param);

/* Fills values[layout->total] from a weight file.  layer_map[l] is the file's layer for layer l (NULL:
 * the same); `file_config` is the file's own configuration.  A tensor with a non-finite value is an
 * RT_NOT_FINITE that names it. */
rt_status rt_params_load(float *values, const rt_layout *layout, const rt_model_config *config,
                         const rt_weights *weights, const rt_model_config *file_config,
                         const size_t *layer_map, rt_pool *pool, rt_error *err);
/* The same without embedding and head, which a student with another vocabulary has of its own. */
rt_status rt_params_load_inner(float *values, const rt_layout *layout, const rt_model_config *config,
                               const rt_weights *weights, const rt_model_config *file_config,
                               const size_t *layer_map, rt_pool *pool, rt_error *err);
/* Random start as transformers does it: N(0, 0.02²) for matrices, 1 for norms, 0 for biases. */
void rt_params_init(float *values, const rt_layout *layout, const rt_model_config *config, uint64_t seed);

#endif
