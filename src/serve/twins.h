/* serve/twins.h - twin answers: of some requests of a suspected account two answers are drawn, a coin says
 * which is sent, the other is kept (METHODS-evidence section 5.5).
 *
 * Later the log-probabilities of both under a suspect are compared: had it never seen what was sent, the
 * coins alone would make the differences symmetric.  Both answers are made the same way, as jobs of their own
 * with seeds of their own, and the coin from libsodium decides which seed the client gets.  It is in
 * coins.jsonl before a token is drawn; twins.jsonl gets {prompt, delivered, twin, ...} when both have ended,
 * a row that `retort evidence` reads.  A pair is left out when either answer was aborted or both are alike,
 * which is blind to the coin; for the same reason a client that leaves does not end the answer it would have
 * had (it pays for what was made until it left).  Files are 0600 in a folder of 0700.  The account is charged
 * for one answer.
 *
 * Event thread only. */
#ifndef RT_SERVE_TWINS_H
#define RT_SERVE_TWINS_H

#include <stdbool.h>
#include <stddef.h>

#include "retort/error.h"

typedef struct rt_twins rt_twins;
/* suspects [n]: account ids that are treated as if on the guard's rung "twins"; borrowed.  share: of their
 * requests, 0..0.2. */
rt_status rt_twins_open(rt_twins **out, const char *folder, const char *const *suspects, size_t n,
                        double share, rt_error *err);
void rt_twins_close(rt_twins *twins); /* NULL is allowed */

#endif
