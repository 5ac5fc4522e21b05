/* guard/view.c - see view.h: accounts and what to review; view_more.c has clusters, calibration and what-if.
 */
#include "guard/view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "guard/result.h"

json_t *rt_guard_view_row(const rt_guard *guard, const rt_ladders *ladders, const rt_guard_account *account)
{
    json_t *row = rt_guard_result(guard, account);
    const rt_ladder_entry *entry = ladders ? rt_ladders_find(ladders, account) : NULL;
    if (!row)
        return NULL;
    (void)json_object_set_new(row, "confirmed", json_boolean(account->confirmed != 0));
    (void)json_object_set_new(row, "weeks", json_integer(account->path.blocks + 1));
    (void)json_object_set_new(row, "use_class",
                              json_string(rt_guard_class_names[rt_guard_use_class(account)]));
    (void)json_object_set_new(row, "last", json_real(account->last_ts));
    if (!ladders)
        return row;
    (void)json_object_set_new(row, "rung",
                              json_string(rt_rung_name(entry ? (rt_rung)entry->state.rung : RT_RUNG_NONE)));
    (void)json_object_set_new(row, "proposed", json_boolean(entry && entry->state.proposed));
    (void)json_object_set_new(row, "answered", json_boolean(entry && entry->answered));
    (void)json_object_set_new(row, "until",
                              entry && entry->state.rung ? json_real(entry->state.until) : json_null());
    json_t *exemplars = json_array();
    for (size_t i = 0; entry && entry->history && i < entry->history->n_exemplars; i++)
        (void)json_array_append_new(exemplars, json_string(entry->history->exemplars[i].request));
    (void)json_object_set_new(row, "exemplars", exemplars);
    return row;
}

json_t *rt_guard_view_explain(const rt_guard *guard, const rt_guard_account *account)
{
    const rt_guard_reference *reference = rt_guard_reference_of(guard);
    float features[RT_GUARD_FEATURES], parts[RT_GUARD_FEATURES];
    char name[96];
    rt_guard_measure(account, features);
    const float score = rt_guard_contributions(reference, features, parts);
    const int use_class = rt_guard_use_class(account);
    json_t *json = rt_guard_result(guard, account), *list = json_array();
    double sum = 0;
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        (void)snprintf(name, sizeof name, "%s.%s", rt_guard_feature_signal(f)->name,
                       rt_guard_feature_name(f));
        const double percentile = (double)rt_guard_percentile(&reference->terms[f], use_class, features[f]);
        (void)json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f}", "signal", name, "value",
                                                    (double)features[f], "percentile", percentile,
                                                    "contribution", (double)parts[f]));
        sum += (double)parts[f];
    }
    (void)json_object_set_new(json, "use_class", json_string(rt_guard_class_names[use_class]));
    (void)json_object_set_new(json, "score_now", json_real((double)score));
    (void)json_object_set_new(json, "base", json_real((double)score - sum));
    (void)json_object_set_new(
        json, "reference", json_sprintf("%016llx", (unsigned long long)rt_guard_reference_digest(reference)));
    (void)json_object_set_new(json, "signals", list);
    return json;
}

json_t *rt_guard_view_account(const rt_guard *guard, const rt_ladders *ladders,
                              const rt_guard_account *account)
{
    json_t *json = rt_guard_view_row(guard, ladders, account),
           *explained = rt_guard_view_explain(guard, account);
    const rt_ladder_entry *entry = ladders ? rt_ladders_find(ladders, account) : NULL;
    (void)json_object_update_missing(json, explained);
    json_decref(explained);
    (void)json_object_set_new(json, "history",
                              entry && entry->history ? rt_guard_history_json(entry->history) : json_null());
    json_t *cluster = account->cluster ? rt_guard_view_cluster(guard, ladders, account->cluster) : NULL;
    (void)json_object_set_new(json, "linked", cluster ? cluster : json_null());
    return json;
}

/* ---- what to review */

typedef struct item { /* an account, or a cluster of which `account` is the one with most evidence */
    const rt_guard_account *account;
    uint32_t cluster; /* 0: the account alone */
    uint32_t covers;  /* accounts */
    bool waiting;     /* for a decision of a person */
    bool listed;      /* by Benjamini and Hochberg's rule only */
} item;

static int by_block_p(const void *a, const void *b)
{
    const rt_guard_account *x = *(const rt_guard_account *const *)a, *y = *(const rt_guard_account *const *)b;
    const float p = rt_guard_final_p(x), q = rt_guard_final_p(y);
    if (p != q)
        return p < q ? -1 : 1;
    return x->log_e != y->log_e ? (x->log_e > y->log_e ? -1 : 1) : strcmp(x->name, y->name);
}

