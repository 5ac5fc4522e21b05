/* student/init.c - importance of units, heads and layers, and the choice that follows; see init.h. */
#include "student/init.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

/* ---- units ---- */

rt_status rt_importance_init(rt_importance *importance, size_t units, rt_error *err)
{
    *importance = (rt_importance){.units = units};
    double *all = calloc(units ? units : 1, 4 * sizeof *all);
    if (!all)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the importance of %zu units", units);
    importance->sequence_abs = all;
    importance->abs_sum = all + units;
    importance->square_sum = all + 2 * units;
    importance->batch_square = all + 3 * units;
    return RT_OK;
}

void rt_importance_deinit(rt_importance *importance)
{
    free(importance->sequence_abs);
    *importance = (rt_importance){0};
}

static void add_one(rt_importance *importance, size_t unit, double a)
{
    importance->sequence_abs[unit] += fabs(a);
    importance->abs_sum[unit] += fabs(a);
    importance->square_sum[unit] += a * a;
}

void rt_importance_add(rt_importance *importance, const float *rows, size_t ld, size_t n_tokens)
{
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t u = 0; u < importance->units; u++)
            add_one(importance, u, (double)rows[t * ld + u]);
    importance->tokens += n_tokens;
    importance->sequence_tokens += n_tokens;
}

void rt_importance_add_double(rt_importance *importance, const double *rows, size_t ld, size_t n_tokens)
{
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t u = 0; u < importance->units; u++)
            add_one(importance, u, rows[t * ld + u]);
    importance->tokens += n_tokens;
    importance->sequence_tokens += n_tokens;
}

void rt_importance_end_sequence(rt_importance *importance)
{
    if (importance->sequence_tokens == 0)
        return;
    for (size_t u = 0; u < importance->units; u++) {
        const double mean = importance->sequence_abs[u] / (double)importance->sequence_tokens;
        importance->batch_square[u] += mean * mean;
        importance->sequence_abs[u] = 0;
    }
    importance->sequence_tokens = 0;
    importance->sequences++;
}

void rt_importance_scores(const rt_importance *importance, rt_importance_kind kind, double *out)
{
    const double tokens = importance->tokens ? (double)importance->tokens : 1;
    for (size_t u = 0; u < importance->units; u++) {
        if (kind == RT_IMPORTANCE_MEAN_ABS)
            out[u] = importance->abs_sum[u] / tokens;
        else if (kind == RT_IMPORTANCE_RMS)
            out[u] = sqrt(importance->square_sum[u] / tokens);
        else
            out[u] = sqrt(importance->batch_square[u]);
    }
}

typedef struct scored {
    double score;
    uint32_t index;
} scored;

static int by_falling_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

rt_status rt_importance_order(uint32_t *order, const double *scores, size_t n, rt_error *err)
{
    scored *list = calloc(n ? n : 1, sizeof *list);
    if (!list || n > UINT32_MAX) {
        free(list);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to order %zu units", n);
    }
    for (size_t i = 0; i < n; i++) {
        if (isnan(scores[i])) {
            free(list);
            return rt_error_set(err, RT_NOT_FINITE, "the importance of unit %zu is not a number", i);
        }
        list[i] = (scored){scores[i], (uint32_t)i};
    }
    qsort(list, n, sizeof *list, by_falling_score);
    for (size_t i = 0; i < n; i++)
        order[i] = list[i].index;
    free(list);
    return RT_OK;
}

static int by_rising_index(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

rt_status rt_importance_keep(uint32_t *kept, size_t keep, const double *scores, size_t n, rt_error *err)
{
    if (keep == 0 || keep > n)
        return rt_error_set(err, RT_INVALID, "%zu of %zu units cannot be kept", keep, n);
    uint32_t *order = calloc(n, sizeof *order);
    if (!order)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to order %zu units", n);
    const rt_status status = rt_importance_order(order, scores, n, err);
    if (status == RT_OK) {
        memcpy(kept, order, keep * sizeof *kept);
        qsort(kept, keep, sizeof *kept, by_rising_index);
    }
    free(order);
    return status;
}

rt_status rt_importance_keep_heads(uint32_t *kept, size_t keep, const double *scores, size_t n_heads,
                                   size_t n_groups, rt_error *err)
{
    if (n_groups == 0 || n_heads % n_groups != 0 || keep % n_groups != 0 || keep == 0 || keep > n_heads)
        return rt_error_set(err, RT_INVALID,
                            "%zu of %zu heads in %zu groups: each group must keep the same number, one at "
                            "least",
                            keep, n_heads, n_groups);
    const size_t size = n_heads / n_groups, each = keep / n_groups;
    for (size_t g = 0; g < n_groups; g++) {
        if (rt_importance_keep(kept + g * each, each, scores + g * size, size, err) != RT_OK)
            return err->status;
        for (size_t i = 0; i < each; i++)
            kept[g * each + i] += (uint32_t)(g * size);
    }
    return RT_OK;
}

/* ---- layers ---- */

rt_status rt_influence_init(rt_influence *influence, size_t n_layers, size_t n_embd, size_t tokens_max,
                            rt_error *err)
{
    size_t count;
    *influence = (rt_influence){.n_layers = n_layers, .n_embd = n_embd, .tokens_max = tokens_max};
    influence->sums = calloc(n_layers ? n_layers : 1, sizeof(double));
    influence->before =
        rt_size_mul(n_embd, tokens_max, &count) ? calloc(count ? count : 1, sizeof(float)) : NULL;
    if (influence->sums && influence->before)
        return RT_OK;
    rt_influence_deinit(influence);
    return rt_error_set(err, RT_NO_MEMORY, "no memory for the influence of %zu layers", n_layers);
}

void rt_influence_deinit(rt_influence *influence)
{
    free(influence->before);
    free(influence->sums);
    *influence = (rt_influence){0};
}

static double one_minus_cosine(const float *a, const float *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? 1 - ab / sqrt(aa * bb) : 1;
}

void rt_influence_tap(void *context, size_t layer, const float *x, size_t n_tokens)
{
    rt_influence *influence = context;
    const size_t d = influence->n_embd;
    assert(n_tokens <= influence->tokens_max && layer <= influence->n_layers);
    for (size_t t = 0; layer > 0 && t < n_tokens; t++)
        influence->sums[layer - 1] += one_minus_cosine(influence->before + t * d, x + t * d, d);
    memcpy(influence->before, x, n_tokens * d * sizeof *x);
    if (layer == influence->n_layers)
        influence->tokens += n_tokens;
}

void rt_influence_scores(const rt_influence *influence, double *out)
{
    for (size_t l = 0; l < influence->n_layers; l++)
        out[l] = influence->tokens ? influence->sums[l] / (double)influence->tokens : 0;
}

rt_status rt_influence_keep(size_t *kept, size_t keep, const double *scores, size_t n, rt_error *err)
{
    if (keep < 2 || keep > n || n > RT_LAYERS_MAX)
        return rt_error_set(err, RT_INVALID,
                            "%zu of %zu layers cannot be kept: two at least, the first and the last", keep,
                            n);
    double padded[RT_LAYERS_MAX];
    uint32_t chosen[RT_LAYERS_MAX];
    memcpy(padded, scores, n * sizeof *padded);
    padded[0] = padded[n - 1] = HUGE_VAL;
    if (rt_importance_keep(chosen, keep, padded, n, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < keep; i++)
        kept[i] = chosen[i];
    return RT_OK;
}
