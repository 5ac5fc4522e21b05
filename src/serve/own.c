/* serve/own.c - an account's own view (/v1/account ...) and the admin API on its listener: HTTP around the
 * functions of account/admin.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "account/admin.h"
#include "base/clock.h"
#include "serve/admin_page.h"
#include "serve/fields.h"
#include "serve/guard_desk.h"
#include "serve/service.h"

static void answer(rt_serve *serve, rt_http_exchange *x, rt_desk_reply *reply)
{
    char *text = json_dumps(reply->body, JSON_COMPACT);
    rt_call_headers(serve, x);
    rt_http_reply(x, text ? reply->http : 500, "application/json", text ? text : "{}",
                  text ? strlen(text) : 2);
    free(text);
    json_decref(reply->body);
}

/* The body where there is one; false: *fault. */
static bool read_body(const rt_http_exchange *x, json_t **body, rt_fault *fault)
{
    const rt_http_request *request = rt_http_request_of(x);
    *body = NULL;
    return request->body_size == 0 || rt_body_parse(body, request->body, request->body_size, fault);
}

/* ---- an account's own view ---- */

typedef struct own_errand {
    rt_errand errand;
    rt_call *call;
    const rt_terms *terms;
} own_errand;

static rt_desk_reply own_work(rt_errand *errand, rt_desk *desk)
{
    const own_errand *own = (const own_errand *)errand;
    const rt_call *call = own->call;
    const rt_http_head *head = rt_http_request_of(call->x)->head;
    const rt_desk_reply reply =
        rt_own_view_call(desk, call->caller, own->terms, head->method, head->path, head->query, call->body);
    if (call->serve->options.watch && reply.http == 201 && strcmp(head->path, "/v1/account/appeals") == 0)
        rt_watch_answered(call->serve->options.watch, call->caller->account);
    return reply;
}

static const rt_fault *too_busy(rt_fault *fault)
{
    (void)rt_fault_set(fault, 503, "server_error", "overloaded", "too many such calls wait; try again soon");
    fault->retry_after_s = 1;
    return fault;
}

static void own_done(rt_errand *errand)
{
    own_errand *own = (own_errand *)errand;
    rt_call *call = own->call;
    rt_serve *serve = call->serve;
    rt_fault fault = {0};
    if (!errand->reply.http) {
        rt_call_fault(call, too_busy(&fault));
    } else {
        rt_call_limit_headers(call);
        answer(serve, call->x, &errand->reply);
    }
    free(own);
}

void rt_run_own(rt_call *call)
{
    rt_serve *serve = call->serve;
    rt_fault fault = {0};
    own_errand *own = NULL;
    if (!call->caller)
        (void)rt_fault_set(&fault, 404, "invalid_request_error", "unknown_url",
                           "this server has no accounts");
    else if (read_body(call->x, &call->body, &fault)) {
        own = calloc(1, sizeof *own);
        if (own)
            *own = (own_errand){{.work = own_work, .done = own_done}, call, serve->options.terms};
        if (own && rt_clerks_send(serve->clerks, RT_CLERK_OWN, &own->errand))
            return;
        (void)too_busy(&fault);
    }
    free(own);
    rt_call_fault(call, &fault);
}

/* ---- the admin listener ---- */

static void admin_fault(rt_serve *serve, rt_http_exchange *x, const rt_fault *fault)
{
    rt_serve_send_fault(serve, x, fault);
}

