/* evidence/battery_said.c - tests on what a suspect said: twins and canaries from answers, the two-sample
 * tests, and which answers are none; see battery.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/size.h"
#include "evidence/battery.h"
#include "evidence/mmd.h"
#include "evidence/rank.h"
#include "evidence/tails.h"
#include "outputs/idmap.h"
#include "outputs/refusal.h"

enum { COMPLETION_UNITS = 100, LCS_UNITS = 2000, VARIANTS_MAX = 100000, RESAMPLES = 1000, GRAM_WORDS = 8 };

static const char *text_of(const json_t *row, const char *name)
{
    return json_string_value(json_object_get(row, name));
}

static size_t decode_text(int32_t *units, const char *text, size_t size, size_t most)
{
    size_t n = 0;
    for (size_t at = 0, length; at < size && n < most; at += length)
        units[n++] = (int32_t)rt_utf8_decode(text + at, size - at, &length) + 1;
    return n;
}

static size_t decode_item(int32_t *units, const rt_text_item *item, size_t most)
{
    size_t n = 0;
    if (item->text)
        return decode_text(units, item->text, item->size, most);
    for (; n < rt_size_min(item->ids.count, most); n++)
        units[n] = item->ids.ids[n] + 1;
    return n;
}

/* ---- twins and canaries ---- */

/* Length of the longest common subsequence of characters, over the mean length. */
static double likeness(const int32_t *a, size_t n, const int32_t *b, size_t m, uint16_t *row)
{
    memset(row, 0, (m + 1) * sizeof *row);
    for (size_t i = 0; i < n; i++) {
        uint16_t corner = 0;
        for (size_t j = 0; j < m; j++) {
            const uint16_t above = row[j + 1];
            row[j + 1] = a[i] == b[j] ? (uint16_t)(corner + 1) : row[j] > above ? row[j] : above;
            corner = above;
        }
    }
    return n + m ? 2 * (double)row[m] / (double)(n + m) : 0;
}

typedef struct likening {
    int32_t a[LCS_UNITS], b[LCS_UNITS];
    uint16_t row[LCS_UNITS + 1];
} likening;

static double likeness_to(likening *w, const rt_text_item *answer, const char *text)
{
    const size_t n = decode_text(w->a, answer->text, answer->size, LCS_UNITS),
                 m = decode_text(w->b, text, strlen(text), LCS_UNITS);
    return likeness(w->a, n, w->b, m, w->row);
}

static bool same_prompt(const rt_text_item *item, const char *prompt)
{
    return item->text && item->prompt && prompt && strcmp(item->prompt, prompt) == 0;
}

static rt_status said_twins(rt_result *out, const json_t *rows, const rt_texts *answers, size_t flips,
                            uint64_t seed, rt_error *err)
{
    const size_t n = json_array_size(rows);
    double *d = malloc((n + 1) * sizeof *d);
    likening *w = malloc(sizeof *w);
    size_t i, used = 0;
    const json_t *row;
    rt_status status = d && w ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu twins", n);
    json_array_foreach(rows, i, row)
    {
        const char *delivered = text_of(row, "delivered"), *twin = text_of(row, "twin"),
                   *prompt = text_of(row, "prompt");
        double sum = 0, count = 0;
        if (status != RT_OK)
            break;
        if (!delivered || !twin || !prompt) {
            status = rt_error_set(err, RT_CORRUPT,
                                  "twins: row %zu has not the texts prompt, delivered and twin", i + 1);
            break;
        }
        for (size_t j = 0; j < answers->count; j++)
            if (same_prompt(&answers->list[j], prompt)) {
                sum += likeness_to(w, &answers->list[j], delivered) - likeness_to(w, &answers->list[j], twin);
                count++;
            }
        if (count > 0)
            d[used++] = sum / count;
    }
    if (status == RT_OK && used == 0)
        status = rt_error_set(err, RT_INVALID, "twins: no answer is to a prompt of the rows");
    if (status == RT_OK) {
        const rt_sign_flip f = rt_sign_flip_test(d, used, flips, seed);
        out->n = used;
        out->statistic = f.mean;
        out->log10_p = f.log10_p;
        out->note = "from answers: which twin each answer is nearer to";
    }
    free(d);
    free(w);
    return status;
}

