/* account/admin_keys.c - keys of the admin API: making, listing, changing, rotating, revoking. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "account/admin_internal.h"
#include "account/ledger.h"
#include "base/hash.h"

enum { NAME_MAX_BYTES = 200, TAIL = 4, OVERLAP_S = 86400 };
#define COLUMNS "id, account, role, name, tail, limits, created, last_used, expires, revoked"

static json_t *key_json(const rt_sql_row *row)
{
    char redacted[RT_KEY_TEXT_MAX];
    const bool is_admin = !rt_sql_row_is_null(row, 2);
    rt_key_redacted(redacted, rt_sql_row_text(row, 0), is_admin, rt_sql_row_text(row, 4));
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "object", "key", "id",
                     rt_sql_row_text(row, 0), "account", text_or_null(row, 1), "role", text_or_null(row, 2),
                     "name", text_or_null(row, 3), "key", redacted, "limits", json_or_null(row, 5), "created",
                     int_or_null(row, 6), "last_used", int_or_null(row, 7), "expires", int_or_null(row, 8),
                     "revoked", int_or_null(row, 9));
}

static rt_status key_get(call *c, const char *id, json_t **out, rt_error *err)
{
    return get_one(c, "SELECT " COLUMNS " FROM keys WHERE id = $1", id, key_json, "key", out, err);
}

rt_status keys_show(call *c, rt_error *err) { return key_get(c, c->id, &c->out, err); }

typedef struct new_key { /* what a key is made of; account and role: one of them is NULL */
    const char *account, *role, *name;
    const json_t *limits; /* stored form */
    int64_t expires;      /* 0: never */
    const char *meter_of; /* the key whose sums it goes on with, or NULL */
} new_key;

