/* model/router.c - see router.h. */
#include "model/router.h"

#include <math.h>
#include <string.h>

static void scores_of(float *scores, const float *logits, const rt_expert_config *c)
{
    const size_t n = c->count;
    if (c->router == RT_ROUTER_SIGMOID) {
        for (size_t i = 0; i < n; i++)
            scores[i] = 1 / (1 + expf(-logits[i]));
        return;
    }
    float top = logits[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        top = logits[i] > top ? logits[i] : top;
    for (size_t i = 0; i < n; i++) {
        scores[i] = expf(logits[i] - top);
        sum += (double)scores[i];
    }
    for (size_t i = 0; i < n; i++)
        scores[i] = (float)((double)scores[i] / sum);
}

static float best_two(const float *choice, size_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return first + second;
}

/* Experts of all but the best groups can no longer be chosen. */
static void keep_groups(float *choice, const rt_expert_config *c)
{
    const size_t size = c->count / c->groups;
    bool keep[4096] = {false}; /* groups have two experts or more, and there are at most so many of those */
    for (size_t k = 0; k < c->groups_used; k++) {
        size_t best = c->groups;
        float most = 0;
        for (size_t g = 0; g < c->groups; g++) {
            const float score = keep[g] ? 0 : best_two(choice + g * size, size);
            if (!keep[g] && (best == c->groups || score > most)) {
                best = g;
                most = score;
            }
        }
        keep[best] = true;
    }
    for (size_t g = 0; g < c->groups; g++)
        for (size_t i = 0; i < size && !keep[g]; i++)
            choice[g * size + i] = -INFINITY;
}

static uint32_t take_best(float *choice, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (choice[i] != -INFINITY && (best == n || choice[i] > choice[best]))
            best = i;
    best = best == n ? 0 : best;
    choice[best] = -INFINITY;
    return (uint32_t)best;
}

static void insert_rising(uint32_t *ids, size_t n, uint32_t id)
{
    while (n > 0 && ids[n - 1] > id) {
        ids[n] = ids[n - 1];
        n--;
    }
    ids[n] = id;
}

static double sum_of(const float *scores, const uint32_t *ids, size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += (double)scores[ids[j]];
    return sum + 1e-20;
}

static void weigh(float *weights, const uint32_t *ids, const float *scores, const rt_expert_config *c)
{
    const double sum = c->normalised ? sum_of(scores, ids, c->used) : 1;
    for (size_t j = 0; j < c->used; j++)
        weights[j] = (float)(c->scale * (double)scores[ids[j]] / sum);
}

void rt_router_choose(uint32_t *ids, float *weights, const float *logits, const float *bias,
                      const rt_expert_config *c, float *room)
{
    float *scores = room, *choice = room + c->count;
    scores_of(scores, logits, c);
    for (size_t i = 0; i < c->count; i++)
        choice[i] = scores[i] + (bias ? bias[i] : 0);
    if (c->groups > 1)
        keep_groups(choice, c);
    for (size_t j = 0; j < c->used; j++)
        insert_rising(ids, j, take_best(choice, c->count));
    weigh(weights, ids, scores, c);
}

void rt_router_weigh(float *weights, const uint32_t *ids, const float *logits, const rt_expert_config *c,
                     float *room)
{
    scores_of(room, logits, c);
    weigh(weights, ids, room, c);
}

/* With s the scores and S their sum over the chosen, dL/ds_j = scale (g_j - sum g s / S) / S when normalised,
 * else scale g_j.  Then through the sigmoid, or through the softmax over all experts. */
void rt_router_backward(float *dlogits, const float *dweights, const float *logits, const uint32_t *ids,
                        const rt_expert_config *c)
{
    float *scores = dlogits; /* replaced one by one */
    scores_of(scores, logits, c);
    double sum = 1, mean = 0, inner = 0, chosen[4096], ds[4096]; /* used <= count <= 4096 */
    if (c->normalised) {
        sum = sum_of(scores, ids, c->used);
        for (size_t j = 0; j < c->used; j++)
            mean += (double)dweights[j] * (double)scores[ids[j]] / sum;
    }
    for (size_t j = 0; j < c->used; j++) {
        chosen[j] = (double)scores[ids[j]];
        ds[j] = c->scale * ((double)dweights[j] - mean) / sum;
        inner += ds[j] * chosen[j];
    }
    if (c->router == RT_ROUTER_SOFTMAX) {
        for (size_t i = 0; i < c->count; i++)
            dlogits[i] = (float)(-(double)scores[i] * inner);
        for (size_t j = 0; j < c->used; j++)
            dlogits[ids[j]] = (float)(chosen[j] * (ds[j] - inner));
        return;
    }
    memset(dlogits, 0, c->count * sizeof *dlogits);
    for (size_t j = 0; j < c->used; j++)
        dlogits[ids[j]] = (float)(ds[j] * chosen[j] * (1 - chosen[j]));
}
