/* teacher/batch.c - the Batch API as teacher; see batch.h.
 *
 * The jobs' file is JSON: {"jobs": [{"requests": PATH, "file": ID, "batch": ID}]}, replaced whole.  A job
 * without a batch is one that was written and, for all we know, not made: its requests are uploaded anew. */
#include "teacher/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "teacher/answer.h"
#include "teacher/remote_internal.h"

enum { REQUESTS_MAX = 50000, FILE_BYTES_MAX = 200 * 1000 * 1000, JOBS_MAX = 64, TRIES = 6 };

typedef struct job {
    char *requests; /* path */
    char file[128], batch[128];
    bool done;
} job;

typedef struct entry { /* a request that waits for its answer */
    char key[65];
    uint64_t tag;
    json_t *body;
    bool sent, answered;
} entry;

typedef struct batch {
    rt_batch_options options; /* texts owned */
    char *base;
    rt_teacher_info info;
    job jobs[JOBS_MAX];
    size_t n_jobs, n_files;
    entry *entries;
    size_t n_entries, capacity;
    rt_teacher_state state;
    char notice[200];
} batch;

/* ---- the jobs' file ---- */

static rt_status save_jobs(const batch *self, rt_error *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < self->n_jobs; i++)
        if (!self->jobs[i].done)
            (void)json_array_append_new(list,
                                        json_pack("{s:s, s:s, s:s}", "requests", self->jobs[i].requests,
                                                  "file", self->jobs[i].file, "batch", self->jobs[i].batch));
    json_t *json = json_pack("{s:o, s:I}", "jobs", list, "files", (json_int_t)self->n_files);
    const rt_status status = json ? rt_json_write(self->options.state, json, err)
                                  : rt_error_set(err, RT_NO_MEMORY, "no memory for the jobs' file");
    json_decref(json);
    return status;
}

static rt_status load_jobs(batch *self, rt_error *err)
{
    json_t *json = NULL;
    if (!rt_path_exists(self->options.state))
        return RT_OK;
    if (rt_json_read(&json, self->options.state, 1 << 20, err) != RT_OK)
        return err->status;
    const json_t *list = json_object_get(json, "jobs");
    self->n_files = (size_t)json_integer_value(json_object_get(json, "files"));
    for (size_t i = 0; i < json_array_size(list) && self->n_jobs < JOBS_MAX; i++) {
        const json_t *from = json_array_get(list, i);
        const char *requests = json_string_value(json_object_get(from, "requests")),
                   *file = json_string_value(json_object_get(from, "file")),
                   *name = json_string_value(json_object_get(from, "batch"));
        job *to = &self->jobs[self->n_jobs];
        if (!requests || !file || !name || !rt_path_exists(requests))
            continue;
        *to = (job){.requests = strdup(requests)};
        (void)snprintf(to->file, sizeof to->file, "%s", file);
        (void)snprintf(to->batch, sizeof to->batch, "%s", name);
        self->n_jobs += to->requests != NULL;
    }
    json_decref(json);
    return RT_OK;
}

/* ---- entries ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->key, ((const entry *)b)->key);
}

static entry *search(batch *self, const char *key)
{
    entry wanted = {0};
    (void)snprintf(wanted.key, sizeof wanted.key, "%.64s", key);
    return self->n_entries ? bsearch(&wanted, self->entries, self->n_entries, sizeof wanted, by_key) : NULL;
}

static rt_status add_entry(batch *self, const rt_ask *ask, rt_error *err)
{
    if (self->n_entries == self->capacity) {
        const size_t wanted = self->capacity ? 2 * self->capacity : 256;
        entry *bigger = realloc(self->entries, wanted * sizeof *bigger);
        if (!bigger)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the requests of a batch");
        self->entries = bigger;
        self->capacity = wanted;
    }
    entry *e = &self->entries[self->n_entries++];
    *e = (entry){.tag = ask->tag, .body = ask->body};
    memcpy(e->key, ask->key, sizeof e->key);
    return RT_OK;
}

/* Calls `visit` for each line of a JSON Lines text. */
static rt_status each_line(const char *data, size_t size,
                           rt_status (*visit)(void *, const json_t *, rt_error *), void *context,
                           rt_error *err)
{
    for (size_t at = 0; at < size;) {
        const char *end = memchr(data + at, '\n', size - at);
        const size_t n = end ? (size_t)(end - data) - at : size - at;
        json_t *line = n ? rt_answer_json(data + at, n, err) : NULL;
        if (line) {
            const rt_status status = visit(context, line, err);
            json_decref(line);
            if (status != RT_OK)
                return status;
        }
        at += n + 1; /* a line that is none is left out: its request is sent again */
    }
    return RT_OK;
}

