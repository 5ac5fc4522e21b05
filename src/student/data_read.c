/* student/data_read.c - documents from files: JSONL rows of several forms, or plain text. */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/unpack.h"
#include "student/data.h"

static const size_t file_bytes_max = (size_t)4 << 30;

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

typedef struct reader {
    rt_documents *docs;
    const rt_tokenizer *tokenizer;
    const rt_chat_template *chat_template;
    const rt_document_options *options;
    rt_token_list ids;
    struct reader *beside; /* the same rows with another tokenizer; NULL: none */
} reader;

/* What documents were before a row, to take it back. */
typedef struct mark {
    size_t n_tokens, n_docs, n_targets, n_cut;
} mark;

static mark mark_of(const rt_documents *docs)
{
    return (mark){docs->n_tokens, docs->n_docs, docs->n_targets, docs->n_cut};
}

static void take_back(rt_documents *docs, const mark *to)
{
    docs->n_tokens = to->n_tokens;
    docs->n_docs = to->n_docs;
    docs->n_targets = to->n_targets;
    docs->n_cut = to->n_cut;
}

/* Both sides must have gained a document, or neither keeps one. */
static void even_out(reader *r, const mark *own, const mark *beside)
{
    if (r->docs->n_docs == own->n_docs + 1 && r->beside->docs->n_docs == beside->n_docs + 1)
        return;
    take_back(r->docs, own);
    take_back(r->beside->docs, beside);
}

static rt_status encode(reader *r, const char *text, size_t size, bool special, rt_error *err)
{
    return rt_tokenizer_encode(r->tokenizer, text, size, special, &r->ids, err);
}

/* A piece of text on the other side: what the ids say, in its tokens. */
static rt_status add_beside(reader *r, const int32_t *ids, size_t n, rt_error *err)
{
    reader *beside = r->beside;
    rt_text text = {0};
    beside->ids.count = 0;
    rt_status status = rt_tokenizer_decode(r->tokenizer, ids, n, false, &text, err);
    if (status == RT_OK)
        status = encode(beside, text.data ? text.data : "", text.size, false, err);
    rt_text_deinit(&text);
    if (status != RT_OK)
        return status;
    return rt_documents_add(beside->docs, beside->ids.ids, NULL,
                            rt_size_min(beside->ids.count, r->options->tokens_max), err);
}

/* Long text becomes several documents. */
static rt_status add_text(reader *r, const char *text, size_t size, rt_error *err)
{
    r->ids.count = 0;
    if (encode(r, text, size, false, err) != RT_OK)
        return err->status;
    for (size_t at = 0; at < r->ids.count; at += r->options->tokens_max) {
        const size_t n = rt_size_min(r->options->tokens_max, r->ids.count - at);
        const mark own = mark_of(r->docs), beside = r->beside ? mark_of(r->beside->docs) : own;
        if (rt_documents_add(r->docs, r->ids.ids + at, NULL, n, err) != RT_OK ||
            (r->beside && add_beside(r, r->ids.ids + at, n, err) != RT_OK))
            return err->status;
        if (r->beside)
            even_out(r, &own, &beside);
    }
    return RT_OK;
}

