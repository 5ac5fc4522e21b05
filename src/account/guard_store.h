/* account/guard_store.h - what the guard keeps in the account database: requests that wait to be judged, the
 * rungs of accounts, and with PostgreSQL the guard's state.  All of it is bytes and texts here; serve/watch.h
 * knows what they mean.
 *
 * A row is written in the transaction of the request's ledger row (rt_outcome.record), sealed.  Rows have
 * numbers without gaps, in the order in which they are judged: with SQLite that in which they were written,
 * with PostgreSQL the one that the server gave them that judges.  That is the server which holds the lock; it
 * alone numbers, writes rungs and the state, and when its connection ends another takes over.
 *
 * One connection of its own; for one thread at a time. */
#ifndef RT_ACCOUNT_GUARD_STORE_H
#define RT_ACCOUNT_GUARD_STORE_H

#include "account/gate.h"
#include "base/text.h"

typedef struct rt_guard_store rt_guard_store;

rt_status rt_guard_store_open(rt_guard_store **out, rt_gate *gate, rt_error *err);
void rt_guard_store_close(rt_guard_store *store); /* NULL is allowed; ends the leadership */
bool rt_guard_store_is_shared(const rt_guard_store *store);
/* For the guard's hashes: the same on all servers that have the same secrets, and nobody else's. */
uint64_t rt_guard_store_key(const rt_guard_store *store);

/* Does this server judge?  Asked before each round; with SQLite it always does. */
rt_status rt_guard_store_lead(rt_guard_store *store, bool *leads, rt_error *err);
/* For the one that leads, with PostgreSQL: rows up to `judged` are judged and decided about; up to `max` rows
 * that have no number get the next ones. */
rt_status rt_guard_store_number(rt_guard_store *store, int64_t judged, size_t max, rt_error *err);
/* The largest number; 0: there is none. */
rt_status rt_guard_store_last(rt_guard_store *store, int64_t *last, rt_error *err);

typedef struct rt_guard_row_kept {
    int64_t number;
    size_t size; /* of data; 0: its seal did not hold */
    unsigned char *data;
} rt_guard_row_kept;
/* Up to `max` rows past `after`, in order; the caller frees each `data`.  A server that does not lead gets
 * rows that were judged: when it comes to lead, no row lies behind it that nobody decided about. */
rt_status rt_guard_store_read(rt_guard_store *store, int64_t after, size_t max, rt_guard_row_kept *rows,
                              size_t *n_rows, rt_error *err);
/* Drops rows before `number`, some at a time; *more: there are others. */
rt_status rt_guard_store_drop(rt_guard_store *store, int64_t number, bool *more, rt_error *err);

/* An account's rung.  `answered` is any server's to set; the rung is the judging one's.  reset: the challenge
 * that was answered is over. */
typedef void (*rt_guard_rung_fn)(void *context, const char *account, int64_t number, const char *entry,
                                 bool answered);
rt_status rt_guard_store_rung_put(rt_guard_store *store, const char *account, int64_t number,
                                  const char *entry, bool reset, rt_error *err);
rt_status rt_guard_store_answered(rt_guard_store *store, const char *account, rt_error *err);
/* Those that were changed since the last call, each once. */
rt_status rt_guard_store_rungs(rt_guard_store *store, rt_guard_rung_fn fn, void *context, rt_error *err);

/* The state: named runs of bytes in one transaction; parts that are as before are not written again.
 * begin, then put for each piece in order (`name` changes where the next run begins), then commit. */
rt_status rt_guard_store_state_begin(rt_guard_store *store, rt_error *err);
rt_status rt_guard_store_state_put(rt_guard_store *store, const char *name, const void *data, size_t size,
                                   rt_error *err);
rt_status rt_guard_store_state_commit(rt_guard_store *store, rt_error *err);
void rt_guard_store_state_abort(rt_guard_store *store);
/* One run as it was put; nothing is appended where there is none. */
rt_status rt_guard_store_state_get(rt_guard_store *store, const char *name, rt_text *out, rt_error *err);

#endif
