/* guard/train.c - see train.h.
 *
 * First the additive part, whose weights are in the table below and not fitted: what is evidence of
 * collecting by any account of the matter, also for kinds that the sample lacks.  Then trees on all checks of
 * all accounts (each account weighs one, each class one half), monotone where a direction is known, on top of
 * it. */
#include "guard/train.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "guard/sample.h"

typedef struct prior {
    const char *feature;
    float weight;        /* in the additive part, a scale from the benign median */
    int direction;       /* of the trees: 1 never falls, -1 never rises, 0 free */
    float centre, scale; /* of the additive part, where these are known before any traffic; scale 0: they are
                            the benign accounts' */
} prior;

/* Features that are not here are measured and shown, but not judged by: who the client is, when and how much.
 * Honest classifiers force two to four ids: eight and more begin to be a walk.  Prompts of honest use that
 * read like a collector's are few: where they are more than every tenth, each further sixth counts, however
 * the traffic at hand is spread, so that a matter which the sample has no collectors of is evidence too. */
static const prior priors[] = {
    {"repeat.distinct", 0, 1, 0, 0},
    {"repeat.near", 0, 0, 0, 0},
    {"repeat.continued", 0, -1, 0, 0},
    {"repeat.lower", 0, -1, 0, 0},
    {"template.share", 0, 0, 0, 0},
    {"template.top", 0, 0, 0, 0},
    {"template.variety", 0, 1, 0, 0},
    {"template.filler_types", 0, 1, 0, 0},
    {"template.long_top", 0, 0, 0, 0},
    {"breadth.types", 0.1F, 1, 0, 0},
    {"breadth.kinds", 0, 1, 0, 0},
    {"breadth.switches", 0, 1, 0, 0},
    {"breadth.tasks", 0, 0, 0, 0},
    {"breadth.questions", 0, 0, 0, 0},
    {"breadth.alike", 0, -1, 0, 0},
    {"breadth.vocabulary", 0, 0, 0, 0},
    {"breadth.length", 0, 0, 0, 0},
    {"breadth.mixed", 0.25F, 1, 0, 0},
    {"elicit.trace", 0.5F, 1, 0.1F, 0.15F},
    {"elicit.grade", 0.5F, 1, 0.1F, 0.15F},
    {"elicit.evolve", 0.5F, 1, 0.1F, 0.15F},
    {"elicit.agent", 0.5F, 1, 0.1F, 0.15F},
    {"elicit.wrapper", 0.1F, 1, 0, 0},
    {"elicit.any", 0.1F, 1, 0, 0},
    {"elicit.any_types", 0.25F, 1, 0, 0},
    {"elicit.count", 0.05F, 1, 0, 0},
    {"params.top_logprobs", 0.1F, 1, 0, 0},
    {"params.exposure", 0.2F, 1, 0, 0},
    {"params.bias_ids", 1.2F, 1, 2.2F, 0.7F},
    {"params.samples", 0.05F, 1, 0, 0},
    {"params.cold", 0, -1, 0, 0},
    {"volume.ratio", 0, 1, 0, 0},
    {"volume.out", 0, 1, 0, 0},
};
enum { N_PRIORS = sizeof priors / sizeof *priors };
static const float clip_low = -2, clip_high = 5;
static const double floor_quantile = 0.8; /* of benign scores: those under it tell nothing apart */

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

/* Is the feature of a signal that this fit may judge by? */
static bool is_asked(const rt_guard_fit *fit, int feature)
{
    for (size_t i = 0; i < fit->n_without; i++)
        if (!strcmp(rt_guard_feature_signal((size_t)feature)->name, fit->without[i]))
            return false;
    return true;
}

