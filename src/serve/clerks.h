/* serve/clerks.h - calls of the account room in threads of their own, so that a slow one (usage over a year,
 * the whole audit trail) delays no stream.
 *
 * There are four clerks.  Three have a connection of their own: one for what account holders ask about
 * themselves, one for what operators read, one for what they change.  So a suspension does not wait for a
 * report, and no account holder can keep an operator waiting.  The fourth asks the gate itself, where that
 * may take long: with PostgreSQL, for every request (door.h).  Event thread only, but for `work`. */
#ifndef RT_SERVE_CLERKS_H
#define RT_SERVE_CLERKS_H

#include "account/admin.h"

typedef enum rt_clerk { RT_CLERK_OWN, RT_CLERK_READS, RT_CLERK_CHANGES, RT_CLERK_DOOR, RT_CLERKS } rt_clerk;

typedef struct rt_errand { /* the first member of what the caller needs; the caller's memory */
    /* In the clerk's thread; desk NULL: RT_CLERK_DOOR. */
    rt_desk_reply (*work)(struct rt_errand *errand, rt_desk *desk);
    /* In the event thread; the errand is the caller's again.  reply.http 0: it was never run. */
    void (*done)(struct rt_errand *errand);
    rt_desk_reply reply;
    struct rt_errand *next;
} rt_errand;

typedef struct rt_clerks rt_clerks;
/* wake is called from a clerk's thread: call rt_clerks_news soon. */
rt_status rt_clerks_open(rt_clerks **out, rt_gate *gate, void (*wake)(void *context), void *context,
                         rt_error *err);
/* Waits for what runs, gives back everything else undone.  NULL is allowed. */
void rt_clerks_close(rt_clerks *clerks);
/* false: too many wait; the errand stays the caller's and `done` is not called. */
bool rt_clerks_send(rt_clerks *clerks, rt_clerk which, rt_errand *errand);
void rt_clerks_news(rt_clerks *clerks); /* calls `done` of what is ready; NULL is allowed */

#endif
