/* serve/admission.c - the account's door around a call: key, state, limits before; the bill after. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "account/stored.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/size.h"
#include "serve/service.h"

const char *rt_request_key(const rt_http_exchange *x)
{
    const char *bearer = rt_http_request_field(x, "authorization");
    if (bearer && strncasecmp(bearer, "bearer ", 7) == 0) {
        bearer += 7;
        return bearer + strspn(bearer, " ");
    }
    const char *key = rt_http_request_field(x, "api-key");
    return key ? key : rt_http_request_field(x, "x-api-key");
}

void rt_fault_of_refusal(const rt_refusal *why, rt_fault *fault)
{
    (void)rt_fault_set(fault, why->http, why->type, why->code, "%s", why->message);
    (void)snprintf(fault->param, sizeof fault->param, "%s", why->param ? why->param : "");
    /* a wait of nothing would be left out: at least a millisecond is told */
    fault->retry_after_s = why->retry_after_s < 0 ? 0 : fmax(why->retry_after_s, 1e-3);
    fault->no_retry = why->no_retry;
    fault->authenticate = why->authenticate;
}

bool rt_call_needs_key(const rt_call *call)
{
    const rt_serve *serve = call->serve;
    const unsigned flags = call->route->flags;
    return serve->options.gate && !(flags & RT_ROUTE_OPEN) &&
           !((flags & RT_ROUTE_TOKENIZER) && serve->options.open_tokenizer) &&
           !((flags & RT_ROUTE_METRICS) && serve->options.metrics_open);
}

bool rt_call_authenticate(rt_call *call, rt_fault *fault)
{
    const rt_serve *serve = call->serve;
    const unsigned flags = call->route->flags;
    if (!rt_call_needs_key(call))
        return true;
    rt_refusal why = {0};
    call->caller = rt_gate_authenticate(serve->options.gate, rt_request_key(call->x),
                                        rt_http_request_of(call->x)->address, &why);
    if (call->caller &&
        ((flags & RT_ROUTE_OWN) || rt_gate_check_state(serve->options.gate, call->caller, &why)))
        return true;
    rt_fault_of_refusal(&why, fault);
    return false;
}

typedef struct limit_names { /* of headers */
    const char *limit, *left, *reset;
} limit_names;
static const limit_names of_requests = {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
                                        "x-ratelimit-reset-requests"},
                         of_tokens = {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
                                      "x-ratelimit-reset-tokens"};

static void put_limit(rt_http_exchange *x, const limit_names *names, int64_t limit, int64_t left,
                      double reset_s)
{
    char value[32];
    (void)snprintf(value, sizeof value, "%lld", (long long)limit);
    rt_http_header(x, names->limit, value);
    (void)snprintf(value, sizeof value, "%lld", (long long)(left > 0 ? left : 0));
    rt_http_header(x, names->left, value);
    rt_duration_text(value, reset_s);
    rt_http_header(x, names->reset, value);
}

void rt_call_limit_headers(const rt_call *call)
{
    if (!call->caller)
        return;
    const rt_limit_view view = rt_gate_limits(call->serve->options.gate, call->caller);
    if (view.has_requests)
        put_limit(call->x, &of_requests, view.limit_requests, view.remaining_requests, view.reset_requests_s);
    if (view.has_tokens)
        put_limit(call->x, &of_tokens, view.limit_tokens, view.remaining_tokens, view.reset_tokens_s);
}

/* An answer whose length the request does not name is as long as the account's limits let it be. */
void rt_call_rules(const rt_call *call, rt_request_rules *rules)
{
    rules->tokens_cap = rules->tokens_room = -1;
    if (!call->caller)
        return;
    const rt_limit_view view = rt_gate_limits(call->serve->options.gate, call->caller);
    rules->tokens_cap = call->caller->max_tokens;
    rules->tokens_room = view.has_tokens ? view.limit_tokens : -1;
}

static rt_gate_ask ask_of(const rt_call *call)
{
    const rt_http_request *request = rt_http_request_of(call->x);
    return (rt_gate_ask){.request_id = request->id,
                         .endpoint = call->route->endpoint,
                         .model = call->model ? call->model->id : call->model_name,
                         .address = request->address,
                         .agent = rt_http_request_field(call->x, "user-agent"),
                         .user = call->request.user,
                         .prompt_tokens = (int64_t)call->prompt_tokens,
                         .output_tokens = (int64_t)call->reserved_tokens,
                         .max_tokens = (int64_t)call->named_tokens,
                         .top_logprobs = call->top_logprobs,
                         .score = call->scores};
}

