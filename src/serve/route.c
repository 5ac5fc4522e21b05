/* serve/route.c - from a request's head to the function that answers it, and the form of answers.
 *
 * The order of checks is that of API.md section 1: route, method, key, account, body, JSON, model,
 * parameters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "serve/fields.h"
#include "serve/json_out.h"
#include "serve/service.h"

const rt_route rt_routes[] = {
    {"/v1/chat/completions", "POST", "chat/completions", 0, rt_run_chat},
    {"/v1/completions", "POST", "completions", 0, rt_run_completions},
    {"/v1/models", "GET", "models", 0, rt_run_models},
    {"/v1/models/", "GET", "models", 0, rt_run_model},
    {"/v1/retort/score", "POST", "score", 0, rt_run_score},
    {"/v1/account", "*", "account", RT_ROUTE_OWN, rt_run_own},
    {"/tokenize", "POST", "tokenize", RT_ROUTE_TOKENIZER, rt_run_tokenize},
    {"/v1/tokenize", "POST", "tokenize", RT_ROUTE_TOKENIZER, rt_run_tokenize},
    {"/detokenize", "POST", "detokenize", RT_ROUTE_TOKENIZER, rt_run_detokenize},
    {"/v1/detokenize", "POST", "detokenize", RT_ROUTE_TOKENIZER, rt_run_detokenize},
    {"/tokenizer_info", "GET", "tokenizer_info", RT_ROUTE_TOKENIZER, rt_run_tokenizer_info},
    {"/v1/tokenizer_info", "GET", "tokenizer_info", RT_ROUTE_TOKENIZER, rt_run_tokenizer_info},
    {"/health", "GET", "health", RT_ROUTE_OPEN, rt_run_health},
    {"/v1/health", "GET", "health", RT_ROUTE_OPEN, rt_run_health},
    {"/ready", "GET", "ready", RT_ROUTE_OPEN, rt_run_ready},
    {"/metrics", "GET", "metrics", RT_ROUTE_METRICS, rt_run_metrics},
};
const size_t rt_routes_count = sizeof rt_routes / sizeof *rt_routes;

static const rt_route gateway_routes[] = {
    {"/v1/chat/completions", "POST", "chat/completions", 0, rt_run_relay},
    {"/v1/completions", "POST", "completions", 0, rt_run_relay},
    {"/v1/embeddings", "POST", "embeddings", 0, rt_run_relay},
    {"/v1/responses", "POST", "responses", 0, rt_run_relay},
    {"/v1/models", "GET", "models", 0, rt_run_relay_get},
    {"/v1/models/", "GET", "models", 0, rt_run_relay_get},
    {"/v1/account", "*", "account", RT_ROUTE_OWN, rt_run_own},
    {"/health", "GET", "health", RT_ROUTE_OPEN, rt_run_health},
    {"/v1/health", "GET", "health", RT_ROUTE_OPEN, rt_run_health},
    {"/ready", "GET", "ready", RT_ROUTE_OPEN, rt_run_ready},
    {"/metrics", "GET", "metrics", RT_ROUTE_METRICS, rt_run_metrics},
};

/* ---- answers ---- */

static void cors_header(const rt_serve *serve, rt_http_exchange *x)
{
    const char *origin = rt_http_request_of(x)->head->method ? rt_http_request_field(x, "origin") : NULL;
    for (size_t i = 0; origin && i < serve->options.n_origins; i++)
        if (strcmp(origin, serve->options.origins[i]) == 0) {
            rt_http_header(x, "Access-Control-Allow-Origin", origin);
            rt_http_header(x, "Vary", "Origin");
            return;
        }
}

void rt_call_headers(rt_serve *serve, rt_http_exchange *x)
{
    char ms[32];
    (void)snprintf(ms, sizeof ms, "%.0f", 1e3 * (rt_clock_seconds() - rt_http_request_of(x)->begun_s));
    rt_http_header(x, "openai-processing-ms", ms);
    cors_header(serve, x);
}

void rt_fault_write(const rt_fault *fault, rt_text *out)
{
    rt_text_puts(out, "{\"error\":{\"message\":");
    rt_json_cstring(out, fault->message);
    rt_text_puts(out, ",\"type\":");
    rt_json_cstring(out, fault->type);
    rt_text_puts(out, ",\"param\":");
    rt_json_cstring(out, fault->param[0] ? fault->param : NULL);
    rt_text_puts(out, ",\"code\":");
    rt_json_cstring(out, fault->code);
    rt_text_puts(out, "}}");
}

