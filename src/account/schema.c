/* account/schema.c - the tables, as a list of migrations that only ever grows.
 *
 * accounts, keys        who; `version` is the number of the change that last touched the row, so that a
 *                       running server reads only what is new (counters.generation is the newest number)
 * meters                what a key or an account has used in this day, month and ever; with PostgreSQL also
 * the level of its buckets and what is reserved reservations, servers PostgreSQL: what is under way, by
 * server, so that a dead server's can be given back ledger, sums, prompts one row a request; sums by hour and
 * day of the same rows; what is kept of prompts; answers: by Idempotency-Key, for a day (stored.h); cases,
 * appeals, audit states, objections, and the chained trail; counters.summed is the newest row of the ledger
 * that sums and meters hold (SQLite); guard_rows, guard_rungs, guard_state
 * what the guard has to judge, has decided, and knows (guard_store.h)
 *
 * Times are Unix milliseconds in `at` columns and Unix seconds elsewhere; money is nano-USD. */
#include <stdlib.h>
#include <string.h>

#include "account/db_ops.h"
#include "base/text.h"

static const char *const migrations[] = {
    "CREATE TABLE counters (name TEXT PRIMARY KEY, n BIGINT NOT NULL);"
    "INSERT INTO counters VALUES ('generation', 1);"
    "CREATE TABLE accounts (id TEXT PRIMARY KEY, name TEXT NOT NULL, contact TEXT NOT NULL, state TEXT NOT "
    "NULL,"
    " tier TEXT NOT NULL, limits TEXT NOT NULL, permissions TEXT NOT NULL, prices TEXT, prompts TEXT NOT "
    "NULL,"
    " created BIGINT NOT NULL, case_id TEXT, public_reason TEXT, until BIGINT, terms TEXT, terms_at BIGINT,"
    " version BIGINT NOT NULL);"
    "CREATE INDEX accounts_version ON accounts (version);"
    "CREATE INDEX accounts_created ON accounts (created, id);"
    "CREATE TABLE keys (id TEXT PRIMARY KEY, account TEXT, role TEXT, name TEXT NOT NULL, hash TEXT NOT NULL,"
    " tail TEXT NOT NULL, limits TEXT NOT NULL, created BIGINT NOT NULL, last_used BIGINT, expires BIGINT,"
    " revoked BIGINT, version BIGINT NOT NULL);"
    "CREATE INDEX keys_version ON keys (version);"
    "CREATE INDEX keys_account ON keys (account, created, id);"
    "CREATE TABLE meters (subject TEXT PRIMARY KEY, requests_used DOUBLE PRECISION NOT NULL,"
    " tokens_used DOUBLE PRECISION NOT NULL, used_at DOUBLE PRECISION NOT NULL, running BIGINT NOT NULL,"
    " reserved_tokens BIGINT NOT NULL, reserved_cost BIGINT NOT NULL, day BIGINT NOT NULL,"
    " day_tokens BIGINT NOT NULL, day_cost BIGINT NOT NULL, month BIGINT NOT NULL, month_tokens BIGINT NOT "
    "NULL,"
    " month_cost BIGINT NOT NULL, total_tokens BIGINT NOT NULL, total_cost BIGINT NOT NULL);"
    "CREATE TABLE servers (id @ID@, started BIGINT NOT NULL, batch BIGINT NOT NULL);"
    "CREATE TABLE reservations (id TEXT PRIMARY KEY, server BIGINT NOT NULL, account TEXT NOT NULL,"
    " key_id TEXT NOT NULL, tokens BIGINT NOT NULL, cost BIGINT NOT NULL);"
    "CREATE INDEX reservations_server ON reservations (server);"
    "CREATE TABLE ledger (id @ID@, request TEXT NOT NULL, at BIGINT NOT NULL, account TEXT NOT NULL,"
    " key_id TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, http BIGINT NOT NULL,"
    " outcome TEXT NOT NULL, input BIGINT NOT NULL, cached BIGINT NOT NULL, output BIGINT NOT NULL,"
    " cost BIGINT NOT NULL, estimated BIGINT NOT NULL, ttft_us BIGINT NOT NULL, total_us BIGINT NOT NULL,"
    " address TEXT NOT NULL, agent TEXT NOT NULL, user_hash TEXT NOT NULL);"
    "CREATE INDEX ledger_account ON ledger (account, at);"
    "CREATE INDEX ledger_at ON ledger (at);"
    "CREATE TABLE sums (width BIGINT NOT NULL, start BIGINT NOT NULL, account TEXT NOT NULL, key_id TEXT NOT "
    "NULL,"
    " model TEXT NOT NULL, requests BIGINT NOT NULL, input BIGINT NOT NULL, cached BIGINT NOT NULL,"
    " output BIGINT NOT NULL, cost BIGINT NOT NULL, errors BIGINT NOT NULL, limited BIGINT NOT NULL,"
    " PRIMARY KEY (width, start, account, key_id, model));"
    "CREATE TABLE prompts (request TEXT PRIMARY KEY, account TEXT NOT NULL, at BIGINT NOT NULL, hash TEXT "
    "NOT NULL,"
    " sealed @BLOB@, expires BIGINT NOT NULL);"
    "CREATE INDEX prompts_expires ON prompts (expires);"
    "CREATE TABLE cases (id TEXT PRIMARY KEY, account TEXT NOT NULL, opened BIGINT NOT NULL, actor TEXT NOT "
    "NULL,"
    " action TEXT NOT NULL, before TEXT NOT NULL, reason TEXT NOT NULL, public_reason TEXT NOT NULL,"
    " evidence TEXT NOT NULL, until BIGINT, state TEXT NOT NULL, outcome TEXT, note TEXT, decided BIGINT,"
    " decided_by TEXT);"
    "CREATE INDEX cases_account ON cases (account, opened);"
    "CREATE TABLE appeals (id TEXT PRIMARY KEY, case_id TEXT NOT NULL, account TEXT NOT NULL,"
    " statement TEXT NOT NULL, state TEXT NOT NULL, created BIGINT NOT NULL, outcome TEXT, note TEXT);"
    "CREATE INDEX appeals_account ON appeals (account, created);"
    "CREATE TABLE audit (id BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT "
    "NULL,"
    " subject TEXT NOT NULL, detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL,"
    " signature TEXT NOT NULL);"
    "CREATE TABLE audit_head (one BIGINT PRIMARY KEY, count BIGINT NOT NULL, hash TEXT NOT NULL,"
    " signature TEXT NOT NULL, public_key TEXT NOT NULL);",
    /* the watermark of an answer: scheme, the key's id (never the key), context, share under the account's
     * own key, and whether a token could carry it */
    "ALTER TABLE ledger ADD COLUMN mark_scheme TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE ledger ADD COLUMN mark_key TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE ledger ADD COLUMN mark_h BIGINT NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN mark_own DOUBLE PRECISION NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN marked BIGINT NOT NULL DEFAULT 0;",
    "CREATE TABLE answers (id TEXT PRIMARY KEY, request TEXT NOT NULL, done BIGINT NOT NULL, stream BIGINT "
    "NOT NULL,"
    " sealed @BLOB@, bytes BIGINT NOT NULL, expires BIGINT NOT NULL);"
    "CREATE INDEX answers_expires ON answers (expires, done, bytes);",
    /* SQLite: rows of the ledger above this id are not in sums and meters yet (ledger.h) */
    "INSERT INTO counters SELECT 'summed', COALESCE(MAX(id), 0) FROM ledger;",
    "CREATE TABLE guard_rows (id @ID@, seq BIGINT, request TEXT NOT NULL, sealed @BLOB@ NOT NULL);"
    "CREATE INDEX guard_rows_seq ON guard_rows (seq);"
    "CREATE TABLE guard_rungs (account TEXT PRIMARY KEY, seq BIGINT NOT NULL, entry TEXT NOT NULL,"
    " answered BIGINT NOT NULL, changed BIGINT NOT NULL);"
    "CREATE INDEX guard_rungs_changed ON guard_rungs (changed);"
    "INSERT INTO counters VALUES ('guard_rungs', 0);"
    "INSERT INTO counters VALUES ('guard_judged', 0);"
    "CREATE TABLE guard_state (name TEXT NOT NULL, part BIGINT NOT NULL, hash TEXT NOT NULL, data @BLOB@ NOT "
    "NULL,"
    " PRIMARY KEY (name, part));",
};
enum { VERSION = sizeof migrations / sizeof migrations[0] };

