/* guard/boost.c - see boost.h.
 *
 * Features are cut into at most 48 bins at quantiles; a node's best split is found from sums of gradients and
 * curvatures by bin. Everything is drawn from Philox by tree, so the same data gives the same trees. */
#include "guard/boost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "guard/sketch.h"

enum { BINS = 48, LEVEL_NODES = 4 };

float rt_boost_value(const rt_boost_tree *tree, const float *features, float *contributions)
{
    size_t node = 0;
    for (int level = 0; level < RT_BOOST_DEPTH; level++) {
        const size_t child = 2 * node + 1 + (features[tree->feature[node]] >= tree->threshold[node]);
        if (contributions)
            contributions[tree->feature[node]] += tree->value[child] - tree->value[node];
        node = child;
    }
    return tree->value[node];
}

typedef struct sums {
    double g, h;
} sums;

typedef struct fitter {
    const rt_boost_data *data;
    const rt_boost_options *options;
    uint8_t *codes;       /* [n_rows, n_features] */
    float (*edges)[BINS]; /* [n_features] bin b holds values in [edges[b - 1], edges[b]) */
    size_t *n_bins;       /* [n_features] */
    double *margin;       /* [n_rows] */
    sums *slopes;         /* [n_rows] */
    uint8_t *node;        /* [n_rows] place in the tree; 255: not drawn */
    sums *histogram;      /* [LEVEL_NODES, n_features, BINS] */
    bool *drawn;          /* [n_features] */
    uint8_t asked[256];   /* the drawn ones */
    size_t n_asked;
} fitter;

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static rt_status cut(fitter *f, rt_error *err)
{
    const rt_boost_data *d = f->data;
    float *values = calloc(d->n_rows + 1, sizeof *values);
    if (!values)
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to fit %zu rows", d->n_rows);
    for (size_t k = 0; k < d->n_features; k++) {
        size_t n = 0, bins = 0;
        for (size_t i = 0; i < d->n_rows; i++)
            if (d->weight[i] > 0)
                values[n++] = d->rows[i * d->n_features + k];
        qsort(values, n, sizeof *values, by_value);
        for (size_t b = 1; b < BINS && n; b++) { /* an edge lies between two different values */
            const size_t at = b * n / BINS;
            if (at > 0 && values[at] > values[0] && (bins == 0 || values[at] > f->edges[k][bins - 1]))
                f->edges[k][bins++] = values[at];
        }
        f->n_bins[k] = bins + 1;
        for (size_t i = 0; i < d->n_rows; i++) {
            const float x = d->rows[i * d->n_features + k];
            size_t b = 0;
            while (b < bins && x >= f->edges[k][b])
                b++;
            f->codes[i * d->n_features + k] = (uint8_t)b;
        }
    }
    free(values);
    return RT_OK;
}

static void slopes(fitter *f, size_t tree)
{
    const rt_boost_data *d = f->data;
    const uint64_t limit = (uint64_t)(f->options->rows_share * 4294967296.0);
    for (size_t i = 0; i < d->n_rows; i++) {
        f->node[i] = 255;
        if (d->weight[i] <= 0)
            continue;
        const double p = 1 / (1 + exp(-f->margin[i]));
        f->slopes[i] = (sums){d->weight[i] * (p - d->truth[i]), d->weight[i] * fmax(p * (1 - p), 1e-6)};
        if ((rt_guard_mix(d->group[i] + (tree << 32), f->options->seed) >> 32) < limit)
            f->node[i] = 0;
    }
    rt_rng rng = rt_rng_make(f->options->seed, tree);
    f->n_asked = 0;
    for (size_t k = 0; k < d->n_features; k++) {
        const bool asked = rt_rng_uniform(&rng) < f->options->features_share;
        f->drawn[k] = asked && d->direction[k] != 2 && f->n_bins[k] > 1;
        if (f->drawn[k])
            f->asked[f->n_asked++] = (uint8_t)k;
    }
}

static double best_value(const fitter *f, sums s, double low, double high)
{
    return fmin(high, fmax(low, -s.g / (s.h + f->options->ridge)));
}

/* What a leaf of this value takes from the loss, twice. */
static double gain_of(const fitter *f, sums s, double value)
{
    return -(2 * s.g * value + (s.h + f->options->ridge) * value * value);
}

typedef struct split {
    double gain, left, right;
    size_t feature, bin;
} split;

static split best_split(const fitter *f, const sums *histogram, sums all, double low, double high,
                        double value)
{
    split best = {.gain = 1e-9};
    const double base = gain_of(f, all, value), least = f->options->least_weight;
    for (size_t k = 0; k < f->data->n_features; k++) {
        sums left = {0, 0};
        for (size_t b = 0; f->drawn[k] && b + 1 < f->n_bins[k]; b++) {
            left.g += histogram[k * BINS + b].g;
            left.h += histogram[k * BINS + b].h;
            const sums right = {all.g - left.g, all.h - left.h};
            if (left.h < least || right.h < least)
                continue;
            const double l = best_value(f, left, low, high), r = best_value(f, right, low, high);
            const int direction = f->data->direction[k];
            if ((direction == 1 && l > r) || (direction == -1 && l < r))
                continue;
            const double gain = gain_of(f, left, l) + gain_of(f, right, r) - base;
            if (gain > best.gain)
                best = (split){gain, l, r, k, b};
        }
    }
    return best;
}

