/* model/template_builtins.c - filters, tests, functions and methods of chat templates, as Jinja and Python
 * have them. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/size.h"
#include "model/template_text.h"

enum { RANGE_MAX = 100000 };

/* ---- JSON as Python's json.dumps writes it, with ensure_ascii off ---- */

typedef struct dump_style {
    json_int_t indent; /* < 0: all on one line */
    const char *comma, *colon;
    bool ascii, sorted;
} dump_style;

static void dump_escaped(rt_text *out, uint32_t c)
{
    if (c >= 0x10000)
        rt_text_printf(out, "\\u%04x\\u%04x", 0xD800u + (unsigned)((c - 0x10000) >> 10),
                       0xDC00u + (unsigned)(c & 0x3FF));
    else
        rt_text_printf(out, "\\u%04x", (unsigned)c);
}

static void dump_string(rt_text *out, const char *s, size_t n, const dump_style *style)
{
    rt_text_puts(out, "\"");
    for (size_t i = 0, length; i < n; i += length) {
        const uint32_t c = rt_utf8_decode(s + i, n - i, &length);
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
        const char *known = c && c < 128 ? strchr(from, (int)c) : NULL;
        if (known)
            rt_text_printf(out, "\\%c", to[known - from]);
        else if (c < 0x20 || (style->ascii && c > 0x7E))
            dump_escaped(out, c);
        else
            rt_text_append(out, s + i, length);
    }
    rt_text_puts(out, "\"");
}

static void new_line(rt_text *out, const dump_style *style, size_t depth)
{
    if (style->indent < 0)
        return;
    rt_text_puts(out, "\n");
    for (json_int_t i = 0; i < style->indent * (json_int_t)depth && !out->failed; i++)
        rt_text_puts(out, " ");
}

static void dump(rt_text *out, const json_t *json, const dump_style *style, size_t depth);

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void dump_object(rt_text *out, const json_t *json, const dump_style *style, size_t depth)
{
    size_t count = 0;
    const char *key, **keys = malloc(json_object_size(json) * sizeof *keys);
    json_t *item;
    if (!keys) {
        out->failed = true;
        return;
    }
    json_object_foreach((json_t *)(size_t)json, key, item) keys[count++] = key;
    if (style->sorted)
        qsort(keys, count, sizeof *keys, by_name);
    rt_text_puts(out, "{");
    for (size_t i = 0; i < count && !out->failed; i++) {
        rt_text_puts(out, i ? style->comma : "");
        new_line(out, style, depth + 1);
        dump_string(out, keys[i], strlen(keys[i]), style);
        rt_text_puts(out, style->colon);
        dump(out, json_object_get(json, keys[i]), style, depth + 1);
    }
    new_line(out, style, depth);
    rt_text_puts(out, "}");
    free(keys);
}

static void dump(rt_text *out, const json_t *json, const dump_style *style, size_t depth)
{
    if (json_is_string(json)) {
        dump_string(out, json_string_value(json), json_string_length(json), style);
    } else if (json_is_array(json) && json_array_size(json)) {
        rt_text_puts(out, "[");
        for (size_t i = 0; i < json_array_size(json) && !out->failed; i++) {
            rt_text_puts(out, i ? style->comma : "");
            new_line(out, style, depth + 1);
            dump(out, json_array_get(json, i), style, depth + 1);
        }
        new_line(out, style, depth);
        rt_text_puts(out, "]");
    } else if (json_is_object(json) && json_object_size(json)) {
        dump_object(out, json, style, depth);
    } else if (json_is_boolean(json) || json_is_null(json)) {
        rt_text_puts(out, json_is_true(json) ? "true" : json_is_false(json) ? "false" : "null");
    } else if (json_is_array(json) || json_is_object(json)) {
        rt_text_puts(out, json_is_array(json) ? "[]" : "{}");
    } else {
        rt_value_repr(out, json);
    }
}

