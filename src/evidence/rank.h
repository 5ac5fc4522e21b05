/* evidence/rank.h - rank and sign tests (METHODS-evidence sections 5.1, 5.3, 5.5).  p-values are log10 p. */
#ifndef RT_EVIDENCE_RANK_H
#define RT_EVIDENCE_RANK_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_spearman {
    double rho, log10_two_sided, log10_greater, log10_less; /* alternatives: rho > 0, rho < 0 */
} rt_spearman;
/* Mid-ranks; t = rho sqrt((n-2)/(1-rho^2)) on n - 2 degrees of freedom.  rho is 0 when a side is constant. */
rt_status rt_spearman_test(rt_spearman *out, const double *x, const double *y, size_t n, rt_error *err);
/* The p-values of a given rho.  A perfect order (t is infinite) has the permutation's p, 1/n! a side: no p is
 * ever 0. */
rt_spearman rt_spearman_of(double rho, size_t n);

typedef struct rt_sign_flip {
    double mean, log10_p; /* one-sided: the sum of d is larger than by chance */
    double t, log10_p_t;  /* Student's t and its tail, an extrapolation */
    size_t flips;         /* 0: all 2^n were counted */
} rt_sign_flip;
/* H0: d symmetric about <= 0.  Exact for n <= 22, else (1 + #>=)/(B + 1) over `flips` Philox draws of `seed`.
 */
rt_sign_flip rt_sign_flip_test(const double *d, size_t n, size_t flips, uint64_t seed);
/* Clips d in place to +-k times the median of |d| (k = 4 for twins): about 0, the null's centre, so that the
 * bounds do not move with the signs and the sign-flip test stays exact. */
rt_status rt_winsorise(double *d, size_t n, double k, rt_error *err);

/* Rank correlation inside blocks (same account, day, topic), where time goes with topic across them: the sum
 * of products of centred mid-ranks, y permuted inside each block.  block [n] numbers; p = (1 + #>=)/(draws +
 * 1).
 */
rt_status rt_order_blocks(double *rho, double *log10_p, const double *x, const double *y, const size_t *block,
                          size_t n, size_t draws, uint64_t seed, rt_error *err);
/* Model as unit (METHODS-evidence 5.1): how many of m innocent models reach the suspect's figure.
 * (1 + #{d_k >= d_s})/(m + 1). */
double rt_model_unit(double suspect, const double *innocent, size_t m);

double rt_exposure_bits(double rank, double candidates);
/* Fisher over r/N: conservative on discrete ranks. */
rt_status rt_canary_fisher(double *log10_p, const double *ranks, size_t n, double candidates, rt_error *err);
/* P[sum of n uniform ranks on 1..N <= the observed sum], exact by convolution; N n <= 10^6. */
rt_status rt_canary_exact(double *log10_p, double rank_sum, size_t n, size_t candidates, rt_error *err);

/* Membership (METHODS-evidence 5.8): x [n, k] features, member [n].  Weights of the features are learned on a
 * random half of each side (Fisher's discriminant), the other half is tested by Welch's t, one-sided.
 * *statistic: the difference of the tested halves' scores in their standard deviations. */
enum { RT_FEATURES_MAX = 8 };
rt_status rt_membership_test(double *log10_p, double *statistic, const double *x, size_t k,
                             const uint8_t *member, size_t n, uint64_t seed, rt_error *err);

/* Welch's t test, one-sided mean(a) > mean(b). */
double rt_welch(const double *a, size_t n_a, const double *b, size_t n_b);

#endif
