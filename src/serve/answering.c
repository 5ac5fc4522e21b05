/* serve/answering.c - chat/completions and completions: a job for the engine, and its answer whole or
 * streamed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "serve/service.h"

enum { PING_S = 15 };
static const size_t backlog_max = (size_t)1 << 20; /* bytes that a client may leave unread */

static const char stream_type[] = "text/event-stream; charset=utf-8";

static void on_unknown(void *context, const char *name)
{
    rt_call *call = context;
    if (rt_metrics_unknown_field(&call->serve->metrics, name) && call->serve->options.log) {
        json_t *line = json_pack("{s:s,s:s*}", "event", "unknown_field", "field", name);
        char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
        if (text)
            call->serve->options.log(call->serve->options.context, text);
        free(text);
        json_decref(line);
    }
}

static double deadline_of(const rt_call *call, double now)
{
    double seconds = call->serve->options.request_timeout_s;
    const char *ms = rt_http_request_field(call->x, "x-request-timeout-ms");
    size_t wanted;
    if (ms && rt_parse_count(&wanted, ms) && (double)wanted / 1e3 < seconds)
        seconds = (double)wanted / 1e3;
    return now + seconds;
}

static bool no_memory(rt_fault *fault)
{
    return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
}

static bool make_job(rt_call *call, rt_fault *fault)
{
    rt_error err = {0};
    rt_request *q = &call->request;
    if (rt_job_new(&call->job, &q->options, q->prompts, q->n_prompts, &err) != RT_OK)
        return no_memory(fault);
    rt_job *job = call->job;
    job->owner = call;
    job->lane = call->lane;
    job->deadline_s = deadline_of(call, job->arrived_s);
    call->prompt_tokens = rt_job_prompt_tokens(job);
    if (!rt_call_mark(call, fault))
        return false;
    return rt_compose_init(&call->reply, call->model, q, job, call->serve->fingerprints[call->lane],
                           call->serve->options.reasoning, &err) == RT_OK ||
           no_memory(fault);
}

static void link_call(rt_call *call)
{
    rt_serve *serve = call->serve;
    call->next = serve->calls;
    if (serve->calls)
        serve->calls->prev = call;
    serve->calls = call;
}

static void unlink_call(rt_call *call)
{
    if (call->prev)
        call->prev->next = call->next;
    else
        call->serve->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
}

/* What the request may cost at most. */
static void estimate(rt_call *call)
{
    const rt_request *q = &call->request;
    call->prompt_tokens = 0;
    for (size_t i = 0; i < q->n_prompts; i++)
        call->prompt_tokens += q->prompts[i].count;
    call->reserved_tokens = q->options.tokens_max * q->options.n * q->n_prompts;
    call->named_tokens = q->has_tokens_max ? q->options.tokens_max : 0;
    call->top_logprobs = q->options.top_logprobs > q->options.prompt_top_logprobs
                             ? q->options.top_logprobs
                             : q->options.prompt_top_logprobs;
    if (call->top_logprobs < 0 || call->scores) /* scoring has a permission of its own */
        call->top_logprobs = 0;
}

static bool submit(rt_call *call, rt_fault *fault)
{
    rt_serve *serve = call->serve;
    if (!make_job(call, fault))
        return false;
    if (call->caller)
        call->job->account = rt_hash64(call->caller->account, strlen(call->caller->account), 1);
    call->job->scope = serve->options.prefix_share_all ? 0 : call->job->account;
    call->last_sent_s = rt_clock_seconds();
    rt_call_canary(call);
    if (!call->canary)
        rt_call_twin(call);
    if (rt_engine_submit(serve->engine, call->job)) {
        link_call(call);
        return true;
    }
    rt_pair_abandon(call);
    rt_canary_abandon(call);
    (void)rt_fault_set(fault, 503, "server_error", "overloaded", "too many requests wait; try again soon");
    fault->retry_after_s = 1;
    return false;
}

static void admitted(rt_call *call, const rt_fault *why)
{
    rt_fault fault = why ? *why : (rt_fault){0};
    if (why || !submit(call, &fault))
        rt_call_give_up(call, &fault);
}

bool rt_call_start(rt_call *call, rt_fault *fault)
{
    if (call->serve->draining) {
        (void)rt_fault_set(fault, 503, "server_error", "draining", "the server is being stopped");
        fault->retry_after_s = 5;
        return false;
    }
    estimate(call);
    if (!rt_call_watch_allows(call, fault))
        return false;
    rt_call_admit(call, admitted);
    return true;
}

void rt_call_give_up(rt_call *call, const rt_fault *fault)
{
    (void)rt_call_settle(call, fault->status, false);
    rt_job_free(call->job);
    call->job = NULL;
    rt_call_fault(call, fault);
}

