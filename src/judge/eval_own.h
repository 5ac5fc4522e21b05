/* judge/eval_own.h - what students say themselves, under their teacher.
 *
 * Each student answers the same prompts, drawing from its own distribution (temperature 1, nothing cut off);
 * then teacher and student read what it said.  KL(student || teacher) at its tokens, over the whole
 * vocabulary, is what on-policy training lowers (METHODS 8): it counts what the student truly does, its
 * mistakes' consequences included, which no text of the teacher shows.  A figure is a ratio of sums over
 * documents; intervals draw prompts again, and two students are compared on the same draws (bootstrap.h).
 *
 * Short answers make few mistakes: the mean length and how many ended by themselves belong to the figures. */
#ifndef RT_JUDGE_EVAL_OWN_H
#define RT_JUDGE_EVAL_OWN_H

#include "judge/eval.h"
#include "model/tokenizer.h"

typedef struct rt_eval_own_figures { /* of one student on its own text */
    rt_metrics_sum total;
    size_t ended; /* answers that ended by themselves */
    rt_interval kl_student_teacher, kl_teacher_student, top1;
    /* This student less the first one, prompt by prompt; all 0 for that one. */
    rt_interval difference;         /* of kl_student_teacher */
    rt_interval forward_difference; /* of kl_teacher_student */
} rt_eval_own_figures;

typedef struct rt_eval_own_result {
    const rt_eval_model *models;  /* the caller's: the teacher, then the students */
    rt_eval_own_figures *figures; /* [n_models]; that of the teacher is empty */
    size_t n_models, n_prompts, answer_max, resamples;
} rt_eval_own_result;

/* Prompts are the beginnings of the text's documents, up to the first target; documents that have none, or
 * whose prompt leaves no room for an answer in a model's context, are passed over, and RT_INVALID when none
 * is left. answer_max > 0: tokens of an answer.  Of the options seed, resamples, tokens (of the documents),
 * n_vocab and progress (over all students) are used.  The tokenizer is the models'; NULL: answers end at
 * answer_max. */
rt_status rt_eval_own(rt_eval_own_result *out, const rt_eval_model *models, size_t n_models,
                      const rt_eval_text *text, const rt_tokenizer *tokenizer, size_t answer_max,
                      const rt_eval_options *options, rt_error *err);
void rt_eval_own_deinit(rt_eval_own_result *result);

/* "own" of eval.json as docs/report-format.md describes it; NULL when out of memory. */
json_t *rt_eval_own_json(const rt_eval_own_result *result);

#endif
