/* guard/signal_params.c - request parameters that expose the model: log-probabilities, bias walks, samples.
 *
 * One step of exposure is one alternative token shown beside one token of an answer.  A walk of logit_bias
 * over the vocabulary shows in the number of distinct ids; an honest classifier forces two to four. */
#include "guard/signals.h"

#include <math.h>

static void set_bit(uint8_t *bits, size_t bit) { bits[bit / 8] |= (uint8_t)(1U << (bit % 8)); }

/* Linear counting (Whang et al. 1990): of 512 bits, good to some 2,000 ids, which is a walk by far. */
static double distinct(const uint8_t bits[RT_GUARD_BIAS_BITS / 8])
{
    size_t zeros = RT_GUARD_BIAS_BITS;
    for (size_t i = 0; i < RT_GUARD_BIAS_BITS / 8; i++)
        zeros -= (size_t)__builtin_popcount(bits[i]);
    return RT_GUARD_BIAS_BITS * log(RT_GUARD_BIAS_BITS / fmax((double)zeros, 1));
}

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_params_state *s = &account->params;
    const rt_guard_record *e = seen->event;
    s->top_logprobs += e->top_logprobs >= 10;
    s->logprobs += e->logprobs || e->top_logprobs > 0;
    s->biased += e->bias_count > 0;
    s->one_token += e->max_tokens == 1;
    s->cold += e->temperature < 0.15F;
    s->streamed += e->stream;
    s->exposure += (double)(e->top_logprobs < 20 ? e->top_logprobs : 20) *
                   (e->completion_tokens < 4096 ? e->completion_tokens : 4096);
    s->samples += e->temperature > 0.3F ? fmin(e->n - 1, 64) : 0;
    for (uint32_t i = 0; i < e->bias_count; i++)
        set_bit(s->bias_ids, rt_guard_mix(e->bias_ids[i], seen->key) % RT_GUARD_BIAS_BITS);
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_params_state *s = &account->params;
    const double n = account->n + 4.0, ids = s->biased ? distinct(s->bias_ids) : 0;
    f[0] = (float)(s->top_logprobs / n);
    f[1] = (float)log1p(s->exposure / n);
    f[2] = (float)log1p(ids);
    f[3] = (float)log1p(s->samples / n);
    f[4] = (float)((s->cold + 1) / n);
    f[5] = (float)((s->streamed + 1) / n);
}

const rt_guard_signal rt_guard_signal_params = {
    "params", RT_GUARD_SETTINGS,
    observe,  measure,
    6,        {"top_logprobs", "exposure", "bias_ids", "samples", "cold", "streamed"}};
