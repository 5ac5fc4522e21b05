/* model/sampler.c - see sampler.h. */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "tensor/ops.h"

typedef struct candidate {
    float p;
    int32_t id;
} candidate;

struct rt_sampler {
    size_t n_vocab, n_ids; /* n_ids: those that may be drawn */
    candidate *candidates; /* [n_vocab] */
    float *p;              /* [n_vocab] */
    uint16_t *counts;      /* [n_vocab], all zero between calls */
    int32_t *ids;          /* [n_vocab] of a marker's draw */
    void *work;            /* a marker's */
};

rt_sampling rt_sampling_default(void)
{
    return (rt_sampling){.temperature = 0, .top_p = 1, .repetition_penalty = 1};
}

rt_status rt_sampling_check(const rt_sampling *s, rt_error *err)
{
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return rt_error_set(err, RT_INVALID, "temperature %g is not in 0..100", s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return rt_error_set(err, RT_INVALID, "top_p %g is not in (0, 1]", s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return rt_error_set(err, RT_INVALID, "min_p %g is not in 0..1", s->min_p);
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= 100))
        return rt_error_set(err, RT_INVALID, "repetition_penalty %g is not in (0, 100]",
                            s->repetition_penalty);
    if (!(fabs(s->frequency_penalty) <= 100 && fabs(s->presence_penalty) <= 100))
        return rt_error_set(err, RT_INVALID, "a penalty is not in -100..100");
    return RT_OK;
}

rt_status rt_sampler_open(rt_sampler **out, size_t n_vocab, rt_error *err)
{
    *out = NULL;
    rt_sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->n_vocab = s->n_ids = n_vocab;
        s->candidates = calloc(n_vocab, sizeof *s->candidates);
        s->p = calloc(n_vocab, sizeof *s->p);
        s->counts = calloc(n_vocab, sizeof *s->counts);
        s->ids = calloc(n_vocab, sizeof *s->ids);
        s->work = aligned_alloc(64, rt_size_round_up(n_vocab * RT_DRAW_WORK + 4096, 64));
    }
    if (!s || !s->candidates || !s->p || !s->counts || !s->ids || !s->work) {
        rt_sampler_close(s);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to sample from %zu ids", n_vocab);
    }
    *out = s;
    return RT_OK;
}

void rt_sampler_limit(rt_sampler *s, size_t n_ids) { s->n_ids = rt_size_min(n_ids, s->n_vocab); }

void rt_sampler_close(rt_sampler *s)
{
    if (!s)
        return;
    free(s->candidates);
    free(s->p);
    free(s->counts);
    free(s->ids);
    free(s->work);
    free(s);
}

static void penalise(rt_sampler *s, const rt_sampling *how, float *logits, const int32_t *seen, size_t n_seen)
{
    if (how->repetition_penalty == 1 && how->frequency_penalty == 0 && how->presence_penalty == 0)
        return;
    for (size_t i = 0; i < n_seen; i++)
        if (seen[i] >= 0 && (size_t)seen[i] < s->n_vocab && s->counts[seen[i]] < UINT16_MAX)
            s->counts[seen[i]]++;
    for (size_t i = 0; i < n_seen; i++) {
        if (seen[i] < 0 || (size_t)seen[i] >= s->n_vocab || !s->counts[seen[i]])
            continue;
        float *z = &logits[seen[i]];
        *z = (float)(*z > 0 ? (double)*z / how->repetition_penalty : (double)*z * how->repetition_penalty);
        *z -= (float)(how->frequency_penalty * s->counts[seen[i]] + how->presence_penalty);
        s->counts[seen[i]] = 0;
    }
}

static size_t arg_max(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static int by_probability(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p < y->p ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

double rt_sampler_uniform(const rt_sampling *how, uint64_t stream, uint64_t position, unsigned k)
{
    /* a position has four words and a uniform takes two: later ones are drawn with another key */
    rt_rng rng = rt_rng_make(how->seed ^ (k / 2 * 0x9e3779b97f4a7c15u), stream);
    rng.index = position * 4 + k % 2 * 2;
    return rt_rng_uniform(&rng);
}

typedef struct place {
    const int32_t *seen;
    size_t n_seen, n_answer;
    double u, coin;
} place;

static place place_at(const rt_sampling *how, const int32_t *seen, size_t n_seen, uint64_t stream,
                      uint64_t position)
{
    return (place){seen, n_seen, rt_size_min(position, n_seen), rt_sampler_uniform(how, stream, position, 0),
                   how->marker ? rt_sampler_uniform(how, stream, position, 1) : 0};
}

/* The marker's choice; -1: the plain draw. */
static int32_t marked(const rt_sampler *s, const rt_sampling *how, const place *at, const int32_t *ids,
                      size_t n, double mass, bool greedy)
{
    const rt_draw draw = {.ids = ids,
                          .p = s->p,
                          .n = n,
                          .n_vocab = s->n_vocab,
                          .mass = mass,
                          .seen = at->seen,
                          .n_seen = at->n_seen,
                          .n_answer = at->n_answer,
                          .greedy = greedy,
                          .u = at->u,
                          .coin = at->coin,
                          .work = s->work};
    return how->marker->choose(how->marker, &draw);
}

/* All ids, in order of id: no filter needs them sorted. */
int32_t rt_sampler_pick(const float *p, size_t n, double u)
{
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)p[i];
    double left = u * total;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] <= 0)
            continue;
        last = i;
        left -= (double)p[i];
        if (left < 0)
            break;
    }
    return (int32_t)last;
}