static rt_status to_json(evaluator *e, value *out, const value *in, const call_args *args, size_t line)
{
    const value *indent = rt_argument(args, TEMPLATE_ARGS_MAX, "indent");
    const value *separators = rt_argument(args, TEMPLATE_ARGS_MAX, "separators");
    const value *ascii = rt_argument(args, TEMPLATE_ARGS_MAX, "ensure_ascii");
    const value *sorted = rt_argument(args, TEMPLATE_ARGS_MAX, "sort_keys");
    const json_int_t width = indent && json_is_integer(indent->json) ? json_integer_value(indent->json) : -1;
    if (in->kind != VALUE_JSON)
        return rt_template_fail(e, line, "tojson of something that is undefined");
    dump_style style = {.indent = width > 32 ? 32 : width,
                        .comma = width < 0 ? ", " : ",",
                        .colon = ": ",
                        .ascii = ascii && rt_value_truthy(ascii),
                        .sorted = sorted && rt_value_truthy(sorted)};
    if (separators && json_is_array(separators->json)) {
        const char *comma = json_string_value(json_array_get(separators->json, 0)),
                   *colon = json_string_value(json_array_get(separators->json, 1));
        style.comma = comma ? comma : style.comma;
        style.colon = colon ? colon : style.colon;
    }
    rt_text text = {0};
    dump(&text, in->json, &style, 0);
    *out = rt_value_take_text(&text);
    return RT_OK;
}

static size_t length_of(const value *v)
{
    if (!is_text(v))
        return json_is_array(v->json) ? json_array_size(v->json) : json_object_size(v->json);
    size_t n = 0;
    for (size_t i = 0; i < size_of(v); i++)
        n += ((unsigned char)text_of(v)[i] & 0xC0) != 0x80;
    return n;
}

/* ---- lists ---- */

static json_t *pairs_of(const json_t *object)
{
    json_t *list = json_array();
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(size_t)object, key, item)(void)
        json_array_append_new(list, json_pack("[s, O]", key, item));
    return list;
}

/* A list of a list, a mapping's keys or a text's characters. */
static json_t *listed(const value *v)
{
    if (v->kind == VALUE_JSON && json_is_array(v->json))
        return json_copy(v->json);
    json_t *out = json_array();
    if (v->kind == VALUE_JSON && json_is_object(v->json)) {
        const char *key;
        json_t *item;
        json_object_foreach(v->json, key, item)(void) json_array_append_new(out, json_string(key));
    } else if (is_text(v)) {
        for (size_t at = 0, n; at < size_of(v); at += n) {
            (void)rt_utf8_decode(text_of(v) + at, size_of(v) - at, &n);
            (void)json_array_append_new(out, json_stringn(text_of(v) + at, n));
        }
    }
    return out;
}

/* Stable insertion by rt_value_order of the items, of one attribute, or of a pair's first. */
static rt_status sort_list(evaluator *e, json_t **list, const char *attribute, int part, bool reverse,
                           size_t line)
{
    json_t *sorted = json_array();
    for (size_t i = 0; i < json_array_size(*list); i++) {
        json_t *item = json_array_get(*list, i);
        size_t at = json_array_size(sorted);
        for (; at > 0; at--) {
            json_t *before = json_array_get(sorted, at - 1), *a = before, *b = item;
            if (attribute) {
                a = json_object_get(a, attribute);
                b = json_object_get(b, attribute);
            } else if (part >= 0) {
                a = json_array_get(a, (size_t)part);
                b = json_array_get(b, (size_t)part);
            }
            bool ok;
            const int order = rt_value_order(a, b, &ok);
            if (!ok) {
                json_decref(sorted);
                return rt_template_fail(e, line, "these items have no order");
            }
            if (reverse ? order >= 0 : order <= 0)
                break;
        }
        (void)json_array_insert(sorted, at, item);
    }
    json_decref(*list);
    *list = sorted;
    return RT_OK;
}

