/* student/across_text.h - training text in the tokens of two tokenizers, and where both have a border.
 *
 * Document i of the teacher's side says what document i of the student's does: the same answer after the same
 * prompt, each in its own chat template; plain text is split where the student's documents are.  Borders are
 * told by bytes: of what follows the first token with a loss, as far as both sides decode to the same bytes
 * (one may have normalised the text).  The tokens that end an answer are alike, however they are spelled. */
#ifndef RT_STUDENT_ACROSS_TEXT_H
#define RT_STUDENT_ACROSS_TEXT_H

#include "student/across.h"
#include "student/data.h"

typedef struct rt_across_text {
    rt_documents docs;  /* the teacher's side */
    rt_aligned *groups; /* of the documents' tokens, within each; neither side's first token is in one */
    size_t n_groups, groups_capacity;
    size_t *begins;    /* [n_docs + 1] groups of each document */
    size_t n_covered;  /* the student's targets that lie in groups */
    size_t n_diverged; /* documents of which one side's bytes are not the other's to the end */
} rt_across_text;

void rt_across_text_deinit(rt_across_text *text);
/* After all files have been read into both (rt_documents_read_both). */
rt_status rt_across_text_align(rt_across_text *text, const rt_documents *student,
                               const rt_tokenizer *student_tokenizer, const rt_tokenizer *teacher_tokenizer,
                               rt_error *err);

/* For each of the teacher's ids the id with which the student begins to write the same bytes, -1: none.  out
 * [n_teacher]: malloc'd. */
rt_status rt_across_map(int32_t **out, size_t n_teacher, const rt_tokenizer *student,
                        const rt_tokenizer *teacher, rt_error *err);

typedef struct rt_across_deal { /* the teacher's side of a micro-batch; arrays sized for tokens_max */
    int32_t *ids;
    rt_segment *segments;
    uint32_t *pairs;
    rt_aligned *groups;
    uint32_t *teacher_rows;
    int32_t *teacher_labels;
    rt_across_rows rows;
} rt_across_deal;
rt_status rt_across_deal_init(rt_across_deal *deal, size_t tokens_max, rt_error *err);
void rt_across_deal_deinit(rt_across_deal *deal);
/* For a batch dealt from the student's documents; points its rows to this. */
void rt_across_deal_fill(rt_across_deal *deal, const rt_across_text *text, const rt_documents *student,
                         rt_deal *batch);

#endif
