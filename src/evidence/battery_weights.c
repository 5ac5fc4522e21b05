/* evidence/battery_weights.c - tests on weights and states: do two models come from one initialisation?
 * (METHODS-evidence 5.6, 5.7; battery.h)
 *
 * States are those after each layer on the same random token ids, in segments of SEGMENT tokens: both models
 * must read the same ids. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "evidence/battery.h"
#include "evidence/combine.h"
#include "evidence/matrix.h"
#include "evidence/rank.h"
#include "evidence/tails.h"
#include "model/config.h"
#include "model/decoder.h"
#include "tensor/quant.h"

enum { INPUTS = 512, SEGMENT = 32, WIDE = 1024 };

static rt_status layer_weights(double **out, size_t *rows, size_t *cols, const rt_weights *weights,
                               const rt_model_config *config, size_t layer, rt_role role, rt_error *err)
{
    rt_canonical up;
    *out = NULL;
    if (rt_canonical_layer(&up, weights, config, layer, role, err) != RT_OK)
        return err->status;
    size_t count;
    float *f = rt_size_mul(up.rows, up.cols, &count) ? malloc((count + 1) * sizeof *f) : NULL;
    double *d = f ? malloc((count + 1) * sizeof *d) : NULL;
    rt_status status = RT_OK;
    if (!d)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for the weights of layer %zu", layer);
    else
        rt_dequantise(f, up.data, up.dtype, count);
    for (size_t i = 0; status == RT_OK && i < count; i++)
        d[i] = (double)f[i];
    free(f);
    free(up.owned);
    *rows = up.rows;
    *cols = up.cols;
    if (status == RT_OK)
        *out = d;
    else
        free(d);
    return status;
}

/* The same random rows of both sides are matched: their order is the statistic. */
static rt_status layer_p(double *log10_p, const double *a, const double *b, size_t rows, size_t cols,
                         size_t most, rt_rng *rng, rt_error *err)
{
    const size_t n = rt_size_min(rows, most);
    size_t *chosen = malloc((rows + n + 2) * sizeof *chosen), *column = chosen ? chosen + rows : NULL;
    double *x = malloc((2 * n * cols + n * n + 1) * sizeof *x);
    rt_status status =
        chosen && x ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to match %zu rows", n);
    if (status == RT_OK) {
        for (size_t i = 0; i < rows; i++)
            chosen[i] = i;
        for (size_t i = 0; i < n; i++) {
            const size_t j = i + rt_rng_below(rng, rows - i), kept = chosen[i];
            chosen[i] = chosen[j];
            chosen[j] = kept;
        }
        for (size_t i = 0; i < n; i++) {
            memcpy(x + i * cols, a + chosen[i] * cols, cols * sizeof *x);
            memcpy(x + (n + i) * cols, b + chosen[i] * cols, cols * sizeof *x);
        }
        double *cosines = x + 2 * n * cols;
        rt_spearman s;
        rt_row_cosines(cosines, x, n, x + n * cols, n, cols);
        status = rt_assign(column, cosines, n, n, err);
        if (status == RT_OK)
            status = rt_identity_test(&s, column, n, err);
        if (status == RT_OK)
            *log10_p = s.log10_two_sided;
    }
    free(chosen);
    free(x);
    return status;
}

rt_status rt_battery_weights(rt_result *out, const rt_weights *suspect, const rt_weights *model, size_t rows,
                             uint64_t seed, rt_error *err)
{
    rt_model_config a, b;
    *out = (rt_result){.test = RT_TEST_WEIGHTS};
    if (rt_model_config_read(&a, suspect, err) != RT_OK || rt_model_config_read(&b, model, err) != RT_OK)
        return err->status;
    const size_t layers = rt_size_min(a.n_layers, b.n_layers);
    double *p = calloc(layers + 1, sizeof *p);
    rt_rng rng = rt_rng_make(seed, 0x3E16);
    rt_status status = p ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu layers", layers);
    for (size_t l = 0; status == RT_OK && l < layers; l++) {
        double *x = NULL, *y = NULL;
        size_t rows_x = 0, rows_y = 0, cols_x = 0, cols_y = 0;
        status = layer_weights(&x, &rows_x, &cols_x, suspect, &a, l, RT_ROLE_UP, err);
        if (status == RT_OK)
            status = layer_weights(&y, &rows_y, &cols_y, model, &b, l, RT_ROLE_UP, err);
        if (status == RT_OK && (rows_x != rows_y || cols_x != cols_y))
            status =
                rt_error_set(err, RT_UNSUPPORTED,
                             "the identity test needs equal widths: layer %zu is %zu by %zu and %zu by %zu",
                             l, rows_x, cols_x, rows_y, cols_y);
        if (status == RT_OK)
            status = layer_p(&p[l], x, y, rows_x, cols_x, rows, &rng, err);
        free(x);
        free(y);
    }
    if (status == RT_OK) {
        out->n = layers;
        out->statistic = rt_fisher_statistic(p, layers);
        out->log10_p = rt_fisher(p, layers);
        out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
        if (a.n_layers != b.n_layers)
            out->note = "different depths: layers are compared one to one from the first on";
    }
    free(p);
    return status;
}

