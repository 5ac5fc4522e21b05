/* teacher/answer_logprobs.c - log-probabilities in a server's answer, in the chat form and the legacy form.
 *
 *   chat     {"content": [{"token", "logprob", "bytes": [..] | null, "top_logprobs": [the same], "id"?}]}
 *   legacy   {"tokens": [..], "token_logprobs": [..], "top_logprobs": [{token: logprob}], "text_offset":
 * [..]}
 *
 * Some servers give the chat form under completions, and an "id" with each entry; "token_id:N" is vLLM's
 * spelling of an id, "bytes:\xNN" OpenAI's of bytes that are no text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "teacher/answer.h"

enum { TOP_MAX = 4096 };

static bool grow(void **items, size_t *capacity, size_t count, size_t item_size)
{
    if (count < *capacity)
        return true;
    size_t bytes, wanted = rt_size_max(*capacity * 2, 64);
    if (!rt_size_mul(wanted, item_size, &bytes))
        return false;
    void *bigger = realloc(*items, bytes);
    if (!bigger)
        return false;
    *items = bigger;
    *capacity = wanted;
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* "bytes:\xe2\x80" is three letters of bytes; true when all of it was so. */
static bool append_escaped(rt_text *out, const char *token, size_t size)
{
    static const char mark[] = "bytes:";
    if (size <= sizeof mark - 1 || memcmp(token, mark, sizeof mark - 1) != 0)
        return false;
    const char *at = token + sizeof mark - 1, *end = token + size;
    if ((end - at) % 4 != 0)
        return false;
    for (const char *c = at; c < end; c += 4)
        if (c[0] != '\\' || c[1] != 'x' || hex_digit(c[2]) < 0 || hex_digit(c[3]) < 0)
            return false;
    for (const char *c = at; c < end; c += 4) {
        const char byte = (char)(hex_digit(c[2]) * 16 + hex_digit(c[3]));
        rt_text_append(out, &byte, 1);
    }
    return true;
}

static int32_t id_in_spelling(const char *token, size_t size)
{
    static const char mark[] = "token_id:";
    if (size <= sizeof mark - 1 || size > sizeof mark + 9 || memcmp(token, mark, sizeof mark - 1) != 0)
        return -1;
    int64_t id = 0;
    for (size_t i = sizeof mark - 1; i < size; i++) {
        if (token[i] < '0' || token[i] > '9')
            return -1;
        id = id * 10 + (token[i] - '0');
    }
    return id <= INT32_MAX ? (int32_t)id : -1;
}

static bool append_bytes(rt_text *out, const json_t *bytes)
{
    const size_t n = json_array_size(bytes), mark = out->size;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(bytes, i);
        const json_int_t value = json_integer_value(item);
        if (!json_is_integer(item) || value < 0 || value > 255) {
            out->size = mark;
            return false;
        }
        const char byte = (char)value;
        rt_text_append(out, &byte, 1);
    }
    return true;
}

rt_status rt_answer_alternative(rt_answered_alternative *out, rt_answered *reply, const char *token,
                                size_t token_size, const json_t *bytes, const json_t *id, double logprob)
{
    *out =
        (rt_answered_alternative){.bytes = (uint32_t)reply->pool.size, .id = -1, .logprob = (float)logprob};
    const json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
    if (number >= 0 && number <= INT32_MAX)
        out->id = (int32_t)number;
    else
        out->id = id_in_spelling(token, token_size);
    if (!(json_is_array(bytes) && append_bytes(&reply->pool, bytes)) &&
        !append_escaped(&reply->pool, token, token_size))
        rt_text_append(&reply->pool, token, token_size);
    out->n_bytes = (uint32_t)(reply->pool.size - out->bytes);
    return reply->pool.failed || reply->pool.size > UINT32_MAX ? RT_NO_MEMORY : RT_OK;
}

static rt_status add_top(rt_answered *reply, rt_answered_token *token, const char *text, size_t size,
                         const json_t *bytes, const json_t *id, double logprob, rt_error *err)
{
    if (token->n_top == TOP_MAX)
        return rt_error_set(err, RT_CORRUPT, "a token with more than %d alternatives", (int)TOP_MAX);
    if (!grow((void **)&reply->alternatives, &reply->alternatives_capacity, reply->n_alternatives,
              sizeof *reply->alternatives))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for log-probabilities");
    rt_answered_alternative *out = &reply->alternatives[reply->n_alternatives];
    if (rt_answer_alternative(out, reply, text, size, bytes, id, logprob) != RT_OK)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for log-probabilities");
    reply->n_alternatives++;
    token->n_top++;
    return RT_OK;
}

