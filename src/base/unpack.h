/* base/unpack.h - a text file read whole, unpacked when its name ends in .zst. */
#ifndef RT_BASE_UNPACK_H
#define RT_BASE_UNPACK_H

#include "base/text.h"

/* Appends the content of a file to `out`, whose size_max bounds what a .zst may unpack to (and what a
 * plain file may hold).  What a zstd header claims about the size is not trusted.  A byte order mark at the
 * start is no part of the text. */
rt_status rt_file_read_unpacked(rt_text *out, const char *path, rt_error *err);

#endif