/* select, reject, selectattr, rejectattr */
static rt_status choose(evaluator *e, value *out, const value *in, const call_args *args, bool by_attribute,
                        bool keep, size_t line)
{
    json_t *items = listed(in), *kept = json_array();
    rt_status status = RT_OK;
    const size_t first = by_attribute ? 1 : 0;
    const value *attribute = by_attribute ? rt_argument(args, 0, "attribute") : NULL;
    if (by_attribute && !(attribute && is_text(attribute)))
        status = rt_template_fail(e, line, "selectattr needs the name of an attribute");
    for (size_t i = 0; i < json_array_size(items) && status == RT_OK; i++) {
        json_t *item = json_array_get(items, i), *looked_at = item;
        if (attribute)
            looked_at = json_object_get(item, text_of(attribute));
        const value v = {.kind = looked_at ? VALUE_JSON : VALUE_UNDEFINED, .json = looked_at};
        bool truth = rt_value_truthy(&v);
        if (args->count > first) {
            call_args rest = {0};
            for (size_t k = first + 1; k < args->count; k++)
                rest.positional[rest.count++] = args->positional[k];
            status = is_text(&args->positional[first])
                         ? rt_template_test(e, &truth, text_of(&args->positional[first]), &v, &rest, line)
                         : rt_template_fail(e, line, "a test's name is expected");
        }
        if (status == RT_OK && truth == keep)
            (void)json_array_append(kept, item);
    }
    json_decref(items);
    *out = rt_value_json(kept);
    return status;
}

static rt_status map_list(evaluator *e, value *out, const value *in, const call_args *args, size_t line)
{
    const value *attribute = rt_argument(args, TEMPLATE_ARGS_MAX, "attribute"),
                *fallback = rt_argument(args, TEMPLATE_ARGS_MAX, "default");
    json_t *items = listed(in), *made = json_array();
    rt_status status = RT_OK;
    for (size_t i = 0; i < json_array_size(items) && status == RT_OK; i++) {
        json_t *item = json_array_get(items, i);
        value v = {.kind = VALUE_JSON, .json = json_incref(item)};
        if (attribute && is_text(attribute)) {
            rt_value_drop(&v);
            json_t *part = json_object_get(item, text_of(attribute));
            v = part ? rt_value_json(json_incref(part)) : fallback ? rt_value_copy(fallback) : (value){0};
        } else if (args->count && is_text(&args->positional[0])) {
            value filtered = {0};
            call_args rest = {0};
            for (size_t k = 1; k < args->count; k++)
                rest.positional[rest.count++] = args->positional[k];
            status = rt_template_filter(e, &filtered, text_of(&args->positional[0]), &v, &rest, line);
            rt_value_drop(&v);
            v = filtered;
        } else {
            status = rt_template_fail(e, line, "map needs a filter's name or attribute=");
        }
        (void)json_array_append(made, v.kind == VALUE_JSON ? v.json : json_null());
        rt_value_drop(&v);
    }
    json_decref(items);
    *out = rt_value_json(made);
    return status;
}

static value unique(const value *in)
{
    json_t *items = listed(in), *made = json_array();
    for (size_t i = 0; i < json_array_size(items); i++) {
        bool seen = false;
        for (size_t k = 0; k < json_array_size(made) && !seen; k++)
            seen = json_equal(json_array_get(items, i), json_array_get(made, k)) == 1;
        if (!seen)
            (void)json_array_append(made, json_array_get(items, i));
    }
    json_decref(items);
    return rt_value_json(made);
}

static value to_number(const value *in, const call_args *args, bool whole)
{
    const value *fallback = rt_argument(args, 0, "default");
    double x = 0;
    bool ok = false;
    if (is_text(in)) {
        char *end;
        x = strtod(text_of(in), &end);
        ok = end != text_of(in) && *end == '\0' && isfinite(x);
    } else if (in->kind == VALUE_JSON && (json_is_number(in->json) || json_is_boolean(in->json))) {
        x = json_is_boolean(in->json) ? json_is_true(in->json) : json_number_value(in->json);
        ok = true;
    }
    if (!ok)
        return fallback ? rt_value_copy(fallback) : rt_value_json(whole ? json_integer(0) : json_real(0));
    return rt_value_json(whole ? json_integer((json_int_t)fmax(fmin(x, 9e15), -9e15)) : json_real(x));
}