/* ---- states ---- */

typedef struct states { /* of one model: after the embedding and after each layer but the last [INPUTS,
                           n_embd] */
    size_t n_embd, n_layers;
    float *x;    /* [n_layers, INPUTS, n_embd] */
    float *last; /* final normed [INPUTS, n_embd] */
} states;

static void states_free(states *s)
{
    free(s->x);
    free(s->last);
}

static void tap(void *context, size_t layer, const float *x, size_t n_tokens)
{
    states *s = context;
    if (layer < s->n_layers && s->x)
        memcpy(s->x + layer * INPUTS * s->n_embd, x, n_tokens * s->n_embd * sizeof *x);
}

static rt_status states_of(states *s, const rt_model *model, const int32_t *ids, bool layers, rt_error *err)
{
    const rt_model_config *c = &model->config;
    rt_pass *pass = NULL;
    size_t count;
    *s = (states){.n_embd = c->n_embd, .n_layers = c->n_layers};
    if (!rt_size_mul(c->n_layers * INPUTS, c->n_embd * sizeof(float), &count))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for states");
    s->x = layers ? malloc(count) : NULL;
    s->last = malloc((size_t)INPUTS * c->n_embd * sizeof(float));
    if ((layers && !s->x) || !s->last)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for states");
    if (rt_pass_open(&pass, model, INPUTS, false, err) != RT_OK)
        return err->status;
    rt_segment segments[INPUTS / SEGMENT];
    for (size_t i = 0; i < INPUTS / SEGMENT; i++)
        segments[i] = (rt_segment){.begin = i * SEGMENT, .count = SEGMENT};
    const rt_batch batch = {ids, INPUTS, segments, INPUTS / SEGMENT};
    rt_forward(model, pass, &batch, tap, s);
    memcpy(s->last, rt_pass_hidden(pass), (size_t)INPUTS * c->n_embd * sizeof(float));
    rt_pass_close(pass);
    return RT_OK;
}

/* The same ids for both: below the smaller vocabulary. */
static void random_ids(int32_t ids[INPUTS], const rt_model *a, const rt_model *b, uint64_t seed)
{
    rt_rng rng = rt_rng_make(seed, 0x1D5);
    const size_t n = rt_size_min(a->config.n_vocab, b->config.n_vocab);
    for (size_t i = 0; i < INPUTS; i++)
        ids[i] = (int32_t)rt_rng_below(&rng, n);
}

/* Activations of some units on the states before a layer, normed to root mean square 1, each unit's centred
 * and of length 1: z [units, INPUTS], so that products are correlations. */
