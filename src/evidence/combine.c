/* evidence/combine.c - see combine.h. */
#include "evidence/combine.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "evidence/tails.h"

static const double ln10 = 2.302585092994045684;

double rt_fisher_statistic(const double *lp, size_t m)
{
    double sum = 0;
    for (size_t i = 0; i < m; i++)
        sum -= 2 * ln10 * lp[i];
    return sum;
}

double rt_fisher(const double *lp, size_t m)
{
    return m ? rt_log10_chi2(rt_fisher_statistic(lp, m), 2 * (double)m) : 0;
}

double rt_stouffer(const double *lp, const double *weights, size_t m)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < m; i++) {
        const double w = weights ? weights[i] : 1;
        sum += w * rt_normal_upper_quantile(fmin(lp[i], -4.343e-17)); /* p = 1 is 1 - 1e-16 */
        squares += w * w;
    }
    return m ? rt_log10_normal(sum / sqrt(squares)) : 0;
}

/* cot(pi p), where no digits are lost; p past 1 - 1e-9 counts as that. */
static double cotangent(double lp)
{
    const double p = pow(10, lp), q = -expm1(lp * ln10);
    if (lp < -300)
        return pow(10, -lp) / M_PI;
    if (p < 0.25)
        return 1 / tan(M_PI * p);
    if (p > 0.75)
        return -1 / tan(M_PI * fmax(q, 1e-9));
    return tan(M_PI * (0.5 - p));
}

double rt_cauchy_statistic(const double *lp, size_t m)
{
    double sum = 0;
    for (size_t i = 0; i < m; i++)
        sum += cotangent(lp[i]) / (double)m;
    return sum;
}

double rt_cauchy(const double *lp, size_t m)
{
    if (m == 0)
        return 0;
    double least = 0;
    for (size_t i = 0; i < m; i++)
        least = fmin(least, lp[i]);
    if (least < -300) { /* the statistic overflows: the sum of 1/(pi p m) by its logarithm */
        double sum = 0;
        for (size_t i = 0; i < m; i++)
            sum += pow(10, least - lp[i]);
        return least - log10(sum / (double)m);
    }
    const double t = rt_cauchy_statistic(lp, m);
    if (t > 0)
        return log10(atan(1 / t) / M_PI);
    return t < 0 ? log1p(-atan(-1 / t) / M_PI) / ln10 : log10(0.5);
}

/* log10 of the sum of 10^x */
static double log10_sum(const double *x, double factor, size_t m)
{
    double most = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < m; i++)
        most = fmax(most, factor * x[i]);
    for (size_t i = 0; i < m; i++)
        sum += pow(10, factor * x[i] - most);
    return most + log10(sum);
}

double rt_harmonic_mean(const double *lp, size_t m)
{
    return m ? log10((double)m) - log10_sum(lp, -1, m) : 0;
}

double rt_harmonic_bound(const double *lp, size_t m)
{
    const double c = m < 2 ? 1 : m == 2 ? 2 : M_E * log((double)m);
    return fmin(0, log10(c) + rt_harmonic_mean(lp, m));
}

double rt_bonferroni(const double *lp, size_t m)
{
    double least = 0;
    for (size_t i = 0; i < m; i++)
        least = fmin(least, lp[i]);
    return m ? fmin(0, least + log10((double)m)) : 0;
}

typedef struct ranked {
    double lp;
    size_t index;
} ranked;

static int by_p(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->lp != y->lp)
        return x->lp < y->lp ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Indices by ascending p; NULL when out of memory. */
static ranked *rank(const double *lp, size_t m)
{
    ranked *order = malloc((m + 1) * sizeof *order);
    for (size_t i = 0; order && i < m; i++)
        order[i] = (ranked){lp[i], i};
    if (order)
        qsort(order, m, sizeof *order, by_p);
    return order;
}

double rt_simes(const double *lp, size_t m)
{
    ranked *order = rank(lp, m);
    if (!order)
        return rt_bonferroni(lp, m); /* never smaller than Simes' p */
    double least = 0;
    for (size_t i = 0; i < m; i++)
        least = fmin(least, order[i].lp + log10((double)m / (double)(i + 1)));
    free(order);
    return least;
}

void rt_holm(const double *lp, size_t m, double *out)
{
    ranked *order = rank(lp, m);
    double most = -HUGE_VAL;
    for (size_t i = 0; i < m; i++) {
        if (!order) { /* Bonferroni is never smaller */
            out[i] = fmin(0, lp[i] + log10((double)m));
            continue;
        }
        most = fmax(most, order[i].lp + log10((double)(m - i)));
        out[order[i].index] = fmin(0, most);
    }
    free(order);
}

void rt_benjamini_hochberg(const double *lp, size_t m, double *out)
{
    ranked *order = rank(lp, m);
    double least = 0;
    for (size_t i = m; i-- > 0;) {
        if (!order) {
            out[i] = fmin(0, lp[i] + log10((double)m));
            continue;
        }
        least = fmin(least, order[i].lp + log10((double)m / (double)(i + 1)));
        out[order[i].index] = least;
    }
    free(order);
}

double rt_e_value(double lp) { return log10(0.5) - lp / 2; }

double rt_e_mean(const double *lp, size_t m)
{
    return m ? log10(0.5) + log10_sum(lp, -0.5, m) - log10((double)m) : 0;
}

