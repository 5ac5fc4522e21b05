/* student/loss.c - names and checks of losses, the choice between fast and reference code, reductions. */
#include "student/loss.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "student/loss_internal.h"

typedef struct kind_info {
    const char *name;
    bool teacher, label;
} kind_info;

static const kind_info kinds[RT_LOSS_KIND_COUNT] = {
#define RT_LOSS_ROW(kind, text, needs_teacher, needs_label) {text, needs_teacher, needs_label},
    RT_LOSS_MAP(RT_LOSS_ROW)
#undef RT_LOSS_ROW
};

const char *rt_loss_kind_name(rt_loss_kind kind) { return kinds[kind].name; }

bool rt_loss_kind_from_name(rt_loss_kind *out, const char *name)
{
    for (int i = 0; i < RT_LOSS_KIND_COUNT; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            *out = (rt_loss_kind)i;
            return true;
        }
    }
    return false;
}

static const char *const tail_names[RT_TAIL_COUNT] = {
#define RT_TAIL_ROW(mode, text) text,
    RT_TAIL_MAP(RT_TAIL_ROW)
#undef RT_TAIL_ROW
};

const char *rt_tail_mode_name(rt_tail_mode mode) { return tail_names[mode]; }

bool rt_tail_mode_from_name(rt_tail_mode *out, const char *name)
{
    for (int i = 0; i < RT_TAIL_COUNT; i++) {
        if (strcmp(tail_names[i], name) == 0) {
            *out = (rt_tail_mode)i;
            return true;
        }
    }
    return false;
}

static rt_status range_check(rt_error *err, const char *kind, const char *what, double x, double lo,
                             double hi)
{
    if (x >= lo && x <= hi)
        return RT_OK;
    return rt_error_set(err, RT_INVALID, "loss %s: %s is %g; it must lie between %g and %g", kind, what, x,
                        lo, hi);
}

rt_status rt_loss_spec_check(const rt_loss_spec *s, rt_error *err)
{
    const char *name = kinds[s->kind].name;
    const bool skew = s->kind == RT_LOSS_SKL || s->kind == RT_LOSS_SRKL;
    const bool jsd = s->kind == RT_LOSS_JSD || s->kind == RT_LOSS_JSD_NORM;
    /* past these a temperature is a slip of the pen, and floats would leave their range */
    if (s->tau != 0 && range_check(err, name, "tau", s->tau, 1e-4, 1e4) != RT_OK)
        return err->status;
    if (jsd && range_check(err, name, "beta", s->beta, 0, 1) != RT_OK)
        return err->status;
    if (skew && range_check(err, name, "alpha", s->alpha, 0, 1) != RT_OK)
        return err->status;
    if (s->kind == RT_LOSS_AB && (range_check(err, name, "alpha", s->alpha, -10, 10) != RT_OK ||
                                  range_check(err, name, "beta", s->beta, -10, 10) != RT_OK))
        return err->status;
    if (s->kind == RT_LOSS_AKL && range_check(err, name, "mu", s->mu, 0, 1) != RT_OK)
        return err->status;
    if (s->kind == RT_LOSS_TAID && range_check(err, name, "t", s->t, 0, 1) != RT_OK)
        return err->status;
    if (s->kind == RT_LOSS_CE &&
        (range_check(err, name, "label_smoothing", s->label_smoothing, 0, 1) != RT_OK ||
         range_check(err, name, "z_loss", s->z_loss, 0, 1e3) != RT_OK))
        return err->status;
    return RT_OK;
}

