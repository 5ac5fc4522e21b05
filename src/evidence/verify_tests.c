/* evidence/verify_tests.c - tails, combination, rank tests, MMD and weights against reference vectors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "evidence/combine.h"
#include "evidence/matrix.h"
#include "evidence/mmd.h"
#include "evidence/rank.h"
#include "evidence/saddle.h"
#include "evidence/tails.h"
#include "evidence/verify_case.h"

static rt_status binomials(ev_run *run, const json_t *list, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        size_t n, k;
        double p, ref;
        ev_entry(run, "binomial", i);
        if (ev_get_size(run, e, "n", &n, err) != RT_OK || ev_get_size(run, e, "k", &k, err) != RT_OK ||
            ev_get_real(run, e, "p", &p, err) != RT_OK || ev_get_real(run, e, "log10_sf", &ref, err) != RT_OK)
            return err->status;
        ev_log10(run, "log10_sf", rt_log10_binomial(n, k, p), ref);
    }
    return RT_OK;
}

/* Tails of two numbers: of gamma (n, S), chi-square (df, x); of one: normal (z). */
static rt_status reals(ev_run *run, const json_t *list, const char *kind, const char *first,
                       const char *second, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        double a = 0, x, ref;
        ev_entry(run, kind, i);
        if ((first && ev_get_real(run, e, first, &a, err) != RT_OK) ||
            ev_get_real(run, e, second, &x, err) != RT_OK ||
            ev_get_real(run, e, "log10_sf", &ref, err) != RT_OK)
            return err->status;
        if (first && a == 0)
            ev_log10(run, "log10_sf", 0, ref); /* of nothing */
        else
            ev_log10(run, "log10_sf",
                     !first                      ? rt_log10_normal(x)
                     : strcmp(kind, "chi2") == 0 ? rt_log10_chi2(x, a)
                                                 : rt_log10_gamma(a, x),
                     ref);
    }
    return RT_OK;
}

static rt_status intervals(ev_run *run, const json_t *list, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        size_t n, k;
        double conf, lo, hi;
        ev_entry(run, "clopper_pearson", i);
        if (ev_get_size(run, e, "n", &n, err) != RT_OK || ev_get_size(run, e, "k", &k, err) != RT_OK ||
            ev_get_real(run, e, "conf", &conf, err) != RT_OK ||
            ev_get_real(run, e, "lo", &lo, err) != RT_OK || ev_get_real(run, e, "hi", &hi, err) != RT_OK)
            return err->status;
        const rt_range range = rt_clopper_pearson(k, n, conf);
        ev_real(run, "lo", range.lo, lo);
        ev_real(run, "hi", range.hi, hi);
    }
    return RT_OK;
}

static rt_status coins(ev_run *run, const json_t *list, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        size_t n, layers;
        double s, p, z, w[64];
        ev_entry(run, "weighted_coins", i);
        if (ev_get_size(run, e, "n", &n, err) != RT_OK ||
            ev_get_size(run, e, "layers", &layers, err) != RT_OK ||
            ev_get_real(run, e, "S", &s, err) != RT_OK ||
            ev_get_real(run, e, "log10_p_lr", &p, err) != RT_OK || ev_get_real(run, e, "z", &z, err) != RT_OK)
            return err->status;
        if (layers < 1 || layers > 64)
            return ev_bad(run, err, "%zu layers are not 1..64", layers);
        const char *weights = json_string_value(json_object_get(e, "weights"));
        double squares = 0, sum = 0;
        rt_synthid_weights(w, layers);
        for (size_t l = 0; l < layers; l++) {
            if (weights && strcmp(weights, "1") == 0)
                w[l] = 1;
            sum += w[l];
            squares += w[l] * w[l];
        }
        ev_saddle(run, "log10_p_lr", rt_log10_weighted_coins(w, layers, n, s), p);
        ev_within(run, "z", (s - (double)n * sum / 2) / sqrt((double)n * squares / 4), z, 1, 1e-9);
    }
    return RT_OK;
}

