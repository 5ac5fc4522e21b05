/* cli/cmd_shortlist.c - `retort shortlist DRAFT --data FILE`: the ids that a draft may say, by how often they
 * are said. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/draft.h"
#include "model/shortlist.h"
#include "outputs/reader.h"
#include "outputs/recorded.h"
#include "student/data.h"

typedef struct settings {
    const char *model, *out;
    cli_list data;
    size_t size;
    bool all, json;
} settings;

typedef struct run {
    const settings *settings;
    rt_pool *pool;
    cli_model model;
    rt_documents docs;
    rt_document_options options;
    rt_shortlist list;
    char *path; /* where it is written */
} run;

/* ---- what is said ---- */

static rt_status add_text(void *context, const json_t *row, rt_error *err)
{
    run *r = context;
    return rt_documents_add_row(&r->docs, row, r->model.tokenizer, r->model.chat_template, &r->options, err);
}

static rt_status add_documents(run *r, const rt_reader *reader, rt_error *err)
{
    const rt_recorded_student draft = {r->model.tokenizer, 0, true, true};
    char note[RT_RECORDED_NOTE];
    rt_store_document doc = {0};
    rt_status status = rt_recorded_match(rt_reader_header(reader), &draft, note, err);
    for (size_t i = 0; i < rt_reader_documents(reader) && status == RT_OK; i++) {
        status = rt_reader_tokens_only(reader, i, &doc, err);
        if (status == RT_OK)
            status =
                rt_documents_add(&r->docs, doc.ids, r->settings->all ? NULL : doc.mask, doc.n_tokens, err);
    }
    rt_store_document_deinit(&doc);
    return status;
}

static rt_status add_store(run *r, const char *dir, rt_error *err)
{
    rt_reader *reader;
    if (rt_reader_open(&reader, dir, err) != RT_OK)
        return err->status;
    rt_status status =
        rt_reader_header(reader) ? add_documents(r, reader, err) : rt_reader_texts(reader, add_text, r, err);
    rt_reader_close(reader);
    return status;
}

static rt_status read_data(run *r, rt_error *err)
{
    for (size_t i = 0; i < r->settings->data.count; i++) {
        const char *path = r->settings->data.items[i];
        const rt_status status = rt_path_is_dir(path)
                                     ? add_store(r, path, err)
                                     : rt_documents_read(&r->docs, path, r->model.tokenizer,
                                                         r->model.chat_template, &r->options, err);
        if (status != RT_OK)
            return status;
    }
    return r->docs.n_targets ? RT_OK : rt_error_set(err, RT_INVALID, "shortlist: --data says nothing");
}

/* How much of what is said the list has. */
static double coverage(const run *r)
{
    size_t covered = 0, at = 0;
    bool *has = calloc(r->list.n_vocab, sizeof *has);
    for (; has && at < r->list.n; at++)
        has[r->list.ids[at]] = true;
    for (size_t i = 0; has && i < r->docs.n_tokens; i++)
        covered += r->docs.mask[i] && has[r->docs.ids[i]];
    free(has);
    return (double)covered / (double)r->docs.n_targets;
}

/* ---- the command ---- */

static rt_status make(run *r, rt_error *err)
{
    const settings *s = r->settings;
    r->options = (rt_document_options){.tokens_max = (size_t)1 << 40, .loss_on_all = s->all};
    if (rt_pool_open(&r->pool, 0, err) != RT_OK ||
        cli_model_open(&r->model, s->model, RT_PRECISION_INT8, 0, r->pool, err) != RT_OK ||
        read_data(r, err) != RT_OK)
        return err->status;
    const size_t real = rt_tokenizer_real_size(r->model.tokenizer);
    if (s->size > real)
        return rt_error_set(err, RT_INVALID, "--size %zu is more than the %zu ids that there are", s->size,
                            real);
    if (rt_shortlist_count(&r->list, r->docs.ids, r->docs.mask, r->docs.n_tokens, real, s->size, err) !=
        RT_OK)
        return err->status;
    r->list.n_vocab = r->model.model->config.n_vocab; /* padding included: that of the head */
    r->path = s->out ? NULL : cli_shortlist_path(r->model.path);
    if (!s->out && !r->path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the name of the shortlist");
    return rt_shortlist_write(&r->list, s->out ? s->out : r->path, err);
}

int cmd_shortlist(int argc, char **argv)
{
    settings s = {.size = 8192};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "The head of a small model is most of what it reads for a token. A draft ('retort generate "
         "--draft')\n"
         "need not be able to say everything: with a shortlist its head has only the ids that are said most\n"
         "often, what it cannot say the model says itself, and the answers stay the same. The draft's own\n"
         "files do not change: the list lies beside them and is found there. Take answers of the model that\n"
         "the draft will run ahead of.\n\n"
         "Examples:\n  retort shortlist run/student --data answers.jsonl\n"
         "  retort shortlist small.gguf --data store --size 16384 --out code.json"},
        {CLI_STRING | CLI_REQUIRED, "DRAFT", &s.model, "GGUF file, folder, or a model that was pulled"},
        {CLI_LIST | CLI_REQUIRED, "--data FILE", &s.data,
         "JSONL rows (.zst too) or .txt as for training, or a store; several times"},
        {CLI_COUNT, "--size N", &s.size, "ids that are kept (default 8192)"},
        {CLI_FLAG, "--all", &s.all, "count prompts as well, not the answers alone"},
        {CLI_STRING, "--out FILE", &s.out, "default: shortlist.json in the folder, or DRAFT.shortlist.json"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    run r = {.settings = &s};
    int status = 0;
    if (make(&r, &err) != RT_OK)
        status = cli_fail(&err);
    else if (s.json)
        status = cli_print_json(json_pack("{s:s,s:I,s:I,s:I,s:f}", "out", s.out ? s.out : r.path, "ids",
                                          (json_int_t)r.list.n, "vocabulary", (json_int_t)r.list.n_vocab,
                                          "tokens", (json_int_t)r.docs.n_targets, "coverage", coverage(&r)));
    else
        (void)printf("%s: %zu of %zu ids, %.2f%% of %zu tokens\n", s.out ? s.out : r.path, r.list.n,
                     r.list.n_vocab, 100 * coverage(&r), r.docs.n_targets);
    free(r.path);
    rt_shortlist_deinit(&r.list);
    rt_documents_deinit(&r.docs);
    cli_model_close(&r.model);
    rt_pool_close(r.pool);
    return status;
}
