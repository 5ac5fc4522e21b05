/* guard/signal_breadth.c - how wide the questions range: types of task, words, directions.
 *
 * Training sets mix sources: questions beside mathematics, multiple choice, puzzles and code, in shuffled
 * order.  People keep to questions, programs to one type, evaluations run one source after the other. */
#include "guard/signals.h"

#include <math.h>

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_breadth_state *s = &account->breadth;
    const rt_guard_digest *d = seen->digest;
    for (uint32_t i = 0; i < d->n_words; i++)
        (void)rt_hll_add(&s->words, rt_guard_mix(d->words[i], seen->key));
    s->total_words += d->n_words;
    if (seen->continued || seen->repeated)
        return;
    for (size_t k = 0; k < RT_DIGEST_DIMS; k++)
        s->bag[k] += (float)d->bag[k] / d->bag_norm;
    s->bags++;
    if (seen->elicited->best == RT_GUARD_TYPE_follow_up)
        return;
    s->types[seen->elicited->best]++;
    if (s->last_type) {
        s->pairs++;
        s->switches += s->last_type != seen->elicited->best + 1;
    }
    s->last_type = (uint8_t)(seen->elicited->best + 1);
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_breadth_state *s = &account->breadth;
    const double words = (double)s->total_words + 10, distinct = rt_hll_count(&s->words) + 10;
    double square = 0, types = 2, kinds = 0;
    for (size_t k = 0; k < RT_DIGEST_DIMS; k++)
        square += (double)s->bag[k] * (double)s->bag[k];
    for (size_t k = 0; k < RT_GUARD_TYPES; k++)
        types += s->types[k];
    for (size_t k = 0; k < RT_GUARD_TYPES; k++)
        kinds += s->types[k] >= 2 && s->types[k] > 0.03 * types;
    const double b = s->bags;
    const double tasks = s->types[RT_GUARD_TYPE_mathematics] + s->types[RT_GUARD_TYPE_choice] +
                         s->types[RT_GUARD_TYPE_puzzle] + s->types[RT_GUARD_TYPE_code];
    f[0] = rt_guard_entropy(s->types, RT_GUARD_TYPES);
    f[1] = (float)kinds;
    f[2] = (float)(s->switches / (s->pairs + 4.0));
    f[3] = (float)(tasks / types);
    f[4] = (float)((s->types[RT_GUARD_TYPE_question] + 1) / types);
    f[5] = (float)(b > 1 ? (square - b) / (b * (b - 1) + 20) : 0); /* mean cosine of two prompts */
    f[6] = (float)(log(distinct) - 0.7 * log(words));              /* Heaps' law: what is over it */
    f[7] = (float)log(words / (account->n + 1.0));
    f[8] = f[0] * f[2]; /* many types, shuffled */
}

const rt_guard_signal rt_guard_signal_breadth = {
    "breadth",
    RT_GUARD_CONTENT,
    observe,
    measure,
    9,
    {"types", "kinds", "switches", "tasks", "questions", "alike", "vocabulary", "length", "mixed"}};
