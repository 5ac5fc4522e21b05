/* outputs/store.c - a store open for appending; see store.h.
 *
 * Each run writes files of its own, so that nothing that is on the disk is ever changed: what an earlier run
 * left, torn or whole, stays as it is and is read as far as it is whole. */
#include "outputs/store.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "outputs/folder.h"
#include "outputs/keys.h"
#include "outputs/store_internal.h"
#include "outputs/text_rows.h"

struct rt_store {
    char *dir;
    rt_lock lock;
    json_t *manifest, *run; /* run: this one's entry in "runs"; borrowed */
    rt_rls_header header;
    bool has_logits, trusted;
    text_writer texts;
    rls_writer logits;
    bool texts_open, logits_open;
    unsigned next[2]; /* number of the next file, by kind */
    key_set text_keys, document_keys;
    bool text_keys_read, document_keys_read;
    store_count total, added;
};

size_t rt_store_texts(const rt_store *store) { return (size_t)store->total.texts; }
size_t rt_store_documents(const rt_store *store) { return (size_t)store->total.documents; }
json_t *rt_store_manifest(rt_store *store) { return store->manifest; }

/* ---- opening ---- */

/* Counts what is there and finds the number of the next file of each kind. */
static rt_status take_stock(rt_store *s, rt_error *err)
{
    json_t *files = json_object();
    rt_status status = files ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
    for (unsigned kind = 0; kind < 2 && status == RT_OK; kind++) {
        store_files list;
        status = store_files_list(&list, s->dir, (store_kind)kind, err);
        s->next[kind] = 1;
        for (size_t i = 0; status == RT_OK && i < list.n; i++) {
            store_count count;
            status = store_file_count(&count, s->dir, (store_kind)kind, list.numbers[i], s->manifest, err);
            s->total.bytes += count.bytes;
            s->total.texts += count.texts;
            s->total.documents += count.documents;
            s->total.tokens += count.tokens;
            s->total.rows += count.rows;
            s->next[kind] = list.numbers[i] + 1;
            char name[32];
            store_file_name(name, (store_kind)kind, list.numbers[i]);
            if (status == RT_OK)
                (void)json_object_set_new(files, name, store_count_json(&count, (store_kind)kind));
        }
        store_files_deinit(&list);
    }
    if (status == RT_OK)
        (void)json_object_set(s->manifest, "files", files);
    json_decref(files);
    return status;
}

static rt_status set_totals(rt_store *s, rt_error *err)
{
    json_t *totals = json_pack("{s:I,s:I,s:I,s:I}", "texts", (json_int_t)s->total.texts, "documents",
                               (json_int_t)s->total.documents, "tokens", (json_int_t)s->total.tokens, "rows",
                               (json_int_t)s->total.rows);
    if (!totals || json_object_set_new(s->manifest, "totals", totals) != 0)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
    return RT_OK;
}

static rt_status use_facts(rt_store *s, const json_t *facts, rt_error *err)
{
    static const char *const fixed[] = {"teacher", "sampling", "logits"};
    const bool is_new = json_object_get(s->manifest, "created") == NULL;
    for (size_t i = 0; !is_new && facts && i < sizeof fixed / sizeof fixed[0]; i++) {
        /* a store of text may get logits later, and the other way round */
        const bool both = json_object_get(s->manifest, fixed[i]) && json_object_get(facts, fixed[i]);
        if (both && store_member_match(s->manifest, facts, fixed[i], s->dir, err) != RT_OK)
            return err->status;
    }
    json_t *copy = facts ? json_deep_copy(facts) : json_object();
    if (!copy || json_object_update(s->manifest, copy) != 0) {
        json_decref(copy);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
    }
    json_decref(copy);
    if (is_new)
        (void)json_object_set_new(s->manifest, "created", json_integer((json_int_t)rt_clock_unix_seconds()));
    const json_t *logits = json_object_get(s->manifest, "logits");
    s->has_logits = logits != NULL;
    return logits ? rt_rls_header_from_facts(&s->header, logits, s->dir, err) : RT_OK;
}

static rt_status begin_run(rt_store *s, const char *who, rt_error *err)
{
    json_t *runs = json_object_get(s->manifest, "runs"), *text = rt_json_text(who, strlen(who));
    if (!runs && json_object_set_new(s->manifest, "runs", json_array()) == 0)
        runs = json_object_get(s->manifest, "runs");
    s->run =
        text ? json_pack("{s:o,s:I}", "who", text, "started", (json_int_t)rt_clock_unix_seconds()) : NULL;
    if (!s->run || json_array_append_new(runs, s->run) != 0)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
    return RT_OK;
}

