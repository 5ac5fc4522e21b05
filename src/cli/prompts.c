/* cli/prompts.c - see prompts.h. */
#include "cli/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "student/data.h"

static const size_t prompts_file_max = (size_t)1 << 30; /* bytes */

static rt_status append(cli_prompts *prompts, const cli_prompt *prompt, rt_error *err)
{
    if (prompts->count == prompts->capacity) {
        const size_t capacity = prompts->capacity ? 2 * prompts->capacity : 64;
        cli_prompt *list = realloc(prompts->list, capacity * sizeof *list);
        if (!list)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", capacity);
        prompts->list = list;
        prompts->capacity = capacity;
    }
    prompts->list[prompts->count++] = *prompt;
    return RT_OK;
}

static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

static json_t *message(const char *role, json_t *content)
{
    return json_pack("{s:s,s:o}", "role", role, "content", content);
}

/* The messages to answer: a copy of the list, without a last answer, with the system's words. */
static json_t *messages_of(const json_t *given, const char *system)
{
    json_t *out = json_array();
    const size_t n = json_array_size(given);
    if (system && strcmp(role_of(json_array_get(given, 0)), "system") != 0)
        (void)json_array_append_new(out, message("system", rt_json_text(system, strlen(system))));
    for (size_t i = 0; i < n; i++) {
        json_t *one = json_array_get(given, i);
        if (i + 1 < n || strcmp(role_of(one), "assistant") != 0)
            (void)json_array_append(out, one);
    }
    return out;
}

rt_status cli_prompts_add(cli_prompts *prompts, const char *text, size_t size, const char *system,
                          rt_error *err)
{
    json_t *value = rt_json_text(text, size), *given = json_array();
    (void)json_array_append_new(given, message("user", json_incref(value)));
    const cli_prompt prompt = {
        .key = "prompt", .value = value, .messages = messages_of(given, system), .line = 1};
    json_decref(given);
    if (!value || !prompt.messages || append(prompts, &prompt, err) != RT_OK) {
        json_decref(value);
        json_decref(prompt.messages);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a prompt of %zu bytes", size);
    }
    return RT_OK;
}

static bool are_messages(const json_t *list)
{
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one)
    {
        if (!json_is_string(json_object_get(one, "role")) || !json_is_string(json_object_get(one, "content")))
            return false;
    }
    return json_array_size(list) > 0;
}

static rt_status add_row(cli_prompts *prompts, const json_t *row, const char *where, size_t line,
                         const char *system, rt_error *err)
{
    json_t *text = json_object_get(row, "prompt"), *given = json_object_get(row, "messages");
    if (!text)
        text = json_object_get(row, "instruction");
    cli_prompt prompt = {.line = line};
    if (json_is_string(text)) {
        json_t *list = json_array();
        (void)json_array_append_new(list, message("user", json_incref(text)));
        prompt.key = "prompt";
        prompt.value = json_incref(text);
        prompt.messages = messages_of(list, system);
        json_decref(list);
    } else if (are_messages(given)) {
        prompt.key = "messages";
        prompt.value = json_incref(given);
        prompt.messages = messages_of(given, system);
    } else {
        return rt_error_set(err, RT_INVALID,
                            "%.200s:%zu: a row needs \"prompt\" (a text) or \"messages\" (a list of "
                            "{\"role\", \"content\"})",
                            where, line);
    }
    if (append(prompts, &prompt, err) == RT_OK)
        return RT_OK;
    json_decref(prompt.value);
    json_decref(prompt.messages);
    return err->status;
}

rt_status cli_prompts_read(cli_prompts *prompts, const char *path, const char *system, rt_error *err)
{
    char *data;
    size_t size, line = 0;
    if (rt_file_read(&data, &size, path, prompts_file_max, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (const char *at = data, *end = data + size; at < end && status == RT_OK;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline ? newline : end) - at);
        line++;
        if (strspn(at, " \t\r") < length) {
            char where[320];
            json_t *row;
            (void)snprintf(where, sizeof where, "%.280s:%zu", path, line);
            status = rt_json_parse(&row, at, length, where, err);
            if (status == RT_OK)
                status = add_row(prompts, row, path, line, system, err);
            json_decref(row);
        }
        at += length + 1;
    }
    free(data);
    if (status == RT_OK && prompts->count == 0)
        status = rt_error_set(err, RT_INVALID, "%.300s: holds no prompt", path);
    return status;
}

rt_status cli_prompts_render(cli_prompts *prompts, const cli_model *model, size_t context, rt_error *err)
{
    for (size_t i = 0; i < prompts->count; i++) {
        cli_prompt *p = &prompts->list[i];
        p->ids.count = 0;
        if (rt_render_prompt(model->tokenizer, model->chat_template, p->messages, &p->ids, err) != RT_OK)
            return err->status;
        if (!model->chat_template ||
            !rt_prompt_opens_thought(p->thought, model->tokenizer, p->ids.ids, p->ids.count))
            p->thought[0] = '\0';
        if (p->ids.count == 0)
            return rt_error_set(err, RT_INVALID, "the prompt in line %zu is empty", p->line);
        if (p->ids.count >= context)
            return rt_error_set(err, RT_INVALID,
                                "the prompt in line %zu has %zu tokens and leaves no room in a context of "
                                "%zu; shorten it or raise the context",
                                p->line, p->ids.count, context);
    }
    return RT_OK;
}

void cli_prompts_deinit(cli_prompts *prompts)
{
    for (size_t i = 0; i < prompts->count; i++) {
        json_decref(prompts->list[i].value);
        json_decref(prompts->list[i].messages);
        rt_token_list_deinit(&prompts->list[i].ids);
    }
    free(prompts->list);
    *prompts = (cli_prompts){0};
}
