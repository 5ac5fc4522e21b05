/* judge/duel.c - see duel.h. */
#include "judge/duel.h"

#include <math.h>
#include <stdlib.h>

enum { RESAMPLES = 1000, NEWTON_STEPS = 50 };

static const double prior_precision = 1.0 / (10 * 10);

typedef struct fit {
    double quality, length;
} fit;

static double logistic(double x) { return 1 / (1 + exp(-x)); }

/* One Newton step on the log-posterior; its largest change. */
static double newton_step(fit *f, const double *preference, const double *longer, const uint32_t *draw,
                          size_t n)
{
    double g0 = -prior_precision * f->quality, g1 = -prior_precision * f->length;
    double h00 = prior_precision, h01 = 0, h11 = prior_precision;
    for (size_t i = 0; i < n; i++) {
        const size_t at = draw ? draw[i] : i;
        const double x = longer[at], p = logistic(f->quality + f->length * x), w = p * (1 - p);
        g0 += preference[at] - p;
        g1 += (preference[at] - p) * x;
        h00 += w;
        h01 += w * x;
        h11 += w * x * x;
    }
    const double det = h00 * h11 - h01 * h01; /* > 0: the prior keeps it so */
    const double d0 = (h11 * g0 - h01 * g1) / det, d1 = (h00 * g1 - h01 * g0) / det;
    /* A full step from far off can overshoot: at most 2 in the logit. */
    const double size = fmax(fabs(d0), fabs(d1)), scale = size > 2 ? 2 / size : 1;
    f->quality += scale * d0;
    f->length += scale * d1;
    return scale * size;
}

static fit fit_rounds(const double *preference, const double *longer, const uint32_t *draw, size_t n)
{
    fit f = {0, 0};
    for (int step = 0; step < NEWTON_STEPS && newton_step(&f, preference, longer, draw, n) > 1e-10; step++)
        ;
    return f;
}

/* tanh of the differences in length over their standard deviation; 0 where all are equal. */
static void scale_lengths(double *longer, const rt_duel_round *rounds, size_t n)
{
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        longer[i] = rounds[i].bytes_second_model - rounds[i].bytes_first_model;
        mean += longer[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        square += (longer[i] - mean) * (longer[i] - mean) / (double)n;
    /* of differences that are all the same there is no spread: their own size is the scale */
    const double sd = square > 0 ? sqrt(square) : fabs(mean);
    for (size_t i = 0; i < n; i++)
        longer[i] = sd > 0 ? tanh(longer[i] / sd) : 0;
}

static double mean_of(const double *x, const uint32_t *draw, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[draw[i]];
    return sum / (double)n;
}

static rt_interval interval(double value, double *draws, size_t n)
{
    return n > 1 ? rt_interval_make(value, draws, RESAMPLES) : (rt_interval){value, (double)NAN, (double)NAN};
}

rt_status rt_duel_count(rt_duel_figures *out, const rt_duel_round *rounds, size_t n, uint64_t seed,
                        rt_error *err)
{
    *out = (rt_duel_figures){.rounds = n};
    double *values = n <= SIZE_MAX / RESAMPLES / 16 ? calloc(2 * n + 2 * RESAMPLES, sizeof *values) : NULL;
    uint32_t *draws = values ? calloc(n * RESAMPLES, sizeof *draws) : NULL;
    if (!draws) {
        free(values);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu requests", n);
    }
    double *preference = values, *longer = values + n, *wins = values + 2 * n, *controlled = wins + RESAMPLES;
    double sum = 0;
    scale_lengths(longer, rounds, n);
    for (size_t i = 0; i < n; i++) {
        const rt_duel_round *r = &rounds[i];
        preference[i] = (r->as_second + r->as_first) / 2;
        sum += preference[i];
        out->first_place += (r->as_first + 1 - r->as_second) / 2 / (double)n;
        out->consistent += ((r->as_second > 0.5) == (r->as_first > 0.5)) / (double)n;
        out->mean_bytes[0] += r->bytes_first_model / (double)n;
        out->mean_bytes[1] += r->bytes_second_model / (double)n;
    }
    rt_bootstrap_draw(draws, n, RESAMPLES, seed);
    for (size_t d = 0; d < RESAMPLES; d++) {
        wins[d] = mean_of(preference, draws + d * n, n);
        controlled[d] = logistic(fit_rounds(preference, longer, draws + d * n, n).quality);
    }
    const fit whole = fit_rounds(preference, longer, NULL, n);
    out->length = whole.length;
    out->win_rate = interval(sum / (double)n, wins, n);
    out->length_controlled = interval(logistic(whole.quality), controlled, n);
    free(values);
    free(draws);
    return RT_OK;
}
