/* outputs/record.c - see record.h. */
#include "outputs/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"
#include "model/pass.h"
#include "model/stream.h"

enum { CHUNK = 128, ROW_STEP = 32, BATCH_STEP = 32 };

typedef struct target { /* a token that is predicted */
    uint32_t row;       /* of the batch: the token before it */
    uint32_t position;  /* in its document */
    size_t doc;
} target;

typedef struct packed { /* a batch and what is wanted of it */
    rt_batch batch;
    int32_t *ids;         /* [batch_tokens], as the next two */
    rt_segment *segments; /* and one more */
    target *targets;
    size_t *docs;
    size_t n_targets, n_docs;
} packed;

typedef struct recorder {
    rt_store *store;
    const rt_model *model;
    const rt_record_texts *texts;
    const rt_record_options *options;
    rt_record_progress *done;
    rt_pass *pass;
    rt_arena arena;
    packed *packs;      /* [batches] */
    float *states;      /* [batches * batch_tokens, n_embd]; NULL for one batch */
    const packed *pack; /* at hand */
    float *picked, *logits;
    void *operand;
    rt_sparse_out *rows; /* [CHUNK] */
    rt_status *statuses; /* [CHUNK] */
    rt_error *errors;    /* [threads] */
    unsigned char *work; /* [threads][work_bytes] */
    size_t work_bytes, entries_max;
    rt_store_document doc; /* being put together */
    double started, flushed;
} recorder;

/* ---- memory ---- */

static bool take_arrays(recorder *r, rt_arena *arena, size_t *bytes)
{
    const rt_model *m = r->model;
    const size_t tokens = r->options->batch_tokens, threads = rt_pool_threads(m->pool);
    r->work_bytes = rt_size_round_up(rt_sparse_work_bytes(&r->options->sparse), 64);
    r->entries_max = rt_size_max(rt_sparse_entries_max(&r->options->sparse), 1);
    const size_t batches = r->options->batches;
    int32_t *ids = NULL;
    rt_segment *segments = NULL;
    target *targets = NULL;
    size_t *docs = NULL;
    uint32_t *entry_ids = NULL;
    float *entry_logq = NULL;
    uint16_t *entry_counts = NULL;
    const struct {
        void **to;
        size_t count, size;
    } wants[] = {
        {(void **)&r->packs, batches, sizeof *r->packs},
        {(void **)&ids, batches * tokens, sizeof *ids},
        {(void **)&segments, batches * (tokens + 1), sizeof *segments},
        {(void **)&targets, batches * tokens, sizeof *targets},
        {(void **)&docs, batches * tokens, sizeof *docs},
        {(void **)&r->states, batches > 1 ? batches * tokens * m->config.n_embd : 0, sizeof *r->states},
        {(void **)&r->picked, CHUNK * m->config.n_embd, sizeof *r->picked},
        {(void **)&r->logits, CHUNK * m->config.n_vocab, sizeof *r->logits},
        {&r->operand, rt_proj_operand_bytes(m, &m->head, CHUNK), 1},
        {(void **)&r->rows, CHUNK, sizeof *r->rows},
        {(void **)&r->statuses, CHUNK, sizeof *r->statuses},
        {(void **)&r->errors, threads, sizeof *r->errors},
        {(void **)&r->work, threads, r->work_bytes},
        {(void **)&entry_ids, CHUNK * r->entries_max, sizeof *entry_ids},
        {(void **)&entry_logq, CHUNK * r->entries_max, sizeof *entry_logq},
        {(void **)&entry_counts, CHUNK * r->entries_max, sizeof *entry_counts},
    };
    *bytes = 0;
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        *bytes += rt_size_round_up(wants[i].count * wants[i].size, 64) + 64;
        if (arena && wants[i].count &&
            !(*wants[i].to = rt_arena_push_raw(arena, wants[i].count, wants[i].size)))
            return false;
    }
    for (size_t i = 0; arena && i < batches; i++)
        r->packs[i] = (packed){.ids = ids + i * tokens,
                               .segments = segments + i * (tokens + 1),
                               .targets = targets + i * tokens,
                               .docs = docs + i * tokens};
    for (size_t i = 0; arena && i < CHUNK; i++)
        r->rows[i] = (rt_sparse_out){.ids = entry_ids + i * r->entries_max,
                                     .logq = entry_logq + i * r->entries_max,
                                     .counts = entry_counts + i * r->entries_max};
    return true;
}

