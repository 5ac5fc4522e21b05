/* tests/outputs/test_collect.c - every prompt gets its row exactly once, whatever the server and the machine
 * do.
 *
 * The teacher is the real remote one, the server fails on purpose (tests/teacher/fault_server.h) and counts
 * what it is asked.  A run that is to be killed is a process of its own. */
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
    const char *out, *in, *model, *params;
    size_t concurrency, logprobs, samples, attempts, stop_after;
    bool stream, token_ids, batch, new_run, retry_failed, ordered, capped;
    rt_on_length on_length;
    double near, money_max, patience_s;
    double (*clock)(void *context);
    rt_collect_report report;
    rt_error err;
    uint64_t rows_seen;
} setting;

static const char *in_folder(const char *name)
{
    static char names[8][128];
    static size_t next;
    char *out = names[next++ % 8];
    (void)snprintf(out, 128, "%s/%s", folder, name);
    return out;
}

static rt_status on_progress(void *context, const rt_collect_progress *progress, rt_error *err)
{
    setting *s = context;
    s->rows_seen = progress->totals->rows;
    if (s->stop_after && progress->totals->rows >= s->stop_after)
        return rt_error_set(err, RT_STOPPED, "enough");
    return RT_OK;
}

static rt_status run(setting *s)
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

static void must_run(setting *s)
{
    if (run(s) != RT_OK)
        print_error("%s\n", s->err.text);
    assert_int_equal(s->err.status, RT_OK);
}

static const char *make_prompts(const char *name, unsigned first, unsigned count)
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
static unsigned read_rows(const char *path, unsigned char *seen)
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

static void assert_each_once(const char *path, unsigned first, unsigned count)
{
    static unsigned char seen[FAULT_PROMPTS_MAX];
    assert_int_equal(read_rows(path, seen), count);
    for (unsigned i = first; i < first + count; i++)
        assert_int_equal(seen[i], 1);
}

static int set_up(void **state)
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

static int tear_down(void **state)
{
    (void)state;
    fault_stop(&server);
    server.port = 0;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* ---- faults ---- */

static void every_prompt_gets_one_row_through_every_kind_of_fault(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.limited = 60,
                                .retry_after_ms = 20,
                                .status_500 = 40,
                                .reset = 40,
                                .reset_before = 30,
                                .drip = 20,
                                .bad_json = 40,
                                .html = 20,
                                .seed = 3};
    setting s = {.in = make_prompts("in.jsonl", 1, 300), .out = in_folder("rows.jsonl"), .attempts = 30};
    must_run(&s);
    assert_each_once(s.out, 1, 300);
    assert_true(s.report.retries > 0 && s.report.complete);
    for (unsigned i = 1; i <= 300; i++)
        assert_int_equal(server.counts->good[i], 1);
}

static void streams_that_lie_are_asked_again_and_the_text_is_right(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.twice = 200, .no_done = 100, .reset = 50, .seed = 4};
    setting s = {.in = make_prompts("in.jsonl", 1, 150),
                 .out = in_folder("rows.jsonl"),
                 .stream = true,
                 .attempts = 30};
    must_run(&s);
    assert_each_once(s.out, 1, 150);
}

static void a_storm_of_429_pauses_the_host_and_costs_no_attempt(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.limited = 500, .retry_after_ms = 5, .seed = 5};
    setting s = {.in = make_prompts("in.jsonl", 1, 15), .out = in_folder("rows.jsonl"), .attempts = 2};
    must_run(&s);
    assert_each_once(s.out, 1, 15);
    assert_true(s.report.limited > 5);
}

static void announced_limits_are_kept_without_running_into_them(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.window = 20, .window_ms = 300, .latency_ms = 2};
    setting s = {.in = make_prompts("in.jsonl", 1, 100), .out = in_folder("rows.jsonl"), .concurrency = 4};
    must_run(&s);
    assert_each_once(s.out, 1, 100);
    assert_true(server.counts->limited <= 4); /* those in flight when the first answer of a window comes */
}

