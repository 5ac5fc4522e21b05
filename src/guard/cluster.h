/* guard/cluster.h - accounts of one operator, and whether the operator collects.
 *
 * An edge is a candidate pair whose evidence (link.h) is over a threshold and that a third account supports,
 * or that is strong alone: so no single chance acquaintance joins two groups.  Clusters are the connected
 * parts.
 *
 * Being linked accuses nobody: a class, an office, a family are clusters.  A cluster is judged by what its
 * members do: the mean of their own scores as normal deviates, with members taken to be correlated at 1/2,
 * because people of one office do alike things too.  Where that is far out, members share the evidence, also
 * those that look harmless alone. */
#ifndef RT_GUARD_CLUSTER_H
#define RT_GUARD_CLUSTER_H

#include "guard/guard.h"
#include "guard/link.h"

typedef struct rt_guard_cluster {
    uint32_t id; /* place of its first account, plus 1: the same while that account is in it */
    uint32_t size;
    float p;      /* of the hypothesis that its members are benign */
    float median; /* of the members' own scores */
    bool accused;
} rt_guard_cluster;

/* Links all accounts, writes cluster, cluster_p, cluster_score, lift_p and perhaps flagged_at of each. */
rt_status rt_guard_clusters_find(rt_guard *guard, rt_error *err);

/* The clusters that the last sweep found, largest evidence first; malloc'd. */
rt_status rt_guard_clusters_list(rt_guard_cluster **out, size_t *count, const rt_guard *guard, rt_error *err);

#endif