static char *with_types(const char *sql, const rt_db_ops *ops)
{
    rt_text out = {0};
    for (const char *at = sql; *at;) {
        const char *mark = strchr(at, '@');
        if (!mark) {
            rt_text_puts(&out, at);
            break;
        }
        rt_text_append(&out, at, (size_t)(mark - at));
        const bool id = strncmp(mark, "@ID@", 4) == 0;
        rt_text_puts(&out, id ? ops->id_column : ops->blob_type);
        at = mark + (id ? 4 : 6);
    }
    if (out.failed) {
        rt_text_deinit(&out);
        return NULL;
    }
    return out.data;
}

static rt_status read_version(rt_db *db, int64_t *version, rt_error *err)
{
    bool found;
    return rt_db_get_int(db, "SELECT COALESCE(MAX(version), 0) FROM schema_versions", NULL, 0, version,
                         &found, err);
}

static rt_status migrate(rt_db *db, rt_error *err)
{
    int64_t version;
    if (read_version(db, &version, err) != RT_OK) /* again: another process may have been faster */
        return err->status;
    for (int64_t i = version; i < VERSION; i++) {
        char *sql = with_types(migrations[i], db->ops);
        const rt_sql_value next = rt_sql_int(i + 1);
        const rt_status status = sql ? rt_db_script(db, sql, err)
                                     : rt_error_set(err, RT_NO_MEMORY, "no memory for the tables' text");
        free(sql);
        if (status != RT_OK || rt_db_run(db, "INSERT INTO schema_versions VALUES ($1)", &next, 1, NULL, NULL,
                                         NULL, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_schema_apply(rt_db *db, rt_error *err)
{
    int64_t version = 0;
    rt_error first = {0};
    if (read_version(db, &version, &first) == RT_OK && version == VERSION)
        return RT_OK;
    if (version > VERSION)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "the account database has tables of version %lld, and this program knows them up to "
            "%d: use a newer retort",
            (long long)version, VERSION);
    if (rt_db_begin(db, true, err) != RT_OK)
        return err->status;
    /* Two servers that start at once: PostgreSQL's catalogue has no lock of its own for IF NOT EXISTS. */
    rt_status status =
        rt_db_is_shared(db) ? rt_db_script(db, "SELECT pg_advisory_xact_lock(7236837)", err) : RT_OK;
    if (status == RT_OK)
        status =
            rt_db_script(db, "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY)", err);
    if (status == RT_OK)
        status = migrate(db, err);
    if (status == RT_OK)
        return rt_db_commit(db, err);
    rt_db_rollback(db);
    return rt_error_within(err, "making the tables");
}
