/* fuzz/fuzz_text_rows.c - any bytes as a file of text rows (zstd frames of JSON lines). */
#include <stdint.h>

#include "outputs/text_rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rt_status on_line(void *context, const char *line, size_t size, rt_error *err)
{
    json_t *row;
    (void)context;
    if (rt_json_parse(&row, line, size, "row", err) == RT_OK)
        json_decref(row);
    return RT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_error err = {0};
    (void)text_lines(data, size, on_line, NULL, NULL, NULL, &err);
    return 0;
}
