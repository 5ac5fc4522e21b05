/* cli/watermark_detect.c - `retort watermark detect`: exact tails of one or several keys over text. */
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/watermark.h"
#include "cli/watermark_accounts.h"
#include "cli/watermark_weigh.h"
#include "evidence/detect.h"
#include "evidence/texts.h"

enum { MARKS_MAX = 4 * CLI_LIST_MAX, FEW = 40 };

typedef struct settings {
    cli_rest files;
    cli_list keys, accounts;
    const char *model, *scheme, *dedup, *form, *prompts, *all_accounts;
    size_t random_keys, n_vocab, threads, seed;
    bool each, weigh, json;
} settings;

typedef struct under_test { /* one key, or one derived for an account */
    rt_mark_key key;
    const char *account; /* NULL: the key itself */
    rt_watermark mark;
} under_test;

typedef struct run {
    const settings *s;
    rt_pool *pool;
    rt_tokenizer *tokenizer;
    rt_texts texts, prompts;
    cli_weights weights; /* list NULL: none */
    cli_accounts all;
    under_test tests[MARKS_MAX];
    size_t n_tests, n_vocab;
    double read_s, encode_s, score_s;
} run;

static rt_status add_test(run *r, const rt_mark_key *key, const char *account, rt_error *err)
{
    if (r->n_tests == MARKS_MAX)
        return rt_error_set(err, RT_INVALID, "more than %d keys and accounts; test them in several runs",
                            (int)MARKS_MAX);
    under_test *t = &r->tests[r->n_tests];
    *t = (under_test){*key, account, key->mark};
    if (account && rt_mark_key_for_account(&t->mark, &key->mark, account, err) != RT_OK)
        return err->status;
    r->n_tests++;
    return RT_OK;
}

static rt_status open_keys(run *r, rt_error *err)
{
    const settings *s = r->s;
    if (s->keys.count == 0 && s->all_accounts)
        return cli_accounts_open(&r->all, s->all_accounts, NULL, err);
    if (s->keys.count == 0)
        return rt_error_set(err, RT_INVALID, "detect: --key is missing: a key file, or a key's id");
    for (size_t i = 0; i < s->keys.count; i++) {
        rt_mark_key key;
        if (cli_key_open(&key, s->keys.items[i], s->scheme, r->n_vocab, err) != RT_OK)
            return err->status;
        if (key.tokenizer[0] && r->tokenizer && strcmp(key.tokenizer, rt_tokenizer_hash(r->tokenizer)) != 0)
            return rt_error_set(err, RT_MISMATCH,
                                "wrong tokenizer: key %s marks in ids of tokenizer %.12s, %.80s has %.12s",
                                key.id, key.tokenizer, s->model, rt_tokenizer_hash(r->tokenizer));
        if (add_test(r, &key, NULL, err) != RT_OK)
            return err->status;
        for (size_t a = 0; a < s->accounts.count; a++)
            if (add_test(r, &key, s->accounts.items[a], err) != RT_OK)
                return err->status;
    }
    if (!s->all_accounts)
        return RT_OK;
    if (s->keys.count > 1 || s->accounts.count > 0 || s->each || s->weigh)
        return rt_error_set(err, RT_INVALID,
                            "--all-accounts goes with one --key, and without --account, --each and --weigh");
    return cli_accounts_open(&r->all, s->all_accounts, &r->tests[0].key, err);
}

static rt_status open_tokenizer(run *r, rt_error *err)
{
    const settings *s = r->s;
    r->n_vocab = s->n_vocab;
    if (!s->model)
        return RT_OK;
    char *path = NULL;
    rt_weights *weights = NULL;
    rt_status status = cli_model_path(&path, s->model, err);
    if (status == RT_OK)
        status = rt_tokenizer_open(&r->tokenizer, path, err);
    rt_model_config config;
    rt_error quiet = {0}; /* a folder with a tokenizer alone is enough for all schemes but hf-kgw */
    if (status == RT_OK && r->n_vocab == 0 && rt_weights_open(&weights, path, &quiet) == RT_OK &&
        rt_model_config_read(&config, weights, &quiet) == RT_OK)
        r->n_vocab = config.n_vocab;
    rt_weights_close(weights);
    free(path);
    return status;
}

