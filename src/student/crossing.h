/* student/crossing.h - a teacher with another tokenizer (METHODS 11): what two tokenisations of one text have
 * in common, and losses on it. */
#ifndef RT_STUDENT_CROSSING_H
#define RT_STUDENT_CROSSING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Universal logit distillation: both distributions sorted descending, the shorter padded with zeros,
 * L = sum |p - q|.  Ties keep the order of ids.  grad [n_student] d L / dz, may be NULL.  work:
 * rt_uld_work_bytes. z: finite or -inf, at least one finite on each side. */
double rt_uld_row(const float *z, size_t n_student, const float *zt, size_t n_teacher, double *grad,
                  void *work);
size_t rt_uld_work_bytes(size_t n_student, size_t n_teacher);

typedef struct rt_aligned { /* tokens [student_from, student_to) and [teacher_from, teacher_to): the same
                               bytes */
    size_t student_from, student_to, teacher_from, teacher_to;
} rt_aligned;
/* ends: cumulative byte ends of each token, not falling.  A group closes where both end.  out: room for
 * min(n_student, n_teacher); returns how many.  What follows the last common end is in no group. */
size_t rt_align(rt_aligned *out, const size_t *student_ends, size_t n_student, const size_t *teacher_ends,
                size_t n_teacher);

/* A chunk against everything else, P^(1/tau) on both sides: KL of two binary distributions, from log P of
 * student and teacher (<= 0).  tau = INFINITY: tau times the loss in the limit.  *slope: its derivative by
 * logp_student, may be NULL.  +inf where the student is certain and the teacher is not. */
double rt_chunk_binary_kl(double logp_student, double logp_teacher, double tau, double *slope);

/* The next byte inside one token's distribution: over tokens that begin with the prefix.  Divide next by mass
 * for P(byte | prefix inside this token); end_mass (tokens that are the prefix itself) must be continued with
 * the next token's distribution. */
typedef struct rt_byte_marginal {
    double mass, end_mass, next[256];
} rt_byte_marginal;
typedef const char *(*rt_token_bytes_fn)(const void *context, size_t id, size_t *size);
void rt_byte_marginal_make(rt_byte_marginal *out, rt_token_bytes_fn bytes, const void *context,
                           const double *p, size_t n, const char *prefix, size_t prefix_size);

#endif
