/* serve/http_conn.c - one connection: reading requests, sending answers, timers, closing.
 *
 * A connection carries one request at a time; bytes of the next one wait in `held`, which is bounded.
 * Reading goes on during an answer, because that is how a client that has gone is noticed.
 *
 * What has come is read into one buffer of the server and looked at there; only what is not a whole head yet
 * is kept with the connection.  A whole answer is handed to the socket at once, the pieces of a stream before
 * the loop waits again; the loop is asked about writing only when the socket takes no more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/http_internal.h"

enum { HELD_BYTES_MAX = 64 << 10, LINGER_S = 2, BODY_PROGRESS_BYTES = 1024 };

/* ---- the timer ---- */

/* Deadlines move with every request; the event is set anew only for one that comes before it fires. */
static void set_timer(rt_http_conn *conn, int seconds)
{
    conn->deadline_s = rt_clock_seconds() + seconds;
    if (conn->timer_s > 0 && conn->timer_s <= conn->deadline_s)
        return;
    conn->timer_s = conn->deadline_s;
    (void)event_add(&conn->timer, &(struct timeval){.tv_sec = seconds});
}

static void clear_timer(rt_http_conn *conn) { conn->deadline_s = 0; }

/* ---- the end ---- */

static void conn_free(rt_http_conn *conn)
{
    rt_text_deinit(&conn->held);
    free(conn);
}

void rt_http_conn_close(rt_http_conn *conn)
{
    rt_http_server *server = conn->server;
    rt_http_exchange *x = conn->exchange;
    LIST_REMOVE(conn, all);
    if (conn->flushing)
        LIST_REMOVE(conn, unflushed);
    server->n_conns--;
    (void)event_del(&conn->readable);
    (void)event_del(&conn->writable);
    (void)event_del(&conn->timer);
    (void)close(conn->fd);
    evbuffer_free(conn->out);
    conn->exchange = NULL;
    conn->dead = true;
    if (conn->depth == 0)
        conn_free(conn);
    if (!x)
        return;
    x->conn = NULL;
    if ((x->reading && !x->waits) || !x->head_read) /* no handler holds it yet: there is nobody to answer */
        rt_http_exchange_finish(x);
    else
        x->handler->gone(x->handler->context, x);
}

/* ---- sending ---- */

/* A connection that fails is closed by the loop, not under the feet of who writes. */
static void broken(rt_http_conn *conn)
{
    conn->broken = true;
    (void)evbuffer_drain(conn->out, evbuffer_get_length(conn->out));
    event_active(&conn->readable, EV_READ, 0);
}

/* Hands to the socket what it takes; the loop tells when it takes more.  True: nothing is left. */
static bool flush(rt_http_conn *conn)
{
    if (conn->flushing) {
        LIST_REMOVE(conn, unflushed);
        conn->flushing = false;
    }
    while (evbuffer_get_length(conn->out) > 0) {
        if (evbuffer_write(conn->out, conn->fd) > 0)
            continue;
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            (void)event_add(&conn->writable,
                            &(struct timeval){.tv_sec = conn->server->options.timeouts.write_s});
        else
            broken(conn);
        return false;
    }
    return true;
}

static void begin_linger(rt_http_conn *conn)
{
    conn->state = CONN_LINGER;
    (void)shutdown(conn->fd, SHUT_WR);
    set_timer(conn, LINGER_S);
}

/* Everything that was written has been taken. */
static void emptied(rt_http_conn *conn)
{
    if (conn->state == CONN_FLUSH)
        begin_linger(conn);
    else if (conn->state == CONN_BUSY && conn->exchange && !conn->exchange->reading)
        conn->handler->drained(conn->handler->context, conn->exchange);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    rt_http_conn *conn = context;
    if (what & EV_TIMEOUT)
        rt_http_conn_close(conn);
    else if (flush(conn))
        emptied(conn);
}

void rt_http_flush_all(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    rt_http_server *server = context;
    for (rt_http_conn *conn; (conn = LIST_FIRST(&server->unflushed)) != NULL;)
        if (flush(conn))
            emptied(conn);
}

void rt_http_conn_write(rt_http_conn *conn, const void *data, size_t size)
{
    if (conn->broken || size == 0)
        return;
    if (evbuffer_add(conn->out, data, size) != 0) /* no memory: the client must see that it is not whole */
        broken(conn);
    if (conn->flushing || conn->broken || event_pending(&conn->writable, EV_WRITE, NULL))
        return;
    if (LIST_EMPTY(&conn->server->unflushed))
        event_active(conn->server->flusher, EV_TIMEOUT, 0);
    LIST_INSERT_HEAD(&conn->server->unflushed, conn, unflushed);
    conn->flushing = true;
}

