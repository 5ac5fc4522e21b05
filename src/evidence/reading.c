/* evidence/reading.c - see reading.h.
 *
 * The cumulant function of T is a sum over millions of entries, nearly all tiny.  Entries are sorted into
 * octaves of |a|; where theta a is small, an octave's part comes from its power sums and the cumulants of one
 * score, else entry by entry.  The power sums do not know the key, so another key costs one pass for T. */
#include "evidence/reading.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/saddle.h"
#include "tensor/mark.h"

enum { OCTAVES = 64, ORDER = 8, FIRST = 4096, ENTRIES_MAX = 1 << 30 };
static const double theta_end = 2000;
static const double series_reach = 0.1; /* of theta a: the ninth power is below the tenth digit */

typedef struct entry {
    uint32_t context;
    int32_t token;
    double a;
} entry;

struct rt_reading {
    size_t h;
    int32_t *contexts; /* [n_contexts, h] */
    uint32_t *context_slots, *entry_slots;
    size_t n_contexts, context_room, n_context_slots;
    entry *entries;
    size_t n, room, n_slots;
    bool frozen;
    double *sorted; /* [n] a by octave, the largest first */
    size_t begin[OCTAVES + 1];
    double power[OCTAVES][ORDER + 1]; /* sums of a^k */
};

rt_status rt_reading_open(rt_reading **out, size_t h, rt_error *err)
{
    *out = NULL;
    if (h > RT_PRF_CONTEXT_MAX)
        return rt_error_set(err, RT_INVALID, "a context of %zu ids is past the most, %d", h,
                            (int)RT_PRF_CONTEXT_MAX);
    rt_reading *r = calloc(1, sizeof *r);
    if (!r)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a reading");
    r->h = h;
    *out = r;
    return RT_OK;
}

void rt_reading_close(rt_reading *r)
{
    if (!r)
        return;
    free(r->contexts);
    free(r->context_slots);
    free(r->entry_slots);
    free(r->entries);
    free(r->sorted);
    free(r);
}

static uint64_t hash_ids(const int32_t *ids, size_t n)
{
    uint64_t hash = 0x9E3779B97F4A7C15ull;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)ids[i]) * 0xBF58476D1CE4E5B9ull;
        hash ^= hash >> 29;
    }
    return rt_mix64(hash);
}

static uint64_t hash_entry(uint32_t context, int32_t token)
{
    return rt_mix64(((uint64_t)context << 32 | (uint32_t)token) + 0x9E3779B97F4A7C15ull);
}

static size_t find_context(const rt_reading *r, const int32_t *ids)
{
    size_t at = hash_ids(ids, r->h) & (r->n_context_slots - 1);
    while (r->context_slots[at] && r->h &&
           memcmp(r->contexts + (size_t)(r->context_slots[at] - 1) * r->h, ids, r->h * sizeof *ids) != 0)
        at = (at + 1) & (r->n_context_slots - 1);
    return at;
}

static size_t find_entry(const rt_reading *r, uint32_t context, int32_t token)
{
    size_t at = hash_entry(context, token) & (r->n_slots - 1);
    for (; r->entry_slots[at]; at = (at + 1) & (r->n_slots - 1)) {
        const entry *e = &r->entries[r->entry_slots[at] - 1];
        if (e->context == context && e->token == token)
            break;
    }
    return at;
}

static rt_status full(const rt_reading *r, rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory for more than %zu pairs in %zu contexts", r->n,
                        r->n_contexts);
}

static rt_status grow_contexts(rt_reading *r, rt_error *err)
{
    if (r->n_contexts == r->context_room) {
        const size_t more = r->context_room ? 2 * r->context_room : FIRST;
        int32_t *contexts =
            more > ENTRIES_MAX ? NULL : realloc(r->contexts, more * rt_size_max(r->h, 1) * sizeof *contexts);
        if (!contexts)
            return full(r, err);
        r->contexts = contexts;
        r->context_room = more;
    }
    if (2 * r->n_contexts < r->n_context_slots)
        return RT_OK;
    const size_t n = r->n_context_slots ? 4 * r->n_context_slots : 4 * FIRST;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return full(r, err);
    free(r->context_slots);
    r->context_slots = slots;
    r->n_context_slots = n;
    for (size_t i = 0; i < r->n_contexts; i++)
        slots[find_context(r, r->contexts + i * r->h)] = (uint32_t)i + 1;
    return RT_OK;
}

