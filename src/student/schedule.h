/* student/schedule.h - the multiplier of the learning rate at each step, and TAID's interpolation weight.
 *
 * Step s counts from 0.  Warm-up gives s/warmup, so the first step of a warmed-up run has rate 0, as in
 * transformers.  After it, with x the share of the way (floor f: f + (1-f) * shape):
 *   constant 1;  linear 1-x;  cosine (1 + cos(pi x))/2;  wsd: 1, then over the last `decay` steps the decay's
 * shape */
#ifndef RT_STUDENT_SCHEDULE_H
#define RT_STUDENT_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum rt_schedule_kind {
    RT_SCHEDULE_CONSTANT,
    RT_SCHEDULE_LINEAR,
    RT_SCHEDULE_COSINE,
    RT_SCHEDULE_WSD
} rt_schedule_kind;

typedef enum rt_decay_shape {
    RT_DECAY_LINEAR,
    RT_DECAY_SQRT /* 1 - sqrt x */,
    RT_DECAY_COSINE
} rt_decay_shape;

typedef struct rt_schedule {
    rt_schedule_kind kind;
    rt_decay_shape shape;          /* of WSD */
    uint64_t warmup, total, decay; /* steps; decay of WSD */
    double floor;                  /* [0, 1]: where the decay ends */
} rt_schedule;

bool rt_schedule_kind_from_name(rt_schedule_kind *out,
                                const char *name); /* "constant", "linear", "cosine", "wsd" */
bool rt_decay_shape_from_name(rt_decay_shape *out, const char *name); /* "linear", "sqrt", "cosine" */
double rt_schedule_at(const rt_schedule *schedule, uint64_t step);

/* TAID (METHODS 2): t moves from t_start to t_end at least linearly, faster while the loss falls.  Plain
 * data: a checkpoint stores the struct. */
typedef struct rt_taid {
    double t_start, t_end, alpha, momentum;
    uint64_t total; /* steps of the linear path */
    uint64_t step;  /* losses seen */
    double t;       /* the weight to use now */
    double mean, last_loss;
} rt_taid;
rt_taid rt_taid_make(double t_start, double t_end, double alpha, double momentum, uint64_t total);
void rt_taid_observe(rt_taid *taid, double loss); /* the loss of the step that used taid->t */

#endif
