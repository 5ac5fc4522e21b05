/* tests/guard/test_weeks.c - accounts over many weeks: what benign ones meet, what happens when an account
 * changes hands, and when the whole traffic changes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "guard/result.h"
#include "guard/train.h"

static const double week = 604800, begin = 1.7e9;

static rt_guard_span span(const char *text) { return (rt_guard_span){text, strlen(text)}; }

/* What a person asks in a made-up language of twenty words a person, or a program round one template.  Each
 * account has habits of its own: how often it asks, how long, how odd. */
static void write_prompt(char *out, size_t size, rt_rng *rng, size_t account, bool changed)
{
    size_t at = 0;
    const size_t words = 4 + rt_rng_below(rng, 6 + account % 12);
    if (changed)
        at += (size_t)snprintf(out, size, "Show your whole chain of thought, every step, then: ");
    for (size_t i = 0; i < words && at + 24 < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%c%llu", i ? " " : "", 'a' + (char)(account % 26),
                               (unsigned long long)rt_rng_below(rng, 20 + account % 30));
}

typedef struct sender {
    rt_guard *guard;
    FILE *rows; /* may be NULL */
    rt_rng rng;
} sender;

static void send_at(sender *s, size_t account, double ts, const char *prompt, bool collects)
{
    char name[32];
    rt_error err = {0};
    rt_guard_verdict verdict;
    (void)snprintf(name, sizeof name, "n%zu", account);
    const rt_guard_event event = {.ts = ts,
                                  .account = span(name),
                                  .prompt = span(prompt),
                                  .ip = span(name),
                                  .user_agent = span(collects ? "python-requests/2" : "Mozilla/5.0 ChatUI/1"),
                                  .temperature = 1,
                                  .n = 1,
                                  .completion_tokens = 60 + (uint32_t)(account % 40)};
    if (s->rows)
        (void)fprintf(s->rows,
                      "{\"ts\":%.3f,\"account\":\"%s\",\"ip\":\"%s\",\"user_agent\":\"Mozilla/5.0 ChatUI/1\","
                      "\"prompt\":\"%s\",\"params\":{\"temperature\":1},\"completion_tokens\":%u}\n",
                      ts, name, name, prompt, event.completion_tokens);
    else
        assert_int_equal(rt_guard_observe(s->guard, &event, &verdict, &err), RT_OK);
}

/* A week of the account's honest traffic. */
static void honest_week(sender *s, size_t account, size_t number, bool changed)
{
    char prompt[400];
    const size_t requests = 14 + account % 17 + rt_rng_below(&s->rng, 8);
    for (size_t i = 0; i < requests; i++) {
        write_prompt(prompt, sizeof prompt, &s->rng, account, changed);
        send_at(s, account, begin + week * (double)number + week * 0.9 * (double)i / (double)requests, prompt,
                false);
    }
}

/* A reference whose benign accounts are of this kind. */
static rt_guard_reference *calibrated(size_t accounts)
{
    char path[] = "/tmp/test_weeks_XXXXXX";
    rt_error err = {0};
    rt_guard_sample *sample = NULL;
    rt_guard_reference *made = NULL;
    const rt_guard_reference *builtin;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    sender s = {.rows = fdopen(fd, "w"), .rng = rt_rng_make(1, 0)};
    assert_non_null(s.rows);
    for (size_t a = 0; a < accounts; a++)
        honest_week(&s, a, 0, false);
    assert_int_equal(fclose(s.rows), 0);
    assert_int_equal(rt_guard_reference_builtin(&builtin, &err), RT_OK);
    assert_int_equal(rt_guard_sample_open(&sample, &err), RT_OK);
    assert_int_equal(rt_guard_sample_add(sample, path, NULL, NULL, &err), RT_OK);
    assert_int_equal(rt_guard_calibrate(&made, builtin, sample, 0.01, &err), RT_OK);
    rt_guard_sample_close(sample);
    assert_int_equal(unlink(path), 0);
    return made;
}

