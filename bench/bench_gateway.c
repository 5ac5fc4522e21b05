/* bench/bench_gateway.c - what the gateway adds: a stub upstream, the gateway with accounts, limits and
 * ledger, and a load program, three processes on loopback.
 *
 *   build/bench/bench_gateway [--folder DIR] [--durable] [--log] [--only PHASE] [--seconds S] [--requests N]
 *
 * --folder DIR   where the database lies, "." unless given; /dev/shm shows the program's own cost
 * --durable      an answer's last byte waits until its row is on the disk, as `retort serve` does by default
 * --log          with the access log, into a file of that folder
 * --only PHASE   paced, peak, idle, streams or growth; peak with --requests for a profiler
 *
 * paced: 1,000 requests a second at fixed times straight to the stub, then through the gateway: the
 * difference of the percentiles is what it adds.  peak: as many as 64 connections can ask for.  idle: 10,000
 * connections that were used once.  streams: 1,000 at once, five events a second each, and how late an event
 * is.  growth: memory after 10,000 requests and after 100,000 more.  Processor time is that of the gateway's
 * process, by thread, for one request: a busy machine disturbs it less than the time of day. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "account/admin.h"
#include "base/clock.h"
#include "base/text.h"
#include "gateway_load.h"
#include "serve/serve.h"

enum { PACED_RATE = 1000, PEAK_CONNECTIONS = 64, PACED_CONNECTIONS = 32, IDLE = 10000, STREAMS = 1000 };
enum { EVENTS_A_SECOND = 5, TICKS_A_SECOND = 50, TURNS = TICKS_A_SECOND / EVENTS_A_SECOND };

/* ---- the stub: a process of its own ---- */

typedef struct stub_stream {
    rt_http_exchange *x;
    size_t turn;
    struct stub_stream *prev, *next;
} stub_stream;
static stub_stream *stub_streams;
static size_t stub_count, stub_tick;

static bool stub_head(void *context, rt_http_exchange *x) { return context == NULL && x != NULL; }

static void stub_body(void *context, rt_http_exchange *x)
{
    (void)context;
    const rt_http_request *request = rt_http_request_of(x);
    stub_stream *stream = strstr(request->body, "\"stream\":true") ? calloc(1, sizeof *stream) : NULL;
    if (!stream) {
        rt_http_reply(x, 200, "application/json", load_answer, strlen(load_answer));
        return;
    }
    *stream = (stub_stream){.x = x, .turn = stub_count++ % TURNS, .next = stub_streams};
    if (stub_streams)
        stub_streams->prev = stream;
    stub_streams = stream;
    rt_http_set_user(x, stream);
    rt_http_begin(x, 200, "text/event-stream");
}

static void stub_fault(void *context, rt_http_exchange *x, const rt_http_fault *fault)
{
    (void)context;
    rt_http_reply(x, fault->status, "text/plain", "", 0);
}

static void stub_gone(void *context, rt_http_exchange *x)
{
    (void)context;
    stub_stream *stream = rt_http_user(x);
    if (stream) {
        *(stream->prev ? &stream->prev->next : &stub_streams) = stream->next;
        if (stream->next)
            stream->next->prev = stream->prev;
        free(stream);
    }
    rt_http_abort(x);
}

static void stub_nothing(void *context, rt_http_exchange *x)
{
    (void)context;
    (void)x;
}

static const rt_http_handler stub_handler = {stub_head,    stub_body,    stub_fault, stub_gone,
                                             stub_nothing, stub_nothing, NULL};

/* Every stream gets an event once in TURNS ticks. */
static void stub_on_tick(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    char event[400];
    stub_tick++;
    for (stub_stream *s = stub_streams; s; s = s->next)
        if (s->turn == stub_tick % TURNS) {
            const int size = snprintf(event, sizeof event, "%s%.0f%s", load_event_head,
                                      rt_clock_seconds() * 1e9, load_event_tail);
            rt_http_write(s->x, event, (size_t)size);
        }
}