void rt_serve_send_fault(rt_serve *serve, rt_http_exchange *x, const rt_fault *fault)
{
    rt_text body = {0};
    char value[32];
    rt_fault_write(fault, &body);
    rt_call_headers(serve, x);
    if (fault->retry_after_s > 0) {
        const double s = fault->retry_after_s < 120 ? fault->retry_after_s : 120;
        (void)snprintf(value, sizeof value, "%d", (int)(s + 0.999));
        rt_http_header(x, "Retry-After", value);
        (void)snprintf(value, sizeof value, "%d", (int)(1000 * s + 0.999));
        rt_http_header(x, "retry-after-ms", value);
    }
    if (fault->no_retry)
        rt_http_header(x, "x-should-retry", "false");
    if (fault->authenticate)
        rt_http_header(x, "WWW-Authenticate", "Bearer");
    rt_http_reply(x, fault->status, "application/json", body.data, body.size);
    rt_text_deinit(&body);
}

void rt_call_fault(rt_call *call, const rt_fault *fault)
{
    if (!call->finish)
        call->finish = "error";
    rt_call_note_refused(call, fault);
    rt_call_limit_headers(call);
    rt_serve_send_fault(call->serve, call->x, fault);
}

void rt_call_json(rt_call *call, int status, const rt_text *body)
{
    rt_call_reply(call, status, "application/json", body);
}

void rt_call_reply(rt_call *call, int status, const char *type, const rt_text *body)
{
    if (body->failed) {
        rt_fault fault;
        (void)rt_fault_set(&fault, 503, "server_error", "overloaded", "there is no memory for the answer");
        rt_call_fault(call, &fault);
        return;
    }
    rt_call_headers(call->serve, call->x);
    rt_call_limit_headers(call);
    rt_http_reply(call->x, status, type, body->data, body->size);
}

/* ---- finding the way ---- */

static bool path_matches(const rt_route *route, const char *path)
{
    const size_t n = strlen(route->path);
    if (route->flags & RT_ROUTE_OWN)
        return strncmp(path, route->path, n) == 0 && (!path[n] || path[n] == '/');
    if (route->path[n - 1] == '/')
        return strncmp(path, route->path, n) == 0 && path[n];
    return strcmp(path, route->path) == 0;
}

static void answer_options(rt_call *call)
{
    char allow[64];
    (void)snprintf(allow, sizeof allow, "%s%s, OPTIONS",
                   call->route->methods[0] == '*' ? "GET, POST" : call->route->methods,
                   strcmp(call->route->methods, "GET") == 0 ? ", HEAD" : "");
    rt_http_header(call->x, "Allow", allow);
    rt_http_header(call->x, "Access-Control-Allow-Methods", allow);
    rt_http_header(call->x, "Access-Control-Allow-Headers",
                   "authorization, content-type, x-api-key, api-key, idempotency-key, x-retort-strict, "
                   "x-request-timeout-ms, x-client-request-id");
    rt_call_headers(call->serve, call->x);
    rt_http_reply(call->x, 204, NULL, "", 0);
}

