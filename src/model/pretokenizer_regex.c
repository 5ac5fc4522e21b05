/* model/pretokenizer_regex.c - see pretokenizer_regex.h.
 *
 * Rewritten are \s (PCRE2 counts U+180E to it, Oniguruma does not) and \w (PCRE2 leaves marks out). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretokenizer_regex.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN_MAX = 1 << 16, MATCH_STEPS_MAX = 5000000, DEPTH_MAX = 20000, HEAP_KIB_MAX = 65536 };
enum { JIT_STACK_MIN = 32 << 10, JIT_STACK_MAX = 4 << 20 };

struct rt_regex {
    pcre2_code *code;
};

struct rt_regex_run {
    const rt_regex *regex;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

#define BLANKS                                                                                               \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"
#define WORDS                                                                                                \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-"    \
    "\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

static void translate(rt_text *out, const char *pattern)
{
    bool in_class = false;
    for (const char *p = pattern; *p; p++) {
        if (*p == '\\' && p[1]) {
            p++;
            if (*p == 's')
                rt_text_puts(out, in_class ? BLANKS : "[" BLANKS "]");
            else if (*p == 'S' && !in_class)
                rt_text_puts(out, "[^" BLANKS "]");
            else if (*p == 'w')
                rt_text_puts(out, in_class ? WORDS : "[" WORDS "]");
            else if (*p == 'W' && !in_class)
                rt_text_puts(out, "[^" WORDS "]");
            else
                rt_text_append(out, p - 1, 2);
            continue;
        }
        if (*p == '[' && !in_class)
            in_class = true;
        else if (*p == '[' && p[1] != ':') /* a plain bracket: Oniguruma would nest, no known pattern does */
            rt_text_puts(out, "\\");
        else if (*p == ']')
            in_class = false;
        rt_text_append(out, p, 1);
    }
}

rt_status rt_regex_open(rt_regex **out, const char *pattern, rt_error *err)
{
    *out = NULL;
    if (strlen(pattern) > PATTERN_MAX)
        return rt_error_set(err, RT_UNSUPPORTED, "a pattern of %zu bytes is too long; the limit is %d",
                            strlen(pattern), PATTERN_MAX);
    rt_text text = {0};
    translate(&text, pattern);
    rt_regex *regex = calloc(1, sizeof *regex);
    int code = 0;
    size_t offset = 0;
    if (regex && !text.failed)
        regex->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.size,
                                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY,
                                    &code, &offset, NULL);
    rt_text_deinit(&text);
    if (!regex || !regex->code) {
        unsigned char words[128] = "no memory";
        if (regex)
            (void)pcre2_get_error_message(code, words, sizeof words);
        rt_regex_close(regex);
        return rt_error_set(err, RT_UNSUPPORTED, "the pattern \"%.200s\" is not understood: %s", pattern,
                            (const char *)words);
    }
    (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without it the interpreter runs */
    *out = regex;
    return RT_OK;
}

void rt_regex_close(rt_regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    free(regex);
}

rt_status rt_regex_run_open(rt_regex_run **out, const rt_regex *regex, rt_error *err)
{
    rt_regex_run *run = calloc(1, sizeof *run);
    *out = run;
    if (run) {
        run->regex = regex;
        run->data = pcre2_match_data_create_from_pattern(regex->code, NULL);
        run->context = pcre2_match_context_create(NULL);
        run->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    }
    if (!run || !run->data || !run->context) {
        rt_regex_run_close(run);
        *out = NULL;
        return rt_error_set(err, RT_NO_MEMORY, "no memory to match a pattern");
    }
    (void)pcre2_set_match_limit(run->context, MATCH_STEPS_MAX);
    (void)pcre2_set_depth_limit(run->context, DEPTH_MAX);
    (void)pcre2_set_heap_limit(run->context, HEAP_KIB_MAX);
    if (run->stack)
        pcre2_jit_stack_assign(run->context, NULL, run->stack);
    return RT_OK;
}

void rt_regex_run_close(rt_regex_run *run)
{
    if (!run)
        return;
    pcre2_match_data_free(run->data);
    pcre2_match_context_free(run->context);
    pcre2_jit_stack_free(run->stack);
    free(run);
}

rt_status rt_regex_next(rt_regex_run *run, const char *text, size_t size, size_t at, bool *found,
                        size_t *begin, size_t *end, rt_error *err)
{
    const int rc = pcre2_match(run->regex->code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK, run->data,
                               run->context);
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH)
        return RT_OK;
    if (rc < 0)
        return rt_error_set(err, RT_INVALID,
                            "the tokenizer's pattern takes too many steps on this text (at byte %zu of %zu)",
                            at, size);
    const size_t *span = pcre2_get_ovector_pointer(run->data);
    *begin = span[0];
    *end = span[1] > span[0] ? span[1] : span[0]; /* \K can put the end before the start */
    return RT_OK;
}
