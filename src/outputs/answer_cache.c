/* outputs/answer_cache.c - answers of earlier runs in one SQLite file; see answer_cache.h. */
#include "outputs/answer_cache.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

enum { BUSY_MS = 10000 };

struct rt_answer_cache {
    sqlite3 *db;
    sqlite3_stmt *get, *put;
    char *path;
    bool writing; /* a transaction is open */
};

static rt_status failed(const rt_answer_cache *cache, rt_error *err)
{
    return rt_error_set(err, RT_IO, "%.250s: the cache of answers: %.150s", cache->path,
                        cache->db ? sqlite3_errmsg(cache->db) : "out of memory");
}

void rt_answer_cache_close(rt_answer_cache *cache)
{
    if (!cache)
        return;
    if (cache->writing)
        (void)rt_answer_cache_commit(cache, &(rt_error){0});
    (void)sqlite3_finalize(cache->get);
    (void)sqlite3_finalize(cache->put);
    (void)sqlite3_close(cache->db);
    free(cache->path);
    free(cache);
}

rt_status rt_answer_cache_open(rt_answer_cache **out, const char *path, rt_error *err)
{
    static const char schema[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE IF NOT EXISTS answers "
        "(key TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID;";
    *out = NULL;
    rt_answer_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the cache of answers");
    cache->path = strdup(path);
    if (!cache->path || sqlite3_open(path, &cache->db) != SQLITE_OK ||
        sqlite3_busy_timeout(cache->db, BUSY_MS) != SQLITE_OK ||
        sqlite3_exec(cache->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(cache->db, "SELECT row FROM answers WHERE key = ?", -1, &cache->get, NULL) !=
            SQLITE_OK ||
        sqlite3_prepare_v2(cache->db, "INSERT OR IGNORE INTO answers VALUES (?, ?)", -1, &cache->put, NULL) !=
            SQLITE_OK) {
        (void)rt_error_set(err, RT_IO, "%.250s cannot be used as a cache of answers: %.150s", path,
                           cache->db ? sqlite3_errmsg(cache->db) : "out of memory");
        rt_answer_cache_close(cache);
        return err->status;
    }
    *out = cache;
    return RT_OK;
}

rt_status rt_answer_cache_get(rt_answer_cache *cache, const char *key, rt_text *row, bool *found,
                              rt_error *err)
{
    *found = false;
    if (sqlite3_bind_text(cache->get, 1, key, -1, SQLITE_STATIC) != SQLITE_OK)
        return failed(cache, err);
    const int step = sqlite3_step(cache->get);
    if (step == SQLITE_ROW) {
        const void *text = sqlite3_column_text(cache->get, 0);
        rt_text_append(row, text ? text : "", (size_t)sqlite3_column_bytes(cache->get, 0));
        *found = text != NULL;
    }
    (void)sqlite3_reset(cache->get);
    if (row->failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row");
    return step == SQLITE_ROW || step == SQLITE_DONE ? RT_OK : failed(cache, err);
}

rt_status rt_answer_cache_put(rt_answer_cache *cache, const char *key, const char *row, size_t size,
                              rt_error *err)
{
    if (size > INT32_MAX)
        return RT_OK; /* larger than a database's cell */
    if (!cache->writing && sqlite3_exec(cache->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return failed(cache, err);
    cache->writing = true;
    if (sqlite3_bind_text(cache->put, 1, key, -1, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_bind_text(cache->put, 2, row, (int)size, SQLITE_STATIC) != SQLITE_OK)
        return failed(cache, err);
    const int step = sqlite3_step(cache->put);
    (void)sqlite3_reset(cache->put);
    return step == SQLITE_DONE ? RT_OK : failed(cache, err);
}

rt_status rt_answer_cache_commit(rt_answer_cache *cache, rt_error *err)
{
    if (!cache->writing)
        return RT_OK;
    if (sqlite3_exec(cache->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return failed(cache, err);
    cache->writing = false;
    return RT_OK;
}
