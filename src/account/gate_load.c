/* account/gate_load.c - the tables of accounts and keys in memory, and how changes reach them.
 *
 * All keys are in memory, so that an unknown one takes no longer than a wrong one.  Every change in the
 * database takes the next number of counters.generation and writes it into the rows that it touches; a server
 * asks for that one number at each request and reads rows only when it has moved.  So a revocation by a
 * command or by another server holds from the next request on. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "account/gate_internal.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum { MAP_FIRST = 256 };

void *id_map_get(const id_map *map, const char *id)
{
    if (map->count == 0)
        return NULL;
    for (size_t i = rt_hash64(id, strlen(id), 0);; i++) {
        void *entry = map->places[i & (map->capacity - 1)];
        if (!entry || strcmp(entry, id) == 0)
            return entry;
    }
}

static void place(void **places, size_t capacity, void *entry)
{
    size_t i = rt_hash64(entry, strlen(entry), 0);
    while (places[i & (capacity - 1)])
        i++;
    places[i & (capacity - 1)] = entry;
}

bool id_map_put(id_map *map, void *entry)
{
    if (2 * (map->count + 1) > map->capacity) {
        const size_t capacity = map->capacity ? 2 * map->capacity : MAP_FIRST;
        void **places = calloc(capacity, sizeof *places);
        if (!places)
            return false;
        for (size_t i = 0; i < map->capacity; i++)
            if (map->places[i])
                place(places, capacity, map->places[i]);
        free(map->places);
        map->places = places;
        map->capacity = capacity;
    }
    place(map->places, map->capacity, entry);
    map->count++;
    return true;
}

const rt_limits *rt_gate_account_limits(const account_entry *account)
{
    return account->state == RT_ACCOUNT_THROTTLED ? &account->throttled : &account->limits;
}

/* A text of the database that this program wrote: JSON, or the database was changed by hand. */
static json_t *stored_json(const rt_sql_row *row, int column, rt_error *err)
{
    json_t *out = NULL;
    const char *text = rt_sql_row_text(row, column);
    (void)rt_json_parse(&out, text, strlen(text), "the account database", err);
    return out;
}

typedef rt_status (*json_reader)(void *target, const json_t *object, rt_error *err);
static rt_status read_limits(void *target, const json_t *object, rt_error *err)
{
    *(rt_limits *)target = rt_limits_none();
    return rt_limits_read(target, object, err);
}
static rt_status read_permissions(void *target, const json_t *object, rt_error *err)
{
    return rt_permissions_read(target, object, err);
}
static rt_status read_prompts(void *target, const json_t *object, rt_error *err)
{
    return rt_prompt_policy_read(target, object, err);
}

static rt_status read_column(const rt_sql_row *row, int column, json_reader reader, void *target,
                             rt_error *err)
{
    json_t *json = stored_json(row, column, err);
    const rt_status status = json ? reader(target, json, err) : err->status;
    json_decref(json);
    return status;
}

static rt_status take_account(void *context, const rt_sql_row *row, rt_error *err)
{
    rt_gate *gate = context;
    const char *id = rt_sql_row_text(row, 0);
    account_entry *entry = id_map_get(&gate->accounts, id);
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an account");
        (void)snprintf(entry->counted.id, sizeof entry->counted.id, "%s", id);
        entry->state = RT_ACCOUNT_CLOSED;
        if (!id_map_put(&gate->accounts, entry)) {
            free(entry);
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the table of accounts");
        }
    }
    const bool was_open = entry->state != RT_ACCOUNT_CLOSED;
    if (!rt_account_state_parse(&entry->state, rt_sql_row_text(row, 1)))
        return rt_error_set(err, RT_CORRUPT, "the account database: %s has an unknown state", id);
    gate->n_open_accounts += (size_t)(entry->state != RT_ACCOUNT_CLOSED) - (size_t)was_open;
    if (read_column(row, 2, read_limits, &entry->limits, err) != RT_OK ||
        read_column(row, 3, read_permissions, &entry->permissions, err) != RT_OK ||
        read_column(row, 5, read_prompts, &entry->prompts, err) != RT_OK)
        return rt_error_within(err, id);
    entry->throttled = rt_limits_throttled(&entry->limits);
    json_decref(entry->prices);
    entry->prices = rt_sql_row_is_null(row, 4) ? NULL : stored_json(row, 4, err);
    (void)snprintf(entry->case_id, sizeof entry->case_id, "%s", rt_sql_row_text(row, 6));
    (void)snprintf(entry->public_reason, sizeof entry->public_reason, "%s", rt_sql_row_text(row, 7));
    entry->until = rt_sql_row_int(row, 8);
    entry->created = rt_sql_row_int(row, 10);
    (void)snprintf(entry->terms, sizeof entry->terms, "%s", rt_sql_row_text(row, 9));
    entry->epoch++;
    return RT_OK;
}

