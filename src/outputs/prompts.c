/* outputs/prompts.c - prompts of many forms, read line by line; see prompts.h. */
#include "outputs/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "outputs/lines.h"

enum { MESSAGES_MAX = 4096, SAMPLES_MAX = 1 << 20 };

void rt_prompt_row_deinit(rt_prompt_row *row)
{
    json_decref(row->body);
    free(row->custom_id);
    *row = (rt_prompt_row){0};
}

/* What went wrong with one line. */
typedef struct place {
    const char *where;
    rt_error *err;
} place;

static rt_status wrong(const place *p, const char *what)
{
    return rt_error_set(p->err, RT_CORRUPT, "%.250s: %s", p->where, what);
}

static rt_status no_memory(const place *p)
{
    return rt_error_set(p->err, RT_NO_MEMORY, "%.250s: no memory", p->where);
}

/* ---- messages ---- */

static rt_status add_message(json_t *messages, const char *role, const json_t *content, const place *p)
{
    if (json_array_append_new(messages, json_pack("{s:s, s:O}", "role", role, "content", content)) != 0)
        return no_memory(p);
    return RT_OK;
}

static bool has_role(const json_t *messages, const char *a, const char *b)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        if (role && (strcmp(role, a) == 0 || strcmp(role, b) == 0))
            return true;
    }
    return false;
}

/* A think block at the start of an earlier answer is taken off. */
static rt_status strip_thinking(json_t *message, const place *p)
{
    (void)json_object_del(message, "reasoning_content");
    (void)json_object_del(message, "reasoning");
    const json_t *content = json_object_get(message, "content");
    const char *text = json_string_value(content);
    const char *close = text ? strstr(text, "</think>") : NULL;
    const char *open = text ? strstr(text, "<think>") : NULL;
    if (!close || (open && (open > close || strspn(text, " \n\r\t") < (size_t)(open - text))))
        return RT_OK;
    close += strlen("</think>");
    close += strspn(close, "\n\r ");
    return json_object_set_new(message, "content", json_string(close)) == 0 ? RT_OK : no_memory(p);
}

static rt_status check_message(const json_t *message, const place *p)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    const char *role = json_string_value(json_object_get(message, "role"));
    const json_t *content = json_object_get(message, "content");
    if (!role)
        return wrong(p, "a message has no role");
    bool known = false;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        known = known || strcmp(role, roles[i]) == 0;
    if (!known)
        return rt_error_set(p->err, RT_CORRUPT,
                            "%.250s: '%.40s' is no role; system, user, assistant and tool are", p->where,
                            role);
    if (json_is_string(content) || json_is_array(content) ||
        (json_is_null(content) && json_object_get(message, "tool_calls")))
        return RT_OK;
    return wrong(p, "a message has no content");
}

/* Copies the messages without a last answer; reasoning is taken off. */
static rt_status take_messages(json_t **out, const json_t *from, bool keep_last, const place *p)
{
    size_t n = json_array_size(from);
    if (n == 0 || n > MESSAGES_MAX)
        return wrong(p, n ? "more than 4096 messages" : "messages is empty, or no list");
    const char *last = json_string_value(json_object_get(json_array_get(from, n - 1), "role"));
    if (!keep_last && last && strcmp(last, "assistant") == 0)
        n--;
    if (n == 0)
        return wrong(p, "the messages hold an answer and nothing that was asked");
    *out = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *message = json_deep_copy(json_array_get(from, i));
        if (!*out || !message || json_array_append_new(*out, message) != 0)
            return no_memory(p);
        if (check_message(message, p) != RT_OK)
            return p->err->status;
        const char *role = json_string_value(json_object_get(message, "role"));
        if (strcmp(role, "assistant") == 0 && strip_thinking(message, p) != RT_OK)
            return p->err->status;
    }
    return RT_OK;
}

