/* outputs/repair.c - files that are damaged or unfinished, written again with all that is whole in them.
 *
 * The new file takes the old one's name by rename, so that a kill leaves one or the other; a file that had
 * damage is linked into DIR/damaged/ before, because somebody may know better how to read it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "outputs/check_internal.h"

typedef struct repair {
    check c;
    const char *dir;
    rt_rls_header header; /* of the manifest, else of the first file that has one */
    bool has_header;
} repair;

static rt_status keep_damaged(const repair *r, const char *path, rt_error *err)
{
    char *folder = rt_path_join(r->dir, "damaged"), name[64];
    (void)snprintf(name, sizeof name, "%s.%lld", strrchr(r->c.name, '/') + 1,
                   (long long)rt_clock_unix_seconds());
    char *kept = folder ? rt_path_join(folder, name) : NULL;
    rt_status status =
        kept ? rt_dir_make(folder, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    if (status == RT_OK && link(path, kept) != 0 && errno != EEXIST)
        status =
            rt_error_set(err, RT_IO, "%.300s: cannot be kept as %.100s: %s", path, kept, strerror(errno));
    free(folder);
    free(kept);
    return status;
}

static rt_status put_record(void *context, const rls_record *record, rt_error *err)
{
    rls_writer *w = context;
    if (rls_writer_add_record(w, record, err) != RT_OK)
        return err->status;
    return w->block.size >= RLS_BLOCK_BYTES ? rls_writer_flush(w, err) : RT_OK;
}

static rt_status rewrite_logits(repair *r, const rt_file *file, const char *to, bool *any, rt_error *err)
{
    rls_writer w;
    rt_store_totals unused = {0};
    check quiet = {.totals = &unused};
    rt_rls_header header = r->header;
    rt_error ignored;
    if (file->size > RT_RLS_HEADER_BYTES &&
        rls_header_read(&header, file->data, file->size, &ignored) != RT_OK)
        header = r->header;
    if (rls_writer_init(&w, to, &header, err) != RT_OK)
        return err->status;
    rt_status status =
        check_logits(&quiet, file, r->has_header ? &r->header : NULL, &header, put_record, &w, err);
    if (status == RT_OK)
        status = rls_writer_finish(&w, err);
    *any = w.file.size > 0;
    rls_writer_deinit(&w);
    return status;
}

static rt_status put_line(void *context, const char *line, size_t size, rt_error *err)
{
    text_writer *w = context;
    if (text_writer_add_line(w, line, size, err) != RT_OK)
        return err->status;
    return w->waiting.size >= TEXT_FRAME_BYTES ? text_writer_flush(w, err) : RT_OK;
}

static rt_status rewrite_texts(const rt_file *file, const char *to, bool *any, rt_error *err)
{
    text_writer w;
    rt_store_totals unused = {0};
    check quiet = {.totals = &unused};
    if (text_writer_init(&w, to, err) != RT_OK)
        return err->status;
    rt_status status = check_texts(&quiet, file, put_line, &w, err);
    if (status == RT_OK)
        status = text_writer_flush(&w, err);
    *any = w.file.size > 0;
    text_writer_deinit(&w);
    return status;
}

static rt_status rewrite(repair *r, store_kind kind, const char *path, const rt_file *file, rt_error *err)
{
    const size_t size = strlen(path) + 8;
    char *to = malloc(size);
    if (!to)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    (void)snprintf(to, size, "%s.new", path);
    (void)unlink(to); /* of a repair that was killed */
    bool any = false;
    rt_status status =
        kind == STORE_ROWS ? rewrite_texts(file, to, &any, err) : rewrite_logits(r, file, to, &any, err);
    if (status == RT_OK && r->c.file_damaged)
        status = keep_damaged(r, path, err);
    if (status == RT_OK && (any ? rename(to, path) : unlink(path)) != 0)
        status = rt_error_set(err, RT_IO, "%.300s: cannot be put in place: %s", path, strerror(errno));
    if (status != RT_OK)
        (void)unlink(to);
    free(to);
    return status;
}

static rt_status repair_file(repair *r, store_kind kind, unsigned number, const json_t *manifest,
                             rt_error *err)
{
    rt_file file = {0};
    rt_rls_header header = {0};
    char *path = store_file_path(r->dir, kind, number);
    rt_status status =
        path ? rt_file_map(&file, path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    store_file_name(r->c.name, kind, number);
    r->c.file_damaged = 0;
    r->c.file_unfinished = false;
    if (status == RT_OK) {
        check_size(&r->c, &file, manifest);
        status = kind == STORE_ROWS ? check_texts(&r->c, &file, NULL, NULL, err)
                                    : check_logits(&r->c, &file, r->has_header ? &r->header : NULL, &header,
                                                   NULL, NULL, err);
    }
    if (status == RT_OK && kind == STORE_LOGITS && !r->has_header && header.n_vocab) {
        r->header = header;
        r->has_header = true;
    }
    if (status == RT_OK && (r->c.file_damaged || r->c.file_unfinished)) {
        const bool readable =
            kind == STORE_ROWS || header.n_vocab || !file.size || file.size <= RT_RLS_HEADER_BYTES;
        if (readable) /* else it stays as it is: nothing can be read without its settings */
            status = rewrite(r, kind, path, &file, err);
    }
    r->c.totals->files++;
    r->c.totals->bytes += file.size;
    rt_file_unmap(&file);
    free(path);
    return status;
}

/* Totals and counts anew; the rest of a manifest that is lost cannot be known. */
static rt_status write_manifest(const repair *r, json_t *manifest, rt_error *err)
{
    if (!manifest) {
        json_t *made = json_pack("{s:s,s:i,s:I}", "format", "retort outputs", "version", MANIFEST_VERSION,
                                 "created", (json_int_t)rt_clock_unix_seconds());
        if (made && r->has_header)
            (void)json_object_set_new(made, "logits", rt_rls_facts(&r->header));
        const rt_status status = made ? store_manifest_write(r->dir, made, err)
                                      : rt_error_set(err, RT_NO_MEMORY, "no memory for a manifest");
        json_decref(made);
        return status;
    }
    (void)json_object_del(manifest, "files");
    return store_manifest_write(r->dir, manifest, err);
}

static rt_status repair_all(repair *r, rt_error *err)
{
    json_t *manifest = NULL;
    rt_status status = check_manifest(&r->c, r->dir, &manifest, &r->header, &r->has_header, err);
    for (unsigned kind = 2; kind-- > 0 && status == RT_OK;) { /* logits first: they know the settings */
        store_files list;
        status = store_files_list(&list, r->dir, (store_kind)kind, err);
        for (size_t i = 0; i < list.n && status == RT_OK; i++)
            status = repair_file(r, (store_kind)kind, list.numbers[i], manifest, err);
        store_files_deinit(&list);
    }
    if (status == RT_OK)
        status = write_manifest(r, manifest, err);
    json_decref(manifest);
    return status;
}

rt_status rt_store_repair(const char *dir, rt_store_place_fn place_fn, void *context, rt_store_totals *totals,
                          rt_error *err)
{
    *totals = (rt_store_totals){0};
    repair r = {.c = {.place_fn = place_fn, .context = context, .totals = totals}, .dir = dir};
    rt_lock lock;
    if (!rt_path_is_dir(dir))
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: is not a folder", dir);
    if (rt_lock_acquire(&lock, dir, err) != RT_OK)
        return err->status;
    rt_status status = repair_all(&r, err);
    rt_lock_release(&lock);
    if (status != RT_OK)
        return status;
    rt_store *store; /* counts everything again into the manifest */
    status = rt_store_open(&store, dir, NULL, "retort outputs repair", err);
    return status == RT_OK ? rt_store_close(store, err) : status;
}
