/* evidence/battery_rows.c - tests that need no watermark, by the likelihood of given answers: twins,
 * canaries, order, membership, preference; see battery.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/hash.h"
#include "base/size.h"
#include "base/text.h"
#include "evidence/battery.h"
#include "evidence/combine.h"
#include "evidence/rank.h"
#include "evidence/saddle.h"
#include "evidence/tails.h"

enum { VARIANTS_MAX = 100000, FEATURES = 3, PREFERENCE_TOKENS = 128 };

typedef struct rows_run {
    const rt_row_speakers *who;
    rt_test test;
    const json_t *rows;
    size_t n;         /* rows */
    double *x, *y;    /* [n]; of preference: x [models, n] */
    double *features; /* [n, FEATURES] */
    uint8_t *member;  /* [n] */
    size_t *block;    /* [n] */
    size_t variants;  /* of every canary; 0: they differ */
    double rank_sum, bits;
    bool blocks;
} rows_run;

static const char *text_of(const json_t *row, const char *name)
{
    return json_string_value(json_object_get(row, name));
}

/* ln P per byte of the first tokens under a model, minus that under the reference; 0: all tokens. */
static rt_status per_byte(double *out, rt_subject *s, rt_subject *b, const char *prompt, const char *answer,
                          size_t most, rt_error *err)
{
    rt_likelihood l;
    if (rt_subject_likelihood(s, prompt, answer, most, &l, err) != RT_OK)
        return err->status;
    *out = l.sum / fmax((double)l.bytes, 1);
    if (!b)
        return RT_OK;
    if (rt_subject_likelihood(b, prompt, answer, most, &l, err) != RT_OK)
        return err->status;
    *out -= l.sum / fmax((double)l.bytes, 1);
    return RT_OK;
}

static rt_status twin_row(rows_run *r, size_t i, const json_t *row, const char *where, rt_error *err)
{
    double delivered = 0, twin = 0;
    const char *d = text_of(row, "delivered"), *t = text_of(row, "twin"), *prompt = text_of(row, "prompt");
    if (!d || !t)
        return rt_error_set(err, RT_CORRUPT, "%s: a twin has the texts delivered and twin", where);
    if (per_byte(&delivered, r->who->suspect, r->who->reference, prompt, d, 0, err) != RT_OK ||
        per_byte(&twin, r->who->suspect, r->who->reference, prompt, t, 0, err) != RT_OK)
        return err->status;
    r->x[i] = delivered - twin;
    return RT_OK;
}

/* A variant in its place: rows may say what stands before and after it. */
static rt_status variant_text(rt_text *out, const json_t *row, size_t v, const char *where, rt_error *err)
{
    const json_t *text = json_array_get(json_object_get(row, "variants"), v);
    const char *before = text_of(row, "before"), *after = text_of(row, "after");
    if (!json_is_string(text))
        return rt_error_set(err, RT_CORRUPT, "%s: variant %zu is no text", where, v);
    rt_text_clear(out);
    rt_text_printf(out, "%s%s%s", before ? before : "", json_string_value(text), after ? after : "");
    return out->failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a canary") : RT_OK;
}

