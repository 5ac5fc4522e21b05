/* model/sampler.h - chooses the next token from logits.
 *
 * Order, as the field has it: penalties, temperature, top_k, top_p, min_p, then a draw.  temperature 0 is
 * greedy (the first of the largest).  The draw for a position depends on (seed, stream, position) alone. */
#ifndef RT_MODEL_SAMPLER_H
#define RT_MODEL_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

/* What a marker chooses from: the distribution after every filter. */
typedef struct rt_draw {
    const int32_t *ids; /* [n]; NULL: 0..n-1 */
    float *p;           /* [n] of sum `mass`; may be overwritten */
    size_t n, n_vocab;
    double mass;
    const int32_t *seen; /* [n_seen] prompt and answer so far */
    size_t n_seen, n_answer;
    bool greedy;    /* temperature 0: p is at temperature 1, unfiltered, and the largest is wanted */
    double u, coin; /* two independent uniforms in [0, 1) of this position */
    void *work;     /* RT_DRAW_WORK * n_vocab + 4096 bytes, 64-byte aligned */
} rt_draw;
enum { RT_DRAW_WORK = 24 };

/* Takes the place of the plain draw: a watermark.  `choose` returns an id, or -1 for the plain draw; it is
 * called from several threads at once, and its answer depends on the draw alone. */
typedef struct rt_marker {
    int32_t (*choose)(const struct rt_marker *marker, const rt_draw *draw);
} rt_marker;

typedef struct rt_sampling {
    double temperature; /* 0: greedy */
    size_t top_k;       /* 0: all */
    double top_p;       /* 1: all; the smallest set whose mass reaches it */
    double min_p;       /* 0: all; relative to the largest probability */
    double
        repetition_penalty; /* 1: none; logits of seen ids are divided (positive) or multiplied (negative) */
    double frequency_penalty; /* 0: none; times the count of an id */
    double presence_penalty;  /* 0: none; once for an id that was seen */
    uint64_t seed;
    const rt_marker *marker; /* borrowed; NULL: none */
} rt_sampling;

rt_sampling rt_sampling_default(void); /* greedy */
rt_status rt_sampling_check(const rt_sampling *sampling, rt_error *err);

typedef struct rt_sampler rt_sampler; /* scratch for one vocabulary; one thread at a time */
rt_status rt_sampler_open(rt_sampler **out, size_t n_vocab, rt_error *err);
void rt_sampler_close(rt_sampler *sampler);
/* Ids from n_ids on are never drawn: rows of an output layer that is padded beyond its tokenizer
 * (rt_tokenizer_real_size). */
void rt_sampler_limit(rt_sampler *sampler, size_t n_ids);
/* logits [n_vocab] are changed by the penalties.  seen [n_seen]: ids so far.  stream: which sequence;
 * position: which token of it. */
int32_t rt_sample(rt_sampler *sampler, const rt_sampling *sampling, float *logits, const int32_t *seen,
                  size_t n_seen, uint64_t stream, uint64_t position);

/* What rt_sample would draw from, whatever the marker: p [n_vocab], of sum 1 but for rounding; all at one id
 * when greedy.  logits are changed by the penalties. */
void rt_sampler_distribution(rt_sampler *sampler, const rt_sampling *sampling, float *logits,
                             const int32_t *seen, size_t n_seen, float *p);
/* The id at which the running sum of p [n] passes u of the whole, u in [0, 1). */
int32_t rt_sampler_pick(const float *p, size_t n, double u);
/* The k-th of four independent uniforms in [0, 1) of a position, counted from 0: the first is the one that
 * rt_sample draws with, the second a marker's coin. */
double rt_sampler_uniform(const rt_sampling *sampling, uint64_t stream, uint64_t position, unsigned k);

#endif
