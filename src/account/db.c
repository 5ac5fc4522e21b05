/* account/db.c - chooses the database by its name and passes calls on; see db.h. */
#include "account/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "account/db_ops.h"

bool rt_db_url_is_shared(const char *where)
{
    return strncmp(where, "postgres://", 11) == 0 || strncmp(where, "postgresql://", 13) == 0;
}

rt_status rt_db_open(rt_db **out, const char *where, rt_error *err)
{
    *out = NULL;
    rt_db *db = calloc(1, sizeof *db);
    if (!db)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a database connection");
    db->ops = rt_db_url_is_shared(where) ? &rt_db_postgres : &rt_db_sqlite;
    if (db->ops->open(&db->handle, where, err) != RT_OK || rt_schema_apply(db, err) != RT_OK) {
        rt_db_close(db);
        return err->status;
    }
    *out = db;
    return RT_OK;
}

void rt_db_close(rt_db *db)
{
    if (!db)
        return;
    if (db->handle)
        db->ops->close(db->handle);
    free(db);
}

bool rt_db_is_shared(const rt_db *db) { return db->ops == &rt_db_postgres; }

uint64_t rt_db_epoch(const rt_db *db) { return db->ops->epoch(db->handle); }

rt_sql_value rt_sql_int(int64_t integer) { return (rt_sql_value){.kind = RT_SQL_INT, .integer = integer}; }
rt_sql_value rt_sql_real(double real) { return (rt_sql_value){.kind = RT_SQL_REAL, .real = real}; }

rt_sql_value rt_sql_text(const char *text)
{
    return text ? (rt_sql_value){.kind = RT_SQL_TEXT, .data = text, .size = strlen(text)} : (rt_sql_value){0};
}

rt_sql_value rt_sql_blob(const void *data, size_t size)
{
    return (rt_sql_value){.kind = RT_SQL_BLOB, .data = data, .size = size};
}

bool rt_sql_row_is_null(const rt_sql_row *row, int column) { return row->ops->is_null(row, column); }
int64_t rt_sql_row_int(const rt_sql_row *row, int column) { return row->ops->get_int(row, column); }
double rt_sql_row_real(const rt_sql_row *row, int column) { return row->ops->get_real(row, column); }
const char *rt_sql_row_text(const rt_sql_row *row, int column) { return row->ops->get_text(row, column); }
const void *rt_sql_row_blob(const rt_sql_row *row, int column, size_t *size)
{
    return row->ops->get_blob(row, column, size);
}

rt_status rt_db_run(rt_db *db, const char *sql, const rt_sql_value *values, size_t n_values,
                    rt_sql_row_fn row, void *context, int64_t *changed, rt_error *err)
{
    return db->ops->run(db->handle, sql, values, n_values, row, context, changed, err);
}

rt_status rt_db_script(rt_db *db, const char *sql, rt_error *err)
{
    return db->ops->script(db->handle, sql, err);
}

typedef struct first_int {
    int64_t value;
    bool found;
} first_int;

static rt_status take_first(void *context, const rt_sql_row *row, rt_error *err)
{
    (void)err;
    first_int *first = context;
    if (!first->found)
        *first = (first_int){rt_sql_row_int(row, 0), true};
    return RT_OK;
}

rt_status rt_db_get_int(rt_db *db, const char *sql, const rt_sql_value *values, size_t n_values, int64_t *out,
                        bool *found, rt_error *err)
{
    first_int first = {0, false};
    const rt_status status = rt_db_run(db, sql, values, n_values, take_first, &first, NULL, err);
    *out = first.value;
    *found = first.found;
    return status;
}

rt_status rt_db_begin(rt_db *db, bool durable, rt_error *err)
{
    return db->ops->begin(db->handle, durable, err);
}
rt_status rt_db_commit(rt_db *db, rt_error *err) { return db->ops->commit(db->handle, err); }
void rt_db_rollback(rt_db *db) { db->ops->rollback(db->handle); }
void rt_db_hurry(rt_db *db, bool on)
{
    if (db->ops->hurry)
        db->ops->hurry(db->handle, on);
}

void rt_db_set_patience(rt_db *db, double seconds)
{
    if (db->ops->set_patience)
        db->ops->set_patience(db->handle, seconds);
}
