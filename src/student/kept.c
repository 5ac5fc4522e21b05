/* student/kept.c - checks, and the meaning of a term against a kept row over the whole vocabulary in double.
 */
#include "student/kept.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "student/kept_internal.h"
#include "student/loss_internal.h"

/* ---- checks ---- */

static rt_status check_term(const rt_loss_spec *s, bool has_topk, bool has_draws, double row_tau,
                            rt_error *err)
{
    const char *kind = rt_loss_kind_name(s->kind), *tail = rt_tail_mode_name(s->tail);
    const double tau = rt_loss_tau(s);
    if (s->kind == RT_LOSS_CE)
        return s->tail == RT_TAIL_NONE ? RT_OK
                                       : rt_error_set(err, RT_INVALID, "loss ce: it has no tail to speak of");
    if (s->kind == RT_LOSS_MSE || s->kind == RT_LOSS_MSE_CENTRED || s->kind == RT_LOSS_TAID)
        return rt_error_set(err, RT_INVALID,
                            "loss %s: it needs the teacher's logits of all ids, and a store holds only some; "
                            "use teacher.model",
                            kind);
    if (s->kind == RT_LOSS_RSKD) {
        if (!has_draws)
            return rt_error_set(err, RT_INVALID,
                                "loss rskd: the store holds no drawn ids; use fkl, or make it with draws");
        if (s->tail != RT_TAIL_NONE)
            return rt_error_set(err, RT_INVALID, "loss rskd: draws need no tail; leave tail=%s out", tail);
        if (tau == row_tau || isnan(row_tau))
            return RT_OK;
        return rt_error_set(err, RT_INVALID,
                            "loss rskd: the ids were drawn at temperature %g and say nothing of q at %g; use "
                            "temperature=%g",
                            row_tau, tau, row_tau);
    }
    if (!has_topk)
        return rt_error_set(err, RT_INVALID,
                            "loss %s: the store holds drawn ids only; use rskd, or make it with top-k", kind);
    if (s->tail == RT_TAIL_NONE)
        return rt_error_set(
            err, RT_INVALID,
            "loss %s: the store holds some of the ids; say what stands for the others: tail=bucket", kind);
    const bool forward =
        s->tail == RT_TAIL_RENORM || s->tail == RT_TAIL_PARTIAL || s->tail == RT_TAIL_UNIFORM;
    if (forward && s->kind != RT_LOSS_FKL)
        return rt_error_set(err, RT_INVALID, "loss %s: tail=%s is a form of fkl; use bucket or renorm_both",
                            kind, tail);
    if (s->tail == RT_TAIL_FLOOR && s->kind != RT_LOSS_RKL)
        return rt_error_set(err, RT_INVALID,
                            "loss %s: tail=floor is a form of rkl; use bucket or renorm_both", kind);
    const bool exact_tail =
        s->tail == RT_TAIL_BUCKET || s->tail == RT_TAIL_PARTIAL || s->tail == RT_TAIL_UNIFORM;
    if (exact_tail && tau != row_tau && !isnan(row_tau))
        return rt_error_set(
            err, RT_INVALID,
            "loss %s: tail=%s needs the mass off the kept ids at temperature %g, which is the "
            "sum of q^(1/%g) over all of them and cannot be had from their mass at %g; use "
            "temperature=%g, or tail=renorm",
            kind, tail, tau, tau, row_tau, row_tau);
    return RT_OK;
}

rt_status rt_kept_mix_check(const rt_loss_mix *mix, bool has_topk, bool has_draws, double tau, rt_error *err)
{
    if (rt_loss_terms_check(mix, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < mix->n_terms; i++)
        if (check_term(&mix->terms[i].spec, has_topk, has_draws, tau == 0 ? 1 : tau, err) != RT_OK)
            return err->status;
    return RT_OK;
}

/* ---- the reference ---- */

/* For rt_kept_ref an array over the vocabulary (or what a dense term needs), two over the row and a term's
 * room; at the end two arrays over the vocabulary for a mixture. */
size_t rt_kept_work_bytes(size_t n_vocab, size_t n_max)
{
    const size_t dense = rt_size_max(rt_loss_work_bytes(n_vocab), n_vocab * sizeof(double));
    const size_t part = dense + 4 * (n_max + 1) * sizeof(double) + kept_room_bytes(n_max);
    return rt_size_round_up(part, 64) + rt_size_round_up(2 * n_vocab * sizeof(double), 64);
}

static double log_sum_exp(const double *x, const double *skip, size_t n)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        if (!skip || skip[i] == 0)
            max = x[i] > max || isnan(x[i]) ? x[i] : max;
    if (max == -HUGE_VAL)
        return max;
    for (size_t i = 0; i < n; i++)
        if (!skip || skip[i] == 0)
            sum += exp(x[i] - max);
    return max + log(sum);
}

