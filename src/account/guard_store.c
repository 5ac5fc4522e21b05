/* account/guard_store.c - see guard_store.h.
 *
 * Numbers: a serial id is given when a row is inserted, not when it is committed, so a reader who goes by it
 * would step over rows of a slower transaction.  The server that judges gives the numbers, to rows that it
 * sees; what it does not see yet gets a later one.  Of a SQLite file the ids themselves are in order, since
 * one thread writes.  The newest row is never dropped: SQLite would give its id away again. */
#include "account/guard_store.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "account/gate_internal.h"
#include "base/hash.h"
#include "base/size.h"

enum { LOCK_SPACE = 7236838, DROP_MAX = 500, PART_BYTES = 256 << 10, NAME_MAX_BYTES = 16 };
static const size_t state_bytes_max = (size_t)8 << 30;

struct rt_guard_store {
    rt_db *db;
    rt_secrets secrets;
    bool shared, leads;
    uint64_t epoch; /* of the connection that holds the lock */
    int64_t rungs_seen;
    /* the run of bytes that is being put */
    char name[NAME_MAX_BYTES];
    int64_t part;
    size_t filled;
    unsigned char *bytes;
};

rt_status rt_guard_store_open(rt_guard_store **out, rt_gate *gate, rt_error *err)
{
    *out = NULL;
    rt_guard_store *store = calloc(1, sizeof *store);
    if (!store)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the guard's part of the database");
    store->secrets = gate->secrets;
    store->shared = gate->shared;
    if (rt_db_open(&store->db, gate->where, err) != RT_OK) {
        rt_guard_store_close(store);
        return err->status;
    }
    *out = store;
    return RT_OK;
}

void rt_guard_store_close(rt_guard_store *store)
{
    if (!store)
        return;
    rt_db_close(store->db);
    rt_secrets_wipe(&store->secrets);
    free(store->bytes);
    free(store);
}

bool rt_guard_store_is_shared(const rt_guard_store *store) { return store->shared; }

uint64_t rt_guard_store_key(const rt_guard_store *store)
{
    static const char purpose[] = "the key of the guard's hashes";
    uint64_t key = 0;
    unsigned char digest[crypto_generichash_BYTES];
    (void)crypto_generichash(digest, sizeof digest, (const unsigned char *)purpose, sizeof purpose,
                             store->secrets.seal, sizeof store->secrets.seal);
    for (size_t i = 0; i < sizeof key; i++)
        key |= (uint64_t)digest[i] << (8 * i);
    return key ? key : 1;
}

/* ---- who judges ---- */

/* Was the connection opened anew since the lock was taken?  Then another server may have it. */
static bool has_lost(const rt_guard_store *store)
{
    return store->shared && store->leads && rt_db_epoch(store->db) != store->epoch;
}

/* A transaction of the one that leads; RT_BUSY where it no longer does. */
static rt_status begin(rt_guard_store *store, rt_error *err)
{
    if (rt_db_begin(store->db, true, err) != RT_OK)
        return err->status;
    if (!has_lost(store))
        return RT_OK;
    rt_db_rollback(store->db);
    return rt_error_set(err, RT_BUSY, "the connection that held the guard's lock has ended");
}

rt_status rt_guard_store_lead(rt_guard_store *store, bool *leads, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_int(LOCK_SPACE), rt_sql_int(1)};
    int64_t got = 0;
    bool found;
    *leads = !store->shared || (store->leads && !has_lost(store));
    if (*leads)
        return RT_OK;
    store->leads = false;
    if (rt_db_get_int(store->db, "SELECT CASE WHEN pg_try_advisory_lock($1::int, $2::int) THEN 1 ELSE 0 END",
                      values, 2, &got, &found, err) != RT_OK)
        return err->status;
    store->epoch = rt_db_epoch(store->db);
    store->leads = *leads = got == 1;
    return RT_OK;
}

/* ---- rows ---- */

rt_status rt_guard_store_last(rt_guard_store *store, int64_t *last, rt_error *err)
{
    bool found;
    return rt_db_get_int(store->db,
                         store->shared ? "SELECT COALESCE(MAX(seq), 0) FROM guard_rows"
                                       : "SELECT COALESCE(MAX(id), 0) FROM guard_rows",
                         NULL, 0, last, &found, err);
}

rt_status rt_guard_store_number(rt_guard_store *store, int64_t judged, size_t max, rt_error *err)
{
    int64_t last = 0;
    if (!store->shared)
        return RT_OK;
    if (begin(store, err) != RT_OK)
        return err->status;
    rt_status status = rt_guard_store_last(store, &last, err);
    const rt_sql_value values[] = {rt_sql_int(last > judged ? last : judged), rt_sql_int((int64_t)max)},
                       mark = rt_sql_int(judged);
    if (status == RT_OK)
        status = rt_db_run(store->db, "UPDATE counters SET n = $1 WHERE name = 'guard_judged' AND n <> $1",
                           &mark, 1, NULL, NULL, NULL, err);
    if (status == RT_OK)
        status = rt_db_run(store->db,
                           "UPDATE guard_rows SET seq = $1 + n.k FROM (SELECT id, ROW_NUMBER() OVER (ORDER "
                           "BY id) AS k FROM (SELECT id FROM guard_rows WHERE seq IS NULL ORDER BY id LIMIT "
                           "$2) u) n WHERE guard_rows.id = n.id",
                           values, 2, NULL, NULL, NULL, err);
    if (status == RT_OK)
        status = rt_db_commit(store->db, err);
    if (status != RT_OK)
        rt_db_rollback(store->db);
    return status;
}