rt_status ev_tails(ev_run *run, const json_t *root, rt_error *err)
{
    if (binomials(run, json_object_get(root, "binomial"), err) != RT_OK ||
        reals(run, json_object_get(root, "gamma"), "gamma", "n", "S", err) != RT_OK ||
        reals(run, json_object_get(root, "normal"), "normal", NULL, "z", err) != RT_OK ||
        reals(run, json_object_get(root, "chi2"), "chi2", "df", "x", err) != RT_OK ||
        intervals(run, json_object_get(root, "clopper_pearson"), err) != RT_OK)
        return err->status;
    return coins(run, json_object_get(root, "weighted_coins"), err);
}

/* Compares probabilities: 10^log10 against p. */
static void power(ev_run *run, const char *what, double log10_x, double ref)
{
    ev_real(run, what, pow(10, log10_x), ref);
}

static rt_status combined_lists(ev_run *run, const json_t *e, const double *lp, size_t m, rt_error *err)
{
    double *bh, *holm, *e_values, *out;
    size_t n[3];
    if (ev_get_reals(run, e, "bh_q", &bh, &n[0], err) != RT_OK ||
        ev_get_reals(run, e, "holm_p", &holm, &n[1], err) != RT_OK ||
        ev_get_reals(run, e, "evalues_half", &e_values, &n[2], err) != RT_OK ||
        ev_room(run, &out, m, sizeof *out, err) != RT_OK)
        return err->status;
    if (n[0] != m || n[1] != m || n[2] != m)
        return ev_bad(run, err, "a list has not %zu values", m);
    rt_benjamini_hochberg(lp, m, out);
    for (size_t i = 0; i < m; i++)
        power(run, "bh_q", out[i], bh[i]);
    rt_holm(lp, m, out);
    for (size_t i = 0; i < m; i++)
        power(run, "holm_p", out[i], holm[i]);
    for (size_t i = 0; i < m; i++)
        power(run, "evalues_half", rt_e_value(lp[i]), e_values[i]);
    return RT_OK;
}

static rt_status combined(ev_run *run, const json_t *e, rt_error *err)
{
    static const struct {
        const char *key;
        double (*log10_of)(const double *log10_p, size_t m);
        bool is_log10; /* the vector too */
    } figures[] = {{"fisher_log10p", rt_fisher, true},
                   {"cauchy_log10p", rt_cauchy, true},
                   {"harmonic_mean", rt_harmonic_mean, false},
                   {"hmp_bound", rt_harmonic_bound, false},
                   {"bonferroni", rt_bonferroni, false},
                   {"simes", rt_simes, false},
                   {"e_mean", rt_e_mean, false},
                   {"e_product", rt_e_product, false}};
    double *lp, ref;
    size_t m;
    if (ev_get_reals(run, e, "p", &lp, &m, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < m; i++) {
        if (!(lp[i] > 0 && lp[i] <= 1))
            return ev_bad(run, err, "p %zu is not in (0, 1]", i);
        lp[i] = log10(lp[i]);
    }
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        if (ev_get_real(run, e, figures[i].key, &ref, err) != RT_OK)
            return err->status;
        const double x = figures[i].log10_of(lp, m);
        if (figures[i].is_log10)
            ev_log10(run, figures[i].key, x, ref);
        else
            power(run, figures[i].key, x, ref);
    }
    if (ev_get_real(run, e, "fisher_stat", &ref, err) != RT_OK)
        return err->status;
    ev_real(run, "fisher_stat", rt_fisher_statistic(lp, m), ref);
    if (ev_get_real(run, e, "cauchy_T", &ref, err) != RT_OK)
        return err->status;
    ev_within(run, "cauchy_T", rt_cauchy_statistic(lp, m), ref, 1, 1e-9);
    if (ev_get_real(run, e, "stouffer_p", &ref, err) != RT_OK)
        return err->status;
    power(run, "stouffer_p", rt_stouffer(lp, NULL, m), ref);
    if (ev_get_real(run, e, "p_from_e_mean", &ref, err) != RT_OK)
        return err->status;
    power(run, "p_from_e_mean", rt_p_of_e(rt_e_mean(lp, m)), ref);
    return combined_lists(run, e, lp, m, err);
}

