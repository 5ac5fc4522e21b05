/* bench/bench_ledger.c - the ledger's figures: rows inserted a second, and how long `usage` by account and
 * day takes over them.
 *
 *   build/bench/bench_ledger [ROWS [DB]]     (1,000,000 rows; a file in the current folder, removed at the
 * end)
 *
 * The rows are spread over 200 accounts and 30 days; they go through the group commit that the server uses.
 * Beside it stands what SQLite does with the same rows in the same groups when there is nothing else to
 * write: no sums, no meters, no index. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "account/admin.h"
#include "account/ledger.h"
#include "base/clock.h"
#include "base/rng.h"

enum { GROUP = 2000, ACCOUNTS = 200, DAYS = 30, PLAIN_ROWS = 200000 };

/* In the order of time, as a ledger grows. */
static void fill(rt_ledger_row *row, size_t index, size_t n_rows, int64_t first_s, rt_rng *rng)
{
    const unsigned account = (unsigned)rt_rng_below(rng, ACCOUNTS);
    *row = (rt_ledger_row){.at_ms = 1000 * (first_s + (int64_t)(index * DAYS * 86400 / n_rows)),
                           .http = 200,
                           .input = 200 + (int64_t)rt_rng_below(rng, 800),
                           .output = 1 + (int64_t)rt_rng_below(rng, 400),
                           .cost = 1000,
                           .ttft_us = 12000,
                           .total_us = 900000,
                           .reserved = true};
    row->used_draw = (rt_meter_draw){row->input + row->output, row->cost, true};
    (void)snprintf(row->request, sizeof row->request, "req_%016llx%016llx",
                   (unsigned long long)rt_rng_u64(rng), (unsigned long long)rt_rng_u64(rng));
    (void)snprintf(row->account, sizeof row->account, "acc_%020u", account);
    (void)snprintf(row->key, sizeof row->key, "k%07u", account);
    (void)snprintf(row->endpoint, sizeof row->endpoint, "chat/completions");
    (void)snprintf(row->model, sizeof row->model, "smollm2-135m-instruct");
    (void)snprintf(row->outcome, sizeof row->outcome, "stop");
    (void)snprintf(row->address, sizeof row->address, "203.0.113.7");
    (void)snprintf(row->agent, sizeof row->agent, "OpenAI/Python 3.1.0");
}

static double insert_rows(rt_db *db, const rt_secrets *secrets, size_t n_rows, int64_t first_s, rt_error *err)
{
    rt_ledger_row *rows = calloc(GROUP, sizeof *rows), *group[GROUP];
    rt_rng rng = rt_rng_make(1, 1);
    double seconds = 0;
    for (size_t done = 0; rows && done < n_rows; done += GROUP) {
        const size_t count = n_rows - done < GROUP ? n_rows - done : GROUP;
        for (size_t i = 0; i < count; i++) {
            fill(&rows[i], done + i, n_rows, first_s, &rng);
            group[i] = &rows[i];
        }
        const double start = rt_clock_seconds();
        if (rt_ledger_write(db, secrets, group, count, 0, 0, first_s, err) != RT_OK) {
            free(rows);
            return -1;
        }
        seconds += rt_clock_seconds() - start;
    }
    free(rows);
    return seconds;
}

