/* tests/serve/test_complaints.c - what users of gateways complain of most, each as a test: over real sockets,
 * in front of an upstream, with a ledger.  Limits that hold over several servers:
 * tests/account/test_budget.c. */
#include "gateway_help.h"

#include <malloc.h>
#include <sqlite3.h>

static int64_t bound_of_prompt(void)
{
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hello");
    const int64_t bound = rt_json_tokens_bound(messages);
    json_decref(messages);
    return bound;
}

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"
#define ASK "{\"model\":\"m\"," MESSAGES ",\"max_tokens\":10}"

static json_t *token_budget(int64_t tokens)
{
    return json_pack("{s:{s:I}}", "budget", "amount", (json_int_t)tokens);
}

static int admin_status(const stage *s, const char *method, const char *tail, const char *body)
{
    char path[200];
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s%s", s->account, tail);
    return receive(send_to(rt_serve_admin_port(s->serve), s->admin, method, path, body)).status;
}

static void budget_passed_and_still_served(void **state)
{
    (void)state;
    static stage s;
    const int64_t worst = bound_of_prompt() + 10;
    open_stage(&s, 1, 1, token_budget(worst + 30)); /* an answer takes 9 */
    int served = 0;
    answer a = {.status = 200};
    while (a.status == 200 && served < 100) {
        a = post(&s, ASK);
        served += a.status == 200;
    }
    assert_int_equal(a.status, 429);
    assert_non_null(strstr(a.body, "insufficient_quota"));
    assert_int_equal(served, 30 / 9 + 1);
    for (int i = 0; i < 20; i++)
        assert_int_equal(post(&s, i % 2 ? ASK : "{\"model\":\"m\",\"stream\":true," MESSAGES "}").status,
                         429);
    assert_int_equal(atomic_load(&s.up[0].asked), served);
    assert_int_equal(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), 9 * served);
    close_stage(&s);
}

static void streamed_requests_priced_at_nothing(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    assert_int_equal(
        admin_status(&s, "PATCH", "", "{\"prices\":{\"default\":{\"input\":1000,\"output\":2000}}}"), 200);
    /* with its usage, without, from an upstream that gives none, broken off, and left by its client */
    static const char *const models[] = {"m", "m", "forgets", "breaks", "hangs"};
    for (int i = 0; i < 5; i++) {
        char body[300];
        (void)snprintf(body, sizeof body, "{\"model\":\"%s\",\"stream\":true," MESSAGES "%s}", models[i],
                       i == 0 ? ",\"stream_options\":{\"include_usage\":true}" : "");
        const int fd = send_request(&s, "POST", "/v1/chat/completions", body);
        char first[3000];
        size_t size = 0;
        first[0] = '\0';
        while (!strstr(first, "one ") && size + 1 < sizeof first) {
            const ssize_t n = recv(fd, first + size, sizeof first - 1 - size, 0);
            assert_true(n > 0);
            size += (size_t)n;
            first[size] = '\0';
        }
        if (strcmp(models[i], "hangs") != 0)
            while (recv(fd, first, sizeof first, 0) > 0) {
            }
        (void)close(fd);
    }
    for (int i = 0; i < 1000 && atomic_load(&s.up[0].gone) == 0; i++)
        (void)usleep(5000);
    /* in nano-USD: 7 tokens for 0.001 USD each, 2 for 0.002 */
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM ledger WHERE cost > 0"), 5);
    assert_int_equal(ledger_int(&s, "SELECT MIN(cost / 1000000) FROM ledger WHERE model = 'm'"), 11);
    assert_int_equal(ledger_int(&s, "SELECT MAX(cost / 1000000) FROM ledger WHERE model = 'm'"), 11);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM ledger WHERE estimated = 1"), 3);
    assert_int_equal(ledger_int(&s, "SELECT SUM(cost) - (SELECT MAX(total_cost) FROM meters) FROM ledger"),
                     0);
    close_stage(&s);
}

static void overdraft_under_concurrency(void **state)
{
    (void)state;
    static stage s;
    enum { CLIENTS = 50, FIT = 10 };
    int fds[CLIENTS], served = 0, refused = 0;
    open_stage(&s, 1, 1, token_budget(FIT * (bound_of_prompt() + 10)));
    for (int i = 0; i < CLIENTS;
         i++) /* their answers begin and do not end: every worst case stays reserved */
        fds[i] = send_request(&s, "POST", "/v1/chat/completions",
                              "{\"model\":\"hangs\",\"stream\":true," MESSAGES ",\"max_tokens\":10}");
    for (int i = 0; i < CLIENTS; i++) {
        char first[16] = "";
        assert_true(recv(fds[i], first, 12, MSG_WAITALL) == 12);
        served += strcmp(first, "HTTP/1.1 200") == 0;
        refused += strcmp(first, "HTTP/1.1 429") == 0;
    }
    assert_int_equal(served, FIT);
    assert_int_equal(refused, CLIENTS - FIT);
    assert_int_equal(atomic_load(&s.up[0].asked), FIT);
    for (int i = 0; i < CLIENTS; i++)
        (void)close(fds[i]);
    for (int i = 0; i < 1000 && atomic_load(&s.up[0].gone) < FIT; i++)
        (void)usleep(5000);
    assert_int_equal(ledger_int(&s, "SELECT MAX(running + reserved_tokens) FROM meters"), 0);
    close_stage(&s);
}