/* Ids with at least `floor`, into the candidates; their count, and their mass. */
static size_t gather(rt_sampler *s, double floor, double *mass)
{
    size_t n = 0;
    *mass = 0;
    for (size_t i = 0; i < s->n_vocab; i++) {
        if ((double)s->p[i] < floor)
            continue;
        s->candidates[n++] = (candidate){s->p[i], (int32_t)i};
        *mass += (double)s->p[i];
    }
    return n;
}

/* The ids that the filters can still choose from, sorted: a floor is lowered until it lets enough through
 * (top_k ids, or the mass of top_p), so that only a few are ever sorted.  Below 2^-53 of the largest an id
 * vanishes in the sum. */
static size_t shortlist(rt_sampler *s, const rt_sampling *how, float top)
{
    const double lowest = (double)top * fmax(how->min_p, 0x1p-53);
    double mass, floor = (double)top * 0x1p-7;
    size_t n;
    for (;; floor *= 0x1p-4) {
        n = gather(s, fmax(floor, lowest), &mass);
        if (floor <= lowest || (how->top_k ? n >= how->top_k : how->top_p < 1 && mass >= how->top_p))
            break;
    }
    qsort(s->candidates, n, sizeof *s->candidates, by_probability);
    return how->top_k ? rt_size_min(n, how->top_k) : n;
}

/* top_k, top_p and min_p: the first of the sorted candidates stay; their count, and their mass. */
static size_t filter(rt_sampler *s, const rt_sampling *how, float top, double *mass)
{
    size_t n = shortlist(s, how, top);
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)s->candidates[i].p;
    *mass = total;
    if (how->top_p >= 1)
        return n;
    /* of what top_k left, else of all: the probabilities sum to 1 */
    const double enough = how->top_p * (how->top_k ? total : 1);
    size_t kept = 0;
    for (*mass = 0; kept < n && *mass < enough; kept++)
        *mass += (double)s->candidates[kept].p;
    return rt_size_max(kept, 1);
}

static int32_t draw_filtered(rt_sampler *s, const rt_sampling *how, float top, const place *at)
{
    double mass;
    const size_t n = filter(s, how, top, &mass);
    if (how->marker) {
        for (size_t i = 0; i < n; i++) {
            s->ids[i] = s->candidates[i].id;
            s->p[i] = s->candidates[i].p;
        }
        const int32_t id = marked(s, how, at, s->ids, n, mass, false);
        if (id >= 0)
            return id;
    }
    double left = at->u * mass;
    for (size_t i = 0; i + 1 < n; i++) {
        left -= (double)s->candidates[i].p;
        if (left < 0)
            return s->candidates[i].id;
    }
    return s->candidates[n - 1].id;
}

/* s->p: the probabilities at the temperature, unfiltered. */
static void temper(rt_sampler *s, const float *logits, float top, double temperature)
{
    for (size_t i = 0; i < s->n_vocab; i++) /* so that the scaled maximum is 0 however large the logits are */
        s->p[i] = logits[i] - top;
    (void)rt_ops_get()->softmax(s->p, s->n_vocab, (float)(1 / temperature));
}

static bool filters(const rt_sampling *how) { return how->top_k || how->top_p < 1 || how->min_p > 0; }

static void hide_padding(const rt_sampler *s, float *logits)
{
    for (size_t i = s->n_ids; i < s->n_vocab; i++)
        logits[i] = -INFINITY;
}

int32_t rt_sample(rt_sampler *s, const rt_sampling *how, float *logits, const int32_t *seen, size_t n_seen,
                  uint64_t stream, uint64_t position)
{
    hide_padding(s, logits);
    penalise(s, how, logits, seen, n_seen);
    const size_t best = arg_max(logits, s->n_vocab);
    const bool greedy = how->temperature == 0;
    if (greedy && !how->marker)
        return (int32_t)best;
    temper(s, logits, logits[best], greedy ? 1 : how->temperature);
    const place at = place_at(how, seen, n_seen, stream, position);
    if (!greedy && filters(how))
        return draw_filtered(s, how, s->p[best], &at);
    if (how->marker) {
        const int32_t id = marked(s, how, &at, NULL, s->n_vocab, 1, greedy);
        if (id >= 0 || greedy)
            return id >= 0 ? id : (int32_t)best;
    }
    return rt_sampler_pick(s->p, s->n_vocab, at.u);
}

void rt_sampler_distribution(rt_sampler *s, const rt_sampling *how, float *logits, const int32_t *seen,
                             size_t n_seen, float *p)
{
    hide_padding(s, logits);
    penalise(s, how, logits, seen, n_seen);
    const size_t best = arg_max(logits, s->n_vocab);
    if (how->temperature == 0) {
        memset(p, 0, s->n_vocab * sizeof *p);
        p[best] = 1;
        return;
    }
    temper(s, logits, logits[best], how->temperature);
    if (!filters(how)) {
        memcpy(p, s->p, s->n_vocab * sizeof *p);
        return;
    }
    double mass;
    const size_t n = filter(s, how, s->p[best], &mass);
    memset(p, 0, s->n_vocab * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[s->candidates[i].id] = (float)((double)s->candidates[i].p / mass);
}
