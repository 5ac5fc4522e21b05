/* account/db_sqlite.c - SQLite behind db.h: one file in WAL mode, synchronous FULL, so that a commit that has
 * returned is on the disk.  Readers never wait; writers of several processes wait for each other up to ten
 * seconds. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account/db_ops.h"
#include "base/hash.h"

enum { BUSY_TRIES = 20000, BUSY_SLEEP_US = 500, PARAMETERS_MAX = 31, CHECKPOINT_PAGES = 4000 };

typedef struct statement {
    uint64_t hash;
    sqlite3_stmt *prepared;                   /* NULL: a free place */
    unsigned char places[PARAMETERS_MAX + 1]; /* of $1, $2, ... among SQLite's parameters; 0: not there */
} statement;

typedef struct sqlite_db {
    sqlite3 *connection;
    statement statements[RT_STATEMENTS_MAX];
    size_t n_statements;
} sqlite_db;

static rt_status failed(const sqlite_db *db, int code, const char *what, rt_error *err)
{
    const rt_status status = code == SQLITE_BUSY || code == SQLITE_LOCKED      ? RT_BUSY
                             : code == SQLITE_NOMEM                            ? RT_NO_MEMORY
                             : code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? RT_CORRUPT
                                                                               : RT_IO;
    return rt_error_set(err, status, "the account database: %s: %s", what,
                        db->connection ? sqlite3_errmsg(db->connection) : sqlite3_errstr(code));
}

static void close_db(void *handle)
{
    sqlite_db *db = handle;
    for (size_t i = 0; i < RT_STATEMENTS_MAX; i++)
        (void)sqlite3_finalize(db->statements[i].prepared);
    (void)sqlite3_close(db->connection);
    free(db);
}

/* The file is made before SQLite sees it: its -wal and -shm files take over its permissions.  A file that is
 * there must not be opened here, since closing it would take away the locks that other connections of this
 * process hold on it (POSIX); a command that ends would then believe to be the last one, and remove the
 * server's log from under it. */
static rt_status make_private(const char *path, rt_error *err)
{
    struct stat info;
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        (void)close(fd);
        return RT_OK;
    }
    if (errno != EEXIST || lstat(path, &info) != 0)
        return rt_error_set(err, RT_IO, "%s: the account database cannot be opened: %s", path,
                            strerror(errno));
    if (S_ISREG(info.st_mode) && ((info.st_mode & 077) == 0 || chmod(path, 0600) == 0))
        return RT_OK;
    return rt_error_set(err, RT_IO, "%s: the account database must be a file that only its owner reads",
                        path);
}

/* SQLite's own handler sleeps up to 100 ms between two looks, so that who writes often starves who writes
 * seldom. */
static int wait_for_writer(void *context, int tries)
{
    (void)context;
    if (tries >= BUSY_TRIES)
        return 0;
    (void)usleep(BUSY_SLEEP_US);
    return 1;
}

