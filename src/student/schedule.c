/* student/schedule.c - see schedule.h. */
#include "student/schedule.h"

#include <math.h>
#include <string.h>

static bool word_index(int *out, const char *name, const char *const *words, int count)
{
    for (*out = 0; *out < count; ++*out)
        if (strcmp(name, words[*out]) == 0)
            return true;
    return false;
}

bool rt_schedule_kind_from_name(rt_schedule_kind *out, const char *name)
{
    static const char *const words[] = {"constant", "linear", "cosine", "wsd"};
    int index;
    const bool found = word_index(&index, name, words, 4);
    if (found)
        *out = (rt_schedule_kind)index;
    return found;
}

bool rt_decay_shape_from_name(rt_decay_shape *out, const char *name)
{
    static const char *const words[] = {"linear", "sqrt", "cosine"};
    int index;
    const bool found = word_index(&index, name, words, 3);
    if (found)
        *out = (rt_decay_shape)index;
    return found;
}

static double shape_at(rt_decay_shape shape, double x)
{
    switch (shape) {
    case RT_DECAY_LINEAR:
        return 1 - x;
    case RT_DECAY_SQRT:
        return 1 - sqrt(x);
    default:
        return 0.5 * (1 + cos(3.14159265358979323846 * x));
    }
}

/* The share of the way from `from` over `length` steps, in [0, 1]. */
static double way(uint64_t step, uint64_t from, uint64_t length)
{
    if (step < from)
        return 0;
    const double x = (double)(step - from) / (double)(length > 0 ? length : 1);
    return x < 1 ? x : 1;
}

double rt_schedule_at(const rt_schedule *s, uint64_t step)
{
    if (step < s->warmup)
        return (double)step / (double)s->warmup;
    const uint64_t after_warmup = s->total > s->warmup ? s->total - s->warmup : 0;
    double value = 1;
    switch (s->kind) {
    case RT_SCHEDULE_CONSTANT:
        return 1;
    case RT_SCHEDULE_LINEAR:
        value = shape_at(RT_DECAY_LINEAR, way(step, s->warmup, after_warmup));
        break;
    case RT_SCHEDULE_COSINE:
        value = shape_at(RT_DECAY_COSINE, way(step, s->warmup, after_warmup));
        break;
    case RT_SCHEDULE_WSD: {
        const uint64_t from = s->total > s->decay ? s->total - s->decay : 0;
        if (step < from)
            return 1;
        value = shape_at(s->shape, way(step, from, s->decay));
        break;
    }
    }
    return s->floor + (1 - s->floor) * value;
}

rt_taid rt_taid_make(double t_start, double t_end, double alpha, double momentum, uint64_t total)
{
    return (rt_taid){.t_start = t_start,
                     .t_end = t_end,
                     .alpha = alpha,
                     .momentum = momentum,
                     .total = total > 0 ? total : 1,
                     .t = t_start};
}

void rt_taid_observe(rt_taid *a, double loss)
{
    if (a->step > 0) {
        a->mean = a->momentum * a->mean + (1 - a->momentum) * (a->last_loss - loss) / (a->last_loss + 1e-15);
        const double line = a->t_start + (a->t_end - a->t_start) * ((double)a->step / (double)a->total);
        const double faster = a->t + a->alpha / (1 + exp(-a->mean)) * (1 - a->t);
        a->t = fmin(a->t_end, fmax(line, faster));
    }
    a->last_loss = loss;
    a->step++;
}