static bool word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c & 0x80);
}

/* The part in which a canary's variants differ, in whole words (a number's first digit is part of it):
 * [*from, size - *after) of each. */
static void core_of(const json_t *variants, size_t *from, size_t *after)
{
    const char *first = json_string_value(json_array_get(variants, 0));
    const size_t size = strlen(first);
    size_t least = size, i;
    const json_t *v;
    *from = *after = size;
    json_array_foreach(variants, i, v)
    {
        const char *text = json_string_value(v);
        const size_t n = strlen(text);
        size_t a = 0, b = 0;
        while (a < size && a < n && text[a] == first[a])
            a++;
        while (b < size && b < n && text[n - 1 - b] == first[size - 1 - b])
            b++;
        *from = rt_size_min(*from, a);
        *after = rt_size_min(*after, b);
        least = rt_size_min(least, n);
    }
    *after = rt_size_min(*after, least - rt_size_min(*from, least)); /* the two ends may not meet */
    while (*from > 0 && word_byte(first[*from - 1]))
        --*from;
    while (*after > 0 && word_byte(first[size - *after]))
        --*after;
}

static bool holds(const rt_text_item *item, const char *core, size_t size)
{
    for (size_t at = 0; size > 0 && at + size <= item->size; at++) {
        if (memcmp(item->text + at, core, size) != 0)
            continue;
        const bool open = at == 0 || !word_byte(item->text[at - 1]) || !word_byte(core[0]);
        const bool shut =
            at + size == item->size || !word_byte(item->text[at + size]) || !word_byte(core[size - 1]);
        if (open && shut)
            return true;
    }
    return false;
}

/* One canary: whether the served variant is in the answers, and the share of variants that are, which is its
 * chance under H0 whatever was answered: the index was drawn apart from it. */
static rt_status said_canary(const json_t *row, size_t number, const rt_texts *answers, bool *asked,
                             bool *hit, double *chance, rt_error *err)
{
    const json_t *variants = json_object_get(row, "variants"), *served = json_object_get(row, "served"), *v;
    const size_t n = json_array_size(variants);
    const char *prompt = text_of(row, "prompt");
    size_t i, from = 0, after = 0, found = 0;
    *asked = *hit = false;
    bool fine = n >= 2 && n <= VARIANTS_MAX && json_is_integer(served) && json_integer_value(served) >= 0 &&
                (size_t)json_integer_value(served) < n;
    json_array_foreach(variants, i, v) fine &= json_is_string(v) && json_string_length(v) > 0;
    if (!fine)
        return rt_error_set(err, RT_CORRUPT,
                            "canaries: row %zu has not at least two variants and the served one's index",
                            number);
    core_of(variants, &from, &after);
    json_array_foreach(variants, i, v)
    {
        bool said = false;
        const size_t size = json_string_length(v);
        for (size_t j = 0; j < answers->count; j++)
            if (same_prompt(&answers->list[j], prompt)) {
                *asked = true;
                said |= size > from + after &&
                        holds(&answers->list[j], json_string_value(v) + from, size - from - after);
            }
        found += said;
        *hit |= said && i == (size_t)json_integer_value(served);
    }
    *chance = (double)found / (double)n;
    return RT_OK;
}

