/* student/policy.c - see policy.h.
 *
 * d log p(y) / dz = e_y - p is the cross-entropy's gradient with the other sign, so every gradient here is a
 * mixture of loss.h whose weights follow from log p(y). */
#include "student/policy.h"

#include <math.h>

void rt_policy_advantages(double *advantage, const double *logq, const double *logp_old, size_t n,
                          double discount)
{
    double later = 0;
    for (size_t t = n; t-- > 0;)
        advantage[t] = later = logq[t] - logp_old[t] + (discount != 0 ? discount * later : 0);
}

double rt_policy_token(const rt_policy *policy, double logp, double logp_old, double advantage, double *slope)
{
    const double ratio = exp(logp - logp_old);
    if (policy->kind == RT_POLICY_TRUNCATED) {
        const double weight = fmin(ratio, policy->cap);
        *slope = -weight * advantage;
        return -weight * advantage * logp;
    }
    *slope = -ratio * advantage;
    if (policy->kind == RT_POLICY_IS)
        return *slope;
    const double clipped = fmin(fmax(ratio, 1 - policy->clip_low), 1 + policy->clip_high);
    if (clipped * advantage < ratio * advantage) {
        *slope = 0;
        return -clipped * advantage;
    }
    return *slope;
}

double rt_policy_row(const rt_policy *policy, const float *z, size_t label, size_t n_vocab, double logp_old,
                     double advantage, double scale, float *dz, rt_loss_stats *stats, void *work)
{
    const rt_loss_mix ce = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_CE, .tau = 1}}}};
    double slope;
    rt_loss_row(&ce, z, NULL, label, n_vocab, 1, NULL, NULL, stats, work);
    const double loss = rt_policy_token(policy, -stats->nll_student, logp_old, advantage, &slope);
    const bool finite = stats->finite && isfinite(loss);
    if (dz)
        rt_loss_row(&ce, z, NULL, label, n_vocab, finite ? -slope * scale : 0, dz, NULL, stats, work);
    stats->loss = loss;
    stats->finite = finite;
    return loss;
}

double rt_policy_ref(const rt_policy *policy, const float *z, size_t label, size_t n_vocab, double logp_old,
                     double advantage, double *grad, void *work)
{
    const rt_loss_spec ce = {.kind = RT_LOSS_CE, .tau = 1};
    bool finite;
    double slope;
    const double nll = rt_loss_ref(&ce, z, NULL, label, n_vocab, grad, &finite, work);
    const double loss = rt_policy_token(policy, -nll, logp_old, advantage, &slope);
    for (size_t i = 0; i < n_vocab; i++)
        grad[i] *= -slope;
    return loss;
}

void rt_kl_estimators(double out[3], double logp, double logq)
{
    const double d = logq - logp;
    out[0] = -d;
    out[1] = d * d / 2;
    out[2] = expm1(d) - d;
}

/* ---- MiniLLM ---- */

void rt_minillm_terms(double *weight, double *returns, const double *logq, const double *logp_old, size_t n,
                      double mix)
{
    double later = 0;
    for (size_t t = n; t-- > 0;) {
        weight[t] = 1 / (mix * exp(logq[t] - logp_old[t]) + (1 - mix));
        returns[t] = t + 1 < n ? later / (double)(n - t - 1) : 0;
        later += logq[t] - logp_old[t];
    }
}

double rt_minillm_row(const float *z, const float *zt, size_t label, size_t n_vocab, double logp_old,
                      double weight, double ret, double scale, float *dz, rt_loss_stats *stats, void *work)
{
    rt_loss_mix mix = {
        .n_terms = 2,
        .terms = {{weight, {.kind = RT_LOSS_RKL, .tau = 1}}, {0, {.kind = RT_LOSS_CE, .tau = 1}}}};
    rt_loss_row(&mix, z, zt, label, n_vocab, 1, NULL, NULL, stats, work);
    const double gain = weight * exp(-stats->nll_student - logp_old) * ret;
    const double loss = weight * stats->terms[0] - gain;
    const bool finite = stats->finite && isfinite(loss);
    mix.terms[1].weight = finite ? gain : 0;
    if (dz)
        rt_loss_row(&mix, z, zt, label, n_vocab, finite ? scale : 0, dz, NULL, stats, work);
    stats->loss = loss;
    stats->finite = finite;
    return loss;
}

double rt_minillm_ref(const float *z, const float *zt, size_t label, size_t n_vocab, double logp_old,
                      double weight, double ret, double *grad, double *room, void *work)
{
    const rt_loss_spec ce = {.kind = RT_LOSS_CE, .tau = 1}, rkl = {.kind = RT_LOSS_RKL, .tau = 1};
    bool finite;
    const double nll = rt_loss_ref(&ce, z, NULL, label, n_vocab, room, &finite, work);
    const double kl = rt_loss_ref(&rkl, z, zt, label, n_vocab, grad, &finite, work);
    const double gain = weight * exp(-nll - logp_old) * ret;
    for (size_t i = 0; i < n_vocab; i++)
        grad[i] = weight * grad[i] + gain * room[i];
    return weight * kl - gain;
}

/* ---- DistiLLM-2 ---- */

double rt_distillm2_beta(double beta_end, bool gradual, uint64_t step, uint64_t steps)
{
    const double half = (double)steps / 2;
    if (!gradual || (double)step >= half)
        return beta_end;
    return 1 + (beta_end - 1) * (double)step / half;
}

double rt_distillm2_alpha(double base, double reference, double mean_logq, double mean_logp)
{
    const double alpha = 1 - (1 - base) * reference / (exp(mean_logq) - exp(mean_logp) + 1e-5);
    return fmin(fmax(alpha, 0.01), base);
}
