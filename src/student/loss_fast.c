/* student/loss_fast.c - mixtures of CE, FKL, RKL and JSD, and TAID in place, at the speed of the cache.
 *
 * METHODS 16: each side's maximum, then one pass for the sums at each temperature (both KLs come from
 * it), one more for JSD's centre, then the gradient in blocks of RT_ROW_BLOCK ids that stay in the
 * first-level cache while every temperature's part is added and the sum rounded to bf16. */
#include <math.h>
#include <string.h>

#include "student/loss_internal.h"
#include "tensor/row.h"

typedef struct row { /* the token at hand */
    const rt_row_ops *ops;
    const float *z, *zt;
    size_t label, n;
    float max_s, max_t;
    float label_s, label_t; /* the label's logits */
} row;

typedef struct heat { /* what is known of it at one temperature */
    double tau;
    double log_s, log_t; /* log of the sums; lse = max/tau + log_s */
    double fkl, rkl;
} heat;

typedef struct group { /* terms that share a pass of the gradient */
    double tau, beta;
    double ce, smooth, fkl, rkl, jsd, z_lse; /* coefficients; z_lse: sum of 2 c lse */
    double jsd_centre;                       /* KL(p||m) */
} group;

static bool heat_from_sums(heat *out, const row *r, double tau, const rt_row_sums *sums)
{
    *out = (heat){.tau = tau, .log_s = log(sums->s), .fkl = (double)NAN, .rkl = (double)NAN};
    if (!r->zt)
        return isfinite(sums->s) && isfinite(r->max_s);
    if (!isfinite(sums->s + sums->t + sums->sx + sums->ty))
        return false;
    out->log_t = log(sums->t);
    const double fkl = sums->ty / sums->t - out->log_t + out->log_s;
    const double rkl = sums->sx / sums->s - out->log_s + out->log_t;
    out->fkl = fkl > 0 ? fkl : 0; /* rounding may leave -1e-8 */
    out->rkl = rkl > 0 ? rkl : 0;
    return true;
}

static bool heat_make(heat *out, const row *r, double tau)
{
    rt_row_sums sums;
    r->ops->sums(r->z, r->zt, r->n, r->max_s, r->max_t, (float)(1 / tau), &sums);
    return heat_from_sums(out, r, tau, &sums);
}

static double log_prob(float x, float max, double tau, double log_sum)
{
    return ((double)x - (double)max) / tau - log_sum;
}

