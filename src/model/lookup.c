/* model/lookup.c - see lookup.h. */
#include "model/lookup.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

enum { PLACES_MAX = 64 }; /* looked at, the latest first */

struct rt_lookup {
    uint32_t *heads;    /* [mask + 1] the latest place of a pair, plus 1; 0: none */
    uint32_t *previous; /* [n_positions] the place before it in the same chain, plus 1 */
    size_t mask, n_positions;
    size_t n; /* pairs that end before this place are in */
};

rt_status rt_lookup_open(rt_lookup **out, size_t n_positions, rt_error *err)
{
    *out = NULL;
    size_t size = 64;
    while (size < n_positions && size < (size_t)1 << 30)
        size *= 2;
    rt_lookup *l = calloc(1, sizeof *l);
    if (l)
        *l = (rt_lookup){calloc(size, sizeof *l->heads), calloc(n_positions, sizeof *l->previous), size - 1,
                         n_positions, 1};
    if (!l || !l->heads || !l->previous) {
        rt_lookup_close(l);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to look up %zu tokens", n_positions);
    }
    *out = l;
    return RT_OK;
}

void rt_lookup_close(rt_lookup *l)
{
    if (!l)
        return;
    free(l->heads);
    free(l->previous);
    free(l);
}

void rt_lookup_reset(rt_lookup *l)
{
    memset(l->heads, 0, (l->mask + 1) * sizeof *l->heads);
    l->n = 1;
}

static size_t chain_of(const rt_lookup *l, const int32_t *pair)
{
    return (size_t)rt_hash64(pair, 2 * sizeof *pair, 0) & l->mask;
}

void rt_lookup_learn(rt_lookup *l, const int32_t *ids, size_t n)
{
    /* a pair is in when what follows it stands */
    for (; l->n + 1 < rt_size_min(n, l->n_positions); l->n++) {
        const size_t chain = chain_of(l, ids + l->n - 1);
        l->previous[l->n] = l->heads[chain];
        l->heads[chain] = (uint32_t)l->n + 1;
    }
}

/* How many ids agree that end at `place` and before n. */
static size_t agreement(const int32_t *ids, size_t n, size_t place)
{
    size_t length = 0;
    while (length <= place && length < RT_LOOKUP_LONGEST && ids[place - length] == ids[n - 1 - length])
        length++;
    return length;
}

size_t rt_lookup_find(const rt_lookup *l, const int32_t *ids, size_t n, int32_t *next)
{
    size_t longest = RT_LOOKUP_SHORTEST - 1, seen = 0;
    if (n < RT_LOOKUP_SHORTEST)
        return 0;
    for (uint32_t at = l->heads[chain_of(l, ids + n - 2)]; at && seen < PLACES_MAX; seen++) {
        const size_t place = at - 1, length = agreement(ids, n, place);
        at = l->previous[place];
        if (length <= longest)
            continue;
        longest = length;
        *next = ids[place + 1];
        if (longest == RT_LOOKUP_LONGEST)
            break;
    }
    return longest < RT_LOOKUP_SHORTEST ? 0 : longest;
}