static int start_stub(pid_t *process)
{
    int ends[2], port = 0;
    if (pipe(ends) != 0)
        return 0;
    *process = fork();
    if (*process == 0) {
        rt_error err = {0};
        struct event_base *base = event_base_new();
        rt_http_server *stub = NULL;
        const rt_http_options options = rt_http_options_default();
        struct event *tick = base ? event_new(base, -1, EV_PERSIST, stub_on_tick, NULL) : NULL;
        (void)signal(SIGPIPE, SIG_IGN);
        if (tick && rt_http_server_open(&stub, base, &options, &err) == RT_OK &&
            rt_http_listen(stub, "127.0.0.1", 0, &stub_handler, &port, &err) == RT_OK &&
            event_add(tick, &(struct timeval){.tv_usec = 1000000 / TICKS_A_SECOND}) == 0 &&
            write(ends[1], &port, sizeof port) == (ssize_t)sizeof port)
            (void)event_base_dispatch(base);
        _exit(1);
    }
    (void)close(ends[1]);
    if (*process < 0 || read(ends[0], &port, sizeof port) != (ssize_t)sizeof port)
        port = 0;
    (void)close(ends[0]);
    return port;
}

/* ---- the gateway: this process ---- */

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

static void write_log(void *context, const char *line) { (void)fprintf(context, "%s\n", line); }

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

typedef struct bench {
    load load;
    int stub_port;
    rt_serve *serve;
    pthread_t thread;
    char secret[100];
    double seconds;
    size_t requests;
    const char *folder;
} bench;

typedef struct cpu {
    double loop_s, all_s;
} cpu;

static cpu cpu_used(const bench *b)
{
    clockid_t clock;
    struct timespec loop = {0}, all = {0};
    if (pthread_getcpuclockid(b->thread, &clock) == 0)
        (void)clock_gettime(clock, &loop);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &all);
    return (cpu){(double)loop.tv_sec + (double)loop.tv_nsec * 1e-9,
                 (double)all.tv_sec + (double)all.tv_nsec * 1e-9};
}

/* ---- phases ---- */

static load_order order_of(const bench *b, load_kind kind, int port, size_t connections)
{
    load_order order = {
        .kind = kind, .port = port, .rate = PACED_RATE, .seconds = b->seconds, .connections = connections};
    (void)snprintf(order.secret, sizeof order.secret, "%s", b->secret);
    return order;
}

static load_result carry_out(const bench *b, const load_order *order)
{
    load_result result = {0};
    if (!load_give(&b->load, order) || !load_wait(&b->load, &result))
        (void)fprintf(stderr, "the load program has ended\n");
    return result;
}

static void show(const char *what, const load_result *r)
{
    (void)printf("%-32s %8.0f /s   p50 %7.3f ms   p99 %7.3f ms   %zu lost\n", what, r->rate, r->p50_ms,
                 r->p99_ms, r->lost);
}

static void show_cpu(const load_result *r, cpu before, cpu after)
{
    const double n = r->count ? (double)r->count : 1, loop = after.loop_s - before.loop_s;
    (void)printf("%-32s %8.1f us of the loop, %.1f of the ledger, %.1f of the load program\n",
                 "  processor time a request", loop / n * 1e6, (after.all_s - before.all_s - loop) / n * 1e6,
                 r->cpu_s / n * 1e6);
}

static void paced(const bench *b)
{
    const load_order to_stub = order_of(b, LOAD_PACED, b->stub_port, PACED_CONNECTIONS),
                     to_gateway = order_of(b, LOAD_PACED, rt_serve_port(b->serve), PACED_CONNECTIONS);
    const load_result direct = carry_out(b, &to_stub);
    const cpu before = cpu_used(b);
    const load_result through = carry_out(b, &to_gateway);
    show("straight to the stub", &direct);
    show("through the gateway", &through);
    show_cpu(&through, before, cpu_used(b));
    (void)printf("%-32s %8s      p50 %7.3f ms   p99 %7.3f ms   (<= 0.2, <= 1)\n", "added", "",
                 through.p50_ms - direct.p50_ms, through.p99_ms - direct.p99_ms);
}