/* What is already here is taken in the next round of the loop, not on this stack. */
static void look_again(rt_http_conn *conn)
{
    if (conn->held.size == 0)
        return;
    (void)event_add(&conn->readable, NULL);
    event_active(&conn->readable, EV_READ, 0);
}

void rt_http_conn_answered(rt_http_conn *conn, bool keep_alive)
{
    const bool empty = flush(conn);
    if (!keep_alive || conn->server->stopping) {
        conn->state = CONN_FLUSH;
        set_timer(conn, conn->server->options.timeouts.write_s);
        if (empty)
            begin_linger(conn);
        return;
    }
    conn->state = CONN_IDLE;
    set_timer(conn, conn->server->options.timeouts.keep_alive_s);
    if (conn->depth == 0)
        look_again(conn);
}

/* ---- an exchange begins ---- */

/* The system is asked for random bytes once in many requests. */
static void make_id(rt_http_server *server, char out[40])
{
    if (server->random_used + 16 > sizeof server->random) {
        randombytes_buf(server->random, sizeof server->random);
        server->random_used = 0;
    }
    static const char digits[] = "0123456789abcdef";
    memcpy(out, "req_", 4);
    for (size_t i = 0; i < 16; i++) {
        const unsigned char byte = server->random[server->random_used++];
        out[4 + 2 * i] = digits[byte >> 4];
        out[5 + 2 * i] = digits[byte & 15];
    }
    out[36] = '\0';
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
    make_id(conn->server, x->request.id);
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
    clear_timer(conn);
    conn->state = CONN_BUSY;
    x->reading = false;
    x->request.body = x->body.data ? x->body.data : "";
    x->request.body_size = x->body.size;
    x->handler->body(x->handler->context, x);
}

static void begin_body(rt_http_conn *conn);

/* The head is whole: framing is settled, the handler looks at it, and the body may come. */
static void head_complete(rt_http_conn *conn)
{
    rt_http_exchange *x = conn->exchange;
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
    if (x->waits) {
        conn->state = CONN_BUSY;
        clear_timer(conn);
        return;
    }
    begin_body(conn);
}

void rt_http_wait(rt_http_exchange *x) { x->waits = true; }

void rt_http_go_on(rt_http_exchange *x)
{
    rt_http_conn *conn = x->conn;
    x->waits = false;
    conn->state = CONN_BODY;
    begin_body(conn);
}