static rt_status read_texts(run *r, rt_error *err)
{
    const settings *s = r->s;
    const int form = !s->form ? RT_TEXTS_AUTO : strcmp(s->form, "text") == 0 ? RT_TEXTS_PLAIN : RT_TEXTS_ROWS;
    double from = rt_clock_seconds();
    if (s->weigh && (!s->model || s->prompts))
        return rt_error_set(err, RT_INVALID, "--weigh reads the texts with --model, and without --prompts");
    for (size_t i = 0; i < s->files.count; i++)
        if (rt_texts_read(&r->texts, s->files.items[i], form, err) != RT_OK)
            return err->status;
    if (s->files.count == 0 && rt_texts_read(&r->texts, "-", form, err) != RT_OK)
        return err->status;
    if (s->prompts && rt_texts_read(&r->prompts, s->prompts, RT_TEXTS_AUTO, err) != RT_OK)
        return err->status;
    r->read_s = rt_clock_seconds() - from;
    from = rt_clock_seconds();
    if (rt_texts_encode(&r->texts, r->tokenizer, r->pool, err) != RT_OK ||
        rt_texts_encode(&r->prompts, r->tokenizer, r->pool, err) != RT_OK)
        return err->status;
    r->encode_s = rt_clock_seconds() - from;
    if (!s->weigh)
        return RT_OK;
    return cli_weights_open(&r->weights, s->model, &r->texts, r->pool, err);
}

static rt_dedup dedup_of(const char *word)
{
    return strcmp(word, "v2") == 0   ? RT_DEDUP_PAIR
           : strcmp(word, "v1") == 0 ? RT_DEDUP_CONTEXT
                                     : RT_DEDUP_NONE;
}

/* The scored set of texts [from, to). */
static rt_status pairs_of(const run *r, const rt_watermark *mark, size_t from, size_t to, rt_pairs **out,
                          rt_error *err)
{
    rt_status status = rt_pairs_open(out, rt_watermark_context(mark), dedup_of(r->s->dedup), err);
    for (size_t i = 0; status == RT_OK && i < r->prompts.count; i++)
        status = rt_pairs_forbid(*out, r->prompts.list[i].ids.ids, r->prompts.list[i].ids.count, err);
    if (status == RT_OK && to - from == r->texts.count)
        status = rt_pairs_reserve(*out, r->texts.tokens, err);
    for (size_t i = from; status == RT_OK && i < to; i++)
        status = rt_pairs_add(*out, r->texts.list[i].ids.ids, r->texts.list[i].ids.count, err);
    return status;
}

/* Schemes read the same numbers of a secret: what one finds, another may find again, or miss for it. */
static void warn_of_reuse(json_t *list, const run *r, const under_test *t)
{
    for (const under_test *other = r->tests; other < t; other++) {
        char text[300];
        if (t->mark.scheme >= RT_SCHEME_HF_KGW || other->mark.scheme >= RT_SCHEME_HF_KGW ||
            sodium_memcmp(t->mark.key, other->mark.key, sizeof t->mark.key) != 0)
            continue;
        (void)snprintf(
            text, sizeof text,
            "key %.80s has the secret of %.80s: two findings of theirs are one; make a key for each use",
            t->key.id, other->key.id);
        (void)json_array_append_new(list, json_string(text));
    }
}