static rt_status canary_row(rows_run *r, size_t i, const json_t *row, const char *where, rt_error *err)
{
    const json_t *variants = json_object_get(row, "variants"), *served = json_object_get(row, "served");
    const size_t n = json_array_size(variants);
    if (n < 2 || n > VARIANTS_MAX || !json_is_integer(served) || json_integer_value(served) < 0 ||
        (size_t)json_integer_value(served) >= n)
        return rt_error_set(err, RT_CORRUPT,
                            "%s: a canary has at least two variants and the served one's index", where);
    const size_t mine = (size_t)json_integer_value(served);
    rt_text text = {0};
    double *score = malloc(n * sizeof *score), above = 0, equal = 0;
    rt_status status = score ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu variants", n);
    for (size_t v = 0; status == RT_OK && v < n; v++) {
        rt_likelihood l = {0}, b = {0};
        status = variant_text(&text, row, v, where, err);
        if (status == RT_OK)
            status = rt_subject_likelihood(r->who->suspect, text_of(row, "prompt"), text.data, 0, &l, err);
        if (status == RT_OK && r->who->reference)
            status = rt_subject_likelihood(r->who->reference, text_of(row, "prompt"), text.data, 0, &b, err);
        score[v] = l.sum - b.sum;
    }
    for (size_t v = 0; status == RT_OK && v < n; v++) {
        above += score[v] > score[mine];
        equal += v != mine && score[v] == score[mine];
    }
    free(score);
    rt_text_deinit(&text);
    const double rank = 1 + above + ceil(equal / 2); /* mid-rank of ties, upward */
    r->x[i] = rank / (double)n;
    r->rank_sum += rank;
    r->bits += rt_exposure_bits(rank, (double)n);
    r->variants = i == 0 || r->variants == n ? n : 0;
    return status;
}

static rt_status order_row(rows_run *r, size_t i, const json_t *row, const char *where, rt_error *err)
{
    const char *answer = text_of(row, "answer"), *block = text_of(row, "block");
    const json_t *position = json_object_get(row, "position");
    if (!answer || !json_is_number(position))
        return rt_error_set(err, RT_CORRUPT, "%s: an item has an answer and a position", where);
    if (i > 0 && r->blocks != (block != NULL))
        return rt_error_set(err, RT_CORRUPT, "%s: either every row or none has a block", where);
    r->blocks = block != NULL;
    r->block[i] = block ? (size_t)(rt_hash64(block, strlen(block), 0) >> 12) : 0; /* a double holds 52 bits */
    r->y[i] = json_number_value(position);
    return per_byte(&r->x[i], r->who->suspect, r->who->reference, text_of(row, "prompt"), answer, 0, err);
}