static rt_status mark_sent(void *context, const json_t *line, rt_error *err)
{
    (void)err;
    const char *key = json_string_value(json_object_get(line, "custom_id"));
    entry *e = key ? search(context, key) : NULL;
    if (e)
        e->sent = true;
    return RT_OK;
}

/* ---- the server ---- */

static rt_status fetch(batch *self, const char *method, const char *path, const char *body, size_t size,
                       const char *form, rt_text *answer, rt_error *err)
{
    rt_text url = {0};
    rt_text_printf(&url, "%s/%s", self->base, path);
    int http = 0;
    rt_status status = url.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for an address") : RT_IO;
    for (unsigned i = 0; i < TRIES && status == RT_IO; i++) {
        const struct timespec wait = {.tv_sec = i ? 1 << (i - 1) : 0};
        (void)nanosleep(&wait, NULL);
        rt_text_clear(answer);
        const rt_remote_plain request = {.url = url.data,
                                         .key = self->options.key,
                                         .method = method,
                                         .body = body,
                                         .body_size = size,
                                         .form_file = form,
                                         .timeout_s = 600};
        status = rt_remote_fetch(&request, &http, answer, err);
        if (status == RT_OK && (http == 408 || http == 429 || http >= 500))
            status = rt_error_set(err, RT_IO, "%.200s: status %d", url.data, http);
    }
    if (status == RT_OK && (http < 200 || http >= 300)) {
        rt_answered reply;
        rt_answered_init(&reply);
        rt_answer_read_error(&reply, answer->data ? answer->data : "", answer->size);
        status = rt_error_set(err, http == 401 || http == 403 ? RT_FORBIDDEN : RT_INVALID,
                              "%.200s: status %d: %.200s", url.data, http, reply.error_text);
        rt_answered_deinit(&reply);
    }
    rt_text_deinit(&url);
    return status;
}

static rt_status read_id(char out[128], const rt_text *answer, rt_error *err)
{
    json_t *json = rt_answer_json(answer->data ? answer->data : "", answer->size, err);
    const char *id = json_string_value(json_object_get(json, "id"));
    rt_status status = RT_OK;
    if (!id || strlen(id) >= 128 ||
        strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != strlen(id))
        status = rt_error_set(err, RT_CORRUPT, "the server's answer holds no id that can be used");
    else
        (void)snprintf(out, 128, "%s", id);
    json_decref(json);
    return status;
}

static rt_status start_job(batch *self, job *j, rt_error *err)
{
    char *data = NULL;
    size_t size = 0;
    rt_text answer = {.size_max = 1 << 20};
    rt_status status = rt_file_read(&data, &size, j->requests, FILE_BYTES_MAX + (1 << 24), err);
    const bool chat = status == RT_OK && memmem(data, size, "/v1/chat/completions", 20) != NULL;
    if (status == RT_OK)
        status = fetch(self, "POST", "files", data, size, "requests.jsonl", &answer, err);
    if (status == RT_OK)
        status = read_id(j->file, &answer, err);
    free(data);
    if (status == RT_OK) {
        char body[400];
        const int n = snprintf(body, sizeof body,
                               "{\"input_file_id\":\"%s\",\"endpoint\":\"%s\",\"completion_window\":\"24h\"}",
                               j->file, chat ? "/v1/chat/completions" : "/v1/completions");
        status = fetch(self, "POST", "batches", body, (size_t)n, NULL, &answer, err);
    }
    if (status == RT_OK)
        status = read_id(j->batch, &answer, err);
    rt_text_deinit(&answer);
    self->state.attempts++;
    return status == RT_OK ? save_jobs(self, err) : status;
}

