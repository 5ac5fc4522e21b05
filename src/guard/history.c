/* guard/history.c - see history.h. */
#include "guard/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

void rt_guard_history_point(rt_guard_history *history, const rt_guard *guard, const rt_guard_account *account,
                            double ts)
{
    float features[RT_GUARD_FEATURES], parts[RT_GUARD_FEATURES];
    if (history->n_points == RT_GUARD_POINTS) {
        for (size_t i = 0; i < RT_GUARD_POINTS / 2; i++)
            history->points[i] = history->points[2 * i];
        history->n_points = RT_GUARD_POINTS / 2;
    }
    rt_guard_point *point = &history->points[history->n_points++];
    *point = (rt_guard_point){.ts = ts,
                              .requests = rt_guard_requests(account),
                              .score = fmaxf(account->last_score, -1e6F),
                              .p = fminf(account->p, account->lift_p),
                              .log_e = account->log_e};
    if (account->n == 0)
        return;
    rt_guard_measure(account, features);
    (void)rt_guard_contributions(rt_guard_reference_of(guard), features, parts);
    for (size_t f = 0; f < rt_guard_feature_count(); f++)
        for (size_t s = 0; s < rt_guard_signal_count && s < RT_GUARD_PARTS; s++)
            if (rt_guard_signal_at(s) == rt_guard_feature_signal(f))
                point->parts[s] += parts[f];
}

void rt_guard_history_request(rt_guard_history *history, const rt_guard_record *event,
                              const rt_guard_verdict *verdict, size_t keep)
{
    const size_t most = keep < RT_GUARD_EXEMPLARS ? keep : RT_GUARD_EXEMPLARS;
    if (event->request[0] == '\0' || most == 0)
        return;
    size_t at = history->n_exemplars;
    if (history->n_exemplars >= most) { /* the least telling one makes room; among equals the oldest */
        at = 0;
        for (size_t i = 1; i < history->n_exemplars; i++)
            if (history->exemplars[i].probability < history->exemplars[at].probability)
                at = i;
        if (verdict->want_probability < history->exemplars[at].probability)
            return;
    } else {
        history->n_exemplars++;
    }
    rt_guard_exemplar *one = &history->exemplars[at];
    *one = (rt_guard_exemplar){.ts = event->ts,
                               .probability = verdict->want_probability,
                               .want = (int8_t)(verdict->want_probability > 0.5F ? verdict->want : -1),
                               .top_logprobs = event->top_logprobs};
    (void)snprintf(one->request, sizeof one->request, "%s", event->request);
}

static json_t *exemplar_json(const rt_guard_exemplar *one)
{
    return json_pack("{s:o, s:f, s:s?, s:f, s:I}", "request",
                     rt_json_text(one->request, strlen(one->request)), "ts", one->ts, "wants",
                     one->want >= 0 ? rt_guard_want_names[one->want] : NULL, "probability",
                     (double)one->probability, "top_logprobs", (json_int_t)one->top_logprobs);
}

static json_t *point_json(const rt_guard_point *point)
{
    json_t *parts = json_array();
    for (size_t s = 0; s < rt_guard_signal_count && s < RT_GUARD_PARTS; s++)
        (void)json_array_append_new(parts, json_real((double)point->parts[s]));
    return json_pack("{s:f, s:I, s:f, s:f, s:f, s:o}", "ts", point->ts, "requests",
                     (json_int_t)point->requests, "score", (double)point->score, "p", (double)point->p,
                     "log_e", fmax(-1e6, (double)point->log_e), "parts", parts);
}

json_t *rt_guard_history_json(const rt_guard_history *history)
{
    json_t *signals = json_array(), *points = json_array(), *exemplars = json_array();
    for (size_t s = 0; s < rt_guard_signal_count && s < RT_GUARD_PARTS; s++)
        (void)json_array_append_new(signals, json_string(rt_guard_signal_at(s)->name));
    for (size_t i = 0; i < history->n_points; i++)
        (void)json_array_append_new(points, point_json(&history->points[i]));
    for (size_t i = 0; i < history->n_exemplars; i++)
        (void)json_array_append_new(exemplars, exemplar_json(&history->exemplars[i]));
    return json_pack("{s:o, s:o, s:o}", "signals", signals, "points", points, "exemplars", exemplars);
}

static int want_of(const char *name)
{
    for (int k = 0; name && k < RT_GUARD_WANTS; k++)
        if (strcmp(name, rt_guard_want_names[k]) == 0)
            return k;
    return -1;
}

static float number(const json_t *row, const char *key)
{
    return (float)json_number_value(json_object_get(row, key));
}

void rt_guard_history_restore(rt_guard_history *history, const json_t *json)
{
    const json_t *row;
    size_t i;
    *history = (rt_guard_history){0};
    json_array_foreach(json_object_get(json, "points"), i, row)
    {
        if (history->n_points == RT_GUARD_POINTS)
            break;
        rt_guard_point *point = &history->points[history->n_points++];
        point->ts = json_number_value(json_object_get(row, "ts"));
        point->requests = (uint32_t)json_integer_value(json_object_get(row, "requests"));
        point->score = number(row, "score");
        point->p = number(row, "p");
        point->log_e = number(row, "log_e");
        for (size_t s = 0; s < RT_GUARD_PARTS; s++)
            point->parts[s] = (float)json_number_value(json_array_get(json_object_get(row, "parts"), s));
    }
    json_array_foreach(json_object_get(json, "exemplars"), i, row)
    {
        const char *request = json_string_value(json_object_get(row, "request"));
        if (history->n_exemplars == RT_GUARD_EXEMPLARS || !request)
            break;
        rt_guard_exemplar *one = &history->exemplars[history->n_exemplars++];
        (void)snprintf(one->request, sizeof one->request, "%s", request);
        one->ts = json_number_value(json_object_get(row, "ts"));
        one->want = (int8_t)want_of(json_string_value(json_object_get(row, "wants")));
        one->probability = number(row, "probability");
        one->top_logprobs = (uint32_t)json_integer_value(json_object_get(row, "top_logprobs"));
    }
}
