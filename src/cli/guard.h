/* cli/guard.h - the words of `retort guard`, one function each, and what they share. */
#ifndef RT_CLI_GUARD_H
#define RT_CLI_GUARD_H

#include "cli/cli.h"
#include "guard/ladders.h"
#include "guard/replay.h"

int guard_replay(int argc, char **argv);
int guard_explain(int argc, char **argv);
int guard_clusters(int argc, char **argv);
int guard_review(int argc, char **argv);
int guard_what_if(int argc, char **argv);
int guard_features(int argc, char **argv);
int guard_report(int argc, char **argv);
int guard_train(int argc, char **argv);
int guard_train_elicit(int argc, char **argv);
int guard_calibrate(int argc, char **argv);

/* What all that replay traffic have in common. */
typedef struct guard_run {
    const char *path, *asn, *policy_path, *reference_path, *state;
    size_t accounts_max;
    bool skip_bad;
    rt_guard_replay_counts counts;
    rt_guard_policy_file *policy; /* the defaults without policy_path */
    rt_guard_reference *reference;
    rt_guard *guard;
    rt_ladders *ladders; /* the decisions that the policy makes of the traffic */
} guard_run;

/* Reads policy, reference and state, replays the traffic, writes the state.  <path> may also be a state by
 * itself: then nothing is replayed.  The key of the sketches is that of the state, or the one in <path>.key,
 * which a server writes beside its --guard-log: then the replay gives the live run's figures bit for bit. */
rt_status guard_run_open(guard_run *run, rt_error *err);
void guard_run_close(guard_run *run);
/* The rung that an account without a history would stand on. */
rt_rung guard_run_rung(const guard_run *run, const rt_guard_policy_file *policy,
                       const rt_guard_account *account);

#endif
