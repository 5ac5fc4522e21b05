/* serve/gateway_relay.c - one request through the gateway: admitted for its worst case, sent up, its answer
 * brought down, charged for what the upstream says was used.
 *
 * What a prompt's tokens are only the upstream knows: reserved is a bound, a byte of text a token; charged is
 * its own count.  Where it gives none, bytes/4 are charged and the row is marked as estimated.
 *
 * A retry is possible until the first byte has gone to the client, and one is made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/fields.h"
#include "serve/gateway_count.h"
#include "serve/gateway_internal.h"

enum { BYTES_PER_TOKEN = 4 };
static const size_t answer_bytes_max = (size_t)64 << 20, backlog_max = (size_t)1 << 20;
static const int64_t output_assumed = 4096; /* tokens of an answer whose request names no limit */

/* ---- the request ---- */

/* The numbers that decide what an answer may cost must be numbers: a text that the upstream would read as one
 * must not pass as none.  Of several limits the largest counts, since the upstream chooses. */
static bool read_lengths(const json_t *body, int64_t *named, int64_t *choices, rt_fault *fault)
{
    static const char *const lengths[] = {"max_completion_tokens", "max_tokens", "max_output_tokens"};
    int64_t n = 1, best_of = 1;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        int64_t length = 0;
        if (!rt_field_int(body, lengths[i], 0, INT64_MAX, &length, fault))
            return false;
        *named = length > *named ? length : *named;
    }
    if (!rt_field_int(body, "n", 1, INT64_MAX, &n, fault) ||
        !rt_field_int(body, "best_of", 1, INT64_MAX, &best_of, fault))
        return false;
    *choices = n > best_of ? n : best_of;
    return true;
}

static size_t product(int64_t a, int64_t b, int64_t c)
{
    size_t all;
    if (!rt_size_mul((size_t)a, (size_t)b, &all) || !rt_size_mul(all, (size_t)c, &all) ||
        all > (size_t)RT_LIMIT_MAX)
        return (size_t)RT_LIMIT_MAX;
    return all;
}

/* Reads what limits and prices depend on; another member of a wrong type is the upstream's to refuse. */
static bool estimate(rt_call *call, rt_fault *fault)
{
    static const char *const texts[] = {"messages", "prompt", "input", "instructions", "tools", "functions"};
    const json_t *body = call->body;
    int64_t prompt = 0, named = 0, choices = 1;
    if (!read_lengths(body, &named, &choices, fault))
        return false;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        prompt += rt_json_tokens_bound(json_object_get(body, texts[i]));
    const int64_t cap = call->caller ? call->caller->max_tokens : -1;
    int64_t longest = named > 0 ? named : cap >= 0 && cap < output_assumed ? cap : output_assumed;
    if (strcmp(call->route->endpoint, "embeddings") == 0)
        longest = 0;
    const json_t *list = json_object_get(body, "prompt");
    const int64_t prompts = json_array_size(list) > 0 && !json_is_integer(json_array_get(list, 0))
                                ? (int64_t)json_array_size(list)
                                : 1;
    const json_t *user = json_object_get(body, "safety_identifier");
    call->request.user = json_string_value(json_is_string(user) ? user : json_object_get(body, "user"));
    call->prompt_tokens = (size_t)prompt;
    call->reserved_tokens = product(longest, choices, prompts);
    call->named_tokens = named > 0 ? (size_t)named : 0;
    call->choices = product(1, choices, prompts);
    call->assumed_tokens = named > 0 ? 0 : (size_t)longest;
    const json_t *top = json_object_get(body, "top_logprobs");
    if (!top && json_is_integer(json_object_get(body, "logprobs")))
        top = json_object_get(body, "logprobs");
    const int64_t alternatives = json_integer_value(top);
    call->top_logprobs = alternatives > 0 && alternatives < 1000 ? (int)alternatives
                         : alternatives > 0                      ? 1000
                                                                 : 0;
    return true;
}

static bool wants_usage(const rt_call *call)
{
    return strcmp(call->route->endpoint, "chat/completions") == 0 ||
           strcmp(call->route->endpoint, "completions") == 0;
}

/* The client's bytes, with what is added put in after the first brace; the whole is written anew only where a
 * member has to change. */