/* Fits `r` to the accounts with used[account] != 0. */
static rt_status fit_trees(rt_guard_reference *r, const rt_guard_sample *s, const uint8_t *used,
                           const rt_guard_fit *fit, rt_error *err)
{
    if (describe(r, s, used, err) != RT_OK)
        return err->status;
    int8_t direction[RT_GUARD_FEATURES];
    memset(direction, 2, sizeof direction);
    for (size_t k = 0; k < N_PRIORS; k++) {
        const int f = rt_guard_feature_find(priors[k].feature);
        assert(f >= 0);
        const bool asked = is_asked(fit, f);
        direction[f] = (int8_t)(asked ? priors[k].direction : 2);
        r->terms[f].weight = asked ? priors[k].weight : 0;
        if (priors[k].scale > 0) {
            r->terms[f].centre = priors[k].centre;
            r->terms[f].scale = priors[k].scale;
        }
        r->terms[f].low = clip_low;
        r->terms[f].high = clip_high;
    }
    float *rows = calloc(s->n_rows * RT_GUARD_FEATURES + 1, sizeof *rows),
          *start = calloc(s->n_rows + 1, sizeof *start);
    double *weight = calloc(s->n_rows + 1, sizeof *weight);
    uint8_t *truth = calloc(s->n_rows + 1, 1);
    uint32_t *group = calloc(s->n_rows + 1, sizeof *group);
    r->trees = calloc(fit->trees + 1, sizeof *r->trees);
    rt_status status = rows && start && weight && truth && group && r->trees
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to fit %zu rows", s->n_rows);
    double of[2] = {0, 0};
    r->bias = -1;
    for (size_t a = 0; a < s->n_accounts; a++)
        of[s->accounts[a].attacker] += used[a] != 0;
    for (size_t i = 0; status == RT_OK && i < s->n_rows; i++) {
        const rt_sample_account *a = &s->accounts[s->rows[i].account];
        memcpy(rows + i * RT_GUARD_FEATURES, s->rows[i].features, sizeof s->rows[i].features);
        start[i] = rt_guard_known_score(r, s->rows[i].features);
        weight[i] = used[s->rows[i].account] ? 0.5 / (of[a->attacker] * (double)a->count) : 0;
        truth[i] = a->attacker;
        group[i] = s->rows[i].account;
    }
    const rt_boost_data data = {rows, s->n_rows, RT_GUARD_FEATURES, truth, weight, start, group, direction};
    const rt_boost_options options = {.trees = fit->trees,
                                      .rate = 0.2,
                                      .ridge = fit->strength,
                                      .least_weight = 0.0008,
                                      .rows_share = 0.7,
                                      .features_share = 0.4,
                                      .seed = fit->seed};
    if (status == RT_OK)
        status = rt_boost_fit(r->trees, &data, &options, err);
    r->n_trees = fit->trees;
    free(rows);
    free(start);
    free(weight);
    free(truth);
    free(group);
    return status;
}

float rt_sample_largest_score(float *reached, const rt_guard_reference *r, const rt_guard_sample *s,
                              const rt_sample_account *a)
{
    float best = -1e9F, last = -1e9F;
    for (size_t i = a->first; i < a->first + a->count; i++) {
        const float score = rt_guard_score(r, s->rows[i].features);
        best = fmaxf(best, fminf(score, last));
        last = score;
        if (reached)
            reached[i] = best;
    }
    return best;
}

/* Each fitted account's largest score under weights fitted without its fold. */
static rt_status cross_fit(float *scores, float *reached, const rt_guard_sample *s, const rt_guard_fit *fit,
                           rt_error *err)
{
    uint8_t *used = calloc(s->n_accounts + 1, 1);
    rt_guard_reference *r = calloc(1, sizeof *r);
    rt_status status = used && r ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to fit");
    for (size_t fold = 0; status == RT_OK && fold < fit->folds; fold++) {
        for (size_t a = 0; a < s->n_accounts; a++)
            used[a] = !s->accounts[a].only_scored && s->accounts[a].group % fit->folds != fold;
        free(r->trees);
        memset(r, 0, sizeof *r);
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            r->terms[f].scale = 1;
        status = fit_trees(r, s, used, fit, err);
        for (size_t a = 0; status == RT_OK && a < s->n_accounts; a++)
            if (!s->accounts[a].only_scored && !used[a])
                scores[a] = rt_sample_largest_score(reached, r, s, &s->accounts[a]);
    }
    free(used);
    rt_guard_reference_close(r);
    return status;
}

