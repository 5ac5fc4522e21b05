/* tests/serve/test_gateway.c - the gateway: what goes up, what comes down, what is charged. */
#include "gateway_help.h"

#include "serve/gateway_count.h"
#include "tiny_tokenizer.h"

/* ---- the tests ---- */

static void a_whole_answer_comes_down_byte_for_byte_and_is_charged(void **state)
{
    (void)state;
    static stage s;
    static const char body[] =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}], \"odd\" : 0.10}";
    open_stage(&s, 1, 1, NULL);
    const answer a = post(&s, body);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, whole_answer);
    assert_null(strcasestr(a.head, "set-cookie"));
    assert_last_body(&s.up[0], body);
    assert_null(strstr(a.head, "sk-upstream"));
    assert_string_equal(s.up[0].last_key, "Bearer sk-upstream");
    assert_string_equal(s.up[0].last_path, "/v1/chat/completions");
    assert_int_equal(ledger_int(&s, "SELECT input * 100 + output * 10 + estimated FROM ledger"), 720);
    assert_int_equal(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), 9);
    close_stage(&s);
}

static void a_stream_comes_down_as_it_is_and_its_usage_only_when_asked_for(void **state)
{
    (void)state;
    static stage s;
    char wanted[2000];
    open_stage(&s, 1, 1, NULL);
    answer a = post(&s, "{\"model\":\"m\",\"stream\":true,\"messages\":[]}");
    assert_int_equal(a.status, 200);
    (void)snprintf(wanted, sizeof wanted, "%s%s%s", event_1, event_2, event_done);
    assert_string_equal(a.body, wanted);
    assert_non_null(strstr(a.head, "text/event-stream"));
    assert_null(strcasestr(a.head, "set-cookie"));
    assert_last_body(
        &s.up[0],
        "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true,\"messages\":[]}");
    a = post(&s,
             "{\"model\":\"m\",\"stream\":true,\"messages\":[],\"stream_options\":{\"include_usage\":true}}");
    (void)snprintf(wanted, sizeof wanted, "%s%s%s%s", event_1, event_2, event_usage, event_done);
    assert_string_equal(a.body, wanted);
    a = post(
        &s, "{\"model\":\"m\",\"stream\":true,\"messages\":[],\"stream_options\":{\"include_usage\":false}}");
    (void)snprintf(wanted, sizeof wanted, "%s%s%s", event_1, event_2, event_done);
    assert_string_equal(a.body, wanted);
    assert_int_equal(ledger_int(&s, "SELECT SUM(input * 100 + cached * 10 + output) FROM ledger"), 3 * 732);
    close_stage(&s);
}

static void a_stream_without_usage_is_charged_by_estimate_and_marked(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    const answer a =
        post(&s, "{\"model\":\"forgets\",\"stream\":true,\"messages\":[{\"content\":\"12345678\"}]}");
    assert_int_equal(a.status, 200);
    assert_int_equal(ledger_int(&s, "SELECT estimated FROM ledger"), 1);
    assert_true(ledger_int(&s, "SELECT input FROM ledger") > 2);
    assert_int_equal(ledger_int(&s, "SELECT output FROM ledger"), 2); /* "one " and "two": 7 bytes */
    close_stage(&s);
}

static void a_stream_that_breaks_ends_with_an_error_and_without_done(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    const answer a = post(&s, "{\"model\":\"breaks\",\"stream\":true,\"messages\":[]}");
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "one "));
    assert_non_null(strstr(a.body, "data: {\"error\":"));
    assert_null(strstr(a.body, "[DONE]"));
    assert_int_equal(ledger_int(&s, "SELECT http FROM ledger"), 502);
    assert_true(ledger_int(&s, "SELECT output FROM ledger") > 0);
    close_stage(&s);
}

static void a_model_is_mapped_and_the_rest_of_the_body_is_kept(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    for (int i = 0; i < 2; i++) { /* both upstreams take turns: one of them maps */
        const answer a = post(&s, "{\"model\":\"mapped\",\"messages\":[],\"tools\":[{\"a\":[1,null,true]}]}");
        assert_int_equal(a.status, 200);
        (void)pthread_mutex_lock(&s.up[0].lock);
        assert_non_null(strstr(s.up[0].last_body, "\"tools\":[{\"a\":[1,null,true]}]"));
        (void)pthread_mutex_unlock(&s.up[0].lock);
    }
    close_stage(&s);
}

