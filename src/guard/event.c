/* guard/event.c - a line of recorded traffic becomes an event, every field checked.
 *
 * Traffic comes from files that others wrote, so numbers are clamped to what the counters can hold and a
 * row that breaks the format is an error with its place, not a guess. */
#include "guard/event.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const double ts_max = RT_GUARD_TS_MAX;

static rt_status wrong(const char *where, const char *key, const char *must, rt_error *err)
{
    return rt_error_set(err, RT_CORRUPT, "%.120s: \"%s\" must be %s", where, key, must);
}

static rt_status text_of(rt_guard_span *out, const json_t *row, const char *key, const char *where,
                         rt_error *err)
{
    const json_t *value = json_object_get(row, key);
    *out = (rt_guard_span){"", 0};
    if (!value || json_is_null(value))
        return RT_OK;
    if (!json_is_string(value))
        return wrong(where, key, "a text", err);
    *out = (rt_guard_span){json_string_value(value), json_string_length(value)};
    return RT_OK;
}

static rt_status number_of(double *out, const json_t *row, const char *key, double fallback, double min,
                           double max, const char *where, rt_error *err)
{
    const json_t *value = json_object_get(row, key);
    *out = fallback;
    if (!value || json_is_null(value))
        return RT_OK;
    if (!json_is_number(value))
        return wrong(where, key, "a number", err);
    *out = json_number_value(value);
    if (!isfinite(*out) || *out < min || *out > max)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"%s\" is %g; it must lie between %g and %g", where,
                            key, *out, min, max);
    return RT_OK;
}

static rt_status bias_of(rt_guard_event *event, json_t *params, const char *where, rt_error *err)
{
    json_t *bias = json_object_get(params, "logit_bias"), *value;
    const char *key;
    event->bias_count = 0;
    if (!bias || json_is_null(bias))
        return RT_OK;
    if (!json_is_object(bias))
        return wrong(where, "logit_bias", "an object of token ids", err);
    json_object_foreach(bias, key, value)
    {
        char *end;
        const unsigned long id = strtoul(key, &end, 10);
        if (*key == '\0' || *end != '\0' || *key == '-' || id > UINT32_MAX || !json_is_number(value))
            return wrong(where, "logit_bias", "an object of token ids with numbers", err);
        if (event->bias_count < RT_GUARD_BIAS_IDS_MAX)
            event->bias_ids[event->bias_count++] = (uint32_t)id;
    }
    return RT_OK;
}

static rt_status params_of(rt_guard_event *event, const json_t *row, const char *where, rt_error *err)
{
    json_t *params = json_object_get(row, "params");
    double temperature = 1, n = 1, max_tokens = 0, top = 0;
    event->temperature = 1;
    event->n = 1;
    if (!params || json_is_null(params))
        return RT_OK;
    if (!json_is_object(params))
        return wrong(where, "params", "an object", err);
    if (number_of(&temperature, params, "temperature", 1, 0, 100, where, err) != RT_OK ||
        number_of(&n, params, "n", 1, 0, 1e6, where, err) != RT_OK ||
        number_of(&max_tokens, params, "max_tokens", 0, 0, 4e9, where, err) != RT_OK ||
        number_of(&top, params, "top_logprobs", 0, 0, 1e6, where, err) != RT_OK ||
        bias_of(event, params, where, err) != RT_OK)
        return err->status;
    event->temperature = (float)temperature;
    event->n = n < 1 ? 1 : (uint32_t)n;
    event->max_tokens = (uint32_t)max_tokens;
    event->top_logprobs = (uint32_t)top;
    /* the completions API gives a count here, the chat API true or false */
    const json_t *logprobs = json_object_get(params, "logprobs");
    event->logprobs = json_is_true(logprobs) || (json_is_number(logprobs) && json_number_value(logprobs) > 0);
    if (json_is_number(logprobs) && json_number_value(logprobs) > top && json_number_value(logprobs) < 1e6)
        event->top_logprobs = (uint32_t)json_number_value(logprobs);
    event->stream = json_is_true(json_object_get(params, "stream"));
    return RT_OK;
}

static rt_status event_of(rt_guard_event *event, const json_t *row, const char *where, rt_error *err)
{
    double prompt_tokens, completion_tokens;
    if (!json_is_object(row))
        return rt_error_set(err, RT_CORRUPT, "%.120s: a row must be a JSON object", where);
    if (!json_object_get(row, "ts") || !json_object_get(row, "account"))
        return rt_error_set(err, RT_CORRUPT, "%.120s: a row needs \"ts\" and \"account\"", where);
    if (number_of(&event->ts, row, "ts", 0, 0, ts_max, where, err) != RT_OK ||
        number_of(&event->created, row, "created", 0, 0, ts_max, where, err) != RT_OK ||
        number_of(&prompt_tokens, row, "prompt_tokens", 0, 0, 4e9, where, err) != RT_OK ||
        number_of(&completion_tokens, row, "completion_tokens", 0, 0, 4e9, where, err) != RT_OK ||
        text_of(&event->account, row, "account", where, err) != RT_OK ||
        text_of(&event->ip, row, "ip", where, err) != RT_OK ||
        text_of(&event->asn, row, "asn", where, err) != RT_OK ||
        text_of(&event->user_agent, row, "user_agent", where, err) != RT_OK ||
        text_of(&event->pay_hash, row, "pay_hash", where, err) != RT_OK ||
        text_of(&event->model, row, "model", where, err) != RT_OK ||
        text_of(&event->prompt, row, "prompt", where, err) != RT_OK ||
        text_of(&event->request, row, "request", where, err) != RT_OK ||
        params_of(event, row, where, err) != RT_OK)
        return err->status;
    event->prompt_tokens = (uint32_t)prompt_tokens;
    event->completion_tokens = (uint32_t)completion_tokens;
    if (event->account.size == 0 || event->account.size > RT_GUARD_ACCOUNT_BYTES_MAX)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"account\" must be a text of 1 to %d bytes", where,
                            RT_GUARD_ACCOUNT_BYTES_MAX);
    return RT_OK;
}

rt_status rt_guard_row_parse(rt_guard_row *row, const char *line, size_t size, const char *where,
                             rt_error *err)
{
    json_t *json = NULL;
    *row = (rt_guard_row){0};
    if (size > RT_GUARD_ROW_BYTES_MAX)
        return rt_error_set(err, RT_CORRUPT, "%.120s: the line has %zu bytes; %d are the most", where, size,
                            RT_GUARD_ROW_BYTES_MAX);
    if (rt_json_parse(&json, line, size, where, err) != RT_OK)
        return err->status;
    if (event_of(&row->event, json, where, err) != RT_OK) {
        json_decref(json);
        return err->status;
    }
    row->json = json;
    return RT_OK;
}

void rt_guard_row_deinit(rt_guard_row *row)
{
    json_decref(row->json);
    *row = (rt_guard_row){0};
}
