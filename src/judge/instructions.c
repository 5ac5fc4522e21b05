/* judge/instructions.c - IFEval's instructions, each a rule on the answer's text (see answer.h).
 *
 * Words, sentences and paragraphs are counted by plain rules on bytes; the kinds and their arguments are the
 * data set's own. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/size.h"
#include "judge/answer.h"

typedef struct task {
    const char *text; /* [n], not NUL-terminated */
    size_t n;
    const json_t *args;
} task;

static const char *word_arg(const task *t, const char *key)
{
    const char *text = json_string_value(json_object_get(t->args, key));
    return text ? text : "";
}

static size_t count_arg(const task *t, const char *key)
{
    const json_t *value = json_object_get(t->args, key);
    const double x = json_number_value(value);
    return x > 0 && x < 1e9 ? (size_t)x : 0;
}

/* "less than" or "at least" n, as the arguments say. */
static bool relates(const task *t, const char *relation, size_t got, size_t n)
{
    return strcmp(word_arg(t, relation), "less than") == 0 ? got < n : got >= n;
}

static task trimmed(task t)
{
    while (t.n && isspace((unsigned char)t.text[0])) {
        t.text++;
        t.n--;
    }
    while (t.n && isspace((unsigned char)t.text[t.n - 1]))
        t.n--;
    return t;
}

static bool is_word(unsigned char c) { return isalnum(c) || c == '_' || c >= 0x80; }

/* How often `what` stands in the text, whatever its case; whole: with no letter on either side. */
static size_t occurrences(const task *t, const char *what, bool whole)
{
    const size_t m = strlen(what);
    size_t count = 0;
    for (size_t i = 0; m && i + m <= t->n;) {
        const bool here = strncasecmp(t->text + i, what, m) == 0 &&
                          (!whole || ((i == 0 || !is_word((unsigned char)t->text[i - 1])) &&
                                      (i + m == t->n || !is_word((unsigned char)t->text[i + m]))));
        count += here;
        i += here ? m : 1;
    }
    return count;
}

static size_t count_words(const task *t, bool capitals)
{
    size_t count = 0;
    for (size_t i = 0; i < t->n;) {
        size_t end = i, upper = 0, lower = 0;
        while (end < t->n && is_word((unsigned char)t->text[end])) {
            upper += isupper((unsigned char)t->text[end]) != 0;
            lower += islower((unsigned char)t->text[end]) != 0;
            end++;
        }
        count += end > i && (!capitals || (upper > 0 && lower == 0));
        i = end + 1;
    }
    return count;
}

static size_t count_sentences(const task *t)
{
    size_t count = 0;
    bool open = false;
    for (size_t i = 0; i < t->n; i++) {
        const char c = t->text[i];
        const bool stop =
            (c == '.' || c == '!' || c == '?') && (i + 1 == t->n || !is_word((unsigned char)t->text[i + 1]));
        const bool gap = c == '\n' && i + 1 < t->n && t->text[i + 1] == '\n';
        if (open && (stop || gap)) {
            count++;
            open = false;
        } else if (is_word((unsigned char)c)) {
            open = true;
        }
    }
    return count + open;
}

/* The next part before `border` from *at on; empty ones too. */
static bool next_part(const task *t, size_t *at, const char *border, task *out)
{
    const size_t m = strlen(border);
    if (*at > t->n)
        return false;
    size_t end = *at;
    while (end < t->n && !(end + m <= t->n && memcmp(t->text + end, border, m) == 0))
        end++;
    *out = trimmed((task){t->text + *at, end - *at, NULL});
    *at = end < t->n ? end + m : t->n + 1;
    return true;
}

static size_t count_parts(const task *t, const char *border)
{
    size_t count = 0;
    task part;
    for (size_t at = 0; next_part(t, &at, border, &part);)
        count += part.n > 0;
    return count;
}

/* ---- one function a kind ---- */

static bool no_comma(const task *t) { return !memchr(t->text, ',', t->n); }

static bool forbidden_words(const task *t)
{
    const json_t *list = json_object_get(t->args, "forbidden_words"), *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        if (occurrences(t, json_string_value(one) ? json_string_value(one) : "", true))
            return false;
    }
    return true;
}

static bool existence(const task *t)
{
    const json_t *list = json_object_get(t->args, "keywords"), *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        if (!occurrences(t, json_string_value(one) ? json_string_value(one) : "", false))
            return false;
    }
    return true;
}

