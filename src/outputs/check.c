/* outputs/check.c - every byte of a store looked at; see check.h. */
#include "outputs/check.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "outputs/check_internal.h"
#include "outputs/text_rows.h"

/* ---- one file ---- */

void check_say(check *c, const rls_damage *d)
{
    const bool torn = d->torn && !c->file_short;
    c->totals->torn += torn;
    c->totals->damaged += !torn;
    if (c->place_fn)
        c->place_fn(c->context, &(rt_store_place){c->name, d->offset, d->end, d->saved, torn, d->what});
}

static void on_damage(void *context, const rls_damage *damage)
{
    check *c = context;
    c->file_damaged++;
    check_say(c, damage);
}

void check_size(check *c, const rt_file *file, const json_t *manifest)
{
    const json_t *entry = json_object_get(json_object_get(manifest, "files"), c->name),
                 *bytes = json_object_get(entry, "bytes");
    c->file_short = bytes && (uint64_t)json_integer_value(bytes) > file->size;
    if (c->file_short)
        on_damage(c, &(rls_damage){.offset = file->size,
                                   .end = (uint64_t)json_integer_value(bytes),
                                   .what = "the file was longer when it was closed"});
}

rt_status check_logits(check *c, const rt_file *file, const rt_rls_header *fallback, rt_rls_header *header,
                       check_record_fn record_fn, void *context, rt_error *err)
{
    rls_index index;
    rt_error why = {0};
    if (file->size <= RT_RLS_HEADER_BYTES) { /* killed before its first block */
        c->totals->unfinished++;
        c->file_unfinished = true;
        return RT_OK;
    }
    const rt_status known = rls_header_read(header, file->data, file->size, &why);
    if (known != RT_OK) {
        on_damage(c, &(rls_damage){.end = RT_RLS_HEADER_BYTES, .what = why.text});
        if (known == RT_UNSUPPORTED || !fallback)
            return RT_OK; /* without its settings nothing in it can be read */
        *header = *fallback;
    }
    if (rls_index_load(&index, file->data, file->size, true, on_damage, c, err) != RT_OK)
        return err->status;
    c->file_unfinished = !index.complete;
    c->totals->unfinished += !index.complete;
    rt_status status = RT_OK;
    rt_store_document doc = {0};
    for (size_t i = 0; i < index.n && status == RT_OK; i++) {
        const size_t at = (size_t)index.entries[i].offset;
        rls_record record;
        (void)rls_record_header(&record, file->data + at, file->size - at);
        status = rls_record_read(&doc, &record, header, true, &why);
        if (status == RT_CORRUPT) {
            on_damage(c, &(rls_damage){.offset = at, .end = at + record.size, .what = why.text});
            status = RT_OK;
            continue;
        }
        if (status != RT_OK) {
            *err = why;
            break;
        }
        c->totals->documents++;
        c->totals->tokens += record.n_tokens;
        c->totals->rows += record.n_rows;
        if (record_fn)
            status = record_fn(context, &record, err);
    }
    rt_store_document_deinit(&doc);
    rls_index_deinit(&index);
    return status;
}

typedef struct line_check {
    check *c;
    size_t line;
    text_line_fn line_fn;
    void *context;
} line_check;

static rt_status check_line(void *context, const char *line, size_t size, rt_error *err)
{
    line_check *l = context;
    json_t *row;
    rt_error why = {0};
    l->line++;
    const rt_status status = rt_json_parse(&row, line, size, "row", &why);
    const bool object = status == RT_OK && json_is_object(row);
    json_decref(row);
    if (!object) {
        on_damage(l->c, &(rls_damage){.what = status == RT_OK ? "a row is not a JSON object" : why.text});
        return RT_OK;
    }
    l->c->totals->texts++;
    return l->line_fn ? l->line_fn(l->context, line, size, err) : RT_OK;
}

rt_status check_texts(check *c, const rt_file *file, text_line_fn line_fn, void *context, rt_error *err)
{
    line_check l = {c, 0, line_fn, context};
    return text_lines(file->data, file->size, check_line, &l, on_damage, c, err);
}

/* ---- the folder ---- */

rt_status check_manifest(check *c, const char *dir, json_t **manifest, rt_rls_header *header,
                         bool *has_header, rt_error *err)
{
    rt_error why = {0};
    const rt_status status = store_manifest_read(manifest, dir, &why);
    *has_header = false;
    if (status == RT_NO_MEMORY || status == RT_IO || status == RT_UNSUPPORTED) {
        *err = why;
        return status;
    }
    (void)snprintf(c->name, sizeof c->name, "manifest.json");
    if (status != RT_OK)
        check_say(c, &(rls_damage){.what = status == RT_NOT_FOUND ? "it is missing" : why.text});
    const json_t *logits = json_object_get(*manifest, "logits");
    *has_header = logits && rt_rls_header_from_facts(header, logits, dir, &why) == RT_OK;
    return RT_OK;
}

static rt_status check_file(check *c, const char *dir, store_kind kind, unsigned number,
                            const json_t *manifest, const rt_rls_header *fallback, rt_error *err)
{
    rt_file file = {0};
    rt_rls_header header;
    char *path = store_file_path(dir, kind, number);
    rt_status status =
        path ? rt_file_map(&file, path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    store_file_name(c->name, kind, number);
    c->file_damaged = 0;
    if (status == RT_OK) {
        check_size(c, &file, manifest);
        status = kind == STORE_ROWS ? check_texts(c, &file, NULL, NULL, err)
                                    : check_logits(c, &file, fallback, &header, NULL, NULL, err);
    }
    c->totals->files++;
    c->totals->bytes += file.size;
    rt_file_unmap(&file);
    free(path);
    return status;
}

rt_status rt_store_verify(const char *dir, rt_store_place_fn place_fn, void *context, rt_store_totals *totals,
                          rt_error *err)
{
    *totals = (rt_store_totals){0};
    check c = {.place_fn = place_fn, .context = context, .totals = totals};
    json_t *manifest = NULL;
    rt_rls_header header;
    bool has_header;
    if (!rt_path_is_dir(dir))
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: is not a folder", dir);
    rt_status status = check_manifest(&c, dir, &manifest, &header, &has_header, err);
    for (unsigned kind = 0; kind < 2 && status == RT_OK; kind++) {
        store_files list;
        status = store_files_list(&list, dir, (store_kind)kind, err);
        for (size_t i = 0; i < list.n && status == RT_OK; i++)
            status = check_file(&c, dir, (store_kind)kind, list.numbers[i], manifest,
                                has_header ? &header : NULL, err);
        store_files_deinit(&list);
    }
    json_decref(manifest);
    return status;
}
