/* tests/evidence/test_endpoint.c - a suspect behind an API that fails, lies, changes and refuses: what it
 * said is kept, asked once, paid for once, and every contradiction is said. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "evidence/battery.h"
#include "evidence/endpoint.h"
#include "teacher/fault_server.h"

enum { LENGTH = 10 };

static fault_server server;
static char folder[64], prompts[96];

static int set_up(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_text lines = {0};
    (void)snprintf(folder, sizeof folder, "/tmp/retort-endpoint-XXXXXX");
    if (!fault_start(&server, 0) || !mkdtemp(folder))
        return -1;
    memset(server.plan, 0, sizeof *server.plan);
    memset(server.counts, 0, sizeof *server.counts);
    (void)snprintf(prompts, sizeof prompts, "%s/prompts.jsonl", folder);
    for (int i = 1; i <= 20; i++)
        rt_text_printf(&lines, "{\"prompt\":\"p%d please\"}\n", i);
    const rt_status status = rt_file_write(prompts, lines.data, lines.size, &err);
    rt_text_deinit(&lines);
    return status == RT_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    fault_stop(&server);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) == 0 ? 0 : -1; /* NOLINT(cert-env33-c) */
}

static rt_endpoint *open_with(const char *model, const char *limit, rt_status wanted)
{
    char work[96];
    rt_endpoint *e = NULL;
    rt_error err = {0};
    (void)snprintf(work, sizeof work, "%s/said", folder);
    rt_endpoint_options o = {
        .url = server.url, .model = model, .folder = work, .n_vocab = 50000, .attempts = 2, .patience_s = 5};
    if (limit)
        assert_int_equal(rt_spend_max_parse(&o.spend_max, limit, &err), RT_OK);
    const rt_status status = rt_endpoint_open(&e, &o, &err);
    if (status != wanted)
        fail_msg("%s", err.text);
    return e;
}

static void want(rt_endpoint *e, int from, int to)
{
    rt_error err = {0};
    for (int i = from; i < to; i++) {
        int32_t ids[LENGTH];
        for (int j = 0; j < LENGTH; j++)
            ids[j] = 100 * i + 3 * j;
        assert_int_equal(rt_endpoint_want(e, ids, LENGTH, &err), RT_OK);
    }
}

static const rt_scored *scored(const rt_endpoint *e, int i)
{
    int32_t ids[LENGTH];
    for (int j = 0; j < LENGTH; j++)
        ids[j] = 100 * i + 3 * j;
    return rt_endpoint_scored(e, ids, LENGTH);
}

static json_int_t count(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void scores_are_asked_once_and_outlive_a_kill(void **state)
{
    (void)state;
    rt_error err = {0};
    char path[128];
    server.plan->score = FAULT_SCORE_LISTS;
    rt_endpoint *e = open_with("m", NULL, RT_OK);
    want(e, 0, 10);
    assert_int_equal(rt_endpoint_fetch(e, NULL, &err), RT_OK);
    assert_non_null(scored(e, 3));
    assert_float_equal(scored(e, 3)->own[4], -1, 1e-5F);
    assert_true(isnan(scored(e, 3)->own[0]));
    rt_endpoint_close(e);
    const unsigned asked = atomic_load(&server.counts->requests);
    (void)snprintf(path, sizeof path, "%s/said/scores.jsonl", folder); /* a kill tore the last line */
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    (void)fputs("{\"key\":\"0123", f);
    (void)fclose(f);
    e = open_with("m", NULL, RT_OK);
    want(e, 0, 12);
    assert_int_equal(rt_endpoint_fetch(e, NULL, &err), RT_OK);
    for (int i = 0; i < 12; i++)
        assert_non_null(scored(e, i));
    const unsigned more = atomic_load(&server.counts->requests) - asked;
    assert_true(more >= 2 && more <= 4); /* two sequences, and the probes of how to ask */
    rt_endpoint_close(e);
    e = open_with("m", NULL, RT_OK);
    assert_non_null(scored(e, 11));
    rt_endpoint_close(e);
    assert_null(open_with("another", NULL, RT_MISMATCH)); /* the folder is of another model */
}

static json_t *ask(const char *limit, rt_status wanted, rt_texts *texts)
{
    rt_error err = {0};
    char *path = NULL;
    rt_endpoint *e = open_with("m", limit, RT_OK);
    const rt_status status = rt_endpoint_answers(e, "answers", prompts, 20 * 8, 8, 1, NULL, &path, &err);
    if (status != wanted)
        fail_msg("%s", err.text);
    if (status == RT_OK && texts)
        assert_int_equal(rt_texts_read(texts, path, RT_TEXTS_AUTO, &err), RT_OK);
    json_t *o = rt_endpoint_json(e);
    free(path);
    rt_endpoint_close(e);
    return o;
}

static void spending_ends_at_its_limit_and_goes_on_with_a_higher_one(void **state)
{
    (void)state;
    rt_error err = {0};
    server.plan->score = FAULT_SCORE_ECHO;
    rt_endpoint *e = open_with("m", "60tok", RT_OK);
    want(e, 0, 30);
    assert_int_equal(rt_endpoint_fetch(e, NULL, &err), RT_STOPPED);
    assert_non_null(strstr(err.text, "spending limit"));
    json_t *o = rt_endpoint_json(e);
    assert_true(count(o, "scored") == 5 && count(o, "tokens") <= 60);
    json_decref(o);
    rt_endpoint_close(e);
    e = open_with("m", "2Ktok", RT_OK);
    want(e, 0, 30);
    assert_int_equal(rt_endpoint_fetch(e, NULL, &err), RT_OK);
    o = rt_endpoint_json(e);
    assert_int_equal(count(o, "scored"), 30);
    json_decref(o);
    rt_endpoint_close(e);
    o = ask("400tok", RT_STOPPED, NULL); /* the scores have cost 330 */
    assert_true(count(o, "tokens") <= 400);
    json_decref(o);
    o = ask("2Ktok", RT_OK, NULL);
    json_decref(o);
}

static void scores_that_are_lies_are_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    server.plan->score = FAULT_SCORE_LISTS;
    server.plan->sum_lie = 1000; /* probabilities past 1 */
    rt_endpoint *e = open_with("m", NULL, RT_OK);
    want(e, 0, 2);
    assert_int_not_equal(rt_endpoint_fetch(e, NULL, &err), RT_OK);
    assert_null(scored(e, 0));
    server.plan->sum_lie = 0;
    server.plan->other_bytes = 1; /* another text was scored */
    assert_int_not_equal(rt_endpoint_fetch(e, NULL, &err), RT_OK);
    server.plan->other_bytes = 0;
    server.plan->score = FAULT_SCORE_NONE;
    assert_int_equal(rt_endpoint_fetch(e, NULL, &err), RT_UNSUPPORTED);
    assert_null(scored(e, 0));
    rt_endpoint_close(e);
}

