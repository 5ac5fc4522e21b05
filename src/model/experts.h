/* model/experts.h - a mixture of experts in place of a layer's MLP: forward, and what its backward pass
 * shares with it.  Internal to the model room.
 *
 * Tokens are sorted by expert, so that each expert's matrices are read once for all its tokens: (1) the
 * router chooses for each token, (2) a task takes one expert and a run of its tokens through gate_up,
 * activation and down, (3) each token adds up its experts' outputs in the order of their ids.  So the bits
 * depend neither on the number of threads nor on a token's neighbours. */
#ifndef RT_MODEL_EXPERTS_H
#define RT_MODEL_EXPERTS_H

#include "model/pass.h"

/* Chooses for rows [begin, begin + n) of the batch from their normed states h [n, n_embd], and keeps those.
 */
void rt_experts_route(const rt_model *model, rt_pass *pass, size_t layer, const float *h, size_t begin,
                      size_t n, rt_carver *scratch);
/* x [n_tokens, n_embd] += the experts' outputs, for all rows of the pass; after rt_experts_route. */
void rt_experts_run(const rt_model *model, rt_pass *pass, size_t layer, float *x);
size_t rt_experts_scratch(const rt_model *model, size_t block); /* bytes of the two, for a thread */

/* Sorts the kept choice by expert into pass->mixture: rows and first. */
void rt_experts_sort(const rt_model *model, rt_pass *pass, size_t layer);
/* Logits of n rows of h: out [n, experts]. */
void rt_experts_logits(const rt_model *model, size_t layer, const float *h, size_t n, float *out);

#endif