/* What the head promises is read from here on. */
static void begin_body(rt_http_conn *conn)
{
    rt_http_exchange *x = conn->exchange;
    const rt_http_limits *limits = &conn->server->options.limits;
    if (x->head.has_length && x->head.length > limits->body_bytes_max) {
        answer_fault(x, &(rt_http_fault){413, "body_too_large", "the body is too large"});
        return;
    }
    if (!x->reading) {
        body_complete(conn);
        return;
    }
    if (x->head.expect_continue)
        rt_http_conn_write(conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    set_timer(conn, conn->server->options.timeouts.body_s);
    if (conn->depth == 0) /* what came while it waited */
        look_again(conn);
}

/* ---- reading: bytes in data[0..size), the number of them that were used out ---- */

/* The first byte of a request; false: it cannot be taken, and the connection is closed. */
static bool begin_head(rt_http_conn *conn)
{
    conn->state = CONN_HEAD;
    conn->scanned = 0;
    set_timer(conn, conn->server->options.timeouts.head_s);
    if (exchange_new(conn))
        return true;
    rt_http_conn_close(conn);
    return false;
}

/* *more: something was done, and there may be more to do. */
static size_t read_head(rt_http_conn *conn, const char *data, size_t size, bool *more)
{
    const rt_http_limits *limits = &conn->server->options.limits;
    size_t blank = 0;
    *more = false;
    if (conn->state == CONN_IDLE) { /* blank lines before a request are allowed for (RFC 9112, 2.2) */
        while (size - blank >= 2 && data[blank] == '\r' && data[blank + 1] == '\n')
            blank += 2;
        const bool half = size - blank == 1 && data[blank] == '\r';
        if (blank == size || half || !begin_head(conn))
            return blank;
    }
    rt_http_exchange *x = conn->exchange;
    rt_http_fault fault = {0};
    const size_t end = rt_http_head_end(data + blank, rt_size_min(size - blank, limits->head_bytes_max + 2),
                                        &conn->scanned, limits, &fault);
    if (!fault.status && end == 0)
        return blank;
    *more = true;
    if (!fault.status) {
        x->head_data = malloc(end + 1);
        if (!x->head_data) {
            rt_http_conn_close(conn);
            return blank;
        }
        memcpy(x->head_data, data + blank, end);
        x->head_data[end] = '\0';
        if (rt_http_head_parse(&x->head, x->head_data, end, limits, &fault)) {
            head_complete(conn);
            return blank + end;
        }
        x->head.method = NULL;
    }
    answer_fault(x, &fault);
    return blank + end;
}

static size_t read_body(rt_http_conn *conn, const char *data, size_t size, bool *more)
{
    rt_http_exchange *x = conn->exchange;
    rt_http_fault fault = {0};
    bool done = false;
    size_t used = 0;
    *more = size > 0;
    if (size == 0)
        return 0;
    if (x->head.chunked) {
        used = rt_http_chunks_feed(&conn->chunks, data, size, conn->server->options.limits.body_bytes_max,
                                   &x->body, &done, &fault);
    } else {
        used = conn->body_left < size ? (size_t)conn->body_left : size;
        rt_text_append(&x->body, data, used);
        conn->body_left -= used;
        done = conn->body_left == 0;
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
    return used;
}

/* Until a request has to be waited for, or the connection is closed by what an answer leads to. */
static size_t advance(rt_http_conn *conn, const char *data, size_t size)
{
    size_t at = 0;
    for (bool more = true; more && !conn->dead;) {
        if (conn->state == CONN_LINGER || conn->state == CONN_FLUSH)
            return size; /* what comes after the last answer is thrown away */
        if (conn->state == CONN_BUSY)
            break;
        at += conn->state == CONN_BODY ? read_body(conn, data + at, size - at, &more)
                                       : read_head(conn, data + at, size - at, &more);
    }
    return at;
}

/* Takes what has come: where it is, or behind what was kept. */
static void take(rt_http_conn *conn, const char *data, size_t size)
{
    rt_text *held = &conn->held;
    conn->depth++;
    if (held->size > 0) {
        rt_text_append(held, data, size);
        const size_t used = advance(conn, held->data, held->size);
        held->size -= used;
        memmove(held->data, held->data + used, held->size);
    } else {
        const size_t used = advance(conn, data, size);
        rt_text_append(held, data + used, size - used);
    }
    const bool failed = held->failed;
    if (held->size == 0)
        rt_text_deinit(held);
    conn->depth--;
    if (conn->dead)
        conn_free(conn);
    else if (failed)
        rt_http_conn_close(conn);
    else if (conn->state == CONN_BUSY && conn->held.size >= HELD_BYTES_MAX)
        (void)event_del(&conn->readable); /* until the answer is out */
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    rt_http_conn *conn = context;
    rt_http_server *server = conn->server;
    const ssize_t n = conn->broken ? 0 : recv(fd, server->input, sizeof server->input, 0);
    if (n > 0) {
        take(conn, server->input, (size_t)n);
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        if (conn->held.size > 0 && (conn->state == CONN_IDLE || conn->state == CONN_BODY))
            take(conn, "", 0);
    } else if (n == 0 && conn->state == CONN_FLUSH && !conn->broken) {
        (void)event_del(&conn->readable); /* the last answer is still on its way */
    } else {
        rt_http_conn_close(conn);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    rt_http_conn *conn = context;
    const double left = conn->deadline_s - rt_clock_seconds();
    conn->timer_s = 0;
    if (conn->deadline_s <= 0)
        return;
    if (left > 1e-3) {
        conn->timer_s = conn->deadline_s;
        (void)event_add(&conn->timer,
                        &(struct timeval){.tv_sec = (time_t)left,
                                          .tv_usec = (suseconds_t)((left - (double)(time_t)left) * 1e6)});
    } else if (conn->state == CONN_HEAD || conn->state == CONN_BODY) {
        answer_fault(conn->exchange,
                     &(rt_http_fault){408, "request_timeout", "the request was too slow to arrive"});
    } else {
        rt_http_conn_close(conn);
    }
}

/* ---- the beginning ---- */

rt_http_conn *rt_http_conn_new(rt_http_server *server, const rt_http_handler *handler, int fd)
{
    rt_http_conn *conn = calloc(1, sizeof *conn);
    struct evbuffer *out = conn ? evbuffer_new() : NULL;
    if (!out) {
        free(conn);
        return NULL;
    }
    *conn = (rt_http_conn){.server = server, .handler = handler, .fd = fd, .out = out};
    if (event_assign(&conn->readable, server->base, fd, EV_READ | EV_PERSIST, on_readable, conn) != 0 ||
        event_assign(&conn->writable, server->base, fd, EV_WRITE, on_writable, conn) != 0 ||
        evtimer_assign(&conn->timer, server->base, on_timer, conn) != 0 ||
        event_add(&conn->readable, NULL) != 0) {
        evbuffer_free(out);
        free(conn);
        return NULL;
    }
    LIST_INSERT_HEAD(&server->conns, conn, all);
    server->n_conns++;
    set_timer(conn, server->options.timeouts.keep_alive_s);
    return conn;
}