static double found_at(const rt_guard_sample *s, const float *scores, double rate, float *scratch)
{
    size_t found = 0, all = 0, n = 0;
    for (size_t a = 0; a < s->n_accounts; a++)
        if (!s->accounts[a].attacker && !s->accounts[a].only_scored)
            scratch[n++] = scores[a];
    qsort(scratch, n, sizeof *scratch, by_value);
    const float limit = scratch[n - 1 - (size_t)(rate * (double)n)];
    for (size_t a = 0; a < s->n_accounts; a++)
        if (s->accounts[a].attacker && !s->accounts[a].only_scored) {
            all++;
            found += scores[a] > limit;
        }
    return all ? (double)found / (double)all : 0;
}

/* Benign scores of one use class (-1: of all), ascending. */
static size_t take_benign(float *out, const rt_guard_sample *s, const float *scores, int use_class)
{
    size_t n = 0;
    for (size_t a = 0; a < s->n_accounts; a++) {
        const rt_sample_account *account = &s->accounts[a];
        if (!account->attacker && !account->only_scored && (use_class < 0 || account->use_class == use_class))
            out[n++] = scores[a];
    }
    if (n)
        qsort(out, n, sizeof *out, by_value);
    return n;
}

/* Keeps `wanted` of ascending values so that a p-value of them means what it says: the largest has a share
 * 1 / (wanted + 1) of all over it, the next twice that, ... */
static size_t thin(float *values, size_t n, size_t wanted)
{
    if (wanted >= n)
        return n;
    for (size_t i = 0; i < wanted; i++)
        values[i] = values[(size_t)(((double)i + 1) * (double)n / ((double)wanted + 1))];
    return wanted;
}

/* The scores of all classes for one that has too few of its own, moved to where its own lie: what heavy
 * people score is not what all do, but the tail looks alike.  Under OWN_MIN its own say nothing of where they
 * lie. */
static size_t borrow(float *out, const rt_guard_sample *s, const float *scores, size_t n_own)
{
    enum { OWN_MIN = 20 };
    const float own = quantile(out, n_own, floor_quantile);
    const size_t n = take_benign(out, s, scores, -1);
    const float moved = n_own < OWN_MIN ? 0 : own - quantile(out, n, floor_quantile);
    for (size_t i = 0; i < n; i++)
        out[i] += moved;
    return n;
}

/* Keeps the benign accounts' scores in ascending order by use class, `wanted` of each (0: all).  A class that
 * has too few to support the rate borrows those of all classes. */
static rt_status keep_benign(rt_guard_reference *r, const rt_guard_sample *s, const float *scores,
                             size_t wanted, double alpha, rt_error *err)
{
    for (int k = 0; k < RT_GUARD_CLASSES; k++) {
        float *benign = r->benign[k] = calloc(s->n_accounts + 1, sizeof *r->benign[k]);
        if (s->n_accounts > RT_GUARD_CALIBRATION_MAX || !benign)
            return rt_error_set(err, RT_NO_MEMORY, "guard: %zu accounts are too many; %d are the most",
                                s->n_accounts, RT_GUARD_CALIBRATION_MAX);
        size_t n = take_benign(benign, s, scores, k);
        if ((double)n + 1 < 1 / alpha)
            n = borrow(benign, s, scores, n);
        r->n_benign[k] = n = wanted ? thin(benign, n, wanted) : n;
        r->floor[k] = quantile(benign, n, floor_quantile);
        for (size_t i = 0; i < n; i++)
            benign[i] = fmaxf(benign[i], r->floor[k]);
    }
    return RT_OK;
}

