/* model/row_source.h - a matrix of a file whose rows are read when they are needed: an embedding or a head
 * that does not fit in memory.  For the model room. */
#ifndef RT_MODEL_ROW_SOURCE_H
#define RT_MODEL_ROW_SOURCE_H

#include "model/decoder.h"

enum { RT_ROW_TILE = 1024 }; /* rows that are read and multiplied together */

typedef struct rt_row_source rt_row_source;
/* packed: rows are multiplied as quantised blocks, else widened to the activation type. */
rt_status rt_row_source_open(rt_row_source **out, const char *path, const rt_weight *weight, bool packed,
                             rt_dtype act, unsigned n_threads, rt_error *err);
void rt_row_source_close(rt_row_source *source);
size_t rt_row_source_bytes(const rt_row_source *source); /* memory that it holds */
/* One row, as rt_qmat_row or a widened matrix would give it. */
void rt_row_source_row(rt_row_source *source, size_t row, float *out);
/* rt_proj_mul for these rows. */
void rt_row_source_mul(rt_row_source *source, const void *operand, size_t ld, size_t n, size_t row_begin,
                       size_t row_end, void *out, size_t ldo, rt_dtype out_type, bool add);
/* A read that failed: the rows were taken as zeros. */
rt_status rt_row_source_check(const rt_row_source *source, rt_error *err);

#endif
