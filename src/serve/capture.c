/* serve/capture.c - see capture.h. */
#include "serve/capture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "outputs/collect_row.h"
#include "outputs/store.h"
#include "teacher/answer.h"

enum { WAITING_MAX = 1024, CHOICES_MAX = 64, TOLD_MAX = 1024 };
static const size_t waiting_bytes_max = (size_t)64 << 20;

typedef struct item {
    struct item *next;
    char id[64], account[64], *model, *body, *answer;
    size_t body_size, answer_size, bytes;
    bool chat, stream;
    rt_usage usage;
    double ms;
    int64_t ts;
} item;

struct rt_capture {
    rt_store *store;
    pthread_t thread;
    bool started, closing, failing;
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    item *first, *last;
    size_t waiting, bytes;
    rt_capture_counts counts;
    uint64_t told[TOLD_MAX]; /* hashes of accounts */
    size_t n_told;
};

/* ---- the request: what a row is trained on ---- */

/* Parts of text as one text; NULL: there is something else in it. */
static json_t *plain_content(const json_t *content)
{
    rt_text text = {0};
    size_t i;
    json_t *part, *out = NULL;
    if (json_is_string(content))
        return json_incref((json_t *)content);
    bool plain = json_is_array(content);
    json_array_foreach(content, i, part)
    {
        const json_t *piece = json_object_get(part, "text");
        plain = plain && json_is_string(piece);
        if (plain)
            rt_text_append(&text, json_string_value(piece), json_string_length(piece));
    }
    if (plain && !text.failed)
        out = json_stringn(text.data ? text.data : "", text.size);
    rt_text_deinit(&text);
    return out;
}

/* {"messages"} or {"prompt"}; NULL: not text alone. */
static json_t *asked_of(const json_t *body, bool chat)
{
    size_t i;
    json_t *message;
    if (!chat) {
        const json_t *prompt = json_object_get(body, "prompt");
        if (json_array_size(prompt) == 1)
            prompt = json_array_get(prompt, 0);
        return json_is_string(prompt) ? json_pack("{s:O}", "prompt", prompt) : NULL;
    }
    json_t *messages = json_array();
    json_array_foreach(json_object_get(body, "messages"), i, message)
    {
        const json_t *role = json_object_get(message, "role");
        json_t *content = plain_content(json_object_get(message, "content"));
        if (!json_is_string(role) || !content) {
            json_decref(content);
            json_decref(messages);
            return NULL;
        }
        (void)json_array_append_new(messages, json_pack("{s:O, s:o}", "role", role, "content", content));
    }
    return json_pack("{s:o}", "messages", messages);
}

/* ---- the answer ---- */

/* `json` with one of its choices, as the first; NULL: it has others only. */
static json_t *with_choice(const json_t *json, size_t index)
{
    const json_t *choices = json_object_get(json, "choices");
    size_t i;
    json_t *choice, *kept = json_array();
    json_array_foreach(choices, i, choice)
    {
        if ((size_t)json_integer_value(json_object_get(choice, "index")) != index)
            continue;
        json_t *copy = json_copy(choice);
        (void)json_object_set_new(copy, "index", json_integer(0));
        (void)json_array_append_new(kept, copy);
    }
    if (json_array_size(choices) > 0 && json_array_size(kept) == 0) {
        json_decref(kept);
        return NULL;
    }
    json_t *out = json_copy((json_t *)json);
    if (json_array_size(choices) > 0)
        (void)json_object_set_new(out, "choices", kept);
    else
        json_decref(kept);
    return out;
}

static void append_choice(rt_text *out, const char *data, size_t size, size_t index, bool event)
{
    rt_error err = {0};
    json_t *json = NULL, *one = NULL;
    if (rt_json_parse(&json, data, size, "answer", &err) == RT_OK)
        one = with_choice(json, index);
    char *text = one ? json_dumps(one, JSON_COMPACT) : NULL;
    if (text)
        rt_text_printf(out, "%s%s%s", event ? "data: " : "", text, event ? "\n\n" : "");
    free(text);
    json_decref(one);
    json_decref(json);
}

/* The answer as if that choice had been the only one. */
static void one_choice(rt_text *out, const item *it, size_t index)
{
    if (!it->stream) {
        append_choice(out, it->answer, it->answer_size, index, false);
        return;
    }
    for (const char *at = it->answer, *end = at + it->answer_size; at < end;) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        const size_t size = (size_t)((lf ? lf : end) - at);
        if (size > 6 && memcmp(at, "data: ", 6) == 0) {
            if (size >= 12 && memcmp(at + 6, "[DONE]", 6) == 0)
                rt_text_puts(out, "data: [DONE]\n\n");
            else
                append_choice(out, at + 6, size - 6, index, true);
        }
        at += size + 1;
    }
}

