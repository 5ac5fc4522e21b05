/* evidence/rank.c - see rank.h. */
#include "evidence/rank.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "evidence/combine.h"
#include "evidence/tails.h"

enum { EXACT_MAX = 22 };

static const double log10_2 = 0.30102999566398120, ln10 = 2.302585092994045684;

typedef struct item {
    double value;
    size_t index;
} item;

static int by_value(const void *a, const void *b)
{
    const item *x = a, *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

/* Mid-ranks minus their mean. */
static void centred_ranks(double *out, const double *x, item *order, size_t n)
{
    for (size_t i = 0; i < n; i++)
        order[i] = (item){x[i], i};
    qsort(order, n, sizeof *order, by_value);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && order[end].value == order[i].value;)
            end++;
        for (size_t j = i; j < end; j++)
            out[order[j].index] = ((double)(i + end) + 1) / 2 - ((double)n + 1) / 2;
    }
}

rt_spearman rt_spearman_of(double rho, size_t n)
{
    rt_spearman s = {.rho = rho};
    if (n < 3)
        return s;
    const double df = (double)n - 2, spread = (1 - rho) * (1 + rho);
    int sign;
    if (spread <= 0) {
        const double least = -lgamma_r((double)n + 1, &sign) / ln10;
        s.log10_two_sided = least + log10_2;
        s.log10_greater = rho > 0 ? least : 0;
        s.log10_less = rho > 0 ? 0 : least;
        return s;
    }
    const double t = rho * sqrt(df / spread);
    s.log10_two_sided = fmin(0, rt_log10_student(fabs(t), df) + log10_2);
    s.log10_greater = rt_log10_student(t, df);
    s.log10_less = rt_log10_student(-t, df);
    return s;
}

rt_status rt_spearman_test(rt_spearman *out, const double *x, const double *y, size_t n, rt_error *err)
{
    *out = (rt_spearman){0};
    double *ranks = malloc((n + 1) * 2 * sizeof *ranks);
    item *order = malloc((n + 1) * sizeof *order);
    if (!ranks || !order) {
        free(ranks);
        free(order);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to rank %zu values", n);
    }
    double xy = 0, xx = 0, yy = 0;
    centred_ranks(ranks, x, order, n);
    centred_ranks(ranks + n, y, order, n);
    for (size_t i = 0; i < n; i++) {
        xy += ranks[i] * ranks[n + i];
        xx += ranks[i] * ranks[i];
        yy += ranks[n + i] * ranks[n + i];
    }
    free(ranks);
    free(order);
    *out = rt_spearman_of(xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0, n);
    return RT_OK;
}

