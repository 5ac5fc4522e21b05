/* evidence/weigh.h - detection in text where each place counts as much as the speaker was free there.
 *
 * A token that was certain carries no mark: of a token of probability p, a tournament's first layer shows g =
 * 1 with probability 1/2 + (1 - p)/4, a green list and Gumbel's choice likewise less the nearer p is to 1.
 * The weights 1 - p come from the text and a model alone, never from the key, so the test of weighted sums
 * (METHODS-evidence 4.1, 4.3) holds as it is; another model than the speaker costs power only. */
#ifndef RT_EVIDENCE_WEIGH_H
#define RT_EVIDENCE_WEIGH_H

#include "evidence/subject.h"

/* weights [text->ids.count]: 1 - P(id | prompt, ids before it); 0 where the model gives none (the first id of
 * a text without a prompt, ids past the model's context). */
rt_status rt_weigh_text(float *weights, rt_subject *speaker, const rt_text_item *text, rt_error *err);
/* Adds a text's places, but those whose context of the reading's h stood earlier in the same text: a marker
 * leaves these alone. */
rt_status rt_weigh_add(rt_reading *reading, size_t h, const int32_t *ids, const float *weights, size_t n,
                       rt_error *err);

#endif
