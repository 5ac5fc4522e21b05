/* model/weights.h - an opened weight file (GGUF, or safetensors: one file or a folder of shards).
 *
 * Opening maps the file, checks every header field against the file's size, and lists the tensors.
 * Nothing is copied: tensor data point into the map.  Names are those in the file. */
#ifndef RT_MODEL_WEIGHTS_H
#define RT_MODEL_WEIGHTS_H

#include <jansson.h>
#include <stdbool.h>

#include "retort/error.h"
#include "tensor/dtype.h"

enum { RT_DIMS_MAX = 4 };

typedef struct rt_weight {
    const char *name; /* owned by the rt_weights */
    rt_dtype dtype;
    size_t n_dims;             /* 0 (scalar) .. RT_DIMS_MAX */
    size_t shape[RT_DIMS_MAX]; /* row-major as in safetensors: the last one is contiguous (GGUF's order
                                  reversed) */
    const void
        *data; /* may be unaligned; borrowed.  NULL: only the header was read, and nobody has placed it */
    size_t bytes;
    size_t file,
        offset; /* where the data lie: which of the files, byte in it; not for rt_weights_open_memory */
} rt_weight;

typedef enum rt_weights_format { RT_FORMAT_GGUF, RT_FORMAT_SAFETENSORS } rt_weights_format;

typedef struct rt_weights rt_weights;

/* path: a .gguf file, a .safetensors file, or a folder with config.json and *.safetensors (with or
 * without model.safetensors.index.json) or with one .gguf. */
rt_status rt_weights_open(rt_weights **out, const char *path, rt_error *err);
/* The same without mapping the data, for files larger than memory: the headers are mapped, vectors
 * are read, matrices have data NULL until rt_weights_place lends them some. */
rt_status rt_weights_open_headers(rt_weights **out, const char *path, rt_error *err);
bool rt_weights_is_headers(const rt_weights *weights);
/* The tensor's bytes are at `data` from now on (NULL: nowhere again). */
void rt_weights_place(rt_weights *weights, const rt_weight *weight, const void *data);
const char *rt_weights_file_path(const rt_weights *weights, size_t file);
/* The same for the bytes of one file, which stay the caller's until the close; `name` stands for the
 * path in errors. */
rt_status rt_weights_open_memory(rt_weights **out, const void *data, size_t size, const char *name,
                                 rt_error *err);
void rt_weights_close(rt_weights *weights);
rt_weights_format rt_weights_get_format(const rt_weights *weights);
const char *rt_weights_path(const rt_weights *weights); /* as given */
size_t rt_weights_count(const rt_weights *weights);
const rt_weight *rt_weights_at(const rt_weights *weights, size_t index);
const rt_weight *rt_weights_find(const rt_weights *weights, const char *name); /* NULL: not there */

/* The types of GGUF metadata by their numbers in the file, with the bytes of a value (0: varies). */
#define RT_META_MAP(X)                                                                                       \
    X(U8, 0, 1)                                                                                              \
    X(I8, 1, 1)                                                                                              \
    X(U16, 2, 2)                                                                                             \
    X(I16, 3, 2)                                                                                             \
    X(U32, 4, 4)                                                                                             \
    X(I32, 5, 4)                                                                                             \
    X(F32, 6, 4) X(BOOL, 7, 1) X(STRING, 8, 0) X(ARRAY, 9, 0) X(U64, 10, 8) X(I64, 11, 8) X(F64, 12, 8)
typedef enum rt_meta_type {
#define RT_META_ENUM(name, number, bytes) RT_META_##name = (number),
    RT_META_MAP(RT_META_ENUM)
#undef RT_META_ENUM
        RT_META_COUNT
} rt_meta_type;

typedef struct rt_meta { /* one key and its value, as the file holds them; pointers are borrowed */
    const char *key;     /* key_size bytes, not NUL-terminated */
    size_t key_size;
    rt_meta_type type;
    rt_meta_type element; /* the type of an array's elements */
    size_t count;         /* elements of an array, bytes of a string, else 1 */
    const void *data; /* little-endian, unaligned: the number, the string's bytes, or the elements one after
                         the other */
    size_t bytes;
} rt_meta;
size_t rt_weights_meta_count(const rt_weights *weights);                    /* 0 for safetensors */
const rt_meta *rt_weights_meta_at(const rt_weights *weights, size_t index); /* in the file's order */

/* GGUF metadata; the getters return false when the key is absent or of another type.  Integers of
 * any width are widened; strings are borrowed (NOT NUL-terminated: length in *size). */
bool rt_weights_meta_string(const rt_weights *weights, const char *key, const char **data, size_t *size);
bool rt_weights_meta_u64(const rt_weights *weights, const char *key, uint64_t *out);
bool rt_weights_meta_f64(const rt_weights *weights, const char *key, double *out); /* integers too */
bool rt_weights_meta_bool(const rt_weights *weights, const char *key, bool *out);
/* Arrays: count, then elements by index in O(1), in any order and from any thread. */
bool rt_weights_meta_array(const rt_weights *weights, const char *key, size_t *count);
bool rt_weights_meta_array_string(const rt_weights *weights, const char *key, size_t index, const char **data,
                                  size_t *size);
bool rt_weights_meta_array_f64(const rt_weights *weights, const char *key, size_t index, double *out);
/* config.json of a safetensors folder; NULL when there is none (a lone file) or for GGUF. Borrowed. */
const json_t *rt_weights_config_json(const rt_weights *weights);

#endif
