/* model/bpe.h - byte-pair encoding of one word (a pre-token) to ids.
 *
 * Three ways to begin, one way to merge.  Byte-level: one symbol a byte.  Characters: one symbol a
 * character, with <0xXX> or the unknown token where the vocabulary lacks it.  Scores: as characters,
 * but a pair may merge when the vocabulary holds its text, best score first (SentencePiece).  The
 * lowest rank merges first, the leftmost among equals. */
#ifndef RT_MODEL_BPE_H
#define RT_MODEL_BPE_H

#include <stdatomic.h>

#include "model/tokenizer.h"
#include "model/tokenizer_vocab.h"

typedef struct rt_bpe_merge { /* a slot of the table of merges */
    uint32_t left, right;     /* ids + 1; left 0: free */
    uint32_t rank;
    int32_t merged;
} rt_bpe_merge;

typedef struct rt_bpe {
    const rt_vocab *vocab;
    rt_bpe_merge *merges;
    size_t merge_mask, merge_count;
    uint32_t *score_ranks; /* scores: rank of each token as the result of a merge; else NULL */
    bool byte_level, ignore_merges, byte_fallback, fuse_unknown;
    int32_t byte_ids[256]; /* -1: the vocabulary lacks this byte */
    bool all_bytes;
    int32_t unknown_id; /* -1: none */
    bool can_cut, before_blank[256];
    /* Per id, 0: not looked at yet, 1: the token's own spelling encodes to it alone, 2: it does not.
     * Filled on use; every thread finds the same value, so a race costs work and nothing else. */
    _Atomic unsigned char *whole;
} rt_bpe;

/* Memory of one encode call. */
typedef struct rt_bpe_scratch {
    struct rt_bpe_symbol *symbols;
    size_t symbol_capacity;
    struct rt_bpe_candidate *heap;
    size_t heap_count, heap_capacity;
    struct rt_bpe_cached *cache; /* made when use_cache and the first word needs it */
    bool use_cache;
} rt_bpe_scratch;

/* The flags are the caller's to set before.  max_merges: how many rt_bpe_add will follow. */
rt_status rt_bpe_init(rt_bpe *bpe, const rt_vocab *vocab, size_t max_merges, rt_error *err);
/* rank = order of the calls; a pair that is there already keeps its first rank. */
rt_status rt_bpe_add(rt_bpe *bpe, const char *left, size_t left_size, const char *right, size_t right_size,
                     rt_text *scratch, rt_error *err);
rt_status rt_bpe_use_scores(rt_bpe *bpe, rt_error *err);
void rt_bpe_deinit(rt_bpe *bpe);
/* All merges by rank, in malloc'd memory; NULL when out of memory. */
rt_bpe_merge *rt_bpe_merges_in_order(const rt_bpe *bpe, size_t *count);
/* Those that scores imply: each cut of a token into two others, by the token's score. */
rt_bpe_merge *rt_bpe_merges_of_scores(const rt_bpe *bpe, size_t *count);

rt_status rt_bpe_encode(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, size_t size,
                        rt_token_list *out, rt_error *err);
void rt_bpe_scratch_deinit(rt_bpe_scratch *scratch);

/* Appends one id; false when out of memory. */
bool rt_token_list_grow(rt_token_list *list);
static inline bool rt_token_list_push(rt_token_list *list, int32_t id)
{
    if (list->count == list->capacity && !rt_token_list_grow(list))
        return false;
    list->ids[list->count++] = id;
    return true;
}

#endif
