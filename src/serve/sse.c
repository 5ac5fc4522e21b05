/* serve/sse.c - see sse.h. */
#include "serve/sse.h"

#include <string.h>

enum { DEPTH_MAX = 64, OBJECT_TOKENS = 8, IMAGE_TOKENS = 2000 };

/* The end of the first event in data[from..size): after its blank line; 0 when it is not there.  Lines end
 * with LF or CR LF. */
static size_t event_end(const char *data, size_t size, size_t from)
{
    for (size_t i = from; i < size; i++) {
        const char *lf = memchr(data + i, '\n', size - i);
        if (!lf)
            return 0;
        i = (size_t)(lf - data);
        if (i + 1 < size && data[i + 1] == '\n')
            return i + 2;
        if (i + 2 < size && data[i + 1] == '\r' && data[i + 2] == '\n')
            return i + 3;
    }
    return 0;
}

bool rt_sse_feed(rt_sse *sse, const char *data, size_t size, rt_sse_fn fn, void *context)
{
    size_t at = 0;
    if (sse->held.size > 0) { /* a border may lie across the two parts */
        const size_t from = sse->held.size > 2 ? sse->held.size - 2 : 0;
        rt_text_append(&sse->held, data, size);
        if (sse->held.failed)
            return false;
        const size_t end = event_end(sse->held.data, sse->held.size, from);
        if (end == 0) {
            if (sse->held.size > RT_SSE_EVENT_MAX) {
                fn(context, sse->held.data, sse->held.size, false);
                rt_text_clear(&sse->held);
            }
            return true;
        }
        at = size - (sse->held.size - end);
        fn(context, sse->held.data, end, true);
        rt_text_clear(&sse->held);
    }
    for (size_t end; at < size && (end = event_end(data, size, at)) > 0; at = end)
        fn(context, data + at, end - at, true);
    rt_text_append(&sse->held, data + at, size - at);
    return !sse->held.failed;
}

void rt_sse_rest(rt_sse *sse, rt_sse_fn fn, void *context)
{
    if (sse->held.size > 0)
        fn(context, sse->held.data, sse->held.size, false);
    rt_text_clear(&sse->held);
}

void rt_sse_deinit(rt_sse *sse) { rt_text_deinit(&sse->held); }

const char *rt_sse_data(const char *bytes, size_t size, size_t *data_size)
{
    for (size_t at = 0; at < size;) {
        const char *lf = memchr(bytes + at, '\n', size - at);
        size_t end = lf ? (size_t)(lf - bytes) : size;
        const size_t next = end + 1;
        if (end > at && bytes[end - 1] == '\r')
            end--;
        if (end - at >= 5 && memcmp(bytes + at, "data:", 5) == 0) {
            at += 5;
            if (at < end && bytes[at] == ' ')
                at++;
            *data_size = end - at;
            return bytes + at;
        }
        at = next;
    }
    *data_size = 0;
    return NULL;
}

static int64_t count_of(const json_t *object, const char *key, const char *other)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        value = json_object_get(object, other);
    return json_is_integer(value) && json_integer_value(value) > 0 ? json_integer_value(value) : 0;
}

/* ---- a member of an object, found without making a tree of the whole: answers are long ---- */

typedef struct span {
    const char *data;
    size_t size;
} span;

static size_t skip_blank(span text, size_t at)
{
    while (at < text.size && strchr(" \t\r\n", text.data[at]) && text.data[at])
        at++;
    return at;
}

/* at: the opening quote; the place after the closing one. */
static size_t string_end(span text, size_t at)
{
    for (at++; at < text.size && text.data[at] != '"'; at++)
        at += text.data[at] == '\\';
    return at < text.size ? at + 1 : text.size;
}

static size_t value_end(span text, size_t at)
{
    size_t depth = 0;
    while (at < text.size) {
        const char c = text.data[at];
        if (c == '"') {
            at = string_end(text, at);
        } else {
            if (depth == 0 && (c == ',' || c == '}' || c == ']'))
                return at;
            depth += c == '{' || c == '[';
            depth -= c == '}' || c == ']';
            at++;
        }
        if (depth == 0 && (c == '"' || c == '}' || c == ']'))
            return at;
    }
    return at;
}

