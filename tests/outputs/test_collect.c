/* tests/outputs/test_collect.c - every prompt gets its row exactly once, whatever the server and the machine
 * do. */
#include "outputs/collect_help.h"

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
        TEST(into_a_store_each_row_goes_once_through_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