static void a_refused_key_of_ours_is_a_502_and_a_busy_upstream_is_passed_on(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    answer a = post(&s, "{\"model\":\"auth\",\"messages\":[]}");
    assert_int_equal(a.status, 502);
    assert_non_null(strstr(a.body, "upstream_auth"));
    a = post(&s, "{\"model\":\"busy\",\"messages\":[]}");
    assert_int_equal(a.status, 429);
    assert_non_null(strstr(a.head, "Retry-After: 7"));
    assert_null(strcasestr(a.head, "openai-organization"));
    assert_string_equal(a.body, "{\"error\":1}");
    assert_int_equal(ledger_int(&s, "SELECT SUM(input + output) FROM ledger"), 0);
    assert_int_equal(ledger_int(&s, "SELECT MAX(running + reserved_tokens) FROM meters"), 0);
    close_stage(&s);
}

static void another_upstream_is_tried_when_one_is_busy_or_away(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 2, 2, NULL);
    s.up[0].busy = true;
    for (int i = 0; i < 4; i++)
        assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    assert_true(atomic_load(&s.up[0].asked) >= 1);
    close_stage(&s);
    open_stage(&s, 2, 1, NULL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    close_stage(&s);
    open_stage(&s, 2, 0, NULL);
    const answer a = post(&s, "{\"model\":\"m\",\"messages\":[]}");
    assert_int_equal(a.status, 502);
    assert_non_null(strstr(a.body, "upstream_error"));
    close_stage(&s);
}

static void a_client_that_goes_takes_its_upstream_connection_with_it_and_is_charged(void **state)
{
    (void)state;
    static stage s;
    char piece[400];
    open_stage(&s, 1, 1, NULL);
    const int fd = send_request(&s, "POST", "/v1/chat/completions",
                                "{\"model\":\"hangs\",\"stream\":true,\"messages\":[]}");
    size_t size = 0;
    while (size < sizeof piece - 1) { /* the first event comes while the second is not there */
        const ssize_t n = recv(fd, piece + size, sizeof piece - 1 - size, 0);
        assert_true(n > 0);
        size += (size_t)n;
        piece[size] = '\0';
        if (strstr(piece, "one "))
            break;
        if (size > 300) {
            memmove(piece, piece + 200, size - 200);
            size -= 200;
        }
    }
    (void)close(fd);
    for (int i = 0; i < 1000 && atomic_load(&s.up[0].gone) == 0; i++)
        (void)usleep(5000);
    assert_int_equal(atomic_load(&s.up[0].gone), 1);
    assert_int_equal(ledger_int(&s, "SELECT http FROM ledger"), 499);
    assert_int_equal(ledger_int(&s, "SELECT output FROM ledger"), 1);
    assert_int_equal(ledger_int(&s, "SELECT MAX(running + reserved_tokens) FROM meters"), 0);
    close_stage(&s);
}

static void what_the_budget_does_not_allow_never_goes_up(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100));
    answer a = post(&s, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":101}");
    assert_int_equal(a.status, 429);
    assert_non_null(strstr(a.body, "insufficient_quota"));
    assert_non_null(strstr(a.head, "x-should-retry: false"));
    a = post(&s, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":50,\"n\":3}");
    assert_int_equal(a.status, 429);
    assert_int_equal(atomic_load(&s.up[0].asked), 0);
    a = post(&s, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":90}");
    assert_int_equal(a.status, 200);
    a = post(&s, "{\"model\":5}");
    assert_int_equal(a.status, 400);
    a = post(&s, "{\"model\":\"m\",\"messages\":[NaN]}");
    assert_int_equal(a.status, 400);
    a = receive(send_request(&s, "POST", "/v1/files", "{}"));
    assert_int_equal(a.status, 404);
    assert_int_equal(atomic_load(&s.up[0].asked), 1);
    close_stage(&s);
}

/* ---- health ---- */

static void tune_checks(rt_serve_options *options)
{
    options->health = (rt_health_options){.interval_s = 0.1, .fall = 1, .rise = 1};
    options->metrics_open = true;
}

static bool metric_becomes(const stage *s, const char *line)
{
    for (int i = 0; i < 200; i++) {
        const answer a = receive(send_request(s, "GET", "/metrics", ""));
        if (strstr(a.body, line))
            return true;
        (void)usleep(50000);
    }
    return false;
}

