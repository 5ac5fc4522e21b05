/* judge/bootstrap.c - see bootstrap.h. */
#include "judge/bootstrap.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

void rt_bootstrap_draw(uint32_t *resamples, size_t n_docs, size_t n_resamples, uint64_t seed)
{
    assert(n_docs > 0 && n_docs <= UINT32_MAX);
    for (size_t r = 0; r < n_resamples; r++) {
        rt_rng rng = rt_rng_make(seed, r);
        for (size_t d = 0; d < n_docs; d++)
            resamples[r * n_docs + d] = (uint32_t)rt_rng_below(&rng, n_docs);
    }
}

void rt_bootstrap_ratios(double *out, const double *num, const double *den, size_t n_docs,
                         const uint32_t *resamples, size_t n_resamples)
{
    for (size_t r = 0; r < n_resamples; r++) {
        double n = 0, d = 0;
        for (size_t i = 0; i < n_docs; i++) {
            n += num[resamples[r * n_docs + i]];
            d += den[resamples[r * n_docs + i]];
        }
        out[r] = n / (d > 1 ? d : 1);
    }
}

double rt_quantile(const double *sorted, size_t n, double q)
{
    assert(n > 0 && q >= 0 && q <= 1);
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

rt_interval rt_interval_make(double value, double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return (rt_interval){
        .value = value, .lo = rt_quantile(values, n, 0.025), .hi = rt_quantile(values, n, 0.975)};
}

/* The figure of the documents named, or of all when resample is NULL. */
static double figure_of(rt_metrics_figure figure, const rt_metrics_sum *docs, size_t n_docs,
                        const uint32_t *resample)
{
    rt_metrics_sum sum = {0};
    for (size_t i = 0; i < n_docs; i++)
        rt_metrics_add(&sum, &docs[resample ? resample[i] : i]);
    return figure(&sum);
}

rt_interval rt_bootstrap_figure(rt_metrics_figure figure, const rt_metrics_sum *docs, size_t n_docs,
                                const uint32_t *resamples, size_t n_resamples, double *scratch)
{
    for (size_t r = 0; r < n_resamples; r++)
        scratch[r] = figure_of(figure, docs, n_docs, resamples + r * n_docs);
    return rt_interval_make(figure_of(figure, docs, n_docs, NULL), scratch, n_resamples);
}

rt_interval rt_bootstrap_difference(rt_metrics_figure figure, const rt_metrics_sum *docs_a,
                                    const rt_metrics_sum *docs_b, size_t n_docs, const uint32_t *resamples,
                                    size_t n_resamples, double *scratch)
{
    for (size_t r = 0; r < n_resamples; r++)
        scratch[r] = figure_of(figure, docs_a, n_docs, resamples + r * n_docs) -
                     figure_of(figure, docs_b, n_docs, resamples + r * n_docs);
    const double value = figure_of(figure, docs_a, n_docs, NULL) - figure_of(figure, docs_b, n_docs, NULL);
    return rt_interval_make(value, scratch, n_resamples);
}

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *rt_interval_json(const rt_interval *i)
{
    if (isnan(i->lo))
        return json_pack("{s:o}", "value", number(i->value));
    return json_pack("{s:o,s:o,s:o}", "value", number(i->value), "low", number(i->lo), "high", number(i->hi));
}
