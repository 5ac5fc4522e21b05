/* model/bpe_words.h - how often each word (pre-token) stands in a text: what a byte-pair encoding is trained
 * on.
 *
 * Texts are normalised and cut as the tokenizer that comes of it will do; pieces of a large text are cut on
 * all threads.  The result does not depend on the threads, nor on the order of the texts. */
#ifndef RT_MODEL_BPE_WORDS_H
#define RT_MODEL_BPE_WORDS_H

#include "base/pool.h"
#include "model/pretokenizer.h"
#include "model/tokenizer_normalize.h"

enum { RT_BPE_WORD_MAX = 4096 }; /* bytes; a longer word is counted in parts of this size */

typedef struct rt_bpe_word {
    size_t at;      /* in rt_bpe_words.store */
    uint32_t size;  /* bytes, 1 .. RT_BPE_WORD_MAX */
    uint64_t count; /* how often it was seen */
} rt_bpe_word;

typedef struct rt_bpe_words {
    rt_bpe_word *list;
    size_t count, capacity;
    rt_text store;
    uint32_t *slots; /* position in the list + 1; 0: free */
    size_t slot_mask;
    size_t bytes_max; /* of memory; 0: no bound */
    uint64_t seen;    /* bytes of text, after normalising */
} rt_bpe_words;

void rt_bpe_words_deinit(rt_bpe_words *words);
size_t rt_bpe_words_bytes(const rt_bpe_words *words);
/* One word, `count` times more.  RT_NO_MEMORY, naming the bound, when the table would be larger than it. */
rt_status rt_bpe_words_count(rt_bpe_words *words, const char *word, size_t size, uint64_t count,
                             rt_error *err);

/* Cuts texts into words.  pre, normalizer: borrowed. */
typedef struct rt_bpe_cutter {
    const rt_pretokenizer *pre;
    const rt_normalizer *normalizer;
    rt_pool *pool;       /* NULL: the caller's thread alone */
    rt_bpe_words *parts; /* [threads] */
} rt_bpe_cutter;
/* bytes_max: of all tables together. */
rt_status rt_bpe_cutter_init(rt_bpe_cutter *cutter, const rt_pretokenizer *pre,
                             const rt_normalizer *normalizer, size_t bytes_max, rt_pool *pool, rt_error *err);
void rt_bpe_cutter_deinit(rt_bpe_cutter *cutter);
/* Any bytes; no word spans two texts. */
rt_status rt_bpe_cutter_add(rt_bpe_cutter *cutter, const char *text, size_t size, rt_error *err);
/* Puts the threads' tables together; they are empty afterwards. */
rt_status rt_bpe_cutter_finish(rt_bpe_cutter *cutter, rt_bpe_words *out, rt_error *err);

#endif
