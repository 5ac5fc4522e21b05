/* tests/guard/test_guard.c - rows, accounts, verdicts, saved state: what comes in is checked, and a replay
 * gives the bits of the run that it repeats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "guard/result.h"
#include "guard/train.h"

static rt_guard *open_guard(size_t accounts_max)
{
    rt_error err = {0};
    rt_guard *guard = NULL;
    assert_int_equal(rt_guard_open(&guard, &(rt_guard_options){.accounts_max = accounts_max}, &err), RT_OK);
    return guard;
}

static rt_guard_span span(const char *text) { return (rt_guard_span){text, strlen(text)}; }

/* Request `i` of a made-up traffic: even accounts collect (wrappers round everything), odd ones chat. */
static void send_one(rt_guard *guard, size_t i)
{
    static const char *const tasks[] = {
        "What is %zu plus 4 apples times 3, how many apples does Tom have left?",
        "Which is a fish?\nA. cod %zu\nB. oak\nC. iron", "Write a function to sort list %zu.",
        "Who wrote the book number %zu about rivers?"};
    char prompt[256], task[160], name[32];
    rt_error err = {0};
    rt_guard_verdict verdict;
    const size_t account = i % 10;
    (void)snprintf(name, sizeof name, "account-%zu", account);
    (void)snprintf(task, sizeof task, tasks[(i / 10 * 7 + account) % 4], i);
    (void)snprintf(prompt, sizeof prompt, account % 2 ? "%s" : "### Instruction:\n%s\n\n### Response:",
                   account % 2 ? "how do I bake bread" : task);
    const rt_guard_event event = {.ts = 1.7e9 + (double)i * 300,
                                  .account = span(name),
                                  .prompt = span(prompt),
                                  .ip = span(account % 2 ? name : "exit"),
                                  .user_agent = span("client/1"),
                                  .created = 1.6e9,
                                  .temperature = 1,
                                  .n = 1,
                                  .completion_tokens = 100};
    if (rt_guard_sweep_due(guard, event.ts))
        assert_int_equal(rt_guard_sweep(guard, event.ts, &err), RT_OK);
    assert_int_equal(rt_guard_observe(guard, &event, &verdict, &err), RT_OK);
    assert_true(verdict.p > 0 && verdict.p <= 1);
}

static void assert_same(const rt_guard *a, const rt_guard *b)
{
    assert_int_equal(rt_guard_count(a), rt_guard_count(b));
    for (size_t i = 0; i < rt_guard_count(a); i++)
        assert_memory_equal(rt_guard_account_at(a, i), rt_guard_account_at(b, i), sizeof(rt_guard_account));
}

static void a_state_read_back_goes_on_bit_for_bit(void **state)
{
    (void)state;
    char path[] = "/tmp/test_guard_state_XXXXXX";
    rt_error err = {0};
    int64_t mark = 0;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    rt_guard *whole = open_guard(0), *first = open_guard(0), *second = open_guard(0);
    for (size_t i = 0; i < 600; i++)
        send_one(whole, i);
    for (size_t i = 0; i < 333; i++)
        send_one(first, i);
    assert_int_equal(rt_guard_save(first, 7, path, &err), RT_OK);
    assert_int_equal(rt_guard_load(second, &mark, path, &err), RT_OK);
    for (size_t i = 333; i < 600; i++)
        send_one(second, i);
    assert_same(whole, second);
    rt_guard_close(whole);
    rt_guard_close(first);
    rt_guard_close(second);
    assert_int_equal(unlink(path), 0);
}

static void a_damaged_state_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/test_guard_bad_XXXXXX";
    rt_error err = {0};
    int64_t mark = 0;
    const int fd = mkstemp(path);
    (void)close(fd);
    rt_guard *guard = open_guard(0), *other = open_guard(0);
    for (size_t i = 0; i < 50; i++)
        send_one(guard, i);
    assert_int_equal(rt_guard_save(guard, 7, path, &err), RT_OK);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 5000, SEEK_SET), 0);
    assert_int_equal(fputc('?', file), '?');
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rt_guard_load(other, &mark, path, &err), RT_CORRUPT);
    assert_int_equal(truncate(path, 6000), 0);
    assert_int_equal(rt_guard_load(other, &mark, path, &err), RT_CORRUPT);
    assert_int_equal(rt_guard_count(other), 0);
    rt_guard_close(guard);
    rt_guard_close(other);
    assert_int_equal(unlink(path), 0);
}