static double product_sum(const double *x, const double *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Indices in the order of their blocks, and the mid-ranks of x and y inside each. */
static void rank_blocks(size_t *index, size_t *begin, size_t *n_blocks, item *order, double *ranks,
                        const double *x, const double *y, const size_t *block, size_t n)
{
    double *values = ranks + 2 * n;
    for (size_t i = 0; i < n; i++)
        order[i] = (item){(double)block[i], i};
    qsort(order, n, sizeof *order, by_value);
    *n_blocks = 0;
    for (size_t i = 0; i < n; i++) {
        index[i] = order[i].index;
        if (i == 0 || block[index[i]] != block[index[i - 1]])
            begin[(*n_blocks)++] = i;
    }
    begin[*n_blocks] = n;
    for (size_t b = 0; b < *n_blocks; b++)
        for (size_t side = 0; side < 2; side++) {
            const size_t from = begin[b], size = begin[b + 1] - from;
            for (size_t i = 0; i < size; i++)
                values[i] = (side ? y : x)[index[from + i]];
            centred_ranks(ranks + side * n + from, values, order, size);
        }
}

rt_status rt_order_blocks(double *rho, double *log10_p, const double *x, const double *y, const size_t *block,
                          size_t n, size_t draws, uint64_t seed, rt_error *err)
{
    double *ranks = malloc((3 * n + 1) * sizeof *ranks);
    item *order = malloc((n + 1) * sizeof *order);
    size_t *index = malloc((2 * n + 2) * sizeof *index), n_blocks;
    if (!ranks || !order || !index) {
        free(ranks);
        free(order);
        free(index);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to rank %zu values", n);
    }
    size_t *begin = index + n;
    rank_blocks(index, begin, &n_blocks, order, ranks, x, y, block, n);
    double *y_ranks = ranks + n;
    const double sum = product_sum(ranks, y_ranks, n),
                 size = sqrt(product_sum(ranks, ranks, n) * product_sum(y_ranks, y_ranks, n));
    rt_rng rng = rt_rng_make(seed, 0xB10C5);
    double above = 0;
    for (size_t d = 0; d < draws; d++) {
        for (size_t b = 0; b < n_blocks; b++)
            for (size_t i = begin[b + 1] - begin[b]; i > 1; i--) {
                const size_t to = begin[b] + i - 1, from = begin[b] + rt_rng_below(&rng, i);
                const double kept = y_ranks[to];
                y_ranks[to] = y_ranks[from];
                y_ranks[from] = kept;
            }
        above += product_sum(ranks, y_ranks, n) >= sum - 1e-9 * size;
    }
    *rho = size > 0 ? sum / size : 0;
    *log10_p = log10((1 + above) / ((double)draws + 1));
    free(ranks);
    free(order);
    free(index);
    return RT_OK;
}

double rt_model_unit(double suspect, const double *innocent, size_t m)
{
    double reach = 1;
    for (size_t k = 0; k < m; k++)
        reach += innocent[k] >= suspect;
    return log10(reach / ((double)m + 1));
}

/* How many of the 2^n sign patterns have a sum of at least `floor`: one sign changes a step (Gray code), and
 * the sum is made anew now and then so that rounding does not pile up. */
static double count_patterns(const double *d, size_t n, double floor)
{
    double signs[EXACT_MAX], sum = 0, count = 0;
    for (size_t i = 0; i < n; i++)
        sum += signs[i] = -d[i];
    const size_t patterns = (size_t)1 << n;
    for (size_t p = 1;; p++) {
        count += sum >= floor;
        if (p == patterns)
            return count;
        const size_t bit = (size_t)__builtin_ctzll(p);
        signs[bit] = -signs[bit];
        sum += 2 * signs[bit];
        if (p % 1024 == 0) {
            sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += signs[i];
        }
    }
}

static double count_draws(const double *d, size_t n, double floor, size_t flips, uint64_t seed)
{
    rt_rng rng = rt_rng_make(seed, 0x5F11B);
    double count = 0;
    for (size_t b = 0; b < flips; b++) {
        double sum = 0;
        uint32_t word = 0;
        for (size_t i = 0; i < n; i++) {
            if (i % 32 == 0)
                word = rt_rng_u32(&rng);
            sum += (word & 1) ? d[i] : -d[i];
            word >>= 1;
        }
        count += sum >= floor;
    }
    return count;
}

rt_sign_flip rt_sign_flip_test(const double *d, size_t n, size_t flips, uint64_t seed)
{
    rt_sign_flip out = {0};
    if (n == 0)
        return out;
    double sum = 0, size = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += d[i];
        size += fabs(d[i]);
    }
    out.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (d[i] - out.mean) * (d[i] - out.mean);
    if (n > 1 && squares > 0) {
        out.t = out.mean / sqrt(squares / ((double)n - 1) / (double)n);
        out.log10_p_t = rt_log10_student(out.t, (double)n - 1);
    }
    const double floor = sum - 1e-12 * size; /* equal sums that round differently are ties */
    if (n <= EXACT_MAX) {
        out.log10_p = log10(count_patterns(d, n, floor)) - (double)n * log10_2;
    } else {
        out.flips = flips;
        out.log10_p = log10((1 + count_draws(d, n, floor, flips, seed)) / ((double)flips + 1));
    }
    return out;
}

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *sorted, size_t n)
{
    qsort(sorted, n, sizeof *sorted, by_double);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

rt_status rt_winsorise(double *d, size_t n, double k, rt_error *err)
{
    if (n == 0)
        return RT_OK;
    double *work = malloc(n * sizeof *work);
    if (!work)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu differences", n);
    for (size_t i = 0; i < n; i++)
        work[i] = fabs(d[i]);
    const double bound = k * median_of(work, n);
    for (size_t i = 0; i < n && bound > 0; i++)
        d[i] = fmin(fmax(d[i], -bound), bound);
    free(work);
    return RT_OK;
}

double rt_exposure_bits(double rank, double candidates) { return log2(candidates) - log2(rank); }

rt_status rt_canary_fisher(double *log10_p, const double *ranks, size_t n, double candidates, rt_error *err)
{
    double *each = malloc((n + 1) * sizeof *each);
    if (!each)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ranks", n);
    for (size_t i = 0; i < n; i++)
        each[i] = log10(ranks[i] / candidates);
    *log10_p = rt_fisher(each, n);
    free(each);
    return RT_OK;
}

rt_status rt_canary_exact(double *log10_p, double rank_sum, size_t n, size_t candidates, rt_error *err)
{
    size_t room;
    if (n == 0 || candidates == 0 || !rt_size_mul(n, candidates, &room) || room > 1000000)
        return rt_error_set(err, RT_INVALID, "%zu rows of %zu candidates are too many for the exact sum", n,
                            candidates);
    double *now = calloc(room + 1, sizeof *now), *next = calloc(room + 1, sizeof *next);
    if (!now || !next) {
        free(now);
        free(next);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the sums of %zu ranks", n);
    }
    now[0] = 1;
    const double share = 1 / (double)candidates;
    for (size_t i = 0; i < n; i++) {
        double window = 0; /* of the last `candidates` probabilities */
        const size_t top = (i + 1) * candidates;
        for (size_t s = 0; s <= top; s++) {
            next[s] = fmax(window, 0) * share;
            window += now[s];
            if (s >= candidates)
                window -= now[s - candidates];
        }
        double *kept = now;
        now = next;
        next = kept;
    }
    double p = 0;
    for (size_t s = 0; s <= room && (double)s <= rank_sum; s++)
        p += now[s];
    *log10_p = fmax(fmin(log10(p), 0), -(double)n * log10((double)candidates));
    free(now);
    free(next);
    return RT_OK;
}

double rt_welch(const double *a, size_t n_a, const double *b, size_t n_b)
{
    if (n_a < 2 || n_b < 2)
        return 0;
    double mean[2] = {0}, var[2] = {0};
    const double *x[2] = {a, b};
    const size_t n[2] = {n_a, n_b};
    for (size_t g = 0; g < 2; g++) {
        for (size_t i = 0; i < n[g]; i++)
            mean[g] += x[g][i] / (double)n[g];
        for (size_t i = 0; i < n[g]; i++)
            var[g] += (x[g][i] - mean[g]) * (x[g][i] - mean[g]) / ((double)n[g] - 1) / (double)n[g];
    }
    const double total = var[0] + var[1];
    if (!(total > 0))
        return mean[0] > mean[1] ? -(double)(n_a + n_b) * log10_2 : 0;
    const double df =
        total * total / (var[0] * var[0] / ((double)n_a - 1) + var[1] * var[1] / ((double)n_b - 1));
    return rt_log10_student((mean[0] - mean[1]) / sqrt(total), df);
}
