/* student/kept_terms.c - one term against a kept row, from the few numbers that it depends on: log p of the
 * kept ids and what is left.  The dense part is the caller's.
 *
 * bucket and renorm_both are the divergences of loss_ref.c over outcomes instead of ids: log p and log q of
 * the outcomes stand for logits at temperature 1. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "student/kept_internal.h"
#include "student/loss_internal.h"

static const double least_tail = 1e-7; /* below it 1 - Q is rounding (METHODS 5) */
static const double log_least_tail = -16.11809565095832;

typedef struct outcomes { /* views into the room */
    double *p, *q, *grad; /* [n + 1] */
    void *work;
} outcomes;

size_t kept_room_bytes(size_t n) { return (n + 1) * 3 * sizeof(double) + rt_loss_work_bytes(n + 1) + 64; }

static outcomes split(void *room, size_t n)
{
    double *at = room;
    return (outcomes){.p = at, .q = at + n + 1, .grad = at + 2 * (n + 1), .work = at + 3 * (n + 1)};
}

/* q log q_i of K at the temperature of the loss, up to a constant, into q; returns log Q. */
static double teacher_side(double *q, const rt_kept_row *row, double tau)
{
    const double heat = kept_tau(row) / tau;
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < row->n_topk; i++) {
        q[i] = heat == 1 ? kept_logq(row, i) : kept_logq(row, i) * heat;
        max = q[i] > max || isnan(q[i]) ? q[i] : max;
    }
    if (max == -HUGE_VAL)
        return max;
    for (size_t i = 0; i < row->n_topk; i++)
        sum += exp(q[i] - max);
    return max + log(sum);
}

/* log(1 - Q); -inf when nothing is left. */
static double tail_of(const rt_kept_row *row, double log_q)
{
    if (!isnan(row->tail_logprob))
        return row->tail_logprob;
    const double left = log_q < 0 ? -expm1(log_q) : 0;
    return left > least_tail ? log(left) : -HUGE_VAL;
}

static double weighted_log_ratio(double q, double log_q, double log_p)
{
    return q > 0 ? q * (log_q - log_p) : 0;
}

/* renorm, partial and uniform: each is a forward KL whose teacher is q times e^shift on K and `flat` off it.
 */
static double forward_term(const rt_kept_row *row, const kept_student *s, double shift, double log_flat,
                           double factor, kept_gradient *g, const double *q)
{
    const double f = factor / s->tau, flat = exp(log_flat);
    double loss = 0, mass = 0;
    for (size_t i = 0; i < row->n_topk; i++) {
        const double qi = exp(q[i] + shift);
        loss += weighted_log_ratio(qi, q[i] + shift, s->lp[i]);
        mass += qi;
        g->on[i] += f * (flat - qi);
    }
    if (flat > 0) {
        loss += flat * ((double)s->n_off * log_flat - s->sum_off);
        mass += flat * (double)s->n_off;
    }
    g->all += f * mass;
    g->flat += f * flat;
    return loss;
}

/* True where KL(p||q) is part of the loss: a tail that the teacher gives nothing would cost +inf. */
static bool needs_mass(const rt_loss_spec *spec)
{
    const bool reverse_end = (spec->kind == RT_LOSS_JSD || spec->kind == RT_LOSS_JSD_NORM) && spec->beta == 1;
    const bool plain_skew = spec->kind == RT_LOSS_SRKL && spec->alpha == 0;
    return spec->kind == RT_LOSS_RKL || spec->kind == RT_LOSS_AB || spec->kind == RT_LOSS_AKL ||
           reverse_end || plain_skew;
}

static double outcomes_term(const rt_loss_spec *spec, const rt_kept_row *row, const kept_student *s,
                            double log_q, double factor, kept_gradient *g, const outcomes *o)
{
    const size_t k = row->n_topk;
    const bool bucket = spec->tail == RT_TAIL_BUCKET && s->n_rest > 0;
    memcpy(o->p, s->lp, k * sizeof *o->p);
    if (bucket) {
        o->p[k] = s->log_tail;
        o->q[k] = tail_of(row, log_q);
        if (needs_mass(spec) && o->q[k] < log_least_tail)
            o->q[k] = log_least_tail;
    }
    rt_loss_spec plain = *spec;
    plain.tau = 1;
    bool finite;
    const double loss = rt_loss_ref_double(&plain, o->p, o->q, 0, k + bucket, o->grad, &finite, o->work);
    const double f = factor / s->tau;
    for (size_t i = 0; i < k; i++)
        g->on[i] += f * o->grad[i];
    if (bucket)
        g->off += f * o->grad[k];
    return loss;
}

static double drawn_term(const rt_loss_spec *spec, const rt_kept_row *row, const kept_student *s,
                         double factor, kept_gradient *g, double *w)
{
    const double t = row->proposal > 0 ? row->proposal : 1;
    const double log_s = t == 1 || (isnan(row->log_s) && spec->self_normalised) ? 0 : row->log_s;
    double sum = 0, loss = 0;
    for (size_t i = 0; i < row->n; i++) {
        const double c = row->counts ? (double)row->counts[i] : 0;
        const double ratio = t == 1 ? 1 : exp((1 - t) * kept_logq(row, i) + log_s);
        w[i] = c > 0 ? c / (double)row->n_draws * ratio : 0;
        sum += w[i];
    }
    const double norm = spec->self_normalised && sum > 0 ? 1 / sum : 1, f = factor / s->tau;
    for (size_t i = 0; i < row->n; i++) {
        loss -= w[i] > 0 ? norm * w[i] * s->lp[i] : 0;
        g->on[i] -= f * norm * w[i];
    }
    g->all += f * norm * sum;
    return loss;
}

double kept_term(const rt_loss_spec *spec, const rt_kept_row *row, const kept_student *s, double factor,
                 kept_gradient *g, void *room)
{
    const outcomes o = split(room, row->n);
    if (spec->kind == RT_LOSS_RSKD)
        return drawn_term(spec, row, s, factor, g, o.p);
    if (row->n_topk == 0)
        return 0; /* the bucket is all there is */
    const double log_q = teacher_side(o.q, row, s->tau);
    switch (spec->tail) {
    case RT_TAIL_RENORM:
        return forward_term(row, s, -log_q, -HUGE_VAL, factor, g, o.q);
    case RT_TAIL_PARTIAL:
        return forward_term(row, s, 0, -HUGE_VAL, factor, g, o.q);
    case RT_TAIL_UNIFORM:
        return forward_term(row, s, 0, s->n_off ? tail_of(row, log_q) - log((double)s->n_off) : -HUGE_VAL,
                            factor, g, o.q);
    default:
        return outcomes_term(spec, row, s, log_q, factor, g, &o);
    }
}
