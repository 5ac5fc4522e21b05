/* serve/marking.h - the watermark of a served model: whose answers carry which key.
 *
 * The common key stands at every answer; an account's own key, derived from it, beside it at a share of the
 * tokens.  The server knows neither: it takes a marker for a request and gives it back with the job. */
#ifndef RT_SERVE_MARKING_H
#define RT_SERVE_MARKING_H

#include "model/sampler.h"

typedef enum rt_marking_own { /* whose answers carry an own key beside the common one */
                              RT_MARKING_NOBODY,
                              RT_MARKING_GUARD, /* accounts from the guard's rung "watermark" on */
                              RT_MARKING_ALL    /* every account */
} rt_marking_own;

typedef struct rt_marking {   /* borrowed for the server's life */
    const char *scheme, *key; /* scheme and the key's id, for log and ledger */
    size_t h;                 /* ids of context; so many first tokens are not marked */
    bool greedy;              /* it marks at temperature 0 too */
    rt_marking_own own;
    double own_share; /* of the tokens under the account's own key */
    /* account NULL: the common key alone.  The marker lives until it is given back.  Event thread. */
    rt_status (*take)(void *context, const char *account, const rt_marker **out, rt_error *err);
    void (*give)(void *context, const rt_marker *marker);
    void *context;
} rt_marking;

typedef struct rt_marking_use { /* zeroed: none */
    const rt_marking *marking;
    const rt_marker *marker;
    double own_share; /* 0: the common key alone */
} rt_marking_use;

rt_status rt_marking_take(rt_marking_use *use, const rt_marking *marking, const char *account, rt_error *err);
void rt_marking_give(rt_marking_use *use);

#endif
