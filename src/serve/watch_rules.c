/* serve/watch_rules.c - what the ladder leaves of answers: the table that the event thread asks. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "serve/watch_internal.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rules_entry *)a)->name, ((const rules_entry *)b)->name);
}

static rules_entry *find_rules(const rt_watch *w, const char *account)
{
    rules_entry wanted;
    (void)snprintf(wanted.name, sizeof wanted.name, "%s", account);
    return w->n_rules ? bsearch(&wanted, w->rules, w->n_rules, sizeof *w->rules, by_name) : NULL;
}

static rt_watch_rules rules_of_rung(const rt_guard_policy *policy, const rt_ladder_entry *entry)
{
    rt_watch_rules rules = {.top_logprobs = policy->exposure_top,
                            .no_bias_with_logprobs = !policy->exposure_bias};
    if (!entry || policy->dry_run)
        return rules;
    rules.own_mark = entry->state.rung >= RT_RUNG_WATERMARK && policy->p[RT_RUNG_WATERMARK] > 0;
    if (entry->state.rung >= RT_RUNG_TWINS && policy->p[RT_RUNG_TWINS] > 0) {
        rules.twins_share = policy->twins_share;
        rules.canaries_share = policy->canaries_share;
    }
    if (entry->state.rung >= RT_RUNG_LOGPROBS && policy->p[RT_RUNG_LOGPROBS] > 0) {
        rules.top_logprobs = policy->logprobs_top;
        rules.no_logprobs = policy->logprobs_top == 0;
    }
    rules.no_reasoning = entry->state.rung >= RT_RUNG_REASONING && policy->p[RT_RUNG_REASONING] > 0;
    (void)snprintf(rules.case_id, sizeof rules.case_id, "%s", entry->case_id);
    rules.challenged =
        entry->state.rung >= RT_RUNG_CHALLENGE && policy->p[RT_RUNG_CHALLENGE] > 0 && !entry->answered;
    return rules;
}

/* The account's place, made where there is none; NULL: no memory.  With the lock held. */
static rules_entry *make_rules(rt_watch *w, const char *name)
{
    rules_entry *found = find_rules(w, name);
    if (found)
        return found;
    if (w->n_rules == w->rules_capacity) {
        const size_t capacity = 2 * w->rules_capacity + 64;
        rules_entry *rules = realloc(w->rules, capacity * sizeof *rules);
        if (!rules) {
            w->counts.failed++;
            return NULL;
        }
        w->rules = rules;
        w->rules_capacity = capacity;
    }
    w->rules[w->n_rules] = (rules_entry){0};
    (void)snprintf(w->rules[w->n_rules++].name, sizeof w->rules->name, "%s", name);
    qsort(w->rules, w->n_rules, sizeof *w->rules, by_name);
    return find_rules(w, name);
}

void rt_watch_publish(rt_watch *w, const rt_ladder_entry *entry, int64_t row)
{
    (void)pthread_mutex_lock(&w->lock);
    rules_entry *found = make_rules(w, entry->name);
    if (found) {
        found->rules = rules_of_rung(w->policy, entry);
        found->rung = entry->state.rung;
        found->row = row > found->row ? row : found->row;
    }
    (void)pthread_mutex_unlock(&w->lock);
}

void rt_watch_publish_all(rt_watch *w)
{
    for (size_t i = 0; i < rt_guard_count(w->guard); i++) {
        const rt_ladder_entry *entry = rt_ladders_find(w->ladders, rt_guard_account_at(w->guard, i));
        if (entry && entry->state.rung)
            rt_watch_publish(w, entry, 0);
    }
    (void)pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->n_rules; i++)
        if (w->rules[i].pending) {
            rt_ladder_entry entry = {0};
            rt_ladder_entry_restore(&entry, w->rules[i].pending);
            w->rules[i].rules = rules_of_rung(w->policy, &entry);
        }
    (void)pthread_mutex_unlock(&w->lock);
}

static void put_pending(rt_watch *w, const char *account, const json_t *json)
{
    (void)pthread_mutex_lock(&w->lock);
    rules_entry *found = find_rules(w, account);
    if (found) {
        json_decref(found->pending);
        found->pending = json_incref((json_t *)json);
    }
    (void)pthread_mutex_unlock(&w->lock);
}

void rt_watch_take_rung(void *context, const char *account, int64_t row, const char *text, bool answered)
{
    rt_watch *w = context;
    json_t *json = NULL;
    rt_error err = {0};
    rt_ladder_entry fresh = {0};
    if (rt_json_parse(&json, text, strlen(text), "a rung in the account database", &err) != RT_OK ||
        strlen(account) > RT_GUARD_ACCOUNT_BYTES_MAX) {
        json_decref(json);
        rt_watch_complain(w, &err);
        return;
    }
    (void)json_object_set_new(json, "answered", json_boolean(answered));
    (void)snprintf(fresh.name, sizeof fresh.name, "%s", account);
    rt_ladder_entry_restore(&fresh, json);
    const rt_guard_account *known = rt_guard_find(w->guard, account);
    rt_ladder_entry *entry = known ? rt_ladders_entry(w->ladders, known) : NULL;
    if (entry)
        rt_ladder_entry_restore(entry, json);
    else if (fresh.state.until < rt_clock_unix()) /* nobody is there to see it lapse */
        fresh.state.rung = RT_RUNG_NONE;
    rt_watch_publish(w, &fresh, row);
    put_pending(w, account, entry ? NULL : json);
    json_decref(json);
}

bool rt_watch_decides(void *context, const rt_guard_account *account, rt_ladder_entry *entry)
{
    rt_watch *w = context;
    (void)pthread_mutex_lock(&w->lock);
    rules_entry *found = find_rules(w, account->name);
    if (found && found->pending) {
        rt_ladder_entry_restore(entry, found->pending);
        json_decref(found->pending);
        found->pending = NULL;
    }
    const bool decides = w->leads && (!found || w->row > found->row);
    (void)pthread_mutex_unlock(&w->lock);
    return decides;
}

rt_watch_rules rt_watch_rules_of(rt_watch *w, const char *account)
{
    (void)pthread_mutex_lock(&w->lock);
    const rules_entry *found = account ? find_rules(w, account) : NULL;
    const rt_watch_rules rules = found ? found->rules : rules_of_rung(w->policy, NULL);
    (void)pthread_mutex_unlock(&w->lock);
    return rules;
}

const rt_guard_policy *rt_watch_policy(rt_watch *w)
{
    (void)pthread_mutex_lock(&w->lock);
    const rt_guard_policy *policy = w->next_policy ? w->next_policy : w->policy;
    (void)pthread_mutex_unlock(&w->lock);
    return policy;
}

void rt_watch_set_policy(rt_watch *w, const rt_guard_policy_file *policy)
{
    (void)pthread_mutex_lock(&w->lock);
    w->next_policy = rt_guard_policy_of(policy);
    (void)pthread_cond_signal(&w->woken);
    (void)pthread_mutex_unlock(&w->lock);
}

void rt_watch_take_policy(rt_watch *w)
{
    (void)pthread_mutex_lock(&w->guard_lock);
    (void)pthread_mutex_lock(&w->lock);
    const bool other = w->next_policy != NULL;
    if (other)
        w->policy = w->next_policy;
    w->next_policy = NULL;
    (void)pthread_mutex_unlock(&w->lock);
    if (other) {
        rt_ladders_set_policy(w->ladders, w->policy);
        rt_watch_publish_all(w);
    }
    (void)pthread_mutex_unlock(&w->guard_lock);
}
