/* serve/watch.c - see watch.h: rows out of the database, one after the other, through guard and ladders. */
#include "serve/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "guard/replay.h"
#include "guard/result.h"
#include "guard/state.h"
#include "guard/view.h"
#include "serve/watch_internal.h"

enum { BATCH = 256, LOOK_MS = 200 };

/* ---- what is taken of a request ---- */

static void put_span(json_t *row, const char *key, rt_guard_span span)
{
    (void)json_object_set_new(row, key, rt_json_text(span.data, span.size));
}

/* The event as a row of recorded traffic; malloc'd. */
static char *line_of(const rt_guard_event *e)
{
    json_t *row = json_object(), *params = json_object(), *bias = json_object();
    const struct {
        const char *key;
        rt_guard_span span;
    } texts[] = {
        {"account", e->account},   {"ip", e->ip},       {"asn", e->asn},       {"user_agent", e->user_agent},
        {"pay_hash", e->pay_hash}, {"model", e->model}, {"prompt", e->prompt}, {"request", e->request}};
    (void)json_object_set_new(row, "ts", json_real(e->ts));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        put_span(row, texts[i].key, texts[i].span);
    (void)json_object_set_new(row, "created", json_real(e->created));
    (void)json_object_set_new(params, "temperature", json_real((double)e->temperature));
    (void)json_object_set_new(params, "n", json_integer(e->n));
    (void)json_object_set_new(params, "logprobs", json_boolean(e->logprobs));
    (void)json_object_set_new(params, "stream", json_boolean(e->stream));
    if (e->max_tokens)
        (void)json_object_set_new(params, "max_tokens", json_integer(e->max_tokens));
    if (e->top_logprobs)
        (void)json_object_set_new(params, "top_logprobs", json_integer(e->top_logprobs));
    for (uint32_t i = 0; i < e->bias_count; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "%u", e->bias_ids[i]);
        (void)json_object_set_new(bias, id, json_integer(1));
    }
    if (e->bias_count)
        (void)json_object_set(params, "logit_bias", bias);
    json_decref(bias);
    (void)json_object_set_new(row, "params", params);
    (void)json_object_set_new(row, "prompt_tokens", json_integer(e->prompt_tokens));
    (void)json_object_set_new(row, "completion_tokens", json_integer(e->completion_tokens));
    char *line = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(row);
    return line;
}

rt_watch_note rt_watch_note_of(rt_watch *w, const rt_guard_event *event)
{
    rt_guard_record record;
    rt_watch_note note = {0};
    rt_error err = {0};
    unsigned char bytes[RT_GUARD_RECORD_BYTES_MAX];
    if (rt_guard_record_of(w->guard, &record, event, &err) == RT_OK) {
        note.size = rt_guard_record_write(&record, rt_guard_key(w->guard), bytes);
        note.record = malloc(note.size);
    }
    if (note.record) {
        memcpy(note.record, bytes, note.size);
        note.line = w->log ? line_of(event) : NULL;
        return note;
    }
    (void)pthread_mutex_lock(&w->lock);
    w->counts.dropped++;
    (void)pthread_mutex_unlock(&w->lock);
    return (rt_watch_note){0};
}

/* In the ledger's thread: the row is on the disk. */
static void on_record(void *context, const char *line)
{
    rt_watch *w = context;
    if (w->log && line)
        (void)fprintf(w->log, "%s\n", line);
    (void)pthread_mutex_lock(&w->lock);
    w->written = true;
    (void)pthread_cond_signal(&w->woken);
    (void)pthread_mutex_unlock(&w->lock);
}

/* ---- the thread ---- */

static void judge(rt_watch *w, const rt_guard_row_kept *row)
{
    rt_guard_record record;
    rt_guard_verdict verdict = {0};
    rt_error err = {0};
    (void)pthread_mutex_lock(&w->guard_lock);
    rt_status status = rt_guard_record_read(&record, rt_guard_key(w->guard), row->data, row->size, &err);
    w->row = row->number;
    rt_ladders_set_quiet(w->ladders, row->number <= w->quiet_to);
    if (status == RT_OK)
        status = rt_ladders_feed_record(w->ladders, &record, &verdict, &err);
    else
        rt_watch_complain(w, &err);
    (void)pthread_mutex_unlock(&w->guard_lock);
    (void)pthread_mutex_lock(&w->lock);
    w->counts.judged += status == RT_OK;
    w->counts.dropped += status != RT_OK;
    (void)pthread_mutex_unlock(&w->lock);
}

/* Rows that this server needs were dropped: it was away for longer than a state lasts.  What not even the
 * state has seen is lost. */
