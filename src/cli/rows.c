/* cli/rows.c - see rows.h. */
#include "cli/rows.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/unpack.h"

rt_status cli_rows_read(json_t **out, const char *path, rt_error *err)
{
    rt_text data = {.size_max = (size_t)1 << 30};
    *out = NULL;
    rt_status status = rt_file_read_unpacked(&data, path, err);
    json_t *rows = json_array();
    size_t line = 0;
    for (const char *at = data.data, *end = data.data ? data.data + data.size : NULL;
         status == RT_OK && at && at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline ? newline : end) - at);
        char where[320];
        json_t *row = NULL;
        (void)snprintf(where, sizeof where, "%.280s:%zu", path, ++line);
        if (length > 0 && strspn(at, " \t\r") < length) {
            status = rt_json_parse(&row, at, length, where, err);
            if (status == RT_OK)
                (void)json_array_append_new(rows, row);
        }
        at += length + 1;
    }
    rt_text_deinit(&data);
    if (status == RT_OK)
        *out = rows;
    else
        json_decref(rows);
    return status;
}