static rt_status put_system(json_t *messages, const char *system, const place *p)
{
    if (!system || has_role(messages, "system", "developer"))
        return RT_OK;
    if (json_array_insert_new(messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", system)) != 0)
        return no_memory(p);
    return RT_OK;
}

static rt_status body_of_messages(rt_prompt_row *row, json_t *messages, const rt_prompt_options *options,
                                  const place *p)
{
    rt_status status = put_system(messages, options->system, p);
    if (status == RT_OK) {
        row->body = json_pack("{s:O}", "messages", messages);
        status = row->body ? RT_OK : no_memory(p);
    }
    json_decref(messages);
    return status;
}

static rt_status body_of_prompt(rt_prompt_row *row, const json_t *prompt, const json_t *system,
                                const rt_prompt_options *options, const place *p)
{
    if (options->completions) {
        row->body = json_pack("{s:O}", "prompt", prompt);
        return row->body ? RT_OK : no_memory(p);
    }
    if (!json_is_string(prompt))
        return wrong(p, "a prompt of ids needs --completions");
    json_t *messages = json_array();
    rt_status status = messages ? RT_OK : no_memory(p);
    if (status == RT_OK && json_is_string(system))
        status = add_message(messages, "system", system, p);
    if (status == RT_OK)
        status = add_message(messages, "user", prompt, p);
    if (status == RT_OK)
        return body_of_messages(row, messages, options, p);
    json_decref(messages);
    return status;
}

/* ---- the forms ---- */

static bool is_ids(const json_t *prompt)
{
    for (size_t i = 0; i < json_array_size(prompt); i++)
        if (!json_is_integer(json_array_get(prompt, i)))
            return false;
    return json_array_size(prompt) > 0;
}

static rt_status parse_prompt(rt_prompt_row *row, const json_t *json, const json_t *prompt,
                              const rt_prompt_options *options, const place *p)
{
    if (json_is_array(prompt) && json_is_object(json_array_get(prompt, 0))) {
        json_t *messages = NULL;
        if (take_messages(&messages, prompt, false, p) != RT_OK) {
            json_decref(messages);
            return p->err->status;
        }
        return body_of_messages(row, messages, options, p);
    }
    if (!(json_is_string(prompt) && (json_string_length(prompt) || options->completions)) && !is_ids(prompt))
        return wrong(p, "the prompt is empty, or neither a text nor ids");
    return body_of_prompt(row, prompt, json_object_get(json, "system"), options, p);
}

static rt_status parse_messages(rt_prompt_row *row, const json_t *json, const rt_prompt_options *options,
                                const place *p)
{
    json_t *messages = NULL;
    if (options->completions)
        return wrong(p, "messages cannot be sent to completions; give rows with a prompt");
    if (take_messages(&messages, json_object_get(json, "messages"), false, p) == RT_OK)
        return body_of_messages(row, messages, options, p);
    json_decref(messages);
    return p->err->status;
}

static rt_status parse_sharegpt(rt_prompt_row *row, const json_t *turns, const rt_prompt_options *options,
                                const place *p)
{
    static const char *const names[][2] = {
        {"human", "user"},          {"user", "user"},      {"gpt", "assistant"},  {"chatgpt", "assistant"},
        {"assistant", "assistant"}, {"bing", "assistant"}, {"bard", "assistant"}, {"model", "assistant"},
        {"system", "system"},       {"tool", "tool"},      {"function", "tool"}};
    json_t *list = json_array(), *messages = NULL;
    rt_status status = list ? RT_OK : no_memory(p);
    for (size_t i = 0; i < json_array_size(turns) && status == RT_OK; i++) {
        const json_t *turn = json_array_get(turns, i), *value = json_object_get(turn, "value");
        const char *from = json_string_value(json_object_get(turn, "from")), *role = NULL;
        for (size_t j = 0; from && j < sizeof names / sizeof names[0]; j++)
            if (strcmp(from, names[j][0]) == 0)
                role = names[j][1];
        status = role && json_is_string(value)
                     ? add_message(list, role, value, p)
                     : wrong(p, "a turn of conversations lacks a known 'from' or a 'value'");
    }
    if (status == RT_OK)
        status = take_messages(&messages, list, false, p);
    json_decref(list);
    if (status == RT_OK)
        return body_of_messages(row, messages, options, p);
    json_decref(messages);
    return status;
}

static rt_status parse_instruction(rt_prompt_row *row, const json_t *json, const rt_prompt_options *options,
                                   const place *p)
{
    const json_t *instruction = json_object_get(json, "instruction"), *input = json_object_get(json, "input");
    if (!json_is_string(input))
        input = json_object_get(json, "context");
    if (!json_is_string(instruction) || json_string_length(instruction) == 0)
        return wrong(p, "the instruction is no text, or empty");
    rt_text text = {0};
    rt_text_append(&text, json_string_value(instruction), json_string_length(instruction));
    if (json_is_string(input) && json_string_length(input)) {
        rt_text_puts(&text, "\n\n");
        rt_text_append(&text, json_string_value(input), json_string_length(input));
    }
    json_t *prompt = text.failed ? NULL : rt_json_text(text.data, text.size);
    rt_text_deinit(&text);
    const rt_status status =
        prompt ? body_of_prompt(row, prompt, json_object_get(json, "system"), options, p) : no_memory(p);
    json_decref(prompt);
    return status;
}

static rt_status parse_batch(rt_prompt_row *row, const json_t *json, const place *p)
{
    const char *method = json_string_value(json_object_get(json, "method"));
    const char *url = json_string_value(json_object_get(json, "url"));
    const json_t *body = json_object_get(json, "body");
    if (!json_is_object(body))
        return wrong(p, "the body of the batch request is no object");
    if (method && strcmp(method, "POST") != 0)
        return wrong(p, "the method of a batch request is POST");
    const bool messages = json_object_get(body, "messages") != NULL,
               prompt = json_object_get(body, "prompt") != NULL;
    if (url && !strstr(url, "completions"))
        return wrong(p, "only /v1/chat/completions and /v1/completions can be asked");
    if (messages == prompt || (url && (strstr(url, "chat/completions") != NULL) != messages))
        return wrong(p, "the body has to hold messages for chat completions, or a prompt for completions");
    row->body = json_deep_copy(body);
    if (!row->body)
        return no_memory(p);
    (void)json_object_del(row->body, "stream");
    (void)json_object_del(row->body, "stream_options");
    const json_t *n = json_object_get(row->body, "n");
    if (json_is_integer(n) && (json_integer_value(n) < 1 || json_integer_value(n) > SAMPLES_MAX))
        return wrong(p, "n of the body is out of range");
    row->samples = json_is_integer(n) ? (size_t)json_integer_value(n) : 0;
    (void)json_object_del(row->body, "n");
    if (prompt)
        return RT_OK;
    json_t *kept = NULL;
    if (take_messages(&kept, json_object_get(body, "messages"), true, p) != RT_OK) {
        json_decref(kept);
        return p->err->status;
    }
    return json_object_set_new(row->body, "messages", kept) == 0 ? RT_OK : no_memory(p);
}

static rt_status parse_object(rt_prompt_row *row, const json_t *json, const rt_prompt_options *options,
                              const place *p)
{
    if (!json_is_object(json))
        return wrong(p, "the line is JSON but no object");
    const json_t *id = json_object_get(json, "custom_id");
    if (json_is_string(id) && json_string_length(id)) {
        row->custom_id = strdup(json_string_value(id));
        if (!row->custom_id)
            return no_memory(p);
    }
    if (options->prompt_key) {
        const json_t *prompt = json_object_get(json, options->prompt_key);
        if (!prompt)
            return rt_error_set(p->err, RT_CORRUPT, "%.250s: there is no key '%.60s'", p->where,
                                options->prompt_key);
        return parse_prompt(row, json, prompt, options, p);
    }
    if (json_object_get(json, "body"))
        return parse_batch(row, json, p);
    if (json_object_get(json, "messages"))
        return parse_messages(row, json, options, p);
    if (json_object_get(json, "conversations"))
        return parse_sharegpt(row, json_object_get(json, "conversations"), options, p);
    if (json_object_get(json, "prompt"))
        return parse_prompt(row, json, json_object_get(json, "prompt"), options, p);
    if (json_object_get(json, "instruction"))
        return parse_instruction(row, json, options, p);
    return wrong(
        p, "no prompt: 'prompt', 'messages', 'conversations', 'instruction' or a batch 'body' is needed "
           "(--prompt-key names another key)");
}

rt_status rt_prompt_row_parse(rt_prompt_row *row, const char *line, size_t size,
                              const rt_prompt_options *options, const char *where, rt_error *err)
{
    const place p = {where, err};
    json_error_t json_err = {0};
    *row = (rt_prompt_row){0};
    json_t *json = json_loadb(line, size, JSON_REJECT_DUPLICATES, &json_err);
    if (!json)
        return rt_error_set(err, RT_CORRUPT, "%.250s: is not valid JSON: %.150s", where, json_err.text);
    const rt_status status = parse_object(row, json, options, &p);
    json_decref(json);
    if (status != RT_OK)
        rt_prompt_row_deinit(row);
    return status;
}

rt_status rt_prompt_row_text(rt_prompt_row *row, const char *text, size_t size,
                             const rt_prompt_options *options, const char *where, rt_error *err)
{
    const place p = {where, err};
    *row = (rt_prompt_row){0};
    if (!rt_utf8_valid(text, size) || memchr(text, '\0', size))
        return wrong(&p, "the line is not UTF-8 text");
    json_t *prompt = json_stringn(text, size);
    const rt_status status = prompt ? body_of_prompt(row, prompt, NULL, options, &p) : no_memory(&p);
    json_decref(prompt);
    return status;
}

/* ---- the reader ---- */

struct rt_prompt_reader {
    const rt_strings *paths;
    const rt_prompt_options *options;
    size_t next; /* path */
    rt_lines *lines;
};

rt_status rt_prompt_reader_open(rt_prompt_reader **out, const rt_strings *paths,
                                const rt_prompt_options *options, rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the prompts");
    **out = (rt_prompt_reader){.paths = paths, .options = options};
    return RT_OK;
}

static bool is_text(const char *path)
{
    const char *end = strstr(path, ".txt");
    return end && (end[4] == '\0' || strcmp(end + 4, ".zst") == 0);
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

rt_status rt_prompt_reader_next(rt_prompt_reader *reader, rt_prompt_row *row, bool *more, rt_error *err)
{
    *more = false;
    for (;;) {
        if (!reader->lines) {
            if (reader->next == reader->paths->count)
                return RT_OK;
            if (rt_lines_open(&reader->lines, reader->paths->items[reader->next++], err) != RT_OK)
                return err->status;
        }
        const char *path = reader->paths->items[reader->next - 1], *line;
        size_t size = 0;
        bool whole;
        if (rt_lines_next(reader->lines, &line, &size, &whole, err) != RT_OK)
            return err->status;
        if (!line) {
            rt_lines_close(reader->lines);
            reader->lines = NULL;
            continue;
        }
        if (rt_lines_number(reader->lines) == 1 && size >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
            line += 3; /* a byte order mark */
            size -= 3;
        }
        if (size && line[size - 1] == '\r')
            size--;
        if (is_blank(line, size))
            continue;
        char where[280];
        (void)snprintf(where, sizeof where, "%.250s:%zu", path, rt_lines_number(reader->lines));
        const rt_status status = is_text(path)
                                     ? rt_prompt_row_text(row, line, size, reader->options, where, err)
                                     : rt_prompt_row_parse(row, line, size, reader->options, where, err);
        if (status != RT_OK)
            return status;
        row->file = path;
        row->line = rt_lines_number(reader->lines);
        *more = true;
        return RT_OK;
    }
}

void rt_prompt_reader_close(rt_prompt_reader *reader)
{
    if (!reader)
        return;
    rt_lines_close(reader->lines);
    free(reader);
}
