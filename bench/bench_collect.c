/* bench/bench_collect.c - the bookkeeping of a collection: rows a second on one core, and memory over many
 * rows.
 *
 * usage: bench_collect [rows] [connections] [folder].  The teacher is a function in this process that answers
 * at once, out of order among `connections` requests; prompts are read from a file and rows are written,
 * flushed and journaled as ever.  User and system time are counted, so that a busy neighbour costs nothing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "outputs/collect.h"

typedef struct fake {
    size_t connections, reported, next_report;
    rt_teacher_info info;
} fake;

static double cpu_seconds(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + 1e-6 * (double)usage.ru_utime.tv_usec +
           (double)usage.ru_stime.tv_sec + 1e-6 * (double)usage.ru_stime.tv_usec;
}

static size_t resident_bytes(void)
{
    FILE *stream = fopen("/proc/self/statm", "r");
    unsigned long pages = 0, resident = 0;
    if (stream) {
        if (fscanf(stream, "%lu %lu", &pages, &resident) != 2)
            resident = 0;
        (void)fclose(stream);
    }
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static void answer(rt_answered *reply, uint64_t tag)
{
    rt_answered_reset(reply);
    rt_text_printf(&reply->text, "The answer is %llu, as is easy to see from what was asked.",
                   (unsigned long long)tag);
    (void)snprintf(reply->finish, sizeof reply->finish, "stop");
    (void)snprintf(reply->model, sizeof reply->model, "fake");
    reply->usage = (rt_usage){.prompt = 20, .completion = 14};
    reply->http_status = 200;
    reply->attempts = 1;
}

static rt_status fake_ask(void *self, const rt_ask_calls *calls, rt_error *err)
{
    fake *f = self;
    uint64_t *tags = calloc(f->connections, sizeof *tags);
    rt_rng rng = rt_rng_make(1, 2);
    rt_answered reply;
    rt_answered_init(&reply);
    size_t n = 0;
    rt_status status = RT_OK;
    for (bool ended = false; status == RT_OK && !(ended && n == 0);) {
        while (!ended && n < f->connections) {
            rt_ask ask;
            const rt_next next = calls->next(calls->context, &ask);
            if (next != RT_NEXT_TAKE) {
                ended = next == RT_NEXT_END || n == 0;
                break;
            }
            json_decref(ask.body);
            tags[n++] = ask.tag;
        }
        for (size_t i = 0; i < 16 && n; i++) {
            const size_t which = rt_rng_below(&rng, n);
            const uint64_t tag = tags[which];
            tags[which] = tags[--n];
            answer(&reply, tag);
            calls->done(calls->context, tag, &reply);
        }
        const rt_teacher_state state = {.in_flight = n, .limit = f->connections, .notice = ""};
        status = calls->tick(calls->context, &state, err);
    }
    rt_answered_deinit(&reply);
    free(tags);
    return status;
}

static const rt_teacher_info *fake_info(void *self) { return &((fake *)self)->info; }

static void fake_close(void *self) { (void)self; }

static rt_status report(void *context, const rt_collect_progress *progress, rt_error *err)
{
    fake *f = context;
    (void)err;
    if (progress->totals->rows < f->next_report)
        return RT_OK;
    (void)printf("%9llu rows  %6.1f MiB resident\n", (unsigned long long)progress->totals->rows,
                 (double)resident_bytes() / 1048576);
    f->next_report += f->reported;
    return RT_OK;
}

int main(int argc, char **argv)
{
    const size_t rows = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    fake f = {.connections = argc > 2 ? strtoul(argv[2], NULL, 10) : 256,
              .reported = rows / 10 ? rows / 10 : 1};
    const char *folder = argc > 3 ? argv[3] : ".";
    f.info = (rt_teacher_info){"remote", "fake", "http://fake/v1", 0, "", "", -1, "", "", false, ""};
    f.next_report = f.reported;
    char in[512], out[512];
    (void)snprintf(in, sizeof in, "%s/bench-prompts.jsonl", folder);
    (void)snprintf(out, sizeof out, "%s/bench-rows.jsonl", folder);
    FILE *stream = fopen(in, "w");
    for (size_t i = 0; stream && i < rows; i++)
        (void)fprintf(stream,
                      "{\"prompt\": \"Question %zu: what follows from it, and why is it so? Please say it in "
                      "one line.\"}\n",
                      i);
    if (!stream || fclose(stream) != 0)
        return 1;
    static const rt_teacher_verbs verbs = {fake_ask, NULL, fake_info, fake_close};
    rt_teacher *teacher = NULL;
    rt_error err = {0};
    json_t *params = json_pack("{s:i}", "max_tokens", 64), *facts = json_pack("{s:s}", "name", "fake");
    const char *inputs[] = {in};
    const rt_collect_options options = {.out = out,
                                        .inputs = {inputs, 1},
                                        .params = params,
                                        .settings = facts,
                                        .teacher = facts,
                                        .source = facts,
                                        .progress = report,
                                        .context = &f};
    rt_collect_report result = {0};
    rt_status status = rt_teacher_open(&teacher, &verbs, &f, &err);
    const double cpu = cpu_seconds(), wall = rt_clock_seconds();
    if (status == RT_OK)
        status = rt_collect(teacher, &options, &result, &err);
    const double cpu_s = cpu_seconds() - cpu, wall_s = rt_clock_seconds() - wall;
    if (status != RT_OK || result.totals.rows != rows) {
        (void)fprintf(stderr, "bench_collect: %s (the output must not be there yet)\n", err.text);
        return 1;
    }
    (void)printf("%zu rows, %zu connections: %.0f rows/s of one core's time, %.0f rows/s of wall time, peak "
                 "%.1f MiB\n",
                 rows, f.connections, (double)rows / cpu_s, (double)rows / wall_s,
                 (double)rt_peak_memory_bytes() / 1048576);
    rt_teacher_close(teacher);
    json_decref(params);
    json_decref(facts);
    return 0;
}
