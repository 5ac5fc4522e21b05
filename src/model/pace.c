/* model/pace.c - see pace.h. */
#include "model/pace.h"

#include <math.h>

#include "base/size.h"

/* What is assumed before anything was seen counts as so many tests. */
#define PRIOR 4.0
#define MEMORY 64.0 /* tests of a bin, or rounds, after which the older ones fade */

void rt_pace_begin(rt_pace *pace, double draft_cost)
{
    static const double assumed[RT_PACE_BINS] = {0.35, 0.5, 0.6,  0.7,  0.8,  0.9, /* by agreement */
                                                 0.15, 0.3, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95};
    *pace = (rt_pace){.draft_cost = draft_cost, .draft_tested = PRIOR, .draft_accepted = 0.7 * PRIOR};
    for (size_t i = 0; i < RT_PACE_BINS; i++) {
        pace->tested[i] = PRIOR;
        pace->accepted[i] = PRIOR * assumed[i];
    }
    /* as if a few rounds had brought two tokens each */
    pace->cost = 4 * (1 + RT_PACE_ROW + fmin(draft_cost, 1));
    pace->tokens = 8;
}

static double proj_bytes(const rt_model *model, const rt_proj *proj)
{
    double bytes = 0;
    for (size_t i = 0; i < proj->n_packed; i++)
        bytes += (double)rt_qmat_bytes(proj->packed[i]);
    return bytes > 0
               ? bytes
               : (double)proj->rows * (double)proj->cols * (double)rt_dtype_get(model->act)->block_bytes;
}

static double pass_bytes(const rt_model *model)
{
    const rt_model_config *c = &model->config;
    double bytes = proj_bytes(model, &model->head);
    for (size_t l = 0; l < c->n_layers; l++) {
        const rt_layer *layer = &model->layers[l];
        const rt_proj *parts[] = {&layer->qkv,  &layer->o,   &layer->gate_up,
                                  &layer->down, &layer->q_b, &layer->kv_b};
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
            bytes += proj_bytes(model, parts[i]);
        for (size_t i = 0; layer->experts && i < 2 * c->experts.used; i++)
            bytes += proj_bytes(model, &layer->experts[i % 2]);
    }
    return bytes;
}

double rt_pace_cost(const rt_model *draft, const rt_model *model)
{
    return pass_bytes(draft) / pass_bytes(model);
}

size_t rt_pace_lookup_bin(size_t agreement)
{
    static const size_t from[RT_PACE_LOOKUP_BINS] = {0, 3, 4, 6, 9, 16};
    size_t bin = RT_PACE_LOOKUP_BINS - 1;
    while (agreement < from[bin])
        bin--;
    return bin;
}

size_t rt_pace_draft_bin(double largest)
{
    static const double from[RT_PACE_DRAFT_BINS] = {0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97};
    size_t bin = RT_PACE_DRAFT_BINS - 1;
    while (bin > 0 && !(largest >= from[bin]))
        bin--;
    return RT_PACE_LOOKUP_BINS + bin;
}

double rt_pace_chance(const rt_pace *pace, size_t bin) { return pace->accepted[bin] / pace->tested[bin]; }

double rt_pace_draft_chance(const rt_pace *pace) { return pace->draft_accepted / pace->draft_tested; }

double rt_pace_gain(const rt_pace *pace, double reach, double chance, double cost)
{
    return reach * chance * pace->cost / pace->tokens - cost;
}

static void add(double *tested, double *accepted, double value)
{
    if (*tested >= MEMORY) {
        *tested *= 0.5;
        *accepted *= 0.5;
    }
    *tested += 1;
    *accepted += value;
}

void rt_pace_learn(rt_pace *pace, size_t bin, double accepted)
{
    add(&pace->tested[bin], &pace->accepted[bin], accepted);
    if (bin >= RT_PACE_LOOKUP_BINS)
        add(&pace->draft_tested, &pace->draft_accepted, accepted);
}

void rt_pace_round(rt_pace *pace, size_t draft_passes, size_t proposals, size_t tokens)
{
    const double keep = 1 - 1 / MEMORY;
    pace->cost =
        keep * pace->cost + 1 + (double)proposals * RT_PACE_ROW + (double)draft_passes * pace->draft_cost;
    pace->tokens = keep * pace->tokens + (double)tokens;
}
