/* evidence/tails.h - upper tails of the null distributions, as log10 p.
 *
 * Every function returns log10 of a probability, which never underflows: 6 digits of the logarithm hold down
 * to 1e-600 and beyond, and near p = 1 the distance to 1 keeps its digits too.  -INFINITY is returned only
 * for an event that is impossible under the null (METHODS-evidence section 1).  Pure functions. */
#ifndef RT_EVIDENCE_TAILS_H
#define RT_EVIDENCE_TAILS_H

#include <stddef.h>
#include <stdint.h>

/* P[X >= k], X ~ Bin(n, p); p is put into [0, 1]. */
double rt_log10_binomial(uint64_t n, uint64_t k, double p);
/* P[Gamma(shape, 1) >= x], shape > 0. */
double rt_log10_gamma(double shape, double x);
double rt_log10_normal(double z);             /* P[N(0, 1) >= z] */
double rt_log10_chi2(double x, double df);    /* P[chi-square(df) >= x], df > 0 */
double rt_log10_student(double t, double df); /* P[T_df >= t], df > 0 */
/* P[X >= k], X the number of successes of n independent trials of their own probabilities p [n]. */
double rt_log10_poisson_binomial(const double *p, size_t n, size_t k);
/* Fisher's exact test, one-sided: P[at least k_a of the k_a + k_b marked stand among n_a], n_a and n_b in
 * all. */
double rt_log10_hypergeometric(uint64_t k_a, uint64_t n_a, uint64_t k_b, uint64_t n_b);
double rt_normal_upper_quantile(double log10_p); /* the z with P[N >= z] = 10^log10_p */
double rt_log10_complement(double log10_p);      /* log10(1 - p) */
double rt_log10_mills(double r);                 /* log10 of P[N >= r] / density(r), r >= 0 */

/* Two-sided interval of confidence `conf` in (0, 1) for k of n; n = 0 gives [0, 1]. */
typedef struct rt_range {
    double lo, hi;
} rt_range;
rt_range rt_clopper_pearson(uint64_t k, uint64_t n, double conf);

#endif
