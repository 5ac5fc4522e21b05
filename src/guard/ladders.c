/* guard/ladders.c - see ladders.h. */
#include "guard/ladders.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard/result.h"

struct rt_ladders {
    rt_guard *guard;
    const rt_guard_policy *policy;
    rt_ladders_calls calls;
    rt_ladder_entry *entries;
    size_t capacity, n_histories;
    bool quiet;
};
enum { HISTORIES_MAX = 10000 };

rt_status rt_ladders_open(rt_ladders **out, rt_guard *guard, const rt_guard_policy *policy,
                          const rt_ladders_calls *calls, rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the ladder");
    **out = (rt_ladders){.guard = guard, .policy = policy, .calls = calls ? *calls : (rt_ladders_calls){0}};
    return RT_OK;
}

void rt_ladders_set_quiet(rt_ladders *ladders, bool quiet) { ladders->quiet = quiet; }

void rt_ladders_set_policy(rt_ladders *ladders, const rt_guard_policy *policy) { ladders->policy = policy; }

void rt_ladders_close(rt_ladders *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->capacity; i++)
        free(l->entries[i].history);
    free(l->entries);
    free(l);
}

static void forget(rt_ladders *l, rt_ladder_entry *entry)
{
    l->n_histories -= entry->history != NULL;
    free(entry->history);
    entry->history = NULL;
}

/* A history begins with the first suspicion; an account that nothing speaks against any more makes room where
 * it is short. */
static void remember(rt_ladders *l, const rt_guard_account *account, rt_ladder_entry *entry,
                     const rt_ladder_evidence *evidence)
{
    const bool suspected = entry->state.rung || evidence->p <= l->policy->p[RT_RUNG_OBSERVE];
    if (entry->history && !suspected && l->n_histories == HISTORIES_MAX)
        forget(l, entry);
    if (!entry->history && suspected && l->n_histories < HISTORIES_MAX) {
        entry->history = calloc(1, sizeof *entry->history);
        l->n_histories += entry->history != NULL;
    }
    if (entry->history)
        rt_guard_history_point(entry->history, l->guard, account, evidence->now);
}

rt_ladder_entry *rt_ladders_entry(rt_ladders *l, const rt_guard_account *account)
{
    if (account->index >= l->capacity) {
        const size_t capacity = 2 * (size_t)account->index + 256;
        rt_ladder_entry *entries = realloc(l->entries, capacity * sizeof *entries);
        if (!entries)
            return NULL;
        memset(entries + l->capacity, 0, (capacity - l->capacity) * sizeof *entries);
        l->entries = entries;
        l->capacity = capacity;
    }
    rt_ladder_entry *entry = &l->entries[account->index];
    if (strcmp(entry->name, account->name) != 0) { /* another account was here before */
        forget(l, entry);
        *entry = (rt_ladder_entry){0};
        (void)snprintf(entry->name, sizeof entry->name, "%s", account->name);
    }
    return entry;
}

const rt_ladder_entry *rt_ladders_find(const rt_ladders *l, const rt_guard_account *account)
{
    if (account->index >= l->capacity || strcmp(l->entries[account->index].name, account->name) != 0)
        return NULL;
    return &l->entries[account->index];
}

static bool is_same(const rt_ladder_entry *a, const rt_ladder_entry *b)
{
    const rt_ladder_state *x = &a->state, *y = &b->state;
    return x->rung == y->rung && x->proposed == y->proposed && x->returning == y->returning &&
           !(x->p < y->p || x->p > y->p) && !(x->e < y->e || x->e > y->e) &&
           !(x->until < y->until || x->until > y->until) && a->answered == b->answered &&
           strcmp(a->case_id, b->case_id) == 0;
}

static void decide_one(rt_ladders *l, const rt_guard_account *account, rt_ladder_entry *entry,
                       const rt_ladder_evidence *evidence)
{
    if (entry->state.rung != RT_RUNG_NONE && l->calls.lifted && l->calls.lifted(l->calls.context, entry)) {
        const rt_ladder_step lifted = {
            .from = (rt_rung)entry->state.rung, .to = RT_RUNG_NONE, .lifted = true};
        rt_ladder_lift(&entry->state);
        entry->answered = false;
        if (l->calls.decided)
            l->calls.decided(l->calls.context, account, entry, &lifted);
    }
    remember(l, account, entry, evidence);
    const rt_ladder_step step = rt_ladder_decide(l->policy, &entry->state, evidence);
    if (step.from == step.to && !step.proposed)
        return;
    if (step.to < RT_RUNG_CHALLENGE)
        entry->answered = false;
    if (l->calls.decided)
        l->calls.decided(l->calls.context, account, entry, &step);
}

static void decide(rt_ladders *l, const rt_guard_account *account, double now)
{
    rt_ladder_entry *entry = rt_ladders_entry(l, account);
    if (!entry || l->quiet)
        return;
    const rt_ladder_evidence evidence = rt_ladder_evidence_of(l->guard, account, now);
    if (l->calls.decides && !l->calls.decides(l->calls.context, account, entry)) {
        remember(l, account, entry, &evidence);
        return;
    }
    const rt_ladder_entry before = *entry;
    decide_one(l, account, entry, &evidence);
    if (l->calls.changed && !is_same(&before, entry))
        l->calls.changed(l->calls.context, entry);
}

