/* student/course.c - see course.h. */
#include "student/course.h"

#include <math.h>

static double *number_of(rt_loss_mix *mix, const rt_ramp *ramp)
{
    rt_loss_spec *spec = &mix->terms[ramp->term].spec;
    switch (ramp->of) {
    case RT_RAMP_WEIGHT:
        return &mix->terms[ramp->term].weight;
    case RT_RAMP_TAU:
        return &spec->tau;
    case RT_RAMP_BETA:
        return &spec->beta;
    case RT_RAMP_ALPHA:
        return &spec->alpha;
    case RT_RAMP_MU:
        return &spec->mu;
    default:
        return &spec->t;
    }
}

static double ramp_at(const rt_ramp *r, uint64_t step, uint64_t steps)
{
    const double length = r->over * (double)(steps > 1 ? steps - 1 : 1);
    const double x = (double)step < length ? (double)step / length : 1;
    if (r->cosine)
        return r->to + (r->from - r->to) * 0.5 * (1 + cos(3.14159265358979323846 * x));
    return r->from + (r->to - r->from) * x;
}

void rt_course_at(rt_loss_mix *out, const rt_loss_mix *base, const rt_course *course, uint64_t step,
                  uint64_t steps, double taid)
{
    *out = *base;
    for (size_t i = 0; i < course->n_ramps; i++)
        *number_of(out, &course->ramps[i]) = ramp_at(&course->ramps[i], step, steps);
    if (course->adaptive)
        out->terms[course->taid_term].spec.t = taid;
}