static rt_status unit_activations(double **out, size_t *units, const states *s, const rt_weights *weights,
                                  const rt_model_config *config, size_t layer, rt_role role,
                                  const size_t *chosen, size_t n_chosen, rt_error *err)
{
    double *w = NULL;
    size_t rows, cols;
    *out = NULL;
    if (layer_weights(&w, &rows, &cols, weights, config, layer, role, err) != RT_OK)
        return err->status;
    *units = chosen ? n_chosen : rows;
    size_t count;
    double *z = rt_size_mul(*units, INPUTS * sizeof *z, &count) ? malloc(count + sizeof *z) : NULL,
           *x = malloc((size_t)INPUTS * cols * sizeof *x);
    rt_status status = z && x ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for activations");
    for (size_t i = 0; status == RT_OK && i < INPUTS; i++) {
        const float *row = s->x + (layer * INPUTS + i) * cols;
        double squares = 0;
        for (size_t k = 0; k < cols; k++)
            squares += (double)row[k] * (double)row[k];
        const double scale = squares > 0 ? 1 / sqrt(squares / (double)cols) : 0;
        for (size_t k = 0; k < cols; k++)
            x[i * cols + k] = scale * (double)row[k];
    }
    for (size_t u = 0; status == RT_OK && u < *units; u++) {
        const double *unit = w + (chosen ? chosen[u] : u) * cols;
        double mean = 0, squares = 0;
        for (size_t i = 0; i < INPUTS; i++) {
            double a = 0;
            for (size_t k = 0; k < cols; k++)
                a += unit[k] * x[i * cols + k];
            if (role == RT_ROLE_GATE)
                a = a / (1 + exp(-a)); /* what passes the gate */
            z[u * INPUTS + i] = a;
            mean += a / INPUTS;
        }
        for (size_t i = 0; i < INPUTS; i++) {
            z[u * INPUTS + i] -= mean;
            squares += z[u * INPUTS + i] * z[u * INPUTS + i];
        }
        for (size_t i = 0; i < INPUTS; i++)
            z[u * INPUTS + i] *= squares > 0 ? 1 / sqrt(squares) : 0;
    }
    free(w);
    free(x);
    if (status == RT_OK)
        *out = z;
    else
        free(z);
    return status;
}

/* The best partner among the model's units for each of the suspect's. */
static rt_status partners(size_t *column, const double *a, size_t n, const double *b, size_t m, rt_error *err)
{
    double *gain = malloc((n * m + 1) * sizeof *gain);
    if (!gain)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to match %zu units", n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) {
            double sum = 0;
            for (size_t k = 0; k < INPUTS; k++)
                sum += a[i * INPUTS + k] * b[j * INPUTS + k];
            gain[i * m + j] = sum;
        }
    const rt_status status = rt_assign(column, gain, n, m, err);
    free(gain);
    return status;
}

typedef struct layer_units {
    double *gate, *up;
    size_t n;
} layer_units;

static rt_status units_of(layer_units *out, const states *s, const rt_weights *weights,
                          const rt_model_config *config, size_t layer, const size_t *chosen, size_t n,
                          rt_error *err)
{
    if (unit_activations(&out->gate, &out->n, s, weights, config, layer, RT_ROLE_GATE, chosen, n, err) !=
        RT_OK)
        return err->status;
    return unit_activations(&out->up, &out->n, s, weights, config, layer, RT_ROLE_UP, chosen, n, err);
}

static void choose(size_t *chosen, size_t n, size_t of, rt_rng *rng)
{
    size_t taken = 0;
    for (size_t i = 0; i < of && taken < n; i++) /* in order: Knuth's selection */
        if (rt_rng_below(rng, of - i) < n - taken)
            chosen[taken++] = i;
}

