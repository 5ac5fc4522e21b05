/* serve/messages.c - from messages to token ids, with what users wrote kept apart from what the template
 * wrote.
 *
 * The template's own markup (<|im_start|> and so on) becomes special tokens; the same spelling in a message
 * must stay text, or a user could end his turn and speak as the system.  A message that holds such a
 * spelling gets a noncharacter (U+FDD0 ..) after its first byte before rendering; afterwards the marks are
 * taken out, and the tokenizer is told where they stood: no special token may lie across such a place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "serve/fields.h"
#include "serve/request.h"

enum { MARK_FIRST = 0xFDD0, MARK_COUNT = 32, MARK_BYTES = 3 };

static bool no_memory(rt_fault *fault)
{
    return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
}

/* ---- checking and normalising messages ---- */

static bool join_parts(const json_t *parts, const char *path, rt_text *out, rt_fault *fault)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_object_get(part, "text");
        char where[96];
        (void)snprintf(where, sizeof where, "%.60s[%zu]", path, i);
        if (!type)
            return rt_fault_invalid(fault, "invalid_value", where, "'%s' needs a \"type\"", where);
        if (strcmp(type, "text") != 0 && strcmp(type, "refusal") != 0)
            return rt_fault_invalid(fault, "unsupported_parameter", where,
                                    "'%s' is not text; this model reads text only", where);
        if (strcmp(type, "refusal") == 0)
            text = json_object_get(part, "refusal");
        if (!json_is_string(text))
            return rt_fault_invalid(fault, "invalid_value", where, "'%s' needs a string \"text\"", where);
        rt_text_append(out, json_string_value(text), json_string_length(text));
    }
    return true;
}

/* Marks the special spellings in a text.  In the model's own earlier words (own) only control tokens: tags
 * such as
 * </think> are what its template looks for there. */
static json_t *marked(const rt_served_model *model, const char *mark, bool own, const char *text, size_t size)
{
    rt_text out = {0};
    size_t at = 0, from = 0, begin, end;
    int32_t id;
    while (rt_tokenizer_find_special(model->tokenizer, text, size, from, &begin, &end, &id)) {
        from = begin + 1;
        if (own && !rt_tokenizer_is_special(model->tokenizer, id))
            continue;
        rt_text_append(&out, text + at, begin + 1 - at);
        rt_text_append(&out, mark, MARK_BYTES);
        at = begin + 1;
    }
    rt_text_append(&out, text + at, size - at);
    json_t *value = out.failed ? NULL : json_stringn(out.data ? out.data : "", out.size);
    rt_text_deinit(&out);
    return value;
}

static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};

static bool read_role(const json_t *message, size_t index, const char **role, rt_fault *fault)
{
    char where[96];
    (void)snprintf(where, sizeof where, "messages[%zu].role", index);
    const json_t *given = rt_member(message, "role");
    if (!given)
        return rt_fault_invalid(fault, "missing_required_parameter", where, "'%s' is missing", where);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (json_is_string(given) && strcmp(json_string_value(given), roles[i]) == 0) {
            *role = i == 1 ? "system" : roles[i];
            return true;
        }
    return rt_fault_invalid(fault, "invalid_value", where,
                            "'%s' must be system, developer, user, assistant or tool", where);
}

/* One message in the form that templates read; NULL with *fault. */
static json_t *normal_message(const rt_served_model *model, const json_t *message, size_t index,
                              const char *mark, rt_fault *fault)
{
    char where[96];
    const char *role = NULL;
    rt_text text = {0};
    (void)snprintf(where, sizeof where, "messages[%zu]", index);
    if (!json_is_object(message)) {
        (void)rt_fault_invalid(fault, "invalid_value", where, "'%s' must be an object", where);
        return NULL;
    }
    if (!read_role(message, index, &role, fault))
        return NULL;
    const json_t *content = rt_member(message, "content");
    (void)snprintf(where, sizeof where, "messages[%zu].content", index);
    const bool calls = strcmp(role, "assistant") == 0 && rt_member(message, "tool_calls");
    bool ok = true;
    if (json_is_array(content))
        ok = join_parts(content, where, &text, fault);
    else if (json_is_string(content))
        rt_text_append(&text, json_string_value(content), json_string_length(content));
    else if (content || !calls)
        ok = rt_fault_invalid(fault, content ? "invalid_value" : "missing_required_parameter", where,
                              "'%s' must be a string or a list of text parts", where);
    json_t *out = ok ? json_object() : NULL;
    if (out) {
        (void)json_object_set_new(out, "role", json_string(role));
        (void)json_object_set_new(
            out, "content",
            marked(model, mark, strcmp(role, "assistant") == 0, text.data ? text.data : "", text.size));
        static const char *const passed[] = {"name", "tool_calls", "tool_call_id"};
        for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
            if (rt_member(message, passed[i]))
                (void)json_object_set(out, passed[i], rt_member(message, passed[i]));
    }
    rt_text_deinit(&text);
    return out;
}

