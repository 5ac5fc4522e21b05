/* serve/http.h - an HTTP/1.1 server on one event loop.
 *
 * The layer owns connections, limits and timers; a handler gets each request twice (its head, then the whole
 * body) and answers now or later, whole or in pieces.  Everything here runs in the thread of the event
 * base; other threads wake it (rt_http_wakeup).  A listener has one handler: the public API, the admin API
 * and a gateway are handlers on listeners of one server. */
#ifndef RT_SERVE_HTTP_H
#define RT_SERVE_HTTP_H

#include "serve/forwarded.h"

struct event_base;

typedef struct rt_http_exchange rt_http_exchange; /* one request and its response */

typedef struct rt_http_request { /* borrowed: lives as long as the exchange */
    const rt_http_head *head;
    const char *body; /* NUL-terminated; complete when `body` of the handler is called */
    size_t body_size;
    char id[40];      /* "req_" and 32 hex digits */
    char address[64]; /* the client's, without port: the peer, or who a trusted proxy says it is */
    double begun_s;   /* monotonic: when its first byte came */
} rt_http_request;

typedef struct rt_http_handler {
    /* The head is read, the body is not.  false: the handler has answered (the body is not read then). */
    bool (*head)(void *context, rt_http_exchange *x);
    /* The body is whole.  The handler answers now, or keeps x and answers later. */
    void (*body)(void *context, rt_http_exchange *x);
    /* A request that cannot be read, or was too slow: answer with rt_http_reply. x has no head when the fault
     * lies in it (request.head->method NULL). */
    void (*fault)(void *context, rt_http_exchange *x, const rt_http_fault *fault);
    /* The client has gone before the answer was whole.  x stays valid until it is answered (to nobody). */
    void (*gone)(void *context, rt_http_exchange *x);
    /* The output has been taken by the client: what was held back may go on. */
    void (*drained)(void *context, rt_http_exchange *x);
    /* The answer is complete (or nobody wants it): the last moment of x.  For logs and counters. */
    void (*finished)(void *context, rt_http_exchange *x);
    void *context;
} rt_http_handler;

typedef struct rt_http_timeouts { /* seconds */
    int head_s;                   /* from the first byte of a request to the end of its head: 10 */
    int body_s;                   /* the body must progress by 1 KiB in each: 10 */
    int keep_alive_s;             /* an idle connection: 75 */
    int write_s;                  /* a client that takes nothing: 30 */
} rt_http_timeouts;

typedef struct rt_http_options {
    rt_http_limits limits;
    rt_http_timeouts timeouts;
    size_t connections_max;
    const rt_network *trusted; /* proxies whose X-Forwarded-For is believed; borrowed */
    size_t n_trusted;
} rt_http_options;
rt_http_options rt_http_options_default(void);

typedef struct rt_http_server rt_http_server;
rt_status rt_http_server_open(rt_http_server **out, struct event_base *base, const rt_http_options *options,
                              rt_error *err);
/* Closes listeners and connections; exchanges under way end as if their clients had gone, and must all have
 * been answered before. */
void rt_http_server_close(rt_http_server *server);
/* host: an IPv4 or IPv6 address or a name; port 0 takes a free one.  *port is the real one.  The handler is
 * borrowed for the life of the server. */
rt_status rt_http_listen(rt_http_server *server, const char *host, int port, const rt_http_handler *handler,
                         int *bound_port, rt_error *err);
void rt_http_stop_accepting(rt_http_server *server); /* and closes idle connections */
/* From the next request on; borrowed. */
void rt_http_trust(rt_http_server *server, const rt_network *trusted, size_t n_trusted);
size_t rt_http_connections(const rt_http_server *server);
size_t rt_http_exchanges(const rt_http_server *server); /* not yet answered */

/* From `head`, which returns true then: the body is not read before rt_http_go_on.  An answer is as good as
 * going on; of a client that leaves meanwhile `gone` tells. */
void rt_http_wait(rt_http_exchange *x);
void rt_http_go_on(rt_http_exchange *x);

const rt_http_request *rt_http_request_of(const rt_http_exchange *x);
const char *rt_http_request_field(const rt_http_exchange *x, const char *name); /* NULL: absent */
void rt_http_set_user(rt_http_exchange *x, void *user);
void *rt_http_user(const rt_http_exchange *x);
bool rt_http_is_gone(const rt_http_exchange *x);
int rt_http_status(const rt_http_exchange *x);        /* of the answer; 0 before, 499 when gone */
size_t rt_http_bytes_sent(const rt_http_exchange *x); /* of the answer's body */
size_t rt_http_backlog(const rt_http_exchange *x);    /* bytes that wait for the client */

/* Headers of the answer, before it begins. */
void rt_http_header(rt_http_exchange *x, const char *name, const char *value);
/* A whole answer; x is not valid afterwards. */
void rt_http_reply(rt_http_exchange *x, int status, const char *type, const void *data, size_t size);
/* An answer in pieces: begin, write any number of times, then end; abort breaks it off so that the client
 * sees that it is not whole.  x is not valid after end or abort. */
void rt_http_begin(rt_http_exchange *x, int status, const char *type);
void rt_http_write(rt_http_exchange *x, const void *data, size_t size);
void rt_http_end(rt_http_exchange *x);
void rt_http_abort(rt_http_exchange *x);
/* What a piece-wise or whole answer has sent is also appended to `copy` (NULL: no longer); the caller's. */
void rt_http_record(rt_http_exchange *x, rt_text *copy);

/* Calls `woken` in the loop's thread soon after rt_http_wake was called from any thread. */
typedef struct rt_http_wakeup rt_http_wakeup;
rt_status rt_http_wakeup_open(rt_http_wakeup **out, struct event_base *base, void (*woken)(void *context),
                              void *context, rt_error *err);
void rt_http_wakeup_close(rt_http_wakeup *wakeup);
void rt_http_wake(rt_http_wakeup *wakeup);

#endif
