/* cli/evidence_case.c - a plan at work; see evidence.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "base/unpack.h"
#include "cli/cli.h"
#include "cli/evidence.h"

static const size_t plan_max = 1 << 20;

bool cli_plan_has(const json_t *plan, rt_test test)
{
    const json_t *tests = json_object_get(plan, "tests");
    for (size_t i = 0; i < json_array_size(tests); i++)
        if (strcmp(json_string_value(json_array_get(tests, i)), rt_test_word(test)) == 0)
            return true;
    return false;
}

const char *cli_plan_text(const json_t *plan, const char *name)
{
    return json_string_value(json_object_get(plan, name));
}

size_t cli_plan_count(const json_t *plan, const char *name, size_t otherwise)
{
    const json_t *value = json_object_get(plan, name);
    return json_is_integer(value) ? (size_t)json_integer_value(value) : otherwise;
}

rt_status cli_rows_read(json_t **out, const char *path, rt_error *err)
{
    rt_text data = {.size_max = (size_t)1 << 30};
    *out = NULL;
    rt_status status = rt_file_read_unpacked(&data, path, err);
    json_t *rows = json_array();
    size_t line = 0;
    for (const char *at = data.data, *end = data.data ? data.data + data.size : NULL;
         status == RT_OK && at && at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline ? newline : end) - at);
        char where[320];
        json_t *row = NULL;
        (void)snprintf(where, sizeof where, "%.280s:%zu", path, ++line);
        if (length > 0 && strspn(at, " \t\r") < length) {
            status = rt_json_parse(&row, at, length, where, err);
            if (status == RT_OK)
                (void)json_array_append_new(rows, row);
        }
        at += length + 1;
    }
    rt_text_deinit(&data);
    if (status == RT_OK)
        *out = rows;
    else
        json_decref(rows);
    return status;
}

/* Files that the plan hashed must be what they were. */
static rt_status check_inputs(const json_t *plan, rt_error *err)
{
    const char *name;
    json_t *said;
    json_object_foreach(json_object_get(plan, "inputs"), name, said)
    {
        const char *path = cli_plan_text(plan, name);
        char hash[65];
        if (!path || !json_is_string(said))
            continue;
        if (rt_sha256_file(hash, path, err) != RT_OK)
            return err->status;
        if (strcmp(hash, json_string_value(said)) != 0)
            return rt_error_set(
                err, RT_MISMATCH,
                "%.200s: is not the file that the plan was made with (SHA-256 %.12s, not %.12s)", path, hash,
                json_string_value(said));
    }
    return RT_OK;
}

static rt_status open_key(cli_case *c, const char *key_path, rt_error *err)
{
    const char *name = key_path ? key_path : cli_plan_text(c->plan, "key");
    const json_t *public = json_object_get(c->plan, "key_public");
    char commitment[65];
    if (!name)
        return RT_OK;
    const size_t n_vocab = c->suspect.model ? c->suspect.model->config.n_vocab : 0;
    /* the commitment is of the key as it lies in the file, before a scheme is derived */
    if (cli_key_open(&c->key, name, NULL, n_vocab, err) != RT_OK)
        return err->status;
    rt_mark_key_commitment(commitment, &c->key);
    const char *said = json_string_value(json_object_get(public, "commitment"));
    if (said && strcmp(said, commitment) != 0)
        return rt_error_set(err, RT_MISMATCH,
                            "key %s is not the plan's: its commitment is %.12s, the plan names %.12s",
                            c->key.id, commitment, said);
    if (cli_plan_text(c->plan, "scheme") &&
        cli_key_open(&c->key, name, cli_plan_text(c->plan, "scheme"), n_vocab, err) != RT_OK)
        return err->status;
    if (rt_mark_key_is_public(&c->key.mark))
        return rt_error_set(
            err, RT_FORBIDDEN,
            "key %s is in public code: anybody can plant or find such a mark, and no evidence "
            "can rest on it",
            c->key.id);
    if (c->key.tokenizer[0] && c->suspect.tokenizer &&
        strcmp(c->key.tokenizer, rt_tokenizer_hash(c->suspect.tokenizer)) != 0)
        return rt_error_set(err, RT_MISMATCH,
                            "wrong tokenizer: key %s marks in ids of tokenizer %.12s, the suspect has %.12s; "
                            "record its answers and test those ('answers')",
                            c->key.id, c->key.tokenizer, rt_tokenizer_hash(c->suspect.tokenizer));
    c->has_key = true;
    return RT_OK;
}

static rt_status open_subject(rt_subject *subject, cli_model *model, const char *name, rt_pool *pool,
                              rt_error *err)
{
    if (!name)
        return RT_OK;
    if (cli_model_open(model, name, RT_PRECISION_BF16, 0, pool, err) != RT_OK)
        return err->status;
    return rt_subject_open(subject, name, model->model, model->tokenizer, model->chat_template, err);
}

rt_status cli_case_open(cli_case *c, const char *plan_path, const char *key_path, rt_error *err)
{
    if (rt_json_read(&c->plan, plan_path, plan_max, err) != RT_OK ||
        rt_evidence_plan_check(c->plan, &c->intact, plan_path, err) != RT_OK ||
        check_inputs(c->plan, err) != RT_OK ||
        rt_pool_open(&c->pool, (unsigned)rt_size_min(c->threads, 1 << 16), err) != RT_OK)
        return err->status;
    const char *suspect = c->suspect_name ? c->suspect_name : cli_plan_text(c->plan, "suspect");
    if (open_subject(&c->suspect, &c->suspect_model, suspect, c->pool, err) != RT_OK ||
        open_subject(&c->reference, &c->reference_model, cli_plan_text(c->plan, "reference"), c->pool, err) !=
            RT_OK)
        return err->status;
    if (c->suspect.model && c->reference.model &&
        cli_models_match(&c->suspect_model, &c->reference_model, err) != RT_OK)
        return rt_error_within(err, "suspect and reference");
    return open_key(c, key_path, err);
}

