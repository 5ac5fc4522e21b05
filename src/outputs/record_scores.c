/* outputs/record_scores.c - see record_scores.h. */
#include "outputs/record_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"

enum { IN_FLIGHT_MAX = 256 };

typedef struct slot { /* a text that is being scored */
    bool used;
    rt_store_document doc;
    size_t position; /* of the last row */
} slot;

typedef struct entry {
    uint32_t id;
    float logq;
    uint16_t count;
    bool top;
} entry;

typedef struct scores {
    rt_store *store;
    const rt_record_texts *texts;
    const rt_record_scores_options *options;
    rt_record_progress *done;
    slot *slots;
    size_t n_slots, next;
    entry *entries; /* of a row, being sorted */
    size_t entries_capacity;
    uint32_t *ids;
    float *logq;
    uint16_t *counts;
    rt_status status; /* of the store: ends everything */
    rt_error error;
    size_t failed; /* texts */
    rt_error first_failure;
    double started, flushed;
} scores;

/* ---- what is asked ---- */

static rt_status fill_slot(slot *s, const rt_record_texts *t, size_t doc, rt_error *err)
{
    const size_t from = t->begins[doc], n = t->begins[doc + 1] - from;
    rt_store_document *d = &s->doc;
    if (n > d->capacity) {
        int32_t *ids = realloc(d->ids, n * sizeof *ids);
        d->ids = ids ? ids : d->ids;
        uint8_t *mask = ids ? realloc(d->mask, n) : NULL;
        d->mask = mask ? mask : d->mask;
        if (!mask)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a text of %zu tokens", n);
        d->capacity = n;
    }
    memcpy(d->ids, t->ids + from, n * sizeof *d->ids);
    memcpy(d->mask, t->mask + from, n);
    d->mask[0] = 0;
    d->n_tokens = n;
    d->number = doc;
    rt_sparse_rows_clear(&d->rows);
    s->position = 0;
    s->used = true;
    return RT_OK;
}

static rt_next next_text(void *context, rt_score_ask *out)
{
    scores *s = context;
    const rt_record_texts *t = s->texts;
    size_t free_slot = 0;
    while (free_slot < s->n_slots && s->slots[free_slot].used)
        free_slot++;
    for (; s->status == RT_OK && s->next < t->n_docs; s->next++) {
        const size_t from = t->begins[s->next], n = t->begins[s->next + 1] - from;
        bool has = false;
        s->status = rt_store_has_document(s->store, t->ids + from, t->mask + from, n, &has, &s->error);
        if (s->status == RT_OK && has) {
            s->done->docs_known++;
            s->done->docs_done++;
            continue;
        }
        if (s->status == RT_OK && free_slot == s->n_slots)
            return RT_NEXT_LATER;
        if (s->status == RT_OK)
            s->status = fill_slot(&s->slots[free_slot], t, s->next, &s->error);
        if (s->status != RT_OK)
            break;
        *out = (rt_score_ask){s->next, s->slots[free_slot].doc.ids, n};
        s->next++;
        return RT_NEXT_TAKE;
    }
    return RT_NEXT_END;
}

static slot *slot_of(const scores *s, uint64_t tag)
{
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i].used && s->slots[i].doc.number == tag)
            return &s->slots[i];
    return NULL;
}

/* ---- what comes ---- */

static bool reserve(scores *s, size_t n)
{
    if (n <= s->entries_capacity)
        return true;
    void *entries = realloc(s->entries, n * sizeof *s->entries);
    s->entries = entries ? entries : s->entries;
    void *ids = realloc(s->ids, n * sizeof *s->ids);
    s->ids = ids ? ids : s->ids;
    void *logq = realloc(s->logq, n * sizeof *s->logq);
    s->logq = logq ? logq : s->logq;
    void *counts = realloc(s->counts, n * sizeof *s->counts);
    s->counts = counts ? counts : s->counts;
    if (!entries || !ids || !logq || !counts)
        return false;
    s->entries_capacity = n;
    return true;
}

/* The top-k first, each part ascending by id. */
static int by_part_and_id(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->top != y->top)
        return x->top ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static rt_status add_row(scores *s, slot *to, const rt_score_row *row, rt_error *err)
{
    if (!reserve(s, rt_size_max(row->n, 1)))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row of %zu ids", row->n);
    for (size_t i = 0; i < row->n; i++)
        s->entries[i] =
            (entry){row->ids[i], fminf(row->logq[i], 0), row->counts ? row->counts[i] : 0, i < row->n_topk};
    qsort(s->entries, row->n, sizeof *s->entries, by_part_and_id);
    for (size_t i = 0; i < row->n; i++) {
        s->ids[i] = s->entries[i].id;
        s->logq[i] = s->entries[i].logq;
        s->counts[i] = s->entries[i].count;
    }
    return rt_sparse_rows_add(&to->doc.rows,
                              &(rt_sparse_row){.ids = s->ids,
                                               .logq = s->logq,
                                               .counts = s->counts,
                                               .n = (uint32_t)row->n,
                                               .n_topk = row->n_topk,
                                               .n_draws = row->n_draws,
                                               .tail_logprob = row->n_topk ? fminf(row->tail_logprob, 0) : 0,
                                               .log_z = row->log_z != 0 ? row->log_z : NAN},
                              err);
}

