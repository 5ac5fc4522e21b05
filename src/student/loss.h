/* student/loss.h - the objectives of distillation, one token at a time over the whole vocabulary.
 *
 * Notation (METHODS 1-4): z [n_vocab] the student's logits, zt [n_vocab] the teacher's, p = softmax(z/tau),
 * q = softmax(zt/tau), y the label.  Natural logarithm, nats.  Every loss here is a sum of terms, each a
 * weight and a spec; for example (1-l) CE + l tau^2 KL_tau is {1-l, CE at tau 1}, {l, FKL at tau with tau2}.
 *
 *   kind       L                                                     parameters
 *   CE         -(1-e) log p_y - (e/V) sum log p_i + c lse(z/tau)^2   label_smoothing e, z_loss c
 *   FKL        KL(q||p)
 *   RKL        KL(p||q)
 *   JSD        b KL(q||m) + (1-b) KL(p||m), m = b q + (1-b) p        beta b; 0 is FKL, 1 is RKL
 *   JSD_NORM   JSD / (b (1-b)), continuous at both ends              beta
 *   SKL        KL(q||m), m = a q + (1-a) p                           alpha a in [0, 1]
 *   SRKL       KL(p||m), m = (1-a) q + a p                           alpha
 *   TVD        (1/2) sum |p - q|
 *   AB         alpha-beta divergence; teacher^alpha, student^beta    alpha, beta
 *   AKL        h KL(q||p) + (1-h) KL(p||q), h from the teacher's head of mass mu (no gradient)
 *   TAID       KL(r||p), r = softmax(((1-t) z + t zt)/tau), no gradient through r         t
 *   MSE        mean (z - zt)^2; tau has no part in it
 *   MSE_CENTRED  the same after each row's mean is taken off
 *   RSKD       -sum w_i log p_i over drawn ids (student/kept.h); only with rows of a store
 *
 * Ids that are -inf on both sides (CE without a teacher: on the student's) leave the support; a row with no
 * id left has loss 0 and gradient 0.  Where a loss is +inf (p = 0 < q under FKL) it is returned so, with
 * `finite` false, and no gradient is to be used.  The gradient of ids past n_vocab (pads) is 0: the functions
 * here do not touch them. */
#ifndef RT_STUDENT_LOSS_H
#define RT_STUDENT_LOSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"
#include "tensor/dtype.h"

/* kind, the name in recipes and in golden files, needs a teacher, needs a label */
#define RT_LOSS_MAP(X)                                                                                       \
    X(CE, "ce", false, true)                                                                                 \
    X(FKL, "fkl", true, false)                                                                               \
    X(RKL, "rkl", true, false)                                                                               \
    X(JSD, "jsd", true, false)                                                                               \
    X(JSD_NORM, "jsd_norm", true, false)                                                                     \
    X(SKL, "skl", true, false)                                                                               \
    X(SRKL, "srkl", true, false)                                                                             \
    X(TVD, "tvd", true, false)                                                                               \
    X(AB, "ab", true, false)                                                                                 \
    X(AKL, "akl", true, false)                                                                               \
    X(TAID, "taid", true, false)                                                                             \
    X(MSE, "mse", true, false)                                                                               \
    X(MSE_CENTRED, "mse_centred", true, false)                                                               \
    X(RSKD, "rskd", true, false)

typedef enum rt_loss_kind {
#define RT_LOSS_ENUM(name, text, teacher, label) RT_LOSS_##name,
    RT_LOSS_MAP(RT_LOSS_ENUM)
#undef RT_LOSS_ENUM
        RT_LOSS_KIND_COUNT
} rt_loss_kind;

const char *rt_loss_kind_name(rt_loss_kind kind);
bool rt_loss_kind_from_name(rt_loss_kind *out, const char *name);

/* What stands for the ids that a truncated teacher does not name (METHODS 5); NONE: all ids are known. */
#define RT_TAIL_MAP(X)                                                                                       \
    X(NONE, "none")               /* of the whole vocabulary */                                              \
    X(BUCKET, "bucket")           /* one outcome more, with the mass that is left */                         \
    X(RENORM, "renorm")           /* the teacher's mass is made 1 on its ids; FKL */                         \
    X(RENORM_BOTH, "renorm_both") /* the student's as well */                                                \
    X(PARTIAL, "partial")         /* the known ids' terms alone; FKL; no divergence */                       \
    X(UNIFORM, "uniform")         /* the mass that is left spread evenly; FKL */                             \
    X(FLOOR, "floor")             /* RENORM with log q = -100 elsewhere; RKL */

typedef enum rt_tail_mode {
#define RT_TAIL_ENUM(name, text) RT_TAIL_##name,
    RT_TAIL_MAP(RT_TAIL_ENUM)
#undef RT_TAIL_ENUM
        RT_TAIL_COUNT
} rt_tail_mode;
const char *rt_tail_mode_name(rt_tail_mode mode);
bool rt_tail_mode_from_name(rt_tail_mode *out, const char *name);