rt_status rt_battery_match(rt_result *out, const rt_model *suspect, const rt_weights *suspect_weights,
                           const rt_model *model, const rt_weights *weights, size_t rows, uint64_t seed,
                           rt_error *err)
{
    const rt_model_config *a = &suspect->config, *b = &model->config;
    int32_t ids[INPUTS];
    states sa = {0}, sb = {0};
    *out = (rt_result){.test = RT_TEST_MATCH};
    if (!a->gated_mlp || !b->gated_mlp)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "the match test needs gated layers, and one of the models has none");
    const size_t n = rt_size_min(rt_size_min(rows, a->n_ff), b->n_ff);
    rt_rng rng = rt_rng_make(seed, 0x3A7C4);
    random_ids(ids, suspect, model, seed);
    size_t *chosen = malloc((3 * n + 1) * sizeof *chosen), best_layer[2] = {0};
    layer_units *theirs = calloc(b->n_layers + 1, sizeof *theirs);
    double least = 0;
    rt_status status =
        chosen && theirs ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to match %zu units", n);
    if (status == RT_OK)
        status = states_of(&sa, suspect, ids, true, err);
    if (status == RT_OK)
        status = states_of(&sb, model, ids, true, err);
    for (size_t m = 0; status == RT_OK && m < b->n_layers; m++)
        status = units_of(&theirs[m], &sb, weights, b, m, NULL, 0, err);
    for (size_t l = 0; status == RT_OK && l < a->n_layers; l++) {
        layer_units mine = {0};
        choose(chosen, n, a->n_ff, &rng);
        status = units_of(&mine, &sa, suspect_weights, a, l, chosen, n, err);
        for (size_t m = 0; status == RT_OK && m < b->n_layers; m++) {
            rt_spearman s;
            status = partners(chosen + n, mine.gate, n, theirs[m].gate, theirs[m].n, err);
            if (status == RT_OK)
                status = partners(chosen + 2 * n, mine.up, n, theirs[m].up, theirs[m].n, err);
            if (status == RT_OK)
                status = rt_match_test(&s, chosen + n, chosen + 2 * n, n, err);
            if (status == RT_OK && s.log10_greater < least) {
                least = s.log10_greater;
                out->statistic = s.rho;
                best_layer[0] = l;
                best_layer[1] = m;
            }
        }
        free(mine.gate);
        free(mine.up);
    }
    for (size_t m = 0; theirs && m < b->n_layers; m++) {
        free(theirs[m].gate);
        free(theirs[m].up);
    }
    free(theirs);
    free(chosen);
    states_free(&sa);
    states_free(&sb);
    if (status != RT_OK)
        return status;
    out->n = a->n_layers * b->n_layers;
    out->log10_p = fmin(0, least + log10((double)out->n)); /* Bonferroni over all pairs of layers */
    out->z = rt_normal_upper_quantile(fmin(out->log10_p, -1e-16));
    out->more = json_pack("{s:I,s:I,s:I}", "layer", (json_int_t)best_layer[0], "model_layer",
                          (json_int_t)best_layer[1], "units", (json_int_t)n);
    out->note = "calibrated empirically: not exactly uniform under the null";
    return RT_OK;
}

rt_status rt_battery_similarity(rt_result *out, const rt_model *suspect, const rt_model *model, uint64_t seed,
                                rt_error *err)
{
    int32_t ids[INPUTS];
    states s[2] = {{0}, {0}};
    double *x[2] = {NULL, NULL}, cka = 0, procrustes = 0;
    const rt_model *both[2] = {suspect, model};
    *out = (rt_result){.test = RT_TEST_SIMILARITY, .n = INPUTS, .descriptive = true};
    random_ids(ids, suspect, model, seed);
    rt_status status = RT_OK;
    for (size_t i = 0; status == RT_OK && i < 2; i++) {
        status = states_of(&s[i], both[i], ids, false, err);
        const size_t count = (size_t)INPUTS * s[i].n_embd;
        if (status == RT_OK && !(x[i] = malloc(count * sizeof *x[i])))
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for states");
        for (size_t k = 0; status == RT_OK && k < count; k++)
            x[i][k] = (double)s[i].last[k];
    }
    const bool narrow = s[0].n_embd <= WIDE && s[1].n_embd <= WIDE;
    if (status == RT_OK)
        status = rt_linear_cka(&cka, x[0], s[0].n_embd, x[1], s[1].n_embd, INPUTS, err);
    if (status == RT_OK && narrow)
        status = rt_procrustes(&procrustes, x[0], s[0].n_embd, x[1], s[1].n_embd, INPUTS, err);
    if (status == RT_OK) {
        out->statistic = cka;
        out->more =
            json_pack("{s:f,s:o}", "cka", cka, "procrustes", narrow ? json_real(procrustes) : json_null());
        out->note =
            "descriptive: high similarity is normal between any two good models; compare with controls";
    }
    for (size_t i = 0; i < 2; i++) {
        states_free(&s[i]);
        free(x[i]);
    }
    return status;
}

/* ---- the hidden dimension ---- */

/* One row: ln P of the chosen ids after a random prompt.  A place of a server lists what it lists: the ids
 * must be among them. */
