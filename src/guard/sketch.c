/* guard/sketch.c - see sketch.h. */
#include "guard/sketch.h"

#include <math.h>
#include <string.h>

bool rt_hll_add(rt_hll *hll, uint64_t hash)
{
    const size_t index = hash & (RT_HLL_REGISTERS - 1);
    const uint64_t rest = (hash >> 9) | (UINT64_C(1) << 55); /* the guard bit ends the run of zeros */
    const uint8_t rank = (uint8_t)(__builtin_ctzll(rest) + 1);
    if (rank <= hll->registers[index])
        return false;
    hll->registers[index] = rank;
    return true;
}

double rt_hll_count(const rt_hll *hll)
{
    uint32_t ranks[64] = {0}; /* a histogram first: there are few ranks and many registers */
    double sum = 0;
    for (size_t i = 0; i < RT_HLL_REGISTERS; i++)
        ranks[hll->registers[i] & 63]++;
    for (int k = 63; k >= 0; k--)
        sum += ldexp(ranks[k], -k);
    const double m = RT_HLL_REGISTERS, raw = 0.7213 / (1 + 1.079 / m) * m * m / sum;
    return raw <= 2.5 * m && ranks[0] ? m * log(m / ranks[0]) : raw; /* linear counting when few */
}

void rt_hll_merge(rt_hll *hll, const rt_hll *other)
{
    for (size_t i = 0; i < RT_HLL_REGISTERS; i++)
        if (other->registers[i] > hll->registers[i])
            hll->registers[i] = other->registers[i];
}

static void halve(rt_frequent *frequent) /* keeps shares when a count is full */
{
    for (size_t i = 0; i < RT_FREQUENT_ITEMS; i++) {
        frequent->counts[i] /= 2;
        frequent->over[i] /= 2;
    }
}

uint32_t rt_frequent_add(rt_frequent *frequent, uint32_t item)
{
    size_t least = 0;
    for (size_t i = 0; i < RT_FREQUENT_ITEMS; i++) {
        if (frequent->counts[i] && frequent->items[i] == item) {
            const uint32_t before = frequent->counts[i] - frequent->over[i];
            if (frequent->counts[i] == UINT16_MAX)
                halve(frequent);
            frequent->counts[i]++;
            return before;
        }
        if (frequent->counts[i] < frequent->counts[least])
            least = i;
    }
    frequent->items[least] = item;
    frequent->over[least] = frequent->counts[least];
    if (frequent->counts[least] < UINT16_MAX)
        frequent->counts[least]++;
    return 0;
}

void rt_hash_sample_add(rt_hash_sample *sample, uint32_t hash)
{
    if (sample->count == RT_SAMPLE_ITEMS && hash >= sample->items[RT_SAMPLE_ITEMS - 1])
        return;
    size_t at = sample->count;
    while (at > 0 && sample->items[at - 1] >= hash)
        at--;
    if (at < sample->count && sample->items[at] == hash)
        return;
    const size_t last = sample->count < RT_SAMPLE_ITEMS ? sample->count : RT_SAMPLE_ITEMS - 1;
    memmove(sample->items + at + 1, sample->items + at, (last - at) * sizeof *sample->items);
    sample->items[at] = hash;
    if (sample->count < RT_SAMPLE_ITEMS)
        sample->count++;
}

double rt_hash_sample_jaccard(const rt_hash_sample *a, const rt_hash_sample *b, size_t *shared)
{
    size_t i = 0, j = 0, seen = 0, both = 0, limit = RT_SAMPLE_ITEMS;
    /* a sample that is not full holds its whole set; the union's k smallest are known up to k of the full */
    while (i < a->count && j < b->count && seen < limit) {
        const uint32_t x = a->items[i], y = b->items[j];
        both += x == y;
        i += x <= y;
        j += y <= x;
        seen++;
    }
    if (a->count < RT_SAMPLE_ITEMS || b->count < RT_SAMPLE_ITEMS)
        seen += (a->count - i) + (b->count - j);
    *shared = both;
    return seen ? (double)both / (double)seen : 0;
}