rt_status rt_loss_terms_check(const rt_loss_mix *mix, rt_error *err)
{
    if (mix->n_terms == 0 || mix->n_terms > RT_LOSS_TERMS_MAX)
        return rt_error_set(err, RT_INVALID, "loss: has %zu terms; 1 to %d are possible", mix->n_terms,
                            (int)RT_LOSS_TERMS_MAX);
    for (size_t i = 0; i < mix->n_terms; i++) {
        const double weight = mix->terms[i].weight;
        if ((unsigned)mix->terms[i].spec.kind >= RT_LOSS_KIND_COUNT)
            return rt_error_set(err, RT_INVALID, "loss: term %zu is of no known kind", i);
        if (rt_loss_spec_check(&mix->terms[i].spec, err) != RT_OK ||
            range_check(err, kinds[mix->terms[i].spec.kind].name, "its weight", weight, -1e6, 1e6) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_loss_mix_check(const rt_loss_mix *mix, rt_error *err)
{
    rt_error own;
    err = err ? err : &own;
    if (rt_loss_terms_check(mix, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < mix->n_terms; i++) {
        const rt_loss_spec *s = &mix->terms[i].spec;
        if (s->kind == RT_LOSS_RSKD)
            return rt_error_set(err, RT_INVALID,
                                "loss rskd: it learns from drawn ids, which only a store holds; a teacher "
                                "that is at hand gives all ids: use fkl");
        if (s->tail != RT_TAIL_NONE)
            return rt_error_set(err, RT_INVALID,
                                "loss %s: tail=%s is for rows of a store; this teacher gives all ids",
                                kinds[s->kind].name, tail_names[s->tail]);
    }
    return RT_OK;
}

bool rt_loss_mix_needs_teacher(const rt_loss_mix *mix)
{
    bool needs = false;
    for (size_t i = 0; i < mix->n_terms; i++)
        needs = needs || kinds[mix->terms[i].spec.kind].teacher;
    return needs;
}

bool rt_loss_mix_needs_label(const rt_loss_mix *mix)
{
    bool needs = false;
    for (size_t i = 0; i < mix->n_terms; i++)
        needs = needs || kinds[mix->terms[i].spec.kind].label;
    return needs;
}

bool rt_loss_mix_is_fast(const rt_loss_mix *mix)
{
    bool fast = true;
    for (size_t i = 0; i < mix->n_terms; i++)
        fast = fast && mix->terms[i].spec.kind <= RT_LOSS_JSD_NORM;
    return fast;
}

/* The figures of rt_loss_stats that do not depend on the mixture, by the reference. */
static void plain_stats(const float *z, const float *zt, size_t label, size_t n, rt_loss_stats *stats,
                        void *work)
{
    const rt_loss_spec ce = {.kind = RT_LOSS_CE}, fkl = {.kind = RT_LOSS_FKL}, rkl = {.kind = RT_LOSS_RKL};
    double *unused = (double *)work + 2 * n;
    bool finite;
    if (label != RT_LABEL_NONE)
        stats->nll_student = rt_loss_ref(&ce, z, NULL, label, n, unused, &finite, work);
    if (!zt)
        return;
    if (label != RT_LABEL_NONE)
        stats->nll_teacher = rt_loss_ref(&ce, zt, NULL, label, n, unused, &finite, work);
    stats->kl_forward = rt_loss_ref(&fkl, z, zt, label, n, unused, &finite, work);
    stats->kl_reverse = rt_loss_ref(&rkl, z, zt, label, n, unused, &finite, work);
}

static void row_slow(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n,
                     double scale, float *dz_f32, rt_bf16 *dz_bf16, rt_loss_stats *stats, void *work)
{
    double *total = rt_loss_work_total(work, n), *grad = (double *)work + 2 * n;
    memset(total, 0, n * sizeof *total);
    plain_stats(z, zt, label, n, stats, work);
    stats->finite = true;
    for (size_t k = 0; k < mix->n_terms; k++) {
        const rt_loss_spec *spec = &mix->terms[k].spec;
        const double tau = rt_loss_tau(spec), factor = mix->terms[k].weight * (spec->tau2 ? tau * tau : 1);
        bool finite;
        stats->terms[k] = rt_loss_ref(spec, z, zt, label, n, grad, &finite, work);
        if (factor == 0)
            continue;
        stats->loss += factor * stats->terms[k];
        stats->finite = stats->finite && finite;
        for (size_t i = 0; i < n; i++)
            total[i] += factor * grad[i];
    }
    for (size_t i = 0; i < n; i++) {
        const float g = stats->finite ? (float)(scale * total[i]) : 0.0f;
        if (dz_f32)
            dz_f32[i] = g;
        if (dz_bf16)
            dz_bf16[i] = rt_f32_to_bf16(g);
    }
}

static uint32_t first_largest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return (uint32_t)best;
}

static void check_call(const rt_loss_mix *mix, const float *zt, size_t label, size_t n_vocab)
{
    assert(n_vocab > 0 && n_vocab <= UINT32_MAX && (label < n_vocab || label == RT_LABEL_NONE));
    assert(zt || !rt_loss_mix_needs_teacher(mix));
    assert(label != RT_LABEL_NONE || !rt_loss_mix_needs_label(mix));
    (void)mix, (void)zt, (void)label, (void)n_vocab;
}

static rt_loss_stats nothing_known(void)
{
    return (rt_loss_stats){.nll_student = (double)NAN,
                           .nll_teacher = (double)NAN,
                           .kl_forward = (double)NAN,
                           .kl_reverse = (double)NAN};
}

void rt_loss_row(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n_vocab,
                 double scale, float *dz_f32, rt_bf16 *dz_bf16, rt_loss_stats *stats, void *work)
{
    check_call(mix, zt, label, n_vocab);
    *stats = nothing_known();
    if (rt_loss_mix_is_fast(mix) &&
        rt_loss_row_fast(mix, z, zt, label, n_vocab, scale, dz_f32, dz_bf16, stats))
        return;
    *stats = nothing_known();
    stats->top1_student = first_largest(z, n_vocab);
    stats->top1_teacher = zt ? first_largest(zt, n_vocab) : 0;
    row_slow(mix, z, zt, label, n_vocab, scale, dz_f32, dz_bf16, stats, work);
}

void rt_loss_row_in_place(const rt_loss_mix *mix, float *z, float *zt, size_t label, size_t n_vocab,
                          double scale, bool bf16, rt_loss_stats *stats, void *work)
{
    check_call(mix, zt, label, n_vocab);
    *stats = nothing_known();
    if (rt_loss_row_fast_in_place(mix, z, zt, label, n_vocab, scale, bf16, stats))
        return;
    rt_loss_row(mix, z, zt, label, n_vocab, scale, bf16 ? NULL : z, bf16 ? (rt_bf16 *)(void *)z : NULL, stats,
                work);
}

bool rt_reduction_from_name(rt_reduction *out, const char *name)
{
    static const char *const names[] = {"token_mean", "seq_mean_of_means", "seq_sum_mean", "sum_over_const"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (rt_reduction)i;
            return true;
        }
    }
    return false;
}

double rt_reduction_scale(rt_reduction reduction, const rt_step_counts *counts, uint64_t sequence_tokens)
{
    if (counts->tokens == 0 || sequence_tokens == 0)
        return 0;
    switch (reduction) {
    case RT_TOKEN_MEAN:
        return 1 / (double)counts->tokens;
    case RT_SEQ_MEAN_OF_MEANS:
        return 1 / ((double)counts->sequences_with_tokens * (double)sequence_tokens);
    case RT_SEQ_SUM_MEAN:
        return 1 / (double)counts->sequences;
    default:
        return 1 / counts->constant;
    }
}
