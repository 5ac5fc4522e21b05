/* judge/eval_kind.h - what kind of thing a token is, so that the judge can say where a student fails. */
#ifndef RT_JUDGE_EVAL_KIND_H
#define RT_JUDGE_EVAL_KIND_H

#include "model/tokenizer.h"
#include "student/data.h"

#define RT_KIND_MAP(X)                                                                                       \
    X(WORD_START, "word start")                                                                              \
    X(WORD_CONTINUATION, "word continuation")                                                                \
    X(NUMBER, "number")                                                                                      \
    X(PUNCTUATION, "punctuation")                                                                            \
    X(WHITE_SPACE, "white space")                                                                            \
    X(SPECIAL, "special")                                                                                    \
    X(OTHER, "other")

typedef enum rt_token_kind {
#define RT_KIND_ENUM(name, text) RT_KIND_##name,
    RT_KIND_MAP(RT_KIND_ENUM)
#undef RT_KIND_ENUM
        RT_KIND_COUNT
} rt_token_kind;

const char *rt_token_kind_name(rt_token_kind kind);

/* By the token's bytes: leading blanks apart, its first character decides.  Letters go on with a word when
 * the bytes before end in a letter or digit and nothing stands between; so does an apostrophe with letters
 * ("'s").  A piece of a character is OTHER. */
rt_token_kind rt_token_kind_of(const char *bytes, size_t size, const char *before, size_t before_size);

/* kinds [docs->n_tokens]; a document's first token has nothing before it. */
void rt_documents_kinds(uint8_t *kinds, const rt_documents *docs, const rt_tokenizer *tokenizer);

#endif
