/* student/init_vocab.h - a student's embedding (and head) for a vocabulary that is not its teacher's. */
#ifndef RT_STUDENT_INIT_VOCAB_H
#define RT_STUDENT_INIT_VOCAB_H

#include "model/params.h"
#include "model/tokenizer.h"

/* Fills the rows of embedding and head: a token's row is the mean of the rows of the pieces into which the
 * teacher's tokenizer cuts its bytes; a special token has its namesake's row.  Ids that are no token, and
 * tokens whose bytes the teacher cannot read, get the mean of all rows.  The rest of `values` is left as it
 * is. RT_NOT_FINITE names the tensor. */
rt_status rt_vocab_start(float *values, const rt_layout *layout, const rt_tokenizer *tokenizer,
                         const rt_weights *weights, const rt_model_config *file_config,
                         const rt_tokenizer *file_tokenizer, rt_error *err);

#endif
