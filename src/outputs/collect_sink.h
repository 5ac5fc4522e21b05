/* outputs/collect_sink.h - where the rows of a collection go, so that each is there exactly once.
 *
 * To a file: a row is written at once with one write, so that a killed process loses none that it had; every
 * second or 64 rows the file is flushed to the disk and the journal says how far it goes and which rows it
 * holds. After a kill, what lies past the journal's word is looked through: whole rows are kept, a torn line
 * is cut.
 *
 * To a store (a folder): rows wait in a file beside it until the store has flushed them; after a kill they
 * are added from there. */
#ifndef RT_OUTPUTS_COLLECT_SINK_H
#define RT_OUTPUTS_COLLECT_SINK_H

#include <jansson.h>

#include "outputs/idmap.h"
#include "outputs/journal.h"
#include "outputs/store.h"
#include "teacher/teacher.h"

/* In rt_collect_sink.ids. */
enum { RT_ID_DONE = 1, RT_ID_REJECTED = 2, RT_ID_MET = 4, RT_ID_FLAGS = 7 };

typedef struct rt_collect_totals {
    uint64_t rows, rejected;
    rt_usage usage;
    double money;
    double reserved, lost_money; /* worst case of what is in flight; of what was in flight in killed runs */
    uint64_t reserved_tokens, lost_tokens;
} rt_collect_totals;

typedef struct rt_collect_sink {
    bool is_store, batch;
    char *path, *rejected_path, *manifest_path, *wait_path;
    int fd, rejected_fd, wait_fd; /* of the output, the rejected rows, what waits for the store */
    uint64_t size, rejected_size, wait_size;
    rt_store *store;
    rt_journal journal;
    rt_idmap ids;
    rt_text record; /* the ids since the last commit */
    size_t uncommitted;
    double committed_at, synced_at, flush_s; /* flush_s: from one commit to the next, at least */
    char spent[256];                         /* the last record of it */
    rt_collect_totals totals;
    char settings_hash[65];
    uint64_t adopted, cut_bytes; /* found by opening: rows past the journal; bytes of torn lines */
    bool started;                /* a run was here before */
} rt_collect_sink;

typedef struct rt_collect_sink_options {
    const char *out;
    const json_t *settings;           /* what makes two runs the same */
    const json_t *teacher, *sampling; /* for the store's manifest */
    bool new_run;                     /* move what is there aside instead of refusing other settings */
    bool retry_failed;                /* forget the rejected rows */
    bool batch;                       /* rows are known by custom_id */
} rt_collect_sink_options;

/* RT_MISMATCH when the output was begun with other settings. */
rt_status rt_collect_sink_open(rt_collect_sink *sink, const rt_collect_sink_options *options, rt_error *err);
/* line: one row with its newline. */
rt_status rt_collect_sink_add(rt_collect_sink *sink, const char *id, const rt_text *line, rt_error *err);
rt_status rt_collect_sink_reject(rt_collect_sink *sink, const char *id, const rt_text *line, rt_error *err);
/* Commits when 64 rows or a second have passed (see the file), or always with `force`. */
rt_status rt_collect_sink_commit(rt_collect_sink *sink, double now_s, bool force, rt_error *err);
/* What totals.reserved says is written down before it is risked. */
rt_status rt_collect_sink_reserve(rt_collect_sink *sink, rt_error *err);
rt_status rt_collect_sink_manifest(rt_collect_sink *sink, const json_t *manifest, rt_error *err);
rt_status rt_collect_sink_close(rt_collect_sink *sink, rt_error *err);
/* "rows.jsonl" is a file, anything else a folder. */
bool rt_collect_out_is_file(const char *out);

#endif
