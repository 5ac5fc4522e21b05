/* account/gate.h - the door of the server: who asks, may he, what does it cost at most, what did it cost.
 *
 * For every request, in this order:
 *     rt_gate_authenticate   the key           401, 429 (an address that guesses)
 *     rt_gate_check_state    the account       403
 *     rt_gate_check_ask      model, features   403
 *     rt_gate_admit          all limits        400, 429, 503: reserves the worst case, or takes nothing
 *     rt_gate_settle         once, always      at the last token, a fault, or the client's disconnect
 *
 * At every instant settled + reserved <= budget, for key and account: the worst case (prompt + longest
 * answer) is taken atomically before the work begins, and what was not used goes back at the end.  With
 * SQLite the counters live in this process, which holds the database's server lock; with PostgreSQL they live
 * in the database, so that several servers share them to the token.
 *
 * All functions may be called from any thread.  rt_gate_settle queues a ledger row for the writer thread,
 * which commits in groups; `done` is called from that thread when the row is on the disk: send the last byte
 * then.  Where the disk is quick and the writer sleeps, the row is written before rt_gate_settle returns. */
#ifndef RT_ACCOUNT_GATE_H
#define RT_ACCOUNT_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account/limits.h"
#include "account/terms.h"
#include "retort/error.h"

typedef struct rt_gate rt_gate;
typedef struct rt_ticket rt_ticket;

typedef struct rt_time_source { /* NULL functions: the system's clocks */
    double (*monotonic_s)(void *context);
    int64_t (*unix_ms)(void *context);
    void *context;
} rt_time_source;

typedef struct rt_gate_options {
    const char *db; /* a path, or postgres://...; copied */
    const char
        *secrets; /* file of the signing and sealing keys; NULL: beside the database (secrets.h); copied */
    const rt_terms *terms; /* borrowed for the gate's life; NULL: no terms are asked for */
    json_t *prices; /* shared, rt_prices_check'ed; for accounts without prices of their own; NULL: none */
    int64_t ledger_days; /* rows older than this are pruned; 0: kept for ever */
    rt_time_source clock;
} rt_gate_options;

/* RT_BUSY when another server holds the SQLite file; RT_UNSUPPORTED when its schema is a newer program's. */
rt_status rt_gate_open(rt_gate **out, const rt_gate_options *options, rt_error *err);
/* Writes what is queued (calling every `done`) and closes.  No ticket may be open. */
void rt_gate_close(rt_gate *gate);
/* Other terms and prices from the next request on; those under way are charged as they were admitted.  terms
 * is borrowed for the gate's life, since a call may still read older ones. */
void rt_gate_set_rules(rt_gate *gate, const rt_terms *terms, json_t *prices);
/* How many accounts there are that are not closed: a server without any binds to loopback only. */
size_t rt_gate_account_count(rt_gate *gate);

/* Why a request is refused: the error body and headers of API.md 2.  type, code, param are constants. */
typedef struct rt_refusal {
    int http;
    const char *type, *code;
    const char *param; /* NULL for null */
    char message[512];
    double retry_after_s; /* < 0: no Retry-After; else 0..120 */
    bool no_retry;        /* send x-should-retry: false */
    bool authenticate;    /* send WWW-Authenticate: Bearer */
} rt_refusal;

typedef enum rt_account_state {
    RT_ACCOUNT_ACTIVE,
    RT_ACCOUNT_WATCHED,
    RT_ACCOUNT_THROTTLED,
    RT_ACCOUNT_SUSPENDED,
    RT_ACCOUNT_CLOSED,
} rt_account_state;
const char *rt_account_state_name(rt_account_state state); /* "active", ... */
bool rt_account_state_parse(rt_account_state *out, const char *name);

/* Who asks: a snapshot that does not change; release it when the request has ended. */
typedef struct rt_caller {
    char account[40], key[24]; /* "acc_...", the key's 8 characters */
    int64_t max_tokens;        /* the stricter of key and account; RT_LIMIT_NONE: none */
    int64_t top_logprobs;
    bool score, capture, prompt_log, distillation; /* permissions */
    double created;                                /* the account, seconds since 1970 */
    bool bounded;      /* a budget or a limit of tokens holds for key or account */
    bool wants_prompt; /* the policy keeps prompts or their hashes: hand the prompt to rt_gate_settle */
    bool full_prompt;  /* it keeps them as they are */
    json_t *models;    /* names allowed, or NULL: all */
} rt_caller;

/* key: the secret as sent, without "Bearer "; NULL when there is none.  address: the peer's, for the throttle
 * of guesses and the log.  NULL and *refusal on failure.  Unknown and wrong keys take the same time. */
const rt_caller *rt_gate_authenticate(rt_gate *gate, const char *key, const char *address,
                                      rt_refusal *refusal);
const rt_caller *rt_caller_retain(const rt_caller *caller);
void rt_caller_release(const rt_caller *caller); /* NULL is allowed */
/* An admin key ("sk-rt-admin-..."): its role and name, for the /admin/v1 listener. */
typedef enum rt_admin_role { RT_ROLE_NONE, RT_ROLE_READ, RT_ROLE_SUPPORT, RT_ROLE_FULL } rt_admin_role;
typedef struct rt_admin {
    rt_admin_role role;
    char name[256]; /* "admin:<id> <name>", the actor in the audit trail */
} rt_admin;
bool rt_gate_authenticate_admin(rt_gate *gate, const char *key, const char *address, rt_admin *admin,
                                rt_refusal *refusal);

