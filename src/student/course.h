/* student/course.h - an objective whose numbers change over the steps of a run.
 *
 * A ramp moves one number of one term from a to b while the first `over` of the steps pass, and holds b after
 * that; x is the share of the way:  linear a + (b-a) x;  cosine b + (a-b)(1 + cos pi x)/2.  TAID's weight may
 * instead follow the loss (schedule.h). */
#ifndef RT_STUDENT_COURSE_H
#define RT_STUDENT_COURSE_H

#include "student/loss.h"
#include "student/schedule.h"

typedef enum rt_ramp_of {
    RT_RAMP_WEIGHT,
    RT_RAMP_TAU,
    RT_RAMP_BETA,
    RT_RAMP_ALPHA,
    RT_RAMP_MU,
    RT_RAMP_T
} rt_ramp_of;

typedef struct rt_ramp {
    size_t term;
    rt_ramp_of of;
    double from, to, over; /* over in (0, 1] */
    bool cosine;
} rt_ramp;

enum { RT_RAMPS_MAX = 16 };

typedef struct rt_course { /* plain data; all 0: nothing changes */
    size_t n_ramps;
    rt_ramp ramps[RT_RAMPS_MAX];
    bool adaptive; /* t of term `taid_term` follows rt_taid */
    size_t taid_term;
    rt_taid taid; /* where it begins */
} rt_course;

typedef struct rt_objective { /* what a recipe's `loss` says */
    rt_loss_mix mix;
    rt_course course;
} rt_objective;

/* The mixture of a step (from 0) of `steps`: base with the ramps' values; taid: t where it is adaptive. */
void rt_course_at(rt_loss_mix *out, const rt_loss_mix *base, const rt_course *course, uint64_t step,
                  uint64_t steps, double taid);

#endif
