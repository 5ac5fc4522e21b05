/* outputs/reader.c - see reader.h. */
#include "outputs/reader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/size.h"
#include "outputs/folder.h"
#include "outputs/store_internal.h"
#include "outputs/text_rows.h"

typedef struct reader_file {
    rt_file file;
    char *path;
    rls_index index;
    size_t first; /* document of the store that its first sequence is */
} reader_file;

struct rt_reader {
    char *dir;
    json_t *manifest;
    rt_rls_header header;
    bool has_header;
    reader_file *files;
    size_t n_files, n_documents;
    uint64_t n_tokens;
};

const json_t *rt_reader_manifest(const rt_reader *reader) { return reader->manifest; }
const rt_rls_header *rt_reader_header(const rt_reader *reader)
{
    return reader->has_header ? &reader->header : NULL;
}
size_t rt_reader_documents(const rt_reader *reader) { return reader->n_documents; }
uint64_t rt_reader_tokens(const rt_reader *reader) { return reader->n_tokens; }

/* ---- opening ---- */

static rt_status header_differs(const char *path, const char *what, rt_error *err)
{
    return rt_error_set(err, RT_MISMATCH,
                        "%.250s: was recorded with another %s than the rest of the store; "
                        "move it into a store of its own",
                        path, what);
}

rt_status rls_headers_match(const rt_rls_header *a, const rt_rls_header *b, const char *path, rt_error *err)
{
    if (memcmp(a->tokenizer_hash, b->tokenizer_hash, 32) != 0 || a->n_vocab != b->n_vocab)
        return header_differs(path, "tokenizer", err);
    if (memcmp(a->template_hash, b->template_hash, 32) != 0)
        return header_differs(path, "chat template", err);
    if (memcmp(a->teacher_hash, b->teacher_hash, 32) != 0)
        return header_differs(path, "teacher", err);
    if (a->end_id != b->end_id)
        return header_differs(path, "end token", err);
    if (a->topk != b->topk || a->draws != b->draws || a->proposal != b->proposal || a->seed != b->seed)
        return header_differs(path, "choice of ids (top-k, draws, proposal, seed)", err);
    if (a->temperature != b->temperature)
        return header_differs(path, "temperature", err);
    return a->code_bits == b->code_bits ? RT_OK : header_differs(path, "code width", err);
}

/* The header of one file against that of the store; a damaged one is taken from the manifest. */
static rt_status take_header(rt_reader *r, const reader_file *f, bool *empty, rt_error *err)
{
    rt_rls_header header;
    *empty = f->file.size <= RT_RLS_HEADER_BYTES; /* cut before its first block */
    if (*empty)
        return RT_OK;
    const rt_status status = rls_header_read(&header, f->file.data, f->file.size, err);
    if (status == RT_CORRUPT && r->has_header) {
        rt_log(RT_LOG_WARNING, "%s: %s; the manifest's settings are used", f->path, err->text);
        return RT_OK;
    }
    if (status != RT_OK)
        return rt_error_within(err, f->path);
    if (r->has_header)
        return rls_headers_match(&header, &r->header, f->path, err);
    r->header = header;
    r->has_header = true;
    return RT_OK;
}

static void say_damage(void *context, const rls_damage *d)
{
    rt_log(RT_LOG_WARNING, "%s: bytes %llu to %llu: %s; %zu whole sequences saved from there",
           (const char *)context, (unsigned long long)d->offset, (unsigned long long)d->end, d->what,
           d->saved);
}

static rt_status open_file(rt_reader *r, unsigned number, rt_error *err)
{
    reader_file *f = &r->files[r->n_files++];
    bool empty = false;
    f->path = store_file_path(r->dir, STORE_LOGITS, number);
    f->first = r->n_documents;
    if (!f->path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    if (rt_file_map(&f->file, f->path, err) != RT_OK || take_header(r, f, &empty, err) != RT_OK)
        return err->status;
    if (empty)
        return RT_OK;
    if (rls_index_load(&f->index, f->file.data, f->file.size, false, say_damage, f->path, err) != RT_OK)
        return rt_error_within(err, f->path);
    r->n_documents += f->index.n;
    r->n_tokens += f->index.n_tokens;
    return RT_OK;
}

static rt_status open_files(rt_reader *r, rt_error *err)
{
    store_files list;
    if (store_files_list(&list, r->dir, STORE_LOGITS, err) != RT_OK)
        return err->status;
    r->files = calloc(rt_size_max(list.n, 1), sizeof *r->files);
    rt_status status = r->files ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu files", list.n);
    for (size_t i = 0; i < list.n && status == RT_OK; i++)
        status = open_file(r, list.numbers[i], err);
    store_files_deinit(&list);
    return status;
}

rt_status rt_reader_open(rt_reader **out, const char *dir, rt_error *err)
{
    *out = NULL;
    rt_reader *r = calloc(1, sizeof *r);
    if (!r || !(r->dir = strdup(dir))) {
        free(r);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a store");
    }
    rt_status status = store_manifest_read(&r->manifest, dir, err);
    const json_t *logits = json_object_get(r->manifest, "logits");
    if (status == RT_OK && logits) {
        status = rt_rls_header_from_facts(&r->header, logits, dir, err);
        r->has_header = status == RT_OK;
    }
    if (status == RT_OK)
        status = open_files(r, err);
    if (status != RT_OK) {
        rt_reader_close(r);
        return status;
    }
    *out = r;
    return RT_OK;
}

void rt_reader_close(rt_reader *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_files; i++) {
        rt_file_unmap(&r->files[i].file);
        rls_index_deinit(&r->files[i].index);
        free(r->files[i].path);
    }
    free(r->files);
    json_decref(r->manifest);
    free(r->dir);
    free(r);
}