typedef struct range {
    double low, high;
} range;

static void one_tree(fitter *f, rt_boost_tree *tree)
{
    const rt_boost_data *d = f->data;
    const size_t K = d->n_features;
    double value[RT_BOOST_NODES] = {0};
    range bounds[RT_BOOST_NODES];
    for (size_t i = 0; i < RT_BOOST_NODES; i++)
        bounds[i] = (range){-4, 4};
    sums all = {0, 0};
    for (size_t i = 0; i < d->n_rows; i++)
        if (f->node[i] == 0) {
            all.g += f->slopes[i].g;
            all.h += f->slopes[i].h;
        }
    value[0] = best_value(f, all, -4, 4);
    for (size_t first = 0, count = 1; first < RT_BOOST_SPLITS; first = 2 * first + 1, count *= 2) {
        memset(f->histogram, 0, count * K * BINS * sizeof *f->histogram);
        sums total[LEVEL_NODES] = {{0, 0}};
        for (size_t i = 0; i < d->n_rows; i++) {
            if (f->node[i] == 255)
                continue;
            const size_t at = f->node[i] - first;
            sums *row = f->histogram + at * K * BINS;
            total[at].g += f->slopes[i].g;
            total[at].h += f->slopes[i].h;
            for (size_t j = 0; j < f->n_asked; j++) {
                const size_t k = f->asked[j];
                sums *cell = &row[k * BINS + f->codes[i * K + k]];
                cell->g += f->slopes[i].g;
                cell->h += f->slopes[i].h;
            }
        }
        for (size_t at = 0; at < count; at++) {
            const size_t node = first + at, left = 2 * node + 1, right = left + 1;
            const range b = bounds[node];
            const split s =
                best_split(f, f->histogram + at * K * BINS, total[at], b.low, b.high, value[node]);
            const bool worth = s.gain > 1e-7;
            tree->feature[node] = (uint8_t)s.feature;
            tree->threshold[node] = worth ? f->edges[s.feature][s.bin] : INFINITY;
            value[left] = worth ? s.left : value[node];
            value[right] = worth ? s.right : value[node];
            bounds[left] = bounds[right] = b;
            if (worth && d->direction[s.feature]) { /* what is below keeps to its side of the middle */
                const double middle = (s.left + s.right) / 2;
                if (d->direction[s.feature] == 1)
                    bounds[left].high = bounds[right].low = middle;
                else
                    bounds[left].low = bounds[right].high = middle;
            }
        }
        for (size_t i = 0; i < d->n_rows; i++)
            if (f->node[i] != 255) {
                const size_t node = f->node[i];
                const bool up = d->rows[i * K + tree->feature[node]] >= tree->threshold[node];
                f->node[i] = (uint8_t)(2 * node + 1 + up);
            }
    }
    for (size_t i = 0; i < RT_BOOST_NODES; i++)
        tree->value[i] = (float)(value[i] * f->options->rate);
}

rt_status rt_boost_fit(rt_boost_tree *trees, const rt_boost_data *data, const rt_boost_options *options,
                       rt_error *err)
{
    fitter f = {.data = data, .options = options};
    size_t cells;
    rt_status status = RT_OK;
    if (!rt_size_mul(data->n_rows, data->n_features, &cells))
        return rt_error_set(err, RT_NO_MEMORY, "guard: %zu rows are too many to fit", data->n_rows);
    f.codes = malloc(cells + 1);
    f.edges = calloc(data->n_features, sizeof *f.edges);
    f.n_bins = calloc(data->n_features, sizeof *f.n_bins);
    f.margin = calloc(data->n_rows + 1, sizeof *f.margin);
    f.slopes = calloc(data->n_rows + 1, sizeof *f.slopes);
    f.node = malloc(data->n_rows + 1);
    f.histogram = calloc((size_t)LEVEL_NODES * data->n_features * BINS, sizeof *f.histogram);
    f.drawn = calloc(data->n_features, sizeof *f.drawn);
    if (!f.codes || !f.edges || !f.n_bins || !f.margin || !f.slopes || !f.node || !f.histogram || !f.drawn)
        status = rt_error_set(err, RT_NO_MEMORY, "guard: no memory to fit %zu rows", data->n_rows);
    if (status == RT_OK)
        status = cut(&f, err);
    for (size_t i = 0; status == RT_OK && i < data->n_rows; i++)
        f.margin[i] = (double)data->start[i];
    for (size_t t = 0; status == RT_OK && t < options->trees; t++) {
        slopes(&f, t);
        one_tree(&f, &trees[t]);
        for (size_t i = 0; i < data->n_rows; i++)
            f.margin[i] += (double)rt_boost_value(&trees[t], data->rows + i * data->n_features, NULL);
    }
    free(f.codes);
    free(f.edges);
    free(f.n_bins);
    free(f.margin);
    free(f.slopes);
    free(f.node);
    free(f.histogram);
    free(f.drawn);
    return status;
}
