/* base/log.h - words for the user from inside the library, through a callback.
 *
 * The library never prints: what is worth saying on the way (a file skipped, a slower path taken) goes
 * to the sink that the program has set; without one it is dropped. */
#ifndef RT_BASE_LOG_H
#define RT_BASE_LOG_H

#include "retort/error.h"

typedef enum rt_log_level { RT_LOG_DEBUG, RT_LOG_INFO, RT_LOG_WARNING } rt_log_level;
/* text: one line without its newline, borrowed for the call.  May be called from any thread. */
typedef void (*rt_log_sink)(void *context, rt_log_level level, const char *text);

/* Set once, before other threads log; sink NULL drops everything. */
void rt_log_set(rt_log_sink sink, void *context, rt_log_level lowest);
void rt_log(rt_log_level level, const char *fmt, ...) RT_PRINTF(2, 3);

#endif
