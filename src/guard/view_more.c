/* guard/view_more.c - see view.h: clusters with their links, calibration, what-if. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "guard/partition.h"
#include "guard/result.h"
#include "guard/view.h"

enum { PARTITION_MAX = 256 };

static json_t *name_of(const rt_guard_account *account)
{
    return rt_json_text(account->name, strlen(account->name));
}

/* Was a set of prompts dealt out among the members?  Beside every so many-th account outside (partition.h).
 */
static json_t *partition_json(const rt_guard *guard, uint32_t id)
{
    const rt_hash_sample *samples[2 * PARTITION_MAX];
    const size_t n = rt_guard_count(guard), step = n / PARTITION_MAX + 1;
    size_t members = 0, all;
    for (size_t i = 0; i < n && members < PARTITION_MAX; i++)
        if (rt_guard_account_at(guard, i)->cluster == id)
            samples[members++] = &rt_guard_account_at(guard, i)->link.fillers;
    all = members;
    for (size_t i = 0; i < n && all < members + PARTITION_MAX; i += step)
        if (rt_guard_account_at(guard, i)->cluster != id)
            samples[all++] = &rt_guard_account_at(guard, i)->link.fillers;
    rt_guard_partition found;
    rt_error err = {0};
    if (rt_guard_partition_test(&found, samples, members, all, &err) != RT_OK)
        return json_null();
    return json_pack("{s:I, s:I, s:f, s:f}", "shared", (json_int_t)found.shared, "inside",
                     (json_int_t)found.inside, "expected", found.expected, "p", found.p);
}

static json_t *cluster_json(const rt_guard *guard, const rt_guard_cluster *cluster)
{
    json_t *members = json_array();
    double sum = 0;
    bool confirmed = false;
    for (size_t i = 0; i < rt_guard_count(guard); i++) {
        const rt_guard_account *account = rt_guard_account_at(guard, i);
        if (account->cluster != cluster->id)
            continue;
        (void)json_array_append_new(members, name_of(account));
        sum += fmin(1e30, rt_guard_e(account));
        confirmed |= (account->confirmed & 2U) != 0;
    }
    return json_pack("{s:I, s:I, s:f, s:b, s:b, s:f, s:o, s:o}", "cluster", (json_int_t)cluster->id, "size",
                     (json_int_t)cluster->size, "p", (double)cluster->p, "accused", cluster->accused,
                     "confirmed", confirmed, "e", sum / fmax(1, (double)json_array_size(members)),
                     "partition", partition_json(guard, cluster->id), "members", members);
}

json_t *rt_guard_view_clusters(const rt_guard *guard)
{
    rt_guard_cluster *clusters = NULL;
    size_t count = 0;
    rt_error err = {0};
    if (rt_guard_clusters_list(&clusters, &count, guard, &err) != RT_OK)
        return NULL;
    json_t *list = json_array();
    for (size_t i = 0; i < count && i < RT_GUARD_VIEW_LIST_MAX; i++)
        (void)json_array_append_new(list, cluster_json(guard, &clusters[i]));
    free(clusters);
    return json_pack("{s:o, s:I}", "clusters", list, "total", (json_int_t)count);
}

static json_t *link_json(size_t a, size_t b, const rt_guard_link *link)
{
    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "a", (json_int_t)a, "b",
                     (json_int_t)b, "total", (double)link->total, "address", (double)link->address, "payer",
                     (double)link->payer, "created", (double)link->created, "client", (double)link->client,
                     "content", (double)link->content, "wrappers", (double)link->wrappers, "overlap",
                     (double)link->overlap, "presence", (double)link->presence);
}

/* Links between members, by their places among them. */
static json_t *links_json(const rt_guard *guard, const size_t *members, size_t n)
{
    rt_guard_links *links = NULL;
    rt_error err = {0};
    json_t *list = json_array();
    if (rt_guard_links_open(&links, guard, &err) != RT_OK)
        return list;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++) {
            const rt_guard_link link = rt_guard_link_of(links, members[i], members[k]);
            if ((double)link.total >= RT_GUARD_EDGE_MIN)
                (void)json_array_append_new(list, link_json(i, k, &link));
        }
    rt_guard_links_close(links);
    return list;
}

json_t *rt_guard_view_cluster(const rt_guard *guard, const rt_ladders *ladders, uint32_t id)
{
    size_t members[RT_GUARD_VIEW_MEMBERS_MAX], n = 0, size = 0;
    json_t *rows = json_array();
    const rt_guard_account *first = NULL;
    for (size_t i = 0; id && i < rt_guard_count(guard); i++) {
        const rt_guard_account *account = rt_guard_account_at(guard, i);
        if (account->cluster != id)
            continue;
        size++;
        first = first ? first : account;
        if (n == RT_GUARD_VIEW_MEMBERS_MAX)
            continue;
        members[n++] = i;
        (void)json_array_append_new(rows, rt_guard_view_row(guard, ladders, account));
    }
    if (!first) {
        json_decref(rows);
        return NULL;
    }
    return json_pack("{s:I, s:I, s:f, s:b, s:b, s:o, s:o, s:o, s:f}", "cluster", (json_int_t)id, "size",
                     (json_int_t)size, "p", (double)first->cluster_p, "accused", first->lift_p < 1,
                     "confirmed", (first->confirmed & 2U) != 0, "partition", partition_json(guard, id),
                     "members", rows, "links", links_json(guard, members, n), "edge_min", RT_GUARD_EDGE_MIN);
}

