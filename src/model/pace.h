/* model/pace.h - how far a draft runs ahead: as long as one more proposal is expected to pay.
 *
 * Costs are in passes of the model over one token: a pass over n + 1 tokens costs 1 + n * RT_PACE_ROW, a pass
 * of the draft what its weights are of the model's.  A proposal that is accepted saves what a token has cost
 * so far.  How likely it is to be accepted is learnt, in bins: by the draft's largest probability, or by
 * how many ids agree with the place that was looked up.
 *
 * The rule keeps the output's distribution.  Whether a proposal is made at some place is decided before it
 * is drawn: from the proposals before it, from what was accepted in earlier rounds and from the draft's
 * distribution at that place, never from the draw itself nor from the model's distribution there.  Given that
 * it is made, it is a draw from q, which is all that acceptance by min(1, p/q) needs; where none is made, the
 * token is a draw from p.  (When proposals are kept by equality the token is the model's in any case.)
 *
 * Nothing depends on a clock, and each answer begins anew: the same seed gives the same answer. */
#ifndef RT_MODEL_PACE_H
#define RT_MODEL_PACE_H

#include <stdbool.h>
#include <stddef.h>

#include "model/decoder.h"

enum { RT_PACE_LOOKUP_BINS = 6, RT_PACE_DRAFT_BINS = 8, RT_PACE_BINS = 14 };
/* A row more in a pass of the model: 0.07 to 0.15 where weights come from memory ('bench speculate'). */
#define RT_PACE_ROW 0.1

typedef struct rt_pace {
    double draft_cost;
    double tested[RT_PACE_BINS], accepted[RT_PACE_BINS]; /* prior included */
    double draft_tested, draft_accepted;                 /* of all the draft's bins */
    double cost, tokens;                                 /* so far; later rounds count more */
} rt_pace;

/* draft_cost: of a token of the draft. */
void rt_pace_begin(rt_pace *pace, double draft_cost);
/* What a pass over one token reads of the weights, of `draft` in that of `model`; experts by those that run.
 */
double rt_pace_cost(const rt_model *draft, const rt_model *model);

size_t rt_pace_lookup_bin(size_t agreement);            /* ids that agree, at least RT_LOOKUP_SHORTEST */
size_t rt_pace_draft_bin(double largest);               /* probability of the draft's first choice */
double rt_pace_chance(const rt_pace *pace, size_t bin); /* that such a proposal is accepted */
double rt_pace_draft_chance(const rt_pace *pace);       /* the same before the draft has run */
/* What a proposal is worth less what it costs; `reach`: the chance that all before it are accepted. */
double rt_pace_gain(const rt_pace *pace, double reach, double chance, double cost);

/* A proposal was tested; accepted: 0, 1, or the chance that both distributions gave it. */
void rt_pace_learn(rt_pace *pace, size_t bin, double accepted);
/* A round: passes of the draft, proposals, tokens that came of it. */
void rt_pace_round(rt_pace *pace, size_t draft_passes, size_t proposals, size_t tokens);

#endif
