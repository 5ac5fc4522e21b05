/* guard/state.h - a guard and its ladders in files: <path> holds the accounts, <path>.ladder the rungs and
 * histories. */
#ifndef RT_GUARD_STATE_H
#define RT_GUARD_STATE_H

#include "guard/ladders.h"

/* Both are written whole or not at all, one after the other.  A kill in between leaves a ladder that is a
 * little older than the accounts: decisions are then made again, from the same evidence. */
rt_status rt_guard_state_save(const rt_guard *guard, const rt_ladders *ladders, const char *path,
                              rt_error *err);
/* A file that is not there is no error: the guard begins empty. */
rt_status rt_guard_state_load(rt_guard *guard, rt_ladders *ladders, const char *path, rt_error *err);

#endif