static rt_status grow_entries(rt_reading *r, rt_error *err)
{
    if (r->n == r->room) {
        const size_t more = r->room ? 2 * r->room : FIRST;
        entry *entries = more > ENTRIES_MAX ? NULL : realloc(r->entries, more * sizeof *entries);
        if (!entries)
            return full(r, err);
        r->entries = entries;
        r->room = more;
    }
    if (2 * r->n < r->n_slots)
        return RT_OK;
    const size_t n = r->n_slots ? 4 * r->n_slots : 4 * FIRST;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return full(r, err);
    free(r->entry_slots);
    r->entry_slots = slots;
    r->n_slots = n;
    for (size_t i = 0; i < r->n; i++)
        slots[find_entry(r, r->entries[i].context, r->entries[i].token)] = (uint32_t)i + 1;
    return RT_OK;
}

rt_status rt_reading_add(rt_reading *r, const int32_t *context, int32_t token, double a, rt_error *err)
{
    assert(!r->frozen);
    if (!isfinite(a))
        return rt_error_set(err, RT_CORRUPT, "a probability of token %d is not a number", token);
    if (grow_contexts(r, err) != RT_OK || grow_entries(r, err) != RT_OK)
        return err->status;
    size_t at = find_context(r, context);
    if (!r->context_slots[at]) {
        if (r->h)
            memcpy(r->contexts + r->n_contexts * r->h, context, r->h * sizeof *context);
        r->context_slots[at] = (uint32_t)++r->n_contexts;
    }
    const uint32_t index = r->context_slots[at] - 1;
    at = find_entry(r, index, token);
    if (!r->entry_slots[at]) {
        r->entries[r->n] = (entry){index, token, 0};
        r->entry_slots[at] = (uint32_t)++r->n;
    }
    r->entries[r->entry_slots[at] - 1].a += a;
    return RT_OK;
}

size_t rt_reading_count(const rt_reading *r) { return r->n; }
size_t rt_reading_contexts(const rt_reading *r) { return r->n_contexts; }

/* 0 for |a| >= 2^20, then one octave each down to the rest. */
static size_t octave(double a)
{
    const int e = 20 - ilogb(a);
    return e < 0 ? 0 : (size_t)(e < OCTAVES ? e : OCTAVES - 1);
}

rt_status rt_reading_freeze(rt_reading *r, double least, rt_error *err)
{
    size_t kept = 0, count[OCTAVES] = {0};
    for (size_t i = 0; i < r->n; i++)
        if (r->entries[i].a != 0 && fabs(r->entries[i].a) >= least)
            r->entries[kept++] = r->entries[i];
    r->n = kept;
    free(r->entry_slots); /* they point to where entries lay before */
    r->entry_slots = NULL;
    r->frozen = true;
    if (!(r->sorted = malloc((kept + 1) * sizeof *r->sorted)))
        return full(r, err);
    for (size_t i = 0; i < kept; i++)
        count[octave(r->entries[i].a)]++;
    for (size_t o = 0; o < OCTAVES; o++)
        r->begin[o + 1] = r->begin[o] + count[o];
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < kept; i++) {
        const double a = r->entries[i].a;
        const size_t o = octave(a);
        r->sorted[r->begin[o] + count[o]++] = a;
        double power = a;
        for (size_t k = 1; k <= ORDER; k++, power *= a)
            r->power[o][k] += power;
    }
    return RT_OK;
}

typedef struct score_model { /* of one score s */
    const rt_reading *reading;
    rt_scheme scheme;
    double gamma, weights[RT_PRF_LAYERS_MAX];
    size_t layers;
    double scale;                /* theta a scale is what a series sees */
    double cumulants[ORDER + 1]; /* of s, from the second on */
} score_model;

/* Cumulants of a Bernoulli variable: k_1 = p, k_(j+1) = p (1 - p) dk_j/dp. */
static void bernoulli_cumulants(double out[ORDER + 1], double p)
{
    double poly[ORDER + 2] = {0, 1};
    for (size_t j = 1; j <= ORDER; j++) {
        double power = 1, next[ORDER + 2] = {0};
        out[j] = 0;
        for (size_t i = 0; i <= j; i++, power *= p)
            out[j] += poly[i] * power;
        for (size_t i = 1; i <= j; i++) {
            next[i] += (double)i * poly[i];
            next[i + 1] -= (double)i * poly[i];
        }
        memcpy(poly, next, sizeof poly);
    }
}