/* ---- sending ---- */

static char *request_line(const batch *self, const entry *e, bool chat)
{
    json_t *body = json_copy(e->body);
    if (body && self->options.model[0])
        (void)json_object_set_new(body, "model", json_string(self->options.model));
    if (body && self->options.top_logprobs && chat) {
        (void)json_object_set_new(body, "logprobs", json_true());
        (void)json_object_set_new(body, "top_logprobs", json_integer((json_int_t)self->options.top_logprobs));
    } else if (body && self->options.top_logprobs) {
        (void)json_object_set_new(body, "logprobs", json_integer((json_int_t)self->options.top_logprobs));
    }
    json_t *line = body ? json_pack("{s:s, s:s, s:s, s:o}", "custom_id", e->key, "method", "POST", "url",
                                    chat ? "/v1/chat/completions" : "/v1/completions", "body", body)
                        : NULL;
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    return text;
}

/* Writes as many unsent requests of one endpoint as a file takes, and makes a job of it; *any: there was one.
 */
static rt_status send_file(batch *self, bool chat, bool *any, rt_error *err)
{
    rt_text file = {.size_max = FILE_BYTES_MAX + (1 << 24)};
    rt_text path = {0};
    size_t n = 0;
    const size_t max = self->options.requests_max ? self->options.requests_max : REQUESTS_MAX;
    for (size_t i = 0; i < self->n_entries && n < max && file.size < FILE_BYTES_MAX - (1 << 24); i++) {
        entry *e = &self->entries[i];
        if (e->sent || e->answered || (json_object_get(e->body, "messages") != NULL) != chat)
            continue;
        char *line = request_line(self, e, chat);
        if (line)
            rt_text_printf(&file, "%s\n", line);
        else
            file.failed = true;
        free(line);
        e->sent = true;
        n++;
    }
    *any = n > 0;
    rt_status status =
        file.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a batch of requests") : RT_OK;
    if (status == RT_OK && n && self->n_jobs == JOBS_MAX)
        status = rt_error_set(err, RT_INVALID, "more than %d batches at once", (int)JOBS_MAX);
    if (status == RT_OK && n) {
        job *j = &self->jobs[self->n_jobs];
        rt_text_printf(&path, "%s.%zu.jsonl", self->options.state, ++self->n_files);
        *j = (job){.requests = path.failed ? NULL : path.data};
        status = j->requests ? rt_file_write(j->requests, file.data, file.size, err)
                             : rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
        self->n_jobs += j->requests != NULL;
        if (status == RT_OK) /* first on the disk, then sent */
            status = save_jobs(self, err);
        if (status == RT_OK)
            status = start_job(self, j, err);
    }
    rt_text_deinit(&file);
    return status;
}

/* ---- receiving ---- */

typedef struct receiving {
    batch *self;
    const rt_ask_calls *calls;
    rt_answered reply;
} receiving;

static void fail(receiving *r, const entry *e, int http, const json_t *error)
{
    rt_answered *reply = &r->reply;
    const char *code = json_string_value(json_object_get(error, "code")),
               *message = json_string_value(json_object_get(error, "message"));
    reply->status = RT_INVALID;
    reply->http_status = http;
    (void)snprintf(reply->error_code, sizeof reply->error_code, "%s", code ? code : "refused");
    (void)snprintf(reply->error_text, sizeof reply->error_text, "%s",
                   message ? message : "the batch gives no reason");
    r->calls->done(r->calls->context, e->tag, reply);
}