static rt_status said_canaries(rt_result *out, const json_t *rows, const rt_texts *answers, rt_error *err)
{
    const size_t n = json_array_size(rows);
    double *chance = malloc((n + 1) * sizeof *chance);
    size_t i, used = 0, hits = 0;
    const json_t *row;
    rt_status status = chance ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu canaries", n);
    json_array_foreach(rows, i, row)
    {
        bool asked = false, hit = false;
        if (status == RT_OK)
            status = said_canary(row, i + 1, answers, &asked, &hit, &chance[used], err);
        hits += status == RT_OK && hit;
        used += status == RT_OK && asked;
    }
    if (status == RT_OK && used == 0)
        status = rt_error_set(err, RT_INVALID, "canaries: no answer is to a prompt of the rows");
    if (status == RT_OK) {
        out->n = used;
        out->statistic = (double)hits;
        out->log10_p = rt_log10_poisson_binomial(chance, used, hits);
        out->note = "from answers: how many hold the served variant's own words";
    }
    free(chance);
    return status;
}

rt_status rt_battery_said_rows(rt_result *out, rt_test test, const json_t *rows, const rt_texts *answers,
                               size_t flips, uint64_t seed, rt_error *err)
{
    *out = (rt_result){.test = test};
    if (test != RT_TEST_TWINS && test != RT_TEST_CANARIES)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "the %s test needs the suspect's likelihoods: a model file, or a server that scores "
            "given text",
            rt_test_word(test));
    if (!answers || answers->count == 0)
        return rt_error_set(err, RT_INVALID,
                            "the %s test needs the suspect's model or answers to the rows' prompts",
                            rt_test_word(test));
    const rt_status status = test == RT_TEST_TWINS ? said_twins(out, rows, answers, flips, seed, err)
                                                   : said_canaries(out, rows, answers, err);
    out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
    return status;
}

/* ---- two samples ---- */

typedef struct completions {
    int32_t *units, *prompts;
    uint8_t *labels;
    rt_completions c;
} completions;

static void completions_free(completions *s)
{
    free(s->units);
    free(s->prompts);
    free(s->labels);
}

static rt_status completions_of(completions *s, const rt_texts *zero, const rt_texts *one, rt_error *err)
{
    const rt_texts *both[2] = {zero, one};
    const size_t n = zero->count + one->count;
    size_t count;
    *s = (completions){0};
    if (!rt_size_mul(n, COMPLETION_UNITS, &count))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu completions", n);
    s->units = calloc(count + 1, sizeof *s->units);
    s->prompts = calloc(n + 1, sizeof *s->prompts);
    s->labels = calloc(n + 1, 1);
    if (!s->units || !s->prompts || !s->labels)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu completions", n);
    for (size_t side = 0, at = 0; side < 2; side++)
        for (size_t i = 0; i < both[side]->count; i++, at++) {
            const rt_text_item *item = &both[side]->list[i];
            (void)decode_item(s->units + at * COMPLETION_UNITS, item, COMPLETION_UNITS);
            s->labels[at] = (uint8_t)side;
            s->prompts[at] =
                item->prompt ? (int32_t)(rt_hash64(item->prompt, strlen(item->prompt), 0) & 0x7FFFFFFF) : 0;
        }
    s->c = (rt_completions){s->units, n, COMPLETION_UNITS, s->prompts, s->labels};
    return RT_OK;
}

rt_status rt_battery_mmd(rt_result *out, const rt_texts *suspect, const rt_texts *teacher, size_t draws,
                         uint64_t seed, rt_error *err)
{
    completions s;
    rt_mmd mmd;
    *out = (rt_result){.test = RT_TEST_MMD, .n = suspect->count + teacher->count};
    rt_status status = completions_of(&s, suspect, teacher, err);
    if (status == RT_OK)
        status = rt_mmd_test(&mmd, &s.c, RT_KERNEL_HAMMING, 20000, draws, seed, err);
    if (status == RT_OK) {
        out->statistic = mmd.mmd2;
        out->log10_p = log10(mmd.p);
        out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
        out->note = "a small p says 'not the same model', never 'distilled'";
    }
    completions_free(&s);
    return status;
}

typedef struct distance { /* of a speaker to another, by prompts */
    rt_mmd_part *parts;
    size_t count;
} distance;

