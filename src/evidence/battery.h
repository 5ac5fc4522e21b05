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
    rt_mark_key_check check; /* keys 0: none was made */
    const char *note;        /* NULL, or what to know of this result */
} rt_result;

/* A watermark test of one key.  RT_UNSUPPORTED when the scheme has no such test. */
rt_status rt_battery_mark(rt_result *out, const rt_gathered *g, rt_test test, const rt_watermark *mark,
                          rt_error *err);
/* The test's z and p under `keys` random keys: z, log10_p [keys].  Shared out over the pool. */
rt_status rt_battery_random(const rt_gathered *g, rt_test test, const rt_watermark *mark, size_t keys,
                            uint64_t seed, rt_pool *pool, double *z, double *log10_p, rt_error *err);
/* Fills result->check from random keys. */
rt_status rt_battery_check(rt_result *result, const rt_gathered *g, const rt_watermark *mark, size_t keys,
                           uint64_t seed, rt_pool *pool, rt_error *err);

/* Tests on rows of a file, an array of objects.  reference NULL: none.
 *   twins       {prompt, delivered, twin}
 *   canaries    {prompt, variants: [texts], served: index}
 *   order       {prompt, answer, position}
 *   membership  {prompt, answer, member: true|false}
 *   preference  {prompt, teacher, controls: [texts]}; readers are innocent models */
rt_status rt_battery_rows(rt_result *out, rt_test test, const json_t *rows, rt_subject *suspect,
                          rt_subject *reference, rt_subject *readers, size_t n_readers, size_t flips,
                          uint64_t seed, rt_error *err);
/* Recorded answers of suspect (label 0) and teacher (1), matched by their prompts. */
rt_status rt_battery_mmd(rt_result *out, const rt_texts *suspect, const rt_texts *teacher, size_t draws,
                         uint64_t seed, rt_error *err);
/* Shares of answers that claim each name: {name, prompts, mean, k, n, lo, hi}. */
json_t *rt_battery_identity(const rt_texts *answers, const json_t *names);
/* Identity test of MLP up-projections over all layers, by at most `rows` random rows each. */
rt_status rt_battery_weights(rt_result *out, const rt_weights *suspect, const rt_weights *model, size_t rows,
                             uint64_t seed, rt_error *err);

json_t *rt_result_json(const rt_result *result);

#endif
