/* judge/bootstrap.h - 95% intervals by drawing documents again (tokens inside one depend on each other).
 *
 * A resample is n_docs document indices; two students are compared on the same resamples (paired).  The
 * figures of a resample come from the sums over its documents, so a mean is a ratio of sums; the interval is
 * from the 2.5% to the 97.5% quantile with linear interpolation (METHODS 14). */
#ifndef RT_JUDGE_BOOTSTRAP_H
#define RT_JUDGE_BOOTSTRAP_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "judge/metrics.h"

typedef struct rt_interval {
    double value;  /* on the documents as they are */
    double lo, hi; /* 95% */
} rt_interval;

/* {"value", "low", "high"}; without an interval (lo NAN) the value alone, and null for what is not finite.
 * The caller owns it; NULL when out of memory. */
json_t *rt_interval_json(const rt_interval *interval);

/* resamples [n_resamples, n_docs]: row r is drawn from the stream r of `seed`; n_docs > 0. */
void rt_bootstrap_draw(uint32_t *resamples, size_t n_docs, size_t n_resamples, uint64_t seed);

/* out [n_resamples]: sum num / max(sum den, 1) over each resample's documents. */
void rt_bootstrap_ratios(double *out, const double *num, const double *den, size_t n_docs,
                         const uint32_t *resamples, size_t n_resamples);

/* The q-quantile (0..1) of `sorted` [n], n > 0, linear between neighbours at q (n-1). */
double rt_quantile(const double *sorted, size_t n, double q);
/* Sorts `values` [n] and takes the two quantiles; `value` is passed through. */
rt_interval rt_interval_make(double value, double *values, size_t n);

/* Any figure of the documents' sums.  scratch [n_resamples]. */
rt_interval rt_bootstrap_figure(rt_metrics_figure figure, const rt_metrics_sum *docs, size_t n_docs,
                                const uint32_t *resamples, size_t n_resamples, double *scratch);
/* figure(a) - figure(b), paired: docs_a[d] and docs_b[d] are the same document under two students. */
rt_interval rt_bootstrap_difference(rt_metrics_figure figure, const rt_metrics_sum *docs_a,
                                    const rt_metrics_sum *docs_b, size_t n_docs, const uint32_t *resamples,
                                    size_t n_resamples, double *scratch);

#endif