static double usefulness(const item *i) { return (double)i->account->log_e + log(i->covers); }

static int by_usefulness(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->waiting != y->waiting)
        return x->waiting ? -1 : 1;
    if (x->listed != y->listed)
        return x->listed ? 1 : -1;
    const double u = usefulness(x), v = usefulness(y);
    if (u != v)
        return u > v ? -1 : 1;
    return strcmp(x->account->name, y->account->name);
}

/* Benjamini and Hochberg's list at rate q.  A list for people to look at, so dependence between accounts is
 * let pass. */
static size_t listed(const rt_guard_account *const *accounts, size_t n, double q)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)rt_guard_final_p(accounts[i]) <= q * (double)(i + 1) / (double)n)
            size = i + 1;
    return size;
}

static bool is_accused_cluster(const rt_guard_account *account)
{
    return account->cluster && account->lift_p < 1;
}

/* One item for an accused cluster, one for each other account. */
static void take(item *items, size_t *n, const rt_guard_account *account, bool waiting, bool listed_only)
{
    const uint32_t cluster = is_accused_cluster(account) ? account->cluster : 0;
    for (size_t i = 0; cluster && i < *n; i++)
        if (items[i].cluster == cluster) {
            items[i].covers++;
            items[i].waiting |= waiting;
            items[i].listed &= listed_only;
            if (account->log_e > items[i].account->log_e)
                items[i].account = account;
            return;
        }
    items[(*n)++] = (item){account, cluster, 1, waiting, listed_only};
}

static json_t *item_json(const rt_guard *guard, const rt_ladders *ladders, const item *i)
{
    json_t *rows = json_array();
    char why[160];
    for (size_t k = 0;
         i->cluster && k < rt_guard_count(guard) && json_array_size(rows) < RT_GUARD_VIEW_MEMBERS_MAX; k++)
        if (rt_guard_account_at(guard, k)->cluster == i->cluster)
            (void)json_array_append_new(rows,
                                        rt_guard_view_row(guard, ladders, rt_guard_account_at(guard, k)));
    if (!i->cluster)
        (void)json_array_append_new(rows, rt_guard_view_row(guard, ladders, i->account));
    if (i->waiting)
        (void)snprintf(why, sizeof why,
                       "a decision is waited for: suspension is proposed, or a challenge was answered");
    else if (i->listed)
        (void)snprintf(why, sizeof why,
                       "its p-value stands out among all accounts; nothing has been done yet");
    else if (i->cluster)
        (void)snprintf(why, sizeof why, "one decision covers %u linked accounts", i->covers);
    else
        (void)snprintf(why, sizeof why, "on the ladder by its own evidence");
    return json_pack(
        "{s:s, s:o, s:s, s:b, s:b, s:I, s:f, s:f, s:o}", "kind", i->cluster ? "cluster" : "account", "id",
        i->cluster ? json_integer(i->cluster) : rt_json_text(i->account->name, strlen(i->account->name)),
        "why", why, "waiting", i->waiting, "listed_only", i->listed, "covers", (json_int_t)i->covers, "e",
        fmin(1e30, rt_guard_e(i->account)), "p", (double)rt_guard_final_p(i->account), "accounts", rows);
}

json_t *rt_guard_view_review(const rt_guard *guard, const rt_ladders *ladders, double q)
{
    const size_t n = rt_guard_count(guard);
    const rt_guard_account **accounts = calloc(n + 1, sizeof *accounts);
    item *items = calloc(n + 1, sizeof *items);
    json_t *list = json_array();
    size_t count = 0, size = 0;
    if (accounts && items) {
        for (size_t i = 0; i < n; i++)
            accounts[i] = rt_guard_account_at(guard, i);
        if (n)
            qsort(accounts, n, sizeof *accounts, by_block_p);
        size = listed(accounts, n, q);
        for (size_t i = 0; i < n; i++) {
            const rt_ladder_entry *entry = ladders ? rt_ladders_find(ladders, accounts[i]) : NULL;
            const bool on_ladder = entry && entry->state.rung > RT_RUNG_OBSERVE;
            if (i < size || on_ladder)
                take(items, &count, accounts[i], entry && (entry->state.proposed || entry->answered),
                     !on_ladder);
        }
        if (count)
            qsort(items, count, sizeof *items, by_usefulness);
        for (size_t i = 0; i < count && i < RT_GUARD_VIEW_LIST_MAX; i++)
            (void)json_array_append_new(list, item_json(guard, ladders, &items[i]));
    }
    free(accounts);
    free(items);
    return json_pack("{s:o, s:I, s:I, s:f, s:I}", "items", list, "total", (json_int_t)count, "listed",
                     (json_int_t)size, "false_share", q, "accounts", (json_int_t)n);
}