static bool rewrite(rt_relay *relay)
{
    rt_call *call = relay->call;
    const rt_http_request *request = rt_http_request_of(call->x);
    const char *remote = rt_upstream_remote(relay->upstream, call->model_name);
    const json_t *options = json_object_get(call->body, "stream_options");
    const bool mapped = strcmp(remote, call->model_name) != 0;
    const bool asked = json_is_true(json_object_get(options, "include_usage"));
    relay->added_usage = relay->wants_stream && !asked && wants_usage(call);
    rt_text_clear(&relay->rewritten);
    size_t bound = 0;
    const char *field = rt_limit_field(relay, &bound);
    if (!mapped && !relay->added_usage && !field)
        return true;
    if (!mapped && !(relay->added_usage && options) && !(field && json_object_get(call->body, field)) &&
        json_object_size(call->body) > 0) {
        const char *brace = memchr(request->body, '{', request->body_size);
        const size_t head = (size_t)(brace - request->body) + 1;
        rt_text_append(&relay->rewritten, request->body, head);
        if (field)
            rt_text_printf(&relay->rewritten, "\"%s\":%zu,", field, bound);
        if (relay->added_usage)
            rt_text_puts(&relay->rewritten, "\"stream_options\":{\"include_usage\":true},");
        rt_text_append(&relay->rewritten, request->body + head, request->body_size - head);
        return !relay->rewritten.failed;
    }
    json_t *body = json_copy(call->body),
           *fresh = json_is_object(options) ? json_copy((json_t *)options) : json_object();
    if (mapped)
        (void)json_object_set_new(body, "model", json_string(remote));
    if (field)
        (void)json_object_set_new(body, field, json_integer((json_int_t)bound));
    if (relay->added_usage) {
        (void)json_object_set_new(fresh, "include_usage", json_true());
        (void)json_object_set(body, "stream_options", fresh);
    }
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    json_decref(fresh);
    if (!text)
        return false;
    rt_text_puts(&relay->rewritten, text);
    free(text);
    return !relay->rewritten.failed;
}

static void relay_free(rt_relay *relay)
{
    rt_gateway *g = relay->gateway;
    rt_gateway_cancel(relay);
    if (relay->prev)
        relay->prev->next = relay->next;
    else
        g->relays = relay->next;
    if (relay->next)
        relay->next->prev = relay->prev;
    relay->call->relay = NULL;
    rt_upstream_release(relay->upstream);
    rt_text_deinit(&relay->rewritten);
    rt_text_deinit(&relay->body);
    rt_text_deinit(&relay->tail);
    rt_text_deinit(&relay->said);
    rt_text_deinit(&relay->last);
    rt_text_deinit(&relay->held);
    rt_sse_deinit(&relay->sse);
    free(relay);
}

static bool relay_new(rt_call *call, upstream *up, rt_fault *fault)
{
    rt_gateway *g = call->serve->gateway;
    rt_relay *relay = calloc(1, sizeof *relay);
    if (!relay)
        return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
    *relay = (rt_relay){.call = call,
                        .gateway = g,
                        .upstream = rt_upstream_retain(up),
                        .next = g->relays,
                        .reserved_prompt = call->prompt_tokens,
                        .wants_stream = json_is_true(json_object_get(call->body, "stream")),
                        .body = {.size_max = answer_bytes_max},
                        .said = {.size_max = answer_bytes_max}};
    if (g->relays)
        g->relays->prev = relay;
    g->relays = relay;
    call->relay = relay;
    if ((!call->body || rewrite(relay)) && rt_gateway_start(relay))
        return true;
    relay_free(relay);
    return rt_fault_set(fault, 503, "server_error", "overloaded", "the request could not be sent on");
}

static upstream *find_upstream(rt_call *call, const char *model, rt_fault *fault)
{
    bool known;
    upstream *up = rt_gateway_pick(call->serve->gateway, model, NULL, 0, &known);
    if (!up) {
        (void)rt_fault_set(fault, 404, "invalid_request_error", "model_not_found",
                           "there is no model of this name here; GET /v1/models lists them");
        (void)snprintf(fault->param, sizeof fault->param, "model");
    }
    return up;
}

static void refuse(rt_call *call, const rt_fault *fault)
{
    call->prompt_tokens = 0;
    (void)rt_call_settle(call, fault->status, false);
    rt_call_fault(call, fault);
}

