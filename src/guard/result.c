/* guard/result.c - see result.h. */
#include "guard/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

size_t rt_guard_reasons(const rt_guard_reference *reference, const rt_guard_account *account,
                        rt_guard_reason reasons[RT_GUARD_REASONS_MAX])
{
    float features[RT_GUARD_FEATURES], contributions[RT_GUARD_FEATURES];
    size_t count = 0;
    rt_guard_measure(account, features);
    (void)rt_guard_contributions(reference, features, contributions);
    const int use_class = rt_guard_use_class(account);
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        const rt_guard_term *term = &reference->terms[f];
        const rt_guard_reason reason = {.feature = f,
                                        .value = features[f],
                                        .percentile = rt_guard_percentile(term, use_class, features[f]),
                                        .contribution =
                                            term->weight * rt_guard_term_value(term, features[f])};
        if (reason.contribution < 0.05F)
            continue;
        size_t at = count < RT_GUARD_REASONS_MAX ? count++ : RT_GUARD_REASONS_MAX;
        while (at > 0 && reasons[at - 1].contribution < reason.contribution) {
            if (at < RT_GUARD_REASONS_MAX)
                reasons[at] = reasons[at - 1];
            at--;
        }
        if (at < RT_GUARD_REASONS_MAX)
            reasons[at] = reason;
    }
    return count;
}

/* Below every own score's usual range, so that a cluster member stands over those judged alone. */
float rt_guard_final_score(const rt_guard_account *account)
{
    return fmaxf(account->best_score, fmaxf(account->score, account->cluster_score));
}

float rt_guard_block_p(const rt_guard_account *account) { return fminf(account->p, account->lift_p); }

float rt_guard_final_p(const rt_guard_account *account)
{
    return fminf(1, (float)(account->path.blocks + 1) * fminf(account->best_p, rt_guard_block_p(account)));
}

static json_t *figure(float value, const char *format)
{
    char text[48];
    (void)snprintf(text, sizeof text, format, (double)value);
    return json_real(strtod(text, NULL));
}

static json_t *reason_json(const rt_guard_reason *reason)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s.%s", rt_guard_feature_signal(reason->feature)->name,
                   rt_guard_feature_name(reason->feature));
    json_t *json = json_object();
    json_object_set_new(json, "signal", json_string(name));
    json_object_set_new(json, "value", figure(reason->value, "%.5g"));
    json_object_set_new(json, "percentile", figure(reason->percentile, "%.1f"));
    json_object_set_new(json, "contribution", figure(reason->contribution, "%.4f"));
    return json;
}

json_t *rt_guard_result(const rt_guard *guard, const rt_guard_account *account)
{
    rt_guard_reason reasons[RT_GUARD_REASONS_MAX];
    const size_t count = rt_guard_reasons(rt_guard_reference_of(guard), account, reasons);
    json_t *json = json_object(), *list = json_array();
    json_object_set_new(json, "account", rt_json_text(account->name, strlen(account->name)));
    json_object_set_new(json, "requests", json_integer(rt_guard_requests(account)));
    json_object_set_new(json, "score", figure(rt_guard_final_score(account), "%.6f"));
    json_object_set_new(json, "p", figure(rt_guard_final_p(account), "%.6g"));
    json_object_set_new(json, "e", figure((float)fmin(1e30, rt_guard_e(account)), "%.4g"));
    json_object_set_new(json, "flagged_at",
                        account->flagged_at ? json_integer(account->flagged_at) : json_null());
    json_object_set_new(json, "cluster", account->cluster ? json_integer(account->cluster) : json_null());
    json_object_set_new(json, "cluster_p",
                        account->cluster ? figure(account->cluster_p, "%.6g") : json_null());
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, reason_json(&reasons[i]));
    json_object_set_new(json, "reasons", list);
    return json;
}
