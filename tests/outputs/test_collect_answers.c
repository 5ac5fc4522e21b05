/* tests/outputs/test_collect_answers.c - what becomes of answers: shared, paid for, marked, rejected;
 * batches. */
#include "outputs/collect_help.h"

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

static void answers_in_a_cache_are_shared_between_runs(void **state)
{
    (void)state;
    setting s = {.in = make_prompts("in.jsonl", 1, 20),
                 .out = in_folder("a.jsonl"),
                 .cache = in_folder("cache"),
                 .params = "{\"temperature\": 0}"};
    must_run(&s);
    s.out = in_folder("b.jsonl");
    s.in = make_prompts("in2.jsonl", 11, 20);
    must_run(&s);
    assert_each_once(s.out, 11, 20);
    assert_int_equal(s.report.shared, 10);
    assert_int_equal(server.counts->requests, 30);
    s.out = in_folder("store"); /* rows of another form: asked, and then shared */
    must_run(&s);
    s.out = in_folder("store2");
    must_run(&s);
    assert_int_equal(s.report.totals.rows, 20);
    assert_int_equal(server.counts->requests, 50);
    s.params = "{\"temperature\": 1}"; /* not determined: never from a cache */
    s.out = in_folder("c.jsonl");
    must_run(&s);
    assert_int_equal(server.counts->requests, 70);
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

int main(int argc, char **argv)
{
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TEST(identical_determined_requests_are_asked_once_and_answered_for_each),
        TEST(answers_in_a_cache_are_shared_between_runs),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
