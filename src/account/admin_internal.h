/* account/admin_internal.h - what the files of the admin API share: one call, its helpers, its handlers. */
#ifndef RT_ACCOUNT_ADMIN_INTERNAL_H
#define RT_ACCOUNT_ADMIN_INTERNAL_H

#include <pthread.h>

#include "account/admin.h"
#include "account/audit.h"
#include "account/db.h"
#include "account/key.h"
#include "account/secrets.h"

struct rt_desk {
    pthread_mutex_t mutex;
    rt_db *db;
    rt_secrets secrets;
    rt_time_source clock;
};

enum { QUERY_MAX = 16, QUERY_VALUE_MAX = 300, ACCOUNT_ID_SIZE = 28, CASE_ID_SIZE = 28 };
typedef struct query_item {
    char name[32], value[QUERY_VALUE_MAX];
} query_item;

typedef struct call { /* one call, inside of its transaction when it changes something */
    rt_desk *desk;
    rt_db *db;
    const char *actor;
    char id[64]; /* from the path, or "" */
    query_item query[QUERY_MAX];
    size_t n_query;
    const json_t *body; /* an object, or NULL */
    int64_t now_s, now_ms;
    int http;              /* of success: 200 where the handler sets nothing */
    const char *param;     /* of a failure */
    const rt_terms *terms; /* own view only */
    json_t *out;           /* the answer's body */
} call;

/* On failure the status decides: RT_INVALID 400, RT_NOT_FOUND 404, RT_MISMATCH 409, RT_FORBIDDEN 403, else
 * 500. */
typedef rt_status (*call_handler)(call *c, rt_error *err);

/* "" when absent */
const char *query_get(const call *c, const char *name);
rt_status query_count(call *c, const char *name, int64_t fallback, int64_t max, int64_t *out, rt_error *err);
/* A text of the body: valid, on one line unless `lines`, at most size_max bytes.  fallback NULL: required. */
rt_status body_text(call *c, const char *key, size_t size_max, bool lines, const char *fallback,
                    const char **out, rt_error *err);
/* Unix seconds; 0 when absent or null. */
rt_status body_time(call *c, const char *key, int64_t *out, rt_error *err);
/* seconds from now; 0 when absent or null */
rt_status body_seconds(call *c, const char *key, int64_t *out, rt_error *err);
const json_t *body_get(const call *c, const char *key); /* NULL when absent or null */

/* The number of this change, which goes into the rows that it touches. */
rt_status next_version(call *c, int64_t *version, rt_error *err);
/* Takes the reference to detail. */
rt_status audit(call *c, const char *action, const char *subject, json_t *detail, rt_error *err);

/* Lists: {"object": "list", "data": [...], "has_more", "last_id"}.  A query asks for limit + 1 rows. */
typedef struct list {
    json_t *data;
    int64_t limit;
    bool has_more;
    json_t *(*make)(const rt_sql_row *row);
} list;
rt_status list_take(void *context, const rt_sql_row *row, rt_error *err); /* a row function */
json_t *list_json(list *l);                                               /* takes over data */
json_t *int_or_null(const rt_sql_row *row, int column);
json_t *text_or_null(const rt_sql_row *row, int column);
json_t *json_or_null(const rt_sql_row *row, int column); /* a column that holds JSON */
/* "SELECT ... WHERE id = $1" into one object; RT_NOT_FOUND names what is missing. */
rt_status get_one(call *c, const char *sql, const char *id, json_t *(*make)(const rt_sql_row *row),
                  const char *what, json_t **out, rt_error *err);

rt_status account_get(call *c, const char *id, json_t **out, rt_error *err);
/* Sets the state and what goes with it, and answers the account. */
rt_status account_set_state(call *c, const char *id, rt_account_state state, const char *case_id,
                            const char *public_reason, int64_t until, rt_error *err);
/* Ends the account's open case, if any, and the appeal against it. */
/* The case as JSON; RT_NOT_FOUND when there is none. */
rt_status case_get(call *c, const char *id, json_t **out, rt_error *err);
rt_status case_end(call *c, const char *account, const char *case_id, const char *outcome, const char *note,
                   rt_error *err);
rt_status usage_of(call *c, const char *account, rt_error *err);
json_t *appeal_json(const rt_sql_row *row);
#define APPEAL_COLUMNS "id, case_id, account, statement, state, created, outcome, note"

rt_status accounts_create(call *c, rt_error *err);
rt_status accounts_list(call *c, rt_error *err);
rt_status accounts_show(call *c, rt_error *err);
rt_status accounts_change(call *c, rt_error *err);
rt_status accounts_suspend(call *c, rt_error *err);
rt_status accounts_throttle(call *c, rt_error *err);
rt_status accounts_watch(call *c, rt_error *err);
rt_status accounts_reinstate(call *c, rt_error *err);
rt_status accounts_close(call *c, rt_error *err);
rt_status keys_create(call *c, rt_error *err);
rt_status keys_create_admin(call *c, rt_error *err);
rt_status keys_list(call *c, rt_error *err);
rt_status keys_list_admin(call *c, rt_error *err);
rt_status keys_show(call *c, rt_error *err);
rt_status keys_change(call *c, rt_error *err);
rt_status keys_rotate(call *c, rt_error *err);
rt_status keys_revoke(call *c, rt_error *err);
rt_status cases_list(call *c, rt_error *err);
rt_status cases_show(call *c, rt_error *err);
rt_status cases_decide(call *c, rt_error *err);
rt_status appeals_list(call *c, rt_error *err);
rt_status usage_list(call *c, rt_error *err);
rt_status requests_list(call *c, rt_error *err);
rt_status requests_prompt(call *c, rt_error *err);
rt_status audit_list(call *c, rt_error *err);
rt_status audit_check(call *c, rt_error *err);

/* Runs a handler in a transaction if it writes, and turns what it says into a reply. */
rt_desk_reply call_run(call *c, call_handler handler, bool writes);
bool query_parse(call *c, const char *query);
rt_desk_reply reply_error(int http, const char *type, const char *code, const char *param,
                          const char *message);
void call_begin(call *c, rt_desk *desk, const char *actor, const json_t *body);

#endif
