/* tests/serve/test_http_conn.c - connections of the HTTP server: bytes arrive in any pieces, answers leave in
 * order and as far as the client takes them.  Server and client are in one thread: the loop turns between the
 * client's steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/http.h"

enum { TURNS = 20, HELD = 16, PATIENCE = 10000 };

typedef struct place {
    struct event_base *base;
    rt_http_server *server;
    rt_http_handler handler;
    int port, client;
    rt_http_exchange *held[HELD]; /* requests for /hold and /stream, not answered yet */
    size_t n_held;
    int gone, drained;
} place;

/* ---- the server's side ---- */

static bool on_head(void *context, rt_http_exchange *x) { return context && x; }

static void on_body(void *context, rt_http_exchange *x)
{
    place *p = context;
    const rt_http_request *request = rt_http_request_of(x);
    if (strcmp(request->head->path, "/echo") == 0) {
        rt_http_reply(x, 200, "text/plain", request->body, request->body_size);
        return;
    }
    assert_true(p->n_held < HELD);
    p->held[p->n_held++] = x;
    if (strcmp(request->head->path, "/stream") == 0)
        rt_http_begin(x, 200, "text/plain");
}

static void on_fault(void *context, rt_http_exchange *x, const rt_http_fault *fault)
{
    (void)context;
    rt_http_reply(x, fault->status, "text/plain", "", 0);
}

static void on_gone(void *context, rt_http_exchange *x)
{
    place *p = context;
    p->gone++;
    for (size_t i = 0; i < p->n_held; i++)
        if (p->held[i] == x)
            p->held[i] = p->held[--p->n_held];
    rt_http_abort(x);
}

static void on_drained(void *context, rt_http_exchange *x)
{
    (void)x;
    ((place *)context)->drained++;
}

static void on_finished(void *context, rt_http_exchange *x)
{
    (void)context;
    (void)x;
}

static void turn(place *p)
{
    for (int i = 0; i < TURNS; i++)
        (void)event_base_loop(p->base, EVLOOP_NONBLOCK);
}

/* ---- the client's side ---- */

static int open_place_of(void **state, int write_s)
{
    place *p = calloc(1, sizeof *p);
    rt_error err = {0};
    rt_http_options options = rt_http_options_default();
    if (write_s)
        options.timeouts.write_s = write_s;
    (void)signal(SIGPIPE, SIG_IGN);
    if (!p)
        return -1;
    p->base = event_base_new();
    p->handler = (rt_http_handler){on_head, on_body, on_fault, on_gone, on_drained, on_finished, p};
    if (rt_http_server_open(&p->server, p->base, &options, &err) != RT_OK ||
        rt_http_listen(p->server, "127.0.0.1", 0, &p->handler, &p->port, &err) != RT_OK)
        return -1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)p->port)};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->client < 0 || connect(p->client, (struct sockaddr *)&where, sizeof where) != 0)
        return -1;
    turn(p);
    *state = p;
    return 0;
}

static int open_place(void **state) { return open_place_of(state, 0); }
static int open_hasty_place(void **state) { return open_place_of(state, 1); }

static int close_place(void **state)
{
    place *p = *state;
    if (p->client >= 0)
        (void)close(p->client);
    turn(p);
    rt_http_server_close(p->server);
    event_base_free(p->base);
    free(p);
    return 0;
}

/* Sends all of it, turning the loop where the socket is full. */
static void say(place *p, const char *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        const ssize_t n = send(p->client, data + at, size - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        turn(p);
        assert_true(n > 0 || errno == EAGAIN);
    }
}

static void say_text(place *p, const char *text) { say(p, text, strlen(text)); }

