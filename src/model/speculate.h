/* model/speculate.h - speculative decoding: a draft model runs a few tokens ahead, the model reads them all
 * in one pass and keeps those that it could have said itself.
 *
 * Lossless.  A proposal x that the draft drew from q is kept with chance min(1, p(x)/q(x)), p what the model
 * draws from; the first that is refused is replaced by a draw from max(p - q, 0), and when all are kept the
 * pass gives one token more (Leviathan et al. 2023, Chen et al. 2023).  Greedy, or with a marker, a proposal
 * is kept when it is the id that the model alone chooses at that position, so that the answer is the very
 * same; the draft then marks as well.
 *
 * Proposals come from a draft model, from what followed the last words when they were said before
 * (model/lookup.h; q is then all at one id), or from whichever promises more at each place.  How far they run
 * ahead is decided by model/pace.h, never by a clock: the same seed gives the same answer.
 */
#ifndef RT_MODEL_SPECULATE_H
#define RT_MODEL_SPECULATE_H

#include "model/generate.h"

/* rt_generate with options->draft or draft_lookup. */
rt_status rt_speculate(const rt_model *model, const rt_tokenizer *tokenizer, const rt_prompt *prompts,
                       size_t n_prompts, const rt_generate_options *options, rt_generate_stats *stats,
                       rt_error *err);

#endif
