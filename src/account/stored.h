/* account/stored.h - answers kept under the Idempotency-Key that came with a request, for 24 hours, in the
 * database: a restart does not forget them, and servers on one PostgreSQL share them.
 *
 * The text is sealed like kept prompts.  Bounded: at most 8 MiB an answer and 256 MiB in all; the oldest
 * leave first.  With PostgreSQL a request claims its key, so that a second one on another server is told that
 * the first still runs; a claim whose server has died ends after hold_s. */
#ifndef RT_ACCOUNT_STORED_H
#define RT_ACCOUNT_STORED_H

#include "account/gate.h"
#include "base/text.h"

enum { RT_STORED_BYTES_MAX = 8 << 20, RT_STORED_ALL_MAX = 256 << 20, RT_STORED_HOURS = 24 };

typedef enum rt_stored_state {
    RT_STORED_NEW,     /* this request's: end it with rt_gate_stored_end */
    RT_STORED_RUNNING, /* on another server */
    RT_STORED_CONFLICT,
    RT_STORED_DONE, /* *body and *stream are the answer */
} rt_stored_state;

/* id: of account and key; request: of path and body; both hex digits of a SHA-256.  A database that fails
 * gives NEW: the request is served without the promise. */
rt_stored_state rt_gate_stored_begin(rt_gate *gate, const char *id, const char *request, double hold_s,
                                     rt_text *body, bool *stream);
/* Queued for the writer's thread.  body NULL: the request failed, and the key is free again. */
void rt_gate_stored_end(rt_gate *gate, const char *id, const char *request, const rt_text *body, bool stream);

#endif