static rt_status catch_up(rt_watch *w, int64_t first, rt_error *err)
{
    rt_log(RT_LOG_WARNING, "the guard: rows from %lld on are gone; its state is read anew",
           (long long)w->row + 1);
    const rt_status status = rt_watch_restore(w, err);
    if (status == RT_OK && w->row + 1 < first)
        w->row = first - 1;
    return status;
}

/* Who judges, what others have decided, and the next rows. */
static rt_status next_rows(rt_watch *w, rt_guard_row_kept rows[BATCH], size_t *n, rt_error *err)
{
    const bool led = w->leads;
    bool leads = false;
    rt_status status = rt_guard_store_lead(w->store, &leads, err);
    (void)pthread_mutex_lock(&w->lock);
    w->leads = w->counts.leads = leads;
    (void)pthread_mutex_unlock(&w->lock);
    if (status == RT_OK && leads && !led)
        status = rt_guard_store_last(w->store, &w->recover_to, err);
    if (status == RT_OK && leads)
        status = rt_guard_store_number(w->store, w->row, BATCH, err);
    if (status == RT_OK && w->shared)
        status = rt_guard_store_rungs(w->store, rt_watch_take_rung, w, err);
    if (status == RT_OK)
        status = rt_guard_store_read(w->store, w->row, BATCH, rows, n, err);
    if (status != RT_OK || *n == 0 || !w->shared || rows[0].number == w->row + 1 || w->row == 0)
        return status;
    const int64_t first = rows[0].number;
    for (size_t i = 0; i < *n; i++)
        free(rows[i].data);
    *n = 0;
    return catch_up(w, first, err);
}

/* Judges what is there, a batch; false: nothing more is, or it cannot be had. */
static bool judge_some(rt_watch *w)
{
    rt_guard_row_kept rows[BATCH];
    rt_error err = {0};
    size_t n = 0;
    (void)pthread_mutex_lock(&w->guard_lock);
    const rt_status status = next_rows(w, rows, &n, &err);
    if (status != RT_OK)
        rt_watch_complain(w, &err);
    (void)pthread_mutex_unlock(&w->guard_lock);
    for (size_t i = 0; i < n; i++) {
        judge(w, &rows[i]);
        free(rows[i].data);
    }
    return n > 0;
}

/* Until there is something to do; true: the watch closes. */
static bool wait_for_rows(rt_watch *w)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_mutex_lock(&w->lock);
    for (int late = 0; !w->written && !w->closing && !w->next_policy && late == 0;)
        late = w->shared ? pthread_cond_timedwait(&w->woken, &w->lock, &until)
                         : pthread_cond_wait(&w->woken, &w->lock);
    w->written = false;
    const bool closing = w->closing;
    (void)pthread_mutex_unlock(&w->lock);
    return closing;
}

static void *watch_thread(void *context)
{
    rt_watch *w = context;
    for (bool closing = false; !closing;) {
        closing = wait_for_rows(w);
        rt_watch_take_policy(w);
        while (judge_some(w))
            rt_watch_keep(w, false);
        rt_watch_keep(w, closing);
    }
    return NULL;
}

void rt_watch_answered(rt_watch *w, const char *account)
{
    rt_error err = {0};
    (void)pthread_mutex_lock(&w->guard_lock);
    const rt_guard_account *found = rt_guard_find(w->guard, account);
    rt_ladder_entry *entry = found ? rt_ladders_entry(w->ladders, found) : NULL;
    if (rt_guard_store_answered(w->store, account, &err) != RT_OK)
        rt_watch_complain(w, &err);
    if (entry && entry->state.rung) {
        entry->answered = true;
        rt_watch_publish(w, entry, 0);
    }
    (void)pthread_mutex_unlock(&w->guard_lock);
}

/* ---- views ---- */

json_t *rt_watch_view(rt_watch *w, rt_watch_look look, void *context)
{
    (void)pthread_mutex_lock(&w->guard_lock);
    json_t *seen = look(context, w->guard, w->ladders);
    (void)pthread_mutex_unlock(&w->guard_lock);
    return seen;
}

static int by_p(const void *a, const void *b)
{
    const float x = rt_guard_final_p(*(const rt_guard_account *const *)a),
                y = rt_guard_final_p(*(const rt_guard_account *const *)b);
    return (x > y) - (x < y);
}

static json_t *look_list(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    (void)context;
    json_t *list = json_array();
    const size_t count = rt_guard_count(guard);
    const rt_guard_account **found = calloc(count + 1, sizeof *found);
    size_t n = 0;
    for (size_t i = 0; found && i < count; i++) {
        const rt_ladder_entry *entry = rt_ladders_find(ladders, rt_guard_account_at(guard, i));
        if (entry && entry->state.rung)
            found[n++] = rt_guard_account_at(guard, i);
    }
    if (n)
        qsort(found, n, sizeof *found, by_p);
    for (size_t i = 0; i < n && i < RT_GUARD_VIEW_LIST_MAX; i++)
        (void)json_array_append_new(list, rt_guard_view_row(guard, ladders, found[i]));
    free(found);
    return list;
}

