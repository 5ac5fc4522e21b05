/* student/trainer.h - one optimiser step: forward of teacher and student, fused head and loss, backward,
 * AdamW.
 *
 * All memory is taken when the trainer is opened; a step allocates nothing.  The state that a checkpoint
 * keeps is values, m, v (projections of features included), TAID's state and the step number; everything else
 * follows from them. */
#ifndef RT_STUDENT_TRAINER_H
#define RT_STUDENT_TRAINER_H

#include "model/decoder.h"
#include "student/adapter.h"
#include "student/course.h"
#include "student/factor.h"
#include "student/feature_train.h"
#include "student/head.h"
#include "student/loss.h"
#include "student/optimiser.h"
#include "student/ranks.h"
#include "student/schedule.h"

typedef struct rt_trainer_options {
    rt_loss_mix mix;  /* at the first step */
    rt_course course; /* how it changes; ramps need schedule.total */
    rt_adamw_options adamw;
    rt_schedule schedule;
    double clip;               /* largest global norm of the gradient; <= 0: none */
    rt_precision precision;    /* F32 or BF16, of the student */
    size_t tokens_max;         /* of a micro-batch */
    struct {                   /* the teacher is kept rows, not a model */
        bool topk, draws;      /* what they hold; both false: no kept rows */
        size_t n_max, n_vocab; /* ids of a row at most; the teacher's real ids */
        double tau;            /* temperature of their log-probabilities; 0: 1 */
    } kept;
    rt_across_options across;    /* the teacher has another tokenizer */
    size_t n_real;               /* across: the student's ids that are tokens; 0: all */
    rt_feature_options features; /* need a teacher model */
    uint64_t seed;               /* of the projections' start */
    bool teacher_always;         /* some batches bring an objective of their own that needs the teacher */
    const rt_ranks *ranks;       /* borrowed; NULL: one process */
    rt_adapters *adapters;       /* borrowed; they alone are trained.  NULL: all parameters are */
    size_t embd_rank;            /* the embedding is trained as factors of it; 0: whole.  Not with adapters */
} rt_trainer_options;

typedef struct rt_trainer {
    rt_trainer_options options;
    rt_model_config config;
    rt_layout layout;
    rt_factors factors;            /* of the embedding; count 0: none */
    size_t trained;                /* layout.total, or of the adapters, or what the factors leave */
    size_t total;                  /* trained, and the projections behind it */
    float *values, *m, *v, *grads; /* [total] each; with factors values and grads [layout.total] */
    float *base;             /* [layout.total] what the student reads: values, or merged with adapters */
    rt_bf16 *half;           /* [layout.total and projections] of base; NULL in F32 */
    uint64_t step;           /* optimiser steps done */
    rt_model *student;       /* a view of the above */
    const rt_model *teacher; /* borrowed; NULL when the objective needs none */
    rt_pass *pass, *teacher_pass;
    rt_head *head;
    rt_features *features; /* NULL: none */
    rt_taid taid;          /* where the course is adaptive */
    float *dhidden;
    rt_loss_stats *stats; /* [tokens_max] */
    double *norm_chunks;
    struct rt_update_range *ranges; /* tasks of the update */
    size_t n_ranges;
    rt_pool *pool;
    rt_arena arena;
    size_t *parts;   /* [ranks + 1] whose values are whose to update; NULL: one process */
    bool last_batch; /* set by the caller: the next batch is the last of the step, its gradients may go out */
    bool sent;       /* of the step under way: the layers' gradients are on their way */
    rt_status reduce_status; /* of the hooks, which cannot fail */
    rt_error reduce_err;
    struct { /* of the step under way */
        double loss, kl_forward, kl_reverse, nll, features, taid;
        size_t rows, compared, labelled; /* compared: with a teacher's distribution over the same ids */
    } sum;
} rt_trainer;

typedef struct rt_step_report {
    uint64_t step;                 /* the number of this step, from 1 */
    size_t rows;                   /* tokens with a loss */
    double loss;                   /* the objective, features included */
    double features;               /* the part of hidden states and relations; NAN without them */
    double taid;                   /* t of this step; NAN where it is not adaptive */
    double kl_forward, kl_reverse; /* means over the rows that have a teacher; else NAN */
    double nll;                    /* mean -log p of the labels; NAN without labels */
    double grad_norm;              /* before clipping */
    double lr;
} rt_step_report;

/* teacher must have been opened with the same pool.  The parameters are zero: fill values, then call start.
 */
rt_status rt_trainer_open(rt_trainer **out, const rt_model_config *config, const rt_model *teacher,
                          const rt_trainer_options *options, rt_pool *pool, rt_error *err);
void rt_trainer_close(rt_trainer *trainer);
size_t rt_trainer_bytes(const rt_trainer *trainer); /* memory that it owns */
/* The same before there is one, from shapes (rt_model_shape) and the number of parameters of the student's
 * layout (of the adapters, where options has them; trained, with factors); teacher NULL: the objective needs
 * none. */
size_t rt_trainer_bytes_of(const rt_model *student, const rt_model *teacher, size_t parameters,
                           const rt_trainer_options *options);
/* After the student's start was written: takes the embedding apart, where it is trained so; then syncs. */
rt_status rt_trainer_start(rt_trainer *trainer, rt_error *err);
/* After values were written: puts a factored embedding together, makes the bf16 copy. */
void rt_trainer_sync(rt_trainer *trainer);
/* The elements [*begin, *end) of the parameters that this process updates and whose moments it holds. */
void rt_trainer_part(const rt_trainer *trainer, size_t *begin, size_t *end);
/* Adds one micro-batch's gradient.  rows->scales are the tokens' weights in the whole step's loss. */
rt_status rt_trainer_accumulate(rt_trainer *trainer, const rt_batch *batch, const rt_head_rows *rows,
                                rt_error *err);
/* Clips, updates, clears the gradient, counts the step.  RT_NOT_FINITE (naming step and tensor) leaves
 * values, m, v and step as they were. */
rt_status rt_trainer_update(rt_trainer *trainer, rt_step_report *report, rt_error *err);

#endif
