/* tests/serve/test_choice.c - text leaves a choice whole and free of stop strings, thoughts are told apart,
 * turns are fair, penalties do what they say, stored answers are found again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/penalty.h"
#include "serve/choice.h"
#include "serve/draw.h"
#include "serve/fair.h"
#include "serve/idempotency.h"
#include "serve/json_out.h"
#include "serve/think.h"

/* Pushes data in pieces of `step`; after each the text released so far must be a beginning of `want`. */
static void run_choice(const char *data, size_t step, const rt_stop *stops, size_t n_stops, const char *want,
                       bool want_stop)
{
    const rt_job_options options = {.stops = (rt_stop *)(uintptr_t)stops, .n_stops = n_stops};
    rt_choice choice = {0};
    bool stopped = false;
    const size_t size = strlen(data);
    for (size_t at = 0; at < size && !stopped; at += step) {
        stopped = rt_choice_push(&choice, &options, data + at, size - at < step ? size - at : step);
        rt_choice_release(&choice, &options, false);
        if (choice.text.size)
            assert_memory_equal(choice.text.data, want, choice.text.size);
    }
    rt_choice_release(&choice, &options, true);
    assert_string_equal(choice.text.data ? choice.text.data : "", want);
    assert_int_equal(stopped, want_stop);
    rt_text_deinit(&choice.text);
    rt_text_deinit(&choice.raw);
}