static void peak(const bench *b)
{
    load_order order = order_of(b, LOAD_CLOSED, rt_serve_port(b->serve), PEAK_CONNECTIONS);
    order.requests = b->requests;
    order.seconds = b->requests ? 0 : b->seconds;
    const cpu before = cpu_used(b);
    const load_result result = carry_out(b, &order);
    show("as many as it can (>= 10,000)", &result);
    show_cpu(&result, before, cpu_used(b));
}

static void idle(const bench *b)
{
    load_order order = order_of(b, LOAD_IDLE, rt_serve_port(b->serve), IDLE);
    order.requests = IDLE; /* all of them, however long it takes */
    order.seconds = 0;
    const double before = resident_mb();
    const load_result result = carry_out(b, &order);
    (void)printf("%-32s %8zu      %.1f MB resident, %.1f before (<= 200)\n", "idle connections", result.count,
                 resident_mb(), before);
}

static void streams(const bench *b)
{
    const load_order to_stub = order_of(b, LOAD_STREAMS, b->stub_port, STREAMS),
                     to_gateway = order_of(b, LOAD_STREAMS, rt_serve_port(b->serve), STREAMS);
    const load_result direct = carry_out(b, &to_stub);
    const double before = resident_mb();
    load_result through = {0};
    if (!load_give(&b->load, &to_gateway))
        return;
    (void)usleep((useconds_t)(b->seconds * 0.8e6));
    const double during = resident_mb();
    (void)load_wait(&b->load, &through);
    show("events straight from the stub", &direct);
    show("events through the gateway", &through);
    (void)printf("%-32s %8s      p50 %7.3f ms   p99 %7.3f ms\n", "added", "", through.p50_ms - direct.p50_ms,
                 through.p99_ms - direct.p99_ms);
    (void)printf(
        "%-32s %8zu      %.1f MB resident, %.1f before: %.1f KiB a stream (30 MiB and 64 KiB each)\n",
        "streams at once", through.connections, during, before, (during - before) * 1e6 / 1024 / STREAMS);
}

static void growth(const bench *b)
{
    load_order order = order_of(b, LOAD_CLOSED, rt_serve_port(b->serve), PEAK_CONNECTIONS);
    order.seconds = 0;
    order.requests = 10000;
    (void)carry_out(b, &order);
    const double before = resident_mb();
    order.requests = 100000;
    const load_result result = carry_out(b, &order);
    (void)printf("%-32s %8zu      %.1f MB resident, %.1f after the first 10,000\n", "after more requests",
                 result.count, resident_mb(), before);
}

/* What the disk allows: a page appended and flushed, as a commit does it. */
static void flushes(const char *folder)
{
    enum { COUNT = 50, PAGE = 4096 };
    static const char page[PAGE];
    rt_text path = {0};
    rt_text_printf(&path, "%s/bench-flush", folder);
    const int fd = path.failed ? -1 : open(path.data, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const double begun = rt_clock_seconds();
    bool good = fd >= 0;
    for (int i = 0; i < COUNT && good; i++)
        good = write(fd, page, PAGE) == PAGE && fdatasync(fd) == 0;
    if (good)
        (void)printf("%-32s %8.3f ms a flush, on its own\n", "the disk's limit",
                     (rt_clock_seconds() - begun) / COUNT * 1e3);
    if (fd >= 0)
        (void)close(fd);
    if (path.data)
        (void)unlink(path.data);
    rt_text_deinit(&path);
}

/* ---- */

typedef struct settings {
    const char *folder, *only;
    bool durable, log;
    double seconds;
    size_t requests;
} settings;

static bool read_settings(settings *set, int argc, char **argv)
{
    *set = (settings){.folder = ".", .only = "", .seconds = 5};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--durable") == 0)
            set->durable = true;
        else if (strcmp(argv[i], "--log") == 0)
            set->log = true;
        else if (!value)
            return false;
        else if (strcmp(argv[i], "--folder") == 0)
            set->folder = argv[++i];
        else if (strcmp(argv[i], "--only") == 0)
            set->only = argv[++i];
        else if (strcmp(argv[i], "--seconds") == 0)
            set->seconds = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--requests") == 0)
            set->requests = strtoull(argv[++i], NULL, 10);
        else
            return false;
    }
    return set->seconds > 0;
}

