/* account/ledger.c - writing rows in groups; see ledger.h.
 *
 * Sums and meters of a group are added up in memory first: a hundred rows of one account cost one update of
 * its meter.  Subjects are visited in the order of their names, as admission does (gate_shared.c), so that
 * two servers never wait for each other in a circle. */
#include "account/ledger.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { HOUR_S = 3600, DAY_S = 86400 };

void rt_text_clean(char *out, size_t size, const char *text)
{
    size_t used = 0;
    const size_t length = text ? strlen(text) : 0;
    for (size_t i = 0; i < length && used + 4 < size;) {
        size_t step;
        const uint32_t c = rt_utf8_decode(text + i, length - i, &step);
        const bool bad = c < ' ' || (c >= 127 && c < 160) || c == 0xFFFD || c == 0x2028 || c == 0x2029;
        if (bad) {
            out[used++] = '?';
        } else {
            memcpy(out + used, text + i, step);
            used += step;
        }
        i += step;
    }
    out[used] = '\0';
}

void rt_keyed_hash(char *out, size_t out_bytes, const rt_secrets *secrets, const void *data, size_t size)
{
    unsigned char digest[crypto_generichash_BYTES];
    (void)crypto_generichash(digest, sizeof digest, data, size, secrets->seal, sizeof secrets->seal);
    (void)sodium_bin2hex(out, 2 * out_bytes + 1, digest, out_bytes);
}

/* --- meters --- */

static rt_status take_meter(void *context, const rt_sql_row *row, rt_error *err)
{
    (void)err;
    *(rt_meter *)context = (rt_meter){.requests_used = rt_sql_row_real(row, 0),
                                      .tokens_used = rt_sql_row_real(row, 1),
                                      .used_at = rt_sql_row_real(row, 2),
                                      .running = rt_sql_row_int(row, 3),
                                      .reserved_tokens = rt_sql_row_int(row, 4),
                                      .reserved_cost = rt_sql_row_int(row, 5),
                                      .day = rt_sql_row_int(row, 6),
                                      .day_tokens = rt_sql_row_int(row, 7),
                                      .day_cost = rt_sql_row_int(row, 8),
                                      .month = rt_sql_row_int(row, 9),
                                      .month_tokens = rt_sql_row_int(row, 10),
                                      .month_cost = rt_sql_row_int(row, 11),
                                      .total_tokens = rt_sql_row_int(row, 12),
                                      .total_cost = rt_sql_row_int(row, 13)};
    return RT_OK;
}

#define METER_COLUMNS                                                                                        \
    "requests_used, tokens_used, used_at, running, reserved_tokens, reserved_cost, day, day_tokens, "        \
    "day_cost, "                                                                                             \
    "month, month_tokens, month_cost, total_tokens, total_cost"

rt_status rt_meter_load(rt_db *db, const char *subject, bool lock, rt_meter *out, rt_error *err)
{
    *out = (rt_meter){0};
    const rt_sql_value value = rt_sql_text(subject);
    return rt_db_run(db,
                     lock && rt_db_is_shared(db) ? "SELECT " METER_COLUMNS
                                                   " FROM meters WHERE subject = $1 FOR UPDATE"
                                                 : "SELECT " METER_COLUMNS " FROM meters WHERE subject = $1",
                     &value, 1, take_meter, out, NULL, err);
}

