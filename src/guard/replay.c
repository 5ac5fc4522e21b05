/* guard/replay.c - see replay.h.  Lines are taken from the unpacked file; one row is parsed at a time. */
#include "guard/replay.h"

#include <stdio.h>
#include <string.h>

#include "base/unpack.h"

static const size_t traffic_bytes_max = (size_t)16 << 30;

static rt_status one_row(rt_guard *guard, const char *line, size_t size, const char *where,
                         const rt_guard_replay_options *options, rt_guard_replay_counts *counts,
                         rt_error *err)
{
    rt_guard_row row;
    rt_guard_verdict verdict;
    if (rt_guard_row_parse(&row, line, size, where, err) != RT_OK) {
        counts->bad_rows++;
        return options->skip_bad && err->status == RT_CORRUPT ? RT_OK : err->status;
    }
    counts->rows++;
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
    for (size_t number = 1; status == RT_OK && line && line < end; number++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const size_t size = (size_t)((stop ? stop : end) - line);
        (void)snprintf(where, sizeof where, "%.120s:%zu", path, number);
        if (size)
            status = one_row(guard, line, size, where, options, counts, err);
        line = stop ? stop + 1 : end;
    }
    rt_text_deinit(&text);
    if (status == RT_OK && options->sweep_at_end)
        status = rt_guard_sweep(guard, 0, err);
    return status;
}
