/* judge/metrics.c - see metrics.h. */
#include "judge/metrics.h"

#include <math.h>

#include "student/loss.h"
#include "tensor/row.h"

/* How many ids come before `id` in the order of falling logit, lower id first at a tie. */
static size_t rank_of(const float *z, size_t n, size_t id)
{
    const float at = z[id];
    uint32_t before = 0;
    for (size_t i = 0; i < id; i++)
        before += z[i] >= at;
    for (size_t i = id + 1; i < n; i++)
        before += z[i] > at;
    return before;
}

static void row_choices(rt_token_metrics *out, const float *z, size_t label, size_t n, size_t top_s,
                        size_t top_t)
{
    out->correct = top_s == label;
    out->top1_agree = top_s == top_t;
    out->top5_agree = rank_of(z, n, top_t) < 5;
}

/* For rows with ids that are -inf: the definitions, in double. */
static void row_by_reference(rt_token_metrics *out, const float *z, const float *zt, size_t label, size_t n,
                             size_t top_s, void *work)
{
    const rt_loss_spec ce = {.kind = RT_LOSS_CE}, fkl = {.kind = RT_LOSS_FKL}, rkl = {.kind = RT_LOSS_RKL};
    const rt_loss_spec tvd = {.kind = RT_LOSS_TVD};
    double *unused = (double *)work + 2 * n; /* the reference's own place for a gradient */
    bool finite;
    out->nll_student = rt_loss_ref(&ce, z, NULL, label, n, unused, &finite, work);
    out->nll_teacher = rt_loss_ref(&ce, zt, NULL, label, n, unused, &finite, work);
    out->kl_forward = rt_loss_ref(&fkl, z, zt, label, n, unused, &finite, work);
    out->kl_reverse = rt_loss_ref(&rkl, z, zt, label, n, unused, &finite, work);
    out->tvd = rt_loss_ref(&tvd, z, zt, label, n, unused, &finite, work);
    out->confidence = exp(-rt_loss_ref(&ce, z, NULL, top_s, n, unused, &finite, work));
}

void rt_metrics_row(rt_token_metrics *out, const float *z, const float *zt, size_t label, size_t n_vocab,
                    void *work)
{
    const rt_row_ops *ops = rt_row_ops_get();
    float max_s, max_t;
    size_t top_s, top_t;
    rt_row_sums sums;
    ops->argmax(z, n_vocab, &max_s, &top_s);
    ops->argmax(zt, n_vocab, &max_t, &top_t);
    ops->sums(z, zt, n_vocab, max_s, max_t, 1.0f, &sums);
    *out = (rt_token_metrics){0};
    row_choices(out, z, label, n_vocab, top_s, top_t);
    if (!isfinite(sums.s + sums.t + sums.sx + sums.ty)) {
        row_by_reference(out, z, zt, label, n_vocab, top_s, work);
        return;
    }
    const double log_s = log(sums.s), log_t = log(sums.t);
    const rt_row_grad pass = {
        .student = {max_s, (float)log_s}, .teacher = {max_t, (float)log_t}, .inv_tau = 1.0f};
    out->nll_student = log_s - ((double)z[label] - (double)max_s);
    out->nll_teacher = log_t - ((double)zt[label] - (double)max_t);
    out->kl_forward = fmax(0, sums.ty / sums.t - log_t + log_s);
    out->kl_reverse = fmax(0, sums.sx / sums.s - log_s + log_t);
    out->tvd = fmin(1, 0.5 * ops->l1(z, zt, n_vocab, &pass));
    out->confidence = 1 / sums.s;
}

double rt_metrics_short_tvd(const float *z, const float *zt, size_t n_vocab, const uint32_t *ids, size_t n)
{
    const double log_t = rt_log_sum_exp(zt, n_vocab);
    double max = -HUGE_VAL, sum = 0, both = 0; /* both: of min(p', q) */
    while (n > 0 && ids[n - 1] >= n_vocab)     /* ascending */
        n--;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)z[ids[i]]);
    if (!isfinite(max))
        return 1;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[ids[i]] - max);
    const double log_s = max + log(sum);
    for (size_t i = 0; i < n; i++)
        both += exp(fmin((double)z[ids[i]] - log_s, (double)zt[ids[i]] - log_t));
    return fmax(0, 1 - both);
}

void rt_metrics_add_token(rt_metrics_sum *sum, const rt_token_metrics *token)
{
    const double at = ceil(token->confidence * RT_ECE_BINS) - 1;
    const int bin = at < 0 ? 0 : at > RT_ECE_BINS - 1 ? RT_ECE_BINS - 1 : (int)at;
    sum->tokens += 1;
    sum->nll_student += token->nll_student;
    sum->nll_teacher += token->nll_teacher;
    sum->kl_forward += token->kl_forward;
    sum->kl_reverse += token->kl_reverse;
    sum->tvd += token->tvd;
    sum->top1_agree += token->top1_agree;
    sum->top5_agree += token->top5_agree;
    sum->bin_count[bin] += 1;
    sum->bin_confidence[bin] += token->confidence;
    sum->bin_correct[bin] += token->correct;
}

void rt_metrics_add(rt_metrics_sum *sum, const rt_metrics_sum *other)
{
    sum->tokens += other->tokens;
    sum->nll_student += other->nll_student;
    sum->nll_teacher += other->nll_teacher;
    sum->kl_forward += other->kl_forward;
    sum->kl_reverse += other->kl_reverse;
    sum->tvd += other->tvd;
    sum->top1_agree += other->top1_agree;
    sum->top5_agree += other->top5_agree;
    for (int b = 0; b < RT_ECE_BINS; b++) {
        sum->bin_count[b] += other->bin_count[b];
        sum->bin_confidence[b] += other->bin_confidence[b];
        sum->bin_correct[b] += other->bin_correct[b];
    }
}

static double mean(const rt_metrics_sum *sum, double total)
{
    return sum->tokens > 0 ? total / sum->tokens : 0;
}

double rt_metrics_perplexity(const rt_metrics_sum *sum) { return exp(mean(sum, sum->nll_student)); }
double rt_metrics_teacher_perplexity(const rt_metrics_sum *sum) { return exp(mean(sum, sum->nll_teacher)); }
double rt_metrics_kl_forward(const rt_metrics_sum *sum) { return mean(sum, sum->kl_forward); }
double rt_metrics_kl_reverse(const rt_metrics_sum *sum) { return mean(sum, sum->kl_reverse); }
double rt_metrics_tvd(const rt_metrics_sum *sum) { return mean(sum, sum->tvd); }
double rt_metrics_acceptance(const rt_metrics_sum *sum)
{
    return sum->tokens > 0 ? 1 - mean(sum, sum->tvd) : 0;
}
double rt_metrics_top1_agree(const rt_metrics_sum *sum) { return mean(sum, sum->top1_agree); }
double rt_metrics_top5_agree(const rt_metrics_sum *sum) { return mean(sum, sum->top5_agree); }

double rt_metrics_ece(const rt_metrics_sum *sum)
{
    double gap = 0;
    for (int b = 0; b < RT_ECE_BINS; b++)
        gap += fabs(sum->bin_correct[b] - sum->bin_confidence[b]);
    return mean(sum, gap);
}

double rt_tokens_per_round(double acceptance, unsigned n_drafts)
{
    double sum = 1, power = 1; /* 1 + a + ... + a^g, which has no 0/0 at a = 1 */
    for (unsigned i = 0; i < n_drafts; i++)
        sum += power *= acceptance;
    return sum;
}
