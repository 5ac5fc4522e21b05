/* model/stream_read.h - reading parts of files ahead of their use, in a thread of its own.  For stream.c. */
#ifndef RT_MODEL_STREAM_READ_H
#define RT_MODEL_STREAM_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

enum { RT_READ_ALIGN = 4096 }; /* of offsets, sizes and memory, for reads past the page cache */

typedef struct rt_span { /* [begin, begin + size) of a file, aligned */
    size_t file, begin, size;
} rt_span;

typedef struct rt_read_files rt_read_files;
rt_status rt_read_files_open(rt_read_files **out, const char *const *paths, size_t n, rt_error *err);
void rt_read_files_close(rt_read_files *files);
bool rt_read_files_direct(const rt_read_files *files); /* past the page cache so far */
/* Reads a span into memory that is aligned alike; the end of the file may cut it short, *got tells.  From one
 * thread at a time. */
rt_status rt_read_span(rt_read_files *files, const rt_span *span, void *out, size_t *got, rt_error *err);

#endif
