/* tests/serve/gateway_help.h - a gateway in this process, in front of upstreams in this process, over real
 * sockets, with one account and its key. */
#ifndef RT_TEST_GATEWAY_HELP_H
#define RT_TEST_GATEWAY_HELP_H

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "account/admin.h"
#include "account/db.h"
#include "serve/serve.h"
#include "serve/sse.h"

/* ---- the upstream: answers by the model's name ---- */

static const char event_1[] = "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"one \"}}]}\n\n";
static const char event_2[] =
    "data:  {\"choices\": [ {\"delta\" : {\"content\":\"t\\u0077o\"}} ], \"x\":0.10}\r\n\r\n";
static const char event_usage[] =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"prompt_tokens_details\":"
    "{\"cached_tokens\":3}}}\n\n";
static const char event_usage_excess[] =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5000}}\n\n";
static const char event_done[] = "data: [DONE]\n\n";
static const char whole_answer[] =
    "{\"choices\":[{\"message\":{\"content\":\"hi\"}}] , \"usage\":{\"prompt_tokens\":7,"
    "\"completion_tokens\":2}, \"extra\":1e2}";

typedef struct upstream_server {
    struct event_base *base;
    rt_http_server *http;
    rt_http_wakeup *wakeup;
    rt_http_handler handler;
    pthread_t thread;
    int port;
    pthread_mutex_t lock;
    char last_body[2000], last_key[100], last_path[200]; /* under the lock */
    atomic_int asked, gone;
    atomic_bool stopping;
    bool busy;                    /* answers 429 to everything */
    atomic_bool sick;             /* answers 500 to GET */
    atomic_int checks;            /* GETs */
    rt_http_exchange *waiting[2]; /* of the model "waits": go on after up_go_on; for "waits-more" to excess */
    atomic_bool go;
} upstream_server;

static bool up_head(void *context, rt_http_exchange *x)
{
    (void)context;
    (void)x;
    return true;
}

static const char excessive_answer[] =
    "{\"choices\":[{\"message\":{\"content\":\"very much\"}}],\"usage\":{\"prompt_tokens\":3,"
    "\"completion_tokens\":5000}}";

/* Whatever bound it was given: events of changing length, for one choice or two. */
static void send_excess(rt_http_exchange *x, const char *body)
{
    static const char text[] = "some words that go on and on";
    char event[200];
    for (int i = 0; i < 70; i++) {
        const int size = snprintf(event, sizeof event,
                                  "data: {\"id\":\"x9\",\"choices\":[{\"index\":%d,\"delta\":{\"content\":"
                                  "\"%.*s\"}}]}\n\n",
                                  strstr(body, "\"n\":2") ? i % 2 : 0, 1 + i * 7 % 27, text);
        rt_http_write(x, event, (size_t)size);
    }
    if (!strstr(body, "\"forgets\""))
        rt_http_write(x, event_usage_excess, sizeof event_usage_excess - 1);
    rt_http_write(x, event_done, sizeof event_done - 1);
    rt_http_end(x);
}

/* One event with all of the text, two bytes a character, and its end; perhaps with what belongs to each of
 * its tokens. */