rt_status rt_meter_save(rt_db *db, const char *subject, const rt_meter *meter, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_text(subject),
                                   rt_sql_real(meter->requests_used),
                                   rt_sql_real(meter->tokens_used),
                                   rt_sql_real(meter->used_at),
                                   rt_sql_int(meter->running),
                                   rt_sql_int(meter->reserved_tokens),
                                   rt_sql_int(meter->reserved_cost),
                                   rt_sql_int(meter->day),
                                   rt_sql_int(meter->day_tokens),
                                   rt_sql_int(meter->day_cost),
                                   rt_sql_int(meter->month),
                                   rt_sql_int(meter->month_tokens),
                                   rt_sql_int(meter->month_cost),
                                   rt_sql_int(meter->total_tokens),
                                   rt_sql_int(meter->total_cost)};
    return rt_db_run(
        db,
        "INSERT INTO meters (subject, " METER_COLUMNS ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, "
        "$11, $12, $13, $14, $15) ON CONFLICT (subject) DO "
        "UPDATE SET requests_used = excluded.requests_used, tokens_used = excluded.tokens_used, used_at = "
        "excluded.used_at, running = excluded.running, reserved_tokens = excluded.reserved_tokens, "
        "reserved_cost = "
        "excluded.reserved_cost, day = excluded.day, day_tokens = excluded.day_tokens, day_cost = "
        "excluded.day_cost, month = excluded.month, month_tokens = excluded.month_tokens, month_cost = "
        "excluded.month_cost, total_tokens = excluded.total_tokens, total_cost = excluded.total_cost",
        values, sizeof values / sizeof values[0], NULL, NULL, NULL, err);
}

/* --- one group --- */

typedef struct sum_line { /* one line of `sums`, before it is added */
    int64_t start;
    const char *account, *key, *model;
    int64_t requests, input, cached, output, cost, errors, limited;
} sum_line;

typedef struct subject_line { /* what one meter gets */
    const char *subject;
    rt_meter_draw used;
} subject_line;

static int by_sum(const void *a, const void *b)
{
    const sum_line *x = a, *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    int order = strcmp(x->account, y->account);
    if (order == 0)
        order = strcmp(x->key, y->key);
    return order ? order : strcmp(x->model, y->model);
}

static int by_subject(const void *a, const void *b)
{
    return strcmp(((const subject_line *)a)->subject, ((const subject_line *)b)->subject);
}

static rt_status insert_row(rt_db *db, const rt_ledger_row *row, rt_error *err)
{
    const rt_sql_value values[] = {
        rt_sql_text(row->request),     rt_sql_int(row->at_ms),     rt_sql_text(row->account),
        rt_sql_text(row->key),         rt_sql_text(row->endpoint), rt_sql_text(row->model),
        rt_sql_int(row->http),         rt_sql_text(row->outcome),  rt_sql_int(row->input),
        rt_sql_int(row->cached),       rt_sql_int(row->output),    rt_sql_int(row->cost),
        rt_sql_int(row->estimated),    rt_sql_int(row->ttft_us),   rt_sql_int(row->total_us),
        rt_sql_text(row->address),     rt_sql_text(row->agent),    rt_sql_text(row->user_hash),
        rt_sql_text(row->mark_scheme), rt_sql_text(row->mark_key), rt_sql_int(row->mark_h),
        rt_sql_real(row->mark_own),    rt_sql_int(row->marked),    rt_sql_int(row->id)};
#define INSERT_ROW(id, value)                                                                                \
    "INSERT INTO ledger (" id "request, at, account, key_id, endpoint, model, http, outcome, input, "        \
    "cached, output, cost, estimated, ttft_us, total_us, address, agent, user_hash, mark_scheme, mark_key, " \
    "mark_h, mark_own, marked) VALUES (" value "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "    \
    "$14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"
    const size_t n_values = sizeof values / sizeof values[0];
    return row->id > 0 ? rt_db_run(db, INSERT_ROW("id, ", "$24, "), values, n_values, NULL, NULL, NULL, err)
                       : rt_db_run(db, INSERT_ROW("", ""), values, n_values - 1, NULL, NULL, NULL, err);
}

static rt_status insert_prompt(rt_db *db, const rt_secrets *secrets, const rt_ledger_row *row, rt_error *err)
{
    char hash[65];
    unsigned char *sealed = NULL;
    rt_keyed_hash(hash, 32, secrets, row->prompt, row->prompt_size);
    if (row->prompt_full) {
        sealed = malloc(row->prompt_size + RT_SEAL_OVERHEAD);
        if (!sealed)
            return rt_error_set(err, RT_NO_MEMORY, "no memory to seal a prompt");
        rt_secrets_seal(secrets, sealed, row->prompt, row->prompt_size, row->request);
    }
    const rt_sql_value values[] = {rt_sql_text(row->request),
                                   rt_sql_text(row->account),
                                   rt_sql_int(row->at_ms),
                                   rt_sql_text(hash),
                                   sealed ? rt_sql_blob(sealed, row->prompt_size + RT_SEAL_OVERHEAD)
                                          : (rt_sql_value){0},
                                   rt_sql_int(row->at_ms / 1000 + row->prompt_days * DAY_S)};
    const rt_status status =
        rt_db_run(db, "INSERT INTO prompts VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (request) DO NOTHING",
                  values, 6, NULL, NULL, NULL, err);
    free(sealed);
    return status;
}

