/* evidence/pairs.c - see pairs.h.  Grams lie one after the other; an open-addressed table holds indices into
 * them.  Candidates are compared id by id, so a collision of the hash loses nothing. */
#include "evidence/pairs.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/prf.h"

enum { FIRST = 1024, GRAMS_MAX = 1 << 30 };

typedef struct gram_set {          /* of grams [width] */
    size_t width, count, capacity; /* capacity: grams that there is room for */
    int32_t *grams;
    uint32_t *slots; /* [n_slots] index + 1; 0: free.  NULL: nothing is looked up */
    size_t n_slots;  /* a power of two */
} gram_set;

struct rt_pairs {
    size_t h, seen;
    rt_dedup dedup;
    gram_set kept, contexts, forbidden;
};

static uint64_t hash_of(const int32_t *gram, size_t width)
{
    uint64_t hash = 0x9E3779B97F4A7C15ull;
    for (size_t i = 0; i < width; i++)
        hash = (hash ^ (uint32_t)gram[i]) * 0xBF58476D1CE4E5B9ull, hash ^= hash >> 29;
    return rt_mix64(hash);
}

static size_t slot_from(const gram_set *set, uint64_t hash, const int32_t *gram, bool *found)
{
    size_t at = hash & (set->n_slots - 1);
    for (; set->slots[at]; at = (at + 1) & (set->n_slots - 1))
        if (memcmp(set->grams + (size_t)(set->slots[at] - 1) * set->width, gram, set->width * sizeof *gram) ==
            0) {
            *found = true;
            return at;
        }
    *found = false;
    return at;
}

static size_t slot_of(const gram_set *set, const int32_t *gram, bool *found)
{
    return slot_from(set, hash_of(gram, set->width), gram, found);
}

/* Room for n slots at least; entries move. */
static rt_status grow_slots(gram_set *set, size_t n, rt_error *err)
{
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to look up %zu pairs", set->count);
    free(set->slots);
    set->slots = slots;
    set->n_slots = n;
    for (size_t i = 0; i < set->count; i++) {
        bool found;
        slots[slot_of(set, set->grams + i * set->width, &found)] = (uint32_t)i + 1;
    }
    return RT_OK;
}

static rt_status append(gram_set *set, const int32_t *gram, rt_error *err)
{
    if (set->count == set->capacity) {
        const size_t more = set->capacity ? set->capacity * 2 : FIRST;
        size_t bytes;
        int32_t *grams = NULL;
        if (more <= GRAMS_MAX && rt_size_mul(more * rt_size_max(set->width, 1), sizeof *grams, &bytes))
            grams = realloc(set->grams, bytes);
        if (!grams)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for more than %zu pairs", set->count);
        set->grams = grams;
        set->capacity = more;
    }
    if (set->width)
        memcpy(set->grams + set->count * set->width, gram, set->width * sizeof *gram);
    set->count++;
    return RT_OK;
}

/* Adds a gram that is not there yet; *added says whether it was new. */
static rt_status insert(gram_set *set, uint64_t hash, const int32_t *gram, bool *added, rt_error *err)
{
    *added = false;
    if (set->count * 2 >= set->n_slots &&
        grow_slots(set, set->n_slots ? set->n_slots * 4 : 4 * FIRST, err) != RT_OK)
        return err->status;
    bool found;
    const size_t at = slot_from(set, hash, gram, &found);
    if (found)
        return RT_OK;
    if (append(set, gram, err) != RT_OK)
        return err->status;
    set->slots[at] = (uint32_t)set->count;
    *added = true;
    return RT_OK;
}

rt_status rt_pairs_open(rt_pairs **out, size_t h, rt_dedup dedup, rt_error *err)
{
    *out = NULL;
    if (h > RT_PRF_CONTEXT_MAX)
        return rt_error_set(err, RT_INVALID, "a context of %zu ids is past the most, %d", h,
                            (int)RT_PRF_CONTEXT_MAX);
    rt_pairs *pairs = calloc(1, sizeof *pairs);
    if (!pairs)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a set of pairs");
    pairs->h = h;
    pairs->dedup = dedup;
    pairs->kept.width = h + 1;
    pairs->contexts.width = pairs->forbidden.width = h;
    *out = pairs;
    return RT_OK;
}

static void set_free(gram_set *set)
{
    free(set->grams);
    free(set->slots);
}

void rt_pairs_close(rt_pairs *pairs)
{
    if (!pairs)
        return;
    set_free(&pairs->kept);
    set_free(&pairs->contexts);
    set_free(&pairs->forbidden);
    free(pairs);
}

static rt_status add_hashed(rt_pairs *pairs, uint64_t hash, const int32_t *gram, rt_error *err)
{
    bool added = true, found;
    pairs->seen++;
    if (pairs->forbidden.count && (slot_of(&pairs->forbidden, gram, &found), found))
        return RT_OK;
    if (pairs->dedup == RT_DEDUP_PAIR)
        return insert(&pairs->kept, hash, gram, &added, err);
    if (pairs->dedup == RT_DEDUP_CONTEXT &&
        insert(&pairs->contexts, hash_of(gram, pairs->h), gram, &added, err) != RT_OK)
        return err->status;
    return added ? append(&pairs->kept, gram, err) : RT_OK;
}

rt_status rt_pairs_add_gram(rt_pairs *pairs, const int32_t *gram, rt_error *err)
{
    return add_hashed(pairs, hash_of(gram, pairs->h + 1), gram, err);
}

/* A slot is a cache miss of its own: they are asked for some places ahead. */
rt_status rt_pairs_add(rt_pairs *pairs, const int32_t *ids, size_t n, rt_error *err)
{
    enum { AHEAD = 16 };
    uint64_t hashes[AHEAD] = {0};
    const size_t places = n > pairs->h ? n - pairs->h : 0;
    for (size_t i = 0; i < places + AHEAD; i++) {
        const uint64_t hash = hashes[i % AHEAD];
        if (i < places) {
            hashes[i % AHEAD] = hash_of(ids + i, pairs->h + 1);
            if (pairs->kept.n_slots)
                __builtin_prefetch(&pairs->kept.slots[hashes[i % AHEAD] & (pairs->kept.n_slots - 1)]);
        }
        if (i >= AHEAD && i - AHEAD < places && add_hashed(pairs, hash, ids + (i - AHEAD), err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_pairs_reserve(rt_pairs *pairs, size_t places, rt_error *err)
{
    size_t n = 4 * FIRST;
    if (pairs->dedup != RT_DEDUP_PAIR || places > GRAMS_MAX / 4)
        return RT_OK;
    while (n < 2 * places)
        n *= 2;
    return n > pairs->kept.n_slots ? grow_slots(&pairs->kept, n, err) : RT_OK;
}

rt_status rt_pairs_forbid(rt_pairs *pairs, const int32_t *ids, size_t n, rt_error *err)
{
    assert(pairs->kept.count == 0);
    bool added;
    for (size_t i = 0; i + pairs->h <= n; i++)
        if (insert(&pairs->forbidden, hash_of(ids + i, pairs->h), ids + i, &added, err) != RT_OK)
            return err->status;
    return RT_OK;
}

size_t rt_pairs_context(const rt_pairs *pairs) { return pairs->h; }
size_t rt_pairs_count(const rt_pairs *pairs) { return pairs->kept.count; }
size_t rt_pairs_seen(const rt_pairs *pairs) { return pairs->seen; }
const int32_t *rt_pairs_get(const rt_pairs *pairs, size_t index)
{
    return pairs->kept.grams + index * (pairs->h + 1);
}
