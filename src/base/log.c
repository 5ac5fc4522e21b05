/* base/log.c - see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static struct {
    rt_log_sink sink;
    void *context;
    rt_log_level lowest;
} target;

void rt_log_set(rt_log_sink sink, void *context, rt_log_level lowest)
{
    target.sink = sink;
    target.context = context;
    target.lowest = lowest;
}

void rt_log(rt_log_level level, const char *fmt, ...)
{
    if (!target.sink || level < target.lowest)
        return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    target.sink(target.context, level, text);
}
