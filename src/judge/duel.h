/* judge/duel.h - which of two models answers better, by a judge that was asked both ways round.
 *
 * Of each request the judge gives the chance that the second model's answer is the better one, once with it
 * in second place and once in first; their mean is the request's preference, in which a liking for a place
 * cancels. The win rate is the mean over requests, 1/2 for equals.
 *
 * Judges like long answers.  The length-controlled win rate takes that out: the preferences are fitted by
 *
 *   logit P = quality + length tanh((bytes of the second - bytes of the first) / sd)
 *
 * (maximum likelihood of fractional outcomes, a weak Gaussian prior of sd 10 on both so that a walk-over has
 * a finite fit; sd: of the differences over the requests) and read at a difference of 0: 1 / (1 +
 * e^-quality). */
#ifndef RT_JUDGE_DUEL_H
#define RT_JUDGE_DUEL_H

#include "judge/bootstrap.h"
#include "retort/error.h"

typedef struct rt_duel_round {
    double as_second, as_first; /* chance that the second model's answer is better, by its place */
    double bytes_first_model, bytes_second_model;
} rt_duel_round;

typedef struct rt_duel_figures {
    size_t rounds;
    rt_interval win_rate, length_controlled; /* of the second model; 95% over requests */
    double length;      /* the coefficient of length: above 0, the judge likes long answers */
    double first_place; /* mean chance given to whatever stands first: .5 is fair */
    double consistent;  /* share of requests whose winner is the same both ways round */
    double mean_bytes[2];
} rt_duel_figures;

/* rounds [n], n > 0, chances in [0, 1]. */
rt_status rt_duel_count(rt_duel_figures *out, const rt_duel_round *rounds, size_t n, uint64_t seed,
                        rt_error *err);

#endif