static void answer(rt_call *call, const rt_fault *why)
{
    (void)why;
    rt_fault fault = {0};
    const bool chat = call->route->run == rt_run_chat;
    const char *strict = rt_http_request_field(call->x, "x-retort-strict");
    rt_request_rules rules = {
        .strict = strict && strcmp(strict, "1") == 0, .unknown = on_unknown, .context = call};
    rt_call_rules(call, &rules);
    if (!rt_request_read(&call->request, chat, call->body, call->model, &rules, &fault) ||
        !rt_call_start(call, &fault))
        rt_call_give_up(call, &fault);
}

void rt_run_chat(rt_call *call)
{
    if (rt_call_body(call))
        rt_call_idempotency(call, answer);
}

void rt_run_completions(rt_call *call)
{
    if (rt_call_body(call))
        rt_call_idempotency(call, answer);
}

/* ---- what comes back ---- */

static void begin_stream(rt_call *call)
{
    if (call->streaming)
        return;
    call->streaming = true;
    rt_call_record(call, true);
    rt_http_header(call->x, "Cache-Control", "no-cache");
    rt_http_header(call->x, "X-Accel-Buffering", "no");
    rt_call_headers(call->serve, call->x);
    rt_call_limit_headers(call);
    rt_http_begin(call->x, 200, stream_type);
}

static void send_events(rt_call *call, const rt_text *out)
{
    rt_http_write(call->x, out->data, out->size);
    call->last_sent_s = rt_clock_seconds();
    if (rt_http_backlog(call->x) > backlog_max)
        atomic_store(&call->job->paused, true);
}

static void grown(rt_call *call)
{
    if (!call->request.stream || rt_http_is_gone(call->x) || rt_canary_waits(call))
        return;
    rt_text out = {0};
    rt_compose_events(&call->reply, &out);
    if (out.size) {
        begin_stream(call);
        send_events(call, &out);
    }
    rt_text_deinit(&out);
}

/* Counts and histograms of a job that has ended. */
static void account_for(rt_call *call)
{
    rt_job *job = call->job;
    rt_metrics *m = &call->serve->metrics;
    if (!call->gone_billed)
        call->output_tokens = rt_compose_sampled(&call->reply);
    (void)pthread_mutex_lock(&job->lock);
    for (size_t i = 0; i < job->n_prompts; i++)
        call->cached_tokens += job->prompts[i].cached;
    const double arrived = rt_http_request_of(call->x)->begun_s;
    if (job->started_s > 0)
        rt_metrics_observe(&m->queue, job->started_s - job->arrived_s);
    if (job->first_token_s > 0) {
        call->ttft_s = job->first_token_s - arrived;
        rt_metrics_observe(&m->ttft, call->ttft_s);
    }
    if (job->first_token_s > 0 && call->output_tokens > job->n_choices)
        rt_metrics_observe(&m->tpot, (job->ended_s - job->first_token_s) * (double)job->n_choices /
                                         (double)(call->output_tokens - job->n_choices));
    rt_metrics_observe(&m->e2e, rt_clock_seconds() - arrived);
    rt_call_note_mark(call);
    call->finish = job->choices[0].finish == RT_JOB_STOP ? "stop" : "length";
    (void)pthread_mutex_unlock(&job->lock);
}

/* Why a job has no whole answer, if so. */
static bool job_fault(rt_call *call, rt_fault *fault)
{
    rt_job *job = call->job;
    (void)pthread_mutex_lock(&job->lock);
    bool aborted = false;
    for (size_t i = 0; i < job->n_choices; i++)
        aborted |= job->choices[i].finish == RT_JOB_ABORTED;
    const bool timed_out = job->timed_out, no_room = job->fault.status == RT_NO_MEMORY;
    (void)pthread_mutex_unlock(&job->lock);
    if (aborted && timed_out)
        (void)rt_fault_set(fault, 504, "timeout_error", "generation_timeout",
                           "the deadline passed before a token was made");
    else if (aborted && no_room)
        (void)no_memory(fault);
    else if (aborted)
        (void)rt_fault_set(fault, 500, "server_error", "internal_error",
                           "the answer could not be made; the request id helps to find out why");
    return aborted;
}

static void finish_stream(rt_call *call)
{
    rt_text out = {0};
    const rt_fault *fault = call->fault.status ? &call->fault : NULL;
    begin_stream(call);
    if (fault) {
        rt_text_puts(&out, "data: ");
        rt_fault_write(fault, &out);
        rt_text_puts(&out, "\n\n");
    } else {
        rt_compose_last_events(&call->reply, &out);
    }
    rt_http_write(call->x, out.data, out.size);
    rt_text_deinit(&out);
    if (fault) {
        rt_http_abort(call->x);
    } else {
        call->delivered = true;
        rt_http_end(call->x);
    }
}

