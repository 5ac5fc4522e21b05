/* account/gate_writer.c - the writer thread: takes what is queued, writes it in one transaction, says so.
 *
 * Groups form by themselves: while one is on its way to the disk the next gathers.  A group that cannot be
 * written is kept and tried again every second; until then nothing is admitted, and those that wait are told.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/gate_internal.h"
#include "base/log.h"

enum { GROUP_MAX = 2000, QUEUED_MAX = 100000, SWEEP_S = 5, PRUNE_S = 600 };

static void free_ticket(rt_ticket *ticket)
{
    free(ticket->row.prompt);
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

static void wait_seconds(rt_gate *gate, time_t seconds)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    (void)pthread_cond_timedwait(&gate->queue_filled, &gate->queue_mutex, &until);
}

/* Up to GROUP_MAX tickets, in order; waits for the first.  With the queue's mutex held. */
static size_t take_group(rt_gate *gate, rt_ticket **group)
{
    size_t count = 0;
    if (!gate->first && !gate->stored && !gate->closing && !gate->lift_expired)
        wait_seconds(gate, SWEEP_S);
    while (gate->first && count < GROUP_MAX) {
        group[count++] = gate->first;
        gate->first = gate->first->next;
    }
    if (!gate->first)
        gate->last = NULL;
    gate->queued -= count;
    return count;
}

static void tell(rt_ticket *ticket, rt_status status)
{
    if (ticket->done)
        ticket->done(ticket->context, status);
    ticket->done = NULL;
}

/* Until it is written, or the gate closes and it failed once more. */
static void write_group(rt_gate *gate, rt_ticket **group, size_t count, int64_t *batch)
{
    rt_ledger_row *rows[GROUP_MAX];
    for (size_t i = 0; i < count; i++)
        rows[i] = &group[i]->row;
    ++*batch;
    for (bool closing = false;;) {
        rt_error err = {0};
        const int64_t server = __atomic_load_n(&gate->server, __ATOMIC_ACQUIRE);
        const rt_status status = rt_ledger_write(gate->writer_db, &gate->secrets, rows, count, server, *batch,
                                                 rt_gate_unix_ms(gate) / 1000, &err);
        if (status == RT_OK)
            break;
        if (status == RT_BUSY) /* others write too: a matter of waiting, not a failure */
            continue;
        rt_log(RT_LOG_WARNING, "the ledger could not be written and will be tried again: %s", err.text);
        atomic_store(&gate->failing, true);
        for (size_t i = 0; i < count; i++)
            tell(group[i], status);
        if (closing)
            break;
        (void)pthread_mutex_lock(&gate->queue_mutex);
        if (!gate->closing)
            wait_seconds(gate, 1);
        closing = gate->closing;
        (void)pthread_mutex_unlock(&gate->queue_mutex);
    }
    atomic_store(&gate->failing, false);
    for (size_t i = 0; i < count; i++) {
        tell(group[i], RT_OK);
        free_ticket(group[i]);
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
        const size_t count = take_group(gate, group);
        const bool closing = gate->closing && !gate->stored, lift = gate->lift_expired;
        gate->lift_expired = false;
        (void)pthread_mutex_unlock(&gate->queue_mutex);
        if (count > 0)
            write_group(gate, group, count, &batch);
        else if (closing)
            break;
        rt_stored_write(gate);
        rt_error err = {0};
        if (lift && rt_desk_lift_expired(gate->desk, &err) != RT_OK)
            rt_log(RT_LOG_WARNING, "%s", err.text);
        tidy(gate, &swept_s, &pruned_s);
    }
    free(group);
    return NULL;
}

rt_status rt_gate_writer_start(rt_gate *gate, rt_error *err)
{
    if (rt_db_open(&gate->writer_db, gate->where, err) != RT_OK)
        return err->status;
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