static rt_status read_manifest(rt_store *s, const json_t *facts, rt_error *err)
{
    rt_status status = store_manifest_read(&s->manifest, s->dir, err);
    if (status != RT_NOT_FOUND)
        return status;
    if (!facts)
        return rt_error_set(err, RT_NOT_FOUND,
                            "%.300s: holds no manifest.json, so it is not an outputs store", s->dir);
    s->manifest = json_pack("{s:s,s:i}", "format", "retort outputs", "version", MANIFEST_VERSION);
    return s->manifest ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a manifest");
}

static rt_status make_folder(const char *dir, const char *name, rt_error *err)
{
    char *path = rt_path_join(dir, name);
    const rt_status status =
        path ? rt_dir_make(path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(path);
    return status;
}

rt_status rt_store_open(rt_store **out, const char *dir, const json_t *facts, const char *who, rt_error *err)
{
    *out = NULL;
    if (!facts && !rt_path_is_dir(dir))
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: is not a folder", dir);
    rt_store *s = calloc(1, sizeof *s);
    if (!s || !(s->dir = strdup(dir))) {
        free(s);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a store");
    }
    s->lock.fd = -1;
    rt_status status = rt_dir_make(dir, err);
    if (status == RT_OK && (status = rt_lock_acquire(&s->lock, dir, err)) == RT_OK &&
        (status = read_manifest(s, facts, err)) == RT_OK && (status = use_facts(s, facts, err)) == RT_OK &&
        (status = make_folder(dir, "rows", err)) == RT_OK &&
        (status = make_folder(dir, "logits", err)) == RT_OK && (status = take_stock(s, err)) == RT_OK &&
        (status = begin_run(s, who, err)) == RT_OK && (status = set_totals(s, err)) == RT_OK &&
        (status = store_manifest_write(dir, s->manifest, err)) == RT_OK) {
        *out = s;
        return RT_OK;
    }
    rt_lock_release(&s->lock);
    json_decref(s->manifest);
    free(s->dir);
    free(s);
    return status;
}

/* ---- keys ---- */

rt_status rt_store_row_key(char out[33], const json_t *row, rt_error *err)
{
    json_t *copy = json_copy((json_t *)(size_t)row); /* shallow */
    if (copy)
        (void)json_object_del(copy, "key");
    char *text = copy ? json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(copy);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the key of a row");
    unsigned char digest[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256(digest, (const unsigned char *)text, strlen(text));
    free(text);
    key_to_hex(out, digest);
    return RT_OK;
}

rt_status store_key_of_row(unsigned char key[16], const json_t *row, rt_error *err)
{
    const char *given = json_string_value(json_object_get(row, "key"));
    if (!given)
        given = json_string_value(json_object_get(row, "id"));
    char made[33];
    if (!given && rt_store_row_key(made, row, err) != RT_OK)
        return err->status;
    key_from_text(key, given ? given : made);
    return RT_OK;
}

static rt_status keep_text_key(void *context, const char *line, size_t size, rt_error *err)
{
    json_t *row;
    unsigned char key[16];
    bool added;
    if (rt_json_parse(&row, line, size, "row", err) != RT_OK || !json_is_object(row)) {
        json_decref(row);
        return RT_OK; /* 'outputs verify' tells of it */
    }
    rt_status status = store_key_of_row(key, row, err);
    if (status == RT_OK)
        status = key_set_add(context, key, &added, err);
    json_decref(row);
    return status;
}

static rt_status keep_document_keys(key_set *set, const rt_file *file, rt_error *err)
{
    rls_index index;
    if (rls_index_load(&index, file->data, file->size, false, NULL, NULL, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    rls_record record;
    bool added;
    for (size_t i = 0; i < index.n && status == RT_OK; i++)
        if (rls_record_header(&record, file->data + index.entries[i].offset,
                              file->size - (size_t)index.entries[i].offset))
            status = key_set_add(set, record.key, &added, err);
    rls_index_deinit(&index);
    return status;
}

static rt_status read_keys(rt_store *s, store_kind kind, bool *done, rt_error *err)
{
    if (*done)
        return RT_OK;
    store_files list;
    rt_status status = store_files_list(&list, s->dir, kind, err);
    for (size_t i = 0; i < list.n && status == RT_OK; i++) {
        rt_file file = {0};
        char *path = store_file_path(s->dir, kind, list.numbers[i]);
        status =
            path ? rt_file_map(&file, path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
        if (status == RT_OK && kind == STORE_ROWS)
            status = text_lines(file.data, file.size, keep_text_key, &s->text_keys, NULL, NULL, err);
        else if (status == RT_OK)
            status = keep_document_keys(&s->document_keys, &file, err);
        rt_file_unmap(&file);
        free(path);
    }
    store_files_deinit(&list);
    *done = status == RT_OK;
    return status;
}

void rt_store_trust_keys(rt_store *store) { store->trusted = true; }

rt_status rt_store_has_text(rt_store *s, const char *key, bool *has, rt_error *err)
{
    unsigned char bytes[16];
    if (read_keys(s, STORE_ROWS, &s->text_keys_read, err) != RT_OK)
        return err->status;
    key_from_text(bytes, key);
    *has = key_set_has(&s->text_keys, bytes);
    return RT_OK;
}

rt_status rt_store_has_document(rt_store *s, const int32_t *ids, const uint8_t *mask, size_t n, bool *has,
                                rt_error *err)
{
    unsigned char key[16];
    if (read_keys(s, STORE_LOGITS, &s->document_keys_read, err) != RT_OK)
        return err->status;
    rls_document_key(key, ids, mask, n);
    *has = key_set_has(&s->document_keys, key);
    return RT_OK;
}

/* ---- adding ---- */

static rt_status next_path(rt_store *s, store_kind kind, char **path, rt_error *err)
{
    if (s->next[kind] > STORE_FILES_MAX)
        return rt_error_set(err, RT_INVALID, "%.300s: has too many files; 'retort outputs merge' joins them",
                            s->dir);
    *path = store_file_path(s->dir, kind, s->next[kind]);
    return *path ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
}

static void note_file(rt_store *s, store_kind kind, const store_count *count)
{
    char name[32];
    store_file_name(name, kind, s->next[kind]);
    (void)json_object_set_new(json_object_get(s->manifest, "files"), name, store_count_json(count, kind));
    s->next[kind]++;
}

static rt_status close_texts(rt_store *s, rt_error *err)
{
    const rt_status status = text_writer_flush(&s->texts, err);
    if (s->texts.file.size)
        note_file(s, STORE_ROWS, &(store_count){.bytes = s->texts.file.size, .texts = s->texts.n_rows});
    text_writer_deinit(&s->texts);
    s->texts_open = false;
    return status;
}

static rt_status close_logits(rt_store *s, rt_error *err)
{
    const rt_status status = rls_writer_finish(&s->logits, err);
    const rls_index *index = &s->logits.index;
    if (s->logits.file.size)
        note_file(s, STORE_LOGITS,
                  &(store_count){s->logits.file.size, 0, index->n, index->n_tokens, index->n_rows});
    rls_writer_deinit(&s->logits);
    s->logits_open = false;
    return status;
}

static rt_status open_texts(rt_store *s, rt_error *err)
{
    if (s->texts_open)
        return RT_OK;
    char *path;
    if (next_path(s, STORE_ROWS, &path, err) != RT_OK)
        return err->status;
    s->texts_open = text_writer_init(&s->texts, path, err) == RT_OK;
    free(path);
    return s->texts_open ? RT_OK : err->status;
}

/* Is the key new?  Keys are not looked at when the caller vouches for them. */
static rt_status text_is_new(rt_store *s, const unsigned char key[16], bool *is_new, rt_error *err)
{
    *is_new = true;
    if (s->trusted)
        return RT_OK;
    if (read_keys(s, STORE_ROWS, &s->text_keys_read, err) != RT_OK)
        return err->status;
    *is_new = !key_set_has(&s->text_keys, key);
    return RT_OK;
}

static rt_status count_text(rt_store *s, const unsigned char key[16], bool *added, rt_error *err)
{
    bool is_new;
    if (!s->trusted && key_set_add(&s->text_keys, key, &is_new, err) != RT_OK)
        return err->status;
    s->total.texts++;
    s->added.texts++;
    if (added)
        *added = true;
    if (s->texts.waiting.size >= TEXT_FRAME_BYTES && text_writer_flush(&s->texts, err) != RT_OK)
        return err->status;
    return s->texts.file.size >= TEXT_FILE_BYTES ? close_texts(s, err) : RT_OK;
}

rt_status rt_store_add_text(rt_store *s, const json_t *row, bool *added, rt_error *err)
{
    unsigned char key[16] = {0};
    bool is_new;
    if (added)
        *added = false;
    if (!json_is_object(row))
        return rt_error_set(err, RT_INVALID, "a row must be a JSON object");
    if ((!s->trusted && store_key_of_row(key, row, err) != RT_OK) ||
        text_is_new(s, key, &is_new, err) != RT_OK)
        return err->status;
    if (!is_new)
        return RT_OK;
    if (open_texts(s, err) != RT_OK || text_writer_add(&s->texts, row, err) != RT_OK)
        return err->status;
    return count_text(s, key, added, err);
}

rt_status rt_store_add_line(rt_store *s, const char *line, size_t size, const char *key_text, bool *added,
                            rt_error *err)
{
    unsigned char key[16];
    bool is_new;
    if (added)
        *added = false;
    key_from_text(key, key_text);
    if (size < 2 || line[0] != '{' || memchr(line, '\n', size))
        return rt_error_set(err, RT_INVALID, "a row must be a JSON object on one line");
    if (text_is_new(s, key, &is_new, err) != RT_OK)
        return err->status;
    if (!is_new)
        return RT_OK;
    if (open_texts(s, err) != RT_OK || text_writer_add_line(&s->texts, line, size, err) != RT_OK)
        return err->status;
    return count_text(s, key, added, err);
}

static rt_status open_logits(rt_store *s, rt_error *err)
{
    if (s->logits_open)
        return RT_OK;
    if (!s->has_logits)
        return rt_error_set(err, RT_INVALID,
                            "%.300s: was opened without saying how log-probabilities are kept", s->dir);
    char *path;
    if (next_path(s, STORE_LOGITS, &path, err) != RT_OK)
        return err->status;
    s->logits_open = rls_writer_init(&s->logits, path, &s->header, err) == RT_OK;
    free(path);
    return s->logits_open ? RT_OK : err->status;
}

static rt_status count_document(rt_store *s, size_t n_tokens, size_t n_rows, rt_error *err)
{
    s->total.documents++;
    s->total.tokens += n_tokens;
    s->total.rows += n_rows;
    s->added.documents++;
    s->added.tokens += n_tokens;
    s->added.rows += n_rows;
    if (s->logits.block.size >= RLS_BLOCK_BYTES && rls_writer_flush(&s->logits, err) != RT_OK)
        return err->status;
    return s->logits.file.size >= RLS_FILE_BYTES ? close_logits(s, err) : RT_OK;
}

rt_status rt_store_add_document(rt_store *s, const rt_store_document *doc, bool *added, rt_error *err)
{
    unsigned char key[16];
    bool has = false, is_new;
    if (added)
        *added = false;
    if (!s->trusted && rt_store_has_document(s, doc->ids, doc->mask, doc->n_tokens, &has, err) != RT_OK)
        return err->status;
    if (has)
        return RT_OK;
    if (open_logits(s, err) != RT_OK || rls_writer_add(&s->logits, doc, err) != RT_OK)
        return err->status;
    if (!s->trusted) {
        rls_document_key(key, doc->ids, doc->mask, doc->n_tokens);
        if (key_set_add(&s->document_keys, key, &is_new, err) != RT_OK)
            return err->status;
    }
    if (added)
        *added = true;
    return count_document(s, doc->n_tokens, doc->rows.n_rows, err);
}

rt_status store_add_record(rt_store *s, const rls_record *record, bool *added, rt_error *err)
{
    *added = false;
    if (read_keys(s, STORE_LOGITS, &s->document_keys_read, err) != RT_OK)
        return err->status;
    if (key_set_has(&s->document_keys, record->key))
        return RT_OK;
    if (open_logits(s, err) != RT_OK || rls_writer_add_record(&s->logits, record, err) != RT_OK ||
        key_set_add(&s->document_keys, record->key, added, err) != RT_OK)
        return err->status;
    return count_document(s, record->n_tokens, record->n_rows, err);
}

/* ---- the end ---- */

rt_status rt_store_flush(rt_store *s, rt_error *err)
{
    if (s->texts_open && text_writer_flush(&s->texts, err) != RT_OK)
        return err->status;
    return s->logits_open ? rls_writer_flush(&s->logits, err) : RT_OK;
}

rt_status rt_store_close(rt_store *s, rt_error *err)
{
    if (!s)
        return RT_OK;
    rt_error later = {0};
    rt_status status = s->texts_open ? close_texts(s, err) : RT_OK;
    if (s->logits_open && close_logits(s, status == RT_OK ? err : &later) != RT_OK && status == RT_OK)
        status = err->status;
    (void)json_object_set_new(s->run, "ended", json_integer((json_int_t)rt_clock_unix_seconds()));
    (void)json_object_set_new(s->run, "texts", json_integer((json_int_t)s->added.texts));
    (void)json_object_set_new(s->run, "documents", json_integer((json_int_t)s->added.documents));
    (void)json_object_set_new(s->run, "tokens", json_integer((json_int_t)s->added.tokens));
    if (status == RT_OK && (status = set_totals(s, err)) == RT_OK)
        status = store_manifest_write(s->dir, s->manifest, err);
    rt_lock_release(&s->lock);
    json_decref(s->manifest);
    key_set_deinit(&s->text_keys);
    key_set_deinit(&s->document_keys);
    free(s->dir);
    free(s);
    return status;
}
