/* evidence/look.h - what look.c and look_foreign.c share: one place of a reading; see subject.h. */
#ifndef RT_EVIDENCE_LOOK_H
#define RT_EVIDENCE_LOOK_H

#include "evidence/subject.h"

typedef struct rt_place { /* the suspect's distribution, of all ids or of those listed */
    const int32_t *ids;   /* [n]; NULL: 0 .. n-1 */
    const float *p;       /* [n] */
    const float *other;   /* the reference's, by id; NULL: none */
    size_t n;
} rt_place;

/* Adds the place after `context` to the sums.  RT_NOT_FINITE when a probability is no number. */
rt_status rt_look_place(rt_look *look, const int32_t *context, const rt_place *at, rt_error *err);
/* Does the window of h ids before `end` stand earlier in ids? */
bool rt_look_seen_before(const int32_t *ids, size_t end, size_t h);
/* After the last place.  RT_INVALID when there was none. */
rt_status rt_look_end(rt_look *look, rt_error *err);

#endif