static rt_admin_role role_of(const char *name)
{
    return strcmp(name, "full") == 0      ? RT_ROLE_FULL
           : strcmp(name, "support") == 0 ? RT_ROLE_SUPPORT
           : strcmp(name, "read") == 0    ? RT_ROLE_READ
                                          : RT_ROLE_NONE;
}

static rt_status take_key(void *context, const rt_sql_row *row, rt_error *err)
{
    rt_gate *gate = context;
    const char *id = rt_sql_row_text(row, 0), *hash = rt_sql_row_text(row, 4);
    key_entry *entry = id_map_get(&gate->keys, id);
    account_entry *account = id_map_get(&gate->accounts, rt_sql_row_text(row, 1));
    if (!account && rt_sql_row_is_null(row, 2))
        return RT_OK; /* written after the accounts were read: it comes again with the next number */
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a key");
        (void)snprintf(entry->counted.id, sizeof entry->counted.id, "%s", id);
        if (!id_map_put(&gate->keys, entry)) {
            free(entry);
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the table of keys");
        }
    }
    entry->account = account;
    entry->role = role_of(rt_sql_row_text(row, 2));
    (void)snprintf(entry->name, sizeof entry->name, "%s", rt_sql_row_text(row, 3));
    size_t size = 0;
    if (sodium_hex2bin(entry->hash, sizeof entry->hash, hash, strlen(hash), NULL, &size, NULL) != 0 ||
        size != sizeof entry->hash || read_column(row, 5, read_limits, &entry->limits, err) != RT_OK)
        return rt_error_set(err, RT_CORRUPT, "the account database: key %s is malformed", id);
    entry->expires = rt_sql_row_int(row, 6);
    entry->revoked = rt_sql_row_int(row, 7);
    entry->caller_epoch = 0;
    return RT_OK;
}

static rt_status load_account(void *context, const rt_sql_row *row, rt_error *err)
{
    rt_gate_enter_tables(context);
    const rt_status status = take_account(context, row, err);
    rt_gate_leave_tables(context);
    return status;
}

static rt_status load_key(void *context, const rt_sql_row *row, rt_error *err)
{
    rt_gate_enter_tables(context);
    const rt_status status = take_key(context, row, err);
    rt_gate_leave_tables(context);
    return status;
}

/* Counters of new entries, as they were left: sums of this day, this month and ever. */
static rt_status load_meters(rt_gate *gate, const id_map *map, rt_error *err)
{
    for (size_t i = 0; i < map->capacity; i++) {
        counted *entry = map->places[i];
        if (!entry || entry->loaded)
            continue;
        rt_meter meter;
        if (rt_meter_load(gate->db, entry->id, false, &meter, err) != RT_OK)
            return err->status;
        if (!gate->shared) { /* the buckets of another run mean nothing */
            meter.requests_used = meter.tokens_used = meter.used_at = 0;
            meter.running = meter.reserved_tokens = meter.reserved_cost = 0;
        }
        rt_gate_enter_tables(gate);
        entry->meter = meter;
        entry->loaded = true;
        rt_gate_leave_tables(gate);
    }
    return RT_OK;
}

