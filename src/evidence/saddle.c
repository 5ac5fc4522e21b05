/* evidence/saddle.c - see saddle.h.
 *
 * With kappa'(theta) = t, r = sign(theta) sqrt(2 (theta t - kappa)) and v = theta sqrt(kappa''):
 * p = Q(r) + phi(r) (1/v - 1/r).  Near the mean 1/v and 1/r are huge and nearly equal, so the cumulants of
 * single terms are computed without cancellation. */
#include "evidence/saddle.h"

#include <math.h>
#include <stdbool.h>

#include "evidence/tails.h"

static const double ln10 = 2.302585092994045684, half_ln_2pi = 0.918938533204672742;

void rt_cumulant_coin(double k[3], double theta, double a)
{
    /* ln cosh y, y = theta a / 2 */
    const double y = fabs(theta * a / 2), th = tanh(theta * a / 2);
    if (y < 1) {
        const double s = sinh(y / 2);
        k[0] += log1p(2 * s * s);
    } else {
        k[0] += y + log1p(exp(-2 * y)) - M_LN2;
    }
    k[1] += a / 2 * th;
    k[2] += a * a / 4 * (1 - th * th);
}

void rt_cumulant_bernoulli(double k[3], double theta, double a, double p)
{
    const double x = theta * a, q = 1 - p;
    if (fabs(x) < 1e-3) { /* cumulants of a Bernoulli variable */
        const double s2 = p * q, s3 = s2 * (q - p), s4 = s2 * (1 - 6 * s2), s5 = s3 * (1 - 12 * s2);
        k[0] += x * x * (s2 / 2 + x * (s3 / 6 + x * (s4 / 24 + x * s5 / 120)));
        k[1] += a * x * (s2 + x * (s3 / 2 + x * (s4 / 6 + x * s5 / 24)));
        k[2] += a * a * (s2 + x * (s3 + x * (s4 / 2 + x * s5 / 6)));
        return;
    }
    /* the larger of the two weights is taken out, so that nothing overflows */
    const double up = x > 0 ? p / (p + q * exp(-x)) : p * exp(x) / (p * exp(x) + q);
    k[0] += x > 0 ? q * x + log1p(q * expm1(-x)) : log1p(p * expm1(x)) - p * x;
    k[1] += a * (up - p);
    k[2] += a * a * up * (1 - up);
}

void rt_cumulant_exponential(double k[3], double theta, double a)
{
    const double x = theta * a;
    if (fabs(x) < 1e-3)
        k[0] += x * x * (1.0 / 2 + x * (1.0 / 3 + x * (1.0 / 4 + x / 5)));
    else
        k[0] += -log1p(-x) - x;
    k[1] += a * x / (1 - x);
    k[2] += a * a / ((1 - x) * (1 - x));
}

/* The theta with kappa'(theta) = t: Newton, kept inside a bracket that halving shrinks.  kappa at the end of
 * theta's range is dear, and is asked for only when a step leaves the range. */
static double solve(const rt_saddle *s, double t, double k[3])
{
    const double end = t > 0 ? s->theta_max : s->theta_min;
    bool end_known = !isfinite(end);
    double lo = t > 0 ? 0 : end, hi = t > 0 ? end : 0, theta = 0, next = t / s->variance;
    for (int i = 0; i < 500 && next != theta; i++) {
        if (!(next > lo && next < hi)) {
            if (!end_known) {
                k[0] = k[1] = k[2] = 0;
                s->cumulant(s->context, end, k);
                if (fabs(k[1]) < fabs(t))
                    return end;
                end_known = true;
            }
            next = isinf(lo) || isinf(hi) ? theta * 4 : (lo + hi) / 2;
        }
        theta = next;
        k[0] = k[1] = k[2] = 0;
        s->cumulant(s->context, theta, k);
        const double gap = t - k[1];
        if (fabs(gap) <= 1e-13 * fabs(t))
            break;
        if (gap > 0)
            lo = theta;
        else
            hi = theta;
        next = theta + gap / k[2];
    }
    return theta;
}

double rt_saddle_log10(const rt_saddle *s, double t)
{
    const double sd = sqrt(s->variance);
    if (!(s->variance > 0))
        return t > 0 ? -HUGE_VAL : 0;
    if (fabs(t) < 1e-6 * sd)
        return rt_log10_normal(t / sd);
    if (t >= s->max * (1 - 1e-12))
        return t > s->max * (1 + 1e-9) ? -HUGE_VAL : s->log10_p_max;
    double k[3] = {0};
    const double theta = solve(s, t, k);
    const double r = copysign(sqrt(2 * fmax(theta * t - k[0], 0)), theta), v = theta * sqrt(k[2]);
    const double correction = 1 / v - 1 / r;
    if (r > 0) {
        const double factor = correction + pow(10, rt_log10_mills(r));
        return fmin(0, (-r * r / 2 - half_ln_2pi + log(factor > 0 ? factor : 1 / v)) / ln10);
    }
    const double below = 0.5 * erfc(-r * M_SQRT1_2) - exp(-r * r / 2 - half_ln_2pi) * correction;
    return log1p(-fmin(fmax(below, 0), 1 - 1e-16)) / ln10;
}

void rt_synthid_weights(double *w, size_t layers)
{
    double sum = 0;
    for (size_t l = 0; l < layers; l++)
        sum += w[l] = layers == 1 ? 10 : 10 - 9 * (double)l / (double)(layers - 1);
    for (size_t l = 0; l < layers; l++)
        w[l] /= sum;
}

typedef struct rows {
    const double *w;
    size_t layers;
    double n, p;
} rows;

static void rows_cumulant(const void *context, double theta, double k[3])
{
    const rows *r = context;
    for (size_t l = 0; l < r->layers; l++) {
        if (r->p == 0.5)
            rt_cumulant_coin(k, theta, r->w[l]);
        else
            rt_cumulant_bernoulli(k, theta, r->w[l], r->p);
    }
    for (size_t i = 0; i < 3; i++)
        k[i] *= r->n;
}

double rt_log10_weighted_bernoulli(const double *w, size_t layers, uint64_t n, double p, double s)
{
    rows r = {w, layers, (double)n, p};
    double sum = 0, squares = 0;
    for (size_t l = 0; l < layers; l++) {
        sum += w[l];
        squares += w[l] * w[l];
    }
    const rt_saddle saddle = {.cumulant = rows_cumulant,
                              .context = &r,
                              .variance = r.n * p * (1 - p) * squares,
                              .theta_min = -HUGE_VAL,
                              .theta_max = HUGE_VAL,
                              .max = r.n * (1 - p) * sum,
                              .log10_p_max = r.n * (double)layers * log10(p)};
    if (n == 0)
        return 0;
    return rt_saddle_log10(&saddle, s - r.n * p * sum);
}

double rt_log10_weighted_coins(const double *w, size_t layers, uint64_t n, double s)
{
    return rt_log10_weighted_bernoulli(w, layers, n, 0.5, s);
}
