/* evidence/tails.c - see tails.h.
 *
 * A tail is its first term times a sum of ratios.  The first term comes from Loader's form of the binomial
 * and the Poisson probability ("Fast and accurate computation of binomial probabilities", 2000): the error of
 * Stirling's formula and the deviance, which do not cancel as differences of lgamma do (at n = 1e9 those have
 * lost ten digits).  Where the tail is the larger part, the smaller one is summed and log1p turns it round.
 */
#include "evidence/tails.h"

#include <math.h>
#include <stdlib.h>
#include <stdbool.h>

static const double ln10 = 2.302585092994045684, half_ln_2pi = 0.918938533204672742;
enum { STEPS_MAX = 200000000 }; /* of a sum: some standard deviations of the largest n that is meant */

/* lgamma(n + 1) - (n + 1/2) ln n + n - ln sqrt(2 pi), n > 0 */
static double stirling_error(double n)
{
    if (n <= 15) {
        int sign;
        return lgamma_r(n + 1, &sign) - (n + 0.5) * log(n) + n - half_ln_2pi;
    }
    const double q = 1 / (n * n);
    return (1.0 / 12 - q * (1.0 / 360 - q * (1.0 / 1260 - q * (1.0 / 1680 - q / 1188)))) / n;
}

/* x ln(x / m) + m - x without cancellation, x > 0 and m > 0 */
static double deviance(double x, double m)
{
    if (fabs(x - m) > 0.1 * (x + m))
        return x * log(x / m) + m - x;
    const double v = (x - m) / (x + m);
    double sum = (x - m) * v, term = 2 * x * v;
    for (int j = 1; j < 200; j++) {
        term *= v * v;
        const double next = sum + term / (2 * j + 1);
        if (next == sum)
            break;
        sum = next;
    }
    return sum;
}

/* ln P[X = k], 0 < p < 1, q = 1 - p */
static double ln_binomial_term(double n, double k, double p, double q)
{
    if (k == 0)
        return n * (p < 0.1 ? log1p(-p) : log(q));
    if (k == n)
        return n * (q < 0.1 ? log1p(-q) : log(p));
    return stirling_error(n) - stirling_error(k) - stirling_error(n - k) - deviance(k, n * p) -
           deviance(n - k, n * q) + 0.5 * log(n / (k * (n - k))) - half_ln_2pi;
}

double rt_log10_complement(double log10_p)
{
    const double l = log10_p * ln10;
    if (l >= 0)
        return -HUGE_VAL;
    return (l < -0.7 ? log1p(-exp(l)) : log(-expm1(l))) / ln10;
}

static double log10_binomial_pq(double n, double k, double p, double q)
{
    if (k <= 0)
        return 0;
    if (k > n || p <= 0)
        return -HUGE_VAL;
    if (q <= 0)
        return 0;
    const bool upper = k > n * p;
    double j = upper ? k : k - 1, term = 1, sum = 1;
    const double odds = p / q, first = ln_binomial_term(n, j, p, q);
    for (int i = 0; i < STEPS_MAX && term > 1e-18 * sum; i++) {
        if (upper) {
            term *= (n - j) / (j + 1) * odds;
            j++;
        } else {
            term *= j / ((n - j + 1) * odds);
            j--;
        }
        sum += term;
    }
    const double tail = (first + log(sum)) / ln10;
    return upper ? fmin(tail, 0) : rt_log10_complement(tail);
}

double rt_log10_binomial(uint64_t n, uint64_t k, double p)
{
    return log10_binomial_pq((double)n, (double)k, p, 1 - p);
}