/* The value of the last member of this name; size 0: there is none.  Strings and brackets are followed, and
 * nothing else is checked. */
static span member_of(span object, const char *key)
{
    span found = {0};
    const size_t key_size = strlen(key);
    size_t at = skip_blank(object, 0);
    if (at >= object.size || object.data[at] != '{')
        return found;
    for (at = skip_blank(object, at + 1); at < object.size && object.data[at] == '"';) {
        const size_t name = at + 1, end = string_end(object, at);
        at = skip_blank(object, end);
        if (at >= object.size || object.data[at] != ':')
            break;
        const size_t value = skip_blank(object, at + 1);
        at = value_end(object, value);
        if (end - name == key_size + 1 && memcmp(object.data + name, key, key_size) == 0)
            found = (span){object.data + value, at - value};
        at = skip_blank(object, at);
        if (at >= object.size || object.data[at] != ',')
            break;
        at = skip_blank(object, at + 1);
    }
    return found;
}

static bool begins_with(span value, char c) { return value.size > 0 && value.data[0] == c; }

void rt_usage_read(rt_sse_usage *usage, const char *data, size_t size, bool *only_usage)
{
    const span whole = {data, size};
    span found = member_of(whole, "usage");
    *only_usage = false;
    if (!begins_with(found, '{'))
        found = member_of(member_of(whole, "response"), "usage");
    json_t *json = begins_with(found, '{') ? json_loadb(found.data, found.size, 0, NULL) : NULL;
    if (!json)
        return;
    const json_t *details = json_object_get(json, "prompt_tokens_details");
    if (!details)
        details = json_object_get(json, "input_tokens_details");
    *usage = (rt_sse_usage){.input = count_of(json, "prompt_tokens", "input_tokens"),
                            .cached = count_of(details, "cached_tokens", "cached_tokens"),
                            .output = count_of(json, "completion_tokens", "output_tokens"),
                            .there = true};
    json_decref(json);
    const span choices = member_of(whole, "choices");
    *only_usage = begins_with(choices, '[') && choices.data[choices.size - 1] == ']' &&
                  skip_blank(choices, 1) == choices.size - 1;
}

size_t rt_chunk_text_bytes(const char *data, size_t size)
{
    static const char *const keys[] = {
        "\"content\":", "\"text\":", "\"reasoning_content\":", "\"arguments\":", "\"delta\":"};
    static const char named[] = "\"response.", delta[] = ".delta\"";
    size_t bytes = 0;
    const span type =
        memmem(data, size, named, sizeof named - 1) ? member_of((span){data, size}, "type") : (span){0};
    if (type.size >= sizeof named - 1 && memcmp(type.data, named, sizeof named - 1) == 0 &&
        !(type.size > sizeof delta &&
          memcmp(type.data + type.size - (sizeof delta - 1), delta, sizeof delta - 1) == 0))
        return 0;
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        const size_t length = strlen(keys[k]);
        const char *at = data, *end = data + size;
        while ((at = memmem(at, (size_t)(end - at), keys[k], length)) != NULL) {
            at += length;
            while (at < end && *at == ' ')
                at++;
            if (at >= end || *at != '"')
                continue;
            for (at++; at < end && *at != '"'; at++, bytes++)
                if (*at == '\\' && at + 1 < end)
                    at += at[1] == 'u' && end - at > 5 ? 5 : 1;
        }
    }
    return bytes;
}

static int64_t bound_of(const json_t *value, int depth)
{
    size_t i;
    const char *key;
    json_t *item;
    int64_t sum = 0;
    if (depth > DEPTH_MAX)
        return 0;
    if (json_is_string(value))
        return (int64_t)json_string_length(value) + 1;
    if (json_is_array(value)) {
        json_array_foreach((json_t *)value, i, item) sum += bound_of(item, depth + 1);
        return sum;
    }
    if (!json_is_object(value))
        return value ? 1 : 0;
    if (json_object_get(value, "image_url"))
        return IMAGE_TOKENS;
    json_object_foreach((json_t *)value, key, item) sum +=
        (int64_t)strlen(key) + 1 + bound_of(item, depth + 1);
    return sum + OBJECT_TOKENS;
}

int64_t rt_json_tokens_bound(const json_t *value) { return bound_of(value, 0); }
