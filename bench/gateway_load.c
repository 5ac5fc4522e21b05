/* bench/gateway_load.c - see gateway_load.h. */
#include "gateway_load.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

const char load_event_head[] =
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,"
    "\"delta\":{\"content\":\"";
const char load_event_tail[] = "\"},\"finish_reason\":null}]}\n\n";
const char load_answer[] =
    "{\"id\":\"1\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{"
    "\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{"
    "\"prompt_tokens\":11,\"completion_tokens\":5,\"total_tokens\":16}}";

enum { TIMES_MAX = 1 << 20, EVENTS = 256, ANSWER_MAX = 8192 };

typedef struct client {
    int fd;
    bool busy;
    double due_s;
    size_t got;
    char *in; /* [ANSWER_MAX] */
} client;

typedef struct crowd { /* the connections of one order */
    const load_order *order;
    client *clients;
    size_t n;
    int poll, timer;
    char request[1024];
    size_t request_size;
    double *times; /* [TIMES_MAX], seconds */
    load_result result;
} crowd;

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

static size_t write_request(const load_order *order, char *out, size_t size)
{
    if (order->kind == LOAD_IDLE)
        return (size_t)snprintf(out, size, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    const char *body = order->kind == LOAD_STREAMS
                           ? "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],"
                             "\"max_tokens\":16,\"stream\":true}"
                           : "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],"
                             "\"max_tokens\":16}";
    return (size_t)snprintf(out, size,
                            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                            order->secret, strlen(body), body);
}

static void ask(crowd *c, client *who, double due_s)
{
    who->busy = true;
    who->due_s = due_s;
    who->got = 0;
    if (send(who->fd, c->request, c->request_size, MSG_NOSIGNAL) != (ssize_t)c->request_size)
        c->result.lost++;
}

static void note(crowd *c, double seconds)
{
    if (c->result.count < TIMES_MAX)
        c->times[c->result.count++] = seconds;
}

static void drop(crowd *c, client *who)
{
    c->result.lost++;
    (void)epoll_ctl(c->poll, EPOLL_CTL_DEL, who->fd, NULL);
    (void)close(who->fd);
    who->fd = -1;
    who->busy = true;
}

/* Whole events in the buffer: the latency of each, by its stamp. */
static void take_events(crowd *c, client *who, double now_s)
{
    char *at = who->in;
    for (char *stamp; (stamp = strstr(at, load_event_head)) != NULL;) {
        stamp += strlen(load_event_head);
        char *end = strstr(stamp, load_event_tail);
        if (!end)
            break;
        note(c, now_s - (double)strtoull(stamp, NULL, 10) * 1e-9);
        at = end + strlen(load_event_tail);
    }
    who->got -= (size_t)(at - who->in);
    memmove(who->in, at, who->got + 1);
}

static void take(crowd *c, client *who)
{
    const ssize_t n = recv(who->fd, who->in + who->got, ANSWER_MAX - 1 - who->got, 0);
    if (n <= 0) {
        drop(c, who);
        return;
    }
    const double now_s = rt_clock_seconds();
    who->got += (size_t)n;
    who->in[who->got] = '\0';
    if (c->order->kind == LOAD_STREAMS) {
        take_events(c, who, now_s);
        return;
    }
    const char *end = strstr(who->in, "\r\n\r\n");
    if (!end)
        return;
    if (strncmp(who->in, "HTTP/1.1 200", 12) != 0) {
        drop(c, who);
        return;
    }
    const size_t body = c->order->kind == LOAD_IDLE ? strlen("{\"status\":\"ok\"}") : strlen(load_answer);
    if (who->got < (size_t)(end + 4 - who->in) + body)
        return;
    who->busy = false;
    note(c, now_s - who->due_s);
}

/* A timer, not epoll's milliseconds: waiting for the next due time must not cost a core. */
static void wait_until(const crowd *c, double next_s, double now_s)
{
    const double wait = next_s > now_s ? next_s - now_s : 1e-6;
    (void)timerfd_settime(
        c->timer, 0,
        &(struct itimerspec){
            .it_value = {.tv_sec = (time_t)wait, .tv_nsec = (long)((wait - (double)(time_t)wait) * 1e9) + 1}},
        NULL);
}

static void poll_once(crowd *c, int wait_ms)
{
    struct epoll_event events[EVENTS];
    const int n = epoll_wait(c->poll, events, EVENTS, wait_ms);
    for (int i = 0; i < n; i++) {
        uint64_t ticks;
        if (events[i].data.ptr)
            take(c, events[i].data.ptr);
        else
            (void)!read(c->timer, &ticks, sizeof ticks);
    }
}

static void drive(crowd *c)
{
    const load_order *o = c->order;
    const bool paced = o->kind == LOAD_PACED, repeats = paced || o->kind == LOAD_CLOSED;
    const double begun = rt_clock_seconds(), end = begun + (o->seconds > 0 ? o->seconds : 1e9);
    double now = begun, next = begun;
    for (size_t i = 0; i < c->n && !repeats; i++)
        ask(c, &c->clients[i], now);
    for (; now < end && (o->requests == 0 || c->result.count + c->result.lost < o->requests);
         now = rt_clock_seconds()) {
        for (size_t i = 0; i < c->n && repeats && (!paced || next <= now); i++)
            if (!c->clients[i].busy) {
                ask(c, &c->clients[i], paced ? next : now);
                next += paced ? 1 / o->rate : 0;
            }
        if (paced)
            wait_until(c, next, now);
        poll_once(c, 100);
    }
    c->result.rate = (double)c->result.count / (rt_clock_seconds() - begun);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void close_all(crowd *c)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->clients[i].fd >= 0)
            (void)close(c->clients[i].fd);
        free(c->clients[i].in);
    }
    (void)close(c->poll);
    (void)close(c->timer);
    free(c->clients);
    c->clients = NULL;
    c->n = 0;
}

