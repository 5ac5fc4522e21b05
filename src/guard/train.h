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
/* The features of a sample as a file, which this build alone can read; reading adds to the sample. */
rt_status rt_guard_sample_write(const rt_guard_sample *sample, const char *path, rt_error *err);
rt_status rt_guard_sample_read(rt_guard_sample *sample, const char *path, rt_error *err);
size_t rt_guard_sample_accounts(const rt_guard_sample *sample, bool attackers);

/* What was worked out about one account of a sample, by a fit that had not seen it. */
typedef struct rt_guard_scored {
    const char *name, *kind;
    size_t corpus;
    bool attacker;
    float score, p;
    uint32_t flagged_at;   /* requests when p first fell under 1 %; 0: never */
    const float *features; /* the last ones, [RT_GUARD_FEATURES] */
} rt_guard_scored;

enum { RT_GUARD_WITHOUT_MAX = 16 };

typedef struct rt_guard_fit {
    size_t folds; /* accounts of one cluster, and of one name, are in one fold */
    size_t trees;
    double strength; /* of the pull of leaves to 0 */
    uint64_t seed;
    size_t reference_accounts; /* benign scores that are kept of each use class, evenly spaced; 0: all */
    /* experiments; zero is none */
    size_t fit_corpora;   /* the first so many are fitted to, the others only scored; 0: all are */
    const char *left_out; /* attackers of this kind are only scored; NULL: none */
    const char *without[RT_GUARD_WITHOUT_MAX]; /* signals that are not judged by */
    size_t n_without;
    double poison; /* attackers taken for benign, as a share of the benign accounts; these are not scored */
    void (*on_scored)(void *context, const rt_guard_scored *scored); /* once for each account; may be NULL */
    void *context;
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

/* Which of n accounts that are taken for benign should be looked at before a reference is made of them, as a
 * few collectors among them would hide all others.  p: their p-values by an older reference.  That many of
 * honest accounts lie under p is n p, give or take sqrt(n p); from the most suspect on, those under alpha
 * that are more than n p + sqrt(n p) get aside = true.  keep: a person found them honest; they stay, and
 * count.  So whatever was hidden and not kept by a person, no more than alpha n + sqrt(alpha n) of those that
 * stay are under alpha.  The order of the accounts changes. */
typedef struct rt_guard_screened {
    size_t account;
    double p;
    bool keep, aside;
} rt_guard_screened;
void rt_guard_screen(rt_guard_screened *accounts, size_t n, double alpha);

typedef struct rt_guard_aside {
    const char *account;
    double score, p;
    bool decided; /* by a person, who found that it collects */
} rt_guard_aside;

/* Sets accounts of the sample aside as rt_guard_screen tells, use class by use class; they then take no part
 * in rt_guard_calibrate.  reviewed: JSON lines {account, label} of persons' decisions, or NULL: benign ones
 * stay, those that distil go.  `tell` is called for each that goes. */
rt_status rt_guard_sample_screen(rt_guard_sample *sample, const rt_guard_reference *by, double alpha,
                                 const char *reviewed,
                                 void (*tell)(void *context, const rt_guard_aside *aside), void *context,
                                 rt_error *err);

/* The same weights with the benign scores and quantiles of this sample.  RT_INVALID when the sample cannot
 * support the false-alarm rate `alpha`: that takes 1 / alpha accounts or more. */
rt_status rt_guard_calibrate(rt_guard_reference **out, const rt_guard_reference *weights,
                             const rt_guard_sample *sample, double alpha, rt_error *err);

#endif