static rt_status insert_key(call *c, const rt_key_text *text, const char *secret, const new_key *key,
                            rt_error *err)
{
    char hash[65];
    int64_t version;
    rt_sha256_hex(hash, secret, strlen(secret));
    char *limits = json_dumps(key->limits, JSON_COMPACT);
    rt_status status =
        limits ? next_version(c, &version, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a key");
    if (status == RT_OK) {
        const rt_sql_value values[] = {rt_sql_text(text->id),
                                       rt_sql_text(key->account),
                                       rt_sql_text(key->role),
                                       rt_sql_text(key->name),
                                       rt_sql_text(hash),
                                       rt_sql_text(secret + strlen(secret) - TAIL),
                                       rt_sql_text(limits),
                                       rt_sql_int(c->now_s),
                                       key->expires > 0 ? rt_sql_int(key->expires) : (rt_sql_value){0},
                                       rt_sql_int(version)};
        status = rt_db_run(
            c->db,
            "INSERT INTO keys (id, account, role, name, hash, tail, limits, created, expires, version) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            values, 10, NULL, NULL, NULL, err);
    }
    free(limits);
    rt_meter meter = {0};
    if (status == RT_OK && key->meter_of)
        status = rt_ledger_catch_up(c->db, err);
    if (status == RT_OK && key->meter_of) {
        status = rt_meter_load(c->db, key->meter_of, true, &meter, err);
        meter.running = meter.reserved_tokens = meter.reserved_cost = 0;
    }
    return status == RT_OK ? rt_meter_save(c->db, text->id, &meter, err) : status;
}

/* Makes the key, writes it to the trail without its secret, and answers it with the secret. */
static rt_status create(call *c, const char *action, const new_key *key, rt_error *err)
{
    char secret[RT_KEY_TEXT_MAX];
    rt_key_text text;
    rt_key_make(secret, &text, key->role != NULL);
    rt_status status = insert_key(c, &text, secret, key, err);
    if (status == RT_OK)
        status = key_get(c, text.id, &c->out, err);
    if (status == RT_OK)
        status = audit(c, action, key->account ? key->account : text.id, json_deep_copy(c->out), err);
    if (status == RT_OK && json_object_set_new(c->out, "secret", json_string(secret)) != 0)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for a key");
    sodium_memzero(secret, sizeof secret);
    c->http = 201;
    return status;
}

static rt_status limits_of_body(call *c, const json_t *old, json_t **out, rt_error *err)
{
    rt_limits limits = rt_limits_none();
    rt_status status = old ? rt_limits_read(&limits, old, err) : RT_OK;
    if (status == RT_OK && body_get(c, "limits")) {
        c->param = "limits";
        status = rt_limits_read(&limits, body_get(c, "limits"), err);
    }
    if (status == RT_OK)
        *out = rt_limits_json(&limits);
    return status;
}

rt_status keys_create(call *c, rt_error *err)
{
    new_key key = {.account = c->id};
    json_t *account = NULL, *limits = NULL;
    int64_t expires_in;
    if (body_text(c, "name", NAME_MAX_BYTES, false, "", &key.name, err) != RT_OK ||
        body_seconds(c, "expires_in", &expires_in, err) != RT_OK ||
        account_get(c, c->id, &account, err) != RT_OK)
        return err->status;
    const char *state = json_string_value(json_object_get(account, "state"));
    rt_status status =
        state && strcmp(state, "closed") == 0
            ? rt_error_set(err, RT_MISMATCH, "the account is closed: reinstate it before it gets keys")
            : limits_of_body(c, NULL, &limits, err);
    key.limits = limits;
    key.expires = expires_in > 0 ? c->now_s + expires_in : 0;
    if (status == RT_OK)
        status = create(c, "key.create", &key, err);
    json_decref(limits);
    json_decref(account);
    return status;
}

rt_status keys_create_admin(call *c, rt_error *err)
{
    static const char *const roles[] = {"read", "support", "full"};
    new_key key = {0};
    const char *role;
    int64_t expires_in;
    if (body_text(c, "role", 16, false, NULL, &role, err) != RT_OK ||
        body_text(c, "name", NAME_MAX_BYTES, false, "", &key.name, err) != RT_OK ||
        body_seconds(c, "expires_in", &expires_in, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < 3; i++)
        if (strcmp(role, roles[i]) == 0)
            key.role = roles[i];
    if (!key.role) {
        c->param = "role";
        return rt_error_set(err, RT_INVALID, "role: expected read, support or full");
    }
    const rt_limits none = rt_limits_none();
    json_t *limits = rt_limits_json(&none);
    key.limits = limits;
    key.expires = expires_in > 0 ? c->now_s + expires_in : 0;
    const rt_status status = create(c, "admin.create", &key, err);
    json_decref(limits);
    return status;
}

static rt_status list_keys(call *c, const char *sql, const char *account, rt_error *err)
{
    list l = {.make = key_json};
    if (query_count(c, "limit", 100, 1000, &l.limit, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(account), rt_sql_text(query_get(c, "after")),
                                   rt_sql_int(l.limit + 1)};
    const rt_status status = rt_db_run(c->db, sql, values, 3, list_take, &l, NULL, err);
    c->out = list_json(&l);
    return status;
}

#define LIST_KEYS(condition)                                                                                 \
    "SELECT " COLUMNS " FROM keys WHERE " condition                                                          \
    " AND ($2 = '' OR (created, id) > (SELECT k.created, k.id FROM keys AS k WHERE k.id = $2)) ORDER BY "    \
    "created, id "                                                                                           \
    "LIMIT $3"

rt_status keys_list(call *c, rt_error *err)
{
    json_t *account = NULL;
    if (account_get(c, c->id, &account, err) != RT_OK)
        return err->status;
    json_decref(account);
    return list_keys(c, LIST_KEYS("account = $1"), c->id, err);
}

rt_status keys_list_admin(call *c, rt_error *err)
{
    return list_keys(c, LIST_KEYS("role IS NOT NULL AND $1 = ''"), "", err);
}

/* Sets what the body names; false members stay. */
static rt_status update_key(call *c, const json_t *old, const json_t *limits, rt_error *err)
{
    const char *name = json_string_value(json_object_get(old, "name"));
    int64_t expires_in, version, expires = json_integer_value(json_object_get(old, "expires"));
    if (body_text(c, "name", NAME_MAX_BYTES, false, name, &name, err) != RT_OK ||
        body_seconds(c, "expires_in", &expires_in, err) != RT_OK || next_version(c, &version, err) != RT_OK)
        return err->status;
    if (expires_in > 0)
        expires = c->now_s + expires_in;
    else if (json_is_null(json_object_get(c->body, "expires_in")))
        expires = 0;
    char *text = json_dumps(limits, JSON_COMPACT);
    const rt_sql_value values[] = {rt_sql_text(c->id), rt_sql_text(name), rt_sql_text(text),
                                   expires > 0 ? rt_sql_int(expires) : (rt_sql_value){0},
                                   rt_sql_int(version)};
    const rt_status status =
        text ? rt_db_run(c->db,
                         "UPDATE keys SET name = $2, limits = $3, expires = $4, version = $5 WHERE id = $1",
                         values, 5, NULL, NULL, NULL, err)
             : rt_error_set(err, RT_NO_MEMORY, "no memory for a key");
    free(text);
    return status;
}

rt_status keys_change(call *c, rt_error *err)
{
    json_t *old = NULL, *limits = NULL;
    rt_status status = key_get(c, c->id, &old, err);
    if (status == RT_OK)
        status = limits_of_body(c, json_object_get(old, "limits"), &limits, err);
    if (status == RT_OK)
        status = update_key(c, old, limits, err);
    json_decref(limits);
    json_decref(old);
    if (status == RT_OK)
        status = key_get(c, c->id, &c->out, err);
    return status == RT_OK ? audit(c, "key.change", c->id, json_incref(c->out), err) : status;
}

/* A new key with the old one's name, limits and sums; the old one lives on for the overlap. */
rt_status keys_rotate(call *c, rt_error *err)
{
    json_t *old = NULL;
    int64_t overlap = OVERLAP_S, version;
    if ((body_get(c, "overlap") && body_seconds(c, "overlap", &overlap, err) != RT_OK) ||
        key_get(c, c->id, &old, err) != RT_OK)
        return err->status;
    rt_status status = next_version(c, &version, err);
    if (status == RT_OK && !json_is_null(json_object_get(old, "revoked")))
        status = rt_error_set(err, RT_MISMATCH, "the key is revoked: create a new one");
    const int64_t ends = c->now_s + overlap, old_ends = json_integer_value(json_object_get(old, "expires"));
    const rt_sql_value values[] = {rt_sql_text(c->id),
                                   rt_sql_int(old_ends > 0 && old_ends < ends ? old_ends : ends),
                                   rt_sql_int(version)};
    if (status == RT_OK)
        status = rt_db_run(c->db, "UPDATE keys SET expires = $2, version = $3 WHERE id = $1", values, 3, NULL,
                           NULL, NULL, err);
    const new_key key = {.account = json_string_value(json_object_get(old, "account")),
                         .role = json_string_value(json_object_get(old, "role")),
                         .name = json_string_value(json_object_get(old, "name")),
                         .limits = json_object_get(old, "limits"),
                         .meter_of = c->id};
    if (status == RT_OK)
        status = audit(c, "key.rotate", c->id, json_pack("{s:I}", "overlap", (json_int_t)overlap), err);
    if (status == RT_OK)
        status = create(c, "key.create", &key, err);
    json_decref(old);
    return status;
}

rt_status keys_revoke(call *c, rt_error *err)
{
    json_t *old = NULL;
    int64_t version;
    if (key_get(c, c->id, &old, err) != RT_OK)
        return err->status;
    const bool already = !json_is_null(json_object_get(old, "revoked"));
    if (already) {
        c->out = old;
        return RT_OK;
    }
    json_decref(old);
    if (next_version(c, &version, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(c->id), rt_sql_int(c->now_s), rt_sql_int(version)};
    rt_status status = rt_db_run(c->db, "UPDATE keys SET revoked = $2, version = $3 WHERE id = $1", values, 3,
                                 NULL, NULL, NULL, err);
    if (status == RT_OK)
        status = key_get(c, c->id, &c->out, err);
    return status == RT_OK ? audit(c, "key.revoke", c->id, json_incref(c->out), err) : status;
}
