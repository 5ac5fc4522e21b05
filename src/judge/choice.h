/* judge/choice.h - multiple choice by likelihood: which ending does a model think likeliest behind its
 * context?
 *
 * The text is taken as it is, without a chat template; context and ending are tokenised together and the
 * ending's tokens are those behind the context's own (lm-eval's rule). */
#ifndef RT_JUDGE_CHOICE_H
#define RT_JUDGE_CHOICE_H

#include "judge/problem.h"
#include "model/session.h"
#include "model/tokenizer.h"

typedef struct rt_choice_result {
    bool right;          /* the ending with the largest log p is the right one */
    bool right_per_byte; /* the same of log p over the ending's bytes (acc_norm) */
    double log_p[64];    /* [n_choices] */
} rt_choice_result;

typedef struct rt_chooser rt_chooser; /* a session and its scratch; one thread at a time */
rt_status rt_chooser_open(rt_chooser **out, const rt_model *model, const rt_tokenizer *tokenizer,
                          rt_error *err);
void rt_chooser_close(rt_chooser *chooser);
/* A context that does not fit is cut at its beginning.  RT_INVALID: an ending without a token. */
rt_status rt_chooser_ask(rt_chooser *chooser, const rt_problem *problem, rt_choice_result *out,
                         rt_error *err);

#endif
