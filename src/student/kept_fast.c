/* student/kept_fast.c - mixtures against kept rows at the speed of plain cross-entropy: over the vocabulary
 * only log sum exp is made and a p_j + b written; the rest is of the length of the row.
 *
 * Where 1 - P is asked for, the logits of K are taken out of the row first, so that the pass sums the tail
 * itself and nothing is subtracted. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "student/kept_internal.h"
#include "student/loss_internal.h"
#include "tensor/row.h"

typedef struct token { /* the row at hand and its scratch */
    const rt_row_ops *ops;
    const rt_loss_mix *mix;
    const rt_kept_row *row;
    float *z;
    size_t label, n;
    float label_z, max, max_tail;
    float *at; /* [row->n] the logits of the row's ids */
    double *lp, *on;
    void *room;
    bool takes_out, sums_off; /* a bucket, a uniform tail in the mixture */
    double shifted;           /* sum of z - max over all ids; for uniform tails and smoothing */
} token;

typedef struct heat {            /* at one temperature */
    double tau, log_s, log_tail; /* log_s: lse - max/tau; log_tail: log(1 - P) */
    kept_gradient g;
    double label_grad;
} heat;

static double log_prob(const token *t, float z, const heat *h)
{
    return ((double)z - (double)t->max) / h->tau - h->log_s;
}

static void take_out(const token *t, float with)
{
    for (size_t i = 0; t->takes_out && i < t->row->n_topk; i++)
        t->z[t->row->ids[i]] = with;
}

static void put_back(const token *t)
{
    for (size_t i = 0; t->takes_out && i < t->row->n_topk; i++)
        t->z[t->row->ids[i]] = t->at[i];
}

static bool needs_sum(const rt_loss_mix *mix)
{
    bool needs = false;
    for (size_t k = 0; k < mix->n_terms; k++)
        needs =
            needs || mix->terms[k].spec.tail == RT_TAIL_UNIFORM || mix->terms[k].spec.label_smoothing != 0;
    return needs;
}

/* Reads what is needed of the logits and takes K out; false: the reference must do it. */
static bool begin(token *t, rt_loss_stats *stats)
{
    size_t top;
    const uint32_t n = t->row ? t->row->n : 0;
    for (size_t i = 0; i < n; i++)
        t->at[i] = t->z[t->row->ids[i]];
    t->label_z = t->label == RT_LABEL_NONE ? 0 : t->z[t->label];
    take_out(t, -FLT_MAX);
    bool finite = t->ops->argmax(t->z, t->n, &t->max_tail, &top);
    t->max = t->max_tail;
    for (size_t i = 0; t->takes_out && i < t->row->n_topk; i++) {
        finite = finite && isfinite(t->at[i]);
        if (t->at[i] > t->max || (t->at[i] == t->max && t->row->ids[i] < top)) {
            t->max = t->at[i];
            top = t->row->ids[i];
        }
    }
    stats->top1_student = (uint32_t)top;
    if (!finite)
        put_back(t);
    return finite;
}

/* The sums at one temperature: destroys z when `exps`. */
static bool heat_make(heat *h, const token *t, bool exps)
{
    rt_row_sums sums;
    const float inv_tau = (float)(1 / h->tau);
    if (exps)
        t->ops->exps(t->z, NULL, t->n, t->max, 0, inv_tau, &sums);
    else
        t->ops->sums(t->z, NULL, t->n, t->max, 0, inv_tau, &sums);
    const double tail = sums.s;
    double s = tail;
    for (size_t i = 0; t->takes_out && i < t->row->n_topk; i++)
        s += exp(((double)t->at[i] - (double)t->max) / h->tau);
    h->log_s = log(s);
    h->log_tail = t->takes_out && t->n > t->row->n_topk ? log(tail / s) : -HUGE_VAL;
    return isfinite(s);
}

