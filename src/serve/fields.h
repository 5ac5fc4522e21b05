/* serve/fields.h - reading the members of a request's JSON: types, ranges, and the error that names the path.
 *
 * null counts as absent.  Each returns false with *fault set when the member is there and wrong; when it is
 * absent *out stays as it was. */
#ifndef RT_SERVE_FIELDS_H
#define RT_SERVE_FIELDS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/fault.h"

/* One JSON object from a body: strict UTF-8, no NaN, no duplicate keys, nothing after it, at most 64 levels.
 */
bool rt_body_parse(json_t **out, const char *data, size_t size, rt_fault *fault);
/* A member that is there and not null, else NULL. */
json_t *rt_member(const json_t *object, const char *key);
bool rt_field_bool(const json_t *object, const char *key, bool *out, rt_fault *fault);
bool rt_field_real(const json_t *object, const char *key, double low, double high, double *out,
                   rt_fault *fault);
bool rt_field_int(const json_t *object, const char *key, int64_t low, int64_t high, int64_t *out,
                  rt_fault *fault);
bool rt_field_string(const json_t *object, const char *key, const char **out, rt_fault *fault);
/* Token ids, each below n_vocab; *ids malloc'ed. */
bool rt_field_ids(const json_t *list, const char *path, size_t n_vocab, int32_t **ids, size_t *count,
                  rt_fault *fault);

#endif
