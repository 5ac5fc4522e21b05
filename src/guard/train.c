/* guard/train.c - see train.h.
 *
 * Logistic regression on clipped features at all checks of an account (each account weighs one, each class
 * one half), with a quadratic pull to prior weights and bounds on them: a signal that is known to be evidence
 * of collecting can weigh more than its prior, or less, but never the other way round, and those for kinds of
 * collecting that the sample may lack keep a least weight.  The convex problem is solved by projected
 * gradients with momentum (FISTA, Beck and Teboulle 2009); the same sample gives the same figures. */
#include "guard/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "guard/sample.h"

typedef struct prior {
    const char *feature;
    float weight, least, most; /* where the pull goes to; bounds */
    float low, high;           /* the clip, in scales from the benign median */
} prior;

static const float many = 1e6F;

/* What is known before any traffic: directions, and how much at least. */
static const prior priors[] = {
    {"repeat.distinct", 0, 0, 1e6F, -2, 4},
    {"repeat.continued", -0.4F, -1e6F, 0, -2, 4},
    {"repeat.lower", 0, -1e6F, 0, -2, 4},
    {"template.variety", 0, 0, 1e6F, -2, 4},
    {"template.filler_types", 0.5F, 0, 1e6F, -2, 4},
    {"template.long_top", 0, -1e6F, 0, -2, 4},
    {"breadth.types", 0.4F, 0, 1e6F, -2, 4},
    {"breadth.kinds", 0, 0, 1e6F, -2, 4},
    {"breadth.switches", 0.5F, 0, 1e6F, -2, 4},
    {"breadth.tasks", 0, 0, 1e6F, -2, 4},
    {"breadth.alike", 0, -1e6F, 0, -2, 4},
    {"breadth.vocabulary", 0, 0, 1e6F, -2, 4},
    {"breadth.mixed", 0.5F, 0.3F, 1e6F, -2, 5},
    {"elicit.trace", 0.8F, 0.4F, 1e6F, -2, 5},
    {"elicit.grade", 0.8F, 0.6F, 1e6F, -2, 5},
    {"elicit.evolve", 0.8F, 0.4F, 1e6F, -2, 5},
    {"elicit.wrapper", 0.8F, 0.2F, 1e6F, -2, 5},
    {"elicit.agent", 0.5F, 0.3F, 1e6F, -2, 5},
    {"elicit.any", 0.5F, 0.2F, 1e6F, -2, 5},
    {"elicit.any_types", 0.8F, 0.3F, 1e6F, -2, 5},
    {"elicit.count", 0.3F, 0, 1e6F, -2, 4},
    {"params.top_logprobs", 0.3F, 0.2F, 1e6F, -2, 4},
    {"params.exposure", 0.4F, 0.3F, 1e6F, -2, 5},
    {"params.bias_ids", 1, 0.8F, 1e6F, -2, 5},
    {"params.samples", 0.3F, 0, 1e6F, -2, 4},
    {"params.cold", 0, -1e6F, 0, -2, 4},
    {"volume.ratio", 0, 0, 1e6F, -2, 3},
    {"volume.out", 0, 0, 1e6F, -2, 3},
    {"volume.requests", 0, -1e6F, 0, -2, 4},
};
enum { N_PRIORS = sizeof priors / sizeof *priors, ROUNDS = 1500 };

typedef struct design { /* one fit's view of the sample */
    const rt_guard_sample *sample;
    float *z;       /* [n_rows, N_PRIORS] clipped features */
    double *weight; /* [n_rows], 0: left out */
    double w[N_PRIORS], bias;
} design;

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float quantile(const float *sorted, size_t n, double q)
{
    return n ? sorted[(size_t)(q * (double)(n - 1) + 0.5)] : 0;
}

/* Centre and scale of each feature among the last rows of the benign accounts that take part, and
 * quantiles among all of each class. */
