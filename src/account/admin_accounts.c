/* account/admin_accounts.c - accounts of the admin API: making, listing, changing, and their states. */
#include <stdlib.h>
#include <string.h>

#include "account/admin_internal.h"
#include "account/ledger.h"

enum { NAME_MAX_BYTES = 200, REASON_MAX = 4000, PUBLIC_REASON_MAX = 250, EVIDENCE_MAX = 1000 };

#define COLUMNS                                                                                              \
    "id, name, contact, state, tier, limits, permissions, prices, prompts, created, case_id, "               \
    "public_reason, until, "                                                                                 \
    "terms, terms_at"

static json_t *account_json(const rt_sql_row *row)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "object", "account", "id", rt_sql_row_text(row, 0), "name", text_or_null(row, 1),
                     "contact", text_or_null(row, 2), "state", rt_sql_row_text(row, 3), "tier",
                     text_or_null(row, 4), "limits", json_or_null(row, 5), "permissions",
                     json_or_null(row, 6), "prices", json_or_null(row, 7), "prompts", json_or_null(row, 8),
                     "created", int_or_null(row, 9), "case", text_or_null(row, 10), "public_reason",
                     text_or_null(row, 11), "until", int_or_null(row, 12), "terms_accepted",
                     text_or_null(row, 13), "terms_accepted_at", int_or_null(row, 14));
}

rt_status account_get(call *c, const char *id, json_t **out, rt_error *err)
{
    return get_one(c, "SELECT " COLUMNS " FROM accounts WHERE id = $1", id, account_json, "account", out,
                   err);
}

rt_status accounts_show(call *c, rt_error *err) { return account_get(c, c->id, &c->out, err); }

