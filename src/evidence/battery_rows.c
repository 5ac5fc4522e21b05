/* evidence/battery_rows.c - tests that need no watermark: twins, canaries, order, membership, preference,
 * two-sample, identity and weights; see battery.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/size.h"
#include "evidence/battery.h"
#include "evidence/combine.h"
#include "evidence/matrix.h"
#include "evidence/mmd.h"
#include "evidence/rank.h"
#include "evidence/saddle.h"
#include "evidence/tails.h"
#include "model/config.h"
#include "tensor/quant.h"

enum { VARIANTS_MAX = 100000, COMPLETION_UNITS = 100 };

/* ln P per byte under the suspect, minus that under the reference. */
static rt_status per_byte(double *out, rt_subject *s, rt_subject *b, const char *prompt, const char *answer,
                          rt_error *err)
{
    rt_likelihood l;
    if (rt_subject_likelihood(s, prompt, answer, &l, err) != RT_OK)
        return err->status;
    const double bytes = fmax((double)l.bytes, 1);
    *out = l.sum / bytes;
    if (!b)
        return RT_OK;
    if (rt_subject_likelihood(b, prompt, answer, &l, err) != RT_OK)
        return err->status;
    *out -= l.sum / bytes;
    return RT_OK;
}

typedef struct rows_run {
    rt_subject *s, *b, *readers;
    size_t n_readers;
    double *x, *y; /* [rows] */
    size_t n, n_y;
} rows_run;

static const char *text_of(const json_t *row, const char *name)
{
    return json_string_value(json_object_get(row, name));
}

static rt_status twin_row(rows_run *r, const json_t *row, const char *where, rt_error *err)
{
    double delivered = 0, twin = 0;
    const char *d = text_of(row, "delivered"), *t = text_of(row, "twin"), *prompt = text_of(row, "prompt");
    if (!d || !t)
        return rt_error_set(err, RT_CORRUPT, "%s: a twin has the texts delivered and twin", where);
    if (per_byte(&delivered, r->s, r->b, prompt, d, err) != RT_OK ||
        per_byte(&twin, r->s, r->b, prompt, t, err) != RT_OK)
        return err->status;
    r->x[r->n++] = delivered - twin;
    return RT_OK;
}

static rt_status canary_row(rows_run *r, const json_t *row, const char *where, rt_error *err)
{
    const json_t *variants = json_object_get(row, "variants"), *served = json_object_get(row, "served");
    const size_t n = json_array_size(variants);
    if (n < 2 || n > VARIANTS_MAX || !json_is_integer(served) || json_integer_value(served) < 0 ||
        (size_t)json_integer_value(served) >= n)
        return rt_error_set(err, RT_CORRUPT,
                            "%s: a canary has at least two variants and the served one's index", where);
    const size_t mine = (size_t)json_integer_value(served);
    double *score = malloc(n * sizeof *score), below = 0, equal = 0;
    rt_status status = score ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu variants", n);
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        const char *text = json_string_value(json_array_get(variants, i));
        rt_likelihood l, b = {0};
        status = text ? rt_subject_likelihood(r->s, text_of(row, "prompt"), text, &l, err)
                      : rt_error_set(err, RT_CORRUPT, "%s: variant %zu is no text", where, i);
        if (status == RT_OK && r->b)
            status = rt_subject_likelihood(r->b, text_of(row, "prompt"), text, &b, err);
        if (status == RT_OK)
            score[i] = l.sum - b.sum;
    }
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        below += score[i] > score[mine];
        equal += i != mine && score[i] == score[mine];
    }
    if (status == RT_OK) { /* mid-rank of ties, upward */
        r->x[r->n] = (1 + below + ceil(equal / 2)) / (double)n;
        r->n++;
    }
    free(score);
    return status;
}

