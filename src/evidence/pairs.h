/* evidence/pairs.h - the scored set: (context, token) pairs, each kept once over everything that is tested
 * together (METHODS-evidence section 3.1).  Without this a text of 15 tokens said eight times gives p = 1e-21
 * instead of 1e-3. */
#ifndef RT_EVIDENCE_PAIRS_H
#define RT_EVIDENCE_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef enum rt_dedup {
    RT_DEDUP_PAIR,    /* "v2": each (context, token) once */
    RT_DEDUP_CONTEXT, /* "v1": each context once, with the token that came first */
    RT_DEDUP_NONE     /* all: shown beside the others to prove that it is wrong */
} rt_dedup;

typedef struct rt_pairs rt_pairs;

/* Contexts of h ids, h <= 16. */
rt_status rt_pairs_open(rt_pairs **out, size_t h, rt_dedup dedup, rt_error *err);
void rt_pairs_close(rt_pairs *pairs);
/* Room to look up the pairs of about so many places: spares the growing. */
rt_status rt_pairs_reserve(rt_pairs *pairs, size_t places, rt_error *err);
/* The pairs of one text: places i >= h. */
rt_status rt_pairs_add(rt_pairs *pairs, const int32_t *ids, size_t n, rt_error *err);
/* One pair: gram [h + 1], the token last. */
rt_status rt_pairs_add_gram(rt_pairs *pairs, const int32_t *gram, rt_error *err);
/* Leaves out every pair, now and later, whose context stands in these ids (marked text in a prompt). */
rt_status rt_pairs_forbid(rt_pairs *pairs, const int32_t *ids, size_t n, rt_error *err);
size_t rt_pairs_context(const rt_pairs *pairs);                   /* h */
size_t rt_pairs_count(const rt_pairs *pairs);                     /* kept */
size_t rt_pairs_seen(const rt_pairs *pairs);                      /* before de-duplication */
const int32_t *rt_pairs_get(const rt_pairs *pairs, size_t index); /* [h + 1], lent until the next add */

#endif