rt_status ev_combine(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases"), *ks = json_object_get(root, "ks_uniform");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        ev_entry(run, "case", i);
        if (combined(run, json_array_get(cases, i), err) != RT_OK)
            return err->status;
    }
    for (size_t i = 0; i < json_array_size(ks); i++) {
        const json_t *e = json_array_get(ks, i);
        double *x, d, p;
        size_t n;
        ev_entry(run, "ks_uniform", i);
        if (ev_get_reals(run, e, "x", &x, &n, err) != RT_OK || ev_get_real(run, e, "D", &d, err) != RT_OK ||
            ev_get_real(run, e, "p_exact", &p, err) != RT_OK)
            return err->status;
        ev_real(run, "D", rt_ks_statistic(x, n), d);
        ev_real(run, "p_exact", rt_ks_p(rt_ks_statistic(x, n), n), p);
    }
    return RT_OK;
}

/* A p-value of a rank correlation.  Near a perfect order 1 - rho^2 is rounding error, and so is the p that a
 * reference took from it: there the formula is compared at the reference's own rho. */
static void rho_p(ev_run *run, const char *what, const rt_spearman *x, double rho_ref, size_t n, double p_ref,
                  bool less)
{
    const rt_spearman at_ref = rt_spearman_of(rho_ref, n);
    const rt_spearman *s = 1 - fabs(rho_ref) < 1e-9 ? &at_ref : x;
    if (fabs(rho_ref) == 1 && p_ref == 0)
        ev_exact(run, what, s->log10_two_sided < -10); /* ours is the permutation's, never 0 */
    else
        power(run, what, less ? s->log10_less : s->log10_two_sided, p_ref);
}

static rt_status spearmans(ev_run *run, const json_t *list, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        rt_spearman s;
        double rho, p;
        size_t n, n_y;
        ev_entry(run, "spearman", i);
        if (ev_get_real(run, e, "rho", &rho, err) != RT_OK ||
            ev_get_real(run, e, "p_two_sided", &p, err) != RT_OK)
            return err->status;
        if (json_object_get(e, "x")) {
            double *x, *y;
            if (ev_get_reals(run, e, "x", &x, &n, err) != RT_OK ||
                ev_get_reals(run, e, "y", &y, &n_y, err) != RT_OK)
                return err->status;
            if (n != n_y)
                return ev_bad(run, err, "x has %zu values and y %zu", n, n_y);
            if (rt_spearman_test(&s, x, y, n, err) != RT_OK)
                return err->status;
            ev_within(run, "rho", s.rho, rho, 1e-3, 1e-9);
        } else {
            if (ev_get_size(run, e, "n", &n, err) != RT_OK)
                return err->status;
            s = rt_spearman_of(rho, n);
        }
        rho_p(run, "p_two_sided", &s, rho, n, p, false);
        if (json_object_get(e, "p_one_sided_less")) {
            if (ev_get_real(run, e, "p_one_sided_less", &p, err) != RT_OK)
                return err->status;
            rho_p(run, "p_one_sided_less", &s, rho, n, p, true);
        }
    }
    return RT_OK;
}

