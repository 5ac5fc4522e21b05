/* model/lookup.h - proposals without a model: what followed when the last words were said before.
 *
 * Answers that edit, quote or sum up their prompt say long pieces of it again (prompt lookup: Saxena 2023).
 * An index of pairs of ids finds the places where the text ended in the same ids; the longest agreement is
 * taken, of equal ones the latest. */
#ifndef RT_MODEL_LOOKUP_H
#define RT_MODEL_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

enum { RT_LOOKUP_SHORTEST = 2, RT_LOOKUP_LONGEST = 32 }; /* ids that agree, as far as they are counted */

typedef struct rt_lookup rt_lookup;
rt_status rt_lookup_open(rt_lookup **out, size_t n_positions, rt_error *err);
void rt_lookup_close(rt_lookup *lookup);
void rt_lookup_reset(rt_lookup *lookup); /* for another text */
/* The text so far, n <= n_positions ids; it only grows between resets. */
void rt_lookup_learn(rt_lookup *lookup, const int32_t *ids, size_t n);
/* How many ids at the end of ids[0, n) stood together before, within what was learnt; *next: what followed
 * there.  0: fewer than RT_LOOKUP_SHORTEST.  The first of ids are those that were learnt, n is
 * at least their number. */
size_t rt_lookup_find(const rt_lookup *lookup, const int32_t *ids, size_t n, int32_t *next);

#endif
