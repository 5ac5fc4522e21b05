/* model/router.h - which experts a token goes to, and how much each of them counts.
 *
 * From logits z [experts] (the router's product with the normed hidden state, float32):
 *   scores s = softmax(z) or sigmoid(z);  choice c = s + bias
 *   groups  the sum of each group's two best c; only experts of the best groups are chosen from
 *   experts the best c of those; of equal ones the first
 *   weights w_j = scale s_j / sum of the chosen s (normalised), else scale s_j
 * (Qwen3-MoE: softmax, no bias, one group; DeepSeek-V3 report, section 2.1.2: sigmoid.)  The choice itself
 * has no gradient.  Pure functions: safe from any thread. */
#ifndef RT_MODEL_ROUTER_H
#define RT_MODEL_ROUTER_H

#include <stdint.h>

#include "model/config.h"

/* ids [used], rising; weights [used]; bias [experts] or NULL; room [2 * experts].  Logits that are not finite
 * give some choice, never an id out of range. */
void rt_router_choose(uint32_t *ids, float *weights, const float *logits, const float *bias,
                      const rt_expert_config *config, float *room);
/* The weights of ids that were chosen before; room [experts]. */
void rt_router_weigh(float *weights, const uint32_t *ids, const float *logits, const rt_expert_config *config,
                     float *room);
/* dlogits [experts] = the gradient that dweights [used] of the chosen ids is; the same logits as before. */
void rt_router_backward(float *dlogits, const float *dweights, const float *logits, const uint32_t *ids,
                        const rt_expert_config *config);

#endif