static json_t *warnings_of(const run *r, const under_test *t, const rt_detection *d)
{
    json_t *list = json_array();
    warn_of_reuse(list, r, t);
    if (rt_mark_key_is_public(&t->mark))
        (void)json_array_append_new(
            list, json_string("this key is in public code: anybody can make such a mark, and "
                              "no evidence can rest on it"));
    if (d->check.keys && !d->check.calibrated)
        (void)json_array_append_new(list,
                                    json_string("null not calibrated: random keys do not give mean 0 and "
                                                "sd 1 on this text; only the random-key p holds"));
    if (d->score.n < FEW)
        (void)json_array_append_new(
            list, json_string("too few distinct pairs to say anything: absence of a finding means nothing"));
    if (strcmp(r->s->dedup, "none") == 0)
        (void)json_array_append_new(
            list, json_string("without de-duplication repeated text gives p-values that are wrong"));
    if (r->tokenizer && !t->key.tokenizer[0] && !r->texts.tokenizer[0])
        (void)json_array_append_new(list, json_string("neither key nor text says its tokenizer: with another "
                                                      "than the marking model's, nothing would be found"));
    return list;
}

static json_t *test_json(const run *r, const under_test *t, const rt_detection *d)
{
    json_t *o = rt_detection_json(d, &t->mark);
    (void)json_object_set_new(o, "key", json_string(t->key.id));
    if (t->account)
        (void)json_object_set_new(o, "account", json_string(t->account));
    /* several keys or accounts looked at: multiply by their number */
    const double corrected = fmin(0, d->score.log10_p + log10((double)r->n_tests));
    char p[RT_P_TEXT];
    rt_p_text(p, corrected);
    (void)json_object_update_new(o, json_pack("{s:f,s:s,s:o}", "log10_p_corrected", corrected, "p_corrected",
                                              p, "warnings", warnings_of(r, t, d)));
    return o;
}

/* With --weigh: the same question with weighted places, beside the first answer. */
static rt_status add_weighed(json_t *row, const run *r, const under_test *t, size_t from, size_t to,
                             size_t random_keys, rt_error *err)
{
    if (!r->weights.list)
        return RT_OK;
    json_t *weighed = cli_weighed_json(&r->weights, from, to, &t->mark, random_keys, r->s->seed, err);
    return weighed && json_object_set_new(row, "weighed", weighed) == 0 ? RT_OK : err->status;
}

