/* student/kept_internal.h - what the files of the losses against kept rows share. */
#ifndef RT_STUDENT_KEPT_INTERNAL_H
#define RT_STUDENT_KEPT_INTERNAL_H

#include "student/kept.h"

/* The student's side of a row at one temperature. */
typedef struct kept_student {
    double tau;
    const double *lp; /* [row->n] log p of the row's ids */
    size_t n_off;     /* ids off K that have a finite logit */
    size_t n_rest;    /* ids off K, -inf ones too */
    double log_tail;  /* log(1 - P); -inf: none.  Only for bucket */
    double sum_off;   /* sum of log p over the n_off ids.  Only for uniform */
} kept_student;

/* The gradient of a sum of terms:
 *   all p_j + off_K [j off K] p_j / (1 - P) - flat, plus on[i] at the row's ids */
typedef struct kept_gradient {
    double all, off, flat;
    double *on; /* [row->n] */
} kept_gradient;

/* Adds factor * the gradient of a term that is neither CE nor of tail FLOOR, and returns its loss.  room: for
 * kept_room_bytes(row->n). */
double kept_term(const rt_loss_spec *spec, const rt_kept_row *row, const kept_student *student, double factor,
                 kept_gradient *gradient, void *room);
size_t kept_room_bytes(size_t n);

static inline double kept_logq(const rt_kept_row *row, size_t i)
{
    return row->logq_exact ? row->logq_exact[i] : (double)row->logq[i];
}
static inline double kept_tau(const rt_kept_row *row) { return row->tau > 0 ? row->tau : 1; }

#endif
