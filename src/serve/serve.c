/* serve/serve.c - see serve.h: opening, the loop, stopping. */
#include "serve/serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/size.h"
#include "retort/version.h"
#include "serve/service.h"

rt_serve_options rt_serve_options_default(void)
{
    return (rt_serve_options){.host = "127.0.0.1",
                              .n_slots = 16,
                              .prefix_bytes = (size_t)512 << 20,
                              .request_timeout_s = 600,
                              .drain_s = 30,
                              .reasoning = true,
                              .health = {.interval_s = 10, .fall = 3, .rise = 2},
                              .http = rt_http_options_default()};
}

static size_t longest_token(const rt_tokenizer *tokenizer)
{
    size_t longest = 1, size;
    for (size_t id = 0; id < rt_tokenizer_size(tokenizer); id++) {
        (void)rt_tokenizer_token_bytes(tokenizer, (int32_t)id, &size);
        longest = rt_size_max(longest, size);
    }
    return longest;
}

/* Equal words promise equal seeded output: weights, their form, the template, this build. */
static void make_fingerprint(char out[24], const rt_serve_model *m)
{
    rt_text all = {0};
    const char *source = rt_tokenizer_chat_template(m->tokenizer);
    char hex[65];
    rt_text_printf(&all, "%s|%s|%s|%d|%s|%s", m->sha256 ? m->sha256 : m->id, m->quant,
                   rt_tokenizer_hash(m->tokenizer), (int)m->model->precision, RT_VERSION,
                   source ? source : "");
    rt_sha256_hex(hex, all.data ? all.data : "", all.size);
    rt_text_deinit(&all);
    (void)snprintf(out, 24, "fp_%.16s", hex);
}

static void describe_models(rt_serve *s)
{
    for (size_t i = 0; i < s->options.n_models; i++) {
        const rt_serve_model *m = &s->options.models[i];
        const char *source = rt_tokenizer_chat_template(m->tokenizer);
        s->models[i] = (rt_served_model){
            .id = m->id,
            .tokenizer = m->tokenizer,
            .chat_template = m->chat_template,
            .n_vocab = rt_size_min(m->model->config.n_vocab, rt_tokenizer_size(m->tokenizer)),
            .context = rt_engine_context(s->engine, i),
            .token_bytes_max = longest_token(m->tokenizer),
            .thinks = source && strstr(source, "<think>"),
        };
        make_fingerprint(s->fingerprints[i], m);
    }
}

/* ---- events of the loop ---- */

static void wake_loop(void *context)
{
    const rt_serve *s = context;
    rt_http_wake(s->wakeup);
}

static void begin_drain(rt_serve *s)
{
    if (s->draining)
        return;
    s->draining = true;
    s->drain_until_s = rt_clock_seconds() + s->options.drain_s;
    rt_http_stop_accepting(s->http);
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    rt_serve *s = context;
    const double now = rt_clock_seconds();
    rt_serve_tick_calls(s, now);
    if (atomic_load(&s->stop_wanted))
        begin_drain(s);
    const bool idle = rt_http_exchanges(s->http) == 0 && rt_http_connections(s->http) == 0;
    /* a client that does not close its connection does not hold up the end */
    if (s->draining && !s->calls && !s->pairs && !rt_gateway_busy(s->gateway) &&
        (idle || now > s->drain_until_s))
        (void)event_base_loopbreak(s->base);
}

static void on_stop_signal(evutil_socket_t number, short what, void *context)
{
    (void)number;
    (void)what;
    begin_drain(context);
}

static void on_reload_signal(evutil_socket_t number, short what, void *context)
{
    (void)number;
    (void)what;
    rt_serve *s = context;
    if (s->options.reload)
        s->options.reload(s->options.context);
}

static void on_woken(void *context)
{
    rt_serve *s = context;
    if (atomic_load(&s->stop_wanted))
        begin_drain(s);
    rt_serve_news(s);
}

static bool add_events(rt_serve *s)
{
    const struct timeval often = {.tv_usec = 200 * 1000};
    s->tick = event_new(s->base, -1, EV_PERSIST, on_tick, s);
    if (!s->tick || event_add(s->tick, &often) != 0)
        return false;
    if (!s->options.signals)
        return true;
    s->sigterm = evsignal_new(s->base, SIGTERM, on_stop_signal, s);
    s->sigint = evsignal_new(s->base, SIGINT, on_stop_signal, s);
    s->sighup = evsignal_new(s->base, SIGHUP, on_reload_signal, s);
    return s->sigterm && s->sigint && s->sighup && evsignal_add(s->sigterm, NULL) == 0 &&
           evsignal_add(s->sigint, NULL) == 0 && evsignal_add(s->sighup, NULL) == 0;
}

/* ---- life ---- */

static rt_status open_engine(rt_serve *s, rt_error *err)
{
    rt_lane_options lanes[RT_SERVE_MODELS_MAX];
    for (size_t i = 0; i < s->options.n_models; i++)
        lanes[i] =
            (rt_lane_options){s->options.models[i].model, s->options.models[i].tokenizer, s->options.n_slots,
                              s->options.n_positions, s->options.prefix_bytes / s->options.n_models};
    const rt_engine_options options = {.prefill_tokens = s->options.prefill_tokens,
                                       .queue_max = s->options.queue_max,
                                       .changed = wake_loop,
                                       .context = s};
    return rt_engine_open(&s->engine, lanes, s->options.n_models, &options, err);
}

