/* tests/serve/test_gateway_limit.c - an answer takes no more than is reserved for it, whatever its upstream
 * does: bounds that are sent up, streams that are cut, budgets that hold at every instant. */
#include "gateway_help.h"

#include "account/gate_internal.h"
#include "serve/gateway_count.h"
#include "base/rng.h"
#include "tiny_tokenizer.h"

static const char stream_plain[] = "{\"model\":\"m\",\"stream\":false,\"messages\":[]}";

static void assert_goes_up(stage *s, const char *body, const char *as)
{
    assert_int_equal(post(s, body).status, 200);
    assert_last_body(&s->up[0], as);
}

static void a_bound_is_sent_up_where_the_account_has_one_and_the_request_has_none(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100000));
    assert_goes_up(&s, stream_plain,
                   "{\"max_tokens\":4096,\"model\":\"m\",\"stream\":false,\"messages\":[]}");
    assert_goes_up(&s, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":null}",
                   "{\"model\":\"m\",\"messages\":[],\"max_tokens\":4096}");
    assert_goes_up(&s, "{\"model\":\"m\",\"messages\":[],\"max_completion_tokens\":9}",
                   "{\"model\":\"m\",\"messages\":[],\"max_completion_tokens\":9}");
    assert_goes_up(&s, "{\"model\":\"m\",\"stream\":true,\"messages\":[]}",
                   "{\"max_tokens\":4096,\"stream_options\":{\"include_usage\":true},\"model\":\"m\","
                   "\"stream\":true,\"messages\":[]}");
    close_stage(&s);
    open_stage(&s, 1, 1, json_pack("{s:i}", "max_tokens", 50));
    assert_goes_up(&s, stream_plain, "{\"max_tokens\":50,\"model\":\"m\",\"stream\":false,\"messages\":[]}");
    close_stage(&s);
    open_stage(&s, 1, 1, NULL); /* nothing to bound it by */
    assert_goes_up(&s, stream_plain, stream_plain);
    close_stage(&s);
}

static void name_no_field(rt_serve_options *options)
{
    ((rt_upstream *)(uintptr_t)options->upstreams)[0].limit = "";
}

static void name_other_field(rt_serve_options *options)
{
    ((rt_upstream *)(uintptr_t)options->upstreams)[0].limit = "max_completion_tokens";
}

static void an_upstream_may_want_another_member_or_none(void **state)
{
    (void)state;
    static stage s;
    stage_tune = name_no_field;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100000));
    assert_goes_up(&s, stream_plain, stream_plain);
    close_stage(&s);
    stage_tune = name_other_field;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100000));
    assert_goes_up(&s, stream_plain,
                   "{\"max_completion_tokens\":4096,\"model\":\"m\",\"stream\":false,\"messages\":[]}");
    stage_tune = NULL;
    close_stage(&s);
}

static void a_stream_ends_where_the_budget_ends(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100));
    const answer a = post(&s, "{\"model\":\"excessive\",\"stream\":true,\"messages\":[],\"max_tokens\":20,"
                              "\"stream_options\":{\"include_usage\":true}}");
    assert_int_equal(a.status, 200);
    const char *end = strstr(a.body, "\"finish_reason\":\"length\"");
    assert_non_null(end);
    assert_non_null(strstr(a.body, "\"id\":\"x9\""));
    long long input = -1, output = -1, total = -1;
    const char *usage = strstr(end, "\"usage\":");
    assert_non_null(usage);
    assert_int_equal(
        sscanf(usage, "\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld",
               &input, &output, &total),
        3);
    assert_string_equal(a.body + strlen(a.body) - strlen(event_done), event_done);
    assert_null(strstr(a.body, "5000"));
    assert_int_equal(total, input + output);
    assert_int_equal(total, 100); /* the last event is shortened to what there was */
    assert_int_equal(ledger_int(&s, "SELECT input + output FROM ledger"), total);
    assert_int_equal(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), total);
    close_stage(&s);
}

static void every_choice_of_a_stream_that_is_cut_has_an_end(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100));
    const answer a = post(&s, "{\"model\":\"excessive\",\"stream\":true,\"messages\":[],\"max_tokens\":20,"
                              "\"n\":2}");
    const char *end = strstr(a.body, "\"finish_reason\":\"length\"");
    assert_non_null(end);
    assert_non_null(strstr(end + 1, "\"finish_reason\":\"length\""));
    assert_null(strstr(a.body, "\"usage\""));
    close_stage(&s);
}

