/* account/admin_cases.c - cases, appeals and the audit trail of the admin API.
 *
 * A case is opened by whatever changes an account's state for the worse and ends when it is decided: upheld
 * (the state stays), reduced (one step down) or reinstated.  An appeal is an objection against the account's
 * case. */
#include <stdio.h>
#include <string.h>

#include "account/admin_internal.h"

enum { NOTE_MAX = 4000 };
#define CASE_COLUMNS                                                                                         \
    "id, account, opened, actor, action, before, reason, public_reason, evidence, until, state, outcome, "   \
    "note, "                                                                                                 \
    "decided, decided_by"

static json_t *case_json(const rt_sql_row *row)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "object", "case", "id", rt_sql_row_text(row, 0), "account", rt_sql_row_text(row, 1),
                     "opened", int_or_null(row, 2), "actor", text_or_null(row, 3), "action",
                     text_or_null(row, 4), "state_before", text_or_null(row, 5), "reason",
                     text_or_null(row, 6), "public_reason", text_or_null(row, 7), "evidence",
                     json_or_null(row, 8), "until", int_or_null(row, 9), "state", text_or_null(row, 10),
                     "outcome", text_or_null(row, 11), "note", text_or_null(row, 12), "decided",
                     int_or_null(row, 13), "decided_by", text_or_null(row, 14));
}

json_t *appeal_json(const rt_sql_row *row)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:o}", "object", "appeal", "id",
                     rt_sql_row_text(row, 0), "case", rt_sql_row_text(row, 1), "account",
                     rt_sql_row_text(row, 2), "statement", text_or_null(row, 3), "state",
                     rt_sql_row_text(row, 4), "created", int_or_null(row, 5), "outcome", text_or_null(row, 6),
                     "note", text_or_null(row, 7));
}

