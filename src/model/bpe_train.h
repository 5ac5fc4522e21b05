/* model/bpe_train.h - learns the merges of a byte-level byte-pair encoding from counted words (Sennrich et
 * al. 2016, over bytes as in GPT-2).
 *
 * The pair that stands most often side by side becomes a token, again and again; of equally frequent pairs
 * the one with the smaller left id, then the smaller right id.  Ids: the special tokens, the 256 bytes in the
 * order of GPT-2's alphabet, then the merges in order - the ids that the Hugging Face trainer gives.  Counts
 * are kept up to date where a merge changes them, so a merge costs what it touches. */
#ifndef RT_MODEL_BPE_TRAIN_H
#define RT_MODEL_BPE_TRAIN_H

#include "model/bpe_words.h"

typedef struct rt_bpe_train_options {
    size_t vocab;               /* ids in all */
    uint64_t min_count;         /* a pair that is seen less often is not merged; 0 stands for 1 */
    const char *const *special; /* [n_special] spellings that no merge may make */
    size_t n_special;
    size_t bytes_max; /* of memory; 0: no bound */
} rt_bpe_train_options;

typedef struct rt_bpe_rule {
    uint32_t left, right, result; /* ids */
} rt_bpe_rule;

typedef struct rt_bpe_learnt {
    rt_bpe_rule *merges; /* in order; more than n_merged where two pairs are spelled alike */
    size_t n_merges, merges_capacity;
    size_t first_byte, first_merged; /* ids */
    size_t n_merged;                 /* tokens beyond the bytes */
    size_t *begins;                  /* [n_merged + 1] where their bytes begin */
    rt_text bytes;
    bool exhausted; /* no pair was left that is frequent enough; the vocabulary is smaller than asked for */
} rt_bpe_learnt;

/* RT_INVALID for a vocabulary without room for bytes and special tokens, RT_NO_MEMORY for the bound. */
rt_status rt_bpe_train(rt_bpe_learnt *out, const rt_bpe_words *words, const rt_bpe_train_options *options,
                       rt_error *err);
void rt_bpe_learnt_deinit(rt_bpe_learnt *learnt);
/* The byte that has the i-th place in GPT-2's alphabet. */
unsigned char rt_bpe_byte_at(size_t place);

#endif
