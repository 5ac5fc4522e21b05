/* model/tokenizer_prefix.c - see tokenizer_prefix.h. */
#include "model/tokenizer_prefix.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"

static int by_text(const void *a, const void *b)
{
    const rt_prefix_entry *x = a, *y = b;
    const int order = memcmp(x->text, y->text, rt_size_min(x->size, y->size));
    if (order)
        return order;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static bool same_text(const rt_prefix_entry *a, const rt_prefix_entry *b)
{
    return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

rt_status rt_prefix_init(rt_prefix_set *set, rt_prefix_entry *entries, size_t count, rt_error *err)
{
    *set = (rt_prefix_set){.entries = entries};
    for (size_t i = 0; i < count; i++)
        if (entries[i].size > RT_PREFIX_BYTES_MAX)
            return rt_error_set(err, RT_UNSUPPORTED, "token %d has %u bytes; the limit is %d",
                                entries[i].value, entries[i].size, RT_PREFIX_BYTES_MAX);
    if (count)
        qsort(entries, count, sizeof *entries, by_text);
    for (size_t i = 0; i < count; i++)
        if (entries[i].size && !(set->count && same_text(&entries[i], &entries[set->count - 1])))
            entries[set->count++] = entries[i];
    size_t next = 0;
    for (size_t byte = 0; byte < 256; byte++) {
        set->first[byte] = (uint32_t)next;
        while (next < set->count && (unsigned char)entries[next].text[0] == byte)
            next++;
    }
    set->first[256] = (uint32_t)set->count;
    return RT_OK;
}

void rt_prefix_deinit(rt_prefix_set *set)
{
    free(set->entries);
    *set = (rt_prefix_set){0};
}

bool rt_prefix_start(const rt_prefix_set *set, rt_prefix_walk *walk, char byte)
{
    const unsigned char b = (unsigned char)byte;
    *walk = (rt_prefix_walk){set->first[b], set->first[b + 1], 1};
    return walk->low < walk->high;
}

/* First entry of [low, high) whose byte at `depth` is >= byte; entries that end before come first. */
static size_t bound(const rt_prefix_set *set, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const rt_prefix_entry *entry = &set->entries[middle];
        if (entry->size <= depth || (unsigned char)entry->text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool rt_prefix_step(const rt_prefix_set *set, rt_prefix_walk *walk, char byte)
{
    const unsigned b = (unsigned char)byte;
    walk->low = bound(set, walk->low, walk->high, walk->depth, b);
    walk->high = bound(set, walk->low, walk->high, walk->depth, b + 1);
    walk->depth++;
    return walk->low < walk->high;
}