/* ln P per byte and the mean of the lowest fifth, less the reference's; ln P per compressed byte. */
static rt_status member_row(rows_run *r, size_t i, const json_t *row, const char *where, rt_error *err)
{
    const char *answer = text_of(row, "answer"), *prompt = text_of(row, "prompt");
    const json_t *member = json_object_get(row, "member");
    rt_likelihood s, b = {0};
    if (!answer || !json_is_boolean(member))
        return rt_error_set(err, RT_CORRUPT, "%s: a row has an answer and member true or false", where);
    r->member[i] = json_is_true(member);
    if (rt_subject_likelihood(r->who->suspect, prompt, answer, 0, &s, err) != RT_OK ||
        (r->who->reference && rt_subject_likelihood(r->who->reference, prompt, answer, 0, &b, err) != RT_OK))
        return err->status;
    const size_t size = strlen(answer), room = ZSTD_compressBound(size);
    char *packed = malloc(room);
    if (!packed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to compress an answer");
    const size_t small = ZSTD_compress(packed, room, answer, size, 19);
    free(packed);
    double *f = r->features + i * FEATURES;
    f[0] = s.sum / fmax((double)s.bytes, 1) - b.sum / fmax((double)b.bytes, 1);
    f[1] = s.least - b.least;
    f[2] = (s.sum - b.sum) / fmax(ZSTD_isError(small) ? (double)size : (double)small, 1);
    return RT_OK;
}

/* The least number of tokens of a row's texts, at most PREFERENCE_TOKENS: all are cut to it. */
static rt_status common_tokens(size_t *out, const rt_subject *s, const json_t *row, rt_error *err)
{
    const json_t *controls = json_object_get(row, "controls");
    *out = PREFERENCE_TOKENS;
    for (size_t i = 0; i <= json_array_size(controls); i++) {
        const char *text = i ? json_string_value(json_array_get(controls, i - 1)) : text_of(row, "teacher");
        rt_token_list ids = {0};
        if (text && rt_tokenizer_encode(s->tokenizer, text, strlen(text), false, &ids, err) != RT_OK)
            return err->status;
        *out = text ? rt_size_min(*out, rt_size_max(ids.count, 1)) : *out;
        rt_token_list_deinit(&ids);
    }
    return RT_OK;
}

/* The teacher's score less the mean of the controls', under one reader. */
static rt_status contrast(double *out, rt_subject *reader, const json_t *row, const char *where,
                          rt_error *err)
{
    const json_t *controls = json_object_get(row, "controls");
    const char *teacher = text_of(row, "teacher"), *prompt = text_of(row, "prompt");
    double mean = 0, x = 0;
    size_t tokens;
    if (!teacher || json_array_size(controls) == 0)
        return rt_error_set(err, RT_CORRUPT, "%s: a row has the text teacher and a list controls", where);
    if (common_tokens(&tokens, reader, row, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < json_array_size(controls); i++) {
        const char *text = json_string_value(json_array_get(controls, i));
        if (!text)
            return rt_error_set(err, RT_CORRUPT, "%s: control %zu is no text", where, i);
        if (per_byte(&x, reader, NULL, prompt, text, tokens, err) != RT_OK)
            return err->status;
        mean += x / (double)json_array_size(controls);
    }
    if (per_byte(&x, reader, NULL, prompt, teacher, tokens, err) != RT_OK)
        return err->status;
    *out = x - mean;
    return RT_OK;
}

static rt_status preference_row(rows_run *r, size_t i, const json_t *row, const char *where, rt_error *err)
{
    for (size_t m = 0; m <= r->who->n_readers; m++) /* the suspect, then the readers */
        if (contrast(&r->x[m * r->n + i], m ? &r->who->readers[m - 1] : r->who->suspect, row, where, err) !=
            RT_OK)
            return err->status;
    return RT_OK;
}

typedef struct coins {
    const double *x;
    size_t n;
} coins;

static void coins_cumulant(const void *context, double theta, double k[3])
{
    const coins *c = context;
    for (size_t i = 0; i < c->n; i++)
        rt_cumulant_coin(k, theta, 2 * fabs(c->x[i]));
}

/* Under H0 the sum of d is a sum of fair coins of values +-|d|: its tail past what flips can show. */
static bool coins_tail(const double *x, size_t n, double *log10_p)
{
    const coins c = {x, n};
    double sum = 0, size = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        size += fabs(x[i]);
        squares += x[i] * x[i];
    }
    const rt_saddle saddle = {.cumulant = coins_cumulant,
                              .context = &c,
                              .variance = squares,
                              .theta_min = -HUGE_VAL,
                              .theta_max = HUGE_VAL,
                              .max = size,
                              .log10_p_max = -(double)n * log10(2)};
    const double p = rt_saddle_log10(&saddle, sum);
    if (!(squares > 0) || !(p < *log10_p))
        return false;
    *log10_p = p;
    return true;
}

static void by_signs(rt_result *out, const double *x, size_t n, size_t flips, uint64_t seed)
{
    const rt_sign_flip f = rt_sign_flip_test(x, n, flips, seed);
    out->statistic = f.mean;
    out->log10_p = f.log10_p;
    if (f.flips && f.log10_p <= -log10((double)f.flips + 1) + 1e-9) {
        out->note = "p is the least that the number of flips allows; more flips (plan --flips) may lower it";
        if (n >= 50 && coins_tail(x, n, &out->log10_p))
            out->note = "no flip reached it: p is the saddlepoint tail of the coins, within some 10%";
    }
}

static int by_prompt(const void *a, const void *b, void *context)
{
    const uint64_t *unit = context, x = unit[*(const size_t *)a], y = unit[*(const size_t *)b];
    return (x > y) - (x < y);
}

/* Means over the rows of one prompt: x [models, n] in place; returns the number of prompts. */
static rt_status average_prompts(rows_run *r, size_t *units, rt_error *err)
{
    const size_t n = r->n, models = r->who->n_readers + 1;
    uint64_t *unit = malloc((n + 1) * sizeof *unit);
    size_t *order = malloc((n + 1) * sizeof *order);
    double *mean = calloc(n + 1, sizeof *mean);
    rt_status status =
        unit && order && mean ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", n);
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        const char *prompt = text_of(json_array_get(r->rows, i), "prompt");
        unit[i] = prompt ? rt_hash64(prompt, strlen(prompt), 0) : i;
        order[i] = i;
    }
    if (status == RT_OK)
        qsort_r(order, n, sizeof *order, by_prompt, unit);
    for (size_t m = 0; status == RT_OK && m < models; m++) {
        double *x = r->x + m * n;
        *units = 0;
        for (size_t from = 0, to; from < n; from = to, ++*units) {
            mean[*units] = 0;
            for (to = from; to < n && unit[order[to]] == unit[order[from]]; to++)
                mean[*units] += x[order[to]];
            mean[*units] /= (double)(to - from);
        }
        memcpy(x, mean, *units * sizeof *x);
    }
    free(unit);
    free(order);
    free(mean);
    return status;
}

