/* serve/engine.c - see engine.h: the thread, and what goes in and out of it. */
#include "serve/engine.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/lane.h"

enum { PREFILL_TOKENS = 256, QUEUE_MAX = 256 };

struct rt_engine {
    rt_engine_options options;
    rt_lane *lanes;
    size_t n_lanes;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    rt_job *inbox, **inbox_end;
    rt_job *outbox, **outbox_end;
    bool poked, closing;
    size_t n_waiting; /* jobs in the inbox or a queue */
    rt_engine_stats stats;
};

/* ---- out ---- */

static void post(rt_engine *e, rt_job *job, bool done)
{
    (void)pthread_mutex_lock(&e->lock);
    job->done |= done;
    const bool was_empty = e->outbox == NULL;
    if (!job->dirty) {
        job->dirty = true;
        job->next_dirty = NULL;
        *e->outbox_end = job;
        e->outbox_end = &job->next_dirty;
    }
    (void)pthread_mutex_unlock(&e->lock);
    if (was_empty)
        e->options.changed(e->options.context);
}

static void on_grown(void *context, rt_job *job) { post(context, job, false); }
static void on_ended(void *context, rt_job *job) { post(context, job, true); }

rt_job *rt_engine_changed(rt_engine *e, bool *done)
{
    (void)pthread_mutex_lock(&e->lock);
    rt_job *job = e->outbox;
    if (job) {
        e->outbox = job->next_dirty;
        if (!e->outbox)
            e->outbox_end = &e->outbox;
        job->dirty = false;
        *done = job->done;
    }
    (void)pthread_mutex_unlock(&e->lock);
    return job;
}

/* ---- in ---- */

bool rt_engine_submit(rt_engine *e, rt_job *job)
{
    (void)pthread_mutex_lock(&e->lock);
    const bool room = e->n_waiting < e->options.queue_max;
    if (room) {
        job->next = NULL;
        *e->inbox_end = job;
        e->inbox_end = &job->next;
        e->n_waiting++;
        e->stats.queued = e->n_waiting;
        (void)pthread_cond_signal(&e->wake);
    }
    (void)pthread_mutex_unlock(&e->lock);
    return room;
}

void rt_engine_poke(rt_engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    e->poked = true;
    (void)pthread_cond_signal(&e->wake);
    (void)pthread_mutex_unlock(&e->lock);
}

/* Moves new jobs to the queues; waits for some when there is nothing else to do.  false: close. */
static bool take_in(rt_engine *e, bool idle, rt_lane_sink *sink)
{
    (void)pthread_mutex_lock(&e->lock);
    while (idle && !e->inbox && !e->poked && !e->closing) {
        /* paused jobs and deadlines are looked at now and then */
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 50 * 1000 * 1000;
        if (until.tv_nsec >= 1000 * 1000 * 1000) {
            until.tv_nsec -= 1000 * 1000 * 1000;
            until.tv_sec++;
        }
        if (e->stats.running + e->stats.queued == 0)
            (void)pthread_cond_wait(&e->wake, &e->lock);
        else if (pthread_cond_timedwait(&e->wake, &e->lock, &until) != 0)
            break;
    }
    e->poked = false;
    rt_job *in = e->inbox;
    e->inbox = NULL;
    e->inbox_end = &e->inbox;
    const bool closing = e->closing;
    (void)pthread_mutex_unlock(&e->lock);
    for (rt_job *next; in; in = next) {
        next = in->next;
        if (rt_fair_push(&e->lanes[in->lane].queue, in))
            continue;
        (void)pthread_mutex_lock(&in->lock);
        (void)rt_error_set(&in->fault, RT_NO_MEMORY, "no memory to queue the request");
        for (size_t i = 0; i < in->n_choices; i++)
            in->choices[i].finish = RT_JOB_ABORTED;
        (void)pthread_mutex_unlock(&in->lock);
        on_ended(sink->context, in);
    }
    return !closing;
}