static void what_fails_for_good_is_rejected_with_its_reason_and_can_be_asked_again(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.status_500 = 1000};
    setting s = {.in = make_prompts("in.jsonl", 1, 3), .out = in_folder("rows.jsonl"), .attempts = 2};
    must_run(&s);
    assert_int_equal(s.report.totals.rejected, 3);
    for (unsigned i = 1; i <= 3; i++)
        assert_int_equal(server.counts->asked[i], 2);
    char *data = NULL;
    size_t size;
    assert_int_equal(rt_file_read(&data, &size, in_folder("rows.rejected.jsonl"), 1 << 20, &s.err), RT_OK);
    assert_non_null(strstr(data, "\"message\":\"broken\""));
    free(data);
    *server.plan = (fault_plan){0};
    must_run(&s); /* final: not asked again */
    assert_int_equal(server.counts->asked[1], 2);
    s.retry_failed = true;
    must_run(&s);
    assert_each_once(s.out, 1, 3);
}

static void a_refused_key_a_missing_model_and_a_used_up_quota_stop_the_run(void **state)
{
    (void)state;
    static const struct {
        int http;
        const char *code;
        rt_status status;
        const char *words;
    } cases[] = {{401, "invalid_api_key", RT_FORBIDDEN, "the key is refused"},
                 {404, "model_not_found", RT_NOT_FOUND, "the model is not there"},
                 {429, "insufficient_quota", RT_STOPPED, "the quota is used up"},
                 {402, "payment_required", RT_STOPPED, "the quota is used up"}};
    setting s = {.in = make_prompts("in.jsonl", 1, 50), .out = in_folder("rows.jsonl")};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        *server.plan = (fault_plan){.always = cases[i].http, .code = cases[i].code};
        assert_int_equal(run(&s), cases[i].status);
        assert_non_null(strstr(s.err.text, cases[i].words));
        assert_true(server.counts->requests < 20 * (i + 1));
    }
    *server.plan = (fault_plan){0};
    must_run(&s);
    assert_each_once(s.out, 1, 50);
}

static void other_refusals_are_the_rows_answer_and_are_not_tried_again(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.always = 400, .code = "invalid_value"};
    setting s = {.in = make_prompts("in.jsonl", 1, 5), .out = in_folder("rows.jsonl")};
    must_run(&s);
    assert_int_equal(s.report.totals.rejected, 5);
    assert_int_equal(server.counts->requests, 5);
}

static void a_server_that_was_restarted_is_waited_for(void **state)
{
    (void)state;
    server.plan->latency_ms = 5;
    const int port = server.port;
    setting s = {.in = make_prompts("in.jsonl", 1, 400),
                 .out = in_folder("rows.jsonl"),
                 .concurrency = 8,
                 .attempts = 30};
    const pid_t child = fork();
    if (child == 0)
        _exit(run(&s) == RT_OK ? 0 : 1);
    for (int i = 0; i < 5; i++) {
        (void)usleep(60000);
        fault_stop(&server);
        (void)usleep(30000);
        assert_true(fault_start(&server, port));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_each_once(s.out, 1, 400);
}

static double jumping_clock(void *context)
{
    static unsigned calls;
    static double offset;
    (void)context;
    if (++calls % 50 == 0)
        offset += calls % 100 == 0 ? -3600 : 7200;
    return rt_clock_seconds() + offset;
}

static void a_clock_that_jumps_neither_hangs_nor_hurries(void **state)
{
    (void)state;
    *server.plan = (fault_plan){.limited = 100, .retry_after_ms = 10, .status_500 = 50, .seed = 9};
    setting s = {.in = make_prompts("in.jsonl", 1, 100),
                 .out = in_folder("rows.jsonl"),
                 .attempts = 30,
                 .clock = jumping_clock};
    must_run(&s);
    assert_each_once(s.out, 1, 100);
}

static void a_server_out_of_reach_stops_the_run_so_that_it_can_go_on(void **state)
{
    (void)state;
    const int port = server.port;
    fault_stop(&server);
    setting s = {.in = make_prompts("in.jsonl", 1, 5), .out = in_folder("rows.jsonl"), .attempts = 2};
    assert_int_equal(run(&s), RT_STOPPED);
    assert_non_null(strstr(s.err.text, "cannot be reached"));
    assert_true(fault_start(&server, port));
    must_run(&s);
    assert_each_once(s.out, 1, 5);
}

/* ---- exactly once ---- */

static unsigned total(const atomic_uint *counts)
{
    unsigned sum = 0;
    for (size_t i = 0; i < FAULT_PROMPTS_MAX; i++)
        sum += counts[i];
    return sum;
}

static void killed_at_random_it_loses_no_row_and_doubles_none(void **state)
{
    (void)state;
    enum { ROWS = 600, AT_ONCE = 8, KILLS_MAX = 60 };
    *server.plan = (fault_plan){.latency_ms = 4, .limited = 20, .retry_after_ms = 5, .reset = 20, .seed = 6};
    setting s = {.in = make_prompts("in.jsonl", 1, ROWS),
                 .out = in_folder("rows.jsonl"),
                 .concurrency = AT_ONCE,
                 .attempts = 30};
    unsigned kills = 0;
    for (bool finished = false; !finished && kills < KILLS_MAX;) {
        const pid_t child = fork();
        if (child == 0)
            _exit(run(&s) == RT_OK ? 0 : 1);
        (void)usleep(10000 + (unsigned)(rt_hash64(&kills, sizeof kills, 3) % 60000));
        (void)kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        finished = WIFEXITED(status);
        if (finished)
            assert_int_equal(WEXITSTATUS(status), 0);
        kills += !finished;
    }
    must_run(&s);
    assert_each_once(s.out, 1, ROWS);
    assert_true(kills >= 5);
    /* Nothing was answered twice but what was in flight when a process was killed. */
    assert_true(total(server.counts->good) <= ROWS + kills * AT_ONCE);
    const unsigned requests = server.counts->requests;
    must_run(&s);
    assert_int_equal(server.counts->requests, requests);
}

static void copy_file(const char *from, const char *to, size_t size)
{
    char *data = NULL;
    size_t all;
    rt_error err = {0};
    assert_int_equal(rt_file_read(&data, &all, from, 1 << 26, &err), RT_OK);
    FILE *stream = fopen(to, "w");
    assert_int_equal(fwrite(data, 1, size < all ? size : all, stream), size < all ? size : all);
    assert_int_equal(fclose(stream), 0);
    free(data);
}

static size_t size_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (size_t)info.st_size : 0;
}