static void an_upstream_that_fails_its_checks_gets_no_requests_until_it_is_back(void **state)
{
    (void)state;
    static stage s;
    stage_tune = tune_checks;
    open_stage(&s, 2, 2, NULL);
    stage_tune = NULL;
    atomic_store(&s.up[0].sick, true);
    assert_true(metric_becomes(&s, "retort_upstream_up{upstream=\"0\"} 0\n"));
    assert_int_equal(receive(send_request(&s, "GET", "/ready", "")).status, 200);
    for (int i = 0; i < 6; i++)
        assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    assert_int_equal(atomic_load(&s.up[0].asked), 0);
    assert_int_equal(atomic_load(&s.up[1].asked), 6);
    atomic_store(&s.up[1].sick, true);
    assert_true(metric_becomes(&s, "retort_upstream_up{upstream=\"1\"} 0\n"));
    assert_int_equal(receive(send_request(&s, "GET", "/ready", "")).status, 503);
    /* all are away: one is tried all the same */
    assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    atomic_store(&s.up[0].sick, false);
    assert_true(metric_becomes(&s, "retort_upstream_up{upstream=\"0\"} 1\n"));
    const int before = atomic_load(&s.up[1].asked);
    assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    assert_int_equal(atomic_load(&s.up[1].asked), before);
    assert_true(metric_becomes(&s, "retort_prompt_tokens_total 56\n")); /* 8 answers of 7 */
    close_stage(&s);
}

static void tune_weights(rt_serve_options *options)
{
    static rt_upstream uneven[2];
    memcpy(uneven, options->upstreams, sizeof uneven);
    uneven[0].weight = 3;
    options->upstreams = uneven;
}

static void weights_share_the_requests(void **state)
{
    (void)state;
    static stage s;
    stage_tune = tune_weights;
    open_stage(&s, 2, 2, NULL);
    stage_tune = NULL;
    for (int i = 0; i < 8; i++)
        assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    assert_int_equal(atomic_load(&s.up[0].asked), 6);
    assert_int_equal(atomic_load(&s.up[1].asked), 2);
    close_stage(&s);
}

static void named_models_are_listed_and_told_without_the_upstream(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    answer a = receive(send_request(&s, "GET", "/v1/models", ""));
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "\"id\":\"mapped\""));
    a = receive(send_request(&s, "GET", "/v1/models/mapped", ""));
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "\"id\":\"mapped\""));
    assert_int_equal(atomic_load(&s.up[0].checks), 0);
    a = receive(send_request(&s, "GET", "/v1/models/other", "")); /* the upstream that takes every name */
    assert_int_equal(a.status, 200);
    assert_string_equal(s.up[0].last_path, "/v1/models/other");
    a = receive(send_to(rt_serve_admin_port(s.serve), s.admin, "GET", "/admin/v1/live", ""));
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "\"requests\":[]"));
    close_stage(&s);
}

/* ---- tokens counted here ---- */

static rt_tokenizer *counter;

static void tune_counter(rt_serve_options *options) { options->counter = counter; }

static void an_upstream_that_does_not_count_is_counted_for(void **state)
{
    (void)state;
    static stage s;
    rt_error err = {0};
    counter = tiny_tokenizer(&err);
    assert_non_null(counter);
    stage_tune = tune_counter;
    open_stage(&s, 1, 1, NULL);
    stage_tune = NULL;
    const size_t said = rt_count_text(counter, "one two", 7);
    json_t *body = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "12345678");
    const size_t asked = rt_count_prompt(counter, body);
    json_decref(body);
    assert_true(asked > 4 && said > 0);
    assert_int_equal(
        post(&s, "{\"model\":\"forgets\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
                 "\"12345678\"}]}")
            .status,
        200);
    assert_int_equal(ledger_int(&s, "SELECT estimated FROM ledger"), 0);
    assert_int_equal(ledger_int(&s, "SELECT input FROM ledger"), (int64_t)asked);
    assert_int_equal(ledger_int(&s, "SELECT output FROM ledger"), (int64_t)said);
    close_stage(&s);
    rt_tokenizer_close(counter);
}

static void append_event(void *context, const char *bytes, size_t size, bool whole)
{
    (void)whole;
    char *got = context;
    const size_t used = strlen(got);
    memcpy(got + used, bytes, size);
    memcpy(got + used + size, "|", 2);
}

