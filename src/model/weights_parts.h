/* model/weights_parts.h - what the readers of GGUF and safetensors share; for weights.c, gguf*.c and
 * safetensors*.c only.
 *
 * A reader appends tensors to a list while it checks the file; memory grows with what was read and
 * never with what a header claims. */
#ifndef RT_MODEL_WEIGHTS_PARTS_H
#define RT_MODEL_WEIGHTS_PARTS_H

#include "base/file.h"
#include "model/name_index.h"
#include "model/weights.h"

enum { RT_TENSOR_NAME_MAX = 1024 }; /* bytes; real names stay below 100 */

typedef struct rt_meta_list {
    rt_meta *list;
    size_t **marks; /* [count]; for an array of strings the offset of each 32nd in its data, else NULL */
    size_t count, capacity;
    rt_name_index index;
} rt_meta_list;

struct rt_weights {
    rt_weights_format format;
    char *path;
    rt_file *files; /* maps */
    char **paths;   /* of the files */
    size_t n_files;
    size_t header_max; /* 0: whole files are mapped; else at most so many bytes of each */
    size_t whole;      /* size of the file being read, when only its beginning is mapped; else 0 */
    bool cut_short;    /* a file was mapped in part: a failure may come from that */
    void **vectors;    /* [count] of tensors that were read at once */
    rt_weight *list;
    size_t count, capacity;
    rt_name_index index;
    rt_meta_list meta;
    json_t *config;
};

/* Appends a tensor (the name is copied) after checking name and shape; `weight->bytes` is computed and
 * must lie within the `data_size` bytes at `data` from `offset`. */
rt_status rt_weights_append(rt_weights *weights, const char *name, size_t name_size, const rt_weight *weight,
                            const unsigned char *data, size_t data_size, size_t offset, rt_error *err);
/* Checks that no two of the tensors from `first` on share bytes; whole: nor leave any of data[0..size)
 * unused. */
rt_status rt_weights_check_layout(const rt_weights *weights, size_t first, const unsigned char *data,
                                  size_t size, bool whole, rt_error *err);

/* Each reads one whole file and appends its tensors. */
rt_status rt_gguf_read(rt_weights *weights, const unsigned char *data, size_t size, rt_error *err);
rt_status rt_safetensors_read(rt_weights *weights, const unsigned char *data, size_t size, rt_error *err);
/* Opens the shards that an index names in the folder. */
rt_status rt_safetensors_read_index(rt_weights *weights, const char *dir, const char *index_path,
                                    rt_error *err);
/* Maps a file, keeps the map in `weights`, and lends it until the next one; NULL on failure. */
const rt_file *rt_weights_map(rt_weights *weights, const char *path, rt_error *err);
void rt_meta_list_deinit(rt_meta_list *meta);

#endif
