/* account/meter.c - see meter.h. */
#include "account/meter.h"

#include <math.h>
#include <stdio.h>

#include "account/refuse.h"

enum { DAY_S = 86400, RETRY_MAX_S = 120 };
static const double slack = 1e-6; /* of a token: what rounding may have left in a bucket */

/* Months since year 0 of a day since 1970 (proleptic Gregorian; days are counted from 1 March of year 0). */
static int64_t month_of_day(int64_t day)
{
    const int64_t z = day + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    const int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    const int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    const int64_t month = mp < 10 ? mp + 3 : mp - 9;
    return 12 * (yoe + era * 400 + (month <= 2)) + month;
}

static double refilled(double used, int64_t limit, double elapsed_s)
{
    if (limit < 0)
        return 0;
    const double left = used - elapsed_s * (double)limit / 60;
    return left > 0 ? left : 0;
}

void rt_meter_roll(rt_meter *meter, const rt_limits *limits, rt_instant now)
{
    const double elapsed_s = now.bucket_s > meter->used_at ? now.bucket_s - meter->used_at : 0;
    meter->requests_used = refilled(meter->requests_used, limits->rpm, elapsed_s);
    meter->tokens_used = refilled(meter->tokens_used, limits->tpm, elapsed_s);
    if (now.bucket_s > meter->used_at)
        meter->used_at = now.bucket_s;
    const int64_t day = now.unix_s / DAY_S, month = month_of_day(day);
    if (day > meter->day) {
        meter->day = day;
        meter->day_tokens = meter->day_cost = 0;
    }
    if (month > meter->month) {
        meter->month = month;
        meter->month_tokens = meter->month_cost = 0;
    }
}

bool rt_meter_possible(const rt_limits *limits, const rt_meter_draw *draw, rt_refusal *refusal)
{
    const bool minute = limits->tpm >= 0 && draw->tokens > limits->tpm;
    if (!minute && (limits->tpd < 0 || draw->tokens <= limits->tpd))
        return true;
    return rt_refuse(
        refusal, 400, "invalid_request_error", "invalid_value", "max_tokens", -1,
        "the prompt and the longest answer take %lld tokens, more than the limit of %lld tokens per %s "
        "ever lets pass: ask for fewer",
        (long long)draw->tokens, (long long)(minute ? limits->tpm : limits->tpd), minute ? "minute" : "day");
}

static double wait_s(double used, double wanted, int64_t limit)
{
    const double over = used + wanted - (double)limit;
    return limit > 0 ? fmin(over * 60 / (double)limit, RETRY_MAX_S) : RETRY_MAX_S;
}

bool rt_meter_has_request(const rt_meter *meter, const rt_limits *limits, const char *whose,
                          rt_refusal *refusal)
{
    if (limits->rpm < 0 || meter->requests_used + 1 <= (double)limits->rpm + slack)
        return true;
    return rt_refuse(refusal, 429, "requests", "rate_limit_exceeded", NULL,
                     wait_s(meter->requests_used, 1, limits->rpm),
                     "the %s's limit of %lld requests per minute is reached", whose, (long long)limits->rpm);
}

void rt_meter_take_request(rt_meter *meter) { meter->requests_used += 1; }

int64_t rt_meter_settled(const rt_meter *meter, const rt_limits *limits)
{
    const bool usd = limits->budget_unit == RT_BUDGET_USD;
    switch (limits->budget_period) {
    case RT_BUDGET_DAY:
        return usd ? meter->day_cost : meter->day_tokens;
    case RT_BUDGET_MONTH:
        return usd ? meter->month_cost : meter->month_tokens;
    case RT_BUDGET_TOTAL:
        break;
    }
    return usd ? meter->total_cost : meter->total_tokens;
}

int64_t rt_meter_reserved(const rt_meter *meter, const rt_limits *limits)
{
    return limits->budget_unit == RT_BUDGET_USD ? meter->reserved_cost : meter->reserved_tokens;
}