static bool is_expired(const json_t *error)
{
    const char *code = json_string_value(json_object_get(error, "code"));
    return code && (strcmp(code, "batch_expired") == 0 || strcmp(code, "batch_cancelled") == 0);
}

static rt_status take_line(void *context, const json_t *line, rt_error *err)
{
    receiving *r = context;
    batch *self = r->self;
    const char *key = json_string_value(json_object_get(line, "custom_id"));
    entry *e = key ? search(self, key) : NULL;
    if (!e || e->answered)
        return RT_OK; /* of a row that is not wanted any more, or a line that came twice */
    const json_t *response = json_object_get(line, "response"), *error = json_object_get(line, "error"),
                 *body = json_object_get(response, "body");
    const int http = (int)json_integer_value(json_object_get(response, "status_code"));
    if (json_is_object(error) && is_expired(error))
        return RT_OK;
    rt_answered_reset(&r->reply);
    r->reply.attempts = 1;
    if (json_is_object(error) || http >= 400) {
        const json_t *inner = json_object_get(body, "error");
        if (http == 429 || http >= 500)
            return RT_OK; /* sent again with the next file */
        e->answered = true;
        fail(r, e, http, json_is_object(error) ? error : inner);
        return RT_OK;
    }
    const rt_answer_wish wish = {.chat = json_object_get(e->body, "messages") != NULL,
                                 .logprobs = self->options.top_logprobs > 0,
                                 .keep_raw = self->options.keep_raw,
                                 .model = self->options.model,
                                 .n_vocab = self->options.n_vocab,
                                 .prompt_bytes = remote_prompt_bytes(e->body)};
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    const rt_status status = text ? rt_answer_read(&r->reply, &wish, text, strlen(text), err) : RT_CORRUPT;
    free(text);
    if (status == RT_NO_MEMORY)
        return status;
    e->answered = true;
    r->reply.http_status = http;
    const char *id = json_string_value(json_object_get(response, "request_id"));
    (void)snprintf(r->reply.request_id, sizeof r->reply.request_id, "%s", id ? id : "");
    if (status == RT_OK) {
        r->calls->done(r->calls->context, e->tag, &r->reply);
    } else {
        json_t *why = json_pack("{s:s, s:s}", "code", "invalid_answer", "message", err->text);
        fail(r, e, http, why);
        json_decref(why);
    }
    return RT_OK;
}

static rt_status take_file(receiving *r, const char *id, rt_error *err)
{
    char path[200];
    rt_text answer = {0};
    if (!id)
        return RT_OK;
    (void)snprintf(path, sizeof path, "files/%.127s/content", id);
    rt_status status = fetch(r->self, "GET", path, NULL, 0, NULL, &answer, err);
    if (status == RT_OK)
        status = each_line(answer.data ? answer.data : "", answer.size, take_line, r, err);
    rt_text_deinit(&answer);
    return status;
}

/* What the job's file asked and got no answer to is to be sent again. */
static rt_status mark_unsent(void *context, const json_t *line, rt_error *err)
{
    (void)err;
    const char *key = json_string_value(json_object_get(line, "custom_id"));
    entry *e = key ? search(context, key) : NULL;
    if (e && !e->answered)
        e->sent = false;
    return RT_OK;
}

static rt_status visit_requests(batch *self, const job *j,
                                rt_status (*visit)(void *, const json_t *, rt_error *), rt_error *err)
{
    char *data = NULL;
    size_t size = 0;
    if (rt_file_read(&data, &size, j->requests, FILE_BYTES_MAX + (1 << 24), err) != RT_OK)
        return err->status;
    const rt_status status = each_line(data, size, visit, self, err);
    free(data);
    return status;
}

