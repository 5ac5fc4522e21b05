/* teacher/local_score.c - a local model's distribution at every position of given texts.
 *
 * Texts are gathered until there are enough tokens, packed into batches, and run layer by layer together, so
 * that a streamed model reads each layer once for all of them.  Logits then come a chunk of rows at a time.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "model/pass.h"
#include "teacher/local_internal.h"

enum {
    CHUNK_ROWS_MAX = 256,
    CHUNK_ROWS_MIN = 16,
    CHUNK_BYTES = 64 << 20,
    TEXTS_MAX = 4096,
    ENTRIES_MAX = 4096
};

typedef struct text_entry { /* a text of the present gathering */
    rt_score_ask ask;
    size_t batch, row; /* which batch, its first row there */
} text_entry;

typedef struct scoring {
    local_teacher *t;
    const rt_score_options *options;
    const rt_score_calls *calls;
    rt_pass *pass;
    size_t pass_tokens, batch_tokens, batches_max;
    text_entry *texts;
    size_t n_texts;
    int32_t *ids;         /* [batches, pass_tokens] */
    rt_segment *segments; /* [TEXTS_MAX] in the order of the texts */
    rt_batch *batches;
    size_t n_batches;
    float *states; /* [batch_tokens, n_embd] */
    size_t chunk_rows;
    float *logits; /* [chunk_rows, n_vocab] */
    float *hidden; /* [chunk_rows, n_embd] */
    void *operand;
    /* rows of the chunk, when they are sparse */
    size_t entries;
    uint32_t *row_ids; /* [chunk_rows, entries] */
    float *row_logq;
    uint16_t *row_counts;
    rt_score_row *rows; /* [chunk_rows] */
    double *work;       /* [threads, n_draws] */
    const text_entry *chunk_text;
    size_t chunk_first; /* row of the text that the chunk begins with */
    const void *chunk_operand;
    size_t chunk_ld, chunk_n;
    bool ended, stopped, holding;
    rt_score_ask held; /* did not fit any more: it opens the next gathering */
    rt_teacher_state state;
} scoring;

/* ---- one sparse row ---- */

/* A heap whose root is the worst of the best: smaller logit, or equal and a larger id. */
static bool worse(const float *z, uint32_t a, uint32_t b) { return z[a] < z[b] || (z[a] == z[b] && a > b); }

static void sift_down(uint32_t *heap, size_t n, const float *z, size_t at)
{
    for (size_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && worse(z, heap[child + 1], heap[child]))
            child++;
        if (!worse(z, heap[child], heap[at]))
            return;
        const uint32_t kept = heap[at];
        heap[at] = heap[child];
        heap[child] = kept;
        at = child;
    }
}