/* ---- filters ---- */

static rt_status text_filter(evaluator *e, value *out, const char *name, const value *in,
                             const call_args *args, size_t line)
{
    value text = rt_value_copy(in);
    if (!is_text(in)) { /* these filters take str() of what they get */
        rt_text printed = {0};
        rt_value_print(&printed, in);
        rt_value_drop(&text);
        text = rt_value_take_text(&printed);
    }
    rt_status status = RT_OK;
    if (strcmp(name, "trim") == 0) {
        *out = rt_text_strip(&text, rt_argument(args, 0, "chars"), 3);
    } else if (strcmp(name, "indent") == 0) {
        *out = rt_text_indent(&text, args);
    } else if (strcmp(name, "replace") == 0) {
        const value *from = rt_argument(args, 0, "old"), *to = rt_argument(args, 1, "new"),
                    *most = rt_argument(args, 2, "count");
        if (from && to && is_text(from) && is_text(to))
            *out = rt_text_replace(&text, from, to,
                                   most && json_is_integer(most->json) ? json_integer_value(most->json) : -1);
        else
            status = rt_template_fail(e, line, "replace needs two texts");
    } else if (strcmp(name, "string") == 0 || strcmp(name, "safe") == 0) {
        *out = rt_value_copy(&text);
    } else {
        *out = rt_text_change_case(&text, name[0]); /* upper, lower, title, capitalize */
    }
    rt_value_drop(&text);
    return status;
}

static rt_status list_filter(evaluator *e, value *out, const char *name, const value *in,
                             const call_args *args, size_t line)
{
    json_t *items = listed(in);
    rt_status status = RT_OK;
    const size_t n = json_array_size(items);
    if (strcmp(name, "first") == 0 || strcmp(name, "last") == 0) {
        *out = n ? rt_value_json(json_incref(json_array_get(items, name[0] == 'f' ? 0 : n - 1))) : (value){0};
    } else if (strcmp(name, "join") == 0) {
        *out = rt_text_join(items, rt_argument(args, 0, "d"), rt_argument(args, 1, "attribute"));
    } else if (strcmp(name, "reverse") == 0) {
        json_t *turned = json_array();
        for (size_t i = n; i-- > 0;)
            (void)json_array_append(turned, json_array_get(items, i));
        *out = rt_value_json(turned);
    } else if (strcmp(name, "sort") == 0) {
        const value *attribute = rt_argument(args, 2, "attribute");
        status = sort_list(e, &items, attribute && is_text(attribute) ? text_of(attribute) : NULL, -1,
                           flag_of(args, 0, "reverse"), line);
        *out = rt_value_json(json_incref(items));
    } else if (strcmp(name, "list") == 0) {
        *out = rt_value_json(json_incref(items));
    } else { /* sum, min, max of numbers */
        json_t *best = NULL;
        double sum = 0;
        bool whole = true, ok = true;
        for (size_t i = 0; i < n && ok; i++) {
            json_t *item = json_array_get(items, i);
            sum += json_number_value(item);
            whole = whole && json_is_integer(item);
            const int order = best ? rt_value_order(item, best, &ok) : 0;
            if (!best || (name[1] == 'i' ? order < 0 : order > 0))
                best = item;
        }
        if (name[0] == 's')
            *out = rt_value_json(whole ? json_integer((json_int_t)sum) : json_real(sum));
        else
            *out = rt_value_json(json_incref(best));
        if (!ok)
            status = rt_template_fail(e, line, "these items have no order");
    }
    json_decref(items);
    return status;
}

static bool one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