/* Suspended, closed, terms not accepted: false.  Not asked for the account's own view (/v1/account...). */
bool rt_gate_check_state(rt_gate *gate, const rt_caller *caller, rt_refusal *refusal);

/* What is about to be done.  Texts are borrowed for the call; NULL for what is not known. */
typedef struct rt_gate_ask {
    const char *request_id, *endpoint, *model; /* "req_...", "chat/completions" */
    const char *address, *agent, *user;        /* user: hashed before it is stored */
    int64_t prompt_tokens;                     /* all prompts together */
    int64_t output_tokens;                     /* worst case: max_tokens x n */
    int64_t max_tokens;                        /* of one choice; 0 when the request names none */
    int top_logprobs;
    bool score;
} rt_gate_ask;

/* May this account use this model and these features?  (403 model_not_allowed, feature_not_allowed) */
bool rt_gate_check_ask(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask, rt_refusal *refusal);
/* Reserves; NULL and *refusal when a limit stands in the way (a ledger row says so).  Every ticket must be
 * settled. */
rt_ticket *rt_gate_admit(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask, rt_refusal *refusal);
/* So many tokens of output more than were reserved, all or none: false when budget or day have no room for
 * them, or (why->http 503) the database does not answer.  The ticket is the caller's alone meanwhile. */
bool rt_gate_raise(rt_gate *gate, rt_ticket *ticket, int64_t output_tokens, rt_refusal *why);
/* false once the account of a running request was suspended or closed, or its key revoked: end the stream.
 * Cheap enough for every second. */
bool rt_gate_still_allowed(rt_gate *gate, const rt_ticket *ticket);

/* PostgreSQL: admission, raises, stored answers and changes of accounts are questions to a database that may
 * be slow.  A server that must not wait for them in its loop says so once; from then on keys, states and
 * running requests are looked at as they were when rt_gate_look was last called, from another thread: once
 * for every request before its key, and once a second.  rt_gate_admit, rt_gate_raise and rt_gate_stored_begin
 * are for such a thread too; the others never wait.  A database that is silent for 3 s refuses with 503. */
bool rt_gate_is_shared(const rt_gate *gate);
void rt_gate_refresh_elsewhere(rt_gate *gate);
rt_status rt_gate_look(rt_gate *gate, rt_error *err);

typedef struct rt_outcome {
    int64_t input_tokens, cached_tokens, output_tokens; /* input counts the cached ones too */
    int http;                                           /* 200, 499, 500, ... */
    const char *outcome; /* "stop", "length", "client_closed", "error", ...; borrowed for the call */
    double ttft_s, total_s;
    bool estimated;                     /* tokens were not counted but estimated (gateway) */
    const char *mark_scheme, *mark_key; /* the watermark that stood at the answer; NULL: none */
    int64_t mark_h;
    double mark_own;    /* share of the tokens under the account's own key; 0: the common key alone */
    bool marked;        /* it has tokens that could carry the mark */
    const char *prompt; /* where caller->wants_prompt: kept by the account's policy; else NULL */
    size_t prompt_size;
    unsigned char
        *record; /* what the guard is to judge (guard_store.h); malloc'd, the gate frees it; NULL: none */
    size_t record_size;
    char *record_line; /* for rt_gate_on_record; malloc'd, the gate frees it; NULL: none */
} rt_outcome;

/* Called from the writer thread; status is not RT_OK when the row could not be written (it is tried again).
 * NULL `done`: nobody waits. */
typedef void (*rt_settled_fn)(void *context, rt_status status);
/* Charges what was used, never more than was reserved (the row is then marked as estimated), gives back the
 * rest, queues the ledger row, frees the ticket.  true: the row is on the disk already, and `done` is not
 * called. */
bool rt_gate_settle(rt_gate *gate, rt_ticket *ticket, const rt_outcome *outcome, rt_settled_fn done,
                    void *context);
/* The same, and waits until the row is on the disk. */
rt_status rt_gate_settle_wait(rt_gate *gate, rt_ticket *ticket, const rt_outcome *outcome, rt_error *err);
/* Called from the writer's thread for each row with a record once it is on the disk, in the order in which
 * they were written; line: record_line.  NULL: nobody asks; when this returns no call is under way. */
typedef void (*rt_record_fn)(void *context, const char *line);
void rt_gate_on_record(rt_gate *gate, rt_record_fn fn, void *context);
/* A ledger row for a request of a known caller that ended before rt_gate_admit (400, 403, 404, 503). */
void rt_gate_note_refused(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask, int http,
                          const char *code);

/* The figures of the x-ratelimit-* headers: of key and account the one with less left. */
typedef struct rt_limit_view {
    bool has_requests, has_tokens; /* false: unlimited, leave the three headers out */
    int64_t limit_requests, remaining_requests, limit_tokens, remaining_tokens;
    double reset_requests_s, reset_tokens_s; /* until the bucket is full again */
} rt_limit_view;
rt_limit_view rt_gate_limits(rt_gate *gate, const rt_caller *caller);
/* "250ms", "1s", "6m0s", "1h2m3s"; rounded up to the millisecond below a second, else to the second. */
void rt_duration_text(char out[32], double seconds);

/* The admin API and an account's own view go through the gate's own connection: account/admin.h. */
typedef struct rt_desk rt_desk;
rt_desk *rt_gate_desk(rt_gate *gate);
/* Another one with a connection of its own, for calls that may be slow: the caller closes it. */
rt_status rt_gate_open_desk(rt_gate *gate, rt_desk **out, rt_error *err);

#endif