/* The operator's page is no secret; what it shows needs the key that is typed into it. */
static bool send_page(rt_http_exchange *x)
{
    const rt_http_head *head = rt_http_request_of(x)->head;
    rt_page_file file;
    if (strcmp(head->method, "GET") != 0 && strcmp(head->method, "HEAD") != 0)
        return false;
    if (!rt_admin_page_find(head->path, &file))
        return false;
    rt_http_header(x, "Content-Security-Policy",
                   "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                   "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    rt_http_header(x, "X-Content-Type-Options", "nosniff");
    rt_http_header(x, "Referrer-Policy", "no-referrer");
    rt_http_header(x, "Cache-Control", "no-cache");
    rt_http_reply(x, 200, file.type, file.data, file.size);
    return true;
}

static bool enter(rt_serve *serve, rt_http_exchange *x, const rt_fault *why_not);

bool rt_admin_head(void *context, rt_http_exchange *x)
{
    rt_serve *serve = context;
    rt_fault fault = {0};
    const char *path = rt_http_request_of(x)->head->path;
    if (strcmp(path, "/health") == 0) {
        rt_call_headers(serve, x);
        rt_http_reply(x, 200, "application/json", "{\"status\":\"ok\"}", 15);
        return false;
    }
    if (send_page(x))
        return false;
    if (strncmp(path, "/admin/v1/", 10) != 0) {
        (void)rt_fault_set(&fault, 404, "invalid_request_error", "unknown_url",
                           "there is nothing at this path");
        admin_fault(serve, x, &fault);
        return false;
    }
    return rt_door_head(serve, x, enter);
}

static bool enter(rt_serve *serve, rt_http_exchange *x, const rt_fault *why_not)
{
    rt_fault fault = {0};
    rt_refusal why = {0};
    if (why_not) {
        admin_fault(serve, x, why_not);
        return false;
    }
    rt_admin *admin = calloc(1, sizeof *admin);
    if (admin && rt_gate_authenticate_admin(serve->options.gate, rt_request_key(x),
                                            rt_http_request_of(x)->address, admin, &why)) {
        const char *method = rt_http_request_of(x)->head->method;
        rt_http_set_user(x, admin);
        if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || rt_content_type_is_json(x))
            return true;
        (void)rt_fault_set(&fault, 415, "invalid_request_error", "unsupported_media_type",
                           "the body must be sent as application/json");
        admin_fault(serve, x, &fault);
        return false;
    }
    if (admin)
        rt_fault_of_refusal(&why, &fault);
    else
        (void)rt_fault_set(&fault, 503, "server_error", "overloaded", "there is no memory for the request");
    free(admin);
    admin_fault(serve, x, &fault);
    return false;
}

static json_t *live_request(rt_call *call, double now)
{
    size_t sampled = 0;
    if (call->job) {
        (void)pthread_mutex_lock(&call->job->lock);
        for (size_t i = 0; i < call->job->n_choices; i++)
            sampled += call->job->choices[i].n_sampled;
        (void)pthread_mutex_unlock(&call->job->lock);
    }
    const rt_http_request *request = rt_http_request_of(call->x);
    return json_pack("{s:s, s:s?, s:s, s:s?, s:I, s:I, s:f}", "request", request->id, "account",
                     call->caller ? call->caller->account : NULL, "endpoint",
                     call->route ? call->route->endpoint : "unknown", "model",
                     call->model ? call->model->id : NULL, "prompt_tokens", (json_int_t)call->prompt_tokens,
                     "output_tokens", (json_int_t)sampled, "seconds", now - request->begun_s);
}

/* What is going on: sums that only grow (two looks make a rate), and the requests under way. */
static rt_desk_reply live(rt_serve *serve)
{
    rt_engine_stats stats = {.prompt_tokens = serve->metrics.relayed_prompt,
                             .generated_tokens = serve->metrics.relayed_output};
    const double now = rt_clock_seconds();
    json_t *requests = json_array();
    for (rt_call *call = serve->calls; call; call = call->next)
        (void)json_array_append_new(requests, live_request(call, now));
    if (serve->gateway)
        rt_gateway_live(serve->gateway, now, requests);
    if (serve->engine)
        stats = rt_engine_get_stats(serve->engine);
    else
        stats.running = json_array_size(requests);
    json_t *body =
        json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:o}", "object", "live", "at", now,
                  "running", (json_int_t)stats.running, "queued", (json_int_t)stats.queued, "connections",
                  (json_int_t)rt_http_connections(serve->http), "prompt_tokens",
                  (json_int_t)stats.prompt_tokens, "generated_tokens", (json_int_t)stats.generated_tokens,
                  "draining", serve->draining, "guard", serve->options.watch != NULL, "requests", requests);
    return (rt_desk_reply){body ? 200 : 503, body ? body : json_object()};
}

