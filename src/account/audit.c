/* account/audit.c - appending to the trail and checking it; see audit.h. */
#include "account/audit.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH = 32, HASH_HEX = 65 };
#define ZERO_HASH "0000000000000000000000000000000000000000000000000000000000000000"

typedef struct head {
    int64_t count;
    char hash[HASH_HEX], signature[RT_SIGNATURE_HEX], public_key[RT_SIGN_HEX];
    bool found;
} head;

static void copy_text(char *out, size_t size, const char *text) { (void)snprintf(out, size, "%s", text); }

/* The hash of one row: fields in a JSON array, so that no two different rows have the same bytes. */
static bool row_hash(char out[HASH_HEX], const char *previous, int64_t id, int64_t at, const char *actor,
                     const char *action, const char *subject, const char *detail)
{
    json_t *fields =
        json_pack("[I, I, s, s, s, s]", (json_int_t)id, (json_int_t)at, actor, action, subject, detail);
    char *text = fields ? json_dumps(fields, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(fields);
    if (!text)
        return false;
    unsigned char digest[HASH];
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, HASH);
    (void)crypto_generichash_update(&state, (const unsigned char *)previous, strlen(previous));
    (void)crypto_generichash_update(&state, (const unsigned char *)text, strlen(text));
    (void)crypto_generichash_final(&state, digest, HASH);
    (void)sodium_bin2hex(out, HASH_HEX, digest, HASH);
    free(text);
    return true;
}

static int signed_text(char *out, size_t size, const char *what, int64_t id, const char *hash)
{
    return snprintf(out, size, "retort-%s|%lld|%s", what, (long long)id, hash);
}

static void sign(char out[RT_SIGNATURE_HEX], const rt_secrets *secrets, const char *what, int64_t id,
                 const char *hash)
{
    char text[160];
    unsigned char signature[crypto_sign_BYTES];
    const int size = signed_text(text, sizeof text, what, id, hash);
    (void)crypto_sign_detached(signature, NULL, (const unsigned char *)text, (size_t)size, secrets->sign);
    (void)sodium_bin2hex(out, RT_SIGNATURE_HEX, signature, sizeof signature);
}

static bool signature_holds(const char *signature_hex, const unsigned char public_key[32], const char *what,
                            int64_t id, const char *hash)
{
    char text[160];
    unsigned char signature[crypto_sign_BYTES];
    size_t size = 0;
    const int text_size = signed_text(text, sizeof text, what, id, hash);
    return sodium_hex2bin(signature, sizeof signature, signature_hex, strlen(signature_hex), NULL, &size,
                          NULL) == 0 &&
           size == sizeof signature &&
           crypto_sign_verify_detached(signature, (const unsigned char *)text, (size_t)text_size,
                                       public_key) == 0;
}

static rt_status take_head(void *context, const rt_sql_row *row, rt_error *err)
{
    (void)err;
    head *out = context;
    out->count = rt_sql_row_int(row, 0);
    copy_text(out->hash, sizeof out->hash, rt_sql_row_text(row, 1));
    copy_text(out->signature, sizeof out->signature, rt_sql_row_text(row, 2));
    copy_text(out->public_key, sizeof out->public_key, rt_sql_row_text(row, 3));
    out->found = true;
    return RT_OK;
}

static rt_status read_head(rt_db *db, bool lock, head *out, rt_error *err)
{
    *out = (head){.hash = ZERO_HASH};
    return rt_db_run(
        db,
        lock && rt_db_is_shared(db)
            ? "SELECT count, hash, signature, public_key FROM audit_head WHERE one = 1 FOR UPDATE"
            : "SELECT count, hash, signature, public_key FROM audit_head WHERE one = 1",
        NULL, 0, take_head, out, NULL, err);
}

static rt_status insert_row(rt_db *db, const rt_secrets *secrets, const head *last, int64_t at,
                            const char *const texts[3], const char *detail, rt_error *err)
{
    const int64_t id = last->count + 1;
    char hash[HASH_HEX], signature[RT_SIGNATURE_HEX], head_signature[RT_SIGNATURE_HEX], key[RT_SIGN_HEX];
    if (!row_hash(hash, last->hash, id, at, texts[0], texts[1], texts[2], detail))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row of the audit trail");
    sign(signature, secrets, "audit", id, hash);
    sign(head_signature, secrets, "audit-head", id, hash);
    (void)sodium_bin2hex(key, sizeof key, secrets->sign_public, sizeof secrets->sign_public);
    const rt_sql_value row[] = {rt_sql_int(id),          rt_sql_int(at),        rt_sql_text(texts[0]),
                                rt_sql_text(texts[1]),   rt_sql_text(texts[2]), rt_sql_text(detail),
                                rt_sql_text(last->hash), rt_sql_text(hash),     rt_sql_text(signature)};
    const rt_sql_value top[] = {rt_sql_int(id), rt_sql_text(hash), rt_sql_text(head_signature),
                                rt_sql_text(key)};
    if (last->found && strcmp(last->public_key, key) != 0)
        return rt_error_set(
            err, RT_MISMATCH,
            "this database's audit trail was signed with other secrets: give its file of secrets");
    if (rt_db_run(db, "INSERT INTO audit VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", row, 9, NULL, NULL,
                  NULL, err) != RT_OK)
        return err->status;
    return rt_db_run(db,
                     "INSERT INTO audit_head VALUES (1, $1, $2, $3, $4) ON CONFLICT (one) DO UPDATE SET "
                     "count = excluded.count, hash = excluded.hash, signature = excluded.signature",
                     top, 4, NULL, NULL, NULL, err);
}

