/* judge/eval_speed.c - how fast a model decodes, one token after the other. */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/size.h"
#include "judge/eval.h"
#include "model/session.h"

enum { PROMPT_TOKENS = 32, POSITIONS = 256, WARM_UP = 4, KEPT = 1024 };

static int32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* Back to the prompt when the slot is full, so that the context stays short. */
static rt_status step(rt_session *session, const rt_model *model, size_t prompt, float *logits, rt_error *err)
{
    const size_t slot = 0;
    if (rt_session_length(session, slot) == rt_session_capacity(session))
        rt_session_truncate(session, slot, prompt);
    const int32_t id = likeliest(logits, model->config.n_vocab);
    return rt_session_decode(session, &slot, &id, 1, logits, err);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static rt_status run(double *tokens_per_s, rt_session *session, const rt_model *model, const int32_t *ids,
                     size_t prompt, double seconds, float *logits, rt_error *err)
{
    double kept[KEPT]; /* the latest tokens' times */
    if (rt_session_prefill(session, 0, ids, prompt, logits, err) != RT_OK)
        return err->status;
    const double begun = rt_clock_seconds();
    double before = begun;
    size_t n = 0;
    while (n < WARM_UP + 1 || before - begun < seconds) {
        if (step(session, model, prompt, logits, err) != RT_OK)
            return err->status;
        const double now = rt_clock_seconds();
        kept[n++ % KEPT] = now - before;
        before = now;
    }
    const size_t first = n <= KEPT ? WARM_UP : 0, count = rt_size_min(n, KEPT) - first;
    qsort(kept + first, count, sizeof *kept, compare);
    *tokens_per_s = 1 / rt_quantile(kept + first, count, 0.5);
    return RT_OK;
}

rt_status rt_eval_speed(double *tokens_per_s, const rt_model *model, const int32_t *ids, size_t n,
                        double seconds, rt_error *err)
{
    *tokens_per_s = (double)NAN;
    rt_session *session;
    if (rt_session_open(&session, model, 1, POSITIONS, err) != RT_OK)
        return err->status;
    const size_t room = rt_session_capacity(session) > 1 ? rt_session_capacity(session) - 1 : 1;
    const size_t prompt = rt_size_min(rt_size_min(n, PROMPT_TOKENS), room);
    float *logits = calloc(model->config.n_vocab, sizeof *logits);
    const rt_status status = logits ? run(tokens_per_s, session, model, ids, prompt, seconds, logits, err)
                                    : rt_error_set(err, RT_NO_MEMORY, "no memory for the logits of a token");
    free(logits);
    rt_session_close(session);
    return status;
}