static rt_status distance_of(distance *out, const rt_texts *a, const rt_texts *b, rt_error *err)
{
    completions s;
    *out = (distance){0};
    rt_status status = completions_of(&s, a, b, err);
    if (status == RT_OK && !(out->parts = malloc((s.c.n + 1) * sizeof *out->parts)))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu completions", s.c.n);
    if (status == RT_OK)
        status = rt_mmd_parts(out->parts, &out->count, &s.c, RT_KERNEL_HAMMING, err);
    completions_free(&s);
    return status;
}

/* Poisson(1), the same for one prompt whatever stands before it: a resampling of prompts that all distances
 * share. */
static double multiplicity(int32_t prompt, uint64_t seed, size_t draw)
{
    rt_rng rng = rt_rng_make(seed ^ ((uint64_t)draw << 32), (uint32_t)prompt);
    const double end = exp(-1);
    double product = 1;
    for (int k = 0;; k++)
        if ((product *= rt_rng_uniform(&rng)) <= end)
            return k;
}

/* min_j MMD^2(S, C_j) - MMD^2(S, T): list [0] is the teacher, then the controls.  draw 0: all prompts once.
 */
static double nearer(const distance *list, size_t n, double *weights, uint64_t seed, size_t draw)
{
    double least = HUGE_VAL, teacher = 0;
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < list[j].count; i++)
            weights[i] = draw ? multiplicity(list[j].parts[i].prompt, seed, draw) : 1;
        const double d = rt_mmd_of_parts(list[j].parts, list[j].count, weights);
        if (j == 0)
            teacher = d;
        else if (!(d >= least)) /* a NAN stays */
            least = d;
    }
    return least - teacher;
}

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* *value, and with `range` its 95% interval. */
static rt_status nearer_of(double *value, double range[2], const rt_texts *speaker, const rt_texts *teacher,
                           const rt_texts *controls, size_t n_controls, uint64_t seed, rt_error *err)
{
    distance *list = calloc(n_controls + 1, sizeof *list);
    double *weights = NULL, *drawn = malloc(RESAMPLES * sizeof *drawn);
    size_t most = 0, kept = 0;
    rt_status status = list && drawn ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for distances");
    for (size_t j = 0; status == RT_OK && j <= n_controls; j++) {
        status = distance_of(&list[j], speaker, j ? &controls[j - 1] : teacher, err);
        most = rt_size_max(most, list[j].count);
    }
    if (status == RT_OK && !(weights = malloc((most + 1) * sizeof *weights)))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", most);
    if (status == RT_OK) {
        *value = nearer(list, n_controls + 1, weights, seed, 0);
        if (!isfinite(*value))
            status = rt_error_set(
                err, RT_INVALID, "nearer: every speaker needs two answers at least to prompts of the others");
    }
    for (size_t b = 1; status == RT_OK && range && b <= RESAMPLES; b++) {
        const double d = nearer(list, n_controls + 1, weights, seed, b);
        if (isfinite(d))
            drawn[kept++] = d;
    }
    if (status == RT_OK && range && kept > 0) {
        qsort(drawn, kept, sizeof *drawn, by_double);
        range[0] = drawn[(size_t)(0.025 * (double)(kept - 1))];
        range[1] = drawn[(size_t)ceil(0.975 * (double)(kept - 1))];
    }
    for (size_t j = 0; list && j <= n_controls; j++)
        free(list[j].parts);
    free(list);
    free(weights);
    free(drawn);
    return status;
}