static void judge_corpora(rt_guard_fit_report *report, const rt_guard_reference *r, const rt_guard_sample *s,
                          const float *scores, float *scratch)
{
    report->corpora = s->n_corpora < RT_GUARD_CORPORA_MAX ? s->n_corpora : RT_GUARD_CORPORA_MAX;
    for (size_t c = 0; c < report->corpora; c++) {
        size_t n = 0, attackers = 0, found = 0, wrong = 0;
        for (size_t a = 0; a < s->n_accounts; a++) {
            const rt_sample_account *account = &s->accounts[a];
            if (account->corpus != c || account->unscored)
                continue;
            const float p = rt_guard_p(r, account->use_class, scores[a], rt_guard_lot(account->name));
            attackers += account->attacker;
            found += account->attacker && p < 0.01F;
            wrong += !account->attacker && p < 0.01F;
            if (!account->attacker)
                scratch[n++] = p;
        }
        qsort(scratch, n, sizeof *scratch, by_value);
        double worst = 0;
        for (size_t i = 0; i < n; i++)
            worst = fmax(worst, fmax(fabs((double)scratch[i] - (double)i / (double)n),
                                     fabs((double)(i + 1) / (double)n - (double)scratch[i])));
        report->corpus_found[c] = attackers ? (double)found / (double)attackers : 0;
        report->corpus_false[c] = n ? (double)wrong / (double)n : 0;
        report->corpus_ks[c] = worst;
    }
}

/* Who takes part: corpora past the first so many and a kind that is left out are only scored; attackers that
 * an experiment hides among the benign are taken for benign, one after the other in an order by name. */
static void assign(rt_guard_sample *s, const rt_guard_fit *fit)
{
    size_t benign = 0, hidden = 0;
    for (size_t a = 0; a < s->n_accounts; a++) {
        rt_sample_account *account = &s->accounts[a];
        account->only_scored = (fit->fit_corpora && account->corpus >= fit->fit_corpora) ||
                               (fit->left_out && account->attacker && !strcmp(account->kind, fit->left_out));
        benign += !account->attacker && !account->only_scored;
    }
    const uint64_t wanted = (uint64_t)(fit->poison * (double)benign);
    for (uint64_t step = 0; hidden < wanted && step < 16; step++)
        for (size_t a = 0; hidden < wanted && a < s->n_accounts; a++) {
            rt_sample_account *account = &s->accounts[a];
            if (account->only_scored || !account->attacker ||
                rt_guard_mix(account->group + a, fit->seed) % 16 != step)
                continue;
            account->attacker = false;
            account->unscored = true;
            hidden++;
        }
}

static void tell(const rt_guard_reference *r, const rt_guard_sample *s, const float *scores,
                 const float *reached, const rt_guard_fit *fit)
{
    for (size_t a = 0; fit->on_scored && a < s->n_accounts; a++) {
        const rt_sample_account *account = &s->accounts[a];
        const size_t end = account->first + account->count;
        const double lot = rt_guard_lot(account->name);
        size_t i = account->first;
        const bool person = account->use_class != rt_guard_use_class_of(false, 0);
        while (i < end &&
               rt_guard_p(r, rt_guard_use_class_of(person, s->rows[i].requests), reached[i], lot) >= 0.01F)
            i++;
        const rt_guard_scored scored = {.name = account->name,
                                        .kind = account->kind,
                                        .corpus = account->corpus,
                                        .attacker = account->attacker,
                                        .score = scores[a],
                                        .p = rt_guard_p(r, account->use_class, scores[a], lot),
                                        .flagged_at = i < end ? s->rows[i].requests : 0,
                                        .features = s->rows[end - 1].features};
        if (!account->unscored)
            fit->on_scored(fit->context, &scored);
    }
}

