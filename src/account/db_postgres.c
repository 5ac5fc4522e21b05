/* account/db_postgres.c - PostgreSQL behind db.h, through libpq with prepared statements.
 *
 * Values travel as text, bytes in the \x form.  A connection that broke is opened anew at the next call
 * outside of a transaction; inside of one the failure ends the transaction and the caller repeats it.
 *
 * Every wait is a poll with an end where the caller has a patience (rt_db_set_patience): a server that hangs,
 * or a network that swallows what is sent, is known by its silence alone. */
#include <libpq-fe.h>
#include <math.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "account/db_ops.h"
#include "base/clock.h"
#include "base/hash.h"

enum { VALUES_MAX = 32, NUMBER_MAX = 32 };

typedef struct statement {
    uint64_t hash;
    bool prepared;
} statement;

typedef struct postgres_db {
    PGconn *connection;
    bool in_transaction, silent; /* silent: it has not answered in time; until it is connected anew */
    double patience_s;           /* 0: any time */
    uint64_t epoch;
    statement statements[RT_STATEMENTS_MAX];
    size_t n_statements;
} postgres_db;

/* One line of what libpq says; it may name the address and never the password. */
static rt_status failed(const postgres_db *db, const PGresult *result, rt_error *err)
{
    if (db->silent)
        return rt_error_set(err, RT_IO, "the account database has not answered for %g s", db->patience_s);
    const char *text = result ? PQresultErrorMessage(result) : PQerrorMessage(db->connection);
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const bool again = state && (!strcmp(state, "40001") || !strcmp(state, "40P01"));
    return rt_error_set(err, again ? RT_BUSY : RT_IO, "the account database: %.*s", (int)strcspn(text, "\n"),
                        text);
}

static void close_db(void *handle)
{
    postgres_db *db = handle;
    PQfinish(db->connection);
    free(db);
}

static void drop_notice(void *context, const char *message)
{
    (void)context;
    (void)message;
}

static rt_status open_db(void **out, const char *where, rt_error *err)
{
    postgres_db *db = calloc(1, sizeof *db);
    if (!db)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a database connection");
    db->connection = PQconnectdb(where);
    if (PQstatus(db->connection) != CONNECTION_OK) {
        (void)failed(db, NULL, err);
        close_db(db);
        return err->status;
    }
    (void)PQsetNoticeProcessor(db->connection, drop_notice, NULL);
    *out = db;
    return RT_OK;
}

/* ---- waiting ---- */

static double deadline_of(const postgres_db *db)
{
    return db->patience_s > 0 ? rt_clock_seconds() + db->patience_s : (double)INFINITY;
}

/* false: nothing came by then, or the socket is gone. */
static bool wait_for(const postgres_db *db, short what, double deadline_s)
{
    struct pollfd fd = {.fd = PQsocket(db->connection), .events = what};
    const double left = deadline_s - rt_clock_seconds();
    if (fd.fd < 0 || left <= 0)
        return false;
    const int n = poll(&fd, 1, isinf(left) ? -1 : (int)ceil(left * 1e3));
    return n > 0 || (n < 0 && wait_for(db, what, deadline_s));
}

/* What libpq would still wait for is broken off. */
static PGresult *give_up(postgres_db *db)
{
    db->silent = true;
    if (PQsocket(db->connection) >= 0)
        (void)shutdown(PQsocket(db->connection), SHUT_RDWR);
    while (PQconsumeInput(db->connection) && PQstatus(db->connection) == CONNECTION_OK)
        ;
    return NULL;
}

/* The last result of what was sent, or the first that is an error; NULL: the connection is gone. */
static PGresult *result_of(postgres_db *db, int sent)
{
    const double deadline_s = deadline_of(db);
    PGresult *kept = NULL;
    if (!sent)
        return NULL;
    while (PQflush(db->connection) > 0) {
        if (!wait_for(db, POLLIN | POLLOUT, deadline_s))
            return give_up(db);
        if (!PQconsumeInput(db->connection))
            break;
    }
    for (;;) {
        while (PQisBusy(db->connection)) {
            if (!wait_for(db, POLLIN, deadline_s)) {
                PQclear(kept);
                return give_up(db);
            }
            if (!PQconsumeInput(db->connection))
                break;
        }
        PGresult *result = PQgetResult(db->connection);
        if (!result)
            return kept;
        if (kept && PQresultStatus(kept) == PGRES_FATAL_ERROR) {
            PQclear(result);
            continue;
        }
        PQclear(kept);
        kept = result;
    }
}

