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
        *read, *prompts, *twins, *canaries, *order, *membership, *preference, *weights, *replicates, *out,
        *url, *model, *key_env, *tokenizer, *prices, *spend_max, *logged;
    cli_list accounts, tests, names, readers, controls, innocents;
    size_t top_logprobs, columns, sampled_tokens, answer_tokens, read_tokens, random_keys, flips, seed;
    double temperature;
    bool json;
} settings;

typedef struct choice {
    rt_test test;
    bool can, by_default;
    const char *needs;
} choice;

/* Every test, best first: does what is given allow it, and is it planned where none is named?  A suspect that
 * a calibration puts in the plan's place need not be there. */
static size_t choices(choice out[RT_TEST_COUNT], const settings *s)
{
    const bool native = s->key != NULL, asked = (s->suspect || s->url) && s->prompts,
               told = s->answers || s->prompts;
    const bool reads = native && (s->read || (s->top_logprobs && told)), speaks = native && told,
               said = s->answers || asked,
               read = (s->read && (s->suspect || s->url)) || (s->top_logprobs && said);
    const char *reading = "--key and --read, or --top-logprobs with answers",
               *speaking = "--key, and --answers or --prompts";
    const choice list[] = {
        {RT_TEST_POOLED, reads && s->reference, read,
         "--reference, --key and --read (or --top-logprobs with answers)"},
        {RT_TEST_HARD, reads, read, reading},
        {RT_TEST_SOFT, reads, read && !s->reference, reading},
        {RT_TEST_DIFFERENCE, speaks && (s->reference_answers || (s->reference && s->prompts)), said,
         "--key, --answers or --prompts, and --reference-answers or a --reference with --prompts"},
        {RT_TEST_CLOSED, speaks, said, speaking},
        {RT_TEST_TWINS, s->twins, true, "--twins"},
        {RT_TEST_CANARIES, s->canaries, true, "--canaries"},
        {RT_TEST_ORDER, s->order, true, "--order"},
        {RT_TEST_MEMBERSHIP, s->membership, true, "--membership"},
        {RT_TEST_PREFERENCE, s->preference, true, "--preference"},
        {RT_TEST_MMD, s->teacher_answers && told, said, "--teacher-answers, and --answers or --prompts"},
        {RT_TEST_NEARER, s->teacher_answers && told && s->controls.count > 0 && s->innocents.count > 0, said,
         "--teacher-answers, --control-answers and --innocent-answers, and --answers or --prompts"},
        {RT_TEST_IDENTITY, s->names.count > 0 && told, said, "--name, and --answers or --prompts"},
        {RT_TEST_WEIGHTS, s->weights, s->suspect, "--suspect and --weights"},
        {RT_TEST_MATCH, s->weights, s->suspect, "--suspect and --weights"},
        {RT_TEST_SIMILARITY, s->weights, s->suspect, "--suspect and --weights"},
        {RT_TEST_DIMENSION, true, false, "a suspect"},
    };
    memcpy(out, list, sizeof list);
    return sizeof list / sizeof *list;
}

static rt_status add_tests(json_t *plan, const settings *s, rt_error *err)
{
    choice list[RT_TEST_COUNT];
    const size_t n = choices(list, s);
    json_t *tests = json_array();
    (void)json_object_set_new(plan, "tests", tests);
    for (size_t i = 0; i < n && s->tests.count == 0; i++)
        if (list[i].can && list[i].by_default)
            (void)json_array_append_new(tests, json_string(rt_test_word(list[i].test)));
    for (size_t t = 0; t < s->tests.count; t++) {
        const char *word = s->tests.items[t];
        size_t i = 0;
        while (i < n && strcmp(rt_test_word(list[i].test), word) != 0)
            i++;
        if (i == n)
            return rt_error_set(err, RT_INVALID,
                                "there is no test '%.60s'; 'evidence plan --help' names them", word);
        if (!list[i].can)
            return rt_error_set(err, RT_INVALID, "the %s test needs %s", word, list[i].needs);
        (void)json_array_append_new(tests, json_string(word));
    }
    if (json_array_size(tests) == 0)
        return rt_error_set(
            err, RT_INVALID,
            "what is given allows no test: a key with texts to read or prompts, or rows of twins, "
            "canaries, order, membership or preference");
    return RT_OK;
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
    if (cli_input_hash(hash, name, path, err) != RT_OK)
        return rt_error_within(err, name);
    (void)json_object_set_new(plan, name, rt_json_text(path, strlen(path)));
    (void)json_object_set_new(json_object_get(plan, "inputs"), name, json_string(hash));
    return RT_OK;
}

/* A list of files, with the SHA-256 of each. */
static rt_status add_files(json_t *plan, const char *name, const cli_list *list, rt_error *err)
{
    json_t *hashes = json_array();
    for (size_t i = 0; i < list->count; i++) {
        char hash[65];
        if (cli_input_hash(hash, name, list->items[i], err) != RT_OK) {
            json_decref(hashes);
            return err->status;
        }
        (void)json_array_append_new(hashes, json_string(hash));
    }
    if (list->count) {
        (void)json_object_set_new(plan, name, list_json(list));
        (void)json_object_set_new(json_object_get(plan, "inputs"), name, hashes);
    } else {
        json_decref(hashes);
    }
    return RT_OK;
}

