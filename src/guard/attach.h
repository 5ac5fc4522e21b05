/* guard/attach.h - accounts that fit no single partner but a cluster as a whole.
 *
 * An operator who rotates exits uses each with others of his accounts; one whose account sends only cover
 * traffic resembles none of them.  Such an account joins a cluster when most of its requests come from two or
 * more addresses of the cluster's, and it was made together with a member or uses the members' program.  A
 * stranger behind one of the exits has one address in common, not several. */
#ifndef RT_GUARD_ATTACH_H
#define RT_GUARD_ATTACH_H

#include "guard/guard.h"

/* roots[i] is the root of account i's cluster (itself: alone), with roots as the smallest index of each
 * cluster. Lone accounts that fit one are given its root. */
rt_status rt_guard_attach(uint32_t *roots, const rt_guard *guard, rt_error *err);

#endif
