/* guard/ladder.c - see ladder.h. */
#include "guard/ladder.h"

#include "guard/result.h"

static const float out_of_ordinary = 95; /* percentile among benign accounts from which a signal speaks */

/* The evidence for a rung as a rate of false alarms. */
static double strength(const rt_guard_policy *policy, rt_rung rung, const rt_ladder_evidence *e)
{
    if (rung < RT_RUNG_CHALLENGE || policy->accuse_by == RT_ACCUSE_BY_P)
        return e->p;
    return e->e > 1 ? 1 / e->e : 1;
}

/* The highest rung that this evidence reaches. */
static rt_rung reached(const rt_guard_policy *policy, const rt_ladder_evidence *e)
{
    rt_rung rung = RT_RUNG_NONE;
    for (int r = RT_RUNG_OBSERVE; r < RT_RUNG_COUNT; r++) {
        if (!(policy->p[r] > 0) || strength(policy, (rt_rung)r, e) > policy->p[r])
            continue;
        if (r > RT_RUNG_OBSERVE && e->requests < policy->requests_min)
            continue;
        if (r == RT_RUNG_SUSPEND && e->families < policy->suspend_families && !e->cluster)
            continue;
        rung = (rt_rung)r;
    }
    return rung;
}

/* The strongest rung below that the policy uses. */
static rt_rung below(const rt_guard_policy *policy, rt_rung rung)
{
    int r = (int)rung - 1;
    while (r > RT_RUNG_NONE && !(policy->p[r] > 0))
        r--;
    return (rt_rung)r;
}

rt_ladder_step rt_ladder_decide(const rt_guard_policy *policy, rt_ladder_state *state,
                                const rt_ladder_evidence *e)
{
    rt_ladder_step step = {.from = (rt_rung)state->rung};
    const double life = policy->expire_hours * 3600;
    const bool stronger =
        state->p == 0 || e->p * policy->calm <= state->p || (state->e > 0 && e->e >= policy->calm * state->e);
    if (state->rung != RT_RUNG_NONE && e->now > state->until) {
        state->rung = (uint8_t)below(policy, (rt_rung)state->rung);
        state->until = e->now + life;
        state->returning = 1;
        state->proposed = 0;
    }
    rt_rung target = state->returning && !stronger ? RT_RUNG_NONE : reached(policy, e);
    const bool by_rule = policy->suspend_by == RT_SUSPEND_BY_RULE && e->confirmed;
    if (target == RT_RUNG_SUSPEND && !by_rule) {
        step.proposed = !state->proposed;
        state->proposed = 1;
        target = below(policy, RT_RUNG_SUSPEND);
    }
    if (target > (rt_rung)state->rung) {
        state->rung = (uint8_t)target;
        state->until = e->now + life;
        state->returning = 0;
    } else if (stronger && target == (rt_rung)state->rung && target != RT_RUNG_NONE) {
        state->until = e->now + life;
    }
    if (target != RT_RUNG_NONE && (state->p == 0 || e->p < state->p))
        state->p = e->p;
    if (target != RT_RUNG_NONE && e->e > state->e)
        state->e = e->e;
    step.to = (rt_rung)state->rung;
    return step;
}

void rt_ladder_lift(rt_ladder_state *state)
{
    state->rung = RT_RUNG_NONE;
    state->proposed = 0;
    state->returning = 1;
}

size_t rt_guard_families(const rt_guard *guard, const rt_guard_account *account)
{
    rt_guard_reason reasons[RT_GUARD_REASONS_MAX];
    const size_t n = rt_guard_reasons(rt_guard_reference_of(guard), account, reasons);
    unsigned seen = 0;
    for (size_t i = 0; i < n; i++)
        if (reasons[i].percentile >= out_of_ordinary && reasons[i].contribution > 0)
            seen |= 1u << rt_guard_feature_signal(reasons[i].feature)->family;
    return (size_t)__builtin_popcount(seen);
}

rt_ladder_evidence rt_ladder_evidence_of(const rt_guard *guard, const rt_guard_account *account, double now)
{
    return (rt_ladder_evidence){.now = now,
                                .p = (double)rt_guard_block_p(account),
                                .e = rt_guard_e(account),
                                .confirmed = account->confirmed != 0,
                                .requests = rt_guard_requests(account),
                                .families = rt_guard_families(guard, account),
                                .cluster = account->cluster != 0 && account->lift_p < 1};
}
