/* student/head_parts.h - the output head's insides, for the files that it is made of. */
#ifndef RT_STUDENT_HEAD_PARTS_H
#define RT_STUDENT_HEAD_PARTS_H

#include "student/head.h"

struct rt_head {
    const rt_model *student, *teacher;
    bool with_gradient;
    size_t shared; /* ids that both models have: pads past them get no gradient */
    rt_arena arena;
    float *hidden_s, *hidden_t;  /* [CHUNK, d] rows picked, float32 */
    void *operand_s, *operand_t; /* the same as operands of the products */
    float *logits_s, *logits_t;  /* [CHUNK, n_vocab]; gradients replace the student's, row by row */
    float *parts;                /* [GROUPS, CHUNK, d] */
    unsigned char *work;         /* [threads][work_bytes] */
    size_t work_bytes, loss_bytes;
    rt_arena kept_arena;
    unsigned char *kept_work; /* [threads][kept_bytes]; NULL: no kept rows */
    size_t kept_bytes, kept_max;
    rt_across_options across; /* way NONE: one tokenizer */
    rt_arena across_arena;
    unsigned char *across_work; /* [threads][across_bytes] */
    size_t across_bytes;
    double *teacher_logp; /* [tokens_max] of the batch's teacher_labels; CHUNKS */
};

typedef struct rt_head_chunk {
    rt_head *head;
    const rt_loss_mix *mix;
    const rt_head_rows *rows;
    size_t first, n, padded; /* rows of this chunk */
    const void *operand_s, *operand_t;
    size_t ld_s, ld_t, padded_t;
    float *dhidden, *dweight;
    rt_loss_stats *stats;
    rt_head_row_fn row_fn;
    void *row_context;
    /* across tokenizers */
    int32_t slots[RT_HEAD_CHUNK];  /* where in logits_t a row's teacher is; -1: it has none */
    double nll[RT_HEAD_CHUNK];     /* of the labels */
    double factors[RT_HEAD_CHUNK]; /* the row's gradient is so many times that of cross-entropy */
    double losses[RT_HEAD_CHUNK];  /* of the chunks that begin here */
} rt_head_chunk;

/* Rows `rows` [n] of a pass as the operand of the model's head, zero rows up to n_padded behind them. */
const void *rt_head_pick(const rt_model *model, const rt_pass *pass, const uint32_t *rows, size_t n,
                         size_t n_padded, float *hidden, void *room, size_t *ld);
void rt_head_logits_tile(const rt_model *model, const void *operand, size_t ld, size_t rows, size_t tile,
                         float *logits);
size_t rt_head_tiles(const rt_model *model);
/* What the backward pass reads of a row: dz [n_vocab], the gradient over its (capped) logits z, takes their
 * place as the gradient over the uncapped ones, in the activation type.  dz is overwritten. */
void rt_head_take_gradient(const rt_model *model, float *z, float *dz);

/* head_across.c: the teacher's log-probabilities of a batch; the rows' losses and gradients of a chunk, whose
 * logits of the student are there; how many rows from c->first on belong in one chunk. */
void rt_head_across_begin(rt_head_chunk *c, const rt_pass *teacher);
void rt_head_across_run(rt_head_chunk *c, const rt_pass *teacher);
size_t rt_head_across_count(const rt_head_chunk *c);

enum { RT_HEAD_ROW_STEP = 32 };

#endif
