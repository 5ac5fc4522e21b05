/* student/own.h - training on what the student itself says (on-policy distillation, METHODS 8).
 *
 * A share of the steps, each by its own chance (GKD's lambda), takes its text not from the data set but from
 * answers that the student samples to the data set's prompts; the teacher then scores the student's own
 * tokens, and no gradient goes through the sampling.  Answers are sampled a set at a time and each set is
 * gone through once, so its later steps are a little behind the student: the sampled objectives weigh that by
 * p / p_old.
 *
 * Two kinds of objective: any mixture of loss.h over the whole vocabulary at each sampled position (reverse
 * KL by default), or the sampled tokens alone, with the per-token reverse KL as advantage (policy.h), which
 * needs one log-probability of the teacher a token. */
#ifndef RT_STUDENT_OWN_H
#define RT_STUDENT_OWN_H

#include "student/data.h"
#include "student/policy.h"
#include "student/trainer.h"

typedef struct rt_own_options {
    double share;              /* of the steps, in [0, 1] */
    size_t answers;            /* of a set */
    size_t tokens_max;         /* of an answer */
    size_t document_max;       /* of a prompt with its answer */
    double temperature, top_p; /* of the sampling */
    rt_objective objective;    /* where `sampled` is false */
    bool sampled;              /* the sampled tokens alone, by `policy`; needs temperature 1 and top_p 1 */
    rt_policy policy;
    uint64_t seed;
} rt_own_options;

typedef struct rt_own {
    rt_own_options options;
    const rt_tokenizer *tokenizer; /* borrowed; NULL: answers end at tokens_max */
    const rt_documents *texts;     /* borrowed: where the prompts are */
    uint32_t *prompts;             /* [n_prompts] documents whose prompt leaves room for an answer */
    uint32_t *order;               /* [n_prompts] scratch: the prompts of one time round, shuffled */
    size_t n_prompts, batch_tokens;
    /* the set at hand, and what a checkpoint keeps of it */
    uint64_t asked; /* prompts so far, over all sets */
    rt_documents docs;
    float *logp_old;         /* [docs.n_tokens] of the targets; sampled objectives only */
    rt_dealer dealer;        /* over docs */
    float *row_logp;         /* [tokens_max of a batch] of the batch at hand */
    size_t answers, stopped; /* so far; those that ended by themselves */
    double seconds;          /* of sampling, so far */
} rt_own;

/* Prompts are the beginnings of documents, up to the first token with a loss.  RT_INVALID: none is short
 * enough. batch_tokens: of a micro-batch. */
rt_status rt_own_open(rt_own *own, const rt_own_options *options, const rt_documents *texts,
                      const rt_tokenizer *tokenizer, size_t batch_tokens, rt_error *err);
void rt_own_close(rt_own *own);

/* Is the step (from 0) one on own answers? */
bool rt_own_step(const rt_own *own, uint64_t step);
/* Samples a new set where the one at hand has been gone through.  The trainer's step names the draws. */
rt_status rt_own_refill(rt_own *own, const rt_trainer *trainer, rt_error *err);
/* Puts objective and, where it is a sampled one, log p_old of each row to the batch dealt from own->dealer.
 */
void rt_own_fill(rt_own *own, const rt_trainer *trainer, rt_loss_mix *mix, rt_deal *deal);

/* For checkpoints: the set as arrays, and back.  words: asked, cursor, answers, stopped, ms of
 * sampling. */
enum { RT_OWN_WORDS = 5 };
void rt_own_words(const rt_own *own, int64_t words[RT_OWN_WORDS]);
rt_status rt_own_restore(rt_own *own, const int64_t words[RT_OWN_WORDS], const int32_t *ids,
                         const uint8_t *mask, const float *logp_old, size_t n_tokens, const int64_t *begins,
                         size_t n_docs, rt_error *err);

#endif
