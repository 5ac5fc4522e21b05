/* cli/evidence_plan.c - `retort evidence plan`: the plan, hashed, before anything is looked at. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/evidence.h"
#include "retort/version.h"

typedef struct settings {
    const char *claim, *suspect, *reference, *answers, *reference_answers, *teacher_answers, *key, *scheme,
        *read, *prompts, *twins, *canaries, *order, *membership, *preference, *weights, *replicates, *out;
    cli_list accounts, tests, names, readers;
    size_t sampled_tokens, answer_tokens, read_tokens, random_keys, flips, seed;
    double temperature;
    bool json;
} settings;

/* Tests that what is given allows, best first; a reference makes the stronger forms possible. */
static void default_tests(const settings *s, json_t *tests)
{
    const bool native = s->key != NULL, reads = native && s->read && s->suspect;
    const bool speaks = native && (s->answers || (s->suspect && s->prompts));
    const struct {
        rt_test test;
        bool can;
    } list[] = {
        {RT_TEST_POOLED, reads && s->reference},
        {RT_TEST_HARD, reads},
        {RT_TEST_SOFT, reads && !s->reference},
        {RT_TEST_DIFFERENCE, speaks && (s->reference_answers || (s->reference && s->prompts))},
        {RT_TEST_CLOSED, speaks},
        {RT_TEST_TWINS, s->twins != NULL},
        {RT_TEST_CANARIES, s->canaries != NULL},
        {RT_TEST_ORDER, s->order != NULL},
        {RT_TEST_MEMBERSHIP, s->membership != NULL},
        {RT_TEST_PREFERENCE, s->preference != NULL},
        {RT_TEST_MMD, s->teacher_answers && s->answers},
        {RT_TEST_IDENTITY, s->names.count > 0 && s->answers},
        {RT_TEST_WEIGHTS, s->weights && s->suspect},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].can)
            (void)json_array_append_new(tests, json_string(rt_test_word(list[i].test)));
}

static json_t *list_json(const cli_list *list)
{
    json_t *out = json_array();
    for (size_t i = 0; i < list->count; i++)
        (void)json_array_append_new(out, json_string(list->items[i]));
    return out;
}

static rt_status add_path(json_t *plan, const char *name, const char *path, rt_error *err)
{
    char hash[65];
    if (!path)
        return RT_OK;
    (void)json_object_set_new(plan, name, rt_json_text(path, strlen(path)));
    if (rt_path_is_dir(path) || !rt_path_exists(path))
        return RT_OK; /* a model's folder or name */
    if (rt_sha256_file(hash, path, err) != RT_OK)
        return err->status;
    (void)json_object_set_new(json_object_get(plan, "inputs"), name, json_string(hash));
    return RT_OK;
}

static rt_status add_key(json_t *plan, const settings *s, rt_error *err)
{
    rt_mark_key key;
    if (!s->key)
        return RT_OK;
    char *path;
    if (cli_key_path(&path, s->key, err) != RT_OK)
        return err->status;
    const rt_status status = rt_mark_key_read(&key, path, err);
    free(path);
    if (status != RT_OK)
        return status;
    if (rt_mark_key_is_public(&key.mark))
        return rt_error_set(
            err, RT_FORBIDDEN,
            "key %s is in public code: anybody can plant or find such a mark, and no evidence "
            "can rest on it",
            key.id);
    (void)json_object_set_new(plan, "key", rt_json_text(s->key, strlen(s->key)));
    (void)json_object_set_new(plan, "key_public", rt_mark_key_public(&key));
    if (s->scheme)
        (void)json_object_set_new(plan, "scheme", json_string(s->scheme));
    return RT_OK;
}

static rt_status make_plan(json_t *plan, const settings *s, rt_error *err)
{
    const struct {
        const char *name, *path;
    } paths[] = {{"suspect", s->suspect},
                 {"reference", s->reference},
                 {"answers", s->answers},
                 {"reference_answers", s->reference_answers},
                 {"teacher_answers", s->teacher_answers},
                 {"read", s->read},
                 {"prompts", s->prompts},
                 {"twins", s->twins},
                 {"canaries", s->canaries},
                 {"order", s->order},
                 {"membership", s->membership},
                 {"preference", s->preference},
                 {"weights", s->weights},
                 {"replicates", s->replicates}};
    (void)json_object_set_new(plan, "inputs", json_object());
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (add_path(plan, paths[i].name, paths[i].path, err) != RT_OK)
            return err->status;
    if (add_key(plan, s, err) != RT_OK)
        return err->status;
    json_t *tests = list_json(&s->tests);
    if (s->tests.count == 0)
        default_tests(s, tests);
    (void)json_object_set_new(plan, "tests", tests);
    if (json_array_size(tests) == 0)
        return rt_error_set(
            err, RT_INVALID,
            "what is given allows no test: a key with texts to read or prompts, or rows of twins, "
            "canaries, order, membership or preference");
    (void)json_object_set_new(plan, "accounts", list_json(&s->accounts));
    (void)json_object_set_new(plan, "names", list_json(&s->names));
    (void)json_object_set_new(plan, "readers", list_json(&s->readers));
    (void)json_object_update_new(
        plan, json_pack("{s:i,s:I,s:s,s:s,s:I,s:I,s:I,s:f,s:I,s:I,s:I}", "retort_evidence_plan", 1, "created",
                        (json_int_t)rt_clock_unix_seconds(), "version", RT_VERSION, "claim", s->claim,
                        "sampled_tokens", (json_int_t)s->sampled_tokens, "answer_tokens",
                        (json_int_t)s->answer_tokens, "read_tokens", (json_int_t)s->read_tokens,
                        "temperature", s->temperature, "random_keys", (json_int_t)s->random_keys, "flips",
                        (json_int_t)s->flips, "seed", (json_int_t)s->seed));
    if (rt_evidence_plan_seal(plan, err) != RT_OK)
        return err->status;
    bool intact;
    return rt_evidence_plan_check(plan, &intact, s->out ? s->out : "the plan", err);
}

