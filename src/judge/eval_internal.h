/* judge/eval_internal.h - what eval.c gathers and eval_figures.c makes intervals of. */
#ifndef RT_JUDGE_EVAL_INTERNAL_H
#define RT_JUDGE_EVAL_INTERNAL_H

#include "judge/eval.h"

enum { EVAL_GROUPS = RT_EVAL_POSITIONS + RT_KIND_COUNT };

typedef struct eval_group_sum {
    double tokens, kl, tvd, top1;
} eval_group_sum;

/* One document under one model. */
typedef struct eval_record {
    rt_metrics_sum sum;
    eval_group_sum groups[EVAL_GROUPS]; /* positions, then kinds */
} eval_record;

/* Tokens of a piece that are to be predicted; its first one never is. */
size_t rt_eval_count_targets(const uint8_t *mask, size_t n);

/* Every model over the text: *records [n_models][n_docs of r], the caller frees them; r has no figures yet.
 */
rt_status rt_eval_gather(rt_eval_result *r, eval_record **records, const rt_eval_model *models,
                         size_t n_models, const rt_eval_text *text, const rt_eval_options *options,
                         rt_error *err);

/* Figures and intervals from records [n_models][n_docs]. */
rt_status rt_eval_summarise(rt_eval_result *result, const eval_record *records, rt_pool *pool, rt_error *err);

#endif