static void cut_at_any_byte_the_files_are_mended_and_only_what_is_gone_is_asked(void **state)
{
    (void)state;
    enum { ROWS = 30 };
    setting s = {.in = make_prompts("in.jsonl", 1, ROWS), .out = in_folder("rows.jsonl")};
    char journal[128], kept[128], kept_journal[128];
    (void)snprintf(journal, sizeof journal, "%s.journal", s.out);
    (void)snprintf(kept, sizeof kept, "%s.kept", s.out);
    (void)snprintf(kept_journal, sizeof kept_journal, "%s.journal.kept", s.out);
    must_run(&s);
    copy_file(s.out, kept, SIZE_MAX);
    copy_file(journal, kept_journal, SIZE_MAX);
    const size_t rows_size = size_of(kept), journal_size = size_of(kept_journal);
    for (size_t i = 0; i < 40; i++) {
        const size_t cut = rt_hash64(&i, sizeof i, 1) % rows_size,
                     journal_cut = rt_hash64(&i, sizeof i, 2) % journal_size;
        copy_file(kept, s.out, i % 3 == 0 ? rows_size : cut);
        copy_file(kept_journal, journal, i % 3 == 1 ? journal_size : journal_cut);
        const unsigned before = server.counts->requests;
        must_run(&s);
        assert_each_once(s.out, 1, ROWS);
        if (i % 3 == 0) /* the rows were whole: the journal may be gone */
            assert_int_equal(server.counts->requests, before);
    }
}

static void another_setting_is_refused_and_a_new_run_keeps_the_old_rows(void **state)
{
    (void)state;
    setting s = {.in = make_prompts("in.jsonl", 1, 5), .out = in_folder("rows.jsonl")};
    must_run(&s);
    s.params = "{\"max_tokens\": 21}";
    assert_int_equal(run(&s), RT_MISMATCH);
    assert_non_null(strstr(s.err.text, "other settings"));
    s.new_run = true;
    must_run(&s);
    assert_each_once(s.out, 1, 5);
    char command[200];
    (void)snprintf(command, sizeof command, "test $(ls %s | grep -c '^rows.jsonl.[0-9a-f]*-') = 1", folder);
    assert_int_equal(system(command), 0);
}

static void two_processes_do_not_write_one_output(void **state)
{
    (void)state;
    server.plan->latency_ms = 300;
    setting s = {.in = make_prompts("in.jsonl", 1, 20), .out = in_folder("rows.jsonl")};
    const pid_t child = fork();
    if (child == 0)
        _exit(run(&s) == RT_OK ? 0 : 1);
    (void)usleep(200000);
    assert_int_equal(run(&s), RT_BUSY);
    int status = 0;
    (void)waitpid(child, &status, 0);
    assert_each_once(s.out, 1, 20);
}

