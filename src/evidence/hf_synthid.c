/* evidence/hf_synthid.c - see hf_synthid.h. */
#include "evidence/hf_synthid.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/torch_rng.h"

enum { TABLE_MAX = 1 << 28 };

rt_status rt_hf_synthid_open(rt_hf_synthid *s, size_t ngram_len, const int64_t *keys, size_t n_keys,
                             size_t table_size, uint64_t table_seed, size_t history, rt_error *err)
{
    *s = (rt_hf_synthid){0};
    if (ngram_len < 2 || ngram_len > RT_SYNTHID_NGRAM_MAX || n_keys == 0 || n_keys > RT_SYNTHID_LAYERS_MAX ||
        table_size == 0 || table_size > TABLE_MAX)
        return rt_error_set(err, RT_INVALID,
                            "hf-synthid: n-grams of 2..17 ids, 1..64 keys and a table of 1..2^28 bits are "
                            "needed, not %zu, %zu and %zu",
                            ngram_len, n_keys, table_size);
    uint8_t *table = malloc(table_size);
    if (!table)
        return rt_error_set(err, RT_NO_MEMORY, "hf-synthid: no memory for a table of %zu bits", table_size);
    *s = (rt_hf_synthid){.ngram_len = ngram_len,
                         .n_keys = n_keys,
                         .table_size = table_size,
                         .history = history,
                         .table = table};
    memcpy(s->keys, keys, n_keys * sizeof *keys);
    rt_torch_rng rng;
    rt_torch_rng_seed(&rng, table_seed);
    for (size_t i = 0; i < table_size; i++)
        s->ones += table[i] = (uint8_t)rt_torch_randint2(&rng);
    return RT_OK;
}

void rt_hf_synthid_close(rt_hf_synthid *s)
{
    free(s->table);
    *s = (rt_hf_synthid){0};
}

uint64_t rt_hf_synthid_hash(const int32_t *ids, size_t n)
{
    uint64_t hash = 1;
    for (size_t i = 0; i < n; i++)
        hash = rt_hf_synthid_add(hash, ids[i]);
    return hash;
}

uint64_t rt_hf_synthid_bits(const rt_hf_synthid *s, uint64_t ngram_hash)
{
    uint64_t bits = 0;
    const int64_t size = (int64_t)s->table_size;
    for (size_t l = 0; l < s->n_keys; l++) {
        const uint64_t wrapped = rt_hf_synthid_add(ngram_hash, s->keys[l]);
        int64_t hash;
        memcpy(&hash, &wrapped, sizeof hash);
        hash %= size;
        bits |= (uint64_t)s->table[hash < 0 ? hash + size : hash] << l;
    }
    return bits;
}

size_t rt_hf_synthid_mask(const rt_hf_synthid *s, const int32_t *ids, size_t n, int32_t eos, uint8_t *keep)
{
    const size_t h = s->ngram_len - 1;
    size_t kept = 0, end = n;
    for (size_t i = 0; i < n && end == n; i++)
        if (eos >= 0 && ids[i] == eos)
            end = i;
    for (size_t i = 0; i + h < n; i++) {
        keep[i] = i + h < end;
        const size_t first = i > s->history ? i - s->history : 0;
        for (size_t j = first; j < i && keep[i]; j++)
            keep[i] = memcmp(ids + j, ids + i, h * sizeof *ids) != 0;
        kept += keep[i];
    }
    return kept;
}
