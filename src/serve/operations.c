/* serve/operations.c - health, ready, metrics, and the access log (API.md 8). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "serve/service.h"

static void answer_status(rt_call *call, int status, const char *word)
{
    rt_text out = {0};
    rt_text_printf(&out, "{\"status\":\"%s\"}", word);
    rt_call_json(call, status, &out);
    rt_text_deinit(&out);
}

void rt_run_health(rt_call *call) { answer_status(call, 200, "ok"); }

void rt_run_ready(rt_call *call)
{
    const bool draining = call->serve->draining;
    const bool away = call->serve->gateway && !rt_gateway_ready(call->serve->gateway);
    answer_status(call, draining || away ? 503 : 200, draining ? "draining" : away ? "loading" : "ready");
}

/* How many accounts are on each rung of the guard's ladder. */
static void write_suspicion(rt_watch *watch, rt_text *out)
{
    const rt_watch_counts counts = rt_watch_counts_of(watch);
    rt_text_puts(out, "# TYPE retort_suspicion gauge\n");
    for (rt_rung rung = RT_RUNG_OBSERVE; rung < RT_RUNG_COUNT; rung++)
        rt_text_printf(out, "retort_suspicion{rung=\"%s\"} %zu\n", rt_rung_name(rung), counts.rungs[rung]);
}

void rt_run_metrics(rt_call *call)
{
    rt_serve *serve = call->serve;
    const rt_metrics *m = &serve->metrics;
    const rt_engine_stats s = serve->engine ? rt_engine_get_stats(serve->engine)
                                            : (rt_engine_stats){.prompt_tokens = m->relayed_prompt,
                                                                .generated_tokens = m->relayed_output,
                                                                .cached_tokens = m->relayed_cached};
    rt_text out = {0};
    rt_metrics_write(&serve->metrics, &out);
    if (serve->options.capture) {
        const rt_capture_counts kept = rt_capture_count(serve->options.capture);
        rt_metrics_value(&out, "retort_captured_total", "counter", (double)kept.rows);
        rt_metrics_value(&out, "retort_capture_dropped_total", "counter", (double)kept.dropped);
        rt_metrics_value(&out, "retort_capture_skipped_total", "counter", (double)kept.skipped);
    }
    rt_metrics_value(&out, "retort_prompt_tokens_total", "counter", (double)s.prompt_tokens);
    rt_metrics_value(&out, "retort_generation_tokens_total", "counter", (double)s.generated_tokens);
    rt_metrics_value(&out, "retort_cached_tokens_total", "counter", (double)s.cached_tokens);
    rt_metrics_value(&out, "retort_running", "gauge", (double)s.running);
    rt_metrics_value(&out, "retort_queued", "gauge", (double)s.queued);
    rt_metrics_value(&out, "retort_kv_used_ratio", "gauge",
                     s.kv_room ? (double)s.kv_tokens / (double)s.kv_room : 0);
    if (serve->engine) {
        rt_metrics_value(&out, "retort_prefix_hits_total", "counter", (double)s.prefix.hits);
        rt_metrics_value(&out, "retort_prefix_tokens_total", "counter", (double)s.prefix.tokens);
        rt_metrics_value(&out, "retort_prefix_evicted_total", "counter", (double)s.prefix.evicted);
        rt_metrics_value(&out, "retort_prefix_bytes", "gauge", (double)s.prefix.bytes);
        rt_metrics_value(&out, "retort_prefix_bytes_max", "gauge", (double)s.prefix.bytes_max);
    }
    rt_metrics_value(&out, "retort_connections", "gauge", (double)rt_http_connections(serve->http));
    if (serve->options.watch)
        write_suspicion(serve->options.watch, &out);
    if (serve->gateway)
        rt_gateway_metrics(serve->gateway, &out);
    rt_call_headers(serve, call->x);
    rt_http_reply(call->x, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.size);
    rt_text_deinit(&out);
}

/* ---- the log ---- */

static void put_text(json_t *line, const char *key, const char *value, size_t size_max)
{
    if (value)
        (void)json_object_set_new(line, key, rt_json_text(value, strnlen(value, size_max)));
}

/* A client's own id: at most 512 printable ASCII bytes, else it is not written. */
static const char *client_id(rt_http_exchange *x)
{
    const char *id = rt_http_request_field(x, "x-client-request-id");
    if (!id || strlen(id) > 512)
        return NULL;
    for (const char *c = id; *c; c++)
        if (*c < 0x20 || *c > 0x7E)
            return NULL;
    return id;
}

void rt_log_call(rt_call *call)
{
    rt_serve *serve = call->serve;
    rt_http_exchange *x = call->x;
    const rt_http_request *request = rt_http_request_of(x);
    const bool has_head = request->head->method != NULL;
    const int status = rt_http_status(x);
    rt_metrics_request(&serve->metrics, call->route ? call->route->endpoint : "unknown", status);
    if (!serve->options.log || (!has_head && status == 499)) /* a connection that sent nothing whole */
        return;
    json_t *line = json_object();
    (void)json_object_set_new(line, "time", json_integer(rt_clock_unix_seconds()));
    put_text(line, "request_id", request->id, sizeof request->id);
    if (call->caller) {
        put_text(line, "account", call->caller->account, sizeof call->caller->account);
        put_text(line, "key", call->caller->key, sizeof call->caller->key);
    }
    put_text(line, "endpoint", call->route ? call->route->endpoint : "unknown", 64);
    put_text(line, "model", call->model ? call->model->id : call->model_name, 256);
    (void)json_object_set_new(line, "status", json_integer(status));
    put_text(line, "finish", call->finish, 64);
    (void)json_object_set_new(line, "prompt_tokens", json_integer((json_int_t)call->prompt_tokens));
    (void)json_object_set_new(line, "cached_tokens", json_integer((json_int_t)call->cached_tokens));
    (void)json_object_set_new(line, "output_tokens", json_integer((json_int_t)call->output_tokens));
    (void)json_object_set_new(line, "ms",
                              json_integer((json_int_t)(1e3 * (rt_clock_seconds() - request->begun_s))));
    if (call->mark.marking)
        (void)json_object_set_new(line, "watermark",
                                  json_pack("{s:s,s:s,s:I,s:f,s:b}", "scheme", call->mark.marking->scheme,
                                            "key", call->mark.marking->key, "h",
                                            (json_int_t)call->mark.marking->h, "own_share",
                                            call->mark.own_share, "marked", call->marked));
    put_text(line, "ip", request->address, 64);
    if (has_head) {
        put_text(line, "user_agent", rt_http_request_field(x, "user-agent"), 256);
        put_text(line, "client_request_id", client_id(x), 512);
    }
    char *text = json_dumps(line, JSON_COMPACT);
    if (text)
        serve->options.log(serve->options.context, text);
    free(text);
    json_decref(line);
}
