/* outputs/idmap.h - a map from names to numbers that keeps 24 bytes a name, for millions of rows.
 *
 * A name is held as 128 bits of hash (XXH3): two of a million million names meet with a chance of 1e-15. */
#ifndef RT_OUTPUTS_IDMAP_H
#define RT_OUTPUTS_IDMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_idkey {
    uint64_t low, high;
} rt_idkey;
rt_idkey rt_idkey_of(const char *name, size_t size);

typedef struct rt_idmap { /* zero is an empty map */
    struct rt_idmap_entry {
        rt_idkey key;
        uint64_t value; /* 0: a free place */
    } * entries;
    size_t count, capacity; /* capacity is a power of two */
} rt_idmap;

/* Room for `count` names without growing again. */
rt_status rt_idmap_reserve(rt_idmap *map, size_t count, rt_error *err);
/* 0 when the name is not there. */
uint64_t rt_idmap_get(const rt_idmap *map, rt_idkey key);
/* value > 0; replaces. */
rt_status rt_idmap_put(rt_idmap *map, rt_idkey key, uint64_t value, rt_error *err);
void rt_idmap_deinit(rt_idmap *map);

#endif