void rt_ladders_decide_all(rt_ladders *l, double now)
{
    double worth_looking = 0; /* the weakest evidence that any rung asks for */
    for (int r = RT_RUNG_OBSERVE; r < RT_RUNG_COUNT; r++)
        worth_looking = fmax(worth_looking, l->policy->p[r]);
    for (size_t i = 0; i < rt_guard_count(l->guard); i++) {
        const rt_guard_account *account = rt_guard_account_at(l->guard, i);
        const rt_ladder_entry *entry = rt_ladders_find(l, account);
        if ((entry && entry->state.rung) || (double)rt_guard_block_p(account) <= worth_looking ||
            rt_guard_e(account) * worth_looking >= 1)
            decide(l, account, now);
    }
}

rt_status rt_ladders_feed(rt_ladders *l, const rt_guard_event *event, rt_guard_verdict *verdict,
                          rt_error *err)
{
    rt_guard_record record;
    if (rt_guard_record_of(l->guard, &record, event, err) != RT_OK)
        return err->status;
    return rt_ladders_feed_record(l, &record, verdict, err);
}

rt_status rt_ladders_feed_record(rt_ladders *l, const rt_guard_record *event, rt_guard_verdict *verdict,
                                 rt_error *err)
{
    if (rt_guard_sweep_due(l->guard, event->ts)) {
        if (rt_guard_sweep(l->guard, event->ts, err) != RT_OK)
            return err->status;
        rt_ladders_decide_all(l, event->ts);
    }
    if (rt_guard_observe_record(l->guard, event, verdict, err) != RT_OK)
        return err->status;
    const rt_guard_account *account = rt_guard_find(l->guard, event->account);
    if (account && verdict->checked)
        decide(l, account, event->ts);
    const rt_ladder_entry *entry = account ? rt_ladders_find(l, account) : NULL;
    if (entry && entry->history && !l->quiet)
        rt_guard_history_request(entry->history, event, verdict, l->policy->exemplars);
    return RT_OK;
}

json_t *rt_ladder_entry_json(const rt_ladder_entry *e)
{
    return json_pack("{s:s, s:s, s:b, s:b, s:b, s:f, s:f, s:f, s:s}", "account", e->name, "rung",
                     rt_rung_name((rt_rung)e->state.rung), "proposed", e->state.proposed, "returning",
                     e->state.returning, "answered", e->answered, "p", e->state.p, "e", e->state.e, "until",
                     e->state.until, "case", e->case_id);
}

json_t *rt_ladders_json(const rt_ladders *l)
{
    json_t *list = json_array();
    for (size_t i = 0; i < l->capacity; i++) {
        const rt_ladder_entry *e = &l->entries[i];
        if (!e->name[0] || !(e->state.rung || e->state.returning || e->history))
            continue;
        json_t *row = rt_ladder_entry_json(e);
        if (e->history)
            (void)json_object_set_new(row, "history", rt_guard_history_json(e->history));
        (void)json_array_append_new(list, row);
    }
    return list;
}

static rt_rung rung_of(const char *name)
{
    for (int r = 0; name && r < RT_RUNG_COUNT; r++)
        if (strcmp(name, rt_rung_name((rt_rung)r)) == 0)
            return (rt_rung)r;
    return RT_RUNG_NONE;
}

void rt_ladder_entry_restore(rt_ladder_entry *entry, const json_t *row)
{
    const char *case_id = json_string_value(json_object_get(row, "case"));
    entry->state =
        (rt_ladder_state){.rung = (uint8_t)rung_of(json_string_value(json_object_get(row, "rung"))),
                          .proposed = json_is_true(json_object_get(row, "proposed")),
                          .returning = json_is_true(json_object_get(row, "returning")),
                          .p = json_number_value(json_object_get(row, "p")),
                          .e = json_number_value(json_object_get(row, "e")),
                          .until = json_number_value(json_object_get(row, "until"))};
    entry->answered = json_is_true(json_object_get(row, "answered"));
    (void)snprintf(entry->case_id, sizeof entry->case_id, "%s", case_id ? case_id : "");
}

rt_status rt_ladders_restore(rt_ladders *l, const json_t *list, const char *where, rt_error *err)
{
    const json_t *row;
    size_t i;
    if (!json_is_array(list))
        return rt_error_set(err, RT_CORRUPT, "%.300s: must be a list of accounts with their rungs", where);
    json_array_foreach((json_t *)list, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "account"));
        const rt_guard_account *account = name ? rt_guard_find(l->guard, name) : NULL;
        rt_ladder_entry *entry = account ? rt_ladders_entry(l, account) : NULL;
        if (!entry)
            continue;
        rt_ladder_entry_restore(entry, row);
        const json_t *history = json_object_get(row, "history");
        if (history && !entry->history && l->n_histories < HISTORIES_MAX) {
            entry->history = calloc(1, sizeof *entry->history);
            l->n_histories += entry->history != NULL;
        }
        if (history && entry->history)
            rt_guard_history_restore(entry->history, history);
    }
    return RT_OK;
}