static rt_status look_at(receiving *r, job *j, rt_error *err)
{
    batch *self = r->self;
    char path[200];
    rt_text answer = {.size_max = 1 << 20};
    if (!j->batch[0])
        return start_job(self, j, err);
    (void)snprintf(path, sizeof path, "batches/%s", j->batch);
    rt_status status = fetch(self, "GET", path, NULL, 0, NULL, &answer, err);
    json_t *json = status == RT_OK ? rt_answer_json(answer.data ? answer.data : "", answer.size, err) : NULL;
    const char *now = json_string_value(json_object_get(json, "status"));
    static const char *const ends[] = {"completed", "expired", "cancelled", "failed"};
    bool ended = false;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        ended = ended || (now && strcmp(now, ends[i]) == 0);
    if (status == RT_OK && !now)
        status =
            rt_error_set(err, RT_CORRUPT, "batch %.100s: the server does not say how it stands", j->batch);
    if (status == RT_OK && ended && strcmp(now, "failed") == 0) {
        const json_t *errors = json_object_get(json_object_get(json, "errors"), "data");
        const char *why = json_string_value(json_object_get(json_array_get(errors, 0), "message"));
        status = rt_error_set(err, RT_INVALID, "batch %.100s failed: %.200s", j->batch,
                              why ? why : "no reason is given");
    }
    if (status == RT_OK && ended)
        status = take_file(r, json_string_value(json_object_get(json, "output_file_id")), err);
    if (status == RT_OK && ended)
        status = take_file(r, json_string_value(json_object_get(json, "error_file_id")), err);
    if (status == RT_OK && ended) {
        status = visit_requests(self, j, mark_unsent, err);
        j->done = true;
        (void)unlink(j->requests);
        if (status == RT_OK)
            status = save_jobs(self, err);
    }
    json_decref(json);
    rt_text_deinit(&answer);
    return status;
}

/* ---- ask ---- */

static rt_status pull(batch *self, const rt_ask_calls *calls, rt_error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->n_entries; i++) { /* answered ones make room */
        if (self->entries[i].answered)
            json_decref(self->entries[i].body);
        else
            self->entries[kept++] = self->entries[i];
    }
    self->n_entries = kept;
    rt_ask ask = {0};
    while (calls->next(calls->context, &ask) == RT_NEXT_TAKE) {
        if (add_entry(self, &ask, err) != RT_OK)
            return err->status;
        ask = (rt_ask){0};
    }
    if (self->n_entries)
        qsort(self->entries, self->n_entries, sizeof *self->entries, by_key);
    return RT_OK;
}

static rt_status wait(batch *self, const rt_ask_calls *calls, double seconds, rt_error *err)
{
    const double until = rt_clock_seconds() + seconds;
    do {
        if (calls->tick) {
            self->state.in_flight = self->n_entries;
            self->state.limit = self->n_entries;
            self->state.notice = self->notice;
            const rt_status status = calls->tick(calls->context, &self->state, err);
            if (status == RT_STOPPED) /* the batches go on without us */
                return rt_error_set(err, RT_STOPPED, "stopped; the batches go on at the server");
            if (status != RT_OK)
                return status;
        }
        const struct timespec pause = {.tv_nsec = 50000000};
        (void)nanosleep(&pause, NULL);
    } while (rt_clock_seconds() < until);
    return RT_OK;
}

static rt_status send_all(batch *self, rt_error *err)
{
    for (int chat = 0; chat < 2; chat++)
        for (bool any = true; any;)
            if (send_file(self, chat, &any, err) != RT_OK)
                return err->status;
    return RT_OK;
}

static size_t open_jobs(const batch *self)
{
    size_t n = 0;
    for (size_t i = 0; i < self->n_jobs; i++)
        n += !self->jobs[i].done;
    return n;
}