typedef struct reading {
    const rt_guard_store *store;
    rt_guard_row_kept *rows;
    size_t n;
} reading;

static rt_status take_row(void *context, const rt_sql_row *row, rt_error *err)
{
    reading *r = context;
    size_t size;
    const void *sealed = rt_sql_row_blob(row, 2, &size);
    rt_guard_row_kept *one = &r->rows[r->n];
    *one = (rt_guard_row_kept){.number = rt_sql_row_int(row, 0)};
    rt_error damaged = {0};
    one->data = malloc(size + 1);
    if (!one->data)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row of the guard");
    r->n++;
    if (size >= RT_SEAL_OVERHEAD && rt_secrets_unseal(&r->store->secrets, one->data, sealed, size,
                                                      rt_sql_row_text(row, 1), &damaged) == RT_OK)
        one->size = size - RT_SEAL_OVERHEAD;
    return RT_OK;
}

rt_status rt_guard_store_read(rt_guard_store *store, int64_t after, size_t max, rt_guard_row_kept *rows,
                              size_t *n_rows, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_int(after), rt_sql_int((int64_t)max)};
    reading r = {store, rows, 0};
    const rt_status status = rt_db_run(
        store->db,
        store->shared && store->leads
            ? "SELECT seq, request, sealed FROM guard_rows WHERE seq > $1 ORDER BY seq LIMIT $2"
        : store->shared
            ? "SELECT seq, request, sealed FROM guard_rows WHERE seq > $1 AND seq <= (SELECT n FROM "
              "counters WHERE name = 'guard_judged') ORDER BY seq LIMIT $2"
            : "SELECT id, request, sealed FROM guard_rows WHERE id > $1 ORDER BY id LIMIT $2",
        values, 2, take_row, &r, NULL, err);
    *n_rows = r.n;
    if (status == RT_OK)
        return RT_OK;
    for (size_t i = 0; i < r.n; i++)
        free(rows[i].data);
    *n_rows = 0;
    return status;
}

rt_status rt_guard_store_drop(rt_guard_store *store, int64_t number, bool *more, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_int(number), rt_sql_int(DROP_MAX)};
    int64_t changed = 0;
    const rt_status status =
        rt_db_run(store->db,
                  store->shared ? "DELETE FROM guard_rows WHERE id IN (SELECT id FROM guard_rows WHERE seq < "
                                  "$1 ORDER BY seq LIMIT $2)"
                                : "DELETE FROM guard_rows WHERE id IN (SELECT id FROM guard_rows WHERE id < "
                                  "$1 ORDER BY id LIMIT $2)",
                  values, 2, NULL, NULL, &changed, err);
    *more = changed == DROP_MAX;
    return status;
}

/* ---- rungs ---- */

/* The counter's row stays locked until the transaction ends, so changes become visible in their order. */
static rt_status next_change(rt_guard_store *store, int64_t *change, rt_error *err)
{
    bool found = false;
    const rt_status status =
        rt_db_get_int(store->db, "UPDATE counters SET n = n + 1 WHERE name = 'guard_rungs' RETURNING n", NULL,
                      0, change, &found, err);
    if (status == RT_OK && !found)
        return rt_error_set(err, RT_CORRUPT,
                            "the account database: the counter of the guard's rungs is gone");
    return status;
}

static rt_status change_rung(rt_guard_store *store, const char *sql, rt_sql_value *values, size_t n_values,
                             rt_error *err)
{
    int64_t change = 0;
    if (begin(store, err) != RT_OK)
        return err->status;
    rt_status status = next_change(store, &change, err);
    values[0] = rt_sql_int(change);
    if (status == RT_OK)
        status = rt_db_run(store->db, sql, values, n_values, NULL, NULL, NULL, err);
    if (status == RT_OK)
        status = rt_db_commit(store->db, err);
    if (status != RT_OK)
        rt_db_rollback(store->db);
    return status;
}

rt_status rt_guard_store_rung_put(rt_guard_store *store, const char *account, int64_t number,
                                  const char *entry, bool reset, rt_error *err)
{
    rt_sql_value values[] = {rt_sql_int(0), rt_sql_text(account), rt_sql_int(number), rt_sql_text(entry),
                             rt_sql_int(reset)};
    return change_rung(store,
                       "INSERT INTO guard_rungs (changed, account, seq, entry, answered) VALUES ($1, $2, $3, "
                       "$4, 0 * $5) ON CONFLICT (account) DO UPDATE SET changed = $1, seq = $3, entry = $4, "
                       "answered = guard_rungs.answered * (1 - $5)",
                       values, 5, err);
}