static void a_record_is_judged_as_the_request_itself_and_a_cut_one_is_refused(void **state)
{
    (void)state;
    unsigned char bytes[RT_GUARD_RECORD_BYTES_MAX];
    rt_error err = {0};
    rt_guard *whole = open_guard(0), *later = open_guard(0);
    rt_guard_record record, back;
    rt_guard_verdict verdict;
    char prompt[9000];
    for (size_t i = 0; i < 400; i++) { /* dialogues, repeats and long texts too */
        size_t n = (size_t)snprintf(prompt, sizeof prompt, "Tell me of number %zu.", i / 5 * 5);
        for (size_t turn = 0; turn < i % 5; turn++)
            n += (size_t)snprintf(prompt + n, sizeof prompt - n, "\nHere it is: %zu.\nUser: go on, please",
                                  turn * i);
        while (i % 50 == 49 && n + 16 < sizeof prompt)
            n += (size_t)snprintf(prompt + n, sizeof prompt - n, "a line, %zu\n", n);
        rt_guard_event event = {.ts = 1.7e9 + (double)i * 90,
                                .account = span(i % 2 ? "odd" : "even"),
                                .prompt = {prompt, n},
                                .ip = span("10.1.1.1"),
                                .user_agent = span("Mozilla"),
                                .pay_hash = span("card"),
                                .model = span("m"),
                                .request = span("req_a_name_that_is_longer_than_what_is_kept_of_it_by_far"),
                                .temperature = 0.7F,
                                .n = 1 + (uint32_t)i % 3,
                                .bias_count = (uint32_t)i % 4,
                                .bias_ids = {1, (uint32_t)i, 7},
                                .logprobs = i % 9 == 0,
                                .completion_tokens = (uint32_t)i};
        assert_int_equal(rt_guard_observe(whole, &event, &verdict, &err), RT_OK);
        assert_int_equal(rt_guard_record_of(later, &record, &event, &err), RT_OK);
        const size_t size = rt_guard_record_write(&record, rt_guard_key(later), bytes);
        assert_int_equal(rt_guard_record_read(&back, rt_guard_key(later), bytes, size, &err), RT_OK);
        assert_int_equal(rt_guard_observe_record(later, &back, &verdict, &err), RT_OK);
        if (i % 100 != 99)
            continue;
        assert_int_equal(rt_guard_record_read(&back, 5, bytes, size, &err), RT_INVALID);
        for (size_t cut = 0; cut < size; cut++)
            assert_int_equal(rt_guard_record_read(&back, rt_guard_key(later), bytes, cut, &err), RT_CORRUPT);
    }
    assert_same(whole, later);
    assert_true(rt_guard_account_at(whole, 0)->repeat.continued > 100);
    rt_guard_close(whole);
    rt_guard_close(later);
}

/* The checksum tells of accidents; what somebody has written there must not be used as an index. */
static rt_status put_bytes(void *context, const void *data, size_t size, rt_error *err)
{
    rt_text *out = context;
    (void)err;
    rt_text_append(out, data, size);
    return RT_OK;
}

