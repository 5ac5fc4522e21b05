/* serve/gateway.c - transfers: libcurl's sockets on the server's event loop.  Connections are kept and used
 * again by libcurl. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/gateway_internal.h"

enum { CONNECT_TIMEOUT_MS = 5000, CONNECTIONS_KEPT = 1024 };

/* ---- libcurl on the event loop ---- */

static void collect(rt_gateway *g)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(g->multi, &left)) != NULL) {
        rt_relay *relay = NULL;
        const CURLcode result = message->data.result;
        long status = 0;
        if (message->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &relay);
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        if (!relay) {
            rt_gateway_checked(g, message->easy_handle, result, (int)status);
            continue;
        }
        relay->status = (int)status;
        rt_gateway_cancel(relay); /* the transfer is over: this only takes the handle back */
        rt_relay_ended(relay, result);
    }
}

static void on_socket_event(evutil_socket_t fd, short what, void *context)
{
    rt_gateway *g = context;
    int running;
    (void)curl_multi_socket_action(
        g->multi, fd, (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
        &running);
    collect(g);
}

static void on_timeout(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    rt_gateway *g = context;
    int running;
    (void)curl_multi_socket_action(g->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(g);
}

static int want_timer(CURLM *multi, long ms, void *context)
{
    (void)multi;
    rt_gateway *g = context;
    const struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    if (ms < 0)
        (void)evtimer_del(g->timer);
    else if (ms == 0) /* before the loop waits again; libcurl must not be called from its own callback */
        event_active(g->timer, EV_TIMEOUT, 0);
    else
        (void)event_add(g->timer, &wait);
    return 0;
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
    (void)easy;
    rt_gateway *g = context;
    struct event *event = of_socket;
    const short kind = (short)((what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
    if (event)
        event_free(event);
    event = what == CURL_POLL_REMOVE ? NULL
                                     : event_new(g->serve->base, fd, kind | EV_PERSIST, on_socket_event, g);
    if (event)
        (void)event_add(event, NULL);
    (void)curl_multi_assign(g->multi, fd, event);
    return 0;
}

static size_t on_field(char *data, size_t one, size_t size, void *context)
{
    rt_relay_field(context, data, one * size);
    return one * size;
}

static size_t on_bytes(char *data, size_t one, size_t size, void *context)
{
    return rt_relay_bytes(context, data, one * size);
}

static CURL *take_handle(rt_gateway *g)
{
    if (g->n_idle == 0)
        return curl_easy_init();
    CURL *easy = g->idle[--g->n_idle];
    curl_easy_reset(easy);
    return easy;
}

static bool set_options(rt_relay *relay, const char *url)
{
    CURL *easy = relay->easy;
    const rt_http_request *request = rt_http_request_of(relay->call->x);
    const rt_text *own = &relay->rewritten;
    bool good = true;
#define SET(option, value) good = good && curl_easy_setopt(easy, option, value) == CURLE_OK
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_PRIVATE, relay);
    SET(CURLOPT_HTTPHEADER, relay->upstream->fields);
    SET(CURLOPT_HEADERFUNCTION, on_field);
    SET(CURLOPT_HEADERDATA, relay);
    SET(CURLOPT_WRITEFUNCTION, on_bytes);
    SET(CURLOPT_WRITEDATA, relay);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    SET(CURLOPT_TIMEOUT_MS, (long)(relay->gateway->serve->options.request_timeout_s * 1e3));
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
    SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
    if (strcmp(request->head->method, "POST") == 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, own->size ? own->data : request->body);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(own->size ? own->size : request->body_size));
    }
#undef SET
    return good;
}

/* The path as it is sent up: what the server has decoded is encoded again. */
static void append_path(rt_text *url, const char *path)
{
    for (; *path; path++) {
        const unsigned char c = (unsigned char)*path;
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("/-_.~:", c))
            rt_text_append(url, path, 1);
        else
            rt_text_printf(url, "%%%02X", c);
    }
}

