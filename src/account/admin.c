/* account/admin.c - the table of routes, and how a call runs: parse, check the role, one transaction, one
 * reply. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/admin_internal.h"
#include "base/log.h"
#include "base/text.h"

#define PREFIX "/admin/v1"

typedef struct route {
    const char *method, *head, *tail; /* head [/ID [tail]]; tail NULL: no id */
    rt_admin_role role;               /* the least that may */
    call_handler handler;
} route;

static const route routes[] = {
    {"POST", "/accounts", NULL, RT_ROLE_FULL, accounts_create},
    {"GET", "/accounts", NULL, RT_ROLE_READ, accounts_list},
    {"GET", "/accounts", "", RT_ROLE_READ, accounts_show},
    {"PATCH", "/accounts", "", RT_ROLE_FULL, accounts_change},
    {"POST", "/accounts", "/suspend", RT_ROLE_SUPPORT, accounts_suspend},
    {"POST", "/accounts", "/throttle", RT_ROLE_SUPPORT, accounts_throttle},
    {"POST", "/accounts", "/watch", RT_ROLE_SUPPORT, accounts_watch},
    {"POST", "/accounts", "/reinstate", RT_ROLE_SUPPORT, accounts_reinstate},
    {"POST", "/accounts", "/close", RT_ROLE_FULL, accounts_close},
    {"POST", "/accounts", "/keys", RT_ROLE_FULL, keys_create},
    {"GET", "/accounts", "/keys", RT_ROLE_READ, keys_list},
    {"GET", "/keys", "", RT_ROLE_READ, keys_show},
    {"PATCH", "/keys", "", RT_ROLE_FULL, keys_change},
    {"DELETE", "/keys", "", RT_ROLE_FULL, keys_revoke},
    {"POST", "/keys", "/rotate", RT_ROLE_FULL, keys_rotate},
    {"POST", "/admins", NULL, RT_ROLE_FULL, keys_create_admin},
    {"GET", "/admins", NULL, RT_ROLE_FULL, keys_list_admin},
    {"GET", "/usage", NULL, RT_ROLE_READ, usage_list},
    {"GET", "/requests", NULL, RT_ROLE_READ, requests_list},
    {"GET", "/requests", "/prompt", RT_ROLE_FULL, requests_prompt},
    {"GET", "/cases", NULL, RT_ROLE_READ, cases_list},
    {"GET", "/cases", "", RT_ROLE_READ, cases_show},
    {"POST", "/cases", "/decide", RT_ROLE_SUPPORT, cases_decide},
    {"GET", "/appeals", NULL, RT_ROLE_READ, appeals_list},
    {"GET", "/audit", NULL, RT_ROLE_READ, audit_list},
    {"GET", "/audit/verify", NULL, RT_ROLE_READ, audit_check},
};
enum { N_ROUTES = sizeof routes / sizeof routes[0] };

rt_status rt_desk_open(rt_desk **out, const char *db, const char *secrets, rt_error *err)
{
    *out = NULL;
    rt_desk *desk = calloc(1, sizeof *desk);
    if (!desk)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the account database");
    (void)pthread_mutex_init(&desk->mutex, NULL);
    if (rt_db_open(&desk->db, db, err) != RT_OK ||
        rt_secrets_open(&desk->secrets, secrets, db, err) != RT_OK) {
        rt_desk_close(desk);
        return err->status;
    }
    *out = desk;
    return RT_OK;
}

void rt_desk_close(rt_desk *desk)
{
    if (!desk)
        return;
    rt_db_close(desk->db);
    rt_secrets_wipe(&desk->secrets);
    (void)pthread_mutex_destroy(&desk->mutex);
    free(desk);
}

void rt_desk_set_clock(rt_desk *desk, const rt_time_source *clock) { desk->clock = *clock; }

json_t *rt_error_body(const char *type, const char *code, const char *param, const char *message)
{
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", message, "type", type, "param", param,
                     "code", code);
}

rt_desk_reply reply_error(int http, const char *type, const char *code, const char *param,
                          const char *message)
{
    return (rt_desk_reply){http, rt_error_body(type, code, param, message)};
}

void call_begin(call *c, rt_desk *desk, const char *actor, const json_t *body)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    const int64_t now_ms = desk->clock.unix_ms ? desk->clock.unix_ms(desk->clock.context)
                                               : (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    *c = (call){.desk = desk,
                .db = desk->db,
                .actor = actor,
                .body = json_is_object(body) ? body : NULL,
                .now_ms = now_ms,
                .now_s = now_ms / 1000,
                .http = 200};
}

static rt_desk_reply failure(const call *c, const rt_error *err)
{
    switch (err->status) {
    case RT_INVALID:
        return reply_error(400, "invalid_request_error", "invalid_value", c->param, err->text);
    case RT_NOT_FOUND:
        return reply_error(404, "invalid_request_error", "not_found", NULL, err->text);
    case RT_MISMATCH:
        return reply_error(409, "conflict_error", "conflict", NULL, err->text);
    case RT_FORBIDDEN:
        return reply_error(403, "permission_error", "feature_not_allowed", NULL, err->text);
    default:
        rt_log(RT_LOG_WARNING, "%s", err->text);
        return reply_error(err->status == RT_BUSY ? 503 : 500, "server_error", "internal_error", NULL,
                           "the account database failed");
    }
}