static rt_status open_recorder(recorder *r, rt_error *err)
{
    size_t bytes, longest = 0;
    for (size_t d = 0; d < r->texts->n_docs; d++)
        longest = rt_size_max(longest, r->texts->begins[d + 1] - r->texts->begins[d]);
    if (longest > r->options->batch_tokens || longest > r->model->config.n_context)
        return rt_error_set(err, RT_INVALID,
                            "a text of %zu tokens is longer than a batch (%zu) or the model's context (%zu)",
                            longest, r->options->batch_tokens, r->model->config.n_context);
    if (rt_sparse_settings_check(&r->options->sparse, err) != RT_OK)
        return err->status;
    if (r->options->sparse.n_vocab > r->model->config.n_vocab)
        return rt_error_set(err, RT_MISMATCH, "the tokenizer has %zu ids and the model only %zu logits",
                            r->options->sparse.n_vocab, r->model->config.n_vocab);
    (void)take_arrays(r, NULL, &bytes);
    if (rt_arena_init(&r->arena, bytes, err) != RT_OK || !take_arrays(r, &r->arena, &bytes))
        return rt_error_set(err, RT_NO_MEMORY, "no memory to record (%zu MiB)", bytes >> 20);
    return rt_pass_open(&r->pass, r->model, r->options->batch_tokens, false, err);
}

static void close_recorder(recorder *r)
{
    rt_pass_close(r->pass);
    rt_arena_deinit(&r->arena);
    rt_store_document_deinit(&r->doc);
}

/* ---- a batch ---- */

static void put_document(const recorder *r, packed *p, size_t doc)
{
    const size_t from = r->texts->begins[doc], n = r->texts->begins[doc + 1] - from, at = p->batch.n_tokens;
    memcpy(p->ids + at, r->texts->ids + from, n * sizeof *p->ids);
    p->segments[p->batch.n_segments++] = (rt_segment){.begin = at, .count = n};
    for (size_t i = 1; i < n; i++)
        if (r->texts->mask[from + i])
            p->targets[p->n_targets++] = (target){(uint32_t)(at + i - 1), (uint32_t)i, doc};
    p->docs[p->n_docs++] = doc;
    p->batch.n_tokens += n;
}

/* Texts from *next on that are not in the store yet, as many as fit. */
static rt_status fill_batch(recorder *r, packed *p, size_t *next, rt_error *err)
{
    const rt_record_texts *t = r->texts;
    const size_t most = r->options->batch_tokens;
    p->batch = (rt_batch){.ids = p->ids, .segments = p->segments};
    p->n_targets = p->n_docs = 0;
    for (; *next < t->n_docs; ++*next) {
        const size_t from = t->begins[*next], n = t->begins[*next + 1] - from;
        bool has = false;
        if (n > most - p->batch.n_tokens)
            break;
        if (rt_store_has_document(r->store, t->ids + from, t->mask + from, n, &has, err) != RT_OK)
            return err->status;
        if (has) {
            r->done->docs_known++;
            r->done->docs_done++;
            continue;
        }
        put_document(r, p, *next);
    }
    const size_t spare =
        rt_size_min(most - p->batch.n_tokens, (BATCH_STEP - p->batch.n_tokens % BATCH_STEP) % BATCH_STEP);
    if (p->n_docs && spare) { /* few shapes of products occur */
        memset(p->ids + p->batch.n_tokens, 0, spare * sizeof *p->ids);
        p->segments[p->batch.n_segments++] = (rt_segment){.begin = p->batch.n_tokens, .count = spare};
        p->batch.n_tokens += spare;
    }
    return RT_OK;
}

/* ---- a chunk of targets ---- */

typedef struct chunk {
    recorder *r;
    size_t first, n, padded, ld;
    const void *operand;
} chunk;