static void text_ends_before_the_first_stop_string_wherever_tokens_are_cut(void **state)
{
    (void)state;
    static const rt_stop stops[] = {{"END", 3}, {"\n\n", 2}, {"\xC3\xA9t", 3}};
    static const struct {
        const char *data, *want;
        bool stopped;
    } cases[] = {{"no stop here", "no stop here", false},
                 {"abcENDdef", "abc", true},
                 {"a\n\nEND", "a", true},
                 {"EN", "EN", false},
                 {"EEND", "E", true},
                 {"ENEND", "EN", true},
                 {"caf\xC3\xA9 \xC3\xA9t\xC3\xA9", "caf\xC3\xA9 ", true},
                 {"x\n\ty\n", "x\n\ty\n", false},
                 {"END", "", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 8; step++)
            run_choice(cases[i].data, step, stops, 3, cases[i].want, cases[i].stopped);
}

static void characters_leave_whole_and_ill_formed_ones_become_one_mark(void **state)
{
    (void)state;
    static const struct {
        const char *data, *want;
    } cases[] = {{"a\xF0\x9F\x98\x80z", "a\xF0\x9F\x98\x80z"},
                 {"a\xF0\x9F\x98", "a\xEF\xBF\xBD"},
                 {"\xE2\x82", "\xEF\xBF\xBD"},
                 {"\xFFz", "\xEF\xBF\xBDz"},
                 {"\xC3(", "\xEF\xBF\xBD("},
                 {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 5; step++)
            run_choice(cases[i].data, step, NULL, 0, cases[i].want, false);
}

static void divide(const char *text, size_t step, bool opened, rt_text *thoughts, rt_text *content)
{
    rt_think think = rt_think_make(true, opened);
    rt_think_part part;
    const size_t size = strlen(text);
    for (size_t at = 0;; at += step) {
        const bool last = at >= size;
        while (rt_think_next(&think, text, last ? size : at, last, &part))
            rt_text_append(part.thought ? thoughts : content, part.data, part.size);
        if (last)
            return;
    }
}

static void thoughts_and_content_are_told_apart_in_any_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *text, *thoughts, *content;
        bool opened;
    } cases[] = {{"<think>\nwhy\n</think>\n\nbecause", "why", "because", false},
                 {"why\n</think>\n\nbecause", "why", "because", true},
                 {"plain <think>x</think>", "", "plain <think>x</think>", false},
                 {"<thin", "", "<thin", false},
                 {"<think>cut off </thin", "cut off </thin", "", false},
                 {"<think></think>a", "", "a", false},
                 {"", "", "", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 9; step++) {
            rt_text thoughts = {0}, content = {0};
            divide(cases[i].text, step, cases[i].opened, &thoughts, &content);
            assert_string_equal(thoughts.data ? thoughts.data : "", cases[i].thoughts);
            assert_string_equal(content.data ? content.data : "", cases[i].content);
            rt_text_deinit(&thoughts);
            rt_text_deinit(&content);
        }
}

/* ---- turns ---- */

static uint64_t cost_300(const rt_job *job)
{
    (void)job;
    return 300;
}

static void one_request_does_not_wait_for_anothers_hundred(void **state)
{
    (void)state;
    rt_job *jobs = calloc(101, sizeof *jobs);
    rt_fair fair = {0};
    assert_non_null(jobs);
    for (size_t i = 0; i < 101; i++) {
        jobs[i].account = i < 100 ? 1 : 2;
        assert_true(rt_fair_push(&fair, &jobs[i]));
    }
    size_t place = 0;
    for (size_t i = 0; i < 101; i++) {
        rt_job *job = rt_fair_next(&fair, cost_300);
        assert_non_null(job);
        if (job->account == 2)
            place = i;
        else
            assert_ptr_equal(job, &jobs[i - (place > 0)]); /* in order within the account */
        rt_fair_spend(&fair, 300, true);
    }
    assert_true(place > 0 && place <= 4);
    assert_null(rt_fair_next(&fair, cost_300));
    rt_fair_deinit(&fair);
    free(jobs);
}

static bool is_odd(void *context, const rt_job *job)
{
    (void)context;
    return job->account % 2;
}

static void unwanted_jobs_leave_the_queue(void **state)
{
    (void)state;
    rt_job jobs[6] = {0};
    rt_fair fair = {0};
    for (size_t i = 0; i < 6; i++) {
        jobs[i].account = i % 3;
        assert_true(rt_fair_push(&fair, &jobs[i]));
    }
    size_t n = 0;
    for (rt_job *job = rt_fair_sift(&fair, is_odd, NULL); job; job = job->next)
        n++;
    assert_int_equal(n, 4);
    assert_int_equal(fair.n_jobs, 2);
    assert_ptr_equal(rt_fair_next(&fair, cost_300), &jobs[1]);
    rt_fair_deinit(&fair);
}

/* ---- logits ---- */

static void penalties_and_biases_follow_their_formulas(void **state)
{
    (void)state;
    float z[6] = {2, -2, 1, 1, 1, 1};
    uint32_t counts[6] = {0};
    const int32_t prompt[] = {0, 1, 1, 99}, answer[] = {2, 2, 0};
    const rt_logit_bias biases[] = {{4, 0.5f}, {5, -100}};
    const rt_penalties how = {
        .repetition = 2, .frequency = 0.25, .presence = 0.5, .biases = biases, .n_biases = 2};
    rt_penalise(&how, z, 6, prompt, 4, answer, 3, counts);
    const float want[] = {2.0f / 2 - 0.25f - 0.5f, -4, 1.0f / 2 - 0.5f - 0.5f, 1, 1.5f};
    for (size_t i = 0; i < 5; i++)
        assert_float_equal(z[i], want[i], 1e-6f);
    assert_true(isinf(z[5]));
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(counts[i], 0);
}

static void the_best_are_in_order_and_sum_to_one_with_the_rest(void **state)
{
    (void)state;
    float z[50], scratch[50];
    for (size_t i = 0; i < 50; i++)
        z[i] = (float)((i * 37) % 25) / 5;
    const double lse = rt_log_sum(z, 50, scratch);
    rt_top top[50];
    rt_top_logprobs(z, 50, lse, top, 50);
    double mass = 0;
    for (size_t i = 0; i < 50; i++) {
        mass += exp((double)top[i].logprob);
        if (i)
            assert_true(top[i].logprob < top[i - 1].logprob ||
                        (top[i].logprob == top[i - 1].logprob && top[i].id > top[i - 1].id));
    }
    assert_float_equal(mass, 1, 1e-5);
    rt_top three[3];
    rt_top_logprobs(z, 50, lse, three, 3);
    assert_memory_equal(three, top, sizeof three);
    rt_scored scored = {0};
    rt_score_id(z, 50, lse, top[2].id, &scored);
    assert_float_equal(scored.logprob, top[2].logprob, 0);
}

/* ---- stored answers ---- */

static void an_answer_is_kept_for_its_account_key_and_body(void **state)
{
    (void)state;
    rt_kept_answers kept = {0};
    rt_kept_answer *first, *again;
    assert_int_equal(rt_kept_begin(&kept, "a", "k", "/p", "body", 4, 0, &first), RT_KEPT_NEW);
    assert_int_equal(rt_kept_begin(&kept, "a", "k", "/p", "body", 4, 1, &again), RT_KEPT_RUNNING);
    assert_int_equal(rt_kept_begin(&kept, "a", "k", "/p", "other", 5, 1, &again), RT_KEPT_CONFLICT);
    rt_text_puts(&first->body, "answer");
    rt_kept_end(&kept, first, true);
    assert_int_equal(rt_kept_begin(&kept, "a", "k", "/p", "body", 4, 2, &again), RT_KEPT_DONE);
    assert_string_equal(again->body.data, "answer");
    assert_int_equal(rt_kept_begin(&kept, "b", "k", "/p", "body", 4, 2, &again), RT_KEPT_NEW);
    rt_kept_end(&kept, again, false); /* failed: forgotten */
    assert_int_equal(rt_kept_begin(&kept, "b", "k", "/p", "other", 5, 3, &again), RT_KEPT_NEW);
    assert_int_equal(rt_kept_begin(&kept, "a", "k", "/p", "body", 4, 90000, &again), RT_KEPT_NEW);
    rt_kept_deinit(&kept);
}

static void json_strings_are_escaped_and_well_formed(void **state)
{
    (void)state;
    rt_text out = {0};
    rt_json_string(&out, "a\"\\\n\x01\xFF\xC3\xA9", 8);
    rt_text_puts(&out, " ");
    rt_json_float(&out, -INFINITY);
    assert_string_equal(out.data, "\"a\\\"\\\\\\n\\u0001\xEF\xBF\xBD\xC3\xA9\" -9999");
    rt_text_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_ends_before_the_first_stop_string_wherever_tokens_are_cut),
        cmocka_unit_test(characters_leave_whole_and_ill_formed_ones_become_one_mark),
        cmocka_unit_test(thoughts_and_content_are_told_apart_in_any_pieces),
        cmocka_unit_test(one_request_does_not_wait_for_anothers_hundred),
        cmocka_unit_test(unwanted_jobs_leave_the_queue),
        cmocka_unit_test(penalties_and_biases_follow_their_formulas),
        cmocka_unit_test(the_best_are_in_order_and_sum_to_one_with_the_rest),
        cmocka_unit_test(an_answer_is_kept_for_its_account_key_and_body),
        cmocka_unit_test(json_strings_are_escaped_and_well_formed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