void rt_call_admit(rt_call *call, rt_call_then then)
{
    rt_refusal why = {0};
    rt_fault fault = {0};
    if (!call->caller) {
        then(call, NULL);
        return;
    }
    call->question = (rt_question){.ask = ask_of(call)};
    if (rt_gate_check_ask(call->serve->options.gate, call->caller, &call->question.ask, &why)) {
        rt_door_admit(call, then);
        return;
    }
    rt_fault_of_refusal(&why, &fault);
    then(call, &fault);
}

void rt_call_note_refused(rt_call *call, const rt_fault *fault)
{
    if (!call->caller || call->noted || call->ticket)
        return;
    const rt_gate_ask ask = ask_of(call);
    call->noted = true;
    rt_gate_note_refused(call->serve->options.gate, call->caller, &ask, fault->status,
                         fault->code ? fault->code : "error");
}

/* ---- the bill ---- */

static void on_settled(void *context, rt_status status)
{
    (void)status; /* a row that cannot be written is tried again by the gate */
    rt_call *call = context;
    rt_serve *serve = call->serve;
    (void)pthread_mutex_lock(&serve->settled_lock);
    const bool first = serve->settled == NULL; /* the loop takes all that it finds: one wake for a group */
    call->next_settled = serve->settled;
    serve->settled = call;
    (void)pthread_mutex_unlock(&serve->settled_lock);
    if (first)
        rt_http_wake(serve->wakeup);
}

bool rt_call_settle(rt_call *call, int http, bool wait)
{
    if (!call->ticket)
        return true;
    const rt_http_request *request = rt_http_request_of(call->x);
    const rt_outcome outcome = {.input_tokens =
                                    (int64_t)(http < 500 || call->output_tokens ? call->prompt_tokens : 0),
                                .cached_tokens = (int64_t)call->cached_tokens,
                                .output_tokens = (int64_t)call->output_tokens,
                                .http = http,
                                .outcome = call->finish ? call->finish : "error",
                                .ttft_s = call->ttft_s,
                                .total_s = rt_clock_seconds() - request->begun_s,
                                .estimated = call->estimated,
                                .mark_scheme = call->mark.marking ? call->mark.marking->scheme : NULL,
                                .mark_key = call->mark.marking ? call->mark.marking->key : NULL,
                                .mark_h = call->mark.marking ? (int64_t)call->mark.marking->h : 0,
                                .mark_own = call->mark.own_share,
                                .marked = call->marked,
                                .prompt = call->caller->wants_prompt ? request->body : NULL,
                                .prompt_size = call->caller->wants_prompt ? request->body_size : 0,
                                .record = call->note.record,
                                .record_size = call->note.size,
                                .record_line = call->note.line};
    call->note = (rt_watch_note){0};
    rt_ticket *ticket = call->ticket;
    call->ticket = NULL;
    return rt_gate_settle(call->serve->options.gate, ticket, &outcome, wait ? on_settled : NULL,
                          wait ? call : NULL);
}

rt_call *rt_serve_take_settled(rt_serve *serve)
{
    (void)pthread_mutex_lock(&serve->settled_lock);
    rt_call *call = serve->settled;
    if (call)
        serve->settled = call->next_settled;
    (void)pthread_mutex_unlock(&serve->settled_lock);
    return call;
}

/* ---- what was sent ---- */

enum { CAPTURED_BYTES_MAX = 8 << 20 };

static bool may_capture(const rt_call *call)
{
    rt_capture *capture = call->serve->options.capture;
    const bool text = strcmp(call->route->endpoint, "chat/completions") == 0 ||
                      strcmp(call->route->endpoint, "completions") == 0;
    if (!capture || !text || !call->body)
        return false;
    if (!call->caller || (call->caller->capture && call->caller->full_prompt))
        return true;
    rt_capture_not_kept(capture, call->caller->account);
    return false;
}

void rt_call_record(rt_call *call, bool stream)
{
    call->captures = may_capture(call);
    call->sent_stream = stream;
    if (call->kept) {
        call->kept->stream = call->kept->stream || stream;
        rt_http_record(call->x, &call->kept->body);
    } else if (call->captures) {
        call->sent.size_max = CAPTURED_BYTES_MAX;
        rt_http_record(call->x, &call->sent);
    }
}

void rt_call_capture(rt_call *call)
{
    const rt_http_request *request = rt_http_request_of(call->x);
    rt_http_record(call->x, NULL);
    if (rt_http_status(call->x) != 200 || !call->delivered)
        return;
    const rt_captured what = {.id = request->id,
                              .account = call->caller ? call->caller->account : NULL,
                              .model = call->model ? call->model->id : call->model_name,
                              .body = request->body,
                              .body_size = request->body_size,
                              .answer = call->kept ? &call->kept->body : &call->sent,
                              .chat = strcmp(call->route->endpoint, "chat/completions") == 0,
                              .stream = call->sent_stream,
                              .prompt_tokens = call->prompt_tokens,
                              .cached_tokens = call->cached_tokens,
                              .output_tokens = call->output_tokens,
                              .seconds = rt_clock_seconds() - request->begun_s};
    rt_capture_add(call->serve->options.capture, &what);
}