static void prompts_that_were_added_are_asked_and_the_others_are_not(void **state)
{
    (void)state;
    setting s = {.in = make_prompts("in.jsonl", 1, 10), .out = in_folder("rows.jsonl")};
    must_run(&s);
    s.in = make_prompts("in.jsonl", 1, 15);
    must_run(&s);
    assert_each_once(s.out, 1, 15);
    assert_int_equal(server.counts->requests, 15);
}

static void stopped_it_drains_and_goes_on(void **state)
{
    (void)state;
    server.plan->latency_ms = 3;
    setting s = {.in = make_prompts("in.jsonl", 1, 200),
                 .out = in_folder("rows.jsonl"),
                 .concurrency = 8,
                 .stop_after = 50};
    assert_int_equal(run(&s), RT_STOPPED);
    const unsigned asked = total(server.counts->asked);
    assert_int_equal(s.report.totals.rows, asked); /* what was in flight was awaited */
    s.stop_after = 0;
    must_run(&s);
    assert_each_once(s.out, 1, 200);
    assert_int_equal(total(server.counts->asked), 200);
}

/* ---- sameness, money, marks ---- */

static void identical_determined_requests_are_asked_once_and_answered_for_each(void **state)
{
    (void)state;
    const char *path = in_folder("in.jsonl");
    FILE *stream = fopen(path, "w");
    for (unsigned i = 0; i < 60; i++)
        (void)fprintf(
            stream,
            "{\"custom_id\": \"r%u\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": "
            "{\"messages\": [{\"role\": \"user\", \"content\": \"p%u\"}], \"temperature\": 0}}\n",
            i, i % 3 + 1);
    (void)fclose(stream);
    setting s = {.in = path, .out = in_folder("rows.jsonl"), .ordered = true};
    must_run(&s);
    static unsigned char seen[FAULT_PROMPTS_MAX];
    assert_int_equal(read_rows(s.out, seen), 60);
    assert_int_equal(server.counts->requests, 3);
    assert_int_equal(s.report.shared, 57);
    char *data = NULL; /* in the order of the prompts */
    size_t size;
    assert_int_equal(rt_file_read(&data, &size, s.out, 1 << 22, &s.err), RT_OK);
    char *at = data;
    for (unsigned i = 0; i < 60; i++) {
        char id[24];
        (void)snprintf(id, sizeof id, "\"r%u\"", i);
        at = strstr(at, id);
        assert_non_null(at);
    }
    free(data);
}

static void equal_prompts_are_one_row_and_samples_are_rows_of_their_own(void **state)
{
    (void)state;
    const char *path = in_folder("in.jsonl");
    FILE *stream = fopen(path, "w");
    for (unsigned i = 0; i < 9; i++)
        (void)fprintf(stream, "{\"prompt\": \"p%u\"}\n", i % 3 + 1);
    (void)fclose(stream);
    setting s = {.in = path,
                 .out = in_folder("rows.jsonl"),
                 .samples = 4,
                 .params = "{\"seed\": 7, \"temperature\": 1}"};
    must_run(&s);
    static unsigned char seen[FAULT_PROMPTS_MAX];
    assert_int_equal(read_rows(s.out, seen), 12);
    assert_int_equal(seen[1], 4);
    assert_int_equal(server.counts->requests, 12); /* seeds differ */
    assert_int_equal(s.report.duplicates, 24);
}

static void one_custom_id_for_two_requests_is_an_error(void **state)
{
    (void)state;
    const char *path = in_folder("in.jsonl");
    FILE *stream = fopen(path, "w");
    (void)fprintf(stream,
                  "{\"custom_id\": \"a\", \"prompt\": \"p1\"}\n{\"custom_id\": \"a\", \"prompt\": \"p2\"}\n");
    (void)fclose(stream);
    setting s = {.in = path, .out = in_folder("rows.jsonl")};
    assert_int_equal(run(&s), RT_CORRUPT);
    assert_non_null(strstr(s.err.text, ":2: the custom_id 'a'"));
}