rt_status rt_template_filter(evaluator *e, value *out, const char *name, const value *in,
                             const call_args *args, size_t line)
{
    static const char *const text[] = {"trim",  "indent", "replace", "string",    "safe",
                                       "upper", "lower",  "title",   "capitalize"};
    static const char *const list[] = {"first", "last", "join", "reverse", "sort",
                                       "list",  "sum",  "min",  "max"};
    *out = (value){0};
    if (strcmp(name, "default") == 0 || strcmp(name, "d") == 0) {
        const value *fallback = rt_argument(args, 0, "default_value");
        const bool use = in->kind == VALUE_UNDEFINED || (flag_of(args, 1, "boolean") && !rt_value_truthy(in));
        *out = !use ? rt_value_copy(in) : fallback ? rt_value_copy(fallback) : rt_value_text("", 0);
        return RT_OK;
    }
    if (strcmp(name, "tojson") == 0)
        return to_json(e, out, in, args, line);
    if (one_of(name, text, sizeof text / sizeof text[0]))
        return text_filter(e, out, name, in, args, line);
    if (strcmp(name, "length") == 0 || strcmp(name, "count") == 0) {
        const bool counts = in->kind == VALUE_JSON && !json_is_number(in->json) &&
                            !json_is_boolean(in->json) && !json_is_null(in->json);
        if (!counts && in->kind != VALUE_UNDEFINED)
            return rt_template_fail(e, line, "this has no length");
        *out = rt_value_json(json_integer(counts ? (json_int_t)length_of(in) : 0));
        return RT_OK;
    }
    if (one_of(name, list, sizeof list / sizeof list[0]))
        return list_filter(e, out, name, in, args, line);
    if (strcmp(name, "items") == 0 || strcmp(name, "dictsort") == 0) {
        if (in->kind == VALUE_JSON && !json_is_object(in->json))
            return rt_template_fail(e, line, "%s needs a mapping", name);
        json_t *pairs = in->kind == VALUE_JSON ? pairs_of(in->json) : json_array();
        const rt_status status = name[0] == 'd' ? sort_list(e, &pairs, NULL, 0, false, line) : RT_OK;
        *out = rt_value_json(pairs);
        return status;
    }
    if (strcmp(name, "int") == 0 || strcmp(name, "float") == 0) {
        *out = to_number(in, args, name[0] == 'i');
        return RT_OK;
    }
    if (strcmp(name, "abs") == 0 && in->kind == VALUE_JSON && json_is_number(in->json)) {
        const json_int_t n = json_integer_value(in->json);
        *out = rt_value_json(json_is_integer(in->json) ? json_integer(n < 0 && n > INT64_MIN ? -n : n)
                                                       : json_real(fabs(json_real_value(in->json))));
        return RT_OK;
    }
    if (strcmp(name, "unique") == 0) {
        *out = unique(in);
        return RT_OK;
    }
    if (strcmp(name, "map") == 0)
        return map_list(e, out, in, args, line);
    static const char *const choosers[] = {"select", "reject", "selectattr", "rejectattr"};
    if (one_of(name, choosers, 4))
        return choose(e, out, in, args, strlen(name) > 6, name[0] == 's', line);
    (void)rt_template_fail(e, line, "the filter '%s' is not supported", name);
    return RT_UNSUPPORTED;
}

/* ---- tests ---- */

static bool number_test(const char *name, const value *in, bool *out)
{
    const json_t *j = in->kind == VALUE_JSON ? in->json : NULL;
    const json_int_t n = json_integer_value(j);
    if (strcmp(name, "odd") == 0)
        *out = json_is_integer(j) && n % 2 != 0;
    else if (strcmp(name, "even") == 0)
        *out = json_is_integer(j) && n % 2 == 0;
    else
        return false;
    return true;
}

static bool type_test(const char *name, const value *in, bool *out)
{
    const json_t *j = in->kind == VALUE_JSON ? in->json : NULL;
    const struct {
        const char *name;
        bool holds;
    } tests[] = {
        {"defined", in->kind != VALUE_UNDEFINED},
        {"undefined", in->kind == VALUE_UNDEFINED},
        {"none", json_is_null(j)},
        {"string", json_is_string(j)},
        {"mapping", json_is_object(j)},
        {"iterable", json_is_array(j) || json_is_object(j) || json_is_string(j)},
        {"sequence", json_is_array(j) || json_is_object(j) || json_is_string(j)},
        {"number", json_is_number(j) || json_is_boolean(j)},
        {"integer", json_is_integer(j)},
        {"float", json_is_real(j)},
        {"boolean", json_is_boolean(j)},
        {"true", json_is_true(j)},
        {"false", json_is_false(j)},
        {"callable", in->kind == VALUE_MACRO || in->kind == VALUE_FUNCTION},
    };
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (strcmp(name, tests[i].name) == 0) {
            *out = tests[i].holds;
            return true;
        }
    }
    return number_test(name, in, out);
}