/* ---- Idempotency-Key ---- */

static void replay(rt_call *call, const rt_kept_answer *entry)
{
    rt_http_header(call->x, "Idempotent-Replayed", "true");
    call->finish = "replayed";
    call->noted = true;
    rt_call_headers(call->serve, call->x);
    rt_call_limit_headers(call);
    const bool binary = entry->body.size > 5 && memcmp(entry->body.data, "RTRLS", 5) == 0; /* of a score */
    rt_http_reply(call->x, 200,
                  entry->stream ? "text/event-stream; charset=utf-8"
                  : binary      ? "application/octet-stream"
                                : "application/json",
                  entry->body.data ? entry->body.data : "", entry->body.size);
}

static void conflict(rt_call *call, const char *message)
{
    rt_fault fault = {0};
    (void)rt_fault_set(&fault, 409, "conflict_error", "idempotency_conflict", "%s", message);
    fault.no_retry = true;
    rt_call_fault(call, &fault);
}

static const char still_running[] = "the first request with this Idempotency-Key is still running",
                  other_request[] = "this Idempotency-Key was used for another request";

/* What the database says of a key that this process did not know. */
static void looked_up(rt_call *call, const rt_fault *why)
{
    (void)why;
    rt_serve *serve = call->serve;
    rt_question *q = &call->question;
    rt_kept_answer *entry = q->entry;
    if (rt_http_is_gone(call->x)) {
        if (q->state == RT_STORED_NEW)
            call->kept = entry; /* the end of the call takes the claim back */
        else
            rt_kept_end(&serve->kept, entry, false);
        rt_text_deinit(&q->body);
        rt_http_abort(call->x);
        return;
    }
    switch (q->state) {
    case RT_STORED_NEW:
        call->kept = entry;
        call->key_known(call, NULL);
        return;
    case RT_STORED_DONE:
        rt_kept_fill(&serve->kept, entry, &q->body, q->stream);
        replay(call, entry);
        return;
    case RT_STORED_RUNNING:
        rt_kept_end(&serve->kept, entry, false);
        conflict(call, still_running);
        return;
    case RT_STORED_CONFLICT:
        break;
    }
    rt_kept_end(&serve->kept, entry, false);
    conflict(call, other_request);
}

/* A server before this, or beside it, may know the key. */
static void ask_database(rt_call *call, rt_kept_answer *entry, rt_call_then then)
{
    call->question = (rt_question){.entry = entry};
    call->key_known = then;
    rt_door_stored(call, looked_up);
}

void rt_call_idempotency_end(rt_call *call)
{
    rt_serve *serve = call->serve;
    const bool keep = rt_http_status(call->x) == 200 && call->delivered;
    rt_http_record(call->x, NULL);
    if (call->caller)
        rt_gate_stored_end(serve->options.gate, call->kept->id, call->kept->request,
                           keep ? &call->kept->body : NULL, call->kept->stream);
    rt_kept_end(&serve->kept, call->kept, keep);
}

void rt_call_idempotency(rt_call *call, rt_call_then then)
{
    const char *key = rt_http_request_field(call->x, "idempotency-key");
    const rt_http_request *request = rt_http_request_of(call->x);
    rt_fault fault = {0};
    rt_kept_answer *entry = NULL;
    if (!key) {
        then(call, NULL);
        return;
    }
    if (!*key || strlen(key) > 255) {
        (void)rt_fault_invalid(&fault, "invalid_value", NULL, "Idempotency-Key must have 1 to 255 bytes");
        rt_call_fault(call, &fault);
        return;
    }
    switch (rt_kept_begin(&call->serve->kept, call->caller ? call->caller->account : "", key,
                          request->head->path, request->body, request->body_size, rt_clock_seconds(),
                          &entry)) {
    case RT_KEPT_NEW:
        if (call->caller) {
            ask_database(call, entry, then);
            return;
        }
        call->kept = entry;
        then(call, NULL);
        return;
    case RT_KEPT_FULL: /* too many run at once to remember: the request is served without the promise */
        then(call, NULL);
        return;
    case RT_KEPT_DONE:
        replay(call, entry);
        return;
    case RT_KEPT_RUNNING:
        conflict(call, still_running);
        return;
    case RT_KEPT_CONFLICT:
        break;
    }
    conflict(call, other_request);
}
