/* guard/history.h - how a suspected account came to be suspected: for those who review it, and for an appeal.
 *
 * Kept for accounts that reach the ladder's first rung, from then on: a point at each check, with every
 * signal's part in the score, and the ids of the requests that look most like collecting.  No text is kept; a
 * prompt is shown only where the account database keeps it. */
#ifndef RT_GUARD_HISTORY_H
#define RT_GUARD_HISTORY_H

#include <jansson.h>

#include "guard/guard.h"

enum {
    RT_GUARD_POINTS = 64,
    RT_GUARD_EXEMPLARS = 20,
    RT_GUARD_PARTS = 16,
    RT_GUARD_REQUEST_BYTES = RT_GUARD_REQUEST_ID_BYTES + 1
};

typedef struct rt_guard_point {
    double ts;
    uint32_t requests;
    float score, p, log_e;
    float parts[RT_GUARD_PARTS]; /* of the score, by signal in the order of the table */
} rt_guard_point;

typedef struct rt_guard_exemplar {
    char request[RT_GUARD_REQUEST_BYTES]; /* its id; cut where it is longer */
    double ts;
    float probability; /* of what it wants most */
    int8_t want;       /* rt_guard_want; -1: nothing that stands out */
    uint32_t top_logprobs;
} rt_guard_exemplar;

typedef struct rt_guard_history {
    uint32_t n_points, n_exemplars;
    rt_guard_point points[RT_GUARD_POINTS]; /* when it is full every second one goes */
    rt_guard_exemplar exemplars[RT_GUARD_EXEMPLARS];
} rt_guard_history;

void rt_guard_history_point(rt_guard_history *history, const rt_guard *guard, const rt_guard_account *account,
                            double ts);
/* Takes the request among the `keep` most telling ones, if it is one of them and has an id. */
void rt_guard_history_request(rt_guard_history *history, const rt_guard_record *event,
                              const rt_guard_verdict *verdict, size_t keep);

/* {signals: [names], points: [{ts, requests, score, p, e, parts}], exemplars: [{request, ts, wants,
 * probability, top_logprobs}]} and back; what is not well-formed is passed over. */
json_t *rt_guard_history_json(const rt_guard_history *history);
void rt_guard_history_restore(rt_guard_history *history, const json_t *json);

#endif
