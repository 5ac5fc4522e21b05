/* model/tokenizer_train.h - a tokenizer of its own for a student: byte-level BPE learnt from text. */
#ifndef RT_MODEL_TOKENIZER_TRAIN_H
#define RT_MODEL_TOKENIZER_TRAIN_H

#include "base/pool.h"
#include "model/tokenizer.h"

enum { RT_TRAIN_SPECIAL_MAX = 2048 };

typedef struct rt_tokenizer_train_options {
    const char *pattern; /* how text is cut into words: "gpt2", "smollm", "llama3", "qwen2", ... */
    size_t vocab;        /* ids in all */
    uint64_t min_count;  /* a pair that is seen less often is not merged */
    /* The special tokens, which get the first ids; and the places of those in the list that begin a text, end
     * one and fill up (-1: none).  NULL: those of `like`, with its chat template. */
    const char *const *special;
    size_t n_special;
    int bos, eos, pad;
    const rt_tokenizer *like; /* may be NULL; its special tokens, roles and template */
    size_t bytes_max;         /* of memory; 0: no bound */
    rt_pool *pool;
} rt_tokenizer_train_options;

typedef struct rt_tokenizer_trainer rt_tokenizer_trainer;
rt_status rt_tokenizer_trainer_open(rt_tokenizer_trainer **out, const rt_tokenizer_train_options *options,
                                    rt_error *err);
void rt_tokenizer_trainer_close(rt_tokenizer_trainer *trainer);
/* Any bytes, any number of times; no token spans two texts.  The result does not depend on their order. */
rt_status rt_tokenizer_trainer_add(rt_tokenizer_trainer *trainer, const char *text, size_t size,
                                   rt_error *err);

typedef struct rt_tokenizer_trained { /* what it was learnt from */
    uint64_t bytes;                   /* of text */
    size_t words;                     /* different ones */
    size_t merges;
    bool exhausted; /* the text had fewer pairs than the vocabulary has room for */
} rt_tokenizer_trained;
/* The tokenizer; only once. */
rt_status rt_tokenizer_trainer_finish(rt_tokenizer_trainer *trainer, rt_tokenizer **out,
                                      rt_tokenizer_trained *trained, rt_error *err);

#endif
