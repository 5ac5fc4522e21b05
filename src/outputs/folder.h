/* outputs/folder.h - the folder of a store: its files in order, its manifest.  Internal to the room. */
#ifndef RT_OUTPUTS_FOLDER_H
#define RT_OUTPUTS_FOLDER_H

#include "base/json.h"
#include "outputs/rls_file.h"

enum { MANIFEST_VERSION = 1, STORE_FILES_MAX = 999999 };

typedef enum store_kind { STORE_ROWS, STORE_LOGITS } store_kind;

typedef struct store_files { /* of one kind, ascending */
    unsigned *numbers;
    size_t n;
} store_files;
/* No folder: no files. */
rt_status store_files_list(store_files *out, const char *dir, store_kind kind, rt_error *err);
void store_files_deinit(store_files *files);
/* "rows/000001.jsonl.zst" or "logits/000001.rls". */
void store_file_name(char out[32], store_kind kind, unsigned number);
/* The path in malloc'd memory; NULL when out of memory. */
char *store_file_path(const char *dir, store_kind kind, unsigned number);

/* The manifest, checked: an object of the known version.  RT_NOT_FOUND: there is none. */
rt_status store_manifest_read(json_t **out, const char *dir, rt_error *err);
rt_status store_manifest_write(const char *dir, const json_t *manifest, rt_error *err);
/* For the fuzz target: the same checks on bytes. */
rt_status store_manifest_parse(json_t **out, const char *data, size_t size, const char *where, rt_error *err);
/* RT_MISMATCH names the first member of `member` ("teacher", ...) that differs between two manifests. */
rt_status store_member_match(const json_t *have, const json_t *want, const char *member, const char *dir,
                             rt_error *err);

/* What a file holds. */
typedef struct store_count {
    uint64_t bytes, texts, documents, tokens, rows;
} store_count;
/* From the manifest's "files" when the size is the same, else by reading the file. */
rt_status store_file_count(store_count *out, const char *dir, store_kind kind, unsigned number,
                           const json_t *manifest, rt_error *err);
json_t *store_count_json(const store_count *count, store_kind kind);

#endif
