/* judge/eval_kind.c - see eval_kind.h. */
#include "judge/eval_kind.h"

#include <utf8proc.h>

#include "base/text.h"

static const char *const names[RT_KIND_COUNT] = {
#define RT_KIND_NAME(name, text) text,
    RT_KIND_MAP(RT_KIND_NAME)
#undef RT_KIND_NAME
};

const char *rt_token_kind_name(rt_token_kind kind) { return names[kind]; }

typedef enum char_class { LETTER, DIGIT, MARK, BLANK, ELSE } char_class;

static char_class class_of(uint32_t c)
{
    if ((c >= '\t' && c <= '\r') || c == 0x85)
        return BLANK;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return DIGIT;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
        return MARK;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return BLANK;
    default:
        return ELSE;
    }
}

static char_class class_at(const char *bytes, size_t size, size_t *length, uint32_t *c)
{
    *c = rt_utf8_decode(bytes, size, length);
    return *c == 0xFFFD ? ELSE : class_of(*c); /* a piece of a character */
}

static bool ends_in_word(const char *bytes, size_t size)
{
    size_t at = size, length;
    uint32_t c;
    while (at > 0 && size - at < 4) {
        at--;
        if (((unsigned char)bytes[at] & 0xC0) != 0x80)
            break; /* where the last character begins */
    }
    if (at == size)
        return false;
    const char_class last = class_at(bytes + at, size - at, &length, &c);
    return last == LETTER || last == DIGIT;
}

rt_token_kind rt_token_kind_of(const char *bytes, size_t size, const char *before, size_t before_size)
{
    size_t at = 0, length = 0;
    uint32_t c = 0;
    char_class first = ELSE;
    for (; at < size; at += length)
        if ((first = class_at(bytes + at, size - at, &length, &c)) != BLANK)
            break;
    if (at == size)
        return size ? RT_KIND_WHITE_SPACE : RT_KIND_OTHER;
    const bool goes_on = at == 0 && ends_in_word(before, before_size);
    switch (first) {
    case LETTER:
        return goes_on ? RT_KIND_WORD_CONTINUATION : RT_KIND_WORD_START;
    case DIGIT:
        return RT_KIND_NUMBER;
    case MARK:
        at += length;
        if (goes_on && (c == '\'' || c == 0x2019) && at < size &&
            class_at(bytes + at, size - at, &length, &c) == LETTER)
            return RT_KIND_WORD_CONTINUATION;
        return RT_KIND_PUNCTUATION;
    default:
        return RT_KIND_OTHER;
    }
}

void rt_documents_kinds(uint8_t *kinds, const rt_documents *docs, const rt_tokenizer *tokenizer)
{
    for (size_t d = 0; d < docs->n_docs; d++) {
        const char *before = "";
        size_t before_size = 0;
        for (size_t i = docs->begins[d]; i < docs->begins[d + 1]; i++) {
            size_t size = 0;
            const char *bytes = rt_tokenizer_token_bytes(tokenizer, docs->ids[i], &size);
            const bool special = rt_tokenizer_is_special(tokenizer, docs->ids[i]);
            kinds[i] =
                (uint8_t)(special ? RT_KIND_SPECIAL : rt_token_kind_of(bytes, size, before, before_size));
            before = special ? "" : bytes;
            before_size = special ? 0 : size;
        }
    }
}
