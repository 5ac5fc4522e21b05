/* serve/clerks.c - see clerks.h. */
#include "serve/clerks.h"

#include <pthread.h>
#include <stdlib.h>

enum { WAITING_MAX = 64, WAITING_AT_DOOR_MAX = 4096 };

typedef struct clerk {
    rt_clerks *all;
    rt_desk *desk;
    pthread_t thread;
    bool started;
    pthread_cond_t filled;
    rt_errand *first, *last;
    size_t waiting;
} clerk;

struct rt_clerks {
    clerk each[RT_CLERKS];
    pthread_mutex_t mutex;
    rt_errand *ready;
    bool closing;
    void (*wake)(void *context);
    void *context;
};

/* The oldest errand, or NULL when there is none.  With the mutex held. */
static rt_errand *take_first(clerk *c)
{
    rt_errand *errand = c->first;
    if (!errand)
        return NULL;
    c->first = errand->next;
    if (!c->first)
        c->last = NULL;
    c->waiting--;
    return errand;
}

static void *work(void *context)
{
    clerk *c = context;
    rt_clerks *all = c->all;
    (void)pthread_mutex_lock(&all->mutex);
    while (!all->closing) {
        rt_errand *errand = take_first(c);
        if (!errand) {
            (void)pthread_cond_wait(&c->filled, &all->mutex);
            continue;
        }
        (void)pthread_mutex_unlock(&all->mutex);
        errand->reply = errand->work(errand, c->desk);
        (void)pthread_mutex_lock(&all->mutex);
        errand->next = all->ready;
        all->ready = errand;
        all->wake(all->context);
    }
    (void)pthread_mutex_unlock(&all->mutex);
    return NULL;
}

rt_status rt_clerks_open(rt_clerks **out, rt_gate *gate, void (*wake)(void *context), void *context,
                         rt_error *err)
{
    rt_clerks *all = *out = calloc(1, sizeof *all);
    if (!all)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the threads of the admin API");
    all->wake = wake;
    all->context = context;
    (void)pthread_mutex_init(&all->mutex, NULL);
    for (size_t i = 0; i < RT_CLERKS; i++)
        (void)pthread_cond_init(&all->each[i].filled, NULL);
    for (size_t i = 0; i < RT_CLERKS; i++) {
        clerk *c = &all->each[i];
        c->all = all;
        rt_status status = i == RT_CLERK_DOOR ? RT_OK : rt_gate_open_desk(gate, &c->desk, err);
        if (status == RT_OK && pthread_create(&c->thread, NULL, work, c) != 0)
            status = rt_error_set(err, RT_NO_MEMORY, "a thread of the admin API cannot be started");
        if (status != RT_OK) {
            rt_clerks_close(all);
            *out = NULL;
            return status;
        }
        c->started = true;
    }
    return RT_OK;
}

bool rt_clerks_send(rt_clerks *clerks, rt_clerk which, rt_errand *errand)
{
    clerk *c = &clerks->each[which];
    errand->next = NULL;
    errand->reply = (rt_desk_reply){0};
    (void)pthread_mutex_lock(&clerks->mutex);
    const bool room = c->waiting < (which == RT_CLERK_DOOR ? WAITING_AT_DOOR_MAX : WAITING_MAX);
    if (room) {
        if (c->last)
            c->last->next = errand;
        else
            c->first = errand;
        c->last = errand;
        c->waiting++;
        (void)pthread_cond_signal(&c->filled);
    }
    (void)pthread_mutex_unlock(&clerks->mutex);
    return room;
}

void rt_clerks_news(rt_clerks *clerks)
{
    if (!clerks)
        return;
    (void)pthread_mutex_lock(&clerks->mutex);
    rt_errand *ready = clerks->ready;
    clerks->ready = NULL;
    (void)pthread_mutex_unlock(&clerks->mutex);
    for (rt_errand *next; ready; ready = next) {
        next = ready->next;
        ready->done(ready);
    }
}

void rt_clerks_close(rt_clerks *clerks)
{
    if (!clerks)
        return;
    (void)pthread_mutex_lock(&clerks->mutex);
    clerks->closing = true;
    for (size_t i = 0; i < RT_CLERKS; i++)
        (void)pthread_cond_signal(&clerks->each[i].filled);
    (void)pthread_mutex_unlock(&clerks->mutex);
    for (size_t i = 0; i < RT_CLERKS; i++)
        if (clerks->each[i].started)
            (void)pthread_join(clerks->each[i].thread, NULL);
    rt_clerks_news(clerks);
    for (size_t i = 0; i < RT_CLERKS; i++) {
        clerk *c = &clerks->each[i];
        for (rt_errand *errand; (errand = take_first(c)) != NULL;)
            errand->done(errand);
        rt_desk_close(c->desk); /* NULL is allowed */
        (void)pthread_cond_destroy(&c->filled);
    }
    (void)pthread_mutex_destroy(&clerks->mutex);
    free(clerks);
}
