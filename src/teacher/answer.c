/* teacher/answer.c - a server's answer, whole or streamed; see answer.h.
 *
 * A stream is read when all of it is there: chunks that came twice can only be told from text that repeats
 * itself when the usage at its end is known. */
#include "teacher/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/size.h"

json_t *rt_answer_json(const char *data, size_t size, rt_error *err)
{
    json_error_t json_err = {0};
    json_t *json = json_loadb(data, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &json_err);
    if (!json)
        (void)rt_error_set(err, RT_CORRUPT, "the answer is not valid JSON (line %d: %.120s)", json_err.line,
                           json_err.text);
    return json;
}

static void copy_text(char *out, size_t size, const json_t *string)
{
    if (json_is_string(string))
        (void)snprintf(out, size, "%s", json_string_value(string));
}

static void append_string(rt_text *out, const json_t *string)
{
    if (json_is_string(string))
        rt_text_append(out, json_string_value(string), json_string_length(string));
}

/* ---- errors ---- */

static void copy_error(rt_answered *reply, const json_t *error)
{
    if (json_is_string(error)) {
        copy_text(reply->error_text, sizeof reply->error_text, error);
        return;
    }
    const json_t *code = json_object_get(error, "code"), *type = json_object_get(error, "type");
    copy_text(reply->error_code, sizeof reply->error_code, json_is_string(code) ? code : type);
    if (json_is_string(type) && strcmp(json_string_value(type), "insufficient_quota") == 0)
        copy_text(reply->error_code, sizeof reply->error_code, type);
    copy_text(reply->error_text, sizeof reply->error_text, json_object_get(error, "message"));
}

void rt_answer_read_error(rt_answered *reply, const char *data, size_t size)
{
    reply->error_code[0] = reply->error_text[0] = '\0';
    rt_error err = {0};
    json_t *json = rt_answer_json(data, size, &err);
    const json_t *error = json_object_get(json, "error"), *detail = json_object_get(json, "detail");
    if (error && !json_is_null(error))
        copy_error(reply, error);
    else if (json_is_string(detail))
        copy_text(reply->error_text, sizeof reply->error_text, detail);
    else if (json_is_object(json))
        copy_error(reply, json); /* some servers put the members at the top */
    json_decref(json);
    if (reply->error_text[0] == '\0' && size && rt_utf8_valid(data, size))
        (void)snprintf(reply->error_text, sizeof reply->error_text, "%.*s", (int)rt_size_min(size, 200),
                       data);
    for (char *c = reply->error_text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
}

/* ---- usage ---- */

static bool read_count(uint64_t *out, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > (json_int_t)1 << 40)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static void read_usage(rt_answered *reply, const json_t *usage, const rt_answer_wish *wish)
{
    rt_usage u = {0};
    bool good = read_count(&u.prompt, usage, "prompt_tokens");
    if (json_object_get(usage, "completion_tokens"))
        good = read_count(&u.completion, usage, "completion_tokens") && good;
    const json_t *total = json_object_get(usage, "total_tokens");
    if (good && json_is_integer(total) && json_integer_value(total) < (json_int_t)(u.prompt + u.completion))
        reply->flags |= RT_REPLY_USAGE; /* more is possible: reasoning that some count apart */
    const json_t *in = json_object_get(usage, "prompt_tokens_details"),
                 *out = json_object_get(usage, "completion_tokens_details");
    if (!read_count(&u.cached, in, "cached_tokens"))
        (void)read_count(&u.cached, usage, "prompt_cache_hit_tokens");
    (void)read_count(&u.reasoning, out, "reasoning_tokens");
    const size_t bytes = reply->text.size + reply->reasoning.size;
    if (good && u.completion == 0 && bytes > 0)
        good = false;
    if (!good) { /* cost is counted by an estimate, never as nothing */
        reply->flags |= RT_REPLY_USAGE;
        u = (rt_usage){.prompt = rt_size_ceil_div(wish->prompt_bytes, 4),
                       .completion = rt_size_ceil_div(bytes, 4)};
    }
    u.cached = u.cached > u.prompt ? 0 : u.cached;
    u.reasoning = u.reasoning > u.completion ? 0 : u.reasoning;
    reply->usage = u;
}

/* ---- parts of a choice ---- */

static void read_finish(rt_answered *reply, const json_t *choice)
{
    static const char *const same[][2] = {
        {"eos", "stop"},  {"eos_token", "stop"},    {"end_turn", "stop"},     {"stop_sequence", "stop"},
        {"STOP", "stop"}, {"max_tokens", "length"}, {"MAX_TOKENS", "length"}, {"SAFETY", "content_filter"}};
    const json_t *finish = json_object_get(choice, "finish_reason");
    if (!json_is_string(finish) || json_string_length(finish) == 0)
        return;
    copy_text(reply->finish, sizeof reply->finish, finish);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (strcmp(reply->finish, same[i][0]) == 0)
            (void)snprintf(reply->finish, sizeof reply->finish, "%s", same[i][1]);
}

static rt_status read_ids(int32_t **ids, size_t *n, const json_t *array, rt_answered *reply, size_t n_vocab)
{
    const size_t count = json_array_size(array);
    if (count == 0)
        return RT_OK;
    int32_t *bigger =
        count + *n < SIZE_MAX / sizeof **ids ? realloc(*ids, (*n + count) * sizeof **ids) : NULL;
    if (!bigger)
        return RT_NO_MEMORY;
    *ids = bigger;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(array, i);
        const json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id > INT32_MAX || (n_vocab && (size_t)id >= n_vocab)) {
            reply->flags |= RT_REPLY_IDS;
            *n = 0;
            return RT_OK;
        }
        bigger[*n + i] = (int32_t)id;
    }
    *n += count;
    return RT_OK;
}

