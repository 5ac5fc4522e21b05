/* serve/constrain.h - which tokens may come next under a grammar.
 *
 * The vocabulary is sorted once by the bytes of its tokens, so a walk over it meets common beginnings
 * together and a byte that may not come rules out all tokens that share it.  Inside free strings nearly every
 * token may come; those without quotes, backslashes and control characters are known beforehand and not
 * walked. */
#ifndef RT_SERVE_CONSTRAIN_H
#define RT_SERVE_CONSTRAIN_H

#include "model/tokenizer.h"
#include "serve/json_grammar.h"

typedef struct rt_constrainer rt_constrainer; /* of one tokenizer; one thread at a time */
/* n_vocab: logits; ids past the tokenizer's own are never allowed.  The tokenizer is borrowed. */
rt_status rt_constrainer_open(rt_constrainer **out, const rt_tokenizer *tokenizer, size_t n_vocab,
                              rt_error *err);
void rt_constrainer_close(rt_constrainer *constrainer); /* NULL is allowed */

/* Sets the logits [n_vocab] of all tokens that may not come to -INFINITY; tokens that end an answer may come
 * where the text is complete, other control tokens never.  Returns how many may come; with none left the
 * logits are as they were, and the answer has to end here. */
size_t rt_constrain(rt_constrainer *constrainer, const rt_grammar *grammar, const rt_grammar_state *state,
                    float *logits);
/* Moves over a token; false: it was not one of those that may come. */
bool rt_constrain_accept(const rt_constrainer *constrainer, const rt_grammar *grammar,
                         rt_grammar_state *state, int32_t id);

#endif
