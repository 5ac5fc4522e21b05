/* model/unigram.h - the most probable cut of a text into pieces, each with a log-probability of its own
 * (SentencePiece's unigram model, T5 and others): one pass of Viterbi. */
#ifndef RT_MODEL_UNIGRAM_H
#define RT_MODEL_UNIGRAM_H

#include "model/tokenizer.h"
#include "model/tokenizer_prefix.h"
#include "model/tokenizer_vocab.h"

typedef struct rt_unigram {
    const rt_vocab *vocab;
    rt_prefix_set pieces;
    double unknown_score; /* nats: worse than any piece */
    int32_t unknown_id;
    bool byte_fallback;
    int32_t byte_ids[256];
} rt_unigram;

rt_status rt_unigram_init(rt_unigram *unigram, const rt_vocab *vocab, int32_t unknown_id, bool byte_fallback,
                          rt_error *err);
void rt_unigram_deinit(rt_unigram *unigram);
rt_status rt_unigram_encode(const rt_unigram *unigram, const char *text, size_t size, rt_token_list *out,
                            rt_error *err);

#endif
