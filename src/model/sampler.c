/* model/sampler.c - see sampler.h. */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct rt_sampler {
    size_t n_vocab;
    candidate *candidates; /* [n_vocab] */
    double *weights;       /* [n_vocab] */
    float *own;            /* [n_vocab] the model's logits before penalties */
    uint16_t *counts;      /* [n_vocab], all zero between calls */
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
        return rt_error_set(err, RT_INVALID, "repetition_penalty %g is not in (0, 100]", s->repetition_penalty);
    if (!(fabs(s->frequency_penalty) <= 100 && fabs(s->presence_penalty) <= 100))
        return rt_error_set(err, RT_INVALID, "a penalty is not in -100..100");
    return RT_OK;
}

rt_status rt_sampler_open(rt_sampler **out, size_t n_vocab, rt_error *err)
{
    *out = NULL;
    rt_sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->n_vocab = n_vocab;
        s->candidates = calloc(n_vocab, sizeof *s->candidates);
        s->weights = calloc(n_vocab, sizeof *s->weights);
        s->own = calloc(n_vocab, sizeof *s->own);
        s->counts = calloc(n_vocab, sizeof *s->counts);
    }
    if (!s || !s->candidates || !s->weights || !s->own || !s->counts) {
        rt_sampler_close(s);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to sample from %zu ids", n_vocab);
    }
    *out = s;
    return RT_OK;
}

void rt_sampler_close(rt_sampler *s)
{
    if (!s)
        return;
    free(s->candidates);
    free(s->weights);
    free(s->own);
    free(s->counts);
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

static double log_sum_exp(const float *logits, size_t n, float top)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)(logits[i] - top));
    return (double)top + log(sum);
}

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Candidates in descending order: all, or those that can still matter. */
static size_t collect(rt_sampler *s, const rt_sampling *how, const float *logits, float top)
{
    /* below this a token's probability cannot reach min_p, or is lost in double rounding */
    double floor = (double)top - 700 * how->temperature;
    if (how->min_p > 0)
        floor = fmax(floor, (double)top + how->temperature * log(how->min_p));
    size_t n = 0;
    for (size_t i = 0; i < s->n_vocab; i++)
        if ((double)logits[i] >= floor)
            s->candidates[n++] = (candidate){logits[i], (int32_t)i};
    qsort(s->candidates, n, sizeof *s->candidates, by_logit);
    return how->top_k ? rt_size_min(n, how->top_k) : n;
}

static int32_t draw(rt_sampler *s, const rt_sampling *how, size_t n, uint64_t stream, uint64_t position)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        s->weights[i] = exp(((double)s->candidates[i].logit - (double)s->candidates[0].logit) / how->temperature);
        total += s->weights[i];
    }
    if (how->top_p < 1) {
        const double enough = how->top_p * total;
        double mass = 0;
        size_t kept = 0;
        while (kept < n && mass < enough)
            mass += s->weights[kept++];
        n = rt_size_max(kept, 1);
        total = mass;
    }
    rt_rng rng = rt_rng_make(how->seed, stream);
    rng.index = position * 4;
    double left = rt_rng_uniform(&rng) * total;
    for (size_t i = 0; i + 1 < n; i++) {
        left -= s->weights[i];
        if (left < 0)
            return s->candidates[i].id;
    }
    return s->candidates[n - 1].id;
}

int32_t rt_sample(rt_sampler *s, const rt_sampling *how, float *logits, const int32_t *seen, size_t n_seen,
                  uint64_t stream, uint64_t position, double *logprob)
{
    double lse = 0;
    if (logprob) {
        lse = log_sum_exp(logits, s->n_vocab, logits[arg_max(logits, s->n_vocab)]);
        memcpy(s->own, logits, s->n_vocab * sizeof *logits);
    }
    penalise(s, how, logits, seen, n_seen);
    const size_t best = arg_max(logits, s->n_vocab);
    int32_t id = (int32_t)best;
    if (how->temperature > 0)
        id = draw(s, how, collect(s, how, logits, logits[best]), stream, position);
    if (logprob)
        *logprob = (double)s->own[id] - lse;
    return id;
}
