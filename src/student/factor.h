/* student/factor.h - the embedding (and a head of its own) as two narrow factors, which are trained in its
 * place:
 *
 *   E [n_vocab, n_embd] = A [n_vocab, rank] B [rank, n_embd]        dA = dE Bᵀ,  dB = Aᵀ dE
 *
 * The start is the nearest product of that rank (truncated SVD), A = U sqrt(S), B = sqrt(S) Vᵀ.  The decoder
 * reads E, which is put together after each update, and its gradient is taken apart before the next one: a
 * look-up and a tied head cost what they always do, optimiser and checkpoint hold the factors alone, and a
 * student's files have the whole matrix, so that other programs read them. */
#ifndef RT_STUDENT_FACTOR_H
#define RT_STUDENT_FACTOR_H

#include "model/params.h"

enum { RT_FACTORS_MAX = 2 }; /* embedding, and a head that is not tied to it */

typedef struct rt_factor {
    size_t param; /* of the layout's list: E */
    size_t a, b;  /* offsets of the factors in the values */
} rt_factor;

typedef struct rt_factors {
    rt_factor list[RT_FACTORS_MAX];
    size_t count, rank; /* count 0: none; everything below does nothing */
    size_t trained;     /* elements: all parameters but E, and the factors */
    size_t merged;      /* elements of E, all of them */
} rt_factors;

/* Moves E to the end of the layout, behind the factors and `more` elements of others:
 *   [the other parameters | factors | more | E], layout->total being the end of it.
 * RT_INVALID: factors of this rank hold as many values as E. */
rt_status rt_factors_place(rt_factors *out, rt_layout *layout, size_t rank, size_t more, rt_error *err);
/* Fills the factors from E.  RT_NOT_FINITE: E is not. */
rt_status rt_factors_start(const rt_factors *factors, const rt_layout *layout, float *values, rt_pool *pool,
                           rt_error *err);
/* E from the factors, and the same in half (NULL: not). */
void rt_factors_merge(const rt_factors *factors, const rt_layout *layout, float *values, rt_bf16 *half,
                      rt_pool *pool);
/* Adds to the factors' gradients what E's says, and clears that. */
void rt_factors_gradient(const rt_factors *factors, const rt_layout *layout, const float *values,
                         float *grads, rt_pool *pool);

#endif
