/* outputs/append.h - a new file that only grows, piece by piece, each on the disk before it counts.  Internal
 * to the room.
 *
 * The file is made at the first piece.  A piece that cannot be written whole is cut off again; a torn one
 * that stays (the process was killed) is not missed, because the formats tell whole pieces from torn ones. */
#ifndef RT_OUTPUTS_APPEND_H
#define RT_OUTPUTS_APPEND_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct append_file {
    int fd; /* -1: not made yet */
    char *path;
    uint64_t size; /* bytes that are whole */
} append_file;

rt_status append_init(append_file *file, const char *path, rt_error *err);
void append_deinit(append_file *file); /* closes */
/* Two parts one after the other (either may be empty), flushed to the disk.  RT_IO says why not: the file is
 * as before, and the same call may be tried again. */
rt_status append_write(append_file *file, const void *first, size_t first_size, const void *second,
                       size_t second_size, rt_error *err);

#endif
