/* serve/http.c - see http.h.  Connections: reading requests, timers, closing.
 *
 * A connection carries one request at a time; bytes of the next one wait in its input buffer, which is
 * bounded.  Reading goes on during an answer, because that is how a client that has gone is noticed. */
#include "serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/http_internal.h"

enum {
    INPUT_BYTES_MAX = 64 << 10,
    DESCRIPTORS_KEPT = 512,
    ACCEPT_REST_US = 100000,
    LINGER_S = 2,
    LISTEN_BACKLOG = 1024,
    BODY_PROGRESS_BYTES = 1024
};

rt_http_options rt_http_options_default(void)
{
    return (rt_http_options){.limits = rt_http_limits_default(),
                             .timeouts = {.head_s = 10, .body_s = 10, .keep_alive_s = 75, .write_s = 30},
                             .connections_max = 16384};
}

static void set_timer(rt_http_conn *conn, int seconds)
{
    (void)evtimer_add(conn->timer, &(struct timeval){.tv_sec = seconds});
}

void rt_http_conn_close(rt_http_conn *conn)
{
    rt_http_server *server = conn->server;
    rt_http_exchange *x = conn->exchange;
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    server->n_conns--;
    bufferevent_free(conn->bev);
    event_free(conn->timer);
    conn->exchange = NULL;
    conn->dead = true;
    if (conn->depth == 0)
        free(conn);
    if (!x)
        return;
    x->conn = NULL;
    if (x->reading || !x->head_read) /* no handler holds it yet: there is nobody to answer */
        rt_http_exchange_finish(x);
    else
        x->handler->gone(x->handler->context, x);
}

/* ---- an exchange begins ---- */

static void make_id(char out[40])
{
    unsigned char random[16];
    randombytes_buf(random, sizeof random);
    memcpy(out, "req_", 4);
    (void)sodium_bin2hex(out + 4, 36, random, sizeof random);
}

static rt_http_exchange *exchange_new(rt_http_conn *conn)
{
    rt_http_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->server = conn->server;
    x->handler = conn->handler;
    x->conn = conn;
    x->request.head = &x->head;
    x->request.body = "";
    x->request.begun_s = rt_clock_seconds();
    x->body.size_max = conn->server->options.limits.body_bytes_max + 1;
    memcpy(x->request.address, conn->address, sizeof conn->address);
    make_id(x->request.id);
    conn->exchange = x;
    conn->server->n_exchanges++;
    return x;
}

static void answer_fault(rt_http_exchange *x, const rt_http_fault *fault)
{
    x->keep_alive = false;
    x->handler->fault(x->handler->context, x, fault);
}

static void body_complete(rt_http_conn *conn)
{
    rt_http_exchange *x = conn->exchange;
    (void)evtimer_del(conn->timer);
    conn->state = CONN_BUSY;
    x->reading = false;
    x->request.body = x->body.data ? x->body.data : "";
    x->request.body_size = x->body.size;
    x->handler->body(x->handler->context, x);
}

