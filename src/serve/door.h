/* serve/door.h - questions to the gate that may take long, asked beside the event loop.
 *
 * With SQLite the gate answers from memory, and all of this happens at once.  With PostgreSQL the database is
 * asked for each request: a clerk does that (RT_CLERK_DOOR), one after the other on one connection, and the
 * loop goes on.  A database that hangs so delays requests that begin, until they are refused (gate.h), and
 * nothing that runs.  Event thread only. */
#ifndef RT_SERVE_DOOR_H
#define RT_SERVE_DOOR_H

#include "account/stored.h"
#include "serve/clerks.h"
#include "serve/fault.h"
#include "serve/http.h"
#include "serve/idempotency.h"

typedef struct rt_call rt_call;
typedef struct rt_serve rt_serve;

/* Goes on with a head: accounts and keys are as new as the database, or *why says why not (NULL: they are).
 * false: answered. */
typedef bool (*rt_head_then)(rt_serve *serve, rt_http_exchange *x, const rt_fault *why);
/* Like `head` of rt_http_handler. */
bool rt_door_head(rt_serve *serve, rt_http_exchange *x, rt_head_then then);

typedef void (*rt_call_then)(rt_call *call, const rt_fault *why); /* why NULL: go on */
typedef struct rt_question {                                      /* of one call; one at a time */
    rt_errand errand;
    rt_call *call;
    rt_gate_ask ask;
    rt_refusal refusal;
    rt_ticket *ticket;
    rt_kept_answer *entry;
    rt_stored_state state;
    rt_text body;
    bool stream;
    rt_call_then then;
} rt_question;

/* Reserves call->question.ask.  A client that leaves meanwhile is settled, and `then` is not called. */
void rt_door_admit(rt_call *call, rt_call_then then);
/* Looks call->question.entry up; the answer is in call->question. */
void rt_door_stored(rt_call *call, rt_call_then then);
/* Once a second: what has changed, for those that run. */
void rt_door_tick(rt_serve *serve);

#endif
