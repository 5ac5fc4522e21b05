/* model/safetensors_write.h - writes one safetensors file, a piece of data at a time.
 *
 * Open, declare every tensor, begin, give the data in the order of the declarations, commit.  The
 * file appears under its name only after a successful commit; after any failure before it, abort.
 * After commit or abort the writer is gone. */
#ifndef RT_MODEL_SAFETENSORS_WRITE_H
#define RT_MODEL_SAFETENSORS_WRITE_H

#include "retort/error.h"
#include "tensor/dtype.h"

typedef struct rt_safetensors_writer rt_safetensors_writer;

rt_status rt_safetensors_writer_open(rt_safetensors_writer **out, const char *path, rt_error *err);
/* Plain types only.  Declare wider types first: each tensor must begin at a multiple of its element's
 * size, which readers rely on, and the format has no padding. */
rt_status rt_safetensors_writer_tensor(rt_safetensors_writer *writer, const char *name, rt_dtype dtype,
                                       size_t n_dims, const size_t *shape, rt_error *err);
rt_status rt_safetensors_writer_begin(rt_safetensors_writer *writer, rt_error *err);
/* The next bytes, little-endian; one call stays within one tensor. */
rt_status rt_safetensors_writer_data(rt_safetensors_writer *writer, const void *data, size_t size,
                                     rt_error *err);
rt_status rt_safetensors_writer_commit(rt_safetensors_writer *writer, rt_error *err);
void rt_safetensors_writer_abort(rt_safetensors_writer *writer); /* NULL is allowed */

#endif