static rt_status order_row(rows_run *r, const json_t *row, const char *where, rt_error *err)
{
    const char *answer = text_of(row, "answer");
    const json_t *position = json_object_get(row, "position");
    if (!answer || !json_is_number(position))
        return rt_error_set(err, RT_CORRUPT, "%s: an item has an answer and a position", where);
    r->y[r->n] = json_number_value(position);
    return per_byte(&r->x[r->n++], r->s, r->b, text_of(row, "prompt"), answer, err);
}

static rt_status member_row(rows_run *r, const json_t *row, const char *where, rt_error *err)
{
    const char *answer = text_of(row, "answer");
    const json_t *member = json_object_get(row, "member");
    if (!answer || !json_is_boolean(member))
        return rt_error_set(err, RT_CORRUPT, "%s: a row has an answer and member true or false", where);
    double *at = json_is_true(member) ? &r->x[r->n++] : &r->y[r->n_y++];
    return per_byte(at, r->s, r->b, text_of(row, "prompt"), answer, err);
}

/* The teacher's score less the mean of the controls', under one reader. */
static rt_status contrast(double *out, rt_subject *reader, const json_t *row, const char *where,
                          rt_error *err)
{
    const json_t *controls = json_object_get(row, "controls");
    const char *teacher = text_of(row, "teacher"), *prompt = text_of(row, "prompt");
    double mean = 0, x = 0;
    if (!teacher || json_array_size(controls) == 0)
        return rt_error_set(err, RT_CORRUPT, "%s: a row has the text teacher and a list controls", where);
    for (size_t i = 0; i < json_array_size(controls); i++) {
        const char *text = json_string_value(json_array_get(controls, i));
        if (!text)
            return rt_error_set(err, RT_CORRUPT, "%s: control %zu is no text", where, i);
        if (per_byte(&x, reader, NULL, prompt, text, err) != RT_OK)
            return err->status;
        mean += x / (double)json_array_size(controls);
    }
    if (per_byte(&x, reader, NULL, prompt, teacher, err) != RT_OK)
        return err->status;
    *out = x - mean;
    return RT_OK;
}

static rt_status preference_row(rows_run *r, const json_t *row, const char *where, rt_error *err)
{
    double d = 0, x = 0;
    if (contrast(&d, r->s, row, where, err) != RT_OK)
        return err->status;
    for (size_t k = 0; k < r->n_readers; k++) {
        if (contrast(&x, &r->readers[k], row, where, err) != RT_OK)
            return err->status;
        d -= x / (double)r->n_readers;
    }
    r->x[r->n++] = d;
    return RT_OK;
}

static void coins_cumulant(const void *context, double theta, double k[3])
{
    const rows_run *r = context;
    for (size_t i = 0; i < r->n; i++)
        rt_cumulant_coin(k, theta, 2 * fabs(r->x[i]));
}

/* Under H0 the sum of d is a sum of fair coins of values +-|d|: its tail past what flips can show. */
static bool coins_tail(const rows_run *r, double *log10_p)
{
    double sum = 0, size = 0, squares = 0;
    for (size_t i = 0; i < r->n; i++) {
        sum += r->x[i];
        size += fabs(r->x[i]);
        squares += r->x[i] * r->x[i];
    }
    const rt_saddle saddle = {.cumulant = coins_cumulant,
                              .context = r,
                              .variance = squares,
                              .theta_min = -HUGE_VAL,
                              .theta_max = HUGE_VAL,
                              .max = size,
                              .log10_p_max = -(double)r->n * log10(2)};
    const double p = rt_saddle_log10(&saddle, sum);
    if (!(squares > 0) || !(p < *log10_p))
        return false;
    *log10_p = p;
    return true;
}

