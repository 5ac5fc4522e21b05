/* base/json.h - Jansson with the project's manners: bounded, duplicate keys refused, errors that say
 * where, files replaced atomically.  Jansson itself bounds the nesting (2,048 levels). */
#ifndef RT_BASE_JSON_H
#define RT_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

/* One JSON value from data[0..size) and nothing after it; `where` names it in errors ("where:line:
 * ...").  The caller owns the result.  A string with an escaped NUL is refused. */
rt_status rt_json_parse(json_t **out, const char *data, size_t size, const char *where, rt_error *err);
rt_status rt_json_read(json_t **out, const char *path, size_t size_max, rt_error *err);
/* Writes the file atomically, indented, numbers with the digits that a double needs. */
rt_status rt_json_write(const char *path, const json_t *json, rt_error *err);

/* A JSON string from any bytes: ill-formed UTF-8 and NUL become U+FFFD.  NULL when out of memory. */
json_t *rt_json_text(const char *data, size_t size);

/* Members of an object, by key.  RT_CORRUPT names `where` and the key when it is absent or of another
 * type; *out is then untouched. */
rt_status rt_json_get_string(const json_t *object, const char *key, const char **out, const char *where,
                             rt_error *err);
rt_status rt_json_get_size(const json_t *object, const char *key, size_t *out, const char *where,
                           rt_error *err);
rt_status rt_json_get_real(const json_t *object, const char *key, double *out, const char *where,
                           rt_error *err);

#endif
