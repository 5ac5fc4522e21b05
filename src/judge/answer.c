/* judge/answer.c - see answer.h. */
#include "judge/answer.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/size.h"

typedef struct span {
    const char *at;
    size_t n;
} span;

static bool starts_with(span s, const char *word)
{
    const size_t n = strlen(word);
    return s.n >= n && strncasecmp(s.at, word, n) == 0;
}

/* Where `word` stands last, whatever its case; NULL: nowhere. */
static const char *find_last(span s, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = s.n >= n ? s.n - n + 1 : 0; i-- > 0;)
        if (strncasecmp(s.at + i, word, n) == 0)
            return s.at + i;
    return NULL;
}

static span from(span s, const char *at) { return (span){at, (size_t)(s.at + s.n - at)}; }

static span trim(span s)
{
    while (s.n && isspace((unsigned char)s.at[0])) {
        s.at++;
        s.n--;
    }
    while (s.n && isspace((unsigned char)s.at[s.n - 1]))
        s.n--;
    return s;
}

static span first_line(span s)
{
    const char *end = memchr(s.at, '\n', s.n);
    return (span){s.at, end ? (size_t)(end - s.at) : s.n};
}

static span last_line(span s)
{
    s = trim(s);
    size_t begin = s.n;
    while (begin > 0 && s.at[begin - 1] != '\n')
        begin--;
    return (span){s.at + begin, s.n - begin};
}

const char *rt_answer_visible(const char *text, size_t n, size_t *size)
{
    const span s = {text, n};
    const char *open = find_last(s, "<think>"), *close = find_last(s, "</think>");
    if (open && (!close || close < open)) {
        *size = 0;
        return text;
    }
    const char *begin = close ? close + strlen("</think>") : text;
    *size = n - (size_t)(begin - text);
    return begin;
}

/* ---- the final answer ---- */

/* Inside the braces that open at s.at; all of it where they do not close. */
static span braces(span s)
{
    size_t depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.at[i] == '{')
            depth++;
        else if (s.at[i] == '}' && --depth == 0)
            return (span){s.at + 1, i - 1};
    }
    return (span){s.at + 1, s.n - 1};
}

/* What the answer says that it ends with; marked: it stands behind one of the usual marks. */
static span final_of(span s, bool *marked)
{
    *marked = true;
    const char *at = find_last(s, "####");
    if (at)
        return trim(first_line(from(s, at + 4)));
    at = find_last(s, "\\boxed{");
    if (at)
        return trim(braces(from(s, at + strlen("\\boxed"))));
    static const char *const words[] = {"answer is", "answer:"};
    const char *last = NULL;
    size_t length = 0;
    for (size_t i = 0; i < 2; i++) {
        const char *here = find_last(s, words[i]);
        if (here && (!last || here > last)) {
            last = here;
            length = strlen(words[i]);
        }
    }
    if (last) {
        span rest = trim(first_line(trim(from(s, last + length))));
        while (rest.n && (rest.at[0] == ':' || rest.at[0] == '*' || rest.at[0] == ' ')) {
            rest.at++;
            rest.n--;
        }
        if (rest.n)
            return rest;
    }
    *marked = false;
    return trim(s);
}

/* ---- numbers ---- */

/* Digits with commas between groups of three, and a decimal point; how many bytes were taken. */
static size_t read_decimal(double *out, span s)
{
    char digits[64];
    size_t i = 0, n = 0;
    bool point = false, any = false;
    while (i < s.n && n + 1 < sizeof digits) {
        const char c = s.at[i];
        if (isdigit((unsigned char)c)) {
            digits[n++] = c;
            any = true;
        } else if (c == ',' && any && !point && i + 3 < s.n && isdigit((unsigned char)s.at[i + 1]) &&
                   isdigit((unsigned char)s.at[i + 2]) && isdigit((unsigned char)s.at[i + 3])) {
            /* a group follows */
        } else if (c == '.' && !point && i + 1 < s.n && isdigit((unsigned char)s.at[i + 1])) {
            point = true;
            digits[n++] = c;
        } else {
            break;
        }
        i++;
    }
    digits[n] = '\0';
    if (!any)
        return 0;
    *out = strtod(digits, NULL);
    return i;
}

