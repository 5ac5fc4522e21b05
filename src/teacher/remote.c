/* teacher/remote.c - a server as teacher: its address, the requests of `ask`, and what it refuses; see
 * remote.h. */
#include "teacher/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size.h"
#include "retort/version.h"
#include "teacher/remote_internal.h"

/* ---- the address ---- */

static bool ends_with(const char *text, size_t size, const char *end)
{
    const size_t n = strlen(end);
    return size >= n && memcmp(text + size - n, end, n) == 0;
}

char *rt_remote_base_url(const char *url, const char **endpoint, rt_error *err)
{
    static const struct {
        const char *end, *name;
    } ends[] = {{"/chat/completions", "chat"}, {"/completions", "completions"}};
    const char *name = "";
    const bool http = strncmp(url, "http://", 7) == 0, https = strncmp(url, "https://", 8) == 0;
    size_t size = strlen(url);
    if ((!http && !https) || size < 10 || strpbrk(url, " \t\r\n\"<>?#") || size > 2000) {
        (void)rt_error_set(err, RT_INVALID,
                           "'%.100s' is no address; give one such as http://127.0.0.1:8000/v1", url);
        return NULL;
    }
    while (size > 10 && url[size - 1] == '/')
        size--;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0] && !name[0]; i++)
        if (ends_with(url, size, ends[i].end)) {
            size -= strlen(ends[i].end);
            name = ends[i].name;
        }
    const char *host = url + (https ? 8 : 7);
    const bool bare = !memchr(host, '/', size - (size_t)(host - url));
    rt_text out = {0};
    rt_text_append(&out, url, size);
    if (bare && !name[0])
        rt_text_puts(&out, "/v1");
    if (endpoint)
        *endpoint = name;
    if (out.failed)
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for an address");
    return out.failed ? NULL : out.data;
}

/* ---- ask ---- */

size_t remote_prompt_bytes(const json_t *body)
{
    const json_t *prompt = json_object_get(body, "prompt"), *messages = json_object_get(body, "messages");
    size_t bytes = json_string_length(prompt);
    if (json_is_array(prompt))
        bytes += 4 * json_array_size(prompt);
    for (size_t i = 0, n = json_array_size(messages); i < n; i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        bytes += json_string_length(content) + 16;
        for (size_t j = 0, parts = json_array_size(content); j < parts; j++)
            bytes += json_string_length(json_object_get(json_array_get(content, j), "text"));
    }
    return bytes;
}

typedef struct ask_context {
    remote *self;
    const rt_ask_calls *calls;
} ask_context;

static rt_next ask_next(void *context, remote_work *out)
{
    ask_context *ask = context;
    rt_ask request = {0};
    const rt_next next = ask->calls->next(ask->calls->context, &request);
    if (next == RT_NEXT_TAKE) {
        *out = (remote_work){
            .tag = request.tag, .body = request.body, .prompt_bytes = remote_prompt_bytes(request.body)};
        memcpy(out->key, request.key, sizeof out->key);
    }
    return next;
}

static bool is_chat(const remote_work *work) { return json_object_get(work->body, "messages") != NULL; }

static const char *ask_path(void *context, const remote_work *work)
{
    (void)context;
    return is_chat(work) ? "chat/completions" : "completions";
}

/* logprobs, in the words of the endpoint; a body that brings its own keeps them. */
static bool set_logprobs(json_t *body, bool chat, size_t top)
{
    if (top == 0) {
        (void)json_object_del(body, "logprobs");
        (void)json_object_del(body, "top_logprobs");
        return true;
    }
    if (!chat)
        return json_object_set_new(body, "logprobs", json_integer((json_int_t)top)) == 0;
    return json_object_set_new(body, "logprobs", json_true()) == 0 &&
           json_object_set_new(body, "top_logprobs", json_integer((json_int_t)top)) == 0;
}

static char *ask_bytes(void *context, const remote_work *work, bool stream)
{
    const remote *self = ((ask_context *)context)->self;
    json_t *body = json_copy(work->body);
    bool ok = body != NULL;
    if (ok && self->options.model[0])
        ok = json_object_set_new(body, "model", json_string(self->options.model)) == 0;
    if (ok && (self->options.top_logprobs || self->top_logprobs != self->options.top_logprobs))
        ok = set_logprobs(body, is_chat(work), self->top_logprobs);
    if (ok && self->token_ids)
        ok = json_object_set_new(body, "return_token_ids", json_true()) == 0;
    if (ok && stream)
        ok = json_object_set_new(body, "stream", json_true()) == 0 &&
             json_object_set_new(body, "stream_options", json_pack("{s:b}", "include_usage", 1)) == 0;
    else if (ok)
        (void)json_object_del(body, "stream");
    char *bytes = ok ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return bytes;
}

static rt_status ask_read(void *context, rt_answered *reply, const remote_work *work, bool streamed,
                          const char *data, size_t size, rt_error *err)
{
    const remote *self = ((ask_context *)context)->self;
    const rt_answer_wish wish = {.chat = is_chat(work),
                                 .logprobs = self->top_logprobs > 0,
                                 .keep_raw = self->options.keep_raw,
                                 .model = self->options.model,
                                 .n_vocab = self->options.n_vocab,
                                 .prompt_bytes = work->prompt_bytes};
    return streamed ? rt_answer_read_stream(reply, &wish, data, size, err)
                    : rt_answer_read(reply, &wish, data, size, err);
}