static size_t count(const rt_text *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text->data; at && (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

/* The kernel may bring bytes over a little later: turns the loop until it is so. */
#define AWAIT(condition)                                                                                     \
    do {                                                                                                     \
        for (int tries = 0; tries < PATIENCE && !(condition); tries++) {                                     \
            turn(p);                                                                                         \
            (void)usleep(500);                                                                               \
        }                                                                                                    \
        assert_true(condition);                                                                              \
    } while (0)

/* Reads what is there; appended to out. */
static size_t hear(place *p, rt_text *out)
{
    char buffer[4096];
    size_t all = 0;
    turn(p);
    for (ssize_t n; (n = recv(p->client, buffer, sizeof buffer, MSG_DONTWAIT)) > 0; all += (size_t)n) {
        rt_text_append(out, buffer, (size_t)n);
        turn(p);
    }
    return all;
}

static size_t heard_of(place *p, rt_text *out, const char *what)
{
    (void)hear(p, out);
    return count(out, what);
}

/* ---- */

static void requests_in_one_piece_are_answered_in_their_order(void **state)
{
    place *p = *state;
    rt_text all = {0}, heard = {0};
    for (int i = 0; i < 40; i++)
        rt_text_printf(&all, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nnumber%02d", i);
    say(p, all.data, all.size);
    AWAIT(heard_of(p, &heard, "number39") == 1);
    const char *at = heard.data;
    for (int i = 0; i < 40; i++) {
        char wanted[24];
        (void)snprintf(wanted, sizeof wanted, "number%02d", i);
        at = strstr(at, wanted);
        assert_non_null(at);
    }
    assert_int_equal(count(&heard, "HTTP/1.1 200"), 40);
    rt_text_deinit(&all);
    rt_text_deinit(&heard);
}

static void a_request_may_come_byte_by_byte(void **state)
{
    place *p = *state;
    rt_text heard = {0};
    const char *request = "\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                          "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
                          "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nfgh";
    for (const char *c = request; *c; c++)
        say(p, c, 1);
    AWAIT(heard_of(p, &heard, "fgh") == 1);
    assert_int_equal(count(&heard, "HTTP/1.1 200"), 2);
    assert_non_null(strstr(heard.data, "abcde"));
    rt_text_deinit(&heard);
}

static void what_comes_during_an_answer_waits_for_its_end(void **state)
{
    place *p = *state;
    rt_text rest = {0}, heard = {0};
    const size_t body = 100000; /* more than a connection keeps */
    say_text(p, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    rt_text_printf(&rest, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", body);
    for (size_t i = 0; i < body; i++)
        rt_text_append(&rest, "z", 1);
    rt_text_puts(&rest, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    size_t sent = 0;
    for (ssize_t n; (n = send(p->client, rest.data + sent, rest.size - sent, MSG_DONTWAIT)) > 0; turn(p))
        sent += (size_t)n;
    AWAIT(p->n_held == 1);
    assert_int_equal(hear(p, &heard), 0);
    p->n_held = 0;
    rt_http_reply(p->held[0], 200, "text/plain", "held", 4);
    say(p, rest.data + sent, rest.size - sent);
    AWAIT(heard_of(p, &heard, "Connection: close") == 1);
    assert_int_equal(count(&heard, "HTTP/1.1 200"), 3);
    assert_int_equal(count(&heard, "z"), body);
    AWAIT(recv(p->client, &(char){0}, 1, MSG_DONTWAIT) == 0);
    rt_text_deinit(&rest);
    rt_text_deinit(&heard);
}

static void a_piece_of_a_stream_leaves_before_the_next_is_there(void **state)
{
    place *p = *state;
    rt_text heard = {0};
    say_text(p, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    AWAIT(p->n_held == 1);
    rt_http_write(p->held[0], "first", 5);
    rt_http_write(p->held[0], "second", 6);
    AWAIT(heard_of(p, &heard, "\r\n\r\n5\r\nfirst\r\n6\r\nsecond\r\n") == 1);
    rt_http_write(p->held[0], "third", 5);
    AWAIT(heard_of(p, &heard, "third\r\n") == 1);
    assert_int_equal(count(&heard, "0\r\n\r\n"), 0);
    p->n_held = 0;
    rt_http_end(p->held[0]);
    AWAIT(heard_of(p, &heard, "0\r\n\r\n") == 1);
    rt_text_deinit(&heard);
}

static void a_client_that_does_not_read_holds_up_only_its_own_answer(void **state)
{
    place *p = *state;
    rt_text heard = {0};
    char piece[1000];
    memset(piece, 'y', sizeof piece);
    say_text(p, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    size_t written = 0;
    AWAIT(p->n_held == 1);
    for (int i = 0; i < 20000 && rt_http_backlog(p->held[0]) < 1 << 20; i++) {
        rt_http_write(p->held[0], piece, sizeof piece);
        written += sizeof piece;
        if (i % 100 == 0)
            (void)event_base_loop(p->base, EVLOOP_NONBLOCK);
    }
    turn(p);
    assert_true(rt_http_backlog(p->held[0]) > 0);
    p->drained = 0;
    AWAIT(hear(p, &heard) == 0 && p->drained == 1);
    assert_int_equal(rt_http_backlog(p->held[0]), 0);
    p->n_held = 0;
    rt_http_end(p->held[0]);
    AWAIT(heard_of(p, &heard, "0\r\n\r\n") == 1);
    const char *body = strstr(heard.data, "\r\n\r\n");
    assert_non_null(body);
    size_t got = 0;
    for (; *body; body++)
        got += *body == 'y';
    assert_int_equal(got, written);
    rt_text_deinit(&heard);
}

static void a_client_that_goes_is_noticed_during_its_answer(void **state)
{
    place *p = *state;
    say_text(p, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    say_text(p, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); /* a request behind it changes nothing */
    AWAIT(p->n_held == 1);
    (void)close(p->client);
    p->client = -1;
    AWAIT(p->gone == 1);
    assert_int_equal(rt_http_connections(p->server), 0);
    assert_int_equal(rt_http_exchanges(p->server), 0);
}

static void a_reset_during_a_stream_is_not_written_to(void **state)
{
    place *p = *state;
    say_text(p, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    AWAIT(p->n_held == 1);
    (void)setsockopt(p->client, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    (void)close(p->client);
    p->client = -1;
    for (int i = 0; i < 10 && p->n_held; i++) {
        rt_http_write(p->held[0], "lost", 4);
        (void)event_base_loop(p->base, EVLOOP_NONBLOCK);
    }
    AWAIT(p->gone == 1);
    assert_int_equal(rt_http_connections(p->server), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_place, close_place)

/* The place lets a client take nothing for one second. */
static void a_client_that_stalls_is_dropped(void **state)
{
    place *p = *state;
    char piece[1000];
    memset(piece, 'y', sizeof piece);
    say_text(p, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    AWAIT(p->n_held == 1);
    for (int i = 0; i < 20000 && rt_http_backlog(p->held[0]) < 1 << 20; i++) {
        rt_http_write(p->held[0], piece, sizeof piece);
        if (i % 100 == 0)
            (void)event_base_loop(p->base, EVLOOP_NONBLOCK);
    }
    assert_true(rt_http_backlog(p->held[0]) > 0);
    assert_int_equal(p->gone, 0);
    while (p->gone == 0) /* sleeps until the connection's own timer */
        assert_int_equal(event_base_loop(p->base, EVLOOP_ONCE), 0);
    assert_int_equal(p->n_held, 0);
    turn(p);
    assert_int_equal(rt_http_connections(p->server), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(requests_in_one_piece_are_answered_in_their_order),
        CASE(a_request_may_come_byte_by_byte),
        CASE(what_comes_during_an_answer_waits_for_its_end),
        CASE(a_piece_of_a_stream_leaves_before_the_next_is_there),
        CASE(a_client_that_does_not_read_holds_up_only_its_own_answer),
        cmocka_unit_test_setup_teardown(a_client_that_stalls_is_dropped, open_hasty_place, close_place),
        CASE(a_client_that_goes_is_noticed_during_its_answer),
        CASE(a_reset_during_a_stream_is_not_written_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