static void events_are_cut_where_they_end_however_they_arrive(void **state)
{
    (void)state;
    char all[600], got[600] = "";
    (void)snprintf(all, sizeof all, "%s%s: ping\n\n%sdata: rest", event_1, event_2, event_usage);
    for (size_t step = 1; step < strlen(all); step++) {
        rt_sse sse = {0};
        got[0] = '\0';
        for (size_t at = 0; at < strlen(all); at += step)
            assert_true(rt_sse_feed(&sse, all + at, strlen(all) - at < step ? strlen(all) - at : step,
                                    append_event, got));
        rt_sse_rest(&sse, append_event, got);
        rt_sse_deinit(&sse);
        char wanted[640];
        (void)snprintf(wanted, sizeof wanted, "%s|%s|: ping\n\n|%s|data: rest|", event_1, event_2,
                       event_usage);
        assert_string_equal(got, wanted);
    }
    assert_int_equal(rt_chunk_text_bytes(event_2, sizeof event_2 - 1), 3);
}

static void usage_is_found_wherever_it_stands_in_an_answer(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t input, output, cached; /* input -1: none is there */
        bool only;
    } cases[] = {
        {"{\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":5}}", 11, 5, 0, false},
        {" {\n \"choices\" : [ ] ,\n \"usage\" : {\"prompt_tokens\": 2, \"completion_tokens\": 3,"
         " \"prompt_tokens_details\": {\"cached_tokens\": 1}}}",
         2, 3, 1, true},
        {"{\"choices\":[{\"text\":\"a } ] \\\" , \\\\\"}],\"usage\":{\"prompt_tokens\":4}}", 4, 0, 0, false},
        {"{\"type\":\"x\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":6,\"output_tokens\":7}}}", 6,
         7, 0, false},
        {"{\"usage\":{\"prompt_tokens\":1},\"usage\":{\"prompt_tokens\":9}}", 9, 0, 0, false},
        {"{\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":\"7\"}}", 0, 0, 0, false},
        {"{\"choices\":[{\"usage\":{\"prompt_tokens\":8}}],\"usage\":null}", -1, 0, 0, false},
        {"{\"text\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":8}\"}", -1, 0, 0, false},
        {"{\"usage\":{\"prompt_tokens\":8", -1, 0, 0, false},
        {"[{\"usage\":{\"prompt_tokens\":8}}]", -1, 0, 0, false},
        {"{\"usage", -1, 0, 0, false},
        {"", -1, 0, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_sse_usage usage = {0};
        bool only = true;
        rt_usage_read(&usage, cases[i].text, strlen(cases[i].text), &only);
        assert_int_equal(usage.there, cases[i].input >= 0);
        assert_int_equal(usage.input, cases[i].input >= 0 ? cases[i].input : 0);
        assert_int_equal(usage.output, cases[i].output);
        assert_int_equal(usage.cached, cases[i].cached);
        assert_int_equal(only, cases[i].only);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_answer_comes_down_byte_for_byte_and_is_charged),
        cmocka_unit_test(a_stream_comes_down_as_it_is_and_its_usage_only_when_asked_for),
        cmocka_unit_test(a_stream_without_usage_is_charged_by_estimate_and_marked),
        cmocka_unit_test(a_stream_that_breaks_ends_with_an_error_and_without_done),
        cmocka_unit_test(a_model_is_mapped_and_the_rest_of_the_body_is_kept),
        cmocka_unit_test(a_refused_key_of_ours_is_a_502_and_a_busy_upstream_is_passed_on),
        cmocka_unit_test(another_upstream_is_tried_when_one_is_busy_or_away),
        cmocka_unit_test(a_client_that_goes_takes_its_upstream_connection_with_it_and_is_charged),
        cmocka_unit_test(what_the_budget_does_not_allow_never_goes_up),
        cmocka_unit_test(an_upstream_that_fails_its_checks_gets_no_requests_until_it_is_back),
        cmocka_unit_test(an_upstream_that_does_not_count_is_counted_for),
        cmocka_unit_test(weights_share_the_requests),
        cmocka_unit_test(named_models_are_listed_and_told_without_the_upstream),
        cmocka_unit_test(events_are_cut_where_they_end_however_they_arrive),
        cmocka_unit_test(usage_is_found_wherever_it_stands_in_an_answer),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
