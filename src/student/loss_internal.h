/* student/loss_internal.h - what the files of the losses share. */
#ifndef RT_STUDENT_LOSS_INTERNAL_H
#define RT_STUDENT_LOSS_INTERNAL_H

#include "student/loss.h"

/* The part of a work buffer that rt_loss_ref leaves alone: [n_vocab], the mixture's gradient. */
double *rt_loss_work_total(void *work, size_t n_vocab);

/* rt_loss_row for a mixture that rt_loss_mix_is_fast; false, with nothing written to the gradient, when the
 * row holds values that are not finite: the reference deals with those. */
bool rt_loss_row_fast(const rt_loss_mix *mix, const float *z, const float *zt, size_t label, size_t n_vocab,
                      double scale, float *dz_f32, rt_bf16 *dz_bf16, rt_loss_stats *stats);

/* rt_loss_row_in_place for one group of CE and FKL terms; false, with z and zt untouched, when the mixture is
 * of another kind or the row holds values that are not finite. */
bool rt_loss_row_fast_in_place(const rt_loss_mix *mix, float *z, float *zt, size_t label, size_t n_vocab,
                               double scale, bool bf16, rt_loss_stats *stats);

/* Ranges of a spec's parameters; of all terms, with their number and weights. */
rt_status rt_loss_spec_check(const rt_loss_spec *spec, rt_error *err);
rt_status rt_loss_terms_check(const rt_loss_mix *mix, rt_error *err);

/* rt_loss_ref for logits in double: outcomes that stand for sums of ids. */
double rt_loss_ref_double(const rt_loss_spec *spec, const double *z, const double *zt, size_t label, size_t n,
                          double *grad, bool *finite, void *work);

static inline double rt_loss_tau(const rt_loss_spec *spec) { return spec->tau > 0 ? spec->tau : 1.0; }

#endif
