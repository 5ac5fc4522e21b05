/* model/weights.h - an opened weight file (GGUF, or safetensors: one file or a folder of shards).
 *
 * Opening maps the file, checks every header field against the file's size, and lists the tensors.
 * Nothing is copied: tensor data point into the map.  Names are those in the file. */
#ifndef RT_MODEL_WEIGHTS_H
#define RT_MODEL_WEIGHTS_H

#include <jansson.h>

#include "retort/error.h"
#include "tensor/dtype.h"

enum { RT_DIMS_MAX = 4 };

typedef struct rt_weight {
    const char *name;          /* owned by the rt_weights */
    rt_dtype dtype;
    size_t n_dims;             /* 0 (scalar) .. RT_DIMS_MAX */
    size_t shape[RT_DIMS_MAX]; /* row-major as in safetensors: the last one is contiguous (GGUF's order reversed) */
    const void *data;          /* may be unaligned; borrowed */
    size_t bytes;
} rt_weight;

typedef enum rt_weights_format { RT_FORMAT_GGUF, RT_FORMAT_SAFETENSORS } rt_weights_format;

typedef struct rt_weights rt_weights;

/* path: a .gguf file, a .safetensors file, or a folder with config.json and *.safetensors (with or
 * without model.safetensors.index.json) or with one .gguf. */
rt_status rt_weights_open(rt_weights **out, const char *path, rt_error *err);
void rt_weights_close(rt_weights *weights);
rt_weights_format rt_weights_get_format(const rt_weights *weights);
const char *rt_weights_path(const rt_weights *weights);  /* as given */
size_t rt_weights_count(const rt_weights *weights);
const rt_weight *rt_weights_at(const rt_weights *weights, size_t index);
const rt_weight *rt_weights_find(const rt_weights *weights, const char *name); /* NULL: not there */

/* GGUF metadata; the getters return false when the key is absent or of another type.  Integers of
 * any width are widened; strings are borrowed (NOT NUL-terminated: length in *size). */
bool rt_weights_meta_string(const rt_weights *weights, const char *key, const char **data, size_t *size);
bool rt_weights_meta_u64(const rt_weights *weights, const char *key, uint64_t *out);
bool rt_weights_meta_f64(const rt_weights *weights, const char *key, double *out); /* integers too */
bool rt_weights_meta_bool(const rt_weights *weights, const char *key, bool *out);
/* Arrays: count, then elements by index in O(1) amortised forward order. */
bool rt_weights_meta_array(const rt_weights *weights, const char *key, size_t *count);
bool rt_weights_meta_array_string(const rt_weights *weights, const char *key, size_t index, const char **data,
                                  size_t *size);
bool rt_weights_meta_array_f64(const rt_weights *weights, const char *key, size_t index, double *out);
/* config.json of a safetensors folder; NULL when there is none (a lone file) or for GGUF. Borrowed. */
const json_t *rt_weights_config_json(const rt_weights *weights);

#endif
