/* guard/signal_repeat.c - repetition: the same prompt again, nearly the same, or a dialogue going on.
 *
 * A collector has little use for the same prompt twice; programs of honest clients repeat, and people go on
 * from what they asked.  A prompt continues an earlier one when the whole of the earlier one is its
 * beginning, up to the end of a line.  Near duplicates are found by SimHash (Charikar 2002). */
#include "guard/signals.h"

#include <math.h>

enum { NEAR_BITS = 9, SHORTEST_START = 8, TURNS_MAX = 8 };

static uint32_t bytes_of(const rt_guard_digest *d)
{
    return (uint32_t)(d->bytes < UINT32_MAX ? d->bytes : 0);
}

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_repeat_state *s = &account->repeat;
    const rt_guard_digest *d = seen->digest;
    for (size_t i = 0; i < RT_GUARD_RECENT; i++) {
        const uint32_t bytes = s->recent_bytes[i];
        if (bytes == 0 || bytes > d->bytes)
            continue;
        if (bytes == d->bytes)
            seen->repeated |= s->recent[i] == d->start;
        else if (bytes >= SHORTEST_START && !seen->continued &&
                 rt_guard_digest_begins(d, bytes, s->recent[i])) {
            seen->continued = true;
            if (++s->recent_turns[i] >= TURNS_MAX) { /* nobody hides all he asks behind one short beginning */
                s->recent[i] = d->start;
                s->recent_bytes[i] = bytes_of(d);
                s->recent_turns[i] = 0;
            }
        }
    }
    bool near = seen->repeated;
    for (size_t i = 0; i < RT_GUARD_NEAR && !near && !seen->continued && d->n_words >= 6; i++)
        near = s->near[i] && __builtin_popcountll(s->near[i] ^ d->simhash) <= NEAR_BITS;
    if (!seen->continued && !seen->repeated) { /* a dialogue is remembered by its first turn */
        s->recent[account->n % RT_GUARD_RECENT] = d->start;
        s->recent_bytes[account->n % RT_GUARD_RECENT] = bytes_of(d);
        s->recent_turns[account->n % RT_GUARD_RECENT] = 0;
    }
    s->near[account->n % RT_GUARD_NEAR] = d->simhash;
    s->continued += seen->continued;
    s->near_count += near;
    s->lower += d->starts_lower;
    seen->fresh = rt_hll_add(&s->prompts, d->exact) && !seen->continued && !seen->repeated;
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_repeat_state *s = &account->repeat;
    const double n = account->n, distinct = rt_hll_count(&s->prompts);
    f[0] = (float)fmin(1, (distinct + 2) / (n + 2));
    f[1] = (float)(s->near_count / (n + 2));
    f[2] = (float)(s->continued / (n + 2));
    f[3] = (float)((s->lower + 1) / (n + 4));
}

const rt_guard_signal rt_guard_signal_repeat = {
    "repeat", RT_GUARD_FORM, observe, measure, 4, {"distinct", "near", "continued", "lower"}};
