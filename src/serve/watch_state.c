/* serve/watch_state.c - what the guard knows, kept: in a file beside a SQLite database, in PostgreSQL itself.
 *
 * Rows that the state has seen are dropped; with PostgreSQL only those of the state before, so that servers
 * which are a little behind still find theirs. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "guard/state.h"
#include "serve/watch_internal.h"

enum { SAVE_S = 60, SAVE_ROWS = 20000 };
static const char of_accounts[] = "accounts", of_ladders[] = "ladders", where[] = "the account database";

void rt_watch_complain(rt_watch *w, const rt_error *err)
{
    if (!w->complained)
        rt_log(RT_LOG_WARNING, "the guard: %s", err->text);
    w->complained = true;
}

static rt_status read_database(rt_watch *w, rt_guard_marks *marks, rt_error *err)
{
    rt_text accounts = {0}, ladders = {0};
    rt_status status = rt_guard_store_state_get(w->store, of_accounts, &accounts, err);
    if (status == RT_OK)
        status = rt_guard_store_state_get(w->store, of_ladders, &ladders, err);
    if (status == RT_OK && accounts.size)
        status = rt_guard_read(w->guard, &marks->guard, accounts.data, accounts.size, where, err);
    if (status == RT_OK && ladders.size)
        status = rt_ladders_read(w->ladders, &marks->ladders, ladders.data, ladders.size, where, err);
    rt_text_deinit(&accounts);
    rt_text_deinit(&ladders);
    return status;
}

rt_status rt_watch_restore(rt_watch *w, rt_error *err)
{
    rt_guard_marks marks = {0};
    int64_t last = 0;
    const char *path = w->options.state_path;
    rt_status status = rt_guard_store_last(w->store, &last, err);
    if (status == RT_OK && w->shared)
        status = read_database(w, &marks, err);
    else if (status == RT_OK && path)
        status = rt_guard_state_load(w->guard, w->ladders, &marks, path, err);
    else
        marks.guard = last; /* nothing is kept, so what was before is not taken up */
    if (!w->shared && marks.guard > last) {
        rt_log(RT_LOG_WARNING,
               "%s: was made beside another account database; the rows of this one are judged from the first",
               path);
        marks = (rt_guard_marks){0};
    }
    w->row = w->saved_row = w->older_row = marks.guard;
    w->quiet_to = marks.ladders;
    w->recover_to = last;
    if (status == RT_OK)
        status = rt_guard_store_rungs(w->store, rt_watch_take_rung, w, err);
    rt_watch_publish_all(w);
    return status;
}

static rt_status to_store(void *context, const void *data, size_t size, rt_error *err)
{
    return rt_guard_store_state_put(context, of_accounts, data, size, err);
}

static rt_status write_database(rt_watch *w, rt_error *err)
{
    char *text = rt_ladders_text(w->ladders, w->row);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to write the ladders");
    rt_status status = rt_guard_store_state_begin(w->store, err);
    if (status == RT_OK) {
        status = rt_guard_write(w->guard, w->row, to_store, w->store, err);
        if (status == RT_OK)
            status = rt_guard_store_state_put(w->store, of_ladders, text, strlen(text), err);
        if (status == RT_OK)
            status = rt_guard_store_state_commit(w->store, err);
        else
            rt_guard_store_state_abort(w->store);
    }
    free(text);
    return status;
}

static rt_status write_state(rt_watch *w, rt_error *err)
{
    const char *path = w->options.state_path;
    if (w->shared && w->leads && write_database(w, err) != RT_OK)
        return err->status;
    return path ? rt_guard_state_save(w->guard, w->ladders, w->row, path, err) : RT_OK;
}

static void drop_rows(rt_watch *w)
{
    rt_error err = {0};
    const int64_t before = w->shared ? w->older_row : w->saved_row;
    for (bool more = !w->shared || w->leads; more;)
        if (rt_guard_store_drop(w->store, before, &more, &err) != RT_OK)
            break; /* tried again with the next state */
}

void rt_watch_keep(rt_watch *w, bool at_end)
{
    rt_error err = {0};
    const double s = rt_clock_seconds();
    (void)pthread_mutex_lock(&w->guard_lock);
    const bool due =
        w->row != w->saved_row && (at_end || s - w->saved_s > SAVE_S || w->row - w->saved_row > SAVE_ROWS);
    if (due) {
        if (write_state(w, &err) == RT_OK) {
            w->older_row = w->saved_row;
            w->saved_row = w->row;
            drop_rows(w);
            w->complained = false;
        } else { /* tried again in a minute; the rows are there */
            rt_watch_complain(w, &err);
        }
        w->saved_s = s;
    }
    (void)pthread_mutex_unlock(&w->guard_lock);
}
