/* model/tokenizer_normalize.h - what a tokenizer does to a text before cutting it: a list of steps. */
#ifndef RT_MODEL_TOKENIZER_NORMALIZE_H
#define RT_MODEL_TOKENIZER_NORMALIZE_H

#include "base/text.h"

typedef enum rt_norm_step_kind {
    RT_NORM_NFC,
    RT_NORM_NFD,
    RT_NORM_NFKC,
    RT_NORM_NFKD,
    RT_NORM_LOWERCASE,
    RT_NORM_STRIP_ACCENTS, /* drops marks */
    RT_NORM_STRIP,         /* whitespace at the ends */
    RT_NORM_REPLACE,       /* a string, or a pattern where `regex` is set */
    RT_NORM_PREPEND,       /* unless the text is empty */
    RT_NORM_ONE_BLANK,     /* runs of blanks become one, those at the ends go */
    RT_NORM_CHARSMAP       /* SentencePiece's precompiled table */
} rt_norm_step_kind;

typedef struct rt_norm_step {
    rt_norm_step_kind kind;
    bool left, right; /* strip */
    char *from, *to;  /* owned; replace, prepend (`to`) */
    size_t from_size, to_size;
    struct rt_regex *regex;  /* owned */
    unsigned char *charsmap; /* owned */
    size_t charsmap_size;
} rt_norm_step;

typedef struct rt_normalizer {
    rt_norm_step *steps;
    size_t count;
} rt_normalizer;

void rt_normalizer_deinit(rt_normalizer *normalizer);
/* Appends a step and gives it, zeroed but for the kind; NULL when out of memory. */
rt_norm_step *rt_normalizer_add(rt_normalizer *normalizer, rt_norm_step_kind kind);
rt_status rt_normalizer_add_replace(rt_normalizer *normalizer, rt_norm_step_kind kind, const char *from,
                                    size_t from_size, const char *to, size_t to_size, rt_error *err);
/* Copies the table; its sizes are checked here, each look-up is checked again. */
rt_status rt_normalizer_add_charsmap(rt_normalizer *normalizer, const unsigned char *data, size_t size,
                                     rt_error *err);
/* Appends the normalised text to out. */
rt_status rt_normalizer_run(const rt_normalizer *normalizer, const char *text, size_t size, rt_text *out,
                            rt_error *err);

#endif
