/* report/html.h - text that is safe to put into a page, and numbers as people write them.
 *
 * Everything that comes from a file goes through rt_html_text: models write whatever they like,
 * and a page that is opened in a browser must not run it. */
#ifndef RT_REPORT_HTML_H
#define RT_REPORT_HTML_H

#include <stddef.h>

#include "base/text.h"

/* Appends text escaped for element content and for quoted attributes.  Ill-formed UTF-8, control
 * characters other than tab and line feed, and characters that turn the direction of what follows become
 * U+FFFD.  Text longer than size_max bytes is cut between characters and ends in an ellipsis. */
void rt_html_text(rt_text *out, const char *text, size_t size, size_t size_max);
void rt_html_puts(rt_text *out, const char *text); /* the same, whole and NUL-terminated */

typedef enum rt_number {
    RT_NUMBER_PLAIN, /* three significant digits, thousands apart: 1,234  12.3  0.123; from 100,000 on 1.51 M
                      */
    RT_NUMBER_COUNT, /* 204.8 k, 63.7 M */
    RT_NUMBER_SHARE, /* 0.443 as 44.3% */
    RT_NUMBER_BYTES, /* 98.4 MB, powers of ten */
    RT_NUMBER_FLOPS, /* 417 GFLOP/s */
    RT_NUMBER_INTEGER, /* 204,800 */
    RT_NUMBER_SECONDS, /* 10 min 40 s */
    RT_NUMBER_DIGITS,  /* as many digits as it needs, up to six: 0.0006 */
} rt_number;

enum { RT_NUMBER_SIZE = 48 }; /* bytes that any formatted number fits in */

/* Writes `value`; what is not finite is a dash. */
void rt_number_format(char out[RT_NUMBER_SIZE], double value, rt_number kind);
/* The same with the digits and the unit that suit `reference`, so that an interval lines up with its value.
 */
void rt_number_format_like(char out[RT_NUMBER_SIZE], double value, double reference, rt_number kind);
/* A tick on an axis whose ticks are `step` apart and reach up to `largest`. */
void rt_number_format_tick(char out[RT_NUMBER_SIZE], double value, double step, double largest,
                           rt_number kind);

#endif