/* Both units (5.1): prompts, by signs of the difference in differences; and models, by the rank of the
 * suspect's mean contrast among the readers'.  The verdict takes the weaker. */
static rt_status conclude_preference(rt_result *out, rows_run *r, size_t flips, uint64_t seed, rt_error *err)
{
    size_t units = 0;
    const size_t readers = r->who->n_readers;
    double *d = malloc((r->n + readers + 1) * sizeof *d), *means = d ? d + r->n : NULL, suspect = 0;
    rt_status status =
        d ? average_prompts(r, &units, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", r->n);
    for (size_t i = 0; status == RT_OK && i < units; i++) {
        d[i] = r->x[i];
        suspect += r->x[i] / (double)units;
        for (size_t k = 1; k <= readers; k++)
            d[i] -= r->x[k * r->n + i] / (double)readers;
    }
    for (size_t k = 0; status == RT_OK && k < readers; k++) {
        means[k] = 0;
        for (size_t i = 0; i < units; i++)
            means[k] += r->x[(k + 1) * r->n + i] / (double)units;
    }
    if (status == RT_OK) {
        by_signs(out, d, units, flips, seed);
        out->n = units;
        const double by_prompts = out->log10_p, by_models = rt_model_unit(suspect, means, readers);
        out->more = json_pack("{s:f,s:f,s:I}", "log10_p_prompts", by_prompts, "log10_p_models", by_models,
                              "readers", (json_int_t)readers);
        out->log10_p = out->log10_p_above = fmax(by_prompts, by_models);
        if (by_models >= by_prompts)
            out->log10_p_above = log10(fmax(0, pow(10, by_models) - 1 / ((double)readers + 1)));
        if (readers > 0 && by_models > by_prompts)
            out->note = "the weaker of two units, models: p cannot be less than 1/(readers + 1)";
    }
    free(d);
    return status;
}

static rt_status conclude_canaries(rt_result *out, rows_run *r, rt_error *err)
{
    double fisher, exact;
    size_t room;
    for (size_t i = 0; i < r->n; i++)
        r->y[i] = log10(r->x[i]);
    out->statistic = r->bits / (double)r->n;
    out->log10_p = fisher = rt_fisher(r->y, r->n);
    out->more = json_pack("{s:f,s:f}", "exposure_bits", out->statistic, "log10_p_fisher", fisher);
    if (r->variants && rt_size_mul(r->n, r->variants, &room) && room <= 1000000) {
        if (rt_canary_exact(&exact, r->rank_sum, r->n, r->variants, err) != RT_OK)
            return err->status;
        out->log10_p = exact; /* every canary has as many variants: their ranks sum exactly */
    }
    return RT_OK;
}

static rt_status conclude(rt_result *out, rows_run *r, size_t flips, uint64_t seed, rt_error *err)
{
    rt_status status = RT_OK;
    out->n = r->n;
    if (out->test == RT_TEST_CANARIES) {
        status = conclude_canaries(out, r, err);
    } else if (out->test == RT_TEST_ORDER && r->blocks) {
        status =
            rt_order_blocks(&out->statistic, &out->log10_p, r->y, r->x, r->block, r->n, flips, seed, err);
        out->note = "positions are compared inside blocks only";
    } else if (out->test == RT_TEST_ORDER) {
        rt_spearman s;
        status = rt_spearman_test(&s, r->y, r->x, r->n, err);
        out->statistic = s.rho;
        out->log10_p = s.log10_greater;
    } else if (out->test == RT_TEST_MEMBERSHIP) {
        status = rt_membership_test(&out->log10_p, &out->statistic, r->features, FEATURES, r->member, r->n,
                                    seed, err);
        out->note = "features were weighted on one half and tested on the other";
    } else if (out->test == RT_TEST_PREFERENCE) {
        status = conclude_preference(out, r, flips, seed, err);
    } else {
        status = rt_winsorise(r->x, r->n, 4, err);
        if (status == RT_OK)
            by_signs(out, r->x, r->n, flips, seed);
    }
    out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
    return status;
}

static rt_status one_row(rows_run *r, size_t i, rt_error *err)
{
    const json_t *row = json_array_get(r->rows, i);
    char where[64];
    (void)snprintf(where, sizeof where, "%s: row %zu", rt_test_word(r->test), i + 1);
    switch (r->test) {
    case RT_TEST_TWINS:
        return twin_row(r, i, row, where, err);
    case RT_TEST_CANARIES:
        return canary_row(r, i, row, where, err);
    case RT_TEST_ORDER:
        return order_row(r, i, row, where, err);
    case RT_TEST_MEMBERSHIP:
        return member_row(r, i, row, where, err);
    default:
        return preference_row(r, i, row, where, err);
    }
}

/* A server is asked once for everything: the rows are gone through dry, then what they wanted is scored. */
static rt_status ask_ahead(rows_run *r, bool (*stop)(void), rt_error *err)
{
    rt_endpoint *endpoint = r->who->suspect->endpoint;
    if (!endpoint)
        return RT_OK;
    rt_row_speakers alone = *r->who;
    const rt_row_speakers *all = r->who;
    alone.reference = NULL;
    alone.n_readers = 0;
    r->who = &alone;
    rt_endpoint_set_dry(endpoint, true);
    rt_status status = RT_OK;
    for (size_t i = 0; status == RT_OK && i < r->n; i++)
        status = one_row(r, i, err);
    rt_endpoint_set_dry(endpoint, false);
    r->who = all;
    r->rank_sum = r->bits = 0;
    return status == RT_OK ? rt_endpoint_fetch(endpoint, stop, err) : status;
}

rt_status rt_battery_rows(rt_result *out, rt_test test, const json_t *rows, const rt_row_speakers *who,
                          size_t flips, uint64_t seed, rt_error *err)
{
    const size_t n = json_array_size(rows);
    *out = (rt_result){.test = test};
    if (n == 0)
        return rt_error_set(err, RT_INVALID, "the %s test has no rows", rt_test_word(test));
    if (!who->suspect)
        return rt_battery_said_rows(out, test, rows, who->answers, flips, seed, err);
    rows_run r = {.who = who,
                  .test = test,
                  .rows = rows,
                  .n = n,
                  .x = calloc(n * (who->n_readers + 1), sizeof(double)),
                  .y = calloc(n, sizeof(double)),
                  .features = calloc(n * FEATURES, sizeof(double)),
                  .member = calloc(n, 1),
                  .block = calloc(n, sizeof(size_t))};
    rt_status status = r.x && r.y && r.features && r.member && r.block
                           ? ask_ahead(&r, NULL, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", n);
    for (size_t i = 0; status == RT_OK && i < n; i++)
        status = one_row(&r, i, err);
    if (status == RT_OK)
        status = conclude(out, &r, flips, seed, err);
    free(r.x);
    free(r.y);
    free(r.features);
    free(r.member);
    free(r.block);
    return status;
}