static void logits_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const chunk *c = context;
    const rt_model *m = c->r->model;
    const size_t vocab = m->config.n_vocab, begin = index * HEAD_TILE,
                 end = rt_size_min(begin + HEAD_TILE, vocab);
    rt_proj_mul(m, &m->head, c->operand, c->ld, c->padded, begin, end, c->r->logits + begin, vocab, RT_F32,
                false);
    if (m->config.logit_softcap > 0)
        for (size_t i = 0; i < c->n; i++)
            m->ops->softcap(c->r->logits + i * vocab + begin, (float)m->config.logit_softcap, end - begin);
}

static void sparse_task(void *context, size_t index, unsigned thread)
{
    const chunk *c = context;
    recorder *r = c->r;
    const target *t = &r->pack->targets[c->first + index];
    float *z = r->logits + index * r->model->config.n_vocab;
    if (r->options->temperature != 1)
        r->model->ops->scale(z, (float)(1 / r->options->temperature), r->options->sparse.n_vocab);
    rt_error err;
    r->statuses[index] = rt_sparse_make(&r->rows[index], z, &r->options->sparse, t->doc, t->position,
                                        r->work + thread * r->work_bytes, &err);
    if (r->statuses[index] != RT_OK)
        r->errors[thread] = err;
}

static void run_chunk(recorder *r, size_t first, size_t n)
{
    const rt_model *m = r->model;
    const size_t d = m->config.n_embd;
    chunk c = {.r = r, .first = first, .n = n, .padded = rt_size_round_up(n, ROW_STEP)};
    const float *hidden = rt_pass_hidden(r->pass);
    for (size_t i = 0; i < n; i++)
        memcpy(r->picked + i * d, hidden + r->pack->targets[first + i].row * d, d * sizeof *hidden);
    memset(r->picked + n * d, 0, (c.padded - n) * d * sizeof *hidden);
    c.operand = rt_proj_operand(m, &m->head, r->picked, d, c.padded, r->operand, &c.ld);
    rt_pool_run(m->pool, rt_size_ceil_div(m->config.n_vocab, HEAD_TILE), logits_task, &c);
    rt_pool_run(m->pool, n, sparse_task, &c);
}

/* ---- documents ---- */

static rt_status begin_document(recorder *r, size_t doc, rt_error *err)
{
    const size_t from = r->texts->begins[doc], n = r->texts->begins[doc + 1] - from;
    rt_store_document *d = &r->doc;
    if (n > d->capacity) {
        int32_t *ids = realloc(d->ids, n * sizeof *ids);
        d->ids = ids ? ids : d->ids;
        uint8_t *mask = ids ? realloc(d->mask, n) : NULL;
        d->mask = mask ? mask : d->mask;
        if (!mask)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a text of %zu tokens", n);
        d->capacity = n;
    }
    memcpy(d->ids, r->texts->ids + from, n * sizeof *d->ids);
    memcpy(d->mask, r->texts->mask + from, n);
    d->mask[0] = 0;
    d->n_tokens = n;
    d->number = doc;
    rt_sparse_rows_clear(&d->rows);
    return RT_OK;
}

static rt_status end_document(recorder *r, rt_error *err)
{
    bool added;
    if (rt_store_add_document(r->store, &r->doc, &added, err) != RT_OK)
        return err->status;
    r->done->docs_done++;
    r->done->docs_known += !added; /* twice in one batch */
    r->done->tokens += added ? r->doc.n_tokens : 0;
    r->done->rows += added ? r->doc.rows.n_rows : 0;
    return RT_OK;
}

static rt_status add_row(recorder *r, const rt_sparse_out *row, rt_error *err)
{
    return rt_sparse_rows_add(&r->doc.rows,
                              &(rt_sparse_row){.ids = row->ids,
                                               .logq = row->logq,
                                               .counts = row->counts,
                                               .n = row->head.n,
                                               .n_topk = row->head.n_topk,
                                               .n_draws = row->head.n_draws,
                                               .tail_logprob = row->head.tail_logprob,
                                               .log_z = row->head.log_z,
                                               .log_s = row->head.log_s},
                              err);
}

static rt_status first_failure(const recorder *r, size_t n, rt_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (r->statuses[i] != RT_OK)
            for (unsigned thread = 0; thread < rt_pool_threads(r->model->pool); thread++)
                if (r->errors[thread].status == r->statuses[i]) {
                    *err = r->errors[thread];
                    return err->status;
                }
    return RT_OK;
}