rt_status rt_guard_store_answered(rt_guard_store *store, const char *account, rt_error *err)
{
    rt_sql_value values[] = {rt_sql_int(0), rt_sql_text(account)};
    return change_rung(store, "UPDATE guard_rungs SET changed = $1, answered = 1 WHERE account = $2", values,
                       2, err);
}

typedef struct rung_walk {
    rt_guard_store *store;
    rt_guard_rung_fn fn;
    void *context;
} rung_walk;

static rt_status take_rung(void *context, const rt_sql_row *row, rt_error *err)
{
    const rung_walk *walk = context;
    (void)err;
    walk->store->rungs_seen = rt_sql_row_int(row, 0);
    walk->fn(walk->context, rt_sql_row_text(row, 1), rt_sql_row_int(row, 2), rt_sql_row_text(row, 3),
             rt_sql_row_int(row, 4) != 0);
    return RT_OK;
}

rt_status rt_guard_store_rungs(rt_guard_store *store, rt_guard_rung_fn fn, void *context, rt_error *err)
{
    const rt_sql_value seen = rt_sql_int(store->rungs_seen);
    rung_walk walk = {store, fn, context};
    return rt_db_run(
        store->db,
        "SELECT changed, account, seq, entry, answered FROM guard_rungs WHERE changed > $1 ORDER "
        "BY changed",
        &seen, 1, take_rung, &walk, NULL, err);
}

/* ---- the state ---- */

rt_status rt_guard_store_state_begin(rt_guard_store *store, rt_error *err)
{
    store->name[0] = '\0';
    store->filled = 0;
    if (!store->bytes && !(store->bytes = malloc(PART_BYTES)))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a part of the guard's state");
    return begin(store, err);
}

/* Writes the part that is filled, unless the database has it so. */
static rt_status flush_part(rt_guard_store *store, rt_error *err)
{
    char hash[17];
    uint64_t h = rt_hash64(store->bytes, store->filled, 0);
    for (size_t i = 0; i < 16; i++, h >>= 4)
        hash[15 - i] = "0123456789abcdef"[h & 15];
    hash[16] = '\0';
    const rt_sql_value values[] = {rt_sql_text(store->name), rt_sql_int(store->part), rt_sql_text(hash),
                                   rt_sql_blob(store->bytes, store->filled)};
    int64_t same = 0;
    bool found;
    rt_status status = rt_db_get_int(
        store->db, "SELECT COUNT(*) FROM guard_state WHERE name = $1 AND part = $2 AND hash = $3", values, 3,
        &same, &found, err);
    if (status == RT_OK && same == 0)
        status = rt_db_run(store->db,
                           "INSERT INTO guard_state (name, part, hash, data) VALUES ($1, $2, $3, $4) ON "
                           "CONFLICT (name, part) DO UPDATE SET hash = $3, data = $4",
                           values, 4, NULL, NULL, NULL, err);
    store->part++;
    store->filled = 0;
    return status;
}

/* The run of the last name ends: its last part, and none behind that. */
static rt_status end_run(rt_guard_store *store, rt_error *err)
{
    if (store->name[0] == '\0')
        return RT_OK;
    if (store->filled && flush_part(store, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_text(store->name), rt_sql_int(store->part)};
    return rt_db_run(store->db, "DELETE FROM guard_state WHERE name = $1 AND part >= $2", values, 2, NULL,
                     NULL, NULL, err);
}

rt_status rt_guard_store_state_put(rt_guard_store *store, const char *name, const void *data, size_t size,
                                   rt_error *err)
{
    if (strcmp(store->name, name) != 0) {
        if (end_run(store, err) != RT_OK)
            return err->status;
        (void)snprintf(store->name, sizeof store->name, "%s", name);
        store->part = 0;
        store->filled = 0;
    }
    for (size_t done = 0; done < size;) {
        const size_t room = PART_BYTES - store->filled, piece = size - done < room ? size - done : room;
        memcpy(store->bytes + store->filled, (const char *)data + done, piece);
        store->filled += piece;
        done += piece;
        if (store->filled == PART_BYTES && flush_part(store, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_guard_store_state_commit(rt_guard_store *store, rt_error *err)
{
    if (end_run(store, err) == RT_OK && rt_db_commit(store->db, err) == RT_OK)
        return RT_OK;
    rt_db_rollback(store->db);
    return err->status;
}

void rt_guard_store_state_abort(rt_guard_store *store) { rt_db_rollback(store->db); }

static rt_status take_part(void *context, const rt_sql_row *row, rt_error *err)
{
    rt_text *out = context;
    size_t size;
    const void *data = rt_sql_row_blob(row, 0, &size);
    rt_text_append(out, data, size);
    return out->failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the guard's state") : RT_OK;
}

rt_status rt_guard_store_state_get(rt_guard_store *store, const char *name, rt_text *out, rt_error *err)
{
    const rt_sql_value value = rt_sql_text(name);
    out->size_max = state_bytes_max;
    return rt_db_run(store->db, "SELECT data FROM guard_state WHERE name = $1 ORDER BY part", &value, 1,
                     take_part, out, NULL, err);
}