/* ---- calibration */

static json_t *rung_support(const rt_guard_reference *reference, const rt_guard_policy *policy, int r)
{
    json_t *classes = json_array();
    const bool accuses = r >= RT_RUNG_CHALLENGE && policy->accuse_by == RT_ACCUSE_BY_E;
    for (int k = 0; k < RT_GUARD_CLASSES; k++) {
        const double least = 1 / ((double)reference->n_benign[k] + 1);
        const rt_evalue_path none = {0};
        /* the most that one week of an account alone can give */
        const double most = exp(rt_evalue_log(&none, rt_evalue_bet(least, least)));
        (void)json_array_append_new(classes, json_pack("{s:s, s:f, s:b}", "class", rt_guard_class_names[k],
                                                       "best", accuses ? 1 / most : least, "supported",
                                                       (accuses ? 1 / most : least) <= policy->p[r]));
    }
    return json_pack("{s:s, s:f, s:s, s:o}", "rung", rt_rung_name((rt_rung)r), "p", policy->p[r], "reads",
                     accuses ? "e of all weeks" : "p of the running week", "alone", classes);
}

json_t *rt_guard_view_calibration(const rt_guard *guard, const rt_guard_policy *policy)
{
    const rt_guard_reference *reference = rt_guard_reference_of(guard);
    json_t *json = rt_guard_drift_json(rt_guard_drift_of(guard), reference), *rungs = json_array();
    for (int r = RT_RUNG_OBSERVE; r < RT_RUNG_COUNT; r++)
        if (policy->p[r] > 0)
            (void)json_array_append_new(rungs, rung_support(reference, policy, r));
    (void)json_object_set_new(json, "rungs", rungs);
    (void)json_object_set_new(json, "habit", json_real((double)reference->habit));
    (void)json_object_set_new(
        json, "reference", json_sprintf("%016llx", (unsigned long long)rt_guard_reference_digest(reference)));
    (void)json_object_set_new(json, "accounts", json_integer((json_int_t)rt_guard_count(guard)));
    (void)json_object_set_new(json, "evicted", json_integer((json_int_t)rt_guard_evicted(guard)));
    return json;
}

/* ---- what-if */

rt_rung rt_guard_rung_of(const rt_guard *guard, const rt_guard_policy *policy,
                         const rt_guard_account *account, bool *proposed)
{
    rt_ladder_state state = {0};
    const rt_ladder_evidence evidence = rt_ladder_evidence_of(guard, account, account->last_ts);
    const rt_ladder_step step = rt_ladder_decide(policy, &state, &evidence);
    *proposed = step.proposed;
    return step.to;
}

static const char *rung_text(rt_rung rung, bool proposed)
{
    return proposed ? "suspension proposed" : rt_rung_name(rung);
}

json_t *rt_guard_view_what_if(const rt_guard *guard, const rt_guard_policy *now, const rt_guard_policy *then)
{
    size_t counts[2][RT_RUNG_COUNT + 1] = {{0}};
    json_t *rungs = json_array(), *changed = json_array();
    size_t changes = 0;
    for (size_t i = 0; i < rt_guard_count(guard); i++) {
        const rt_guard_account *account = rt_guard_account_at(guard, i);
        bool proposed[2];
        const rt_rung old = rt_guard_rung_of(guard, now, account, &proposed[0]),
                      other = rt_guard_rung_of(guard, then, account, &proposed[1]);
        counts[0][proposed[0] ? RT_RUNG_COUNT : (size_t)old]++;
        counts[1][proposed[1] ? RT_RUNG_COUNT : (size_t)other]++;
        if (old == other && proposed[0] == proposed[1])
            continue;
        if (changes++ < RT_GUARD_VIEW_LIST_MAX)
            (void)json_array_append_new(
                changed, json_pack("{s:o, s:s, s:s, s:f, s:f}", "account", name_of(account), "now",
                                   rung_text(old, proposed[0]), "then", rung_text(other, proposed[1]), "p",
                                   (double)rt_guard_block_p(account), "e", fmin(1e30, rt_guard_e(account))));
    }
    for (size_t r = 0; r <= RT_RUNG_COUNT; r++)
        (void)json_array_append_new(
            rungs, json_pack("{s:s, s:I, s:I}", "rung",
                             r == RT_RUNG_COUNT ? "suspension proposed" : rt_rung_name((rt_rung)r), "now",
                             (json_int_t)counts[0][r], "then", (json_int_t)counts[1][r]));
    return json_pack("{s:o, s:o, s:I}", "rungs", rungs, "accounts", changed, "changed", (json_int_t)changes);
}
