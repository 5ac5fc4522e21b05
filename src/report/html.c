/* report/html.c - see html.h. */
#include "report/html.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

/* Marks, embeddings, overrides and isolates: with them a text can show something else than it says. */
static bool turns_direction(uint32_t c)
{
    return c == 0x200E || c == 0x200F || c == 0x061C || (c >= 0x202A && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069);
}

static bool is_control(uint32_t c) { return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7F && c < 0xA0); }

static const char *entity(uint32_t c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void rt_html_text(rt_text *out, const char *text, size_t size, size_t size_max)
{
    const size_t end = rt_size_min(size, size_max);
    size_t n = 0;
    for (size_t i = 0; i < size; i += n) {
        uint32_t c = rt_utf8_decode(text + i, size - i, &n);
        if (i + n > end) {
            rt_text_puts(out, "\xE2\x80\xA6");
            return;
        }
        if (is_control(c) || turns_direction(c))
            c = 0xFFFD;
        if (entity(c)) {
            rt_text_puts(out, entity(c));
        } else {
            char utf8[4];
            rt_text_append(out, utf8, rt_utf8_encode(c, utf8));
        }
    }
}

void rt_html_puts(rt_text *out, const char *text)
{
    const size_t size = strlen(text);
    rt_html_text(out, text, size, size);
}

/* A comma before every third digit of the integer part, in place. */
static void group_thousands(char text[RT_NUMBER_SIZE])
{
    const size_t start = text[0] == '-', digits = strspn(text + start, "0123456789");
    size_t size = strlen(text);
    for (size_t left = digits; left > 3; left -= 3) {
        if (size + 2 > RT_NUMBER_SIZE)
            return;
        char *at = text + start + left - 3;
        memmove(at + 1, at, size + 1 - (size_t)(at - text));
        *at = ',';
        size++;
    }
}

/* `value` with a number of decimals and a unit; a zero never has a sign. */
static void write_fixed(char out[RT_NUMBER_SIZE], double value, int decimals, const char *unit)
{
    if (fabs(value) >= 1e15) {
        (void)snprintf(out, RT_NUMBER_SIZE, "%.2e%s", value, unit);
        return;
    }
    (void)snprintf(out, RT_NUMBER_SIZE, "%.*f", decimals, value);
    if (out[0] == '-' && strspn(out + 1, "0.") == strlen(out + 1))
        memmove(out, out + 1, strlen(out));
    group_thousands(out);
    const size_t size = strlen(out);
    (void)snprintf(out + size, RT_NUMBER_SIZE - size, "%s", unit);
}

static int decimals_for(double magnitude)
{
    if (magnitude >= 99.95)
        return 0;
    if (magnitude >= 9.995)
        return 1;
    if (magnitude >= 0.9995)
        return 2;
    return 3;
}

typedef struct unit {
    double size;
    const char *name;
} unit;

#define NBSP "\xC2\xA0"
static const unit count_units[] = {
    {1e12, NBSP "T"}, {1e9, NBSP "G"}, {1e6, NBSP "M"}, {1e3, NBSP "k"}, {1, ""}};
static const unit byte_units[] = {
    {1e12, NBSP "TB"}, {1e9, NBSP "GB"}, {1e6, NBSP "MB"}, {1e3, NBSP "kB"}, {1, NBSP "B"}};
static const unit flops_units[] = {{1e12, NBSP "TFLOP/s"},
                                   {1e9, NBSP "GFLOP/s"},
                                   {1e6, NBSP "MFLOP/s"},
                                   {1e3, NBSP "kFLOP/s"},
                                   {1, NBSP "FLOP/s"}};

static const unit *unit_for(double magnitude, rt_number kind)
{
    const unit *units = kind == RT_NUMBER_BYTES   ? byte_units
                        : kind == RT_NUMBER_FLOPS ? flops_units
                                                  : count_units;
    size_t i = 0;
    while (i < 4 && magnitude < units[i].size * 0.9995)
        i++;
    return &units[i];
}

static void write_seconds(char out[RT_NUMBER_SIZE], double value)
{
    if (value < 60 || value >= 1e9) {
        write_fixed(out, value, value < 10 ? 1 : 0, NBSP "s");
        return;
    }
    const unsigned long seconds = (unsigned long)(value + 0.5);
    if (seconds < 3600)
        (void)snprintf(out, RT_NUMBER_SIZE, "%lu" NBSP "min %lu" NBSP "s", seconds / 60, seconds % 60);
    else
        (void)snprintf(out, RT_NUMBER_SIZE, "%lu" NBSP "h %lu" NBSP "min", seconds / 3600,
                       seconds % 3600 / 60);
}

void rt_number_format_like(char out[RT_NUMBER_SIZE], double value, double reference, rt_number kind)
{
    if (!isfinite(value)) {
        (void)snprintf(out, RT_NUMBER_SIZE, "\xE2\x80\x93");
        return;
    }
    const double magnitude = isfinite(reference) ? fabs(reference) : fabs(value);
    const unit *u;
    switch (kind) {
    case RT_NUMBER_PLAIN:
        u = unit_for(magnitude, RT_NUMBER_COUNT);
        if (magnitude < 1e5)
            write_fixed(out, value, decimals_for(magnitude), "");
        else
            write_fixed(out, value / u->size, decimals_for(magnitude / u->size), u->name);
        break;
    case RT_NUMBER_FLOPS:
        u = unit_for(magnitude, RT_NUMBER_FLOPS);
        write_fixed(out, value / u->size, decimals_for(magnitude / u->size), u->name);
        break;
    case RT_NUMBER_COUNT:
    case RT_NUMBER_BYTES:
        u = unit_for(magnitude, kind);
        write_fixed(out, value / u->size, u->size < 2 || magnitude >= u->size * 999.5 ? 0 : 1, u->name);
        break;
    case RT_NUMBER_SHARE:
        write_fixed(out, value * 100, 1, "%");
        break;
    case RT_NUMBER_INTEGER:
        write_fixed(out, value, 0, "");
        break;
    case RT_NUMBER_SECONDS:
        write_seconds(out, value);
        break;
    case RT_NUMBER_DIGITS:
        if (fabs(value) >= 1e4 && fabs(value) < 1e15 && value == rint(value))
            write_fixed(out, value, 0, "");
        else
            (void)snprintf(out, RT_NUMBER_SIZE, "%.6g", value);
        break;
    }
}

void rt_number_format(char out[RT_NUMBER_SIZE], double value, rt_number kind)
{
    rt_number_format_like(out, value, value, kind);
}

static int decimals_of_step(double step)
{
    int decimals = 0;
    for (; decimals < 6 && fabs(step - rint(step)) > 1e-6 * fabs(step); decimals++)
        step *= 10;
    return decimals;
}

void rt_number_format_tick(char out[RT_NUMBER_SIZE], double value, double step, double largest,
                           rt_number kind)
{
    if (kind == RT_NUMBER_SHARE) {
        write_fixed(out, value * 100, decimals_of_step(step * 100), "%");
    } else if (kind == RT_NUMBER_COUNT || kind == RT_NUMBER_BYTES) {
        const unit *u = unit_for(fabs(largest), kind);
        const bool zero = fabs(value) < step * 1e-6;
        write_fixed(out, value / u->size, zero ? 0 : decimals_of_step(step / u->size), zero ? "" : u->name);
    } else {
        write_fixed(out, value, decimals_of_step(step), "");
    }
}
