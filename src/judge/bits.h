/* judge/bits.h - what a text costs a model, in bits a byte: a figure that models of different tokenizers
 * share.
 *
 * Every model reads the same rows in its own tokens and its own chat template; only tokens with a loss count
 * (an answer's, its end included).  The bytes are those of the first model's tokens without the end. */
#ifndef RT_JUDGE_BITS_H
#define RT_JUDGE_BITS_H

#include "judge/bootstrap.h"
#include "student/data.h"

typedef struct rt_bits_model {
    const char *name; /* borrowed, as is all else */
    const rt_model *model;
    const rt_tokenizer *tokenizer;
    const rt_documents *docs; /* the rows, whole, in its tokens */
} rt_bits_model;

typedef struct rt_bits_figures {
    rt_interval bits;  /* a byte */
    rt_interval above; /* less the first model's, on the same draws of documents */
    double bytes_per_token;
} rt_bits_figures;

typedef struct rt_bits {
    rt_bits_figures *figures;            /* [n_models] */
    size_t n_models, n_docs, n_left_out; /* left out: longer than tokens_max for one of the models */
    double bytes;
} rt_bits;

/* models [n_models]; documents of all must be as many.  tokens_max: the longest that is read, at most each
 * model's context.  go_on: false ends with RT_STOPPED; may be NULL. */
rt_status rt_bits_judge(rt_bits *out, const rt_bits_model *models, size_t n_models, size_t tokens_max,
                        size_t resamples, uint64_t seed, bool (*go_on)(void), rt_error *err);
void rt_bits_deinit(rt_bits *bits);

#endif
