/* guard/cluster.c - see cluster.h. */
#include "guard/cluster.h"

#include <math.h>
#include <stdlib.h>

#include "guard/attach.h"

static const float edge_min = (float)RT_GUARD_EDGE_MIN, edge_alone = 4.0F; /* nats */
static const double correlation = 0.5;
static const float accused_p = 1e-3F, lift_least = 1e-6F;
enum { ACCUSED_SIZE = 3, GROUP_MIN = 4, GROUP_SHARE = 3, ROUNDS_MAX = 8 };

typedef struct edge {
    uint32_t a, b;
    float weight;
} edge;

typedef struct graph {
    const rt_guard_links *links;
    edge *edges;
    size_t n, capacity;
    bool failed;
} graph;

static void add_pair(void *context, size_t a, size_t b)
{
    graph *g = context;
    if (g->n == g->capacity && !g->failed) {
        const size_t capacity = g->capacity * 2 + 4096;
        edge *edges = realloc(g->edges, capacity * sizeof *edges);
        g->failed = !edges;
        if (edges) {
            g->edges = edges;
            g->capacity = capacity;
        }
    }
    if (!g->failed)
        g->edges[g->n++] = (edge){(uint32_t)a, (uint32_t)b, 0};
}

static int by_ends(const void *x, const void *y)
{
    const edge *a = x, *b = y;
    if (a->a != b->a)
        return a->a < b->a ? -1 : 1;
    return (a->b > b->b) - (a->b < b->b);
}

/* Each pair once, with its evidence; weak ones go. */
static void weigh(graph *g)
{
    size_t kept = 0;
    if (g->n)
        qsort(g->edges, g->n, sizeof *g->edges, by_ends);
    for (size_t i = 0; i < g->n; i++) {
        if (i && g->edges[i].a == g->edges[i - 1].a && g->edges[i].b == g->edges[i - 1].b)
            continue;
        edge e = g->edges[i];
        e.weight = rt_guard_link_of(g->links, e.a, e.b).total;
        g->edges[i].weight = e.weight; /* the next one compares ends only */
        if (e.weight >= edge_min)
            g->edges[kept++] = e;
    }
    g->n = kept;
}

/* neighbours of v: list[start[v] .. start[v + 1]), ascending */
static rt_status neighbours(size_t **start, uint32_t **list, const graph *g, size_t n, rt_error *err)
{
    *start = calloc(n + 2, sizeof **start);
    *list = calloc(g->n * 2 + 1, sizeof **list);
    if (!*start || !*list)
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory for %zu links", g->n);
    for (size_t i = 0; i < g->n; i++) {
        (*start)[g->edges[i].a + 2]++;
        (*start)[g->edges[i].b + 2]++;
    }
    for (size_t v = 2; v < n + 2; v++)
        (*start)[v] += (*start)[v - 1];
    /* edges are sorted by (a, b): for each v first the smaller neighbours, then the larger, both ascending */
    for (size_t i = 0; i < g->n; i++)
        (*list)[(*start)[g->edges[i].b + 1]++] = g->edges[i].a;
    for (size_t i = 0; i < g->n; i++)
        (*list)[(*start)[g->edges[i].a + 1]++] = g->edges[i].b;
    return RT_OK;
}

static bool has_common(const size_t *start, const uint32_t *list, uint32_t a, uint32_t b)
{
    size_t i = start[a], k = start[b];
    while (i < start[a + 1] && k < start[b + 1]) {
        if (list[i] == list[k])
            return true;
        if (list[i] < list[k])
            i++;
        else
            k++;
    }
    return false;
}

static uint32_t root_of(uint32_t *parent, uint32_t v)
{
    while (parent[v] != v) {
        parent[v] = parent[parent[v]];
        v = parent[v];
    }
    return v;
}

/* The smaller index becomes the root, so a cluster is named by its first account. */
static void join(uint32_t *parent, uint32_t a, uint32_t b)
{
    a = root_of(parent, a);
    b = root_of(parent, b);
    if (a < b)
        parent[b] = a;
    else
        parent[a] = b;
}

static int by_weight(const void *x, const void *y)
{
    const edge *a = x, *b = y;
    if (a->weight != b->weight)
        return a->weight > b->weight ? -1 : 1;
    return by_ends(x, y);
}

/* An edge between two groups: of the member `inner` of the smaller one. */
typedef struct bridge {
    uint32_t small, large, inner;
} bridge;

static int by_groups(const void *x, const void *y)
{
    const bridge *a = x, *b = y;
    if (a->small != b->small)
        return a->small < b->small ? -1 : 1;
    if (a->large != b->large)
        return a->large < b->large ? -1 : 1;
    return (a->inner > b->inner) - (a->inner < b->inner);
}

