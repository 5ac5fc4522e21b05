/* guard/partition.h - was one set of prompts shared out among these accounts, none sent twice?
 *
 * Accounts that draw from one set on their own meet now and then; those of an operator who deals the set out
 * never do, although each meets outsiders who draw from it too.  For each sampled task one pair of its
 * holders is drawn; where that has a member, on the hypothesis that members draw as outsiders do, it lies
 * inside the group with the chance
 *     q = (sum of a_i a_j over pairs of members) / (the same over pairs with a member at all),
 * a: tasks of an account.  The number inside is Poisson-binomial, and p its lower tail: no size of the set
 * has to be known.  A class that works through one sheet meets too often: p near 1. */
#ifndef RT_GUARD_PARTITION_H
#define RT_GUARD_PARTITION_H

#include "guard/sketch.h"
#include "retort/error.h"

typedef struct rt_guard_partition {
    size_t shared;   /* sampled tasks whose drawn pair of holders has a member */
    size_t inside;   /* of them, those where both are members */
    double expected; /* of `inside` */
    double p;        /* chance of so few inside or fewer; 1 where nothing is shared */
} rt_guard_partition;

/* samples[0 .. members) are the group's, the rest, up to n, outsiders'.  RT_NO_MEMORY is the only error. */
rt_status rt_guard_partition_test(rt_guard_partition *out, const rt_hash_sample *const *samples,
                                  size_t members, size_t n, rt_error *err);

#endif
