/* account/gate_writer.c - the writer thread: takes what is queued, writes it in one transaction, says so.
 *
 * Groups form by themselves: while one is on its way to the disk the next gathers.  A group that cannot be
 * written is kept and tried again every second; until then nothing is admitted, and those that wait are told.
 *
 * With SQLite a row is one statement, and what follows from it (sums, meters) waits for LATE_MS, so that many
 * rows share it.  Where such a statement takes no more than two switches between threads, as on a file system
 * in memory or a disk with a cache of its own, who settles writes it himself while the writer sleeps.  At
 * high rates groups are cheaper: then the writer is awake, or NOW_GAP_S has not passed. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/gate_internal.h"
#include "base/clock.h"
#include "base/log.h"

enum { GROUP_MAX = 2000, QUEUED_MAX = 100000, SWEEP_S = 5, PRUNE_S = 600, LATE_MS = 20 };
static const double quick_s = 100e-6, now_gap_s = 250e-6;

static void free_texts(rt_ledger_row *row)
{
    free(row->prompt);
    free(row->record);
    free(row->record_line);
    row->prompt = row->record_line = NULL;
    row->record = NULL;
}

static void free_ticket(rt_ticket *ticket)
{
    free_texts(&ticket->row);
    free(ticket);
}

void rt_gate_queue(rt_gate *gate, rt_ticket *ticket)
{
    (void)pthread_mutex_lock(&gate->queue_mutex);
    /* Requests under way are bounded by the server; rows of refusals are dropped before memory is. */
    const bool drop = gate->queued >= QUEUED_MAX && !ticket->row.reserved && !ticket->done;
    if (!drop) {
        ticket->next = NULL;
        if (gate->last)
            gate->last->next = ticket;
        else
            gate->first = ticket;
        gate->last = ticket;
        gate->queued++;
        (void)pthread_cond_signal(&gate->queue_filled);
    }
    (void)pthread_mutex_unlock(&gate->queue_mutex);
    if (drop)
        free_ticket(ticket);
}

static void wait_ms(rt_gate *gate, long ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(&gate->queue_filled, &gate->queue_mutex, &until);
}

/* How long a row takes; the last ones count most. */
static void note_append(rt_gate *gate, double seconds)
{
    if (gate->append_s == 0)
        gate->append_s = 1e-3;
    gate->append_s += (seconds - gate->append_s) / 8;
}

/* With the writer's mutex held. */
static rt_status append(rt_gate *gate, rt_ledger_row *const *rows, size_t count, rt_error *err)
{
    const double begun = rt_clock_seconds();
    if (gate->ledger_id == 0 && rt_ledger_last_id(gate->writer_db, &gate->ledger_id, err) != RT_OK)
        return err->status;
    const rt_status status =
        rt_ledger_append(gate->writer_db, &gate->secrets, rows, count, gate->ledger_id, err);
    if (status == RT_OK)
        gate->ledger_id += (int64_t)count;
    else if (status != RT_BUSY) /* nobody knows whether they were written */
        gate->ledger_id = 0;
    note_append(gate, rt_clock_seconds() - begun);
    return status;
}

/* Sums are to follow.  With the writer's mutex held, so that the list is in the order of ids. */
static void keep_late(rt_gate *gate, rt_ticket *const *tickets, size_t count)
{
    (void)pthread_mutex_lock(&gate->queue_mutex);
    if (!gate->late) {
        gate->late_since_s = rt_clock_seconds();
        (void)pthread_cond_signal(&gate->queue_filled);
    }
    for (size_t i = 0; i < count; i++) {
        free_texts(&tickets[i]->row);
        tickets[i]->next = NULL;
        if (gate->late)
            gate->late_last->next = tickets[i];
        else
            gate->late = tickets[i];
        gate->late_last = tickets[i];
    }
    gate->n_late += count;
    (void)pthread_mutex_unlock(&gate->queue_mutex);
}

/* With the writer's mutex held, so that rows are told in the order in which they were written. */
static void tell_records(rt_gate *gate, rt_ticket *const *group, size_t count)
{
    (void)pthread_mutex_lock(&gate->record_mutex);
    for (size_t i = 0; gate->on_record && i < count; i++)
        if (group[i]->row.record)
            gate->on_record(gate->record_context, group[i]->row.record_line);
    (void)pthread_mutex_unlock(&gate->record_mutex);
}