/* The head is whole: framing is settled, the handler looks at it, and the body may come. */
static void head_complete(rt_http_conn *conn)
{
    rt_http_exchange *x = conn->exchange;
    const rt_http_limits *limits = &conn->server->options.limits;
    x->head_read = true;
    rt_forwarded_address(x->request.address, &x->head, conn->server->options.trusted,
                         conn->server->options.n_trusted);
    x->keep_alive = x->head.keep_alive;
    x->reading = x->head.chunked || (x->head.has_length && x->head.length > 0);
    conn->state = CONN_BODY;
    conn->body_left = x->head.chunked ? 0 : x->head.length;
    conn->body_mark = 0;
    conn->chunks = (rt_http_chunks){0};
    if (!x->handler->head(x->handler->context, x))
        return; /* answered; the connection may be gone */
    if (x->head.has_length && x->head.length > limits->body_bytes_max) {
        answer_fault(x, &(rt_http_fault){413, "body_too_large", "the body is too large"});
        return;
    }
    if (!x->reading) {
        body_complete(conn);
        return;
    }
    if (x->head.expect_continue)
        (void)bufferevent_write(conn->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    set_timer(conn, conn->server->options.timeouts.body_s);
}

/* Looks for a whole head; true when something was done and there may be more to do. */
static bool read_head(rt_http_conn *conn, struct evbuffer *in)
{
    const rt_http_limits *limits = &conn->server->options.limits;
    if (conn->state == CONN_IDLE) { /* blank lines before a request are allowed for (RFC 9112, 2.2) */
        unsigned char two[2];
        while (evbuffer_copyout(in, two, 2) == 2 && two[0] == '\r' && two[1] == '\n')
            (void)evbuffer_drain(in, 2);
        if (evbuffer_get_length(in) == 0)
            return false;
        conn->state = CONN_HEAD;
        conn->scanned = 0;
        set_timer(conn, conn->server->options.timeouts.head_s);
        if (!exchange_new(conn)) {
            rt_http_conn_close(conn);
            return false;
        }
    }
    rt_http_exchange *x = conn->exchange;
    rt_http_fault fault = {0};
    const size_t size = rt_size_min(evbuffer_get_length(in), limits->head_bytes_max + 2);
    const char *data = (const char *)evbuffer_pullup(in, (ev_ssize_t)size);
    const size_t end = data ? rt_http_head_end(data, size, &conn->scanned, limits, &fault) : 0;
    if (!fault.status && end == 0)
        return false;
    if (!fault.status) {
        x->head_data = malloc(end + 1);
        if (!x->head_data) {
            rt_http_conn_close(conn);
            return false;
        }
        (void)evbuffer_remove(in, x->head_data, end);
        x->head_data[end] = '\0';
        if (rt_http_head_parse(&x->head, x->head_data, end, limits, &fault)) {
            head_complete(conn);
            return true;
        }
        x->head.method = NULL;
    }
    answer_fault(x, &fault);
    return true;
}

static bool read_body(rt_http_conn *conn, struct evbuffer *in)
{
    rt_http_exchange *x = conn->exchange;
    rt_http_fault fault = {0};
    bool done = false;
    const size_t had = x->body.size;
    while (!done && !fault.status && evbuffer_get_length(in) > 0) {
        const size_t n = evbuffer_get_contiguous_space(in);
        const char *data = (const char *)evbuffer_pullup(in, (ev_ssize_t)n);
        size_t used;
        if (x->head.chunked) {
            used = rt_http_chunks_feed(&conn->chunks, data, n, conn->server->options.limits.body_bytes_max,
                                       &x->body, &done, &fault);
        } else {
            used = (size_t)(conn->body_left < n ? conn->body_left : n);
            rt_text_append(&x->body, data, used);
            conn->body_left -= used;
            done = conn->body_left == 0;
        }
        (void)evbuffer_drain(in, used);
    }
    if (!fault.status && x->body.failed)
        fault = (rt_http_fault){503, "overloaded", "there is no memory for the request's body"};
    if (fault.status)
        answer_fault(x, &fault);
    else if (done)
        body_complete(conn);
    else if (x->body.size >= conn->body_mark + BODY_PROGRESS_BYTES) {
        conn->body_mark = x->body.size;
        set_timer(conn, conn->server->options.timeouts.body_s);
    }
    return fault.status || done || x->body.size > had;
}

/* ---- events of a connection ---- */

/* The loop over what has come, until a request has to be waited for or the connection is closed by what an
 * answer leads to. */
static void advance(rt_http_conn *conn)
{
    conn->depth++;
    for (bool more = true; more && !conn->dead;) {
        struct evbuffer *in = bufferevent_get_input(conn->bev);
        if (conn->state == CONN_LINGER || conn->state == CONN_FLUSH) {
            (void)evbuffer_drain(in, evbuffer_get_length(in));
            break;
        }
        if (conn->state == CONN_BUSY)
            break;
        more = conn->state == CONN_BODY ? read_body(conn, in) : read_head(conn, in);
    }
    if (--conn->depth == 0 && conn->dead)
        free(conn);
}

static void on_read(struct bufferevent *bev, void *context)
{
    (void)bev;
    advance(context);
}

static void begin_linger(rt_http_conn *conn)
{
    conn->state = CONN_LINGER;
    (void)shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
    set_timer(conn, LINGER_S);
}

static void on_written(struct bufferevent *bev, void *context)
{
    rt_http_conn *conn = context;
    if (evbuffer_get_length(bufferevent_get_output(bev)) > 0)
        return;
    if (conn->state == CONN_FLUSH)
        begin_linger(conn);
    else if (conn->state == CONN_BUSY && conn->exchange && !conn->exchange->reading)
        conn->handler->drained(conn->handler->context, conn->exchange);
}

static void on_event(struct bufferevent *bev, short what, void *context)
{
    (void)bev;
    rt_http_conn *conn = context;
    if ((what & BEV_EVENT_EOF) && !(what & BEV_EVENT_ERROR) && conn->state == CONN_FLUSH) {
        (void)bufferevent_disable(bev, EV_READ); /* the last answer is still on its way */
        return;
    }
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
        rt_http_conn_close(conn);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    rt_http_conn *conn = context;
    if (conn->state == CONN_HEAD || conn->state == CONN_BODY)
        answer_fault(conn->exchange,
                     &(rt_http_fault){408, "request_timeout", "the request was too slow to arrive"});
    else
        rt_http_conn_close(conn);
}

void rt_http_conn_answered(rt_http_conn *conn, bool keep_alive)
{
    struct evbuffer *out = bufferevent_get_output(conn->bev);
    if (!keep_alive || conn->server->stopping) {
        conn->state = CONN_FLUSH;
        set_timer(conn, conn->server->options.timeouts.write_s);
        if (evbuffer_get_length(out) == 0)
            begin_linger(conn);
        return;
    }
    conn->state = CONN_IDLE;
    set_timer(conn, conn->server->options.timeouts.keep_alive_s);
    /* a request that is already here is taken in the next round of the loop, not on this stack */
    if (evbuffer_get_length(bufferevent_get_input(conn->bev)) > 0)
        bufferevent_trigger(conn->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS | BEV_TRIG_IGNORE_WATERMARKS);
}

static void name_peer(char out[64], const struct sockaddr *address)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (address->sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, text,
                        sizeof text);
    else if (address->sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, text,
                        sizeof text);
    if (!rt_address_text(out, text, strlen(text)))
        out[0] = '\0';
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                      void *context)
{
    (void)listener;
    (void)size;
    const struct listener_handler *door = context;
    rt_http_server *server = door->server;
    const int on = 1;
    rt_http_conn *conn = server->n_conns < server->options.connections_max ? calloc(1, sizeof *conn) : NULL;
    if (!conn) {
        (void)close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *conn = (rt_http_conn){.server = server, .handler = door->handler};
    conn->bev = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    conn->timer = conn->bev ? evtimer_new(server->base, on_timer, conn) : NULL;
    if (!conn->timer) {
        if (conn->bev)
            bufferevent_free(conn->bev);
        else
            (void)close(fd);
        free(conn);
        return;
    }
    name_peer(conn->address, address);
    conn->next = server->conns;
    if (server->conns)
        server->conns->prev = conn;
    server->conns = conn;
    server->n_conns++;
    bufferevent_setcb(conn->bev, on_read, on_written, on_event, conn);
    bufferevent_setwatermark(conn->bev, EV_READ, 0, INPUT_BYTES_MAX);
    (void)bufferevent_set_timeouts(conn->bev, NULL,
                                   &(struct timeval){.tv_sec = server->options.timeouts.write_s});
    set_timer(conn, server->options.timeouts.keep_alive_s);
    (void)bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
}

/* ---- the server ---- */

/* As many descriptors as the system allows, and fewer connections than that: model files, the ledger and a
 * gateway's upstreams need some too. */
static size_t connections_possible(size_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return wanted;
    const size_t descriptors = (size_t)limit.rlim_cur;
    return rt_size_min(wanted,
                       descriptors > 2 * DESCRIPTORS_KEPT ? descriptors - DESCRIPTORS_KEPT : descriptors / 2);
}

/* No descriptor is left: the listeners rest, or the loop would turn for nothing until one is free. */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
    (void)listener;
    rt_http_server *server = ((struct listener_handler *)context)->server;
    for (size_t i = 0; i < server->n_listeners; i++)
        if (server->listeners[i])
            (void)evconnlistener_disable(server->listeners[i]);
    (void)evtimer_add(server->accept_again, &(struct timeval){.tv_usec = ACCEPT_REST_US});
}

