/* account/limits.c - limits, permissions, prices and the policy for prompts, from JSON and to JSON; see
 * limits.h.
 *
 * The counts stand in one table, so that reading, printing and the sentence about a bad value cannot
 * disagree. */
#include "account/limits.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/text.h"

typedef struct count_field {
    const char *name;
    size_t offset;
    int64_t min, max;
} count_field;

static const count_field counts[] = {
    {"rpm", offsetof(rt_limits, rpm), 0, RT_LIMIT_MAX},
    {"tpm", offsetof(rt_limits, tpm), 0, RT_LIMIT_MAX},
    {"tpd", offsetof(rt_limits, tpd), 0, RT_LIMIT_MAX},
    {"concurrency", offsetof(rt_limits, concurrency), 0, RT_LIMIT_MAX},
    {"max_tokens", offsetof(rt_limits, max_tokens), 1, RT_LIMIT_MAX},
    {"top_logprobs", offsetof(rt_limits, top_logprobs), 0, RT_TOP_LOGPROBS_MAX},
};
enum { N_COUNTS = sizeof counts / sizeof counts[0] };
static const char *const unit_names[] = {"tokens", "usd"};
static const char *const period_names[] = {"day", "month", "total"};
static const char *const keep_names[] = {"none", "hash", "full"};

rt_limits rt_limits_none(void)
{
    return (rt_limits){.rpm = RT_LIMIT_NONE,
                       .tpm = RT_LIMIT_NONE,
                       .tpd = RT_LIMIT_NONE,
                       .concurrency = RT_LIMIT_NONE,
                       .budget = RT_LIMIT_NONE,
                       .budget_period = RT_BUDGET_TOTAL,
                       .max_tokens = RT_LIMIT_NONE,
                       .top_logprobs = RT_LIMIT_NONE};
}

static int64_t *count_of(rt_limits *limits, const count_field *field)
{
    return (int64_t *)(void *)((char *)limits + field->offset);
}

/* A name in a message: foreign text is cut and its odd bytes do not reach a log. */
static rt_status unknown_key(const char *where, const char *key, rt_error *err)
{
    char shown[40];
    size_t n = 0;
    for (; key[n] && n < sizeof shown - 1; n++)
        shown[n] = (char)(key[n] > ' ' && key[n] < 127 ? key[n] : '?');
    shown[n] = '\0';
    return rt_error_set(err, RT_INVALID, "%s: unknown key '%s'", where, shown);
}

