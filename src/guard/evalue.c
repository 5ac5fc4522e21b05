/* guard/evalue.c - see evalue.h. */
#include "guard/evalue.h"

#include <math.h>
#include <stdlib.h>

static const double stakes[RT_EVALUE_STAKES] = {0.1, 0.4, 1};
static const double p_most = 0.05, deviate_most = 6;

double rt_evalue_bet(double p, double p_least)
{
    const double least = fmin(fmax(p_least, 1e-9), 0.9 * p_most);
    if (!(p < p_most)) /* not a number too */
        return 0;
    return (1 / fmax(p, least) - 1 / p_most) / log(p_most / least);
}

/* Newton's steps on the upper tail from a start that is near enough everywhere (Abramowitz and Stegun
 * 26.2.23). */
double rt_evalue_deviate(double p)
{
    const double tail = fmin(p, 1 - p);
    if (!(tail > 1e-9))
        return p < 0.5 ? deviate_most : -deviate_most;
    const double t = sqrt(-2 * log(tail));
    double z =
        t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
    for (int i = 0; i < 2; i++) {
        const double density = exp(-z * z / 2) / sqrt(2 * M_PI);
        z += (0.5 * erfc(z * M_SQRT1_2) - tail) / density;
    }
    z = fmin(deviate_most, z);
    return p < 0.5 ? z : -z;
}

double rt_evalue_p_after(double p, double sum, uint32_t blocks, double habit)
{
    if (blocks == 0 || habit <= 0)
        return p;
    const double k = blocks, shared = 1 + (k - 1) * habit, mean = habit * sum / shared,
                 variance = 1 - k * habit * habit / shared;
    const double z = (rt_evalue_deviate(p) - mean) / sqrt(variance);
    return fmax(p, 0.5 * erfc(z * M_SQRT1_2));
}

static double log_mean(const double logs[RT_EVALUE_STAKES])
{
    double most = -INFINITY, sum = 0;
    for (size_t k = 0; k < RT_EVALUE_STAKES; k++)
        most = fmax(most, logs[k]);
    for (size_t k = 0; k < RT_EVALUE_STAKES; k++)
        sum += exp(logs[k] - most);
    return most + log(sum / RT_EVALUE_STAKES);
}

double rt_evalue_log(const rt_evalue_path *path, double bet)
{
    double logs[RT_EVALUE_STAKES];
    for (size_t k = 0; k < RT_EVALUE_STAKES; k++)
        logs[k] = (double)path->log_wealth[k] + log(1 - stakes[k] + stakes[k] * bet);
    return log_mean(logs);
}

double rt_evalue_log_closed(const rt_evalue_path *path) { return rt_evalue_log(path, 1); }

void rt_evalue_close_block(rt_evalue_path *path, double bet, double own, double linked)
{
    for (size_t k = 0; k < RT_EVALUE_STAKES; k++)
        path->log_wealth[k] += (float)log(1 - stakes[k] + stakes[k] * bet);
    path->own_sum += (float)own;
    path->linked_sum += (float)linked;
    path->blocks++;
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

double rt_ebh_threshold(double *e, size_t n, double q)
{
    size_t size = 0;
    if (n)
        qsort(e, n, sizeof *e, descending);
    for (size_t i = 0; i < n; i++)
        if (e[i] >= (double)n / (q * (double)(i + 1)))
            size = i + 1;
    return size ? e[size - 1] : (double)INFINITY;
}
