/* guard/view.h - what the guard knows, as JSON for people: the operator's page, the commands and the record
 * show the same.
 *
 * Each returns an object that the caller owns; NULL: out of memory.  `ladders` may be NULL: no rungs are
 * told. The guard and the ladders must not change meanwhile. */
#ifndef RT_GUARD_VIEW_H
#define RT_GUARD_VIEW_H

#include <jansson.h>

#include "guard/cluster.h"
#include "guard/ladders.h"

enum { RT_GUARD_VIEW_LIST_MAX = 500, RT_GUARD_VIEW_MEMBERS_MAX = 60 };

/* rt_guard_result, then confirmed, weeks, use_class, last and, with ladders, rung, proposed, answered, until,
 * exemplars (ids of telling requests). */
json_t *rt_guard_view_row(const rt_guard *guard, const rt_ladders *ladders, const rt_guard_account *account);

/* Every feature with its part in the score: an appeal can be judged by it. */
json_t *rt_guard_view_explain(const rt_guard *guard, const rt_guard_account *account);
/* The explanation, the history, the cluster and the links to its members. */
json_t *rt_guard_view_account(const rt_guard *guard, const rt_ladders *ladders,
                              const rt_guard_account *account);

/* {items: [{kind: account | cluster, id, why, waiting, e, p, rung, accounts: [rows]}], listed, false_share}:
 * what a person should look at.  First what waits for a decision, then what one decision settles most of:
 * evidence, and how many accounts it covers.  Beside what is on the ladder it lists accounts that Benjamini
 * and Hochberg's rule takes at the rate q: of those a share q is expected to be there by chance. */
json_t *rt_guard_view_review(const rt_guard *guard, const rt_ladders *ladders, double q);

/* {clusters: [{cluster, size, p, accused, confirmed, e, partition: {shared, inside, expected, p}, members:
 * [names]}]}, most evidence first; partition: see partition.h. */
json_t *rt_guard_view_clusters(const rt_guard *guard);
/* One of them with its members as rows and the links between them: {a, b, total, address, payer, ...}, nats.
 * NULL where there is none of this id. */
json_t *rt_guard_view_cluster(const rt_guard *guard, const rt_ladders *ladders, uint32_t id);

/* The reference, the rates that it supports for each rung, drift. */
json_t *rt_guard_view_calibration(const rt_guard *guard, const rt_guard_policy *policy);

/* Who would be hit by another policy: {rungs: [{rung, now, then}], accounts: [{account, now, then, p, e}]},
 * each account taken without a history.  proposed suspensions count as such. */
json_t *rt_guard_view_what_if(const rt_guard *guard, const rt_guard_policy *now, const rt_guard_policy *then);
/* The rung of an account without a history; *proposed: would a suspension be proposed? */
rt_rung rt_guard_rung_of(const rt_guard *guard, const rt_guard_policy *policy,
                         const rt_guard_account *account, bool *proposed);

#endif
