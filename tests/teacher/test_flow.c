/* tests/teacher/test_flow.c - when to send and how long to wait, by a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "teacher/flow.h"

static const double START = 1000;
static rt_flow flow;
static rt_flow_headers none, headers;

static int set_up(void **state)
{
    (void)state;
    rt_flow_init(&flow, 0, 64, 1);
    (void)rt_flow_time(&flow, START);
    rt_flow_headers_clear(&none);
    rt_flow_headers_clear(&headers);
    return 0;
}

static void read_header(const char *line) { rt_flow_headers_read(&headers, line, strlen(line), 1700000000); }

static void waits_are_read_in_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        double seconds;
    } cases[] = {{"Retry-After: 7\r\n", 7},
                 {"retry-after:7.5", 7.5},
                 {"RETRY-AFTER-MS: 250", 0.25},
                 {"Retry-After: Tue, 14 Nov 2023 22:13:50 GMT", 30},
                 {"Retry-After: Tue, 14 Nov 2000 22:13:50 GMT", 0},
                 {"Retry-After: 99999999", 3600},
                 {"Retry-After: soon", -1},
                 {"Retry-After: -5", -1},
                 {"Retry-After:", -1},
                 {"Retry-After: nan", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_flow_headers_clear(&headers);
        read_header(cases[i].line);
        assert_float_equal((float)headers.retry_after_s, (float)cases[i].seconds, 1e-4F);
    }
    static const struct {
        const char *text;
        double seconds;
    } durations[] = {{"1s", 1},  {"6m0s", 360}, {"250ms", 0.25}, {"1h2m3.5s", 3723.5},
                     {"12", 12}, {"1d", 86400}, {"", -1},        {"1x", -1},
                     {"s", -1},  {"1s2", -1}};
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++)
        assert_float_equal((float)rt_flow_duration(durations[i].text, strlen(durations[i].text)),
                           (float)durations[i].seconds, 1e-3F);
}

static void it_rises_by_one_a_reply_and_halves_once_a_round(void **state)
{
    (void)state;
    assert_int_equal((int)flow.limit, 4);
    for (int i = 0; i < 12; i++)
        rt_flow_success(&flow, &none, flow.now, 100);
    assert_int_equal((int)flow.limit, 16);
    const double sent = flow.now;
    (void)rt_flow_time(&flow, START + 1);
    for (int i = 0; i < 16; i++) /* all of one round fail: that is one sign */
        rt_flow_overloaded(&flow, sent);
    assert_int_equal((int)flow.limit, 8);
    (void)rt_flow_time(&flow, START + 2);
    for (int i = 0; i < 8; i++) /* from now on one a round */
        rt_flow_success(&flow, &none, flow.now, 100);
    assert_true(flow.limit > 8.8 && flow.limit < 9.1);
}

static void a_429_pauses_the_whole_host_for_as_long_as_it_says(void **state)
{
    (void)state;
    read_header("Retry-After: 5");
    assert_true(rt_flow_limited(&flow, &headers, flow.now) >= 5);
    assert_false(rt_flow_may_send(&flow, 0));
    (void)rt_flow_time(&flow, START + 4.9);
    assert_false(rt_flow_may_send(&flow, 0));
    (void)rt_flow_time(&flow, START + 5.6);
    assert_true(rt_flow_may_send(&flow, 0));
    assert_false(rt_flow_may_send(&flow, 1)); /* one goes ahead and tries */
    rt_flow_success(&flow, &none, flow.now, 10);
    assert_true(rt_flow_may_send(&flow, 1));
}

static void the_wall_is_seen_before_it_is_run_into(void **state)
{
    (void)state;
    read_header("x-ratelimit-remaining-requests: 2");
    read_header("x-ratelimit-reset-requests: 10s");
    rt_flow_success(&flow, &headers, flow.now, 10);
    assert_true(rt_flow_may_send(&flow, 0));
    assert_true(rt_flow_may_send(&flow, 1));
    assert_false(rt_flow_may_send(&flow, 2));
    assert_true(rt_flow_pause(&flow) > 9);
    (void)rt_flow_time(&flow, START + 10.1);
    assert_true(rt_flow_may_send(&flow, 2));
    read_header("x-ratelimit-remaining-tokens: 5");
    read_header("x-ratelimit-reset-tokens: 3s");
    rt_flow_success(&flow, &headers, flow.now, 10);
    assert_false(rt_flow_may_send(&flow, 0)); /* a request takes some 10 tokens */
}

static void a_slower_host_is_asked_less_at_once(void **state)
{
    (void)state;
    double clock = START;
    for (int i = 0; i < 20; i++) { /* 10 ms a token */
        const double sent = flow.now;
        (void)rt_flow_time(&flow, clock += 1);
        rt_flow_success(&flow, &none, sent, 100);
    }
    const double before = flow.limit;
    for (int i = 0; i < 20; i++) { /* 40 ms a token */
        const double sent = flow.now;
        (void)rt_flow_time(&flow, clock += 4);
        rt_flow_success(&flow, &none, sent, 100);
    }
    assert_true(flow.limit < before);
}

static void jumps_of_the_clock_are_not_believed(void **state)
{
    (void)state;
    read_header("Retry-After: 2");
    (void)rt_flow_limited(&flow, &headers, flow.now);
    (void)rt_flow_time(&flow, START + 86400); /* forward: the pause is not over at once */
    assert_false(rt_flow_may_send(&flow, 0));
    double now = rt_flow_time(&flow, START - 86400); /* backward: it is not for ever */
    for (int i = 0; i < 30; i++)
        now = rt_flow_time(&flow, START - 86400 + 0.1 * i);
    assert_true(now > 2.5 && rt_flow_may_send(&flow, 0));
}

static void back_off_is_within_its_bounds_and_never_less_than_the_server_says(void **state)
{
    (void)state;
    double most = 0;
    for (int i = 0; i < 1000; i++) {
        const double wait = rt_flow_backoff(&flow, 2, &none);
        assert_true(wait >= 0 && wait <= 0.5);
        const double later = rt_flow_backoff(&flow, 20, &none);
        assert_true(later >= 0 && later <= 60);
        most = later > most ? later : most;
    }
    assert_true(most > 50);
    read_header("Retry-After: 9");
    assert_true(rt_flow_backoff(&flow, 2, &headers) >= 9);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(waits_are_read_in_every_form),
        TEST(it_rises_by_one_a_reply_and_halves_once_a_round),
        TEST(a_429_pauses_the_whole_host_for_as_long_as_it_says),
        TEST(the_wall_is_seen_before_it_is_run_into),
        TEST(a_slower_host_is_asked_less_at_once),
        TEST(jumps_of_the_clock_are_not_believed),
        TEST(back_off_is_within_its_bounds_and_never_less_than_the_server_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