static rt_status describe(rt_guard_reference *r, const rt_guard_sample *s, const uint8_t *used, rt_error *err)
{
    float *values = calloc(s->n_accounts + 1, sizeof *values);
    if (!values)
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to describe %zu accounts", s->n_accounts);
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        for (int k = -1; k < RT_GUARD_CLASSES; k++) {
            size_t n = 0;
            double mean = 0, square = 0;
            for (size_t a = 0; a < s->n_accounts; a++) {
                const rt_sample_account *account = &s->accounts[a];
                if (account->attacker || !used[a] || (k >= 0 && account->use_class != k))
                    continue;
                const float x = s->rows[account->first + account->count - 1].features[f];
                values[n++] = x;
                mean += (double)x;
                square += (double)x * (double)x;
            }
            qsort(values, n, sizeof *values, by_value);
            if (k >= 0) {
                for (size_t q = 0; q < RT_GUARD_QUANTILES; q++)
                    r->terms[f].quantiles[k][q] = quantile(values, n, (double)q / (RT_GUARD_QUANTILES - 1));
                continue;
            }
            mean /= (double)n + 1e-9;
            const double sd = sqrt(fmax(0, square / ((double)n + 1e-9) - mean * mean));
            const double spread = (double)(quantile(values, n, 0.9) - quantile(values, n, 0.1)) / 2.56;
            r->terms[f].centre = quantile(values, n, 0.5);
            r->terms[f].scale = (float)fmax(fmax(spread, 0.5 * sd), 0.02);
        }
    }
    free(values);
    return RT_OK;
}

/* Loss and gradient at w (the last entry is the bias). */
static void gradient_at(const design *d, const double w[N_PRIORS + 1], double strength,
                        double g[N_PRIORS + 1])
{
    const rt_guard_sample *s = d->sample;
    memset(g, 0, (N_PRIORS + 1) * sizeof *g);
    for (size_t i = 0; i < s->n_rows; i++) {
        if (d->weight[i] == 0)
            continue;
        const float *z = d->z + i * N_PRIORS;
        const double t = s->accounts[s->rows[i].account].attacker ? 1 : -1;
        double m = w[N_PRIORS];
        for (size_t k = 0; k < N_PRIORS; k++)
            m += w[k] * (double)z[k];
        const double slope = -d->weight[i] * t / (1 + exp(t * m));
        for (size_t k = 0; k < N_PRIORS; k++)
            g[k] += slope * (double)z[k];
        g[N_PRIORS] += slope;
    }
    for (size_t k = 0; k < N_PRIORS; k++)
        g[k] += strength * (w[k] - (double)priors[k].weight);
}

static void weigh(design *d, const uint8_t *used)
{
    const rt_guard_sample *s = d->sample;
    double of[2] = {0, 0};
    for (size_t a = 0; a < s->n_accounts; a++)
        of[s->accounts[a].attacker] += used[a] != 0;
    for (size_t i = 0; i < s->n_rows; i++) {
        const rt_sample_account *a = &s->accounts[s->rows[i].account];
        d->weight[i] = used[s->rows[i].account] ? 0.5 / (of[a->attacker] * (double)a->count) : 0;
    }
}

