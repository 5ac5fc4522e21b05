/* cli/outputs_record.c - `retort outputs record`: a local model's log-probabilities over a text into a store.
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/model_arg.h"
#include "cli/open_model.h"
#include "cli/outputs.h"
#include "cli/progress.h"
#include "model/stream.h"
#include "outputs/record.h"
#include "outputs/rls.h"
#include "retort/version.h"
#include "student/data.h"

enum { STREAM_BATCHES = 16 }; /* that share the reading of a layer */

typedef struct arguments {
    const char *model, *data, *out, *precision, *code;
    size_t topk, draws, seed, tokens_max, batch_tokens, tokens, threads;
    double proposal, temperature, flush;
    bool loss_on_all, raw, stream, quiet, json;
} arguments;

typedef struct session {
    rt_pool *pool;
    cli_model model;
    rt_documents docs;
    rt_store *store;
    cli_progress bar;
    bool shown, quiet;
} session;

/* ---- what is recorded ---- */

static rt_rls_header header_of(const arguments *a, const session *s, const char *teacher_hash)
{
    const rt_tokenizer *t = s->model.tokenizer;
    rt_rls_header h = {.version = RT_RLS_VERSION,
                       .n_vocab =
                           (uint32_t)rt_size_min(rt_tokenizer_real_size(t), s->model.model->config.n_vocab),
                       .n_logits = (uint32_t)s->model.model->config.n_vocab,
                       .topk = (uint32_t)a->topk,
                       .draws = (uint32_t)a->draws,
                       .code_bits = strcmp(a->code, "16") == 0 ? 16 : 8,
                       .proposal = a->proposal,
                       .temperature = a->temperature,
                       .seed = a->seed};
    rt_rls_header_identify(&h, t, s->model.chat_template != NULL, teacher_hash);
    return h;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static json_t *facts_of(const arguments *a, const session *s, const rt_rls_header *h,
                        const char *teacher_hash, const char *data_hash)
{
    json_t *logits = rt_rls_facts(h), *licence = cli_model_licence(s->model.weights, s->model.path);
    return json_pack("{s:{s:s,s:s,s:s,s:s,s:s,s:o},s:{s:s,s:b,s:i},s:{s:s,s:s,s:I},s:o}", "teacher", "name",
                     base_name(s->model.path), "kind", "local", "hash", teacher_hash, "tokenizer_hash",
                     rt_tokenizer_hash(s->model.tokenizer), "precision", a->precision, "licence", licence,
                     "sampling", "kind", "given text", "prompts_too", a->loss_on_all, "tokens_max",
                     (int)rt_size_min(a->tokens_max, 1 << 30), "prompts", "file", base_name(a->data), "hash",
                     data_hash, "texts", (json_int_t)s->docs.n_docs, "logits", logits);
}

/* ---- the command ---- */

static rt_status check(const arguments *a, rt_error *err)
{
    if (a->topk == 0 && a->draws == 0)
        return rt_error_set(err, RT_INVALID, "nothing to keep: give --topk, --draws, or both");
    if (a->tokens_max < 2)
        return rt_error_set(err, RT_INVALID,
                            "--tokens-max: a text needs at least 2 tokens, one to predict the "
                            "other from");
    if (a->tokens_max > a->batch_tokens)
        return rt_error_set(err, RT_INVALID, "--tokens-max %zu is more than --batch-tokens %zu",
                            a->tokens_max, a->batch_tokens);
    if (a->topk > RT_TOPK_MAX || a->draws > RT_DRAWS_MAX)
        return rt_error_set(err, RT_INVALID, "--topk and --draws are at most %d", RT_TOPK_MAX);
    return RT_OK;
}

static rt_status open_all(session *s, const arguments *a, rt_error *err)
{
    if (check(a, err) != RT_OK ||
        rt_pool_open(&s->pool, (unsigned)rt_size_min(a->threads, 1 << 16), err) != RT_OK ||
        cli_model_open(&s->model, a->model, cli_precision(a->precision),
                       (a->raw ? CLI_MODEL_NO_TEMPLATE : 0) | (a->stream ? CLI_MODEL_STREAM : 0), s->pool,
                       err) != RT_OK)
        return err->status;
    const rt_document_options options = {rt_size_min(a->tokens_max, s->model.model->config.n_context),
                                         a->loss_on_all};
    if (rt_documents_read(&s->docs, a->data, s->model.tokenizer, s->model.chat_template, &options, err) !=
        RT_OK)
        return err->status;
    for (size_t d = 0; a->tokens && d < s->docs.n_docs; d++)
        if (s->docs.begins[d + 1] >= a->tokens)
            s->docs.n_docs = d + 1;
    if (s->docs.n_cut)
        (void)fprintf(stderr, "retort: %zu answers were cut at %zu tokens (--tokens-max)\n", s->docs.n_cut,
                      options.tokens_max);
    return RT_OK;
}

static rt_status open_store(session *s, const arguments *a, rt_rls_header *header, rt_error *err)
{
    char teacher_hash[65], data_hash[65];
    rt_status status = rt_sha256_file(data_hash, a->data, err);
    if (status == RT_OK)
        status = cli_model_hash(teacher_hash, s->model.path, err);
    if (status != RT_OK)
        return status;
    *header = header_of(a, s, teacher_hash);
    if (rt_rls_header_check(header, err) != RT_OK)
        return err->status;
    json_t *facts = facts_of(a, s, header, teacher_hash, data_hash);
    status = facts ? rt_store_open(&s->store, a->out, facts, "retort outputs record, " RT_VERSION, err)
                   : rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
    json_decref(facts);
    return status;
}

static bool show(void *context, const rt_record_progress *p)
{
    session *s = context;
    char figures[96];
    if (!s->shown && !s->quiet && p->docs_total)
        cli_progress_open(&s->bar, "record", p->docs_known, p->docs_total, 10);
    s->shown = true;
    (void)snprintf(figures, sizeof figures, "%zu texts  %llu tokens  %.0f tokens/s", p->docs_done,
                   (unsigned long long)p->tokens, p->seconds > 0 ? (double)p->tokens / p->seconds : 0);
    if (!s->quiet && p->docs_total)
        cli_progress_update(&s->bar, p->docs_done, figures);
    return !cli_interrupted();
}

/* Of a streamed model many batches share the reading of a layer; their states take at most a quarter of the
 * memory that is left. */
static size_t batches_of(const session *s, const arguments *a)
{
    const size_t bytes = a->batch_tokens * s->model.model->config.n_embd * sizeof(float);
    if (!a->stream)
        return 1;
    return rt_size_max(1, rt_size_min(STREAM_BATCHES, rt_memory_left() / 4 / rt_size_max(bytes, 1)));
}

static rt_status record(session *s, const arguments *a, const rt_rls_header *h, rt_record_progress *done,
                        rt_error *err)
{
    const rt_record_texts texts = {s->docs.ids, s->docs.mask, s->docs.begins, s->docs.n_docs};
    const rt_record_options options = {
        .sparse = {h->n_vocab, h->topk, h->draws, h->proposal, h->seed},
        .batch_tokens = a->batch_tokens,
        .batches = batches_of(s, a),
        .temperature = a->temperature,
        .flush_seconds = a->flush,
        .progress = show,
        .context = s,
    };
    rt_status status = rt_record(s->store, s->model.model, &texts, &options, done, err);
    if (s->shown && !s->quiet && done->docs_total)
        cli_progress_close(&s->bar);
    rt_error later = {0};
    const rt_status closed = rt_store_close(s->store, status == RT_OK ? err : &later);
    s->store = NULL;
    status = status == RT_OK ? closed : status;
    return status == RT_STOPPED ? cli_stopped(err, "the same command goes on where this one was") : status;
}

static int report(const session *s, const arguments *a, const rt_record_progress *p)
{
    if (a->json)
        return cli_print_json(json_pack(
            "{s:s,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "store", a->out, "texts", (json_int_t)p->docs_total,
            "recorded", (json_int_t)(p->docs_done - p->docs_known), "known", (json_int_t)p->docs_known,
            "tokens", (json_int_t)p->tokens, "rows", (json_int_t)p->rows, "seconds", p->seconds,
            "tokens_per_s", p->seconds > 0 ? (double)p->tokens / p->seconds : 0.0));
    if (!s->quiet)
        (void)fprintf(stderr, "retort: %s: %zu texts recorded, %zu were there; %llu tokens, %llu rows\n",
                      a->out, p->docs_done - p->docs_known, p->docs_known, (unsigned long long)p->tokens,
                      (unsigned long long)p->rows);
    return 0;
}

int cli_outputs_record(int argc, char **argv)
{
    arguments a = {.precision = "bf16",
                   .code = "8",
                   .proposal = 1,
                   .temperature = 1,
                   .flush = 2,
                   .tokens_max = 512,
                   .batch_tokens = 2048};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Runs a text through a model and keeps, for each token that is to be predicted, the most probable "
         "ids,\n"
         "ids drawn at random, or both.  Stopped or killed, the same command goes on; a text that is in the "
         "store\n"
         "is not recorded twice.\n\n"
         "Examples:\n"
         "  retort outputs record --model smollm2-135m-instruct --data train.jsonl --out store --draws 12\n"
         "  retort outputs record --model T.gguf --data train.jsonl --out store --topk 50 --loss-on-all"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &a.model, "the teacher"},
        {CLI_STRING | CLI_REQUIRED, "--data FILE", &a.data, "JSONL (also .zst) or plain text"},
        {CLI_STRING | CLI_REQUIRED, "--out DIR", &a.out, "the store; made when it is not there"},
        {CLI_COUNT, "--topk K", &a.topk, "keep the K most probable ids and the mass of the rest"},
        {CLI_COUNT, "--draws N", &a.draws, "keep N ids drawn at random (RS-KD)"},
        {CLI_REAL, "--proposal T", &a.proposal, "draw from q^T (default 1: from the teacher itself)"},
        {CLI_COUNT, "--seed N", &a.seed, "of the draws (default 0)"},
        {CLI_REAL, "--temperature X", &a.temperature, "of the distributions that are kept (default 1)"},
        {CLI_STRING, "--code 8|16", &a.code, "bits of a log-probability before packing (default 8)"},
        {CLI_COUNT, "--tokens-max N", &a.tokens_max, "split or cut texts at so many tokens (default 512)"},
        {CLI_COUNT, "--tokens N", &a.tokens,
         "record about so many tokens, texts from the first on\n(default: all)"},
        {CLI_FLAG, "--loss-on-all", &a.loss_on_all, "record prompts too, not only answers"},
        {CLI_FLAG, "--raw", &a.raw, "use prompts as they are, without the chat template"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &a.precision, "how the model computes (default bf16)"},
        {CLI_FLAG, "--stream", &a.stream,
         "read the model's layers from disk as they are needed: it may be larger\nthan memory"},
        {CLI_COUNT, "--batch-tokens N", &a.batch_tokens, "tokens at once (default 2048)"},
        {CLI_COUNT, "--threads N", &a.threads, "default: one a processor"},
        {CLI_REAL, "--flush SECONDS", &a.flush,
         "to the disk at least so often (default 2); what is recorded since is\nlost when the machine fails"},
        {CLI_FLAG, "--quiet", &a.quiet, "no progress bar"},
        {CLI_FLAG, "--json", &a.json, "print what was done as one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    session s = {0};
    rt_rls_header header;
    rt_record_progress done = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    s.quiet = a.quiet;
    cli_interrupts_watch();
    if (status == RT_OK && (status = open_all(&s, &a, &err)) == RT_OK &&
        (status = open_store(&s, &a, &header, &err)) == RT_OK)
        status = record(&s, &a, &header, &done, &err);
    const int code = status == RT_OK ? report(&s, &a, &done) : cli_fail(&err);
    rt_documents_deinit(&s.docs);
    cli_model_close(&s.model);
    rt_pool_close(s.pool);
    return code;
}
