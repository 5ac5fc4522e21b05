/* serve/watch.h - the guard beside the live server: every settled request is judged in a thread of its own,
 * and the ladder's decisions become states of accounts and limits of answers.
 *
 * What the guard wants of a request (rt_watch_note_of) goes into the account database in the transaction of
 * the request's ledger row; the thread judges the rows that are there.  So nothing that was answered is
 * missing after a crash: the state is written now and then with the number of its last row, and whoever
 * starts goes on from there.  Answers never wait for a judgement.
 *
 * Servers on one PostgreSQL judge all rows of all of them in the same order; one, which holds a lock there,
 * decides, and the others take its rungs from the database.  When it ends another goes on with the same bits.
 *
 * Decisions are written to the audit trail as the actor "guard", with a case number that the account can
 * appeal against.  What an operator has lifted stays lifted until the evidence has become stronger. */
#ifndef RT_SERVE_WATCH_H
#define RT_SERVE_WATCH_H

#include "account/admin.h"
#include "guard/ladders.h"

typedef struct rt_watch rt_watch;

typedef struct rt_watch_options { /* borrowed for the watch's life */
    rt_guard_options guard;
    const rt_guard_policy_file *policy;
    rt_gate *gate; /* its database holds rows, rungs, states, cases and the audit trail */
    const char
        *state_path;      /* written every minute and at the end, the ladder's own state beside it in
                             <state_path>.ladder; NULL: none.  With SQLite it is read at the start, and without it
                             the guard begins empty; with PostgreSQL the state is in the database. */
    const char *log_path; /* appends every event as a row that `retort guard replay` reads (it holds the
                             prompts), in the order in which this server's are judged; NULL: none */
} rt_watch_options;

rt_status rt_watch_open(rt_watch **out, const rt_watch_options *options, rt_error *err);
/* Judges what is written, saves, closes.  Before the gate.  NULL is allowed. */
void rt_watch_close(rt_watch *watch);

/* What goes into the ledger with the request (rt_outcome); malloc'd. */
typedef struct rt_watch_note {
    unsigned char *record; /* NULL: it could not be made, and was counted as dropped */
    size_t size;
    char *line; /* for the log; NULL: none is kept */
} rt_watch_note;
/* From any thread. */
rt_watch_note rt_watch_note_of(rt_watch *watch, const rt_guard_event *event);

/* What the ladder has left of an account's answers. */
typedef struct rt_watch_rules {
    size_t top_logprobs; /* most alternatives a token */
    bool no_logprobs, no_reasoning, challenged;
    bool no_bias_with_logprobs;
    char case_id[40];                   /* of the challenge; empty where there is none */
    bool own_mark;                      /* its answers carry its own key's watermark */
    double twins_share, canaries_share; /* of its requests; 0: it is not suspected enough */
} rt_watch_rules;
rt_watch_rules rt_watch_rules_of(rt_watch *watch, const char *account);
const rt_guard_policy *rt_watch_policy(rt_watch *watch);
/* Other thresholds from the next request that is judged; rungs that were taken stay until they lapse, and
 * what they leave of answers is decided anew.  Borrowed for the watch's life. */
void rt_watch_set_policy(rt_watch *watch, const rt_guard_policy_file *policy);
/* The account has said what it is for: it is served again until a person decides. */
void rt_watch_answered(rt_watch *watch, const char *account);

/* Accounts on any rung, the strongest evidence first: {account, rung, proposed, ...} with the fields of
 * rt_guard_result.  The caller owns it. */
json_t *rt_watch_list(rt_watch *watch);

/* From any thread: calls `look` while nothing is judged, returns what it made. */
typedef json_t *(*rt_watch_look)(void *context, const rt_guard *guard, const rt_ladders *ladders);
json_t *rt_watch_view(rt_watch *watch, rt_watch_look look, void *context);

typedef struct rt_watch_counts {
    uint64_t judged, dropped, decisions, failed; /* failed: decisions that the database did not take */
    bool leads;                                  /* this server decides */
    size_t rungs[RT_RUNG_COUNT]; /* accounts on each; [RT_RUNG_NONE]: those that left theirs */
} rt_watch_counts;
rt_watch_counts rt_watch_counts_of(rt_watch *watch);

#endif