/* Fits `r` to the accounts with used[account] != 0. */
static rt_status fit_weights(rt_guard_reference *r, const rt_guard_sample *s, const uint8_t *used,
                             double strength, rt_error *err)
{
    design d = {.sample = s};
    size_t cells;
    int feature[N_PRIORS];
    if (describe(r, s, used, err) != RT_OK)
        return err->status;
    if (!rt_size_mul(s->n_rows, N_PRIORS, &cells) || !(d.z = calloc(cells + 1, sizeof *d.z)) ||
        !(d.weight = calloc(s->n_rows + 1, sizeof *d.weight))) {
        free(d.z);
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to fit %zu rows", s->n_rows);
    }
    for (size_t k = 0; k < N_PRIORS; k++) {
        feature[k] = rt_guard_feature_find(priors[k].feature);
        r->terms[feature[k]].low = priors[k].low;
        r->terms[feature[k]].high = priors[k].high;
    }
    double trace = 1;
    weigh(&d, used);
    for (size_t i = 0; i < s->n_rows; i++)
        for (size_t k = 0; k < N_PRIORS; k++) {
            const float z = rt_guard_term_value(&r->terms[feature[k]], s->rows[i].features[feature[k]]);
            d.z[i * N_PRIORS + k] = z;
            trace += d.weight[i] * (double)(z * z);
        }
    /* FISTA; the step is one over a bound of the curvature: trace / 4 + strength */
    double w[N_PRIORS + 1] = {0}, before[N_PRIORS + 1], ahead[N_PRIORS + 1], g[N_PRIORS + 1], momentum = 1;
    const double pull = strength / N_PRIORS, step = 1 / (trace / 4 + pull);
    for (size_t k = 0; k < N_PRIORS; k++)
        w[k] = (double)priors[k].weight;
    memcpy(ahead, w, sizeof w);
    for (size_t round = 0; round < ROUNDS; round++) {
        gradient_at(&d, ahead, pull, g);
        memcpy(before, w, sizeof w);
        for (size_t k = 0; k <= N_PRIORS; k++) {
            w[k] = ahead[k] - step * g[k];
            if (k < N_PRIORS)
                w[k] = fmin((double)fminf(priors[k].most, many), fmax((double)priors[k].least, w[k]));
        }
        const double next = (1 + sqrt(1 + 4 * momentum * momentum)) / 2;
        for (size_t k = 0; k <= N_PRIORS; k++)
            ahead[k] = w[k] + (momentum - 1) / next * (w[k] - before[k]);
        momentum = next;
    }
    for (size_t k = 0; k < N_PRIORS; k++)
        r->terms[feature[k]].weight = (float)w[k];
    r->bias = (float)w[N_PRIORS];
    free(d.z);
    free(d.weight);
    return RT_OK;
}

static float largest_score(const rt_guard_reference *r, const rt_guard_sample *s, const rt_sample_account *a)
{
    float best = -INFINITY;
    for (size_t i = 0; i < a->count; i++)
        best = fmaxf(best, rt_guard_score(r, s->rows[a->first + i].features));
    return best;
}

/* Each account's largest score under weights fitted without its fold. */
static rt_status cross_fit(float *scores, const rt_guard_sample *s, const rt_guard_fit *fit, rt_error *err)
{
    uint8_t *used = calloc(s->n_accounts + 1, 1);
    rt_guard_reference *r = calloc(1, sizeof *r);
    rt_status status = used && r ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to fit");
    for (size_t fold = 0; status == RT_OK && fold < fit->folds; fold++) {
        for (size_t a = 0; a < s->n_accounts; a++)
            used[a] = s->accounts[a].group % fit->folds != fold;
        memset(r, 0, sizeof *r);
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            r->terms[f].scale = 1;
        status = fit_weights(r, s, used, fit->strength, err);
        for (size_t a = 0; status == RT_OK && a < s->n_accounts; a++)
            if (!used[a])
                scores[a] = largest_score(r, s, &s->accounts[a]);
    }
    free(used);
    free(r);
    return status;
}

static double found_at(const float *benign, size_t n_benign, const float *scores, const rt_guard_sample *s,
                       double rate)
{
    const size_t over = (size_t)(rate * (double)n_benign);
    const float limit = benign[n_benign - 1 - over];
    size_t found = 0, all = 0;
    for (size_t a = 0; a < s->n_accounts; a++)
        if (s->accounts[a].attacker) {
            all++;
            found += scores[a] > limit;
        }
    return all ? (double)found / (double)all : 0;
}