static void drop_done(batch *self)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->n_jobs; i++) {
        if (self->jobs[i].done)
            free(self->jobs[i].requests);
        else
            self->jobs[kept++] = self->jobs[i];
    }
    self->n_jobs = kept;
}

static rt_status batch_ask(void *context, const rt_ask_calls *calls, rt_error *err)
{
    batch *self = context;
    receiving r = {.self = self, .calls = calls};
    rt_answered_init(&r.reply);
    rt_status status = load_jobs(self, err);
    if (status == RT_OK)
        status = pull(self, calls, err);
    for (size_t i = 0; i < self->n_jobs && status == RT_OK; i++)
        status = visit_requests(self, &self->jobs[i], mark_sent, err);
    double poll = self->options.poll_s;
    while (status == RT_OK && (self->n_entries || open_jobs(self))) {
        status = send_all(self, err);
        if (status == RT_OK && open_jobs(self) == 0)
            break;
        if (status == RT_OK)
            status = wait(self, calls, poll, err);
        poll = poll * 1.5 < self->options.poll_max_s ? poll * 1.5 : self->options.poll_max_s;
        const size_t before = open_jobs(self);
        for (size_t i = 0; i < self->n_jobs && status == RT_OK; i++)
            if (!self->jobs[i].done)
                status = look_at(&r, &self->jobs[i], err);
        if (open_jobs(self) < before)
            poll = self->options.poll_s;
        drop_done(self);
        if (status == RT_OK)
            status = pull(self, calls, err);
    }
    if (status == RT_OK && self->n_files)
        (void)unlink(self->options.state);
    rt_answered_deinit(&r.reply);
    return status;
}

/* ---- the handle ---- */

static const rt_teacher_info *batch_info(void *context) { return &((batch *)context)->info; }

static void batch_close(void *context)
{
    batch *self = context;
    rt_batch_options *o = &self->options;
    const char *const texts[] = {o->url, o->model, o->key, o->state, o->licence, o->terms};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free((void *)(uintptr_t)texts[i]);
    for (size_t i = 0; i < self->n_entries; i++)
        json_decref(self->entries[i].body);
    for (size_t i = 0; i < self->n_jobs; i++)
        free(self->jobs[i].requests);
    free(self->entries);
    free(self->base);
    free(self);
}

rt_status rt_batch_open(rt_teacher **out, const rt_batch_options *options, rt_error *err)
{
    static const rt_teacher_verbs verbs = {batch_ask, NULL, batch_info, batch_close};
    *out = NULL;
    char *base = NULL;
    if (rt_remote_key_check(options->key, err) != RT_OK ||
        !(base = rt_remote_base_url(options->url, NULL, err)))
        return err->status;
    batch *self = calloc(1, sizeof *self);
    if (!self || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(base);
        free(self);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher");
    }
    self->options = *options;
    self->base = base;
    rt_batch_options *o = &self->options;
    o->url = strdup(options->url);
    o->model = strdup(options->model ? options->model : "");
    o->key = strdup(options->key ? options->key : "");
    o->state = strdup(options->state);
    o->licence = strdup(options->licence ? options->licence : "");
    o->terms = strdup(options->terms ? options->terms : "");
    o->poll_s = o->poll_s > 0 ? o->poll_s : 10;
    o->poll_max_s = o->poll_max_s > 0 ? o->poll_max_s : 300;
    if (!o->url || !o->model || !o->key || !o->state || !o->licence || !o->terms) {
        batch_close(self);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher");
    }
    self->info = (rt_teacher_info){.kind = "remote",
                                   .name = o->model,
                                   .source = self->base,
                                   .n_vocab = o->n_vocab,
                                   .tokenizer_hash = "",
                                   .template_hash = "",
                                   .end_token = -1,
                                   .licence = o->licence,
                                   .terms = o->terms,
                                   .forbids_training = o->forbids_training,
                                   .fingerprint = ""};
    return rt_teacher_open(out, &verbs, self, err);
}
