/* evidence/reading.h - pooled sums over (context, token): a(c, v) += P_S(v) - P_B(v), and the test
 * T = sum a (s(c, v) - mu) of METHODS-evidence sections 4.1 (difference form) and 4.3.
 *
 * The s(c, v) are the only random things under H0, so the test is valid for any S and any B; repetitions add
 * into a, and the variance accounts for them. */
#ifndef RT_EVIDENCE_READING_H
#define RT_EVIDENCE_READING_H

#include "evidence/score.h"

typedef struct rt_reading rt_reading;

rt_status rt_reading_open(rt_reading **out, size_t h, rt_error *err); /* contexts of h ids */
void rt_reading_close(rt_reading *reading);
/* a(context, token) += a.  RT_INVALID for a number that is not finite. */
rt_status rt_reading_add(rt_reading *reading, const int32_t *context, int32_t token, double a, rt_error *err);
size_t rt_reading_count(const rt_reading *reading);    /* (context, token) entries */
size_t rt_reading_contexts(const rt_reading *reading); /* distinct contexts */
/* Drops entries with |a| < least and gets ready for tests; nothing can be added afterwards. */
rt_status rt_reading_freeze(rt_reading *reading, double least, rt_error *err);

typedef struct rt_reading_result {
    size_t n; /* entries */
    double statistic, variance, z, log10_p;
} rt_reading_result;
/* For the scorer's key: a native scheme with the reading's h.  All a = 0 (S is B): variance 0, p = 1. */
rt_status rt_reading_test(const rt_reading *reading, const rt_scorer *scorer, rt_reading_result *out,
                          rt_error *err);

#endif
