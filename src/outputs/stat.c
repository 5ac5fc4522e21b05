/* outputs/stat.c - figures of a store. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "outputs/check_internal.h"

typedef struct row_figures { /* sums over rows */
    uint64_t documents, rows, entries, drawn, with_tail;
    double tail_mass, kept_mass, log_z;
    uint64_t with_z;
    double logq_error; /* the largest that the codes may have made of a kept entry */
} row_figures;

static void add_row(row_figures *f, const rt_sparse_row *row, unsigned code_bits)
{
    f->rows++;
    f->entries += row->n;
    for (uint32_t i = 0; i < row->n; i++) {
        f->drawn += row->counts[i] > 0;
        f->logq_error = fmax(f->logq_error, rt_rls_code_error(code_bits, (double)row->logq[i]));
        if (i < row->n_topk)
            f->kept_mass += exp((double)row->logq[i]);
    }
    if (row->n_topk) {
        f->with_tail++;
        f->tail_mass += exp((double)row->tail_logprob);
    }
    if (isfinite(row->log_z)) {
        f->with_z++;
        f->log_z += (double)row->log_z;
    }
}

static rt_status look_at_rows(row_figures *f, const rt_reader *reader, size_t docs_max, rt_error *err)
{
    const size_t n = rt_reader_documents(reader), take = rt_size_min(n, docs_max);
    rt_store_document doc = {0};
    rt_status status = RT_OK;
    for (size_t i = 0; i < take && status == RT_OK; i++) {
        const size_t index = (size_t)((double)i * (double)n / (double)take);
        status = rt_reader_document(reader, rt_size_min(index, n - 1), &doc, err);
        if (status == RT_CORRUPT) { /* told by verify; figures are of what is whole */
            status = RT_OK;
            continue;
        }
        f->documents++;
        for (size_t r = 0; r < doc.rows.n_rows; r++) {
            const rt_sparse_row row = rt_sparse_rows_at(&doc.rows, r);
            add_row(f, &row, rt_reader_header(reader)->code_bits);
        }
    }
    rt_store_document_deinit(&doc);
    return status;
}

static void set(json_t *to, const char *key, json_t *value) { (void)json_object_set_new(to, key, value); }

static json_t *mean(double sum, uint64_t n) { return n ? json_real(sum / (double)n) : json_null(); }

static json_t *rows_json(const row_figures *f)
{
    json_t *out = json_pack("{s:I,s:I}", "documents", (json_int_t)f->documents, "rows", (json_int_t)f->rows);
    set(out, "entries_per_row", mean((double)f->entries, f->rows));
    set(out, "distinct_draws_per_row", mean((double)f->drawn, f->rows));
    set(out, "topk_mass", mean(f->kept_mass, f->with_tail));
    set(out, "tail_mass", mean(f->tail_mass, f->with_tail));
    set(out, "log_z", mean(f->log_z, f->with_z));
    set(out, "logprob_error_max", f->rows ? json_real(f->logq_error) : json_null());
    return out;
}

static rt_status count_files(const char *dir, const json_t *manifest, store_count totals[2], size_t files[2],
                             rt_error *err)
{
    for (unsigned kind = 0; kind < 2; kind++) {
        store_files list;
        rt_status status = store_files_list(&list, dir, (store_kind)kind, err);
        for (size_t i = 0; i < list.n && status == RT_OK; i++) {
            store_count count;
            status = store_file_count(&count, dir, (store_kind)kind, list.numbers[i], manifest, err);
            totals[kind].bytes += count.bytes;
            totals[kind].texts += count.texts;
            totals[kind].documents += count.documents;
            totals[kind].tokens += count.tokens;
            totals[kind].rows += count.rows;
        }
        files[kind] = list.n;
        store_files_deinit(&list);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

static json_t *stat_json(const rt_reader *reader, const char *dir, const store_count totals[2],
                         const size_t files[2], const row_figures *figures)
{
    const json_t *manifest = rt_reader_manifest(reader);
    const store_count *t = &totals[STORE_ROWS], *l = &totals[STORE_LOGITS];
    json_t *out = json_pack("{s:s,s:{s:I,s:I,s:I},s:{s:I,s:I,s:I,s:I,s:I}}", "store", dir, "text", "files",
                            (json_int_t)files[STORE_ROWS], "rows", (json_int_t)t->texts, "bytes",
                            (json_int_t)t->bytes, "logits", "files", (json_int_t)files[STORE_LOGITS],
                            "documents", (json_int_t)l->documents, "tokens", (json_int_t)l->tokens, "rows",
                            (json_int_t)l->rows, "bytes", (json_int_t)l->bytes);
    if (!out)
        return NULL;
    json_t *logits = json_object_get(out, "logits");
    set(logits, "bytes_per_token", mean((double)l->bytes, l->tokens));
    set(logits, "bytes_per_row", mean((double)l->bytes, l->rows));
    if (rt_reader_header(reader)) {
        set(logits, "sampled", rows_json(figures));
        set(logits, "settings", rt_rls_facts(rt_reader_header(reader)));
    }
    static const char *const keys[] = {"teacher", "sampling", "prompts", "runs", "created"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_t *value = json_object_get(manifest, keys[i]);
        if (value)
            (void)json_object_set(out, keys[i], value);
    }
    return out;
}

rt_status rt_store_stat(json_t **out, const char *dir, size_t docs_max, rt_error *err)
{
    *out = NULL;
    rt_reader *reader;
    store_count totals[2] = {{0}, {0}};
    size_t files[2] = {0};
    row_figures figures = {0};
    if (rt_reader_open(&reader, dir, err) != RT_OK)
        return err->status;
    rt_status status = count_files(dir, rt_reader_manifest(reader), totals, files, err);
    if (status == RT_OK && rt_reader_documents(reader))
        status = look_at_rows(&figures, reader, docs_max, err);
    if (status == RT_OK && !(*out = stat_json(reader, dir, totals, files, &figures)))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for figures");
    rt_reader_close(reader);
    return status;
}