static double mean_log_prob(const row *r, const heat *h) /* of all ids, for label smoothing */
{
    enum { LANES = 8 };
    double sum[LANES] = {0}, all = 0;
    size_t i = 0;
    for (; i + LANES <= r->n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            sum[k] += (double)(r->z[i + k] - r->max_s);
    for (; i < r->n; i++)
        all += (double)(r->z[i] - r->max_s);
    for (size_t k = 0; k < LANES; k++)
        all += sum[k];
    return all / (double)r->n / h->tau - h->log_s;
}

static double ce_term(const row *r, const rt_loss_spec *spec, const heat *h, double factor, group *g)
{
    const double e = spec->label_smoothing, lse = (double)r->max_s / h->tau + h->log_s;
    double loss = -(1 - e) * log_prob(r->label_s, r->max_s, h->tau, h->log_s) + spec->z_loss * lse * lse;
    if (e != 0)
        loss -= e * mean_log_prob(r, h);
    g->ce += factor;
    g->smooth += factor * e;
    g->z_lse += factor * 2 * spec->z_loss * lse;
    return loss;
}

static rt_row_grad pass_of(const row *r, const heat *h, double beta)
{
    return (rt_row_grad){.student = {r->max_s, (float)h->log_s},
                         .teacher = {r->max_t, (float)h->log_t},
                         .inv_tau = (float)(1 / h->tau),
                         .beta = (float)beta};
}

/* JSD_b for 0 < b < 1 and the centre of its gradient, KL(p||m). */
static double jsd_loss(const row *r, const heat *h, double beta, double *centre)
{
    const rt_row_grad pass = pass_of(r, h, beta);
    rt_row_jsd sums;
    r->ops->jsd(r->z, r->zt, r->n, &pass, &sums);
    *centre = sums.s_sum;
    const double loss = beta * sums.t_sum + (1 - beta) * sums.s_sum;
    return loss > 0 ? loss : 0;
}

/* Adds a term to its group and returns its loss. */
static double add_term(const row *r, const rt_loss_spec *spec, const heat *h, double factor, group *g)
{
    switch (spec->kind) {
    case RT_LOSS_CE:
        return ce_term(r, spec, h, factor, g);
    case RT_LOSS_FKL:
    case RT_LOSS_TAID: /* its teacher is the mixture by now */
        g->fkl += factor;
        return h->fkl;
    case RT_LOSS_RKL:
        g->rkl += factor;
        return h->rkl;
    default:
        break;
    }
    if (spec->beta == 0) {
        g->fkl += factor;
        return h->fkl;
    }
    if (spec->beta == 1) {
        g->rkl += factor;
        return h->rkl;
    }
    const double norm = spec->kind == RT_LOSS_JSD_NORM ? 1 / (spec->beta * (1 - spec->beta)) : 1;
    g->jsd += factor * norm * (1 - spec->beta);
    return norm * jsd_loss(r, h, spec->beta, &g->jsd_centre);
}

static bool has_beta(const rt_loss_spec *spec)
{
    return spec->kind >= RT_LOSS_JSD && spec->beta > 0 && spec->beta < 1;
}

/* The pass of a group: sums rounded to float are set right through the coefficients. */
static rt_row_grad group_pass(const row *r, const heat *h, const group *g, double scale)
{
    rt_row_grad pass = pass_of(r, h, g->beta);
    const double f = scale / h->tau;
    const double fix_s = exp((double)pass.student.log_sum - h->log_s);
    const double fix_t = exp((double)pass.teacher.log_sum - h->log_t);
    pass.a = (float)(f * fix_s * (g->ce + g->fkl + g->z_lse));
    pass.b = (float)(f * fix_t * g->fkl);
    pass.c = (float)(f * g->smooth / (double)r->n);
    pass.r = (float)(f * fix_s * g->rkl);
    pass.rkl = (float)h->rkl;
    pass.j = (float)(f * fix_s * g->jsd);
    pass.jsd_centre = (float)g->jsd_centre;
    return pass;
}

typedef struct output {
    float *f32;
    rt_bf16 *bf16;
    double label_grad; /* what the labels take off, all groups */
} output;

static void write_gradient(const row *r, const rt_row_grad *passes, size_t n_passes, const output *out)
{
    float block[RT_ROW_BLOCK];
    for (size_t i = 0; i < r->n; i += RT_ROW_BLOCK) {
        const size_t count = r->n - i < RT_ROW_BLOCK ? r->n - i : RT_ROW_BLOCK;
        for (size_t k = 0; k < n_passes; k++)
            r->ops->grad(block, r->z + i, r->zt ? r->zt + i : NULL, count, &passes[k], k > 0);
        if (r->label >= i && r->label < i + count)
            block[r->label - i] -= (float)out->label_grad;
        if (out->f32)
            memcpy(out->f32 + i, block, count * sizeof *block);
        if (out->bf16)
            r->ops->to_bf16(out->bf16 + i, block, count);
    }
}

/* Finds the group for a term, or starts one. */
static size_t group_for(group *groups, heat *heats, size_t *count, const row *r, const rt_loss_spec *spec,
                        bool *ok)
{
    const double tau = rt_loss_tau(spec), beta = has_beta(spec) ? spec->beta : 0;
    for (size_t i = 0; i < *count; i++) {
        if (groups[i].tau != tau || (beta != 0 && groups[i].beta != 0 && groups[i].beta != beta))
            continue;
        groups[i].beta = beta != 0 ? beta : groups[i].beta;
        return i;
    }
    groups[*count] = (group){.tau = tau, .beta = beta};
    *ok = heat_make(&heats[*count], r, tau);
    return (*count)++;
}

static bool fill_stats(const row *r, const heat *h, rt_loss_stats *stats)
{
    stats->kl_forward = h->fkl;
    stats->kl_reverse = h->rkl;
    if (r->label == RT_LABEL_NONE)
        return true;
    stats->nll_student = -log_prob(r->label_s, r->max_s, 1, h->log_s);
    if (r->zt)
        stats->nll_teacher = -log_prob(r->label_t, r->max_t, 1, h->log_t);
    return isfinite(stats->nll_student);
}

static bool stats_at_one(const row *r, const group *groups, const heat *heats, size_t count,
                         rt_loss_stats *stats)
{
    for (size_t i = 0; i < count; i++)
        if (groups[i].tau == 1)
            return fill_stats(r, &heats[i], stats);
    heat one;
    return heat_make(&one, r, 1) && fill_stats(r, &one, stats);
}

/* Maxima, first choices and the label's logits; false when a value is not finite. */
static bool row_begin(row *r, const float *z, const float *zt, size_t label, size_t n_vocab,
                      rt_loss_stats *stats)
{
    size_t top_s, top_t = 0;
    *r = (row){.ops = rt_row_ops_get(), .z = z, .zt = zt, .label = label, .n = n_vocab};
    bool finite = r->ops->argmax(z, n_vocab, &r->max_s, &top_s);
    if (zt)
        finite = r->ops->argmax(zt, n_vocab, &r->max_t, &top_t) && finite;
    if (label != RT_LABEL_NONE) {
        r->label_s = z[label];
        r->label_t = zt ? zt[label] : 0;
    }
    stats->top1_student = (uint32_t)top_s;
    stats->top1_teacher = (uint32_t)top_t;
    return finite;
}

static double factor_of(const rt_loss_mix *mix, size_t k)
{
    const double tau = rt_loss_tau(&mix->terms[k].spec);
    return mix->terms[k].weight * (mix->terms[k].spec.tau2 ? tau * tau : 1);
}

bool rt_loss_row_fast(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n_vocab,
                      double scale, float *dz_f32, rt_bf16 *dz_bf16, rt_loss_stats *stats)
{
    row r;
    size_t count = 0;
    (void)row_begin(&r, z, zt, label, n_vocab, stats); /* what is not finite shows in the sums */

    group groups[RT_LOSS_TERMS_MAX];
    heat heats[RT_LOSS_TERMS_MAX];
    double loss = 0, label_grad = 0;
    for (size_t k = 0; k < mix->n_terms; k++) {
        const rt_loss_spec *spec = &mix->terms[k].spec;
        const double factor = factor_of(mix, k);
        bool ok = true;
        const size_t g = group_for(groups, heats, &count, &r, spec, &ok);
        if (!ok)
            return false;
        stats->terms[k] = add_term(&r, spec, &heats[g], factor, &groups[g]);
        loss += factor * stats->terms[k];
        if (spec->kind == RT_LOSS_CE)
            label_grad += scale * factor * (1 - spec->label_smoothing) / rt_loss_tau(spec);
    }
    if (!isfinite(loss) || !stats_at_one(&r, groups, heats, count, stats))
        return false;
    stats->loss = loss;
    stats->finite = true;

    rt_row_grad passes[RT_LOSS_TERMS_MAX];
    for (size_t i = 0; i < count; i++)
        passes[i] = group_pass(&r, &heats[i], &groups[i], scale);
    if (dz_f32 || dz_bf16) {
        const output out = {.f32 = dz_f32, .bf16 = dz_bf16, .label_grad = label_grad};
        write_gradient(&r, passes, count, &out);
    }
    return true;
}

/* CE with either FKL or TAID, at one temperature and one t; *t is NAN without TAID. */
static bool one_heat_of_ce_and_fkl(const rt_loss_mix *mix, double *t)
{
    bool fkl = false;
    *t = (double)NAN;
    for (size_t k = 0; k < mix->n_terms; k++) {
        const rt_loss_spec *spec = &mix->terms[k].spec;
        const bool taid = spec->kind == RT_LOSS_TAID;
        if ((spec->kind > RT_LOSS_FKL && !taid) || spec->label_smoothing != 0 ||
            rt_loss_tau(spec) != rt_loss_tau(&mix->terms[0].spec) || (taid && !isnan(*t) && spec->t != *t))
            return false;
        fkl = fkl || spec->kind == RT_LOSS_FKL;
        if (taid)
            *t = spec->t;
    }
    return !fkl || isnan(*t);
}

/* TAID's teacher over the teacher's logits: (1-t) z + t zt, each less its largest so that no digits are lost.
 */
static void mix_teacher(row *r, float *zt, float t)
{
    size_t unused;
    for (size_t i = 0; i < r->n; i++)
        zt[i] = (1 - t) * (r->z[i] - r->max_s) + t * (zt[i] - r->max_t);
    (void)r->ops->argmax(zt, r->n, &r->max_t, &unused);
}

/* a e^x - b e^y over the exps, less `label_grad` at the label. */
static void blend(const row *r, float *ex, const float *ey, float a, float b, double label_grad, bool bf16)
{
    const bool labelled = r->label != RT_LABEL_NONE && label_grad != 0;
    float at_label = 0;
    if (labelled)
        at_label = (float)((double)ex[r->label] * (double)a - (ey ? (double)ey[r->label] * (double)b : 0) -
                           label_grad);
    r->ops->blend(ex, ey, r->n, a, b, 0, bf16);
    if (!labelled)
        return;
    const rt_bf16 half = rt_f32_to_bf16(at_label);
    if (bf16)
        memcpy((unsigned char *)ex + r->label * sizeof half, &half, sizeof half);
    else
        ex[r->label] = at_label;
}

bool rt_loss_row_fast_in_place(const rt_loss_mix *mix, float *z, float *zt, size_t label, size_t n_vocab,
                               double scale, bool bf16, rt_loss_stats *stats)
{
    row r;
    heat h, one = {0};
    const double tau = rt_loss_tau(&mix->terms[0].spec);
    double t;
    if (!one_heat_of_ce_and_fkl(mix, &t) || !row_begin(&r, z, zt, label, n_vocab, stats))
        return false;
    const bool plain = tau == 1 && isnan(t); /* the pass below gives the figures too */
    if (!plain && !heat_make(&one, &r, 1))
        return false;
    const row seen = r; /* with the teacher's own largest logit */
    if (!isnan(t))
        mix_teacher(&r, zt, (float)t);
    rt_row_sums sums;
    r.ops->exps(z, zt, n_vocab, r.max_s, r.max_t, (float)(1 / tau), &sums);
    group g = {.tau = tau};
    double label_grad = 0;
    stats->loss = 0;
    stats->finite = heat_from_sums(&h, &r, tau, &sums) && fill_stats(&seen, plain ? &h : &one, stats);
    for (size_t k = 0; k < mix->n_terms; k++) {
        const double factor = factor_of(mix, k);
        stats->terms[k] = add_term(&r, &mix->terms[k].spec, &h, factor, &g);
        stats->loss += factor * stats->terms[k];
        label_grad += mix->terms[k].spec.kind == RT_LOSS_CE ? scale * factor / tau : 0;
    }
    stats->finite = stats->finite && isfinite(stats->loss); /* logits of 1e38 overflow a difference */
    const double f = scale / tau;
    if (!stats->finite)
        memset(z, 0, n_vocab * sizeof *z);
    else
        blend(&r, z, zt, (float)(f * (g.ce + g.fkl + g.z_lse) / sums.s), zt ? (float)(f * g.fkl / sums.t) : 0,
              label_grad, bf16);
    return true;
}