static void publish(rt_engine *e, const rt_lane_sink *sink)
{
    rt_engine_stats stats = {.prompt_tokens = sink->prompt_tokens,
                             .cached_tokens = sink->cached_tokens,
                             .generated_tokens = sink->generated_tokens};
    size_t queued = 0;
    for (size_t i = 0; i < e->n_lanes; i++) {
        stats.running += rt_lane_running(&e->lanes[i]);
        stats.kv_tokens += rt_lane_kv_tokens(&e->lanes[i]);
        stats.kv_room += e->lanes[i].capacity * e->lanes[i].options.n_slots;
        queued += e->lanes[i].queue.n_jobs;
        const rt_prefix_stats prefix = rt_prefix_get_stats(e->lanes[i].prefixes);
        stats.prefix.hits += prefix.hits;
        stats.prefix.tokens += prefix.tokens;
        stats.prefix.evicted += prefix.evicted;
        stats.prefix.bytes += prefix.bytes;
        stats.prefix.bytes_max += prefix.bytes_max;
    }
    (void)pthread_mutex_lock(&e->lock);
    for (const rt_job *job = e->inbox; job; job = job->next)
        queued++;
    e->n_waiting = stats.queued = queued;
    e->stats = stats;
    (void)pthread_mutex_unlock(&e->lock);
}

static void *run(void *context)
{
    rt_engine *e = context;
    rt_lane_sink sink = {.grown = on_grown, .ended = on_ended, .context = e};
    for (bool idle = true; take_in(e, idle, &sink);) {
        const double now = rt_clock_seconds();
        idle = true;
        for (size_t i = 0; i < e->n_lanes; i++) {
            rt_lane *lane = &e->lanes[i];
            rt_lane_reap(lane, now, &sink);
            rt_lane_admit(lane, now, &sink);
            const bool filled = rt_lane_prefill(lane, e->options.prefill_tokens, &sink);
            const bool decoded = rt_lane_decode(lane, &sink);
            idle = idle && !filled && !decoded;
        }
        publish(e, &sink);
    }
    return NULL;
}

rt_status rt_engine_open(rt_engine **out, const rt_lane_options *lanes, size_t n_lanes,
                         const rt_engine_options *options, rt_error *err)
{
    *out = NULL;
    rt_engine *e = calloc(1, sizeof *e);
    if (!e)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the engine");
    e->options = *options;
    e->options.prefill_tokens = options->prefill_tokens ? options->prefill_tokens : PREFILL_TOKENS;
    e->options.queue_max = options->queue_max ? options->queue_max : QUEUE_MAX;
    e->inbox_end = &e->inbox;
    e->outbox_end = &e->outbox;
    (void)pthread_mutex_init(&e->lock, NULL);
    (void)pthread_cond_init(&e->wake, NULL);
    rt_status status = RT_OK;
    e->lanes = calloc(n_lanes, sizeof *e->lanes);
    if (!e->lanes)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu models", n_lanes);
    for (; status == RT_OK && e->n_lanes < n_lanes; e->n_lanes++)
        status = rt_lane_open(&e->lanes[e->n_lanes], &lanes[e->n_lanes], err);
    if (status == RT_OK && pthread_create(&e->thread, NULL, run, e) != 0)
        status = rt_error_set(err, RT_NO_MEMORY, "cannot start the engine's thread");
    e->started = status == RT_OK;
    if (!e->started) {
        rt_engine_close(e);
        return status;
    }
    *out = e;
    return RT_OK;
}

void rt_engine_close(rt_engine *e)
{
    if (!e)
        return;
    if (e->started) {
        (void)pthread_mutex_lock(&e->lock);
        e->closing = true;
        (void)pthread_cond_signal(&e->wake);
        (void)pthread_mutex_unlock(&e->lock);
        (void)pthread_join(e->thread, NULL);
    }
    for (size_t i = 0; e->lanes && i < e->n_lanes; i++)
        rt_lane_close(&e->lanes[i]);
    free(e->lanes);
    (void)pthread_mutex_destroy(&e->lock);
    (void)pthread_cond_destroy(&e->wake);
    free(e);
}

size_t rt_engine_context(const rt_engine *e, size_t lane) { return e->lanes[lane].capacity; }

rt_engine_stats rt_engine_get_stats(rt_engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    const rt_engine_stats stats = e->stats;
    (void)pthread_mutex_unlock(&e->lock);
    return stats;
}