static rt_status list_rows(call *c, const char *sql, json_t *(*make)(const rt_sql_row *), rt_error *err)
{
    list l = {.make = make};
    if (query_count(c, "limit", 100, 1000, &l.limit, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(query_get(c, "account")), rt_sql_text(query_get(c, "state")),
                                   rt_sql_text(query_get(c, "after")), rt_sql_int(l.limit + 1)};
    const rt_status status = rt_db_run(c->db, sql, values, 4, list_take, &l, NULL, err);
    c->out = list_json(&l);
    return status;
}

rt_status cases_list(call *c, rt_error *err)
{
    return list_rows(
        c,
        "SELECT " CASE_COLUMNS " FROM cases WHERE ($1 = '' OR account = $1) AND ($2 = '' OR state = $2) "
        "AND ($3 = '' OR (opened, id) > (SELECT x.opened, x.id FROM cases AS x WHERE x.id = $3)) ORDER BY "
        "opened, id LIMIT $4",
        case_json, err);
}

rt_status appeals_list(call *c, rt_error *err)
{
    return list_rows(
        c,
        "SELECT " APPEAL_COLUMNS " FROM appeals WHERE ($1 = '' OR account = $1) AND ($2 = '' OR state = "
        "$2) AND ($3 = '' OR (created, id) > (SELECT x.created, x.id FROM appeals AS x WHERE x.id = $3)) "
        "ORDER BY created, id LIMIT $4",
        appeal_json, err);
}

rt_status case_get(call *c, const char *id, json_t **out, rt_error *err)
{
    return get_one(c, "SELECT " CASE_COLUMNS " FROM cases WHERE id = $1", id, case_json, "case", out, err);
}

rt_status cases_show(call *c, rt_error *err) { return case_get(c, c->id, &c->out, err); }

rt_status case_end(call *c, const char *account, const char *case_id, const char *outcome, const char *note,
                   rt_error *err)
{
    const rt_sql_value ended[] = {rt_sql_text(case_id), rt_sql_text(outcome), rt_sql_text(note),
                                  rt_sql_int(c->now_s), rt_sql_text(c->actor)};
    const rt_sql_value appeals[] = {rt_sql_text(account), rt_sql_text(outcome), rt_sql_text(note)};
    if (rt_db_run(c->db,
                  "UPDATE cases SET state = 'decided', outcome = $2, note = $3, decided = $4, decided_by = "
                  "$5 WHERE id = "
                  "$1",
                  ended, 5, NULL, NULL, NULL, err) != RT_OK)
        return err->status;
    return rt_db_run(
        c->db,
        "UPDATE appeals SET state = 'decided', outcome = $2, note = $3 WHERE account = $1 AND state = "
        "'open'",
        appeals, 3, NULL, NULL, NULL, err);
}

static rt_account_state one_step_down(rt_account_state state)
{
    switch (state) {
    case RT_ACCOUNT_CLOSED:
        return RT_ACCOUNT_SUSPENDED;
    case RT_ACCOUNT_SUSPENDED:
        return RT_ACCOUNT_THROTTLED;
    case RT_ACCOUNT_THROTTLED:
        return RT_ACCOUNT_WATCHED;
    default:
        return RT_ACCOUNT_ACTIVE;
    }
}

static const char *member(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static rt_status apply_outcome(call *c, const json_t *account, const char *outcome, rt_error *err)
{
    const char *id = member(account, "id");
    rt_account_state state = RT_ACCOUNT_ACTIVE;
    if (strcmp(outcome, "uphold") == 0)
        return RT_OK;
    if (strcmp(outcome, "reinstate") == 0)
        return account_set_state(c, id, RT_ACCOUNT_ACTIVE, NULL, NULL, 0, err);
    if (!rt_account_state_parse(&state, member(account, "state")))
        return rt_error_set(err, RT_CORRUPT, "%s has an unknown state", id);
    state = one_step_down(state);
    const bool active = state == RT_ACCOUNT_ACTIVE;
    return account_set_state(c, id, state, active ? NULL : member(account, "case"),
                             active ? NULL : member(account, "public_reason"), 0, err);
}

/* A case is decided once, and again only when its account has appealed since: two reviewers, or one who
 * clicks twice, do not overrule each other unawares. */
static rt_status check_undecided(call *c, const json_t *about, const char *outcome, rt_error *err)
{
    int64_t open_count = 0;
    bool found;
    const char *state = member(about, "state"), *by = member(about, "decided_by");
    const rt_sql_value value = rt_sql_text(c->id);
    if (!state || strcmp(state, "decided") != 0)
        return RT_OK;
    if (member(about, "outcome") && strcmp(member(about, "outcome"), "reduce") == 0 &&
        strcmp(outcome, "reinstate") == 0)
        return RT_OK; /* the rest is lifted too */
    if (rt_db_get_int(c->db, "SELECT COUNT(*) FROM appeals WHERE case_id = $1 AND state = 'open'", &value, 1,
                      &open_count, &found, err) != RT_OK)
        return err->status;
    if (open_count > 0)
        return RT_OK;
    return rt_error_set(
        err, RT_MISMATCH,
        "the case was decided already (%.40s, by %.80s) and no appeal is open: suspend, throttle or "
        "reinstate the account to change its state",
        member(about, "outcome") ? member(about, "outcome") : "ended", by ? by : "nobody");
}

rt_status cases_decide(call *c, rt_error *err)
{
    const char *outcome, *note;
    json_t *about = NULL, *account = NULL;
    if (body_text(c, "outcome", 16, false, NULL, &outcome, err) != RT_OK ||
        body_text(c, "note", NOTE_MAX, true, "", &note, err) != RT_OK)
        return err->status;
    if (strcmp(outcome, "uphold") != 0 && strcmp(outcome, "reinstate") != 0 &&
        strcmp(outcome, "reduce") != 0) {
        c->param = "outcome";
        return rt_error_set(err, RT_INVALID, "outcome: expected uphold, reinstate or reduce");
    }
    if (case_get(c, c->id, &about, err) != RT_OK)
        return err->status;
    rt_status status = account_get(c, member(about, "account"), &account, err);
    const char *by = member(about, "decided_by");
    if (status == RT_OK && by && !member(account, "case"))
        status = check_undecided(c, about, outcome, err);
    if (status == RT_OK && (!member(account, "case") || strcmp(member(account, "case"), c->id) != 0))
        status = rt_error_set(err, RT_MISMATCH,
                              "the case is over: the account's state does not rest on it any more");
    if (status == RT_OK)
        status = check_undecided(c, about, outcome, err);
    if (status == RT_OK)
        status = case_end(c, member(account, "id"), c->id, outcome, note, err);
    if (status == RT_OK)
        status = audit(c, "case.decide", c->id,
                       json_pack("{s:s, s:s, s:s, s:s}", "account", member(account, "id"), "before",
                                 member(account, "state"), "outcome", outcome, "note", note),
                       err);
    if (status == RT_OK)
        status = apply_outcome(c, account, outcome, err);
    json_decref(about);
    json_decref(account);
    json_decref(c->out);
    c->out = NULL;
    return status == RT_OK ? case_get(c, c->id, &c->out, err) : status;
}

/* --- the trail --- */

static json_t *audit_json(const rt_sql_row *row)
{
    char id[24];
    (void)snprintf(id, sizeof id, "%lld", (long long)rt_sql_row_int(row, 0));
    return json_pack("{s:s, s:s, s:f, s:o, s:o, s:o, s:o, s:s, s:s, s:s}", "object", "audit", "id", id, "at",
                     (double)rt_sql_row_int(row, 1) / 1000, "actor", text_or_null(row, 2), "action",
                     text_or_null(row, 3), "subject", text_or_null(row, 4), "detail", json_or_null(row, 5),
                     "previous", rt_sql_row_text(row, 6), "hash", rt_sql_row_text(row, 7), "signature",
                     rt_sql_row_text(row, 8));
}

rt_status audit_list(call *c, rt_error *err)
{
    list l = {.make = audit_json};
    int64_t after;
    if (query_count(c, "limit", 100, 10000, &l.limit, err) != RT_OK ||
        query_count(c, "after", 0, INT64_MAX, &after, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_int(after), rt_sql_text(query_get(c, "actor")),
                                   rt_sql_text(query_get(c, "action")), rt_sql_text(query_get(c, "subject")),
                                   rt_sql_int(l.limit + 1)};
    const rt_status status =
        rt_db_run(c->db,
                  "SELECT id, at, actor, action, subject, detail, previous, hash, signature FROM "
                  "audit WHERE id > $1 AND ($2 = '' OR actor = $2) AND ($3 = '' OR action = $3) "
                  "AND ($4 = '' OR subject = $4) ORDER BY id LIMIT $5",
                  values, 5, list_take, &l, NULL, err);
    c->out = list_json(&l);
    return status;
}

rt_status audit_check(call *c, rt_error *err)
{
    rt_audit_report report;
    rt_error found = {0};
    const char *key = query_get(c, "public_key"), *expect = query_get(c, "expect");
    const rt_status status =
        rt_audit_verify(c->db, *key ? key : NULL, *expect ? expect : NULL, &report, &found);
    if (status != RT_OK && status != RT_CHECK_FAILED)
        return rt_error_set(err, status, "%s", found.text);
    c->out = json_pack("{s:s, s:b, s:s?, s:I, s:s, s:s}", "object", "audit.verification", "valid",
                       status == RT_OK, "fault", status == RT_OK ? NULL : found.text, "rows",
                       (json_int_t)report.rows, "head", report.head, "public_key", report.public_key);
    return RT_OK;
}
