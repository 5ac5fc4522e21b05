/* model/gguf_write.h - writes one GGUF file (version 3), a piece of data at a time.
 *
 * Open, put metadata and declare every tensor in any order, begin, give the data in the order of the
 * declarations, commit.  The file appears under its name only after a successful commit; after any
 * failure before it, abort.  After commit or abort the writer is gone.
 *
 * The functions that put metadata return nothing: a failure is kept and reported by begin. */
#ifndef RT_MODEL_GGUF_WRITE_H
#define RT_MODEL_GGUF_WRITE_H

#include "model/weights.h"

typedef struct rt_gguf_writer rt_gguf_writer;

rt_status rt_gguf_writer_open(rt_gguf_writer **out, const char *path, rt_error *err);

/* An entry as rt_weights_meta_at lends it; general.alignment is obeyed. */
void rt_gguf_writer_put(rt_gguf_writer *writer, const rt_meta *meta);
void rt_gguf_writer_string(rt_gguf_writer *writer, const char *key, const char *value);
void rt_gguf_writer_u32(rt_gguf_writer *writer, const char *key, uint32_t value);
void rt_gguf_writer_f32(rt_gguf_writer *writer, const char *key, float value);
void rt_gguf_writer_bool(rt_gguf_writer *writer, const char *key, bool value);
/* An array of numbers: `count` values of the type at `values`. */
void rt_gguf_writer_numbers(rt_gguf_writer *writer, const char *key, rt_meta_type element, const void *values,
                            size_t count);
/* An array of strings: its head, then each of the `count` strings, before anything else is put. */
void rt_gguf_writer_strings(rt_gguf_writer *writer, const char *key, size_t count);
void rt_gguf_writer_strings_add(rt_gguf_writer *writer, const char *data, size_t size);

/* shape is row-major, as in rt_weight; rows of a block type are whole blocks. */
rt_status rt_gguf_writer_tensor(rt_gguf_writer *writer, const char *name, rt_dtype dtype, size_t n_dims,
                                const size_t *shape, rt_error *err);
rt_status rt_gguf_writer_begin(rt_gguf_writer *writer, rt_error *err);
/* The next bytes as the file holds them; one call stays within one tensor. */
rt_status rt_gguf_writer_data(rt_gguf_writer *writer, const void *data, size_t size, rt_error *err);
rt_status rt_gguf_writer_commit(rt_gguf_writer *writer, rt_error *err);
void rt_gguf_writer_abort(rt_gguf_writer *writer); /* NULL is allowed */

#endif
