/* student/feature_train.h - hidden-state and relation losses inside a training step.
 *
 * Hidden: for each pair of layers the states after them, each divided by its rms (raw residual streams have
 * outlier channels), through a learned projection: loss feature.h's.  Relation: queries, keys, values of one
 * layer on each side as attention sees them (after rope), split into the same number of relation heads; the
 * mean over heads and over the kinds.  Both are weighted row by row like the objective: rows with a loss.
 *
 * Projections lie behind the student's parameters in the trainer's arrays, are trained with them, kept in
 * checkpoints and left out of the student's files. */
#ifndef RT_STUDENT_FEATURE_TRAIN_H
#define RT_STUDENT_FEATURE_TRAIN_H

#include "model/decoder.h"
#include "student/feature.h"
#include "student/head.h"

enum { RT_FEATURE_PAIRS_MAX = 64, RT_RELATION_TOKENS_MAX = 4096 };
enum { RT_RELATION_Q = 1, RT_RELATION_K = 2, RT_RELATION_V = 4 };

typedef struct rt_feature_options { /* all 0: none */
    double hidden_weight;
    rt_hidden_kind hidden;
    bool projection; /* else the widths must be equal */
    size_t n_pairs;
    struct {
        size_t student, teacher; /* layers from 0 */
    } pairs[RT_FEATURE_PAIRS_MAX];
    double relation_weight;
    unsigned relations;                        /* RT_RELATION_* */
    size_t relation_heads;                     /* 0: the student's kv heads */
    size_t relation_student, relation_teacher; /* layers from 0 */
    size_t sequence_max;                       /* tokens of the longest document; relations only */
} rt_feature_options;

static inline bool rt_features_any(const rt_feature_options *o)
{
    return o->hidden_weight != 0 || o->relation_weight != 0;
}

/* RT_INVALID names what does not fit the two shapes. */
rt_status rt_features_check(const rt_feature_options *options, const rt_model_config *student,
                            const rt_model_config *teacher, rt_error *err);
/* Values that the projections take: n_pairs matrices [d_t, d_s], in order. */
size_t rt_features_parameters(const rt_feature_options *options, const rt_model_config *student,
                              const rt_model_config *teacher);
/* A start: the identity where widths are equal, else normal draws of variance 1 / d_s. */
void rt_features_init(float *values, const rt_feature_options *options, const rt_model_config *student,
                      const rt_model_config *teacher, uint64_t seed);

typedef struct rt_features rt_features;
rt_status rt_features_open(rt_features **out, const rt_feature_options *options, const rt_model *student,
                           const rt_model *teacher, size_t tokens_max, rt_error *err);
void rt_features_close(rt_features *features);
size_t rt_features_bytes(const rt_features *features);

/* Before the teacher's forward pass of a micro-batch: its rows with a loss. All are borrowed until the
 * backward pass is over; values, grads: of the projections. */
void rt_features_begin(rt_features *features, const rt_pass *student, const rt_pass *teacher,
                       const rt_batch *batch, const rt_head_rows *rows, const float *values, float *grads);
/* The teacher's tap (rt_tap_fn) and the student's hooks of the backward pass, with the features as context.
 */
void rt_features_tap(void *features, size_t layer, const float *x, size_t n_tokens);
rt_backward_hooks rt_features_hooks(rt_features *features);
/* After it: the weighted loss of the micro-batch. */
double rt_features_loss(const rt_features *features);

#endif