static double sum_shifted(const token *t) /* K is in its place */
{
    enum { LANES = 8 };
    double sum[LANES] = {0}, all = 0;
    size_t i = 0;
    for (; i + LANES <= t->n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            sum[k] += (double)(t->z[i + k] - t->max);
    for (; i < t->n; i++)
        all += (double)(t->z[i] - t->max);
    for (size_t k = 0; k < LANES; k++)
        all += sum[k];
    return all;
}

static double ce_term(const token *t, const rt_loss_spec *spec, heat *h, double factor)
{
    const double e = spec->label_smoothing, lse = (double)t->max / h->tau + h->log_s, v = (double)t->n;
    double loss = -(1 - e) * log_prob(t, t->label_z, h) + spec->z_loss * lse * lse;
    if (e != 0)
        loss -= e * (t->shifted / v / h->tau - h->log_s);
    h->g.all += factor / h->tau * (1 + 2 * spec->z_loss * lse);
    h->g.flat += factor / h->tau * e / v;
    h->label_grad += factor / h->tau * (1 - e);
    return loss;
}

static double term(const token *t, const rt_loss_spec *spec, heat *h, double factor)
{
    if (spec->kind == RT_LOSS_CE)
        return ce_term(t, spec, h, factor);
    kept_student s = {.tau = h->tau,
                      .lp = t->lp,
                      .n_off = t->n - t->row->n_topk,
                      .n_rest = t->n - t->row->n_topk,
                      .log_tail = h->log_tail};
    for (size_t i = 0; i < t->row->n; i++)
        t->lp[i] = log_prob(t, t->at[i], h);
    if (spec->tail == RT_TAIL_UNIFORM) {
        s.sum_off = t->shifted / h->tau - (double)t->n * h->log_s;
        for (size_t i = 0; i < t->row->n_topk; i++)
            s.sum_off -= t->lp[i];
    }
    h->g.on = t->on;
    return kept_term(spec, t->row, &s, factor, &h->g, t->room);
}

static bool fill_stats(const token *t, const heat *one, rt_loss_stats *stats)
{
    if (t->label == RT_LABEL_NONE)
        return true;
    stats->nll_student = -log_prob(t, t->label_z, one);
    for (size_t i = 0; t->row && i < t->row->n; i++)
        if (t->row->ids[i] == t->label && kept_tau(t->row) == 1)
            stats->nll_teacher = -kept_logq(t->row, i);
    return isfinite(stats->nll_student);
}

/* The exact values at the row's ids and at the label, over what blend() has written. */
static void put_value(const token *t, size_t id, double value, bool bf16)
{
    const float x = (float)value;
    const rt_bf16 half = rt_f32_to_bf16(x);
    if (bf16)
        memcpy((unsigned char *)t->z + id * sizeof half, &half, sizeof half);
    else
        t->z[id] = x;
}

static void write(const token *t, const heat *h, double scale, bool bf16)
{
    const double off = h->g.off != 0 ? h->g.off * exp(-h->log_tail) : 0, s = exp(-h->log_s);
    t->ops->blend(t->z, NULL, t->n, (float)(scale * (h->g.all + off) * s), 0, (float)(scale * h->g.flat),
                  bf16);
    const size_t n = t->row ? t->row->n : 0;
    bool label_done = t->label == RT_LABEL_NONE || h->label_grad == 0;
    for (size_t i = 0; i < n; i++) {
        const bool is_label = t->row->ids[i] == t->label;
        const double a = h->g.all + (i < t->row->n_topk ? 0 : off), p = exp(log_prob(t, t->at[i], h));
        put_value(t, t->row->ids[i], scale * (a * p - h->g.flat + t->on[i] - (is_label ? h->label_grad : 0)),
                  bf16);
        label_done = label_done || is_label;
    }
    if (!label_done)
        put_value(t, t->label,
                  scale * ((h->g.all + off) * exp(log_prob(t, t->label_z, h)) - h->g.flat - h->label_grad),
                  bf16);
}

static bool serves(const rt_loss_mix *mix) /* one temperature, no floor */
{
    for (size_t k = 0; k < mix->n_terms; k++)
        if (mix->terms[k].spec.tail == RT_TAIL_FLOOR ||
            rt_loss_tau(&mix->terms[k].spec) != rt_loss_tau(&mix->terms[0].spec))
            return false;
    return true;
}

static double factor_of(const rt_loss_mix *mix, size_t k)
{
    const double tau = rt_loss_tau(&mix->terms[k].spec);
    return mix->terms[k].weight * (mix->terms[k].spec.tau2 ? tau * tau : 1);
}

static bool fast(token *t, double scale, bool bf16, rt_loss_stats *stats)
{
    heat h = {.tau = rt_loss_tau(&t->mix->terms[0].spec)}, one = {.tau = 1};
    for (size_t k = 0; k < t->mix->n_terms; k++)
        t->takes_out = t->takes_out || t->mix->terms[k].spec.tail == RT_TAIL_BUCKET;
    if (!serves(t->mix) || !begin(t, stats))
        return false;
    const bool tail_fades =
        t->takes_out && t->n > t->row->n_topk && ((double)t->max - (double)t->max_tail) / h.tau > 80;
    if (tail_fades || (h.tau != 1 && !heat_make(&one, t, false))) {
        put_back(t);
        return false;
    }
    if (needs_sum(t->mix)) {
        put_back(t);
        t->shifted = sum_shifted(t);
        take_out(t, -FLT_MAX);
    }
    stats->finite = heat_make(&h, t, true);
    stats->finite = fill_stats(t, h.tau == 1 ? &h : &one, stats) && stats->finite;
    if (t->row)
        memset(t->on, 0, t->row->n * sizeof *t->on);
    stats->loss = 0;
    for (size_t k = 0; k < t->mix->n_terms; k++) {
        stats->terms[k] = term(t, &t->mix->terms[k].spec, &h, factor_of(t->mix, k));
        stats->loss += factor_of(t->mix, k) * stats->terms[k];
    }
    stats->finite = stats->finite && isfinite(stats->loss);
    if (stats->finite)
        write(t, &h, scale, bf16);
    else
        memset(t->z, 0, t->n * sizeof *t->z);
    return true;
}

static uint32_t first_largest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return (uint32_t)best;
}