static void on_accept_again(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    rt_http_server *server = context;
    for (size_t i = 0; i < server->n_listeners; i++)
        if (server->listeners[i])
            (void)evconnlistener_enable(server->listeners[i]);
}

rt_status rt_http_server_open(rt_http_server **out, struct event_base *base, const rt_http_options *options,
                              rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out || sodium_init() < 0)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the HTTP server");
    (*out)->base = base;
    (*out)->options = *options;
    (*out)->options.connections_max = connections_possible(options->connections_max);
    (*out)->accept_again = evtimer_new(base, on_accept_again, *out);
    if (!(*out)->accept_again) {
        free(*out);
        *out = NULL;
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the HTTP server");
    }
    return RT_OK;
}

void rt_http_server_close(rt_http_server *server)
{
    if (!server)
        return;
    for (size_t i = 0; i < server->n_listeners; i++)
        if (server->listeners[i])
            evconnlistener_free(server->listeners[i]);
    while (server->conns)
        rt_http_conn_close(server->conns);
    event_free(server->accept_again);
    free(server);
}

static rt_status listen_on(rt_http_server *server, const struct addrinfo *where,
                           const rt_http_handler *handler, int *bound_port)
{
    const size_t n = server->n_listeners;
    server->handlers[n] = (struct listener_handler){server, handler};
    struct evconnlistener *listener =
        evconnlistener_new_bind(server->base, on_accept, &server->handlers[n],
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                LISTEN_BACKLOG, where->ai_addr, (int)where->ai_addrlen);
    if (!listener)
        return RT_IO;
    evconnlistener_set_error_cb(listener, on_accept_error);
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    (void)getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&bound, &size);
    *bound_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                    : ((struct sockaddr_in *)&bound)->sin_port);
    server->listeners[server->n_listeners++] = listener;
    return RT_OK;
}

