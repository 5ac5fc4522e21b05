/* account/ledger.h - rows of requests, the sums over them, and the persistent meters, written in groups.
 *
 * PostgreSQL: one transaction holds any number of rows and everything that follows from them: the sums by
 * hour and day, the meters of accounts and keys, the prompts that are kept, the reservations that end.  After
 * a crash either all of it is there or nothing, so no request is lost or counted twice.
 *
 * SQLite, where one server writes: a row and its prompt are all that an answer waits for, one statement as a
 * rule.  Sums and meters follow for many rows at once; the same transaction moves the mark counters.summed,
 * the newest row that they hold, so that a server that starts after a crash knows what it has to add.  Who
 * reads sums meanwhile adds the rows above the mark (admin_usage.c). */
#ifndef RT_ACCOUNT_LEDGER_H
#define RT_ACCOUNT_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account/db.h"
#include "account/meter.h"
#include "account/secrets.h"

typedef struct rt_ledger_row { /* texts are clean (rt_text_clean): no control characters, valid UTF-8 */
    int64_t id;                /* SQLite; 0: it gets one when it is written */
    char request[64], account[40], key[24], endpoint[48], model[128], outcome[32], address[64], agent[128];
    char user_hash[33];
    int64_t at_ms; /* admitted */
    int64_t http, input, cached, output, cost, ttft_us, total_us;
    bool estimated;
    char mark_scheme[24], mark_key[48]; /* the watermark: scheme and the key's id; empty: none stood at it */
    int64_t mark_h;
    double mark_own; /* share of the tokens under the account's own key */
    bool marked;     /* the answer had tokens that could carry it */
    bool reserved;   /* a reservation of this request id ends (PostgreSQL) */
    bool unsure;     /* there may be none: the database failed when it was made; nothing was used */
    rt_meter_draw reserved_draw, used_draw;
    char *prompt; /* malloc'd, or NULL; owned by the row */
    size_t prompt_size;
    bool prompt_full; /* else only its hash is kept */
    int64_t prompt_days;
    unsigned char *record; /* of the guard; malloc'd, or NULL; owned by the row */
    size_t record_size;
    char *record_line; /* told once the row is written; malloc'd, or NULL */
} rt_ledger_row;

/* server: the id in `servers`, batch: counts up; a batch that was written already is left out.  0, 0 for
 * SQLite. */
rt_status rt_ledger_write(rt_db *db, const rt_secrets *secrets, rt_ledger_row *const *rows, size_t n_rows,
                          int64_t server, int64_t batch, int64_t unix_s, rt_error *err);
/* SQLite only.  Rows and prompts alone: their ids are last_id + 1 and so on. */
rt_status rt_ledger_append(rt_db *db, const rt_secrets *secrets, rt_ledger_row *const *rows, size_t n_rows,
                           int64_t last_id, rt_error *err);
/* Sums and meters of appended rows, in the order of ids and none left out, as far as they are not in yet. */
rt_status rt_ledger_sum(rt_db *db, rt_ledger_row *const *rows, size_t n_rows, int64_t unix_s, rt_error *err);
/* The highest id that was ever given. */
rt_status rt_ledger_last_id(rt_db *db, int64_t *id, rt_error *err);
/* Sums what was only appended, before meters are read; inside of a transaction.  Nothing on PostgreSQL. */
rt_status rt_ledger_catch_up(rt_db *db, rt_error *err);
/* Drops rows and prompts whose time is over. */
rt_status rt_ledger_prune(rt_db *db, int64_t unix_s, int64_t ledger_days, rt_error *err);

/* Meters by subject (account or key id).  lock: until the transaction ends (PostgreSQL). */
rt_status rt_meter_load(rt_db *db, const char *subject, bool lock, rt_meter *out, rt_error *err);
rt_status rt_meter_save(rt_db *db, const char *subject, const rt_meter *meter, rt_error *err);

/* Copies text so that it can stand in a row and a log line: control characters and ill-formed UTF-8 become
 * '?', cut at a character's border.  NULL gives "". */
void rt_text_clean(char *out, size_t size, const char *text);
/* Keyed BLAKE2b of size bytes as hex: 2 x out_bytes digits and the NUL. */
void rt_keyed_hash(char *out, size_t out_bytes, const rt_secrets *secrets, const void *data, size_t size);

#endif
