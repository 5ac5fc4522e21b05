/* report/table.h - the small pieces of a page that is built from JSON: fields that may be missing, and
 * tables. */
#ifndef RT_REPORT_TABLE_H
#define RT_REPORT_TABLE_H

#include <jansson.h>

#include "base/text.h"

const char *rt_field_text(const json_t *object, const char *key); /* "" where it is missing or no text */
double rt_field_number(const json_t *object, const char *key);    /* NAN where it is missing or no number */

/* heads [n] are trusted, a cell's text is escaped. */
void rt_table_open(rt_text *out, const char *const *heads, size_t n);
void rt_table_close(rt_text *out);
void rt_table_cell(rt_text *out, const char *text);

#endif
