/* model/pretokenizer_scan.c - the patterns of GPT-2 and Llama 3 by hand, and their character classes.
 *
 * Both patterns are lists of alternatives tried in order at each position, and each alternative is a
 * run of one class with at most one character before it, so a look at one or two characters decides.
 * `\s+(?!\S)` leaves the last blank of a run to the word behind it. */
#include "model/pretokenizer.h"
#include "model/pretokenizer_class.h"

#define L RT_CHAR_LETTER
#define N RT_CHAR_NUMBER
#define S RT_CHAR_SPACE
#define R (RT_CHAR_SPACE | RT_CHAR_NEWLINE)
#define P RT_CHAR_PUNCTUATION
#define Y RT_CHAR_SYMBOL
#define C (RT_CHAR_PUNCTUATION | RT_CHAR_CONNECTOR)
const unsigned char rt_char_ascii[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, R, S, S, R, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* */
    S, P, P, P, Y, P, P, P, P, P, P, Y, P, P, P, P,
    N, N, N, N, N, N, N, N, N, N, P, P, Y, Y, Y, P, /* ' '..? */
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
    L, L, L, L, L, L, L, L, L, L, L, P, P, P, Y, C, /* @.._ */
    Y, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
    L, L, L, L, L, L, L, L, L, L, L, P, Y, P, Y, 0, /* `..DEL */
};
#undef L
#undef N
#undef S
#undef R
#undef P
#undef Y
#undef C

unsigned rt_char_class_slow(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return RT_CHAR_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return RT_CHAR_NUMBER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return RT_CHAR_MARK;
    case UTF8PROC_CATEGORY_PC:
        return RT_CHAR_PUNCTUATION | RT_CHAR_CONNECTOR;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return RT_CHAR_PUNCTUATION;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
        return RT_CHAR_SYMBOL;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return RT_CHAR_SPACE;
    default:
        return c == 0x85 ? RT_CHAR_SPACE : 0;
    }
}

bool rt_char_is_word(uint32_t c)
{
    if (rt_char_class(c) & (RT_CHAR_LETTER | RT_CHAR_MARK | RT_CHAR_CONNECTOR))
        return true;
    if (rt_char_class(c) & RT_CHAR_NUMBER)
        return c < 128 || utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_NO;
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

static size_t run_of(const char *text, size_t at, size_t size, unsigned wanted)
{
    for (size_t n; at < size && (rt_char_at(text, at, size, &n) & wanted); at += n)
        ;
    return at;
}

static const unsigned word_classes = RT_CHAR_LETTER | RT_CHAR_NUMBER | RT_CHAR_SPACE;

static size_t run_of_others(const char *text, size_t at, size_t size) /* [^\s\p{L}\p{N}]* */
{
    for (size_t n; at < size && !(rt_char_at(text, at, size, &n) & word_classes); at += n)
        ;
    return at;
}

/* Length of 's 't 're 've 'm 'll 'd at text[at] == '\'', else 0. */
static size_t contraction(const char *text, size_t at, size_t size, bool any_case)
{
    const char fold = any_case ? 0x20 : 0; /* sets the bit that tells lower from upper case */
    if (size - at < 2)
        return 0;
    const char a = (char)(text[at + 1] | fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (any_case && size - at >= 3 && text[at + 1] == '\xC5' && text[at + 2] == '\xBF')
        return 3; /* U+017F, the long s, is another case of s */
    if (size - at < 3)
        return 0;
    const char b = (char)(text[at + 2] | fold);
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ where text[at] is a blank. */
static size_t scan_blanks(const char *text, size_t at, size_t size)
{
    size_t end = at, last = at, n;
    while (end < size && (rt_char_at(text, end, size, &n) & RT_CHAR_SPACE)) {
        last = end;
        end += n;
    }
    return end == size || last == at ? end : last;
}

size_t rt_scan_gpt2(const char *text, size_t at, size_t size)
{
    if (text[at] == '\'') {
        const size_t n = contraction(text, at, size, false);
        if (n)
            return at + n;
    }
    const size_t from = at + (text[at] == ' ');
    if (from == size)
        return size;
    size_t n;
    const unsigned class = rt_char_at(text, from, size, &n);
    if (class & RT_CHAR_SPACE)
        return scan_blanks(text, at, size);
    if (class & (RT_CHAR_LETTER | RT_CHAR_NUMBER))
        return run_of(text, from + n, size, class);
    return run_of_others(text, from + n, size);
}

static size_t scan_numbers(const char *text, size_t at, size_t size, size_t limit)
{
    for (size_t i = 0, n; i < limit && at < size && (rt_char_at(text, at, size, &n) & RT_CHAR_NUMBER); i++)
        at += n;
    return at;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ where text[at] is a blank. */
static size_t scan_lines(const char *text, size_t at, size_t size)
{
    size_t newline_end = at, n;
    for (size_t end = at; end < size; end += n) {
        const unsigned class = rt_char_at(text, end, size, &n);
        if (!(class & RT_CHAR_SPACE))
            break;
        if (class & RT_CHAR_NEWLINE)
            newline_end = end + n;
    }
    return newline_end > at ? newline_end : scan_blanks(text, at, size);
}

size_t rt_scan_llama3(const char *text, size_t at, size_t size, size_t digits_max)
{
    if (text[at] == '\'') {
        const size_t n = contraction(text, at, size, true);
        if (n)
            return at + n;
    }
    size_t n, m;
    const unsigned class = rt_char_at(text, at, size, &n);
    if (class & RT_CHAR_LETTER)
        return run_of(text, at + n, size, RT_CHAR_LETTER);
    if (class & RT_CHAR_NUMBER)
        return scan_numbers(text, at, size, digits_max);
    const unsigned next = at + n < size ? rt_char_at(text, at + n, size, &m) : RT_CHAR_SPACE;
    if (!(class & RT_CHAR_NEWLINE) && (next & RT_CHAR_LETTER))
        return run_of(text, at + n + m, size, RT_CHAR_LETTER);
    if (!(class & RT_CHAR_SPACE) || (text[at] == ' ' && !(next & word_classes)))
        return run_of(text, run_of_others(text, at + n, size), size, RT_CHAR_NEWLINE);
    return scan_lines(text, at, size);
}
