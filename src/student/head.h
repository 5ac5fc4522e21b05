/* student/head.h - the output head fused with the loss: the [tokens, vocabulary] logits never exist whole.
 *
 * Rows that carry a loss are taken RT_HEAD_CHUNK at a time: logits of the student (and of the teacher), loss
 * and gradient of each row in place, then d loss / d hidden and the gradient of the head's weight from the
 * chunk. */
#ifndef RT_STUDENT_HEAD_H
#define RT_STUDENT_HEAD_H

#include "model/decoder.h"
#include "student/across.h"
#include "student/kept.h"
#include "student/loss.h"
#include "student/policy.h"

enum { RT_HEAD_CHUNK = 256 };

typedef struct rt_head rt_head;
/* teacher NULL: the objective needs none. with_gradient: else only losses and figures are made. */
rt_status rt_head_open(rt_head **out, const rt_model *student, const rt_model *teacher, bool with_gradient,
                       rt_error *err);
void rt_head_close(rt_head *head);
/* The rows' teacher will be kept rows of at most n_max ids, each < n_vocab (real ids: the student's pads past
 * them take no part).  Only with a gradient, without a teacher model. */
rt_status rt_head_reserve_kept(rt_head *head, size_t n_max, size_t n_vocab, rt_error *err);
/* The teacher has another tokenizer: its model is there, and every run's rows have `across`.  n_shared: the
 * student's real ids.  tokens_max: of the teacher's side of a batch.  Only with a gradient. */
rt_status rt_head_reserve_across(rt_head *head, const rt_across_options *options, size_t n_shared,
                                 size_t tokens_max, rt_error *err);
size_t rt_head_across_bytes(const rt_model *student, const rt_model *teacher, rt_across_way way,
                            size_t tokens_max);
size_t rt_head_bytes(const rt_model *student, const rt_model *teacher, bool with_gradient);

typedef struct rt_head_rows { /* the rows of a pass that carry a loss, in order */
    const uint32_t *rows;     /* [n] row of the pass */
    const int32_t *labels;    /* [n] id that follows, or -1 */
    const double *scales;     /* [n] weight of the row in the step's loss */
    size_t n;
    const rt_kept_row *kept; /* [n]; NULL: the teacher is a model, or there is none */
    /* of own samples (student/own.h); NULL elsewhere */
    const rt_loss_mix *mix;       /* in place of the run's */
    const rt_policy *policy;      /* in place of any mix: the sampled token alone; needs a teacher model */
    const float *logp_old;        /* [n] with policy: log p of the label when it was sampled */
    const rt_across_rows *across; /* the teacher's side of the text, in its own tokens; labels are all >= 0 */
} rt_head_rows;

/* Called for each row with its figures, in no defined order and from several threads.  z, zt: the logits
 * [n_vocab] (zt NULL without a teacher); they hold only during the call.  May be NULL. */
typedef void (*rt_head_row_fn)(void *context, size_t index, const rt_loss_stats *stats, const float *z,
                               const float *zt);

/* Sum of scale * loss over the rows (in order, so bit-exact for any number of threads); means of the KLs are
 * the caller's, from stats.  With gradient: dhidden [n_tokens, n_embd] is written whole (0 for other rows)
 * and the head's weight gradient is added to dweight [n_vocab, n_embd] (NULL: frozen).  RT_NOT_FINITE names
 * the row. */
rt_status rt_head_run(rt_head *head, const rt_pass *student, const rt_pass *teacher, const rt_loss_mix *mix,
                      const rt_head_rows *rows, size_t n_tokens, float *dhidden, float *dweight,
                      rt_loss_stats *stats, rt_head_row_fn row_fn, void *row_context, double *loss,
                      rt_error *err);

#endif