int evidence_plan(int argc, char **argv)
{
    settings s = {.claim = "the suspect was trained on the teacher's outputs",
                  .sampled_tokens = 100000,
                  .answer_tokens = 200,
                  .read_tokens = 30000,
                  .random_keys = 99,
                  .flips = 99999,
                  .temperature = 1};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Writes what will be tested: tests, numbers, the key's commitment and the SHA-256 of all inputs, "
         "with\n"
         "a hash over the whole. A test that is chosen after looking is exploratory; a plan that was "
         "altered\n"
         "shows. Tests by default: all that what is given allows.\n"
         "Watermark: pooled (best; --read and --reference), hard, soft (--read), difference and closed\n"
         "(--prompts or --answers). Without: twins, canaries, order, membership, preference (JSONL rows),\n"
         "mmd, identity (--answers), weights.\n\n"
         "Examples:\n  retort evidence plan --suspect student/ --reference base/ --key served-2026 --read "
         "served.jsonl\n      --prompts questions.jsonl --out plan.json\n"
         "  retort evidence plan --answers said.jsonl --key k.json --suspect student/ --test closed --out "
         "p.json\n"
         "  retort evidence plan --suspect student/ --twins twins.jsonl --out p.json"},
        {CLI_STRING, "--claim TEXT", &s.claim, "what is claimed, in words"},
        {CLI_STRING, "--suspect MODEL", &s.suspect, "the model under test (its tokenizer reads --answers)"},
        {CLI_STRING, "--reference MODEL", &s.reference,
         "a public model it may have started from, or a control"},
        {CLI_STRING, "--key KEY", &s.key, "the watermark's key: file or id"},
        {CLI_STRING, "--scheme " CLI_SCHEMES, &s.scheme, "as --watermark-scheme when serving"},
        {CLI_LIST, "--account NAME", &s.accounts, "test the keys of these accounts too"},
        {CLI_STRING, "--read FILE", &s.read,
         "marked answers of the teacher, with prompts, for tests by reading"},
        {CLI_STRING, "--prompts FILE", &s.prompts, "unmarked questions to sample answers to"},
        {CLI_STRING, "--answers FILE", &s.answers, "answers recorded from the suspect"},
        {CLI_STRING, "--reference-answers FILE", &s.reference_answers, "answers recorded from the reference"},
        {CLI_STRING, "--teacher-answers FILE", &s.teacher_answers,
         "the teacher's answers to the same prompts (mmd)"},
        {CLI_STRING, "--twins FILE", &s.twins, "rows {prompt, delivered, twin}"},
        {CLI_STRING, "--canaries FILE", &s.canaries, "rows {prompt, variants, served}"},
        {CLI_STRING, "--order FILE", &s.order, "rows {prompt, answer, position}"},
        {CLI_STRING, "--membership FILE", &s.membership, "rows {prompt, answer, member}"},
        {CLI_STRING, "--preference FILE", &s.preference, "rows {prompt, teacher, controls}"},
        {CLI_LIST, "--reader MODEL", &s.readers, "innocent readers for preference"},
        {CLI_STRING, "--weights MODEL", &s.weights, "the model whose ancestry is tested"},
        {CLI_LIST, "--name NAME", &s.names, "a name to look for in --answers (identity)"},
        {CLI_LIST, "--test NAME", &s.tests, "only these tests"},
        {CLI_COUNT, "--sampled-tokens N", &s.sampled_tokens, "of answers (default 100K)"},
        {CLI_COUNT, "--answer-tokens N", &s.answer_tokens, "of one answer (default 200)"},
        {CLI_COUNT, "--read-tokens N", &s.read_tokens, "of --read (default 30K)"},
        {CLI_REAL, "--temperature X", &s.temperature, "of sampling (default 1)"},
        {CLI_COUNT, "--random-keys N", &s.random_keys, "for the check of each watermark test (default 99)"},
        {CLI_COUNT, "--flips N", &s.flips, "of sign-flip and permutation tests (default 99999)"},
        {CLI_STRING, "--replicates RECORD", &s.replicates, "an earlier record on other data"},
        {CLI_COUNT, "--seed N", &s.seed, "of all draws (default 0)"},
        {CLI_STRING, "--out FILE", &s.out, "where the plan goes (default: standard output)"},
        {CLI_FLAG, "--json", &s.json, "print the plan too"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    json_t *plan = json_object();
    rt_status status = make_plan(plan, &s, &err);
    if (status == RT_OK && s.out && rt_path_exists(s.out))
        status = rt_error_set(&err, RT_BUSY, "%.300s: is there already; a plan is not overwritten", s.out);
    if (status == RT_OK && s.out)
        status = rt_json_write(s.out, plan, &err);
    if (status != RT_OK) {
        json_decref(plan);
        return cli_fail(&err);
    }
    if (s.json || !s.out)
        return cli_print_json(plan);
    (void)printf("plan %s\nhash %s\n", s.out, json_string_value(json_object_get(plan, "hash")));
    json_decref(plan);
    return 0;
}