void rt_relay_forget(rt_call *call)
{
    rt_upstream_release(call->chosen);
    call->chosen = NULL;
}

static void admitted(rt_call *call, const rt_fault *why)
{
    rt_fault fault = why ? *why : (rt_fault){0};
    if (why || !relay_new(call, call->chosen, &fault))
        refuse(call, &fault);
}

static void choose(rt_call *call, const rt_fault *why)
{
    (void)why;
    rt_fault fault = {0};
    upstream *up = NULL;
    call->model_name = "";
    bool ok = rt_field_string(call->body, "model", &call->model_name, &fault) &&
              (up = find_upstream(call, call->model_name, &fault)) != NULL;
    if (ok && call->serve->draining) {
        ok = rt_fault_set(&fault, 503, "server_error", "draining", "the server is being stopped");
        fault.retry_after_s = 5;
    }
    if (!ok || !estimate(call, &fault) || !rt_call_watch_allows(call, &fault)) {
        refuse(call, &fault);
        return;
    }
    call->chosen = rt_upstream_retain(up);
    rt_call_admit(call, admitted);
}

void rt_run_relay(rt_call *call)
{
    rt_fault fault = {0};
    const rt_http_request *request = rt_http_request_of(call->x);
    call->model_name = "";
    if (rt_body_parse(&call->body, request->body, request->body_size, &fault))
        rt_call_idempotency(call, choose);
    else
        refuse(call, &fault);
}

static json_t *model_json(const char *id)
{
    return json_pack("{s:s, s:s, s:i, s:s}", "id", id, "object", "model", "created", 0, "owned_by",
                     "upstream");
}

static void answer_json(rt_call *call, json_t *body)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    const rt_text out = {.data = text, .size = text ? strlen(text) : 0, .failed = !text};
    json_decref(body);
    rt_call_json(call, 200, &out);
    free(text);
}

/* The models that upstreams were given are ours to list, each once. */
static json_t *named_models(const rt_gateway *g)
{
    json_t *data = json_array();
    for (size_t i = 0; i < g->n_upstreams; i++)
        for (size_t k = 0; k < g->upstreams[i]->n_models; k++) {
            const char *name = g->upstreams[i]->models[k].name;
            size_t at;
            const json_t *known;
            bool there = false;
            json_array_foreach(data, at, known) there =
                there || strcmp(json_string_value(json_object_get(known, "id")), name) == 0;
            if (!there)
                (void)json_array_append_new(data, model_json(name));
        }
    return data;
}

/* An upstream that takes every name; NULL: there is none. */
static upstream *open_upstream(const rt_gateway *g)
{
    upstream *found = NULL;
    for (size_t i = 0; i < g->n_upstreams; i++)
        if (g->upstreams[i]->n_models == 0 && (!found || found->sick))
            found = g->upstreams[i];
    return found;
}

/* A model's id in a path: parts between '/' of which none climbs.  Upstream the operator's key is sent, and
 * nothing but models is asked for with it. */
static bool is_plain_id(const char *id)
{
    for (size_t n = 0; *id; id += n + (id[n] == '/')) {
        n = strcspn(id, "/");
        if (n == 0 || (n == 1 && id[0] == '.') || (n == 2 && id[0] == '.' && id[1] == '.') ||
            memchr(id, '\\', n) || (id[n] == '/' && !id[n + 1]))
            return false;
    }
    return true;
}

/* What is not named here is for an upstream that takes every name to tell. */
void rt_run_relay_get(rt_call *call)
{
    rt_fault fault = {0};
    rt_gateway *g = call->serve->gateway;
    const char *path = rt_http_request_of(call->x)->head->path, *id = path + strlen("/v1/models");
    json_t *named = named_models(g);
    upstream *up = *id && !is_plain_id(id + 1) ? NULL : open_upstream(g);
    call->model_name = "";
    if (*id) {
        size_t at;
        const json_t *model;
        bool found = false;
        json_array_foreach(named, at, model) found =
            found || strcmp(json_string_value(json_object_get(model, "id")), id + 1) == 0;
        json_decref(named);
        named = found ? model_json(id + 1) : NULL;
    } else if (json_array_size(named) > 0) {
        named = json_pack("{s:s, s:o}", "object", "list", "data", named);
    } else {
        json_decref(named);
        named = NULL;
    }
    if (named) {
        answer_json(call, named);
        return;
    }
    if (up && relay_new(call, up, &fault))
        return;
    if (!up) {
        (void)rt_fault_set(&fault, 404, "invalid_request_error", "model_not_found",
                           "there is no model of this name here; GET /v1/models lists them");
        (void)snprintf(fault.param, sizeof fault.param, "model");
    }
    rt_call_fault(call, &fault);
}