static void make_model(score_model *m, const rt_reading *r, const rt_watermark *mark)
{
    *m = (score_model){.reading = r, .scheme = mark->scheme, .gamma = mark->gamma, .scale = 1};
    if (mark->scheme == RT_SCHEME_GUMBEL) {
        m->cumulants[1] = 1;
        for (size_t k = 2; k <= ORDER; k++)
            m->cumulants[k] = m->cumulants[k - 1] * (double)(k - 1);
        return;
    }
    bernoulli_cumulants(m->cumulants, mark->scheme == RT_SCHEME_TOURNAMENT ? 0.5 : mark->gamma);
    if (mark->scheme != RT_SCHEME_TOURNAMENT)
        return;
    m->layers = mark->layers;
    rt_synthid_weights(m->weights, m->layers);
    m->scale = m->weights[0];
    for (size_t k = 1; k <= ORDER; k++) {
        double sum = 0;
        for (size_t l = 0; l < m->layers; l++)
            sum += pow(m->weights[l], (double)k);
        m->cumulants[k] *= sum;
    }
}

static void one_entry(const score_model *m, double theta, double a, double k[3])
{
    if (m->scheme == RT_SCHEME_GUMBEL)
        rt_cumulant_exponential(k, theta, a);
    else if (m->scheme != RT_SCHEME_TOURNAMENT)
        rt_cumulant_bernoulli(k, theta, a, m->gamma);
    else
        for (size_t l = 0; l < m->layers; l++)
            rt_cumulant_coin(k, theta, a * m->weights[l]);
}

static void pooled_cumulant(const void *context, double theta, double k[3])
{
    const score_model *m = context;
    const rt_reading *r = m->reading;
    for (size_t o = 0; o < OCTAVES; o++) {
        if (r->begin[o] == r->begin[o + 1])
            continue;
        const double largest = o == 0 ? HUGE_VAL : ldexp(2, 20 - (int)o);
        if (fabs(theta) * largest * m->scale > series_reach) {
            for (size_t i = r->begin[o]; i < r->begin[o + 1]; i++)
                one_entry(m, theta, r->sorted[i], k);
            continue;
        }
        double term = 1; /* theta^(j-2) / (j-2)! */
        for (size_t j = 2; j <= ORDER; j++) {
            const double c = m->cumulants[j] * r->power[o][j] * term, n = (double)j;
            k[0] += c * theta * theta / (n * (n - 1));
            k[1] += c * theta / (n - 1);
            k[2] += c;
            term *= theta / (n - 1);
        }
    }
}

rt_status rt_reading_test(const rt_reading *r, const rt_scorer *scorer, rt_reading_result *out, rt_error *err)
{
    const rt_watermark *mark = rt_scorer_mark(scorer);
    assert(r->frozen);
    *out = (rt_reading_result){.n = r->n};
    if (mark->scheme == RT_SCHEME_HF_KGW || mark->scheme == RT_SCHEME_HF_SYNTHID || mark->h != r->h)
        return rt_error_set(err, RT_INVALID, "pooled reading needs a native scheme with a context of %zu ids",
                            r->h);
    uint64_t *seeds = malloc((r->n_contexts + 1) * sizeof *seeds);
    if (!seeds)
        return full(r, err);
    rt_mark_ops_get()->seeds(seeds, mark->key, r->contexts, r->h, r->h, r->n_contexts);
    const rt_unit unit = rt_scorer_unit(scorer);
    double squares = 0, most = 0;
    for (size_t i = 0; i < r->n; i++) {
        const entry *e = &r->entries[i];
        out->statistic += e->a * (rt_scorer_one(scorer, seeds[e->context], e->token) - unit.mean);
        squares += e->a * e->a;
        most = fmax(most, fabs(e->a));
    }
    free(seeds);
    out->variance = unit.variance * squares;
    if (!(out->variance > 0))
        return RT_OK;
    out->z = out->statistic / sqrt(out->variance);
    score_model model;
    make_model(&model, r, mark);
    /* A suspect that follows the key in every entry puts T at its largest value, where no theta solves
     * kappa' = T: theta ends at 2000, or far past the normal one where all a are tiny. */
    const double end = mark->scheme == RT_SCHEME_GUMBEL
                           ? (1 - 1e-9) / most
                           : fmax(theta_end, 4 * fabs(out->statistic) / out->variance);
    const rt_saddle saddle = {.cumulant = pooled_cumulant,
                              .context = &model,
                              .variance = out->variance,
                              .theta_min = -end,
                              .theta_max = end,
                              .max = HUGE_VAL};
    out->log10_p = rt_saddle_log10(&saddle, out->statistic);
    return RT_OK;
}
