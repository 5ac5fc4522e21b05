/* serve/json_out.c - see json_out.h. */
#include "serve/json_out.h"

#include <math.h>
#include <string.h>

void rt_json_string(rt_text *out, const char *data, size_t size)
{
    rt_text_append(out, "\"", 1);
    size_t from = 0, n;
    for (size_t i = 0; i < size; i += n) {
        const unsigned char c = (unsigned char)data[i];
        n = 1;
        if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\')
            continue;
        if (c >= 0x80) {
            const uint32_t code = rt_utf8_decode(data + i, size - i, &n);
            if (code != 0xFFFD)
                continue;
        }
        rt_text_append(out, data + from, i - from);
        from = i + n;
        if (c >= 0x80)
            rt_text_puts(out, "\xEF\xBF\xBD");
        else if (c == '"' || c == '\\')
            rt_text_printf(out, "\\%c", c);
        else if (c == '\n')
            rt_text_puts(out, "\\n");
        else
            rt_text_printf(out, "\\u%04x", c);
    }
    rt_text_append(out, data + from, size - from);
    rt_text_append(out, "\"", 1);
}

void rt_json_cstring(rt_text *out, const char *string)
{
    if (string)
        rt_json_string(out, string, strlen(string));
    else
        rt_text_puts(out, "null");
}

void rt_json_float(rt_text *out, double value)
{
    const double bound = 9999;
    rt_text_printf(out, "%.9g", isfinite(value) ? value : value > 0 ? bound : -bound);
}