rt_status rt_template_test(evaluator *e, bool *out, const char *name, const value *in, const call_args *args,
                           size_t line)
{
    *out = false;
    if (type_test(name, in, out))
        return RT_OK;
    const value *other = args->count ? &args->positional[0] : NULL;
    if (!other)
        return rt_template_fail(e, line, "the test '%s' is not supported, or needs an argument", name);
    static const char *const equal[] = {"equalto", "eq", "sameas"}, *const unequal[] = {"ne"};
    if (one_of(name, equal, 3) || one_of(name, unequal, 1)) {
        *out = rt_value_equal(in, other) != (name[0] == 'n');
        return RT_OK;
    }
    if (strcmp(name, "in") == 0) {
        for (size_t i = 0; i < json_array_size(other->json) && !*out; i++) {
            const value item = {.kind = VALUE_JSON, .json = json_array_get(other->json, i)};
            *out = rt_value_equal(in, &item);
        }
        if (is_text(other) && is_text(in))
            *out = memmem(text_of(other), size_of(other), text_of(in), size_of(in)) != NULL;
        if (other->kind == VALUE_JSON && json_is_object(other->json) && is_text(in))
            *out = json_object_get(other->json, text_of(in)) != NULL;
        return RT_OK;
    }
    if (strcmp(name, "divisibleby") == 0 && in->kind == VALUE_JSON && json_integer_value(other->json)) {
        const json_int_t by = json_integer_value(other->json);
        *out = by == -1 || json_integer_value(in->json) % by == 0;
        return RT_OK;
    }
    static const char *const orders[] = {"gt", "ge", "lt", "le", "greaterthan", "lessthan"};
    if (one_of(name, orders, 6) && in->kind == VALUE_JSON && other->kind == VALUE_JSON) {
        bool ok;
        const int order = rt_value_order(in->json, other->json, &ok);
        *out = ok && (name[0] == 'g' ? order > 0 : order < 0);
        *out = *out || (ok && order == 0 && name[1] == 'e');
        return RT_OK;
    }
    return rt_template_fail(e, line, "the test '%s' is not supported", name);
}

/* ---- functions ---- */

enum { FUNCTION_RAISE, FUNCTION_STRFTIME, FUNCTION_RANGE, FUNCTION_NAMESPACE, FUNCTION_DICT };
static const char *const functions[] = {"raise_exception", "strftime_now", "range", "namespace", "dict"};

int rt_template_function_index(const char *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (strcmp(name, functions[i]) == 0)
            return (int)i;
    return -1;
}

static rt_status range_of(evaluator *e, value *out, const call_args *args, size_t line)
{
    json_int_t bounds[3] = {0, 0, 1};
    for (size_t i = 0; i < args->count && i < 3; i++) {
        if (!json_is_integer(args->positional[i].json))
            return rt_template_fail(e, line, "range needs whole numbers");
        bounds[i] = json_integer_value(args->positional[i].json);
    }
    if (args->count == 1) {
        bounds[1] = bounds[0];
        bounds[0] = 0;
    }
    if (bounds[2] == 0 || args->count == 0)
        return rt_template_fail(e, line, "range needs an end and a step that is not 0");
    json_t *list = json_array();
    for (json_int_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];
         i = __builtin_add_overflow(i, bounds[2], &i) ? bounds[1] : i) {
        if (json_array_size(list) >= RANGE_MAX) {
            json_decref(list);
            return rt_template_fail(e, line, "a range of more than %d is not supported", (int)RANGE_MAX);
        }
        (void)json_array_append_new(list, json_integer(i));
    }
    *out = rt_value_json(list);
    return rt_template_charge(e, list, line);
}

