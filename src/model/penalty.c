/* model/penalty.c - see penalty.h. */
#include "model/penalty.h"

#include <math.h>
#include <stdbool.h>

static bool inside(int32_t id, size_t n_vocab) { return id >= 0 && (size_t)id < n_vocab; }

static void repeat(double penalty, float *z)
{
    *z = (float)(*z > 0 ? (double)*z / penalty : (double)*z * penalty);
}

/* Each id once: a count of zero tells that an id has been dealt with. */
static void penalise_repetition(double penalty, float *logits, size_t n_vocab, const int32_t *ids, size_t n,
                                uint32_t *counts)
{
    for (size_t i = 0; i < n; i++) {
        if (!inside(ids[i], n_vocab) || counts[ids[i]])
            continue;
        counts[ids[i]] = 1;
        repeat(penalty, &logits[ids[i]]);
    }
}

static void clear(uint32_t *counts, size_t n_vocab, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (inside(ids[i], n_vocab))
            counts[ids[i]] = 0;
}

static void penalise_answer(const rt_penalties *how, float *logits, size_t n_vocab, const int32_t *ids,
                            size_t n, uint32_t *counts)
{
    for (size_t i = 0; i < n; i++)
        if (inside(ids[i], n_vocab))
            counts[ids[i]]++;
    for (size_t i = 0; i < n; i++) {
        if (!inside(ids[i], n_vocab) || counts[ids[i]] == 0)
            continue;
        logits[ids[i]] -= (float)(how->frequency * counts[ids[i]] + how->presence);
        counts[ids[i]] = 0;
    }
}

void rt_penalise(const rt_penalties *how, float *logits, size_t n_vocab, const int32_t *prompt,
                 size_t n_prompt, const int32_t *answer, size_t n_answer, uint32_t *counts)
{
    if (how->repetition != 1) {
        penalise_repetition(how->repetition, logits, n_vocab, prompt, n_prompt, counts);
        penalise_repetition(how->repetition, logits, n_vocab, answer, n_answer, counts);
        clear(counts, n_vocab, prompt, n_prompt);
        clear(counts, n_vocab, answer, n_answer);
    }
    if (how->frequency != 0 || how->presence != 0)
        penalise_answer(how, logits, n_vocab, answer, n_answer, counts);
    for (size_t i = 0; i < how->n_biases; i++) {
        float *z = &logits[how->biases[i].id];
        *z = how->biases[i].bias <= -100 ? -INFINITY : *z + how->biases[i].bias;
    }
}