static rt_status open_db(void **out, const char *where, rt_error *err)
{
    if (make_private(where, err) != RT_OK)
        return err->status;
    sqlite_db *db = calloc(1, sizeof *db);
    if (!db)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a database connection");
    int code = sqlite3_open_v2(where, &db->connection, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_busy_handler(db->connection, wait_for_writer, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db->connection,
                            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY;"
                            "PRAGMA cache_size=-8000;"
                            "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;",
                            NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        (void)failed(db, code, where, err);
        close_db(db);
        return err->status;
    }
    (void)sqlite3_wal_autocheckpoint(db->connection, CHECKPOINT_PAGES);
    (void)sqlite3_db_config(db->connection, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    *out = db;
    return RT_OK;
}

/* No statement is running: a row function runs none of its own. */
static void drop_statements(sqlite_db *db)
{
    for (size_t i = 0; i < RT_STATEMENTS_MAX; i++) {
        (void)sqlite3_finalize(db->statements[i].prepared);
        db->statements[i] = (statement){0};
    }
    db->n_statements = 0;
}

/* $3 is a name to SQLite: its place is the order of first appearance, looked up once. */
static void find_places(statement *of)
{
    const int count = sqlite3_bind_parameter_count(of->prepared);
    for (int place = 1; place <= count && place <= PARAMETERS_MAX; place++) {
        const char *name = sqlite3_bind_parameter_name(of->prepared, place);
        const long number = name ? strtol(name + 1, NULL, 10) : 0;
        if (number > 0 && number <= PARAMETERS_MAX)
            of->places[number] = (unsigned char)place;
    }
}

static statement *prepared_statement(sqlite_db *db, const char *sql, rt_error *err)
{
    const uint64_t hash = rt_hash64(sql, strlen(sql), 0);
    for (size_t probe = 0; probe < RT_STATEMENTS_MAX; probe++) {
        statement *place = &db->statements[(hash + probe) % RT_STATEMENTS_MAX];
        if (place->prepared && place->hash == hash)
            return place;
        if (place->prepared)
            continue;
        if (db->n_statements >= RT_STATEMENTS_KEPT) {
            drop_statements(db);
            return prepared_statement(db, sql, err);
        }
        const int code =
            sqlite3_prepare_v3(db->connection, sql, -1, SQLITE_PREPARE_PERSISTENT, &place->prepared, NULL);
        if (code != SQLITE_OK) {
            (void)failed(db, code, "a statement", err);
            return NULL;
        }
        db->n_statements++;
        place->hash = hash;
        find_places(place);
        return place;
    }
    (void)rt_error_set(err, RT_INTERNAL, "more than %d different statements", RT_STATEMENTS_MAX);
    return NULL;
}

static int bind(const statement *of, size_t number, const rt_sql_value *value)
{
    sqlite3_stmt *prepared = of->prepared;
    const int place = number <= PARAMETERS_MAX ? of->places[number] : 0;
    if (place == 0)
        return SQLITE_RANGE;
    switch (value->kind) {
    case RT_SQL_NULL:
        return sqlite3_bind_null(prepared, place);
    case RT_SQL_INT:
        return sqlite3_bind_int64(prepared, place, value->integer);
    case RT_SQL_REAL:
        return sqlite3_bind_double(prepared, place, value->real);
    case RT_SQL_TEXT:
        return sqlite3_bind_text64(prepared, place, value->data, value->size, SQLITE_STATIC, SQLITE_UTF8);
    case RT_SQL_BLOB:
        return sqlite3_bind_blob64(prepared, place, value->data, value->size, SQLITE_STATIC);
    }
    return SQLITE_MISUSE;
}

static rt_status run(void *handle, const char *sql, const rt_sql_value *values, size_t n_values,
                     rt_sql_row_fn row_fn, void *context, int64_t *changed, rt_error *err)
{
    sqlite_db *db = handle;
    const statement *found = prepared_statement(db, sql, err);
    if (!found)
        return err->status;
    sqlite3_stmt *prepared = found->prepared;
    int code = SQLITE_OK;
    for (size_t i = 0; i < n_values && code == SQLITE_OK; i++)
        code = bind(found, i + 1, &values[i]);
    rt_status status = code == SQLITE_OK ? RT_OK : failed(db, code, "a parameter", err);
    while (status == RT_OK && (code = sqlite3_step(prepared)) == SQLITE_ROW)
        if (row_fn)
            status = row_fn(context, &(rt_sql_row){prepared, &rt_db_sqlite, 0}, err);
    if (status == RT_OK && code != SQLITE_DONE)
        status = failed(db, code, "a statement", err);
    if (changed)
        *changed = sqlite3_changes64(db->connection);
    (void)sqlite3_reset(prepared);
    (void)sqlite3_clear_bindings(prepared);
    return status;
}

static rt_status script(void *handle, const char *sql, rt_error *err)
{
    sqlite_db *db = handle;
    const int code = sqlite3_exec(db->connection, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? RT_OK : failed(db, code, "a script", err);
}

static rt_status begin(void *handle, bool durable, rt_error *err)
{
    (void)durable;
    return run(handle, "BEGIN IMMEDIATE", NULL, 0, NULL, NULL, NULL, err);
}

static rt_status commit(void *handle, rt_error *err)
{
    return run(handle, "COMMIT", NULL, 0, NULL, NULL, NULL, err);
}

static void rollback(void *handle)
{
    sqlite_db *db = handle;
    if (!sqlite3_get_autocommit(db->connection)) /* some failures have rolled back already */
        (void)run(handle, "ROLLBACK", NULL, 0, NULL, NULL, NULL, &(rt_error){0});
}

static void hurry(void *handle, bool on)
{
    sqlite_db *db = handle;
    (void)sqlite3_busy_handler(db->connection, on ? NULL : wait_for_writer, NULL);
    (void)sqlite3_wal_autocheckpoint(db->connection, on ? 0 : CHECKPOINT_PAGES);
}

static bool is_null(const rt_sql_row *row, int column)
{
    return sqlite3_column_type(row->handle, column) == SQLITE_NULL;
}
static int64_t get_int(const rt_sql_row *row, int column)
{
    return sqlite3_column_int64(row->handle, column);
}
static double get_real(const rt_sql_row *row, int column)
{
    return sqlite3_column_double(row->handle, column);
}

static const char *get_text(const rt_sql_row *row, int column)
{
    const unsigned char *text = sqlite3_column_text(row->handle, column);
    return text ? (const char *)text : "";
}

static const void *get_blob(const rt_sql_row *row, int column, size_t *size)
{
    const void *data = sqlite3_column_blob(row->handle, column);
    *size = (size_t)sqlite3_column_bytes(row->handle, column);
    return data;
}

static uint64_t epoch(const void *handle)
{
    (void)handle;
    return 1;
}

const rt_db_ops rt_db_sqlite = {
    .id_column = "INTEGER PRIMARY KEY",
    .blob_type = "BLOB",
    .open = open_db,
    .close = close_db,
    .epoch = epoch,
    .run = run,
    .script = script,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .hurry = hurry,
    .is_null = is_null,
    .get_int = get_int,
    .get_real = get_real,
    .get_text = get_text,
    .get_blob = get_blob,
};
