/* serve/json_out.h - writing JSON straight into a buffer: answers are made piece by piece, without a tree. */
#ifndef RT_SERVE_JSON_OUT_H
#define RT_SERVE_JSON_OUT_H

#include "base/text.h"

/* A string with its quotes; ill-formed UTF-8 becomes U+FFFD. */
void rt_json_string(rt_text *out, const char *data, size_t size);
void rt_json_cstring(rt_text *out, const char *string); /* NULL: null */
/* A finite number with the digits that a float needs; what is not finite is clamped to +-9999. */
void rt_json_float(rt_text *out, double value);

#endif