rt_status rt_template_function(evaluator *e, value *out, int index, const call_args *args, size_t line)
{
    *out = (value){0};
    if (index == FUNCTION_RANGE)
        return range_of(e, out, args, line);
    if (index == FUNCTION_RAISE)
        return rt_template_fail(e, line, "%.300s",
                                args->count && is_text(&args->positional[0]) ? text_of(&args->positional[0])
                                                                             : "it gives up");
    if (index == FUNCTION_STRFTIME) {
        char text[256] = "";
        const time_t now = time(NULL);
        struct tm local;
        if (args->count && is_text(&args->positional[0]))
            (void)strftime(text, sizeof text, text_of(&args->positional[0]), localtime_r(&now, &local));
        *out = rt_value_text(text, strlen(text));
        return RT_OK;
    }
    json_t *object = args->count && json_is_object(args->positional[0].json)
                         ? json_copy(args->positional[0].json)
                         : json_object();
    for (size_t i = 0; i < args->n_named; i++)
        (void)json_object_set(object, args->names[i],
                              args->named[i].kind == VALUE_JSON ? args->named[i].json : json_null());
    *out = rt_value_json(object);
    if (index == FUNCTION_NAMESPACE)
        out->kind = VALUE_NAMESPACE;
    return RT_OK;
}

/* ---- methods ---- */

static rt_status mapping_method(evaluator *e, value *out, const value *object, const char *name,
                                const call_args *args, size_t line)
{
    json_t *list = NULL;
    if (strcmp(name, "get") == 0) {
        json_t *item = args->count && is_text(&args->positional[0])
                           ? json_object_get(object->json, text_of(&args->positional[0]))
                           : NULL;
        *out = item              ? rt_value_json(json_incref(item))
               : args->count > 1 ? rt_value_copy(&args->positional[1])
                                 : rt_value_json(json_null());
        return RT_OK;
    }
    if (strcmp(name, "items") == 0) {
        list = pairs_of(object->json);
    } else if (strcmp(name, "keys") == 0) {
        list = listed(object);
    } else if (strcmp(name, "values") == 0) {
        const char *key;
        json_t *item;
        list = json_array();
        json_object_foreach(object->json, key, item)(void) json_array_append(list, item);
    } else {
        return rt_template_fail(e, line, "the method '%s' of a mapping is not supported", name);
    }
    *out = rt_value_json(list);
    return RT_OK;
}

rt_status rt_template_method(evaluator *e, value *out, const value *object, const char *name,
                             const call_args *args, size_t line)
{
    *out = (value){0};
    if (is_text(object))
        return rt_text_method(e, out, object, name, args, line);
    if (object->kind == VALUE_JSON && json_is_object(object->json))
        return mapping_method(e, out, object, name, args, line);
    if (object->kind == VALUE_JSON && json_is_array(object->json) && args->count == 1 &&
        args->positional[0].kind == VALUE_JSON) {
        const json_t *item = args->positional[0].json;
        if (strcmp(name, "append") == 0) { /* a copy: a list can never come to hold itself */
            const rt_status status = rt_template_charge(e, item, line);
            if (status != RT_OK)
                return status;
            (void)json_array_append_new(object->json, json_deep_copy(item));
            *out = rt_value_json(json_null());
            return RT_OK;
        }
        if (strcmp(name, "index") == 0 || strcmp(name, "count") == 0) {
            json_int_t count = 0, where = -1;
            for (size_t i = 0; i < json_array_size(object->json); i++)
                if (json_equal(json_array_get(object->json, i), (json_t *)(size_t)item) == 1 && count++ == 0)
                    where = (json_int_t)i;
            if (name[0] == 'i' && where < 0)
                return rt_template_fail(e, line, "the item is not in the list");
            *out = rt_value_json(json_integer(name[0] == 'i' ? where : count));
            return RT_OK;
        }
    }
    return rt_template_fail(e, line, "the method '%s' is not supported here", name);
}
