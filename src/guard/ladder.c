/* guard/ladder.c - see ladder.h. */
#include "guard/ladder.h"

#include "guard/result.h"

static const float out_of_ordinary = 95; /* percentile among benign accounts from which a signal speaks */

/* The highest rung that this evidence reaches. */
static rt_rung reached(const rt_guard_policy *policy, const rt_ladder_evidence *e, double factor)
{
    rt_rung rung = RT_RUNG_NONE;
    for (int r = RT_RUNG_OBSERVE; r < RT_RUNG_COUNT; r++) {
        if (!(policy->p[r] > 0) || e->p * factor > policy->p[r])
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
    const bool stronger = state->p == 0 || e->p * policy->calm <= state->p;
    if (state->rung != RT_RUNG_NONE && e->now > state->until) {
        state->rung = (uint8_t)below(policy, (rt_rung)state->rung);
        state->until = e->now + life;
        state->returning = 1;
        state->proposed = 0;
    }
    rt_rung target = state->returning && !stronger ? RT_RUNG_NONE : reached(policy, e, 1);
    if (target == RT_RUNG_SUSPEND && policy->suspend_by == RT_SUSPEND_BY_PERSON) {
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
    const double p = (double)rt_guard_final_p(account);
    return (rt_ladder_evidence){.now = now,
                                .p = p,
                                .requests = account->n,
                                .families = rt_guard_families(guard, account),
                                .cluster = account->cluster != 0 && account->lift_p < 1};
}