static void a_response_that_is_cut_is_told_to_be_incomplete(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100));
    const answer a =
        receive(send_request(&s, "POST", "/v1/responses",
                             "{\"model\":\"m\",\"stream\":true,\"input\":\"hi\",\"max_output_tokens\":20}"));
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body, "\"delta\":\"some words\""));
    const char *end = strstr(a.body, "event: response.incomplete\ndata: ");
    assert_non_null(end);
    assert_non_null(strstr(end, "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}"));
    assert_non_null(strstr(end, "\"sequence_number\":"));
    const char *usage = strstr(end, "\"total_tokens\":");
    assert_non_null(usage);
    const long long total = strtoll(usage + strlen("\"total_tokens\":"), NULL, 10);
    assert_in_range(total, 95, 100); /* the prompt is estimated at less than its bound */
    assert_int_equal(ledger_int(&s, "SELECT input + output FROM ledger"), total);
    close_stage(&s);
}

static void what_a_response_says_again_is_counted_once(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 25));
    const answer a =
        receive(send_request(&s, "POST", "/v1/responses",
                             "{\"model\":\"m\",\"user\":\"few\",\"stream\":true,\"input\":\"hi\","
                             "\"max_output_tokens\":14}"));
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body + strlen(a.body) - strlen(response_done), response_done);
    close_stage(&s);
}

/* The text of a stream's deltas, one after the other. */
static rt_text said_in(const answer *a)
{
    rt_text said = {0};
    size_t size;
    for (const char *at = a->body, *end; (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
        const char *data = rt_sse_data(at, (size_t)(end - at), &size);
        if (data)
            rt_said_append(&said, data, size);
    }
    rt_text_append(&said, "", 0);
    return said;
}

static rt_tokenizer *counter;
static void count_here(rt_serve_options *options) { options->counter = counter; }

/* Of the upstream's words every character is a token of the counter: four times as many as bytes would tell.
 */
static void a_stream_is_cut_by_the_tokenizers_count(void **state)
{
    (void)state;
    static stage s;
    rt_error err = {0};
    static const struct {
        const char *path, *body;
    } asked[] = {
        {"/v1/chat/completions", "{\"model\":\"excessive\",\"user\":\"forgets\",\"stream\":true,"
                                 "\"messages\":[],\"max_tokens\":20}"},
        {"/v1/responses", "{\"model\":\"m\",\"stream\":true,\"input\":\"hi\",\"max_output_tokens\":20}"}};
    counter = tiny_tokenizer(&err);
    assert_non_null(counter);
    stage_tune = count_here;
    for (int i = 0; i < 2; i++) {
        open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 300));
        const answer a = receive(send_request(&s, "POST", asked[i].path, asked[i].body));
        rt_text said = said_in(&a);
        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.body, i ? "response.incomplete" : "\"finish_reason\":\"length\""));
        assert_true(said.size > 250 && said.size <= 300);
        assert_int_equal(ledger_int(&s, "SELECT output FROM ledger"), said.size);
        assert_int_equal(ledger_int(&s, "SELECT estimated FROM ledger"), 0);
        assert_in_range(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), said.size, 300);
        rt_text_deinit(&said);
        close_stage(&s);
    }
    stage_tune = NULL;
    rt_tokenizer_close(counter);
}

static void an_event_larger_than_the_room_is_shortened_to_whole_characters(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 60));
    const answer a = post(&s, "{\"model\":\"large\",\"stream\":true,\"messages\":[],\"max_tokens\":20}");
    rt_text said = said_in(&a);
    assert_int_equal(a.status, 200);
    assert_true(said.size >= 200 && said.size <= 240 && rt_utf8_valid(said.data, said.size));
    assert_null(strstr(a.body, "\"stop\"")); /* which the whole event would have been */
    assert_null(strstr(a.body, "5000"));
    assert_non_null(strstr(a.body, "\"finish_reason\":\"length\""));
    assert_string_equal(a.body + strlen(a.body) - strlen(event_done), event_done);
    assert_in_range(ledger_int(&s, "SELECT output FROM ledger"), said.size / 4, said.size / 4 + 1);
    assert_in_range(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), 55, 60);
    rt_text_deinit(&said);
    close_stage(&s);
}

/* A text without some of its tokens' log-probabilities would be told wrongly. */
static void an_event_with_logprobs_goes_down_whole_or_not_at_all(void **state)
{
    (void)state;
    static stage s;
    static const char body[] =
        "{\"model\":\"large\",\"stream\":true,\"messages\":[],\"logprobs\":true,\"max_tokens\":20}";
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 60));
    answer a = post(&s, body);
    rt_text said = said_in(&a);
    assert_int_equal(said.size, 0);
    assert_non_null(strstr(a.body, "\"finish_reason\":\"length\""));
    close_stage(&s);
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 6000));
    a = post(&s, body);
    rt_text whole = said_in(&a);
    assert_int_equal(whole.size, 2 * LARGE_CHARACTERS);
    assert_null(strstr(a.body, "\"length\""));
    close_stage(&s);
    rt_text_deinit(&said);
    rt_text_deinit(&whole);
}

