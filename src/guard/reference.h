/* guard/reference.h - what the guard compares an account with: weights, and scores of benign accounts.
 *
 * The score has two additive parts.  The first is what is known before any traffic: a feature is centred and
 * scaled by benign accounts, clipped to [low, high], and weighted.  The second are small monotone trees
 * (boost.h) fitted to labelled traffic on top of it.  Contributions of the features sum up to the score.  The
 * p-value is conformal: the share of benign accounts (each once, with the largest score of its recorded life,
 * under weights that were fitted without it) that scored as high, plus one: p = (1 + #{benign >= score}) / (m
 * + 1), Bates et al., arXiv 2104.08279.
 *
 * A reference is a JSON file of figures; it holds no prompt and no account.  The one in
 * data/guard/reference.json is part of the program.  `retort guard train` makes it, `retort guard calibrate`
 * renews its benign part. */
#ifndef RT_GUARD_REFERENCE_H
#define RT_GUARD_REFERENCE_H

#include "guard/boost.h"
#include "guard/signals.h"

enum {
    RT_GUARD_QUANTILES = 21,           /* 0, 5, ... 100 % */
    RT_GUARD_CLASSES = 3,              /* people at a program for people; those who ask a lot; programs */
    RT_GUARD_HEAVY = 40,               /* requests in a block that make a person one who asks a lot */
    RT_GUARD_CALIBRATION_MAX = 100000, /* benign scores kept */
};
extern const char *const rt_guard_class_names[RT_GUARD_CLASSES];

typedef struct rt_guard_term { /* one feature's part in the score */
    float centre, scale, low, high, weight;
    float quantiles[RT_GUARD_CLASSES][RT_GUARD_QUANTILES]; /* among benign accounts of each use class */
} rt_guard_term;

typedef struct rt_guard_reference {
    float bias;
    rt_boost_tree *trees; /* [n_trees] */
    size_t n_trees;
    rt_guard_term terms[RT_GUARD_FEATURES];
    float *benign[RT_GUARD_CLASSES]; /* ascending: largest scores of benign accounts of each use class */
    float floor[RT_GUARD_CLASSES];   /* that benign scores were raised to */
    size_t n_benign[RT_GUARD_CLASSES];
    float
        habit; /* how much one account's blocks of time are alike (evalue.h); 0.5 where it was not measured */
    uint64_t digest; /* of the file's bytes: names the reference in records */
} rt_guard_reference;

/* The reference in the program; read once, never freed. */
rt_status rt_guard_reference_builtin(const rt_guard_reference **out, rt_error *err);
rt_status rt_guard_reference_read(rt_guard_reference **out, const char *path, rt_error *err);
rt_status rt_guard_reference_parse(rt_guard_reference **out, const char *data, size_t size, const char *where,
                                   rt_error *err);
rt_status rt_guard_reference_write(const rt_guard_reference *reference, const char *path, rt_error *err);
void rt_guard_reference_close(rt_guard_reference *reference);
uint64_t rt_guard_reference_digest(const rt_guard_reference *reference);

/* Feature `f` as the score sees it, and its contribution. */
float rt_guard_term_value(const rt_guard_term *term, float feature);
float rt_guard_score(const rt_guard_reference *reference, const float features[RT_GUARD_FEATURES]);
/* The same with each feature's part in it; what is left is the bias. */
float rt_guard_contributions(const rt_guard_reference *reference, const float features[RT_GUARD_FEATURES],
                             float contributions[RT_GUARD_FEATURES]);
/* The additive part alone. */
float rt_guard_known_score(const rt_guard_reference *reference, const float features[RT_GUARD_FEATURES]);
/* The conformal p-value of a largest score among benign accounts of the use class; never under
 * 1 / (n_benign + 1).  Scores at or under the reference's floor, where nothing speaks against anybody, are
 * ties, and `lot` in [0, 1) breaks ties, as smoothed conformal p-values do (Vovk et al. 2005): p is uniform
 * among benign accounts whatever the bulk of the scores looks like. */
float rt_guard_p(const rt_guard_reference *reference, int use_class, float score, double lot);
/* The lot of an account's name: the same in every replay. */
double rt_guard_lot(const char *name);
/* Where a feature's value lies among benign accounts of the class, 0 to 100. */
float rt_guard_percentile(const rt_guard_term *term, int use_class, float feature);
int rt_guard_use_class(const rt_guard_account *account);
int rt_guard_use_class_of(bool person, uint32_t requests);

#endif
