/* judge/vectors_judging.c - cases of the judge: metrics, bootstrap, speculative decoding, row sums. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "judge/bootstrap.h"
#include "judge/metrics.h"
#include "judge/vectors_case.h"
#include "student/loss.h"
#include "tensor/row.h"

enum { DOCS_MAX = 100000 };

typedef struct evalset {
    size_t tokens, n_vocab, n_docs, n_resamples;
    float *z, *zt;
    vec_array y, doc;
    rt_metrics_sum *docs; /* [n_docs] */
    double *num, *den;    /* [n_docs] of the forward KL */
    uint32_t *resamples;
    void *work;
} evalset;

/* Integers of a tensor checked to lie in [0, limit). */
static rt_status check_range(vec_run *run, const vec_array *a, size_t limit, const char *what, rt_error *err)
{
    for (size_t i = 0; i < a->n; i++)
        if (!(a->x[i] >= 0 && a->x[i] < (double)limit))
            return vec_bad(run, err, "%s %zu is out of range", what, i);
    return RT_OK;
}

static rt_status load_resamples(vec_run *run, evalset *e, rt_error *err)
{
    vec_array r;
    if (vec_tensor(run, "in", "resample", &r, err) != RT_OK ||
        check_range(run, &r, e->n_docs, "resampled document", err) != RT_OK ||
        vec_room(run, &e->resamples, r.n, sizeof *e->resamples, err) != RT_OK)
        return err->status;
    if (r.n_dims != 2 || r.shape[1] != e->n_docs || r.shape[0] == 0)
        return vec_bad(run, err, "in.resample is not [resamples, %zu]", e->n_docs);
    e->n_resamples = r.shape[0];
    for (size_t i = 0; i < r.n; i++)
        e->resamples[i] = (uint32_t)r.x[i];
    return RT_OK;
}

static rt_status load_evalset(vec_run *run, evalset *e, rt_error *err)
{
    vec_array z, zt;
    unsigned char *work;
    *e = (evalset){0};
    if (vec_tensor(run, "in", "z", &z, err) != RT_OK || vec_floats(run, &z, &e->z, err) != RT_OK ||
        vec_tensor_sized(run, "in", "zt", z.n, &zt, err) != RT_OK ||
        vec_floats(run, &zt, &e->zt, err) != RT_OK)
        return err->status;
    if (z.n_dims != 2 || z.n == 0)
        return vec_bad(run, err, "in.z is not [tokens, n_vocab]");
    e->tokens = z.shape[0];
    e->n_vocab = z.shape[1];
    if (vec_tensor_sized(run, "in", "y", e->tokens, &e->y, err) != RT_OK ||
        check_range(run, &e->y, e->n_vocab, "label", err) != RT_OK ||
        vec_tensor_sized(run, "in", "doc", e->tokens, &e->doc, err) != RT_OK ||
        check_range(run, &e->doc, DOCS_MAX, "document", err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < e->tokens; i++)
        e->n_docs = (size_t)e->doc.x[i] + 1 > e->n_docs ? (size_t)e->doc.x[i] + 1 : e->n_docs;
    if (vec_room(run, &e->docs, e->n_docs, sizeof *e->docs, err) != RT_OK ||
        vec_room(run, &e->num, e->n_docs, sizeof(double), err) != RT_OK ||
        vec_room(run, &e->den, e->n_docs, sizeof(double), err) != RT_OK ||
        vec_room(run, &work, rt_loss_work_bytes(e->n_vocab), 1, err) != RT_OK)
        return err->status;
    e->work = work;
    return load_resamples(run, e, err);
}

static rt_status check_figures(vec_run *run, const rt_metrics_sum *sum, rt_error *err)
{
    static const struct {
        const char *role;
        rt_metrics_figure figure;
    } figures[] = {{"kl_qp", rt_metrics_kl_forward},
                   {"kl_pq", rt_metrics_kl_reverse},
                   {"tvd", rt_metrics_tvd},
                   {"accept_rate", rt_metrics_acceptance},
                   {"top1_agree", rt_metrics_top1_agree},
                   {"ppl", rt_metrics_perplexity},
                   {"ece", rt_metrics_ece}};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        double ref;
        if (vec_number(run, "out", figures[i].role, &ref, err) != RT_OK)
            return err->status;
        vec_check(run, figures[i].figure(sum), ref, vec_tol_loss);
    }
    return RT_OK;
}

static rt_status check_bootstrap(vec_run *run, const evalset *e, rt_error *err)
{
    vec_array boot;
    double *ratios, lo, hi;
    if (vec_tensor_sized(run, "out", "boot_kl", e->n_resamples, &boot, err) != RT_OK ||
        vec_number(run, "out", "boot_kl_lo", &lo, err) != RT_OK ||
        vec_number(run, "out", "boot_kl_hi", &hi, err) != RT_OK ||
        vec_room(run, &ratios, e->n_resamples, sizeof *ratios, err) != RT_OK)
        return err->status;
    rt_bootstrap_ratios(ratios, e->num, e->den, e->n_docs, e->resamples, e->n_resamples);
    for (size_t i = 0; i < boot.n; i++)
        vec_check(run, ratios[i], boot.x[i], vec_tol_loss);
    const rt_interval interval =
        rt_bootstrap_figure(rt_metrics_kl_forward, e->docs, e->n_docs, e->resamples, e->n_resamples, ratios);
    vec_check(run, interval.lo, lo, vec_tol_loss);
    vec_check(run, interval.hi, hi, vec_tol_loss);
    return RT_OK;
}