rt_status rt_audit_append(rt_db *db, const rt_secrets *secrets, int64_t at_ms, const char *actor,
                          const char *action, const char *subject, json_t *detail, rt_error *err)
{
    head last;
    char *text = detail ? json_dumps(detail, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(detail);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row of the audit trail");
    /* The first row of a shared trail has no head to lock yet. */
    rt_status status =
        rt_db_is_shared(db) ? rt_db_script(db, "SELECT pg_advisory_xact_lock(7236838)", err) : RT_OK;
    if (status == RT_OK)
        status = read_head(db, true, &last, err);
    if (status == RT_OK)
        status =
            insert_row(db, secrets, &last, at_ms, (const char *const[]){actor, action, subject}, text, err);
    free(text);
    return status;
}

typedef struct walk {
    unsigned char key[32];
    char previous[HASH_HEX];
    int64_t rows;
    const char *expect;
    bool expected_found;
} walk;

static rt_status check_row(void *context, const rt_sql_row *row, rt_error *err)
{
    walk *at = context;
    char hash[HASH_HEX];
    const int64_t id = rt_sql_row_int(row, 0);
    if (id != at->rows + 1)
        return rt_error_set(err, RT_CHECK_FAILED, "audit trail: row %lld is missing",
                            (long long)(at->rows + 1));
    if (strcmp(rt_sql_row_text(row, 6), at->previous) != 0)
        return rt_error_set(err, RT_CHECK_FAILED, "audit trail: row %lld does not follow the row before it",
                            (long long)id);
    if (!row_hash(hash, at->previous, id, rt_sql_row_int(row, 1), rt_sql_row_text(row, 2),
                  rt_sql_row_text(row, 3), rt_sql_row_text(row, 4), rt_sql_row_text(row, 5)) ||
        strcmp(hash, rt_sql_row_text(row, 7)) != 0)
        return rt_error_set(err, RT_CHECK_FAILED, "audit trail: row %lld was changed", (long long)id);
    if (!signature_holds(rt_sql_row_text(row, 8), at->key, "audit", id, hash))
        return rt_error_set(err, RT_CHECK_FAILED, "audit trail: row %lld is not signed by the key",
                            (long long)id);
    if (at->expect && strcmp(at->expect, hash) == 0)
        at->expected_found = true;
    copy_text(at->previous, sizeof at->previous, hash);
    at->rows = id;
    return RT_OK;
}

static rt_status check_head(const head *last, const walk *at, rt_error *err)
{
    if (!last->found && at->rows == 0)
        return RT_OK;
    if (!last->found || last->count != at->rows || strcmp(last->hash, at->previous) != 0)
        return rt_error_set(err, RT_CHECK_FAILED, "audit trail: it has %lld rows and its head says %lld",
                            (long long)at->rows, (long long)last->count);
    if (!signature_holds(last->signature, at->key, "audit-head", last->count, last->hash))
        return rt_error_set(err, RT_CHECK_FAILED, "audit trail: its head is not signed by the key");
    return RT_OK;
}

rt_status rt_audit_verify(rt_db *db, const char *public_key, const char *expect, rt_audit_report *report,
                          rt_error *err)
{
    *report = (rt_audit_report){.head = ZERO_HASH};
    head last;
    walk at = {.previous = ZERO_HASH, .expect = expect};
    size_t size = 0;
    if (sodium_init() < 0)
        return rt_error_set(err, RT_INTERNAL, "libsodium cannot be initialised");
    /* One snapshot for head and rows: the trail may grow meanwhile. */
    if (rt_db_begin(db, true, err) != RT_OK)
        return err->status;
    rt_status status = read_head(db, true, &last, err);
    const char *hex = public_key ? public_key : last.public_key;
    if (status == RT_OK && (last.found || public_key) &&
        (sodium_hex2bin(at.key, sizeof at.key, hex, strlen(hex), NULL, &size, NULL) != 0 ||
         size != sizeof at.key))
        status = rt_error_set(err, RT_INVALID, "the public key must be 64 hex digits");
    if (status == RT_OK)
        status =
            rt_db_run(db,
                      "SELECT id, at, actor, action, subject, detail, previous, hash, signature FROM audit "
                      "ORDER BY id",
                      NULL, 0, check_row, &at, NULL, err);
    rt_db_rollback(db);
    if (status == RT_OK)
        status = check_head(&last, &at, err);
    if (status == RT_OK && expect && !at.expected_found)
        status =
            rt_error_set(err, RT_CHECK_FAILED, "audit trail: no row has the expected hash: it was set back");
    report->rows = at.rows;
    copy_text(report->head, sizeof report->head, at.previous);
    copy_text(report->public_key, sizeof report->public_key, hex);
    return status;
}
