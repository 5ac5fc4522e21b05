/* evidence/combine.h - several p-values as one, corrections, and the exact Kolmogorov-Smirnov test against
 * uniform (METHODS-evidence sections 6 and 7).  p-values come and go as log10 p. */
#ifndef RT_EVIDENCE_COMBINE_H
#define RT_EVIDENCE_COMBINE_H

#include <stddef.h>

/* Independent p-values. */
double rt_fisher_statistic(const double *log10_p, size_t m); /* -2 sum ln p */
double rt_fisher(const double *log10_p, size_t m);
/* weights NULL: equal */
double rt_stouffer(const double *log10_p, const double *weights, size_t m);

/* Any dependence. */
double rt_cauchy_statistic(const double *log10_p, size_t m); /* equal weights */
double rt_cauchy(const double *log10_p, size_t m);
double rt_harmonic_mean(const double *log10_p, size_t m);
double rt_harmonic_bound(const double *log10_p, size_t m); /* e ln m times it (2 for m = 2): guaranteed */
double rt_bonferroni(const double *log10_p, size_t m);
double rt_simes(const double *log10_p, size_t m);

/* Adjusted values, in the order of the p's. */
void rt_holm(const double *log10_p, size_t m, double *out);
void rt_benjamini_hochberg(const double *log10_p, size_t m, double *out);

/* E-values with kappa = 1/2: e = 0.5 / sqrt(p), as log10 e. */
double rt_e_value(double log10_p);
double rt_e_mean(const double *log10_p, size_t m);
double rt_e_product(const double *log10_p, size_t m);
double rt_p_of_e(double log10_e); /* min(1, 1/e) */

/* Kolmogorov-Smirnov, two-sided: D of x [n] in [0, 1], and its p.  Exact up to n = 4,000; beyond, the
 * one-sided tail doubled (its error is of the order of p cubed) or Kolmogorov's series. */
double rt_ks_statistic(const double *x, size_t n);
double rt_ks_p(double d, size_t n);

#endif
