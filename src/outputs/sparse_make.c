/* outputs/sparse_make.c - a sparse row from full logits.
 *
 * The vocabulary is taken in blocks of 64.  Maxima of blocks give a threshold below which no id can be among
 * the k largest, so that few candidates are sorted; sums of blocks turn a draw into a search among some
 * hundred prefix sums and a walk through one block.  A row of 49,152 ids costs three passes over memory that
 * is in the cache. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "outputs/sparse.h"
#include "tensor/row.h"

enum { BLOCK = 64, LANES = 16 };

typedef struct candidate {
    float logit;
    uint32_t id;
} candidate;

typedef struct work {      /* carved from the caller's room */
    float *maxima;         /* [blocks] */
    float *sorted;         /* [blocks] scratch of the selection */
    double *prefix;        /* [blocks + 1] sums of e^(t (x - max)) before each block */
    float *weights;        /* [blocks * BLOCK] the terms of those sums */
    candidate *candidates; /* [n_vocab] */
    uint32_t *drawn;       /* [draws] */
} work;

static size_t carve(work *w, const rt_sparse_settings *s, unsigned char *room)
{
    const size_t blocks = rt_size_ceil_div(s->n_vocab, BLOCK);
    const struct {
        void **to;
        size_t bytes;
    } wants[] = {
        {(void **)&w->maxima, blocks * sizeof *w->maxima},
        {(void **)&w->sorted, blocks * sizeof *w->sorted},
        {(void **)&w->prefix, (blocks + 1) * sizeof *w->prefix},
        {(void **)&w->weights, blocks * BLOCK * sizeof *w->weights},
        {(void **)&w->candidates, s->n_vocab * sizeof *w->candidates},
        {(void **)&w->drawn, s->draws * sizeof *w->drawn},
    };
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        *wants[i].to = room ? room + bytes : NULL;
        bytes += rt_size_round_up(wants[i].bytes, 64);
    }
    return bytes;
}

size_t rt_sparse_work_bytes(const rt_sparse_settings *settings)
{
    work w;
    return carve(&w, settings, NULL);
}

/* NaNs are passed over here; the sum finds them. */
static float block_max(const float *x, size_t n)
{
    float lanes[LANES];
    for (size_t j = 0; j < LANES; j++)
        lanes[j] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    for (size_t j = 0; i < n; i++, j++)
        lanes[j] = x[i] > lanes[j] ? x[i] : lanes[j];
    for (size_t j = 1; j < LANES; j++)
        lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
    return lanes[0];
}

static double block_sum(const float x[BLOCK])
{
    double lanes[8] = {0};
    for (size_t i = 0; i < BLOCK; i += 8)
        for (size_t j = 0; j < 8; j++)
            lanes[j] += (double)x[i + j];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* Fills weights with e^(t (x - max)) and the prefix sums; returns the whole sum, NAN when a logit is. */
static double make_weights(const work *w, const float *logits, size_t n, float max, double t)
{
    const size_t blocks = rt_size_ceil_div(n, BLOCK);
    const rt_row_ops *ops = rt_row_ops_get();
    const float scale = (float)t;
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= logits[i] != logits[i];
        w->weights[i] = (logits[i] - max) * scale;
    }
    if (bad)
        return (double)NAN;
    ops->exp(w->weights, w->weights, n);
    if (t == 0) /* masked ids: 0 times -inf */
        for (size_t i = 0; i < n; i++)
            w->weights[i] = logits[i] > -INFINITY ? 1 : 0;
    memset(w->weights + n, 0, (blocks * BLOCK - n) * sizeof *w->weights);
    w->prefix[0] = 0;
    for (size_t b = 0; b < blocks; b++)
        w->prefix[b + 1] = w->prefix[b] + block_sum(w->weights + b * BLOCK);
    return w->prefix[blocks];
}

/* ---- the k largest ---- */

/* After the call, x[0..k) holds k largest values and x[k-1] is the least of them.  Hoare's selection; the
 * middle of three as pivot. */
static float kth_largest(float *x, size_t n, size_t k)
{
    size_t low = 0, high = n - 1;
    while (low < high) {
        const float a = x[low], b = x[low + (high - low) / 2], c = x[high];
        const float pivot = a > b ? (b > c ? b : (a > c ? c : a)) : (a > c ? a : (b > c ? c : b));
        size_t i = low, j = high;
        for (;;) {
            while (x[i] > pivot)
                i++;
            while (x[j] < pivot)
                j--;
            if (i >= j)
                break;
            const float kept = x[i];
            x[i++] = x[j];
            x[j--] = kept;
        }
        const size_t cut = x[j] < pivot ? j - 1 : j; /* [low, cut] >= pivot >= (cut, high] */
        if (k - 1 <= cut)
            high = cut == high ? high - 1 : cut;
        else
            low = cut + 1;
    }
    return x[k - 1];
}