/* The k likeliest ids, ascending by id. */
static int by_id(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void top_ids(uint32_t *heap, size_t k, const float *z, size_t n)
{
    for (size_t i = 0; i < k; i++)
        heap[i] = (uint32_t)i;
    for (size_t i = k / 2; i-- > 0;)
        sift_down(heap, k, z, i);
    for (size_t i = k; i < n && k; i++) {
        if (z[i] <= z[heap[0]])
            continue;
        heap[0] = (uint32_t)i;
        sift_down(heap, k, z, 0);
    }
    qsort(heap, k, sizeof *heap, by_id);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Draws with replacement from s ~ q^power: sorted uniforms against one walk over the cumulated mass.  New ids
 * go behind the n that are there, ascending; counts of those that are there are raised. */
static size_t draw_ids(const scoring *s, double *uniforms, uint32_t *ids, uint16_t *counts, size_t n,
                       const float *z, size_t vocab, double lse, uint64_t tag, size_t position)
{
    const size_t draws = s->options->n_draws, n_topk = n;
    const double power = s->options->draw_power > 0 ? s->options->draw_power : 1;
    rt_rng rng = rt_rng_make(s->options->seed ^ tag * 0x9E3779B97F4A7C15u, position);
    double total = 0;
    for (size_t i = 0; i < vocab; i++)
        total += exp(power * ((double)z[i] - lse));
    for (size_t i = 0; i < draws; i++)
        uniforms[i] = rt_rng_uniform(&rng) * total;
    qsort(uniforms, draws, sizeof *uniforms, by_value);
    double mass = 0;
    size_t at = 0, top = 0;
    for (size_t i = 0; i < vocab && at < draws; i++) {
        mass += exp(power * ((double)z[i] - lse));
        uint16_t count = 0;
        while (at < draws && (uniforms[at] < mass || i + 1 == vocab)) {
            count++;
            at++;
        }
        while (top < n_topk && ids[top] < i)
            top++;
        if (!count)
            continue;
        if (top < n_topk && ids[top] == i) {
            counts[top] = count;
        } else {
            ids[n] = (uint32_t)i;
            counts[n++] = count;
        }
    }
    return n;
}

static void row_task(void *context, size_t index, unsigned thread)
{
    scoring *s = context;
    const size_t vocab = s->t->model->config.n_vocab, k = rt_size_min(s->options->top_k, vocab);
    const float *z = s->logits + index * vocab;
    uint32_t *ids = s->row_ids + index * s->entries;
    float *logq = s->row_logq + index * s->entries;
    uint16_t *counts = s->row_counts + index * s->entries;
    float most = z[0];
    for (size_t i = 1; i < vocab; i++)
        most = z[i] > most ? z[i] : most;
    double sum = 0;
    for (size_t i = 0; i < vocab; i++)
        sum += exp((double)z[i] - (double)most);
    const double lse = (double)most + log(sum);
    top_ids(ids, k, z, vocab);
    memset(counts, 0, s->entries * sizeof *counts);
    size_t n = k;
    if (s->options->n_draws)
        n = draw_ids(s, s->work + thread * s->options->n_draws, ids, counts, n, z, vocab, lse,
                     s->chunk_text->ask.tag, s->chunk_first + index + 1);
    double mass = 0;
    for (size_t i = 0; i < n; i++) {
        logq[i] = (float)((double)z[ids[i]] - lse);
        mass += i < k ? exp((double)z[ids[i]] - lse) : 0;
    }
    s->rows[index] = (rt_score_row){.ids = ids,
                                    .logq = logq,
                                    .counts = s->options->n_draws ? counts : NULL,
                                    .n = n,
                                    .n_draws = (uint32_t)s->options->n_draws,
                                    .n_topk = (uint32_t)k,
                                    .tail_logprob = mass < 1 ? (float)log1p(-mass) : -INFINITY,
                                    .log_z = (float)lse};
}

/* ---- logits ---- */

static void tile_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const scoring *s = context;
    const rt_model *model = s->t->model;
    const size_t vocab = model->config.n_vocab, begin = index * HEAD_TILE,
                 end = rt_size_min(begin + HEAD_TILE, vocab);
    rt_proj_mul(model, &model->head, s->chunk_operand, s->chunk_ld, s->chunk_n, begin, end, s->logits + begin,
                vocab, RT_F32, false);
    if (model->config.logit_softcap > 0)
        for (size_t i = 0; i < s->chunk_n; i++)
            model->ops->softcap(s->logits + i * vocab + begin, (float)model->config.logit_softcap,
                                end - begin);
}

/* Rows [first, first + n) of a text. */
static rt_status score_chunk(scoring *s, const text_entry *text, const float *states, size_t first, size_t n,
                             rt_error *err)
{
    const rt_model *model = s->t->model;
    const size_t d = model->config.n_embd, vocab = model->config.n_vocab;
    memcpy(s->hidden, states + first * d, n * d * sizeof *states);
    s->chunk_text = text;
    s->chunk_first = first;
    s->chunk_n = n;
    s->chunk_operand = rt_proj_operand(model, &model->head, s->hidden, d, n, s->operand, &s->chunk_ld);
    rt_pool_run(s->t->pool, rt_size_ceil_div(vocab, HEAD_TILE), tile_task, s);
    if (rt_stream_check(model, err) != RT_OK)
        return err->status;
    bool go_on = true;
    if (s->options->dense) {
        go_on = s->calls->dense(s->calls->context, text->ask.tag, first + 1, n, s->logits, vocab);
    } else {
        rt_pool_run(s->t->pool, n, row_task, s);
        for (size_t i = 0; i < n && go_on; i++)
            go_on = s->calls->row(s->calls->context, text->ask.tag, first + i + 1, &s->rows[i]);
    }
    return go_on ? RT_OK : rt_error_set(err, RT_STOPPED, "stopped");
}

/* ---- gathering ---- */

static rt_status check_text(const scoring *s, const rt_score_ask *ask, rt_error *err)
{
    const size_t vocab = s->t->model->config.n_vocab;
    if (ask->n < 2)
        return rt_error_set(err, RT_INVALID, "a text of %zu tokens has nothing to score", ask->n);
    if (ask->n > s->pass_tokens)
        return rt_error_set(err, RT_INVALID,
                            "the text has %zu tokens, more than the %zu that are scored together", ask->n,
                            s->pass_tokens);
    for (size_t i = 0; i < ask->n; i++)
        if (ask->ids[i] < 0 || (size_t)ask->ids[i] >= vocab)
            return rt_error_set(err, RT_INVALID, "token %zu is id %d, outside the vocabulary of %zu", i,
                                (int)ask->ids[i], vocab);
    return RT_OK;
}

/* false: the batches are full. */
static bool place_text(scoring *s, const rt_score_ask *ask)
{
    rt_batch *batch = s->n_batches ? &s->batches[s->n_batches - 1] : NULL;
    if (s->n_texts == TEXTS_MAX)
        return false;
    if (!batch || batch->n_tokens + ask->n > s->pass_tokens) {
        if (s->n_batches == s->batches_max)
            return false;
        batch = &s->batches[s->n_batches];
        *batch =
            (rt_batch){.ids = s->ids + s->n_batches * s->pass_tokens, .segments = s->segments + s->n_texts};
        s->n_batches++;
    }
    memcpy(s->ids + (s->n_batches - 1) * s->pass_tokens + batch->n_tokens, ask->ids,
           ask->n * sizeof *ask->ids);
    s->segments[s->n_texts] = (rt_segment){.begin = batch->n_tokens, .count = ask->n};
    s->texts[s->n_texts++] = (text_entry){*ask, s->n_batches - 1, batch->n_tokens};
    batch->n_segments++;
    batch->n_tokens += ask->n;
    return true;
}

/* Takes texts until the batches are full, or there are no more just now. */
static void gather(scoring *s)
{
    s->n_texts = s->n_batches = 0;
    if (s->holding)
        s->holding = !place_text(s, &s->held);
    while (!s->ended && !s->stopped && !s->holding) {
        rt_score_ask ask = {0};
        const rt_next next = s->calls->next(s->calls->context, &ask);
        if (next == RT_NEXT_LATER && s->n_texts > 0)
            return;
        if (next != RT_NEXT_TAKE) { /* LATER with nothing under way: nothing will change */
            s->ended = true;
            return;
        }
        rt_error why = {0};
        s->state.attempts++;
        if (check_text(s, &ask, &why) != RT_OK) {
            s->state.failures++;
            s->calls->end(s->calls->context, ask.tag, why.status, &why);
        } else if (!place_text(s, &ask)) {
            s->held = ask;
            s->holding = true;
        }
    }
}

static rt_status tick(scoring *s, rt_error *err)
{
    s->state.in_flight = s->n_texts;
    if (!s->calls->tick)
        return RT_OK;
    const rt_status status = s->calls->tick(s->calls->context, &s->state, err);
    if (status != RT_STOPPED)
        return status;
    s->stopped = true;
    return RT_OK;
}

static rt_status score_gathered(scoring *s, rt_error *err)
{
    const rt_model *model = s->t->model;
    const size_t d = model->config.n_embd;
    rt_forward_many(model, s->pass, s->batches, s->n_batches, s->states);
    if (rt_stream_check(model, err) != RT_OK)
        return err->status;
    const float *batch_states = s->states;
    for (size_t i = 0, batch = 0; i < s->n_texts; i++) {
        const text_entry *text = &s->texts[i];
        for (; batch < text->batch; batch++)
            batch_states += s->batches[batch].n_tokens * d;
        const size_t rows =
            text->ask.n - 1; /* the last token's distribution is of a token that is not there */
        for (size_t first = 0; first < rows; first += s->chunk_rows)
            if (score_chunk(s, text, batch_states + text->row * d, first,
                            rt_size_min(s->chunk_rows, rows - first), err) != RT_OK)
                return err->status;
        s->calls->end(s->calls->context, text->ask.tag, RT_OK, NULL);
        if (tick(s, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status run(scoring *s, rt_error *err)
{
    for (;;) {
        s->n_texts = 0;
        if (tick(s, err) != RT_OK)
            return err->status;
        gather(s);
        if (s->n_texts == 0 && s->stopped) /* what was held was placed first */
            return rt_error_set(err, RT_STOPPED, "stopped; what was taken is scored");
        if (s->n_texts == 0 && s->ended)
            return RT_OK;
        if (s->n_texts > 0 && score_gathered(s, err) != RT_OK)
            return err->status;
    }
}

/* ---- life ---- */

static rt_status check_options(const rt_score_options *o, const rt_score_calls *calls, rt_error *err)
{
    if (o->dense ? !calls->dense : !calls->row)
        return rt_error_set(err, RT_INVALID, "there is no callback for the rows");
    if (!o->dense && o->top_k == 0 && o->n_draws == 0)
        return rt_error_set(err, RT_INVALID, "neither top_k nor draws are asked for");
    if (o->top_k > ENTRIES_MAX || o->n_draws > ENTRIES_MAX)
        return rt_error_set(err, RT_INVALID, "top_k and draws are at most %d", (int)ENTRIES_MAX);
    if (!(o->draw_power >= 0 && o->draw_power <= 4))
        return rt_error_set(err, RT_INVALID, "draw_power %g is not in 0..4", o->draw_power);
    return RT_OK;
}

static rt_status open_all(scoring *s, rt_error *err)
{
    const local_teacher *t = s->t;
    const size_t d = t->model->config.n_embd, vocab = t->model->config.n_vocab,
                 threads = rt_pool_threads(t->pool);
    s->pass_tokens = t->options.n_positions < 1024 ? rt_size_min(1024, t->model->config.n_context)
                                                   : t->options.n_positions;
    /* states of all batches are held: no more than a quarter of what memory is left */
    const size_t fitting = rt_memory_left() / 4 / (d * sizeof(float));
    s->batch_tokens = rt_size_max(rt_size_min(t->options.batch_tokens, fitting), s->pass_tokens);
    s->batches_max = rt_size_max(s->batch_tokens / s->pass_tokens, 1);
    s->chunk_rows =
        rt_size_min(rt_size_max(CHUNK_BYTES / (vocab * sizeof(float)), CHUNK_ROWS_MIN), CHUNK_ROWS_MAX);
    s->entries = rt_size_min(s->options->top_k, vocab) + s->options->n_draws;
    const size_t entries = s->chunk_rows * (s->entries ? s->entries : 1),
                 tokens = s->batches_max * s->pass_tokens;
    s->texts = calloc(TEXTS_MAX, sizeof *s->texts);
    s->segments = calloc(TEXTS_MAX, sizeof *s->segments);
    s->batches = calloc(s->batches_max, sizeof *s->batches);
    s->ids = calloc(tokens, sizeof *s->ids);
    s->states = malloc(tokens * d * sizeof *s->states);
    s->logits = malloc(s->chunk_rows * vocab * sizeof *s->logits);
    s->hidden = malloc(s->chunk_rows * d * sizeof *s->hidden);
    s->operand = aligned_alloc(
        64, rt_size_round_up(rt_proj_operand_bytes(t->model, &t->model->head, s->chunk_rows) + 64, 64));
    s->row_ids = calloc(entries, sizeof *s->row_ids);
    s->row_logq = calloc(entries, sizeof *s->row_logq);
    s->row_counts = calloc(entries, sizeof *s->row_counts);
    s->rows = calloc(s->chunk_rows, sizeof *s->rows);
    s->work = calloc(threads * (s->options->n_draws + 1), sizeof *s->work);
    if (!s->texts || !s->segments || !s->batches || !s->ids || !s->states || !s->logits || !s->hidden ||
        !s->operand || !s->row_ids || !s->row_logq || !s->row_counts || !s->rows || !s->work)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to score %zu tokens together", tokens);
    if (rt_pass_open(&s->pass, t->model, s->pass_tokens, false, err) != RT_OK)
        return err->status;
    s->pass->by_blocks = true; /* a text's bits do not depend on what else is in its batch */
    return RT_OK;
}

static void close_all(scoring *s)
{
    rt_pass_close(s->pass);
    void *const lists[] = {s->texts,      s->segments, s->batches, s->ids,     s->states,
                           s->logits,     s->hidden,   s->operand, s->row_ids, s->row_logq,
                           s->row_counts, s->rows,     s->work};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        free(lists[i]);
}

rt_status local_score(void *self, const rt_score_options *options, const rt_score_calls *calls, rt_error *err)
{
    local_teacher *t = self;
    scoring s = {.t = t, .options = options, .calls = calls, .state = {.limit = TEXTS_MAX, .notice = ""}};
    rt_status status = check_options(options, calls, err);
    if (status == RT_OK)
        status = open_all(&s, err);
    if (status == RT_OK)
        status = run(&s, err);
    close_all(&s);
    return status;
}