static bool find_word(int *out, const json_t *value, const char *const *names, int count)
{
    for (int i = 0; json_is_string(value) && i < count; i++)
        if (strcmp(json_string_value(value), names[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static rt_status read_amount(int64_t *out, const json_t *amount, rt_budget_unit unit, rt_error *err)
{
    if (unit == RT_BUDGET_TOKENS) {
        if (!json_is_integer(amount) || json_integer_value(amount) < 0 ||
            json_integer_value(amount) > RT_LIMIT_MAX)
            return rt_error_set(err, RT_INVALID,
                                "limits.budget.amount: expected a whole number of tokens, 0 or more");
        *out = json_integer_value(amount);
        return RT_OK;
    }
    const double usd = json_is_number(amount) ? json_number_value(amount) : -1;
    if (!(usd >= 0 && usd <= 1e9))
        return rt_error_set(err, RT_INVALID, "limits.budget.amount: expected a number of USD from 0 to 1e9");
    *out = llround(usd * RT_NANO_USD);
    return RT_OK;
}

static rt_status read_budget(rt_limits *limits, const json_t *budget, rt_error *err)
{
    if (json_is_null(budget)) {
        limits->budget = RT_LIMIT_NONE;
        return RT_OK;
    }
    if (!json_is_object(budget))
        return rt_error_set(err, RT_INVALID, "limits.budget: expected an object or null");
    const char *key;
    const json_t *value, *amount = NULL;
    int unit = RT_BUDGET_TOKENS, period = RT_BUDGET_TOTAL;
    json_object_foreach((json_t *)budget, key, value)
    {
        if (strcmp(key, "amount") == 0)
            amount = value;
        else if (strcmp(key, "unit") == 0) {
            if (!find_word(&unit, value, unit_names, 2))
                return rt_error_set(err, RT_INVALID, "limits.budget.unit: expected \"tokens\" or \"usd\"");
        } else if (strcmp(key, "period") == 0) {
            if (!find_word(&period, value, period_names, 3))
                return rt_error_set(err, RT_INVALID,
                                    "limits.budget.period: expected \"day\", \"month\" or \"total\"");
        } else
            return unknown_key("limits.budget", key, err);
    }
    int64_t read = 0;
    if (read_amount(&read, amount, (rt_budget_unit)unit, err) != RT_OK)
        return err->status;
    limits->budget = read;
    limits->budget_unit = (rt_budget_unit)unit;
    limits->budget_period = (rt_budget_period)period;
    return RT_OK;
}

static rt_status read_count(rt_limits *limits, const char *key, const json_t *value, rt_error *err)
{
    for (size_t i = 0; i < N_COUNTS; i++) {
        if (strcmp(key, counts[i].name) != 0)
            continue;
        const int64_t n = json_is_integer(value) ? json_integer_value(value) : -1;
        if (json_is_null(value))
            *count_of(limits, &counts[i]) = RT_LIMIT_NONE;
        else if (n >= counts[i].min && n <= counts[i].max)
            *count_of(limits, &counts[i]) = n;
        else
            return rt_error_set(err, RT_INVALID,
                                "limits.%s: expected null or a whole number from %lld to %lld", key,
                                (long long)counts[i].min, (long long)counts[i].max);
        return RT_OK;
    }
    return unknown_key("limits", key, err);
}

rt_status rt_limits_read(rt_limits *limits, const json_t *object, rt_error *err)
{
    if (!json_is_object(object))
        return rt_error_set(err, RT_INVALID, "limits: expected an object");
    rt_limits read = *limits;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        const rt_status status =
            strcmp(key, "budget") == 0 ? read_budget(&read, value, err) : read_count(&read, key, value, err);
        if (status != RT_OK)
            return status;
    }
    *limits = read;
    return RT_OK;
}

static json_t *count_or_null(int64_t n) { return n < 0 ? json_null() : json_integer((json_int_t)n); }

json_t *rt_limits_json(const rt_limits *limits)
{
    json_t *out = json_object(), *budget = json_null();
    for (size_t i = 0; i < N_COUNTS; i++)
        (void)json_object_set_new(out, counts[i].name,
                                  count_or_null(*count_of((rt_limits *)limits, &counts[i])));
    if (limits->budget >= 0)
        budget = json_pack(
            "{s:o, s:s, s:s}", "amount",
            limits->budget_unit == RT_BUDGET_TOKENS ? json_integer((json_int_t)limits->budget)
                                                    : json_real((double)limits->budget / RT_NANO_USD),
            "unit", unit_names[limits->budget_unit], "period", period_names[limits->budget_period]);
    (void)json_object_set_new(out, "budget", budget);
    return out;
}

static int64_t quarter(int64_t limit, int64_t when_none)
{
    return limit < 0 ? when_none : limit == 0 ? 0 : limit < 4 ? 1 : limit / 4;
}

rt_limits rt_limits_throttled(const rt_limits *limits)
{
    rt_limits out = *limits;
    out.rpm = quarter(limits->rpm, 20);
    out.tpm = quarter(limits->tpm, 20000);
    out.tpd = quarter(limits->tpd, 200000);
    out.concurrency = quarter(limits->concurrency, 2);
    return out;
}

/* --- permissions --- */

static rt_status read_models(rt_permissions *permissions, const json_t *models, rt_error *err)
{
    size_t i;
    json_t *name;
    if (!json_is_null(models) && (!json_is_array(models) || json_array_size(models) > RT_MODELS_MAX))
        return rt_error_set(err, RT_INVALID, "permissions.models: expected null or at most %d names",
                            RT_MODELS_MAX);
    json_array_foreach((json_t *)models, i, name)
    {
        if (!json_is_string(name) || json_string_length(name) == 0 ||
            json_string_length(name) > RT_MODEL_NAME_MAX)
            return rt_error_set(err, RT_INVALID, "permissions.models[%zu]: expected a name of 1 to %d bytes",
                                i, RT_MODEL_NAME_MAX);
    }
    json_decref(permissions->models);
    permissions->models = json_is_null(models) ? NULL : json_deep_copy(models);
    return RT_OK;
}

rt_status rt_permissions_read(rt_permissions *permissions, const json_t *object, rt_error *err)
{
    if (!json_is_object(object))
        return rt_error_set(err, RT_INVALID, "permissions: expected an object");
    struct {
        const char *name;
        bool *target;
    } const flags[] = {{"score", &permissions->score},
                       {"capture", &permissions->capture},
                       {"prompt_log", &permissions->prompt_log},
                       {"distillation", &permissions->distillation}};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (strcmp(key, "models") == 0) {
            if (read_models(permissions, value, err) != RT_OK)
                return err->status;
            continue;
        }
        size_t i = 0;
        while (i < 4 && strcmp(key, flags[i].name) != 0)
            i++;
        if (i == 4)
            return unknown_key("permissions", key, err);
        if (!json_is_boolean(value))
            return rt_error_set(err, RT_INVALID, "permissions.%s: expected true or false", key);
        *flags[i].target = json_is_true(value);
    }
    return RT_OK;
}

json_t *rt_permissions_json(const rt_permissions *permissions)
{
    return json_pack("{s:O?, s:b, s:b, s:b, s:b}", "models", permissions->models, "score", permissions->score,
                     "capture", permissions->capture, "prompt_log", permissions->prompt_log, "distillation",
                     permissions->distillation);
}

bool rt_permissions_model(const rt_permissions *permissions, const char *model)
{
    size_t i;
    json_t *name;
    if (!permissions->models)
        return true;
    json_array_foreach(permissions->models, i, name)
    {
        if (strcmp(json_string_value(name), model) == 0)
            return true;
    }
    return false;
}

void rt_permissions_deinit(rt_permissions *permissions)
{
    json_decref(permissions->models);
    permissions->models = NULL;
}

/* --- prices --- */

/* USD per million tokens in pico-USD per token; -1 when it is no price. */
static int64_t pico_per_token(const json_t *price)
{
    const double usd = json_is_number(price) ? json_number_value(price) : -1;
    return usd >= 0 && usd <= 1e6 ? llround(usd * 1e6) : -1;
}

rt_status rt_prices_check(const json_t *prices, rt_error *err)
{
    const char *model, *key;
    json_t *row, *price;
    if (!json_is_object(prices) || json_object_size(prices) > RT_MODELS_MAX)
        return rt_error_set(err, RT_INVALID, "prices: expected an object of at most %d models",
                            RT_MODELS_MAX);
    json_object_foreach((json_t *)prices, model, row)
    {
        if (!json_is_object(row) || pico_per_token(json_object_get(row, "input")) < 0 ||
            pico_per_token(json_object_get(row, "output")) < 0)
            return rt_error_set(err, RT_INVALID,
                                "prices: each model needs \"input\" and \"output\", USD per million tokens");
        json_object_foreach(row, key, price)
        {
            if (strcmp(key, "input") != 0 && strcmp(key, "output") != 0 && strcmp(key, "cached") != 0)
                return unknown_key("prices", key, err);
            if (pico_per_token(price) < 0)
                return rt_error_set(err, RT_INVALID, "prices: %s is not a number from 0 to 1e6", key);
        }
    }
    return RT_OK;
}

bool rt_prices_cost(const json_t *prices, const char *model, int64_t input, int64_t cached, int64_t output,
                    int64_t *cost)
{
    *cost = 0;
    const json_t *row = json_object_get(prices, model);
    if (!row)
        row = json_object_get(prices, "default");
    if (!row)
        return false;
    const int64_t in = pico_per_token(json_object_get(row, "input")),
                  out = pico_per_token(json_object_get(row, "output"));
    const json_t *cached_price = json_object_get(row, "cached");
    const __int128 pico = (__int128)in * (input - cached) + (__int128)out * output +
                          (__int128)(cached_price ? pico_per_token(cached_price) : in) * cached;
    const __int128 nano = (pico + 999) / 1000;
    if (nano > RT_COST_MAX || nano < 0)
        return false;
    *cost = (int64_t)nano;
    return true;
}

/* --- prompts --- */

rt_status rt_prompt_policy_read(rt_prompt_policy *policy, const json_t *object, rt_error *err)
{
    if (!json_is_object(object))
        return rt_error_set(err, RT_INVALID, "prompts: expected an object");
    const char *key;
    json_t *value;
    int keep = RT_PROMPT_NONE;
    int64_t days = 30;
    json_object_foreach((json_t *)object, key, value)
    {
        if (strcmp(key, "keep") == 0) {
            if (!find_word(&keep, value, keep_names, 3))
                return rt_error_set(err, RT_INVALID, "prompts.keep: expected \"none\", \"hash\" or \"full\"");
        } else if (strcmp(key, "days") == 0) {
            days = json_is_integer(value) ? json_integer_value(value) : 0;
            if (days < 1 || days > 3650)
                return rt_error_set(err, RT_INVALID, "prompts.days: expected a whole number from 1 to 3650");
        } else
            return unknown_key("prompts", key, err);
    }
    *policy = (rt_prompt_policy){(rt_prompt_keep)keep, days};
    return RT_OK;
}

json_t *rt_prompt_policy_json(const rt_prompt_policy *policy)
{
    return json_pack("{s:s, s:I}", "keep", keep_names[policy->keep], "days", (json_int_t)policy->days);
}