double rt_log10_gamma(double shape, double x)
{
    if (x <= 0)
        return 0;
    if (isinf(x))
        return -HUGE_VAL;
    /* ln of x^a e^-x / Gamma(a + 1) */
    const double a = shape;
    const double first = -stirling_error(a) - deviance(a, x) - half_ln_2pi - 0.5 * log(a);
    if (x < a + 1) { /* the lower function's series */
        double term = 1, sum = 1;
        for (double k = 1; k < STEPS_MAX && term > 1e-18 * sum; k++) {
            term *= x / (a + k);
            sum += term;
        }
        return rt_log10_complement((first + log(sum)) / ln10);
    }
    /* Legendre's continued fraction, by Lentz's method */
    double b = x + 1 - a, c = 1e300, d = 1 / b, h = d;
    for (double i = 1; i < STEPS_MAX; i++) {
        const double an = -i * (i - a);
        b += 2;
        d = an * d + b;
        c = b + an / c;
        d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
        const double step = d * (fabs(c) < 1e-300 ? 1e-300 : c);
        h *= step;
        if (fabs(step - 1) < 1e-16)
            break;
    }
    return fmin((first + log(a) + log(h)) / ln10, 0);
}

double rt_log10_chi2(double x, double df) { return rt_log10_gamma(df / 2, x / 2); }

/* Mills' ratio for r >= 5: 1/(r + 1/(r + 2/(r + 3/...))), evaluated from behind */
static double mills(double r)
{
    if (r < 5)
        return 0.5 * erfc(r * M_SQRT1_2) * exp(r * r / 2 + half_ln_2pi);
    double tail = r;
    for (int k = 60; k > 0; k--)
        tail = r + k / tail;
    return 1 / tail;
}

double rt_log10_mills(double r) { return log10(mills(r)); }

double rt_log10_normal(double z)
{
    if (z < 0)
        return log1p(-0.5 * erfc(-z * M_SQRT1_2)) / ln10;
    if (z < 5)
        return log10(0.5 * erfc(z * M_SQRT1_2));
    if (isinf(z))
        return -HUGE_VAL;
    return (-z * z / 2 - half_ln_2pi + log(mills(z))) / ln10;
}

double rt_normal_upper_quantile(double log10_p)
{
    if (log10_p >= 0)
        return -HUGE_VAL;
    if (isinf(log10_p))
        return HUGE_VAL;
    if (log10_p > -0.30102999566398120)
        return -rt_normal_upper_quantile(rt_log10_complement(log10_p));
    const double l = log10_p * ln10;
    double z = sqrt(fmax(0, -2 * l - 2 * half_ln_2pi - log(fmax(1, -2 * l))));
    for (int i = 0; i < 50; i++) { /* Newton on the logarithm, which is concave */
        const double step = (rt_log10_normal(z) * ln10 - l) * mills(fmax(z, 0));
        z += step;
        if (fabs(step) < 1e-15 * (1 + fabs(z)))
            break;
    }
    return z;
}

/* Continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's method. */
static double beta_fraction(double a, double b, double x)
{
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
    double h = d;
    for (double m = 1; m < 100000; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step = 1;
        for (int half = 0; half < 2; half++) {
            const double e = half ? odd : even;
            d = 1 + e * d;
            d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
            c = 1 + e / c;
            c = fabs(c) < 1e-300 ? 1e-300 : c;
            step = c * d;
            h *= step;
        }
        if (fabs(step - 1) < 1e-16)
            break;
    }
    return h;
}

/* lgamma(a + 1/2) - lgamma(a) */
static double ln_gamma_half_step(double a)
{
    if (a < 8) {
        int sign;
        return lgamma_r(a + 0.5, &sign) - lgamma_r(a, &sign);
    }
    return a * log1p(-0.5 / a) + 0.5 * log(a) + 0.5 + stirling_error(a - 0.5) - stirling_error(a);
}

