/* account/admin.h - the admin API (API.md 10) and an account's own view as functions without HTTP.
 *
 * The server routes to them, the commands call them on the database.  A call is one transaction: the change,
 * its row in the audit trail, and the number by which running servers notice. */
#ifndef RT_ACCOUNT_ADMIN_H
#define RT_ACCOUNT_ADMIN_H

#include "account/gate.h"
#include "base/json.h"

/* A connection with the secrets that it needs; calls from several threads wait for each other. */
rt_status rt_desk_open(rt_desk **out, const char *db, const char *secrets, rt_error *err);
void rt_desk_close(rt_desk *desk);
/* For tests: another clock.  Seconds since 1970. */
void rt_desk_set_clock(rt_desk *desk, const rt_time_source *clock);

/* Reinstates accounts whose suspension or throttling was until a time that has passed; the actor is "system".
 */
rt_status rt_desk_lift_expired(rt_desk *desk, rt_error *err);

typedef struct rt_desk_reply {
    int http;     /* 200, 201, 400, 401, 403, 404, 405, 409, 500 */
    json_t *body; /* the caller owns it; never NULL */
} rt_desk_reply;

/* {account: the case that its state rests on} of all accounts that have one, for a page to say later what it
 * showed (`seen` of a decision).  The caller owns it; NULL when the database failed. */
json_t *rt_desk_cases(rt_desk *desk);

/* path: "/admin/v1/accounts/acc_..."; query: the raw text after '?', NULL when absent; body: NULL when
 * absent. actor: the name that the audit trail keeps. */
rt_desk_reply rt_admin_call(rt_desk *desk, const rt_admin *admin, const char *method, const char *path,
                            const char *query, const json_t *body);
/* path: "/v1/account", "/v1/account/usage", "/v1/account/appeals", "/v1/account/terms"; terms may be NULL.
 * Works in every state of the account. */
rt_desk_reply rt_own_view_call(rt_desk *desk, const rt_caller *caller, const rt_terms *terms,
                               const char *method, const char *path, const char *query, const json_t *body);
/* The error body of API.md 2; strings that are NULL become null. */
json_t *rt_error_body(const char *type, const char *code, const char *param, const char *message);

#endif
