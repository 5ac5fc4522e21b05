/* outputs/folder.c - see folder.h. */
#include "outputs/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "outputs/text_rows.h"

enum { MANIFEST_BYTES_MAX = 256 << 20 };

static const char *const folders[] = {"rows", "logits"}, *const endings[] = {".jsonl.zst", ".rls"};

void store_file_name(char out[32], store_kind kind, unsigned number)
{
    (void)snprintf(out, 32, "%s/%06u%s", folders[kind], number, endings[kind]);
}

char *store_file_path(const char *dir, store_kind kind, unsigned number)
{
    char name[32];
    store_file_name(name, kind, number);
    return rt_path_join(dir, name);
}

static int by_number(const void *a, const void *b)
{
    const unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

static bool number_of(unsigned *number, const char *name, const char *ending)
{
    char *end;
    if (strspn(name, "0123456789") != 6)
        return false;
    *number = (unsigned)strtoul(name, &end, 10);
    return strcmp(end, ending) == 0;
}

rt_status store_files_list(store_files *out, const char *dir, store_kind kind, rt_error *err)
{
    *out = (store_files){0};
    char *path = rt_path_join(dir, folders[kind]);
    DIR *folder = path ? opendir(path) : NULL;
    rt_status status = RT_OK;
    if (!path)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    else if (!folder && errno != ENOENT)
        status = rt_error_set(err, RT_IO, "%.300s: cannot be read: %s", path, strerror(errno));
    size_t capacity = 0;
    unsigned number;
    for (struct dirent *entry; folder && status == RT_OK && (entry = readdir(folder));) {
        if (!number_of(&number, entry->d_name, endings[kind]))
            continue;
        if (out->n == capacity) {
            capacity = capacity * 2 + 64;
            unsigned *grown = realloc(out->numbers, capacity * sizeof *grown);
            if (!grown) {
                status = rt_error_set(err, RT_NO_MEMORY, "no memory for a list of files");
                break;
            }
            out->numbers = grown;
        }
        out->numbers[out->n++] = number;
    }
    if (folder)
        (void)closedir(folder);
    free(path);
    if (status != RT_OK)
        store_files_deinit(out);
    else if (out->n)
        qsort(out->numbers, out->n, sizeof *out->numbers, by_number);
    return status;
}

void store_files_deinit(store_files *files)
{
    free(files->numbers);
    *files = (store_files){0};
}

/* ---- the manifest ---- */

static rt_status check_manifest(const json_t *m, const char *where, rt_error *err)
{
    const char *format = json_string_value(json_object_get(m, "format"));
    const json_t *version = json_object_get(m, "version");
    if (!format || strcmp(format, "retort outputs") != 0 || !json_is_integer(version))
        return rt_error_set(err, RT_CORRUPT, "%.300s: is not the manifest of an outputs store", where);
    if (json_integer_value(version) != MANIFEST_VERSION)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "%.300s: is of version %lld; this program reads version %d, so take the program that "
            "wrote it, or a newer one",
            where, (long long)json_integer_value(version), MANIFEST_VERSION);
    static const char *const objects[] = {"teacher", "sampling", "logits", "prompts", "totals", "files"};
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        const json_t *member = json_object_get(m, objects[i]);
        if (member && !json_is_object(member))
            return rt_error_set(err, RT_CORRUPT, "%.300s: \"%s\" is not an object", where, objects[i]);
    }
    const json_t *runs = json_object_get(m, "runs"), *logits = json_object_get(m, "logits");
    if (runs && !json_is_array(runs))
        return rt_error_set(err, RT_CORRUPT, "%.300s: \"runs\" is not an array", where);
    rt_rls_header header;
    return logits ? rt_rls_header_from_facts(&header, logits, where, err) : RT_OK;
}

rt_status store_manifest_parse(json_t **out, const char *data, size_t size, const char *where, rt_error *err)
{
    if (rt_json_parse(out, data, size, where, err) != RT_OK)
        return err->status;
    if (check_manifest(*out, where, err) == RT_OK)
        return RT_OK;
    json_decref(*out);
    *out = NULL;
    return err->status;
}