static bool frequency(const task *t)
{
    return relates(t, "relation", occurrences(t, word_arg(t, "keyword"), false), count_arg(t, "frequency"));
}

static bool letter_frequency(const task *t)
{
    return relates(t, "let_relation", occurrences(t, word_arg(t, "letter"), false),
                   count_arg(t, "let_frequency"));
}

static bool number_sentences(const task *t)
{
    return relates(t, "relation", count_sentences(t), count_arg(t, "num_sentences"));
}

static bool number_words(const task *t)
{
    return relates(t, "relation", count_words(t, false), count_arg(t, "num_words"));
}

static bool number_paragraphs(const task *t)
{
    return count_parts(t, "***") == count_arg(t, "num_paragraphs");
}

static bool nth_paragraph(const task *t)
{
    const size_t wanted = count_arg(t, "nth_paragraph");
    const char *first = word_arg(t, "first_word");
    size_t number = 0;
    bool found = false;
    task part;
    for (size_t at = 0; next_part(t, &at, "\n\n", &part);) {
        if (part.n == 0 || ++number != wanted)
            continue;
        while (part.n && !is_word((unsigned char)part.text[0])) {
            part.text++;
            part.n--;
        }
        const size_t m = strlen(first);
        found = part.n >= m && strncasecmp(part.text, first, m) == 0 &&
                (part.n == m || !is_word((unsigned char)part.text[m]));
    }
    return found && number == count_arg(t, "num_paragraphs");
}

static bool repeat_prompt(const task *t)
{
    const task answer = trimmed(*t);
    const char *wanted = word_arg(t, "prompt_to_repeat");
    const task prompt = trimmed((task){wanted, strlen(wanted), NULL});
    return answer.n >= prompt.n && strncasecmp(answer.text, prompt.text, prompt.n) == 0;
}

static bool two_responses(const task *t)
{
    task parts[2] = {0}, part;
    size_t n = 0;
    for (size_t at = 0; next_part(t, &at, "******", &part);) {
        if (part.n == 0)
            continue;
        if (n == 2)
            return false;
        parts[n++] = part;
    }
    return n == 2 && !(parts[0].n == parts[1].n && memcmp(parts[0].text, parts[1].text, parts[0].n) == 0);
}

static bool quotation(const task *t)
{
    const task a = trimmed(*t);
    return a.n > 1 && a.text[0] == '"' && a.text[a.n - 1] == '"';
}

static bool end_checker(const task *t)
{
    task a = trimmed(*t);
    const char *wanted = word_arg(t, "end_phrase");
    const task phrase = trimmed((task){wanted, strlen(wanted), NULL});
    if (a.n && a.text[a.n - 1] == '"')
        a.n--;
    return a.n >= phrase.n && strncasecmp(a.text + a.n - phrase.n, phrase.text, phrase.n) == 0;
}

static bool title(const task *t)
{
    for (size_t i = 0; i + 4 < t->n; i++) {
        if (memcmp(t->text + i, "<<", 2) != 0)
            continue;
        for (size_t k = i + 2; k + 1 < t->n && t->text[k] != '\n'; k++)
            if (memcmp(t->text + k, ">>", 2) == 0)
                return trimmed((task){t->text + i + 2, k - i - 2, NULL}).n > 0;
    }
    return false;
}

/* *text* or **text**, on one line. */
static bool highlighted(const task *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->n;) {
        size_t stars = 0;
        while (i + stars < t->n && t->text[i + stars] == '*')
            stars++;
        if (stars == 0 || stars > 2) {
            i += rt_size_max(stars, 1);
            continue;
        }
        size_t end = i + stars;
        while (end < t->n && t->text[end] != '*' && t->text[end] != '\n')
            end++;
        const bool closed = end < t->n && t->text[end] == '*' &&
                            trimmed((task){t->text + i + stars, end - i - stars, NULL}).n > 0;
        count += closed;
        i = closed ? end + stars : end;
    }
    return count >= count_arg(t, "num_highlights");
}

static bool bullets(const task *t)
{
    size_t count = 0;
    task line;
    for (size_t at = 0; next_part(t, &at, "\n", &line);)
        count += line.n > 1 && (line.text[0] == '*' || line.text[0] == '-') && line.text[1] == ' ';
    return count == count_arg(t, "num_bullets");
}

static bool postscript(const task *t) { return occurrences(t, word_arg(t, "postscript_marker"), false) > 0; }