void rt_gateway_live(const rt_gateway *gateway, double now, json_t *list)
{
    for (const rt_relay *relay = gateway->relays; relay; relay = relay->next) {
        const rt_call *call = relay->call;
        const rt_http_request *request = rt_http_request_of(call->x);
        (void)json_array_append_new(
            list,
            json_pack("{s:s, s:s?, s:s, s:s?, s:I, s:I, s:f}", "request", request->id, "account",
                      call->caller ? call->caller->account : NULL, "endpoint", call->route->endpoint, "model",
                      call->model_name, "prompt_tokens", (json_int_t)call->prompt_tokens, "output_tokens",
                      (json_int_t)(relay->text_bytes / BYTES_PER_TOKEN), "seconds", now - request->begun_s));
    }
}

/* ---- the answer comes down ---- */

static void keep_value(char *out, size_t size, const char *value, size_t length)
{
    while (length > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        length--;
    }
    while (length > 0 && (value[length - 1] == '\r' || value[length - 1] == '\n' || value[length - 1] == ' '))
        length--;
    size_t used = 0;
    for (size_t i = 0; i < length && used + 1 < size; i++)
        if (value[i] >= ' ' && value[i] <= '~')
            out[used++] = value[i];
    out[used] = '\0';
}

/* Of an answer's head only these are read; nothing else of it is passed on. */
void rt_relay_field(rt_relay *relay, const char *line, size_t size)
{
    const struct {
        const char *name;
        char *out;
        size_t size;
    } wanted[] = {{"content-type:", relay->type, sizeof relay->type},
                  {"retry-after:", relay->retry_after, sizeof relay->retry_after},
                  {"retry-after-ms:", relay->retry_after_ms, sizeof relay->retry_after_ms}};
    if (size > 5 && strncmp(line, "HTTP/", 5) == 0) { /* a new head: after 100 Continue, say */
        relay->type[0] = relay->retry_after[0] = relay->retry_after_ms[0] = '\0';
        return;
    }
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const size_t length = strlen(wanted[i].name);
        if (size > length && strncasecmp(line, wanted[i].name, length) == 0)
            keep_value(wanted[i].out, wanted[i].size, line + length, size - length);
    }
}

static void begin_stream(rt_relay *relay)
{
    rt_call *call = relay->call;
    if (relay->begun)
        return;
    relay->begun = true;
    call->ttft_s = rt_clock_seconds() - rt_http_request_of(call->x)->begun_s;
    rt_call_record(call, true);
    rt_http_header(call->x, "Cache-Control", "no-cache");
    rt_http_header(call->x, "X-Accel-Buffering", "no");
    rt_call_headers(call->serve, call->x);
    rt_call_limit_headers(call);
    rt_http_begin(call->x, 200, "text/event-stream; charset=utf-8");
}

typedef struct rt_held_event {
    size_t size;
    bool whole;
} rt_held_event;

static void hold(rt_relay *relay, const char *bytes, size_t size, bool whole)
{
    const rt_held_event event = {.size = size, .whole = whole};
    rt_text_append(&relay->held, (const char *)&event, sizeof event);
    rt_text_append(&relay->held, bytes, size);
}

/* The stream ends in this event, of which what has room goes down. */
static void cut_at(rt_relay *relay, const char *data, size_t size)
{
    rt_text shorter = {0};
    size_t shorter_size;
    relay->cut = true;
    rt_text_append(&relay->last, data, size);
    if (rt_limit_shorten(relay, data, size, &shorter)) {
        const char *shortened = rt_sse_data(shorter.data, shorter.size, &shorter_size);
        relay->text_bytes += rt_chunk_text_bytes(shortened, shorter_size);
        if (relay->gateway->serve->options.counter)
            rt_said_append(&relay->said, shortened, shorter_size);
        begin_stream(relay);
        rt_http_write(relay->call->x, shorter.data, shorter.size);
    }
    rt_text_deinit(&shorter);
}

