/* serve/fields.c - see fields.h. */
#include "serve/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { DEPTH_MAX = 64 };

/* Brackets outside of strings; a text that is not JSON fails later. */
static bool too_deep(const char *data, size_t size)
{
    size_t depth = 0;
    bool inside = false;
    for (size_t i = 0; i < size; i++) {
        const char c = data[i];
        if (inside) {
            if (c == '\\')
                i++;
            else if (c == '"')
                inside = false;
        } else if (c == '"') {
            inside = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX)
                return true;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return false;
}

bool rt_body_parse(json_t **out, const char *data, size_t size, rt_fault *fault)
{
    rt_error err = {0};
    *out = NULL;
    if (too_deep(data, size))
        return rt_fault_invalid(fault, "invalid_json", NULL,
                                "the body's JSON is nested more than %d levels deep", DEPTH_MAX);
    if (rt_json_parse(out, data, size, "body", &err) != RT_OK) {
        if (err.status == RT_NO_MEMORY)
            return rt_fault_set(fault, 503, "server_error", "overloaded",
                                "there is no memory for the request");
        /* the parser's sentence may quote the text near the error, and prompts are never echoed: the kinds of
         * fault that it quotes nothing for are told, the others not */
        const bool twice = strstr(err.text, "duplicate object key") != NULL;
        return rt_fault_invalid(fault, "invalid_json", NULL, "the body is not valid JSON%s",
                                twice ? ": a key stands twice in an object" : "");
    }
    if (json_is_object(*out))
        return true;
    json_decref(*out);
    *out = NULL;
    return rt_fault_invalid(fault, "invalid_json", NULL, "the body is not a JSON object");
}

json_t *rt_member(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

bool rt_field_bool(const json_t *object, const char *key, bool *out, rt_fault *fault)
{
    const json_t *value = rt_member(object, key);
    if (!value)
        return true;
    if (!json_is_boolean(value))
        return rt_fault_invalid(fault, "invalid_value", key, "'%s' must be true or false", key);
    *out = json_is_true(value);
    return true;
}

bool rt_field_real(const json_t *object, const char *key, double low, double high, double *out,
                   rt_fault *fault)
{
    const json_t *value = rt_member(object, key);
    if (!value)
        return true;
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= low && number <= high))
        return rt_fault_invalid(fault, "invalid_value", key, "'%s' must be a number from %g to %g", key, low,
                                high);
    *out = number;
    return true;
}

bool rt_field_int(const json_t *object, const char *key, int64_t low, int64_t high, int64_t *out,
                  rt_fault *fault)
{
    const json_t *value = rt_member(object, key);
    if (!value)
        return true;
    int64_t number = json_integer_value(value);
    bool whole = json_is_integer(value);
    if (json_is_real(value)) { /* 5.0 is what some clients make of 5 */
        const double real = json_real_value(value);
        whole = real >= -0x1p53 && real <= 0x1p53 && real == (double)(int64_t)real;
        number = whole ? (int64_t)real : 0;
    }
    if (!whole || number < low || number > high) {
        if (high == INT64_MAX)
            return rt_fault_invalid(fault, "invalid_value", key, "'%s' must be a whole number, at least %lld",
                                    key, (long long)low);
        return rt_fault_invalid(fault, "invalid_value", key, "'%s' must be a whole number from %lld to %lld",
                                key, (long long)low, (long long)high);
    }
    *out = number;
    return true;
}

bool rt_field_string(const json_t *object, const char *key, const char **out, rt_fault *fault)
{
    const json_t *value = rt_member(object, key);
    if (!value)
        return true;
    if (!json_is_string(value))
        return rt_fault_invalid(fault, "invalid_value", key, "'%s' must be a string", key);
    *out = json_string_value(value);
    return true;
}

bool rt_field_ids(const json_t *list, const char *path, size_t n_vocab, int32_t **ids, size_t *count,
                  rt_fault *fault)
{
    const size_t n = json_array_size(list);
    int32_t *out = malloc((n + 1) * sizeof *out);
    if (!out)
        return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        const json_int_t id = json_integer_value(one);
        if (json_is_integer(one) && id >= 0 && (uint64_t)id < n_vocab) {
            out[i] = (int32_t)id;
            continue;
        }
        free(out);
        char where[96];
        (void)snprintf(where, sizeof where, "%.60s[%zu]", path, i);
        return rt_fault_invalid(fault, "invalid_value", where,
                                "'%s' must be a token id: a whole number below %zu", where, n_vocab);
    }
    *ids = out;
    *count = n;
    return true;
}