static bool connect_again(postgres_db *db)
{
    const double deadline_s = deadline_of(db);
    db->epoch++;
    db->silent = false;
    memset(db->statements, 0, sizeof db->statements);
    db->n_statements = 0;
    if (!PQresetStart(db->connection))
        return false;
    for (PostgresPollingStatusType state = PGRES_POLLING_WRITING; state != PGRES_POLLING_OK;) {
        if (state == PGRES_POLLING_FAILED)
            return false;
        if (!wait_for(db, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_s)) {
            (void)give_up(db);
            return false;
        }
        state = PQresetPoll(db->connection);
    }
    (void)PQsetnonblocking(db->connection, db->patience_s > 0);
    return PQstatus(db->connection) == CONNECTION_OK;
}

static void set_patience(void *handle, double seconds)
{
    postgres_db *db = handle;
    db->patience_s = seconds;
    (void)PQsetnonblocking(db->connection, seconds > 0);
}

/* ---- statements ---- */

/* The number of the statement, prepared on this connection; -1 on failure. */
static int prepared_statement(postgres_db *db, const char *sql, rt_error *err)
{
    const uint64_t hash = rt_hash64(sql, strlen(sql), 0);
    for (size_t probe = 0; probe < RT_STATEMENTS_MAX; probe++) {
        const size_t index = (size_t)((hash + probe) % RT_STATEMENTS_MAX);
        statement *place = &db->statements[index];
        if (place->prepared && place->hash == hash)
            return (int)index;
        if (place->prepared)
            continue;
        if (db->n_statements >= RT_STATEMENTS_KEPT) {
            PQclear(result_of(db, PQsendQuery(db->connection, "DEALLOCATE ALL")));
            memset(db->statements, 0, sizeof db->statements);
            db->n_statements = 0;
            return prepared_statement(db, sql, err);
        }
        char name[16];
        (void)snprintf(name, sizeof name, "s%zu", index);
        PGresult *result = result_of(db, PQsendPrepare(db->connection, name, sql, 0, NULL));
        const bool good = PQresultStatus(result) == PGRES_COMMAND_OK;
        if (!good)
            (void)failed(db, result, err);
        PQclear(result);
        if (!good)
            return -1;
        *place = (statement){hash, true};
        db->n_statements++;
        return (int)index;
    }
    (void)rt_error_set(err, RT_INTERNAL, "more than %d different statements", RT_STATEMENTS_MAX);
    return -1;
}

/* The text form of the values; blobs in *heap, which the caller frees. */
static bool encode(const rt_sql_value *values, size_t n_values, const char **texts,
                   char numbers[][NUMBER_MAX], char **heap)
{
    for (size_t i = 0; i < n_values; i++) {
        const rt_sql_value *value = &values[i];
        heap[i] = NULL;
        texts[i] = value->data;
        if (value->kind == RT_SQL_NULL) {
            texts[i] = NULL;
        } else if (value->kind == RT_SQL_INT || value->kind == RT_SQL_REAL) {
            (void)(value->kind == RT_SQL_INT
                       ? snprintf(numbers[i], NUMBER_MAX, "%lld", (long long)value->integer)
                       : snprintf(numbers[i], NUMBER_MAX, "%.17g", value->real));
            texts[i] = numbers[i];
        } else if (value->kind == RT_SQL_BLOB) {
            char *hex = heap[i] = malloc(2 * value->size + 3);
            if (!hex)
                return false;
            hex[0] = '\\';
            hex[1] = 'x';
            (void)sodium_bin2hex(hex + 2, 2 * value->size + 1, (const unsigned char *)value->data,
                                 value->size);
            texts[i] = hex;
        }
    }
    return true;
}

static rt_status give_rows(const PGresult *result, rt_sql_row_fn row_fn, void *context, rt_error *err)
{
    rt_status status = RT_OK;
    for (int i = 0; row_fn && i < PQntuples(result) && status == RT_OK; i++)
        status = row_fn(context, &(rt_sql_row){(void *)result, &rt_db_postgres, i}, err);
    return status;
}

static rt_status run_once(postgres_db *db, const char *sql, const rt_sql_value *values, size_t n_values,
                          rt_sql_row_fn row_fn, void *context, int64_t *changed, rt_error *err)
{
    const char *texts[VALUES_MAX];
    char numbers[VALUES_MAX][NUMBER_MAX], *heap[VALUES_MAX] = {0}, name[16];
    const int index = prepared_statement(db, sql, err);
    if (index < 0)
        return err->status;
    (void)snprintf(name, sizeof name, "s%d", index);
    rt_status status = RT_OK;
    if (n_values > VALUES_MAX || !encode(values, n_values, texts, numbers, heap))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for a statement's values");
    if (status == RT_OK) {
        PGresult *result =
            result_of(db, PQsendQueryPrepared(db->connection, name, (int)n_values, texts, NULL, NULL, 0));
        const ExecStatusType kind = PQresultStatus(result);
        if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK)
            status = failed(db, result, err);
        else
            status = give_rows(result, row_fn, context, err);
        if (changed)
            *changed = strtoll(PQcmdTuples(result), NULL, 10);
        PQclear(result);
    }
    for (size_t i = 0; i < n_values && i < VALUES_MAX; i++)
        free(heap[i]);
    return status;
}

