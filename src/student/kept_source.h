/* student/kept_source.h - where the kept rows of a training text come from: a store's .rls files, read when a
 * batch needs them, or rows with an API's log-probabilities, held in memory. */
#ifndef RT_STUDENT_KEPT_SOURCE_H
#define RT_STUDENT_KEPT_SOURCE_H

#include "outputs/recorded.h"
#include "student/data.h"

typedef struct rt_kept_source {
    char note[RT_RECORDED_NOTE]; /* what differs between store and student and is fine; may be empty */
    rt_reader *reader;           /* owned */
    bool from_text;              /* rows are in `memory` */
    bool topk, draws;            /* what rows hold */
    size_t n_max, n_vocab;       /* ids of a row at most; real ids that rows are normalised over */
    double tau, proposal;
    size_t *first; /* [documents]: index in the reader, or first row in memory */
    size_t n_first, first_capacity;
    rt_sparse_rows memory;
    rt_store_document *docs; /* of the batch at hand */
    size_t docs_capacity;
    rt_kept_row *rows; /* [rows_capacity] of the batch at hand */
    size_t rows_capacity;
    struct {                         /* of text rows */
        size_t texts, without;       /* rows read; rows that bring no log-probabilities */
        size_t positions;            /* answers' tokens */
        size_t taught;               /* of them with a distribution */
        size_t apart;                /* where the teacher's token is not the student's */
        size_t candidates, unmapped; /* alternatives; those whose bytes are no token of the student */
    } counts;
} rt_kept_source;

typedef rt_recorded_student rt_kept_match;

/* Opens a store; its .rls files are checked against the student (tokenizer, vocabulary, template, end). */
rt_status rt_kept_source_open(rt_kept_source *source, const char *dir, const rt_kept_match *match,
                              rt_error *err);
void rt_kept_source_close(rt_kept_source *source);
bool rt_kept_source_has_rows(const rt_kept_source *source); /* .rls files */

/* Appends the store's documents with logits; longer ones are cut at tokens_max and counted. */
rt_status rt_kept_source_documents(rt_kept_source *source, rt_documents *docs, size_t tokens_max,
                                   rt_error *err);
/* Appends the store's text rows as training text without a teacher. */
rt_status rt_kept_source_texts(rt_kept_source *source, rt_documents *docs, const rt_tokenizer *tokenizer,
                               const rt_chat_template *chat_template, const rt_document_options *options,
                               rt_error *err);
/* Appends the store's text rows whose "logprobs" teach: the teacher's tokens become the student's by their
 * bytes, where both tokenisations agree; what cannot be mapped is left to the tail and counted.
 * only_taught: tokens without a distribution carry no loss. */
rt_status rt_kept_source_logprobs(rt_kept_source *source, rt_documents *docs, const rt_tokenizer *tokenizer,
                                  const rt_chat_template *chat_template, const rt_document_options *options,
                                  bool only_taught, rt_error *err);

/* Fills deal->targets.kept for the batch at hand; valid until the next call.  RT_CORRUPT: a row names an id
 * that the student has not, or rows are missing. */
rt_status rt_kept_source_fill(rt_kept_source *source, rt_deal *deal, rt_error *err);

#endif
