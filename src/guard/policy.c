/* guard/policy.c - the policy's keys, defaults and contradictions. */
#include "guard/policy.h"

#include <stdlib.h>

#include "guard/guard.h"

struct rt_guard_policy_file {
    rt_settings *settings;
    rt_guard_policy policy;
};

#define AT(member) offsetof(rt_guard_policy, member)

static const rt_field fields[] = {
    {"observe.p", RT_FIELD_REAL, AT(p[RT_RUNG_OBSERVE]), "0.05", "the state says watched; 0: never", NULL, 0,
     1},
    {"watermark.p", RT_FIELD_REAL, AT(p[RT_RUNG_WATERMARK]), "0",
     "answers carry a watermark of the account's own key (serve --watermark); 0: never", NULL, 0, 1},
    {"twins.p", RT_FIELD_REAL, AT(p[RT_RUNG_TWINS]), "0",
     "some answers are drawn twice, one is sent and one kept (serve --sealed); 0: never", NULL, 0, 1},
    {"twins.share", RT_FIELD_REAL, AT(twins_share), "0.02", "of its requests", NULL, 0, 0.2},
    {"twins.canaries", RT_FIELD_REAL, AT(canaries_share), "0.005",
     "of its requests whose answers end with a canary (serve --canaries)", NULL, 0, 0.2},
    {"slow.p", RT_FIELD_REAL, AT(p[RT_RUNG_SLOW]), "0.01", "a quarter of the rates", NULL, 0, 1},
    {"slow.message", RT_FIELD_STRING, AT(slow_message),
     "'This account is limited because its use looks like bulk collection of answers. You can object.'",
     "what the account is told", NULL, 0, 0},
    {"logprobs.p", RT_FIELD_REAL, AT(p[RT_RUNG_LOGPROBS]), "0.01", "fewer alternatives a token", NULL, 0, 1},
    {"logprobs.top", RT_FIELD_COUNT, AT(logprobs_top), "0", "how many are left; 0: no log-probabilities",
     NULL, 0, 20},
    {"reasoning.p", RT_FIELD_REAL, AT(p[RT_RUNG_REASONING]), "0.005", "reasoning is not shown", NULL, 0, 1},
    {"challenge.p", RT_FIELD_REAL, AT(p[RT_RUNG_CHALLENGE]), "0.005",
     "no answers until the account has said what it is for", NULL, 0, 1},
    {"challenge.message", RT_FIELD_STRING, AT(challenge_message),
     "'Please say what these requests are for: POST /v1/account/appeals. Requests are answered again once "
     "you have.'",
     "what the account is told", NULL, 0, 0},
    {"suspend.p", RT_FIELD_REAL, AT(p[RT_RUNG_SUSPEND]), "0.0025", "of an account or its cluster", NULL, 0,
     1},
    {"suspend.families", RT_FIELD_COUNT, AT(suspend_families), "2",
     "kinds of signals that agree, unless a cluster is linked", NULL, 1, 4},
    {"suspend.by", RT_FIELD_CHOICE, AT(suspend_by), "person",
     "person: proposed for review; rule: done where e-BH confirms it, else proposed", "person|rule", 0, 0},
    {"suspend.fdr", RT_FIELD_REAL, AT(suspend_fdr), "0.1", "the share of false ones among what e-BH confirms",
     NULL, 1e-6, 0.5},
    {"suspend.message", RT_FIELD_STRING, AT(suspend_message),
     "'This account is suspended because its use looks like collection of training data, which the terms "
     "forbid. You can object.'",
     "what the account is told", NULL, 0, 0},
    {"ladder.requests_min", RT_FIELD_COUNT, AT(requests_min), "25", "before any rung but observe", NULL, 1,
     1000000},
    {"ladder.calm", RT_FIELD_REAL, AT(calm), "4", "what lapsed or was lifted comes back at p / calm only",
     NULL, 1, 1000},
    {"ladder.expire_hours", RT_FIELD_REAL, AT(expire_hours), "168",
     "without stronger evidence a rung lapses to the one below", NULL, 0.01, 100000},
    {"ladder.accuse_by", RT_FIELD_CHOICE, AT(accuse_by), "e",
     "challenge and suspend by: e: the evidence of all weeks, p is the share of benign accounts that ever "
     "meet "
     "it; p: the running week's",
     "e|p", 0, 0},
    {"ladder.block_days", RT_FIELD_REAL, AT(block_days), "7",
     "how long the benign accounts of the reference were watched", NULL, 0.001, 366},
    {"ladder.sweep_hours", RT_FIELD_REAL, AT(sweep_hours), "6", "accounts are linked so often", NULL, 0.001,
     168},
    {"ladder.dry_run", RT_FIELD_BOOL, AT(dry_run), "no", "decide and record, change nothing", NULL, 0, 0},
    {"exemplars.keep", RT_FIELD_COUNT, AT(exemplars), "8",
     "ids of a suspected account's most telling requests that are kept for a review", NULL, 0, 20},
    {"exposure.top_logprobs", RT_FIELD_COUNT, AT(exposure_top), "20",
     "most alternatives a token, for everybody", NULL, 0, 20},
    {"exposure.bias_with_logprobs", RT_FIELD_BOOL, AT(exposure_bias), "no",
     "log-probabilities together with logit_bias give the weights away", NULL, 0, 0},
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

const char *rt_rung_name(rt_rung rung)
{
    static const char *const names[RT_RUNG_COUNT] = {"none",     "observe",   "watermark", "twins",  "slow",
                                                     "logprobs", "reasoning", "challenge", "suspend"};
    return names[rung];
}

/* A rung that does more must not be taken at weaker evidence than one that does less. */
static rt_status check(const rt_guard_policy *policy, const char *where, rt_error *err)
{
    for (int low = RT_RUNG_OBSERVE; low < RT_RUNG_COUNT; low++)
        for (int high = low + 1; high < RT_RUNG_COUNT; high++)
            if (policy->p[low] > 0 && policy->p[high] > policy->p[low])
                return rt_error_set(
                    err, RT_INVALID,
                    "%.200s: %s.p is %g and %s.p is %g: a stronger rung must not need weaker evidence; "
                    "lower %s.p or raise %s.p",
                    where, rt_rung_name((rt_rung)high), policy->p[high], rt_rung_name((rt_rung)low),
                    policy->p[low], rt_rung_name((rt_rung)high), rt_rung_name((rt_rung)low));
    if (policy->logprobs_top > policy->exposure_top)
        return rt_error_set(
            err, RT_INVALID,
            "%.200s: logprobs.top is %zu, more than exposure.top_logprobs gives everybody (%zu)", where,
            policy->logprobs_top, policy->exposure_top);
    return RT_OK;
}

static rt_status make(rt_guard_policy_file **out, const char *path, const char *data, size_t size,
                      const char *where, rt_error *err)
{
    *out = NULL;
    rt_guard_policy_file *file = calloc(1, sizeof *file);
    if (!file)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a policy");
    rt_status status = rt_settings_open(&file->settings, fields, N_FIELDS, err);
    if (status == RT_OK && path)
        status = rt_settings_read(file->settings, path, err);
    if (status == RT_OK && data)
        status = rt_settings_read_text(file->settings, data, size, where, err);
    if (status == RT_OK)
        status = rt_settings_fill(file->settings, &file->policy, err);
    if (status == RT_OK)
        status = check(&file->policy, where, err);
    if (status != RT_OK) {
        rt_guard_policy_close(file);
        return status;
    }
    *out = file;
    return RT_OK;
}

rt_status rt_guard_policy_open(rt_guard_policy_file **out, const char *path, rt_error *err)
{
    return make(out, path, NULL, 0, path ? path : "policy", err);
}

rt_status rt_guard_policy_read(rt_guard_policy_file **out, const char *data, size_t size, const char *where,
                               rt_error *err)
{
    return make(out, NULL, data, size, where, err);
}

void rt_guard_policy_apply(const rt_guard_policy_file *file, rt_guard_options *options)
{
    options->block_seconds = file->policy.block_days * 86400;
    options->sweep_seconds = file->policy.sweep_hours * 3600;
    options->fdr = file->policy.suspend_fdr;
}

const rt_guard_policy *rt_guard_policy_of(const rt_guard_policy_file *file) { return &file->policy; }
void rt_guard_policy_print(const rt_guard_policy_file *file, rt_text *out)
{
    rt_settings_print(file->settings, out);
}

void rt_guard_policy_close(rt_guard_policy_file *file)
{
    if (!file)
        return;
    rt_settings_close(file->settings);
    free(file);
}