static rt_status run(void *handle, const char *sql, const rt_sql_value *values, size_t n_values,
                     rt_sql_row_fn row_fn, void *context, int64_t *changed, rt_error *err)
{
    postgres_db *db = handle;
    if (!db->in_transaction && PQstatus(db->connection) != CONNECTION_OK && !connect_again(db))
        return failed(db, NULL, err);
    const rt_status status = run_once(db, sql, values, n_values, row_fn, context, changed, err);
    /* Only a statement that reads may be repeated: of one that writes nobody knows whether it was done. */
    if (status != RT_OK && !db->in_transaction && PQstatus(db->connection) != CONNECTION_OK && !db->silent &&
        strncmp(sql, "SELECT", 6) == 0 && connect_again(db))
        return run_once(db, sql, values, n_values, row_fn, context, changed, err);
    return status;
}

static rt_status script(void *handle, const char *sql, rt_error *err)
{
    postgres_db *db = handle;
    if (!db->in_transaction && PQstatus(db->connection) != CONNECTION_OK && !connect_again(db))
        return failed(db, NULL, err);
    PGresult *result = result_of(db, PQsendQuery(db->connection, sql));
    const ExecStatusType kind = PQresultStatus(result);
    const rt_status status =
        kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK ? RT_OK : failed(db, result, err);
    PQclear(result);
    return status;
}

static rt_status begin(void *handle, bool durable, rt_error *err)
{
    postgres_db *db = handle;
    const char *sql = durable ? "BEGIN" : "BEGIN; SET LOCAL synchronous_commit = off";
    rt_status status = script(handle, sql, err);
    if (status != RT_OK && PQstatus(db->connection) != CONNECTION_OK && !db->silent && connect_again(db))
        status = script(handle, sql, err);
    db->in_transaction = status == RT_OK;
    return status;
}

/* The server answers COMMIT of a transaction that has failed with success and the word ROLLBACK. */
static rt_status commit(void *handle, rt_error *err)
{
    postgres_db *db = handle;
    PGresult *result = result_of(db, PQsendQuery(db->connection, "COMMIT"));
    rt_status status = RT_OK;
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        status = failed(db, result, err);
    else if (strcmp(PQcmdStatus(result), "COMMIT") != 0)
        status =
            rt_error_set(err, RT_IO, "the account database: a transaction had failed and was rolled back");
    PQclear(result);
    db->in_transaction = false;
    return status;
}

static void rollback(void *handle)
{
    postgres_db *db = handle;
    if (db->in_transaction && PQstatus(db->connection) == CONNECTION_OK)
        (void)script(handle, "ROLLBACK", &(rt_error){0});
    db->in_transaction = false;
}

static bool is_null(const rt_sql_row *row, int column)
{
    return PQgetisnull(row->handle, row->index, column);
}

static int64_t get_int(const rt_sql_row *row, int column)
{
    return strtoll(PQgetvalue(row->handle, row->index, column), NULL, 10);
}

static double get_real(const rt_sql_row *row, int column)
{
    return strtod(PQgetvalue(row->handle, row->index, column), NULL);
}

static const char *get_text(const rt_sql_row *row, int column)
{
    return PQgetvalue(row->handle, row->index, column);
}

/* The \x form is decoded in place: libpq gives the buffer to whoever reads the result. */
static const void *get_blob(const rt_sql_row *row, int column, size_t *size)
{
    char *text = PQgetvalue(row->handle, row->index, column);
    const size_t length = (size_t)PQgetlength(row->handle, row->index, column);
    *size = 0;
    if (length >= 2 && text[0] == '\\')
        (void)sodium_hex2bin((unsigned char *)text, length, text + 2, length - 2, NULL, size, NULL);
    return text;
}

static uint64_t epoch(const void *handle) { return ((const postgres_db *)handle)->epoch; }

const rt_db_ops rt_db_postgres = {
    .id_column = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    .blob_type = "BYTEA",
    .open = open_db,
    .close = close_db,
    .epoch = epoch,
    .run = run,
    .script = script,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .set_patience = set_patience,
    .is_null = is_null,
    .get_int = get_int,
    .get_real = get_real,
    .get_text = get_text,
    .get_blob = get_blob,
};