/* SQLite's own limit; rows a second, 0 when it cannot be measured. */
static double plain_inserts(const char *path, size_t n_rows, int64_t first_s)
{
    static const char setup[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000;"
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, request, at, account, key_id, endpoint, model, http, "
        "outcome, input, cached, output, cost, estimated, ttft_us, total_us, address, agent, user_hash)";
    sqlite3 *db = NULL;
    sqlite3_stmt *insert = NULL;
    rt_rng rng = rt_rng_make(1, 1);
    double seconds = 0;
    bool good = sqlite3_open(path, &db) == SQLITE_OK &&
                sqlite3_exec(db, setup, NULL, NULL, NULL) == SQLITE_OK &&
                sqlite3_prepare_v2(db,
                                   "INSERT INTO plain VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
                                   "?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
                                   -1, &insert, NULL) == SQLITE_OK;
    for (size_t done = 0; good && done < n_rows; done += GROUP) {
        const double start = rt_clock_seconds();
        good = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK;
        for (size_t i = done; good && i < done + GROUP && i < n_rows; i++) {
            rt_ledger_row row;
            fill(&row, i, n_rows, first_s, &rng);
            const char *texts[] = {row.request, row.account, row.key,   row.endpoint, row.model,
                                   row.outcome, row.address, row.agent, row.user_hash};
            static const int text_places[] = {1, 3, 4, 5, 6, 8, 16, 17, 18};
            const int64_t numbers[] = {row.at_ms, row.http, row.input,   row.cached,  row.output,
                                       row.cost,  0,        row.ttft_us, row.total_us};
            static const int number_places[] = {2, 7, 9, 10, 11, 12, 13, 14, 15};
            for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++)
                (void)sqlite3_bind_text(insert, text_places[k], texts[k], -1, SQLITE_STATIC);
            for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
                (void)sqlite3_bind_int64(insert, number_places[k], numbers[k]);
            good = sqlite3_step(insert) == SQLITE_DONE;
            (void)sqlite3_reset(insert);
        }
        good = good && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
        seconds += rt_clock_seconds() - start;
    }
    (void)sqlite3_finalize(insert);
    (void)sqlite3_close(db);
    return good && seconds > 0 ? (double)n_rows / seconds : 0;
}

static void remove_database(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm", ".secrets"};
    char name[300];
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        (void)snprintf(name, sizeof name, "%.250s%s", path, ends[i]);
        (void)unlink(name);
    }
}

static void ask(rt_desk *desk, const char *query)
{
    const rt_admin admin = {.role = RT_ROLE_READ, .name = "bench"};
    double best = 1e9;
    size_t lines = 0;
    for (int i = 0; i < 5; i++) {
        const double start = rt_clock_seconds();
        rt_desk_reply reply = rt_admin_call(desk, &admin, "GET", "/admin/v1/usage", query, NULL);
        const double seconds = rt_clock_seconds() - start;
        lines = json_array_size(json_object_get(reply.body, "data"));
        json_decref(reply.body);
        best = seconds < best ? seconds : best;
    }
    (void)printf("usage?%-58s %8.2f ms, %zu lines\n", query, best * 1e3, lines);
}

int main(int argc, char **argv)
{
    const size_t n_rows = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    const char *where = argc > 2 ? argv[2] : "bench-ledger.db";
    char path[300], one[120];
    rt_db *db = NULL;
    rt_desk *desk = NULL;
    rt_secrets secrets;
    rt_error err = {0};
    (void)snprintf(path, sizeof path, "%.250s.secrets",
                   rt_db_url_is_shared(where) ? "bench-ledger.db" : where);
    const int64_t first_s = rt_clock_unix_seconds() / 86400 * 86400 - (DAYS - 1) * 86400;
    double seconds = -1;
    if (rt_db_open(&db, where, &err) == RT_OK && rt_secrets_open(&secrets, path, where, &err) == RT_OK &&
        rt_desk_open(&desk, where, path, &err) == RT_OK)
        seconds = insert_rows(db, &secrets, n_rows, first_s, &err);
    if (seconds >= 0) {
        (void)printf("insert: %zu rows in %.1f s: %.0f rows/s\n", n_rows, seconds, (double)n_rows / seconds);
        ask(desk, "group_by=account&bucket=1d");
        ask(desk, "bucket=1d");
        (void)snprintf(one, sizeof one, "account=acc_%020u&bucket=1d", 7U);
        ask(desk, one);
        (void)snprintf(one, sizeof one, "account=acc_%020u&bucket=1h", 7U);
        ask(desk, one);
    } else {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    rt_desk_close(desk);
    rt_db_close(db);
    if (!rt_db_url_is_shared(where)) {
        remove_database(where);
        (void)snprintf(path, sizeof path, "%.250s.plain", where);
        const size_t some = n_rows < PLAIN_ROWS ? n_rows : PLAIN_ROWS;
        (void)printf("SQLite alone, the same rows: %.0f rows/s\n", plain_inserts(path, some, first_s));
        remove_database(path);
    }
    return seconds >= 0 ? 0 : 1;
}
