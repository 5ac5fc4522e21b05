/* base/clock.h - time, and the interrupt flag that long work looks at between steps. */
#ifndef RT_BASE_CLOCK_H
#define RT_BASE_CLOCK_H

#include <stdint.h>

double rt_clock_seconds(void); /* monotonic; only differences mean anything */
int64_t rt_clock_unix_seconds(void);
double rt_clock_unix(void);          /* seconds since 1970 with their fraction */
uint64_t rt_peak_memory_bytes(void); /* the process's peak resident set so far */

#endif