static rt_status conclude(rt_result *out, rows_run *r, size_t flips, uint64_t seed, rt_error *err)
{
    out->n = r->n + r->n_y;
    if (out->test == RT_TEST_CANARIES) {
        for (size_t i = 0; i < r->n; i++)
            r->y[i] = log10(r->x[i]);
        out->statistic = rt_fisher_statistic(r->y, r->n);
        out->log10_p = rt_fisher(r->y, r->n);
    } else if (out->test == RT_TEST_ORDER) {
        rt_spearman s;
        if (rt_spearman_test(&s, r->y, r->x, r->n, err) != RT_OK)
            return err->status;
        out->statistic = s.rho;
        out->log10_p = s.log10_greater;
    } else if (out->test == RT_TEST_MEMBERSHIP) {
        if (r->n < 2 || r->n_y < 2)
            return rt_error_set(err, RT_INVALID, "membership needs two members and two others at least");
        out->log10_p = rt_welch(r->x, r->n, r->y, r->n_y);
        for (size_t i = 0; i < r->n; i++)
            out->statistic += r->x[i] / (double)r->n;
        for (size_t i = 0; i < r->n_y; i++)
            out->statistic -= r->y[i] / (double)r->n_y;
    } else {
        if (out->test == RT_TEST_TWINS && rt_winsorise(r->x, r->n, 4, err) != RT_OK)
            return err->status;
        const rt_sign_flip f = rt_sign_flip_test(r->x, r->n, flips, seed);
        out->statistic = f.mean;
        out->log10_p = f.log10_p;
        if (f.flips && f.log10_p <= -log10((double)f.flips + 1) + 1e-9) {
            out->note =
                "p is the least that the number of flips allows; more flips (plan --flips) may lower it";
            if (r->n >= 50 && coins_tail(r, &out->log10_p))
                out->note = "no flip reached it: p is the saddlepoint tail of the coins, within some 10%";
        }
    }
    out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
    return RT_OK;
}

rt_status rt_battery_rows(rt_result *out, rt_test test, const json_t *rows, rt_subject *suspect,
                          rt_subject *reference, rt_subject *readers, size_t n_readers, size_t flips,
                          uint64_t seed, rt_error *err)
{
    const size_t n = json_array_size(rows);
    rows_run r = {.s = suspect,
                  .b = reference,
                  .readers = readers,
                  .n_readers = n_readers,
                  .x = calloc(n + 1, sizeof(double)),
                  .y = calloc(n + 1, sizeof(double))};
    *out = (rt_result){.test = test};
    rt_status status = r.x && r.y ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", n);
    if (status == RT_OK && n == 0)
        status = rt_error_set(err, RT_INVALID, "the %s test has no rows", rt_test_word(test));
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        char where[64];
        (void)snprintf(where, sizeof where, "%s: row %zu", rt_test_word(test), i + 1);
        switch (test) {
        case RT_TEST_TWINS:
            status = twin_row(&r, row, where, err);
            break;
        case RT_TEST_CANARIES:
            status = canary_row(&r, row, where, err);
            break;
        case RT_TEST_ORDER:
            status = order_row(&r, row, where, err);
            break;
        case RT_TEST_MEMBERSHIP:
            status = member_row(&r, row, where, err);
            break;
        default:
            status = preference_row(&r, row, where, err);
            break;
        }
    }
    if (status == RT_OK)
        status = conclude(out, &r, flips, seed, err);
    free(r.x);
    free(r.y);
    return status;
}

static size_t decode_units(int32_t *units, const rt_text_item *item)
{
    size_t n = 0;
    if (!item->text) {
        for (; n < rt_size_min(item->ids.count, COMPLETION_UNITS); n++)
            units[n] = item->ids.ids[n] + 1;
        return n;
    }
    for (size_t at = 0, length; at < item->size && n < COMPLETION_UNITS; at += length)
        units[n++] = (int32_t)rt_utf8_decode(item->text + at, item->size - at, &length) + 1;
    return n;
}