static rt_status insert_record(rt_db *db, const rt_secrets *secrets, const rt_ledger_row *row, rt_error *err)
{
    unsigned char *sealed = malloc(row->record_size + RT_SEAL_OVERHEAD);
    if (!sealed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to seal a row of the guard");
    rt_secrets_seal(secrets, sealed, row->record, row->record_size, row->request);
    const rt_sql_value values[] = {rt_sql_text(row->request),
                                   rt_sql_blob(sealed, row->record_size + RT_SEAL_OVERHEAD)};
    const rt_status status = rt_db_run(db, "INSERT INTO guard_rows (request, sealed) VALUES ($1, $2)", values,
                                       2, NULL, NULL, NULL, err);
    free(sealed);
    return status;
}

static rt_status add_sum(rt_db *db, int64_t width, const sum_line *sum, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_int(width),      rt_sql_int(sum->start),  rt_sql_text(sum->account),
                                   rt_sql_text(sum->key),  rt_sql_text(sum->model), rt_sql_int(sum->requests),
                                   rt_sql_int(sum->input), rt_sql_int(sum->cached), rt_sql_int(sum->output),
                                   rt_sql_int(sum->cost),  rt_sql_int(sum->errors), rt_sql_int(sum->limited)};
    return rt_db_run(
        db,
        "INSERT INTO sums VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (width, "
        "start, account, key_id, model) DO UPDATE SET requests = sums.requests + excluded.requests, "
        "input = sums.input + excluded.input, cached = sums.cached + excluded.cached, output = "
        "sums.output + excluded.output, cost = sums.cost + excluded.cost, errors = sums.errors + "
        "excluded.errors, limited = sums.limited + excluded.limited",
        values, 12, NULL, NULL, NULL, err);
}

/* A request for a model that is not there must not give the sums a line of its own: names are the clients'.
 */
