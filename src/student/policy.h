/* student/policy.h - objectives on the student's own samples (METHODS 8), one sampled token at a time.
 *
 * y was drawn from p_old (the student when it sampled); p is the student now, q the teacher; r =
 * p(y)/p_old(y). With advantage A: IS         L = -r A                                   the importance form
 *   CLIP       L = -min(r A, clip(r, 1 - low, 1 + high) A)      PPO
 *   TRUNCATED  L = -sg(min(r, cap)) A log p(y)            the weight carries no gradient
 * The per-token reverse KL as advantage is A = -(log p_old - log q), discount 0.
 *
 * The rows work like rt_loss_row: float32, safe from any thread with a `work` of rt_loss_work_bytes. */
#ifndef RT_STUDENT_POLICY_H
#define RT_STUDENT_POLICY_H

#include "student/loss.h"

typedef enum rt_policy_kind { RT_POLICY_IS, RT_POLICY_CLIP, RT_POLICY_TRUNCATED } rt_policy_kind;

typedef struct rt_policy {
    rt_policy_kind kind;
    double clip_low, clip_high; /* CLIP */
    double cap;                 /* TRUNCATED, > 0 */
} rt_policy;

/* advantage[t] = sum over s >= t of discount^(s-t) (log q(y_s) - log p_old(y_s)); discount 0: the token's
 * own.
 */
void rt_policy_advantages(double *advantage, const double *logq, const double *logp_old, size_t n,
                          double discount);
/* The loss of a token and, in *slope, its derivative by log p(y). */
double rt_policy_token(const rt_policy *policy, double logp, double logp_old, double advantage,
                       double *slope);
/* The same from a row of logits: returns the loss and writes scale * d loss / dz to dz (may be NULL). */
double rt_policy_row(const rt_policy *policy, const float *z, size_t label, size_t n_vocab, double logp_old,
                     double advantage, double scale, float *dz, rt_loss_stats *stats, void *work);
/* In double, grad [n_vocab]: the meaning of rt_policy_row. */
double rt_policy_ref(const rt_policy *policy, const float *z, size_t label, size_t n_vocab, double logp_old,
                     double advantage, double *grad, void *work);

/* Estimators of KL(p||q) at y ~ p, d = log q - log p: -d (unbiased), d^2/2, e^d - 1 - d (unbiased, >= 0). */
void rt_kl_estimators(double out[3], double logp, double logq);

/* MiniLLM, y drawn from a q + (1-a) p_old: weight w_t = p_old/(a q + (1-a) p_old) of the step alone; returns
 * R_t: the mean of log(q/p_old) over later tokens.
 *   L_t = w_t KL(p||q)_t - w_t r_t R_t */
void rt_minillm_terms(double *weight, double *returns, const double *logq, const double *logp_old, size_t n,
                      double mix);
double rt_minillm_row(const float *z, const float *zt, size_t label, size_t n_vocab, double logp_old,
                      double weight, double ret, double scale, float *dz, rt_loss_stats *stats, void *work);
/* In double; room [n_vocab] doubles beside work. */
double rt_minillm_ref(const float *z, const float *zt, size_t label, size_t n_vocab, double logp_old,
                      double weight, double ret, double *grad, double *room, void *work);

/* DistiLLM-2: (2-b) mean SKL on the teacher's responses + b mean SRKL on the student's.  b goes from 1 to
 * `beta_end` over the first half of the steps when it is gradual. */
double rt_distillm2_beta(double beta_end, bool gradual, uint64_t step, uint64_t steps);
/* The skew of a sequence: clip(1 - (1 - base) reference / (e^logq - e^logp + 1e-5), 0.01, base), logq and
 * logp the means over its tokens; reference: that difference at the first logged step. */
double rt_distillm2_alpha(double base, double reference, double mean_logq, double mean_logp);

#endif