static rt_status sign_flips(ev_run *run, const json_t *list, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        double *d, mean, p, t, p_t;
        size_t n;
        ev_entry(run, "sign_flip", i);
        if (ev_get_reals(run, e, "d", &d, &n, err) != RT_OK ||
            ev_get_real(run, e, "mean", &mean, err) != RT_OK ||
            ev_get_real(run, e, "exact_p_greater", &p, err) != RT_OK ||
            ev_get_real(run, e, "t", &t, err) != RT_OK ||
            ev_get_real(run, e, "t_p_greater", &p_t, err) != RT_OK)
            return err->status;
        const rt_sign_flip flip = rt_sign_flip_test(d, n, 99999, 0);
        ev_within(run, "mean", flip.mean, mean, 1e-3, 1e-9);
        ev_within(run, "t", flip.t, t, 1e-3, 1e-9);
        power(run, "t_p_greater", flip.log10_p_t, p_t);
        if (flip.flips == 0) /* else drawn: within 5 standard deviations */
            power(run, "exact_p_greater", flip.log10_p, p);
        else
            ev_within(run, "exact_p_greater", pow(10, flip.log10_p), p, 1,
                      5 * sqrt(p * (1 - p) / 1e5) + 2e-5);
    }
    return RT_OK;
}

static rt_status canaries(ev_run *run, const json_t *ranks, const json_t *hits, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        const json_t *e = json_array_get(ranks, i);
        double *r, *bits, *each, candidates, ref, fisher;
        size_t n, n_bits, n_each;
        ev_entry(run, "canary_ranks", i);
        if (ev_get_reals(run, e, "ranks", &r, &n, err) != RT_OK ||
            ev_get_reals(run, e, "exposure_bits", &bits, &n_bits, err) != RT_OK ||
            ev_get_reals(run, e, "each_p", &each, &n_each, err) != RT_OK ||
            ev_get_real(run, e, "candidates", &candidates, err) != RT_OK ||
            ev_get_real(run, e, "fisher_log10p", &ref, err) != RT_OK ||
            rt_canary_fisher(&fisher, r, n, candidates, err) != RT_OK)
            return err->status;
        for (size_t j = 0; j < n && n == n_bits && n == n_each; j++) {
            ev_within(run, "exposure_bits", rt_exposure_bits(r[j], candidates), bits[j], 1e-3, 1e-9);
            ev_real(run, "each_p", r[j] / candidates, each[j]);
        }
        ev_exact(run, "lists of one length", n == n_bits && n == n_each);
        ev_log10(run, "fisher_log10p", fisher, ref);
    }
    for (size_t i = 0; i < json_array_size(hits); i++) {
        const json_t *e = json_array_get(hits, i);
        size_t k, n;
        double p0, ref;
        ev_entry(run, "canary_hits", i);
        if (ev_get_size(run, e, "k", &k, err) != RT_OK || ev_get_size(run, e, "n", &n, err) != RT_OK ||
            ev_get_real(run, e, "p0", &p0, err) != RT_OK ||
            ev_get_real(run, e, "log10_p", &ref, err) != RT_OK)
            return err->status;
        ev_log10(run, "log10_p", rt_log10_binomial(n, k, p0), ref);
    }
    return RT_OK;
}

rt_status ev_rank_tests(ev_run *run, const json_t *root, rt_error *err)
{
    if (spearmans(run, json_object_get(root, "spearman"), err) != RT_OK ||
        sign_flips(run, json_object_get(root, "sign_flip"), err) != RT_OK)
        return err->status;
    return canaries(run, json_object_get(root, "canary_ranks"), json_object_get(root, "canary_hits"), err);
}

