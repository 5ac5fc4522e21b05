/* bench/bench_gateway.c - what the gateway adds: a stub upstream, the gateway with accounts, limits and
 * ledger, and a load program, all on loopback in one process of three threads.
 *
 *   build/bench/bench_gateway [DB [wait]]   (a file in the current folder; "wait": answers wait for the disk)
 *
 * First 1,000 requests a second at fixed times straight to the stub, then the same through the gateway: the
 * difference of the percentiles is what it adds.  Then as many as 64 connections can ask for.  Then 10,000
 * idle connections. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "account/admin.h"
#include "base/clock.h"
#include "serve/serve.h"

enum { CONNECTIONS = 64, RATE = 1000, IDLE = 10000 };
static const double seconds_each = 5;
static const char answer_text[] =
    "{\"id\":\"1\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{"
    "\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{"
    "\"prompt_tokens\":11,\"completion_tokens\":5,\"total_tokens\":16}}";
static const char body_text[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],"
                                "\"max_tokens\":16}";

/* ---- the stub ---- */

static bool stub_head(void *context, rt_http_exchange *x) { return context == NULL && x != NULL; }
static void stub_body(void *context, rt_http_exchange *x)
{
    (void)context;
    rt_http_reply(x, 200, "application/json", answer_text, sizeof answer_text - 1);
}
static void stub_fault(void *context, rt_http_exchange *x, const rt_http_fault *fault)
{
    (void)context;
    rt_http_reply(x, fault->status, "text/plain", "", 0);
}
static void stub_gone(void *context, rt_http_exchange *x)
{
    (void)context;
    rt_http_abort(x);
}
static void stub_nothing(void *context, rt_http_exchange *x)
{
    (void)context;
    (void)x;
}
static const rt_http_handler stub_handler = {stub_head,    stub_body,    stub_fault, stub_gone,
                                             stub_nothing, stub_nothing, NULL};