/* A number that begins at s.at: sign, currency, decimal, or \frac{a}{b} and a/b. */
static size_t read_number(double *out, span s)
{
    size_t at = 0, taken;
    bool negative = false;
    if (at < s.n && (s.at[at] == '-' || s.at[at] == '+'))
        negative = s.at[at++] == '-';
    if (at < s.n && s.at[at] == '$')
        at++;
    if (at < s.n && s.at[at] == '-' && !negative) {
        negative = true;
        at++;
    }
    double value, under;
    if (starts_with((span){s.at + at, s.n - at}, "\\frac{")) {
        const span top = braces((span){s.at + at + 5, s.n - at - 5});
        const size_t next = (size_t)(top.at + top.n - s.at) + 1;
        if (next >= s.n || s.at[next] != '{' || !read_decimal(&value, trim(top)) ||
            !read_decimal(&under, trim(braces((span){s.at + next, s.n - next}))) || under == 0)
            return 0;
        const span bottom = braces((span){s.at + next, s.n - next});
        *out = (negative ? -1 : 1) * value / under;
        return (size_t)(bottom.at + bottom.n - s.at) + 1;
    }
    taken = read_decimal(&value, (span){s.at + at, s.n - at});
    if (!taken)
        return 0;
    at += taken;
    if (at + 1 < s.n && s.at[at] == '/' &&
        (taken = read_decimal(&under, (span){s.at + at + 1, s.n - at - 1})) > 0 && under != 0) {
        value /= under;
        at += 1 + taken;
    }
    *out = negative ? -value : value;
    return at;
}

/* Could a number begin here?  Not inside a word or behind a digit's point. */
static bool begins_number(span s, size_t i)
{
    const unsigned char c = (unsigned char)s.at[i], before = i ? (unsigned char)s.at[i - 1] : ' ';
    if (isalnum(before) || before == '_' || (before == '.' && i > 1 && isdigit((unsigned char)s.at[i - 2])))
        return false;
    return isdigit(c) || ((c == '-' || c == '+' || c == '$') && i + 1 < s.n) || c == '\\';
}

/* The first number, or the last. */
static bool find_number(double *out, span s, bool last)
{
    bool found = false;
    for (size_t i = 0; i < s.n;) {
        double value;
        const size_t taken = begins_number(s, i) ? read_number(&value, (span){s.at + i, s.n - i}) : 0;
        if (taken) {
            *out = value;
            found = true;
            if (!last)
                break;
        }
        i += taken ? taken : 1;
    }
    return found;
}

bool rt_answer_number(double *out, const char *text, size_t n)
{
    return find_number(out, (span){text, n}, false);
}

static bool same_number(double a, double b) { return fabs(a - b) <= 1e-6 * fmax(1, fabs(b)); }

static rt_verdict check_number(const rt_problem *p, span visible, rt_text *final)
{
    bool marked;
    double got, want;
    const span end = final_of(visible, &marked);
    if (!rt_answer_number(&want, p->gold, strlen(p->gold)) || !find_number(&got, end, !marked))
        return RT_VERDICT_NONE;
    if (final)
        rt_text_printf(final, "%.12g", got);
    return same_number(got, want) ? RT_VERDICT_RIGHT : RT_VERDICT_WRONG;
}

/* ---- letters and words ---- */

/* A capital letter that stands alone; in brackets it counts before others. */
static char find_letter(span s, bool last)
{
    char found = 0;
    for (int brackets = 1; brackets >= 0 && !found; brackets--)
        for (size_t i = 0; i < s.n; i++) {
            const char c = s.at[i];
            const unsigned char before = i ? (unsigned char)s.at[i - 1] : ' ',
                                after = i + 1 < s.n ? (unsigned char)s.at[i + 1] : ' ';
            if (c < 'A' || c > 'J' || isalnum(before) || isalnum(after) || after == '\'')
                continue;
            if (brackets && after != ')' && before != '(')
                continue;
            if (!brackets && last && !(before == ' ' || before == '\n' || before == '*'))
                continue;
            found = c;
            if (!last)
                break;
        }
    return found;
}

static rt_verdict check_letter(const rt_problem *p, span visible, rt_text *final)
{
    bool marked;
    const span end = final_of(visible, &marked);
    const char got = find_letter(end, !marked);
    if (!got)
        return RT_VERDICT_NONE;
    if (final)
        rt_text_append(final, &got, 1);
    return p->gold[0] == got ? RT_VERDICT_RIGHT : RT_VERDICT_WRONG;
}

