/* model/template_value.c - values of a chat template: truth, order, and how Python prints them. */
#include <math.h>
#include <string.h>

#include "model/template_ast.h"

value rt_value_json(json_t *json)
{
    return (value){.kind = json ? VALUE_JSON : VALUE_UNDEFINED, .json = json};
}

value rt_value_text(const char *data, size_t size)
{
    return rt_value_json(json_stringn(data ? data : "", size));
}

value rt_value_copy(const value *v)
{
    value out = *v;
    out.json = json_incref(v->json);
    return out;
}

void rt_value_drop(value *v)
{
    json_decref(v->json);
    *v = (value){0};
}

bool rt_value_truthy(const value *v)
{
    if (v->kind != VALUE_JSON)
        return v->kind != VALUE_UNDEFINED;
    switch (json_typeof(v->json)) {
    case JSON_NULL:
    case JSON_FALSE:
        return false;
    case JSON_STRING:
        return json_string_length(v->json) > 0;
    case JSON_ARRAY:
        return json_array_size(v->json) > 0;
    case JSON_OBJECT:
        return json_object_size(v->json) > 0;
    case JSON_INTEGER:
        return json_integer_value(v->json) != 0;
    case JSON_REAL:
        return json_real_value(v->json) != 0;
    default:
        return true;
    }
}

static void print_real(rt_text *out, double x)
{
    char digits[40];
    if (isnan(x) || isinf(x)) {
        rt_text_puts(out, isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
        return;
    }
    int precision = 0;
    do /* the shortest form that gives the number back, as Python's repr */
        (void)snprintf(digits, sizeof digits, "%.*e", precision, x);
    while (strtod(digits, NULL) != x && ++precision < 17);
    const char *e = strchr(digits, 'e');
    const int exponent = e ? (int)strtol(e + 1, NULL, 10) : 0;
    if (exponent >= -4 && exponent < 16)
        rt_text_printf(out, "%.*f", precision > exponent ? precision - exponent : 1, x);
    else
        rt_text_puts(out, digits);
}

static void repr_string(rt_text *out, const char *s, size_t n)
{
    const char quote = memchr(s, '\'', n) && !memchr(s, '"', n) ? '"' : '\'';
    rt_text_append(out, &quote, 1);
    for (size_t i = 0; i < n; i++) {
        const char c = s[i];
        if (c == quote || c == '\\') {
            rt_text_printf(out, "\\%c", c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            rt_text_puts(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if ((unsigned char)c < 0x20 || c == 0x7F) {
            rt_text_printf(out, "\\x%02x", (unsigned)(unsigned char)c);
        } else {
            rt_text_append(out, &c, 1);
        }
    }
    rt_text_append(out, &quote, 1);
}

void rt_value_repr(rt_text *out, const json_t *json)
{
    if (json_is_string(json)) {
        repr_string(out, json_string_value(json), json_string_length(json));
    } else if (json_is_array(json)) {
        rt_text_puts(out, "[");
        for (size_t i = 0; i < json_array_size(json) && !out->failed; i++) {
            rt_text_puts(out, i ? ", " : "");
            rt_value_repr(out, json_array_get(json, i));
        }
        rt_text_puts(out, "]");
    } else if (json_is_object(json)) {
        const char *comma = "", *key;
        size_t size;
        json_t *item;
        rt_text_puts(out, "{");
        json_object_keylen_foreach((json_t *)(size_t)json, key, size, item)
        {
            rt_text_puts(out, comma);
            repr_string(out, key, size);
            rt_text_puts(out, ": ");
            rt_value_repr(out, item);
            comma = ", ";
        }
        rt_text_puts(out, "}");
    } else if (json_is_integer(json)) {
        rt_text_printf(out, "%lld", (long long)json_integer_value(json));
    } else if (json_is_real(json)) {
        print_real(out, json_real_value(json));
    } else {
        rt_text_puts(out, json_is_true(json) ? "True" : json_is_false(json) ? "False" : "None");
    }
}

void rt_value_print(rt_text *out, const value *v)
{
    if (v->kind != VALUE_JSON)
        return; /* an undefined value prints as nothing */
    if (json_is_string(v->json))
        rt_text_append(out, json_string_value(v->json), json_string_length(v->json));
    else
        rt_value_repr(out, v->json);
}

static bool is_numeric(const json_t *j) { return json_is_number(j) || json_is_boolean(j); }
static double number_of(const json_t *j)
{
    return json_is_boolean(j) ? json_is_true(j) : json_number_value(j);
}

int rt_value_order(const json_t *a, const json_t *b, bool *ok)
{
    *ok = true;
    if (is_numeric(a) && is_numeric(b)) {
        const double x = number_of(a), y = number_of(b);
        return (x > y) - (x < y);
    }
    if (json_is_string(a) && json_is_string(b)) {
        const size_t n = json_string_length(a), m = json_string_length(b);
        const int order = memcmp(json_string_value(a), json_string_value(b), n < m ? n : m);
        return order ? (order > 0) - (order < 0) : (n > m) - (n < m);
    }
    *ok = false;
    return 0;
}

bool rt_value_equal(const value *a, const value *b)
{
    if (a->kind != VALUE_JSON || b->kind != VALUE_JSON)
        return a->kind == b->kind && a->kind == VALUE_UNDEFINED;
    if (is_numeric(a->json) && is_numeric(b->json))
        return number_of(a->json) == number_of(b->json);
    return json_equal(a->json, b->json) == 1;
}

const value *rt_argument(const call_args *args, size_t position, const char *name)
{
    if (position < args->count)
        return &args->positional[position];
    for (size_t i = 0; i < args->n_named; i++)
        if (strcmp(args->names[i], name) == 0)
            return &args->named[i];
    return NULL;
}
