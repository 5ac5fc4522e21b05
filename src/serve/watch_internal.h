/* serve/watch_internal.h - what the files watch*.c share.
 *
 * Two locks: `lock` for the rules and counts, held for moments, which the event thread takes; `guard_lock`
 * for the guard, the ladders and the store, which only the watch's thread holds for long (a sweep over all
 * accounts).  Who takes both takes guard_lock first. */
#ifndef RT_SERVE_WATCH_INTERNAL_H
#define RT_SERVE_WATCH_INTERNAL_H

#include <pthread.h>
#include <stdio.h>

#include "account/guard_store.h"
#include "serve/watch.h"

typedef struct rules_entry { /* of accounts that are or were on a rung; sorted by name */
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    rt_watch_rules rules;
    uint8_t rung;
    int64_t row;     /* the last one that changed its ladder; rows up to it decide nothing more about it */
    json_t *pending; /* the ladder's entry, for when the guard comes to know the account; NULL: it is there */
} rules_entry;

struct rt_watch {
    rt_watch_options options;
    const rt_guard_policy *policy;      /* written by the watch's thread under both locks */
    const rt_guard_policy *next_policy; /* under lock; NULL: none */
    pthread_t thread;
    bool running;

    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool written, closing; /* written: there are new rows */
    rules_entry *rules;
    size_t n_rules, rules_capacity;
    rt_watch_counts counts;

    pthread_mutex_t guard_lock;
    rt_guard_store *store;
    rt_guard *guard;
    rt_ladders *ladders;
    bool shared, leads;
    int64_t row;        /* the last one that was judged, or that is being judged */
    int64_t quiet_to;   /* rows up to here the ladders have seen already */
    int64_t recover_to; /* rows up to here may have been acted upon before a crash, or by another server */
    int64_t saved_row, older_row; /* of the state as it was last written, and the time before */
    double saved_s, tidied_s;
    bool complained; /* the database fails, and it was said */
    FILE *log;       /* for the ledger's thread */
};

/* watch_rules.c */
/* The rules that the event thread reads are those of the entry's rung. */
void rt_watch_publish(rt_watch *w, const rt_ladder_entry *entry, int64_t row);
void rt_watch_publish_all(rt_watch *w);
void rt_watch_take_policy(rt_watch *w);
/* As a rung comes from the database; the context is the watch. */
void rt_watch_take_rung(void *context, const char *account, int64_t row, const char *text, bool answered);
/* May the row that is judged decide about the account?  Puts the account's entry there first, where the
 * database had one before the guard knew the account. */
bool rt_watch_decides(void *context, const rt_guard_account *account, rt_ladder_entry *entry);

/* watch_act.c: what the ladders call */
extern const rt_ladders_calls rt_watch_calls;

/* watch_state.c */
rt_status rt_watch_restore(rt_watch *w, rt_error *err);
/* Writes the state where it is due, or at the end, and drops rows that it makes superfluous. */
void rt_watch_keep(rt_watch *w, bool at_end);
void rt_watch_complain(rt_watch *w, const rt_error *err);

#endif
