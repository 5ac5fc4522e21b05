/* base/pool.h - the one thread pool of the process.
 *
 * Work is cut into tasks and each idle thread claims the next one, so that a busy neighbour on one
 * core slows only the tasks on that core; threads sleep when there is nothing to claim, they never
 * spin at a barrier.  Which thread runs a task is not defined; the result of a task must depend
 * on its index alone, and then results are the same for every thread count. */
#ifndef RT_BASE_POOL_H
#define RT_BASE_POOL_H

#include <stddef.h>

#include "retort/error.h"

typedef struct rt_pool rt_pool;
/* Runs task `index` on thread `thread` (0 .. rt_pool_threads-1: use it to pick scratch memory). */
typedef void (*rt_task_fn)(void *context, size_t index, unsigned thread);

/* n_threads 0: one for each processor that this process may run on. */
rt_status rt_pool_open(rt_pool **out, unsigned n_threads, rt_error *err);
void rt_pool_close(rt_pool *pool);
unsigned rt_pool_threads(const rt_pool *pool);
/* Runs fn(context, 0 .. n_tasks-1) and returns when all are done; the caller's thread works too.
 * pool NULL: in the caller alone.  Calls from inside a task run serially in that task. */
void rt_pool_run(rt_pool *pool, size_t n_tasks, rt_task_fn fn, void *context);

#endif