static void run_phases(const bench *b, const settings *set)
{
    static const struct {
        const char *name;
        void (*run)(const bench *b);
    } phases[] = {{"paced", paced}, {"peak", peak}, {"streams", streams}, {"growth", growth}, {"idle", idle}};
    if (set->durable)
        flushes(set->folder);
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++)
        if (!*set->only || strcmp(set->only, phases[i].name) == 0) {
            phases[i].run(b);
            (void)fflush(stdout);
        }
}

static void remove_files(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm", ".server", ".secrets", ".log"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        rt_text name = {0};
        rt_text_printf(&name, "%s%s", path, ends[i]);
        if (name.data)
            (void)unlink(name.data);
        rt_text_deinit(&name);
    }
}

static bool open_gateway(bench *b, rt_gate **gate, FILE **log, const settings *set, const char *path,
                         rt_error *err)
{
    static char url[64];
    static rt_upstream upstream;
    rt_text log_path = {0};
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", b->stub_port);
    upstream = (rt_upstream){.url = url, .weight = 1};
    const rt_gate_options gate_options = {.db = path};
    rt_serve_options options = rt_serve_options_default();
    if (rt_gate_open(gate, &gate_options, err) != RT_OK)
        return false;
    make_key(rt_gate_desk(*gate), b->secret, sizeof b->secret);
    options.upstreams = &upstream;
    options.n_upstreams = 1;
    options.gate = *gate;
    options.drain_s = 2;
    options.ledger_behind = !set->durable;
    rt_text_printf(&log_path, "%s.log", path);
    *log = set->log && log_path.data ? fopen(log_path.data, "we") : NULL;
    rt_text_deinit(&log_path);
    options.log = *log ? write_log : NULL;
    options.context = *log;
    return rt_serve_open(&b->serve, &options, err) == RT_OK &&
           pthread_create(&b->thread, NULL, gateway_run, b->serve) == 0;
}

int main(int argc, char **argv)
{
    settings set;
    struct rlimit limit = {0};
    rt_error err = {0};
    rt_gate *gate = NULL;
    FILE *log = NULL;
    rt_text path = {0};
    bench b = {0};
    pid_t stub = -1;
    if (!read_settings(&set, argc, argv)) {
        (void)fprintf(stderr, "usage: bench_gateway [--folder DIR] [--durable] [--log] [--only PHASE] "
                              "[--seconds S] [--requests N]\n");
        return 2;
    }
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    b.seconds = set.seconds;
    b.requests = set.requests;
    rt_text_printf(&path, "%s/bench-gateway.db", set.folder);
    remove_files(path.data);
    b.stub_port = start_stub(&stub);
    const bool good =
        b.stub_port && load_start(&b.load) && open_gateway(&b, &gate, &log, &set, path.data, &err);
    if (good) {
        run_phases(&b, &set);
        load_stop(&b.load);
        rt_serve_stop(b.serve);
        (void)pthread_join(b.thread, NULL);
    } else {
        (void)fprintf(stderr, "cannot start: %s\n", err.text);
    }
    rt_serve_close(b.serve);
    rt_gate_close(gate);
    if (log)
        (void)fclose(log);
    if (stub > 0) {
        (void)kill(stub, SIGKILL);
        (void)waitpid(stub, NULL, 0);
    }
    remove_files(path.data);
    rt_text_deinit(&path);
    return good ? 0 : 1;
}
