/* guard/signal_link.c - what links look at: presence in time, samples of prompts, fillers and templates.
 *
 * It has no features of its own; link.c compares the states of two accounts. */
#include "guard/signals.h"

#include <math.h>

enum { TASK_WORDS = 8 }; /* shorter ones are alike by chance */

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_link_state *s = &account->link;
    const rt_guard_digest *d = seen->digest;
    const size_t bin = (size_t)fmod(seen->event->ts / 600, RT_GUARD_PRESENCE_BITS);
    s->presence[bin / 8] |= (uint8_t)(1U << (bin % 8));
    if (seen->continued)
        return;
    rt_hash_sample_add(&s->prompts, (uint32_t)(rt_guard_mix(d->exact, seen->key) >> 32));
    /* the middle of what stands inside the account's wrapper: the task itself, whatever is round it */
    const uint32_t begin = seen->task.begin, end = seen->task.end;
    if (end >= begin + TASK_WORDS) {
        uint64_t h = seen->key;
        for (uint32_t i = (begin + end) / 2 - 2; i < (begin + end) / 2 + 2; i++)
            h = (h ^ d->words[i]) * 0x9e3779b97f4a7c15ULL;
        rt_hash_sample_add(&s->fillers, (uint32_t)(rt_guard_mix(h, seen->key) >> 32));
    }
    if (d->heads[0])
        rt_hash_sample_add(&s->templates, d->heads[0]);
}

static void measure(const rt_guard_account *account, float *f)
{
    (void)account;
    (void)f;
}

const rt_guard_signal rt_guard_signal_link = {"link", RT_GUARD_CONDUCT, observe, measure, 0, {0}};