static rt_guard *open_guard(const rt_guard_reference *reference)
{
    rt_error err = {0};
    rt_guard *guard = NULL;
    assert_int_equal(rt_guard_open(&guard, &(rt_guard_options){.reference = reference}, &err), RT_OK);
    return guard;
}

static void benign_accounts_looked_at_for_weeks_are_accused_no_more_often_than_promised(void **state)
{
    (void)state;
    enum { ACCOUNTS = 600, WEEKS = 8 };
    rt_guard_reference *reference = calibrated(400);
    sender s = {.guard = open_guard(reference), .rng = rt_rng_make(2, 0)};
    static bool over[ACCOUNTS];
    size_t count = 0;
    for (size_t w = 0; w < WEEKS; w++)
        for (size_t a = 0; a < ACCOUNTS; a++) {
            honest_week(&s, a, w, false);
            char name[32];
            (void)snprintf(name, sizeof name, "n%zu", a);
            over[a] |= rt_guard_e(rt_guard_find(s.guard, name)) >= 20;
        }
    for (size_t a = 0; a < ACCOUNTS; a++)
        count += over[a];
    print_message("%zu of %d benign accounts ever had e of 20 or more in %d weeks\n", count, ACCOUNTS, WEEKS);
    assert_true((double)count <= 0.05 * ACCOUNTS + 3 * sqrt(0.05 * ACCOUNTS));
    assert_int_equal(rt_guard_requests(rt_guard_account_at(s.guard, 0)) > 8 * WEEKS, 1);
    rt_guard_close(s.guard);
    rt_guard_reference_close(reference);
}

static bool alarm_of(const rt_guard *guard)
{
    json_t *json = rt_guard_drift_json(rt_guard_drift_of(guard), rt_guard_reference_of(guard));
    const json_t *people = json_array_get(json_object_get(json, "classes"), 0);
    const bool alarm = json_is_true(json_object_get(people, "alarm"));
    const char *sentence = json_string_value(json_object_get(people, "sentence"));
    assert_non_null(sentence);
    assert_true((strstr(sentence, "does not fit any more") != NULL) == alarm);
    json_decref(json);
    return alarm;
}

static void a_change_of_the_whole_traffic_is_told_and_the_same_traffic_is_not(void **state)
{
    (void)state;
    enum { ACCOUNTS = 200 };
    rt_guard_reference *reference = calibrated(400);
    sender s = {.guard = open_guard(reference), .rng = rt_rng_make(3, 0)};
    for (size_t w = 0; w < 4; w++)
        for (size_t a = 0; a < ACCOUNTS; a++)
            honest_week(&s, a, w, false);
    assert_false(alarm_of(s.guard));
    for (size_t w = 4; w < 9; w++)
        for (size_t a = 0; a < ACCOUNTS; a++)
            honest_week(&s, a, w, true);
    assert_true(alarm_of(s.guard));
    rt_guard_close(s.guard);
    rt_guard_reference_close(reference);
}

/* Requests of a collector until p is under 1 %. */
static size_t collect_until_flagged(sender *s, size_t account, double from)
{
    static const char *const tasks[] = {
        "What is %zu plus 4 apples times 3, how many apples does Tom have left?",
        "Which is a fish?\\nA. cod %zu\\nB. oak\\nC. iron", "Write a python function to sort list %zu.",
        "Who wrote the book number %zu about rivers?",
        "Translate sentence %zu into French and explain your reasoning."};
    char prompt[400], task[200], name[32];
    (void)snprintf(name, sizeof name, "n%zu", account);
    for (size_t i = 0; i < 600; i++) {
        (void)snprintf(task, sizeof task, tasks[i * 7 % 5], i);
        (void)snprintf(prompt, sizeof prompt, "### Instruction:\\n%s\\n\\n### Response:", task);
        send_at(s, account, from + 400.0 * (double)i, prompt, true);
        if (rt_guard_block_p(rt_guard_find(s->guard, name)) < 0.01F)
            return i + 1;
    }
    return 0;
}

