/* evidence/hf_synthid.h - the bits of transformers' SynthIDTextWatermarkingConfig (METHODS-evidence section
 * 2.5).  The hash is a linear congruence of which the low bits choose an entry of a table of fair-looking
 * bits; the null probability of a one is ones/size, not 1/2. */
#ifndef RT_EVIDENCE_HF_SYNTHID_H
#define RT_EVIDENCE_HF_SYNTHID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

enum { RT_SYNTHID_LAYERS_MAX = 64, RT_SYNTHID_NGRAM_MAX = 17 };

typedef struct rt_hf_synthid {
    size_t ngram_len, n_keys, table_size, history; /* history: contexts that are remembered */
    int64_t keys[RT_SYNTHID_LAYERS_MAX];
    uint8_t *table; /* [table_size] of 0 and 1 */
    size_t ones;
} rt_hf_synthid;

rt_status rt_hf_synthid_open(rt_hf_synthid *s, size_t ngram_len, const int64_t *keys, size_t n_keys,
                             size_t table_size, uint64_t table_seed, size_t history, rt_error *err);
void rt_hf_synthid_close(rt_hf_synthid *s);

static inline uint64_t rt_hf_synthid_add(uint64_t hash, int64_t value)
{
    return (hash + (uint64_t)value) * 6364136223846793005ull + 1;
}
/* Over ids [n], from 1. */
uint64_t rt_hf_synthid_hash(const int32_t *ids, size_t n);
/* The bits of an n-gram, layer l in bit l, from the hash over all its ids. */
uint64_t rt_hf_synthid_bits(const rt_hf_synthid *s, uint64_t ngram_hash);
/* keep [n - ngram_len + 1]: 1 for n-grams whose context is not among the last `history` contexts of this text
 * and that end before the first eos (-1: none); returns how many.  n < ngram_len: 0. */
size_t rt_hf_synthid_mask(const rt_hf_synthid *s, const int32_t *ids, size_t n, int32_t eos, uint8_t *keep);

#endif
