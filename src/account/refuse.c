/* account/refuse.c - refusals, and the names of states and durations that answers show; see refuse.h, gate.h.
 */
#include "account/refuse.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool rt_refuse(rt_refusal *refusal, int http, const char *type, const char *code, const char *param,
               double retry_after_s, const char *fmt, ...)
{
    *refusal = (rt_refusal){
        .http = http, .type = type, .code = code, .param = param, .retry_after_s = retry_after_s};
    refusal->authenticate = http == 401;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(refusal->message, sizeof refusal->message, fmt, args);
    va_end(args);
    return false;
}

static const char *const state_names[] = {"active", "watched", "throttled", "suspended", "closed"};

const char *rt_account_state_name(rt_account_state state) { return state_names[state]; }

bool rt_account_state_parse(rt_account_state *out, const char *name)
{
    for (int i = 0; i <= RT_ACCOUNT_CLOSED; i++)
        if (strcmp(name, state_names[i]) == 0) {
            *out = (rt_account_state)i;
            return true;
        }
    return false;
}

void rt_duration_text(char out[32], double seconds)
{
    if (!(seconds > 0)) {
        (void)snprintf(out, 32, "0s");
    } else if (seconds <= 0.999) {
        (void)snprintf(out, 32, "%dms", (int)ceil(seconds * 1000));
    } else {
        const long long s = (long long)ceil(fmin(seconds, 1e9));
        if (s >= 3600)
            (void)snprintf(out, 32, "%lldh%lldm%llds", s / 3600, s / 60 % 60, s % 60);
        else if (s >= 60)
            (void)snprintf(out, 32, "%lldm%llds", s / 60, s % 60);
        else
            (void)snprintf(out, 32, "%llds", s);
    }
}
