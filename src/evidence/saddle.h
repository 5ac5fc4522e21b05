/* evidence/saddle.h - the tail of a sum of independent terms from its cumulant function: Lugannani and Rice
 * 1980 (METHODS-evidence section 1), in logarithms. */
#ifndef RT_EVIDENCE_SADDLE_H
#define RT_EVIDENCE_SADDLE_H

#include <stddef.h>
#include <stdint.h>

/* kappa, kappa', kappa'' at theta of the CENTRED sum (mean 0). */
typedef void (*rt_cumulant_fn)(const void *context, double theta, double k[3]);

typedef struct rt_saddle {
    rt_cumulant_fn cumulant;
    const void *context;
    double variance; /* of the sum, > 0 */
    double theta_min,
        theta_max;           /* open interval in which kappa' = t is solved; -INFINITY, INFINITY: anywhere.
                                A root past a finite end: the tail at that end, which is larger (Chernoff) */
    double max, log10_p_max; /* the largest value of the centred sum and log10 of its probability; INFINITY,
                                0: not used */
} rt_saddle;

/* log10 P[sum >= mean + t]. */
double rt_saddle_log10(const rt_saddle *saddle, double t);

/* What one term adds to k[0..2], accurate for small x = theta a; `a` scales the derivatives. */
void rt_cumulant_coin(double k[3], double theta, double a);                /* a (g - 1/2), g fair */
void rt_cumulant_bernoulli(double k[3], double theta, double a, double p); /* a (g - p), g ~ Bernoulli(p) */
void rt_cumulant_exponential(double k[3], double theta, double a);         /* a (e - 1), e ~ Exp(1) */

/* P[S >= s], S = sum over n rows and the layers of w[l] g, g fair coins: SynthID with weights. */
double rt_log10_weighted_coins(const double *w, size_t layers, uint64_t n, double s);
/* ... with P[g = 1] = p: the table of hf-synthid is not balanced. */
double rt_log10_weighted_bernoulli(const double *w, size_t layers, uint64_t n, double p, double s);
/* linspace(10, 1, layers) divided by its sum. */
void rt_synthid_weights(double *w, size_t layers);

#endif