/* A choice's text, from a message, a delta or a completion; *given: there was a member for it. */
static void read_text(rt_answered *reply, const json_t *choice, bool *given)
{
    const json_t *message = json_object_get(choice, "message");
    if (!message)
        message = json_object_get(choice, "delta");
    const json_t *content = message ? json_object_get(message, "content") : json_object_get(choice, "text");
    *given = json_is_object(message) || json_is_string(content);
    append_string(&reply->text, content);
    for (size_t i = 0, n = json_array_size(content); i < n; i++) /* parts: {"type": "text", "text"} */
        append_string(&reply->text, json_object_get(json_array_get(content, i), "text"));
    const json_t *reasoning = json_object_get(message, "reasoning_content");
    append_string(&reply->reasoning,
                  json_is_string(reasoning) ? reasoning : json_object_get(message, "reasoning"));
    const json_t *refusal = json_object_get(message, "refusal");
    if (json_is_string(refusal) && json_string_length(refusal)) {
        reply->has_refusal = true;
        append_string(&reply->refusal, refusal);
    }
}

static rt_status read_choice(rt_answered *reply, const rt_answer_wish *wish, const json_t *choice,
                             rt_error *err)
{
    bool given = false;
    read_text(reply, choice, &given);
    read_finish(reply, choice);
    if (!given)
        return rt_error_set(err, RT_CORRUPT, "the choice holds neither a message nor a text");
    if (rt_answer_logprobs(reply, json_object_get(choice, "logprobs"), err) != RT_OK)
        return err->status;
    if (read_ids(&reply->ids, &reply->n_ids, json_object_get(choice, "token_ids"), reply, wish->n_vocab) !=
            RT_OK ||
        read_ids(&reply->prompt_ids, &reply->n_prompt_ids, json_object_get(choice, "prompt_token_ids"), reply,
                 wish->n_vocab) != RT_OK)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the token ids");
    return RT_OK;
}

static rt_status read_head(rt_answered *reply, const rt_answer_wish *wish, const json_t *json, rt_error *err)
{
    if (!json_is_object(json))
        return rt_error_set(err, RT_CORRUPT, "the answer is JSON but no object");
    const json_t *error = json_object_get(json, "error");
    if (error && !json_is_null(error)) {
        copy_error(reply, error);
        return rt_error_set(err, RT_IO, "the server gave an error in its answer: %.200s", reply->error_text);
    }
    copy_text(reply->model, sizeof reply->model, json_object_get(json, "model"));
    copy_text(reply->fingerprint, sizeof reply->fingerprint, json_object_get(json, "system_fingerprint"));
    if (read_ids(&reply->prompt_ids, &reply->n_prompt_ids, json_object_get(json, "prompt_token_ids"), reply,
                 wish->n_vocab) != RT_OK)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the token ids");
    return RT_OK;
}