static size_t choices_asked(const json_t *body)
{
    const json_int_t n = json_integer_value(json_object_get(body, "n"));
    return n < 1 ? 1 : n > CHOICES_MAX ? CHOICES_MAX : (size_t)n;
}

/* ---- rows: the thread ---- */

static void count(rt_capture *c, uint64_t *which)
{
    (void)pthread_mutex_lock(&c->mutex);
    ++*which;
    (void)pthread_mutex_unlock(&c->mutex);
}

static void failed(rt_capture *c, const rt_error *err)
{
    if (!c->failing)
        rt_log(RT_LOG_WARNING, "answers are served and not captured: %s", err->text);
    c->failing = true;
    count(c, &c->counts.dropped);
}

static void write_row(rt_capture *c, const item *it, const json_t *asked, size_t index, size_t n,
                      const char *answer, size_t size)
{
    rt_answered reply;
    rt_error err = {0};
    rt_text line = {0};
    char id[96], source[160];
    rt_answered_init(&reply);
    const rt_answer_wish wish = {
        .chat = it->chat, .once = true, .model = it->model, .prompt_bytes = it->body_size};
    const rt_status read = it->stream ? rt_answer_read_stream(&reply, &wish, answer, size, &err)
                                      : rt_answer_read(&reply, &wish, answer, size, &err);
    if (read != RT_OK || reply.text.size == 0) {
        count(c, &c->counts.skipped);
        rt_answered_deinit(&reply);
        return;
    }
    if (n == 1) { /* what was charged, where the client did not ask for it */
        reply.usage = it->usage;
        reply.flags &= ~(unsigned)RT_REPLY_USAGE;
    }
    reply.flags &= ~(unsigned)RT_REPLY_MODEL; /* an alias, or a name that is mapped */
    reply.attempts = 1;
    reply.ms = it->ms;
    (void)snprintf(id, sizeof id, index ? "%s-%zu" : "%s", it->id, index);
    (void)snprintf(source, sizeof source,
                   *it->account ? "{\"captured\":true,\"account\":\"%s\"}" : "{\"captured\":true}",
                   it->account);
    const rt_row_facts facts = {.form = RT_ROW_STORE,
                                .id = id,
                                .index = index,
                                .request = asked,
                                .source = source,
                                .cost = -1,
                                .ts = it->ts,
                                .truncated = strcmp(reply.finish, "length") == 0};
    rt_row_write(&line, &facts, &reply);
    if (line.failed || line.size == 0)
        (void)rt_error_set(&err, RT_NO_MEMORY, "no memory for a row");
    else if (rt_store_add_line(c->store, line.data, line.size - 1, id, NULL, &err) == RT_OK)
        count(c, &c->counts.rows);
    if (err.status != RT_OK)
        failed(c, &err);
    rt_text_deinit(&line);
    rt_answered_deinit(&reply);
}

static void write_item(rt_capture *c, const item *it)
{
    rt_error err = {0};
    json_t *body = NULL;
    json_t *asked = rt_json_parse(&body, it->body, it->body_size, "request", &err) == RT_OK
                        ? asked_of(body, it->chat)
                        : NULL;
    const size_t n = choices_asked(body);
    if (!asked)
        count(c, &c->counts.skipped);
    for (size_t i = 0; asked && i < n; i++) {
        rt_text one = {0};
        if (n > 1)
            one_choice(&one, it, i);
        write_row(c, it, asked, i, n, n > 1 ? (one.data ? one.data : "") : it->answer,
                  n > 1 ? one.size : it->answer_size);
        rt_text_deinit(&one);
    }
    json_decref(asked);
    json_decref(body);
}

static void item_free(item *it)
{
    free(it->model);
    free(it->body);
    free(it->answer);
    free(it);
}

