/* serve/http.c - see http.h.  The server: listening, accepting, being woken.  Connections are in http_conn.c.
 */
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

enum { DESCRIPTORS_KEPT = 512, ACCEPT_REST_US = 100000, LISTEN_BACKLOG = 1024 };

rt_http_options rt_http_options_default(void)
{
    return (rt_http_options){.limits = rt_http_limits_default(),
                             .timeouts = {.head_s = 10, .body_s = 10, .keep_alive_s = 75, .write_s = 30},
                             .connections_max = 16384};
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
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    rt_http_conn *conn = server->n_conns < server->options.connections_max
                             ? rt_http_conn_new(server, door->handler, fd)
                             : NULL;
    if (conn)
        name_peer(conn->address, address);
    else
        (void)close(fd);
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
    (*out)->random_used = sizeof(*out)->random;
    LIST_INIT(&(*out)->conns);
    LIST_INIT(&(*out)->unflushed);
    (*out)->accept_again = evtimer_new(base, on_accept_again, *out);
    (*out)->flusher = event_new(base, -1, 0, rt_http_flush_all, *out);
    if (!(*out)->accept_again || !(*out)->flusher) {
        rt_http_server_close(*out);
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
    while (!LIST_EMPTY(&server->conns))
        rt_http_conn_close(LIST_FIRST(&server->conns));
    if (server->accept_again)
        event_free(server->accept_again);
    if (server->flusher)
        event_free(server->flusher);
    rt_text_deinit(&server->line);
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
    for (rt_http_conn *conn = LIST_FIRST(&server->conns), *next; conn; conn = next) {
        next = LIST_NEXT(conn, all);
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
