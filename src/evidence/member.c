/* evidence/member.c - were these answers in the training data?  Weights of several weak features are learned
 * on one half and tested on the other (dataset inference; METHODS-evidence 5.8); see rank.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "evidence/rank.h"

/* Solves the symmetric a [k, k] w = b in place by elimination; a is positive definite. */
static void solve(double *a, double *b, size_t k)
{
    for (size_t i = 0; i < k; i++)
        for (size_t r = i + 1; r < k; r++) {
            const double f = a[r * k + i] / a[i * k + i];
            for (size_t c = i; c < k; c++)
                a[r * k + c] -= f * a[i * k + c];
            b[r] -= f * b[i];
        }
    for (size_t i = k; i-- > 0;) {
        for (size_t c = i + 1; c < k; c++)
            b[i] -= a[i * k + c] * b[c];
        b[i] /= a[i * k + i];
    }
}

/* Fisher's discriminant of the rows `order` [n]: weights w [k] of x - shift in units of scale. */
static void discriminant(double *w, const double *x, size_t k, const uint8_t *member, const size_t *order,
                         size_t n)
{
    double mean[2][RT_FEATURES_MAX] = {{0}}, cov[RT_FEATURES_MAX * RT_FEATURES_MAX] = {0}, count[2] = {0};
    for (size_t i = 0; i < n; i++) {
        const size_t side = member[order[i]] != 0;
        count[side]++;
        for (size_t f = 0; f < k; f++)
            mean[side][f] += x[order[i] * k + f];
    }
    for (size_t f = 0; f < k; f++) {
        mean[0][f] /= fmax(count[0], 1);
        mean[1][f] /= fmax(count[1], 1);
        w[f] = mean[1][f] - mean[0][f];
    }
    for (size_t i = 0; i < n; i++) {
        const size_t side = member[order[i]] != 0;
        const double *row = x + order[i] * k;
        for (size_t f = 0; f < k; f++)
            for (size_t g = 0; g < k; g++)
                cov[f * k + g] += (row[f] - mean[side][f]) * (row[g] - mean[side][g]);
    }
    for (size_t f = 0; f < k; f++) /* a feature that does not vary gets no weight */
        cov[f * k + f] = cov[f * k + f] > 0 ? cov[f * k + f] * (1 + 1e-6) : 1e300;
    solve(cov, w, k);
}

rt_status rt_membership_test(double *log10_p, double *statistic, const double *x, size_t k,
                             const uint8_t *member, size_t n, uint64_t seed, rt_error *err)
{
    size_t sides[2] = {0}, taken[2] = {0}, learned = 0, tested[2] = {0};
    for (size_t i = 0; i < n; i++)
        sides[member[i] != 0]++;
    *log10_p = *statistic = 0;
    if (k == 0 || k > RT_FEATURES_MAX || sides[0] < 4 || sides[1] < 4)
        return rt_error_set(err, RT_INVALID,
                            "membership needs four members and four others at least (%zu and %zu came)",
                            sides[1], sides[0]);
    size_t *order = malloc(2 * n * sizeof *order), *learn = order ? order + n : NULL;
    double *score = malloc(2 * n * sizeof *score), w[RT_FEATURES_MAX] = {0};
    if (!order || !score) {
        free(order);
        free(score);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", n);
    }
    rt_rng rng = rt_rng_make(seed, 0x3E3BE);
    for (size_t i = 0; i < n; i++) {
        const size_t j = rt_rng_below(&rng, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (size_t i = 0; i < n; i++) /* the first half of each side, in random order, teaches */
        if (taken[member[order[i]] != 0]++ < sides[member[order[i]] != 0] / 2)
            learn[learned++] = order[i];
    discriminant(w, x, k, member, learn, learned);
    taken[0] = taken[1] = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t side = member[order[i]] != 0;
        if (taken[side]++ < sides[side] / 2)
            continue;
        double s = 0;
        for (size_t f = 0; f < k; f++)
            s += w[f] * x[order[i] * k + f];
        score[side * n + tested[side]++] = s;
    }
    *log10_p = rt_welch(score + n, tested[1], score, tested[0]);
    double mean[2] = {0}, squares = 0;
    for (size_t side = 0; side < 2; side++) {
        for (size_t i = 0; i < tested[side]; i++)
            mean[side] += score[side * n + i] / (double)tested[side];
        for (size_t i = 0; i < tested[side]; i++)
            squares += pow(score[side * n + i] - mean[side], 2);
    }
    const double sd = sqrt(squares / (double)(tested[0] + tested[1] - 2));
    *statistic = sd > 0 ? (mean[1] - mean[0]) / sd : 0;
    free(order);
    free(score);
    return RT_OK;
}
