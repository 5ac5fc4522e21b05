/* report/table.c - see table.h. */
#include "report/table.h"

#include <math.h>

#include "report/html.h"

const char *rt_field_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

double rt_field_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

void rt_table_open(rt_text *out, const char *const *heads, size_t n)
{
    rt_text_puts(out, "<table class=\"results\"><thead><tr>");
    for (size_t i = 0; i < n; i++)
        rt_text_printf(out, "<th style=\"text-align:left\">%s</th>", heads[i]);
    rt_text_puts(out, "</tr></thead><tbody>\n");
}

void rt_table_close(rt_text *out) { rt_text_puts(out, "</tbody></table>\n"); }

void rt_table_cell(rt_text *out, const char *text)
{
    rt_text_puts(out, "<td style=\"text-align:left\">");
    rt_html_puts(out, text);
    rt_text_puts(out, "</td>");
}