static void on_event(void *context, const char *bytes, size_t size, bool whole)
{
    rt_relay *relay = context;
    size_t data_size;
    const char *data = whole ? rt_sse_data(bytes, size, &data_size) : NULL;
    bool only_usage = false;
    if (relay->cut)
        return;
    if (relay->raising) {
        hold(relay, bytes, size, whole);
        return;
    }
    if (data && memmem(data, data_size, "\"usage\"", 7))
        rt_usage_read(&relay->usage, data, data_size, &only_usage);
    const size_t text_bytes = data                      ? rt_chunk_text_bytes(data, data_size)
                              : size > RT_SSE_EVENT_MAX ? size /* a piece of an event, unread */
                                                        : 0,
                 said = relay->said.size, counted = relay->counted, counted_bytes = relay->counted_bytes;
    relay->text_bytes += text_bytes;
    if (data && relay->gateway->serve->options.counter)
        rt_said_append(&relay->said, data, data_size);
    const rt_cover cover = rt_limit_covers(relay, data ? data : "", data_size, text_bytes);
    if (cover != RT_COVERED) {
        relay->text_bytes -= text_bytes;
        relay->said.size = said;
    }
    if (cover == RT_COVER_WAITS) {
        relay->counted = counted;
        relay->counted_bytes = counted_bytes;
        relay->text_events--;
        hold(relay, bytes, size, whole);
        return;
    }
    if (cover == RT_COVER_FULL) {
        cut_at(relay, data ? data : "", data_size);
        return;
    }
    if (only_usage && relay->added_usage)
        return; /* asked for by us, not by the client */
    if (data && data_size >= 6 && memcmp(data, "[DONE]", 6) == 0)
        relay->done_seen = true;
    if (relay->done_seen) { /* the last bytes wait for the ledger */
        rt_text_append(&relay->tail, bytes, size);
        return;
    }
    begin_stream(relay);
    relay->mid_event = !whole;
    rt_http_write(relay->call->x, bytes, size);
}

