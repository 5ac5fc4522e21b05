/* guard/guard.h - finds accounts that collect training data from a served model.
 *
 * One call for each request: rt_guard_observe.  It updates the account's record (fixed memory, no text is
 * kept) and, at counts that grow by a seventh, judges the account anew: the features of all signals give a
 * score, and the score a p-value against benign accounts (reference.h).  The largest score so far counts, and
 * the reference holds the largest scores of whole benign weeks, so looking often makes nobody a suspect by
 * chance.  After a week the account begins anew, and the week's p goes into its e-value (evalue.h), which may
 * be looked at for ever; so neither months of use make a suspect, nor does an honest past hide what an
 * account does once it has changed hands.
 *
 * The result depends on the events and their order alone, not on the clock or on threads: recorded traffic
 * replayed gives the verdicts of the live run bit for bit.  Not for use from two threads at once. */
#ifndef RT_GUARD_GUARD_H
#define RT_GUARD_GUARD_H

#include "guard/account.h"
#include "guard/drift.h"
#include "guard/reference.h"
#include "guard/signals.h"

typedef struct rt_guard rt_guard;

/* Called at each check of an account, before it is judged: for calibration and training. */
typedef void (*rt_guard_on_check)(void *context, const rt_guard_account *account,
                                  const float features[RT_GUARD_FEATURES]);

typedef struct rt_guard_options {
    const rt_guard_reference *reference; /* borrowed; NULL: the one that is part of the program */
    const char *asn_path; /* JSON object: network -> class (rt_guard_networks); NULL: classes not known */
    size_t accounts_max;  /* 0: a million; past it the account that is longest unseen and not flagged goes */
    uint64_t key;         /* of the sketches' hashes; 0: a fixed one */
    double block_seconds; /* 0: a week.  As long as the benign accounts of the reference were watched */
    double sweep_seconds; /* 0: six hours */
    double fdr;           /* the share of false ones among the accounts that a sweep confirms; 0: 0.1 */
    rt_guard_on_check on_check; /* may be NULL */
    void *context;
} rt_guard_options;

typedef struct rt_guard_verdict {
    float score, p;      /* of the account after this request; p 1 before the first check */
    bool checked;        /* was it judged at this request? */
    bool newly_flagged;  /* did p fall under 1 % here for the first time? */
    double e;            /* its e-value */
    uint32_t requests;   /* the account's so far */
    uint32_t flagged_at; /* 0: not yet */
    int want;            /* what this request wants most (rt_guard_want), and with which probability */
    float want_probability;
} rt_guard_verdict;

rt_status rt_guard_open(rt_guard **out, const rt_guard_options *options, rt_error *err);
void rt_guard_close(rt_guard *guard);

/* RT_INVALID for an account name of the wrong size; RT_NO_MEMORY. */
rt_status rt_guard_observe(rt_guard *guard, const rt_guard_event *event, rt_guard_verdict *verdict,
                           rt_error *err);
/* The same in two steps: what the guard takes of the request (from any thread), and the judgement. */
rt_status rt_guard_record_of(const rt_guard *guard, rt_guard_record *out, const rt_guard_event *event,
                             rt_error *err);
rt_status rt_guard_observe_record(rt_guard *guard, const rt_guard_record *record, rt_guard_verdict *verdict,
                                  rt_error *err);

/* Accounts in the order in which they were first seen; valid until the next observe or close. */
size_t rt_guard_count(const rt_guard *guard);
const rt_guard_account *rt_guard_account_at(const rt_guard *guard, size_t index);
const rt_guard_account *rt_guard_find(const rt_guard *guard, const char *name);
const rt_guard_reference *rt_guard_reference_of(const rt_guard *guard);
size_t rt_guard_evicted(const rt_guard *guard); /* accounts dropped for want of room */
const rt_guard_drift *rt_guard_drift_of(const rt_guard *guard);
uint64_t rt_guard_key(const rt_guard *guard);

/* Of all blocks together. */
uint32_t rt_guard_requests(const rt_guard_account *account);
double rt_guard_e(const rt_guard_account *account);

/* Accounts are linked and clusters judged (cluster.h) by a sweep over all of them.  It is due when the
 * traffic's own time passes a multiple of sweep_seconds: whoever feeds the guard asks before each event, in a
 * live server as in a replay, and both then sweep between the same two requests. */
bool rt_guard_sweep_due(const rt_guard *guard, double ts);
rt_status rt_guard_sweep(rt_guard *guard, double ts, rt_error *err);
/* For the sweep alone: what it found goes into the account. */
rt_guard_account *rt_guard_account_edit(rt_guard *guard, size_t index);

/* The whole state as bytes; a guard that reads them goes on bit for bit.  `mark`: the number of the last
 * row that was judged (0 where rows have none).  Reading refuses what is cut, changed, of another build's
 * layout or under another key; `where` names it in errors. */
typedef rt_status (*rt_guard_sink)(void *context, const void *data, size_t size, rt_error *err);
rt_status rt_guard_write(const rt_guard *guard, int64_t mark, rt_guard_sink sink, void *context,
                         rt_error *err);
rt_status rt_guard_read(rt_guard *guard, int64_t *mark, const void *data, size_t size, const char *where,
                        rt_error *err);
/* As one file, written atomically. */
rt_status rt_guard_save(const rt_guard *guard, int64_t mark, const char *path, rt_error *err);
rt_status rt_guard_load(rt_guard *guard, int64_t *mark, const char *path, rt_error *err);
/* The key that a state was saved under: to open a guard that can read it. */
rt_status rt_guard_state_key(uint64_t *key, const char *path, rt_error *err);

#endif
