/* serve/gateway_count.c - see gateway_count.h. */
#include "serve/gateway_count.h"

#include <string.h>

enum { FRAME_TOKENS = 4, DEPTH_MAX = 64 };

size_t rt_count_text(const rt_tokenizer *tokenizer, const char *text, size_t size)
{
    rt_token_list ids = {0};
    rt_error err = {0};
    size_t count = (size + 3) / 4; /* where there is no memory to count */
    if (rt_tokenizer_encode(tokenizer, text, size, false, &ids, &err) == RT_OK)
        count = ids.count;
    rt_token_list_deinit(&ids);
    return count;
}

static size_t count_value(const rt_tokenizer *tokenizer, const json_t *value, int depth)
{
    size_t sum = 0, i;
    const char *key;
    json_t *one;
    if (json_is_string(value))
        return rt_count_text(tokenizer, json_string_value(value), json_string_length(value));
    if (json_is_integer(value))
        return 1;
    if (depth == DEPTH_MAX)
        return 0;
    if (json_is_array(value)) {
        json_array_foreach(value, i, one) sum += count_value(tokenizer, one, depth + 1);
        return sum;
    }
    json_object_foreach((json_t *)value, key, one) if (strcmp(key, "type") != 0) sum +=
        count_value(tokenizer, one, depth + 1);
    return sum;
}

size_t rt_count_prompt(const rt_tokenizer *tokenizer, const json_t *body)
{
    static const char *const members[] = {"messages",     "prompt", "input",
                                          "instructions", "tools",  "functions"};
    size_t sum = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        sum += count_value(tokenizer, json_object_get(body, members[i]), 0);
    return sum + FRAME_TOKENS * json_array_size(json_object_get(body, "messages"));
}

static void append_member(rt_text *said, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value))
        rt_text_append(said, json_string_value(value), json_string_length(value));
}

/* Of a chat message or a delta of one. */
static void append_message(rt_text *said, const json_t *message)
{
    size_t i;
    json_t *call;
    append_member(said, message, "reasoning_content");
    append_member(said, message, "content");
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        append_member(said, json_object_get(call, "function"), "name");
        append_member(said, json_object_get(call, "function"), "arguments");
    }
}

/* Of /v1/responses: what a delta adds, or all of an answer in one piece. */
static void append_response(rt_text *said, const json_t *json)
{
    size_t i, k;
    json_t *item, *part;
    append_member(said, json, "delta");
    json_array_foreach(json_object_get(json, "output"), i, item)
    {
        json_array_foreach(json_object_get(item, "content"), k, part) append_member(said, part, "text");
        json_array_foreach(json_object_get(item, "summary"), k, part) append_member(said, part, "text");
        append_member(said, item, "name");
        append_member(said, item, "arguments");
    }
}

void rt_said_append(rt_text *said, const char *data, size_t size)
{
    rt_error err = {0};
    json_t *json = NULL, *choice;
    size_t i;
    if (rt_json_parse(&json, data, size, "event", &err) != RT_OK)
        return;
    json_array_foreach(json_object_get(json, "choices"), i, choice)
    {
        const json_t *delta = json_object_get(choice, "delta");
        append_message(said, delta ? delta : json_object_get(choice, "message"));
        append_member(said, choice, "text");
    }
    append_response(said, json);
    json_decref(json);
}