rt_status rt_battery_mmd(rt_result *out, const rt_texts *suspect, const rt_texts *teacher, size_t draws,
                         uint64_t seed, rt_error *err)
{
    const rt_texts *both[2] = {suspect, teacher};
    const size_t n = suspect->count + teacher->count;
    int32_t *units = calloc(n * COMPLETION_UNITS + 1, sizeof *units),
            *prompts = calloc(n + 1, sizeof *prompts);
    uint8_t *labels = calloc(n + 1, 1);
    *out = (rt_result){.test = RT_TEST_MMD, .n = n};
    rt_status status = units && prompts && labels
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu completions", n);
    for (size_t side = 0, at = 0; status == RT_OK && side < 2; side++)
        for (size_t i = 0; i < both[side]->count; i++, at++) {
            const rt_text_item *item = &both[side]->list[i];
            (void)decode_units(units + at * COMPLETION_UNITS, item);
            labels[at] = (uint8_t)side;
            prompts[at] =
                item->prompt ? (int32_t)(rt_hash64(item->prompt, strlen(item->prompt), 0) & 0x7FFFFFFF) : 0;
        }
    if (status == RT_OK) {
        const rt_completions c = {units, n, COMPLETION_UNITS, prompts, labels};
        rt_mmd mmd;
        status = rt_mmd_test(&mmd, &c, RT_KERNEL_HAMMING, 20000, draws, seed, err);
        if (status == RT_OK) {
            out->statistic = mmd.mmd2;
            out->log10_p = log10(mmd.p);
            out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
            out->note = "a small p says 'not the same model', never 'distilled'";
        }
    }
    free(units);
    free(prompts);
    free(labels);
    return status;
}

static bool letter(const char *text, size_t at, size_t size)
{
    const unsigned char c = at < size ? (unsigned char)text[at] : 0;
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 0x80;
}

/* Does a word or sign in between begin another clause? */
static bool joined(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strchr(",.;:", text[i]) || (i + 4 <= n && strncasecmp(text + i, "but ", 4) == 0))
            return true;
    return false;
}

/* The name between word borders, cases folded, and not right after a negation. */
static bool claims(const rt_text_item *item, const char *name)
{
    static const char *const negations[] = {"not ", "n't ", "never ", "nicht ", "pas ", "no soy ", "kein "};
    const size_t n = strlen(name);
    for (size_t at = 0; n > 0 && at + n <= item->size; at++) {
        if (strncasecmp(item->text + at, name, n) != 0 ||
            (at > 0 && letter(item->text, at - 1, item->size)) || letter(item->text, at + n, item->size))
            continue;
        bool denied = false;
        const size_t from = at > 24 ? at - 24 : 0;
        for (size_t k = 0; k < sizeof negations / sizeof *negations; k++) {
            const size_t m = strlen(negations[k]);
            for (size_t j = from; j + m <= at; j++) /* "not made by X", but not "not X but Y" */
                denied |= at - (j + m) <= 10 && strncasecmp(item->text + j, negations[k], m) == 0 &&
                          !joined(item->text + j + m, at - (j + m));
        }
        if (!denied)
            return true;
    }
    return false;
}

json_t *rt_battery_identity(const rt_texts *answers, const json_t *names)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        size_t k = 0, n = 0;
        for (size_t j = 0; j < answers->count; j++) {
            if (!answers->list[j].text)
                continue;
            n++;
            k += claims(&answers->list[j], name);
        }
        const rt_range range = rt_clopper_pearson(k, n, 0.95);
        (void)json_array_append_new(out,
                                    json_pack("{s:s,s:I,s:I,s:f,s:f,s:s}", "name", name, "k", (json_int_t)k,
                                              "n", (json_int_t)n, "lo", range.lo, "hi", range.hi,
                                              "cannot_say", rt_test_cannot_say(RT_TEST_IDENTITY)));
    }
    return out;
}