rt_status rt_serve_open(rt_serve **out, const rt_serve_options *options, rt_error *err)
{
    *out = NULL;
    if ((options->n_models == 0) == (options->n_upstreams == 0))
        return rt_error_set(err, RT_INVALID, "a server has models of its own or upstreams, one of the two");
    if (options->n_upstreams > RT_UPSTREAMS_MAX)
        return rt_error_set(err, RT_INVALID, "a gateway has at most %d upstreams", RT_UPSTREAMS_MAX);
    if (options->n_models > RT_SERVE_MODELS_MAX)
        return rt_error_set(err, RT_INVALID, "a server has 1 to %d models", RT_SERVE_MODELS_MAX);
    rt_serve *s = calloc(1, sizeof *s);
    if (!s)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the server");
    s->options = *options;
    s->handler = (rt_http_handler){rt_service_head,
                                   rt_service_body,
                                   rt_service_fault,
                                   rt_service_gone,
                                   rt_service_drained,
                                   rt_service_finished,
                                   s};
    s->admin_handler = (rt_http_handler){
        rt_admin_head, rt_admin_body, rt_service_fault, rt_admin_gone, rt_admin_gone, rt_admin_finished, s};
    (void)pthread_mutex_init(&s->settled_lock, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    s->base = event_base_new();
    rt_status status = s->base ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "cannot make an event loop");
    if (status == RT_OK)
        status = rt_http_wakeup_open(&s->wakeup, s->base, on_woken, s, err);
    if (status == RT_OK)
        status = rt_http_server_open(&s->http, s->base, &s->options.http, err);
    if (status == RT_OK)
        status = options->n_upstreams ? rt_gateway_open(&s->gateway, s, err) : open_engine(s, err);
    if (options->gate)
        rt_gate_refresh_elsewhere(options->gate);
    if (status == RT_OK && options->gate)
        status = rt_clerks_open(&s->clerks, options->gate, wake_loop, s, err);
    if (status == RT_OK) {
        describe_models(s);
        status = rt_http_listen(s->http, s->options.host, s->options.port, &s->handler, &s->port, err);
    }
    if (status == RT_OK && s->options.gate && s->options.admin_host)
        status = rt_http_listen(s->http, s->options.admin_host, s->options.admin_port, &s->admin_handler,
                                &s->admin_port, err);
    if (status == RT_IO && s->options.admin_port_any && s->port && !s->admin_port) /* a second server, say */
        status = rt_http_listen(s->http, s->options.admin_host, 0, &s->admin_handler, &s->admin_port, err);
    if (status == RT_OK && !add_events(s))
        status = rt_error_set(err, RT_NO_MEMORY, "cannot make the event loop's timers");
    if (status != RT_OK) {
        rt_serve_close(s);
        return status;
    }
    *out = s;
    return RT_OK;
}

rt_status rt_serve_change(rt_serve *serve, const rt_serve_options *options, rt_error *err)
{
    rt_serve_options *own = &serve->options;
    if (serve->gateway &&
        rt_gateway_change(serve->gateway, options->upstreams, options->n_upstreams, err) != RT_OK)
        return err->status;
    own->aliases = options->aliases;
    own->n_aliases = options->n_aliases;
    own->origins = options->origins;
    own->n_origins = options->n_origins;
    own->health = options->health;
    own->terms = options->terms;
    own->request_timeout_s = options->request_timeout_s;
    own->drain_s = options->drain_s;
    own->open_tokenizer = options->open_tokenizer;
    own->metrics_open = options->metrics_open;
    rt_http_trust(serve->http, options->http.trusted, options->http.n_trusted);
    return RT_OK;
}

int rt_serve_port(const rt_serve *serve) { return serve->port; }
int rt_serve_admin_port(const rt_serve *serve) { return serve->admin_port; }

rt_status rt_serve_run(rt_serve *serve, rt_error *err)
{
    if (event_base_dispatch(serve->base) < 0)
        return rt_error_set(err, RT_IO, "the event loop failed");
    return RT_OK;
}

void rt_serve_stop(rt_serve *serve)
{
    atomic_store(&serve->stop_wanted, true);
    rt_http_wake(serve->wakeup);
}

void rt_serve_close(rt_serve *s)
{
    if (!s)
        return;
    rt_clerks_close(s->clerks);
    s->clerks = NULL;
    if (s->http)
        rt_http_server_close(s->http);
    rt_gateway_close(s->gateway);
    rt_engine_close(s->engine);
    rt_http_wakeup_close(s->wakeup);
    struct event *events[] = {s->tick, s->sigterm, s->sigint, s->sighup};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    if (s->base)
        event_base_free(s->base);
    rt_kept_deinit(&s->kept);
    (void)pthread_mutex_destroy(&s->settled_lock);
    free(s);
}