static bool placeholders(const task *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->n; i++) {
        const char *end = t->text[i] == '[' ? memchr(t->text + i, ']', t->n - i) : NULL;
        if (!end)
            continue;
        count++;
        i = (size_t)(end - t->text);
    }
    return count >= count_arg(t, "num_placeholders");
}

static bool json_only(const task *t)
{
    task a = trimmed(*t);
    if (a.n > 6 && memcmp(a.text, "```", 3) == 0 && memcmp(a.text + a.n - 3, "```", 3) == 0) {
        const char *line = memchr(a.text, '\n', a.n);
        const size_t skip = line ? (size_t)(line - a.text) : 3;
        a = trimmed((task){a.text + skip, a.n - skip - 3, NULL});
    }
    json_t *json = json_loadb(a.text, a.n, JSON_DECODE_ANY, NULL);
    json_decref(json);
    return json != NULL;
}

/* The splitter's word and a number behind it. */
static bool sections(const task *t)
{
    const char *word = word_arg(t, "section_spliter");
    const size_t m = strlen(word);
    size_t count = 0;
    for (size_t i = 0; m && i + m < t->n; i++) {
        size_t at = i + m;
        if (memcmp(t->text + i, word, m) != 0)
            continue;
        while (at < t->n && t->text[at] == ' ')
            at++;
        count += at < t->n && isdigit((unsigned char)t->text[at]);
    }
    return count >= count_arg(t, "num_sections");
}

static bool constrained(const task *t)
{
    return occurrences(t, "My answer is yes.", false) || occurrences(t, "My answer is no.", false) ||
           occurrences(t, "My answer is maybe.", false);
}

static bool has_case(const task *t, int (*other)(int))
{
    bool letters = false;
    for (size_t i = 0; i < t->n; i++) {
        if (other((unsigned char)t->text[i]))
            return false;
        letters = letters || isalpha((unsigned char)t->text[i]);
    }
    return letters;
}

static bool lower_case(const task *t) { return has_case(t, isupper); }
static bool upper_case(const task *t) { return has_case(t, islower); }

static bool capital_words(const task *t)
{
    return relates(t, "capital_relation", count_words(t, true), count_arg(t, "capital_frequency"));
}

static const struct {
    const char *id;
    bool (*follows)(const task *t);
} kinds[] = {
    {"punctuation:no_comma", no_comma},
    {"keywords:forbidden_words", forbidden_words},
    {"keywords:existence", existence},
    {"keywords:frequency", frequency},
    {"keywords:letter_frequency", letter_frequency},
    {"length_constraints:number_sentences", number_sentences},
    {"length_constraints:number_words", number_words},
    {"length_constraints:number_paragraphs", number_paragraphs},
    {"length_constraints:nth_paragraph_first_word", nth_paragraph},
    {"combination:repeat_prompt", repeat_prompt},
    {"combination:two_responses", two_responses},
    {"startend:quotation", quotation},
    {"startend:end_checker", end_checker},
    {"detectable_format:title", title},
    {"detectable_format:number_highlighted_sections", highlighted},
    {"detectable_format:number_bullet_lists", bullets},
    {"detectable_format:json_format", json_only},
    {"detectable_format:multiple_sections", sections},
    {"detectable_format:constrained_response", constrained},
    {"detectable_content:postscript", postscript},
    {"detectable_content:number_placeholders", placeholders},
    {"change_case:english_lowercase", lower_case},
    {"change_case:english_capital", upper_case},
    {"change_case:capital_word_frequency", capital_words},
};

rt_status rt_instructions_check(rt_instructions *out, const rt_problem *problem, const char *text, size_t n,
                                rt_error *err)
{
    const json_t *ids = json_object_get(problem->row, "instruction_id_list"),
                 *args = json_object_get(problem->row, "kwargs"), *id;
    size_t i;
    *out = (rt_instructions){0};
    json_array_foreach(ids, i, id)
    {
        const char *word = json_string_value(id);
        const task t = {text, n, json_array_get(args, i)};
        if (!word)
            return rt_error_set(err, RT_INVALID, "line %zu: instruction_id_list must hold texts",
                                problem->line);
        size_t k = 0;
        while (k < sizeof kinds / sizeof kinds[0] && strcmp(kinds[k].id, word) != 0)
            k++;
        if (k == sizeof kinds / sizeof kinds[0]) {
            out->unknown++;
            continue;
        }
        out->asked++;
        out->followed += kinds[k].follows(&t);
    }
    return RT_OK;
}
