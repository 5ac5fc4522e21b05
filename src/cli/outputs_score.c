/* cli/outputs_score.c - `retort outputs score`: a server's log-probabilities over a text into a store. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/collect_terms.h"
#include "cli/model_arg.h"
#include "cli/outputs.h"
#include "cli/progress.h"
#include "model/chat_template.h"
#include "outputs/record_scores.h"
#include "outputs/rls.h"
#include "retort/version.h"
#include "student/data.h"
#include "teacher/remote.h"

typedef struct arguments {
    const char *url, *model, *key_env, *tokenizer, *data, *out, *code, *licence, *terms;
    size_t topk, tokens_max, concurrency;
    bool loss_on_all, raw, permitted, quiet, json;
} arguments;

typedef struct session {
    rt_teacher *teacher;
    rt_tokenizer *tokenizer;
    rt_chat_template *chat_template;
    rt_documents docs;
    rt_store *store;
    cli_progress bar;
    bool shown, quiet;
} session;

static rt_status open_teacher(session *s, const arguments *a, rt_error *err)
{
    const char *key = a->key_env ? getenv(a->key_env) : "";
    if (!key)
        return rt_error_set(err, RT_INVALID,
                            "the environment variable %.80s is not set; it should hold the key", a->key_env);
    const rt_remote_options options = {.url = a->url,
                                       .model = a->model,
                                       .key = key,
                                       .completions = true,
                                       .concurrency = a->concurrency,
                                       .concurrency_max = a->concurrency,
                                       .n_vocab = rt_tokenizer_real_size(s->tokenizer),
                                       .licence = a->licence,
                                       .terms = a->terms};
    if (rt_remote_open(&s->teacher, &options, err) != RT_OK)
        return err->status;
    return collect_terms_check(rt_teacher_info_of(s->teacher), a->permitted, err);
}

static rt_status open_words(session *s, const arguments *a, rt_error *err)
{
    char *path;
    if (cli_model_path(&path, a->tokenizer, err) != RT_OK)
        return err->status;
    rt_status status = rt_tokenizer_open(&s->tokenizer, path, err);
    const char *source = status == RT_OK ? rt_tokenizer_chat_template(s->tokenizer) : NULL;
    if (source && !a->raw)
        status = rt_chat_template_parse(&s->chat_template, source, err);
    free(path);
    const rt_document_options options = {a->tokens_max, a->loss_on_all};
    return status == RT_OK
               ? rt_documents_read(&s->docs, a->data, s->tokenizer, s->chat_template, &options, err)
               : status;
}

static json_t *facts_of(const arguments *a, const session *s, const char *data_hash)
{
    const rt_teacher_info *info = rt_teacher_info_of(s->teacher);
    rt_rls_header h = {.version = RT_RLS_VERSION,
                       .n_vocab = (uint32_t)rt_tokenizer_real_size(s->tokenizer),
                       .topk = (uint32_t)a->topk,
                       .code_bits = strcmp(a->code, "16") == 0 ? 16 : 8,
                       .proposal = 1,
                       .temperature = 1};
    h.n_logits = h.n_vocab;
    rt_rls_header_identify(&h, s->tokenizer, s->chat_template != NULL, NULL);
    const char *slash = strrchr(a->data, '/');
    return json_pack("{s:{s:s,s:s,s:s,s:s,s:s,s:s},s:{s:s,s:b},s:{s:s,s:s,s:I},s:b,s:o}", "teacher", "name",
                     info->name, "kind", "remote", "source", info->source, "tokenizer_hash",
                     rt_tokenizer_hash(s->tokenizer), "licence", info->licence, "terms", info->terms,
                     "sampling", "kind", "given text", "prompts_too", a->loss_on_all, "prompts", "file",
                     slash ? slash + 1 : a->data, "hash", data_hash, "texts", (json_int_t)s->docs.n_docs,
                     "permission", a->permitted, "logits", rt_rls_facts(&h));
}

static rt_status open_store(session *s, const arguments *a, rt_error *err)
{
    char data_hash[65];
    if (rt_sha256_file(data_hash, a->data, err) != RT_OK)
        return err->status;
    json_t *facts = facts_of(a, s, data_hash);
    const rt_status status =
        facts ? rt_store_open(&s->store, a->out, facts, "retort outputs score, " RT_VERSION, err)
              : rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
    json_decref(facts);
    return status;
}

static bool show(void *context, const rt_record_progress *p)
{
    session *s = context;
    char figures[96];
    if (!s->quiet && !s->shown && p->docs_total)
        cli_progress_open(&s->bar, "score", p->docs_known, p->docs_total, 10);
    s->shown = true;
    (void)snprintf(figures, sizeof figures, "%zu texts  %llu tokens  %.0f tokens/s", p->docs_done,
                   (unsigned long long)p->tokens, p->seconds > 0 ? (double)p->tokens / p->seconds : 0);
    if (!s->quiet && p->docs_total)
        cli_progress_update(&s->bar, p->docs_done, figures);
    return !cli_interrupted();
}

static rt_status score(session *s, const arguments *a, rt_record_progress *done, rt_error *err)
{
    const rt_record_texts texts = {s->docs.ids, s->docs.mask, s->docs.begins, s->docs.n_docs};
    const rt_record_scores_options options = {.score = {.top_k = a->topk, .draw_power = 1},
                                              .in_flight_max = a->concurrency,
                                              .flush_seconds = 1,
                                              .progress = show,
                                              .context = s};
    rt_status status = rt_record_scores(s->store, s->teacher, &texts, &options, done, err);
    if (s->shown && !s->quiet && done->docs_total)
        cli_progress_close(&s->bar);
    rt_error later = {0};
    const rt_status closed = rt_store_close(s->store, status == RT_OK ? err : &later);
    s->store = NULL;
    status = status == RT_OK ? closed : status;
    return status == RT_STOPPED ? cli_stopped(err, "the same command goes on where this one was") : status;
}

static int report(const arguments *a, const rt_record_progress *p)
{
    const size_t scored = p->docs_done - p->docs_known;
    if (a->json)
        return cli_print_json(json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:f}", "store", a->out, "texts",
                                        (json_int_t)p->docs_total, "recorded", (json_int_t)scored, "known",
                                        (json_int_t)p->docs_known, "tokens", (json_int_t)p->tokens, "rows",
                                        (json_int_t)p->rows, "seconds", p->seconds));
    if (!a->quiet)
        (void)fprintf(stderr, "retort: %s: %zu texts scored, %zu were there; %llu tokens, %llu rows\n",
                      a->out, scored, p->docs_known, (unsigned long long)p->tokens,
                      (unsigned long long)p->rows);
    return 0;
}

static rt_status check(const arguments *a, rt_error *err)
{
    if (a->topk == 0 || a->topk > RT_TOPK_MAX)
        return rt_error_set(err, RT_INVALID, "--topk %zu is not in 1..%d", a->topk, RT_TOPK_MAX);
    return a->tokens_max >= 2 ? RT_OK
                              : rt_error_set(err, RT_INVALID, "--tokens-max: a text needs at least 2 tokens");
}

int cli_outputs_score(int argc, char **argv)
{
    arguments a = {.code = "8", .topk = 20, .tokens_max = 512, .concurrency = 16, .licence = "", .terms = ""};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Asks a server for the log-probabilities of given texts (prompt_logprobs as vLLM gives them, or "
         "echo) and\n"
         "keeps the most probable ids of each token.  The texts are sent as token ids, so the tokenizer must "
         "be the\n"
         "server's model's.  Stopped or killed, the same command goes on.\n\n"
         "Example:\n"
         "  retort outputs score --url http://host:8000 --model NAME --tokenizer T.gguf --data train.jsonl "
         "--out store"},
        {CLI_STRING | CLI_REQUIRED, "--url URL", &a.url, "the server, as http://host:8000"},
        {CLI_STRING | CLI_REQUIRED, "--model NAME", &a.model, "what the server calls the model"},
        {CLI_STRING | CLI_REQUIRED, "--tokenizer MODEL", &a.tokenizer,
         "a model, or its folder, with the same tokenizer"},
        {CLI_STRING | CLI_REQUIRED, "--data FILE", &a.data, "JSONL (also .zst) or plain text"},
        {CLI_STRING | CLI_REQUIRED, "--out DIR", &a.out, "the store; made when it is not there"},
        {CLI_COUNT, "--topk K", &a.topk, "ids of a token (default 20; a server may give fewer)"},
        {CLI_STRING, "--code 8|16", &a.code, "bits of a log-probability before packing (default 8)"},
        {CLI_COUNT, "--tokens-max N", &a.tokens_max, "split or cut texts at so many tokens (default 512)"},
        {CLI_FLAG, "--loss-on-all", &a.loss_on_all, "keep prompts' tokens too, not only answers'"},
        {CLI_FLAG, "--raw", &a.raw, "use prompts as they are, without the chat template"},
        {CLI_STRING, "--key-env NAME", &a.key_env, "the environment variable that holds the key"},
        {CLI_COUNT, "--concurrency N", &a.concurrency, "texts under way (default 16)"},
        {CLI_STRING, "--licence TEXT", &a.licence, "of the model, recorded"},
        {CLI_STRING, "--terms TEXT", &a.terms, "of use, an address or a sentence; recorded"},
        {CLI_FLAG, "--i-have-permission", &a.permitted, "although the terms forbid it; recorded"},
        {CLI_FLAG, "--quiet", &a.quiet, "no progress bar"},
        {CLI_FLAG, "--json", &a.json, "print what was done as one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    session s = {0};
    rt_record_progress done = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    s.quiet = a.quiet;
    cli_interrupts_watch();
    if (status == RT_OK && (status = check(&a, &err)) == RT_OK &&
        (status = open_words(&s, &a, &err)) == RT_OK && (status = open_teacher(&s, &a, &err)) == RT_OK &&
        (status = open_store(&s, &a, &err)) == RT_OK)
        status = score(&s, &a, &done, &err);
    const int code = status == RT_OK ? report(&a, &done) : cli_fail(&err);
    rt_documents_deinit(&s.docs);
    rt_teacher_close(s.teacher);
    rt_chat_template_free(s.chat_template);
    rt_tokenizer_close(s.tokenizer);
    return code;
}