static rt_status train(rt_guard_reference **out, const rt_guard_sample *sample, const rt_guard_fit *fit,
                       rt_guard_fit_report *report, rt_error *err)
{
    size_t benign = 0, attackers = 0;
    for (size_t a = 0; a < sample->n_accounts; a++)
        if (!sample->accounts[a].only_scored)
            *(sample->accounts[a].attacker ? &attackers : &benign) += 1;
    *report = (rt_guard_fit_report){.benign = benign, .attackers = attackers};
    if (benign < 100 || attackers < 20 || fit->folds < 2 || fit->trees < 1 || fit->trees > RT_BOOST_TREES_MAX)
        return rt_error_set(err, RT_INVALID,
                            "guard: the sample has %zu benign and %zu attacking accounts; 100 and 20 are "
                            "needed, two folds and 1 to %d trees",
                            benign, attackers, RT_BOOST_TREES_MAX);
    if (fit->reference_accounts && fit->reference_accounts < 99)
        return rt_error_set(err, RT_INVALID,
                            "guard: %zu benign scores cannot support a p-value of 1%%; keep 99 or more",
                            fit->reference_accounts);
    rt_guard_reference *r = calloc(1, sizeof *r);
    float *scores = calloc(sample->n_accounts, sizeof *scores),
          *scratch = calloc(sample->n_accounts, sizeof *scratch),
          *reached = calloc(sample->n_rows + 1, sizeof *reached);
    uint8_t *used = malloc(sample->n_accounts);
    rt_status status = r && scores && scratch && reached && used
                           ? cross_fit(scores, reached, sample, fit, err)
                           : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to train");
    for (size_t f = 0; status == RT_OK && f < RT_GUARD_FEATURES; f++)
        r->terms[f].scale = 1;
    for (size_t a = 0; status == RT_OK && a < sample->n_accounts; a++)
        used[a] = !sample->accounts[a].only_scored;
    if (status == RT_OK)
        status = fit_trees(r, sample, used, fit, err);
    if (status == RT_OK)
        status = keep_benign(r, sample, scores, fit->reference_accounts, 0.01, err);
    if (status == RT_OK) {
        report->found_half = found_at(sample, scores, 0.005, scratch);
        report->found_one = found_at(sample, scores, 0.01, scratch);
        report->found_two = found_at(sample, scores, 0.02, scratch);
        for (size_t a = 0; a < sample->n_accounts; a++)
            if (sample->accounts[a].only_scored)
                scores[a] = rt_sample_largest_score(reached, r, sample, &sample->accounts[a]);
        judge_corpora(report, r, sample, scores, scratch);
        tell(r, sample, scores, reached, fit);
        *out = r;
    } else
        rt_guard_reference_close(r);
    free(scores);
    free(scratch);
    free(reached);
    free(used);
    return status;
}

rt_status rt_guard_train(rt_guard_reference **out, const rt_guard_sample *original, const rt_guard_fit *fit,
                         rt_guard_fit_report *report, rt_error *err)
{
    *out = NULL;
    rt_guard_sample copy = *original;
    copy.accounts = malloc((original->n_accounts + 1) * sizeof *copy.accounts);
    if (!copy.accounts)
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to train");
    memcpy(copy.accounts, original->accounts, original->n_accounts * sizeof *copy.accounts);
    assign(&copy, fit);
    const rt_status status = train(out, &copy, fit, report, err);
    free(copy.accounts);
    return status;
}

rt_status rt_guard_calibrate(rt_guard_reference **out, const rt_guard_reference *weights,
                             const rt_guard_sample *sample, double alpha, rt_error *err)
{
    size_t n = 0;
    for (size_t a = 0; a < sample->n_accounts; a++)
        n += !sample->accounts[a].attacker && !sample->accounts[a].only_scored;
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
        memset(r->benign, 0, sizeof r->benign);
        memset(r->n_benign, 0, sizeof r->n_benign);
        r->trees = malloc((weights->n_trees + 1) * sizeof *r->trees);
        if (!r->trees)
            status = rt_error_set(err, RT_NO_MEMORY, "guard: no memory to calibrate");
        else
            memcpy(r->trees, weights->trees, weights->n_trees * sizeof *r->trees);
    }
    if (status == RT_OK) {
        for (size_t a = 0; a < sample->n_accounts; a++) {
            used[a] = !sample->accounts[a].only_scored;
            scores[a] = rt_sample_largest_score(NULL, weights, sample, &sample->accounts[a]);
        }
        status = describe(shape, sample, used, err);
    }
    if (status == RT_OK) { /* centre and scale belong to the weights; what is benign today, to the sample */
        for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
            memcpy(r->terms[f].quantiles, shape->terms[f].quantiles, sizeof r->terms[f].quantiles);
        status = keep_benign(r, sample, scores, 0, alpha, err);
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
