/* outputs/collect_sink.c - rows to a file or a store, each exactly once; see collect_sink.h.
 *
 * Records of the journal:
 *   settings HASH JSON
 *   rows SIZE REJECTED_SIZE (+|-)KEY...     sizes of the two files when these rows were in them (KEY: 32 hex)
 *   spent MONEY PROMPT CACHED COMPLETION REASONING RESERVED RESERVED_TOKENS
 *   lost MONEY TOKENS                       in flight when a run was killed: it may have been charged
 *   closed                                  nothing was in flight: what was reserved is not spent
 *   retry                                   the rejected rows are forgotten */
#include "outputs/collect_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "outputs/lines.h"

enum { COMMIT_ROWS = 64 };

bool rt_collect_out_is_file(const char *out)
{
    const size_t n = strlen(out);
    return n > 6 && strcmp(out + n - 6, ".jsonl") == 0;
}

/* ---- replaying the journal ---- */

static bool read_key(rt_idkey *out, const char *text)
{
    return sscanf(text, "%16" SCNx64 "%16" SCNx64, &out->high, &out->low) == 2;
}

static rt_status replay_rows(rt_collect_sink *sink, const char *payload, rt_error *err)
{
    int at = 0;
    if (sscanf(payload, "rows %" SCNu64 " %" SCNu64 "%n", &sink->size, &sink->rejected_size, &at) != 2)
        return RT_OK;
    for (const char *c = payload + at; c[0] == ' ' && (c[1] == '+' || c[1] == '-') && strlen(c) >= 34;
         c += 34) {
        rt_idkey key;
        const bool rejected = c[1] == '-';
        if (!read_key(&key, c + 2))
            break;
        if (rt_idmap_put(&sink->ids, key, rejected ? RT_ID_REJECTED : RT_ID_DONE, err) != RT_OK)
            return err->status;
        sink->totals.rows += !rejected;
        sink->totals.rejected += rejected;
    }
    return RT_OK;
}

static void replay_spent(rt_collect_sink *sink, const char *payload)
{
    rt_collect_totals t = sink->totals;
    rt_usage *u = &t.usage;
    if (sscanf(payload, "spent %lf %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %lf %" SCNu64, &t.money,
               &u->prompt, &u->cached, &u->completion, &u->reasoning, &t.reserved, &t.reserved_tokens) == 7)
        sink->totals = t;
}

static void replay_lost(rt_collect_sink *sink, const char *payload)
{
    double money = 0;
    uint64_t tokens = 0;
    if (sscanf(payload, "lost %lf %" SCNu64, &money, &tokens) != 2)
        return;
    sink->totals.lost_money += money;
    sink->totals.lost_tokens += tokens;
    sink->totals.reserved = 0;
    sink->totals.reserved_tokens = 0;
}

static void forget_rejected(rt_collect_sink *sink)
{
    for (size_t i = 0; i < sink->ids.capacity; i++)
        if (sink->ids.entries[i].value == RT_ID_REJECTED)
            sink->ids.entries[i].value = RT_ID_MET; /* a place that is taken by a row not done */
    for (size_t i = 0; i < sink->ids.capacity; i++)
        if (sink->ids.entries[i].value == RT_ID_MET)
            sink->ids.entries[i].value = 8; /* neither done, nor rejected, nor met */
    sink->totals.rejected = 0;
}

static rt_status replay(void *context, const char *payload, size_t size, rt_error *err)
{
    rt_collect_sink *sink = context;
    char *text = strndup(payload, size); /* not NUL-terminated as it comes */
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the journal");
    rt_status status = RT_OK;
    sink->started = true;
    if (strncmp(text, "settings ", 9) == 0 && size >= 73)
        (void)snprintf(sink->settings_hash, sizeof sink->settings_hash, "%.64s", text + 9);
    else if (strncmp(text, "rows ", 5) == 0)
        status = replay_rows(sink, text, err);
    else if (strncmp(text, "spent ", 6) == 0)
        replay_spent(sink, text);
    else if (strncmp(text, "lost ", 5) == 0)
        replay_lost(sink, text);
    else if (strcmp(text, "closed") == 0)
        sink->totals.reserved = 0, sink->totals.reserved_tokens = 0;
    else if (strcmp(text, "retry") == 0)
        forget_rejected(sink);
    free(text);
    return status;
}

/* ---- recovering the output ---- */