/* The batch's targets in order; a document is finished before the next one begins. */
static rt_status keep_batch(recorder *r, const packed *p, rt_error *err)
{
    size_t doc = 0; /* of the batch: the one under way */
    r->pack = p;
    memset(r->errors, 0, rt_pool_threads(r->model->pool) * sizeof *r->errors);
    rt_status status = begin_document(r, p->docs[0], err);
    for (size_t first = 0; first < p->n_targets && status == RT_OK; first += CHUNK) {
        const size_t n = rt_size_min(CHUNK, p->n_targets - first);
        run_chunk(r, first, n);
        status = first_failure(r, n, err);
        for (size_t i = 0; i < n && status == RT_OK; i++) {
            while (status == RT_OK && p->docs[doc] != p->targets[first + i].doc)
                if ((status = end_document(r, err)) == RT_OK)
                    status = begin_document(r, p->docs[++doc], err);
            if (status == RT_OK)
                status = add_row(r, &r->rows[i], err);
        }
    }
    if (status == RT_OK) /* the head's rows may come from disk as well */
        status = rt_stream_check(r->model, err);
    while (status == RT_OK && (status = end_document(r, err)) == RT_OK && ++doc < p->n_docs)
        status = begin_document(r, p->docs[doc], err);
    return status;
}

static rt_status flush_when_due(recorder *r, rt_error *err)
{
    const double now = rt_clock_seconds();
    if (now - r->flushed < r->options->flush_seconds)
        return RT_OK;
    r->flushed = now;
    return rt_store_flush(r->store, err);
}

/* n batches through the layers; then each through the head. */
static rt_status run_packs(recorder *r, size_t n, rt_error *err)
{
    const rt_model *m = r->model;
    if (r->options->batches == 1) {
        rt_forward(m, r->pass, &r->packs[0].batch, NULL, NULL);
    } else {
        rt_batch *batches = malloc(n * sizeof *batches);
        if (!batches)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu batches", n);
        for (size_t i = 0; i < n; i++)
            batches[i] = r->packs[i].batch;
        rt_forward_many(m, r->pass, batches, n, r->states);
        free(batches);
    }
    if (rt_stream_check(m, err) != RT_OK)
        return err->status;
    const float *states = r->states;
    for (size_t i = 0; i < n; i++) {
        if (states) {
            rt_pass_set_hidden(m, r->pass, states, r->packs[i].batch.n_tokens);
            states += r->packs[i].batch.n_tokens * m->config.n_embd;
        }
        if (keep_batch(r, &r->packs[i], err) != RT_OK || flush_when_due(r, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status run_batches(recorder *r, rt_error *err)
{
    for (size_t next = 0; next < r->texts->n_docs;) {
        size_t n = 0;
        while (n < r->options->batches && next < r->texts->n_docs) {
            if (fill_batch(r, &r->packs[n], &next, err) != RT_OK)
                return err->status;
            n += r->packs[n].n_docs > 0;
        }
        if (n && run_packs(r, n, err) != RT_OK)
            return err->status;
        r->done->seconds = rt_clock_seconds() - r->started;
        if (r->options->progress && !r->options->progress(r->options->context, r->done) &&
            next < r->texts->n_docs)
            return rt_error_set(err, RT_STOPPED, "stopped after %zu of %zu texts", r->done->docs_done,
                                r->done->docs_total);
    }
    return RT_OK;
}

rt_status rt_record(rt_store *store, const rt_model *model, const rt_record_texts *texts,
                    const rt_record_options *options, rt_record_progress *done, rt_error *err)
{
    *done = (rt_record_progress){.docs_total = texts->n_docs};
    recorder r = {.store = store, .model = model, .texts = texts, .options = options, .done = done};
    r.started = r.flushed = rt_clock_seconds();
    rt_status status = open_recorder(&r, err);
    if (status == RT_OK)
        status = run_batches(&r, err);
    close_recorder(&r);
    rt_error ignored;
    const rt_status flushed = rt_store_flush(store, status == RT_OK ? err : &ignored);
    return status == RT_OK ? flushed : status;
}
