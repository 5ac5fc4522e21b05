/* model/name_index.c - see name_index.h. */
#include "model/name_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

bool rt_name_index_add(rt_name_index *index, const char *name, size_t size)
{
    if (index->count == index->capacity) {
        const size_t capacity = index->capacity + index->capacity / 2 + 16;
        size_t bytes;
        rt_name_entry *entries = NULL;
        if (rt_size_mul(capacity, sizeof *entries, &bytes))
            entries = realloc(index->entries, bytes);
        if (!entries)
            return false;
        index->entries = entries;
        index->capacity = capacity;
    }
    index->entries[index->count] = (rt_name_entry){rt_hash64(name, size, 0), name, size, index->count};
    index->count++;
    return true;
}

static int compare_names(const rt_name_entry *a, const rt_name_entry *b)
{
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    return a->size ? memcmp(a->name, b->name, a->size) : 0;
}

static int compare_entries(const void *a, const void *b) { return compare_names(a, b); }

const rt_name_entry *rt_name_index_seal(rt_name_index *index)
{
    if (index->count < 2)
        return NULL;
    qsort(index->entries, index->count, sizeof *index->entries, compare_entries);
    for (size_t i = 1; i < index->count; i++)
        if (compare_names(&index->entries[i - 1], &index->entries[i]) == 0)
            return &index->entries[i];
    return NULL;
}

bool rt_name_index_find(const rt_name_index *index, const char *name, size_t size, size_t *position)
{
    const rt_name_entry wanted = {rt_hash64(name, size, 0), name, size, 0};
    size_t low = 0, high = index->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = compare_names(&wanted, &index->entries[middle]);
        if (order == 0) {
            *position = index->entries[middle].position;
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

void rt_name_index_deinit(rt_name_index *index)
{
    free(index->entries);
    *index = (rt_name_index){0};
}

const char *rt_name_shown(char out[64], const char *name, size_t size)
{
    const size_t n = rt_size_min(size, 63);
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(name[i] >= ' ' && name[i] <= '~' ? name[i] : '?');
    out[n] = '\0';
    return out;
}