double rt_e_product(const double *lp, size_t m)
{
    double sum = 0;
    for (size_t i = 0; i < m; i++)
        sum += rt_e_value(lp[i]);
    return sum;
}

double rt_p_of_e(double log10_e) { return fmin(0, -log10_e); }

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rt_ks_statistic(const double *x, size_t n)
{
    double *sorted = malloc((n + 1) * sizeof *sorted), d = 0;
    if (!sorted)
        return (double)NAN;
    memcpy(sorted, x, n * sizeof *x);
    qsort(sorted, n, sizeof *sorted, by_value);
    for (size_t i = 0; i < n; i++) {
        d = fmax(d, (double)(i + 1) / (double)n - sorted[i]);
        d = fmax(d, sorted[i] - (double)i / (double)n);
    }
    free(sorted);
    return d;
}

/* P[D+ >= d], exact: Birnbaum and Tingey 1951; all terms are positive. */
static double one_sided(double d, size_t size)
{
    const double n = (double)size;
    int sign;
    double sum = 0;
    const size_t last = (size_t)floor(n * (1 - d));
    for (size_t j = 0; j <= last; j++) {
        const double a = d + (double)j / n, b = 1 - a;
        if (b <= 0 && size > j)
            continue;
        const double ln_choose =
            lgamma_r(n + 1, &sign) - lgamma_r((double)j + 1, &sign) - lgamma_r(n - (double)j + 1, &sign);
        const double rest = size == j ? 0 : (n - (double)j) * log(b);
        sum += exp(ln_choose + ((double)j - 1) * log(a) + rest);
    }
    return fmin(1, d * sum);
}

/* c = a b of m x m matrices */
static void product(double *c, const double *a, const double *b, size_t m)
{
    memset(c, 0, m * m * sizeof *c);
    for (size_t i = 0; i < m; i++)
        for (size_t k = 0; k < m; k++)
            for (size_t j = 0; j < m; j++)
                c[i * m + j] += a[i * m + k] * b[k * m + j];
}

/* P[D < d] by Marsaglia, Tsang and Wang 2003: n!/n^n times an entry of the n-th power of a matrix.  Entries
 * are scaled by powers of 2 as they grow.  NAN when out of memory. */
static double marsaglia(double d, size_t n)
{
    const size_t k = (size_t)ceil((double)n * d), m = 2 * (k ? k : 1) - 1, mid = (k ? k : 1) - 1;
    const double h = (double)(k ? k : 1) - (double)n * d;
    double *work = calloc(3 * m * m, sizeof *work);
    if (!work)
        return (double)NAN;
    double *base = work, *power = work + m * m, *spare = work + 2 * m * m;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++)
            base[i * m + j] = j <= i + 1 ? 1 : 0;
    for (size_t i = 0; i < m; i++) {
        base[i * m] -= pow(h, (double)(i + 1));
        base[(m - 1) * m + i] -= pow(h, (double)(m - i));
    }
    base[(m - 1) * m] += 2 * h > 1 ? pow(2 * h - 1, (double)m) : 0;
    for (size_t i = 0; i < m; i++) {
        double factorial = 1;
        for (size_t j = i + 2; j-- > 0;) { /* entry (i, j) is divided by (i - j + 1)! */
            if (j < m && i + 1 > j) {
                factorial *= (double)(i - j + 1);
                base[i * m + j] /= factorial;
            }
        }
    }
    for (size_t i = 0; i < m; i++)
        power[i * m + i] = 1;
    int base_exponent = 0, exponent = 0;
    for (size_t left = n; left; left /= 2) {
        if (left & 1) {
            product(spare, power, base, m);
            memcpy(power, spare, m * m * sizeof *power);
            exponent += base_exponent;
        }
        product(spare, base, base, m);
        memcpy(base, spare, m * m * sizeof *base);
        base_exponent *= 2;
        for (double *matrix = base; matrix <= power; matrix += m * m) {
            int e;
            (void)frexp(matrix[mid * m + mid], &e);
            if (e > 400) {
                for (size_t i = 0; i < m * m; i++)
                    matrix[i] = ldexp(matrix[i], -e);
                *(matrix == base ? &base_exponent : &exponent) += e;
            }
        }
    }
    double p = power[mid * m + mid];
    free(work);
    for (size_t i = 1; i <= n; i++) {
        p *= (double)i / (double)n;
        if (p < 1e-200) {
            p = ldexp(p, 600);
            exponent -= 600;
        }
    }
    return ldexp(p, exponent);
}

double rt_ks_p(double d, size_t n)
{
    if (n == 0 || d <= 0.5 / (double)n || isnan(d))
        return 1;
    if (d >= 1)
        return 0;
    /* both one-sided events together are rarer than their p to the fourth power, and impossible from 1/2 on
     */
    const double upper = 2 * one_sided(d, n);
    if (d >= 0.5 || upper < 1e-3)
        return fmin(1, upper);
    if (n <= 4000 && (double)n * d < 200) {
        const double below = marsaglia(d, n);
        if (!isnan(below))
            return fmax(0, fmin(1, 1 - below));
    }
    const double l = d * (sqrt((double)n) + 0.12 + 0.11 / sqrt((double)n));
    double sum = 0;
    for (int k = 1; k < 100; k++)
        sum += (k % 2 ? 2 : -2) * exp(-2 * (double)k * k * l * l);
    return fmin(1, fmax(0, sum));
}