/* A noncharacter that the messages do not hold. */
static bool choose_mark(const json_t *messages, char mark[4], rt_fault *fault)
{
    char *all = json_dumps(messages, JSON_COMPACT);
    if (!all)
        return no_memory(fault);
    bool found = false;
    for (uint32_t i = 0; i < MARK_COUNT && !found; i++) {
        mark[rt_utf8_encode(MARK_FIRST + i, mark)] = '\0';
        found = strstr(all, mark) == NULL;
    }
    free(all);
    return found || rt_fault_invalid(fault, "invalid_value", "messages",
                                     "the messages hold all of the noncharacters U+FDD0 to U+FDEF");
}

static json_t *normal_messages(const rt_served_model *model, const json_t *given, const char *mark,
                               rt_fault *fault)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(given); i++) {
        json_t *message = normal_message(model, json_array_get(given, i), i, mark, fault);
        if (!message) {
            json_decref(out);
            return NULL;
        }
        (void)json_array_append_new(out, message);
    }
    return out;
}

/* ---- rendering ---- */

static json_t *variables_of(const rt_served_model *model, const json_t *body, json_t *messages, bool generate)
{
    json_t *out = json_object();
    json_t *more = rt_member(body, "chat_template_kwargs");
    if (json_is_object(more))
        (void)json_object_update(out, more);
    if (rt_member(body, "reasoning_effort"))
        (void)json_object_set(out, "reasoning_effort", rt_member(body, "reasoning_effort"));
    (void)json_object_set(out, "messages", messages);
    (void)json_object_set_new(out, "add_generation_prompt", json_boolean(generate));
    const char *names[] = {"bos_token", "eos_token"};
    const int32_t ids[] = {rt_tokenizer_bos(model->tokenizer), rt_tokenizer_eos(model->tokenizer)};
    for (size_t i = 0; i < 2; i++) {
        size_t size = 0;
        const char *bytes = ids[i] >= 0 ? rt_tokenizer_token_bytes(model->tokenizer, ids[i], &size) : "";
        (void)json_object_set_new(out, names[i], json_stringn(bytes, size));
    }
    return out;
}

static bool render(const rt_served_model *model, const json_t *variables, const json_t *messages,
                   rt_text *out, rt_fault *fault)
{
    if (!model->chat_template) {
        for (size_t i = 0; i < json_array_size(messages); i++) {
            const json_t *content = json_object_get(json_array_get(messages, i), "content");
            rt_text_append(out, json_string_value(content), json_string_length(content));
        }
        return !out->failed || no_memory(fault);
    }
    rt_error err = {0};
    if (rt_chat_template_render(model->chat_template, variables, out, &err) == RT_OK)
        return !out->failed || no_memory(fault);
    return rt_fault_invalid(fault, "invalid_value", "messages",
                            "the model's chat template does not take these messages: %.300s", err.text);
}

/* Cuts the rendered text after the last message's words. */
static bool cut_final(const json_t *messages, rt_text *text, rt_fault *fault)
{
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *content = json_object_get(last, "content");
    const char *words = json_string_value(content);
    size_t size = json_string_length(content);
    while (size && strchr(" \t\r\n", words[size - 1]))
        size--;
    const char *from = text->data ? text->data : "";
    const char *found = NULL;
    while (size && (from = memmem(from, (size_t)(text->data + text->size - from), words, size))) {
        found = from;
        from++;
    }
    if (!found)
        return rt_fault_invalid(fault, "invalid_value", "continue_final_message",
                                "the template does not show the last message as it is, so it cannot be "
                                "continued");
    text->size = (size_t)(found - text->data) + size;
    text->data[text->size] = '\0';
    return true;
}