/* Keeps the benign accounts' scores in ascending order. */
static rt_status keep_benign(rt_guard_reference *r, const rt_guard_sample *s, const float *scores,
                             rt_error *err)
{
    const size_t n = rt_guard_sample_accounts(s, false);
    if (n > RT_GUARD_CALIBRATION_MAX || !(r->benign = calloc(n + 1, sizeof *r->benign)))
        return rt_error_set(err, RT_NO_MEMORY, "guard: %zu benign accounts are too many; %d are the most", n,
                            RT_GUARD_CALIBRATION_MAX);
    for (size_t a = 0; a < s->n_accounts; a++)
        if (!s->accounts[a].attacker)
            r->benign[r->n_benign++] = scores[a];
    qsort(r->benign, r->n_benign, sizeof *r->benign, by_value);
    return RT_OK;
}

rt_status rt_guard_train(rt_guard_reference **out, const rt_guard_sample *sample, const rt_guard_fit *fit,
                         rt_guard_fit_report *report, rt_error *err)
{
    *out = NULL;
    *report = (rt_guard_fit_report){rt_guard_sample_accounts(sample, false),
                                    rt_guard_sample_accounts(sample, true), 0, 0, 0};
    if (report->benign < 100 || report->attackers < 20 || fit->folds < 2)
        return rt_error_set(err, RT_INVALID,
                            "guard: the sample has %zu benign and %zu attacking accounts; 100 and 20 are "
                            "needed, and two folds",
                            report->benign, report->attackers);
    rt_guard_reference *r = calloc(1, sizeof *r);
    float *scores = calloc(sample->n_accounts, sizeof *scores);
    uint8_t *used = malloc(sample->n_accounts);
    rt_status status =
        r && scores && used ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to train");
    if (status == RT_OK) {
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            r->terms[f].scale = 1;
        memset(used, 1, sample->n_accounts);
        status = cross_fit(scores, sample, fit, err);
    }
    if (status == RT_OK)
        status = fit_weights(r, sample, used, fit->strength, err);
    if (status == RT_OK)
        status = keep_benign(r, sample, scores, err);
    if (status == RT_OK) {
        report->found_half = found_at(r->benign, r->n_benign, scores, sample, 0.005);
        report->found_one = found_at(r->benign, r->n_benign, scores, sample, 0.01);
        report->found_two = found_at(r->benign, r->n_benign, scores, sample, 0.02);
        *out = r;
    } else
        rt_guard_reference_close(r);
    free(scores);
    free(used);
    return status;
}

rt_status rt_guard_calibrate(rt_guard_reference **out, const rt_guard_reference *weights,
                             const rt_guard_sample *sample, double alpha, rt_error *err)
{
    const size_t n = rt_guard_sample_accounts(sample, false);
    *out = NULL;
    if (!(alpha > 0) || !(alpha < 1))
        return rt_error_set(err, RT_INVALID, "guard: a false-alarm rate lies between 0 and 1");
    if ((double)n + 1 < 1 / alpha)
        return rt_error_set(
            err, RT_INVALID,
            "guard: %zu benign accounts cannot support a false-alarm rate of %g; that takes %.0f or more", n,
            alpha, ceil(1 / alpha) - 1);
    rt_guard_reference *r = calloc(1, sizeof *r), *shape = calloc(1, sizeof *shape);
    float *scores = calloc(sample->n_accounts + 1, sizeof *scores);
    uint8_t *used = malloc(sample->n_accounts + 1);
    rt_status status = r && shape && scores && used
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to calibrate");
    if (status == RT_OK) {
        *r = *weights;
        r->benign = NULL;
        r->n_benign = 0;
        memset(used, 1, sample->n_accounts);
        for (size_t a = 0; a < sample->n_accounts; a++)
            scores[a] = largest_score(weights, sample, &sample->accounts[a]);
        status = describe(shape, sample, used, err);
    }
    if (status == RT_OK) { /* centre and scale belong to the weights; what is benign today, to the sample */
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            memcpy(r->terms[f].quantiles, shape->terms[f].quantiles, sizeof r->terms[f].quantiles);
        status = keep_benign(r, sample, scores, err);
    }
    if (status == RT_OK)
        *out = r;
    else
        rt_guard_reference_close(r);
    free(shape);
    free(scores);
    free(used);
    return status;
}