static rt_status ln_p_row(double *out, rt_subject *s, const int32_t *chosen, size_t n, const int32_t *prompt,
                          size_t length, rt_error *err)
{
    const rt_token_list none = {0};
    float *rows;
    size_t first, n_rows;
    const size_t vocab = s->model->config.n_vocab;
    if (rt_subject_logits(s, &none, prompt, length, &rows, &first, &n_rows, err) != RT_OK)
        return err->status;
    if (n_rows == 0)
        return rt_error_set(err, RT_INVALID, "the model gives no logits");
    const float *row = rows + (n_rows - 1) * vocab;
    double most = -HUGE_VAL, sum = 0;
    for (size_t v = 0; v < vocab; v++)
        most = fmax(most, (double)row[v]);
    for (size_t v = 0; v < vocab; v++)
        sum += exp((double)row[v] - most);
    for (size_t j = 0; j < n; j++)
        out[j] = (double)row[chosen[j]] - most - log(sum);
    return RT_OK;
}

/* The same of a server, whose lists are short: each id is the last of a text of its own. */
static rt_status asked_row(double *out, rt_subject *s, const int32_t *chosen, size_t n, const int32_t *prompt,
                           rt_error *err)
{
    const rt_token_list none = {0};
    int32_t ids[RT_DIMENSION_ASKED];
    memcpy(ids, prompt, (RT_DIMENSION_ASKED - 1) * sizeof *ids);
    for (size_t j = 0; j < n; j++) {
        const rt_scored *scored;
        ids[RT_DIMENSION_ASKED - 1] = chosen[j];
        if (rt_subject_scores(s, &none, ids, RT_DIMENSION_ASKED, &scored, err) != RT_OK)
            return err->status;
        out[j] = scored ? (double)scored->own[RT_DIMENSION_ASKED - 1] : 0;
        if (!isfinite(out[j]))
            return rt_error_set(
                err, RT_UNSUPPORTED,
                "%.200s: gave no log-probability of token %d, which is not among those that it lists: "
                "the dimension test needs a server that says each given token's own",
                s->name, ids[RT_DIMENSION_ASKED - 1]);
    }
    return RT_OK;
}

rt_status rt_battery_dimension(rt_result *out, rt_subject *s, size_t columns, uint64_t seed, rt_error *err)
{
    enum { PROMPT = 8, SKIP = 32 };
    *out = (rt_result){.test = RT_TEST_DIMENSION, .descriptive = true};
    if (!s->model && !s->endpoint)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "the dimension test needs log-probabilities of chosen tokens: a model file, or a server "
            "that scores given text");
    const bool dry = !s->model && rt_endpoint_dry(s->endpoint);
    const size_t vocab = s->model ? s->model->config.n_vocab : rt_tokenizer_real_size(s->tokenizer),
                 n = rt_size_min(columns, vocab);
    size_t count;
    double *a = rt_size_mul(n, n * sizeof *a, &count) ? malloc(count + sizeof *a) : NULL,
           *sigma = malloc((n + 1) * sizeof *sigma);
    int32_t *chosen = malloc((vocab + 1) * sizeof *chosen), prompt[PROMPT];
    rt_rng rng = rt_rng_make(seed, 0xD13);
    rt_status status =
        a && sigma && chosen ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", n);
    for (size_t i = 0; status == RT_OK && i < vocab; i++) {
        const size_t j = rt_rng_below(&rng, i + 1);
        chosen[i] = chosen[j];
        chosen[j] = (int32_t)i;
    }
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        for (size_t k = 0; k < PROMPT; k++)
            prompt[k] = (int32_t)rt_rng_below(&rng, vocab);
        status = s->model ? ln_p_row(a + i * n, s, chosen, n, prompt, PROMPT, err)
                          : asked_row(a + i * n, s, chosen, n, prompt, err);
    }
    if (status == RT_OK && !dry) {
        rt_centre_rows(a, n, n);
        status = rt_singular_values(sigma, a, n, n, err);
    }
    if (status == RT_OK && !dry) {
        const rt_hidden_dim d = rt_hidden_dimension(sigma, n - 1, SKIP); /* centring takes the last */
        out->n = n;
        out->statistic = (double)d.dim;
        out->more = json_pack("{s:o,s:f}", "dimension", d.dim ? json_integer((json_int_t)d.dim) : json_null(),
                              "ratio", isfinite(d.ratio) ? d.ratio : 1e300);
        out->note =
            d.dim ? "the width of the layer before the output: it tells whether the suspect is as wide as T"
                  : "not determined: no gap of 10 between singular values (more columns, or rounded numbers)";
    }
    free(a);
    free(sigma);
    free(chosen);
    return status;
}
