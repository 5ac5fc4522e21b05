/* guard/link.h - do two accounts belong to one operator?  Evidence as log-likelihood ratios with base rates.
 *
 * Candidate pairs come from shared keys only (an address, a payer, an hour of creation, a frequent wrapper),
 * never from all pairs, and a key that too many accounts share brings none.  Base rates are counted in the
 * traffic itself: sharing an address that five accounts use says much, one that five hundred use says
 * nothing. */
#ifndef RT_GUARD_LINK_H
#define RT_GUARD_LINK_H

#include "guard/guard.h"

/* Nats over which a pair is an edge. */
#define RT_GUARD_EDGE_MIN 1.0

typedef struct rt_guard_link { /* log-likelihood ratios, nats; `total` is their sum with the prior */
    float address, payer, created, client, content, wrappers, overlap, presence, total;
    uint32_t shared_addresses; /* that no more than a few accounts use */
} rt_guard_link;

/* Base rates of one sweep. */
typedef struct rt_guard_links rt_guard_links;
rt_status rt_guard_links_open(rt_guard_links **out, const rt_guard *guard, rt_error *err);
void rt_guard_links_close(rt_guard_links *links);
rt_guard_link rt_guard_link_of(const rt_guard_links *links, size_t a, size_t b);

/* Calls visit for each candidate pair a < b, once for each key that they share. */
typedef void (*rt_guard_on_pair)(void *context, size_t a, size_t b);
void rt_guard_links_candidates(const rt_guard_links *links, rt_guard_on_pair visit, void *context);

#endif
