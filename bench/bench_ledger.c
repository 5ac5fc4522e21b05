/* bench/bench_ledger.c - the ledger's figures: rows inserted a second, and how long `usage` by account and
 * day takes over them.
 *
 *   build/bench/bench_ledger [ROWS [DB]]     (1,000,000 rows; a file in the current folder, removed at the
 * end)
 *
 * The rows are spread over 200 accounts and 30 days; they go through the group commit that the server uses.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account/admin.h"
#include "account/ledger.h"
#include "base/clock.h"
#include "base/rng.h"

enum { GROUP = 2000, ACCOUNTS = 200, DAYS = 30 };

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
    row->used_draw = (rt_draw){row->input + row->output, row->cost, true};
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
    (void)snprintf(path, sizeof path, "%.250s.secrets", argc > 2 ? "bench-ledger.db" : where);
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
    if (!rt_db_url_is_shared(where))
        for (size_t i = 0; i < 4; i++) {
            static const char *const ends[] = {"", "-wal", "-shm", ".secrets"};
            (void)snprintf(path, sizeof path, "%.250s%s", where, ends[i]);
            (void)unlink(path);
        }
    return seconds >= 0 ? 0 : 1;
}