static int larger_first(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Ids of the k largest logits (fewer when fewer are finite), ascending; among equal ones the lower id. */
static size_t select_topk(const work *w, const float *logits, size_t n, size_t k, uint32_t *ids)
{
    const size_t blocks = rt_size_ceil_div(n, BLOCK);
    float least = -INFINITY; /* at least k logits are >= least */
    if (k <= blocks) {
        memcpy(w->sorted, w->maxima, blocks * sizeof *w->sorted);
        least = kth_largest(w->sorted, blocks, k);
    }
    size_t found = 0;
    for (size_t b = 0; b < blocks; b++) {
        if (w->maxima[b] < least)
            continue;
        const size_t end = rt_size_min(n, (b + 1) * BLOCK);
        for (size_t i = b * BLOCK; i < end; i++)
            if (logits[i] >= least && logits[i] > -INFINITY)
                w->candidates[found++] = (candidate){logits[i], (uint32_t)i};
    }
    qsort(w->candidates, found, sizeof *w->candidates, larger_first);
    found = rt_size_min(found, k);
    for (size_t i = 0; i < found; i++)
        ids[i] = w->candidates[i].id;
    qsort(ids, found, sizeof *ids, by_id);
    return found;
}

/* ---- draws ---- */

/* Draw `index` of a position as a number in [0, 1). */
static double uniform(uint64_t seed, uint64_t document, uint64_t position, uint32_t index)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {index, (uint32_t)position, (uint32_t)document, (uint32_t)(document >> 32)};
    uint32_t out[4];
    rt_philox4x32(key, counter, out);
    return (double)(((uint64_t)out[1] << 32 | out[0]) >> 11) * 0x1p-53;
}

static uint32_t find_id(const work *w, size_t blocks, double at)
{
    size_t low = 0, high = blocks; /* the last block whose prefix is <= at */
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (w->prefix[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    const float *x = w->weights + low * BLOCK;
    double sum = w->prefix[low];
    size_t last = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        sum += (double)x[i];
        if (x[i] > 0) {
            last = i;
            if (sum > at)
                break;
        }
    }
    return (uint32_t)(low * BLOCK + last); /* past the sum by rounding: the last id with any weight */
}

typedef struct draws {
    uint64_t seed, document, position;
    double total;
    size_t count;
} draws;

static void draw_ids(const work *w, size_t n, const draws *d)
{
    const size_t blocks = rt_size_ceil_div(n, BLOCK);
    for (size_t i = 0; i < d->count; i++)
        w->drawn[i] = find_id(w, blocks, uniform(d->seed, d->document, d->position, (uint32_t)i) * d->total);
    qsort(w->drawn, d->count, sizeof *w->drawn, by_id);
}

/* Counts of drawn ids into the top-k's entries, or as entries of their own; returns the entries in all. */
static size_t put_draws(rt_sparse_out *out, const work *w, size_t n_topk, size_t count)
{
    size_t n = n_topk, k = 0;
    for (size_t i = 0; i < count;) {
        const uint32_t id = w->drawn[i];
        size_t same = i;
        while (same < count && w->drawn[same] == id)
            same++;
        while (k < n_topk && out->ids[k] < id)
            k++;
        const bool kept = k < n_topk && out->ids[k] == id;
        if (!kept)
            out->ids[n] = id;
        out->counts[kept ? k : n++] = (uint16_t)(same - i);
        i = same;
    }
    return n;
}

/* ---- the row ---- */

/* The mass off the top-k as a sum of its own: 1 minus what is kept loses all digits when that is near 1. */
static double tail_mass(const work *w, const rt_sparse_out *out, size_t n, double total)
{
    for (size_t i = 0; i < out->head.n_topk; i++)
        w->candidates[i].logit = w->weights[out->ids[i]];
    for (size_t i = 0; i < out->head.n_topk; i++)
        w->weights[out->ids[i]] = 0;
    double rest = 0;
    for (size_t b = 0; b < rt_size_ceil_div(n, BLOCK); b++)
        rest += block_sum(w->weights + b * BLOCK);
    for (size_t i = 0; i < out->head.n_topk; i++)
        w->weights[out->ids[i]] = w->candidates[i].logit;
    return rest / total;
}

rt_status rt_sparse_make(rt_sparse_out *out, const float *logits, const rt_sparse_settings *s,
                         uint64_t document, uint64_t position, void *room, rt_error *err)
{
    assert(s->n_vocab > 0 && s->topk <= RT_TOPK_MAX && s->draws <= RT_DRAWS_MAX);
    work w;
    (void)carve(&w, s, room);
    const size_t n = s->n_vocab, blocks = rt_size_ceil_div(n, BLOCK);
    float max = -INFINITY;
    for (size_t b = 0; b < blocks; b++) {
        w.maxima[b] = block_max(logits + b * BLOCK, rt_size_min(BLOCK, n - b * BLOCK));
        max = w.maxima[b] > max ? w.maxima[b] : max;
    }
    const double total = isfinite(max) ? make_weights(&w, logits, n, max, 1) : (double)NAN;
    if (!isfinite(total))
        return rt_error_set(err, RT_NOT_FINITE,
                            "the teacher's logits at token %llu of document %llu are not finite numbers",
                            (unsigned long long)position, (unsigned long long)document);
    const double log_total = log(total);
    out->head = (rt_sparse_head){.n_draws = (uint32_t)s->draws, .log_z = (float)((double)max + log_total)};
    out->head.n_topk = s->topk ? (uint32_t)select_topk(&w, logits, n, rt_size_min(s->topk, n), out->ids) : 0;
    memset(out->counts, 0, rt_sparse_entries_max(s) * sizeof *out->counts);
    if (out->head.n_topk) {
        const double tail = tail_mass(&w, out, n, total);
        out->head.tail_logprob = tail > 0 ? (float)log(tail) : -INFINITY;
    }
    size_t entries = out->head.n_topk;
    if (s->draws) {
        double sum = total;
        if (s->proposal != 1) {
            sum = make_weights(&w, logits, n, max, s->proposal);
            out->head.log_s = (float)(log(sum) - s->proposal * log_total);
        }
        draw_ids(&w, n, &(draws){s->seed, document, position, sum, s->draws});
        entries = put_draws(out, &w, out->head.n_topk, s->draws);
    }
    out->head.n = (uint32_t)entries;
    for (size_t i = 0; i < entries; i++)
        out->logq[i] = (float)((double)logits[out->ids[i]] - (double)max - log_total);
    return RT_OK;
}
