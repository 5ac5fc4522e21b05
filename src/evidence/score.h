/* evidence/score.h - a scheme's statistic over a scored set, and its exact tail under the null hypothesis
 * "the text was made without knowledge of the key" (METHODS-evidence section 3.2). */
#ifndef RT_EVIDENCE_SCORE_H
#define RT_EVIDENCE_SCORE_H

#include <stdbool.h>

#include "evidence/pairs.h"
#include "evidence/prf.h"

/* The words are those of key files and of --watermark-scheme. */
#define RT_SCHEME_MAP(X)                                                                                     \
    X(TOURNAMENT, "tournament") /* SynthID's tournament with the native function: the default */             \
    X(KGW, "kgw")                                                                                            \
    X(GUMBEL, "gumbel")                                                                                      \
    X(UNIGRAM, "unigram")                                                                                    \
    X(HF_KGW, "hf-kgw")                                                                                      \
    X(HF_SYNTHID, "hf-synthid")
typedef enum rt_scheme {
#define RT_SCHEME_ENUM(name, word) RT_SCHEME_##name,
    RT_SCHEME_MAP(RT_SCHEME_ENUM)
#undef RT_SCHEME_ENUM
        RT_SCHEME_COUNT
} rt_scheme;
const char *rt_scheme_word(rt_scheme scheme);
int rt_scheme_from_word(const char *word); /* -1: none */

/* What decides a mark.  Native schemes use key, h, gamma (kgw, unigram) and layers (tournament). */
typedef struct rt_watermark {
    rt_scheme scheme;
    uint8_t key[RT_PRF_KEY_BYTES];
    size_t h;      /* ids of context; unigram 0; hf schemes: derived */
    double gamma;  /* share of green ids */
    double delta;  /* added to green logits */
    size_t layers; /* of the tournament, 1..64 */
    /* hf-kgw */
    bool selfhash;
    size_t context_width, n_vocab;
    uint64_t hashing_key;
    /* hf-synthid */
    size_t ngram_len, table_size, history, n_keys;
    uint64_t table_seed;
    int64_t keys[RT_PRF_LAYERS_MAX];
} rt_watermark;

/* gamma 0.25, delta 2, h 2, 30 layers and the hf modes' own defaults; the key is zero. */
rt_watermark rt_watermark_default(rt_scheme scheme);
rt_status rt_watermark_check(const rt_watermark *mark, rt_error *err);
size_t rt_watermark_context(const rt_watermark *mark); /* ids that the scored pairs have before the token */

typedef struct rt_score {
    size_t n;
    size_t ones;                         /* green ids; ones over all layers (tournament) */
    size_t per_layer[RT_PRF_LAYERS_MAX]; /* tournament, hf-synthid */
    size_t layers;
    double statistic;     /* ones; S of gumbel; weighted S of the tournament */
    double mean, sd, z;   /* of the statistic under the null */
    double log10_p;       /* the scheme's test: weighted for the tournament */
    double log10_p_equal; /* tournament: equal weights, exact; else log10_p */
} rt_score;

/* A scorer holds a scheme's tables; one thread at a time. */
typedef struct rt_scorer rt_scorer;
rt_status rt_scorer_open(rt_scorer **out, const rt_watermark *mark, rt_error *err);
void rt_scorer_close(rt_scorer *scorer);
const rt_watermark *rt_scorer_mark(const rt_scorer *scorer);
/* Another key for a native scheme, without opening again. */
void rt_scorer_set_key(rt_scorer *scorer, const uint8_t key[RT_PRF_KEY_BYTES]);
/* The pairs' context must be rt_watermark_context(mark).  RT_INVALID for an id past an hf vocabulary. */
rt_status rt_scorer_run(rt_scorer *scorer, const rt_pairs *pairs, rt_score *out, rt_error *err);

/* One pair's score for sums over pairs: s, with null mean and variance (METHODS 4.1 and 4.3): green, mean
 * gamma; -ln(1 - u), mean 1; sum of w g, mean 1/2.  native schemes. */
typedef struct rt_unit {
    double mean, variance;
} rt_unit;
rt_unit rt_scorer_unit(const rt_scorer *scorer);
double rt_scorer_one(const rt_scorer *scorer, uint64_t seed, int32_t token);

#endif
