/* model/tokenizer_steps.h - normaliser, pre-tokenizer and decoder of a tokenizer.json. */
#ifndef RT_MODEL_TOKENIZER_STEPS_H
#define RT_MODEL_TOKENIZER_STEPS_H

#include <jansson.h>

#include "model/pretokenizer.h"
#include "model/tokenizer_normalize.h"

typedef struct rt_steps_found {
    bool byte_level;        /* the vocabulary is spelled in GPT-2's alphabet */
    bool strip_first_space; /* the decoder drops a blank at the start */
} rt_steps_found;

/* Fills both lists from root; a step that is not known is RT_UNSUPPORTED, by name. */
rt_status rt_steps_read(rt_normalizer *normalizer, rt_pretokenizer *pre, const json_t *root,
                        rt_steps_found *found, rt_error *err);

#endif
