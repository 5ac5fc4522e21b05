/* cli/evidence_tests.c - the plan's tests that need no watermark, on the plan's suspect or on a control in
 * its place; see evidence.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/evidence.h"

enum { READERS_MAX = 64, WEIGHT_ROWS = 256, MATCH_ROWS = 64 };

typedef struct readers {
    rt_subject subjects[READERS_MAX];
    cli_model models[READERS_MAX];
    size_t n;
} readers;

/* Readers of the preference test; one that stands in the suspect's place as a control does not read. */
static rt_status open_readers(cli_case *c, readers *r, rt_error *err)
{
    const json_t *names = json_object_get(c->plan, "readers");
    for (size_t i = 0; i < json_array_size(names) && r->n < READERS_MAX; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        cli_model *m = &r->models[r->n];
        if (c->suspect_name && strcmp(name, c->suspect_name) == 0)
            continue;
        if (cli_model_open(m, name, RT_PRECISION_BF16, 0, c->pool, err) != RT_OK)
            return err->status;
        r->n++; /* closed with the others, whatever follows */
        if (rt_subject_open(&r->subjects[r->n - 1], name, m->model, m->tokenizer, m->chat_template, err) !=
            RT_OK)
            return err->status;
    }
    return RT_OK;
}

static void close_readers(readers *r)
{
    for (size_t i = 0; i < r->n; i++) {
        rt_subject_close(&r->subjects[i]);
        cli_model_close(&r->models[i]);
    }
}

/* The prompts of rows as a file that a server can be asked with. */
static rt_status ask_rows(cli_case *c, rt_test test, const json_t *rows, rt_texts *answers, rt_error *err)
{
    rt_text lines = {0};
    char path[4096];
    size_t i;
    const json_t *row;
    if (c->answers || !c->endpoint)
        return cli_case_answers(c, answers, err);
    json_array_foreach(rows, i, row)
    {
        json_t *prompt = json_pack("{s:O?}", "prompt", json_object_get(row, "prompt"));
        char *text = prompt ? json_dumps(prompt, JSON_COMPACT) : NULL;
        if (text)
            rt_text_printf(&lines, "%s\n", text);
        free(text);
        json_decref(prompt);
    }
    const int n = snprintf(path, sizeof path, "%s/%s-prompts.jsonl", c->work, rt_test_word(test));
    rt_status status = lines.failed || n >= (int)sizeof path
                           ? rt_error_set(err, RT_NO_MEMORY, "no memory for the rows' prompts")
                           : rt_file_write(path, lines.data ? lines.data : "", lines.size, err);
    rt_text_deinit(&lines);
    char *said = NULL;
    if (status == RT_OK)
        status = rt_endpoint_answers(c->endpoint, rt_test_word(test), path,
                                     json_array_size(rows) * cli_plan_count(c->plan, "answer_tokens", 200),
                                     cli_plan_count(c->plan, "answer_tokens", 200), 1, cli_interrupted, &said,
                                     err);
    if (status == RT_OK)
        status = rt_texts_read(answers, said, RT_TEXTS_AUTO, err);
    free(said);
    return status;
}

static rt_status one_row_test(cli_case *c, rt_test t, readers *r, rt_result *result, rt_error *err)
{
    const char *path = cli_plan_text(c->plan, rt_test_word(t));
    const size_t flips = cli_plan_count(c->plan, "flips", 99999), seed = cli_plan_count(c->plan, "seed", 0);
    const bool told = t == RT_TEST_TWINS || t == RT_TEST_CANARIES;
    rt_row_speakers who = {.suspect = c->suspect.model || c->suspect.endpoint ? &c->suspect : NULL,
                           .reference = c->reference.model ? &c->reference : NULL,
                           .readers = r->subjects,
                           .n_readers = r->n};
    rt_texts answers = {0};
    json_t *rows = NULL;
    if (!path)
        return rt_error_set(err, RT_INVALID, "the %s test needs its rows", rt_test_word(t));
    rt_status status = cli_rows_read(&rows, path, err);
    if (status == RT_OK && who.suspect)
        status = rt_battery_rows(result, t, rows, &who, flips, seed, err);
    /* a server that scores no given text, and answers that were recorded, can still be asked */
    if (told && (!who.suspect || (status == RT_UNSUPPORTED && c->endpoint))) {
        who.suspect = NULL;
        who.answers = &answers;
        status = ask_rows(c, t, rows, &answers, err);
    }
    if (status == RT_OK && !who.suspect)
        status = rt_battery_rows(result, t, rows, &who, flips, seed, err);
    rt_texts_deinit(&answers);
    json_decref(rows);
    return status;
}