static rt_status kernel_case(ev_run *run, const rt_completions *c, const json_t *e, rt_kernel kernel,
                             const char *name, rt_error *err)
{
    enum { DRAWS = 19999 };
    const json_t *want = json_object_get(e, name);
    double mmd2, p, count;
    rt_mmd got;
    if (!want)
        return RT_OK;
    if (ev_get_real(run, want, "mmd2", &mmd2, err) != RT_OK ||
        rt_mmd_test(&got, c, kernel, json_object_get(want, "exact_p") ? 20000000 : 0, DRAWS, 1, err) != RT_OK)
        return err->status;
    char what[64];
    (void)snprintf(what, sizeof what, "%s mmd2", name);
    ev_within(run, what, got.mmd2, mmd2, 1e-3, 1e-9);
    (void)snprintf(what, sizeof what, "%s p", name);
    if (json_object_get(want, "exact_p")) {
        if (ev_get_real(run, want, "exact_p", &p, err) != RT_OK ||
            ev_get_real(run, want, "exact_stratified_permutations", &count, err) != RT_OK)
            return err->status;
        ev_exact(run, "permutations", got.permutations == count);
        ev_real(run, what, got.p, p);
    } else {
        if (ev_get_real(run, want, "mc_p_2000", &p, err) != RT_OK)
            return err->status;
        ev_within(run, what, got.p, p, 1, 3 * sqrt(got.p * (1 - got.p) * (1.0 / 2000 + 1.0 / DRAWS)) + 1e-3);
    }
    return RT_OK;
}

