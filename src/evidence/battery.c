/* evidence/battery.c - watermark tests of a plan, for its key and for random ones; see battery.h. */
#include "evidence/battery.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "evidence/tails.h"

void rt_gathered_close(rt_gathered *g)
{
    rt_pairs_close(g->closed);
    rt_reading_close(g->difference);
    rt_look_close(&g->look);
    *g = (rt_gathered){0};
}

static rt_status by_pairs(rt_result *out, const rt_pairs *pairs, rt_scorer *scorer, rt_error *err)
{
    rt_score score;
    if (rt_scorer_run(scorer, pairs, &score, err) != RT_OK)
        return err->status;
    out->n = score.n;
    out->statistic = score.statistic;
    out->z = score.z;
    out->log10_p = out->log10_p_above = score.log10_p;
    const rt_watermark *mark = rt_scorer_mark(scorer);
    if (score.n > 0 && (mark->scheme == RT_SCHEME_KGW || mark->scheme == RT_SCHEME_UNIGRAM ||
                        mark->scheme == RT_SCHEME_HF_KGW)) /* green tokens are counted */
        out->log10_p_above = rt_log10_binomial(score.n, score.ones + 1, score.mean / (double)score.n);
    return RT_OK;
}

static rt_status by_reading(rt_result *out, const rt_reading *reading, const rt_scorer *scorer, rt_error *err)
{
    rt_reading_result r;
    if (rt_reading_test(reading, scorer, &r, err) != RT_OK)
        return err->status;
    out->n = r.n;
    out->statistic = r.statistic;
    out->z = r.z;
    out->log10_p = out->log10_p_above = r.log10_p;
    if (!(r.variance > 0))
        out->note = "no difference between suspect and reference";
    return RT_OK;
}

rt_status rt_battery_mark(rt_result *out, const rt_gathered *g, rt_test test, const rt_watermark *mark,
                          rt_error *err)
{
    *out = (rt_result){.test = test};
    const bool pooled = test == RT_TEST_POOLED || test == RT_TEST_SOFT || test == RT_TEST_DIFFERENCE;
    const bool hf = mark->scheme == RT_SCHEME_HF_KGW || mark->scheme == RT_SCHEME_HF_SYNTHID;
    const rt_reading *reading = test == RT_TEST_POOLED ? g->look.diff
                                : test == RT_TEST_SOFT ? g->look.soft
                                                       : g->difference;
    const rt_pairs *pairs = test == RT_TEST_HARD ? g->look.hard : g->closed;
    if (pooled && hf)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "the %s test is for native schemes; hf schemes have hard and "
                            "closed",
                            rt_test_word(test));
    if (pooled ? !reading : !pairs)
        return rt_error_set(err, RT_INVALID, "the %s test has nothing to look at", rt_test_word(test));
    rt_scorer *scorer;
    if (rt_scorer_open(&scorer, mark, err) != RT_OK)
        return err->status;
    const rt_status status =
        pooled ? by_reading(out, reading, scorer, err) : by_pairs(out, pairs, scorer, err);
    rt_scorer_close(scorer);
    return status;
}

typedef struct random_keys {
    const rt_gathered *g;
    rt_test test;
    const rt_watermark *mark;
    uint64_t seed;
    bool spread;
    double *z, *log10_p;
} random_keys;

double rt_result_spread(const rt_result *result, double u)
{
    const double p = pow(10, result->log10_p), above = pow(10, fmin(result->log10_p_above, result->log10_p));
    return above + u * (p - above);
}

static void one_key(void *context, size_t index, unsigned thread)
{
    const random_keys *r = context;
    rt_watermark mark = *r->mark;
    rt_result result;
    rt_error err = {0};
    (void)thread;
    rt_mark_key_randomise(&mark, r->seed, index);
    const bool done = rt_battery_mark(&result, r->g, r->test, &mark, &err) == RT_OK;
    r->z[index] = done ? result.z : (double)NAN;
    r->log10_p[index] = done ? result.log10_p : (double)NAN;
    if (done && r->spread) {
        rt_rng rng = rt_rng_make(r->seed ^ 0x59FEAD, (uint32_t)index);
        r->log10_p[index] = log10(rt_result_spread(&result, 1 - rt_rng_uniform(&rng)));
    }
}

rt_status rt_battery_random(const rt_gathered *g, rt_test test, const rt_watermark *mark, size_t keys,
                            uint64_t seed, bool spread, rt_pool *pool, double *z, double *log10_p,
                            rt_error *err)
{
    random_keys r = {g, test, mark, seed, spread, z, log10_p};
    rt_pool_run(pool, keys, one_key, &r);
    for (size_t i = 0; i < keys; i++)
        if (isnan(z[i]))
            return rt_error_set(err, RT_NOT_FINITE, "random key %zu gives no number in the %s test", i,
                                rt_test_word(test));
    return RT_OK;
}

rt_status rt_battery_check(rt_result *result, const rt_gathered *g, const rt_watermark *mark, size_t keys,
                           uint64_t seed, rt_pool *pool, rt_error *err)
{
    double *z = malloc((2 * keys + 1) * sizeof *z);
    if (!z)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu random keys", keys);
    const rt_status status =
        rt_battery_random(g, result->test, mark, keys, seed, false, pool, z, z + keys, err);
    if (status == RT_OK && keys > 0) {
        double sum = 0, squares = 0, above = 0;
        for (size_t i = 0; i < keys; i++) {
            sum += z[i];
            squares += z[i] * z[i];
            above += z[i] >= result->z;
        }
        const double r = (double)keys, mean = sum / r;
        result->check = (rt_mark_key_check){.keys = keys,
                                            .pairs = result->n,
                                            .mean = mean,
                                            .sd = sqrt(fmax(0, (squares - r * mean * mean) / fmax(r - 1, 1))),
                                            .z = result->z,
                                            .p = (1 + above) / (r + 1)};
        result->check.calibrated = fabs(mean) <= 3 / sqrt(r) && fabs(result->check.sd - 1) <= 3 / sqrt(2 * r);
    }
    free(z);
    /* the bounds of few keys are missed by chance now and then: more keys tell that from a fault */
    if (status == RT_OK && keys > 0 && !result->check.calibrated && keys < RT_KEYS_AGAIN)
        return rt_battery_check(result, g, mark, RT_KEYS_AGAIN, seed + 1, pool, err);
    return status;
}

json_t *rt_result_json(rt_result *r)
{
    char p[RT_P_TEXT];
    rt_p_text(p, r->log10_p);
    json_t *o = json_pack("{s:s,s:I,s:f,s:s,s:s,s:s}", "test", rt_test_word(r->test), "n", (json_int_t)r->n,
                          "statistic", r->statistic, "null", rt_test_null(r->test), "assumes",
                          rt_test_assumes(r->test), "cannot_say", rt_test_cannot_say(r->test));
    if (!r->descriptive)
        (void)json_object_update_new(
            o, json_pack("{s:f,s:f,s:s}", "z", r->z, "log10_p", fmax(r->log10_p, -1e300), "p", p));
    if (r->note)
        (void)json_object_set_new(o, "note", json_string(r->note));
    if (r->more)
        (void)json_object_update_missing_new(o, r->more);
    r->more = NULL;
    if (r->check.keys)
        (void)json_object_set_new(o, "key_check",
                                  json_pack("{s:I,s:f,s:f,s:f,s:b}", "keys", (json_int_t)r->check.keys,
                                            "mean", r->check.mean, "sd", r->check.sd, "p", r->check.p,
                                            "calibrated", r->check.calibrated));
    return o;
}
