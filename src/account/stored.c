/* account/stored.c - see stored.h. */
#include "account/stored.h"

#include <stdlib.h>
#include <string.h>

#include "account/gate_internal.h"
#include "base/log.h"

typedef struct found {
    rt_gate *gate;
    const char *id, *request;
    rt_text *body;
    bool *stream;
    rt_stored_state state;
} found;

static rt_status take_row(void *context, const rt_sql_row *row, rt_error *err)
{
    found *f = context;
    size_t size;
    *f->stream = rt_sql_row_int(row, 2) != 0;
    if (strcmp(rt_sql_row_text(row, 0), f->request) != 0) {
        f->state = RT_STORED_CONFLICT;
        return RT_OK;
    }
    f->state = RT_STORED_RUNNING;
    if (!rt_sql_row_int(row, 1))
        return RT_OK;
    const void *sealed = rt_sql_row_blob(row, 3, &size);
    if (size < RT_SEAL_OVERHEAD)
        return rt_error_set(err, RT_CORRUPT, "the account database: a stored answer is too short");
    char *plain = malloc(size);
    if (!plain)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a stored answer");
    const rt_status status =
        rt_secrets_unseal(&f->gate->secrets, (unsigned char *)plain, sealed, size, f->id, err);
    if (status == RT_OK) {
        rt_text_append(f->body, plain, size - RT_SEAL_OVERHEAD);
        f->state = RT_STORED_DONE;
    }
    free(plain);
    return status;
}

static rt_status look(found *f, int64_t now_s, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_text(f->id), rt_sql_int(now_s)};
    f->state = RT_STORED_NEW;
    return rt_db_run(f->gate->db,
                     "SELECT request, done, stream, sealed FROM answers WHERE id = $1 AND expires > $2",
                     values, 2, take_row, f, NULL, err);
}

/* Several servers: who puts the row in has the key. */
static rt_status claim(const found *f, int64_t now_s, double hold_s, bool *mine, rt_error *err)
{
    const rt_sql_value values[] = {rt_sql_text(f->id), rt_sql_text(f->request),
                                   rt_sql_int(now_s + 60 + (int64_t)hold_s), rt_sql_int(now_s)};
    int64_t changed = 0;
    const rt_status status = rt_db_run(
        f->gate->db,
        "INSERT INTO answers (id, request, done, stream, sealed, bytes, expires) VALUES ($1, $2, 0, 0, NULL, "
        "0, "
        "$3) ON CONFLICT (id) DO UPDATE SET request = $2, done = 0, stream = 0, sealed = NULL, bytes = 0, "
        "expires = $3 WHERE answers.expires <= $4",
        values, 4, NULL, NULL, &changed, err);
    *mine = status == RT_OK && changed > 0;
    return status;
}

rt_stored_state rt_gate_stored_begin(rt_gate *gate, const char *id, const char *request, double hold_s,
                                     rt_text *body, bool *stream)
{
    const int64_t now_s = rt_gate_unix_ms(gate) / 1000;
    rt_error err = {0};
    found f = {.gate = gate, .id = id, .request = request, .body = body, .stream = stream};
    bool mine = false;
    *stream = false;
    rt_status status = RT_OK;
    if (gate->shared)
        status = rt_gate_ask_begin(gate, &err);
    else
        (void)pthread_mutex_lock(&gate->mutex);
    const bool asked = status == RT_OK;
    if (status == RT_OK)
        status = look(&f, now_s, &err);
    if (status == RT_OK && f.state == RT_STORED_NEW && gate->shared) {
        status = claim(&f, now_s, hold_s, &mine, &err);
        if (status == RT_OK && !mine) /* another server was faster */
            status = look(&f, now_s, &err);
    }
    if (!gate->shared)
        (void)pthread_mutex_unlock(&gate->mutex);
    else if (asked)
        (void)rt_gate_ask_end(gate, status);
    if (status == RT_OK && !body->failed)
        return f.state;
    rt_log(RT_LOG_WARNING, "a stored answer could not be looked up: %s", err.text);
    rt_text_deinit(body);
    return RT_STORED_NEW;
}

