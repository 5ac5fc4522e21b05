/* guard/ladder.h - from evidence to a response: rungs that are taken, lapse, are lifted and come back.
 *
 * Decisions depend on the traffic's own time and the evidence alone: a replay gives the decisions of the live
 * run.  Rungs that slow or withhold read the p-value of the running week; those that accuse (challenge,
 * suspend) read the e-value, which may be looked at for ever: they are taken from 1 / p on.
 * A rung is taken at once when the evidence reaches it.  It lapses to the one below when expire_hours
 * pass without stronger evidence.  After it lapsed, or a person lifted it, the same evidence does not bring
 * it back: p must have fallen, or e grown, by the factor `calm`. */
#ifndef RT_GUARD_LADDER_H
#define RT_GUARD_LADDER_H

#include <jansson.h>

#include "guard/guard.h"
#include "guard/policy.h"

typedef struct rt_ladder_state { /* of one account; zeroed: no rung */
    uint8_t rung;                /* rt_rung */
    uint8_t proposed;            /* a suspension waits for a person */
    uint8_t returning;           /* a rung lapsed or was lifted: `calm` applies */
    double p;                    /* the strongest evidence acted upon; 0: none */
    double e;                    /* the largest e-value acted upon */
    double until;                /* when the rung lapses, seconds UTC */
} rt_ladder_state;

typedef struct rt_ladder_evidence {
    double now;     /* of the traffic, seconds UTC */
    double p;       /* of the running week, with the cluster's part */
    double e;       /* of all weeks (evalue.h) */
    bool confirmed; /* by e-BH among all accounts, or its cluster among all clusters */
    uint32_t requests;
    size_t families; /* kinds of signals that say so (rt_guard_families) */
    bool cluster;    /* linked to others that are accused with it */
} rt_ladder_evidence;

typedef struct rt_ladder_step {
    rt_rung from, to;
    bool proposed; /* a suspension was proposed just now */
    bool lifted;   /* by a person, not by the ladder */
} rt_ladder_step;

rt_ladder_step rt_ladder_decide(const rt_guard_policy *policy, rt_ladder_state *state,
                                const rt_ladder_evidence *evidence);
/* A person has lifted it. */
void rt_ladder_lift(rt_ladder_state *state);

/* The evidence about an account as it stands, and how many kinds of signals are out of the ordinary. */
rt_ladder_evidence rt_ladder_evidence_of(const rt_guard *guard, const rt_guard_account *account, double now);
size_t rt_guard_families(const rt_guard *guard, const rt_guard_account *account);

#endif
