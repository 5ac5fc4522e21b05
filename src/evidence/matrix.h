/* evidence/matrix.h - tests on weights and representations (METHODS-evidence sections 5.6, 5.7), and the
 * little linear algebra that they need. */
#ifndef RT_EVIDENCE_MATRIX_H
#define RT_EVIDENCE_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "evidence/rank.h"

/* Cosines between the rows of a [n_a, d] and b [n_b, d]: out [n_a, n_b]; a row of zeros has cosine 0. */
void rt_row_cosines(double *out, const double *a, size_t n_a, const double *b, size_t n_b, size_t d);
/* For each of n rows a column of its own among m >= n, such that the sum of gain [n, m] is largest (Jonker
 * and Volgenant's shortest augmenting paths, O(n^2 m)).  NaN gains are RT_INVALID. */
rt_status rt_assign(size_t *column, const double *gain, size_t n, size_t m, rt_error *err);
/* Spearman's two-sided test of an assignment against 0, 1, ...; or of two assignments with each other. */
rt_status rt_identity_test(rt_spearman *out, const size_t *column, size_t n, rt_error *err);
rt_status rt_match_test(rt_spearman *out, const size_t *gate, const size_t *up, size_t n, rt_error *err);

/* x [n, d_x], y [n, d_y]; columns are centred.  0 when a side is constant. */
rt_status rt_linear_cka(double *out, const double *x, size_t d_x, const double *y, size_t d_y, size_t n,
                        rt_error *err);
rt_status rt_procrustes(double *out, const double *x, size_t d_x, const double *y, size_t d_y, size_t n,
                        rt_error *err);

/* Singular values of a [n, m], largest first, min(n, m) of them: one-sided Jacobi, so that small values keep
 * their digits relative to the largest. */
rt_status rt_singular_values(double *out, const double *a, size_t n, size_t m, rt_error *err);
void rt_centre_rows(double *a, size_t n, size_t m);

typedef struct rt_hidden_dim {
    size_t dim;   /* 0: not determined */
    double ratio; /* of the singular values on both sides of the gap */
} rt_hidden_dim;
/* From singular values of row-centred log-probabilities: the largest gap after the first `skip`; a ratio of
 * 10 or less is "not determined". */
rt_hidden_dim rt_hidden_dimension(const double *singular_values, size_t n, size_t skip);

#endif