rt_status store_manifest_read(json_t **out, const char *dir, rt_error *err)
{
    *out = NULL;
    char *path = rt_path_join(dir, "manifest.json"), *data = NULL;
    size_t size;
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    rt_status status = rt_file_read(&data, &size, path, MANIFEST_BYTES_MAX, err);
    if (status == RT_OK)
        status = store_manifest_parse(out, data, size, path, err);
    free(data);
    free(path);
    return status;
}

rt_status store_manifest_write(const char *dir, const json_t *manifest, rt_error *err)
{
    char *path = rt_path_join(dir, "manifest.json");
    const rt_status status =
        path ? rt_json_write(path, manifest, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(path);
    return status;
}

static void show(char out[80], const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    (void)snprintf(out, 80, "%.60s%s", text ? text : "nothing", text && strlen(text) > 60 ? "..." : "");
    free(text);
}

rt_status store_member_match(const json_t *have, const json_t *want, const char *member, const char *dir,
                             rt_error *err)
{
    const json_t *a = json_object_get(have, member), *b = json_object_get(want, member);
    if (!a && !b)
        return RT_OK;
    const json_t *sides[2] = {a, b};
    for (unsigned side = 0; side < 2; side++) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(size_t)sides[side], key, value)
        {
            const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
            if (x && y && json_equal(x, y))
                continue;
            char had[80], wanted[80];
            show(had, x);
            show(wanted, y);
            return rt_error_set(
                err, RT_MISMATCH,
                "%.150s: holds other outputs: its %s.%.40s is %s, here it is %s; take another "
                "folder, or the same settings",
                dir, member, key, had, wanted);
        }
    }
    return RT_OK;
}

/* ---- counts ---- */

static rt_status count_line(void *context, const char *line, size_t size, rt_error *err)
{
    (void)line;
    (void)size;
    (void)err;
    ++*(uint64_t *)context;
    return RT_OK;
}

static bool count_known(store_count *out, const char *name, const json_t *manifest)
{
    const json_t *entry = json_object_get(json_object_get(manifest, "files"), name);
    static const char *const keys[] = {"bytes", "texts", "documents", "tokens", "rows"};
    uint64_t numbers[5] = {0};
    for (size_t i = 0; i < 5; i++) {
        const json_int_t value = json_integer_value(json_object_get(entry, keys[i]));
        numbers[i] = value > 0 ? (uint64_t)value : 0;
    }
    if (!entry || numbers[0] != out->bytes)
        return false;
    *out = (store_count){numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
    return true;
}

rt_status store_file_count(store_count *out, const char *dir, store_kind kind, unsigned number,
                           const json_t *manifest, rt_error *err)
{
    char name[32];
    store_file_name(name, kind, number);
    char *path = rt_path_join(dir, name);
    rt_file file = {0};
    rt_status status =
        path ? rt_file_map(&file, path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    *out = (store_count){.bytes = file.size};
    if (status == RT_OK && !count_known(out, name, manifest)) {
        if (kind == STORE_ROWS) {
            status = text_lines(file.data, file.size, count_line, &out->texts, NULL, NULL, err);
        } else {
            rls_index index;
            status = rls_index_load(&index, file.data, file.size, false, NULL, NULL, err);
            if (status == RT_OK) {
                *out = (store_count){file.size, 0, index.n, index.n_tokens, index.n_rows};
                rls_index_deinit(&index);
            }
        }
    }
    rt_file_unmap(&file);
    free(path);
    return status;
}

json_t *store_count_json(const store_count *c, store_kind kind)
{
    if (kind == STORE_ROWS)
        return json_pack("{s:I,s:I}", "bytes", (json_int_t)c->bytes, "texts", (json_int_t)c->texts);
    return json_pack("{s:I,s:I,s:I,s:I}", "bytes", (json_int_t)c->bytes, "documents",
                     (json_int_t)c->documents, "tokens", (json_int_t)c->tokens, "rows", (json_int_t)c->rows);
}
