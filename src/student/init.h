/* student/init.h - what of a teacher to keep in a smaller student: importance of units, heads, channels and
 * layers from activations, the choice that follows, the weights cut accordingly, low-rank factors.
 *
 * Sources: Minitron (Muralidharan et al. 2024) for width: mean of |activation| over a sequence, then the L2
 * norm over sequences; ShortGPT (Men et al. 2024) for depth: block influence, 1 - cos(input, output). */
#ifndef RT_STUDENT_INIT_H
#define RT_STUDENT_INIT_H

#include "model/params.h"

/* ---- importance of units ---- */

typedef struct rt_importance {
    size_t units, sequences, tokens;
    double *sequence_abs; /* [units] of the sequence under way */
    double *abs_sum, *square_sum, *batch_square;
    size_t sequence_tokens;
} rt_importance;

typedef enum rt_importance_kind {
    RT_IMPORTANCE_SEQMEAN_BATCHL2, /* sqrt of the sum over sequences of (mean |a|)^2: the one to use */
    RT_IMPORTANCE_MEAN_ABS,        /* mean |a| over all tokens */
    RT_IMPORTANCE_RMS              /* sqrt of the mean of a^2 over all tokens */
} rt_importance_kind;

rt_status rt_importance_init(rt_importance *importance, size_t units, rt_error *err);
void rt_importance_deinit(rt_importance *importance);
/* n_tokens rows of `units` activations, rows `ld` apart, of the sequence under way. */
void rt_importance_add(rt_importance *importance, const float *rows, size_t ld, size_t n_tokens);
void rt_importance_add_double(rt_importance *importance, const double *rows, size_t ld, size_t n_tokens);
void rt_importance_end_sequence(rt_importance *importance);
/* out [units]; zeros before the first token. */
void rt_importance_scores(const rt_importance *importance, rt_importance_kind kind, double *out);

/* order [n]: indices by falling score, equal ones by rising index. */
rt_status rt_importance_order(uint32_t *order, const double *scores, size_t n, rt_error *err);
/* The best `keep` of n units, in rising order of index. */
rt_status rt_importance_keep(uint32_t *kept, size_t keep, const double *scores, size_t n, rt_error *err);
/* The same for query heads, `keep` / n_groups of each group: the heads of a group share keys and values. */
rt_status rt_importance_keep_heads(uint32_t *kept, size_t keep, const double *scores, size_t n_heads,
                                   size_t n_groups, rt_error *err);

/* ---- importance of layers ---- */

typedef struct rt_influence { /* an rt_tap_fn's context: give it to rt_forward with rt_influence_tap */
    size_t n_layers, n_embd, tokens, tokens_max;
    float *before; /* [tokens_max, n_embd] residual stream in front of the layer at hand */
    double *sums;  /* [n_layers] of 1 - cosine */
} rt_influence;
rt_status rt_influence_init(rt_influence *influence, size_t n_layers, size_t n_embd, size_t tokens_max,
                            rt_error *err);
void rt_influence_deinit(rt_influence *influence);
void rt_influence_tap(void *context, size_t layer, const float *x, size_t n_tokens);
void rt_influence_scores(const rt_influence *influence, double *out); /* [n_layers] means over tokens */
/* `keep` of n layers with the largest influence, in order; the first and the last stay (keep >= 2). */
rt_status rt_influence_keep(size_t *kept, size_t keep, const double *scores, size_t n, rt_error *err);

/* ---- cutting weights ---- */

/* What the student keeps of each kind; NULL: all.  Lists are in rising order. */
typedef struct rt_width_map {
    const uint32_t *channels; /* [n_embd of the student] */
    const uint32_t *units;    /* [n_layers][n_ff of the student]: of the MLP */
    const uint32_t *heads;    /* [n_layers][n_heads of the student]: query heads */
    const uint32_t *groups;   /* [n_layers][n_heads_kv of the student]: kv heads */
    const size_t *layers;     /* [n_layers of the student] of the teacher */
} rt_width_map;
/* Fills the student's values from the teacher's in memory, slicing every tensor consistently.  Learned
 * positions and the vocabulary are not cut.  RT_MISMATCH when the configurations differ in other ways. */
rt_status rt_params_slice(float *values, const rt_layout *layout, const rt_model_config *config,
                          const float *from, const rt_layout *from_layout, const rt_model_config *from_config,
                          const rt_width_map *map, rt_error *err);
/* The same straight from the teacher's file, a tensor at a time: no more memory than its largest ones. */
rt_status rt_params_load_slice(float *values, const rt_layout *layout, const rt_model_config *config,
                               const rt_weights *weights, const rt_model_config *from_config,
                               const rt_width_map *map, rt_pool *pool, rt_error *err);

/* ---- low rank ---- */

/* The factors of W [rows, cols]: left [rows, rank] = U sqrt(S), right [rank, cols] = sqrt(S) V^T, so that
 * left . right is the nearest matrix of that rank.  singular [min(rows, cols)], falling.  One-sided Jacobi:
 * accurate to rounding. */
rt_status rt_svd_factor(double *left, double *right, double *singular, const double *w, size_t rows,
                        size_t cols, size_t rank, rt_error *err);

#endif
