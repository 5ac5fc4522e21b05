/* evidence/subject.h - a model that is asked about: its probabilities after given text, how likely it holds a
 * given answer, and answers sampled from it.  It is a model file, or a server that scores given text. */
#ifndef RT_EVIDENCE_SUBJECT_H
#define RT_EVIDENCE_SUBJECT_H

#include "evidence/endpoint.h"
#include "evidence/pairs.h"
#include "evidence/reading.h"
#include "evidence/texts.h"
#include "model/chat_template.h"
#include "model/session.h"

typedef struct rt_subject {
    const char *name;      /* borrowed, as all but session and rows */
    const rt_model *model; /* NULL: not a file */
    rt_endpoint *endpoint; /* NULL: not a server */
    const rt_tokenizer *tokenizer;
    const rt_chat_template *chat_template; /* NULL: prompts are used as they are */
    rt_session *session;
    float *rows; /* [room, n_vocab] */
    size_t room;
} rt_subject;

rt_status rt_subject_open(rt_subject *out, const char *name, const rt_model *model,
                          const rt_tokenizer *tokenizer, const rt_chat_template *chat_template,
                          rt_error *err);
/* A server; the tokenizer is that of the ids that it is sent, and must be the server's model's. */
void rt_subject_open_endpoint(rt_subject *out, const char *name, rt_endpoint *endpoint,
                              const rt_tokenizer *tokenizer, const rt_chat_template *chat_template);
void rt_subject_close(rt_subject *subject);

/* The ids of a question as the model is trained on it; NULL or "": none. */
rt_status rt_subject_prompt(const rt_subject *subject, const char *prompt, rt_token_list *out, rt_error *err);
/* *rows [n_answer, n_vocab]: logits from which each answer id would be drawn; lent until the next call.
 * Without a prompt there is nothing before the first id, and its row is left out: *first is then 1, else 0,
 * and row i - *first belongs to answer id i.  Longer texts are cut to the context: *n_rows. */
rt_status rt_subject_logits(rt_subject *subject, const rt_token_list *prompt, const int32_t *answer, size_t n,
                            float **rows, size_t *first, size_t *n_rows, rt_error *err);

/* The same of a server, sparse: scores of prompt and answer together; row of answer id i is position
 * prompt->count + i.  *scored NULL: it was only noted as wanted (rt_endpoint_dry). */
rt_status rt_subject_scores(rt_subject *subject, const rt_token_list *prompt, const int32_t *answer, size_t n,
                            const rt_scored **scored, rt_error *err);

typedef struct rt_likelihood {
    double sum;           /* ln P of the answer */
    double least;         /* mean of the lowest fifth of its tokens' ln P */
    size_t tokens, bytes; /* that were scored: the context may cut a text, and nothing precedes its first
                             token where there is no prompt */
} rt_likelihood;
/* Of the first `most` tokens of the answer; 0: all.  RT_NOT_FINITE when the model gives no numbers.  A server
 * that is dry gives zeros. */
rt_status rt_subject_likelihood(rt_subject *subject, const char *prompt, const char *answer, size_t most,
                                rt_likelihood *out, rt_error *err);

/* Samples answers to the prompts, in turn and again with other draws, until there are about `tokens` ids.
 * stop: asked after each answer, may be NULL; true ends with RT_STOPPED. */
rt_status rt_subject_sample(const rt_subject *subject, const rt_texts *prompts, size_t tokens,
                            size_t answer_tokens, double temperature, uint64_t seed, bool (*stop)(void),
                            rt_texts *out, rt_error *err);

/* What reading text with the suspect gives, for any key of one context width (METHODS-evidence 4.2, 4.3). */
typedef struct rt_look {
    size_t h, places, skipped; /* skipped: the context stood earlier in the prefix */
    size_t listed, foreign;    /* rt_look_own: listed tokens; of them not one token of the tokenizer */
    size_t borders, apart;   /* rt_look_foreign: places where both tokenizers have a border, and where not */
    double mass, mass_kept;  /* of probability at the places, and what is on tokens that both have */
    rt_pairs *hard;          /* (context, argmax), each context once */
    rt_reading *soft, *diff; /* pooled without and with a reference; diff NULL without one */
} rt_look;
rt_status rt_look_open(rt_look *out, size_t h, bool with_reference, rt_error *err);
void rt_look_close(rt_look *look);
/* Reads texts, at most `tokens` ids of answers in all.  reference NULL: none.  A server's places are its
 * listed tokens; one that is dry only notes what it will be asked. */
rt_status rt_look_read(rt_look *look, rt_subject *suspect, rt_subject *reference, const rt_texts *texts,
                       size_t tokens, bool (*stop)(void), rt_error *err);
/* The same where suspect or reference has another tokenizer than T's, whose ids `texts` hold (4.4): places
 * are those whose byte offset is a border of tokens in both, and tokens are taken where their bytes are
 * exactly one of T's; others are dropped, never mapped to a prefix.  Both must be model files (reference:
 * NULL, or one). */
rt_status rt_look_foreign(rt_look *look, rt_subject *suspect, rt_subject *reference,
                          const rt_tokenizer *tokenizer, const rt_texts *texts, size_t tokens,
                          bool (*stop)(void), rt_error *err);
/* The suspect's own answers with their listed log-probabilities, where it scores no given text: the places
 * are those that it wrote.  Tokens are taken where their bytes are exactly one of the tokenizer's (4.4).  The
 * reference must be a model file. */
rt_status rt_look_own(rt_look *look, rt_subject *suspect, rt_subject *reference, const rt_texts *answers,
                      size_t tokens, bool (*stop)(void), rt_error *err);
/* a(c, v) = n_S(c, v)/N_S - n_B(c, v)/N_B of sampled answers (4.1). */
rt_status rt_look_difference(rt_reading **out, size_t h, const rt_texts *suspect, const rt_texts *reference,
                             rt_error *err);

#endif