/* Accounts on a rung of the ladder, and how the guard itself does. */
static rt_desk_reply guard_view(rt_serve *serve)
{
    rt_watch *watch = serve->options.watch;
    if (!watch)
        return (rt_desk_reply){404, rt_error_body("invalid_request_error", "unknown_url", NULL,
                                                  "no guard runs: serve with --guard")};
    const rt_watch_counts counts = rt_watch_counts_of(watch);
    json_t *body = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:b}", "object", "guard", "judged",
                             (json_int_t)counts.judged, "dropped", (json_int_t)counts.dropped, "decisions",
                             (json_int_t)counts.decisions, "failed", (json_int_t)counts.failed, "data",
                             rt_watch_list(watch), "dry_run", rt_watch_policy(watch)->dry_run);
    return (rt_desk_reply){body ? 200 : 503, body ? body : json_object()};
}

typedef struct admin_errand {
    rt_errand errand;
    rt_serve *serve;
    rt_http_exchange *x;
    const char *method;
    json_t *body;
} admin_errand;

static rt_desk_reply admin_work(rt_errand *errand, rt_desk *desk)
{
    const admin_errand *call = (const admin_errand *)errand;
    const rt_http_head *head = rt_http_request_of(call->x)->head;
    if (strcmp(call->method, "GET") == 0 && strcmp(head->path, "/admin/v1/guard") == 0)
        return guard_view(call->serve); /* the guard may be judging, and write while it does */
    if (rt_guard_desk_is(head->path)) {
        /* the cases first: what is decided meanwhile is then another case than the page shows */
        json_t *cases = rt_desk_cases(desk);
        const rt_desk_reply reply =
            rt_guard_desk_call(call->serve->options.watch, call->method, head->path, head->query, call->body);
        if (cases && reply.http == 200)
            rt_guard_desk_tell_cases(reply.body, cases);
        json_decref(cases);
        return reply;
    }
    return rt_admin_call(desk, rt_http_user(call->x), call->method, head->path, head->query, call->body);
}

static void admin_done(rt_errand *errand)
{
    admin_errand *call = (admin_errand *)errand;
    rt_fault fault = {0};
    json_decref(call->body);
    if (errand->reply.http)
        answer(call->serve, call->x, &errand->reply);
    else
        admin_fault(call->serve, call->x, too_busy(&fault));
    free(call);
}

void rt_admin_body(void *context, rt_http_exchange *x)
{
    rt_serve *serve = context;
    rt_fault fault = {0};
    json_t *body;
    const rt_http_head *head = rt_http_request_of(x)->head;
    const char *method = strcmp(head->method, "HEAD") == 0 ? "GET" : head->method;
    if (!read_body(x, &body, &fault)) {
        admin_fault(serve, x, &fault);
        return;
    }
    if (strcmp(method, "GET") == 0 && strcmp(head->path, "/admin/v1/live") == 0) {
        rt_desk_reply reply = live(serve);
        json_decref(body);
        answer(serve, x, &reply);
        return;
    }
    admin_errand *call = calloc(1, sizeof *call);
    if (call)
        *call = (admin_errand){{.work = admin_work, .done = admin_done}, serve, x, method, body};
    if (call && rt_clerks_send(serve->clerks,
                               strcmp(method, "GET") == 0 || rt_guard_desk_is(head->path) ? RT_CLERK_READS
                                                                                          : RT_CLERK_CHANGES,
                               &call->errand))
        return;
    free(call);
    json_decref(body);
    admin_fault(serve, x, too_busy(&fault));
}

void rt_admin_gone(void *context, rt_http_exchange *x)
{
    (void)context;
    (void)x; /* the clerk's answer goes to nobody */
}

void rt_admin_finished(void *context, rt_http_exchange *x)
{
    rt_serve *serve = context;
    rt_metrics_request(&serve->metrics, "admin", rt_http_status(x));
    free(rt_http_user(x));
}
