/* guard/ladders.h - a guard with the ladder of every account: the one way in which events become decisions,
 * live and in a replay. */
#ifndef RT_GUARD_LADDERS_H
#define RT_GUARD_LADDERS_H

#include "guard/history.h"
#include "guard/ladder.h"

typedef struct rt_ladder_entry { /* of the guard's account of the same index */
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    rt_ladder_state state;
    bool answered;             /* the challenge */
    char case_id[40];          /* opened by the last decision; empty: none */
    rt_guard_history *history; /* NULL: it has never been worth looking at */
} rt_ladder_entry;

typedef struct rt_ladders_calls {
    /* Has a person put the account back since the ladder last acted?  NULL: never. */
    bool (*lifted)(void *context, const rt_ladder_entry *entry);
    /* A decision: the account's rung has changed, or a suspension is proposed.  May be NULL. */
    void (*decided)(void *context, const rt_guard_account *account, rt_ladder_entry *entry,
                    const rt_ladder_step *step);
    /* May this account be decided about at this row?  False where another server does, and for rows that were
     * judged before a crash and acted upon: what was found out then is kept elsewhere.  NULL: always. */
    bool (*decides)(void *context, const rt_guard_account *account, rt_ladder_entry *entry);
    /* The entry's state is another one than before the row, after `decided`.  May be NULL. */
    void (*changed)(void *context, const rt_ladder_entry *entry);
    void *context;
} rt_ladders_calls;

typedef struct rt_ladders rt_ladders;
/* guard and policy are borrowed. */
rt_status rt_ladders_open(rt_ladders **out, rt_guard *guard, const rt_guard_policy *policy,
                          const rt_ladders_calls *calls, rt_error *err);
/* Other thresholds from the next decision on; borrowed. */
void rt_ladders_set_policy(rt_ladders *ladders, const rt_guard_policy *policy);
void rt_ladders_close(rt_ladders *ladders); /* NULL is allowed */

/* A sweep where one is due, the event's verdict, and what follows from both. */
rt_status rt_ladders_feed(rt_ladders *ladders, const rt_guard_event *event, rt_guard_verdict *verdict,
                          rt_error *err);
rt_status rt_ladders_feed_record(rt_ladders *ladders, const rt_guard_record *record,
                                 rt_guard_verdict *verdict, rt_error *err);
/* Rows that the ladders have seen and the guard has not: they only go through the guard. */
void rt_ladders_set_quiet(rt_ladders *ladders, bool quiet);
/* After a sweep that was made outside: decides for every account that it may concern. */
void rt_ladders_decide_all(rt_ladders *ladders, double now);

/* The account's entry, made where there is none; NULL: no memory. */
rt_ladder_entry *rt_ladders_entry(rt_ladders *ladders, const rt_guard_account *account);
/* The same without making one; NULL: it has never been on a rung. */
const rt_ladder_entry *rt_ladders_find(const rt_ladders *ladders, const rt_guard_account *account);

/* All entries that say something, as JSON and back (unknown accounts are passed over). */
json_t *rt_ladders_json(const rt_ladders *ladders);
/* One entry without its history, and back; what is not well-formed is 0. */
json_t *rt_ladder_entry_json(const rt_ladder_entry *entry);
void rt_ladder_entry_restore(rt_ladder_entry *entry, const json_t *row);
rt_status rt_ladders_restore(rt_ladders *ladders, const json_t *list, const char *where, rt_error *err);

#endif