static bool has_budget(const rt_meter *meter, const rt_limits *limits, const rt_meter_draw *draw,
                       const char *whose, rt_refusal *refusal)
{
    static const char *const periods[] = {"for the day", "for the month", "in total"};
    if (limits->budget < 0)
        return true;
    const bool usd = limits->budget_unit == RT_BUDGET_USD;
    if (usd && !draw->priced)
        return rt_refuse(refusal, 403, "permission_error", "model_not_allowed", "model", -1,
                         "the %s has a budget in USD and no price is set for this model", whose);
    const int64_t wanted = usd ? draw->cost : draw->tokens;
    const int64_t left = limits->budget - rt_meter_settled(meter, limits) - rt_meter_reserved(meter, limits);
    if (wanted <= left)
        return true;
    (void)rt_refuse(refusal, 429, "insufficient_quota", "insufficient_quota", NULL, -1,
                    usd ? "the %s's budget %s has %.6f USD left, and this request may take %.6f"
                        : "the %s's budget %s has %.0f tokens left, and this request may take %.0f",
                    whose, periods[limits->budget_period],
                    (double)(left > 0 ? left : 0) / (usd ? RT_NANO_USD : 1),
                    (double)wanted / (usd ? RT_NANO_USD : 1));
    refusal->no_retry = true;
    return false;
}

bool rt_meter_has_room(const rt_meter *meter, const rt_limits *limits, const rt_meter_draw *draw,
                       rt_instant now, const char *whose, rt_refusal *refusal)
{
    if (limits->concurrency >= 0 && meter->running >= limits->concurrency)
        return rt_refuse(refusal, 429, "concurrency", "rate_limit_exceeded", NULL, 1,
                         "the %s's limit of %lld requests at once is reached", whose,
                         (long long)limits->concurrency);
    if (limits->tpm >= 0 && meter->tokens_used + (double)draw->tokens > (double)limits->tpm + slack)
        return rt_refuse(refusal, 429, "tokens", "rate_limit_exceeded", NULL,
                         wait_s(meter->tokens_used, (double)draw->tokens, limits->tpm),
                         "the %s's limit of %lld tokens per minute is reached: this request may take %lld",
                         whose, (long long)limits->tpm, (long long)draw->tokens);
    return rt_meter_has_more(meter, limits, draw, now, whose, refusal);
}

bool rt_meter_has_more(const rt_meter *meter, const rt_limits *limits, const rt_meter_draw *draw,
                       rt_instant now, const char *whose, rt_refusal *refusal)
{
    if (limits->tpd >= 0 && meter->day_tokens + meter->reserved_tokens + draw->tokens > limits->tpd) {
        const double until_s = (double)(DAY_S - now.unix_s % DAY_S);
        (void)rt_refuse(refusal, 429, "tokens", "rate_limit_exceeded", NULL, fmin(until_s, RETRY_MAX_S),
                        "the %s's limit of %lld tokens per day is reached: this request may take %lld", whose,
                        (long long)limits->tpd, (long long)draw->tokens);
        refusal->no_retry = until_s > RETRY_MAX_S;
        return false;
    }
    return has_budget(meter, limits, draw, whose, refusal);
}

void rt_meter_reserve(rt_meter *meter, const rt_meter_draw *draw)
{
    meter->running++;
    rt_meter_reserve_more(meter, draw);
}

void rt_meter_reserve_more(rt_meter *meter, const rt_meter_draw *draw)
{
    meter->reserved_tokens += draw->tokens;
    meter->reserved_cost += draw->cost;
    meter->tokens_used += (double)draw->tokens;
}

void rt_meter_release(rt_meter *meter, const rt_meter_draw *reserved)
{
    meter->running--;
    meter->reserved_tokens -= reserved->tokens;
    meter->reserved_cost -= reserved->cost;
}

void rt_meter_add(rt_meter *meter, const rt_meter_draw *used)
{
    meter->day_tokens += used->tokens;
    meter->day_cost += used->cost;
    meter->month_tokens += used->tokens;
    meter->month_cost += used->cost;
    meter->total_tokens += used->tokens;
    meter->total_cost += used->cost;
}

void rt_meter_charge(rt_meter *meter, const rt_meter_draw *reserved, const rt_meter_draw *used)
{
    rt_meter_add(meter, used);
    const double left = meter->tokens_used - (double)(reserved->tokens - used->tokens);
    meter->tokens_used = left > 0 ? left : 0;
}