static rt_status each_text(run *r, const under_test *t, json_t *rows, rt_error *err)
{
    for (size_t i = 0; i < r->texts.count; i++) {
        rt_pairs *pairs = NULL;
        rt_detection d;
        rt_status status = pairs_of(r, &t->mark, i, i + 1, &pairs, err);
        if (status == RT_OK)
            status = rt_detect(&d, pairs, &t->mark, 0, 0, NULL, err);
        rt_pairs_close(pairs);
        if (status != RT_OK)
            return status;
        json_t *row = json_pack("{s:I,s:s,s:I,s:I,s:f,s:f}", "index", (json_int_t)i, "key", t->key.id,
                                "tokens", (json_int_t)r->texts.list[i].ids.count, "n", (json_int_t)d.score.n,
                                "z", d.score.z, "log10_p", d.score.log10_p);
        if (t->account)
            (void)json_object_set_new(row, "account", json_string(t->account));
        (void)json_array_append_new(rows, row);
        if (add_weighed(row, r, t, i, i + 1, 0, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status detect_all(run *r, json_t *results, json_t *rows, rt_error *err)
{
    const double from = rt_clock_seconds();
    for (size_t i = 0; i < r->n_tests; i++) {
        rt_pairs *pairs = NULL;
        rt_detection d;
        rt_status status = pairs_of(r, &r->tests[i].mark, 0, r->texts.count, &pairs, err);
        if (status == RT_OK)
            status = rt_detect(&d, pairs, &r->tests[i].mark, r->s->random_keys, r->s->seed, r->pool, err);
        rt_pairs_close(pairs);
        if (status == RT_OK && rows)
            status = each_text(r, &r->tests[i], rows, err);
        if (status != RT_OK)
            return status;
        json_t *result = test_json(r, &r->tests[i], &d);
        (void)json_array_append_new(results, result);
        if (add_weighed(result, r, &r->tests[i], 0, r->texts.count, r->s->random_keys, err) != RT_OK)
            return err->status;
    }
    r->score_s = rt_clock_seconds() - from;
    return RT_OK;
}

static void print_result(const json_t *o)
{
    const json_t *check = json_object_get(o, "key_check"), *account = json_object_get(o, "account");
    (void)printf(
        "%s%s%s (%s, h=%d): n %d of %d places, z %.2f, p %s (log10 %.2f); corrected for all keys %s\n",
        json_string_value(json_object_get(o, "key")), account ? " account " : "",
        account ? json_string_value(account) : "", json_string_value(json_object_get(o, "scheme")),
        (int)json_integer_value(json_object_get(o, "h")), (int)json_integer_value(json_object_get(o, "n")),
        (int)json_integer_value(json_object_get(o, "n_seen")), json_number_value(json_object_get(o, "z")),
        json_string_value(json_object_get(o, "p")), json_number_value(json_object_get(o, "log10_p")),
        json_string_value(json_object_get(o, "p_corrected")));
    if (check)
        (void)printf("  %d random keys: mean z %.2f, sd %.2f%s; p %.3g by rank\n",
                     (int)json_integer_value(json_object_get(check, "keys")),
                     json_number_value(json_object_get(check, "mean")),
                     json_number_value(json_object_get(check, "sd")),
                     json_is_true(json_object_get(check, "calibrated")) ? "" : ": NULL NOT CALIBRATED",
                     json_number_value(json_object_get(check, "p")));
    const json_t *weighed = json_object_get(o, "weighed");
    if (weighed)
        (void)printf("  weighed by the model's freedom: n %d, z %.2f, log10 p %.2f\n",
                     (int)json_integer_value(json_object_get(weighed, "n")),
                     json_number_value(json_object_get(weighed, "z")),
                     json_number_value(json_object_get(weighed, "log10_p")));
    size_t i;
    const json_t *warning;
    json_array_foreach(json_object_get(o, "warnings"), i, warning)(void)
        printf("  warning: %s\n", json_string_value(warning));
}

static int print_all(const run *r, json_t *results, json_t *rows)
{
    const double work = r->score_s;
    if (r->s->json) {
        json_t *o = json_pack(
            "{s:o,s:I,s:I,s:s,s:{s:f,s:f,s:f,s:f}}", "results", json_incref(results), "texts",
            (json_int_t)r->texts.count, "tokens", (json_int_t)r->texts.tokens, "cannot_say",
            "a found mark says that the key was used or marked text copied, not by whom or why; no finding "
            "says nothing",
            "seconds", "read", r->read_s, "encode", r->encode_s, "score", r->score_s, "tokens_per_s",
            work > 0 ? (double)r->texts.tokens / work : 0.0);
        if (rows)
            (void)json_object_set(o, "each", rows);
        return cli_print_json(o);
    }
    size_t i;
    const json_t *item;
    json_array_foreach(rows, i, item)(void) printf(
        "text %d, key %s: %d tokens, z %.2f, log10 p %.2f\n",
        (int)json_integer_value(json_object_get(item, "index")) + 1,
        json_string_value(json_object_get(item, "key")),
        (int)json_integer_value(json_object_get(item, "tokens")),
        json_number_value(json_object_get(item, "z")), json_number_value(json_object_get(item, "log10_p")));
    json_array_foreach(results, i, item) print_result(item);
    return 0;
}

/* Whose key is it. */
static int all_accounts(run *r, rt_error *err)
{
    const double from = rt_clock_seconds();
    rt_pairs *pairs = NULL;
    json_t *o = pairs_of(r, &r->all.mark, 0, r->texts.count, &pairs, err) == RT_OK
                    ? cli_accounts_json(&r->all, pairs, r->pool, err)
                    : NULL;
    rt_pairs_close(pairs);
    if (!o)
        return cli_fail(err);
    (void)json_object_set_new(o, "seconds", json_real(rt_clock_seconds() - from));
    if (r->s->json)
        return cli_print_json(o);
    cli_accounts_print(o);
    json_decref(o);
    return 0;
}

static int work(run *r, rt_error *err)
{
    if (rt_pool_open(&r->pool, (unsigned)(r->s->threads < 4096 ? r->s->threads : 4096), err) != RT_OK ||
        open_tokenizer(r, err) != RT_OK || open_keys(r, err) != RT_OK || read_texts(r, err) != RT_OK)
        return cli_fail(err);
    if (r->s->all_accounts)
        return all_accounts(r, err);
    json_t *results = json_array(), *rows = r->s->each ? json_array() : NULL;
    const int status =
        detect_all(r, results, rows, err) == RT_OK ? print_all(r, results, rows) : cli_fail(err);
    json_decref(results);
    json_decref(rows);
    return status;
}

int watermark_detect(int argc, char **argv)
{
    settings s = {.dedup = "v2", .random_keys = 99};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Texts are files (plain, or JSONL rows with a text, messages or ids; .zst too) or standard input,\n"
         "tokenised with --model's tokenizer, which must be the marking model's. Each (context, token) pair\n"
         "counts once over all texts. The null hypothesis is: the text was made without knowledge of the\n"
         "key; p is an exact tail, given as log10 p too. Random keys check that null on this very text.\n"
         "Several keys and accounts are corrected for by their number.\n"
         "--weigh reads the texts with the whole model: a place where it had no choice carries no mark, and\n"
         "counts less. The question is the same, so choose one of the two answers beforehand.\n"
         "hf-kgw: text that transformers marked on a GPU has other lists than on a CPU and is not found.\n\n"
         "Examples:\n  retort watermark detect story.txt --key served-2026 --model smollm2-135m-instruct\n"
         "  retort watermark detect a.jsonl b.jsonl --key k.json --account alice --account bob --model "
         "model/ --json\n"
         "  retort watermark detect found.jsonl --key k.json --all-accounts accounts.txt --model model/"},
        {CLI_REST, "[FILE...]", &s.files, "texts (default, or -: standard input)"},
        {CLI_LIST, "--key KEY", &s.keys, "key file or id; may be given several times"},
        {CLI_LIST, "--account NAME", &s.accounts, "test the keys derived for this account too"},
        {CLI_STRING, "--all-accounts PATH", &s.all_accounts,
         "whose key is it: a file with an account a line (keys from --key), or a folder of key files; names "
         "accounts "
         "whose p, times their number, is 1e-5 or less"},
        {CLI_STRING, "--model MODEL", &s.model,
         "whose tokenizer reads the texts (not needed for rows of ids)"},
        {CLI_STRING, "--scheme " CLI_SCHEMES, &s.scheme, "as --watermark-scheme when the text was made"},
        {CLI_STRING, "--dedup v2|v1|none", &s.dedup,
         "pairs once, contexts once, or all (wrong; to show it) (default v2)"},
        {CLI_STRING, "--form text|jsonl", &s.form, "of the files (default: by name and first byte)"},
        {CLI_STRING, "--prompts FILE", &s.prompts, "leave out contexts that stand in these marked prompts"},
        {CLI_COUNT, "--random-keys N", &s.random_keys, "for the check (default 99; 0: no check)"},
        {CLI_COUNT, "--seed N", &s.seed, "of the random keys (default 0)"},
        {CLI_COUNT, "--vocab-size N", &s.n_vocab, "hf-kgw: of the model's config, when no --model says it"},
        {CLI_FLAG, "--weigh", &s.weigh,
         "also count each place by how free the model was there: more is found in plain text"},
        {CLI_FLAG, "--each", &s.each, "a result for each text too"},
        {CLI_COUNT, "--threads N", &s.threads, "default: one a processor"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    run *r = calloc(1, sizeof *r);
    if (!r)
        return cli_fail(&(rt_error){RT_NO_MEMORY, "no memory"});
    r->s = &s;
    const int status = work(r, &err);
    cli_weights_close(&r->weights);
    cli_accounts_close(&r->all);
    rt_texts_deinit(&r->texts);
    rt_texts_deinit(&r->prompts);
    rt_tokenizer_close(r->tokenizer);
    rt_pool_close(r->pool);
    free(r);
    return status;
}