static rt_status up_rows(double **out, size_t *rows, size_t *cols, const rt_weights *weights,
                         const rt_model_config *config, size_t layer, rt_error *err)
{
    rt_canonical up;
    *out = NULL;
    if (rt_canonical_layer(&up, weights, config, layer, RT_ROLE_UP, err) != RT_OK)
        return err->status;
    size_t count;
    float *f = rt_size_mul(up.rows, up.cols, &count) ? malloc((count + 1) * sizeof *f) : NULL;
    double *d = f ? malloc((count + 1) * sizeof *d) : NULL;
    rt_status status = RT_OK;
    if (!d)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for the weights of layer %zu", layer);
    else
        rt_dequantise(f, up.data, up.dtype, count);
    for (size_t i = 0; status == RT_OK && i < count; i++)
        d[i] = (double)f[i];
    free(f);
    free(up.owned);
    *rows = up.rows;
    *cols = up.cols;
    if (status == RT_OK)
        *out = d;
    else
        free(d);
    return status;
}

/* The same random rows of both sides are matched: their order is the statistic. */
static rt_status layer_p(double *log10_p, const double *a, const double *b, size_t rows, size_t cols,
                         size_t most, rt_rng *rng, rt_error *err)
{
    const size_t n = rt_size_min(rows, most);
    size_t *chosen = malloc((rows + n + 2) * sizeof *chosen), *column = chosen ? chosen + rows : NULL;
    double *x = malloc((2 * n * cols + n * n + 1) * sizeof *x);
    rt_status status =
        chosen && x ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to match %zu rows", n);
    if (status == RT_OK) {
        for (size_t i = 0; i < rows; i++)
            chosen[i] = i;
        for (size_t i = 0; i < n; i++) {
            const size_t j = i + rt_rng_below(rng, rows - i), kept = chosen[i];
            chosen[i] = chosen[j];
            chosen[j] = kept;
        }
        for (size_t i = 0; i < n; i++) {
            memcpy(x + i * cols, a + chosen[i] * cols, cols * sizeof *x);
            memcpy(x + (n + i) * cols, b + chosen[i] * cols, cols * sizeof *x);
        }
        double *cosines = x + 2 * n * cols;
        rt_spearman s;
        rt_row_cosines(cosines, x, n, x + n * cols, n, cols);
        status = rt_assign(column, cosines, n, n, err);
        if (status == RT_OK)
            status = rt_identity_test(&s, column, n, err);
        if (status == RT_OK)
            *log10_p = s.log10_two_sided;
    }
    free(chosen);
    free(x);
    return status;
}

rt_status rt_battery_weights(rt_result *out, const rt_weights *suspect, const rt_weights *model, size_t rows,
                             uint64_t seed, rt_error *err)
{
    rt_model_config a, b;
    *out = (rt_result){.test = RT_TEST_WEIGHTS};
    if (rt_model_config_read(&a, suspect, err) != RT_OK || rt_model_config_read(&b, model, err) != RT_OK)
        return err->status;
    const size_t layers = rt_size_min(a.n_layers, b.n_layers);
    double *p = calloc(layers + 1, sizeof *p);
    rt_rng rng = rt_rng_make(seed, 0x3E16);
    rt_status status = p ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu layers", layers);
    for (size_t l = 0; status == RT_OK && l < layers; l++) {
        double *x = NULL, *y = NULL;
        size_t rows_x = 0, rows_y = 0, cols_x = 0, cols_y = 0;
        status = up_rows(&x, &rows_x, &cols_x, suspect, &a, l, err);
        if (status == RT_OK)
            status = up_rows(&y, &rows_y, &cols_y, model, &b, l, err);
        if (status == RT_OK && (rows_x != rows_y || cols_x != cols_y))
            status =
                rt_error_set(err, RT_UNSUPPORTED,
                             "the identity test needs equal widths: layer %zu is %zu by %zu and %zu by %zu",
                             l, rows_x, cols_x, rows_y, cols_y);
        if (status == RT_OK)
            status = layer_p(&p[l], x, y, rows_x, cols_x, rows, &rng, err);
        free(x);
        free(y);
    }
    if (status == RT_OK) {
        out->n = layers;
        out->statistic = rt_fisher_statistic(p, layers);
        out->log10_p = rt_fisher(p, layers);
        out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
        if (a.n_layers != b.n_layers)
            out->note = "different depths: layers are compared one to one from the first on";
    }
    free(p);
    return status;
}