void rt_gate_stored_end(rt_gate *gate, const char *id, const char *request, const rt_text *body, bool stream)
{
    const bool keep = body && !body->failed && body->size <= RT_STORED_BYTES_MAX;
    if (!keep && !gate->shared)
        return; /* there is no claim to take back */
    const size_t size = keep ? body->size : 0;
    rt_stored *item = malloc(sizeof *item + size);
    if (!item)
        return;
    *item = (rt_stored){.keep = keep, .stream = stream, .size = size};
    memcpy(item->id, id, sizeof item->id);
    memcpy(item->request, request, sizeof item->request);
    if (size)
        memcpy(item->body, body->data, size);
    (void)pthread_mutex_lock(&gate->queue_mutex);
    const bool room = gate->stored_bytes + size <= RT_STORED_ALL_MAX / 4;
    if (room) {
        item->next = gate->stored;
        gate->stored = item;
        gate->stored_bytes += size;
        (void)pthread_cond_signal(&gate->queue_filled);
    }
    (void)pthread_mutex_unlock(&gate->queue_mutex);
    if (!room)
        free(item);
}

/* ---- the writer's thread ---- */

static rt_status put(rt_gate *gate, const rt_stored *item, int64_t now_s, rt_error *err)
{
    const rt_sql_value id[] = {rt_sql_text(item->id), rt_sql_text(item->request)};
    if (!item->keep)
        return rt_db_run(gate->writer_db, "DELETE FROM answers WHERE id = $1 AND request = $2 AND done = 0",
                         id, 2, NULL, NULL, NULL, err);
    unsigned char *sealed = malloc(item->size + RT_SEAL_OVERHEAD);
    if (!sealed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to seal an answer");
    rt_secrets_seal(&gate->secrets, sealed, item->body, item->size, item->id);
    const rt_sql_value values[] = {id[0],
                                   id[1],
                                   rt_sql_int(item->stream),
                                   rt_sql_blob(sealed, item->size + RT_SEAL_OVERHEAD),
                                   rt_sql_int((int64_t)item->size),
                                   rt_sql_int(now_s + RT_STORED_HOURS * 3600)};
    const rt_status status = rt_db_run(gate->writer_db,
                                       "INSERT INTO answers (id, request, done, stream, sealed, bytes, "
                                       "expires) VALUES ($1, $2, 1, $3, $4, $5, "
                                       "$6) ON CONFLICT (id) DO UPDATE SET request = $2, done = 1, stream = "
                                       "$3, sealed = $4, bytes = $5, expires "
                                       "= $6",
                                       values, 6, NULL, NULL, NULL, err);
    free(sealed);
    return status;
}

/* What is past its time leaves, and the oldest until the rest fits. */
static rt_status make_room(rt_gate *gate, int64_t now_s, rt_error *err)
{
    const rt_sql_value now = rt_sql_int(now_s);
    int64_t bytes = 0, oldest = 0;
    bool any;
    if (rt_db_run(gate->writer_db, "DELETE FROM answers WHERE expires <= $1", &now, 1, NULL, NULL, NULL,
                  err) != RT_OK)
        return err->status;
    for (;;) {
        if (rt_db_get_int(gate->writer_db, "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM answers",
                          NULL, 0, &bytes, &any, err) != RT_OK)
            return err->status;
        if (bytes <= RT_STORED_ALL_MAX)
            return RT_OK;
        if (rt_db_get_int(gate->writer_db, "SELECT MIN(expires) FROM answers WHERE done = 1", NULL, 0,
                          &oldest, &any, err) != RT_OK)
            return err->status;
        const rt_sql_value until = rt_sql_int(oldest);
        if (rt_db_run(gate->writer_db, "DELETE FROM answers WHERE done = 1 AND expires <= $1", &until, 1,
                      NULL, NULL, NULL, err) != RT_OK)
            return err->status;
    }
}

void rt_stored_write(rt_gate *gate)
{
    (void)pthread_mutex_lock(&gate->queue_mutex);
    rt_stored *first = gate->stored;
    gate->stored = NULL;
    gate->stored_bytes = 0;
    (void)pthread_mutex_unlock(&gate->queue_mutex);
    if (!first)
        return;
    const int64_t now_s = rt_gate_unix_ms(gate) / 1000;
    rt_status status = RT_BUSY;
    rt_error err = {0};
    for (int attempt = 0; attempt < 3 && status == RT_BUSY; attempt++) {
        status = rt_db_begin(gate->writer_db, true, &err);
        for (const rt_stored *item = first; item && status == RT_OK; item = item->next)
            status = put(gate, item, now_s, &err);
        if (status == RT_OK)
            status = make_room(gate, now_s, &err);
        if (status == RT_OK)
            status = rt_db_commit(gate->writer_db, &err);
        if (status != RT_OK)
            rt_db_rollback(gate->writer_db);
    }
    if (status != RT_OK) /* they are lost after a restart; until then memory has them */
        rt_log(RT_LOG_WARNING, "answers could not be stored: %s", err.text);
    for (rt_stored *next; first; first = next) {
        next = first->next;
        free(first);
    }
}