/* NULL with *fault: no such path, or not this method. */
static const rt_route *find_route(const rt_serve *serve, rt_http_exchange *x, rt_fault *fault)
{
    const rt_http_head *head = rt_http_request_of(x)->head;
    const char *method = strcmp(head->method, "HEAD") == 0 ? "GET" : head->method;
    const rt_route *found = NULL;
    const rt_route *routes = serve->gateway ? gateway_routes : rt_routes;
    const size_t count = serve->gateway ? sizeof gateway_routes / sizeof *gateway_routes : rt_routes_count;
    for (size_t i = 0; i < count && !found; i++)
        if (path_matches(&routes[i], head->path))
            found = &routes[i];
    if (!found) {
        (void)rt_fault_set(fault, 404, "invalid_request_error", "unknown_url",
                           "there is nothing at this path; see the API's documentation");
        return NULL;
    }
    if (strcmp(method, "OPTIONS") == 0 || strcmp(method, found->methods) == 0 || found->methods[0] == '*')
        return found;
    (void)rt_fault_set(fault, 405, "invalid_request_error", "method_not_allowed",
                       "this path answers %s requests only", found->methods);
    rt_http_header(x, "Allow", strcmp(found->methods, "GET") == 0 ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    return NULL;
}

bool rt_content_type_is_json(const rt_http_exchange *x)
{
    const char *type = rt_http_request_field(x, "content-type");
    const size_t n = strlen("application/json");
    return !type || (strncasecmp(type, "application/json", n) == 0 && (!type[n] || strchr("; \t", type[n])));
}

static bool check_content_type(const rt_call *call, rt_fault *fault)
{
    const char *coding = rt_http_request_field(call->x, "content-encoding");
    if (strcmp(rt_http_request_of(call->x)->head->method, "POST") != 0)
        return true;
    if (coding && strcasecmp(coding, "identity") != 0)
        return rt_fault_set(fault, 415, "invalid_request_error", "unsupported_media_type",
                            "the body must be sent without a Content-Encoding such as gzip");
    if (rt_content_type_is_json(call->x))
        return true;
    return rt_fault_set(fault, 415, "invalid_request_error", "unsupported_media_type",
                        "the body must be sent as application/json");
}

static bool enter(rt_serve *serve, rt_http_exchange *x, const rt_fault *why)
{
    (void)serve;
    rt_call *call = rt_http_user(x);
    rt_fault fault = why ? *why : (rt_fault){0};
    if (!why && rt_call_authenticate(call, &fault) && check_content_type(call, &fault))
        return true;
    rt_call_fault(call, &fault);
    return false;
}

bool rt_service_head(void *context, rt_http_exchange *x)
{
    rt_serve *serve = context;
    rt_fault fault = {0};
    const rt_route *route = find_route(serve, x, &fault);
    rt_call *call = route ? calloc(1, sizeof *call) : NULL;
    if (!call) {
        if (route)
            (void)rt_fault_set(&fault, 503, "server_error", "overloaded",
                               "there is no memory for the request");
        rt_serve_send_fault(serve, x, &fault);
        return false;
    }
    *call = (rt_call){.serve = serve, .x = x, .route = route};
    rt_http_set_user(x, call);
    if (strcmp(rt_http_request_of(x)->head->method, "OPTIONS") == 0) {
        answer_options(call);
        return false;
    }
    return rt_call_needs_key(call) ? rt_door_head(serve, x, enter) : enter(serve, x, NULL);
}

void rt_service_body(void *context, rt_http_exchange *x)
{
    (void)context;
    rt_call *call = rt_http_user(x);
    call->route->run(call);
}

void rt_service_fault(void *context, rt_http_exchange *x, const rt_http_fault *why)
{
    rt_fault fault = {0};
    const char *type = why->status == 408   ? "timeout_error"
                       : why->status >= 500 ? "server_error"
                                            : "invalid_request_error";
    (void)rt_fault_set(&fault, why->status, type, why->code, "%s", why->message);
    rt_serve_send_fault(context, x, &fault);
}

void rt_service_gone(void *context, rt_http_exchange *x)
{
    (void)context;
    rt_call_gone(rt_http_user(x));
}

void rt_service_drained(void *context, rt_http_exchange *x)
{
    (void)context;
    rt_call *call = rt_http_user(x);
    if (call)
        rt_call_drained(call);
}

void rt_service_finished(void *context, rt_http_exchange *x)
{
    rt_serve *serve = context;
    rt_call *call = rt_http_user(x);
    rt_call none = {.serve = serve, .x = x};
    rt_log_call(call ? call : &none);
    if (!call)
        return;
    if (call->captures)
        rt_call_capture(call);
    if (call->kept)
        rt_call_idempotency_end(call);
    rt_text_deinit(&call->sent);
    if (call->chosen)
        rt_relay_forget(call);
    rt_caller_release(call->caller);
    json_decref(call->body);
    rt_request_deinit(&call->request);
    rt_compose_deinit(&call->reply);
    free(call->note.record);
    free(call->note.line);
    free(call);
}

/* ---- body and model ---- */

bool rt_call_find_model(rt_call *call)
{
    rt_serve *serve = call->serve;
    rt_fault fault = {0};
    const char *name = NULL;
    if (!rt_field_string(call->body, "model", &name, &fault)) {
        rt_call_fault(call, &fault);
        return false;
    }
    if (!name || strcmp(name, "default") == 0)
        name = serve->models[0].id;
    for (size_t i = 0; i < serve->options.n_aliases; i++)
        if (strcmp(serve->options.aliases[i].name, name) == 0)
            name = serve->options.aliases[i].model;
    for (size_t i = 0; i < serve->options.n_models; i++)
        if (strcmp(serve->models[i].id, name) == 0) {
            call->model = &serve->models[i];
            call->lane = i;
            return true;
        }
    (void)rt_fault_set(&fault, 404, "invalid_request_error", "model_not_found",
                       "there is no model of this name here; GET /v1/models lists them");
    (void)snprintf(fault.param, sizeof fault.param, "model");
    rt_call_fault(call, &fault);
    return false;
}

bool rt_call_body(rt_call *call)
{
    rt_fault fault = {0};
    const rt_http_request *request = rt_http_request_of(call->x);
    if (rt_body_parse(&call->body, request->body, request->body_size, &fault))
        return rt_call_find_model(call);
    rt_call_fault(call, &fault);
    return false;
}
