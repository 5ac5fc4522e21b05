/* account/meter.h - the arithmetic of limits for one key or one account: pure, without locks or clocks.
 *
 * Two token buckets (requests, tokens) that refill continuously and hold one minute's limit; they keep what
 * was USED rather than what is left, so that a changed limit holds at once.  Sums of tokens and money by UTC
 * day, UTC month and ever; and what is reserved by requests under way.
 *
 *     may a draw of (tokens, cost) be taken?   settled(period) + reserved + draw <= budget
 *
 * Since a request settles at most what it reserved, settled + reserved <= budget holds at every instant. */
#ifndef RT_ACCOUNT_METER_H
#define RT_ACCOUNT_METER_H

#include <stdbool.h>
#include <stdint.h>

#include "account/gate.h"
#include "account/limits.h"

typedef struct rt_meter_draw {
    int64_t tokens, cost; /* cost in nano-USD */
    bool priced;          /* false: no price is known, which a budget in money does not let pass */
} rt_meter_draw;

typedef struct rt_meter {
    double requests_used, tokens_used; /* of the buckets, at used_at */
    double used_at;                    /* seconds */
    int64_t running, reserved_tokens, reserved_cost;
    int64_t day, day_tokens, day_cost;       /* day: days since 1970 */
    int64_t month, month_tokens, month_cost; /* month: 12 x year + month */
    int64_t total_tokens, total_cost;
} rt_meter;

typedef struct rt_instant {
    double bucket_s; /* the clock of the buckets; never negative steps are assumed */
    int64_t unix_s;
} rt_instant;

/* Brings the meter to now: refills the buckets, begins a new day or month.  Before each of the others. */
void rt_meter_roll(rt_meter *meter, const rt_limits *limits, rt_instant now);

/* A request that could never pass (more than a whole bucket or day): 400. */
bool rt_meter_possible(const rt_limits *limits, const rt_meter_draw *draw, rt_refusal *refusal);
/* Requests/min: 429 or true; take it with rt_meter_take_request. */
bool rt_meter_has_request(const rt_meter *meter, const rt_limits *limits, const char *whose,
                          rt_refusal *refusal);
void rt_meter_take_request(rt_meter *meter);
/* Concurrency, tokens/min, tokens/day, budget. */
bool rt_meter_has_room(const rt_meter *meter, const rt_limits *limits, const rt_meter_draw *draw,
                       rt_instant now, const char *whose, rt_refusal *refusal);
void rt_meter_reserve(rt_meter *meter, const rt_meter_draw *draw);
/* More for a request that runs.  Only what ends with the day or the budget can refuse it: the bucket of a
 * minute goes into debt, which the next requests wait for. */
bool rt_meter_has_more(const rt_meter *meter, const rt_limits *limits, const rt_meter_draw *more,
                       rt_instant now, const char *whose, rt_refusal *refusal);
void rt_meter_reserve_more(rt_meter *meter, const rt_meter_draw *more);
/* The end of a request: the reservation goes, what was used is counted, the bucket gets the difference back.
 */
void rt_meter_release(rt_meter *meter, const rt_meter_draw *reserved);
void rt_meter_charge(rt_meter *meter, const rt_meter_draw *reserved, const rt_meter_draw *used);
/* Only the sums, for the persistent copy. */
void rt_meter_add(rt_meter *meter, const rt_meter_draw *used);

/* settled in the budget's period, in the budget's unit; and what is reserved in that unit */
int64_t rt_meter_settled(const rt_meter *meter, const rt_limits *limits);
int64_t rt_meter_reserved(const rt_meter *meter, const rt_limits *limits);

#endif