/* log q is q/Q's on K and -100 elsewhere. */
static double floor_term(const rt_kept_row *row, const double *x, double lse, size_t n, double tau,
                         double *grad)
{
    const double heat = kept_tau(row) / tau;
    double max = -HUGE_VAL, sum = 0, loss = 0;
    for (size_t i = 0; i < row->n_topk; i++)
        max = fmax(max, kept_logq(row, i) * heat);
    for (size_t i = 0; i < row->n_topk; i++)
        sum += exp(kept_logq(row, i) * heat - max);
    const double log_q = max + log(sum);
    for (size_t i = 0; i < n; i++)
        grad[i] = -100;
    for (size_t i = 0; i < row->n_topk; i++)
        grad[row->ids[i]] = kept_logq(row, i) * heat - log_q;
    for (size_t i = 0; i < n; i++) {
        const double lp = x[i] - lse, p = exp(lp);
        grad[i] = p > 0 ? p * (lp - grad[i]) : 0;
        loss += grad[i];
    }
    for (size_t i = 0; i < n; i++)
        grad[i] = (grad[i] - exp(x[i] - lse) * loss) / tau;
    return loss;
}

static double kept_ref(const rt_loss_spec *spec, const rt_kept_row *row, const double *x, size_t n,
                       double *grad, double *lp, double *on, void *room)
{
    const double tau = rt_loss_tau(spec), lse = log_sum_exp(x, NULL, n);
    if (lse == -HUGE_VAL) {
        memset(grad, 0, n * sizeof *grad);
        return 0;
    }
    if (spec->tail == RT_TAIL_FLOOR)
        return floor_term(row, x, lse, n, tau, grad);
    kept_student s = {.tau = tau, .lp = lp, .n_rest = n - row->n_topk};
    memset(grad, 0, n * sizeof *grad); /* marks K */
    memset(on, 0, row->n * sizeof *on);
    for (size_t i = 0; i < row->n; i++)
        lp[i] = x[row->ids[i]] - lse;
    for (size_t i = 0; i < row->n_topk; i++)
        grad[row->ids[i]] = 1;
    const double lse_tail = log_sum_exp(x, grad, n);
    s.log_tail = lse_tail - lse;
    for (size_t i = 0; i < n; i++) {
        if (grad[i] != 0 || x[i] == -HUGE_VAL)
            continue;
        s.n_off++;
        s.sum_off += x[i] - lse;
    }
    kept_gradient g = {.on = on};
    const double loss = kept_term(spec, row, &s, 1, &g, room);
    for (size_t i = 0; i < n; i++) {
        if (x[i] == -HUGE_VAL)
            grad[i] = 0;
        else
            grad[i] = g.all * exp(x[i] - lse) - g.flat +
                      (grad[i] == 0 && g.off != 0 ? g.off * exp(x[i] - lse_tail) : 0);
    }
    for (size_t i = 0; i < row->n; i++)
        grad[row->ids[i]] += on[i];
    return loss;
}

double rt_kept_ref(const rt_loss_spec *spec, const float *z, const rt_kept_row *row, size_t label,
                   size_t n_vocab, double *grad, bool *finite, void *work)
{
    if (spec->kind == RT_LOSS_CE)
        return rt_loss_ref(spec, z, NULL, label, n_vocab, grad, finite, work);
    double *x = work, *lp = x + n_vocab, *on = lp + row->n + 1;
    const double tau = rt_loss_tau(spec);
    for (size_t i = 0; i < n_vocab; i++)
        x[i] = (double)z[i] / tau;
    const double loss = kept_ref(spec, row, x, n_vocab, grad, lp, on, on + row->n + 1);
    *finite = isfinite(loss);
    for (size_t i = 0; i < n_vocab; i++)
        *finite = *finite && isfinite(grad[i]);
    return loss;
}
