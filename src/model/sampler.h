/* model/sampler.h - chooses the next token from logits.
 *
 * Order, as the field has it: penalties, temperature, top_k, top_p, min_p, then a draw.  temperature 0 is
 * greedy (the first of the largest).  The draw for a position depends on (seed, stream, position) alone. */
#ifndef RT_MODEL_SAMPLER_H
#define RT_MODEL_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

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
} rt_sampling;

rt_sampling rt_sampling_default(void); /* greedy */
rt_status rt_sampling_check(const rt_sampling *sampling, rt_error *err);

typedef struct rt_sampler rt_sampler; /* scratch for one vocabulary; one thread at a time */
rt_status rt_sampler_open(rt_sampler **out, size_t n_vocab, rt_error *err);
void rt_sampler_close(rt_sampler *sampler);
/* logits [n_vocab] are changed by the penalties.  seen [n_seen]: ids so far.  stream: which sequence;
 * position: which token of it. */
int32_t rt_sample(rt_sampler *sampler, const rt_sampling *sampling, float *logits, const int32_t *seen,
                  size_t n_seen, uint64_t stream, uint64_t position);

#endif
