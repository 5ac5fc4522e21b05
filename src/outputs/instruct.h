/* outputs/instruct.h - prompts from the teacher itself: self-instruct (Wang et al. 2023, arXiv:2212.10560).
 *
 * Some tasks are shown and the teacher is asked for more of their kind; what it lists is cut into tasks, and
 * those that are too short, too long or nearly said before are left out.  Draws depend on (seed, round,
 * request) alone, so a run that is done again makes the same requests. */
#ifndef RT_OUTPUTS_INSTRUCT_H
#define RT_OUTPUTS_INSTRUCT_H

#include "outputs/minhash.h"
#include "teacher/teacher.h"

typedef struct rt_tasks { /* zero is an empty list */
    char **items;
    size_t count, capacity, n_seeds; /* the first n_seeds are the user's */
    rt_near near;
} rt_tasks;
void rt_tasks_deinit(rt_tasks *tasks);
/* Adds a task unless it is nearly there already; *added (may be NULL) says so. */
rt_status rt_tasks_add(rt_tasks *tasks, const char *text, size_t size, bool *added, rt_error *err);
/* The tasks of a numbered or dashed list, added; *n counts the new ones. */
rt_status rt_tasks_take(rt_tasks *tasks, const char *answer, size_t size, size_t *n, rt_error *err);
/* Appends the request that shows some tasks (six seeds and two made, where there are so many) and asks for
 * more. */
void rt_tasks_request(rt_text *out, const rt_tasks *tasks, uint64_t seed, uint64_t round, uint64_t request);

#endif