bool rt_gate_write_now(rt_gate *gate, rt_ticket *ticket)
{
    rt_error err = {0};
    if (gate->shared || atomic_load(&gate->failing) || pthread_mutex_trylock(&gate->writer_mutex) != 0)
        return false;
    (void)pthread_mutex_lock(&gate->queue_mutex);
    const bool idle = !gate->first;
    (void)pthread_mutex_unlock(&gate->queue_mutex);
    const double now = rt_clock_seconds();
    bool written = false;
    if (idle && gate->append_s > 0 && gate->append_s < quick_s && now - gate->wrote_now_s >= now_gap_s) {
        rt_ledger_row *row = &ticket->row;
        rt_db_hurry(gate->writer_db, true);
        written = append(gate, &row, 1, &err) == RT_OK;
        rt_db_hurry(gate->writer_db, false);
    }
    gate->wrote_now_s = now;
    if (written) {
        ticket->done = NULL;
        tell_records(gate, &ticket, 1);
        keep_late(gate, &ticket, 1);
    }
    (void)pthread_mutex_unlock(&gate->writer_mutex);
    return written;
}

static bool late_is_due(const rt_gate *gate)
{
    return gate->n_late > 0 && (gate->closing || gate->n_late >= GROUP_MAX ||
                                rt_clock_seconds() - gate->late_since_s >= LATE_MS * 1e-3);
}

/* Up to GROUP_MAX tickets, in order; waits for the first, or until *late may be summed.  With the queue's
 * mutex held. */
static size_t take_group(rt_gate *gate, rt_ticket **group, rt_ticket **late)
{
    size_t count = 0;
    if (!gate->first && !gate->stored && !gate->closing && !gate->lift_expired && !late_is_due(gate))
        wait_ms(gate, gate->n_late > 0 ? LATE_MS : SWEEP_S * 1000);
    while (gate->first && count < GROUP_MAX) {
        group[count++] = gate->first;
        gate->first = gate->first->next;
    }
    if (!gate->first)
        gate->last = NULL;
    gate->queued -= count;
    *late = NULL;
    if (late_is_due(gate)) {
        *late = gate->late;
        gate->late = gate->late_last = NULL;
        gate->n_late = 0;
    }
    return count;
}

static void tell(rt_ticket *ticket, rt_status status)
{
    if (ticket->done)
        ticket->done(ticket->context, status);
    ticket->done = NULL;
}

/* A try that failed: the others are told by gate->failing; false: the gate closes and this was the last. */
static bool try_again(rt_gate *gate, bool *closing, const rt_error *err)
{
    rt_log(RT_LOG_WARNING, "the ledger could not be written and will be tried again: %s", err->text);
    atomic_store(&gate->failing, true);
    if (*closing)
        return false;
    (void)pthread_mutex_lock(&gate->queue_mutex);
    if (!gate->closing)
        wait_ms(gate, 1000);
    *closing = gate->closing;
    (void)pthread_mutex_unlock(&gate->queue_mutex);
    return true;
}

static rt_status write_rows(rt_gate *gate, rt_ticket *const *group, rt_ledger_row *const *rows, size_t count,
                            int64_t batch, rt_error *err)
{
    const int64_t server = __atomic_load_n(&gate->server, __ATOMIC_ACQUIRE);
    (void)pthread_mutex_lock(&gate->writer_mutex);
    const rt_status status = gate->shared ? rt_ledger_write(gate->writer_db, &gate->secrets, rows, count,
                                                            server, batch, rt_gate_unix_ms(gate) / 1000, err)
                                          : append(gate, rows, count, err);
    if (status == RT_OK)
        tell_records(gate, group, count);
    if (status == RT_OK && !gate->shared)
        keep_late(gate, group, count);
    (void)pthread_mutex_unlock(&gate->writer_mutex);
    return status;
}

/* Until it is written, or the gate closes and it failed once more. */
static void write_group(rt_gate *gate, rt_ticket **group, size_t count, int64_t *batch)
{
    rt_ledger_row *rows[GROUP_MAX];
    for (size_t i = 0; i < count; i++)
        rows[i] = &group[i]->row;
    ++*batch;
    bool written = false;
    for (bool closing = false;;) {
        rt_error err = {0};
        const rt_status status = write_rows(gate, group, rows, count, *batch, &err);
        written = status == RT_OK;
        if (written)
            break;
        if (status == RT_BUSY) /* others write too: a matter of waiting, not a failure */
            continue;
        for (size_t i = 0; i < count; i++)
            tell(group[i], status);
        if (!try_again(gate, &closing, &err))
            break;
    }
    atomic_store(&gate->failing, false);
    for (size_t i = 0; i < count; i++) {
        tell(group[i], RT_OK);
        if (gate->shared || !written)
            free_ticket(group[i]);
    }
}

