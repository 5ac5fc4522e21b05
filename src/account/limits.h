/* account/limits.h - what an account or a key may use: limits, permissions and prices, from JSON and to JSON.
 *
 * The JSON comes from outside (admin API, command line): unknown keys, negative numbers, fractions where
 * wholes are meant and numbers past RT_LIMIT_MAX are refused with the key's name.  Pure functions. */
#ifndef RT_ACCOUNT_LIMITS_H
#define RT_ACCOUNT_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"

#define RT_LIMIT_NONE (-1)              /* unlimited */
#define RT_LIMIT_MAX ((int64_t)1 << 53) /* what JSON numbers hold exactly */
#define RT_NANO_USD 1000000000          /* money is counted in 1e-9 USD */
#define RT_COST_MAX (INT64_MAX / 4)     /* nano-USD; a worst case past it is refused */
enum { RT_MODELS_MAX = 256, RT_MODEL_NAME_MAX = 256, RT_TOP_LOGPROBS_MAX = 20 };

typedef enum rt_budget_unit { RT_BUDGET_TOKENS, RT_BUDGET_USD } rt_budget_unit;
typedef enum rt_budget_period { RT_BUDGET_DAY, RT_BUDGET_MONTH, RT_BUDGET_TOTAL } rt_budget_period;

/* Every count is RT_LIMIT_NONE or >= 0.  Days and months are those of UTC. */
typedef struct rt_limits {
    int64_t rpm, tpm, tpd; /* requests/min, tokens/min, tokens/day */
    int64_t concurrency;   /* requests at once */
    int64_t budget;        /* tokens, or nano-USD */
    rt_budget_unit budget_unit;
    rt_budget_period budget_period;
    int64_t max_tokens;   /* of one answer */
    int64_t top_logprobs; /* 0..20 */
} rt_limits;

rt_limits rt_limits_none(void);
/* Sets the members that the object names and leaves the others: null lifts a limit.  budget is replaced as
 * a whole; unit is "tokens" and period "total" where absent.  RT_INVALID names the key ("limits.rpm"). */
rt_status rt_limits_read(rt_limits *limits, const json_t *object, rt_error *err);
json_t *rt_limits_json(const rt_limits *limits); /* null for what is unlimited */
/* The limits of a throttled account: a quarter of the rates, and rates where there were none. */
rt_limits rt_limits_throttled(const rt_limits *limits);

typedef struct rt_permissions {
    json_t *models; /* array of names, or NULL: all */
    bool score, capture, prompt_log;
    bool distillation; /* an agreement covers it where the terms say "by agreement" */
} rt_permissions;
/* Replaces the members that the object names. */
rt_status rt_permissions_read(rt_permissions *permissions, const json_t *object, rt_error *err);
json_t *rt_permissions_json(const rt_permissions *permissions);
bool rt_permissions_model(const rt_permissions *permissions, const char *model);
void rt_permissions_deinit(rt_permissions *permissions);

/* Prices are an object {"MODEL" | "default": {"input", "cached", "output"}} in USD per million tokens; cached
 * is the price of input where absent.  rt_prices_check refuses any other shape. */
rt_status rt_prices_check(const json_t *prices, rt_error *err);
/* The cost in nano-USD, rounded up; input counts all prompt tokens, cached those of them that were cached.
 * false when no price is set for the model (*cost is then 0) or when it passes RT_COST_MAX. */
bool rt_prices_cost(const json_t *prices, const char *model, int64_t input, int64_t cached, int64_t output,
                    int64_t *cost);

/* What is kept of prompts. */
typedef enum rt_prompt_keep { RT_PROMPT_NONE, RT_PROMPT_HASH, RT_PROMPT_FULL } rt_prompt_keep;
typedef struct rt_prompt_policy {
    rt_prompt_keep keep;
    int64_t days; /* 1..3650, for RT_PROMPT_FULL and RT_PROMPT_HASH */
} rt_prompt_policy;
/* {"keep": "none"|"hash"|"full", "days": N}; days is 30 where absent. */
rt_status rt_prompt_policy_read(rt_prompt_policy *policy, const json_t *object, rt_error *err);
json_t *rt_prompt_policy_json(const rt_prompt_policy *policy);

#endif