/* Takes the marks out; their places, as offsets in the text without them. */
static size_t *unmark(rt_text *text, const char *mark, size_t *count)
{
    size_t n = 0, to = 0;
    for (const char *at = text->data; text->data && (at = strstr(at, mark)); at += MARK_BYTES)
        n++;
    size_t *breaks = malloc((n + 1) * sizeof *breaks);
    *count = 0;
    for (size_t i = 0; breaks && i < text->size;) {
        if (n && text->size - i >= MARK_BYTES && memcmp(text->data + i, mark, MARK_BYTES) == 0) {
            breaks[(*count)++] = to;
            i += MARK_BYTES;
        } else {
            text->data[to++] = text->data[i++];
        }
    }
    if (breaks)
        text->size = to;
    return breaks;
}

static bool ends_with_think(const rt_text *text)
{
    size_t size = text->size;
    while (size && strchr(" \t\r\n", text->data[size - 1]))
        size--;
    return size >= 7 && memcmp(text->data + size - 7, "<think>", 7) == 0;
}

static bool too_long(const rt_served_model *model, size_t bytes, const char *param, rt_fault *fault)
{
    size_t most;
    if (!rt_size_mul(model->context, model->token_bytes_max, &most) || bytes <= most)
        return false;
    (void)rt_fault_invalid(fault, "context_length_exceeded", param,
                           "the %s of %zu bytes are more than %zu tokens, the most that this model's context "
                           "of %zu tokens holds",
                           param, bytes, model->context, model->context);
    return true;
}

bool rt_render_messages(const rt_served_model *model, const json_t *body, rt_token_list *out, bool *thinking,
                        rt_fault *fault)
{
    const json_t *given = rt_member(body, "messages");
    bool generate = true, go_on = false;
    if (!given)
        return rt_fault_invalid(fault, "missing_required_parameter", "messages", "'messages' is missing");
    if (!json_is_array(given) || json_array_size(given) == 0)
        return rt_fault_invalid(fault, "invalid_value", "messages",
                                "'messages' must be a list of at least one message");
    if (!rt_field_bool(body, "continue_final_message", &go_on, fault))
        return false;
    generate = !go_on;
    if (!rt_field_bool(body, "add_generation_prompt", &generate, fault))
        return false;
    if (generate && go_on)
        return rt_fault_invalid(fault, "invalid_value", "continue_final_message",
                                "'continue_final_message' and 'add_generation_prompt' exclude each other");
    char mark[4];
    rt_text text = {.size_max = (size_t)64 << 20};
    json_t *messages = NULL, *variables = NULL;
    size_t *breaks = NULL, n_breaks = 0;
    bool ok = choose_mark(given, mark, fault) && (messages = normal_messages(model, given, mark, fault));
    if (ok) {
        variables = variables_of(model, body, messages, generate);
        ok =
            render(model, variables, messages, &text, fault) && (!go_on || cut_final(messages, &text, fault));
    }
    if (ok && too_long(model, text.size, "messages", fault))
        ok = false;
    if (ok) {
        rt_error err = {0};
        breaks = unmark(&text, mark, &n_breaks);
        *thinking = generate && model->thinks && ends_with_think(&text);
        ok = breaks && rt_tokenizer_encode_guarded(model->tokenizer, text.data ? text.data : "", text.size,
                                                   breaks, n_breaks, out, &err) == RT_OK;
        if (!ok)
            (void)no_memory(fault);
    }
    free(breaks);
    json_decref(variables);
    json_decref(messages);
    rt_text_deinit(&text);
    return ok;
}

bool rt_encode_prompt(const rt_served_model *model, const char *text, size_t size, bool add_special,
                      const char *param, rt_token_list *out, rt_fault *fault)
{
    rt_error err = {0};
    if (too_long(model, size, param, fault))
        return false;
    const int32_t bos = rt_tokenizer_bos(model->tokenizer);
    if (add_special && bos >= 0 && rt_tokenizer_adds_bos(model->tokenizer)) {
        out->ids = malloc(sizeof *out->ids);
        if (!out->ids)
            return no_memory(fault);
        out->ids[0] = bos;
        out->count = out->capacity = 1;
    }
    if (rt_tokenizer_encode(model->tokenizer, text, size, true, out, &err) != RT_OK)
        return no_memory(fault);
    return true;
}
