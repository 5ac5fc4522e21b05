/* serve/draw.h - from logits to the next token, and to log-probabilities of the model's own distribution. */
#ifndef RT_SERVE_DRAW_H
#define RT_SERVE_DRAW_H

#include "serve/constrain.h"
#include "serve/job.h"

/* Log-sum-exp of logits [n] in nats; scratch [n] is overwritten. */
double rt_log_sum(const float *logits, size_t n, float *scratch);
/* The k likeliest ids, best first, equal ones by id; out[k], k <= n.  lse: of rt_log_sum. */
void rt_top_logprobs(const float *logits, size_t n, double lse, rt_top *out, size_t k);
/* log p of one id and its rank among all (1: none is likelier). */
void rt_score_id(const float *logits, size_t n, double lse, int32_t id, rt_scored *out);

typedef struct rt_drawer { /* scratch of one thread for one vocabulary */
    rt_sampler *sampler;
    float *raw, *scratch;        /* [n_vocab] */
    uint32_t *counts;            /* [n_vocab], zero between calls */
    rt_constrainer *constrainer; /* NULL until a grammar needs it */
    const rt_tokenizer *tokenizer;
} rt_drawer;
rt_status rt_drawer_init(rt_drawer *drawer, const rt_tokenizer *tokenizer, size_t n_vocab, rt_error *err);
void rt_drawer_deinit(rt_drawer *drawer);
/* Draws token number `n_answer` of a choice.  ids: prompt, then answer.  logits are changed.  With
 * options->top_logprobs >= 0 *out also gets logprob and rank, and top[top_logprobs].  out->id -1: the grammar
 * lets nothing come (or there is no memory for it), and the answer ends here. */
void rt_draw_token(rt_drawer *drawer, const rt_job_options *options, const rt_choice *choice, float *logits,
                   size_t n_vocab, const int32_t *ids, size_t n_prompt, size_t n_answer, rt_scored *out,
                   rt_top *top);

#endif
