/* guard/replay.c - see replay.h.  Lines are taken from the unpacked file; one row is parsed at a time. */
#include "guard/replay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/unpack.h"

static const size_t traffic_bytes_max = (size_t)16 << 30;

static rt_status one_row(rt_guard *guard, const char *line, size_t size, const char *where,
                         const rt_guard_replay_options *options, rt_guard_replay_counts *counts,
                         double *last_ts, rt_error *err)
{
    rt_guard_row row;
    rt_guard_verdict verdict;
    if (rt_guard_row_parse(&row, line, size, where, err) != RT_OK) {
        counts->bad_rows++;
        return options->skip_bad && err->status == RT_CORRUPT ? RT_OK : err->status;
    }
    counts->rows++;
    *last_ts = row.event.ts;
    rt_status status = RT_OK;
    if (!options->ladders && rt_guard_sweep_due(guard, row.event.ts))
        status = rt_guard_sweep(guard, row.event.ts, err);
    if (status == RT_OK)
        status = options->ladders ? rt_ladders_feed(options->ladders, &row.event, &verdict, err)
                                  : rt_guard_observe(guard, &row.event, &verdict, err);
    if (status == RT_OK && options->on_verdict)
        options->on_verdict(options->context, &row.event, &verdict);
    rt_guard_row_deinit(&row);
    return status;
}

rt_status rt_guard_replay(rt_guard *guard, const char *path, const rt_guard_replay_options *options,
                          rt_guard_replay_counts *counts, rt_error *err)
{
    rt_text text = {.size_max = traffic_bytes_max};
    *counts = (rt_guard_replay_counts){0};
    rt_status status = rt_file_read_unpacked(&text, path, err);
    const char *line = text.data, *const end = text.data + text.size;
    char where[160];
    double last_ts = 0;
    for (size_t number = 1; status == RT_OK && line && line < end; number++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const size_t size = (size_t)((stop ? stop : end) - line);
        (void)snprintf(where, sizeof where, "%.120s:%zu", path, number);
        if (size)
            status = one_row(guard, line, size, where, options, counts, &last_ts, err);
        line = stop ? stop + 1 : end;
    }
    rt_text_deinit(&text);
    if (status == RT_OK && options->sweep_at_end)
        status = rt_guard_sweep(guard, 0, err);
    if (status == RT_OK && options->sweep_at_end && options->ladders)
        rt_ladders_decide_all(options->ladders, last_ts);
    return status;
}

enum { KEY_DIGITS = 16 };

rt_status rt_guard_key_beside(uint64_t *key, const char *path, rt_error *err)
{
    rt_text name = {0};
    char *data = NULL;
    size_t size = 0;
    *key = 0;
    rt_text_printf(&name, "%s.key", path);
    if (name.failed)
        return rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for its key", path);
    rt_status status = rt_path_exists(name.data) ? rt_file_read(&data, &size, name.data, 64, err) : RT_OK;
    if (data && (size < KEY_DIGITS || strspn(data, "0123456789abcdef") != KEY_DIGITS))
        status =
            rt_error_set(err, RT_CORRUPT, "%.200s: must hold %d hexadecimal digits", name.data, KEY_DIGITS);
    else if (data)
        *key = strtoull(data, NULL, 16);
    free(data);
    rt_text_deinit(&name);
    return status;
}

rt_status rt_guard_key_write_beside(uint64_t key, const char *path, rt_error *err)
{
    rt_text name = {0};
    char digits[KEY_DIGITS + 2];
    rt_text_printf(&name, "%s.key", path);
    const int size = snprintf(digits, sizeof digits, "%016" PRIx64 "\n", key);
    const rt_status status = name.failed
                                 ? rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for its key", path)
                                 : rt_file_write(name.data, digits, (size_t)size, err);
    rt_text_deinit(&name);
    return status;
}
