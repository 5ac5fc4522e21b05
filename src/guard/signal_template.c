/* guard/signal_template.c - one wrapper round many texts.
 *
 * A prompt is covered when its first or last four words had opened or closed at least three earlier ones.
 * Honest programs are covered too; what sets a collector apart is that what stands inside the wrapper is of
 * many types.  A dialogue's next turns and repeats do not count. */
#include "guard/signals.h"

#include <math.h>

enum { OFTEN = 3 };

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_template_state *s = &account->template;
    const rt_guard_digest *d = seen->digest;
    if (seen->continued || seen->repeated)
        return;
    s->judged++;
    if (d->n_words)
        s->frame_share += 1 - (float)(seen->task.end - seen->task.begin) / (float)d->n_words;
    uint32_t most = 0;
    if (d->heads[0])
        most = rt_frequent_add(&s->heads, d->heads[0]);
    if (d->heads[1])
        (void)rt_frequent_add(&s->long_heads, d->heads[1]);
    if (d->tails[0]) {
        const uint32_t tail = rt_frequent_add(&s->tails, d->tails[0]);
        most = tail > most ? tail : most;
    }
    if (most >= OFTEN) {
        s->covered++;
        if (seen->fresh)
            rt_guard_spread_add(&s->covered_types, seen->elicited);
    }
}

static double top_share(const rt_frequent *frequent, double n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < RT_FREQUENT_ITEMS; i++)
        if (frequent->counts[i] - frequent->over[i] > (int)most)
            most = (uint32_t)(frequent->counts[i] - frequent->over[i]);
    return most / n;
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_template_state *s = &account->template;
    const double n = s->judged + 4.0;
    const double heads = top_share(&s->heads, n), tails = top_share(&s->tails, n);
    uint32_t wrappers[RT_FREQUENT_ITEMS] = {0};
    for (size_t i = 0; i < RT_FREQUENT_ITEMS; i++)
        if (s->heads.counts[i] - s->heads.over[i] > OFTEN)
            wrappers[i] = (uint32_t)(s->heads.counts[i] - s->heads.over[i]);
    f[0] = (float)(s->covered / n);
    f[1] = (float)fmax(heads, tails);
    f[2] = rt_guard_entropy(wrappers, RT_FREQUENT_ITEMS);
    f[3] = rt_guard_spread_value(&s->covered_types) * (float)(s->covered / n);
    f[4] = (float)top_share(&s->long_heads, n);
    f[5] = (float)((double)s->frame_share / n);
}

const rt_guard_signal rt_guard_signal_template = {
    "template", RT_GUARD_FORM,
    observe,    measure,
    6,          {"share", "top", "variety", "filler_types", "long_top", "frame"}};
