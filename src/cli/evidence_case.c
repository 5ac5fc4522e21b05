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
#include "cli/model_arg.h"

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

rt_status cli_input_hash(char hex[65], const char *name, const char *path, rt_error *err)
{
    static const char *const models[] = {"suspect", "reference", "weights", "tokenizer", "readers"};
    size_t i = 0;
    while (i < sizeof models / sizeof *models && strcmp(models[i], name) != 0)
        i++;
    if (i == sizeof models / sizeof *models)
        return rt_sha256_file(hex, path, err);
    char *model = NULL;
    rt_status status = cli_model_path(&model, path, err);
    if (status == RT_OK)
        status = cli_model_hash(hex, model, err);
    free(model);
    return status;
}

static rt_status check_input(const char *name, const char *path, const char *said, rt_error *err)
{
    char hash[65];
    if (!path || !said || cli_input_hash(hash, name, path, err) != RT_OK)
        return path && said ? err->status : RT_OK;
    if (strcmp(hash, said) != 0)
        return rt_error_set(err, RT_MISMATCH,
                            "%.200s: is not the file that the plan was made with (SHA-256 %.12s, not %.12s)",
                            path, hash, said);
    return RT_OK;
}

/* Files that the plan hashed must be what they were. */
static rt_status check_inputs(const json_t *plan, rt_error *err)
{
    const char *name;
    json_t *said;
    json_object_foreach(json_object_get(plan, "inputs"), name, said)
    {
        for (size_t i = 0; i < json_array_size(said); i++) /* a list of files */
            if (check_input(name, json_string_value(json_array_get(json_object_get(plan, name), i)),
                            json_string_value(json_array_get(said, i)), err) != RT_OK)
                return err->status;
        if (check_input(name, cli_plan_text(plan, name), json_string_value(said), err) != RT_OK)
            return err->status;
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
    const size_t n_vocab = c->suspect.model     ? c->suspect.model->config.n_vocab
                           : c->reference.model ? c->reference.model->config.n_vocab
                                                : 0;
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
    if (c->key.tokenizer[0] && c->tokenizer && strcmp(c->key.tokenizer, rt_tokenizer_hash(c->tokenizer)) != 0)
        return rt_error_set(
            err, RT_MISMATCH,
            "wrong tokenizer: key %s marks in ids of tokenizer %.12s, %s has %.12s; give the marking "
            "model's with --tokenizer, and test the suspect's answers",
            c->key.id, c->key.tokenizer,
            c->tokenizer == c->suspect.tokenizer ? "the suspect" : "the tokenizer given",
            rt_tokenizer_hash(c->tokenizer));
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

/* The teacher's tokenizer, where the suspect's is another or not known. */
static rt_status open_tokenizer(cli_case *c, rt_error *err)
{
    const char *name = cli_plan_text(c->plan, "tokenizer");
    c->tokenizer = c->suspect.tokenizer ? c->suspect.tokenizer : c->reference.tokenizer;
    if (!name)
        return RT_OK;
    if (cli_model_path(&c->tokenizer_model.path, name, err) != RT_OK ||
        rt_tokenizer_open(&c->tokenizer_model.tokenizer, c->tokenizer_model.path, err) != RT_OK)
        return err->status;
    c->tokenizer = c->tokenizer_model.tokenizer;
    const char *source = rt_tokenizer_chat_template(c->tokenizer);
    return source ? rt_chat_template_parse(&c->tokenizer_model.chat_template, source, err) : RT_OK;
}

static rt_status open_endpoint(cli_case *c, rt_error *err)
{
    const char *url = cli_plan_text(c->plan, "suspect_url"), *model = cli_plan_text(c->plan, "suspect_model"),
               *env = cli_plan_text(c->plan, "suspect_key_env"), *prices = cli_plan_text(c->plan, "prices"),
               *limit = cli_plan_text(c->plan, "spend_max"), *key = env ? getenv(env) : NULL;
    if (!url || c->suspect_name)
        return RT_OK;
    if (env && (!key || !key[0]))
        return rt_error_set(err, RT_INVALID,
                            "the environment variable %.80s is not set; it should hold the key", env);
    rt_endpoint_options o = {.url = url,
                             .model = model ? model : "",
                             .key = key,
                             .folder = c->work,
                             .n_vocab = c->tokenizer ? rt_tokenizer_size(c->tokenizer) : 0,
                             .top_logprobs = cli_plan_count(c->plan, "top_logprobs", 0)};
    if (prices && rt_price_read(&o.price, prices, o.model, err) != RT_OK)
        return err->status;
    if (limit && rt_spend_max_parse(&o.spend_max, limit, err) != RT_OK)
        return err->status;
    if (o.spend_max.money > 0 && !o.price.known)
        return rt_error_set(err, RT_INVALID, "a limit in money needs the plan's --prices");
    if (!c->work)
        return rt_error_set(err, RT_INVALID, "what a server says is kept: give a folder with --work");
    if (rt_endpoint_open(&c->endpoint, &o, err) != RT_OK)
        return err->status;
    const rt_chat_template *chat =
        c->tokenizer_model.chat_template ? c->tokenizer_model.chat_template : c->reference.chat_template;
    if (c->tokenizer)
        rt_subject_open_endpoint(&c->suspect, url, c->endpoint, c->tokenizer, chat);
    return RT_OK;
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
    if (c->suspect.model && c->reference.model && !cli_plan_text(c->plan, "tokenizer") &&
        cli_models_match(&c->suspect_model, &c->reference_model, err) != RT_OK)
        return rt_error_within(err, "suspect and reference");
    if (open_tokenizer(c, err) != RT_OK || open_endpoint(c, err) != RT_OK)
        return err->status;
    c->answers = c->suspect_name ? NULL : cli_plan_text(c->plan, "answers");
    return open_key(c, key_path, err);
}

void cli_case_close(cli_case *c)
{
    rt_gathered_close(&c->gathered);
    rt_subject_close(&c->suspect);
    rt_subject_close(&c->reference);
    rt_endpoint_close(c->endpoint);
    cli_model_close(&c->suspect_model);
    cli_model_close(&c->reference_model);
    cli_model_close(&c->tokenizer_model);
    rt_pool_close(c->pool);
    free(c->asked);
    json_decref(c->plan);
}

static double temperature_of(const cli_case *c)
{
    const json_t *temperature = json_object_get(c->plan, "temperature");
    return temperature ? json_number_value(temperature) : 1;
}

/* A server is asked once; what it said lies in the work folder from then on. */
static rt_status ask_endpoint(cli_case *c, rt_error *err)
{
    const char *path = cli_plan_text(c->plan, "prompts");
    if (c->answers || !c->endpoint)
        return RT_OK;
    if (!path)
        return rt_error_set(err, RT_INVALID, "tests on answers need prompts to ask the suspect (--prompts)");
    const size_t tokens = cli_plan_count(c->plan, "sampled_tokens", 100000);
    (void)fprintf(stderr, "retort: asking %s for %zu tokens\n", cli_plan_text(c->plan, "suspect_url"),
                  tokens);
    const rt_status status = rt_endpoint_answers(c->endpoint, "answers", path, tokens,
                                                 cli_plan_count(c->plan, "answer_tokens", 200),
                                                 temperature_of(c), cli_interrupted, &c->asked, err);
    c->answers = c->asked;
    return status == RT_OK && c->tokenizer ? rt_token_counts_read(&c->counts, c->asked, c->tokenizer, err)
                                           : status;
}

/* Answers sampled from a model file, as ids. */
static rt_status sample_answers(cli_case *c, const rt_subject *subject, rt_texts *out, rt_error *err)
{
    const size_t tokens = cli_plan_count(c->plan, "sampled_tokens", 100000);
    const char *path = cli_plan_text(c->plan, "prompts");
    rt_texts prompts = {0};
    if (!path || !subject->model)
        return rt_error_set(err, RT_INVALID,
                            "tests on answers need recorded answers, or a model and prompts to ask it");
    rt_status status = rt_texts_read_prompts(&prompts, path, err);
    if (status == RT_OK) {
        (void)fprintf(stderr, "retort: sampling %zu tokens from %s\n", tokens, subject->name);
        status = rt_subject_sample(subject, &prompts, tokens, cli_plan_count(c->plan, "answer_tokens", 200),
                                   temperature_of(c), cli_plan_count(c->plan, "seed", 0), cli_interrupted,
                                   out, err);
    }
    rt_texts_deinit(&prompts);
    if (status == RT_OK && c->tokenizer &&
        strcmp(rt_tokenizer_hash(c->tokenizer), rt_tokenizer_hash(subject->tokenizer)) != 0)
        status = rt_texts_decode(out, subject->tokenizer, err);
    return status;
}

rt_status cli_case_answers(cli_case *c, rt_texts *out, rt_error *err)
{
    if (ask_endpoint(c, err) != RT_OK)
        return err->status;
    return c->answers ? rt_texts_read(out, c->answers, RT_TEXTS_AUTO, err)
                      : sample_answers(c, &c->suspect, out, err);
}

/* Answers that are refusals, or copies of what the teacher's log holds, say nothing of the suspect: n
 * shrinks, and the record says by how much.  Leaving copies out can only lose power: their tokens follow the
 * key. */
static rt_status leave_out(cli_case *c, rt_texts *answers, rt_error *err)
{
    const char *path = cli_plan_text(c->plan, "logged");
    rt_texts logged = {0};
    uint8_t *drop = malloc(answers->count + 1);
    rt_status status =
        drop ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers", answers->count);
    if (status == RT_OK && path)
        status = rt_texts_read(&logged, path, RT_TEXTS_AUTO, err);
    if (status == RT_OK)
        status = rt_survey_answers(&c->survey, answers, path ? &logged : NULL, drop, err);
    if (status == RT_OK) {
        c->surveyed = true;
        rt_texts_drop(answers, drop);
        if (answers->count == 0)
            status = rt_error_set(
                err, RT_INVALID,
                "of %zu answers %zu are refusals and %zu copies of logged ones: none is left to test",
                c->survey.answers, c->survey.refusals, c->survey.copies);
    }
    free(drop);
    rt_texts_deinit(&logged);
    return status;
}

static rt_status gather_answers(cli_case *c, rt_error *err)
{
    rt_texts s = {0}, b = {0};
    rt_gathered *g = &c->gathered;
    const char *recorded = cli_plan_text(c->plan, "reference_answers");
    rt_status status = cli_case_answers(c, &s, err);
    if (status == RT_OK)
        status = leave_out(c, &s, err);
    if (status == RT_OK)
        status = rt_texts_encode(&s, c->tokenizer, c->pool, err);
    g->sampled = s.tokens;
    if (status == RT_OK && cli_plan_has(c->plan, RT_TEST_CLOSED))
        status = rt_pairs_open(&g->closed, g->h, RT_DEDUP_PAIR, err);
    for (size_t i = 0; status == RT_OK && g->closed && i < s.count; i++)
        status = rt_pairs_add(g->closed, s.list[i].ids.ids, s.list[i].ids.count, err);
    if (status == RT_OK && cli_plan_has(c->plan, RT_TEST_DIFFERENCE)) {
        status = recorded ? rt_texts_read(&b, recorded, RT_TEXTS_AUTO, err)
                          : sample_answers(c, &c->reference, &b, err);
        if (status == RT_OK && recorded)
            status = rt_texts_encode(&b, c->tokenizer, c->pool, err);
        if (status == RT_OK)
            status = rt_look_difference(&g->difference, g->h, &s, &b, err);
    }
    rt_texts_deinit(&s);
    rt_texts_deinit(&b);
    return status;
}

/* The suspect's own answers with listed log-probabilities, where it can read nothing. */
static rt_status gather_own(cli_case *c, bool pooled, size_t tokens, rt_error *err)
{
    rt_texts answers = {0};
    rt_gathered *g = &c->gathered;
    rt_subject told = {.name = "the answers", .tokenizer = c->tokenizer};
    bool any = false;
    rt_status status = c->tokenizer ? cli_case_answers(c, &answers, err)
                                    : rt_error_set(err, RT_INVALID,
                                                   "answers need the teacher's tokenizer "
                                                   "(--tokenizer)");
    if (status == RT_OK)
        status = leave_out(c, &answers, err);
    for (size_t i = 0; i < answers.count; i++)
        any |= answers.list[i].logprobs != NULL;
    if (status == RT_OK && !any)
        status = rt_error_set(err, RT_INVALID,
                              "tests by reading need the suspect's model and texts to read, or answers with "
                              "log-probabilities (--top-logprobs)");
    if (status == RT_OK)
        status = rt_look_open(&g->look, g->h, pooled, err);
    if (status == RT_OK)
        status = rt_look_own(&g->look, &told, pooled ? &c->reference : NULL, &answers, tokens,
                             cli_interrupted, err);
    rt_texts_deinit(&answers);
    return status;
}

/* What a server is to read is asked for at once, then read from its scores. */
static rt_status read_texts(cli_case *c, const rt_texts *texts, size_t tokens, rt_subject *reference,
                            rt_error *err)
{
    rt_gathered *g = &c->gathered;
    if (c->suspect.endpoint) {
        rt_endpoint_set_dry(c->endpoint, true);
        rt_status status = rt_look_read(&g->look, &c->suspect, NULL, texts, tokens, cli_interrupted, err);
        rt_endpoint_set_dry(c->endpoint, false);
        if (status == RT_OK)
            status = rt_endpoint_fetch(c->endpoint, cli_interrupted, err);
        if (status != RT_OK)
            return status;
    }
    return rt_look_read(&g->look, &c->suspect, reference, texts, tokens, cli_interrupted, err);
}

/* Has this model file another tokenizer than the marking model? */
static bool speaks_other(const cli_case *c, const rt_subject *s)
{
    return c->tokenizer && s->model &&
           strcmp(rt_tokenizer_hash(c->tokenizer), rt_tokenizer_hash(s->tokenizer)) != 0;
}

static rt_status gather_reading(cli_case *c, rt_error *err)
{
    const char *path = cli_plan_text(c->plan, "read");
    rt_texts texts = {0};
    rt_gathered *g = &c->gathered;
    const size_t tokens = cli_plan_count(c->plan, "read_tokens", 30000);
    const bool pooled = cli_plan_has(c->plan, RT_TEST_POOLED);
    if (pooled && !c->reference.model)
        return rt_error_set(err, RT_INVALID, "the pooled test needs a reference model");
    if (!path || (!c->suspect.model && !c->suspect.endpoint)) {
        const rt_status own = gather_own(c, pooled, tokens, err);
        g->read = own == RT_OK;
        return own;
    }
    const bool foreign = speaks_other(c, &c->suspect) || (pooled && speaks_other(c, &c->reference));
    rt_status status = rt_texts_read(&texts, path, RT_TEXTS_AUTO, err);
    if (status == RT_OK)
        status = rt_texts_encode(&texts, c->tokenizer ? c->tokenizer : c->suspect.tokenizer, c->pool, err);
    if (status == RT_OK)
        status = rt_look_open(&g->look, g->h, pooled, err);
    if (status == RT_OK) {
        (void)fprintf(stderr, "retort: reading %zu tokens of %s with %s\n", rt_size_min(tokens, texts.tokens),
                      path, c->suspect.name);
        status = foreign ? rt_look_foreign(&g->look, &c->suspect, pooled ? &c->reference : NULL, c->tokenizer,
                                           &texts, tokens, cli_interrupted, err)
                         : read_texts(c, &texts, tokens, pooled ? &c->reference : NULL, err);
    }
    if (status == RT_UNSUPPORTED && cli_plan_count(c->plan, "top_logprobs", 0) > 0) {
        rt_look_close(&g->look); /* the server scores no given text: its own answers' places are left */
        status = gather_own(c, pooled, tokens, err);
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