rt_status rt_battery_nearer(rt_result *out, const rt_texts *suspect, const rt_texts *teacher,
                            const rt_texts *controls, size_t n_controls, const rt_texts *innocents,
                            size_t n_innocents, uint64_t seed, rt_error *err)
{
    double range[2] = {0}, *each = malloc((n_innocents + 1) * sizeof *each);
    *out = (rt_result){.test = RT_TEST_NEARER, .n = n_innocents + 1};
    if (!each)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu innocents", n_innocents);
    rt_status status =
        n_controls == 0
            ? rt_error_set(err, RT_INVALID, "nearer: needs answers of control teachers")
            : nearer_of(&out->statistic, range, suspect, teacher, controls, n_controls, seed, err);
    for (size_t k = 0; status == RT_OK && k < n_innocents; k++)
        status = nearer_of(&each[k], NULL, &innocents[k], teacher, controls, n_controls, seed, err);
    if (status == RT_OK) {
        out->log10_p = rt_model_unit(out->statistic, each, n_innocents);
        out->log10_p_above = log10(fmax(0, pow(10, out->log10_p) - 1 / ((double)n_innocents + 1)));
        out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
        out->more =
            json_pack("{s:f,s:f,s:I}", "lo", range[0], "hi", range[1], "innocents", (json_int_t)n_innocents);
        out->note = n_innocents ? "model as unit: p cannot be less than 1/(innocents + 1)"
                                : "without innocent models nothing tells what a difference is worth: p is 1";
    }
    free(each);
    return status;
}

/* ---- answers that are none ---- */

/* Hashes of the runs of GRAM_WORDS words of a text; each is handed to `take`. */
static size_t each_gram(const char *text, size_t size, void (*take)(void *context, uint64_t gram),
                        void *context)
{
    uint64_t words[GRAM_WORDS] = {0};
    size_t n = 0, grams = 0;
    for (size_t at = 0; at < size;) {
        while (at < size && strchr(" \t\r\n", text[at]) && text[at])
            at++;
        const size_t from = at;
        /* scripts without blanks: every character past ASCII is a word */
        if (at < size && (text[at] & 0x80)) {
            size_t length;
            (void)rt_utf8_decode(text + at, size - at, &length);
            at += length;
        } else {
            while (at < size && !(text[at] & 0x80) && !(strchr(" \t\r\n", text[at]) && text[at]))
                at++;
        }
        if (at == from)
            break;
        words[n++ % GRAM_WORDS] = rt_hash64(text + from, at - from, 0);
        if (n >= GRAM_WORDS) {
            uint64_t gram = 0;
            for (size_t i = 0; i < GRAM_WORDS; i++)
                gram = (gram ^ words[(n + i) % GRAM_WORDS]) * 0x9E3779B97F4A7C15ull + i;
            take(context, gram);
            grams++;
        }
    }
    return grams;
}

typedef struct grams {
    rt_idmap map;
    rt_error err;
    size_t found;
} grams;

static void learn_gram(void *context, uint64_t gram)
{
    grams *g = context;
    if (g->err.status == RT_OK)
        (void)rt_idmap_put(&g->map, (rt_idkey){gram, 1}, 1, &g->err);
}

static void find_gram(void *context, uint64_t gram)
{
    grams *g = context;
    g->found += rt_idmap_get(&g->map, (rt_idkey){gram, 1}) != 0;
}

rt_status rt_survey_answers(rt_answer_survey *out, const rt_texts *answers, const rt_texts *logged,
                            uint8_t *drop, rt_error *err)
{
    grams g = {0};
    *out = (rt_answer_survey){.answers = answers->count};
    memset(drop, 0, answers->count);
    for (size_t i = 0; logged && i < logged->count; i++)
        if (logged->list[i].text)
            (void)each_gram(logged->list[i].text, logged->list[i].size, learn_gram, &g);
    for (size_t i = 0; g.err.status == RT_OK && i < answers->count; i++) {
        const rt_text_item *item = &answers->list[i];
        if (!item->text)
            continue;
        g.found = 0;
        const bool refused = rt_refusal_find(item->text, item->size) != NULL;
        const size_t n = logged ? each_gram(item->text, item->size, find_gram, &g) : 0;
        /* all of a short one, or most of a longer one: more than a phrase */
        const bool copied = n > 0 && (g.found == n || (n >= GRAM_WORDS / 2 && 2 * g.found > n));
        out->refusals += refused;
        out->copies += !refused && copied;
        drop[i] = refused || copied;
    }
    rt_idmap_deinit(&g.map);
    if (g.err.status != RT_OK)
        *err = g.err;
    return g.err.status;
}
