/* model/template_text.c - see template_text.h. */
#include "model/template_text.h"

#include <ctype.h>
#include <string.h>

#include <utf8proc.h>

#include "base/size.h"

value rt_value_take_text(rt_text *text)
{
    const value out = rt_value_text(text->data, text->size);
    rt_text_deinit(text);
    return out;
}

static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F);
}

static bool in_set(char c, const value *set)
{
    return set && is_text(set) ? memchr(text_of(set), c, size_of(set)) != NULL : is_space((unsigned char)c);
}

/* sides: 1 left, 2 right */
value rt_text_strip(const value *in, const value *set, int sides)
{
    size_t from = 0, to = size_of(in);
    while ((sides & 1) && from < to && in_set(text_of(in)[from], set))
        from++;
    while ((sides & 2) && to > from && in_set(text_of(in)[to - 1], set))
        to--;
    return rt_value_text(text_of(in) + from, to - from);
}

/* Character by character; a letter that becomes two in capitals (the German sharp s) stays as it is. */
value rt_text_change_case(const value *in, int mode) /* 'u', 'l', 't'itle, 'c'apitalize */
{
    rt_text out = {0};
    bool inside = false;
    for (size_t i = 0, n; i < size_of(in); i += n) {
        const utf8proc_int32_t c = (utf8proc_int32_t)rt_utf8_decode(text_of(in) + i, size_of(in) - i, &n);
        const bool up = mode == 'u' || (mode == 't' && !inside) || (mode == 'c' && i == 0);
        char utf8[4];
        const utf8proc_int32_t changed = up ? utf8proc_toupper(c) : utf8proc_tolower(c);
        inside = utf8proc_tolower(c) != c || utf8proc_toupper(c) != c;
        rt_text_append(&out, utf8, rt_utf8_encode((uint32_t)changed, utf8));
    }
    return rt_value_take_text(&out);
}

value rt_text_replace(const value *in, const value *from, const value *to, json_int_t most)
{
    rt_text out = {0};
    const char *at = text_of(in), *end = at + size_of(in);
    const size_t n = size_of(from);
    while (at < end && most != 0 && n) {
        const char *hit = memmem(at, (size_t)(end - at), text_of(from), n);
        if (!hit)
            break;
        rt_text_append(&out, at, (size_t)(hit - at));
        rt_text_append(&out, text_of(to), size_of(to));
        at = hit + n;
        most--;
    }
    rt_text_append(&out, at, (size_t)(end - at));
    return rt_value_take_text(&out);
}

static value split_on(const value *in, const value *by, json_int_t most)
{
    json_t *parts = json_array();
    const char *at = text_of(in), *end = at + size_of(in);
    if (by && is_text(by) && size_of(by)) {
        for (const char *hit; most != 0 && (hit = memmem(at, (size_t)(end - at), text_of(by), size_of(by)));
             most--) {
            (void)json_array_append_new(parts, json_stringn(at, (size_t)(hit - at)));
            at = hit + size_of(by);
        }
        (void)json_array_append_new(parts, json_stringn(at, (size_t)(end - at)));
        return rt_value_json(parts);
    }
    for (;; most--) { /* runs of white space */
        while (at < end && is_space((unsigned char)*at))
            at++;
        if (at == end)
            break;
        const char *stop = at;
        while (stop < end && (most == 0 || !is_space((unsigned char)*stop)))
            stop++;
        (void)json_array_append_new(parts, json_stringn(at, (size_t)(stop - at)));
        at = stop;
    }
    return rt_value_json(parts);
}

static value split_lines(const value *in)
{
    json_t *parts = json_array();
    const char *at = text_of(in), *end = at + size_of(in);
    while (at < end) {
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        (void)json_array_append_new(parts, json_stringn(at, (size_t)(stop - at)));
        at = stop + (stop < end) + (stop + 1 < end && stop[0] == '\r' && stop[1] == '\n');
    }
    return rt_value_json(parts);
}

value rt_text_join(const json_t *items, const value *by, const value *attribute)
{
    rt_text out = {0};
    for (size_t i = 0; i < json_array_size(items); i++) {
        json_t *item = json_array_get(items, i);
        if (attribute && is_text(attribute))
            item = json_object_get(item, text_of(attribute));
        const value v = {.kind = item ? VALUE_JSON : VALUE_UNDEFINED, .json = item};
        if (i && by)
            rt_value_print(&out, by);
        rt_value_print(&out, &v);
    }
    return rt_value_take_text(&out);
}

value rt_text_indent(const value *in, const call_args *args)
{
    const value *width = rt_argument(args, 0, "width");
    const json_int_t n = width && json_is_integer(width->json) ? json_integer_value(width->json) : 4;
    const bool first = flag_of(args, 1, "first"), blank = flag_of(args, 2, "blank");
    rt_text out = {0};
    const char *at = text_of(in), *end = at + size_of(in);
    for (bool is_first = true; at < end || is_first; is_first = false) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        if (is_first ? first : blank || stop > at) {
            if (width && is_text(width))
                rt_value_print(&out, width);
            else
                for (json_int_t i = 0; i < n && i < 256; i++)
                    rt_text_puts(&out, " ");
        }
        rt_text_append(&out, at, (size_t)(stop - at) + (newline != NULL));
        at = newline ? newline + 1 : end;
        if (!newline)
            break;
    }
    return rt_value_take_text(&out);
}