typedef struct rt_loss_spec {
    rt_loss_kind kind;
    bool tau2;            /* multiply loss and gradient by tau^2 (METHODS 3) */
    bool self_normalised; /* RSKD: weights made to sum to 1: less variance, a bias of order 1/draws */
    rt_tail_mode tail;    /* with rows of a store */
    double tau;           /* > 0; 0 stands for 1 */
    double beta, alpha;   /* JSD, AB; SKL, SRKL, AB */
    double mu, t;         /* AKL; TAID */
    double label_smoothing, z_loss;
} rt_loss_spec;

enum { RT_LOSS_TERMS_MAX = 4 };

typedef struct rt_loss_mix { /* sum of weight * term */
    size_t n_terms;
    struct {
        double weight;
        rt_loss_spec spec;
    } terms[RT_LOSS_TERMS_MAX];
} rt_loss_mix;

/* RT_INVALID, naming the parameter, when a spec has no meaning (tau <= 0, beta outside [0, 1], ...). */
rt_status rt_loss_mix_check(const rt_loss_mix *mix, rt_error *err);
bool rt_loss_mix_needs_teacher(const rt_loss_mix *mix);
bool rt_loss_mix_needs_label(const rt_loss_mix *mix);
/* True when rt_loss_row has fast code for it: CE, FKL, RKL, JSD, JSD_NORM at any temperatures.  Other
 * mixtures run through the reference, some 100 times slower: 6 ms a token at 49,152 ids. */
bool rt_loss_mix_is_fast(const rt_loss_mix *mix);

/* What is known of a token after its row; at temperature 1 whatever the terms' own. NAN: not known (no
 * teacher, no label). */
typedef struct rt_loss_stats {
    double loss;                         /* the mixture, nats, before `scale` */
    double terms[RT_LOSS_TERMS_MAX];     /* each term's loss without weight and tau^2 */
    double nll_student, nll_teacher;     /* -log p_y, -log q_y */
    double kl_forward, kl_reverse;       /* KL(q||p), KL(p||q) */
    uint32_t top1_student, top1_teacher; /* the first id with the largest logit */
    bool finite;                         /* loss and gradient are */
} rt_loss_stats;

#define RT_LABEL_NONE SIZE_MAX /* for a position without a label, when no term needs one */

/* Bytes of scratch that rt_loss_row needs; one for each thread, 64-byte aligned. */
size_t rt_loss_work_bytes(size_t n_vocab);

/* One token: stats, and scale * d(loss)/dz into dz_f32 and/or dz_bf16 (each [n_vocab], may be NULL; bf16
 * rounded to nearest even of the float32).  dz_f32 may be z or zt itself, dz_bf16 may begin where z does.  zt
 * NULL when no term needs it. stats->finite false: the gradient written is 0.  The mix has been checked;
 * label < n_vocab or RT_LABEL_NONE. Speed on AVX-512: about 4 cycles an id for FKL. Safe from any thread with
 * a `work` of its own. */
void rt_loss_row(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n_vocab,
                 double scale, float *dz_f32, rt_bf16 *dz_bf16, rt_loss_stats *stats, void *work);

/* The same where z and zt are not needed afterwards: both are destroyed and the gradient is written over z,
 * as float32, or (bf16) as n_vocab bf16 values from where z begins.  For CE and FKL at one temperature exps
 * are computed once instead of twice: about 2.6 cycles an id. */
void rt_loss_row_in_place(const rt_loss_mix *mix, float *z, float *zt, size_t label, size_t n_vocab,
                          double scale, bool bf16, rt_loss_stats *stats, void *work);

/* The meaning of one term, in double: returns the loss (no tau^2) and writes d(loss)/dz to grad [n_vocab].
 * *finite as above.  work: as for rt_loss_row. */
double rt_loss_ref(const rt_loss_spec *spec, const float *z, const float *zt, size_t label, size_t n_vocab,
                   double *grad, bool *finite, void *work);

/* How token losses of one optimiser step become one number; the whole step counts, whatever the micro-batches
 * and ranks (METHODS 4). */
typedef enum rt_reduction {
    RT_TOKEN_MEAN,        /* sum of L / tokens of the step */
    RT_SEQ_MEAN_OF_MEANS, /* mean over sequences that have a token of their token means */
    RT_SEQ_SUM_MEAN,      /* sum / sequences */
    RT_SUM_OVER_CONST     /* sum / constant: no length bias */
} rt_reduction;
bool rt_reduction_from_name(rt_reduction *out, const char *name); /* "token_mean", ... */

typedef struct rt_step_counts {
    uint64_t tokens;    /* with a loss, in the step */
    uint64_t sequences; /* in the step */
    uint64_t sequences_with_tokens;
    double constant; /* of RT_SUM_OVER_CONST */
} rt_step_counts;

/* The `scale` of a token whose sequence has sequence_tokens of them: the step's loss is sum of scale * L.
 * 0 when the step has no token. */
double rt_reduction_scale(rt_reduction reduction, const rt_step_counts *counts, uint64_t sequence_tokens);

#endif