rt_status cli_case_rows(cli_case *c, cli_take_result take, void *context, rt_error *err)
{
    readers *r = calloc(1, sizeof *r);
    rt_status status = r ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for readers");
    if (status == RT_OK && cli_plan_has(c->plan, RT_TEST_PREFERENCE))
        status = open_readers(c, r, err);
    for (rt_test t = RT_TEST_TWINS; status == RT_OK && t <= RT_TEST_PREFERENCE; t++) {
        rt_result result = {.test = t};
        if (!cli_plan_has(c->plan, t))
            continue;
        status = one_row_test(c, t, r, &result, err);
        const bool alone = t == RT_TEST_PREFERENCE && r->n == 0;
        if (alone)
            result.note =
                "without innocent readers the teacher's text may simply be easier: counts for nothing";
        if (status == RT_OK)
            status = take(context, &result, !alone, err);
        else
            json_decref(result.more);
    }
    if (r)
        close_readers(r);
    free(r);
    return status;
}

/* ---- tests on answers ---- */

typedef struct answer_sets {
    rt_texts *list;
    size_t n;
} answer_sets;

static rt_status read_sets(answer_sets *out, const json_t *paths, rt_error *err)
{
    const size_t n = json_array_size(paths);
    out->list = calloc(n + 1, sizeof *out->list);
    if (!out->list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu sets of answers", n);
    for (; out->n < n; out->n++)
        if (rt_texts_read(&out->list[out->n], json_string_value(json_array_get(paths, out->n)), RT_TEXTS_AUTO,
                          err) != RT_OK)
            return err->status;
    return RT_OK;
}

static void free_sets(answer_sets *sets)
{
    for (size_t i = 0; sets->list && i <= sets->n; i++) /* one that failed to be read, too */
        rt_texts_deinit(&sets->list[i]);
    free(sets->list);
}

static rt_status two_samples(cli_case *c, const rt_texts *suspect, const answer_sets *controls,
                             cli_take_result take, void *context, rt_error *err)
{
    const size_t seed = cli_plan_count(c->plan, "seed", 0);
    const char *path = cli_plan_text(c->plan, "teacher_answers");
    const bool mmd = cli_plan_has(c->plan, RT_TEST_MMD), near = cli_plan_has(c->plan, RT_TEST_NEARER);
    rt_texts teacher = {0};
    answer_sets innocents = {0};
    rt_result result = {0};
    if (!mmd && !near)
        return RT_OK;
    if (!path)
        return rt_error_set(err, RT_INVALID,
                            "two-sample tests need the teacher's answers to the same prompts");
    rt_status status = rt_texts_read(&teacher, path, RT_TEXTS_AUTO, err);
    if (status == RT_OK && mmd)
        status = rt_battery_mmd(&result, suspect, &teacher,
                                cli_plan_count(c->plan, "flips", 99999) / 10 + 999, seed, err);
    if (status == RT_OK && mmd)
        status = take(context, &result, false, err); /* "not the same model" is no evidence of training */
    if (status == RT_OK && near)
        status = read_sets(&innocents, json_object_get(c->plan, "innocent_answers"), err);
    if (status == RT_OK && near)
        status = rt_battery_nearer(&result, suspect, &teacher, controls->list, controls->n, innocents.list,
                                   innocents.n, seed, err);
    if (status == RT_OK && near)
        status = take(context, &result, innocents.n > 0, err);
    rt_texts_deinit(&teacher);
    free_sets(&innocents);
    return status;
}

rt_status cli_case_texts(cli_case *c, cli_take_result take, void *context, json_t **identity, rt_error *err)
{
    rt_texts suspect = {0};
    answer_sets controls = {0};
    const bool names = cli_plan_has(c->plan, RT_TEST_IDENTITY);
    if (!names && !cli_plan_has(c->plan, RT_TEST_MMD) && !cli_plan_has(c->plan, RT_TEST_NEARER))
        return RT_OK;
    rt_status status = cli_case_answers(c, &suspect, err);
    if (status == RT_OK)
        status = read_sets(&controls, json_object_get(c->plan, "control_answers"), err);
    if (status == RT_OK)
        status = two_samples(c, &suspect, &controls, take, context, err);
    if (status == RT_OK && names && identity)
        *identity =
            rt_battery_identity(&suspect, controls.list, controls.n, json_object_get(c->plan, "names"),
                                cli_plan_count(c->plan, "seed", 0));
    rt_texts_deinit(&suspect);
    free_sets(&controls);
    return status;
}

/* ---- tests on weights ---- */

/* A server is asked for columns^2 short texts: what that takes is said first, and a limit must allow it. */
static rt_status ask_dimension(cli_case *c, size_t columns, uint64_t seed, rt_error *err)
{
    rt_result none = {0};
    rt_endpoint_set_dry(c->endpoint, true);
    const rt_status status = rt_battery_dimension(&none, &c->suspect, columns, seed, err);
    rt_endpoint_set_dry(c->endpoint, false);
    if (status != RT_OK)
        return status;
    const rt_endpoint_cost cost = rt_endpoint_cost_of(c->endpoint);
    if (cost.texts == 0)
        return RT_OK;
    (void)fprintf(stderr,
                  "retort: the dimension test asks for %zu texts, %llu tokens, %.4g by the price table\n",
                  cost.texts, (unsigned long long)cost.tokens, cost.money);
    if (!cost.capped || cost.past)
        return rt_error_set(
            err, RT_INVALID,
            "the dimension test takes %zu texts, %llu tokens: %s; or plan fewer --columns (more than "
            "the width that is looked for)",
            cost.texts, (unsigned long long)cost.tokens,
            cost.capped ? "more than --spend-max leaves, and nothing was asked"
                        : "plan a --spend-max that allows it");
    return rt_endpoint_fetch(c->endpoint, cli_interrupted, err);
}

rt_status cli_case_weights(cli_case *c, cli_take_result take, void *context, rt_error *err)
{
    const bool identity = cli_plan_has(c->plan, RT_TEST_WEIGHTS),
               match = cli_plan_has(c->plan, RT_TEST_MATCH),
               similar = cli_plan_has(c->plan, RT_TEST_SIMILARITY), other = identity || match || similar,
               dimension = cli_plan_has(c->plan, RT_TEST_DIMENSION);
    const char *name = cli_plan_text(c->plan, "weights");
    const size_t seed = cli_plan_count(c->plan, "seed", 0);
    cli_model model = {0};
    rt_result result = {0};
    if (!other && !dimension)
        return RT_OK;
    if ((!c->suspect.model && (other || !c->endpoint)) || (other && !name))
        return rt_error_set(err, RT_INVALID, "tests on weights need the suspect's file and --weights MODEL");
    const size_t columns = cli_plan_count(c->plan, "columns", 1024);
    if (dimension && !c->suspect.model && ask_dimension(c, columns, seed, err) != RT_OK)
        return err->status;
    rt_status status = other ? cli_model_open(&model, name, RT_PRECISION_BF16, 0, c->pool, err) : RT_OK;
    /* they speak of another hypothesis: none of them is combined */
    if (status == RT_OK && identity)
        status = rt_battery_weights(&result, c->suspect_model.weights, model.weights, WEIGHT_ROWS, seed, err);
    if (status == RT_OK && identity)
        status = take(context, &result, false, err);
    if (status == RT_OK && match)
        status = rt_battery_match(&result, c->suspect.model, c->suspect_model.weights, model.model,
                                  model.weights, MATCH_ROWS, seed, err);
    if (status == RT_OK && match)
        status = take(context, &result, false, err);
    if (status == RT_OK && similar)
        status = rt_battery_similarity(&result, c->suspect.model, model.model, seed, err);
    if (status == RT_OK && similar)
        status = take(context, &result, false, err);
    if (status == RT_OK && dimension)
        status = rt_battery_dimension(&result, &c->suspect, columns, seed, err);
    if (status == RT_OK && dimension)
        status = take(context, &result, false, err);
    cli_model_close(&model);
    return status;
}

/* ---- the probes ---- */

int evidence_probes(int argc, char **argv)
{
    const char *out = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Questions that ask a model who it is: 6 languages, 5 questions, without a system prompt, with an\n"
         "empty one and with another persona; 90 rows of messages. Ask each some 20 times at temperature 1,\n"
         "then plan the identity test on the answers. A claimed name is weak: it lifts no verdict.\n\n"
         "Examples:\n  retort evidence probes --out probes.jsonl\n"
         "  retort collect --in probes.jsonl --out said.jsonl --url https://api.example.com/v1 --model m "
         "--samples 20\n"
         "  retort evidence plan --answers said.jsonl --test identity --name 'Acme|Acme AI' --out plan.json"},
        {CLI_STRING, "--out FILE", &out, "where the rows go (default: standard output)"},
        {CLI_FLAG, "--json", &json, "print one JSON object: the file and how many"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    rt_text lines = {0};
    json_t *probes = rt_identity_probes();
    size_t i;
    const json_t *row;
    json_array_foreach(probes, i, row)
    {
        char *text = json_dumps(row, JSON_COMPACT);
        rt_text_printf(&lines, "%s\n", text ? text : "");
        free(text);
    }
    const size_t n = json_array_size(probes);
    json_decref(probes);
    rt_status status = lines.failed ? rt_error_set(&err, RT_NO_MEMORY, "no memory for the probes") : RT_OK;
    if (status == RT_OK && out)
        status = rt_file_write(out, lines.data, lines.size, &err);
    if (status == RT_OK && !out && !json)
        (void)fwrite(lines.data, 1, lines.size, stdout);
    rt_text_deinit(&lines);
    if (status != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(json_pack("{s:s?,s:I}", "out", out, "probes", (json_int_t)n));
    return 0;
}
