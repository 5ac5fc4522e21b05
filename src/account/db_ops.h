/* account/db_ops.h - what a database has to offer behind db.h; for the files db*.c alone. */
#ifndef RT_ACCOUNT_DB_OPS_H
#define RT_ACCOUNT_DB_OPS_H

#include "account/db.h"

typedef struct rt_db_ops {
    const char *id_column, *blob_type; /* put for "@ID@" and "@BLOB@" in the schema */
    rt_status (*open)(void **out, const char *where, rt_error *err);
    void (*close)(void *handle);
    uint64_t (*epoch)(const void *handle);
    rt_status (*run)(void *handle, const char *sql, const rt_sql_value *values, size_t n_values,
                     rt_sql_row_fn row, void *context, int64_t *changed, rt_error *err);
    rt_status (*script)(void *handle, const char *sql, rt_error *err);
    rt_status (*begin)(void *handle, bool durable, rt_error *err);
    rt_status (*commit)(void *handle, rt_error *err);
    void (*rollback)(void *handle);
    void (*hurry)(void *handle, bool on); /* NULL: nothing to do; so with the next */
    void (*set_patience)(void *handle, double seconds);
    bool (*is_null)(const rt_sql_row *row, int column);
    int64_t (*get_int)(const rt_sql_row *row, int column);
    double (*get_real)(const rt_sql_row *row, int column);
    const char *(*get_text)(const rt_sql_row *row, int column);
    const void *(*get_blob)(const rt_sql_row *row, int column, size_t *size);
} rt_db_ops;

extern const rt_db_ops rt_db_sqlite, rt_db_postgres;

struct rt_db {
    const rt_db_ops *ops;
    void *handle;
};

/* Prepared statements by their text: a small table that is emptied when it is nearly full (a rare thing: only
 * usage has statements that are put together). */
enum { RT_STATEMENTS_MAX = 256, RT_STATEMENTS_KEPT = 128 };

#endif