static size_t characters(const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* From the right: at most `most` cuts. */
static value split_from_right(const value *in, const value *by, json_int_t most)
{
    json_t *parts = json_array();
    size_t end = size_of(in);
    for (size_t at = end; most > 0 && at-- > 0;) {
        if (end - at < size_of(by) || memcmp(text_of(in) + at, text_of(by), size_of(by)) != 0)
            continue;
        const size_t from = at + size_of(by);
        (void)json_array_insert_new(parts, 0, json_stringn(text_of(in) + from, end - from));
        end = at;
        most--;
    }
    (void)json_array_insert_new(parts, 0, json_stringn(text_of(in), end));
    return rt_value_json(parts);
}

static bool affix(const value *in, const value *what, bool at_end)
{
    if (json_is_array(what->json)) { /* a tuple: any of them */
        for (size_t i = 0; i < json_array_size(what->json); i++) {
            const value one = {.kind = VALUE_JSON, .json = json_array_get(what->json, i)};
            if (is_text(&one) && affix(in, &one, at_end))
                return true;
        }
        return false;
    }
    if (!is_text(what) || size_of(what) > size_of(in))
        return false;
    return memcmp(text_of(in) + (at_end ? size_of(in) - size_of(what) : 0), text_of(what), size_of(what)) ==
           0;
}

rt_status rt_text_method(evaluator *e, value *out, const value *in, const char *name, const call_args *args,
                         size_t line)
{
    const value *first = args->count ? &args->positional[0] : NULL,
                *second = args->count > 1 ? &args->positional[1] : NULL;
    const value *limit = rt_argument(args, 1, "maxsplit");
    const json_int_t most = limit && json_is_integer(limit->json) ? json_integer_value(limit->json) : -1;
    static const struct {
        const char *name;
        int mode;
    } cases[] = {{"upper", 'u'}, {"lower", 'l'}, {"title", 't'}, {"capitalize", 'c'}},
      strips[] = {{"strip", 3}, {"lstrip", 1}, {"rstrip", 2}};
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(name, cases[i].name) == 0) {
            *out = rt_text_change_case(in, cases[i].mode);
            return RT_OK;
        }
    }
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(name, strips[i].name) == 0) {
            *out = rt_text_strip(in, first, strips[i].mode);
            return RT_OK;
        }
    }
    if (strcmp(name, "split") == 0) {
        *out = split_on(in, first, most);
    } else if (strcmp(name, "splitlines") == 0) {
        *out = split_lines(in);
    } else if (strcmp(name, "rsplit") == 0 && most < 0) {
        *out = split_on(in, first, -1);
    } else if (first && (strcmp(name, "startswith") == 0 || strcmp(name, "endswith") == 0)) {
        *out = rt_value_json(json_boolean(affix(in, first, name[0] == 'e')));
    } else if (first && second && strcmp(name, "replace") == 0 && is_text(first) && is_text(second)) {
        const value *count = args->count > 2 ? &args->positional[2] : NULL;
        *out = rt_text_replace(in, first, second,
                               count && json_is_integer(count->json) ? json_integer_value(count->json) : -1);
    } else if (first && strcmp(name, "join") == 0 && json_is_array(first->json)) {
        *out = rt_text_join(first->json, in, NULL);
    } else if (first && is_text(first) && (strcmp(name, "find") == 0 || strcmp(name, "count") == 0)) {
        const char *at = text_of(in), *hit;
        json_int_t count = 0, where = -1; /* in characters */
        const size_t n = rt_size_max(size_of(first), 1);
        while ((hit = memmem(at, size_of(in) - (size_t)(at - text_of(in)), text_of(first), size_of(first)))) {
            if (count++ == 0)
                where = (json_int_t)characters(text_of(in), (size_t)(hit - text_of(in)));
            at = hit + n;
            if (at > text_of(in) + size_of(in))
                break;
        }
        *out = rt_value_json(json_integer(name[0] == 'f' ? where : count));
    } else if (first && is_text(first) && size_of(first) && strcmp(name, "rsplit") == 0) {
        *out = split_from_right(in, first, most);
    } else if (first && (strcmp(name, "removeprefix") == 0 || strcmp(name, "removesuffix") == 0)) {
        const bool at_end = name[6] == 's';
        const size_t cut = is_text(first) && affix(in, first, at_end) ? size_of(first) : 0;
        *out = rt_value_text(text_of(in) + (at_end ? 0 : cut), size_of(in) - cut);
    } else if (strcmp(name, "isdigit") == 0) {
        bool digits = size_of(in) > 0;
        for (size_t i = 0; i < size_of(in); i++)
            digits = digits && isdigit((unsigned char)text_of(in)[i]);
        *out = rt_value_json(json_boolean(digits));
    } else {
        return rt_template_fail(e, line, "the method '%s' of a text is not supported with these arguments",
                                name);
    }
    return RT_OK;
}
