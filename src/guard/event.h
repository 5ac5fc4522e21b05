/* guard/event.h - one request as the guard sees it: a row of recorded traffic, or what the server saw.
 *
 * All texts are borrowed for the time of the call and need no NUL.  The guard keeps hashes and counts
 * of them, never the texts themselves (the account's name excepted). */
#ifndef RT_GUARD_EVENT_H
#define RT_GUARD_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_guard_span {
    const char *data;
    size_t size;
} rt_guard_span;

enum {
    RT_GUARD_ACCOUNT_BYTES_MAX = 63,   /* a longer account name is refused */
    RT_GUARD_ROW_BYTES_MAX = 32 << 20, /* of one line of recorded traffic */
    RT_GUARD_BIAS_IDS_MAX = 64,        /* logit_bias entries looked at in one request */
};

#define RT_GUARD_TS_MAX 253402300800.0 /* the year 10000 */

typedef struct rt_guard_event {
    double ts; /* seconds, UTC, of the request's arrival */
    rt_guard_span account, ip, asn, user_agent, pay_hash, model, prompt;
    rt_guard_span request; /* its id; empty where there is none */
    double created;        /* seconds, UTC: when the account was made; 0 where it is not known */
    float temperature;     /* 1 where it is not given */
    uint32_t n;            /* answers asked for, at least 1 */
    uint32_t max_tokens;   /* 0 where it is not given */
    uint32_t top_logprobs;
    bool logprobs, stream;
    uint32_t bias_ids[RT_GUARD_BIAS_IDS_MAX]; /* token ids with a logit_bias */
    uint32_t bias_count;
    uint32_t prompt_tokens, completion_tokens;
} rt_guard_event;

/* A parsed row owns its texts through `json`. */
typedef struct rt_guard_row {
    rt_guard_event event;
    void *json;
} rt_guard_row;

/* Reads one line of JSON.  `where` names the place in errors; a field of another type than expected, a
 * number out of range, no account, no ts: RT_CORRUPT.  Fields that the guard does not know are passed over.
 */
rt_status rt_guard_row_parse(rt_guard_row *row, const char *line, size_t size, const char *where,
                             rt_error *err);
void rt_guard_row_deinit(rt_guard_row *row);

#endif
