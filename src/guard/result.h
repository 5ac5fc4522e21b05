/* guard/result.h - what was found about an account, with its reasons, as one JSON object. */
#ifndef RT_GUARD_RESULT_H
#define RT_GUARD_RESULT_H

#include <jansson.h>

#include "guard/guard.h"

enum { RT_GUARD_REASONS_MAX = 5 };

typedef struct rt_guard_reason {
    size_t feature;
    float value, percentile, contribution; /* percentile among benign accounts of the account's use class */
} rt_guard_reason;

/* The largest contributions of the account's features as they are now, largest first; how many there are. */
size_t rt_guard_reasons(const rt_guard_reference *reference, const rt_guard_account *account,
                        rt_guard_reason reasons[RT_GUARD_REASONS_MAX]);

/* {account, requests, score, p, e, flagged_at, cluster, cluster_p, reasons}; NULL when out of memory. */
json_t *rt_guard_result(const rt_guard *guard, const rt_guard_account *account);

/* The largest score of all blocks, with the cluster's part: what accounts are ranked by. */
float rt_guard_final_score(const rt_guard_account *account);
/* The p-value of the running block with the cluster's part. */
float rt_guard_block_p(const rt_guard_account *account);
/* The smallest p of all blocks times their number: of the account's whole recorded life. */
float rt_guard_final_p(const rt_guard_account *account);

#endif