static void a_state_with_a_checksum_but_an_impossible_account_is_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    int64_t mark = 0;
    rt_guard *guard = open_guard(0), *other = open_guard(0);
    for (size_t i = 0; i < 50; i++)
        send_one(guard, i);
    ((rt_guard_account *)(uintptr_t)rt_guard_account_at(guard, 3))->link.prompts.count = 4000;
    rt_text bytes = {0};
    assert_int_equal(rt_guard_write(guard, 1, put_bytes, &bytes, &err), RT_OK);
    assert_int_equal(rt_guard_read(other, &mark, bytes.data, bytes.size, "state", &err), RT_CORRUPT);
    assert_non_null(strstr(err.text, "account 3"));
    assert_int_equal(rt_guard_count(other), 0);
    /* an account that has lost all of a stake is a possible one */
    rt_guard_account *account = (rt_guard_account *)(uintptr_t)rt_guard_account_at(guard, 3);
    account->link.prompts.count = 0;
    account->path.log_wealth[2] = account->log_e = -INFINITY;
    bytes.size = 0;
    assert_int_equal(rt_guard_write(guard, 1, put_bytes, &bytes, &err), RT_OK);
    assert_int_equal(rt_guard_read(other, &mark, bytes.data, bytes.size, "state", &err), RT_OK);
    assert_int_equal(rt_guard_count(other), 10);
    rt_text_deinit(&bytes);
    rt_guard_close(guard);
    rt_guard_close(other);
}

static void collectors_score_above_those_who_chat(void **state)
{
    (void)state;
    rt_guard *guard = open_guard(0);
    for (size_t i = 0; i < 1000; i++)
        send_one(guard, i);
    for (size_t a = 0; a < 10; a += 2) {
        char one[32], two[32];
        (void)snprintf(one, sizeof one, "account-%zu", a);
        (void)snprintf(two, sizeof two, "account-%zu", a + 1);
        assert_true(rt_guard_find(guard, one)->score > rt_guard_find(guard, two)->score);
    }
    rt_guard_close(guard);
}

/* A class of pupils, each with a dozen mixed exercises, looks like the beginning of a collection. */
static void nobody_is_judged_by_fewer_than_twenty_three_requests(void **state)
{
    (void)state;
    rt_guard *guard = open_guard(0);
    for (size_t i = 0; i < 220; i++)
        send_one(guard, i);
    for (size_t a = 0; a < rt_guard_count(guard); a++) {
        assert_int_equal(rt_guard_requests(rt_guard_account_at(guard, a)), 22);
        assert_int_equal(rt_guard_account_at(guard, a)->flagged_at, 0);
        assert_true(rt_guard_account_at(guard, a)->score < -1e8F);
    }
    for (size_t i = 220; i < 240; i++)
        send_one(guard, i);
    for (size_t a = 0; a < rt_guard_count(guard); a++)
        assert_true(rt_guard_account_at(guard, a)->score > -1e8F);
    rt_guard_close(guard);
}

static void accounts_by_the_million_stay_within_their_room(void **state)
{
    (void)state;
    rt_guard *guard = open_guard(100);
    rt_error err = {0};
    rt_guard_verdict verdict;
    char name[32];
    for (size_t i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, "n%zu", i);
        const rt_guard_event event = {
            .ts = 1e9 + (double)i, .account = span(name), .prompt = span("hello"), .n = 1};
        assert_int_equal(rt_guard_observe(guard, &event, &verdict, &err), RT_OK);
        assert_non_null(rt_guard_find(guard, name));
    }
    assert_int_equal(rt_guard_count(guard), 100);
    assert_int_equal(rt_guard_evicted(guard), 2900);
    size_t found = 0;
    for (size_t i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, "n%zu", i);
        found += rt_guard_find(guard, name) != NULL;
    }
    assert_int_equal(found, 100);
    rt_guard_close(guard);
}

