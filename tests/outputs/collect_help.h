/* tests/outputs/collect_help.h - a collection from the server that fails on purpose, and what its rows must
 * be.
 *
 * The teacher is the real remote one; the server (tests/teacher/fault_server.h) counts what it is asked.  A
 * run that is to be killed is a process of its own. */
#ifndef TESTS_OUTPUTS_COLLECT_HELP_H
#define TESTS_OUTPUTS_COLLECT_HELP_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "outputs/collect.h"
#include "teacher/batch.h"
#include "teacher/fault_server.h"

static fault_server server;
static char folder[64];

typedef struct setting {
    const char *out, *in, *model, *params, *cache;
    size_t concurrency, logprobs, samples, attempts, stop_after;
    bool stream, token_ids, batch, new_run, retry_failed, ordered, capped;
    rt_on_length on_length;
    double near, money_max, patience_s;
    double (*clock)(void *context);
    rt_collect_report report;
    rt_error err;
    uint64_t rows_seen;
} setting;

static inline const char *in_folder(const char *name)
{
    static char names[8][128];
    static size_t next;
    char *out = names[next++ % 8];
    (void)snprintf(out, 128, "%s/%s", folder, name);
    return out;
}

static inline rt_status on_progress(void *context, const rt_collect_progress *progress, rt_error *err)
{
    setting *s = context;
    s->rows_seen = progress->totals->rows;
    if (s->stop_after && progress->totals->rows >= s->stop_after)
        return rt_error_set(err, RT_STOPPED, "enough");
    return RT_OK;
}

static inline rt_status run(setting *s)
{
    const rt_remote_options remote = {.url = server.url,
                                      .model = s->model ? s->model : "m",
                                      .stream = s->stream,
                                      .keep_raw = s->batch,
                                      .token_ids = s->token_ids,
                                      .top_logprobs = s->logprobs,
                                      .attempts = s->attempts,
                                      .concurrency = s->concurrency,
                                      .concurrency_max = s->concurrency ? s->concurrency : 32,
                                      .patience_s = s->patience_s,
                                      .n_vocab = 50000,
                                      .clock = s->clock,
                                      .seed = 5};
    rt_teacher *teacher = NULL;
    s->err = (rt_error){0};
    if (rt_remote_open(&teacher, &remote, &s->err) != RT_OK)
        return s->err.status;
    json_t *params = json_loads(s->params ? s->params : "{\"max_tokens\": 20}", 0, NULL);
    json_t *facts = json_pack("{s:s, s:s}", "kind", "remote", "name", remote.model);
    json_t *identity = json_pack("{s:O, s:s}", "params", params, "model", remote.model);
    json_t *source = json_pack("{s:s}", "teacher", remote.model);
    const char *inputs[] = {s->in};
    rt_collect_options options = {.out = s->out,
                                  .inputs = {inputs, 1},
                                  .params = params,
                                  .settings = identity,
                                  .teacher = facts,
                                  .source = source,
                                  .samples = s->samples,
                                  .batch = s->batch,
                                  .new_run = s->new_run,
                                  .retry_failed = s->retry_failed,
                                  .ordered = s->ordered,
                                  .on_length = s->on_length,
                                  .near = s->near,
                                  .cache = s->cache,
                                  .progress = on_progress,
                                  .context = s};
    if (s->money_max > 0) {
        options.price =
            (rt_price){.input = 1000, .cached = 1000, .output = 1000, .currency = "usd", .known = true};
        options.spend_max = (rt_spend_max){.money = s->money_max, .currency = "usd"};
    }
    const rt_status status = rt_collect(teacher, &options, &s->report, &s->err);
    json_decref(params);
    json_decref(facts);
    json_decref(identity);
    json_decref(source);
    rt_teacher_close(teacher);
    return status;
}

static inline void must_run(setting *s)
{
    const rt_status status = run(s);
    if (status != RT_OK)
        print_error("%s\n", s->err.text);
    assert_int_equal(status, RT_OK);
}

static inline const char *make_prompts(const char *name, unsigned first, unsigned count)
{
    const char *path = in_folder(name);
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    for (unsigned i = first; i < first + count; i++)
        (void)fprintf(stream, "{\"prompt\": \"p%u what is it?\"}\n", i);
    assert_int_equal(fclose(stream), 0);
    return path;
}

/* Reads the rows: each whole, with the answer that its prompt has; counts by prompt. */
static inline unsigned read_rows(const char *path, unsigned char *seen)
{
    char *data = NULL;
    size_t size = 0;
    rt_error err = {0};
    unsigned rows = 0;
    memset(seen, 0, FAULT_PROMPTS_MAX);
    assert_int_equal(rt_file_read(&data, &size, path, (size_t)1 << 30, &err), RT_OK);
    for (char *line = data, *end; line < data + size; line = end + 1, rows++) {
        end = memchr(line, '\n', size - (size_t)(line - data));
        assert_non_null(end);
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(row);
        const json_t *request = json_object_get(row, "request");
        if (request) {
            const char *prompt, *said = json_string_value(json_object_get(row, "response"));
            const unsigned number = fault_number(request, &prompt);
            char answer[200];
            fault_answer(answer, sizeof answer, prompt);
            assert_string_equal(said, answer);
            seen[number]++;
        }
        json_decref(row);
    }
    free(data);
    return rows;
}

static inline void assert_each_once(const char *path, unsigned first, unsigned count)
{
    static unsigned char seen[FAULT_PROMPTS_MAX];
    assert_int_equal(read_rows(path, seen), count);
    for (unsigned i = first; i < first + count; i++)
        assert_int_equal(seen[i], 1);
}

static inline int set_up(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/retort-collect-XXXXXX");
    if (!mkdtemp(folder) || !fault_start(&server, server.port))
        return -1;
    memset(server.plan, 0, sizeof *server.plan);
    memset(server.counts, 0, sizeof *server.counts);
    memset(server.files, 0, sizeof *server.files);
    server.plan->seed = 1;
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    fault_stop(&server);
    server.port = 0;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static inline unsigned total(const atomic_uint *counts)
{
    unsigned sum = 0;
    for (size_t i = 0; i < FAULT_PROMPTS_MAX; i++)
        sum += counts[i];
    return sum;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