static void near_duplicates_are_left_out(void **state)
{
    (void)state;
    const char *path = in_folder("in.jsonl"),
               *text = "explain in a few plain words why the sky looks blue at noon and red at dusk";
    FILE *stream = fopen(path, "w");
    (void)fprintf(stream,
                  "{\"prompt\": \"p1 %s?\"}\n{\"prompt\": \"p1, %s!\"}\n{\"prompt\": \"p2 how does a tide "
                  "mill work?\"}\n",
                  text, text);
    (void)fclose(stream);
    setting s = {.in = path, .out = in_folder("rows.jsonl"), .near = 0.8};
    must_run(&s);
    assert_int_equal(s.report.near, 1);
    assert_int_equal(s.report.totals.rows, 2);
}

static void the_limit_of_spending_is_never_passed_and_the_run_goes_on_with_a_higher_one(void **state)
{
    (void)state;
    server.plan->latency_ms = 2;
    setting s = {.in = make_prompts("in.jsonl", 1, 100),
                 .out = in_folder("rows.jsonl"),
                 .money_max = 0.6,
                 .concurrency = 16};
    assert_int_equal(run(&s), RT_STOPPED);
    assert_non_null(strstr(s.err.text, "limit of spending"));
    assert_true(s.report.totals.money <= 0.6 && s.report.totals.rows > 5);
    const uint64_t rows = s.report.totals.rows;
    s.money_max = 1e9;
    must_run(&s);
    assert_each_once(s.out, 1, 100);
    assert_int_equal(s.report.totals.usage.prompt, 500);
    assert_int_equal(server.counts->requests, 100);
    assert_true(rows < 100);
}

static void empty_filtered_and_cut_answers_go_where_they_belong(void **state)
{
    (void)state;
    setting s = {.in = make_prompts("in.jsonl", 1, 20), .out = in_folder("rows.jsonl")};
    *server.plan = (fault_plan){.empty = 1000};
    must_run(&s);
    assert_int_equal(s.report.totals.rejected, 20);
    s.out = in_folder("filtered.jsonl");
    *server.plan = (fault_plan){.filter = 1000};
    must_run(&s);
    assert_int_equal(s.report.totals.rejected, 20);
    s.out = in_folder("cut.jsonl");
    *server.plan = (fault_plan){.length = 1000};
    must_run(&s);
    assert_int_equal(s.report.truncated, 20);
    assert_int_equal(s.report.totals.rows, 20);
    s.out = in_folder("dropped.jsonl");
    s.on_length = RT_ON_LENGTH_DROP;
    must_run(&s);
    assert_int_equal(s.report.totals.rejected, 20);
    s.out = in_folder("longer.jsonl");
    s.on_length = RT_ON_LENGTH_RETRY;
    const unsigned before = server.counts->requests;
    must_run(&s);
    assert_int_equal(server.counts->requests - before, 40);
    assert_int_equal(s.report.totals.rows, 20);
    s.out = in_folder("declined.jsonl");
    *server.plan = (fault_plan){.refusal = 1000};
    must_run(&s);
    assert_int_equal(s.report.refusals, 20);
    assert_int_equal(s.report.totals.rows, 20); /* marked, never dropped */
}

static void reasoning_is_kept_apart(void **state)
{
    (void)state;
    server.plan->think = true;
    setting s = {.in = make_prompts("in.jsonl", 1, 5), .out = in_folder("rows.jsonl")};
    must_run(&s);
    assert_each_once(s.out, 1, 5); /* the text is the answer alone */
    char *data = NULL;
    size_t size;
    assert_int_equal(rt_file_read(&data, &size, s.out, 1 << 20, &s.err), RT_OK);
    assert_non_null(strstr(data, "\"reasoning\":\"hm so\""));
    free(data);
}

static void log_probabilities_fall_back_to_what_the_server_gives(void **state)
{
    (void)state;
    static const struct {
        int max;
        const char *words;
        unsigned refused;
    } cases[] = {{20, "\"top\":[{", 0}, {5, "\"top\":[{", 1}, {-1, "\"logprobs\":null", 2}};
    setting s = {.logprobs = 20, .token_ids = true, .concurrency = 1};
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rows%zu.jsonl", i);
        s.in = make_prompts("in.jsonl", 1, 10);
        s.out = in_folder(name);
        *server.plan = (fault_plan){.top_logprobs_max = cases[i].max, .no_token_ids = true};
        const unsigned before = server.counts->requests;
        must_run(&s);
        assert_each_once(s.out, 1, 10);
        assert_int_equal(server.counts->requests - before, 10 + 1 + cases[i].refused);
        char *data = NULL;
        size_t size;
        assert_int_equal(rt_file_read(&data, &size, s.out, 1 << 24, &s.err), RT_OK);
        assert_non_null(strstr(data, cases[i].words));
        free(data);
    }
}