rt_status ev_mmd(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *e = json_array_get(cases, i);
        int32_t *prompts, *ids, *units;
        double *tokens;
        uint8_t *labels;
        size_t n, n_labels, rows, length;
        ev_entry(run, "case", i);
        if (ev_get_ids(run, e, "prompts", &prompts, &n, err) != RT_OK ||
            ev_get_ids(run, e, "labels", &ids, &n_labels, err) != RT_OK ||
            ev_get_matrix(run, e, "tokens", &tokens, &rows, &length, err) != RT_OK ||
            ev_room(run, &units, rows * length, sizeof *units, err) != RT_OK ||
            ev_room(run, &labels, rows, 1, err) != RT_OK)
            return err->status;
        if (n != rows || n_labels != rows)
            return ev_bad(run, err, "prompts, labels and tokens have different lengths");
        for (size_t j = 0; j < rows * length; j++)
            units[j] = (int32_t)tokens[j];
        for (size_t j = 0; j < rows; j++)
            labels[j] = ids[j] != 0;
        const rt_completions c = {units, rows, length, prompts, labels};
        if (kernel_case(run, &c, e, RT_KERNEL_HAMMING, "hamming", err) != RT_OK ||
            kernel_case(run, &c, e, RT_KERNEL_SPECTRUM, "kspectrum5_cumulative", err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status assigned(ev_run *run, const json_t *e, const char *a_key, const char *b_key,
                          const char *want_key, size_t **out, size_t *n, rt_error *err)
{
    double *a, *b, *cosines;
    int32_t *want;
    size_t d, d_b, n_b, n_want;
    if (ev_get_matrix(run, e, a_key, &a, n, &d, err) != RT_OK ||
        ev_get_matrix(run, e, b_key, &b, &n_b, &d_b, err) != RT_OK ||
        ev_get_ids(run, e, want_key, &want, &n_want, err) != RT_OK)
        return err->status;
    if (d != d_b || n_want != *n)
        return ev_bad(run, err, "%s, %s and %s do not fit", a_key, b_key, want_key);
    if (ev_room(run, &cosines, *n * n_b, sizeof *cosines, err) != RT_OK ||
        ev_room(run, out, *n, sizeof **out, err) != RT_OK)
        return err->status;
    rt_row_cosines(cosines, a, *n, b, n_b, d);
    if (rt_assign(*out, cosines, *n, n_b, err) != RT_OK)
        return err->status;
    bool equal = true;
    for (size_t i = 0; i < *n; i++)
        equal &= (*out)[i] == (size_t)want[i];
    ev_exact(run, want_key, equal);
    return RT_OK;
}

static rt_status correlation(ev_run *run, const json_t *e, const char *key, const rt_spearman *s, size_t n,
                             rt_error *err)
{
    const json_t *want = json_object_get(e, key);
    double rho, p;
    if (ev_get_real(run, want, "rho", &rho, err) != RT_OK || ev_get_real(run, want, "p", &p, err) != RT_OK)
        return err->status;
    ev_within(run, key, s->rho, rho, 1e-3, 1e-9);
    rho_p(run, key, s, rho, n, p, false);
    return RT_OK;
}

static rt_status weight_case(ev_run *run, const json_t *e, rt_error *err)
{
    size_t *up, *gate, n, n_gate, d, rows;
    double *a, *b, cka, procrustes, x;
    rt_spearman s;
    if (assigned(run, e, "up_a", "up_b", "assignment_up", &up, &n, err) != RT_OK ||
        assigned(run, e, "gate_a", "gate_b", "assignment_gate", &gate, &n_gate, err) != RT_OK)
        return err->status;
    if (n != n_gate)
        return ev_bad(run, err, "up and gate have different numbers of rows");
    if (rt_identity_test(&s, up, n, err) != RT_OK ||
        correlation(run, e, "identity_test", &s, n, err) != RT_OK ||
        rt_match_test(&s, gate, up, n, err) != RT_OK ||
        correlation(run, e, "match_test", &s, n, err) != RT_OK ||
        ev_get_matrix(run, e, "up_a", &a, &rows, &d, err) != RT_OK ||
        ev_get_matrix(run, e, "up_b", &b, &rows, &d, err) != RT_OK ||
        ev_get_real(run, e, "linear_cka", &cka, err) != RT_OK ||
        ev_get_real(run, e, "procrustes_disparity", &procrustes, err) != RT_OK)
        return err->status;
    if (rows != n)
        return RT_OK; /* a rectangular case has no pairs of rows to compare */
    if (rt_linear_cka(&x, a, d, b, d, n, err) != RT_OK)
        return err->status;
    ev_real(run, "linear_cka", x, cka);
    if (rt_procrustes(&x, a, d, b, d, n, err) != RT_OK)
        return err->status;
    ev_real(run, "procrustes_disparity", x, procrustes);
    return RT_OK;
}

/* Values far below the largest are the rounding of the input: they are compared relative to 1e-5 of it. */
static rt_status values(ev_run *run, const json_t *e, const char *key, const double *a, size_t n, size_t m,
                        rt_error *err)
{
    double *want, *got;
    size_t n_want;
    if (ev_get_reals(run, e, key, &want, &n_want, err) != RT_OK ||
        ev_room(run, &got, n < m ? n : m, sizeof *got, err) != RT_OK ||
        rt_singular_values(got, a, n, m, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n_want && i < n && i < m; i++)
        ev_within(run, key, got[i], want[i], 1e-5 * want[0], 1e-9);
    return RT_OK;
}

rt_status ev_weights(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases"), *hidden = json_object_get(root, "hidden_dim");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        ev_entry(run, "case", i);
        if (weight_case(run, json_array_get(cases, i), err) != RT_OK)
            return err->status;
    }
    if (!hidden)
        return RT_OK;
    double *a, *sigma;
    size_t n, m, dim;
    ev_entry(run, "hidden_dim", 0);
    if (ev_get_matrix(run, hidden, "logprobs", &a, &n, &m, err) != RT_OK ||
        ev_get_size(run, hidden, "true_dim", &dim, err) != RT_OK ||
        ev_room(run, &sigma, n + m, sizeof *sigma, err) != RT_OK ||
        values(run, hidden, "singular_values_raw_first10", a, n, m, err) != RT_OK)
        return err->status;
    rt_centre_rows(a, n, m);
    if (values(run, hidden, "singular_values_row_centred_first10", a, n, m, err) != RT_OK ||
        rt_singular_values(sigma, a, n, m, err) != RT_OK)
        return err->status;
    const size_t count = n < m ? n : m; /* centred rows lose one dimension, rounding fills it */
    ev_exact(run, "true_dim", rt_hidden_dimension(sigma, count - (count == m), 0).dim == dim);
    return RT_OK;
}
