/* teacher/flow.h - when to send, how many at once, how long to wait: the decisions of a polite client.
 *
 * No I/O and no clock of its own: the caller hands in seconds of any steady clock, and jumps of it
 * (backwards, or by more than a minute) are not believed.  One state a host: a 429 pauses all of it, so that
 * hundreds of rows do not each find the wall by themselves.  Concurrency rises by one a reply until the first
 * sign of load, then by one a round, and halves on 429, 503, timeouts and when the time per token doubles; at
 * most once a round. */
#ifndef RT_TEACHER_FLOW_H
#define RT_TEACHER_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"

/* What the headers of an answer say; negative: nothing. */
typedef struct rt_flow_headers {
    double retry_after_s; /* retry-after-ms before Retry-After (seconds, or a date) */
    double remaining_requests, remaining_tokens, reset_requests_s, reset_tokens_s;
    int should_retry; /* x-should-retry: 1 true, 0 false, -1 not there */
} rt_flow_headers;
void rt_flow_headers_clear(rt_flow_headers *headers);
/* One header line "Name: value" of `size` bytes, without its end.  unix_now: for dates. */
void rt_flow_headers_read(rt_flow_headers *headers, const char *line, size_t size, int64_t unix_now);
/* "1s", "6m0s", "250ms", "1h2m3.5s", or bare seconds; negative when it is something else. */
double rt_flow_duration(const char *text, size_t size);

typedef struct rt_flow {
    double now, raw; /* believed seconds since the start; the clock's last reading */
    bool started;
    double limit, limit_max; /* requests in flight that may be */
    bool fixed;              /* limit is the user's and does not move */
    bool loaded;             /* a sign of load was seen: from now on one a round */
    double halved_at;        /* requests sent before this halve no more */
    double pause_until;
    unsigned limited_in_a_row;
    double base_ms_per_token, ms_per_token; /* smallest, and running mean */
    unsigned measured;
    double remaining_requests, remaining_tokens, tokens_per_request; /* negative: not known */
    double requests_reset_at, tokens_reset_at;
    double last_success, first_failure; /* of the host as a whole; first_failure < 0: none since */
    uint64_t successes;
    rt_rng rng;
} rt_flow;

/* concurrency 0: adaptive, from 4 to concurrency_max; else fixed. */
void rt_flow_init(rt_flow *flow, size_t concurrency, size_t concurrency_max, uint64_t seed);
/* Tells the time; returns the believed one, by which all other times here count. */
double rt_flow_time(rt_flow *flow, double clock_s);
/* May one more be sent when `in_flight` are?  Counts it as sent when yes. */
bool rt_flow_may_send(rt_flow *flow, size_t in_flight);
/* Seconds until it is worth asking again, because of a pause; 0: no pause. */
double rt_flow_pause(const rt_flow *flow);

/* After an answer.  sent_at: when its request went out. */
void rt_flow_success(rt_flow *flow, const rt_flow_headers *headers, double sent_at, uint64_t tokens);
/* After a 429: pauses the host; the wait in seconds. */
double rt_flow_limited(rt_flow *flow, const rt_flow_headers *headers, double sent_at);
/* After 503 or a timeout: fewer at once. */
void rt_flow_overloaded(rt_flow *flow, double sent_at);
/* No connection: the host is paused, longer each time in a row. */
void rt_flow_unreachable(rt_flow *flow, unsigned times_in_a_row);
/* How long a row waits before attempt number `attempt` (2, 3, ...): full jitter over 0.5 s doubling to 60 s,
 * and no less than what the server said. */
double rt_flow_backoff(rt_flow *flow, unsigned attempt, const rt_flow_headers *headers);
/* Seconds for which nothing has succeeded while something failed; 0 when all is well. */
double rt_flow_down(const rt_flow *flow);

#endif