static void sum_rows(rt_gate *gate, rt_ledger_row *const *rows, size_t count)
{
    rt_status status = RT_BUSY;
    for (bool closing = false; status != RT_OK;) {
        rt_error err = {0};
        (void)pthread_mutex_lock(&gate->writer_mutex);
        status = rt_ledger_sum(gate->writer_db, rows, count, rt_gate_unix_ms(gate) / 1000, &err);
        (void)pthread_mutex_unlock(&gate->writer_mutex);
        if (status != RT_OK && status != RT_BUSY && !try_again(gate, &closing, &err))
            break; /* who opens the database next adds them */
    }
    atomic_store(&gate->failing, false);
}

/* Steals the list. */
static void sum_late(rt_gate *gate, rt_ticket *late)
{
    rt_ledger_row *rows[GROUP_MAX];
    while (late) {
        size_t count = 0;
        rt_ticket *rest = late;
        for (; rest && count < GROUP_MAX; rest = rest->next)
            rows[count++] = &rest->row;
        sum_rows(gate, rows, count);
        for (rt_ticket *next; late != rest; late = next) {
            next = late->next;
            free_ticket(late);
        }
    }
}

/* What has to be done now and then, on the writer's connection. */
static void tidy(rt_gate *gate, int64_t *swept_s, int64_t *pruned_s)
{
    const int64_t now_s = rt_gate_unix_ms(gate) / 1000;
    rt_error err = {0};
    if (gate->shared && now_s - *swept_s >= SWEEP_S) {
        *swept_s = now_s;
        if (rt_shared_sweep(gate, gate->writer_db, &err) != RT_OK)
            rt_log(RT_LOG_WARNING, "%s", err.text);
    }
    if (now_s - *pruned_s >= PRUNE_S) {
        *pruned_s = now_s;
        if (rt_ledger_prune(gate->writer_db, now_s, gate->options.ledger_days, &err) != RT_OK)
            rt_log(RT_LOG_WARNING, "%s", err.text);
    }
}

static void *write_all(void *context)
{
    rt_gate *gate = context;
    rt_ticket **group = calloc(GROUP_MAX, sizeof(rt_ticket *));
    int64_t batch = 0, swept_s = rt_gate_unix_ms(gate) / 1000, pruned_s = 0;
    while (group) {
        (void)pthread_mutex_lock(&gate->queue_mutex);
        rt_ticket *late;
        const size_t count = take_group(gate, group, &late);
        const bool closing = gate->closing && !gate->stored, lift = gate->lift_expired;
        gate->lift_expired = false;
        (void)pthread_mutex_unlock(&gate->queue_mutex);
        if (count > 0)
            write_group(gate, group, count, &batch);
        else if (closing && !late)
            break;
        sum_late(gate, late);
        (void)pthread_mutex_lock(&gate->writer_mutex);
        rt_stored_write(gate);
        tidy(gate, &swept_s, &pruned_s);
        (void)pthread_mutex_unlock(&gate->writer_mutex);
        rt_error err = {0};
        if (lift && rt_desk_lift_expired(gate->desk, &err) != RT_OK)
            rt_log(RT_LOG_WARNING, "%s", err.text);
    }
    free(group);
    return NULL;
}

rt_status rt_gate_writer_start(rt_gate *gate, rt_error *err)
{
    if (rt_db_open(&gate->writer_db, gate->where, err) != RT_OK)
        return err->status;
    rt_db_set_patience(gate->writer_db, RT_GATE_WRITER_PATIENCE_S);
    if (pthread_create(&gate->writer, NULL, write_all, gate) != 0)
        return rt_error_set(err, RT_NO_MEMORY, "the ledger's thread cannot be started");
    gate->writer_started = true;
    return RT_OK;
}

void rt_gate_writer_stop(rt_gate *gate)
{
    if (gate->writer_started) {
        (void)pthread_mutex_lock(&gate->queue_mutex);
        gate->closing = true;
        (void)pthread_cond_signal(&gate->queue_filled);
        (void)pthread_mutex_unlock(&gate->queue_mutex);
        (void)pthread_join(gate->writer, NULL);
    }
    rt_db_close(gate->writer_db);
}
