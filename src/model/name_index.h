/* model/name_index.h - finds the position of a name in a list.
 *
 * Sorted by hash and searched by halving, so that no choice of names makes it slow, as a hash table
 * with long chains would be.  Names are borrowed. */
#ifndef RT_MODEL_NAME_INDEX_H
#define RT_MODEL_NAME_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rt_name_entry {
    uint64_t hash;
    const char *name;
    size_t size, position;
} rt_name_entry;

typedef struct rt_name_index {
    rt_name_entry *entries;
    size_t count, capacity;
} rt_name_index;

/* Appends a name at position `count`; false when out of memory. */
bool rt_name_index_add(rt_name_index *index, const char *name, size_t size);
/* Sorts; NULL when all names differ, else one that is there twice.  After it no more are added. */
const rt_name_entry *rt_name_index_seal(rt_name_index *index);
bool rt_name_index_find(const rt_name_index *index, const char *name, size_t size, size_t *position);
void rt_name_index_deinit(rt_name_index *index);

/* A foreign name as it may be shown in an error: at most 63 bytes, anything unprintable as '?'. */
const char *rt_name_shown(char out[64], const char *name, size_t size);

#endif
