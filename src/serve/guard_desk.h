/* serve/guard_desk.h - what the guard knows, for the operator's page: GET /admin/v1/guard/... */
#ifndef RT_SERVE_GUARD_DESK_H
#define RT_SERVE_GUARD_DESK_H

#include "account/admin.h"
#include "serve/watch.h"

bool rt_guard_desk_is(const char *path); /* is the path one of these? */
/* review[?q=], accounts/{id}, clusters, clusters/{n}, calibration; POST what-if {policy: YAML}.  Changes
 * nothing. From any thread; waits while a request is judged, at most the time of a sweep.  watch NULL: 404.
 */
rt_desk_reply rt_guard_desk_call(rt_watch *watch, const char *method, const char *path, const char *query,
                                 const json_t *body);
/* Gives each account's row in `body` the case that its state rests on (rt_desk_cases), or null. */
void rt_guard_desk_tell_cases(json_t *body, const json_t *cases);

#endif