static void lies_are_marked_and_never_believed(void **state)
{
    (void)state;
    static const struct {
        fault_plan plan;
        unsigned flag;
        const char *not_there;
    } cases[] = {{{.sum_lie = 1000}, RT_REPLY_SUM, "\"top\""},
                 {{.bad_ids = 1000}, RT_REPLY_IDS, "1000000"},
                 {{.other_bytes = 1000}, RT_REPLY_BYTES, "nothing"},
                 {{.usage_lie = 1000}, RT_REPLY_USAGE, "-5"},
                 {{.other_model = 1000}, RT_REPLY_MODEL, "nothing"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rows%zu.jsonl", i);
        setting s = {.in = make_prompts("in.jsonl", 1, 3), .out = in_folder(name), .logprobs = 5};
        *server.plan = cases[i].plan;
        must_run(&s);
        assert_each_once(s.out, 1, 3);
        assert_int_equal(s.report.flags, cases[i].flag);
        char *data = NULL;
        size_t size;
        assert_int_equal(rt_file_read(&data, &size, s.out, 1 << 24, &s.err), RT_OK);
        assert_null(strstr(data, cases[i].not_there));
        free(data);
    }
}

static void a_batch_file_is_answered_in_its_own_form(void **state)
{
    (void)state;
    const char *path = in_folder("in.jsonl");
    FILE *stream = fopen(path, "w");
    for (unsigned i = 1; i <= 10; i++)
        (void)fprintf(
            stream,
            "{\"custom_id\": \"r%u\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": "
            "{\"model\": \"x\", \"prompt\": \"p%u\", \"max_tokens\": 9}}\n",
            i, i);
    (void)fclose(stream);
    setting s = {.in = path, .out = in_folder("rows.jsonl"), .batch = true, .model = ""};
    must_run(&s);
    must_run(&s); /* rows are known by custom_id */
    assert_int_equal(server.counts->requests, 10);
    char *data = NULL;
    size_t size;
    assert_int_equal(rt_file_read(&data, &size, s.out, 1 << 20, &s.err), RT_OK);
    json_t *row = json_loadb(data, strcspn(data, "\n"), 0, NULL);
    const json_t *response = json_object_get(row, "response");
    assert_int_equal(json_integer_value(json_object_get(response, "status_code")), 200);
    assert_true(json_is_array(json_object_get(json_object_get(response, "body"), "choices")));
    assert_true(json_is_null(json_object_get(row, "error")));
    json_decref(row);
    free(data);
}

/* ---- the Batch API ---- */

static rt_status run_batch(const char *in, const char *out, rt_collect_report *report, rt_error *err)
{
    const rt_batch_options remote = {.url = server.url,
                                     .model = "m",
                                     .state = in_folder("batches.json"),
                                     .requests_max = 40,
                                     .poll_s = 0.05,
                                     .poll_max_s = 0.2};
    rt_teacher *teacher = NULL;
    if (rt_batch_open(&teacher, &remote, err) != RT_OK)
        return err->status;
    json_t *params = json_pack("{s:i}", "max_tokens", 20);
    const char *inputs[] = {in};
    setting s = {0};
    const rt_collect_options options = {.out = out,
                                        .inputs = {inputs, 1},
                                        .params = params,
                                        .settings = params,
                                        .teacher = params,
                                        .progress = on_progress,
                                        .context = &s};
    const rt_status status = rt_collect(teacher, &options, report, err);
    json_decref(params);
    rt_teacher_close(teacher);
    return status;
}

static void batches_are_made_looked_at_and_what_expired_is_sent_again(void **state)
{
    (void)state;
    rt_collect_report report;
    rt_error err = {0};
    server.plan->expire = 300;
    const char *in = make_prompts("in.jsonl", 1, 100), *out = in_folder("rows.jsonl");
    if (run_batch(in, out, &report, &err) != RT_OK)
        print_error("%s\n", err.text);
    assert_each_once(out, 1, 100);
    for (unsigned i = 1; i <= 100; i++)
        assert_int_equal(server.counts->good[i], 1);
    assert_false(rt_path_exists(in_folder("batches.json")));
}

static void a_run_killed_while_it_waits_for_batches_goes_on_waiting(void **state)
{
    (void)state;
    rt_collect_report report;
    rt_error err = {0};
    const char *in = make_prompts("in.jsonl", 1, 60), *out = in_folder("rows.jsonl");
    for (int i = 0; i < 4; i++) {
        const pid_t child = fork();
        if (child == 0)
            _exit(run_batch(in, out, &report, &err) == RT_OK ? 0 : 1);
        while (i == 0 && server.files->n_batches < 2)
            (void)usleep(1000);
        (void)usleep(40000);
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    if (run_batch(in, out, &report, &err) != RT_OK)
        print_error("%s\n", err.text);
    assert_each_once(out, 1, 60);
    assert_true(total(server.counts->asked) <= 60 + 40); /* a file that was on its way at the first kill */
}

static void into_a_store_each_row_goes_once_through_kills(void **state)
{
    (void)state;
    enum { ROWS = 300, AT_ONCE = 8 };
    server.plan->latency_ms = 4;
    setting s = {.in = make_prompts("in.jsonl", 1, ROWS), .out = in_folder("store"), .concurrency = AT_ONCE};
    unsigned kills = 0;
    for (bool finished = false; !finished && kills < 40;) {
        const pid_t child = fork();
        if (child == 0)
            _exit(run(&s) == RT_OK ? 0 : 1);
        (void)usleep(20000 + (unsigned)(rt_hash64(&kills, sizeof kills, 3) % 60000));
        (void)kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        finished = WIFEXITED(status);
        kills += !finished;
    }
    must_run(&s);
    assert_int_equal(s.report.totals.rows, ROWS);
    assert_true(total(server.counts->good) <= ROWS + kills * AT_ONCE);
    rt_store *store = NULL;
    rt_error err = {0};
    assert_int_equal(rt_store_open(&store, s.out, NULL, "test", &err), RT_OK);
    assert_int_equal(rt_store_texts(store), ROWS);
    assert_int_equal(rt_store_close(store, &err), RT_OK);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0) { /* for trying things by hand */
        if (!fault_start(&server, (int)strtol(argv[2], NULL, 10)))
            return 1;
        print_message("%s\n", server.url);
        return waitpid(server.pid, NULL, 0) > 0 ? 0 : 1;
    }
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_prompt_gets_one_row_through_every_kind_of_fault),
        TEST(streams_that_lie_are_asked_again_and_the_text_is_right),
        TEST(a_storm_of_429_pauses_the_host_and_costs_no_attempt),
        TEST(announced_limits_are_kept_without_running_into_them),
        TEST(what_fails_for_good_is_rejected_with_its_reason_and_can_be_asked_again),
        TEST(a_refused_key_a_missing_model_and_a_used_up_quota_stop_the_run),
        TEST(other_refusals_are_the_rows_answer_and_are_not_tried_again),
        TEST(a_server_that_was_restarted_is_waited_for),
        TEST(a_clock_that_jumps_neither_hangs_nor_hurries),
        TEST(a_server_out_of_reach_stops_the_run_so_that_it_can_go_on),
        TEST(killed_at_random_it_loses_no_row_and_doubles_none),
        TEST(cut_at_any_byte_the_files_are_mended_and_only_what_is_gone_is_asked),
        TEST(another_setting_is_refused_and_a_new_run_keeps_the_old_rows),
        TEST(two_processes_do_not_write_one_output),
        TEST(prompts_that_were_added_are_asked_and_the_others_are_not),
        TEST(stopped_it_drains_and_goes_on),
        TEST(identical_determined_requests_are_asked_once_and_answered_for_each),
        TEST(equal_prompts_are_one_row_and_samples_are_rows_of_their_own),
        TEST(one_custom_id_for_two_requests_is_an_error),
        TEST(near_duplicates_are_left_out),
        TEST(the_limit_of_spending_is_never_passed_and_the_run_goes_on_with_a_higher_one),
        TEST(empty_filtered_and_cut_answers_go_where_they_belong),
        TEST(reasoning_is_kept_apart),
        TEST(log_probabilities_fall_back_to_what_the_server_gives),
        TEST(lies_are_marked_and_never_believed),
        TEST(a_batch_file_is_answered_in_its_own_form),
        TEST(batches_are_made_looked_at_and_what_expired_is_sent_again),
        TEST(a_run_killed_while_it_waits_for_batches_goes_on_waiting),
        TEST(into_a_store_each_row_goes_once_through_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