double rt_log10_student(double t, double df)
{
    if (t < 0)
        return rt_log10_complement(rt_log10_student(-t, df));
    if (isinf(t))
        return -HUGE_VAL;
    const double a = df / 2, w = t * t / df, x = 1 / (1 + w), y = w / (1 + w);
    /* ln of x^a y^(1/2) / B(a, 1/2);  B(a, 1/2) = Gamma(a) sqrt(pi) / Gamma(a + 1/2) */
    const double front = -a * log1p(w) + 0.5 * log(y) + ln_gamma_half_step(a) - 0.5 * log(M_PI);
    if (x < (a + 1) / (a + 2.5))
        return (front + log(beta_fraction(a, 0.5, x) / a) - M_LN2) / ln10;
    const double lower = t == 0 ? 0 : exp(front) * beta_fraction(0.5, a, y) / 0.5;
    return (log1p(-lower) - M_LN2) / ln10;
}

/* The p at which a binomial tail of n reaches log10_target: P[X >= k] grows with p. */
static double binomial_root(double n, double k, double log10_target, bool mirrored)
{
    double lo = 0, hi = 1;
    /* Halving in the logarithm first: roots may be as small as 1e-300. */
    for (int i = 0; i < 2000; i++) {
        const double mid = lo > 0 && hi / lo > 4 ? sqrt(lo * hi) : lo > 0 ? (lo + hi) / 2 : hi / 1024;
        if (mid <= lo || mid >= hi || mid < 1e-300)
            break;
        const double tail = log10_binomial_pq(n, k, mid, 1 - mid);
        if (tail < log10_target)
            lo = mid;
        else
            hi = mid;
    }
    return mirrored ? 1 - (lo + hi) / 2 : (lo + hi) / 2;
}

rt_range rt_clopper_pearson(uint64_t k, uint64_t n, double conf)
{
    rt_range range = {0, 1};
    const double half = log10((1 - conf) / 2);
    if (n == 0)
        return range;
    if (k > 0)
        range.lo = binomial_root((double)n, (double)k, half, false);
    if (k < n) /* P[X <= k | p] = P[n - X >= n - k | 1 - p] */
        range.hi = binomial_root((double)n, (double)(n - k), half, true);
    return range;
}

/* Counts up to k - 1 one by one and all from k on together: no difference of large numbers is taken. */
double rt_log10_poisson_binomial(const double *p, size_t n, size_t k)
{
    if (k == 0)
        return 0;
    double *q = k <= n ? calloc(k + 1, sizeof *q) : NULL;
    if (!q)
        return -INFINITY;
    q[0] = 1;
    for (size_t i = 0; i < n; i++) {
        const double yes = fmin(fmax(p[i], 0), 1);
        q[k] += q[k - 1] * yes;
        for (size_t j = k - 1; j > 0; j--)
            q[j] = q[j] * (1 - yes) + q[j - 1] * yes;
        q[0] *= 1 - yes;
    }
    const double out = log10(fmin(q[k], 1));
    free(q);
    return out;
}

double rt_log10_hypergeometric(uint64_t k_a, uint64_t n_a, uint64_t k_b, uint64_t n_b)
{
    const uint64_t marked = k_a + k_b, most = marked < n_a ? marked : n_a;
    const double n = (double)n_a + (double)n_b;
    int sign;
    double sum = 0, first = 0;
    if (k_a == 0 || (marked > n_b && k_a <= marked - n_b))
        return 0;
    for (uint64_t k = k_a; k <= most; k++) {
        const double a = (double)n_a, b = (double)n_b, m = (double)marked, x = (double)k;
        const double ln = lgamma_r(a + 1, &sign) - lgamma_r(x + 1, &sign) - lgamma_r(a - x + 1, &sign) +
                          lgamma_r(b + 1, &sign) - lgamma_r(m - x + 1, &sign) -
                          lgamma_r(b - m + x + 1, &sign) - lgamma_r(n + 1, &sign) + lgamma_r(m + 1, &sign) +
                          lgamma_r(n - m + 1, &sign);
        first = k == k_a ? ln : first;
        sum += exp(ln - first);
    }
    return fmin(0, (first + log(sum)) / 2.302585092994045684);
}