static void *write_all(void *context)
{
    rt_capture *c = context;
    rt_error err = {0};
    (void)pthread_mutex_lock(&c->mutex);
    for (;;) {
        while (!c->first && !c->closing)
            (void)pthread_cond_wait(&c->filled, &c->mutex);
        item *list = c->first;
        c->first = c->last = NULL;
        if (!list)
            break;
        (void)pthread_mutex_unlock(&c->mutex);
        size_t done = 0, bytes = 0;
        for (item *next; list; list = next) {
            next = list->next;
            write_item(c, list);
            done++;
            bytes += list->bytes;
            item_free(list);
        }
        err = (rt_error){0};
        if (rt_store_flush(c->store, &err) == RT_OK)
            c->failing = false;
        else
            failed(c, &err);
        (void)pthread_mutex_lock(&c->mutex);
        c->waiting -= done;
        c->bytes -= bytes;
    }
    (void)pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* ---- for who serves ---- */

static item *item_new(const rt_captured *what)
{
    item *it = calloc(1, sizeof *it);
    if (!it)
        return NULL;
    *it = (item){.body_size = what->body_size,
                 .answer_size = what->answer->size,
                 .bytes = what->body_size + what->answer->size,
                 .chat = what->chat,
                 .stream = what->stream,
                 .usage = {.prompt = what->prompt_tokens,
                           .cached = what->cached_tokens,
                           .completion = what->output_tokens},
                 .ms = what->seconds * 1e3,
                 .ts = rt_clock_unix_seconds(),
                 .model = strdup(what->model ? what->model : ""),
                 .body = malloc(what->body_size + 1),
                 .answer = malloc(what->answer->size + 1)};
    if (!it->model || !it->body || !it->answer) {
        item_free(it);
        return NULL;
    }
    (void)snprintf(it->id, sizeof it->id, "%s", what->id);
    (void)snprintf(it->account, sizeof it->account, "%s", what->account ? what->account : "");
    memcpy(it->body, what->body, what->body_size);
    if (what->answer->size > 0)
        memcpy(it->answer, what->answer->data, what->answer->size);
    return it;
}

void rt_capture_add(rt_capture *c, const rt_captured *what)
{
    const size_t bytes = what->body_size + what->answer->size;
    (void)pthread_mutex_lock(&c->mutex);
    const bool room = c->waiting < WAITING_MAX && c->bytes + bytes <= waiting_bytes_max;
    (void)pthread_mutex_unlock(&c->mutex);
    item *it = room && !what->answer->failed ? item_new(what) : NULL;
    (void)pthread_mutex_lock(&c->mutex);
    if (!it) {
        c->counts.dropped++;
    } else {
        if (c->last)
            c->last->next = it;
        else
            c->first = it;
        c->last = it;
        c->waiting++;
        c->bytes += bytes;
        (void)pthread_cond_signal(&c->filled);
    }
    (void)pthread_mutex_unlock(&c->mutex);
}

void rt_capture_not_kept(rt_capture *c, const char *account)
{
    const uint64_t hash = rt_hash64(account, strlen(account), 3);
    bool known = false;
    (void)pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; i < c->n_told && !known; i++)
        known = c->told[i] == hash;
    const bool tell = !known && c->n_told < TOLD_MAX;
    if (tell)
        c->told[c->n_told++] = hash;
    (void)pthread_mutex_unlock(&c->mutex);
    if (tell)
        rt_log(RT_LOG_WARNING,
               "%s is not captured: that needs its permission 'capture' and prompts that are kept in full",
               account);
}

rt_capture_counts rt_capture_count(rt_capture *c)
{
    (void)pthread_mutex_lock(&c->mutex);
    const rt_capture_counts counts = c->counts;
    (void)pthread_mutex_unlock(&c->mutex);
    return counts;
}

rt_status rt_capture_open(rt_capture **out, const char *dir, rt_error *err)
{
    *out = NULL;
    rt_capture *c = calloc(1, sizeof *c);
    json_t *facts = json_pack("{s:{s:s, s:s}}", "teacher", "name", "captured", "kind", "server");
    if (!c || !facts) {
        json_decref(facts);
        free(c);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to capture answers");
    }
    (void)pthread_mutex_init(&c->mutex, NULL);
    (void)pthread_cond_init(&c->filled, NULL);
    rt_status status = rt_store_open(&c->store, dir, facts, "serve", err);
    json_decref(facts);
    if (status == RT_OK) {
        rt_store_trust_keys(c->store); /* ids of requests are random */
        if (pthread_create(&c->thread, NULL, write_all, c) == 0)
            c->started = true;
        else
            status = rt_error_set(err, RT_NO_MEMORY, "the thread that captures answers cannot be started");
    }
    if (status != RT_OK)
        rt_capture_close(c);
    else
        *out = c;
    return status;
}

void rt_capture_close(rt_capture *c)
{
    rt_error err = {0};
    if (!c)
        return;
    if (c->started) {
        (void)pthread_mutex_lock(&c->mutex);
        c->closing = true;
        (void)pthread_cond_signal(&c->filled);
        (void)pthread_mutex_unlock(&c->mutex);
        (void)pthread_join(c->thread, NULL);
    }
    if (rt_store_close(c->store, &err) != RT_OK)
        rt_log(RT_LOG_WARNING, "%s", err.text);
    (void)pthread_mutex_destroy(&c->mutex);
    (void)pthread_cond_destroy(&c->filled);
    free(c);
}
