/* student/propose.h - shapes of a student near a size, cut out of a teacher, the likeliest to do well first.
 *
 * The rank is a rule of thumb, from what those who prune report (Minitron, ModelOpt's guide): many moderate
 * cuts harm less than a deep one, so a cut to the share s of an axis counts w ln² s; MLP units are the
 * easiest to miss (w 1), then layers and heads (2), then channels (4), which every tensor shares.  The sum
 * says nothing of a loss in nats: it only orders shapes of one size. */
#ifndef RT_STUDENT_PROPOSE_H
#define RT_STUDENT_PROPOSE_H

#include "student/survey.h"

enum { RT_PROPOSALS_MAX = 32 };

typedef struct rt_proposal {
    size_t n_layers;
    rt_cut_sizes sizes; /* 0: not cut */
    double parameters, harm;
} rt_proposal;

/* Up to n_max shapes with about so many parameters (within 4%; where only layers can be cut, as near as whole
 * ones come); no two of them are alike in all but a little of one axis.  RT_INVALID: the teacher is smaller,
 * or nothing that is left of it at a third of its depth and a quarter of its width is as small. */
rt_status rt_propose_cuts(rt_proposal *out, size_t *n, size_t n_max, const rt_model_config *teacher,
                          double parameters, rt_error *err);

#endif
