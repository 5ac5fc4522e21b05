/* model/tokenizer_prefix.h - a sorted set of strings, walked byte by byte: which of them begin here?
 *
 * A walk keeps the range of strings that agree with the bytes seen so far and narrows it by halving,
 * so that no choice of strings makes it slow.  Strings are borrowed. */
#ifndef RT_MODEL_TOKENIZER_PREFIX_H
#define RT_MODEL_TOKENIZER_PREFIX_H

#include "retort/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RT_PREFIX_BYTES_MAX = 4096 }; /* of one string: bounds the work at each position of a text */

typedef struct rt_prefix_entry {
    const char *text;
    uint32_t size;
    int32_t value;
} rt_prefix_entry;

typedef struct rt_prefix_set {
    rt_prefix_entry *entries;
    size_t count;
    uint32_t first[257]; /* where the strings with each first byte begin */
} rt_prefix_set;

typedef struct rt_prefix_walk {
    size_t low, high, depth;
} rt_prefix_walk;

/* Takes `entries` (malloc'd, also on failure); empty strings are left out, of equal ones the lowest
 * value stays. */
rt_status rt_prefix_init(rt_prefix_set *set, rt_prefix_entry *entries, size_t count, rt_error *err);
void rt_prefix_deinit(rt_prefix_set *set);

/* Starts a walk, or goes on with one, by one byte; false when no string agrees. */
bool rt_prefix_start(const rt_prefix_set *set, rt_prefix_walk *walk, char byte);
bool rt_prefix_step(const rt_prefix_set *set, rt_prefix_walk *walk, char byte);
/* The value of the string that ends here, or -1. */
static inline int32_t rt_prefix_value(const rt_prefix_set *set, const rt_prefix_walk *walk)
{
    const rt_prefix_entry *entry = &set->entries[walk->low];
    return entry->size == walk->depth ? entry->value : -1;
}

#endif