static void an_upstream_that_passes_its_bound_is_paid_where_there_is_room(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 12000));
    answer a = post(&s, "{\"model\":\"excessive\",\"stream\":true,\"messages\":[],\"max_tokens\":20}");
    assert_null(strstr(a.body, "length"));
    assert_string_equal(a.body + strlen(a.body) - strlen(event_done), event_done);
    a = post(&s, "{\"model\":\"excessive\",\"messages\":[],\"max_tokens\":20}");
    assert_string_equal(a.body, excessive_answer);
    a = post(&s, "{\"model\":\"excessive\",\"messages\":[],\"max_tokens\":20}"); /* 1,994 are left */
    assert_int_equal(a.status, 200);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM ledger WHERE output = 5000"), 2);
    assert_in_range(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), 10006, 12000);
    assert_int_equal(ledger_int(&s, "SELECT estimated FROM ledger WHERE output < 5000"), 1);
    close_stage(&s);
}

/* ---- at once ---- */

enum { CLIENTS = 8, REQUESTS = 25, BUDGET = 60000 };

typedef struct client_of {
    const stage *s;
    uint64_t seed;
    int served;
} client_of;

static void *ask_at_random(void *context)
{
    client_of *c = context;
    rt_rng rng = rt_rng_make(c->seed, 5);
    for (int i = 0; i < REQUESTS; i++) {
        static const char *const extra[] = {"", ",\"max_tokens\":7", ",\"n\":2", ",\"user\":\"forgets\""};
        char body[300], text[4096];
        (void)snprintf(body, sizeof body, "{\"model\":\"%s\",\"stream\":%s,\"messages\":[]%s%s}",
                       rt_rng_below(&rng, 4) ? "excessive" : "m", rt_rng_below(&rng, 2) ? "true" : "false",
                       extra[rt_rng_below(&rng, 3)], rt_rng_below(&rng, 2) ? extra[3] : "");
        const int fd = send_request(c->s, "POST", "/v1/chat/completions", body);
        ssize_t n = recv(fd, text, sizeof text, 0);
        c->served += n > 12 && memcmp(text + 9, "200", 3) == 0;
        const bool leaves = rt_rng_below(&rng, 8) == 0;
        while (!leaves && n > 0)
            n = recv(fd, text, sizeof text, 0);
        (void)close(fd);
    }
    return NULL;
}

static void assert_within(stage *s)
{
    rt_gate *gate = s->gate;
    (void)pthread_mutex_lock(&gate->mutex);
    const account_entry *account = id_map_get(&gate->accounts, s->account);
    const rt_meter meter = account ? account->counted.meter : (rt_meter){0}; /* read at the first request */
    (void)pthread_mutex_unlock(&gate->mutex);
    assert_true(meter.total_tokens + meter.reserved_tokens <= BUDGET);
    assert_true(meter.reserved_tokens >= 0 && meter.running >= 0);
}

static void settled_and_reserved_never_pass_the_budget_whatever_upstreams_do(void **state)
{
    (void)state;
    static stage s;
    client_of clients[CLIENTS];
    pthread_t threads[CLIENTS];
    int served = 0;
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", BUDGET));
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (client_of){.s = &s, .seed = (uint64_t)i + 3};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_at_random, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        for (int k = 0; k < 2000; k++)
            assert_within(&s);
        (void)pthread_join(threads[i], NULL);
        served += clients[i].served;
    }
    assert_within(&s);
    assert_true(served > 10);
    assert_in_range(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), BUDGET / 2, BUDGET);
    assert_in_range(ledger_int(&s, "SELECT SUM(input + output) FROM ledger"), BUDGET / 2, BUDGET);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM ledger WHERE http = 429") > 0, 1);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bound_is_sent_up_where_the_account_has_one_and_the_request_has_none),
        cmocka_unit_test(an_upstream_may_want_another_member_or_none),
        cmocka_unit_test(a_stream_ends_where_the_budget_ends),
        cmocka_unit_test(every_choice_of_a_stream_that_is_cut_has_an_end),
        cmocka_unit_test(a_response_that_is_cut_is_told_to_be_incomplete),
        cmocka_unit_test(what_a_response_says_again_is_counted_once),
        cmocka_unit_test(a_stream_is_cut_by_the_tokenizers_count),
        cmocka_unit_test(an_event_larger_than_the_room_is_shortened_to_whole_characters),
        cmocka_unit_test(an_event_with_logprobs_goes_down_whole_or_not_at_all),
        cmocka_unit_test(an_upstream_that_passes_its_bound_is_paid_where_there_is_room),
        cmocka_unit_test(settled_and_reserved_never_pass_the_budget_whatever_upstreams_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
