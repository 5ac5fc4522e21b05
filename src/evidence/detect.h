/* evidence/detect.h - a key tested on a scored set, with the check that random keys give an honest null
 * (METHODS-evidence sections 3.2, 3.4). */
#ifndef RT_EVIDENCE_DETECT_H
#define RT_EVIDENCE_DETECT_H

#include <jansson.h>

#include "base/pool.h"
#include "evidence/keys.h"

enum { RT_KEYS_AGAIN = 999 }; /* random keys where fewer did not give the null's mean and sd */

typedef struct rt_mark_key_check {
    size_t keys, pairs; /* random keys; pairs that they and the key were scored on */
    double mean, sd;    /* of the random keys' z */
    double z;           /* the key's, on these pairs */
    double p;           /* (1 + #{z_r >= z}) / (keys + 1): right whatever the text is */
    bool calibrated;    /* mean within 3/sqrt(R) of 0, sd within 3/sqrt(2R) of 1 */
} rt_mark_key_check;

typedef struct rt_detection {
    size_t seen; /* places before de-duplication */
    rt_score score;
    rt_mark_key_check check; /* keys 0: not made */
} rt_detection;

/* random_keys 0: no check.  The check takes an even share of at most a scheme's bound of pairs, which keeps
 * it cheap.  pool: NULL, or shared by the random keys. */
rt_status rt_detect(rt_detection *out, const rt_pairs *pairs, const rt_watermark *mark, size_t random_keys,
                    uint64_t seed, rt_pool *pool, rt_error *err);
/* z and log10 p of many keys on one scored set: keys are shared out over the pool (NULL: none), each task's
 * keys open the scheme's tables once.  keys [n], of the scheme and settings of `mark`, which must be a native
 * one (else RT_UNSUPPORTED); z, log10_p [n]. */
rt_status rt_detect_keys(double *z, double *log10_p, const rt_pairs *pairs, const rt_watermark *mark,
                         const uint8_t (*keys)[RT_PRF_KEY_BYTES], size_t n, rt_pool *pool, rt_error *err);
/* The figures, with the null in words and what the result cannot say. */
json_t *rt_detection_json(const rt_detection *d, const rt_watermark *mark);
const char *rt_scheme_null(rt_scheme scheme); /* the null distribution in words */

/* "3.1e-214" from log10 p: never 0, never more than 1. */
enum { RT_P_TEXT = 32 };
void rt_p_text(char out[RT_P_TEXT], double log10_p);

#endif
