/* serve/fair.c - see fair.h. */
#include "serve/fair.h"

#include <stdlib.h>

enum { QUANTUM = 1024 }; /* tokens a round */

void rt_fair_deinit(rt_fair *fair)
{
    free(fair->flows);
    *fair = (rt_fair){0};
}

bool rt_fair_push(rt_fair *fair, rt_job *job)
{
    rt_fair_flow *flow = NULL;
    for (size_t i = 0; i < fair->n_flows && !flow; i++)
        if (fair->flows[i].account == job->account)
            flow = &fair->flows[i];
    if (!flow) {
        if (fair->n_flows == fair->capacity) {
            const size_t capacity = 2 * fair->capacity + 16;
            rt_fair_flow *flows = realloc(fair->flows, capacity * sizeof *flows);
            if (!flows)
                return false;
            fair->flows = flows;
            fair->capacity = capacity;
        }
        flow = &fair->flows[fair->n_flows++];
        *flow = (rt_fair_flow){.account = job->account};
    }
    job->next = NULL;
    if (flow->last)
        flow->last->next = job;
    else
        flow->first = job;
    flow->last = job;
    fair->n_jobs++;
    return true;
}

/* An empty queue leaves the round, and its credit with it. */
static void remove_flow(rt_fair *fair, size_t index)
{
    for (size_t i = index; i + 1 < fair->n_flows; i++)
        fair->flows[i] = fair->flows[i + 1];
    fair->n_flows--;
    if (index < fair->turn)
        fair->turn--;
    else if (index == fair->turn)
        fair->arrived = false;
    if (fair->turn >= fair->n_flows)
        fair->turn = 0;
}

rt_job *rt_fair_next(rt_fair *fair, uint64_t (*cost)(const rt_job *job))
{
    if (fair->n_flows == 0)
        return NULL;
    if (fair->n_flows == 1) /* nobody to be fair to */
        return fair->flows[fair->turn = 0].first;
    for (;;) {
        rt_fair_flow *flow = &fair->flows[fair->turn];
        if (!fair->arrived) {
            flow->credit += QUANTUM;
            fair->arrived = true;
        }
        if (flow->credit >= cost(flow->first))
            return flow->first;
        fair->turn = (fair->turn + 1) % fair->n_flows;
        fair->arrived = false;
    }
}

void rt_fair_spend(rt_fair *fair, uint64_t cost, bool pop)
{
    rt_fair_flow *flow = &fair->flows[fair->turn];
    flow->credit -= flow->credit < cost ? flow->credit : cost;
    if (!pop)
        return;
    flow->first = flow->first->next;
    fair->n_jobs--;
    if (!flow->first) {
        flow->last = NULL;
        remove_flow(fair, fair->turn);
    }
}

rt_job *rt_fair_sift(rt_fair *fair, bool (*wanted)(void *context, const rt_job *job), void *context)
{
    rt_job *out = NULL, **end = &out;
    for (size_t i = 0; i < fair->n_flows;) {
        rt_fair_flow *flow = &fair->flows[i];
        rt_job **link = &flow->first;
        flow->last = NULL;
        while (*link) {
            rt_job *job = *link;
            if (wanted(context, job)) {
                flow->last = job;
                link = &job->next;
                continue;
            }
            *link = job->next;
            job->next = NULL;
            *end = job;
            end = &job->next;
            fair->n_jobs--;
        }
        if (flow->first)
            i++;
        else
            remove_flow(fair, i);
    }
    return out;
}