enum { LARGE_CHARACTERS = 600 };
static void send_large(rt_http_exchange *x, const char *body)
{
    char event[3000];
    int size = snprintf(event, sizeof event,
                        "data: {\"id\":\"x8\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"");
    for (int i = 0; i < LARGE_CHARACTERS; i++)
        size += snprintf(event + size, sizeof event - (size_t)size, "\xC3\xA9");
    size += snprintf(
        event + size, sizeof event - (size_t)size,
        "\"},%s\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5000}}\n\n",
        strstr(body, "\"logprobs\"") ? "\"logprobs\":{\"content\":[]}," : "");
    rt_http_write(x, event, (size_t)size);
    rt_http_write(x, event_done, sizeof event_done - 1);
    rt_http_end(x);
}

/* Of /v1/responses: named events that go on and on, or few, of which the last says all again. */
static const char response_done[] =
    "event: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"text\":\""
    "some wordssome wordssome wordssome wordssome words\"}\n\n";
static void stream_response(rt_http_exchange *x, const char *body)
{
    char event[300];
    rt_http_begin(x, 200, "text/event-stream");
    for (int i = 0; i < (strstr(body, "\"few\"") ? 5 : 200); i++) {
        const int size = snprintf(event, sizeof event,
                                  "event: response.output_text.delta\ndata: {\"type\":\"response.output_text."
                                  "delta\",\"sequence_number\":%d,\"delta\":\"some words\"}\n\n",
                                  i);
        rt_http_write(x, event, (size_t)size);
    }
    rt_http_write(x, response_done, sizeof response_done - 1);
    rt_http_end(x);
}

static void stream(upstream_server *up, rt_http_exchange *x, const char *body)
{
    if (strstr(body, "\"excessive\"")) {
        rt_http_begin(x, 200, "text/event-stream");
        send_excess(x, body);
        return;
    }
    if (strstr(body, "\"large\"")) {
        rt_http_begin(x, 200, "text/event-stream");
        send_large(x, body);
        return;
    }
    rt_http_header(x, "set-cookie", "secret=1");
    rt_http_begin(x, 200, "text/event-stream");
    rt_http_write(x, event_1, sizeof event_1 - 1);
    if (strstr(body, "\"hangs\""))
        return; /* answered when it has gone */
    if (strstr(body, "\"waits")) {
        up->waiting[strstr(body, "\"waits-more\"") != NULL] = x;
        return;
    }
    rt_http_write(x, event_2, 9); /* an event in two pieces */
    rt_http_write(x, event_2 + 9, sizeof event_2 - 10);
    if (strstr(body, "\"breaks\"")) {
        rt_http_abort(x);
        return;
    }
    if (strstr(body, "include_usage") && !strstr(body, "\"forgets\""))
        rt_http_write(x, event_usage, sizeof event_usage - 1);
    rt_http_write(x, event_done, sizeof event_done - 1);
    rt_http_end(x);
}

static void up_body(void *context, rt_http_exchange *x)
{
    upstream_server *up = context;
    const rt_http_request *request = rt_http_request_of(x);
    const char *key = rt_http_request_field(x, "authorization");
    (void)pthread_mutex_lock(&up->lock);
    (void)snprintf(up->last_body, sizeof up->last_body, "%s", request->body);
    (void)snprintf(up->last_key, sizeof up->last_key, "%s", key ? key : "");
    (void)snprintf(up->last_path, sizeof up->last_path, "%s", request->head->path);
    (void)pthread_mutex_unlock(&up->lock);
    if (strcmp(request->head->method, "GET") == 0) {
        (void)atomic_fetch_add(&up->checks, 1);
        rt_http_reply(x, atomic_load(&up->sick) ? 500 : 200, "application/json", "{\"data\":[]}", 11);
        return;
    }
    (void)atomic_fetch_add(&up->asked, 1);
    if (up->busy || strstr(request->body, "\"busy\"")) {
        rt_http_header(x, "Retry-After", "7");
        rt_http_header(x, "openai-organization", "org");
        rt_http_reply(x, 429, "application/json", "{\"error\":1}", 11);
    } else if (strstr(request->body, "\"auth\"")) {
        rt_http_reply(x, 401, "application/json", "{}", 2);
    } else if (strstr(request->head->path, "/responses") && strstr(request->body, "\"stream\":true")) {
        stream_response(x, request->body);
    } else if (strstr(request->body, "\"stream\":true")) {
        stream(up, x, request->body);
    } else if (strstr(request->body, "\"excessive\"")) {
        rt_http_reply(x, 200, "application/json", excessive_answer, sizeof excessive_answer - 1);
    } else {
        rt_http_header(x, "set-cookie", "secret=1");
        rt_http_reply(x, 200, "application/json", whole_answer, sizeof whole_answer - 1);
    }
}

static void up_fault(void *context, rt_http_exchange *x, const rt_http_fault *fault)
{
    (void)context;
    rt_http_reply(x, fault->status, "text/plain", "", 0);
}

static void up_gone(void *context, rt_http_exchange *x)
{
    upstream_server *up = context;
    (void)atomic_fetch_add(&up->gone, 1);
    for (int i = 0; i < 2; i++)
        if (up->waiting[i] == x)
            up->waiting[i] = NULL;
    rt_http_abort(x);
}

static void up_nothing(void *context, rt_http_exchange *x)
{
    (void)context;
    (void)x;
}

static void up_woken(void *context)
{
    upstream_server *up = context;
    if (atomic_load(&up->stopping))
        (void)event_base_loopbreak(up->base);
    if (!atomic_load(&up->go))
        return;
    if (up->waiting[0]) {
        rt_http_write(up->waiting[0], event_2, sizeof event_2 - 1);
        rt_http_write(up->waiting[0], event_done, sizeof event_done - 1);
        rt_http_end(up->waiting[0]);
    }
    if (up->waiting[1])
        send_excess(up->waiting[1], "");
    up->waiting[0] = up->waiting[1] = NULL;
}

__attribute__((unused)) static void up_go_on(upstream_server *up)
{
    atomic_store(&up->go, true);
    rt_http_wake(up->wakeup);
}

static void *up_run(void *context)
{
    upstream_server *up = context;
    (void)event_base_loop(up->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static void up_start(upstream_server *up)
{
    rt_error err = {0};
    const rt_http_options options = rt_http_options_default();
    up->handler = (rt_http_handler){up_head, up_body, up_fault, up_gone, up_nothing, up_nothing, up};
    (void)pthread_mutex_init(&up->lock, NULL);
    up->base = event_base_new();
    assert_int_equal(rt_http_wakeup_open(&up->wakeup, up->base, up_woken, up, &err), RT_OK);
    assert_int_equal(rt_http_server_open(&up->http, up->base, &options, &err), RT_OK);
    assert_int_equal(rt_http_listen(up->http, "127.0.0.1", 0, &up->handler, &up->port, &err), RT_OK);
    assert_int_equal(pthread_create(&up->thread, NULL, up_run, up), 0);
}

static void up_stop(upstream_server *up)
{
    atomic_store(&up->stopping, true);
    rt_http_wake(up->wakeup);
    (void)pthread_join(up->thread, NULL);
    rt_http_server_close(up->http);
    rt_http_wakeup_close(up->wakeup);
    event_base_free(up->base);
    (void)pthread_mutex_destroy(&up->lock);
}

/* ---- the gateway ---- */

typedef struct stage {
    upstream_server up[2];
    char folder[64], db[300], urls[2][64];
    rt_gate *gate;
    rt_serve *serve;
    pthread_t thread;
    char account[40], secret[100], admin[120];
} stage;

static void *gateway_run(void *context)
{
    rt_error err = {0};
    (void)rt_serve_run(((stage *)context)->serve, &err);
    return NULL;
}

static json_t *call_desk(stage *s, const char *path, json_t *body)
{
    const rt_admin admin = {.role = RT_ROLE_FULL, .name = "test"};
    rt_desk_reply reply = rt_admin_call(rt_gate_desk(s->gate), &admin, "POST", path, NULL, body);
    json_decref(body);
    assert_int_equal(reply.http, 201);
    return reply.body;
}

/* Changes the gateway's options before it is opened; set by the test. */
static void (*stage_tune)(rt_serve_options *options);

/* A database that is there, and its secrets; NULL: a new file. */
static const char *stage_db, *stage_secrets;

/* n_up: how many upstreams run; those that do not are asked all the same. */
static void open_stage(stage *s, int n_urls, int n_up, json_t *limits)
{
    static const rt_upstream_model models[] = {{"mapped", "far-away"}};
    rt_upstream upstreams[2] = {{.key = "sk-upstream", .weight = 1}, {.key = "sk-upstream", .weight = 1}};
    rt_error err = {0};
    char path[100];
    *s = (stage){.folder = "/tmp/retort-gateway-XXXXXX"};
    assert_non_null(mkdtemp(s->folder));
    (void)snprintf(s->db, sizeof s->db, "%s%s", stage_db ? stage_db : s->folder,
                   stage_db ? "" : "/accounts.db");
    for (int i = 0; i < n_urls; i++) {
        if (i < n_up)
            up_start(&s->up[i]);
        (void)snprintf(s->urls[i], sizeof s->urls[i], "http://127.0.0.1:%d%s", i < n_up ? s->up[i].port : 1,
                       i ? "" : "/v1/");
        upstreams[i].url = s->urls[i];
    }
    const rt_gate_options gate_options = {.db = s->db, .secrets = stage_secrets};
    assert_int_equal(rt_gate_open(&s->gate, &gate_options, &err), RT_OK);
    json_t *account =
        call_desk(s, "/admin/v1/accounts", json_pack("{s:s, s:o*}", "name", "t", "limits", limits));
    (void)snprintf(s->account, sizeof s->account, "%s", json_string_value(json_object_get(account, "id")));
    json_decref(account);
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/keys", s->account);
    json_t *key = call_desk(s, path, json_object());
    (void)snprintf(s->secret, sizeof s->secret, "%s", json_string_value(json_object_get(key, "secret")));
    json_decref(key);
    key = call_desk(s, "/admin/v1/admins", json_pack("{s:s, s:s}", "name", "operator", "role", "full"));
    (void)snprintf(s->admin, sizeof s->admin, "%s", json_string_value(json_object_get(key, "secret")));
    json_decref(key);
    static rt_upstream kept[3]; /* borrowed by the server */
    kept[0] = upstreams[0];
    kept[1] = upstreams[1];
    kept[2] =
        (rt_upstream){.url = s->urls[0], .key = "sk-upstream", .weight = 1, .models = models, .n_models = 1};
    rt_serve_options options = rt_serve_options_default();
    options.upstreams = kept;
    options.n_upstreams = (size_t)n_urls;
    if (n_urls == 1) { /* the mapped one beside it */
        kept[1] = kept[2];
        options.n_upstreams = 2;
    }
    options.gate = s->gate;
    options.admin_host = "127.0.0.1";
    options.drain_s = 5;
    options.health.interval_s = 0;
    if (stage_tune)
        stage_tune(&options);
    if (rt_serve_open(&s->serve, &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(pthread_create(&s->thread, NULL, gateway_run, s), 0);
}

static void stop_gateway(stage *s)
{
    rt_serve_stop(s->serve);
    (void)pthread_join(s->thread, NULL);
    rt_serve_close(s->serve);
    rt_gate_close(s->gate);
    s->serve = NULL;
}

static void close_stage(stage *s)
{
    char command[100];
    if (s->serve)
        stop_gateway(s);
    for (int i = 0; i < 2; i++)
        if (s->up[i].base)
            up_stop(&s->up[i]);
    (void)snprintf(command, sizeof command, "rm -rf %s", s->folder);
    assert_int_equal(system(command), 0);
}

/* Stops the gateway, so that all rows are written, and asks its ledger. */
__attribute__((unused)) static int64_t ledger_int(stage *s, const char *sql)
{
    rt_db *db = NULL;
    rt_error err = {0};
    int64_t out = 0;
    bool found;
    if (s->serve)
        stop_gateway(s);
    assert_int_equal(rt_db_open(&db, s->db, &err), RT_OK);
    assert_int_equal(rt_db_get_int(db, sql, NULL, 0, &out, &found, &err), RT_OK);
    rt_db_close(db);
    return out;
}

/* ---- the client ---- */

static int dial_port(int port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const struct timeval wait = {.tv_sec = 20};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    assert_int_equal(connect(fd, (struct sockaddr *)&where, sizeof where), 0);
    return fd;
}

static int send_to(int port, const char *secret, const char *method, const char *path, const char *body)
{
    char text[3000];
    const int fd = dial_port(port);
    const int size = snprintf(text, sizeof text,
                              "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"
                              "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                              method, path, secret, strlen(body), body);
    assert_int_equal(send(fd, text, (size_t)size, MSG_NOSIGNAL), size);
    return fd;
}

static int send_request(const stage *s, const char *method, const char *path, const char *body)
{
    return send_to(rt_serve_port(s->serve), s->secret, method, path, body);
}

typedef struct answer {
    int status;
    char head[2000], body[8000]; /* body: without the chunked coding */
} answer;

static void unchunk(char *body)
{
    char *in = body, *out = body;
    for (;;) {
        char *end;
        const unsigned long size = strtoul(in, &end, 16);
        if (end == in || size == 0 || size > strlen(end + 2))
            break;
        memmove(out, end + 2, size);
        out += size;
        in = end + 2 + size + 2;
    }
    *out = '\0';
}

static answer receive(int fd)
{
    static char text[10000];
    answer out = {0};
    size_t size = 0;
    for (ssize_t n; size + 1 < sizeof text && (n = recv(fd, text + size, sizeof text - size - 1, 0)) > 0;)
        size += (size_t)n;
    (void)close(fd);
    text[size] = '\0';
    char *end = strstr(text, "\r\n\r\n");
    assert_non_null(end);
    (void)snprintf(out.head, sizeof out.head, "%.*s", (int)(end - text), text);
    (void)snprintf(out.body, sizeof out.body, "%s", end + 4);
    out.status = (int)strtol(out.head + strlen("HTTP/1.1 "), NULL, 10);
    if (strstr(out.head, "Transfer-Encoding: chunked"))
        unchunk(out.body);
    return out;
}

/* Reads on until the words came; the test fails when the connection ends before. */
__attribute__((unused)) static void read_until(int fd, const char *wanted)
{
    char text[8000];
    size_t size = 0;
    for (ssize_t n; size + 1 < sizeof text; size += (size_t)n) {
        n = recv(fd, text + size, sizeof text - 1 - size, 0);
        assert_true(n > 0);
        text[size + (size_t)n] = '\0';
        if (strstr(text, wanted))
            return;
    }
    fail_msg("'%s' never came", wanted);
}

__attribute__((unused)) static answer post(const stage *s, const char *body)
{
    return receive(send_request(s, "POST", "/v1/chat/completions", body));
}

__attribute__((unused)) static void assert_last_body(upstream_server *up, const char *body)
{
    (void)pthread_mutex_lock(&up->lock);
    const bool same = strcmp(up->last_body, body) == 0;
    if (!same)
        print_message("sent up: %s\n", up->last_body);
    (void)pthread_mutex_unlock(&up->lock);
    assert_true(same);
}

#endif
