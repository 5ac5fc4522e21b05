/* evidence/detect.c - see detect.h. */
#include "evidence/detect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/size.h"

const char *rt_scheme_null(rt_scheme scheme)
{
    switch (scheme) {
    case RT_SCHEME_KGW:
    case RT_SCHEME_UNIGRAM:
        return "green tokens ~ binomial(n, gamma), exact";
    case RT_SCHEME_HF_KGW:
        return "green tokens ~ binomial(n, floor(gamma V)/V); conservative within one context";
    case RT_SCHEME_GUMBEL:
        return "sum of -ln(1-u) ~ gamma(n, 1), exact";
    case RT_SCHEME_HF_SYNTHID:
        return "weighted sum of bits with the table's own share of ones, saddlepoint tail";
    default:
        return "weighted sum of fair bits, saddlepoint tail; with equal weights binomial(30 n, 1/2), exact";
    }
}

void rt_p_text(char out[RT_P_TEXT], double log10_p)
{
    if (log10_p > -4) {
        (void)snprintf(out, RT_P_TEXT, "%.3g", pow(10, fmin(log10_p, 0)));
        return;
    }
    double exponent = floor(log10_p), mantissa = pow(10, log10_p - exponent);
    if (mantissa >= 9.95) {
        mantissa = 1;
        exponent++;
    }
    (void)snprintf(out, RT_P_TEXT, "%.1fe%.0f", mantissa, exponent);
}

typedef struct key_check {
    const rt_watermark *mark;
    const rt_pairs *pairs;
    uint64_t seed;
    double *z;
} key_check;

static void one_key(void *context, size_t index, unsigned thread)
{
    key_check *c = context;
    rt_watermark mark = *c->mark;
    rt_scorer *scorer;
    rt_score score;
    rt_error err = {0};
    (void)thread;
    rt_mark_key_randomise(&mark, c->seed, index);
    if (rt_scorer_open(&scorer, &mark, &err) != RT_OK) {
        c->z[index] = (double)NAN;
        return;
    }
    const bool scored = rt_scorer_run(scorer, c->pairs, &score, &err) == RT_OK;
    c->z[index] = scored ? score.z : (double)NAN;
    rt_scorer_close(scorer);
}