rt_status rt_render_prompt(const rt_tokenizer *tokenizer, const rt_chat_template *chat_template,
                           const json_t *messages, rt_token_list *out, rt_error *err)
{
    rt_text text = {0};
    rt_status status = RT_OK;
    if (chat_template) {
        const char *names[] = {"bos_token", "eos_token"};
        const int32_t ids[] = {rt_tokenizer_bos(tokenizer), rt_tokenizer_eos(tokenizer)};
        json_t *variables = json_pack("{s:O, s:b}", "messages", messages, "add_generation_prompt", 1);
        for (size_t i = 0; variables && i < 2; i++) {
            size_t size = 0;
            const char *bytes = ids[i] >= 0 ? rt_tokenizer_token_bytes(tokenizer, ids[i], &size) : "";
            (void)json_object_set_new(variables, names[i], json_stringn(bytes, size));
        }
        status = variables ? rt_chat_template_render(chat_template, variables, &text, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for the chat template's variables");
        json_decref(variables);
    } else {
        size_t i;
        json_t *message;
        json_array_foreach(messages, i, message)
        {
            const json_t *content = json_object_get(message, "content");
            if (json_is_string(content))
                rt_text_append(&text, json_string_value(content), json_string_length(content));
        }
    }
    if (status == RT_OK && text.failed)
        status = rt_error_set(err, RT_NO_MEMORY, "the prompt is too long");
    if (status == RT_OK)
        status = rt_tokenizer_encode(tokenizer, text.data ? text.data : "", text.size, chat_template != NULL,
                                     out, err);
    rt_text_deinit(&text);
    return status;
}

bool rt_prompt_opens_thought(char tail[RT_THOUGHT_TAIL], const rt_tokenizer *tokenizer, const int32_t *ids,
                             size_t n)
{
    static const char open[] = "<think>";
    size_t size = RT_THOUGHT_TAIL - 1; /* what is still free, filled from the end */
    tail[size] = '\0';
    while (n-- > 0 && size > 0) {
        size_t bytes;
        const char *token = rt_tokenizer_token_bytes(tokenizer, ids[n], &bytes);
        const size_t taken = rt_size_min(bytes, size);
        memcpy(tail + size - taken, token + bytes - taken, taken);
        size -= taken;
    }
    memmove(tail, tail + size, RT_THOUGHT_TAIL - size);
    size_t end = strlen(tail);
    while (end && strchr(" \t\r\n", tail[end - 1]))
        end--;
    if (end < sizeof open - 1 || memcmp(tail + end - (sizeof open - 1), open, sizeof open - 1) != 0)
        return false;
    const size_t from = end - (sizeof open - 1);
    memmove(tail, tail + from, strlen(tail + from) + 1);
    return true;
}

/* Tags of a thought in an answer are the tokenizer's own tokens where it has them, as a model says them;
 * everything else that looks like markup stays text. */
static rt_status encode_answer(reader *r, const char *text, size_t size, rt_error *err)
{
    static const char *const tags[] = {"<think>", "</think>"};
    size_t at = 0;
    for (size_t i = 0; i < size; i++) {
        const size_t which = text[i] == '<' && i + 1 < size && text[i + 1] == '/', n = strlen(tags[which]);
        size_t begin, end;
        int32_t id;
        if (text[i] != '<' || size - i < n || memcmp(text + i, tags[which], n) != 0 ||
            !rt_tokenizer_find_special(r->tokenizer, text, i + n, i, &begin, &end, &id) || begin != i ||
            end != i + n)
            continue;
        if ((i > at && encode(r, text + at, i - at, false, err) != RT_OK) ||
            encode(r, text + i, n, true, err) != RT_OK)
            return err->status;
        at = i + n;
        i = at - 1;
    }
    return at < size || size == 0 ? encode(r, text + at, size - at, false, err) : RT_OK;
}

/* An answer that begins with the thought which the prompt has opened already: what comes behind that. */
static const char *behind_opening(const reader *r, size_t prompt, const char *answer)
{
    char tail[RT_THOUGHT_TAIL];
    if (!r->chat_template || !rt_prompt_opens_thought(tail, r->tokenizer, r->ids.ids, prompt))
        return answer;
    if (strncmp(answer, tail, strlen(tail)) == 0)
        return answer + strlen(tail);
    return strncmp(answer, "<think>", 7) == 0 ? answer + 7 : answer;
}

/* The token that ends an answer: the template's end of turn where there is one, else eos. */
static int32_t end_token(const rt_tokenizer *tokenizer) { return rt_tokenizer_eos(tokenizer); }

static rt_status add_one_answer(reader *r, const json_t *messages, const json_t *completion, bool finished,
                                rt_error *err)
{
    r->ids.count = 0;
    if (rt_render_prompt(r->tokenizer, r->chat_template, messages, &r->ids, err) != RT_OK)
        return err->status;
    const size_t prompt = r->ids.count;
    const char *answer = behind_opening(r, prompt, json_string_value(completion));
    const size_t skipped = (size_t)(answer - json_string_value(completion));
    if (encode_answer(r, answer, json_string_length(completion) - skipped, err) != RT_OK)
        return err->status;
    const int32_t end = end_token(r->tokenizer);
    size_t n = r->ids.count;
    const bool ended = finished && end >= 0;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    uint8_t *mask = malloc(n + 1);
    rt_status status = RT_OK;
    if (!ids || !mask) {
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for an answer of %zu tokens", n);
    } else {
        memcpy(ids, r->ids.ids, n * sizeof *ids);
        if (ended)
            ids[n++] = end;
        memset(mask, r->options->loss_on_all, rt_size_min(prompt, n));
        memset(mask + prompt, 1, n - prompt);
        if (n > r->options->tokens_max) {
            n = r->options->tokens_max;
            r->docs->n_cut++;
        }
        if (n > prompt || r->options->loss_on_all)
            status = rt_documents_add(r->docs, ids, mask, n, err);
    }
    free(ids);
    free(mask);
    return status;
}

static rt_status add_answer(reader *r, const json_t *messages, const json_t *completion, bool finished,
                            rt_error *err)
{
    const mark own = mark_of(r->docs), beside = r->beside ? mark_of(r->beside->docs) : own;
    if (add_one_answer(r, messages, completion, finished, err) != RT_OK ||
        (r->beside && add_one_answer(r->beside, messages, completion, finished, err) != RT_OK))
        return err->status;
    if (r->beside)
        even_out(r, &own, &beside);
    return RT_OK;
}

static const json_t *string_of(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return json_is_string(value) ? value : NULL;
}

static rt_status add_messages(reader *r, const json_t *messages, rt_error *err)
{
    const size_t n = json_array_size(messages);
    const json_t *last = n ? json_array_get(messages, n - 1) : NULL;
    const json_t *content = last ? string_of(last, "content") : NULL,
                 *role = last ? string_of(last, "role") : NULL;
    if (!content || !role || strcmp(json_string_value(role), "assistant") != 0 || n < 2)
        return rt_error_set(err, RT_INVALID,
                            "\"messages\" must end with an assistant's message that has text");
    json_t *before = json_array();
    for (size_t i = 0; before && i + 1 < n; i++)
        (void)json_array_append(before, json_array_get(messages, i));
    const rt_status status = before ? add_answer(r, before, content, true, err)
                                    : rt_error_set(err, RT_NO_MEMORY, "no memory for the messages");
    json_decref(before);
    return status;
}

bool rt_document_row_parts(const json_t *row, json_t **messages, const json_t **answer, bool *finished)
{
    const json_t *asked = json_object_get(row, "messages"), *prompt = string_of(row, "prompt");
    const json_t *reason = string_of(row, "finish_reason"), *request = json_object_get(row, "request");
    *answer = string_of(row, "completion");
    if (json_is_object(request) && !*answer) { /* a row of retort collect */
        asked = json_object_get(request, "messages");
        prompt = string_of(request, "prompt");
        *answer = string_of(row, "response");
    }
    *finished = !reason || strcmp(json_string_value(reason), "stop") == 0;
    if (!prompt) {
        prompt = string_of(row, "instruction");
        if (!*answer && !request)
            *answer = string_of(row, "output");
    }
    if (!*answer || (!prompt && !json_is_array(asked)))
        return false;
    *messages = json_is_array(asked) ? json_incref((json_t *)(size_t)asked)
                                     : json_pack("[{s:s, s:O}]", "role", "user", "content", prompt);
    return true;
}

static rt_status add_row(reader *r, const json_t *row, rt_error *err)
{
    const json_t *messages = json_object_get(row, "messages"), *text = string_of(row, "text"), *completion;
    json_t *made;
    bool finished;
    if (json_is_array(messages) && !string_of(row, "completion"))
        return add_messages(r, messages, err);
    if (rt_document_row_parts(row, &made, &completion, &finished)) {
        const rt_status status = made ? add_answer(r, made, completion, finished, err)
                                      : rt_error_set(err, RT_NO_MEMORY, "no memory for the messages");
        json_decref(made);
        return status;
    }
    if (text)
        return add_text(r, json_string_value(text), json_string_length(text), err);
    return rt_error_set(
        err, RT_INVALID,
        "a row needs \"text\", \"prompt\" and \"completion\", or \"messages\"; this one has none of them");
}

rt_status rt_documents_add_row(rt_documents *docs, const json_t *row, const rt_tokenizer *tokenizer,
                               const rt_chat_template *chat_template, const rt_document_options *options,
                               rt_error *err)
{
    reader r = {docs, tokenizer, chat_template, options, {0}, NULL};
    const rt_status status = add_row(&r, row, err);
    rt_token_list_deinit(&r.ids);
    return status;
}

static rt_status add_lines(reader *r, const char *data, size_t size, rt_error *err)
{
    size_t line = 0;
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(data + at, '\n', size - at);
        const size_t n = newline ? (size_t)(newline - (data + at)) : size - at;
        line++;
        char where[32];
        (void)snprintf(where, sizeof where, "line %zu", line);
        if (n && !(n == 1 && data[at] == '\r')) {
            json_error_t json_err;
            json_t *row = json_loadb(data + at, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &json_err);
            if (!row)
                return rt_error_set(err, RT_CORRUPT, "line %zu: not JSON: %.120s", line, json_err.text);
            const rt_status status = json_is_object(row)
                                         ? add_row(r, row, err)
                                         : rt_error_set(err, RT_INVALID, "a row must be an object");
            json_decref(row);
            if (status != RT_OK)
                return rt_error_within(err, where);
        }
        at += n + 1;
    }
    return RT_OK;
}

