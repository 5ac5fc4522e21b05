/* account/db.h - one interface to SQL, two databases behind it: SQLite (a path) and PostgreSQL
 * (postgres://...).
 *
 * The SQL is what both understand: $1, $2, ... for parameters, INSERT ... ON CONFLICT, RETURNING, row values.
 * Values only ever travel as bound parameters.  Statements are prepared once and kept; their text must be
 * constant or come from a small set.  A connection is for one thread at a time. */
#ifndef RT_ACCOUNT_DB_H
#define RT_ACCOUNT_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_db rt_db;

/* A file that is missing is made, readable by its owner alone.  Tables are made or migrated forward
 * (schema.c); RT_UNSUPPORTED when they are a newer program's. */
rt_status rt_db_open(rt_db **out, const char *where, rt_error *err);
void rt_db_close(rt_db *db);
bool rt_db_url_is_shared(const char *where); /* postgres://, postgresql:// */
/* PostgreSQL: other servers may work on the same tables. */
bool rt_db_is_shared(const rt_db *db);
/* Counts how often the connection was opened anew; what belonged to the session is lost then. */
uint64_t rt_db_epoch(const rt_db *db);

typedef enum rt_sql_kind { RT_SQL_NULL, RT_SQL_INT, RT_SQL_TEXT, RT_SQL_REAL, RT_SQL_BLOB } rt_sql_kind;
typedef struct rt_sql_value { /* data borrowed for the call */
    rt_sql_kind kind;
    int64_t integer;
    double real;
    const char *data;
    size_t size;
} rt_sql_value;
rt_sql_value rt_sql_int(int64_t integer);
rt_sql_value rt_sql_real(double real);
rt_sql_value rt_sql_text(const char *text); /* NULL gives SQL's null */
rt_sql_value rt_sql_blob(const void *data, size_t size);

/* One row of a result; texts live until the callback returns. */
typedef struct rt_sql_row {
    void *handle;
    const struct rt_db_ops *ops;
    int index;
} rt_sql_row;
bool rt_sql_row_is_null(const rt_sql_row *row, int column);
int64_t rt_sql_row_int(const rt_sql_row *row, int column); /* 0 for null */
double rt_sql_row_real(const rt_sql_row *row, int column);
const char *rt_sql_row_text(const rt_sql_row *row, int column); /* "" for null */
const void *rt_sql_row_blob(const rt_sql_row *row, int column, size_t *size);

/* A status other than RT_OK ends the query with it. */
typedef rt_status (*rt_sql_row_fn)(void *context, const rt_sql_row *row, rt_error *err);
/* Runs one statement.  row may be NULL.  *changed (may be NULL): rows inserted, updated or deleted. */
rt_status rt_db_run(rt_db *db, const char *sql, const rt_sql_value *values, size_t n_values,
                    rt_sql_row_fn row, void *context, int64_t *changed, rt_error *err);
/* Several statements without parameters, from this program alone. */
rt_status rt_db_script(rt_db *db, const char *sql, rt_error *err);
/* The first column of the first row as an integer; *found false when there is no row. */
rt_status rt_db_get_int(rt_db *db, const char *sql, const rt_sql_value *values, size_t n_values, int64_t *out,
                        bool *found, rt_error *err);

/* A writing transaction.  durable false: a crash may lose it as a whole (PostgreSQL: reservations). */
rt_status rt_db_begin(rt_db *db, bool durable, rt_error *err);
rt_status rt_db_commit(rt_db *db, rt_error *err);
void rt_db_rollback(rt_db *db);
/* SQLite, while on: what would have to wait for another writer fails with RT_BUSY at once, and no commit
 * takes the time to move the log into the file. */
void rt_db_hurry(rt_db *db, bool on);
/* PostgreSQL: what takes longer fails with RT_IO, and its connection is given up.  0, as at first: any time.
 */
void rt_db_set_patience(rt_db *db, double seconds);

/* Brings the tables to this program's version. */
rt_status rt_schema_apply(rt_db *db, rt_error *err);

#endif