/* The last bytes, once the request's row is on the disk. */
static void deliver(rt_call *call)
{
    rt_job *job = call->job;
    if (call->relay) {
        rt_relay_deliver(call);
        return;
    }
    unlink_call(call);
    if (rt_http_is_gone(call->x)) {
        rt_http_abort(call->x);
    } else if (call->request.stream && (call->streaming || !call->fault.status)) {
        finish_stream(call);
    } else if (call->fault.status) {
        call->noted = true;
        rt_call_fault(call, &call->fault);
    } else {
        rt_text out = {0};
        rt_error err = {0};
        if (call->binary)
            out.failed = rt_compose_score_binary(call, &out, &err) != RT_OK || out.failed;
        else if (call->scores)
            rt_compose_score(call, &out);
        else
            rt_compose_whole(&call->reply, &out);
        rt_call_record(call, false);
        call->delivered = !out.failed;
        rt_call_reply(call, 200, call->binary ? "application/octet-stream" : "application/json", &out);
        rt_text_deinit(&out);
    }
    rt_job_free(job);
}

/* A job has ended: what it made is told, the bill is written, then the answer is finished. */
static void ended(rt_call *call)
{
    account_for(call);
    rt_pair_delivered(call);
    rt_canary_end(call);
    const bool faulty = job_fault(call, &call->fault);
    if (call->revoked && !rt_http_is_gone(call->x)) {
        (void)rt_fault_set(&call->fault, 403, "permission_error", "account_suspended",
                           "the account may no longer be served; GET /v1/account tells why");
        call->fault.no_retry = true;
    }
    if (rt_http_is_gone(call->x)) {
        call->finish = "client_closed";
        call->serve->metrics.cancelled++;
    } else if (call->fault.status) {
        call->finish = call->fault.code;
    }
    if (!faulty)
        grown(call);
    const int http = rt_http_is_gone(call->x) ? 499 : call->fault.status ? call->fault.status : 200;
    rt_call_watch(call);
    if (rt_call_settle(call, http, true))
        deliver(call);
}

void rt_serve_news(rt_serve *serve)
{
    bool done = false;
    for (rt_job *job; serve->engine && (job = rt_engine_changed(serve->engine, &done));) {
        if (job->pair && done)
            rt_pair_twin_ended(job->pair);
        else if (job->pair)
            continue;
        else if (done)
            ended(job->owner);
        else
            grown(job->owner);
    }
    for (rt_call *call; (call = rt_serve_take_settled(serve));)
        deliver(call);
    rt_clerks_news(serve->clerks);
}

void rt_call_gone(rt_call *call)
{
    if (call->relay) {
        rt_relay_gone(call);
        return;
    }
    if (!call->job)
        return;
    if (call->pair) { /* the coin must not decide which answers are whole */
        call->output_tokens = rt_compose_sampled(&call->reply);
        call->gone_billed = true;
        atomic_store(&call->job->paused, false);
        rt_engine_poke(call->serve->engine);
        return;
    }
    atomic_store(&call->job->cancelled, true);
    rt_engine_poke(call->serve->engine);
}

void rt_call_drained(rt_call *call)
{
    if (call->relay) {
        rt_relay_drained(call);
        return;
    }
    if (!call->job || !atomic_load(&call->job->paused))
        return;
    atomic_store(&call->job->paused, false);
    rt_engine_poke(call->serve->engine);
}

void rt_serve_tick_calls(rt_serve *serve, double now)
{
    const bool cut = serve->draining && now > serve->drain_until_s;
    const bool look = now - serve->looked_s >= 1;
    if (look) {
        serve->looked_s = now;
        rt_door_tick(serve);
    }
    if (cut)
        rt_pairs_cut(serve);
    if (serve->gateway)
        rt_gateway_tick(serve->gateway, look, cut);
    for (rt_call *call = serve->calls; call; call = call->next) {
        if (look && call->ticket && !call->revoked &&
            !rt_gate_still_allowed(serve->options.gate, call->ticket)) {
            call->revoked = true;
            atomic_store(&call->job->cancelled, true);
            rt_engine_poke(serve->engine);
        }
        if (cut && !atomic_exchange(&call->job->cancelled, true))
            rt_engine_poke(serve->engine);
        if (!call->request.stream || rt_http_is_gone(call->x) || now - call->last_sent_s < PING_S)
            continue;
        const rt_text ping = {.data = (char[]){": ping\n\n"}, .size = 8};
        begin_stream(call);
        send_events(call, &ping);
    }
}