static void carry_out(crowd *c)
{
    const load_order *o = c->order;
    c->clients = calloc(o->connections, sizeof *c->clients);
    c->poll = epoll_create1(EPOLL_CLOEXEC);
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    (void)epoll_ctl(c->poll, EPOLL_CTL_ADD, c->timer, &(struct epoll_event){.events = EPOLLIN});
    c->request_size = write_request(o, c->request, sizeof c->request);
    for (; c->clients && c->n < o->connections; c->n++) {
        client *who = &c->clients[c->n];
        who->fd = connect_to(o->port);
        who->in = malloc(ANSWER_MAX);
        if (who->fd < 0 || !who->in)
            break;
        (void)epoll_ctl(c->poll, EPOLL_CTL_ADD, who->fd,
                        &(struct epoll_event){.events = EPOLLIN, .data.ptr = who});
    }
    c->result.connections = c->n;
    drive(c);
    if (c->result.count > 0) {
        qsort(c->times, c->result.count, sizeof *c->times, by_size);
        c->result.p50_ms = c->times[c->result.count / 2] * 1e3;
        c->result.p99_ms = c->times[c->result.count * 99 / 100] * 1e3;
    }
}

static double own_cpu_s(void)
{
    struct rusage used;
    (void)getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void obey(int fd)
{
    load_order order;
    crowd c = {.poll = -1, .timer = -1, .times = malloc(TIMES_MAX * sizeof(double))};
    while (c.times && read(fd, &order, sizeof order) == (ssize_t)sizeof order) {
        close_all(&c);
        const double cpu_s = own_cpu_s();
        c = (crowd){.order = &order, .times = c.times};
        carry_out(&c);
        c.result.cpu_s = own_cpu_s() - cpu_s;
        if (order.kind != LOAD_IDLE) { /* idle ones stay until the next order */
            close_all(&c);
            c.poll = c.timer = -1;
        }
        if (write(fd, &c.result, sizeof c.result) != (ssize_t)sizeof c.result)
            break;
    }
}

bool load_start(load *l)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    l->fd = pair[0];
    l->process = fork();
    if (l->process == 0) {
        (void)close(pair[0]);
        obey(pair[1]);
        _exit(0);
    }
    (void)close(pair[1]);
    return l->process > 0;
}

void load_stop(load *l)
{
    (void)close(l->fd);
    if (l->process > 0)
        (void)waitpid(l->process, NULL, 0);
}

bool load_give(const load *l, const load_order *order)
{
    return write(l->fd, order, sizeof *order) == (ssize_t)sizeof *order;
}

bool load_wait(const load *l, load_result *result)
{
    return read(l->fd, result, sizeof *result) == (ssize_t)sizeof *result;
}
