/* serve/http_internal.h - connections and exchanges, for http.c, http_conn.c and http_answer.c. */
#ifndef RT_SERVE_HTTP_INTERNAL_H
#define RT_SERVE_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <sys/queue.h>

#include "serve/http.h"

typedef enum conn_state {
    CONN_IDLE,   /* between requests */
    CONN_HEAD,   /* a head has begun */
    CONN_BODY,   /* its body comes */
    CONN_BUSY,   /* the request is whole, the answer is not */
    CONN_FLUSH,  /* the last answer is being sent; then the sending side is closed */
    CONN_LINGER, /* what the client still sends is thrown away, so that it can read the answer */
} conn_state;

typedef struct rt_http_conn rt_http_conn;
struct rt_http_conn {
    rt_http_server *server;
    const rt_http_handler *handler;
    int fd;
    struct event readable, writable, timer;
    double deadline_s,
        timer_s;  /* when the state is given up, 0: never; when the event fires, 0: it is not set */
    rt_text held; /* read and not used: of a head that is not whole, of the next request */
    struct evbuffer *out;
    conn_state state;
    rt_http_exchange *exchange; /* NULL between requests */
    size_t scanned;             /* of a head that is not complete */
    uint64_t body_left;
    size_t body_mark; /* bytes of the body when the timer was last set */
    rt_http_chunks chunks;
    char address[64];
    unsigned depth; /* calls of take() on the stack: the record outlives a close in one */
    bool dead, broken, flushing;
    LIST_ENTRY(rt_http_conn) all, unflushed;
};

struct rt_http_exchange {
    rt_http_server *server;
    const rt_http_handler *handler;
    rt_http_conn *conn; /* NULL: the client has gone */
    rt_http_head head;
    char *head_data; /* what the head points into */
    rt_text body;
    rt_http_request request;
    rt_text headers; /* of the answer */
    void *user;
    rt_text *record;
    int status;
    size_t bytes_sent;
    bool head_read, begun, chunked, keep_alive, no_body;
    bool reading; /* the body is not whole yet */
    bool waits;   /* and is not read: rt_http_wait */
};

struct rt_http_server {
    struct event_base *base;
    rt_http_options options;
    struct evconnlistener *listeners[4];
    struct listener_handler {
        rt_http_server *server;
        const rt_http_handler *handler;
    } handlers[4];
    struct event *accept_again;
    size_t n_listeners, n_conns, n_exchanges;
    LIST_HEAD(, rt_http_conn)
    conns, unflushed; /* unflushed: something was written in this round of the loop */
    struct event *flusher;
    bool stopping;
    unsigned char random[512];
    size_t random_used;
    rt_text line;         /* the head of the answer that is being written */
    char input[64 << 10]; /* what was read last */
};

/* http_conn.c */
rt_http_conn *rt_http_conn_new(rt_http_server *server, const rt_http_handler *handler, int fd);
void rt_http_conn_close(rt_http_conn *conn);
/* Goes out before the loop waits again, or with the end of the answer. */
void rt_http_conn_write(rt_http_conn *conn, const void *data, size_t size);
void rt_http_conn_answered(rt_http_conn *conn, bool keep_alive); /* the answer is written */
void rt_http_flush_all(evutil_socket_t fd, short what, void *server);
/* http_answer.c: ends the life of an exchange. */
void rt_http_exchange_finish(rt_http_exchange *x);

#endif
