/* guard/sketch.h - what an account did, in fixed memory: distinct counts, frequent items, samples.
 *
 * All take 64-bit hashes that the caller has keyed (rt_guard_mix), so nobody outside can choose values
 * that collide.  Zeroed memory is an empty sketch, and a sketch is plain bytes that can be saved. */
#ifndef RT_GUARD_SKETCH_H
#define RT_GUARD_SKETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A bijection of 64 bits under a key (the finaliser of MurmurHash3, keyed on both sides). */
static inline uint64_t rt_guard_mix(uint64_t x, uint64_t key)
{
    x ^= key;
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33) ^ (key >> 17);
}

/* HyperLogLog (Flajolet et al. 2007) of 2^9 registers: standard error 1.04 / sqrt(512) = 4.6 %. */
enum { RT_HLL_REGISTERS = 512 };
typedef struct rt_hll {
    uint8_t registers[RT_HLL_REGISTERS];
} rt_hll;
bool rt_hll_add(rt_hll *hll, uint64_t hash); /* true when a register grew */
double rt_hll_count(const rt_hll *hll);
void rt_hll_merge(rt_hll *hll, const rt_hll *other);

/* Space-Saving (Metwally et al. 2005) over 32-bit items: every item that makes up more than 1/capacity of
 * the stream is among the entries, its count too high by at most `over`. */
enum { RT_FREQUENT_ITEMS = 12 };
typedef struct rt_frequent {
    uint32_t items[RT_FREQUENT_ITEMS];
    uint16_t counts[RT_FREQUENT_ITEMS], over[RT_FREQUENT_ITEMS];
} rt_frequent;
/* Counts the item; returns how often it was surely seen before (0 for a new one). */
uint32_t rt_frequent_add(rt_frequent *frequent, uint32_t item);

/* The k smallest distinct hashes of a stream (bottom-k sample): a uniform sample of its distinct items. */
enum { RT_SAMPLE_ITEMS = 48 };
typedef struct rt_hash_sample {
    uint32_t items[RT_SAMPLE_ITEMS]; /* ascending, the first `count` hold */
    uint16_t count;
} rt_hash_sample;
void rt_hash_sample_add(rt_hash_sample *sample, uint32_t hash);
/* Jaccard similarity of the two streams' sets, from the k smallest of their union; *shared counts the
 * items that both samples hold. */
double rt_hash_sample_jaccard(const rt_hash_sample *a, const rt_hash_sample *b, size_t *shared);

#endif
