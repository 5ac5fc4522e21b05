/* outputs/lines.h - the lines of a text file one after another, unpacked when its name ends in .zst.
 *
 * Memory is that of the longest line; a file may be larger than memory. */
#ifndef RT_OUTPUTS_LINES_H
#define RT_OUTPUTS_LINES_H

#include "base/text.h"

enum { RT_LINE_BYTES_MAX = 256 << 20 };

typedef struct rt_lines rt_lines;
rt_status rt_lines_open(rt_lines **out, const char *path, rt_error *err);
/* The next line without its end, borrowed until the next call; *line NULL at the end of the file.  `whole`:
 * it ended in a newline. */
rt_status rt_lines_next(rt_lines *lines, const char **line, size_t *size, bool *whole, rt_error *err);
size_t rt_lines_number(const rt_lines *lines); /* of the last line, from 1 */
void rt_lines_close(rt_lines *lines);

#endif