static rt_status run_once(call *c, call_handler handler, bool writes, rt_error *err)
{
    if (!writes)
        return handler(c, err);
    rt_status status = rt_db_begin(c->db, true, err);
    if (status != RT_OK)
        return status;
    /* What operators change is changed one after the other: who decides reads what the one before decided. */
    if (rt_db_is_shared(c->db))
        status = rt_db_script(c->db, "SELECT pg_advisory_xact_lock(7236839)", err);
    if (status == RT_OK)
        status = handler(c, err);
    if (status == RT_OK)
        status = rt_db_commit(c->db, err);
    if (status != RT_OK)
        rt_db_rollback(c->db);
    return status;
}

rt_desk_reply call_run(call *c, call_handler handler, bool writes)
{
    rt_error err = {0};
    rt_status status = RT_BUSY;
    (void)pthread_mutex_lock(&c->desk->mutex);
    for (int attempt = 0; attempt < 3 && status == RT_BUSY; attempt++) {
        json_decref(c->out);
        c->out = NULL;
        status = run_once(c, handler, writes, &err);
    }
    (void)pthread_mutex_unlock(&c->desk->mutex);
    if (status == RT_OK && !c->out)
        status = rt_error_set(&err, RT_NO_MEMORY, "no memory for the answer");
    if (status == RT_OK)
        return (rt_desk_reply){c->http, c->out};
    json_decref(c->out);
    return failure(c, &err);
}

/* --- paths and queries --- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes text[0..size) into out; false when it does not fit, is malformed or holds a control character. */
static bool decode(char *out, size_t out_size, const char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        int c = (unsigned char)text[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            if (i + 2 >= size || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0)
                return false;
            c = hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]);
            i += 2;
        }
        if (c < ' ' || c == 127 || used + 1 >= out_size)
            return false;
        out[used++] = (char)c;
    }
    out[used] = '\0';
    return rt_utf8_valid(out, used);
}

bool query_parse(call *c, const char *query)
{
    while (query && *query) {
        const size_t size = strcspn(query, "&");
        const char *equals = memchr(query, '=', size);
        const size_t name = equals ? (size_t)(equals - query) : size;
        if (size > 0) {
            query_item *item = &c->query[c->n_query];
            if (c->n_query == QUERY_MAX || !decode(item->name, sizeof item->name, query, name) ||
                !decode(item->value, sizeof item->value, equals ? equals + 1 : "",
                        equals ? size - name - 1 : 0))
                return false;
            c->n_query++;
        }
        query += size + (query[size] == '&');
    }
    return true;
}

/* 2: this route; 1: this path, another method; 0: another path.  The id goes into c->id. */
static int match(const route *r, const char *method, const char *path, char id[64])
{
    const size_t head = strlen(r->head);
    if (strncmp(path, r->head, head) != 0)
        return 0;
    const char *rest = path + head;
    if (r->tail) {
        const size_t length = *rest == '/' ? strcspn(rest + 1, "/") : 0;
        if (length == 0 || length >= 64 || strcmp(rest + 1 + length, r->tail) != 0)
            return 0;
        for (size_t i = 0; i < length; i++)
            if (rest[1 + i] <= ' ' || rest[1 + i] > '~')
                return 0;
        memcpy(id, rest + 1, length);
        id[length] = '\0';
    } else if (*rest) {
        return 0;
    }
    return strcmp(r->method, method) == 0 ? 2 : 1;
}

rt_desk_reply rt_admin_call(rt_desk *desk, const rt_admin *admin, const char *method, const char *path,
                            const char *query, const json_t *body)
{
    call c;
    call_begin(&c, desk, admin->name, body);
    const bool prefixed = strncmp(path, PREFIX, strlen(PREFIX)) == 0;
    bool known_path = false;
    for (size_t i = 0; prefixed && i < N_ROUTES; i++) {
        const route *r = &routes[i];
        const int how = match(r, method, path + strlen(PREFIX), c.id);
        known_path = known_path || how > 0;
        if (how < 2)
            continue;
        if (admin->role < r->role)
            return reply_error(403, "permission_error", "feature_not_allowed", NULL,
                               "this admin key's role does not allow that");
        if (body && !json_is_object(body))
            return reply_error(400, "invalid_request_error", "invalid_value", NULL,
                               "the body must be an object");
        if (!query_parse(&c, query))
            return reply_error(400, "invalid_request_error", "invalid_value", NULL, "the query is malformed");
        return call_run(&c, r->handler, strcmp(r->method, "GET") != 0);
    }
    return known_path
               ? reply_error(405, "invalid_request_error", "method_not_allowed", NULL,
                             "this method is not allowed here")
               : reply_error(404, "invalid_request_error", "unknown_url", NULL, "there is no such path");
}