rt_status accounts_list(call *c, rt_error *err)
{
    const char *state = query_get(c, "state"), *after = query_get(c, "after"), *name = query_get(c, "name");
    rt_account_state parsed;
    list l = {.make = account_json};
    if (*state && !rt_account_state_parse(&parsed, state)) {
        c->param = "state";
        return rt_error_set(err, RT_INVALID,
                            "state: expected active, watched, throttled, suspended or closed");
    }
    if (query_count(c, "limit", 100, 1000, &l.limit, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(state), rt_sql_text(name), rt_sql_text(after),
                                   rt_sql_int(l.limit + 1)};
    const rt_status status = rt_db_run(
        c->db,
        "SELECT " COLUMNS " FROM accounts WHERE ($1 = '' OR state = $1) AND ($2 = '' OR name = $2) AND ($3 = "
        "'' OR (created, id) > (SELECT a.created, a.id FROM accounts AS a WHERE a.id = $3)) ORDER BY "
        "created, "
        "id LIMIT $4",
        values, 4, list_take, &l, NULL, err);
    c->out = list_json(&l);
    return status;
}

/* The settings of an account as texts for the database; each is malloc'd or NULL. */
typedef struct settings {
    char *limits, *permissions, *prices, *prompts;
} settings;

static void settings_free(settings *s)
{
    free(s->limits);
    free(s->permissions);
    free(s->prices);
    free(s->prompts);
}

static char *dump(json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return text;
}

/* What the body says, on top of the account as it is (`old`: its JSON, or NULL). */
static rt_status read_settings(call *c, const json_t *old, settings *s, rt_error *err)
{
    rt_limits limits = rt_limits_none();
    rt_permissions permissions = {0};
    rt_prompt_policy prompts = {RT_PROMPT_NONE, 30};
    const json_t *prices = old ? json_object_get(old, "prices") : NULL,
                 *given = json_object_get(c->body, "prices");
    rt_status status = RT_OK;
    if (old) {
        status = rt_limits_read(&limits, json_object_get(old, "limits"), err);
        if (status == RT_OK)
            status = rt_permissions_read(&permissions, json_object_get(old, "permissions"), err);
        if (status == RT_OK)
            status = rt_prompt_policy_read(&prompts, json_object_get(old, "prompts"), err);
    }
    if (status == RT_OK && body_get(c, "limits")) {
        c->param = "limits";
        status = rt_limits_read(&limits, body_get(c, "limits"), err);
    }
    if (status == RT_OK && body_get(c, "permissions")) {
        c->param = "permissions";
        status = rt_permissions_read(&permissions, body_get(c, "permissions"), err);
    }
    if (status == RT_OK && body_get(c, "prompts")) {
        c->param = "prompts";
        status = rt_prompt_policy_read(&prompts, body_get(c, "prompts"), err);
    }
    if (status == RT_OK && given) {
        c->param = "prices";
        prices = given;
        status = json_is_null(given) ? RT_OK : rt_prices_check(given, err);
    }
    if (status == RT_OK && prompts.keep == RT_PROMPT_FULL && !permissions.prompt_log) {
        c->param = "prompts";
        status = rt_error_set(err, RT_INVALID, "prompts.keep: \"full\" needs the permission prompt_log");
    }
    if (status == RT_OK) {
        c->param = NULL;
        *s = (settings){dump(rt_limits_json(&limits)), dump(rt_permissions_json(&permissions)),
                        json_is_object(prices) ? json_dumps(prices, JSON_COMPACT) : NULL,
                        dump(rt_prompt_policy_json(&prompts))};
        if (!s->limits || !s->permissions || !s->prompts)
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for an account's settings");
    }
    rt_permissions_deinit(&permissions);
    return status;
}

static rt_status insert_account(call *c, const char *id, const settings *s, rt_error *err)
{
    const char *name, *contact, *tier;
    int64_t version;
    if (body_text(c, "name", NAME_MAX_BYTES, false, NULL, &name, err) != RT_OK ||
        body_text(c, "contact", NAME_MAX_BYTES, false, "", &contact, err) != RT_OK ||
        body_text(c, "tier", NAME_MAX_BYTES, false, "default", &tier, err) != RT_OK ||
        next_version(c, &version, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {
        rt_sql_text(id),        rt_sql_text(name),           rt_sql_text(contact),   rt_sql_text(tier),
        rt_sql_text(s->limits), rt_sql_text(s->permissions), rt_sql_text(s->prices), rt_sql_text(s->prompts),
        rt_sql_int(c->now_s),   rt_sql_int(version)};
    if (rt_db_run(c->db,
                  "INSERT INTO accounts (id, name, contact, state, tier, limits, permissions, prices, "
                  "prompts, created, "
                  "version) VALUES ($1, $2, $3, 'active', $4, $5, $6, $7, $8, $9, $10)",
                  values, 10, NULL, NULL, NULL, err) != RT_OK)
        return err->status;
    return rt_meter_save(c->db, id, &(rt_meter){0}, err); /* there from the start: admission locks it */
}

rt_status accounts_create(call *c, rt_error *err)
{
    char id[ACCOUNT_ID_SIZE];
    settings s = {0};
    rt_id_make(id, "acc_", 20);
    rt_status status = read_settings(c, NULL, &s, err);
    if (status == RT_OK)
        status = insert_account(c, id, &s, err);
    settings_free(&s);
    if (status == RT_OK)
        status = account_get(c, id, &c->out, err);
    if (status == RT_OK)
        status = audit(c, "account.create", id, json_incref(c->out), err);
    c->http = 201;
    return status;
}

/* The members of the body that a change may set, for the trail. */
static json_t *changed_members(const call *c)
{
    static const char *const names[] = {"name",        "contact", "tier",    "limits",
                                        "permissions", "prices",  "prompts", "terms_accepted"};
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(c->body, names[i]);
        if (value)
            (void)json_object_set(out, names[i], value);
    }
    return out;
}

static rt_status update_account(call *c, const json_t *old, const settings *s, rt_error *err)
{
    const char *name = json_string_value(json_object_get(old, "name"));
    const char *contact = json_string_value(json_object_get(old, "contact"));
    const char *tier = json_string_value(json_object_get(old, "tier")), *terms = "";
    int64_t version;
    if (body_text(c, "name", NAME_MAX_BYTES, false, name, &name, err) != RT_OK ||
        body_text(c, "contact", NAME_MAX_BYTES, false, contact, &contact, err) != RT_OK ||
        body_text(c, "tier", NAME_MAX_BYTES, false, tier, &tier, err) != RT_OK ||
        body_text(c, "terms_accepted", 64, false, "", &terms, err) != RT_OK ||
        next_version(c, &version, err) != RT_OK)
        return err->status;
    if (!*name) {
        c->param = "name";
        return rt_error_set(err, RT_INVALID, "name: must not be empty");
    }
    const rt_sql_value values[] = {
        rt_sql_text(c->id),     rt_sql_text(name),       rt_sql_text(contact),
        rt_sql_text(tier),      rt_sql_text(s->limits),  rt_sql_text(s->permissions),
        rt_sql_text(s->prices), rt_sql_text(s->prompts), rt_sql_int(version)};
    const rt_sql_value accepted[] = {rt_sql_text(c->id), rt_sql_text(terms), rt_sql_int(c->now_s)};
    if (rt_db_run(c->db,
                  "UPDATE accounts SET name = $2, contact = $3, tier = $4, limits = $5, permissions = $6, "
                  "prices = $7, "
                  "prompts = $8, version = $9 WHERE id = $1",
                  values, 9, NULL, NULL, NULL, err) != RT_OK)
        return err->status;
    if (!*terms)
        return RT_OK;
    return rt_db_run(c->db, "UPDATE accounts SET terms = $2, terms_at = $3 WHERE id = $1", accepted, 3, NULL,
                     NULL, NULL, err);
}

rt_status accounts_change(call *c, rt_error *err)
{
    json_t *old = NULL;
    settings s = {0};
    rt_status status = account_get(c, c->id, &old, err);
    if (status == RT_OK)
        status = read_settings(c, old, &s, err);
    if (status == RT_OK)
        status = update_account(c, old, &s, err);
    settings_free(&s);
    json_decref(old);
    if (status == RT_OK)
        status = audit(c, "account.change", c->id, changed_members(c), err);
    return status == RT_OK ? account_get(c, c->id, &c->out, err) : status;
}

/* --- states --- */

rt_status account_set_state(call *c, const char *id, rt_account_state state, const char *case_id,
                            const char *public_reason, int64_t until, rt_error *err)
{
    int64_t version;
    if (next_version(c, &version, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(id),
                                   rt_sql_text(rt_account_state_name(state)),
                                   rt_sql_text(case_id),
                                   rt_sql_text(public_reason),
                                   until > 0 ? rt_sql_int(until) : (rt_sql_value){0},
                                   rt_sql_int(version)};
    if (rt_db_run(c->db,
                  "UPDATE accounts SET state = $2, case_id = $3, public_reason = $4, until = $5, version = "
                  "$6 WHERE id "
                  "= $1",
                  values, 6, NULL, NULL, NULL, err) != RT_OK)
        return err->status;
    json_decref(c->out);
    c->out = NULL;
    return account_get(c, id, &c->out, err);
}

static const char *member(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static rt_status read_evidence(call *c, char **out, rt_error *err)
{
    const json_t *evidence = body_get(c, "evidence"), *id;
    size_t i;
    bool good = !evidence || (json_is_array(evidence) && json_array_size(evidence) <= EVIDENCE_MAX);
    json_array_foreach((json_t *)evidence, i, id) good =
        good && json_is_string(id) && json_string_length(id) <= NAME_MAX_BYTES;
    if (!good) {
        c->param = "evidence";
        return rt_error_set(err, RT_INVALID, "evidence: expected at most %d ids", EVIDENCE_MAX);
    }
    *out = evidence ? json_dumps(evidence, JSON_COMPACT) : strdup("[]");
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a case");
}

/* `seen`, where the body has it: the case on which the account's state rested when the operator looked, empty
 * for none.  Another one since: somebody was faster, and it is told who. */
static rt_status check_seen(call *c, const json_t *account, rt_error *err)
{
    const char *seen = json_string_value(body_get(c, "seen")), *id = member(account, "case");
    json_t *about = NULL;
    if (!seen || strcmp(seen, id ? id : "") == 0)
        return RT_OK;
    if (case_get(c, *seen ? seen : id, &about, err) != RT_OK)
        return err->status;
    const char *outcome = member(about, "outcome"), *by = member(about, *seen ? "decided_by" : "actor");
    const rt_status status = rt_error_set(
        err, RT_MISMATCH,
        "the account was decided about since you looked: it is %.20s (%.40s by %.80s); look "
        "again, then decide",
        member(account, "state"), *seen && outcome ? outcome : member(about, "action"), by ? by : "somebody");
    json_decref(about);
    return status;
}

/* Opens a case and sets the state; an open case before it ends as replaced. */
static rt_status act(call *c, rt_account_state state, const char *action, rt_error *err)
{
    char case_id[CASE_ID_SIZE];
    const char *reason, *public_reason;
    char *evidence = NULL;
    int64_t until;
    json_t *old = NULL;
    if (body_text(c, "reason", REASON_MAX, true, "", &reason, err) != RT_OK ||
        body_text(c, "public_reason", PUBLIC_REASON_MAX, false, "", &public_reason, err) != RT_OK ||
        body_time(c, "until", &until, err) != RT_OK || account_get(c, c->id, &old, err) != RT_OK)
        return err->status;
    rt_status status = check_seen(c, old, err);
    if (status == RT_OK)
        status = read_evidence(c, &evidence, err);
    rt_id_make(case_id, "case_", 20);
    if (status == RT_OK && member(old, "case"))
        status = case_end(c, c->id, member(old, "case"), "replaced", "", err);
    const rt_sql_value values[] = {rt_sql_text(case_id),  rt_sql_text(c->id),
                                   rt_sql_int(c->now_s),  rt_sql_text(c->actor),
                                   rt_sql_text(action),   rt_sql_text(member(old, "state")),
                                   rt_sql_text(reason),   rt_sql_text(public_reason),
                                   rt_sql_text(evidence), until > 0 ? rt_sql_int(until) : (rt_sql_value){0}};
    if (status == RT_OK)
        status =
            rt_db_run(c->db,
                      "INSERT INTO cases (id, account, opened, actor, action, before, reason, public_reason, "
                      "evidence, until, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'open')",
                      values, 10, NULL, NULL, NULL, err);
    if (status == RT_OK)
        status =
            audit(c, action, c->id,
                  json_pack("{s:s, s:s, s:s, s:s, s:I}", "case", case_id, "before", member(old, "state"),
                            "reason", reason, "public_reason", public_reason, "until", (json_int_t)until),
                  err);
    if (status == RT_OK)
        status = account_set_state(c, c->id, state, case_id, public_reason, until, err);
    free(evidence);
    json_decref(old);
    return status;
}

rt_status accounts_suspend(call *c, rt_error *err)
{
    return act(c, RT_ACCOUNT_SUSPENDED, "account.suspend", err);
}
rt_status accounts_throttle(call *c, rt_error *err)
{
    return act(c, RT_ACCOUNT_THROTTLED, "account.throttle", err);
}
rt_status accounts_watch(call *c, rt_error *err) { return act(c, RT_ACCOUNT_WATCHED, "account.watch", err); }
rt_status accounts_close(call *c, rt_error *err) { return act(c, RT_ACCOUNT_CLOSED, "account.close", err); }

rt_status accounts_reinstate(call *c, rt_error *err)
{
    const char *note;
    json_t *old = NULL;
    if (body_text(c, "note", REASON_MAX, true, "", &note, err) != RT_OK ||
        account_get(c, c->id, &old, err) != RT_OK)
        return err->status;
    rt_status status = check_seen(c, old, err);
    if (status == RT_OK && member(old, "case"))
        status = case_end(c, c->id, member(old, "case"), "reinstate", note, err);
    if (status == RT_OK)
        status = audit(c, "account.reinstate", c->id,
                       json_pack("{s:s, s:s, s:s?}", "before", member(old, "state"), "note", note, "case",
                                 member(old, "case")),
                       err);
    json_decref(old);
    return status == RT_OK ? account_set_state(c, c->id, RT_ACCOUNT_ACTIVE, NULL, NULL, 0, err) : status;
}

static json_t *id_json(const rt_sql_row *row) { return json_string(rt_sql_row_text(row, 0)); }

static rt_status lift_expired(call *c, rt_error *err)
{
    list l = {.make = id_json, .limit = 1000};
    const rt_sql_value now = rt_sql_int(c->now_s);
    rt_status status =
        rt_db_run(c->db,
                  "SELECT id FROM accounts WHERE until IS NOT NULL AND until <= $1 AND state <> 'closed' "
                  "LIMIT 1000",
                  &now, 1, list_take, &l, NULL, err);
    size_t i;
    json_t *id;
    json_array_foreach(l.data, i, id)
    {
        (void)memset(c->id, 0, sizeof c->id);
        memcpy(c->id, json_string_value(id),
               json_string_length(id) < sizeof c->id ? json_string_length(id) : 0);
        if (status == RT_OK)
            status = accounts_reinstate(c, err);
    }
    json_decref(l.data);
    json_decref(c->out);
    c->out = json_object();
    return status;
}

rt_status rt_desk_lift_expired(rt_desk *desk, rt_error *err)
{
    call c;
    json_t *body = json_pack("{s:s}", "note", "its time was over");
    call_begin(&c, desk, "system", body);
    const rt_desk_reply reply = call_run(&c, lift_expired, true);
    json_decref(reply.body);
    json_decref(body);
    return reply.http == 200 ? RT_OK
                             : rt_error_set(err, RT_IO, "suspensions that are over could not be lifted");
}

static rt_status take_case(void *context, const rt_sql_row *row, rt_error *err)
{
    return json_object_set_new(context, rt_sql_row_text(row, 0), json_string(rt_sql_row_text(row, 1))) == 0
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for the cases");
}

static rt_status accounts_cases(call *c, rt_error *err)
{
    c->out = json_object();
    return rt_db_run(c->db, "SELECT id, case_id FROM accounts WHERE case_id IS NOT NULL", NULL, 0, take_case,
                     c->out, NULL, err);
}

json_t *rt_desk_cases(rt_desk *desk)
{
    call c;
    call_begin(&c, desk, "system", NULL);
    const rt_desk_reply reply = call_run(&c, accounts_cases, false);
    if (reply.http == 200)
        return reply.body;
    json_decref(reply.body);
    return NULL;
}