static void false_budget_exceeded_from_stale_spend(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, token_budget(bound_of_prompt() + 10 + 8));
    for (int i = 0; i < 30; i++) { /* what failed upstream, or was refused here, was not spent */
        assert_int_equal(post(&s, "{\"model\":\"auth\"," MESSAGES ",\"max_tokens\":10}").status, 502);
        assert_int_equal(post(&s, "{\"model\":\"busy\"," MESSAGES ",\"max_tokens\":10}").status, 429);
        assert_int_equal(post(&s, "{\"model\":\"m\"," MESSAGES ",\"max_tokens\":1000}").status, 429);
    }
    assert_int_equal(post(&s, ASK).status, 200);
    assert_int_equal(post(&s, ASK).status, 429);
    /* a budget that was raised holds for the next request, and so does one that was lowered */
    char body[200];
    (void)snprintf(body, sizeof body, "{\"limits\":{\"budget\":{\"amount\":%lld}}}",
                   (long long)(9 + bound_of_prompt() + 10));
    assert_int_equal(admin_status(&s, "PATCH", "", body), 200);
    assert_int_equal(post(&s, ASK).status, 200);
    assert_int_equal(admin_status(&s, "PATCH", "", "{\"limits\":{\"budget\":{\"amount\":5}}}"), 200);
    assert_int_equal(post(&s, ASK).status, 429);
    close_stage(&s);
}

static void routes_that_escape_the_budget(void **state)
{
    (void)state;
    static stage s;
    static const struct {
        const char *path, *body;
    } cases[] = {
        {"/v1/chat/completions", ASK},
        {"/v1/chat/completions", "{\"model\":\"m\",\"stream\":true," MESSAGES "}"},
        {"/v1/chat/completions", "{\"model\":\"mapped\"," MESSAGES "}"},
        {"/v1/completions", "{\"model\":\"m\",\"prompt\":\"hello\",\"max_tokens\":1}"},
        {"/v1/completions",
         "{\"model\":\"m\",\"prompt\":\"hello\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1}"},
        {"/v1/completions", "{\"model\":\"m\",\"prompt\":[1,2,3,4]}"},
        {"/v1/completions", "{\"model\":\"m\",\"prompt\":[[1,2],[3,4]],\"max_tokens\":0}"},
        {"/v1/completions", "{\"model\":\"m\",\"prompt\":\"\",\"max_tokens\":1,\"n\":4}"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":\"hello there\"}"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":[\"hello\",\"there\"]}"},
        {"/v1/responses", "{\"model\":\"m\",\"input\":\"hello\"}"},
    };
    open_stage(&s, 1, 1, token_budget(1));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const answer a = receive(send_request(&s, "POST", cases[i].path, cases[i].body));
        if (a.status != 429)
            fail_msg("%s %s: %d", cases[i].path, cases[i].body, a.status);
    }
    static const char *const elsewhere[] = {"/v1/files",        "/v1/batches",
                                            "/v1/audio/speech", "/v1/images/generations",
                                            "/v1/moderations",  "/v1/fine_tuning/jobs",
                                            "/v1/realtime",     "/chat/completions",
                                            "/completions",     "/v1/engines/m/completions"};
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        assert_int_equal(receive(send_request(&s, "POST", elsewhere[i], ASK)).status, 404);
    assert_int_equal(atomic_load(&s.up[0].asked), 0);
    close_stage(&s);
}

static size_t bytes_in_use(void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    return 0; /* another allocator, which keeps what was freed */
#else
    return mallinfo2().uordblks - (size_t)sqlite3_memory_used(); /* its page cache fills up to its bound */
#endif
}

static void some_requests(const stage *s, int n)
{
    for (int i = 0; i < n; i++) {
        char body[300];
        (void)snprintf(body, sizeof body, "{\"model\":\"m%d\",%s\"user\":\"u%d\"," MESSAGES "}", i,
                       i % 3 ? "\"stream\":true," : "", i);
        assert_int_equal(post(s, body).status, 200);
    }
}

static void memory_growth(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    some_requests(&s, 300);
    const size_t before = bytes_in_use();
    some_requests(&s, 600);
    const size_t after = bytes_in_use();
    if (after > before + 100000)
        fail_msg("%zu bytes in use after 300 requests, %zu after 900", before, after);
    close_stage(&s);
}

static long long header_of(const answer *a, const char *name)
{
    const char *at = strcasestr(a->head, name);
    return at ? strtoll(at + strlen(name) + 2, NULL, 10) : -1;
}

static void limit_headers_that_lie(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, json_pack("{s:i, s:i}", "rpm", 6, "tpm", 6000));
    for (int i = 0; i < 6; i++) {
        const answer a = post(&s, ASK);
        assert_int_equal(a.status, 200);
        assert_int_equal(header_of(&a, "x-ratelimit-limit-requests"), 6);
        assert_in_range(header_of(&a, "x-ratelimit-remaining-requests"), 5 - i,
                        6 - i); /* it refills meanwhile */
        assert_int_equal(header_of(&a, "x-ratelimit-limit-tokens"), 6000);
        /* what was reserved and not used has come back: 9 tokens an answer, and a refill of 100 a second */
        assert_in_range(header_of(&a, "x-ratelimit-remaining-tokens"), 6000 - 9 * (i + 1), 6000);
    }
    const answer a = post(&s, ASK);
    if (a.status == 200) /* the machine was so slow that one came back */
        skip();
    assert_int_equal(a.status, 429);
    assert_int_equal(header_of(&a, "x-ratelimit-remaining-requests"), 0);
    assert_in_range(header_of(&a, "Retry-After"), 1, 10);
    assert_in_range(header_of(&a, "retry-after-ms"), 1, 10000);
    close_stage(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget_passed_and_still_served),
        cmocka_unit_test(streamed_requests_priced_at_nothing),
        cmocka_unit_test(overdraft_under_concurrency),
        cmocka_unit_test(false_budget_exceeded_from_stale_spend),
        cmocka_unit_test(routes_that_escape_the_budget),
        cmocka_unit_test(memory_growth),
        cmocka_unit_test(limit_headers_that_lie),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
