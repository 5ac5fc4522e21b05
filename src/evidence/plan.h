/* evidence/plan.h - the plan of an examination, written and hashed before anything is looked at, and the
 * words of its outcome (METHODS-evidence sections 0 and 8).
 *
 * A plan is a JSON object: what is claimed, suspect, reference, key (id and commitment, never the key), texts
 * with their SHA-256, tests, numbers and thresholds.  "hash" is the SHA-256 of the object without it, keys
 * sorted, no blanks: any change afterwards shows. */
#ifndef RT_EVIDENCE_PLAN_H
#define RT_EVIDENCE_PLAN_H

#include <jansson.h>
#include <stdbool.h>

#include "retort/error.h"

/* The tests, best first for each kind of access; the words are those of --test. */
#define RT_TEST_MAP(X)                                                                                       \
    X(POOLED, "pooled")         /* reading, pooled, minus a reference: watermark */                          \
    X(SOFT, "soft")             /* reading, pooled, without a reference: watermark */                        \
    X(HARD, "hard")             /* reading, likeliest tokens: watermark */                                   \
    X(DIFFERENCE, "difference") /* sampled text minus a reference's: watermark */                            \
    X(CLOSED, "closed")         /* sampled text: watermark */                                                \
    X(TWINS, "twins")                                                                                        \
    X(CANARIES, "canaries")                                                                                  \
    X(ORDER, "order")                                                                                        \
    X(MEMBERSHIP, "membership")                                                                              \
    X(PREFERENCE, "preference")                                                                              \
    X(MMD, "mmd")       /* is it the same model? */                                                          \
    X(NEARER, "nearer") /* nearer to the teacher than to controls? */                                        \
    X(IDENTITY, "identity")                                                                                  \
    X(WEIGHTS, "weights") /* identity test */                                                                \
    X(MATCH, "match")                                                                                        \
    X(SIMILARITY, "similarity")                                                                              \
    X(DIMENSION, "dimension")
typedef enum rt_test {
#define RT_TEST_ENUM(name, word) RT_TEST_##name,
    RT_TEST_MAP(RT_TEST_ENUM)
#undef RT_TEST_ENUM
        RT_TEST_COUNT,
    RT_TEST_MARKS = RT_TEST_CLOSED + 1 /* the tests before it are of a watermark */
} rt_test;
const char *rt_test_word(rt_test test);
int rt_test_from_word(const char *word); /* -1: none */
/* The null hypothesis, what is assumed, and what the result cannot say. */
const char *rt_test_null(rt_test test);
const char *rt_test_assumes(rt_test test);
const char *rt_test_cannot_say(rt_test test);

/* Lower-case hex of a plan's hash. */
rt_status rt_evidence_plan_hash(char out[65], const json_t *plan, rt_error *err);
/* Sets "hash". */
rt_status rt_evidence_plan_seal(json_t *plan, rt_error *err);
/* Members of known names and types, known tests, numbers in range.  *intact: the hash is the plan's. */
rt_status rt_evidence_plan_check(const json_t *plan, bool *intact, const char *where, rt_error *err);

/* What a combined, corrected p may be called, given what else holds. */
typedef struct rt_verdict_facts {
    double log10_p;     /* combined and corrected; of tests on outputs alone */
    bool calibrated;    /* on control students or by random keys, every test that counts */
    bool key_check;     /* the random-key check passed */
    bool second_test;   /* an independent second test has p <= 0.05 */
    bool replicated;    /* on fresh data */
    bool plan_first;    /* the plan is intact and older than the run */
    bool none_combined; /* no p counts: identity probes, figures of weights, or tests that are not calibrated
                           here */
} rt_verdict_facts;
const char *rt_verdict_words(const rt_verdict_facts *facts);
/* The words, what is still missing for the next ones, the likelihood-ratio bound. */
json_t *rt_verdict_json(const rt_verdict_facts *facts);
/* Alternative explanations, each with how it is tested; `marks`: those of watermark tests too. */
json_t *rt_alternatives_json(bool marks);

#endif