/* A 400 that names what not every server knows: given up for the host, once, and said. */
static bool ask_refused(void *context, const remote_work *work, const rt_answered *reply)
{
    remote *self = ((ask_context *)context)->self;
    (void)work;
    if (reply->http_status != 400 && reply->http_status != 422 && reply->http_status != 403)
        return false;
    if (self->token_ids && strstr(reply->error_text, "return_token_ids")) {
        self->token_ids = false;
        (void)snprintf(self->notice, sizeof self->notice,
                       "%.100s gives no token ids: return_token_ids is left out", self->base);
        rt_log(RT_LOG_WARNING, "%s", self->notice);
        return true;
    }
    if (self->top_logprobs && strstr(reply->error_text, "logprobs")) {
        const size_t before = self->top_logprobs;
        self->top_logprobs = before > 5 ? 5 : 0;
        (void)snprintf(self->notice, sizeof self->notice,
                       "%.100s refuses top_logprobs %zu: asking for %s from now on", self->base, before,
                       self->top_logprobs ? "5" : "none");
        rt_log(RT_LOG_WARNING, "%s", self->notice);
        return true;
    }
    return false;
}

static void ask_done(void *context, const remote_work *work, const rt_answered *reply)
{
    ask_context *ask = context;
    remote *self = ask->self;
    if (reply->status == RT_OK && reply->fingerprint[0])
        memcpy(self->fingerprint, reply->fingerprint, sizeof self->fingerprint);
    ask->calls->done(ask->calls->context, work->tag, reply);
}

static rt_status remote_ask(void *context, const rt_ask_calls *calls, rt_error *err)
{
    remote *self = context;
    ask_context ask = {self, calls};
    const remote_job job = {.next = ask_next,
                            .path = ask_path,
                            .bytes = ask_bytes,
                            .read = ask_read,
                            .refused = ask_refused,
                            .done = ask_done,
                            .tick = calls->tick,
                            .tick_context = calls->context,
                            .context = &ask,
                            .stream = self->options.stream};
    return remote_run(self, &job, err);
}

/* ---- the handle ---- */

static const rt_teacher_info *remote_info(void *context) { return &((remote *)context)->info; }

static void remote_close(void *context)
{
    remote *self = context;
    rt_remote_options *o = &self->options;
    const char *const texts[] = {o->url, o->model, o->key, o->licence, o->terms, o->user_agent};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free((void *)(uintptr_t)texts[i]);
    curl_slist_free_all(self->headers);
    free(self->base);
    free(self);
}

static double steady_clock(void *context)
{
    (void)context;
    return rt_clock_seconds();
}

static bool add_header(remote *self, const char *line)
{
    struct curl_slist *more = curl_slist_append(self->headers, line);
    if (more)
        self->headers = more;
    return more != NULL;
}

static bool make_headers(remote *self)
{
    rt_text line = {0};
    bool ok = add_header(self, "Content-Type: application/json") && add_header(self, "Expect:");
    if (ok && self->options.key[0]) {
        rt_text_printf(&line, "Authorization: Bearer %s", self->options.key);
        ok = !line.failed && add_header(self, line.data);
    }
    rt_text_deinit(&line);
    return ok;
}

static void fill_defaults(rt_remote_options *o)
{
    o->attempts = o->attempts ? o->attempts : 8;
    o->concurrency_max = o->concurrency_max ? o->concurrency_max : 256;
    o->timeout_s = o->timeout_s > 0 ? o->timeout_s : 600;
    o->silence_s = o->silence_s > 0 ? o->silence_s : 120;
    o->patience_s = o->patience_s > 0 ? o->patience_s : 300;
}

rt_status rt_remote_key_check(const char *key, rt_error *err)
{
    for (const char *c = key ? key : ""; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
            return rt_error_set(err, RT_INVALID, "the key holds a blank or a sign that no key has");
    return RT_OK;
}

rt_status rt_remote_open(rt_teacher **out, const rt_remote_options *options, rt_error *err)
{
    static const rt_teacher_verbs verbs = {remote_ask, remote_score, remote_info, remote_close};
    *out = NULL;
    char *base = NULL;
    if (rt_remote_key_check(options->key, err) != RT_OK ||
        !(base = rt_remote_base_url(options->url, NULL, err)))
        return err->status;
    remote *self = calloc(1, sizeof *self);
    if (!self || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(base);
        free(self);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher");
    }
    self->options = *options;
    self->base = base;
    rt_remote_options *o = &self->options;
    o->url = strdup(options->url);
    o->model = strdup(options->model ? options->model : "");
    o->key = strdup(options->key ? options->key : "");
    o->licence = strdup(options->licence ? options->licence : "");
    o->terms = strdup(options->terms ? options->terms : "");
    o->user_agent = strdup(options->user_agent ? options->user_agent : "retort/" RT_VERSION);
    fill_defaults(o);
    self->clock = options->clock ? options->clock : steady_clock;
    self->clock_context = options->clock_context;
    self->top_logprobs = options->top_logprobs;
    self->token_ids = options->token_ids;
    rt_flow_init(&self->flow, o->concurrency, o->concurrency_max, o->seed);
    if (!o->url || !o->model || !o->key || !o->licence || !o->terms || !o->user_agent ||
        !make_headers(self)) {
        remote_close(self);
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
                                   .fingerprint = self->fingerprint};
    return rt_teacher_open(out, &verbs, self, err);
}
