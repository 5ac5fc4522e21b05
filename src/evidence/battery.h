/* evidence/battery.h - the tests of a plan on a suspect.
 *
 * What a suspect shows is gathered once (answers, reading); every test then takes any key, so that a thousand
 * random keys cost little more than one. */
#ifndef RT_EVIDENCE_BATTERY_H
#define RT_EVIDENCE_BATTERY_H

#include "evidence/detect.h"
#include "evidence/plan.h"
#include "evidence/subject.h"

typedef struct rt_gathered { /* parts are NULL where a plan's tests do not need them */
    size_t h;
    rt_pairs *closed;
    rt_reading *difference;
    rt_look look;
    bool read;
    size_t sampled; /* ids of the suspect's answers */
} rt_gathered;
void rt_gathered_close(rt_gathered *g);

typedef struct rt_result {
    rt_test test;
    size_t n;
    double statistic, z, log10_p;
    double
        log10_p_above; /* P[more than the statistic]: less than log10_p where the null is coarse (counts) */
    bool descriptive;  /* a figure and no p */
    rt_mark_key_check check; /* keys 0: none was made */
    const char *note;        /* NULL, or what to know of this result */
    json_t *more;            /* NULL, or an object of further figures; rt_result_json takes it */
} rt_result;

/* A watermark test of one key.  RT_UNSUPPORTED when the scheme has no such test. */
rt_status rt_battery_mark(rt_result *out, const rt_gathered *g, rt_test test, const rt_watermark *mark,
                          rt_error *err);
/* The test's z and p under `keys` random keys: z, log10_p [keys].  Shared out over the pool.  spread: p is
 * drawn between P[more] and P[at least], which is uniform under a null of counts too; for checks of
 * uniformity only, a test's own p stays the larger. */
rt_status rt_battery_random(const rt_gathered *g, rt_test test, const rt_watermark *mark, size_t keys,
                            uint64_t seed, bool spread, rt_pool *pool, double *z, double *log10_p,
                            rt_error *err);
/* p of a result, spread over its step by u in [0, 1). */
double rt_result_spread(const rt_result *result, double u);
/* Fills result->check from random keys. */
rt_status rt_battery_check(rt_result *result, const rt_gathered *g, const rt_watermark *mark, size_t keys,
                           uint64_t seed, rt_pool *pool, rt_error *err);

/* Tests on rows of a file, an array of objects.
 *   twins       {prompt, delivered, twin}
 *   canaries    {prompt, variants: [texts], served: index, before?, after?}   texts around the variant
 *   order       {prompt, answer, position, block?}     block: a text; positions are compared inside it
 *   membership  {prompt, answer, member: true|false}
 *   preference  {prompt, teacher, controls: [texts]}; readers are innocent models
 * Twins and canaries are also told from answers, where the suspect gives no likelihoods. */
typedef struct rt_row_speakers {
    rt_subject *suspect;   /* gives likelihoods; NULL: it does not */
    rt_subject *reference; /* NULL: none */
    rt_subject *readers;
    size_t n_readers;
    const rt_texts *answers; /* the suspect's, with their prompts; NULL: none */
} rt_row_speakers;
rt_status rt_battery_rows(rt_result *out, rt_test test, const json_t *rows, const rt_row_speakers *who,
                          size_t flips, uint64_t seed, rt_error *err);
/* From the suspect's answers to the rows' prompts: which of the twins each is nearer to (longest common
 * subsequence of characters), or whether it holds the served variant's own words (battery_said.c). */
rt_status rt_battery_said_rows(rt_result *out, rt_test test, const json_t *rows, const rt_texts *answers,
                               size_t flips, uint64_t seed, rt_error *err);

/* Question A: recorded answers of suspect (label 0) and teacher (1), matched by their prompts. */
rt_status rt_battery_mmd(rt_result *out, const rt_texts *suspect, const rt_texts *teacher, size_t draws,
                         uint64_t seed, rt_error *err);
/* Question B, is the suspect nearer to the teacher than to the controls: min_j MMD^2(S, C_j) - MMD^2(S, T),
 * with a 95% interval by resampling prompts, and p by model as unit over the innocents' answers. */
rt_status rt_battery_nearer(rt_result *out, const rt_texts *suspect, const rt_texts *teacher,
                            const rt_texts *controls, size_t n_controls, const rt_texts *innocents,
                            size_t n_innocents, uint64_t seed, rt_error *err);

/* Shares of answers that claim each name: {name, k, n, lo, hi (Clopper-Pearson), prompts, prompts_claiming,
 * prompt_mean, prompt_lo, prompt_hi (by resampling prompts), controls: {..., log10_p} (Fisher's exact test on
 * prompts)}.  A name may have spellings: "OpenAI|Open AI". */
json_t *rt_battery_identity(const rt_texts *answers, const rt_texts *controls, size_t n_controls,
                            const json_t *names, uint64_t seed);
/* The probes: 5 languages, 5 questions, 3 system prompts (none, empty, another persona), as rows of messages.
 */
json_t *rt_identity_probes(void);

/* Answers that are no answers or not the suspect's own: refusals, and near-verbatim copies of the teacher's
 * logged answers (retrieval, or learned by heart). */
typedef struct rt_answer_survey {
    size_t answers, refusals, copies;
} rt_answer_survey;
/* drop [answers->count] is set for both.  logged NULL: none. */
rt_status rt_survey_answers(rt_answer_survey *out, const rt_texts *answers, const rt_texts *logged,
                            uint8_t *drop, rt_error *err);

/* ---- weights (battery_weights.c) ---- */

/* Identity test of MLP up-projections over all layers, by at most `rows` random rows each. */
rt_status rt_battery_weights(rt_result *out, const rt_weights *suspect, const rt_weights *model, size_t rows,
                             uint64_t seed, rt_error *err);
/* Match test of gate against up activations on random token ids, for all pairs of layers; `rows` random units
 * of the suspect against all of the model. */
rt_status rt_battery_match(rt_result *out, const rt_model *suspect, const rt_weights *suspect_weights,
                           const rt_model *model, const rt_weights *weights, size_t rows, uint64_t seed,
                           rt_error *err);
/* CKA and Procrustes distance of the final states on the same random token ids: figures without p. */
rt_status rt_battery_similarity(rt_result *out, const rt_model *suspect, const rt_model *model, uint64_t seed,
                                rt_error *err);
/* The width of the layer before the output, from log-probabilities of `columns` ids after as many random
 * prompts.  Of a server (5.7): each id is asked as the last token of a short text of its own, columns^2 texts
 * of RT_DIMENSION_ASKED tokens, whose own log-probability any server gives that scores given text; one that
 * is dry only notes them. */
enum { RT_DIMENSION_ASKED = 4 };
rt_status rt_battery_dimension(rt_result *out, rt_subject *suspect, size_t columns, uint64_t seed,
                               rt_error *err);

json_t *rt_result_json(rt_result *result);

#endif