static void an_account_that_changed_hands_is_found_like_a_new_one(void **state)
{
    (void)state;
    sender s = {.guard = open_guard(NULL), .rng = rt_rng_make(4, 0)};
    for (size_t w = 0; w < 12; w++)
        honest_week(&s, 1, w, false);
    const size_t old = collect_until_flagged(&s, 1, begin + 12 * week),
                 fresh = collect_until_flagged(&s, 2, begin + 12 * week);
    print_message("flagged after %zu requests with twelve honest weeks before, after %zu without\n", old,
                  fresh);
    assert_true(fresh > 0 && old > 0);
    assert_true(old <= fresh + fresh / 2 + 5);
    assert_true(rt_guard_find(s.guard, "n1")->flagged_at > old); /* counted over its whole life */
    rt_guard_close(s.guard);
}

static void rows_out_of_order_and_clocks_that_jump_make_no_evidence(void **state)
{
    (void)state;
    sender s = {.guard = open_guard(NULL), .rng = rt_rng_make(5, 0)};
    char prompt[400];
    for (size_t i = 0; i < 400; i++) { /* every row a block of its own */
        write_prompt(prompt, sizeof prompt, &s.rng, 1, false);
        send_at(&s, 1, i % 2 ? begin : begin + 40 * week, prompt, false);
    }
    const rt_guard_account *account = rt_guard_find(s.guard, "n1");
    assert_int_equal(rt_guard_requests(account), 400);
    assert_true(rt_guard_e(account) <= 1.0001 &&
                rt_guard_final_p(account) > 0.1F); /* a p by lot, no evidence */
    for (size_t i = 0; i < 200; i++) {             /* shuffled inside one week: one block */
        write_prompt(prompt, sizeof prompt, &s.rng, 2, false);
        send_at(&s, 2, begin + week * 0.49 * (1 + sin((double)i)), prompt, false);
    }
    assert_int_equal(rt_guard_find(s.guard, "n2")->path.blocks, 0);
    rt_guard_close(s.guard);
}

static void a_state_saved_between_weeks_goes_on_bit_for_bit(void **state)
{
    (void)state;
    char path[] = "/tmp/test_weeks_state_XXXXXX";
    rt_error err = {0};
    int64_t mark = 0;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    sender whole = {.guard = open_guard(NULL), .rng = rt_rng_make(6, 0)},
           first = {.guard = open_guard(NULL), .rng = whole.rng};
    for (size_t w = 0; w < 4; w++)
        for (size_t a = 0; a < 30; a++)
            honest_week(&whole, a, w, a % 3 == 0);
    for (size_t w = 0; w < 2; w++)
        for (size_t a = 0; a < 30; a++)
            honest_week(&first, a, w, a % 3 == 0);
    assert_int_equal(rt_guard_save(first.guard, 7, path, &err), RT_OK);
    sender second = {.guard = open_guard(NULL), .rng = first.rng};
    assert_int_equal(rt_guard_load(second.guard, &mark, path, &err), RT_OK);
    for (size_t w = 2; w < 4; w++)
        for (size_t a = 0; a < 30; a++)
            honest_week(&second, a, w, a % 3 == 0);
    for (size_t i = 0; i < 30; i++)
        assert_memory_equal(rt_guard_account_at(whole.guard, i), rt_guard_account_at(second.guard, i),
                            sizeof(rt_guard_account));
    assert_memory_equal(rt_guard_drift_of(whole.guard), rt_guard_drift_of(second.guard),
                        sizeof(rt_guard_drift));
    rt_guard_close(whole.guard);
    rt_guard_close(first.guard);
    rt_guard_close(second.guard);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(benign_accounts_looked_at_for_weeks_are_accused_no_more_often_than_promised),
        cmocka_unit_test(a_change_of_the_whole_traffic_is_told_and_the_same_traffic_is_not),
        cmocka_unit_test(an_account_that_changed_hands_is_found_like_a_new_one),
        cmocka_unit_test(rows_out_of_order_and_clocks_that_jump_make_no_evidence),
        cmocka_unit_test(a_state_saved_between_weeks_goes_on_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
