/* serve/canaries.h - canary rows: a few answers of suspected accounts end with a sentence that holds one of N
 * equally good variants, drawn at random (METHODS-evidence section 5.5).
 *
 * The sentences are the operator's own, and must be true and harmless whichever variant stands in them (a
 * name or a number in an example that is called made up).  A canary is
 *   {"id": "shop", "when": "percent", "text": "A made-up example: {} sells ...", "variants": ["Mirela", ...]}
 * with {} once in the text, and is used for prompts that hold the words of `when` (absent: for any).  The
 * index comes from libsodium and is in coins.jsonl before a token is drawn; canaries.jsonl gets {prompt,
 * before, variants, after, served, ...} once the whole answer has been made and the client is there, a row
 * that `retort evidence` reads: if a suspect never saw these rows, the served variant's rank among all is
 * uniform. Left alone are requests with a seed, at temperature 0, for several choices, log-probabilities,
 * tools, echo or a form; and answers that end by their length or have no room for the sentence under their
 * limit.  The sentence is not charged.
 *
 * Event thread only. */
#ifndef RT_SERVE_CANARIES_H
#define RT_SERVE_CANARIES_H

#include <jansson.h>
#include <stddef.h>

#include "retort/error.h"

typedef struct rt_canaries rt_canaries;
/* list: an array of canaries, kept by reference; `where` names it in errors.  suspects [n]: account ids that
 * are treated as if on the guard's rung "twins"; borrowed.  share: of their requests, 0..0.2. */
rt_status rt_canaries_open(rt_canaries **out, const char *folder, json_t *list, const char *where,
                           const char *const *suspects, size_t n, double share, rt_error *err);
void rt_canaries_close(rt_canaries *canaries); /* NULL is allowed */

#endif
