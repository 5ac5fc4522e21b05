/* student/kept.h - objectives against a truncated teacher: rows of which only some ids were kept.
 *
 * K: the kept ids, Q and P the mass that teacher and student give them, t = 1 - Q what is left (METHODS 5).
 *
 *   tail          L, for the temperature tau of the loss                              kinds
 *   bucket        the divergence over k + 1 outcomes: each id of K, and all others    all but taid, mse
 *   renorm_both   the divergence of q/Q and p/P on K                                  all but taid, mse
 *   renorm        sum_K (q/Q) log((q/Q)/p)                                            fkl
 *   partial       sum_K q log(q/p)                                                    fkl
 *   uniform       KL(q~||p), q~ = t / (V - k) off K                                   fkl
 *   floor         KL(p||q~), q~ = q/Q on K and e^-100 off it                          rkl
 *
 * RSKD is L = -sum w_i log p_i over drawn ids, w_i = (c_i/N)(q_i/s_i), s ~ q^t: its expectation is the
 * cross-entropy of q and p, and its gradient's that of the forward KL (METHODS 6).
 *
 * Log-probabilities that are normalised over the whole vocabulary at one temperature say nothing of the tail
 * at another: bucket, partial, uniform and RSKD need the row's own.
 *
 * Whatever the loss, its gradient is a p_j + b off K and a number for each kept id: a row costs one pass for
 * log sum exp, one to write, and a scatter. */
#ifndef RT_STUDENT_KEPT_H
#define RT_STUDENT_KEPT_H

#include "student/loss.h"

enum { RT_KEPT_MAX = 8192 }; /* ids of a row */

typedef struct rt_kept_row {  /* a view; arrays are [n], ids distinct */
    const uint32_t *ids;      /* each < n_vocab; the first n_topk are K, the others were drawn */
    const float *logq;        /* nats, normalised over the whole vocabulary at temperature `tau` */
    const double *logq_exact; /* instead of logq where it is not NULL */
    const uint16_t *counts;   /* draws of each; NULL: none */
    uint32_t n, n_topk, n_draws;
    double tau;          /* 0 stands for 1 */
    double tail_logprob; /* log t; NAN: not known, taken from Q */
    double proposal;     /* exponent t of s ~ q^t; 0 stands for 1 */
    double log_s;        /* log sum q^t; 0 when the proposal is 1; NAN: not known (self_normalised only) */
} rt_kept_row;

/* RT_INVALID, with the reason, for terms that such rows cannot serve: has_topk, has_draws say what they hold,
 * tau (0: 1) the temperature of their log-probabilities; NAN: not known yet. */
rt_status rt_kept_mix_check(const rt_loss_mix *mix, bool has_topk, bool has_draws, double tau, rt_error *err);

/* Bytes of scratch for rows of at most n_max ids; one for each thread, 64-byte aligned. */
size_t rt_kept_work_bytes(size_t n_vocab, size_t n_max);

/* The meaning of one term (CE, or a checked kind), in double: returns the loss without tau^2 and writes
 * d loss / dz to grad [n_vocab].  *finite as in rt_loss_row. */
double rt_kept_ref(const rt_loss_spec *spec, const float *z, const rt_kept_row *row, size_t label,
                   size_t n_vocab, double *grad, bool *finite, void *work);

/* One token of a checked mixture: z is destroyed and scale * d loss / dz is written over it, as float32 or
 * (bf16) as n_vocab bf16 values from where it begins.  Of the stats' figures the KLs are NAN and top1_teacher
 * is that of K; nll_teacher is known where the label is in the row.  row NULL: no term needs it. */
void rt_kept_loss_row_in_place(const rt_loss_mix *mix, float *z, const rt_kept_row *row, size_t label,
                               size_t n_vocab, double scale, bool bf16, rt_loss_stats *stats, void *work);

#endif