static rt_status add_suspect(json_t *plan, const settings *s, rt_error *err)
{
    const struct {
        const char *name, *text;
    } texts[] = {{"suspect_url", s->url},
                 {"suspect_model", s->model},
                 {"suspect_key_env", s->key_env},
                 {"spend_max", s->spend_max}};
    rt_spend_max limit;
    if (s->url && s->suspect)
        return rt_error_set(err, RT_INVALID,
                            "the suspect is a file (--suspect) or a server (--suspect-url), not both");
    if (s->spend_max && rt_spend_max_parse(&limit, s->spend_max, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].text)
            (void)json_object_set_new(plan, texts[i].name,
                                      rt_json_text(texts[i].text, strlen(texts[i].text)));
    if (s->top_logprobs)
        (void)json_object_set_new(plan, "top_logprobs", json_integer((json_int_t)s->top_logprobs));
    if (s->columns)
        (void)json_object_set_new(plan, "columns", json_integer((json_int_t)s->columns));
    if (add_files(plan, "control_answers", &s->controls, err) != RT_OK ||
        add_files(plan, "readers", &s->readers, err) != RT_OK)
        return err->status;
    return add_files(plan, "innocent_answers", &s->innocents, err);
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
                 {"replicates", s->replicates},
                 {"tokenizer", s->tokenizer},
                 {"prices", s->prices},
                 {"logged", s->logged}};
    (void)json_object_set_new(plan, "inputs", json_object());
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (add_path(plan, paths[i].name, paths[i].path, err) != RT_OK)
            return err->status;
    if (add_suspect(plan, s, err) != RT_OK || add_key(plan, s, err) != RT_OK)
        return err->status;
    if (add_tests(plan, s, err) != RT_OK)
        return err->status;
    (void)json_object_set_new(plan, "accounts", list_json(&s->accounts));
    (void)json_object_set_new(plan, "names", list_json(&s->names));
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
         "mmd and nearer (two samples of answers), identity, and of two files weights, match, similarity,\n"
         "dimension.\n\n"
         "Examples:\n  retort evidence plan --suspect student/ --reference base/ --key served-2026 --read "
         "served.jsonl\n      --prompts questions.jsonl --out plan.json\n"
         "  retort evidence plan --answers said.jsonl --key k.json --suspect student/ --test closed --out "
         "p.json\n"
         "  retort evidence plan --suspect student/ --twins twins.jsonl --out p.json\n"
         "  retort evidence plan --suspect-url https://api.example.com/v1 --suspect-model m "
         "--suspect-key-env KEY\n"
         "      --key k.json --tokenizer base/ --prompts questions.jsonl --spend-max 2Mtok --out p.json"},
        {CLI_STRING, "--claim TEXT", &s.claim, "what is claimed, in words"},
        {CLI_STRING, "--suspect MODEL", &s.suspect, "the model under test (its tokenizer reads --answers)"},
        {CLI_STRING, "--suspect-url URL", &s.url,
         "an OpenAI-compatible server instead; it is asked by 'run --work'"},
        {CLI_STRING, "--suspect-model NAME", &s.model, "the model to ask there"},
        {CLI_STRING, "--suspect-key-env NAME", &s.key_env,
         "environment variable that holds the server's key"},
        {CLI_COUNT, "--top-logprobs N", &s.top_logprobs,
         "ask for the likeliest tokens' log-probabilities with the answers (at most 20)"},
        {CLI_STRING, "--prices FILE", &s.prices, "price table of the server"},
        {CLI_STRING, "--spend-max LIMIT", &s.spend_max, "such as 25usd or 2Mtok, over all that is asked"},
        {CLI_STRING, "--tokenizer MODEL", &s.tokenizer,
         "the marking model's tokenizer, where the suspect's is another or not known"},
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
         "the teacher's answers to the same prompts (mmd, nearer)"},
        {CLI_LIST, "--control-answers FILE", &s.controls,
         "another model's answers to the same prompts (nearer, identity)"},
        {CLI_LIST, "--innocent-answers FILE", &s.innocents,
         "answers of an innocent model of the suspect's kind (nearer)"},
        {CLI_STRING, "--logged FILE", &s.logged,
         "the teacher's logged answers: what repeats them word for word is left out, and said"},
        {CLI_STRING, "--twins FILE", &s.twins, "rows {prompt, delivered, twin}"},
        {CLI_STRING, "--canaries FILE", &s.canaries, "rows {prompt, variants, served}"},
        {CLI_STRING, "--order FILE", &s.order, "rows {prompt, answer, position, block?}"},
        {CLI_STRING, "--membership FILE", &s.membership, "rows {prompt, answer, member}"},
        {CLI_STRING, "--preference FILE", &s.preference, "rows {prompt, teacher, controls}"},
        {CLI_LIST, "--reader MODEL", &s.readers, "innocent readers for preference"},
        {CLI_STRING, "--weights MODEL", &s.weights, "the model whose ancestry is tested"},
        {CLI_LIST, "--name NAME", &s.names,
         "a name to look for in answers, with its spellings: 'Acme|Acme AI' (identity)"},
        {CLI_LIST, "--test NAME", &s.tests, "only these tests"},
        {CLI_COUNT, "--columns N", &s.columns, "ids and prompts of the dimension test (default 1024)"},
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