static rt_status note_id(rt_collect_sink *sink, const char *id, bool rejected, rt_error *err)
{
    const rt_idkey key = rt_idkey_of(id, strlen(id));
    const uint64_t met = rt_idmap_get(&sink->ids, key) & (RT_ID_MET | ~(uint64_t)RT_ID_FLAGS);
    return rt_idmap_put(&sink->ids, key, met | (rejected ? RT_ID_REJECTED : RT_ID_DONE), err);
}

static void record_id(rt_collect_sink *sink, const char *id, bool rejected)
{
    const rt_idkey key = rt_idkey_of(id, strlen(id));
    rt_text_printf(&sink->record, " %c%016" PRIx64 "%016" PRIx64, rejected ? '-' : '+', key.high, key.low);
    sink->uncommitted++;
}

static bool is_known(const rt_collect_sink *sink, const char *id)
{
    return rt_idmap_get(&sink->ids, rt_idkey_of(id, strlen(id))) & (RT_ID_DONE | RT_ID_REJECTED);
}

/* A whole row past the journal's word: kept, and what it cost is added up. */
static rt_status adopt(rt_collect_sink *sink, const json_t *row, bool rejected, rt_error *err)
{
    const char *id = json_string_value(json_object_get(row, sink->batch ? "custom_id" : "id"));
    if (!id || is_known(sink, id))
        return RT_OK;
    const json_t *usage = json_object_get(row, "usage");
    rt_usage *u = &sink->totals.usage;
    u->prompt += (uint64_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
    u->completion += (uint64_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    u->cached += (uint64_t)json_integer_value(json_object_get(usage, "cached_tokens"));
    sink->totals.money += json_number_value(json_object_get(row, "cost"));
    sink->totals.rows += !rejected;
    sink->totals.rejected += rejected;
    sink->adopted++;
    record_id(sink, id, rejected);
    return note_id(sink, id, rejected, err);
}

/* Reads the file's lines from *size on; *size becomes the end of the last whole one. */
static rt_status scan(rt_collect_sink *sink, const char *path, uint64_t *size, bool rejected, rt_error *err)
{
    const uint64_t from = *size;
    uint64_t at = 0, good = 0;
    rt_lines *lines = NULL;
    if (rt_lines_open(&lines, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (;;) {
        const char *line;
        size_t n = 0;
        bool whole = false;
        status = rt_lines_next(lines, &line, &n, &whole, err);
        if (status != RT_OK || !line || !whole)
            break;
        at += n + 1;
        if (at > from) {
            json_t *row = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
            if (row)
                status = adopt(sink, row, rejected, err);
            json_decref(row);
            if (status != RT_OK)
                break;
            if (!row)
                continue; /* cut, unless whole rows follow */
        }
        good = at;
    }
    rt_lines_close(lines);
    *size = good;
    return status;
}

static rt_status open_file(rt_collect_sink *sink, int *fd, const char *path, uint64_t *size, bool rejected,
                           rt_error *err)
{
    struct stat info;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0 || fstat(*fd, &info) != 0)
        return rt_error_set(err, RT_IO, "%.300s cannot be opened: %s", path, strerror(errno));
    if ((uint64_t)info.st_size < *size) { /* shorter than it was: what is there counts, and nothing else */
        rt_log(RT_LOG_WARNING, "%.200s is shorter than its journal says: it is looked through from its start",
               path);
        const uint64_t mine = rejected ? RT_ID_REJECTED : RT_ID_DONE;
        for (size_t i = 0; i < sink->ids.capacity; i++)
            if (sink->ids.entries[i].value == mine)
                sink->ids.entries[i].value = 8;
        *(rejected ? &sink->totals.rejected : &sink->totals.rows) = 0;
        *size = 0;
    }
    if ((uint64_t)info.st_size > *size) {
        if (scan(sink, path, size, rejected, err) != RT_OK)
            return err->status;
        if ((uint64_t)info.st_size > *size) {
            sink->cut_bytes += (uint64_t)info.st_size - *size;
            if (ftruncate(*fd, (off_t)*size) != 0)
                return rt_error_set(err, RT_IO, "%.300s cannot be cut: %s", path, strerror(errno));
        }
    }
    return lseek(*fd, (off_t)*size, SEEK_SET) < 0
               ? rt_error_set(err, RT_IO, "%.300s: %s", path, strerror(errno))
               : RT_OK;
}

/* ---- the store ---- */

static rt_status add_to_store(rt_collect_sink *sink, const char *line, size_t size, rt_error *err)
{
    json_t *row = NULL;
    if (rt_json_parse(&row, line, size, sink->wait_path, err) != RT_OK)
        return err->status;
    const rt_status status = rt_store_add_text(sink->store, row, NULL, err);
    json_decref(row);
    return status;
}

static rt_status empty_wait(rt_collect_sink *sink, rt_error *err)
{
    if (ftruncate(sink->wait_fd, 0) != 0 || lseek(sink->wait_fd, 0, SEEK_SET) < 0)
        return rt_error_set(err, RT_IO, "%.300s cannot be emptied: %s", sink->wait_path, strerror(errno));
    sink->wait_size = 0;
    return RT_OK;
}

/* Rows that a killed process left waiting go into the store, which knows those it has. */
static rt_status take_waiting(rt_collect_sink *sink, rt_error *err)
{
    rt_lines *lines = NULL;
    if (rt_lines_open(&lines, sink->wait_path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (;;) {
        const char *line;
        size_t n = 0;
        bool whole = false;
        status = rt_lines_next(lines, &line, &n, &whole, err);
        if (status != RT_OK || !line || !whole)
            break;
        json_t *row = json_loadb(line, n, 0, NULL);
        if (!row)
            break;
        status = rt_store_add_text(sink->store, row, NULL, err);
        if (status == RT_OK)
            status = adopt(sink, row, false, err);
        json_decref(row);
        if (status != RT_OK)
            break;
    }
    rt_lines_close(lines);
    if (status == RT_OK)
        status = rt_store_flush(sink->store, err);
    return status == RT_OK ? empty_wait(sink, err) : status;
}

static rt_status open_store(rt_collect_sink *sink, const rt_collect_sink_options *options, rt_error *err)
{
    json_t *facts = json_pack("{s:O, s:O}", "teacher", options->teacher, "sampling", options->sampling);
    if (!facts)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the store's manifest");
    rt_status status = rt_store_open(&sink->store, options->out, facts, "collect", err);
    json_decref(facts);
    if (status != RT_OK)
        return status;
    sink->wait_fd = open(sink->wait_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (sink->wait_fd < 0)
        return rt_error_set(err, RT_IO, "%.300s cannot be opened: %s", sink->wait_path, strerror(errno));
    return take_waiting(sink, err);
}

/* ---- opening ---- */

static char *beside(const char *out, bool is_file, const char *end)
{
    const size_t n = strlen(out);
    rt_text text = {0};
    if (is_file) {
        rt_text_append(&text, out, n - 6);
        rt_text_puts(&text, end);
    } else {
        rt_text_printf(&text, "%s%scollect%s", out, n && out[n - 1] == '/' ? "" : "/", end);
    }
    return text.failed ? NULL : text.data;
}

static rt_status start_settings(rt_collect_sink *sink, const char *hash, const char *json, rt_error *err)
{
    rt_text record = {0};
    rt_text_printf(&record, "settings %s %s", hash, json);
    if (!record.failed)
        rt_journal_add(&sink->journal, record.data, record.size);
    const rt_status status =
        record.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the journal") : RT_OK;
    rt_text_deinit(&record);
    memcpy(sink->settings_hash, hash, 65);
    return status == RT_OK ? rt_journal_write(&sink->journal, true, err) : status;
}

/* A new run: what is there gets a name of its own and is kept. */
static rt_status move_aside(rt_collect_sink *sink, rt_error *err)
{
    if (sink->is_store)
        return rt_error_set(err, RT_MISMATCH,
                            "%.300s was begun with other settings: name another folder for a new run",
                            sink->path);
    const char *const paths[] = {sink->path, sink->rejected_path, sink->manifest_path};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        rt_text name = {0};
        rt_text_printf(&name, "%s.%.8s-%lld", paths[i], sink->settings_hash, (long long)time(NULL));
        const bool failed = name.failed || (rename(paths[i], name.data) != 0 && errno != ENOENT);
        rt_text_deinit(&name);
        if (failed)
            return rt_error_set(err, RT_IO, "%.300s cannot be renamed: %s", paths[i], strerror(errno));
    }
    rt_idmap_deinit(&sink->ids);
    sink->totals = (rt_collect_totals){0};
    sink->size = sink->rejected_size = 0;
    sink->started = false;
    return rt_journal_clear(&sink->journal, err);
}

static rt_status check_settings(rt_collect_sink *sink, const rt_collect_sink_options *options, rt_error *err)
{
    char hash[65];
    char *json = json_dumps(options->settings, JSON_COMPACT | JSON_SORT_KEYS);
    if (!json)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    rt_sha256_hex(hash, json, strlen(json));
    rt_status status = RT_OK;
    if (sink->settings_hash[0] && strcmp(hash, sink->settings_hash) != 0) {
        status = options->new_run
                     ? move_aside(sink, err)
                     : rt_error_set(
                           err, RT_MISMATCH,
                           "%.250s was begun with other settings (model, address, sampling, ...): the same "
                           "settings go on with it; --new-run moves it aside",
                           sink->path);
        sink->settings_hash[0] = '\0';
    }
    if (status == RT_OK && !sink->settings_hash[0])
        status = start_settings(sink, hash, json, err);
    free(json);
    return status;
}

static void note_lost(rt_collect_sink *sink)
{
    rt_collect_totals *t = &sink->totals;
    char record[96];
    if (t->reserved <= 0 && t->reserved_tokens == 0)
        return;
    const int n = snprintf(record, sizeof record, "lost %.9g %" PRIu64, t->reserved, t->reserved_tokens);
    rt_journal_add(&sink->journal, record, (size_t)n);
    t->lost_money += t->reserved;
    t->lost_tokens += t->reserved_tokens;
    t->reserved = 0;
    t->reserved_tokens = 0;
}

static rt_status open_all(rt_collect_sink *sink, const rt_collect_sink_options *options, rt_error *err)
{
    char *journal = beside(options->out, !sink->is_store, sink->is_store ? ".journal" : ".jsonl.journal");
    if (!journal || !sink->path || !sink->rejected_path || !sink->manifest_path || !sink->wait_path) {
        free(journal);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the output's names");
    }
    rt_status status = sink->is_store ? rt_dir_make(options->out, err) : RT_OK;
    if (status == RT_OK)
        status = rt_journal_open(&sink->journal, journal, replay, sink, err);
    free(journal);
    if (status == RT_OK)
        status = check_settings(sink, options, err);
    if (status == RT_OK && !sink->is_store && !sink->started && rt_path_exists(sink->path)) {
        struct stat info;
        if (stat(sink->path, &info) == 0 && info.st_size > 0)
            rt_log(RT_LOG_WARNING, "%.200s has rows and no journal: they are looked through and kept",
                   sink->path);
    }
    if (status == RT_OK && options->retry_failed) {
        forget_rejected(sink);
        rt_journal_add(&sink->journal, "retry", 5);
    }
    if (status == RT_OK)
        status = open_file(sink, &sink->rejected_fd, sink->rejected_path, &sink->rejected_size, true, err);
    if (status == RT_OK)
        status = sink->is_store ? open_store(sink, options, err)
                                : open_file(sink, &sink->fd, sink->path, &sink->size, false, err);
    if (status != RT_OK)
        return status;
    note_lost(sink);
    return sink->uncommitted ? rt_collect_sink_commit(sink, 0, true, err) : RT_OK;
}

static void free_sink(rt_collect_sink *sink)
{
    const int fds[] = {sink->fd, sink->rejected_fd, sink->wait_fd};
    for (size_t i = 0; i < 3; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    rt_journal_close(&sink->journal);
    rt_idmap_deinit(&sink->ids);
    rt_text_deinit(&sink->record);
    free(sink->path);
    free(sink->rejected_path);
    free(sink->manifest_path);
    free(sink->wait_path);
}

rt_status rt_collect_sink_open(rt_collect_sink *sink, const rt_collect_sink_options *options, rt_error *err)
{
    const bool is_file = rt_collect_out_is_file(options->out);
    *sink = (rt_collect_sink){
        .is_store = !is_file, .batch = options->batch, .fd = -1, .rejected_fd = -1, .wait_fd = -1};
    sink->journal.fd = -1;
    sink->path = strdup(options->out);
    sink->rejected_path = beside(options->out, is_file, options->batch ? ".errors.jsonl" : ".rejected.jsonl");
    sink->manifest_path = beside(options->out, is_file, ".manifest.json");
    sink->wait_path = beside(options->out, is_file, ".waiting.jsonl");
    const rt_status status = open_all(sink, options, err);
    if (status == RT_OK)
        return RT_OK;
    rt_error ignored = {0};
    (void)rt_store_close(sink->store, &ignored);
    free_sink(sink);
    *sink = (rt_collect_sink){.fd = -1};
    return status;
}

/* ---- rows ---- */

rt_status rt_collect_sink_add(rt_collect_sink *sink, const char *id, const rt_text *line, rt_error *err)
{
    if (line->failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row");
    if (sink->is_store) {
        if (rt_fd_write(sink->wait_fd, line->data, line->size, sink->wait_path, err) != RT_OK ||
            add_to_store(sink, line->data, line->size, err) != RT_OK)
            return err->status;
        sink->wait_size += line->size;
    } else {
        if (rt_fd_write(sink->fd, line->data, line->size, sink->path, err) != RT_OK)
            return err->status;
        sink->size += line->size;
    }
    sink->totals.rows++;
    record_id(sink, id, false);
    return note_id(sink, id, false, err);
}

rt_status rt_collect_sink_reject(rt_collect_sink *sink, const char *id, const rt_text *line, rt_error *err)
{
    if (line->failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row");
    if (rt_fd_write(sink->rejected_fd, line->data, line->size, sink->rejected_path, err) != RT_OK)
        return err->status;
    sink->rejected_size += line->size;
    sink->totals.rejected++;
    record_id(sink, id, true);
    return note_id(sink, id, true, err);
}

static rt_status flush_rows(rt_collect_sink *sink, rt_error *err)
{
    if (sink->is_store) {
        if (rt_store_flush(sink->store, err) != RT_OK)
            return err->status;
    } else if (fdatasync(sink->fd) != 0) {
        return rt_error_set(err, RT_IO, "%.300s cannot be flushed: %s", sink->path, strerror(errno));
    }
    return RT_OK;
}

static void add_spent(rt_collect_sink *sink)
{
    char record[sizeof sink->spent];
    const rt_collect_totals *t = &sink->totals;
    const int n = snprintf(record, sizeof record,
                           "spent %.9g %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %.9g %" PRIu64,
                           t->money, t->usage.prompt, t->usage.cached, t->usage.completion,
                           t->usage.reasoning, t->reserved, t->reserved_tokens);
    if (strcmp(record, sink->spent) == 0)
        return;
    memcpy(sink->spent, record, sizeof record);
    rt_journal_add(&sink->journal, record, (size_t)n);
}

rt_status rt_collect_sink_reserve(rt_collect_sink *sink, rt_error *err)
{
    add_spent(sink);
    return rt_journal_write(&sink->journal, false, err);
}

rt_status rt_collect_sink_commit(rt_collect_sink *sink, double now_s, bool force, rt_error *err)
{
    /* Every 64 rows, but no more than half of the time goes into flushing, and every second in any case. */
    const double since = now_s - sink->committed_at;
    if (!force && since < 1 && (sink->uncommitted < COMMIT_ROWS || since < sink->flush_s))
        return RT_OK;
    const double from = rt_clock_seconds();
    if (sink->uncommitted) {
        rt_text rows = {0};
        if (flush_rows(sink, err) != RT_OK)
            return err->status;
        rt_text_printf(&rows, "rows %" PRIu64 " %" PRIu64, sink->size, sink->rejected_size);
        rt_text_append(&rows, sink->record.data, sink->record.size);
        if (rows.failed || sink->record.failed) {
            rt_text_deinit(&rows);
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the journal");
        }
        rt_journal_add(&sink->journal, rows.data, rows.size);
        rt_text_deinit(&rows);
        rt_text_clear(&sink->record);
        sink->uncommitted = 0;
    }
    add_spent(sink);
    /* The rows are on the disk; the journal only saves looking them through again, so it may lag a second. */
    const bool sync = force || now_s - sink->synced_at >= 1;
    if (rt_journal_write(&sink->journal, sync, err) != RT_OK)
        return err->status;
    if (sync)
        sink->synced_at = now_s;
    sink->flush_s = 2 * (rt_clock_seconds() - from);
    sink->committed_at = now_s;
    return sink->is_store && sink->wait_size ? empty_wait(sink, err) : RT_OK;
}

rt_status rt_collect_sink_manifest(rt_collect_sink *sink, const json_t *manifest, rt_error *err)
{
    if (!sink->is_store)
        return rt_json_write(sink->manifest_path, manifest, err);
    return json_object_set(rt_store_manifest(sink->store), "collect", (json_t *)manifest) == 0
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for the manifest");
}

rt_status rt_collect_sink_close(rt_collect_sink *sink, rt_error *err)
{
    sink->totals.reserved = 0;
    sink->totals.reserved_tokens = 0;
    rt_status status = rt_collect_sink_commit(sink, sink->committed_at, true, err);
    if (status == RT_OK) {
        rt_journal_add(&sink->journal, "closed", 6);
        status = rt_journal_write(&sink->journal, true, err);
    }
    rt_error store_err = {0};
    if (rt_store_close(sink->store, &store_err) != RT_OK && status == RT_OK) {
        *err = store_err;
        status = store_err.status;
    }
    if (sink->is_store && status == RT_OK)
        (void)unlink(sink->wait_path);
    if (status == RT_OK && sink->rejected_size == 0)
        (void)unlink(sink->rejected_path);
    free_sink(sink);
    *sink = (rt_collect_sink){.fd = -1};
    return status;
}