/* By the reference; grad and total lie on top of the term's scratch. */
static void slow(const token *t, double scale, bool bf16, rt_loss_stats *stats, void *work, double *grad,
                 double *total)
{
    const rt_loss_spec ce = {.kind = RT_LOSS_CE};
    bool finite;
    stats->top1_student = first_largest(t->z, t->n);
    if (t->label != RT_LABEL_NONE)
        stats->nll_student = rt_kept_ref(&ce, t->z, NULL, t->label, t->n, grad, &finite, work);
    memset(total, 0, t->n * sizeof *total);
    stats->finite = true;
    stats->loss = 0;
    for (size_t k = 0; k < t->mix->n_terms; k++) {
        const double factor = factor_of(t->mix, k);
        stats->terms[k] =
            rt_kept_ref(&t->mix->terms[k].spec, t->z, t->row, t->label, t->n, grad, &finite, work);
        if (factor == 0)
            continue;
        stats->loss += factor * stats->terms[k];
        stats->finite = stats->finite && finite;
        for (size_t i = 0; i < t->n; i++)
            total[i] += factor * grad[i];
    }
    for (size_t i = 0; i < t->n; i++)
        put_value(t, i, stats->finite ? scale * total[i] : 0, bf16);
}

void rt_kept_loss_row_in_place(const rt_loss_mix *mix, float *z, const rt_kept_row *row, size_t label,
                               size_t n_vocab, double scale, bool bf16, rt_loss_stats *stats, void *work)
{
    const size_t n = row ? row->n : 0;
    double *lp = work, *on = lp + n, *at = on + n;
    token t = {.ops = rt_row_ops_get(),
               .mix = mix,
               .row = row,
               .z = z,
               .label = label,
               .n = n_vocab,
               .lp = lp,
               .on = on,
               .at = (float *)at,
               .room = at + n};
    *stats = (rt_loss_stats){.nll_student = (double)NAN,
                             .nll_teacher = (double)NAN,
                             .kl_forward = (double)NAN,
                             .kl_reverse = (double)NAN};
    if (!fast(&t, scale, bf16, stats)) {
        const size_t bytes = rt_kept_work_bytes(n_vocab, n) / sizeof(double);
        double *grad = (double *)work + bytes - 2 * n_vocab;
        slow(&t, scale, bf16, stats, work, grad, grad + n_vocab);
    }
    double best = -HUGE_VAL;
    for (size_t i = 0; i < n; i++) {
        if (kept_logq(row, i) > best) {
            best = kept_logq(row, i);
            stats->top1_teacher = row->ids[i];
        }
    }
}
