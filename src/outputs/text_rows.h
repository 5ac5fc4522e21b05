/* outputs/text_rows.h - text rows: JSON objects, one a line, in zstd frames that end with a whole row.
 * Internal to the room. */
#ifndef RT_OUTPUTS_TEXT_ROWS_H
#define RT_OUTPUTS_TEXT_ROWS_H

#include <zstd.h>

#include "base/json.h"
#include "base/text.h"
#include "outputs/append.h"
#include "outputs/rls_file.h"

enum {
    TEXT_FRAME_BYTES = 1 << 20, /* a frame is written when so much waits */
    TEXT_ROW_MAX = 32 << 20,    /* bytes of a row */
    TEXT_FRAME_MAX = 64 << 20,  /* what a frame may unpack to */
};
#define TEXT_FILE_BYTES ((uint64_t)64 << 20) /* then another file is begun */

typedef struct text_writer {
    append_file file;
    rt_text waiting, packed;
    uint64_t n_rows; /* flushed or waiting */
    ZSTD_CCtx *zstd;
} text_writer;

rt_status text_writer_init(text_writer *writer, const char *path, rt_error *err);
/* Appends a line to those that wait. */
rt_status text_writer_add(text_writer *writer, const json_t *row, rt_error *err);
/* The same for a line that is JSON already. */
rt_status text_writer_add_line(text_writer *writer, const char *line, size_t size, rt_error *err);
rt_status text_writer_flush(text_writer *writer, rt_error *err); /* durable when it has returned */
void text_writer_deinit(text_writer *writer);                    /* drops what was not flushed */

/* One line without its newline; it need not be valid JSON.  Anything but RT_OK stops. */
typedef rt_status (*text_line_fn)(void *context, const char *line, size_t size, rt_error *err);
/* Every whole line of data[0..size), a .jsonl.zst file.  A frame that is cut gives the lines that are whole
 * in it; one whose checksum is wrong gives none; both are told to `damage` (may be NULL). */
rt_status text_lines(const unsigned char *data, size_t size, text_line_fn line_fn, void *context,
                     rls_damage_fn damage, void *damage_context, rt_error *err);

#endif