static bridge bridge_of(uint32_t *parent, const uint32_t *sizes, const edge *e)
{
    const uint32_t a = root_of(parent, e->a), b = root_of(parent, e->b);
    const bool first = sizes[a] < sizes[b] || (sizes[a] == sizes[b] && a < b);
    return first ? (bridge){a, b, e->a} : (bridge){b, a, e->b};
}

/* Joins groups of which a third of the smaller one's members have an edge to the other; says whether any
 * were: two operators who hire the same exits meet in a few members only. */
static bool join_groups(uint32_t *parent, uint32_t *sizes, const graph *g, bridge *bridges)
{
    size_t n = 0;
    bool joined = false;
    for (size_t i = 0; i < g->n; i++)
        if (root_of(parent, g->edges[i].a) != root_of(parent, g->edges[i].b))
            bridges[n++] = bridge_of(parent, sizes, &g->edges[i]);
    if (n)
        qsort(bridges, n, sizeof *bridges, by_groups);
    for (size_t i = 0, end; i < n; i = end) {
        size_t members = 0;
        for (end = i;
             end < n && bridges[end].small == bridges[i].small && bridges[end].large == bridges[i].large;
             end++)
            members += end == i || bridges[end].inner != bridges[end - 1].inner;
        const uint32_t a = root_of(parent, bridges[i].small), b = root_of(parent, bridges[i].large);
        if (a == b || members < GROUP_MIN / 2 || members * GROUP_SHARE < sizes[bridges[i].small])
            continue;
        const uint32_t size = sizes[a] + sizes[b];
        join(parent, a, b);
        sizes[root_of(parent, a)] = size;
        joined = true;
    }
    return joined;
}

/* Roots of connected parts: the strongest edges first; groups join as join_groups says. */
static rt_status connect(uint32_t *parent, graph *g, size_t n, rt_error *err)
{
    size_t *start = NULL;
    uint32_t *list = NULL, *sizes = calloc(n + 1, sizeof *sizes);
    bridge *bridges = calloc(g->n + 1, sizeof *bridges);
    rt_status status = sizes && bridges
                           ? neighbours(&start, &list, g, n, err)
                           : rt_error_set(err, RT_NO_MEMORY, "guard: no memory for %zu links", g->n);
    if (status == RT_OK) {
        size_t kept = 0;
        for (size_t i = 0; i < g->n; i++)
            if (g->edges[i].weight >= edge_alone || has_common(start, list, g->edges[i].a, g->edges[i].b))
                g->edges[kept++] = g->edges[i];
        g->n = kept;
        if (kept)
            qsort(g->edges, kept, sizeof *g->edges, by_weight);
        for (size_t i = 0; i < n; i++) {
            parent[i] = (uint32_t)i;
            sizes[i] = 1;
        }
        for (size_t i = 0; i < kept; i++) {
            const uint32_t a = root_of(parent, g->edges[i].a), b = root_of(parent, g->edges[i].b);
            if (a == b || (sizes[a] >= GROUP_MIN && sizes[b] >= GROUP_MIN))
                continue;
            const uint32_t size = sizes[a] + sizes[b];
            join(parent, a, b);
            sizes[root_of(parent, a)] = size;
        }
        for (size_t round = 0; round < ROUNDS_MAX && join_groups(parent, sizes, g, bridges); round++)
            ;
        for (size_t i = 0; i < n; i++)
            parent[i] = root_of(parent, (uint32_t)i);
    }
    free(start);
    free(list);
    free(sizes);
    free(bridges);
    return status;
}

