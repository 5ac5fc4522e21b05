/* cli/outputs_show.c - `retort outputs stat` and `head`: what a store holds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/model_arg.h"
#include "cli/outputs.h"
#include "model/tokenizer.h"
#include "outputs/check.h"

/* ---- stat ---- */

static void print_value(const char *name, const json_t *value, const char *unit)
{
    if (json_is_real(value))
        (void)printf("%-28s%.4g%s\n", name, json_real_value(value), unit);
    else if (json_is_integer(value))
        (void)printf("%-28s%lld%s\n", name, (long long)json_integer_value(value), unit);
    else if (json_is_string(value) && *json_string_value(value))
        (void)printf("%-28s%s%s\n", name, json_string_value(value), unit);
}

static void print_stat(const json_t *stat)
{
    const json_t *teacher = json_object_get(stat, "teacher"), *text = json_object_get(stat, "text"),
                 *logits = json_object_get(stat, "logits"), *rows = json_object_get(logits, "sampled"),
                 *settings = json_object_get(logits, "settings");
    const struct {
        const char *name;
        const json_t *value;
        const char *unit;
    } lines[] = {
        {"teacher", json_object_get(teacher, "name"), ""},
        {"terms", json_object_get(teacher, "terms"), ""},
        {"licence", json_object_get(teacher, "licence"), ""},
        {"text rows", json_object_get(text, "rows"), ""},
        {"bytes of text", json_object_get(text, "bytes"), ""},
        {"documents", json_object_get(logits, "documents"), ""},
        {"tokens", json_object_get(logits, "tokens"), ""},
        {"rows of log-probabilities", json_object_get(logits, "rows"), ""},
        {"bytes of them", json_object_get(logits, "bytes"), ""},
        {"bytes a token, all in", json_object_get(logits, "bytes_per_token"), ""},
        {"vocabulary", json_object_get(settings, "vocabulary"), ""},
        {"top-k", json_object_get(settings, "topk"), ""},
        {"draws", json_object_get(settings, "draws"), ""},
        {"proposal exponent", json_object_get(settings, "proposal"), ""},
        {"temperature", json_object_get(settings, "temperature"), ""},
        {"entries a row", json_object_get(rows, "entries_per_row"), ""},
        {"distinct draws a row", json_object_get(rows, "distinct_draws_per_row"), ""},
        {"mass off the top-k", json_object_get(rows, "tail_mass"), ""},
        {"error of log-probabilities", json_object_get(rows, "logprob_error_max"), " nats at most"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        print_value(lines[i].name, lines[i].value, lines[i].unit);
    size_t index;
    json_t *run;
    json_array_foreach(json_object_get(stat, "runs"), index, run)
    {
        const json_int_t started = json_integer_value(json_object_get(run, "started"));
        (void)printf("%-28s%s, unix time %lld%s\n", index ? "" : "written by",
                     json_string_value(json_object_get(run, "who"))
                         ? json_string_value(json_object_get(run, "who"))
                         : "?",
                     (long long)started, json_object_get(run, "ended") ? "" : ", not finished");
    }
}

int cli_outputs_stat(int argc, char **argv)
{
    const char *dir = NULL;
    size_t docs_max = 1000;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Sizes of a store, its settings, and figures of its rows.\n\nExamples:\n  retort outputs stat "
         "store\n"
         "  retort outputs stat store --json"},
        {CLI_STRING | CLI_REQUIRED, "DIR", &dir, "the store"},
        {CLI_COUNT, "--documents N", &docs_max,
         "figures of rows from so many documents, spread evenly\n(default 1000)"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *stat = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || rt_store_stat(&stat, dir, docs_max, &err) != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(stat);
    print_stat(stat);
    json_decref(stat);
    return 0;
}

/* ---- head ---- */

typedef struct head {
    rt_tokenizer *tokenizer; /* NULL: ids alone */
    size_t texts, rows_max, entries_max, seen;
    json_t *out_texts, *out_documents;
} head;

static rt_status keep_text(void *context, const json_t *row, rt_error *err)
{
    head *h = context;
    if (h->seen++ >= h->texts)
        return RT_STOPPED; /* no failure: enough */
    (void)err;
    (void)json_array_append(h->out_texts, (json_t *)(size_t)row);
    return RT_OK;
}

static json_t *token_json(const head *h, int32_t id)
{
    json_t *out = json_pack("{s:i}", "id", (int)id);
    size_t size;
    const char *bytes = h->tokenizer && (size_t)id < rt_tokenizer_size(h->tokenizer)
                            ? rt_tokenizer_token_bytes(h->tokenizer, id, &size)
                            : NULL;
    if (bytes)
        (void)json_object_set_new(out, "text", rt_json_text(bytes, size));
    return out;
}

static json_t *row_json(const head *h, const rt_sparse_row *row, int32_t target)
{
    json_t *entries = json_array(), *out = json_pack("{s:o}", "target", token_json(h, target));
    for (size_t i = 0; i < rt_size_min(row->n, h->entries_max); i++) {
        json_t *e = token_json(h, (int32_t)row->ids[i]);
        (void)json_object_set_new(e, "logprob", json_real((double)row->logq[i]));
        if (row->n_draws)
            (void)json_object_set_new(e, "count", json_integer(row->counts[i]));
        if (i < row->n_topk)
            (void)json_object_set_new(e, "top", json_true());
        (void)json_array_append_new(entries, e);
    }
    (void)json_object_set_new(out, "entries", entries);
    (void)json_object_set_new(out, "kept", json_integer(row->n));
    if (row->n_topk)
        (void)json_object_set_new(out, "tail_mass", json_real(exp((double)row->tail_logprob)));
    if (isfinite(row->log_z))
        (void)json_object_set_new(out, "log_z", json_real((double)row->log_z));
    return out;
}

static json_t *document_json(const head *h, const rt_store_document *doc)
{
    json_t *ids = json_array(), *rows = json_array();
    size_t r = 0;
    for (size_t i = 0; i < doc->n_tokens; i++) {
        (void)json_array_append_new(ids, json_integer(doc->ids[i]));
        if (!doc->mask[i] || r >= doc->rows.n_rows)
            continue;
        const rt_sparse_row row = rt_sparse_rows_at(&doc->rows, r++);
        if (r <= h->rows_max)
            (void)json_array_append_new(rows, row_json(h, &row, doc->ids[i]));
    }
    json_t *out = json_pack("{s:I,s:o,s:I,s:o}", "number", (json_int_t)doc->number, "ids", ids, "targets",
                            (json_int_t)doc->rows.n_rows, "rows", rows);
    rt_text text = {0};
    if (h->tokenizer &&
        rt_tokenizer_decode(h->tokenizer, doc->ids, doc->n_tokens, false, &text, NULL) == RT_OK)
        (void)json_object_set_new(out, "text", rt_json_text(text.data ? text.data : "", text.size));
    rt_text_deinit(&text);
    return out;
}

static rt_status collect(head *h, const rt_reader *reader, size_t documents, rt_error *err)
{
    rt_status status = rt_reader_texts(reader, keep_text, h, err);
    if (status == RT_STOPPED)
        status = RT_OK;
    rt_store_document doc = {0};
    for (size_t i = 0; i < rt_size_min(documents, rt_reader_documents(reader)) && status == RT_OK; i++)
        if ((status = rt_reader_document(reader, i, &doc, err)) == RT_OK)
            (void)json_array_append_new(h->out_documents, document_json(h, &doc));
    rt_store_document_deinit(&doc);
    return status;
}

static void print_lines(const json_t *list)
{
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        char *line = json_dumps(item, JSON_COMPACT | JSON_REAL_PRECISION(6));
        (void)printf("%s\n", line ? line : "");
        free(line);
    }
}

int cli_outputs_head(int argc, char **argv)
{
    const char *dir = NULL, *model = NULL;
    size_t count = 3;
    bool json = false;
    head h = {.rows_max = 4, .entries_max = 8};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Prints the first text rows and documents of a store, one JSON object a line.\n\n"
         "Examples:\n  retort outputs head store --rows 2\n"
         "  retort outputs head store --model smollm2-135m-instruct"},
        {CLI_STRING | CLI_REQUIRED, "DIR", &dir, "the store"},
        {CLI_COUNT, "--count N", &count, "text rows, and documents, at most (default 3)"},
        {CLI_COUNT, "--rows N", &h.rows_max, "rows of a document (default 4)"},
        {CLI_COUNT, "--entries N", &h.entries_max, "ids of a row (default 8)"},
        {CLI_STRING, "--model MODEL", &model, "whose tokenizer turns ids into text"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_reader *reader = NULL;
    char *path = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    h.texts = count;
    h.out_texts = json_array();
    h.out_documents = json_array();
    if (status == RT_OK && model && (status = cli_model_path(&path, model, &err)) == RT_OK)
        status = rt_tokenizer_open(&h.tokenizer, path, &err);
    if (status == RT_OK && (status = rt_reader_open(&reader, dir, &err)) == RT_OK)
        status = collect(&h, reader, count, &err);
    int code = status == RT_OK ? 0 : cli_fail(&err);
    if (status == RT_OK && json) {
        code = cli_print_json(json_pack("{s:O,s:O}", "texts", h.out_texts, "documents", h.out_documents));
    } else if (status == RT_OK) {
        print_lines(h.out_texts);
        print_lines(h.out_documents);
    }
    json_decref(h.out_texts);
    json_decref(h.out_documents);
    rt_reader_close(reader);
    rt_tokenizer_close(h.tokenizer);
    free(path);
    return code;
}