static void clock_jumps_and_huge_prompts_give_finite_features(void **state)
{
    (void)state;
    rt_guard *guard = open_guard(0);
    rt_error err = {0};
    rt_guard_verdict verdict;
    const size_t size = 3 << 20;
    char *huge = malloc(size);
    assert_non_null(huge);
    for (size_t i = 0; i < size; i++)
        huge[i] = (char)(i * 7919 >> 3);
    static const double times[] = {5e9, 0, 1e9, 1e9, 2.5e11, 3};
    for (size_t i = 0; i < 60; i++) {
        const rt_guard_event event = {.ts = times[i % 6],
                                      .account = span("x"),
                                      .prompt = {huge, i % 3 ? size - i : i},
                                      .n = 1,
                                      .temperature = 1,
                                      .completion_tokens = UINT32_MAX,
                                      .prompt_tokens = UINT32_MAX,
                                      .top_logprobs = UINT32_MAX,
                                      .max_tokens = UINT32_MAX};
        assert_int_equal(rt_guard_observe(guard, &event, &verdict, &err), RT_OK);
        float features[RT_GUARD_FEATURES];
        rt_guard_measure(rt_guard_find(guard, "x"), features);
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            assert_true(isfinite(features[f]));
    }
    free(huge);
    rt_guard_close(guard);
}

static void a_malformed_row_says_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"{", "row"},
        {"[1]", "must be a JSON object"},
        {"{\"ts\":1}", "needs \"ts\" and \"account\""},
        {"{\"ts\":\"x\",\"account\":\"a\"}", "\"ts\" must be a number"},
        {"{\"ts\":-5,\"account\":\"a\"}", "\"ts\" is -5"},
        {"{\"ts\":1,\"account\":\"\"}", "1 to 63 bytes"},
        {"{\"ts\":1,\"account\":\"a\",\"prompt\":7}", "\"prompt\" must be a text"},
        {"{\"ts\":1,\"account\":\"a\",\"params\":{\"n\":1e30}}", "\"n\" is 1e+30"},
        {"{\"ts\":1,\"account\":\"a\",\"params\":{\"logit_bias\":{\"x\":1}}}", "logit_bias"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rt_error err = {0};
        rt_guard_row row;
        assert_int_equal(rt_guard_row_parse(&row, cases[i].line, strlen(cases[i].line), "row", &err),
                         RT_CORRUPT);
        assert_non_null(strstr(err.text, cases[i].says));
    }
}

static void contributions_sum_up_to_the_score(void **state)
{
    (void)state;
    rt_guard *guard = open_guard(0);
    for (size_t i = 0; i < 500; i++)
        send_one(guard, i);
    const rt_guard_reference *reference = rt_guard_reference_of(guard);
    double base = (double)reference->bias;
    for (size_t t = 0; t < reference->n_trees; t++)
        base += (double)reference->trees[t].value[0];
    for (size_t i = 0; i < rt_guard_count(guard); i++) {
        float features[RT_GUARD_FEATURES], parts[RT_GUARD_FEATURES];
        rt_guard_measure(rt_guard_account_at(guard, i), features);
        const float score = rt_guard_contributions(reference, features, parts);
        double sum = base;
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            sum += (double)parts[f];
        assert_true(fabs(sum - (double)score) < 1e-3);
        assert_true(fabsf(score - rt_guard_score(reference, features)) < 1e-5F);
    }
    rt_guard_close(guard);
}

static void p_falls_as_the_score_rises_and_never_reaches_nought(void **state)
{
    (void)state;
    const rt_guard_reference *reference;
    rt_error err = {0};
    assert_int_equal(rt_guard_reference_builtin(&reference, &err), RT_OK);
    for (int k = 0; k < RT_GUARD_CLASSES; k++) {
        float before = 1;
        for (float score = -20; score < 40; score += 0.25F) {
            const float p = rt_guard_p(reference, k, score, 0.5);
            assert_true(p > 0 && p <= before);
            before = p;
        }
        assert_true(before < 0.01F);
    }
}

static void sketches_are_as_exact_as_they_say(void **state)
{
    (void)state;
    rt_hll hll = {0};
    rt_frequent frequent = {0};
    rt_hash_sample a = {0}, b = {0};
    size_t shared;
    for (uint32_t i = 0; i < 20000; i++) {
        (void)rt_hll_add(&hll, rt_guard_mix(i, 5));
        (void)rt_frequent_add(&frequent, i % 3 ? 7 : 1000 + i);
        rt_hash_sample_add(i % 2 ? &a : &b, (uint32_t)(rt_guard_mix(i / 4, 9) >> 32));
    }
    assert_true(fabs(rt_hll_count(&hll) - 20000) < 20000 * 0.15);
    size_t sevens = 0;
    for (size_t i = 0; i < RT_FREQUENT_ITEMS; i++)
        sevens += frequent.items[i] == 7 ? frequent.counts[i] : 0;
    assert_true(sevens >= 13333);
    assert_true(rt_hash_sample_jaccard(&a, &b, &shared) > 0.99); /* both saw i / 4 for every i */
}

