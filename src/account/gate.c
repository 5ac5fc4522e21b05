/* account/gate.c - opening and closing the gate, its clocks, and the figures of the limit headers; see
 * gate.h. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "account/gate_internal.h"
#include "base/clock.h"
#include "base/text.h"

int64_t rt_gate_unix_ms(const rt_gate *gate)
{
    const rt_time_source *clock = &gate->options.clock;
    if (clock->unix_ms)
        return clock->unix_ms(clock->context);
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Buckets of one process run on a clock that nobody sets; those that servers share need the time of day. */
double rt_gate_bucket_s(const rt_gate *gate)
{
    const rt_time_source *clock = &gate->options.clock;
    if (gate->shared)
        return (double)rt_gate_unix_ms(gate) / 1000;
    return clock->monotonic_s ? clock->monotonic_s(clock->context) : rt_clock_seconds();
}

rt_instant rt_gate_now(const rt_gate *gate)
{
    return (rt_instant){rt_gate_bucket_s(gate), rt_gate_unix_ms(gate) / 1000};
}

/* Counters of a SQLite file live in one process: a second server would not see them. */
static rt_status take_server_lock(rt_gate *gate, rt_error *err)
{
    rt_text path = {0};
    rt_text_printf(&path, "%s.server", gate->where);
    if (path.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    gate->lock_fd = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    rt_status status = RT_OK;
    if (gate->lock_fd < 0)
        status = rt_error_set(err, RT_IO, "%s: %s", path.data, strerror(errno));
    else if (flock(gate->lock_fd, LOCK_EX | LOCK_NB) != 0)
        status = rt_error_set(err, RT_BUSY,
                              "%s: another server works with this file; several servers share a PostgreSQL "
                              "database (--db postgres://...)",
                              gate->where);
    rt_text_deinit(&path);
    return status;
}

/* What a server that died had written without its sums. */
static rt_status catch_up(rt_db *db, rt_error *err)
{
    if (rt_db_begin(db, true, err) != RT_OK)
        return err->status;
    rt_status status = rt_ledger_catch_up(db, err);
    if (status == RT_OK)
        status = rt_db_commit(db, err);
    if (status != RT_OK)
        rt_db_rollback(db);
    return status;
}

static rt_status open_parts(rt_gate *gate, rt_error *err)
{
    if (rt_secrets_open(&gate->secrets, gate->options.secrets, gate->where, err) != RT_OK ||
        (!gate->shared && take_server_lock(gate, err) != RT_OK) ||
        rt_db_open(&gate->db, gate->where, err) != RT_OK ||
        rt_gate_open_desk(gate, &gate->desk, err) != RT_OK)
        return err->status;
    if (gate->shared &&
        (rt_shared_register(gate, err) != RT_OK || rt_shared_sweep(gate, gate->db, err) != RT_OK))
        return err->status;
    if ((!gate->shared && catch_up(gate->db, err) != RT_OK) || rt_gate_refresh(gate, err) != RT_OK)
        return err->status;
    rt_db_set_patience(gate->db, RT_GATE_PATIENCE_S);
    return rt_gate_writer_start(gate, err);
}

rt_status rt_gate_open(rt_gate **out, const rt_gate_options *options, rt_error *err)
{
    *out = NULL;
    rt_gate *gate = calloc(1, sizeof *gate);
    if (!gate)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the account gate");
    gate->options = *options;
    (void)json_incref(gate->options.prices);
    gate->lock_fd = -1;
    gate->shared = rt_db_url_is_shared(options->db);
    gate->where = strdup(options->db);
    gate->secrets_path = options->secrets ? strdup(options->secrets) : NULL;
    gate->options.secrets = gate->secrets_path;
    gate->guesses = calloc(GUESS_PLACES, sizeof *gate->guesses);
    (void)pthread_mutex_init(&gate->mutex, NULL);
    (void)pthread_mutex_init(&gate->db_mutex, NULL);
    (void)pthread_mutex_init(&gate->queue_mutex, NULL);
    (void)pthread_mutex_init(&gate->writer_mutex, NULL);
    (void)pthread_mutex_init(&gate->record_mutex, NULL);
    (void)pthread_cond_init(&gate->queue_filled, NULL);
    if (!gate->where || !gate->guesses || (options->secrets && !gate->secrets_path))
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for the account gate");
    else if (open_parts(gate, err) == RT_OK) {
        randombytes_buf(&gate->guess_seed, sizeof gate->guess_seed);
        *out = gate;
        return RT_OK;
    }
    rt_gate_close(gate);
    return err->status;
}

void rt_gate_close(rt_gate *gate)
{
    if (!gate)
        return;
    rt_gate_writer_stop(gate);
    if (gate->db && gate->server > 0) {
        const rt_sql_value server = rt_sql_int(gate->server);
        (void)rt_db_run(
            gate->db,
            "DELETE FROM servers WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM reservations WHERE server = "
            "$1)",
            &server, 1, NULL, NULL, NULL, &(rt_error){0});
    }
    rt_desk_close(gate->desk);
    rt_db_close(gate->db);
    rt_gate_drop_tables(gate);
    if (gate->lock_fd >= 0)
        (void)close(gate->lock_fd);
    rt_secrets_wipe(&gate->secrets);
    (void)pthread_mutex_destroy(&gate->mutex);
    (void)pthread_mutex_destroy(&gate->db_mutex);
    (void)pthread_mutex_destroy(&gate->queue_mutex);
    (void)pthread_mutex_destroy(&gate->writer_mutex);
    (void)pthread_mutex_destroy(&gate->record_mutex);
    (void)pthread_cond_destroy(&gate->queue_filled);
    json_decref(gate->options.prices);
    free(gate->guesses);
    free(gate->where);
    free(gate->secrets_path);
    free(gate);
}

bool rt_gate_is_shared(const rt_gate *gate) { return gate->shared; }

size_t rt_gate_account_count(rt_gate *gate)
{
    rt_error err = {0};
    (void)rt_gate_lock_tables(gate, &err); /* on failure: as many as were known */
    const size_t count = gate->n_open_accounts;
    (void)pthread_mutex_unlock(&gate->mutex);
    return count;
}

void rt_gate_set_rules(rt_gate *gate, const rt_terms *terms, json_t *prices)
{
    (void)pthread_mutex_lock(&gate->mutex);
    json_decref(gate->options.prices);
    gate->options.prices = json_incref(prices);
    gate->options.terms = terms;
    (void)pthread_mutex_unlock(&gate->mutex);
}

void rt_gate_on_record(rt_gate *gate, rt_record_fn fn, void *context)
{
    (void)pthread_mutex_lock(&gate->record_mutex);
    gate->on_record = fn;
    gate->record_context = context;
    (void)pthread_mutex_unlock(&gate->record_mutex);
}

rt_desk *rt_gate_desk(rt_gate *gate) { return gate->desk; }

rt_status rt_gate_open_desk(rt_gate *gate, rt_desk **out, rt_error *err)
{
    if (rt_desk_open(out, gate->where, gate->options.secrets, err) != RT_OK)
        return err->status;
    rt_desk_set_clock(*out, &gate->options.clock);
    return RT_OK;
}

/* The stricter of two buckets, whole units left. */
static void view_one(const rt_meter *meter, const rt_limits *limits, rt_limit_view *view)
{
    if (limits->rpm >= 0) {
        const int64_t left = (int64_t)floor((double)limits->rpm - meter->requests_used + 1e-6);
        const int64_t remaining = left > 0 ? left : 0;
        if (!view->has_requests || remaining < view->remaining_requests) {
            view->has_requests = true;
            view->limit_requests = limits->rpm;
            view->remaining_requests = remaining;
            view->reset_requests_s = limits->rpm > 0 ? meter->requests_used * 60 / (double)limits->rpm : 60;
        }
    }
    if (limits->tpm >= 0) {
        const int64_t left = (int64_t)floor((double)limits->tpm - meter->tokens_used + 1e-6);
        const int64_t remaining = left > 0 ? left : 0;
        if (!view->has_tokens || remaining < view->remaining_tokens) {
            view->has_tokens = true;
            view->limit_tokens = limits->tpm;
            view->remaining_tokens = remaining;
            view->reset_tokens_s = limits->tpm > 0 ? meter->tokens_used * 60 / (double)limits->tpm : 60;
        }
    }
}

rt_limit_view rt_gate_limits(rt_gate *gate, const rt_caller *caller)
{
    caller_box *box = (caller_box *)(void *)(uintptr_t)caller;
    rt_limit_view view = {0};
    (void)pthread_mutex_lock(&gate->mutex);
    const rt_instant now = rt_gate_now(gate);
    const rt_limits *limits = rt_gate_account_limits(box->account);
    rt_meter_roll(&box->account->counted.meter, limits, now);
    rt_meter_roll(&box->key->counted.meter, &box->key->limits, now);
    view_one(&box->account->counted.meter, limits, &view);
    view_one(&box->key->counted.meter, &box->key->limits, &view);
    (void)pthread_mutex_unlock(&gate->mutex);
    return view;
}
