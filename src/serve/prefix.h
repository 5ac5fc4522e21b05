/* serve/prefix.h - keys and values of beginnings that slots no longer hold, for prompts that begin alike.
 *
 * A text is cut into blocks of RT_PREFIX_BLOCK tokens; a block hangs from the one before it, so texts with a
 * common beginning share its blocks.  The last block of a text may be a shorter one.  Each scope (an account,
 * or all of them) has a tree of its own: what one scope keeps is found by no other, so the time of an answer
 * tells nothing about another account's prompts.
 *
 * Bytes are bounded.  When there is no room, the scope that holds most loses its least recently used block:
 * an account that asks a lot pushes out what is its own first.  One thread at a time (the engine's). */
#ifndef RT_SERVE_PREFIX_H
#define RT_SERVE_PREFIX_H

#include <stdint.h>

#include "model/session.h"

enum { RT_PREFIX_BLOCK = 32 };

typedef struct rt_prefix_store rt_prefix_store;
typedef struct rt_prefix_node rt_prefix_node;

typedef struct rt_prefix_stats {
    uint64_t hits, tokens; /* texts that began with something kept, and tokens taken from it */
    uint64_t evicted;      /* blocks that had to go */
    size_t bytes, bytes_max;
} rt_prefix_stats;

/* The session is borrowed; bytes_max counts keys, values and what leads to them. */
rt_status rt_prefix_open(rt_prefix_store **out, rt_session *session, size_t bytes_max, rt_error *err);
void rt_prefix_close(rt_prefix_store *store);

/* Keeps the first n tokens of a slot, `ids` their text; what does not fit is left out. */
void rt_prefix_keep(rt_prefix_store *store, uint64_t scope, size_t slot, const int32_t *ids, size_t n);

typedef struct rt_prefix_match { /* good until the next rt_prefix_keep */
    rt_prefix_node *last;
    size_t n; /* tokens, 0: nothing is kept of this text */
} rt_prefix_match;
/* The longest beginning of ids [n] that is kept. */
rt_prefix_match rt_prefix_find(const rt_prefix_store *store, uint64_t scope, const int32_t *ids, size_t n);
/* The slot then holds the match's tokens. */
void rt_prefix_load(rt_prefix_store *store, const rt_prefix_match *match, size_t slot);
rt_prefix_stats rt_prefix_get_stats(const rt_prefix_store *store);

#endif