static void *stub_run(void *base)
{
    (void)event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* ---- the load ---- */

typedef struct client {
    int fd;
    bool busy;
    double sent_s; /* when it was due */
    size_t got;
    char in[4096];
} client;

static int connect_to(int port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&where, sizeof where) != 0) {
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static bool ask(client *c, const char *request, size_t size, double due_s)
{
    c->busy = true;
    c->sent_s = due_s;
    c->got = 0;
    return send(c->fd, request, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* 1: a whole answer, 0: not yet, -1: lost or not 200. */
static int take(client *c)
{
    const ssize_t n = recv(c->fd, c->in + c->got, sizeof c->in - 1 - c->got, 0);
    if (n <= 0)
        return -1;
    c->got += (size_t)n;
    c->in[c->got] = '\0';
    const char *end = strstr(c->in, "\r\n\r\n");
    if (!end || c->got < (size_t)(end + 4 - c->in) + sizeof answer_text - 1)
        return end && strncmp(c->in, "HTTP/1.1 200", 12) != 0 ? -1 : 0;
    return 1;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct result {
    size_t count, lost;
    double p50_ms, p99_ms, rate;
} result;

/* rate 0: each connection asks again as soon as it is answered. */
static result load(int port, const char *secret, double rate, size_t n_clients)
{
    static client clients[CONNECTIONS];
    static double times[1 << 20];
    char request[800];
    result out = {0};
    struct epoll_event events[CONNECTIONS];
    const int poll = epoll_create1(EPOLL_CLOEXEC);
    const int size = snprintf(request, sizeof request,
                              "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                              "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                              secret, sizeof body_text - 1, body_text);
    for (size_t i = 0; i < n_clients; i++) {
        clients[i] = (client){.fd = connect_to(port)};
        (void)epoll_ctl(poll, EPOLL_CTL_ADD, clients[i].fd,
                        &(struct epoll_event){.events = EPOLLIN, .data.ptr = &clients[i]});
    }
    /* A timer, not epoll's milliseconds: waiting for the next due time must not cost a core. */
    const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    (void)epoll_ctl(poll, EPOLL_CTL_ADD, timer, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL});
    const double begun = rt_clock_seconds(), end = begun + seconds_each;
    double next = begun;
    for (double now = begun; now < end && out.count < sizeof times / sizeof times[0];
         now = rt_clock_seconds()) {
        for (size_t i = 0; i < n_clients && (rate <= 0 || next <= now); i++)
            if (!clients[i].busy) {
                out.lost += !ask(&clients[i], request, (size_t)size, rate > 0 ? next : now);
                next += rate > 0 ? 1 / rate : 0;
            }
        if (rate > 0) {
            const double wait = next > now ? next - now : 1e-6;
            (void)timerfd_settime(
                timer, 0, &(struct itimerspec){.it_value = {.tv_nsec = (long)(wait * 1e9) + 1}}, NULL);
        }
        const int n = epoll_wait(poll, events, CONNECTIONS, 100);
        for (int i = 0; i < n; i++) {
            client *c = events[i].data.ptr;
            uint64_t ticks;
            if (!c) {
                if (read(timer, &ticks, sizeof ticks) < 0)
                    continue;
                continue;
            }
            const int got = take(c);
            if (got == 0)
                continue;
            c->busy = false;
            if (got < 0) {
                out.lost++;
                (void)epoll_ctl(poll, EPOLL_CTL_DEL, c->fd, NULL);
                (void)close(c->fd);
                c->busy = true;
                continue;
            }
            times[out.count++] = rt_clock_seconds() - c->sent_s;
        }
    }
    out.rate = (double)out.count / (rt_clock_seconds() - begun);
    for (size_t i = 0; i < n_clients; i++)
        (void)close(clients[i].fd);
    (void)close(timer);
    (void)close(poll);
    if (out.count > 0) {
        qsort(times, out.count, sizeof *times, by_size);
        out.p50_ms = times[out.count / 2] * 1e3;
        out.p99_ms = times[out.count * 99 / 100] * 1e3;
    }
    return out;
}

static void show(const char *what, const result *r)
{
    (void)printf("%-34s %8.0f requests/s   p50 %7.3f ms   p99 %7.3f ms   %zu lost\n", what, r->rate,
                 r->p50_ms, r->p99_ms, r->lost);
}

/* ---- idle connections ---- */

static double resident_mb(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long pages[2] = {0};
    if (file) {
        if (fscanf(file, "%ld %ld", &pages[0], &pages[1]) != 2)
            pages[1] = 0;
        (void)fclose(file);
    }
    return (double)pages[1] * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* The clients are another process, so that their descriptors and memory are not the server's. */
static void idle_connections(int port)
{
    const double before = resident_mb();
    int done[2];
    char count[16] = "";
    if (pipe(done) != 0)
        return;
    const pid_t child = fork();
    if (child == 0) {
        int open = 0;
        while (open < IDLE && connect_to(port) >= 0)
            open++;
        (void)usleep(500000);
        const int size = snprintf(count, sizeof count, "%d", open);
        (void)!write(done[1], count, (size_t)size + 1);
        (void)usleep(1000000);
        _exit(0);
    }
    (void)close(done[1]);
    if (child > 0 && read(done[0], count, sizeof count - 1) > 0)
        (void)printf("%s idle connections %15s %8.1f MB resident (%.1f before)\n", count, "", resident_mb(),
                     before);
    (void)close(done[0]);
    if (child > 0)
        (void)waitpid(child, NULL, 0);
}

/* ---- */

static void *gateway_run(void *serve)
{
    rt_error err = {0};
    (void)rt_serve_run(serve, &err);
    return NULL;
}

static void make_key(rt_desk *desk, char *secret, size_t size)
{
    const rt_admin admin = {.role = RT_ROLE_FULL, .name = "bench"};
    char path[100];
    json_t *body =
        json_pack("{s:s, s:{s:I, s:I, s:{s:I}}}", "name", "bench", "limits", "rpm", (json_int_t)1000000000,
                  "tpm", (json_int_t)1000000000000, "budget", "amount", (json_int_t)1000000000000);
    rt_desk_reply account = rt_admin_call(desk, &admin, "POST", "/admin/v1/accounts", NULL, body);
    json_decref(body);
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/keys",
                   json_string_value(json_object_get(account.body, "id")));
    rt_desk_reply key = rt_admin_call(desk, &admin, "POST", path, NULL, NULL);
    (void)snprintf(secret, size, "%s", json_string_value(json_object_get(key.body, "secret")));
    json_decref(account.body);
    json_decref(key.body);
}

int main(int argc, char **argv)
{
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    const char *where = argc > 1 ? argv[1] : "bench-gateway.db";
    struct event_base *base = event_base_new();
    rt_http_server *stub = NULL;
    rt_gate *gate = NULL;
    rt_serve *serve = NULL;
    rt_error err = {0};
    char url[64], secret[100];
    int stub_port = 0;
    pthread_t stub_thread, gateway_thread;
    rt_http_options http = rt_http_options_default();
    const rt_gate_options gate_options = {.db = where};
    if (!base || rt_http_server_open(&stub, base, &http, &err) != RT_OK ||
        rt_http_listen(stub, "127.0.0.1", 0, &stub_handler, &stub_port, &err) != RT_OK ||
        rt_gate_open(&gate, &gate_options, &err) != RT_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    make_key(rt_gate_desk(gate), secret, sizeof secret);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", stub_port);
    const rt_upstream upstream = {.url = url, .weight = 1};
    rt_serve_options options = rt_serve_options_default();
    options.upstreams = &upstream;
    options.n_upstreams = 1;
    options.gate = gate;
    options.drain_s = 2;
    options.ledger_behind = argc < 3;
    if (rt_serve_open(&serve, &options, &err) != RT_OK ||
        pthread_create(&stub_thread, NULL, stub_run, base) != 0 ||
        pthread_create(&gateway_thread, NULL, gateway_run, serve) != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const result direct = load(stub_port, secret, RATE, 32),
                 through = load(rt_serve_port(serve), secret, RATE, 32);
    const result peak = load(rt_serve_port(serve), secret, 0, CONNECTIONS);
    show("straight to the stub", &direct);
    show("through the gateway", &through);
    (void)printf("%-34s %8s              p50 %7.3f ms   p99 %7.3f ms\n", "added", "",
                 through.p50_ms - direct.p50_ms, through.p99_ms - direct.p99_ms);
    show("as many as it can", &peak);
    idle_connections(rt_serve_port(serve));
    rt_serve_stop(serve);
    (void)pthread_join(gateway_thread, NULL);
    rt_serve_close(serve);
    rt_gate_close(gate);
    (void)event_base_loopbreak(base);
    (void)printf("the database is left at %s\n", where);
    return 0;
}