size_t rt_relay_bytes(rt_relay *relay, const char *data, size_t size)
{
    long status = 0;
    if (rt_http_is_gone(relay->call->x))
        return size;
    if (relay->raising || (relay->begun && rt_http_backlog(relay->call->x) > backlog_max)) {
        relay->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    (void)curl_easy_getinfo(relay->easy, CURLINFO_RESPONSE_CODE, &status);
    relay->status = (int)status;
    relay->events = status == 200 && strncasecmp(relay->type, "text/event-stream", 17) == 0;
    if (relay->events) {
        if (!rt_sse_feed(&relay->sse, data, size, on_event, relay) || relay->cut)
            return 0; /* the transfer ends here */
        return size;
    }
    rt_text_append(&relay->body, data, size);
    return relay->body.failed ? 0 : size; /* fewer than came: the transfer ends with an error */
}

/* ---- the end ---- */

/* What was used, by the upstream's word or by estimate. */
static void count_usage(rt_relay *relay, bool answered)
{
    rt_call *call = relay->call;
    bool only_usage;
    if (!relay->events && relay->status == 200)
        rt_usage_read(&relay->usage, relay->body.data ? relay->body.data : "", relay->body.size, &only_usage);
    if (relay->usage.there) {
        call->prompt_tokens = (size_t)relay->usage.input;
        call->cached_tokens = (size_t)relay->usage.cached;
        call->output_tokens = (size_t)relay->usage.output;
        return;
    }
    const rt_tokenizer *counter = call->serve->options.counter;
    if (counter && answered) {
        if (!relay->events)
            rt_said_append(&relay->said, relay->body.data ? relay->body.data : "", relay->body.size);
        call->prompt_tokens = rt_count_prompt(counter, call->body);
        call->output_tokens =
            rt_count_text(counter, relay->said.data ? relay->said.data : "", relay->said.size);
        return;
    }
    call->estimated = answered;
    const size_t text = relay->events
                            ? relay->text_bytes
                            : rt_chunk_text_bytes(relay->body.data ? relay->body.data : "", relay->body.size);
    call->output_tokens = answered ? (text + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN : 0;
    call->prompt_tokens = answered ? (call->prompt_tokens + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN : 0;
}

static void count_tokens(const rt_call *call)
{
    rt_metrics *m = &call->serve->metrics;
    m->relayed_prompt += call->prompt_tokens;
    m->relayed_output += call->output_tokens;
    m->relayed_cached += call->cached_tokens;
    if (call->ttft_s > 0)
        rt_metrics_observe(&m->ttft, call->ttft_s);
    rt_metrics_observe(&m->e2e, rt_clock_seconds() - rt_http_request_of(call->x)->begun_s);
}

/* The row first; rt_relay_deliver sends the last bytes when it is written. */
static void settle(rt_relay *relay, int http)
{
    rt_call *call = relay->call;
    const bool again = relay->settle_http != 0;
    relay->settling = true;
    relay->settle_http = again || rt_limit_cover_used(relay) ? 0 : http;
    if (relay->settle_http)
        return;
    count_tokens(call);
    rt_call_watch(call);
    if (http == 499) { /* nobody waits for it */
        (void)rt_call_settle(call, http, false);
        relay_free(relay);
        rt_http_abort(call->x);
        return;
    }
    const bool wait = !call->serve->options.ledger_behind;
    if (rt_call_settle(call, http, wait) || !wait)
        rt_relay_deliver(call);
}

void rt_relay_stop(rt_relay *relay, const rt_fault *fault)
{
    rt_call *call = relay->call;
    rt_gateway_cancel(relay);
    if (relay->raising) {
        relay->stopped = true;
        relay->stop_fault = *fault;
        return;
    }
    call->fault = *fault;
    call->finish = fault->code;
    count_usage(relay, relay->begun || relay->status == 200);
    settle(relay, fault->status);
}

/* Something else may answer: an upstream that was not tried, before a byte has gone down. */
static bool try_elsewhere(rt_relay *relay)
{
    rt_call *call = relay->call;
    bool known;
    if (relay->begun || relay->attempts >= ATTEMPTS_MAX || !call->body)
        return false;
    upstream *up = rt_gateway_pick(relay->gateway, call->model_name, relay->tried, relay->attempts, &known);
    if (!up)
        return false;
    rt_upstream_release(relay->upstream);
    relay->upstream = rt_upstream_retain(up);
    relay->status = 0;
    relay->events = false;
    rt_text_clear(&relay->body);
    rt_text_clear(&relay->tail);
    rt_text_clear(&relay->sse.held);
    relay->usage = (rt_sse_usage){0};
    relay->text_bytes = relay->counted = relay->counted_bytes = relay->text_events = 0;
    rt_text_clear(&relay->held);
    rt_text_clear(&relay->said);
    call->prompt_tokens = relay->reserved_prompt;
    return rewrite(relay) && rt_gateway_start(relay);
}

static void failed(rt_relay *relay, CURLcode result)
{
    rt_fault fault = {0};
    rt_upstream_fared(relay->upstream, false);
    if (try_elsewhere(relay))
        return;
    if (result == CURLE_OPERATION_TIMEDOUT)
        (void)rt_fault_set(&fault, 504, "timeout_error", "generation_timeout", "the upstream took too long");
    else
        (void)rt_fault_set(&fault, 502, "server_error", "upstream_error", "%s",
                           relay->begun ? "the upstream broke off its answer"
                                        : "the upstream cannot be reached");
    rt_relay_stop(relay, &fault);
}

void rt_relay_ended(rt_relay *relay, CURLcode result)
{
    rt_call *call = relay->call;
    rt_fault fault = {0};
    if (result == CURLE_OK && relay->events && !relay->cut && !relay->raising)
        rt_sse_rest(&relay->sse, on_event, relay);
    if (relay->raising) { /* then once more */
        relay->ended = true;
        relay->ended_result = result;
        return;
    }
    if (relay->cut) {
        relay->gateway->cut++;
        rt_upstream_fared(relay->upstream, true);
        count_usage(relay, true);
        call->finish = "length";
        rt_limit_close(relay);
        relay->done_seen = true;
        settle(relay, 200);
        return;
    }
    if (result != CURLE_OK) {
        failed(relay, result);
        return;
    }
    const int status = relay->status;
    const bool busy = status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
    rt_upstream_fared(relay->upstream, status < 500 && status != 429);
    if (busy && try_elsewhere(relay))
        return;
    if (status == 401 || status == 403) {
        (void)rt_fault_set(&fault, 502, "server_error", "upstream_auth",
                           "the upstream does not accept this server's key");
        rt_relay_stop(relay, &fault);
        return;
    }
    count_usage(relay, status == 200);
    call->finish = status != 200 ? "upstream_error" : relay->events && !relay->done_seen ? "no_done" : "stop";
    settle(relay, status);
}

/* The events that waited, as if they came now. */
static void give_held(rt_relay *relay)
{
    rt_text held = relay->held;
    rt_held_event event;
    relay->held = (rt_text){0};
    if (held.failed)
        relay->broken = true;
    for (size_t at = 0; !held.failed && at < held.size; at += sizeof event + event.size) {
        memcpy(&event, held.data + at, sizeof event);
        on_event(relay, held.data + at + sizeof event, event.size, event.whole);
    }
    rt_text_deinit(&held);
}

void rt_relay_go_on(rt_relay *relay)
{
    if (relay->settle_http) {
        settle(relay, relay->settle_http);
        return;
    }
    if (rt_http_is_gone(relay->call->x)) {
        rt_relay_gone(relay->call);
        return;
    }
    if (relay->stopped) {
        rt_relay_stop(relay, &relay->stop_fault);
        return;
    }
    give_held(relay);
    if (relay->raising)
        return;
    if (relay->cut || relay->broken || relay->ended) {
        rt_gateway_cancel(relay);
        rt_relay_ended(relay, relay->broken  ? CURLE_OUT_OF_MEMORY
                              : relay->ended ? relay->ended_result
                                             : CURLE_WRITE_ERROR);
        return;
    }
    rt_relay_drained(relay->call);
}

static void deliver_stream(rt_relay *relay)
{
    rt_call *call = relay->call;
    rt_text out = {0};
    begin_stream(relay);
    if (call->fault.status) {
        rt_text_puts(&out, "data: ");
        rt_fault_write(&call->fault, &out);
        rt_text_puts(&out, "\n\n");
        rt_http_write(call->x, out.data, out.size);
        rt_text_deinit(&out);
        relay_free(relay);
        rt_http_abort(call->x);
        return;
    }
    rt_http_write(call->x, relay->tail.data ? relay->tail.data : "", relay->tail.size);
    call->delivered = relay->done_seen;
    relay_free(relay);
    rt_http_end(call->x);
}

static void deliver_whole(rt_relay *relay)
{
    rt_call *call = relay->call;
    rt_http_exchange *x = call->x;
    rt_text body = relay->body;
    char type[sizeof relay->type];
    const int status = relay->status;
    relay->body = (rt_text){0};
    (void)snprintf(type, sizeof type, "%s", relay->type[0] ? relay->type : "application/json");
    if (relay->retry_after[0])
        rt_http_header(x, "Retry-After", relay->retry_after);
    if (relay->retry_after_ms[0])
        rt_http_header(x, "retry-after-ms", relay->retry_after_ms);
    rt_call_record(call, false);
    call->delivered = status == 200;
    rt_call_headers(call->serve, x);
    rt_call_limit_headers(call);
    relay_free(relay);
    rt_http_reply(x, status, type, body.data ? body.data : "", body.size);
    rt_text_deinit(&body);
}

void rt_relay_deliver(rt_call *call)
{
    rt_relay *relay = call->relay;
    if (rt_http_is_gone(call->x)) {
        relay_free(relay);
        rt_http_abort(call->x);
    } else if (relay->begun || (relay->events && !call->fault.status)) {
        deliver_stream(relay);
    } else if (call->fault.status) {
        relay_free(relay);
        call->noted = true;
        rt_call_fault(call, &call->fault);
    } else {
        deliver_whole(relay);
    }
}

void rt_relay_gone(rt_call *call)
{
    rt_relay *relay = call->relay;
    if (relay->settling)
        return; /* rt_relay_deliver finds nobody there */
    rt_gateway_cancel(relay);
    if (relay->raising)
        return; /* rt_relay_go_on does */
    call->finish = "client_closed";
    call->serve->metrics.cancelled++;
    count_usage(relay, true);
    settle(relay, 499);
}

void rt_relay_drained(rt_call *call)
{
    rt_relay *relay = call->relay;
    if (!relay->paused || !relay->easy || relay->raising || rt_http_backlog(call->x) > backlog_max)
        return;
    relay->paused = false;
    (void)curl_easy_pause(relay->easy, CURLPAUSE_CONT);
}