static rt_status read_file(reader *r, const char *path, rt_error *err)
{
    rt_text text = {.size_max = file_bytes_max};
    rt_status status = rt_file_read_unpacked(&text, path, err);
    const char *content = text.data ? text.data : "";
    const size_t content_size = text.size, before = r->docs->n_docs;
    if (status == RT_OK) {
        const bool plain = ends_with(path, ".txt") || ends_with(path, ".txt.zst");
        status = plain ? add_text(r, content, content_size, err) : add_lines(r, content, content_size, err);
        if (status == RT_OK && r->docs->n_docs == before)
            status = rt_error_set(err, RT_INVALID, "there is no text in it to learn from");
        if (status != RT_OK)
            (void)rt_error_within(err, path);
    }
    rt_token_list_deinit(&r->ids);
    rt_text_deinit(&text);
    return status;
}

rt_status rt_documents_read(rt_documents *docs, const char *path, const rt_tokenizer *tokenizer,
                            const rt_chat_template *chat_template, const rt_document_options *options,
                            rt_error *err)
{
    reader r = {docs, tokenizer, chat_template, options, {0}, NULL};
    return read_file(&r, path, err);
}

rt_status rt_documents_read_both(const rt_documents_side *first, const rt_documents_side *second,
                                 const char *path, const rt_document_options *options, rt_error *err)
{
    reader beside = {second->docs, second->tokenizer, second->chat_template, options, {0}, NULL};
    reader r = {first->docs, first->tokenizer, first->chat_template, options, {0}, &beside};
    const rt_status status = read_file(&r, path, err);
    rt_token_list_deinit(&beside.ids);
    return status;
}
