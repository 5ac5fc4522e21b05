/* guard/train.h - makes a reference from recorded traffic: weights from labelled traffic, and the scores of
 * benign accounts under weights that were fitted without them. */
#ifndef RT_GUARD_TRAIN_H
#define RT_GUARD_TRAIN_H

#include "guard/guard.h"

typedef struct rt_guard_sample rt_guard_sample; /* features of accounts at their checks */

rt_status rt_guard_sample_open(rt_guard_sample **out, rt_error *err);
void rt_guard_sample_close(rt_guard_sample *sample);
/* Replays a file (with its networks, or NULL) into the sample.  labels_path: JSON lines {account, label:
 * benign or distil, kind, cluster}; NULL: all accounts are taken for benign.  Accounts without a label are
 * left out. */
rt_status rt_guard_sample_add(rt_guard_sample *sample, const char *path, const char *asn_path,
                              const char *labels_path, rt_error *err);
size_t rt_guard_sample_accounts(const rt_guard_sample *sample, bool attackers);

typedef struct rt_guard_fit {
    size_t folds; /* accounts of one cluster, and of one name, are in one fold */
    size_t trees;
    double strength; /* of the pull of leaves to 0 */
    uint64_t seed;
    size_t reference_corpora; /* benign scores are those of the first so many corpora where they suffice; 0:
                                 of all */
} rt_guard_fit;

enum { RT_GUARD_CORPORA_MAX = 16 };
typedef struct rt_guard_fit_report {
    size_t benign, attackers, corpora;
    double found_half, found_one,
        found_two; /* shares of attackers found at 0.5, 1, 2 % false alarms, cross-fitted */
    /* by corpus (the first 16): attackers with p < 1 %, benign accounts with p < 1 %, and the largest
     * distance of the benign p-values' distribution from the uniform one (Kolmogorov-Smirnov), cross-fitted
     */
    double corpus_found[RT_GUARD_CORPORA_MAX], corpus_false[RT_GUARD_CORPORA_MAX],
        corpus_ks[RT_GUARD_CORPORA_MAX];
} rt_guard_fit_report;

/* Weights from the whole sample, benign scores cross-fitted. */
rt_status rt_guard_train(rt_guard_reference **out, const rt_guard_sample *sample, const rt_guard_fit *fit,
                         rt_guard_fit_report *report, rt_error *err);

/* The same weights with the benign scores and quantiles of this sample.  RT_INVALID when the sample cannot
 * support the false-alarm rate `alpha`: that takes 1 / alpha accounts or more. */
rt_status rt_guard_calibrate(rt_guard_reference **out, const rt_guard_reference *weights,
                             const rt_guard_sample *sample, double alpha, rt_error *err);

#endif
