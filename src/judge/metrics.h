/* judge/metrics.h - how near a student's predictions are to its teacher's and to the text, token by token.
 *
 * At temperature 1 (METHODS 14), with p the student's distribution, q the teacher's, y the token of the text.
 * Sums are kept by group (a document, a position, a kind of token) and are plain data: add them up in any
 * grouping, and the figures follow from the sums. */
#ifndef RT_JUDGE_METRICS_H
#define RT_JUDGE_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rt_token_metrics {
    double nll_student, nll_teacher; /* -log p_y, -log q_y; nats */
    double kl_forward, kl_reverse;   /* KL(q||p), KL(p||q) */
    double tvd;        /* (1/2) sum |p - q|; a draft from p is accepted with probability 1 - tvd */
    double confidence; /* the student's largest probability */
    bool correct;      /* the student's first choice is y */
    bool top1_agree;   /* the two first choices are the same id */
    bool top5_agree;   /* the teacher's first choice is among the student's first five */
} rt_token_metrics;

/* One token's two rows [n_vocab]; label < n_vocab.  work: rt_loss_work_bytes(n_vocab) bytes, used only by
 * rows that hold masked ids.  Ties go to the lower id.  Safe from any thread. */
void rt_metrics_row(rt_token_metrics *out, const float *z, const float *zt, size_t label, size_t n_vocab,
                    void *work);

/* The same for a draft that may say ids [n] alone, those of n_vocab: half of sum |p' - q|, where p' is p with
 * the other ids left out; 1 where it may say none of them. */
double rt_metrics_short_tvd(const float *z, const float *zt, size_t n_vocab, const uint32_t *ids, size_t n);

enum { RT_ECE_BINS = 15 }; /* bin b holds confidences in (b/15, (b+1)/15] */

typedef struct rt_metrics_sum {
    double tokens;
    double nll_student, nll_teacher, kl_forward, kl_reverse, tvd;
    double top1_agree, top5_agree;
    double bin_count[RT_ECE_BINS], bin_confidence[RT_ECE_BINS], bin_correct[RT_ECE_BINS];
} rt_metrics_sum;

void rt_metrics_add_token(rt_metrics_sum *sum, const rt_token_metrics *token);
void rt_metrics_add(rt_metrics_sum *sum, const rt_metrics_sum *other);

/* Figures of a sum; 0 without tokens.  The type lets a bootstrap take any of them. */
typedef double (*rt_metrics_figure)(const rt_metrics_sum *sum);
double rt_metrics_perplexity(const rt_metrics_sum *sum); /* exp mean nll, the student's */
double rt_metrics_teacher_perplexity(const rt_metrics_sum *sum);
double rt_metrics_kl_forward(const rt_metrics_sum *sum);
double rt_metrics_kl_reverse(const rt_metrics_sum *sum);
double rt_metrics_tvd(const rt_metrics_sum *sum);
double rt_metrics_acceptance(const rt_metrics_sum *sum); /* 1 - tvd */
double rt_metrics_top1_agree(const rt_metrics_sum *sum);
double rt_metrics_top5_agree(const rt_metrics_sum *sum);
double rt_metrics_ece(const rt_metrics_sum *sum); /* against the text */

/* Tokens that a round of speculative decoding yields with n_drafts drafts, each accepted with chance
 * `acceptance` whatever the others: (1 - a^(g+1))/(1 - a). */
double rt_tokens_per_round(double acceptance, unsigned n_drafts);

#endif
