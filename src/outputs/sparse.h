/* outputs/sparse.h - what is kept of a teacher's distribution over the next token: the ids of a row, their
 * exact log-probabilities, how often each was drawn, and the mass that is not among them.
 *
 * A row is made from full logits: the top_k most probable ids, `draws` ids drawn at random with replacement
 * from s ~ q^t (RS-KD, METHODS 6), or both.  With t = 1 the weights counts/draws are an unbiased estimate of
 * q; with another t they are (counts/draws) (q/s), see rt_sparse_weight.  Draws depend on (seed, document,
 * position) alone, so a row can be made again bit for bit. */
#ifndef RT_OUTPUTS_SPARSE_H
#define RT_OUTPUTS_SPARSE_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

enum { RT_TOPK_MAX = 4096, RT_DRAWS_MAX = 4096 };

/* The first n_topk entries are the top-k, ascending by id; the rest are ids outside of it that were drawn (or
 * that are known for another reason: count 0), ascending by id as well.  No id stands twice. */
typedef struct rt_sparse_row {
    const uint32_t *ids;    /* [n] each < n_vocab */
    const float *logq;      /* [n] nats, at temperature 1, normalised over the whole vocabulary */
    const uint16_t *counts; /* [n] draws of this id; they sum to n_draws */
    uint32_t n, n_topk;
    uint32_t n_draws;
    float tail_logprob; /* log of the mass off the first n_topk ids: -INFINITY none, 0 when n_topk is 0 */
    float log_z; /* log sum exp of the logits, so logits are logq + log_z; NAN: unknown (a remote teacher) */
    float log_s; /* log sum q^t: 0 for t = 1 */
} rt_sparse_row;

/* The weight of entry i in L = -sum w_i log p_i; t: the proposal exponent of the store. */
float rt_sparse_weight(const rt_sparse_row *row, size_t i, double t);

/* Rows one after the other in memory that grows and is used again. */
typedef struct rt_sparse_head { /* what a row has beside its entries */
    uint32_t n, n_topk, n_draws;
    float tail_logprob, log_z, log_s;
} rt_sparse_head;
typedef struct rt_sparse_rows {
    rt_sparse_head *heads; /* [n_rows] */
    size_t *begins;        /* [n_rows + 1] first entry of each */
    size_t n_rows, rows_capacity;
    uint32_t *ids; /* [begins[n_rows]] entries of all rows, and so on */
    float *logq;
    uint16_t *counts;
    size_t entries_capacity;
} rt_sparse_rows;
void rt_sparse_rows_clear(rt_sparse_rows *rows); /* keeps the memory */
void rt_sparse_rows_deinit(rt_sparse_rows *rows);
/* Room for more rows and entries beyond those that are there. */
rt_status rt_sparse_rows_reserve(rt_sparse_rows *rows, size_t more_rows, size_t more_entries, rt_error *err);
rt_status rt_sparse_rows_add(rt_sparse_rows *rows, const rt_sparse_row *row, rt_error *err);
/* A view of row `index`, valid until rows are added or cleared. */
rt_sparse_row rt_sparse_rows_at(const rt_sparse_rows *rows, size_t index);

typedef struct rt_sparse_settings {
    size_t n_vocab;  /* real ids: logits past them (padding) are not looked at */
    size_t topk;     /* 0: none; at most RT_TOPK_MAX */
    size_t draws;    /* 0: none; at most RT_DRAWS_MAX */
    double proposal; /* t of s ~ q^t, in 0..4; 1: draw from q itself */
    uint64_t seed;
} rt_sparse_settings;
rt_status rt_sparse_settings_check(const rt_sparse_settings *settings, rt_error *err);

/* Room that rt_sparse_make needs and the most entries that a row can have. */
size_t rt_sparse_work_bytes(const rt_sparse_settings *settings);
size_t rt_sparse_entries_max(const rt_sparse_settings *settings);

typedef struct rt_sparse_out { /* the caller's arrays, each of rt_sparse_entries_max elements */
    uint32_t *ids;
    float *logq;
    uint16_t *counts;
    rt_sparse_head head;
} rt_sparse_out;

/* The row of logits [n_vocab], for the token at `position` of `document`.  Sums are made in double.  -inf is
 * a masked id and never kept; RT_NOT_FINITE for a NaN, +inf, or a row without a finite logit.  Pure, apart
 * from `work` (64-byte aligned): safe from any thread with a `work` of its own. */
rt_status rt_sparse_make(rt_sparse_out *out, const float *logits, const rt_sparse_settings *settings,
                         uint64_t document, uint64_t position, void *work, rt_error *err);

#endif
