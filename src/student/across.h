/* student/across.h - what the output head needs of a teacher with another tokenizer (METHODS 11).
 *
 * The same text is two sequences of tokens.  Where both have a border at the same byte, the two models have
 * read the same and say what follows:
 *
 *   MAP     the teacher's distribution carried over to the student's ids: each of its tokens gives its mass
 *           to the token with which the student begins to write it.  Any mixture of loss.h then compares the
 *           two.  Exact but for a student's token that is longer than the teacher's and could have been its
 *           beginning: little where the student's vocabulary is the smaller one.
 *   CHUNKS  what lies between two such borders is a chunk; its probability is comparable: a binary divergence
 *           of "this chunk" against anything else (crossing.h), times tau.
 *   ULD     both distributions sorted, sum |p - q|; which token is which is not asked.
 *
 * Rows elsewhere have cross-entropy on the text alone. */
#ifndef RT_STUDENT_ACROSS_H
#define RT_STUDENT_ACROSS_H

#include "model/decoder.h"
#include "student/crossing.h"

typedef enum rt_across_way {
    RT_ACROSS_NONE, /* one tokenizer, or no teacher beside the text */
    RT_ACROSS_MAP,
    RT_ACROSS_CHUNKS,
    RT_ACROSS_ULD
} rt_across_way;

typedef struct rt_across_options {
    rt_across_way way;
    double weight;      /* CHUNKS, ULD: of the way's loss; MAP's is in the mixture */
    double ce;          /* of cross-entropy on the text; MAP: in rows without a teacher, else in all */
    double tau;         /* CHUNKS; INFINITY: the limit */
    const int32_t *map; /* MAP: [teacher's n_vocab] the student's id or -1; borrowed */
} rt_across_options;

enum { RT_ACROSS_GROUP_MAX = 128 }; /* tokens of a chunk, on the student's side */
#define RT_ACROSS_ALONE UINT32_MAX

typedef struct rt_across_rows { /* beside the student's rows of a batch */
    rt_batch batch;             /* the same documents in the teacher's tokens */
    const uint32_t *pairs;      /* [student's rows] the teacher's row at the same byte, or RT_ACROSS_ALONE */
    const rt_aligned *groups;   /* of the student's rows and of those below; in order, apart */
    size_t n_groups;
    const uint32_t *teacher_rows; /* [n_teacher] of the teacher's pass */
    const int32_t *teacher_labels;
    size_t n_teacher;
} rt_across_rows;

#endif