void cli_case_close(cli_case *c)
{
    rt_gathered_close(&c->gathered);
    rt_subject_close(&c->suspect);
    rt_subject_close(&c->reference);
    cli_model_close(&c->suspect_model);
    cli_model_close(&c->reference_model);
    rt_pool_close(c->pool);
    json_decref(c->plan);
}

/* Recorded answers, or ones sampled from a model. */
static rt_status answers_of(cli_case *c, const rt_subject *subject, const char *recorded, rt_texts *out,
                            rt_error *err)
{
    const size_t tokens = cli_plan_count(c->plan, "sampled_tokens", 100000);
    const json_t *temperature = json_object_get(c->plan, "temperature");
    const rt_tokenizer *tokenizer = c->suspect.tokenizer ? c->suspect.tokenizer : c->reference.tokenizer;
    if (recorded) {
        if (rt_texts_read(out, recorded, RT_TEXTS_AUTO, err) != RT_OK)
            return err->status;
        return rt_texts_encode(out, tokenizer, c->pool, err);
    }
    const char *path = cli_plan_text(c->plan, "prompts");
    rt_texts prompts = {0};
    if (!path || !subject->model)
        return rt_error_set(err, RT_INVALID,
                            "tests on answers need recorded answers, or a model and prompts to ask it");
    rt_status status = rt_texts_read_prompts(&prompts, path, err);
    if (status == RT_OK) {
        (void)fprintf(stderr, "retort: sampling %zu tokens from %s\n", tokens, subject->name);
        status = rt_subject_sample(subject, &prompts, tokens, cli_plan_count(c->plan, "answer_tokens", 200),
                                   temperature ? json_number_value(temperature) : 1,
                                   cli_plan_count(c->plan, "seed", 0), cli_interrupted, out, err);
    }
    rt_texts_deinit(&prompts);
    return status;
}

static rt_status gather_answers(cli_case *c, rt_error *err)
{
    rt_texts s = {0}, b = {0};
    rt_gathered *g = &c->gathered;
    rt_status status = answers_of(c, &c->suspect, cli_plan_text(c->plan, "answers"), &s, err);
    g->sampled = s.tokens;
    if (status == RT_OK && cli_plan_has(c->plan, RT_TEST_CLOSED))
        status = rt_pairs_open(&g->closed, g->h, RT_DEDUP_PAIR, err);
    for (size_t i = 0; status == RT_OK && g->closed && i < s.count; i++)
        status = rt_pairs_add(g->closed, s.list[i].ids.ids, s.list[i].ids.count, err);
    if (status == RT_OK && cli_plan_has(c->plan, RT_TEST_DIFFERENCE)) {
        status = answers_of(c, &c->reference, cli_plan_text(c->plan, "reference_answers"), &b, err);
        if (status == RT_OK)
            status = rt_look_difference(&g->difference, g->h, &s, &b, err);
    }
    rt_texts_deinit(&s);
    rt_texts_deinit(&b);
    return status;
}

static rt_status gather_reading(cli_case *c, rt_error *err)
{
    const char *path = cli_plan_text(c->plan, "read");
    rt_texts texts = {0};
    rt_gathered *g = &c->gathered;
    const size_t tokens = cli_plan_count(c->plan, "read_tokens", 30000);
    if (!path || !c->suspect.model)
        return rt_error_set(err, RT_INVALID, "tests by reading need the suspect's model and texts to read");
    const bool pooled = cli_plan_has(c->plan, RT_TEST_POOLED);
    if (pooled && !c->reference.model)
        return rt_error_set(err, RT_INVALID, "the pooled test needs a reference model");
    rt_status status = rt_texts_read(&texts, path, RT_TEXTS_AUTO, err);
    if (status == RT_OK)
        status = rt_texts_encode(&texts, c->suspect.tokenizer, c->pool, err);
    if (status == RT_OK)
        status = rt_look_open(&g->look, g->h, pooled, err);
    if (status == RT_OK) {
        (void)fprintf(stderr, "retort: reading %zu tokens of %s with %s\n", rt_size_min(tokens, texts.tokens),
                      path, c->suspect.name);
        status = rt_look_read(&g->look, &c->suspect, pooled ? &c->reference : NULL, &texts, tokens,
                              cli_interrupted, err);
    }
    g->read = status == RT_OK;
    rt_texts_deinit(&texts);
    return status;
}

rt_status cli_case_gather(cli_case *c, rt_error *err)
{
    const bool answers = cli_plan_has(c->plan, RT_TEST_CLOSED) || cli_plan_has(c->plan, RT_TEST_DIFFERENCE);
    const bool reading = cli_plan_has(c->plan, RT_TEST_POOLED) || cli_plan_has(c->plan, RT_TEST_SOFT) ||
                         cli_plan_has(c->plan, RT_TEST_HARD);
    if (!answers && !reading)
        return RT_OK;
    if (!c->has_key)
        return rt_error_set(err, RT_INVALID, "watermark tests need a key");
    c->gathered.h = rt_watermark_context(&c->key.mark);
    if (answers && gather_answers(c, err) != RT_OK)
        return err->status;
    return reading ? gather_reading(c, err) : RT_OK;
}