/* Prompts that all fall into one register of a sketch under a known key, so that it counts one. */
static void prompts_that_flood_a_sketch_do_so_under_the_key_that_they_were_made_for_alone(void **state)
{
    (void)state;
    static const uint64_t keys[] = {0x1234567, 0x89abcdef01};
    double counted[2];
    for (size_t k = 0; k < 2; k++) {
        rt_guard *guard = NULL;
        rt_error err = {0};
        rt_guard_verdict verdict;
        char prompt[64];
        assert_int_equal(rt_guard_open(&guard, &(rt_guard_options){.key = keys[k]}, &err), RT_OK);
        for (size_t i = 0, sent = 0; sent < 60; i++) {
            rt_guard_digest digest;
            (void)snprintf(prompt, sizeof prompt, "a crafted prompt %c%c%c%c", 'a' + (int)(i % 26),
                           'a' + (int)(i / 26 % 26), 'a' + (int)(i / 676 % 26), 'a' + (int)(i / 17576 % 26));
            rt_guard_digest_make(&digest, prompt, strlen(prompt), keys[0]);
            if ((digest.exact & (RT_HLL_REGISTERS - 1)) != 7)
                continue;
            const rt_guard_event event = {
                .ts = 1e9 + (double)sent, .account = span("x"), .prompt = span(prompt), .n = 1};
            assert_int_equal(rt_guard_observe(guard, &event, &verdict, &err), RT_OK);
            sent++;
        }
        counted[k] = rt_hll_count(&rt_guard_find(guard, "x")->repeat.prompts);
        rt_guard_close(guard);
    }
    assert_true(counted[0] < 5);  /* sixty prompts, counted as one */
    assert_true(counted[1] > 40); /* an attacker who does not know the key gains nothing */
}

static void a_sample_too_small_for_the_rate_is_refused(void **state)
{
    (void)state;
    rt_guard_sample *sample;
    rt_guard_reference *made;
    const rt_guard_reference *reference;
    rt_error err = {0};
    assert_int_equal(rt_guard_reference_builtin(&reference, &err), RT_OK);
    assert_int_equal(rt_guard_sample_open(&sample, &err), RT_OK);
    assert_int_equal(rt_guard_calibrate(&made, reference, sample, 0.01, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "99 or more"));
    rt_guard_sample_close(sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_read_back_goes_on_bit_for_bit),
        cmocka_unit_test(a_damaged_state_is_refused),
        cmocka_unit_test(a_record_is_judged_as_the_request_itself_and_a_cut_one_is_refused),
        cmocka_unit_test(a_state_with_a_checksum_but_an_impossible_account_is_refused),
        cmocka_unit_test(collectors_score_above_those_who_chat),
        cmocka_unit_test(nobody_is_judged_by_fewer_than_twenty_three_requests),
        cmocka_unit_test(accounts_by_the_million_stay_within_their_room),
        cmocka_unit_test(clock_jumps_and_huge_prompts_give_finite_features),
        cmocka_unit_test(a_malformed_row_says_what_is_wrong),
        cmocka_unit_test(contributions_sum_up_to_the_score),
        cmocka_unit_test(p_falls_as_the_score_rises_and_never_reaches_nought),
        cmocka_unit_test(sketches_are_as_exact_as_they_say),
        cmocka_unit_test(prompts_that_flood_a_sketch_do_so_under_the_key_that_they_were_made_for_alone),
        cmocka_unit_test(a_sample_too_small_for_the_rate_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
