/* outputs/idmap.c - open addressing with linear probing, at most 3/4 full; see idmap.h. */
#include "outputs/idmap.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/size.h"

rt_idkey rt_idkey_of(const char *name, size_t size)
{
    const XXH128_hash_t hash = XXH3_128bits(name, size);
    return (rt_idkey){hash.low64, hash.high64};
}

static struct rt_idmap_entry *place(const rt_idmap *map, rt_idkey key)
{
    size_t i = (size_t)key.low & (map->capacity - 1);
    while (map->entries[i].value &&
           (map->entries[i].key.low != key.low || map->entries[i].key.high != key.high))
        i = (i + 1) & (map->capacity - 1);
    return &map->entries[i];
}

rt_status rt_idmap_reserve(rt_idmap *map, size_t count, rt_error *err)
{
    size_t wanted = 1024, need;
    if (!rt_size_add(count, count / 2, &need) || need > SIZE_MAX / 64)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu names", count);
    while (wanted < need)
        wanted *= 2;
    if (wanted <= map->capacity)
        return RT_OK;
    rt_idmap bigger = {
        .entries = calloc(wanted, sizeof *bigger.entries), .count = map->count, .capacity = wanted};
    if (!bigger.entries)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu names", count);
    for (size_t i = 0; i < map->capacity; i++)
        if (map->entries[i].value)
            *place(&bigger, map->entries[i].key) = map->entries[i];
    free(map->entries);
    *map = bigger;
    return RT_OK;
}

uint64_t rt_idmap_get(const rt_idmap *map, rt_idkey key)
{
    return map->capacity ? place(map, key)->value : 0;
}

rt_status rt_idmap_put(rt_idmap *map, rt_idkey key, uint64_t value, rt_error *err)
{
    assert(value > 0);
    if ((map->count + 1) * 4 > map->capacity * 3 && rt_idmap_reserve(map, (map->count + 1) * 2, err) != RT_OK)
        return err->status;
    struct rt_idmap_entry *entry = place(map, key);
    map->count += entry->value == 0;
    *entry = (struct rt_idmap_entry){key, value};
    return RT_OK;
}

void rt_idmap_deinit(rt_idmap *map)
{
    free(map->entries);
    *map = (rt_idmap){0};
}
