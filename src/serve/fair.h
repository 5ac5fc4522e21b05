/* serve/fair.h - whose turn it is: deficit round robin between accounts (Shreedhar and Varghese, 1995).
 *
 * Each account has a queue of its own.  In each round it may spend a quantum of tokens and what it had left;
 * a request begins when its cost (prompt and longest answer) is covered.  So an account with a thousand
 * requests delays another's one request by a round, not by a thousand.  Not for two threads at once. */
#ifndef RT_SERVE_FAIR_H
#define RT_SERVE_FAIR_H

#include "serve/job.h"

typedef struct rt_fair_flow { /* the queue of one account */
    uint64_t account;
    rt_job *first, *last;
    uint64_t credit; /* tokens */
} rt_fair_flow;

typedef struct rt_fair {
    rt_fair_flow *flows;
    size_t n_flows, capacity, turn, n_jobs;
    bool arrived; /* the flow whose turn it is has had its quantum of this round */
} rt_fair;
void rt_fair_deinit(rt_fair *fair); /* jobs in it are not freed */
/* At the end of its account's queue; false: no memory. */
bool rt_fair_push(rt_fair *fair, rt_job *job);
/* The job whose turn it is (stays in the queue), or NULL.  cost: tokens of the job's next sequence, at
 * least 1. */
rt_job *rt_fair_next(rt_fair *fair, uint64_t (*cost)(const rt_job *job));
/* The job that rt_fair_next returned has begun a sequence of this cost; pop: it has no more. */
void rt_fair_spend(rt_fair *fair, uint64_t cost, bool pop);
/* Takes out the jobs for which `wanted` is false, in order; linked by `next`. */
rt_job *rt_fair_sift(rt_fair *fair, bool (*wanted)(void *context, const rt_job *job), void *context);

#endif
