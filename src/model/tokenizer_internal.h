/* model/tokenizer_internal.h - the parts of a tokenizer, for the files that make, use and write one. */
#ifndef RT_MODEL_TOKENIZER_INTERNAL_H
#define RT_MODEL_TOKENIZER_INTERNAL_H

#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"
#include "model/tokenizer_added.h"
#include "model/tokenizer_normalize.h"
#include "model/tokenizer_vocab.h"
#include "model/unigram.h"

typedef enum rt_tokenizer_model { RT_MODEL_BPE, RT_MODEL_UNIGRAM } rt_tokenizer_model;

struct rt_tokenizer {
    rt_tokenizer_model model;
    rt_vocab vocab;
    rt_added added;
    rt_normalizer normalizer;
    rt_pretokenizer pre;
    rt_bpe bpe;
    rt_unigram unigram;
    bool clean_malformed;   /* ill-formed sequences become U+FFFD before anything else */
    bool strip_first_space; /* decode drops the blank that encode put in front */
    int32_t bos, eos, pad;  /* -1: none */
    bool add_bos;           /* what transformers' encode would put in front; only written, never done here */
    char *chat_template;
    char *source; /* the tokenizer.json that it was read from, else NULL: written as it is */
    size_t source_size;
    char kind[96];
    char hash[65];
};

/* Called when vocab, merges and the rest are filled: makes the index of added tokens, the kind and the
 * hash, and what depends on the vocabulary as a whole. */
rt_status rt_tokenizer_finish(rt_tokenizer *tokenizer, const char *variant, rt_error *err);
/* "[PAD151700]" at id 151700: a row of the embedding that no token has, named by a converter. */
bool rt_tokenizer_is_padding(const rt_tokenizer *tokenizer, size_t id);

#endif