/* Lower case, single spaces, without quotes around it or a full stop at the end. */
static void normalise(rt_text *out, span s)
{
    s = trim(s);
    while (s.n > 1 && strchr("\"'`*", s.at[0])) {
        s.at++;
        s.n--;
    }
    while (s.n > 1 && strchr("\"'`*.", s.at[s.n - 1]))
        s.n--;
    bool space = false;
    for (size_t i = 0; i < s.n; i++) {
        const char c = (char)tolower((unsigned char)s.at[i]);
        const bool blank = isspace((unsigned char)c);
        if (!blank || !space)
            rt_text_append(out, blank ? " " : &c, 1);
        space = blank;
    }
}

static rt_status check_exact(rt_verdict *out, const rt_problem *p, span visible, rt_text *final,
                             rt_error *err)
{
    bool marked;
    rt_text got = {0}, want = {0};
    span end = final_of(visible, &marked);
    normalise(&want, (span){p->gold, strlen(p->gold)});
    if (!marked && !memchr(want.data ? want.data : "", '\n', want.size))
        end = last_line(end);
    normalise(&got, end);
    *out = got.size == 0                                                         ? RT_VERDICT_NONE
           : got.size == want.size && memcmp(got.data, want.data, got.size) == 0 ? RT_VERDICT_RIGHT
                                                                                 : RT_VERDICT_WRONG;
    if (final && got.size)
        rt_text_append(final, got.data, got.size);
    const bool failed = got.failed || want.failed;
    rt_text_deinit(&got);
    rt_text_deinit(&want);
    return failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for an answer") : RT_OK;
}

/* ---- patterns ---- */

static rt_status check_pattern(rt_verdict *out, const rt_problem *p, span visible, rt_error *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *pattern =
        pcre2_compile((PCRE2_SPTR)p->gold, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_MULTILINE, &code, &at, NULL);
    if (!pattern) {
        PCRE2_UCHAR why[120];
        (void)pcre2_get_error_message(code, why, sizeof why);
        return rt_error_set(err, RT_INVALID, "line %zu: the pattern '%.80s' is wrong at %zu: %s", p->line,
                            p->gold, (size_t)at, (const char *)why);
    }
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int found = PCRE2_ERROR_NOMEMORY;
    if (match && context) {
        (void)pcre2_set_match_limit(context, 1000000); /* the pattern is foreign too */
        found = pcre2_match(pattern, (PCRE2_SPTR)visible.at, visible.n, 0, 0, match, context);
    }
    *out = found >= 0                     ? RT_VERDICT_RIGHT
           : found == PCRE2_ERROR_NOMATCH ? RT_VERDICT_WRONG
                                          : RT_VERDICT_STOPPED;
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
    pcre2_code_free(pattern);
    return found == PCRE2_ERROR_NOMEMORY ? rt_error_set(err, RT_NO_MEMORY, "no memory to match a pattern")
                                         : RT_OK;
}

/* ---- programs ---- */

/* The next block between ``` lines from *at on; *python: its first line says so.  false: there is none.  An
 * open last block counts. */
static bool next_block(span s, size_t *at, span *out, bool *python)
{
    while (*at < s.n) {
        const span line = first_line((span){s.at + *at, s.n - *at}), fence = trim(line);
        *at += line.n + 1;
        if (!starts_with(fence, "```"))
            continue;
        const span word = trim((span){fence.at + 3, fence.n - 3});
        *python = starts_with(word, "py") || starts_with(word, "Py");
        const size_t begin = rt_size_min(*at, s.n);
        size_t end = s.n;
        while (*at < s.n) {
            const span inner = first_line((span){s.at + *at, s.n - *at});
            const size_t here = *at;
            *at += inner.n + 1;
            if (starts_with(trim(inner), "```")) {
                end = here;
                break;
            }
        }
        *out = (span){s.at + begin, end - begin};
        return true;
    }
    return false;
}

static bool defines(span code, const char *entry)
{
    char wanted[256];
    if (!*entry)
        return true;
    (void)snprintf(wanted, sizeof wanted, "def %.200s", entry);
    return find_last(code, wanted) != NULL;
}

/* What comes first after the solution is often an example of its use or another attempt, so the first block
 * counts. */