/* gpt-4o may answer as gpt-4o-2024-08-06, org/name as name: that is the same model. */
static bool same_model(const char *asked, const char *answered)
{
    const char *slash = strrchr(asked, '/'), *answered_slash = strrchr(answered, '/');
    const char *a = slash ? slash + 1 : asked, *b = answered_slash ? answered_slash + 1 : answered;
    return strncasecmp(a, b, strlen(a)) == 0 || strncasecmp(a, b, strlen(b)) == 0;
}

static rt_status finish_reply(rt_answered *reply, const rt_answer_wish *wish, const json_t *usage,
                              rt_error *err)
{
    if (reply->text.failed || reply->reasoning.failed || reply->refusal.failed || reply->pool.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the answer");
    if (reply->model[0] && wish->model && wish->model[0] && !same_model(wish->model, reply->model))
        reply->flags |= RT_REPLY_MODEL;
    read_usage(reply, usage, wish);
    rt_answer_check_logprobs(reply, wish, &reply->text);
    if (reply->reasoning.size == 0)
        rt_answer_split_thinking(reply);
    return RT_OK;
}

/* ---- think tags ---- */

static const char *find(const char *text, size_t size, const char *word)
{
    return size ? memmem(text, size, word, strlen(word)) : NULL;
}

void rt_answer_split_thinking(rt_answered *reply)
{
    static const char open_tag[] = "<think>", close_tag[] = "</think>";
    if (reply->text.size == 0)
        return;
    const char *text = reply->text.data, *end = text + reply->text.size;
    const char *start = text;
    while (start < end && strchr(" \n\r\t", *start))
        start++;
    const size_t left = (size_t)(end - start);
    const bool opened = left >= sizeof open_tag - 1 && memcmp(start, open_tag, sizeof open_tag - 1) == 0;
    const char *close = find(start, left, close_tag), *later = find(start, left, open_tag);
    if (!opened && (!close || (later && later < close)))
        return;
    if (opened)
        start += sizeof open_tag - 1;
    const char *stop = close ? close : end, *rest = close ? close + sizeof close_tag - 1 : end;
    while (start < stop && strchr(" \n\r\t", *start))
        start++;
    while (stop > start && strchr(" \n\r\t", stop[-1]))
        stop--;
    while (rest < end && (*rest == '\n' || *rest == '\r'))
        rest++;
    rt_text_append(&reply->reasoning, start, (size_t)(stop - start));
    if (!close)
        reply->flags |= RT_REPLY_OPEN_THINK;
    const size_t kept = (size_t)(end - rest);
    memmove(reply->text.data, rest, kept);
    reply->text.data[kept] = '\0';
    reply->text.size = kept;
}

/* ---- whole ---- */

rt_status rt_answer_read(rt_answered *reply, const rt_answer_wish *wish, const char *data, size_t size,
                         rt_error *err)
{
    json_t *json = rt_answer_json(data, size, err);
    if (!json)
        return err->status;
    rt_status status = read_head(reply, wish, json, err);
    const json_t *choices = json_object_get(json, "choices"), *choice = json_array_get(choices, 0);
    if (status == RT_OK && !json_is_object(choice))
        status = rt_error_set(err, RT_CORRUPT, "the answer holds no choice");
    if (status == RT_OK)
        status = read_choice(reply, wish, choice, err);
    if (status == RT_OK)
        status = finish_reply(reply, wish, json_object_get(json, "usage"), err);
    if (status == RT_OK && wish->keep_raw)
        reply->raw = json_incref(json);
    json_decref(json);
    return status;
}

/* ---- streamed ---- */

typedef struct event {
    size_t at, size; /* in the stream */
    bool twice;      /* the same bytes as the event before */
} event;

typedef struct events {
    event *items;
    size_t count, capacity;
    bool done; /* [DONE] came */
} events;

static rt_status add_event(events *list, const char *data, size_t at, size_t size, rt_error *err)
{
    if (list->count == list->capacity) {
        const size_t wanted = rt_size_max(2 * list->capacity, 256);
        event *bigger = realloc(list->items, wanted * sizeof *bigger);
        if (!bigger)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the stream's events");
        list->items = bigger;
        list->capacity = wanted;
    }
    const event *last = list->count ? &list->items[list->count - 1] : NULL;
    const bool twice = last && last->size == size && memcmp(data + last->at, data + at, size) == 0;
    list->items[list->count++] = (event){at, size, twice};
    return RT_OK;
}

/* One "data:" line is one event, as all these servers send them; other lines are comments or unused fields.
 */
static rt_status find_events(events *list, const char *data, size_t size, rt_error *err)
{
    for (size_t at = 0; at < size && !list->done;) {
        const char *newline = memchr(data + at, '\n', size - at);
        if (!newline)
            break; /* an unfinished line is no event */
        size_t end = (size_t)(newline - data), next = end + 1;
        if (end > at && data[end - 1] == '\r')
            end--;
        if (end - at >= 5 && memcmp(data + at, "data:", 5) == 0) {
            size_t start = at + 5;
            if (start < end && data[start] == ' ')
                start++;
            if (end - start == 6 && memcmp(data + start, "[DONE]", 6) == 0)
                list->done = true;
            else if (end > start && add_event(list, data, start, end - start, err) != RT_OK)
                return err->status;
        }
        at = next;
    }
    return RT_OK;
}

typedef struct stream_state {
    size_t n_pieces, n_twice; /* events with text, and those that came twice and were not left out */
    json_t *usage;
    bool choice;
} stream_state;

static rt_status take_event(rt_answered *reply, const rt_answer_wish *wish, stream_state *state,
                            const json_t *json, bool twice, rt_error *err)
{
    if (read_head(reply, wish, json, err) != RT_OK)
        return err->status;
    const json_t *usage = json_object_get(json, "usage");
    if (json_is_object(usage)) {
        json_decref(state->usage);
        state->usage = json_incref((json_t *)usage);
    }
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    if (!json_is_object(choice))
        return RT_OK;
    if (twice && json_is_object(json_object_get(choice, "logprobs"))) {
        reply->flags |= RT_REPLY_DUPLICATE; /* the same log-probabilities to the last digit: no new token */
        return RT_OK;
    }
    state->choice = true;
    const size_t before = reply->text.size + reply->reasoning.size;
    if (read_choice(reply, wish, choice, err) != RT_OK)
        return err->status;
    if (reply->text.size + reply->reasoning.size > before) {
        state->n_pieces++;
        state->n_twice += twice;
    }
    return RT_OK;
}

/* Tokens are never fewer than pieces of text. */
static rt_status check_pieces(const rt_answered *reply, const stream_state *state, rt_error *err)
{
    uint64_t tokens = 0;
    const bool known = read_count(&tokens, state->usage, "completion_tokens") && tokens > 0;
    const uint64_t hidden = strcmp(reply->finish, "stop") == 0 && tokens > 0; /* the end token has no text */
    if (known && state->n_pieces > tokens)
        return rt_error_set(err, RT_CORRUPT, "chunks came twice: %zu pieces of text for %llu tokens",
                            state->n_pieces, (unsigned long long)tokens);
    if (state->n_twice && (!known || state->n_pieces > tokens - hidden))
        return rt_error_set(err, RT_CORRUPT, "chunks may have come twice: %zu equal the one before them",
                            state->n_twice);
    return RT_OK;
}

rt_status rt_answer_read_stream(rt_answered *reply, const rt_answer_wish *wish, const char *data, size_t size,
                                rt_error *err)
{
    events list = {0};
    stream_state state = {0};
    rt_status status = find_events(&list, data, size, err);
    for (size_t i = 0; i < list.count && status == RT_OK; i++) {
        json_t *json = rt_answer_json(data + list.items[i].at, list.items[i].size, err);
        status = json ? take_event(reply, wish, &state, json, list.items[i].twice && !wish->once, err)
                      : err->status;
        json_decref(json);
    }
    if (status == RT_OK && !list.done)
        status = rt_error_set(err, RT_CORRUPT, "the stream ended without [DONE]");
    if (status == RT_OK && !state.choice)
        status = rt_error_set(err, RT_CORRUPT, "the stream holds no choice");
    if (status == RT_OK && !wish->once)
        status = check_pieces(reply, &state, err);
    if (status == RT_OK)
        status = finish_reply(reply, wish, state.usage, err);
    json_decref(state.usage);
    free(list.items);
    return status;
}
