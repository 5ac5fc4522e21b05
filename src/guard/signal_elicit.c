/* guard/signal_elicit.c - what the prompts want besides an answer: reasoning, grades, harder tasks.
 *
 * The classifier gives each prompt a probability for each want.  Tutors and evaluations ask for steps too,
 * so the width of the tasks that are asked about in this way stands beside the share. */
#include "guard/signals.h"

#include <math.h>

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_elicit_state *s = &account->elicit;
    bool any = false;
    if (seen->continued || seen->repeated) /* what a dialogue holds was asked for once */
        return;
    s->begun++;
    for (size_t k = 0; k < RT_GUARD_WANTS; k++) {
        s->wants[k] += seen->elicited->want[k];
        any |= seen->elicited->want[k] > 0.5F;
    }
    s->any += any;
    if (any && seen->fresh)
        rt_guard_spread_add(&s->any_types, seen->elicited);
    s->recent_any += ((float)any - s->recent_any) * 0.00346F; /* 1 - 2^(-1/200) */
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_elicit_state *s = &account->elicit;
    const float n = (float)s->begun + 4, *w = s->wants;
    f[0] = w[RT_GUARD_WANT_trace] / n;
    f[1] = (w[RT_GUARD_WANT_grade] + w[RT_GUARD_WANT_compare]) / n;
    f[2] = (w[RT_GUARD_WANT_evolve] + w[RT_GUARD_WANT_generate]) / n;
    f[3] = w[RT_GUARD_WANT_wrapper] / n;
    f[4] = w[RT_GUARD_WANT_agent] / n;
    f[5] = (float)s->any / n;
    f[6] = rt_guard_spread_value(&s->any_types) * (float)s->any / n;
    f[7] = log1pf((float)s->any);
}

const rt_guard_signal rt_guard_signal_elicit = {
    "elicit", RT_GUARD_CONTENT,
    observe,  measure,
    8,        {"trace", "grade", "evolve", "wrapper", "agent", "any", "any_types", "count"}};