void rt_gate_enter_tables(rt_gate *gate)
{
    if (gate->shared)
        (void)pthread_mutex_lock(&gate->mutex);
}

void rt_gate_leave_tables(rt_gate *gate)
{
    if (gate->shared)
        (void)pthread_mutex_unlock(&gate->mutex);
}

rt_status rt_gate_ask_begin(rt_gate *gate, rt_error *err)
{
    (void)pthread_mutex_lock(&gate->db_mutex);
    gate->asked_s = rt_clock_seconds();
    if (gate->asked_s >= gate->silent_until_s)
        return RT_OK;
    (void)pthread_mutex_unlock(&gate->db_mutex);
    return rt_error_set(err, RT_IO, "the account database did not answer a moment ago");
}

rt_status rt_gate_ask_end(rt_gate *gate, rt_status status)
{
    const double now = rt_clock_seconds();
    if (status != RT_OK && now - gate->asked_s >= RT_GATE_PATIENCE_S)
        gate->silent_until_s = now + 1;
    (void)pthread_mutex_unlock(&gate->db_mutex);
    return status;
}

rt_status rt_gate_lock_tables(rt_gate *gate, rt_error *err)
{
    rt_status status = RT_OK;
    if (gate->shared && !atomic_load(&gate->elsewhere))
        status = rt_gate_look(gate, err);
    (void)pthread_mutex_lock(&gate->mutex);
    if (!gate->shared)
        status = rt_gate_refresh(gate, err);
    return status;
}

void rt_gate_refresh_elsewhere(rt_gate *gate) { atomic_store(&gate->elsewhere, gate->shared); }

rt_status rt_gate_look(rt_gate *gate, rt_error *err)
{
    if (!gate->shared)
        return RT_OK;
    if (rt_gate_ask_begin(gate, err) != RT_OK)
        return err->status;
    rt_status status = rt_shared_keep_lock(gate, err);
    if (status == RT_OK)
        status = rt_gate_refresh(gate, err);
    return rt_gate_ask_end(gate, status);
}

rt_status rt_gate_refresh(rt_gate *gate, rt_error *err)
{
    int64_t generation = 0;
    bool found;
    if (rt_db_get_int(gate->db, "SELECT n FROM counters WHERE name = 'generation'", NULL, 0, &generation,
                      &found, err) != RT_OK)
        return err->status;
    if (generation == gate->generation)
        return RT_OK;
    const rt_sql_value since = rt_sql_int(gate->generation);
    if (rt_db_run(gate->db,
                  "SELECT id, state, limits, permissions, prices, prompts, case_id, public_reason, until, "
                  "terms, created FROM "
                  "accounts WHERE version > $1",
                  &since, 1, load_account, gate, NULL, err) != RT_OK ||
        rt_db_run(
            gate->db,
            "SELECT id, account, role, name, hash, limits, expires, revoked FROM keys WHERE version > $1",
            &since, 1, load_key, gate, NULL, err) != RT_OK)
        return err->status;
    if (load_meters(gate, &gate->accounts, err) != RT_OK || load_meters(gate, &gate->keys, err) != RT_OK)
        return err->status;
    gate->generation = generation;
    return RT_OK;
}

void rt_gate_drop_tables(rt_gate *gate)
{
    for (size_t i = 0; i < gate->accounts.capacity; i++) {
        account_entry *entry = gate->accounts.places[i];
        if (entry) {
            rt_permissions_deinit(&entry->permissions);
            json_decref(entry->prices);
            free(entry);
        }
    }
    for (size_t i = 0; i < gate->keys.capacity; i++) {
        key_entry *entry = gate->keys.places[i];
        if (entry) {
            if (entry->caller)
                rt_caller_release(&entry->caller->view);
            free(entry);
        }
    }
    free(gate->accounts.places);
    free(gate->keys.places);
}