json_t *rt_watch_list(rt_watch *w) { return rt_watch_view(w, look_list, NULL); }

rt_watch_counts rt_watch_counts_of(rt_watch *w)
{
    (void)pthread_mutex_lock(&w->lock);
    rt_watch_counts counts = w->counts;
    for (size_t i = 0; i < w->n_rules; i++)
        counts.rungs[w->rules[i].rung]++;
    (void)pthread_mutex_unlock(&w->lock);
    return counts;
}

/* ---- life ---- */

/* The key of the hashes: of the state, or beside the log, else one that follows from the secrets; servers
 * that share a database have the last. */
static rt_status choose_key(rt_watch *w, rt_error *err)
{
    const char *state = w->options.state_path, *log = w->options.log_path;
    uint64_t *key = &w->options.guard.key;
    rt_status status = RT_OK;
    if (!w->shared && state && rt_path_exists(state))
        status = rt_guard_state_key(key, state, err);
    else if (!w->shared && log)
        status = rt_guard_key_beside(key, log, err);
    if (status == RT_OK && *key == 0)
        *key = rt_guard_store_key(w->store);
    if (status == RT_OK && log)
        status = rt_guard_key_write_beside(*key, log, err);
    return status;
}

static rt_status open_log(rt_watch *w, rt_error *err)
{
    if (!w->options.log_path)
        return RT_OK;
    w->log = fopen(w->options.log_path, "a");
    if (!w->log)
        return rt_error_set(err, RT_IO, "%.300s: cannot be opened for the guard's rows: %s",
                            w->options.log_path, strerror(errno));
    (void)setvbuf(w->log, NULL, _IOLBF, 0); /* a row is in the file before it is judged */
    return RT_OK;
}

static rt_status open_parts(rt_watch *w, rt_error *err)
{
    rt_ladders_calls calls = rt_watch_calls;
    calls.context = w;
    if (rt_guard_store_open(&w->store, w->options.gate, err) != RT_OK)
        return err->status;
    w->shared = rt_guard_store_is_shared(w->store);
    if (choose_key(w, err) != RT_OK || rt_guard_open(&w->guard, &w->options.guard, err) != RT_OK ||
        rt_ladders_open(&w->ladders, w->guard, w->policy, &calls, err) != RT_OK || open_log(w, err) != RT_OK)
        return err->status;
    return rt_watch_restore(w, err);
}

rt_status rt_watch_open(rt_watch **out, const rt_watch_options *options, rt_error *err)
{
    *out = NULL;
    rt_watch *w = calloc(1, sizeof *w);
    if (!w)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the guard");
    w->options = *options;
    w->policy = rt_guard_policy_of(options->policy);
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_mutex_init(&w->guard_lock, NULL);
    (void)pthread_cond_init(&w->woken, NULL);
    w->saved_s = rt_clock_seconds();
    rt_guard_policy_apply(options->policy, &w->options.guard);
    rt_status status = open_parts(w, err);
    while (status == RT_OK && judge_some(w)) /* what an earlier run has left */
        rt_watch_keep(w, false);
    if (status == RT_OK)
        rt_gate_on_record(options->gate, on_record, w);
    if (status == RT_OK && pthread_create(&w->thread, NULL, watch_thread, w) != 0)
        status = rt_error_set(err, RT_NO_MEMORY, "cannot start the guard's thread");
    w->running = status == RT_OK;
    if (status != RT_OK) {
        rt_watch_close(w);
        return status;
    }
    *out = w;
    return RT_OK;
}

void rt_watch_close(rt_watch *w)
{
    if (!w)
        return;
    rt_gate_on_record(w->options.gate, NULL, NULL);
    if (w->running) {
        (void)pthread_mutex_lock(&w->lock);
        w->closing = true;
        (void)pthread_cond_signal(&w->woken);
        (void)pthread_mutex_unlock(&w->lock);
        (void)pthread_join(w->thread, NULL);
    }
    if (w->log)
        (void)fclose(w->log);
    rt_guard_store_close(w->store);
    rt_guard_close(w->guard);
    rt_ladders_close(w->ladders);
    for (size_t i = 0; i < w->n_rules; i++)
        json_decref(w->rules[i].pending);
    free(w->rules);
    (void)pthread_cond_destroy(&w->woken);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_mutex_destroy(&w->guard_lock);
    free(w);
}