/* ---- documents ---- */

static const reader_file *file_of(const rt_reader *r, size_t document)
{
    size_t low = 0,
           high = r->n_files; /* the last file whose first document is <= document and that has any */
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (r->files[middle].first <= document)
            low = middle;
        else
            high = middle;
    }
    return &r->files[low];
}

static const rls_entry *entry_of(const rt_reader *r, size_t document, const reader_file **file)
{
    *file = file_of(r, document);
    return &(*file)->index.entries[document - (*file)->first];
}

size_t rt_reader_document_tokens(const rt_reader *r, size_t index)
{
    const reader_file *f;
    return entry_of(r, index, &f)->n_tokens;
}

bool rt_reader_document_has_rows(const rt_reader *r, size_t index)
{
    const reader_file *f;
    return entry_of(r, index, &f)->n_rows > 0;
}

rt_status reader_record(const rt_reader *r, size_t index, rls_record *record, rt_error *err)
{
    if (index >= r->n_documents)
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: has %zu documents, there is no number %zu", r->dir,
                            r->n_documents, index);
    const reader_file *f;
    const rls_entry *e = entry_of(r, index, &f);
    if (rls_record_find(record, f->file.data + e->offset, f->file.size - (size_t)e->offset))
        return RT_OK;
    return rt_error_set(
        err, RT_CORRUPT,
        "%.300s: the sequence at byte %llu is damaged; 'retort outputs repair' keeps the others", f->path,
        (unsigned long long)e->offset);
}

static rt_status read_document(const rt_reader *r, size_t index, rt_store_document *doc, bool with_rows,
                               rt_error *err)
{
    rls_record record;
    if (reader_record(r, index, &record, err) != RT_OK)
        return err->status;
    if (rls_record_read(doc, &record, &r->header, with_rows, err) == RT_OK)
        return RT_OK;
    char where[400];
    const reader_file *f;
    const rls_entry *e = entry_of(r, index, &f);
    (void)snprintf(where, sizeof where, "%s: byte %llu", f->path, (unsigned long long)e->offset);
    return rt_error_within(err, where);
}

rt_status rt_reader_document(const rt_reader *r, size_t index, rt_store_document *doc, rt_error *err)
{
    return read_document(r, index, doc, true, err);
}

rt_status rt_reader_tokens_only(const rt_reader *r, size_t index, rt_store_document *doc, rt_error *err)
{
    return read_document(r, index, doc, false, err);
}

void rt_reader_prefetch(const rt_reader *r, const size_t *indexes, size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < n; i++) {
        if (indexes[i] >= r->n_documents)
            continue;
        const reader_file *f;
        const rls_entry *e = entry_of(r, indexes[i], &f);
        const size_t row = 64; /* bytes, about: a hint need not be exact */
        const size_t from = (size_t)e->offset / page * page,
                     end = rt_size_min(f->file.size, (size_t)e->offset + (size_t)e->n_tokens * row);
        (void)madvise((void *)(size_t)(f->file.data + from), end - from, MADV_WILLNEED);
    }
}

/* ---- text ---- */

typedef struct text_reader {
    rt_text_row_fn row_fn;
    void *context;
    const char *path;
} text_reader;

static rt_status give_line(void *context, const char *line, size_t size, rt_error *err)
{
    const text_reader *t = context;
    json_t *row;
    if (rt_json_parse(&row, line, size, t->path, err) != RT_OK)
        return err->status;
    const rt_status status =
        json_is_object(row) ? t->row_fn(t->context, row, err)
                            : rt_error_set(err, RT_CORRUPT, "%.300s: a row is not a JSON object", t->path);
    json_decref(row);
    return status;
}

rt_status rt_reader_texts(const rt_reader *r, rt_text_row_fn row_fn, void *context, rt_error *err)
{
    store_files list;
    rt_status status = store_files_list(&list, r->dir, STORE_ROWS, err);
    for (size_t i = 0; i < list.n && status == RT_OK; i++) {
        rt_file file = {0};
        char *path = store_file_path(r->dir, STORE_ROWS, list.numbers[i]);
        status =
            path ? rt_file_map(&file, path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
        text_reader t = {row_fn, context, path};
        if (status == RT_OK)
            status = text_lines(file.data, file.size, give_line, &t, say_damage, path, err);
        rt_file_unmap(&file);
        free(path);
    }
    store_files_deinit(&list);
    return status;
}