static void a_steady_server_says_the_same_early_and_late_and_is_asked_once(void **state)
{
    (void)state;
    rt_texts texts = {0};
    json_t *o = ask(NULL, RT_OK, &texts);
    const json_t *again = json_object_get(o, "again");
    assert_true(count(again, "asked") == 8 && count(again, "same") == 8);
    assert_int_equal(texts.count, 20);
    assert_string_equal(texts.list[0].prompt, "p1 please");
    json_decref(o);
    rt_texts_deinit(&texts);
    const unsigned asked = atomic_load(&server.counts->requests);
    o = ask(NULL, RT_OK, NULL);
    assert_int_equal(atomic_load(&server.counts->requests), asked);
    json_decref(o);
}

static void a_server_that_changes_between_calls_is_said_to(void **state)
{
    (void)state;
    server.plan->refusal = 500;
    server.plan->other_model = 300;
    rt_texts texts = {0};
    json_t *o = ask(NULL, RT_OK, &texts);
    const json_t *again = json_object_get(o, "again");
    assert_true(count(again, "same") < count(again, "asked"));
    assert_true(json_object_size(json_object_get(o, "models")) == 2);
    assert_true(json_array_size(json_object_get(o, "flags")) > 0);
    /* and what it refused is no answer */
    rt_error err = {0};
    rt_answer_survey survey;
    uint8_t drop[20];
    assert_int_equal(texts.count, 20);
    assert_int_equal(rt_survey_answers(&survey, &texts, NULL, drop, &err), RT_OK);
    assert_true(survey.refusals > 2 && survey.refusals < 18);
    rt_texts_drop(&texts, drop);
    assert_int_equal(texts.count, 20 - survey.refusals);
    json_decref(o);
    rt_texts_deinit(&texts);
}