rt_status rt_answer_code(rt_text *out, const char *text, size_t n, const char *entry, rt_error *err)
{
    const span all = {text, n};
    span block, best = all;
    int best_rank = 0;
    bool python;
    for (size_t at = 0; next_block(all, &at, &block, &python);) {
        const int rank = 1 + (python ? 1 : 0) + (*entry && defines(block, entry) ? 2 : 0);
        if (rank > best_rank) {
            best = block;
            best_rank = rank;
        }
    }
    rt_text_append(out, best.at, best.n);
    return out->failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a program") : RT_OK;
}

/* The answer's code between the problem's own parts.  A function that is asked for and not there is taken to
 * be continued: the answer is its body.  `word` is printed behind the tests: a program that ends before them,
 * with whatever status, has not passed. */
static rt_status make_program(rt_text *out, const rt_problem *p, span visible, const char *word,
                              rt_error *err)
{
    rt_text code = {0};
    if (rt_answer_code(&code, visible.at, visible.n, p->entry, err) != RT_OK) {
        rt_text_deinit(&code);
        return err->status;
    }
    const span answered = {code.data ? code.data : "", code.size};
    rt_text_puts(out, p->before);
    if (*p->entry && defines(answered, p->entry))
        rt_text_puts(out, "\n    pass\n"); /* what stood in front may end within the function's head */
    rt_text_puts(out, *p->entry && !defines(answered, p->entry) ? "" : "\n");
    rt_text_append(out, answered.at, answered.n);
    rt_text_printf(out, "\n%s\nprint('\\n%s')\n", p->gold, word);
    rt_text_deinit(&code);
    return out->failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a program") : RT_OK;
}

static bool ends_with_word(const rt_text *output, const char *word)
{
    const span last = last_line((span){output->data ? output->data : "", output->size});
    return last.n == strlen(word) && memcmp(last.at, word, last.n) == 0;
}

static rt_status check_program(rt_verdict *out, const rt_problem *p, span visible,
                               const rt_answer_options *options, rt_error *err)
{
    const char *const argv[] = {options->interpreter ? options->interpreter : "python3", "-I", "-B", "-",
                                NULL};
    rt_text program = {0};
    rt_sandbox_result result;
    uint64_t secret;
    char word[32];
    if (getrandom(&secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        return rt_error_set(err, RT_IO, "the system gives no random numbers");
    (void)snprintf(word, sizeof word, "passed-%016llx", (unsigned long long)secret);
    rt_status status = make_program(&program, p, visible, word, err);
    if (status == RT_OK)
        status = rt_sandbox_run(&result, argv, program.data, program.size, &options->limits, err);
    rt_text_deinit(&program);
    if (status != RT_OK)
        return status;
    const bool passed =
        result.end == RT_SANDBOX_EXITED && result.code == 0 && ends_with_word(&result.output, word);
    *out = passed                                                             ? RT_VERDICT_RIGHT
           : result.end == RT_SANDBOX_TIME || result.end == RT_SANDBOX_OUTPUT ? RT_VERDICT_STOPPED
                                                                              : RT_VERDICT_WRONG;
    rt_text_deinit(&result.output);
    return RT_OK;
}

/* ---- all kinds ---- */

rt_status rt_answer_check(rt_verdict *out, const rt_problem *problem, const char *text, size_t n,
                          const rt_answer_options *options, rt_text *final, rt_error *err)
{
    span visible;
    visible.at = rt_answer_visible(text, n, &visible.n);
    *out = RT_VERDICT_NONE;
    if (trim(visible).n == 0)
        return RT_OK;
    switch (problem->kind) {
    case RT_PROBLEM_NUMBER:
        *out = check_number(problem, visible, final);
        return RT_OK;
    case RT_PROBLEM_LETTER:
        *out = check_letter(problem, visible, final);
        return RT_OK;
    case RT_PROBLEM_EXACT:
        return check_exact(out, problem, visible, final, err);
    case RT_PROBLEM_PATTERN:
        return check_pattern(out, problem, visible, err);
    case RT_PROBLEM_PROGRAM:
        return check_program(out, problem, visible, options, err);
    case RT_PROBLEM_INSTRUCTIONS: {
        rt_instructions found;
        if (rt_instructions_check(&found, problem, visible.at, visible.n, err) != RT_OK)
            return err->status;
        if (found.asked)
            *out = found.followed == found.asked ? RT_VERDICT_RIGHT : RT_VERDICT_WRONG;
        return RT_OK;
    }
    default:
        return rt_error_set(err, RT_INVALID, "line %zu: a problem of kind '%s' has no answer in words",
                            problem->line, rt_problem_kind_word(problem->kind));
    }
}