static rt_status evaluation(vec_run *run, bool *covered, rt_error *err)
{
    evalset e;
    *covered = vec_param(run, "ece_bins", RT_ECE_BINS) == RT_ECE_BINS;
    if (!*covered)
        return RT_OK;
    if (load_evalset(run, &e, err) != RT_OK)
        return err->status;
    rt_metrics_sum all = {0};
    for (size_t t = 0; t < e.tokens; t++) {
        rt_token_metrics token;
        rt_metrics_row(&token, e.z + t * e.n_vocab, e.zt + t * e.n_vocab, (size_t)e.y.x[t], e.n_vocab,
                       e.work);
        rt_metrics_add_token(&e.docs[(size_t)e.doc.x[t]], &token);
    }
    for (size_t d = 0; d < e.n_docs; d++) {
        rt_metrics_add(&all, &e.docs[d]);
        e.num[d] = e.docs[d].kl_forward;
        e.den[d] = e.docs[d].tokens;
    }
    if (check_figures(run, &all, err) != RT_OK)
        return err->status;
    return check_bootstrap(run, &e, err);
}

/* out: alpha, and tokens_per_round_g<drafts> for any number of drafts */
static rt_status speculative(vec_run *run, rt_error *err)
{
    static const char prefix[] = "tokens_per_round_g";
    const char *role;
    json_t *unused;
    double alpha, ref;
    if (vec_number(run, "out", "alpha", &alpha, err) != RT_OK)
        return err->status;
    json_object_foreach(json_object_get(run->entry, "out"), role, unused)
    {
        if (strncmp(role, prefix, sizeof prefix - 1) != 0)
            continue;
        const unsigned long drafts = strtoul(role + sizeof prefix - 1, NULL, 10);
        if (vec_number(run, "out", role, &ref, err) != RT_OK)
            return err->status;
        if (drafts > 100000)
            return vec_bad(run, err, "out.%.40s: too many drafts", role);
        vec_check(run, rt_tokens_per_round(alpha, (unsigned)drafts), ref, vec_tol_double);
    }
    return RT_OK;
}

typedef struct row_facts {
    double max_s, lse_s, max_t, lse_t, sum_q_diff, sum_p_diff, entropy_t, entropy_s;
} row_facts;

/* Entropy of softmax(x/tau): a teacher whose logits are all 0 makes sx the mean of x - max. */
static double entropy(const float *x, const float *zeros, size_t n, float max, float inv_tau)
{
    rt_row_sums sums;
    rt_row_ops_get()->sums(x, zeros, n, max, 0.0f, inv_tau, &sums);
    return log(sums.s) - sums.sx / sums.s;
}

static row_facts facts_of(const float *z, const float *zt, const float *zeros, size_t n, double tau)
{
    const rt_row_ops *ops = rt_row_ops_get();
    const float inv_tau = (float)(1 / tau);
    float max_s, max_t;
    size_t unused;
    rt_row_sums s;
    ops->argmax(z, n, &max_s, &unused);
    ops->argmax(zt, n, &max_t, &unused);
    ops->sums(z, zt, n, max_s, max_t, inv_tau, &s);
    const double ms = (double)max_s / tau, mt = (double)max_t / tau;
    return (row_facts){.max_s = ms,
                       .lse_s = ms + log(s.s),
                       .max_t = mt,
                       .lse_t = mt + log(s.t),
                       .sum_q_diff = s.ty / s.t + mt - ms,
                       .sum_p_diff = s.sx / s.s + ms - mt,
                       .entropy_t = entropy(zt, zeros, n, max_t, inv_tau),
                       .entropy_s = entropy(z, zeros, n, max_s, inv_tau)};
}

static rt_status row_stats(vec_run *run, rt_error *err)
{
    static const char *const roles[] = {"max_s",      "lse_s",      "max_t",     "lse_t",
                                        "sum_q_diff", "sum_p_diff", "entropy_t", "entropy_s"};
    enum { ROLES = sizeof roles / sizeof *roles };
    vec_array z, zt, refs[ROLES];
    float *zf, *ztf, *zeros;
    const double tau = vec_param(run, "tau", 1);
    if (vec_tensor(run, "in", "z", &z, err) != RT_OK ||
        vec_tensor_sized(run, "in", "zt", z.n, &zt, err) != RT_OK || vec_floats(run, &z, &zf, err) != RT_OK ||
        vec_floats(run, &zt, &ztf, err) != RT_OK)
        return err->status;
    if (z.n_dims != 2 || z.n == 0 || !(tau >= 1e-4 && tau <= 1e4))
        return vec_bad(run, err, "in.z is not [tokens, n_vocab], or tau is out of range");
    const size_t n = z.shape[1];
    if (vec_room(run, &zeros, n, sizeof *zeros, err) != RT_OK)
        return err->status;
    for (size_t k = 0; k < ROLES; k++)
        if (vec_tensor_sized(run, "out", roles[k], z.shape[0], &refs[k], err) != RT_OK)
            return err->status;
    for (size_t t = 0; t < z.shape[0]; t++) {
        const row_facts f = facts_of(zf + t * n, ztf + t * n, zeros, n, tau);
        const double got[ROLES] = {f.max_s,      f.lse_s,      f.max_t,     f.lse_t,
                                   f.sum_q_diff, f.sum_p_diff, f.entropy_t, f.entropy_s};
        for (size_t k = 0; k < ROLES; k++)
            vec_check(run, got[k], refs[k].x[t], vec_tol_loss);
    }
    return RT_OK;
}

rt_status vec_judging(vec_run *run, bool *covered, rt_error *err)
{
    if (strcmp(run->loss, "eval") == 0)
        return evaluation(run, covered, err);
    if (strcmp(run->loss, "spec") == 0)
        return speculative(run, err);
    return row_stats(run, err);
}
