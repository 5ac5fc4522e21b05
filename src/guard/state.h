/* guard/state.h - a guard and its ladders, kept: in files (<path> holds the accounts, <path>.ladder the rungs
 * and histories), or as the same two runs of bytes elsewhere. */
#ifndef RT_GUARD_STATE_H
#define RT_GUARD_STATE_H

#include "guard/ladders.h"

/* The number of the last row that each of the two has seen; 0: rows have no numbers here.  A kill between the
 * two files leaves ladders that have seen more rows than the guard: those are fed quietly
 * (rt_ladders_set_quiet). */
typedef struct rt_guard_marks {
    int64_t guard, ladders;
} rt_guard_marks;

/* Both are written whole or not at all, the ladders first. */
rt_status rt_guard_state_save(const rt_guard *guard, const rt_ladders *ladders, int64_t mark,
                              const char *path, rt_error *err);
/* A file that is not there is no error: the guard begins empty. */
rt_status rt_guard_state_load(rt_guard *guard, rt_ladders *ladders, rt_guard_marks *marks, const char *path,
                              rt_error *err);

/* The ladders as JSON text; malloc'd, NULL: no memory.  And back, into a guard that has its accounts; `where`
 * names the text in errors. */
char *rt_ladders_text(const rt_ladders *ladders, int64_t mark);
rt_status rt_ladders_read(rt_ladders *ladders, int64_t *mark, const char *text, size_t size,
                          const char *where, rt_error *err);

#endif