static rt_status add_token(rt_answered *reply, const char *text, size_t size, const json_t *bytes,
                           const json_t *id, const json_t *logprob, rt_error *err)
{
    if (!grow((void **)&reply->tokens, &reply->tokens_capacity, reply->n_tokens, sizeof *reply->tokens))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for log-probabilities");
    rt_answered_token *token = &reply->tokens[reply->n_tokens];
    *token = (rt_answered_token){.top = (uint32_t)reply->n_alternatives, .tail = NAN};
    const double value = json_is_number(logprob) ? json_number_value(logprob) : (double)NAN;
    if (rt_answer_alternative(&token->chosen, reply, text, size, bytes, id, value) != RT_OK)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for log-probabilities");
    reply->n_tokens++;
    return RT_OK;
}

static int likelier(const void *a, const void *b)
{
    const rt_answered_alternative *x = a, *y = b;
    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static void sort_top(rt_answered *reply, const rt_answered_token *token)
{
    if (token->n_top > 1)
        qsort(reply->alternatives + token->top, token->n_top, sizeof *reply->alternatives, likelier);
}

static rt_status read_chat_entry(rt_answered *reply, const json_t *entry, rt_error *err)
{
    const json_t *text = json_object_get(entry, "token"), *logprob = json_object_get(entry, "logprob");
    if (!json_is_string(text) || !(json_is_number(logprob) || json_is_null(logprob)))
        return rt_error_set(err, RT_CORRUPT, "an entry of logprobs has no token or no logprob");
    if (add_token(reply, json_string_value(text), json_string_length(text), json_object_get(entry, "bytes"),
                  json_object_get(entry, "id"), logprob, err) != RT_OK)
        return err->status;
    rt_answered_token *token = &reply->tokens[reply->n_tokens - 1];
    const json_t *top = json_object_get(entry, "top_logprobs");
    for (size_t i = 0, n = json_array_size(top); i < n; i++) {
        const json_t *item = json_array_get(top, i), *name = json_object_get(item, "token"),
                     *value = json_object_get(item, "logprob");
        if (!json_is_string(name) || !json_is_number(value))
            return rt_error_set(err, RT_CORRUPT, "an entry of top_logprobs has no token or no logprob");
        if (add_top(reply, token, json_string_value(name), json_string_length(name),
                    json_object_get(item, "bytes"), json_object_get(item, "id"), json_number_value(value),
                    err) != RT_OK)
            return err->status;
    }
    sort_top(reply, token);
    return RT_OK;
}

static rt_status read_legacy(rt_answered *reply, const json_t *logprobs, rt_error *err)
{
    const json_t *tokens = json_object_get(logprobs, "tokens"),
                 *values = json_object_get(logprobs, "token_logprobs"),
                 *tops = json_object_get(logprobs, "top_logprobs");
    if (json_array_size(tokens) != json_array_size(values))
        return rt_error_set(err, RT_CORRUPT, "logprobs holds %zu tokens and %zu token_logprobs",
                            json_array_size(tokens), json_array_size(values));
    for (size_t i = 0, n = json_array_size(tokens); i < n; i++) {
        const json_t *text = json_array_get(tokens, i), *value = json_array_get(values, i);
        if (!json_is_string(text) || !(json_is_number(value) || json_is_null(value)))
            return rt_error_set(err, RT_CORRUPT, "logprobs: entry %zu is not a token with a number", i);
        if (add_token(reply, json_string_value(text), json_string_length(text), NULL, NULL, value, err) !=
            RT_OK)
            return err->status;
        rt_answered_token *token = &reply->tokens[reply->n_tokens - 1];
        const char *name;
        size_t name_size;
        json_t *top;
        json_object_keylen_foreach(json_array_get(tops, i), name, name_size, top)
        {
            if (!json_is_number(top))
                return rt_error_set(err, RT_CORRUPT, "top_logprobs: entry %zu holds no number", i);
            if (add_top(reply, token, name, name_size, NULL, NULL, json_number_value(top), err) != RT_OK)
                return err->status;
        }
        sort_top(reply, token);
    }
    return RT_OK;
}

rt_status rt_answer_logprobs(rt_answered *reply, const json_t *logprobs, rt_error *err)
{
    if (!logprobs || json_is_null(logprobs))
        return RT_OK;
    if (json_is_array(json_object_get(logprobs, "tokens")))
        return read_legacy(reply, logprobs, err);
    const json_t *content = json_object_get(logprobs, "content");
    if (!json_is_object(logprobs) || (content && !json_is_array(content) && !json_is_null(content)))
        return rt_error_set(err, RT_CORRUPT, "logprobs has neither content nor tokens");
    for (size_t i = 0, n = json_array_size(content); i < n; i++)
        if (read_chat_entry(reply, json_array_get(content, i), err) != RT_OK)
            return err->status;
    return RT_OK;
}

/* ---- checks ---- */

static void drop_logprobs(rt_answered *reply) { reply->n_tokens = reply->n_alternatives = 0; }

/* The alternatives' probabilities and what is left; false when they cannot be probabilities. */
static bool check_sums(rt_answered *reply)
{
    static const double slack = 1e-4;
    for (size_t i = 0; i < reply->n_tokens; i++) {
        rt_answered_token *token = &reply->tokens[i];
        double sum = 0;
        if ((double)token->chosen.logprob > slack)
            return false;
        for (size_t j = 0; j < token->n_top; j++)
            sum += exp((double)reply->alternatives[token->top + j].logprob);
        if (!(sum <= 1 + slack))
            return false;
        token->tail = token->n_top ? (float)fmax(1 - sum, 0) : NAN;
    }
    return true;
}

static bool check_ids(rt_answered *reply, size_t n_vocab)
{
    if (n_vocab == 0)
        return true;
    for (size_t i = 0; i < reply->n_tokens; i++)
        if (reply->tokens[i].chosen.id >= 0 && (size_t)reply->tokens[i].chosen.id >= n_vocab)
            return false;
    for (size_t i = 0; i < reply->n_alternatives; i++)
        if (reply->alternatives[i].id >= 0 && (size_t)reply->alternatives[i].id >= n_vocab)
            return false;
    return true;
}

/* ---- do the tokens spell the text? ---- */

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* Without the blanks around it. */
static const char *trimmed(const rt_text *text, size_t *size)
{
    const char *data = text->data ? text->data : "";
    *size = text->size;
    while (*size && is_blank(data[*size - 1]))
        --*size;
    for (; *size && is_blank(*data); data++)
        --*size;
    return data;
}

static bool holds(const rt_text *text, const char *part, size_t size)
{
    return text->size >= size && memmem(text->data, text->size, part, size) != NULL;
}

/* What the chosen tokens say as text: ill-formed bytes, such as a character that was cut off, are U+FFFD as
 * in every JSON.  Control tokens (<...>, [...]) that are nowhere in the text were not shown. */
static void spell(const rt_answered *reply, const rt_text *shown, rt_text *out)
{
    rt_text raw = {0};
    for (size_t i = 0; i < reply->n_tokens; i++) {
        const rt_answered_alternative *chosen = &reply->tokens[i].chosen;
        const char *bytes = reply->pool.data ? reply->pool.data + chosen->bytes : "";
        const size_t n = chosen->n_bytes;
        const bool control =
            n >= 3 && ((bytes[0] == '<' && bytes[n - 1] == '>') || (bytes[0] == '[' && bytes[n - 1] == ']'));
        if (!control || holds(shown, bytes, n) || holds(&reply->reasoning, bytes, n))
            rt_text_append(&raw, bytes, n);
    }
    for (size_t at = 0, n; at < raw.size; at += n) {
        char utf8[4];
        const uint32_t code = rt_utf8_decode(raw.data + at, raw.size - at, &n);
        rt_text_append(out, utf8, rt_utf8_encode(code, utf8));
    }
    out->failed |= raw.failed;
    rt_text_deinit(&raw);
}

/* Blanks around the text, and what follows it (a stop string, the end token's name), do not matter; before it
 * there is nothing, or the reasoning and the tags around that. */
static bool check_bytes(const rt_answered *reply, const rt_text *shown)
{
    enum { TAG_MAX = 64 };
    rt_text said = {0};
    size_t size, n;
    spell(reply, shown, &said);
    const char *at = trimmed(&said, &size), *thought = trimmed(&reply->reasoning, &n);
    bool ok = !said.failed;
    if (n > 0) { /* both parts are looked for near to where they have to be */
        const char *hit = memmem(at, rt_size_min(size, n + TAG_MAX), thought, n);
        ok = ok && hit;
        if (hit) {
            size -= (size_t)(hit - at) + n;
            at = hit + n;
        }
    }
    const size_t tags = n > 0 ? TAG_MAX : 0;
    const char *text = trimmed(shown, &n);
    ok = ok && (n == 0 || memmem(at, rt_size_min(size, n + tags), text, n));
    rt_text_deinit(&said);
    return ok;
}

void rt_answer_check_logprobs(rt_answered *reply, const rt_answer_wish *wish, const rt_text *shown)
{
    if (reply->n_tokens == 0) {
        if (wish->logprobs && shown->size)
            reply->flags |= RT_REPLY_NO_LOGPROBS;
        return;
    }
    const uint64_t count = reply->usage.completion;
    if (!(reply->flags & RT_REPLY_USAGE) && reply->n_tokens != count && reply->n_tokens + 1 != count &&
        reply->n_tokens + reply->usage.reasoning != count)
        reply->flags |= RT_REPLY_COUNT;
    if (!check_bytes(reply, shown))
        reply->flags |= RT_REPLY_BYTES;
    if (!check_ids(reply, wish->n_vocab)) {
        reply->flags |= RT_REPLY_IDS;
        for (size_t i = 0; i < reply->n_tokens; i++)
            reply->tokens[i].chosen.id = -1;
        for (size_t i = 0; i < reply->n_alternatives; i++)
            reply->alternatives[i].id = -1;
    }
    if (!check_sums(reply)) {
        reply->flags |= RT_REPLY_SUM;
        drop_logprobs(reply);
    }
}