/* The normal deviate with upper tail p (Acklam's rational approximation, relative error under 1.2e-9). */
static double deviate(double p)
{
    static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                               1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
    static const double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                               6.680131188771972e+01, -1.328068155288572e+01};
    static const double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                               -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
    static const double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                               3.754408661907416e+00};
    p = fmin(1 - 1e-12, fmax(1e-12, p));
    const double tail = fmin(p, 1 - p);
    double z;
    if (tail < 0.02425) {
        const double q = sqrt(-2 * log(tail));
        z = -(((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
            ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
        return p < 0.5 ? z : -z;
    }
    const double q = 0.5 - p, r = q * q;
    return (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
           (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

typedef struct member {
    uint32_t root, account;
} member;

static int by_root(const void *a, const void *b)
{
    const member *x = a, *y = b;
    if (x->root != y->root)
        return x->root < y->root ? -1 : 1;
    return (x->account > y->account) - (x->account < y->account);
}

/* p of a cluster from its members' own p-values; *median gets their middle score. */
static rt_guard_cluster judge(const rt_guard *guard, const member *members, size_t count, float *scratch)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const rt_guard_account *account = rt_guard_account_at(guard, members[i].account);
        sum += deviate((double)account->p);
        scratch[i] = account->score;
    }
    qsort(scratch, count, sizeof *scratch, by_value);
    const double k = (double)count, z = sum / sqrt(k + k * (k - 1) * correlation);
    rt_guard_cluster cluster = {.id = members[0].account + 1,
                                .size = (uint32_t)count,
                                .p = (float)(0.5 * erfc(z / sqrt(2))),
                                .median = scratch[count / 2]};
    cluster.accused = count >= ACCUSED_SIZE && cluster.p < accused_p;
    return cluster;
}

static void tell_member(rt_guard_account *account, const rt_guard_cluster *cluster)
{
    account->cluster = cluster->id;
    account->cluster_p = cluster->p;
    if (!cluster->accused)
        return;
    account->lift_p = fmaxf(cluster->p, lift_least);
    account->cluster_score = cluster->median;
    if (!account->flagged_at && account->n)
        account->flagged_at = account->n_before + account->n;
}

/* parent[i]: the root of account i */
static rt_status judge_all(rt_guard *guard, const uint32_t *parent, size_t n, rt_error *err)
{
    member *members = calloc(n + 1, sizeof *members);
    float *scratch = calloc(n + 1, sizeof *scratch);
    rt_status status = RT_OK;
    if (!members || !scratch)
        status = rt_error_set(err, RT_NO_MEMORY, "guard: no memory to judge clusters of %zu accounts", n);
    for (size_t i = 0; status == RT_OK && i < n; i++)
        members[i] = (member){parent[i], (uint32_t)i};
    if (status == RT_OK && n)
        qsort(members, n, sizeof *members, by_root);
    for (size_t i = 0, end; status == RT_OK && i < n; i = end) {
        for (end = i; end < n && members[end].root == members[i].root; end++)
            ;
        for (size_t k = i; k < end; k++) {
            rt_guard_account *account = rt_guard_account_edit(guard, members[k].account);
            account->cluster = 0;
            account->cluster_p = account->lift_p = 1;
            account->cluster_score = -1e9F;
        }
        if (end - i < 2)
            continue;
        const rt_guard_cluster cluster = judge(guard, members + i, end - i, scratch);
        for (size_t k = i; k < end; k++)
            tell_member(rt_guard_account_edit(guard, members[k].account), &cluster);
    }
    free(members);
    free(scratch);
    return status;
}

rt_status rt_guard_clusters_find(rt_guard *guard, rt_error *err)
{
    const size_t n = rt_guard_count(guard);
    rt_guard_links *links = NULL;
    graph g = {0};
    uint32_t *parent = calloc(n + 1, sizeof *parent);
    rt_status status = parent ? rt_guard_links_open(&links, guard, err)
                              : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to link %zu accounts", n);
    if (status == RT_OK) {
        g.links = links;
        rt_guard_links_candidates(links, add_pair, &g);
        if (g.failed)
            status = rt_error_set(err, RT_NO_MEMORY, "guard: no memory for the links of %zu accounts", n);
    }
    if (status == RT_OK) {
        weigh(&g);
        status = connect(parent, &g, n, err);
    }
    if (status == RT_OK)
        status = rt_guard_attach(parent, guard, err);
    if (status == RT_OK)
        status = judge_all(guard, parent, n, err);
    rt_guard_links_close(links);
    free(g.edges);
    free(parent);
    return status;
}

static int by_evidence(const void *a, const void *b)
{
    const rt_guard_cluster *x = a, *y = b;
    if (x->p != y->p)
        return x->p < y->p ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

rt_status rt_guard_clusters_list(rt_guard_cluster **out, size_t *count, const rt_guard *guard, rt_error *err)
{
    const size_t n = rt_guard_count(guard);
    member *members = calloc(n + 1, sizeof *members);
    float *scratch = calloc(n + 1, sizeof *scratch);
    size_t linked = 0;
    *out = calloc(n / 2 + 1, sizeof **out);
    *count = 0;
    const bool enough = members && scratch && *out;
    for (size_t i = 0; enough && i < n; i++)
        if (rt_guard_account_at(guard, i)->cluster)
            members[linked++] = (member){rt_guard_account_at(guard, i)->cluster - 1, (uint32_t)i};
    if (linked)
        qsort(members, linked, sizeof *members, by_root);
    for (size_t i = 0, end; enough && i < linked; i = end) {
        for (end = i; end < linked && members[end].root == members[i].root; end++)
            ;
        if (end - i >= 2)
            (*out)[(*count)++] = judge(guard, members + i, end - i, scratch);
    }
    if (*count)
        qsort(*out, *count, sizeof **out, by_evidence);
    free(members);
    free(scratch);
    if (enough)
        return RT_OK;
    free(*out);
    *out = NULL;
    return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to list clusters");
}
