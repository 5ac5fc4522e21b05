/* account/gate_shared.c - PostgreSQL: counters in the database, so that several servers never give out more
 * than there is.
 *
 * Admission is one transaction: both meters are locked, in the order of their names as everywhere, the same
 * function as with SQLite decides, the meters and a reservation are written.  It need not survive a crash of
 * the database, so it does not wait for the disk; charges do (ledger.c).
 *
 * Each server holds an advisory lock with its number for as long as its connection lives.  When another can
 * take that lock the server is dead, and what it had reserved goes back. */
#include <stdlib.h>
#include <string.h>

#include "account/gate_internal.h"

enum { LOCK_SPACE = 7236837 };

static rt_status take_lock(rt_db *db, int64_t server, bool *taken, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_int(LOCK_SPACE), rt_sql_int(server)};
    int64_t got = 0;
    bool found;
    const rt_status status =
        rt_db_get_int(db, "SELECT CASE WHEN pg_try_advisory_lock($1::int, $2::int) THEN 1 ELSE 0 END", values,
                      2, &got, &found, err);
    *taken = got == 1;
    return status;
}

static rt_status drop_lock(rt_db *db, int64_t server, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_int(LOCK_SPACE), rt_sql_int(server)};
    return rt_db_run(db, "SELECT pg_advisory_unlock($1::int, $2::int)", values, 2, NULL, NULL, NULL, err);
}

/* Takes a number, its lock, and what an earlier connection of this server had reserved. */
rt_status rt_shared_register(rt_gate *gate, rt_error *err)
{
    const rt_sql_value started = rt_sql_int(rt_gate_unix_ms(gate));
    int64_t server = 0;
    bool found, taken = false;
    if (rt_db_begin(gate->db, true, err) != RT_OK)
        return err->status;
    rt_status status =
        rt_db_get_int(gate->db, "INSERT INTO servers (started, batch) VALUES ($1, 0) RETURNING id", &started,
                      1, &server, &found, err);
    if (status == RT_OK)
        status = take_lock(gate->db, server, &taken, err);
    if (status == RT_OK && !taken)
        status = rt_error_set(err, RT_INTERNAL, "the lock of a new server number is taken");
    const rt_sql_value move[] = {rt_sql_int(gate->server), rt_sql_int(server)};
    if (status == RT_OK && gate->server > 0)
        status = rt_db_run(gate->db, "UPDATE reservations SET server = $2 WHERE server = $1", move, 2, NULL,
                           NULL, NULL, err);
    if (status != RT_OK) {
        rt_db_rollback(gate->db);
        return status;
    }
    if (rt_db_commit(gate->db, err) != RT_OK)
        return err->status;
    __atomic_store_n(&gate->server, server, __ATOMIC_RELEASE); /* the writer reads it */
    gate->db_epoch = rt_db_epoch(gate->db);
    return RT_OK;
}

rt_status rt_shared_keep_lock(rt_gate *gate, rt_error *err)
{
    return rt_db_epoch(gate->db) == gate->db_epoch ? RT_OK : rt_shared_register(gate, err);
}

static rt_status insert_reservation(rt_gate *gate, const rt_ledger_row *row, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_text(row->request),
                                   rt_sql_int(gate->server),
                                   rt_sql_text(row->account),
                                   rt_sql_text(row->key),
                                   rt_sql_int(row->reserved_draw.tokens),
                                   rt_sql_int(row->reserved_draw.cost)};
    return rt_db_run(gate->db, "INSERT INTO reservations VALUES ($1, $2, $3, $4, $5, $6)", values, 6, NULL,
                     NULL, NULL, err);
}

/* A reservation that is not there any more was given back by a server that took this one for dead. */
static rt_status raise_reservation(rt_gate *gate, const rt_ledger_row *row, const rt_meter_draw *more,
                                   rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_text(row->request), rt_sql_int(more->tokens),
                                   rt_sql_int(more->cost)};
    int64_t changed = 0;
    if (rt_db_run(gate->db, "UPDATE reservations SET tokens = tokens + $2, cost = cost + $3 WHERE id = $1",
                  values, 3, NULL, NULL, &changed, err) != RT_OK)
        return err->status;
    return changed == 1 ? RT_OK
                        : rt_error_set(err, RT_BUSY, "the reservation of %.40s is gone", row->request);
}

static rt_status admit_inside(rt_gate *gate, rt_ticket *ticket, const rt_meter_draw *more, bool *admitted,
                              rt_refusal *refusal, rt_error *err)
{
    rt_meter account, key;
    const bool account_first = strcmp(ticket->row.account, ticket->row.key) < 0;
    const char *first = account_first ? ticket->row.account : ticket->row.key;
    const char *second = account_first ? ticket->row.key : ticket->row.account;
    if (rt_meter_load(gate->db, first, true, account_first ? &account : &key, err) != RT_OK ||
        rt_meter_load(gate->db, second, true, account_first ? &key : &account, err) != RT_OK)
        return err->status;
    *admitted = rt_gate_decide(gate, ticket, more, &account, &key, refusal);
    rt_gate_enter_tables(gate);
    ticket->account->counted.meter = account; /* for the limit headers */
    ticket->key->counted.meter = key;
    rt_gate_leave_tables(gate);
    if (rt_meter_save(gate->db, ticket->row.account, &account, err) != RT_OK ||
        rt_meter_save(gate->db, ticket->row.key, &key, err) != RT_OK)
        return err->status;
    if (!*admitted)
        return RT_OK;
    return more ? raise_reservation(gate, &ticket->row, more, err)
                : insert_reservation(gate, &ticket->row, err);
}

