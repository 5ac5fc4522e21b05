/* guard/drift.h - does the reference still fit?  P-values of benign accounts are uniform while it does.
 *
 * Each closed block (evalue.h) of an account leaves its p in a histogram of its week and use class.  What is
 * told is the largest distance of their distribution from the uniform one (Kolmogorov and Smirnov, at the
 * bins' borders).  A few collectors among many accounts move it little; a change of the whole traffic moves
 * it much. */
#ifndef RT_GUARD_DRIFT_H
#define RT_GUARD_DRIFT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "guard/reference.h"

enum { RT_GUARD_DRIFT_WEEKS = 26, RT_GUARD_DRIFT_BINS = 20, RT_GUARD_DRIFT_LEAST = 50 };

typedef struct rt_guard_drift_week {
    int32_t week; /* of the traffic's time, counted from 1970; 0: not used */
    uint32_t bins[RT_GUARD_CLASSES][RT_GUARD_DRIFT_BINS];
} rt_guard_drift_week;

typedef struct rt_guard_drift { /* zeroed: nothing seen; plain bytes, part of the saved state */
    rt_guard_drift_week weeks[RT_GUARD_DRIFT_WEEKS];
} rt_guard_drift;

void rt_guard_drift_add(rt_guard_drift *drift, double ts, int use_class, double p);

typedef struct rt_guard_drift_figure {
    uint64_t n;      /* closed blocks */
    double distance; /* largest, from uniform */
    double excess;   /* share with p under 5 %, less 5 % */
    double allowed;  /* the distance from which on it is said that the reference does not fit */
    bool alarm;      /* n is at least RT_GUARD_DRIFT_LEAST and the distance is more than is allowed */
} rt_guard_drift_figure;
/* n_benign: how many benign scores the p-values were taken from, whose own scatter is allowed for. */
rt_guard_drift_figure rt_guard_drift_judge(const uint32_t bins[RT_GUARD_DRIFT_BINS], size_t n_benign);
/* {classes: [{class, n, distance, excess, allowed, alarm, bins, benign, p_least, sentence, weeks: [{start, n,
 * distance, alarm}]}]}; the caller owns it. */
json_t *rt_guard_drift_json(const rt_guard_drift *drift, const rt_guard_reference *reference);

#endif
