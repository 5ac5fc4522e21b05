/* student/survey.h - what a teacher's layers, MLP units, heads and channels do on some text, and the cut that
 * follows: which of them a smaller student keeps (the measures and their sources are in init.h).
 *
 * Layers: block influence, the largest stay, and the first and the last.  MLP units: |act(gate) up|.  Heads:
 * the length of a head's output; a kv head counts with all the queries that share it.  Channels: |the norms'
 * outputs|, summed over all norms of the model.  A document is a sequence. */
#ifndef RT_STUDENT_SURVEY_H
#define RT_STUDENT_SURVEY_H

#include "student/data.h"
#include "student/init.h"

typedef struct rt_cut_sizes { /* of the student; 0: the teacher's */
    size_t n_embd, n_ff, n_heads, n_heads_kv;
} rt_cut_sizes;
bool rt_cut_is_narrow(const rt_cut_sizes *sizes); /* any but 0 */
/* config (of some of the teacher's layers) is made narrower.  n_heads_kv 0: the teacher's, or n_heads where
 * each head has its own.  RT_INVALID, RT_UNSUPPORTED: what cannot be cut, or no file of the family could
 * say. */
rt_status rt_cut_config(rt_model_config *config, const rt_cut_sizes *sizes, rt_error *err);

typedef struct rt_survey {
    rt_model_config config; /* of the teacher */
    rt_influence influence;
    rt_importance *units, *heads; /* [n_layers]; NULL: layers alone were looked at */
    rt_importance *channels;      /* [2 n_layers + 1] of the norms: before attention, before the MLP, last */
    size_t documents, tokens;
} rt_survey;

/* Runs the teacher over the first documents that a dealer with this seed deals, until `tokens` are through,
 * and at most once through all, batches of tokens_max.  widths: look inside the layers too, which takes the
 * memory of a training pass and a model that is not packed (not RT_PRECISION_INT8). */
rt_status rt_survey_run(rt_survey *out, const rt_model *teacher, const rt_documents *docs, uint64_t seed,
                        size_t tokens, size_t tokens_max, bool widths, rt_error *err);
void rt_survey_deinit(rt_survey *survey);

typedef struct rt_cut {
    rt_width_map map; /* points into the lists and to the caller's layers */
    uint32_t *channels, *units, *heads, *groups;
} rt_cut;
/* The width map of a student of this shape that has these of the teacher's layers. */
rt_status rt_survey_cut(rt_cut *out, const rt_survey *survey, const rt_model_config *student,
                        const size_t *layers, rt_error *err);
void rt_cut_deinit(rt_cut *cut);

#endif