bool rt_gateway_start(rt_relay *relay)
{
    rt_gateway *g = relay->gateway;
    rt_text url = {0};
    relay->tried[relay->attempts++] = relay->upstream->id;
    relay->upstream->requests++;
    relay->easy = take_handle(g);
    /* paths begin with /v1, as the base ends */
    rt_text_puts(&url, relay->upstream->base);
    append_path(&url, rt_http_request_of(relay->call->x)->head->path + 3);
    const bool good = relay->easy && !url.failed && set_options(relay, url.data) &&
                      curl_multi_add_handle(g->multi, relay->easy) == CURLM_OK;
    rt_text_deinit(&url);
    if (good)
        return true;
    if (relay->easy)
        curl_easy_cleanup(relay->easy);
    relay->easy = NULL;
    return false;
}

/* Ends the transfer: one that was under way has its connection closed at once. */
void rt_gateway_cancel(rt_relay *relay)
{
    rt_gateway *g = relay->gateway;
    if (!relay->easy)
        return;
    (void)curl_multi_remove_handle(g->multi, relay->easy);
    if (g->n_idle < IDLE_HANDLES_MAX)
        g->idle[g->n_idle++] = relay->easy;
    else
        curl_easy_cleanup(relay->easy);
    relay->easy = NULL;
}

void rt_gateway_tick(rt_gateway *gateway, bool look, bool cut)
{
    rt_gate *gate = gateway->serve->options.gate;
    if (look)
        rt_gateway_check(gateway, rt_clock_seconds());
    for (rt_relay *relay = gateway->relays, *next; relay; relay = next) {
        rt_fault fault = {0};
        rt_call *call = relay->call;
        next = relay->next;
        if (relay->settling)
            continue;
        if (look && call->ticket && !rt_gate_still_allowed(gate, call->ticket)) {
            (void)rt_fault_set(&fault, 403, "permission_error", "account_suspended",
                               "the account may no longer be served; GET /v1/account tells why");
            fault.no_retry = true;
            rt_relay_stop(relay, &fault);
        } else if (cut) {
            (void)rt_fault_set(&fault, 503, "server_error", "draining", "the server is being stopped");
            fault.retry_after_s = 5;
            rt_relay_stop(relay, &fault);
        }
    }
}

bool rt_gateway_busy(const rt_gateway *gateway) { return gateway && gateway->relays; }

/* ---- life ---- */

rt_status rt_gateway_open(rt_gateway **out, rt_serve *serve, rt_error *err)
{
    *out = NULL;
    rt_gateway *g = calloc(1, sizeof *g);
    if (!g || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(g);
        return rt_error_set(err, RT_NO_MEMORY, "libcurl cannot be initialised");
    }
    g->serve = serve;
    g->multi = curl_multi_init();
    g->timer = evtimer_new(serve->base, on_timeout, g);
    const rt_status status =
        g->multi && g->timer ? rt_gateway_change(g, serve->options.upstreams, serve->options.n_upstreams, err)
                             : rt_error_set(err, RT_NO_MEMORY, "no memory for the gateway");
    if (status != RT_OK) {
        rt_gateway_close(g);
        return status;
    }
    (void)curl_multi_setopt(g->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    (void)curl_multi_setopt(g->multi, CURLMOPT_SOCKETDATA, g);
    (void)curl_multi_setopt(g->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    (void)curl_multi_setopt(g->multi, CURLMOPT_TIMERDATA, g);
    (void)curl_multi_setopt(g->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    *out = g;
    return RT_OK;
}

void rt_gateway_close(rt_gateway *gateway)
{
    if (!gateway)
        return;
    rt_gateway_drop_upstreams(gateway);
    for (size_t i = 0; i < gateway->n_idle; i++)
        curl_easy_cleanup(gateway->idle[i]);
    if (gateway->multi)
        (void)curl_multi_cleanup(gateway->multi);
    if (gateway->timer)
        event_free(gateway->timer);
    free(gateway);
    curl_global_cleanup();
}