static bool keep_row(void *context, uint64_t tag, size_t position, const rt_score_row *row)
{
    scores *s = context;
    slot *to = slot_of(s, tag);
    if (!to || position <= to->position || position >= to->doc.n_tokens)
        return s->status == RT_OK; /* its end will not have all rows */
    to->position = position;
    if (to->doc.mask[position] && s->status == RT_OK)
        s->status = add_row(s, to, row, &s->error);
    return s->status == RT_OK;
}

static size_t count_targets(const rt_store_document *doc)
{
    size_t n = 0;
    for (size_t i = 1; i < doc->n_tokens; i++)
        n += doc->mask[i];
    return n;
}

static void note_failure(scores *s, rt_status status, const rt_error *why, uint64_t tag)
{
    if (s->failed++)
        return;
    (void)rt_error_set(&s->first_failure, status, "text %llu: %.300s", (unsigned long long)tag + 1,
                       why->text);
}

static void end_text(void *context, uint64_t tag, rt_status status, const rt_error *why)
{
    scores *s = context;
    slot *of = slot_of(s, tag);
    if (!of)
        return;
    rt_error missing = {0};
    if (status == RT_OK && of->doc.rows.n_rows != count_targets(&of->doc)) {
        status = rt_error_set(&missing, RT_CORRUPT, "the teacher gave %zu rows for %zu tokens",
                              of->doc.rows.n_rows, count_targets(&of->doc));
        why = &missing;
    }
    if (status != RT_OK) {
        note_failure(s, status, why, tag);
    } else if (s->status == RT_OK) {
        bool added = false;
        s->status = rt_store_add_document(s->store, &of->doc, &added, &s->error);
        s->done->docs_done++;
        s->done->docs_known += !added;
        s->done->tokens += added ? of->doc.n_tokens : 0;
        s->done->rows += added ? of->doc.rows.n_rows : 0;
    }
    of->used = false;
}

static rt_status tick(void *context, const rt_teacher_state *state, rt_error *err)
{
    scores *s = context;
    (void)state;
    const double now = rt_clock_seconds();
    s->done->seconds = now - s->started;
    if (s->status == RT_OK && now - s->flushed >= s->options->flush_seconds) {
        s->flushed = now;
        s->status = rt_store_flush(s->store, &s->error);
    }
    if (s->status != RT_OK) {
        *err = s->error;
        return s->status;
    }
    if (s->options->progress && !s->options->progress(s->options->context, s->done))
        return rt_error_set(err, RT_STOPPED, "stopped after %zu of %zu texts", s->done->docs_done,
                            s->done->docs_total);
    return RT_OK;
}

/* ---- the whole ---- */

static rt_status outcome(const scores *s, rt_status status, rt_error *err)
{
    if (s->status != RT_OK) {
        *err = s->error;
        return s->status;
    }
    if (status != RT_OK || !s->failed)
        return status;
    return rt_error_set(err, s->first_failure.status, "%zu of %zu texts could not be scored: %.300s",
                        s->failed, s->texts->n_docs, s->first_failure.text);
}

rt_status rt_record_scores(rt_store *store, rt_teacher *teacher, const rt_record_texts *texts,
                           const rt_record_scores_options *options, rt_record_progress *done, rt_error *err)
{
    *done = (rt_record_progress){.docs_total = texts->n_docs};
    scores s = {.store = store,
                .texts = texts,
                .options = options,
                .done = done,
                .n_slots = options->in_flight_max ? options->in_flight_max : IN_FLIGHT_MAX};
    s.started = s.flushed = rt_clock_seconds();
    s.slots = calloc(s.n_slots, sizeof *s.slots);
    if (!s.slots)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu texts", s.n_slots);
    const rt_score_calls calls = {
        .next = next_text, .row = keep_row, .end = end_text, .tick = tick, .context = &s};
    rt_status status = rt_teacher_score(teacher, &options->score, &calls, err);
    status = outcome(&s, status, err);
    rt_error ignored;
    const rt_status flushed = rt_store_flush(store, status == RT_OK ? err : &ignored);
    done->seconds = rt_clock_seconds() - s.started;
    if (options->progress)
        (void)options->progress(options->context, done);
    for (size_t i = 0; i < s.n_slots; i++)
        rt_store_document_deinit(&s.slots[i].doc);
    free(s.slots);
    free(s.entries);
    free(s.ids);
    free(s.logq);
    free(s.counts);
    return status == RT_OK ? flushed : status;
}
