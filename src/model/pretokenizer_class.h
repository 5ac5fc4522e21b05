/* model/pretokenizer_class.h - the classes of characters that pre-tokenizer patterns speak of.
 *
 * ASCII from a table, the rest from utf8proc's two-stage tables.  An ill-formed sequence reads as
 * U+FFFD, which is a symbol. */
#ifndef RT_MODEL_PRETOKENIZER_CLASS_H
#define RT_MODEL_PRETOKENIZER_CLASS_H

#include <utf8proc.h>

#include "base/text.h"

enum {
    RT_CHAR_LETTER = 1,       /* \p{L} */
    RT_CHAR_NUMBER = 2,       /* \p{N} */
    RT_CHAR_SPACE = 4,        /* \s: the White_Space property */
    RT_CHAR_NEWLINE = 8,      /* \r and \n */
    RT_CHAR_PUNCTUATION = 16, /* \p{P} */
    RT_CHAR_SYMBOL = 32,      /* \p{S} */
    RT_CHAR_MARK = 64,        /* \p{M} */
    RT_CHAR_CONNECTOR = 128   /* \p{Pc} */
};

extern const unsigned char rt_char_ascii[128];
unsigned rt_char_class_slow(uint32_t c);
/* \w: letters, marks, decimal and letter numbers, connectors, circled letters, the joiners. */
bool rt_char_is_word(uint32_t c);

static inline unsigned rt_char_class(uint32_t c)
{
    return c < 128 ? rt_char_ascii[c] : rt_char_class_slow(c);
}

/* Class and length of the character at text[at], at < size. */
static inline unsigned rt_char_at(const char *text, size_t at, size_t size, size_t *length)
{
    const unsigned char first = (unsigned char)text[at];
    if (first < 128) {
        *length = 1;
        return rt_char_ascii[first];
    }
    return rt_char_class_slow(rt_utf8_decode(text + at, size - at, length));
}

#endif
