/* account/own_view.c - what an account sees of itself: state, limits, usage, its appeals, the terms.  Works
 * in every state, since who is suspended must be able to ask why and to object. */
#include <stdio.h>
#include <string.h>

#include "account/admin_internal.h"

enum { STATEMENT_MAX = 8192, APPEAL_ID_SIZE = 30 };

static rt_status own_account(call *c, rt_error *err)
{
    json_t *full = NULL;
    if (account_get(c, c->id, &full, err) != RT_OK)
        return err->status;
    static const char *const shown[] = {"id",    "name",   "state",       "case",          "public_reason",
                                        "until", "limits", "permissions", "terms_accepted"};
    c->out = json_object();
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        (void)json_object_set(c->out, shown[i], json_object_get(full, shown[i]));
    if (c->terms)
        (void)json_object_set_new(c->out, "terms",
                                  json_pack("{s:s, s:s, s:s}", "version", rt_terms_version(c->terms), "link",
                                            rt_terms_link(c->terms), "distillation",
                                            rt_distillation_name(rt_terms_distillation(c->terms))));
    json_decref(full);
    return RT_OK;
}

static rt_status own_usage(call *c, rt_error *err) { return usage_of(c, c->id, err); }

static rt_status own_appeals(call *c, rt_error *err)
{
    list l = {.make = appeal_json, .limit = 1000};
    const rt_sql_value value = rt_sql_text(c->id);
    const rt_status status = rt_db_run(
        c->db, "SELECT " APPEAL_COLUMNS " FROM appeals WHERE account = $1 ORDER BY created, id LIMIT 1001",
        &value, 1, list_take, &l, NULL, err);
    c->out = list_json(&l);
    return status;
}

static rt_status insert_appeal(call *c, const char *case_id, const char *statement, rt_error *err)
{
    char id[APPEAL_ID_SIZE];
    rt_id_make(id, "appeal_", 20);
    const rt_sql_value values[] = {rt_sql_text(id), rt_sql_text(case_id), rt_sql_text(c->id),
                                   rt_sql_text(statement), rt_sql_int(c->now_s)};
    if (rt_db_run(
            c->db,
            "INSERT INTO appeals (id, case_id, account, statement, state, created) VALUES ($1, $2, $3, $4, "
            "'open', $5)",
            values, 5, NULL, NULL, NULL, err) != RT_OK ||
        audit(c, "appeal.open", id, json_pack("{s:s, s:s}", "account", c->id, "case", case_id), err) != RT_OK)
        return err->status;
    c->http = 201;
    return get_one(c, "SELECT " APPEAL_COLUMNS " FROM appeals WHERE id = $1", id, appeal_json, "appeal",
                   &c->out, err);
}

static rt_status own_appeal_open(call *c, rt_error *err)
{
    const char *statement;
    json_t *account = NULL;
    int64_t open_count = 0;
    bool found;
    const rt_sql_value value = rt_sql_text(c->id);
    /* The account's row is locked first: two appeals at once must not both find none. */
    if (body_text(c, "statement", STATEMENT_MAX, true, NULL, &statement, err) != RT_OK ||
        rt_db_run(c->db, "UPDATE accounts SET id = id WHERE id = $1", &value, 1, NULL, NULL, NULL, err) !=
            RT_OK ||
        rt_db_get_int(c->db, "SELECT COUNT(*) FROM appeals WHERE account = $1 AND state = 'open'", &value, 1,
                      &open_count, &found, err) != RT_OK ||
        account_get(c, c->id, &account, err) != RT_OK)
        return err->status;
    const char *case_id = json_string_value(json_object_get(account, "case"));
    rt_status status = RT_OK;
    if (open_count > 0)
        status = rt_error_set(err, RT_MISMATCH, "an appeal is open already and will be decided first");
    else if (!case_id)
        status = rt_error_set(err, RT_MISMATCH, "there is no case to appeal against");
    else
        status = insert_appeal(c, case_id, statement, err);
    json_decref(account);
    return status;
}

static rt_status own_terms(call *c, rt_error *err)
{
    if (!c->terms)
        return rt_error_set(err, RT_NOT_FOUND, "this server has no terms of use");
    c->out = json_pack("{s:s, s:s, s:s, s:s, s:s}", "object", "terms", "version", rt_terms_version(c->terms),
                       "link", rt_terms_link(c->terms), "text", rt_terms_text(c->terms), "distillation",
                       rt_distillation_name(rt_terms_distillation(c->terms)));
    return RT_OK;
}

static rt_status own_terms_accept(call *c, rt_error *err)
{
    const char *version;
    int64_t number;
    if (!c->terms)
        return rt_error_set(err, RT_NOT_FOUND, "this server has no terms of use");
    if (body_text(c, "version", 64, false, NULL, &version, err) != RT_OK)
        return err->status;
    if (strcmp(version, rt_terms_version(c->terms)) != 0)
        return rt_error_set(err, RT_MISMATCH, "the version in force is %s: read it before you accept it",
                            rt_terms_version(c->terms));
    if (next_version(c, &number, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(c->id), rt_sql_text(version), rt_sql_int(c->now_s),
                                   rt_sql_int(number)};
    if (rt_db_run(c->db, "UPDATE accounts SET terms = $2, terms_at = $3, version = $4 WHERE id = $1", values,
                  4, NULL, NULL, NULL, err) != RT_OK ||
        audit(c, "terms.accept", c->id, json_pack("{s:s}", "version", version), err) != RT_OK)
        return err->status;
    return own_account(c, err);
}

static const struct {
    const char *method, *path;
    call_handler handler;
} routes[] = {
    {"GET", "/v1/account", own_account},         {"GET", "/v1/account/usage", own_usage},
    {"GET", "/v1/account/appeals", own_appeals}, {"POST", "/v1/account/appeals", own_appeal_open},
    {"GET", "/v1/account/terms", own_terms},     {"POST", "/v1/account/terms", own_terms_accept},
};

rt_desk_reply rt_own_view_call(rt_desk *desk, const rt_caller *caller, const rt_terms *terms,
                               const char *method, const char *path, const char *query, const json_t *body)
{
    call c;
    char actor[80];
    bool known_path = false;
    (void)snprintf(actor, sizeof actor, "key:%s", caller->key);
    call_begin(&c, desk, actor, body);
    (void)snprintf(c.id, sizeof c.id, "%s", caller->account);
    c.terms = terms;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(path, routes[i].path) != 0)
            continue;
        known_path = true;
        if (strcmp(method, routes[i].method) != 0)
            continue;
        if (body && !json_is_object(body))
            return reply_error(400, "invalid_request_error", "invalid_value", NULL,
                               "the body must be an object");
        if (!query_parse(&c, query))
            return reply_error(400, "invalid_request_error", "invalid_value", NULL, "the query is malformed");
        return call_run(&c, routes[i].handler, strcmp(method, "GET") != 0);
    }
    return known_path
               ? reply_error(405, "invalid_request_error", "method_not_allowed", NULL,
                             "this method is not allowed here")
               : reply_error(404, "invalid_request_error", "unknown_url", NULL, "there is no such path");
}