static rt_status write_sums(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, sum_line *lines,
                            int64_t width, rt_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        const rt_ledger_row *row = rows[i];
        lines[i] = (sum_line){.start = row->at_ms / 1000 / width * width,
                              .account = row->account,
                              .key = row->key,
                              .model = row->http == 400 || row->http == 404 ? "" : row->model,
                              .requests = 1,
                              .input = row->input,
                              .cached = row->cached,
                              .output = row->output,
                              .cost = row->cost,
                              .errors = row->http >= 400 && row->http != 429 && row->http != 499,
                              .limited = row->http == 429};
    }
    qsort(lines, n_rows, sizeof *lines, by_sum);
    size_t kept = 0;
    for (size_t i = 1; i < n_rows; i++) {
        sum_line *last = &lines[kept];
        const sum_line *line = &lines[i];
        if (by_sum(last, line) != 0) {
            lines[++kept] = *line;
            continue;
        }
        last->requests += line->requests;
        last->input += line->input;
        last->cached += line->cached;
        last->output += line->output;
        last->cost += line->cost;
        last->errors += line->errors;
        last->limited += line->limited;
    }
    for (size_t i = 0; i <= kept; i++)
        if (add_sum(db, width, &lines[i], err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status take_reservation(void *context, const rt_sql_row *from, rt_error *err)
{
    (void)err;
    rt_ledger_row *row = context;
    row->reserved_draw.tokens = rt_sql_row_int(from, 0);
    row->reserved_draw.cost = rt_sql_row_int(from, 1);
    return RT_OK;
}

/* Deletes a reservation; *mine false when a sweep had given it back already.  What is given back is what
 * stands there: a raise whose answer never came may have been made. */
static rt_status end_reservation(rt_db *db, rt_ledger_row *row, bool *mine, rt_error *err)
{
    int64_t changed = 0;
    const rt_sql_value id = rt_sql_text(row->request);
    const rt_status status = rt_db_run(db, "DELETE FROM reservations WHERE id = $1 RETURNING tokens, cost",
                                       &id, 1, take_reservation, row, &changed, err);
    *mine = changed == 1;
    return status;
}

static rt_status write_meter(rt_db *db, rt_ledger_row *const *rows, const bool *mine, size_t n_rows,
                             const subject_line *line, int64_t unix_s, rt_error *err)
{
    rt_meter meter;
    if (rt_meter_load(db, line->subject, true, &meter, err) != RT_OK)
        return err->status;
    const double bucket_at = meter.used_at;
    const rt_limits any = {.rpm = INT64_MAX, .tpm = INT64_MAX};
    rt_meter_roll(&meter, &any,
                  (rt_instant){bucket_at, unix_s}); /* days and months only: no time for buckets */
    if (!rt_db_is_shared(db)) {
        rt_meter_add(&meter, &line->used);
        return rt_meter_save(db, line->subject, &meter, err);
    }
    for (size_t i = 0; i < n_rows; i++) {
        const rt_ledger_row *row = rows[i];
        if (!row->reserved ||
            (strcmp(row->account, line->subject) != 0 && strcmp(row->key, line->subject) != 0))
            continue;
        if (!mine[i] && row->unsure)
            continue;
        if (mine[i])
            rt_meter_release(&meter, &row->reserved_draw);
        rt_meter_charge(&meter, &row->reserved_draw, &row->used_draw);
    }
    return rt_meter_save(db, line->subject, &meter, err);
}

static rt_status write_meters(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, subject_line *lines,
                              bool *mine, int64_t unix_s, rt_error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < n_rows; i++) {
        mine[i] = false;
        if (!rows[i]->reserved)
            continue;
        lines[count++] = (subject_line){rows[i]->account, rows[i]->used_draw};
        lines[count++] = (subject_line){rows[i]->key, rows[i]->used_draw};
    }
    if (count == 0)
        return RT_OK;
    qsort(lines, count, sizeof *lines, by_subject);
    size_t kept = 0;
    for (size_t i = 1; i < count; i++) {
        if (strcmp(lines[kept].subject, lines[i].subject) != 0) {
            lines[++kept] = lines[i];
            continue;
        }
        lines[kept].used.tokens += lines[i].used.tokens;
        lines[kept].used.cost += lines[i].used.cost;
    }
    /* Meters are locked before their reservations, as at admission. */
    for (size_t i = 0; i <= kept && rt_db_is_shared(db); i++)
        if (rt_meter_load(db, lines[i].subject, true, &(rt_meter){0}, err) != RT_OK)
            return err->status;
    for (size_t i = 0; i < n_rows && rt_db_is_shared(db); i++)
        if (rows[i]->reserved && end_reservation(db, rows[i], &mine[i], err) != RT_OK)
            return err->status;
    for (size_t i = 0; i <= kept; i++)
        if (write_meter(db, rows, mine, n_rows, &lines[i], unix_s, err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status write_last_used(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, rt_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        const int64_t at_s = rows[i]->at_ms / 1000;
        const rt_sql_value values[] = {rt_sql_text(rows[i]->key), rt_sql_int(at_s), rt_sql_int(at_s - 60)};
        if (i > 0 && strcmp(rows[i]->key, rows[i - 1]->key) == 0)
            continue;
        if (rt_db_run(
                db, "UPDATE keys SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used <= $3)",
                values, 3, NULL, NULL, NULL, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

typedef struct scratch {
    sum_line *sums;
    subject_line *subjects;
    bool *mine;
} scratch;

static bool take_room(scratch *room, size_t n_rows)
{
    *room = (scratch){calloc(n_rows, sizeof(sum_line)), calloc(2 * n_rows, sizeof(subject_line)),
                      calloc(n_rows, sizeof(bool))};
    return room->sums && room->subjects && room->mine;
}

static void free_room(scratch *room)
{
    free(room->sums);
    free(room->subjects);
    free(room->mine);
}

static rt_status insert_all(rt_db *db, const rt_secrets *secrets, rt_ledger_row *const *rows, size_t n_rows,
                            rt_error *err)
{
    for (size_t i = 0; i < n_rows; i++)
        if (insert_row(db, rows[i], err) != RT_OK ||
            (rows[i]->prompt && insert_prompt(db, secrets, rows[i], err) != RT_OK) ||
            (rows[i]->record && insert_record(db, secrets, rows[i], err) != RT_OK))
            return err->status;
    return RT_OK;
}

static rt_status sum_all(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, const scratch *room,
                         int64_t unix_s, rt_error *err)
{
    if (write_sums(db, rows, n_rows, room->sums, HOUR_S, err) != RT_OK ||
        write_sums(db, rows, n_rows, room->sums, DAY_S, err) != RT_OK ||
        write_last_used(db, rows, n_rows, err) != RT_OK)
        return err->status;
    return write_meters(db, rows, n_rows, room->subjects, room->mine, unix_s, err);
}

/* id 0: all rows that there are. */
static rt_status move_mark(rt_db *db, int64_t id, rt_error *err)
{
    const rt_sql_value value = rt_sql_int(id);
    return id > 0 ? rt_db_run(db, "UPDATE counters SET n = $1 WHERE name = 'summed'", &value, 1, NULL, NULL,
                              NULL, err)
                  : rt_db_run(db,
                              "UPDATE counters SET n = (SELECT COALESCE(MAX(id), 0) FROM ledger) WHERE name "
                              "= 'summed'",
                              NULL, 0, NULL, NULL, NULL, err);
}

/* Commits what went well. */
static rt_status end(rt_db *db, rt_status status, rt_error *err)
{
    if (status == RT_OK)
        status = rt_db_commit(db, err);
    if (status != RT_OK)
        rt_db_rollback(db);
    return status;
}

rt_status rt_ledger_write(rt_db *db, const rt_secrets *secrets, rt_ledger_row *const *rows, size_t n_rows,
                          int64_t server, int64_t batch, int64_t unix_s, rt_error *err)
{
    if (n_rows == 0)
        return RT_OK;
    scratch room;
    rt_status status = take_room(&room, n_rows)
                           ? rt_db_begin(db, true, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for a group of ledger rows");
    if (status == RT_OK) {
        int64_t changed = 1;
        const rt_sql_value values[] = {rt_sql_int(server), rt_sql_int(batch)};
        if (server > 0)
            status = rt_db_run(db, "UPDATE servers SET batch = $2 WHERE id = $1 AND batch < $2", values, 2,
                               NULL, NULL, &changed, err);
        if (status == RT_OK && changed > 0)
            status = insert_all(db, secrets, rows, n_rows, err);
        if (status == RT_OK && changed > 0)
            status = sum_all(db, rows, n_rows, &room, unix_s, err);
        if (status == RT_OK && !rt_db_is_shared(db))
            status = move_mark(db, 0, err);
        status = end(db, status, err);
    }
    free_room(&room);
    return status;
}

rt_status rt_ledger_append(rt_db *db, const rt_secrets *secrets, rt_ledger_row *const *rows, size_t n_rows,
                           int64_t last_id, rt_error *err)
{
    for (size_t i = 0; i < n_rows; i++)
        rows[i]->id = last_id + 1 + (int64_t)i;
    if (n_rows == 1 && !rows[0]->prompt && !rows[0]->record) /* one statement is a transaction */
        return insert_row(db, rows[0], err);
    if (rt_db_begin(db, true, err) != RT_OK)
        return err->status;
    return end(db, insert_all(db, secrets, rows, n_rows, err), err);
}

/* Rows up to the mark are in the sums: somebody caught up. */
static rt_status sum_new(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, int64_t unix_s, rt_error *err)
{
    int64_t mark = 0;
    bool found;
    scratch room;
    if (rt_db_get_int(db, "SELECT n FROM counters WHERE name = 'summed'", NULL, 0, &mark, &found, err) !=
        RT_OK)
        return err->status;
    for (; n_rows > 0 && rows[0]->id <= mark; n_rows--)
        rows++;
    if (n_rows == 0)
        return RT_OK;
    rt_status status = take_room(&room, n_rows)
                           ? sum_all(db, rows, n_rows, &room, unix_s, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for a group of ledger rows");
    if (status == RT_OK)
        status = move_mark(db, rows[n_rows - 1]->id, err);
    free_room(&room);
    return status;
}

rt_status rt_ledger_sum(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, int64_t unix_s, rt_error *err)
{
    if (n_rows == 0)
        return RT_OK;
    if (rt_db_begin(db, true, err) != RT_OK)
        return err->status;
    return end(db, sum_new(db, rows, n_rows, unix_s, err), err);
}

rt_status rt_ledger_last_id(rt_db *db, int64_t *id, rt_error *err)
{
    bool found;
    return rt_db_get_int(db,
                         "SELECT MAX(n) FROM (SELECT n FROM counters WHERE name = 'summed' UNION ALL SELECT "
                         "COALESCE(MAX(id), 0) FROM ledger)",
                         NULL, 0, id, &found, err);
}

typedef struct left_rows { /* rows that a server has appended and not summed */
    rt_ledger_row *items;
    size_t count, room;
} left_rows;

static rt_status take_left(void *context, const rt_sql_row *from, rt_error *err)
{
    left_rows *left = context;
    if (left->count == left->room) {
        const size_t room = left->room ? 2 * left->room : 64;
        rt_ledger_row *grown = realloc(left->items, room * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the rows that are not summed yet");
        left->items = grown;
        left->room = room;
    }
    rt_ledger_row *row = &left->items[left->count++];
    *row = (rt_ledger_row){.id = rt_sql_row_int(from, 0),
                           .at_ms = rt_sql_row_int(from, 1),
                           .http = rt_sql_row_int(from, 5),
                           .input = rt_sql_row_int(from, 6),
                           .cached = rt_sql_row_int(from, 7),
                           .output = rt_sql_row_int(from, 8),
                           .cost = rt_sql_row_int(from, 9),
                           .reserved = true};
    rt_text_clean(row->account, sizeof row->account, rt_sql_row_text(from, 2));
    rt_text_clean(row->key, sizeof row->key, rt_sql_row_text(from, 3));
    rt_text_clean(row->model, sizeof row->model, rt_sql_row_text(from, 4));
    row->used_draw = (rt_meter_draw){row->input + row->output, row->cost, true};
    return RT_OK;
}

rt_status rt_ledger_catch_up(rt_db *db, rt_error *err)
{
    left_rows left = {0};
    if (rt_db_is_shared(db))
        return RT_OK;
    rt_status status = rt_db_run(
        db,
        "SELECT id, at, account, key_id, model, http, input, cached, output, cost FROM ledger WHERE id > "
        "(SELECT n FROM counters WHERE name = 'summed') ORDER BY id",
        NULL, 0, take_left, &left, NULL, err);
    rt_ledger_row **rows = calloc(left.count + 1, sizeof *rows);
    if (status == RT_OK && !rows)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for the rows that are not summed yet");
    for (size_t i = 0; rows && i < left.count; i++)
        rows[i] = &left.items[i];
    if (status == RT_OK && left.count > 0) /* in the day in which they were used */
        status = sum_new(db, rows, left.count, rows[left.count - 1]->at_ms / 1000, err);
    free(rows);
    free(left.items);
    return status;
}

rt_status rt_ledger_prune(rt_db *db, int64_t unix_s, int64_t ledger_days, rt_error *err)
{
    const rt_sql_value now = rt_sql_int(unix_s);
    if (rt_db_run(db, "DELETE FROM prompts WHERE expires <= $1", &now, 1, NULL, NULL, NULL, err) != RT_OK)
        return err->status;
    if (ledger_days <= 0)
        return RT_OK;
    const rt_sql_value oldest = rt_sql_int((unix_s - ledger_days * DAY_S) * 1000);
    return rt_db_run(db, "DELETE FROM ledger WHERE at < $1", &oldest, 1, NULL, NULL, NULL, err);
}