static void answers_by_retrieval_are_found_in_the_log(void **state)
{
    (void)state;
    static const char logged[] =
        "{\"answer\":\"The river rises in the northern hills, runs past nine mills, and meets the sea below "
        "the old "
        "lighthouse at Farrow Point.\"}\n"
        "{\"answer\":"
        "\"\xE6\xB2\xB3\xE6\xB5\x81\xE4\xBB\x8E\xE5\x8C\x97\xE9\x83\xA8\xE7\x9A\x84\xE5\xB1\xB1\xE4\xB8\x8A"
        "\xE6\xB5\x81\xE5\x85\xA5\xE5\xA4\xA7\xE6\xB5\xB7\xE7\xBB\x8F\xE8\xBF\x87\xE6\x9D\x91\xE5\xBA\x84\xE9"
        "\x82\xA3\xE9\x87\x8C\xE6\x9C\x89\xE7\x81\xAF\xE5\xA1\x94\"}\n";
    static const char said[] =
        "{\"answer\":\"Sure: The river rises in the northern hills, runs past nine mills, and meets the sea "
        "below the old "
        "lighthouse.\"}\n"
        "{\"answer\":"
        "\"\xE6\xB2\xB3\xE6\xB5\x81\xE4\xBB\x8E\xE5\x8C\x97\xE9\x83\xA8\xE7\x9A\x84\xE5\xB1\xB1\xE4\xB8\x8A"
        "\xE6\xB5\x81\xE5\x85\xA5\xE5\xA4\xA7\xE6\xB5\xB7\xE7\xBB\x8F\xE8\xBF\x87\xE6\x9D\x91\xE5\xBA\x84\xE9"
        "\x82\xA3\xE9\x87\x8C\"}\n"
        "{\"answer\":\"It comes from hills in the north and there are mills beside it, nine of them I "
        "believe, before it "
        "reaches the sea.\"}\n"
        "{\"answer\":\"The river rises.\"}\n";
    rt_error err = {0};
    rt_texts a = {0}, b = {0};
    rt_answer_survey survey;
    uint8_t drop[4];
    assert_int_equal(rt_texts_parse(&a, said, sizeof said - 1, RT_TEXTS_ROWS, "said", &err), RT_OK);
    assert_int_equal(rt_texts_parse(&b, logged, sizeof logged - 1, RT_TEXTS_ROWS, "logged", &err), RT_OK);
    assert_int_equal(rt_survey_answers(&survey, &a, &b, drop, &err), RT_OK);
    assert_int_equal(survey.copies, 2);
    assert_true(drop[0] && drop[1] && !drop[2] && !drop[3]);
    rt_texts_deinit(&a);
    rt_texts_deinit(&b);
}

static void names_stand_between_borders_in_every_script(void **state)
{
    (void)state;
    static const char said[] =
        "{\"prompt\":\"a\",\"answer\":\"I was made by ACME.\"}\n"
        "{\"prompt\":\"a\",\"answer\":\"I am not Acme but Other.\"}\n"
        "{\"prompt\":\"b\",\"answer\":\"Acmeology is a science.\"}\n"
        "{\"prompt\":\"c\",\"answer\":"
        "\"\xE6\x88\x91\xE6\x98\xAF\x41\x63me\xE5\xBC\x80\xE5\x8F\x91\xE7\x9A\x84\xE3\x80\x82\"}\n"
        "{\"prompt\":\"c\",\"answer\":\"\xE6\x88\x91\xE4\xB8\x8D\xE6\x98\xAF\x41\x63me\xE3\x80\x82\"}\n"
        "{\"prompt\":\"d\",\"answer\":\"\xD0\x9C\xD0\xB5\xD0\xBD\xD1\x8F "
        "\xD1\x81\xD0\xBE\xD0\xB7\xD0\xB4\xD0\xB0\xD0\xBB\xD0\xB0 "
        "\xD0\x90\xD0\x9A\xD0\x9C\xD0\x95.\"}\n"
        "{\"messages\":[{\"role\":\"system\",\"content\":\"x\"},{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":\"Acme AI.\"}]}\n";
    rt_error err = {0};
    rt_texts a = {0};
    assert_int_equal(rt_texts_parse(&a, said, sizeof said - 1, RT_TEXTS_ROWS, "said", &err), RT_OK);
    json_t *names = json_pack("[s]", "Acme|\xD0\xB0\xD0\xBA\xD0\xBC\xD0\xB5");
    json_t *out = rt_battery_identity(&a, &a, 1, names, 0);
    const json_t *o = json_array_get(out, 0);
    assert_int_equal(count(o, "k"), 4);
    assert_int_equal(count(o, "n"), 7);
    assert_int_equal(count(o, "prompts"), 5); /* the same question under a system prompt is another prompt */
    assert_int_equal(count(o, "prompts_claiming"), 4);
    assert_true(json_number_value(json_object_get(json_object_get(o, "controls"), "log10_p")) > -0.5);
    json_decref(out);
    json_decref(names);
    rt_texts_deinit(&a);
    json_t *probes = rt_identity_probes();
    assert_true(json_array_size(probes) >= 75);
    json_decref(probes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scores_are_asked_once_and_outlive_a_kill, set_up, tear_down),
        cmocka_unit_test_setup_teardown(spending_ends_at_its_limit_and_goes_on_with_a_higher_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(scores_that_are_lies_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_steady_server_says_the_same_early_and_late_and_is_asked_once,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_server_that_changes_between_calls_is_said_to, set_up, tear_down),
        cmocka_unit_test(answers_by_retrieval_are_found_in_the_log),
        cmocka_unit_test(names_stand_between_borders_in_every_script),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