/* Every k-th pair, such that at most `most` remain; the whole set when it is small. */
static rt_status thin(rt_pairs **out, const rt_pairs *pairs, size_t most, rt_error *err)
{
    *out = NULL;
    const size_t step = rt_size_ceil_div(rt_pairs_count(pairs), most);
    if (rt_pairs_open(out, rt_pairs_context(pairs), RT_DEDUP_NONE, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < rt_pairs_count(pairs); i += rt_size_max(step, 1))
        if (rt_pairs_add_gram(*out, rt_pairs_get(pairs, i), err) != RT_OK)
            return err->status;
    return RT_OK;
}

static size_t pairs_for_check(const rt_watermark *m)
{
    if (m->scheme == RT_SCHEME_HF_KGW) /* a list costs as much as thousands of native scores */
        return m->n_vocab > 4096 ? 400 : 4000;
    return 30000;
}

static rt_status check_key(rt_mark_key_check *out, const rt_pairs *pairs, const rt_watermark *mark,
                           size_t keys, uint64_t seed, rt_pool *pool, rt_error *err)
{
    rt_pairs *some = NULL;
    rt_scorer *scorer = NULL;
    rt_score score = {0};
    double *z = malloc((keys + 1) * sizeof *z);
    rt_status status = z ? thin(&some, pairs, pairs_for_check(mark), err)
                         : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu random keys", keys);
    if (status == RT_OK)
        status = rt_scorer_open(&scorer, mark, err);
    if (status == RT_OK)
        status = rt_scorer_run(scorer, some, &score, err);
    if (status == RT_OK) {
        key_check check = {.mark = mark, .pairs = some, .seed = seed, .z = z};
        rt_pool_run(pool, keys, one_key, &check);
        double sum = 0, squares = 0, above = 0;
        for (size_t i = 0; i < keys; i++) {
            sum += z[i];
            squares += z[i] * z[i];
            above += z[i] >= score.z;
        }
        const double r = (double)keys, mean = sum / r;
        *out = (rt_mark_key_check){.keys = keys,
                                   .pairs = rt_pairs_count(some),
                                   .mean = mean,
                                   .sd = sqrt(fmax(0, (squares - r * mean * mean) / fmax(r - 1, 1))),
                                   .z = score.z,
                                   .p = (1 + above) / (r + 1)};
        out->calibrated = fabs(out->mean) <= 3 / sqrt(r) && fabs(out->sd - 1) <= 3 / sqrt(2 * r);
    }
    rt_scorer_close(scorer);
    rt_pairs_close(some);
    free(z);
    return status;
}

rt_status rt_detect(rt_detection *out, const rt_pairs *pairs, const rt_watermark *mark, size_t random_keys,
                    uint64_t seed, rt_pool *pool, rt_error *err)
{
    rt_scorer *scorer;
    *out = (rt_detection){.seen = rt_pairs_seen(pairs)};
    if (rt_scorer_open(&scorer, mark, err) != RT_OK)
        return err->status;
    rt_status status = rt_scorer_run(scorer, pairs, &out->score, err);
    rt_scorer_close(scorer);
    if (status == RT_OK && random_keys > 0 && out->score.n > 0)
        status = check_key(&out->check, pairs, mark, random_keys, seed, pool, err);
    /* the bounds of few keys are missed by chance now and then: more keys tell that from a fault */
    if (status == RT_OK && out->check.keys > 0 && !out->check.calibrated && random_keys < RT_KEYS_AGAIN &&
        mark->scheme != RT_SCHEME_HF_KGW)
        status = check_key(&out->check, pairs, mark, RT_KEYS_AGAIN, seed + 1, pool, err);
    return status;
}

enum { BATCH = 16 };

typedef struct key_batches {
    const rt_pairs *pairs;
    const rt_watermark *mark;
    const uint8_t (*keys)[RT_PRF_KEY_BYTES];
    size_t n;
    double *z, *log10_p;
    _Atomic bool failed;
} key_batches;

static void one_batch(void *context, size_t index, unsigned thread)
{
    key_batches *b = context;
    rt_scorer *scorer;
    rt_score score;
    rt_error err = {0};
    (void)thread;
    if (rt_scorer_open(&scorer, b->mark, &err) != RT_OK) {
        b->failed = true;
        return;
    }
    const size_t end = rt_size_min(b->n, (index + 1) * BATCH);
    for (size_t k = index * BATCH; k < end; k++) {
        rt_scorer_set_key(scorer, b->keys[k]);
        if (rt_scorer_run(scorer, b->pairs, &score, &err) != RT_OK)
            b->failed = true;
        b->z[k] = score.z;
        b->log10_p[k] = score.log10_p;
    }
    rt_scorer_close(scorer);
}

rt_status rt_detect_keys(double *z, double *log10_p, const rt_pairs *pairs, const rt_watermark *mark,
                         const uint8_t (*keys)[RT_PRF_KEY_BYTES], size_t n, rt_pool *pool, rt_error *err)
{
    if (mark->scheme == RT_SCHEME_HF_KGW || mark->scheme == RT_SCHEME_HF_SYNTHID)
        return rt_error_set(err, RT_UNSUPPORTED, "%s has no keys that many accounts could be told apart by",
                            rt_scheme_word(mark->scheme));
    key_batches b = {.pairs = pairs, .mark = mark, .keys = keys, .n = n, .z = z, .log10_p = log10_p};
    rt_pool_run(pool, rt_size_ceil_div(n, BATCH), one_batch, &b);
    return b.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory to score %zu keys", n) : RT_OK;
}

json_t *rt_detection_json(const rt_detection *d, const rt_watermark *mark)
{
    char p[RT_P_TEXT];
    rt_p_text(p, d->score.log10_p);
    json_t *o =
        json_pack("{s:s,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:s,s:s}", "scheme", rt_scheme_word(mark->scheme),
                  "h", (json_int_t)rt_watermark_context(mark), "n_seen", (json_int_t)d->seen, "n",
                  (json_int_t)d->score.n, "statistic", d->score.statistic, "mean", d->score.mean, "sd",
                  d->score.sd, "z", d->score.z, "log10_p", d->score.log10_p, "log10_p_equal",
                  d->score.log10_p_equal, "p", p, "null", rt_scheme_null(mark->scheme));
    if (mark->scheme != RT_SCHEME_GUMBEL)
        (void)json_object_set_new(o, "ones", json_integer((json_int_t)d->score.ones));
    if (d->score.layers) {
        json_t *layers = json_array();
        for (size_t l = 0; l < d->score.layers; l++)
            (void)json_array_append_new(layers, json_integer((json_int_t)d->score.per_layer[l]));
        (void)json_object_set_new(o, "ones_per_layer", layers);
    }
    if (d->check.keys)
        (void)json_object_set_new(o, "key_check",
                                  json_pack("{s:I,s:I,s:f,s:f,s:f,s:f,s:b}", "keys",
                                            (json_int_t)d->check.keys, "pairs", (json_int_t)d->check.pairs,
                                            "mean", d->check.mean, "sd", d->check.sd, "z", d->check.z, "p",
                                            d->check.p, "calibrated", d->check.calibrated));
    return o;
}