static rt_status admit_once(rt_gate *gate, rt_ticket *ticket, const rt_meter_draw *more, bool *admitted,
                            rt_refusal *refusal, rt_error *err)
{
    *admitted = false;
    if (rt_db_begin(gate->db, false, err) != RT_OK)
        return err->status;
    if (rt_db_epoch(gate->db) != gate->db_epoch) { /* begin has opened the connection anew */
        rt_db_rollback(gate->db);
        if (rt_shared_keep_lock(gate, err) != RT_OK || rt_db_begin(gate->db, false, err) != RT_OK)
            return err->status;
    }
    rt_status status = admit_inside(gate, ticket, more, admitted, refusal, err);
    if (status == RT_OK)
        status = rt_db_commit(gate->db, err);
    if (status != RT_OK)
        rt_db_rollback(gate->db);
    return status;
}

rt_status rt_shared_admit(rt_gate *gate, rt_ticket *ticket, const rt_meter_draw *more, bool *admitted,
                          rt_refusal *refusal, rt_error *err)
{
    rt_status status = RT_BUSY;
    for (int attempt = 0; attempt < 3 && status == RT_BUSY; attempt++)
        status = admit_once(gate, ticket, more, admitted, refusal, err);
    if (status != RT_OK)
        *admitted = false;
    return status;
}

/* --- servers that died --- */

typedef struct numbers {
    int64_t items[64];
    size_t count;
} numbers;

static rt_status take_number(void *context, const rt_sql_row *row, rt_error *err)
{
    (void)err;
    numbers *list = context;
    if (list->count < 64)
        list->items[list->count++] = rt_sql_row_int(row, 0);
    return RT_OK;
}

typedef struct dead_draw { /* what one reservation of a dead server has taken of one meter */
    char subject[40];
    rt_meter_draw draw;
} dead_draw;

typedef struct dead_draws {
    dead_draw *items;
    size_t count;
} dead_draws;

static rt_status take_draws(void *context, const rt_sql_row *row, rt_error *err)
{
    dead_draws *draws = context;
    dead_draw *grown = realloc(draws->items, (draws->count + 2) * sizeof *grown);
    if (!grown)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a dead server's reservations");
    draws->items = grown;
    for (int i = 0; i < 2; i++) {
        dead_draw *draw = &grown[draws->count++];
        *draw = (dead_draw){.draw = {rt_sql_row_int(row, 2), rt_sql_row_int(row, 3), true}};
        rt_text_clean(draw->subject, sizeof draw->subject, rt_sql_row_text(row, i));
    }
    return RT_OK;
}

static int by_subject(const void *a, const void *b)
{
    return strcmp(((const dead_draw *)a)->subject, ((const dead_draw *)b)->subject);
}

/* The reservations go first: whoever deletes one, this or a writer that lives after all, gives it back. */
static rt_status give_back(rt_db *db, int64_t server, rt_error *err)
{
    const rt_sql_value value = rt_sql_int(server);
    dead_draws draws = {0};
    rt_status status =
        rt_db_run(db, "DELETE FROM reservations WHERE server = $1 RETURNING account, key_id, tokens, cost",
                  &value, 1, take_draws, &draws, NULL, err);
    if (draws.count > 1)
        qsort(draws.items, draws.count, sizeof *draws.items, by_subject);
    for (size_t i = 0; i < draws.count && status == RT_OK; i++) {
        rt_meter meter;
        status = rt_meter_load(db, draws.items[i].subject, true, &meter, err);
        rt_meter_release(&meter, &draws.items[i].draw);
        if (status == RT_OK)
            status = rt_meter_save(db, draws.items[i].subject, &meter, err);
    }
    free(draws.items);
    if (status == RT_OK)
        status = rt_db_run(db, "DELETE FROM servers WHERE id = $1", &value, 1, NULL, NULL, NULL, err);
    return status;
}

rt_status rt_shared_sweep(rt_gate *gate, rt_db *db, rt_error *err)
{
    numbers others = {0};
    const rt_sql_value mine = rt_sql_int(__atomic_load_n(&gate->server, __ATOMIC_ACQUIRE));
    if (rt_db_run(db, "SELECT id FROM servers WHERE id <> $1 ORDER BY id", &mine, 1, take_number, &others,
                  NULL, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < others.count; i++) {
        bool dead = false;
        if (take_lock(db, others.items[i], &dead, err) != RT_OK)
            return err->status;
        if (!dead)
            continue;
        rt_status status = rt_db_begin(db, true, err);
        if (status == RT_OK) {
            status = give_back(db, others.items[i], err);
            if (status == RT_OK)
                status = rt_db_commit(db, err);
            else
                rt_db_rollback(db);
        }
        (void)drop_lock(db, others.items[i], &(rt_error){0});
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}
