/* cli/guard_run.c - recorded traffic through the guard, for every word of `retort guard` that looks at it. */
#include <stdio.h>

#include "base/file.h"
#include "cli/guard.h"
#include "guard/state.h"

/* Is the file a guard's state rather than traffic? */
static bool is_state(const char *path)
{
    uint64_t key;
    rt_error none = {0};
    return rt_guard_state_key(&key, path, &none) == RT_OK;
}

static rt_status find_key(uint64_t *key, const guard_run *run, rt_error *err)
{
    if (run->state && rt_path_exists(run->state))
        return rt_guard_state_key(key, run->state, err);
    if (is_state(run->path))
        return rt_guard_state_key(key, run->path, err);
    return rt_guard_key_beside(key, run->path, err);
}

static rt_status open_guard(guard_run *run, rt_error *err)
{
    rt_guard_options options = {
        .reference = run->reference, .asn_path = run->asn, .accounts_max = run->accounts_max};
    rt_guard_policy_apply(run->policy, &options);
    if (find_key(&options.key, run, err) != RT_OK || rt_guard_open(&run->guard, &options, err) != RT_OK)
        return err->status;
    return rt_ladders_open(&run->ladders, run->guard, rt_guard_policy_of(run->policy), NULL, err);
}

rt_status guard_run_open(guard_run *run, rt_error *err)
{
    rt_guard_marks marks = {0};
    if (rt_guard_policy_open(&run->policy, run->policy_path, err) != RT_OK ||
        (run->reference_path &&
         rt_guard_reference_read(&run->reference, run->reference_path, err) != RT_OK) ||
        open_guard(run, err) != RT_OK ||
        (run->state && rt_guard_state_load(run->guard, run->ladders, &marks, run->state, err) != RT_OK))
        return err->status;
    if (is_state(run->path))
        return rt_guard_state_load(run->guard, run->ladders, &marks, run->path, err);
    const rt_guard_replay_options how = {
        .ladders = run->ladders, .skip_bad = run->skip_bad, .sweep_at_end = true};
    if (rt_guard_replay(run->guard, run->path, &how, &run->counts, err) != RT_OK ||
        (run->state && rt_guard_state_save(run->guard, run->ladders, marks.guard, run->state, err) != RT_OK))
        return err->status;
    if (run->counts.bad_rows)
        (void)fprintf(stderr, "retort: %zu malformed rows were passed over\n", run->counts.bad_rows);
    return RT_OK;
}

void guard_run_close(guard_run *run)
{
    rt_ladders_close(run->ladders);
    rt_guard_policy_close(run->policy);
    rt_guard_close(run->guard);
    rt_guard_reference_close(run->reference);
}

rt_rung guard_run_rung(const guard_run *run, const rt_guard_policy_file *policy,
                       const rt_guard_account *account)
{
    rt_ladder_state state = {0};
    const rt_ladder_evidence evidence = rt_ladder_evidence_of(run->guard, account, account->last_ts);
    return rt_ladder_decide(rt_guard_policy_of(policy), &state, &evidence).to;
}