rt_status rt_http_listen(rt_http_server *server, const char *host, int port, const rt_http_handler *handler,
                         int *bound_port, rt_error *err)
{
    if (server->n_listeners == sizeof server->listeners / sizeof *server->listeners)
        return rt_error_set(err, RT_INVALID, "a server listens in at most 4 places");
    char service[16];
    (void)snprintf(service, sizeof service, "%d", port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const int why = getaddrinfo(host, service, &hints, &found);
    if (why != 0)
        return rt_error_set(err, RT_INVALID, "%.100s: is not an address to listen on: %s", host,
                            gai_strerror(why));
    const rt_status status = listen_on(server, found, handler, bound_port);
    const int reason = errno;
    freeaddrinfo(found);
    if (status != RT_OK)
        return rt_error_set(err, RT_IO, "cannot listen on %.100s port %d: %s; choose another --port", host,
                            port, strerror(reason));
    return RT_OK;
}

void rt_http_stop_accepting(rt_http_server *server)
{
    server->stopping = true;
    for (size_t i = 0; i < server->n_listeners; i++) {
        if (server->listeners[i])
            evconnlistener_free(server->listeners[i]);
        server->listeners[i] = NULL;
    }
    for (rt_http_conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        if (conn->state == CONN_IDLE)
            rt_http_conn_close(conn);
    }
}

void rt_http_trust(rt_http_server *server, const rt_network *trusted, size_t n_trusted)
{
    server->options.trusted = trusted;
    server->options.n_trusted = n_trusted;
}

size_t rt_http_connections(const rt_http_server *server) { return server->n_conns; }
size_t rt_http_exchanges(const rt_http_server *server) { return server->n_exchanges; }

/* ---- being woken by other threads ---- */

struct rt_http_wakeup {
    int fd;
    struct event *event;
    void (*woken)(void *context);
    void *context;
};

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    rt_http_wakeup *wakeup = context;
    uint64_t count;
    if (read(fd, &count, sizeof count) == (ssize_t)sizeof count)
        wakeup->woken(wakeup->context);
}

rt_status rt_http_wakeup_open(rt_http_wakeup **out, struct event_base *base, void (*woken)(void *context),
                              void *context, rt_error *err)
{
    rt_http_wakeup *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to wake the event loop");
    *w = (rt_http_wakeup){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .woken = woken, .context = context};
    w->event = w->fd >= 0 ? event_new(base, w->fd, EV_READ | EV_PERSIST, on_wake, w) : NULL;
    if (!w->event || event_add(w->event, NULL) != 0) {
        rt_http_wakeup_close(w);
        return rt_error_set(err, RT_IO, "cannot make an event descriptor: %s", strerror(errno));
    }
    *out = w;
    return RT_OK;
}

void rt_http_wakeup_close(rt_http_wakeup *w)
{
    if (!w)
        return;
    if (w->event)
        event_free(w->event);
    if (w->fd >= 0)
        (void)close(w->fd);
    free(w);
}

void rt_http_wake(rt_http_wakeup *w)
{
    const uint64_t one = 1;
    (void)!write(w->fd, &one, sizeof one);
}
