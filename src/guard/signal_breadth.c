/* guard/signal_breadth.c - how wide the questions range: types of task, words, directions.
 *
 * Training sets mix sources: questions beside mathematics, multiple choice, puzzles and code, in shuffled
 * order.  People keep to questions, programs to one type, evaluations run one source after the other. */
#include "guard/signals.h"

#include <math.h>
#include <string.h>

static void add_bag(rt_guard_breadth_state *s, const rt_guard_digest *d, rt_guard_range task)
{
    int32_t sums[RT_GUARD_BAG] = {0};
    float norm = 0;
    for (uint32_t i = task.begin; i < task.end; i++)
        sums[d->words[i] & (RT_GUARD_BAG - 1)] += (d->words[i] >> 30) & 1 ? 1 : -1;
    for (size_t k = 0; k < RT_GUARD_BAG; k++)
        norm += (float)(sums[k] * sums[k]);
    norm = 1 / sqrtf(fmaxf(norm, 1));
    for (size_t k = 0; k < RT_GUARD_BAG; k++)
        s->bag[k] += (float)sums[k] * norm;
    s->bags++;
}

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_breadth_state *s = &account->breadth;
    const rt_guard_digest *d = seen->digest;
    float groups[RT_GUARD_GROUPS], distance = 0, before = 0;
    if (!seen->fresh)
        return;
    for (uint32_t i = seen->task.begin; i < seen->task.end; i++)
        (void)rt_hll_add(&s->words, rt_guard_mix(d->words[i], seen->key));
    s->total_words += seen->task.end - seen->task.begin;
    add_bag(s, d, seen->task);
    if (rt_guard_groups(groups, seen->elicited) < 0.5F)
        return;
    rt_guard_spread_add(&s->types, seen->elicited);
    for (size_t k = 0; k < RT_GUARD_GROUPS; k++) {
        distance += fabsf(groups[k] - s->last[k]) / 2;
        before += s->last[k];
    }
    if (before > 0) {
        s->pairs++;
        s->switches += distance;
    }
    memcpy(s->last, groups, sizeof groups);
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_breadth_state *s = &account->breadth;
    const double words = (double)s->total_words + 10, distinct = rt_hll_count(&s->words) + 10;
    const float *mass = s->types.mass;
    double square = 0, types = 2, kinds = 0;
    for (size_t k = 0; k < RT_GUARD_BAG; k++)
        square += (double)s->bag[k] * (double)s->bag[k];
    for (size_t k = 0; k < RT_GUARD_GROUPS; k++)
        types += (double)mass[k];
    for (size_t k = 0; k < RT_GUARD_GROUPS; k++)
        kinds += fmin(1, fmax(0, (double)mass[k] / 2 - 0.5)) * fmin(1, (double)mass[k] / (0.06 * types));
    const double b = s->bags;
    f[0] = rt_guard_spread_value(&s->types);
    f[1] = (float)kinds;
    f[2] = s->switches / ((float)s->pairs + 4);
    f[3] = (float)((double)(mass[1] + mass[2] + mass[3] + mass[4]) / types);
    f[4] = (float)((double)(mass[0] + 1) / types);
    f[5] = (float)(b > 1 ? (square - b) / (b * (b - 1) + 20) : 0); /* mean cosine of two tasks */
    f[6] = (float)(log(distinct) - 0.7 * log(words));              /* Heaps' law: what is over it */
    f[7] = (float)log(words / (b + 1.0));
    f[8] = f[0] * f[2];             /* many types, shuffled */
    f[9] = (float)log1p(types - 2); /* by how many new prompts */
}

const rt_guard_signal rt_guard_signal_breadth = {
    "breadth",
    RT_GUARD_CONTENT,
    observe,
    measure,
    10,
    {"types", "kinds", "switches", "tasks", "questions", "alike", "vocabulary", "length", "mixed", "fresh"}};
