/* base/error.c - the table of statuses and the sentence that goes with a failure. */
#include "retort/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct status_row {
    const char *name, *text;
    int http, exit_code;
} status_row;

static const status_row rows[] = {
#define RT_STATUS_ROW(name, value, http, exit_code, text) [value] = {#name, text, http, exit_code},
    RT_STATUS_MAP(RT_STATUS_ROW)
#undef RT_STATUS_ROW
};

static const status_row *row_of(rt_status status)
{
    const size_t index = (size_t)status;
    return &rows[index < sizeof rows / sizeof rows[0] ? index : (size_t)RT_INTERNAL];
}

rt_status rt_error_set(rt_error *err, rt_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    err->status = status;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return status;
}

rt_status rt_error_within(rt_error *err, const char *what)
{
    char inner[sizeof err->text];
    memcpy(inner, err->text, sizeof inner);
    (void)snprintf(err->text, sizeof err->text, "%.200s: %.300s", what, inner);
    return err->status;
}

const char *rt_status_name(rt_status status) { return row_of(status)->name; }
const char *rt_status_text(rt_status status) { return row_of(status)->text; }
int rt_status_exit_code(rt_status status) { return row_of(status)->exit_code; }
int rt_status_http(rt_status status) { return row_of(status)->http; }
