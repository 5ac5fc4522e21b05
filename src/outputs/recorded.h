/* outputs/recorded.h - a store as a teacher, and whether what was recorded fits a student.
 *
 * Ids of another tokenizer mean other text; another chat template or end token teaches another format: what
 * differs is named, and nothing is trained on silently. */
#ifndef RT_OUTPUTS_RECORDED_H
#define RT_OUTPUTS_RECORDED_H

#include "model/tokenizer.h"
#include "outputs/reader.h"
#include "teacher/teacher.h"

typedef struct rt_recorded_student { /* whom the rows are for */
    const rt_tokenizer *tokenizer;
    size_t n_logits; /* ids of its output layer, padding included; 0: as many as the tokenizer has */
    bool any_template, any_end; /* the caller accepts these differences */
} rt_recorded_student;

enum { RT_RECORDED_NOTE = 256 };

/* RT_MISMATCH names the first thing that does not fit: tokenizer, vocabulary, chat template, end token.  note
 * [RT_RECORDED_NOTE]: what differs and is fine (output layers padded to other sizes, a difference that is
 * accepted); empty when nothing does. */
rt_status rt_recorded_match(const rt_rls_header *header, const rt_recorded_student *student, char *note,
                            rt_error *err);

/* A store as teacher.  *ask* answers a request whose prompt or messages stand in a text row with that row's
 * answer; asked again, with the next one; a prompt that is not in the store, or asked more often than it was
 * answered, is refused.  *score* gives the rows of documents that are in the store with just these tokens and
 * a row for each of them; others end with RT_NOT_FOUND.  Its index is made at once: about a hundred bytes a
 * document, and the text rows themselves, at most RT_RECORDED_TEXT_MAX. */
#define RT_RECORDED_TEXT_MAX ((size_t)1 << 30)
rt_status rt_recorded_open(rt_teacher **out, const char *dir, rt_error *err);

#endif
