/* judge/problem.c - see problem.h. */
#include "judge/problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "base/text.h"
#include "outputs/lines.h"

enum { CHOICES_MAX = 64 };

const char *rt_problem_kind_word(rt_problem_kind kind)
{
    static const char *const words[] = {
#define RT_PROBLEM_WORD(name, word) word,
        RT_PROBLEM_MAP(RT_PROBLEM_WORD)
#undef RT_PROBLEM_WORD
    };
    return words[kind];
}

void rt_problem_deinit(rt_problem *p)
{
    for (size_t i = 0; i < p->n_choices; i++) {
        free(p->contexts ? p->contexts[i] : NULL);
        free(p->endings ? p->endings[i] : NULL);
    }
    free(p->contexts);
    free(p->endings);
    free(p->prompt);
    free(p->gold);
    free(p->before);
    free(p->entry);
    json_decref(p->row);
    *p = (rt_problem){0};
}

/* ---- the fields of a row ---- */

typedef struct reader {
    rt_problem *p;
    const json_t *row;
    const char *where;
    rt_error *err;
} reader;

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static rt_status lacks(const reader *r, const char *what)
{
    return rt_error_set(r->err, RT_INVALID, "%.200s: %s", r->where, what);
}

static rt_status keep(const reader *r, char **to, const char *text)
{
    *to = strdup(text);
    return *to ? RT_OK : rt_error_set(r->err, RT_NO_MEMORY, "%.200s: no memory for a problem", r->where);
}

/* Takes over what was written to `text`. */
static rt_status keep_text(const reader *r, char **to, rt_text *text)
{
    if (text->failed || !text->data) {
        rt_text_deinit(text);
        return rt_error_set(r->err, RT_NO_MEMORY, "%.200s: no memory for a problem", r->where);
    }
    *to = text->data;
    *text = (rt_text){0};
    return RT_OK;
}

static rt_status set(const reader *r, rt_problem_kind kind, const char *prompt, const char *gold)
{
    r->p->kind = kind;
    return keep(r, &r->p->prompt, prompt) == RT_OK && keep(r, &r->p->gold, gold) == RT_OK &&
                   keep(r, &r->p->before, "") == RT_OK && keep(r, &r->p->entry, "") == RT_OK
               ? RT_OK
               : r->err->status;
}

/* The same with a prompt that was put together; it is taken over. */
static rt_status set_made(const reader *r, rt_problem_kind kind, rt_text *prompt, const char *gold)
{
    char *text = NULL;
    rt_status status = keep_text(r, &text, prompt);
    if (status == RT_OK)
        status = set(r, kind, text, gold);
    free(text);
    return status;
}

/* A program: prompt and tests are taken over. */
static rt_status set_program(const reader *r, rt_text *prompt, rt_text *tests, const char *before,
                             const char *entry)
{
    rt_problem *p = r->p;
    p->kind = RT_PROBLEM_PROGRAM;
    rt_status status = keep_text(r, &p->prompt, prompt);
    if (status == RT_OK)
        status = keep_text(r, &p->gold, tests);
    if (status == RT_OK)
        status = keep(r, &p->before, before);
    if (status == RT_OK)
        status = keep(r, &p->entry, entry);
    rt_text_deinit(prompt);
    rt_text_deinit(tests);
    return status;
}

/* A string or a number, as text. */
static const char *scalar(const json_t *value, char room[64])
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value))
        (void)snprintf(room, 64, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        (void)snprintf(room, 64, "%.15g", json_real_value(value));
    else if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    else
        return NULL;
    return room;
}

/* ---- data sets ---- */

static rt_status gsm8k(const reader *r)
{
    const char *answer = text_of(r->row, "answer"), *mark = strstr(answer, "####");
    for (const char *next = mark; (next = strstr(next + 4, "####"));)
        mark = next;
    mark += 4;
    while (*mark == ' ')
        mark++;
    return set(r, RT_PROBLEM_NUMBER, text_of(r->row, "question"), mark);
}

static rt_status svamp(const reader *r)
{
    char room[64];
    const char *answer = scalar(json_object_get(r->row, "Answer"), room), *body = text_of(r->row, "Body"),
               *question = text_of(r->row, "Question");
    if (!answer || !body || !question)
        return lacks(r, "a row with Body needs the texts Body and Question and an Answer");
    rt_text text = {0};
    rt_text_printf(&text, "%s %s", body, question);
    return set_made(r, RT_PROBLEM_NUMBER, &text, answer);
}

/* The question, and its options a line each; the answer is a letter in words. */
static rt_status aqua(const reader *r)
{
    const json_t *options = json_object_get(r->row, "options"), *option;
    const char *question = text_of(r->row, "question"), *right = text_of(r->row, "correct");
    rt_text text = {0};
    size_t i;
    if (!question || !right || !json_is_array(options))
        return lacks(r, "a row with options needs question, a list of options and the letter correct");
    rt_text_puts(&text, question);
    json_array_foreach(options, i, option)
    {
        if (!json_is_string(option)) {
            rt_text_deinit(&text);
            return lacks(r, "options must be texts");
        }
        rt_text_printf(&text, "\n%s", json_string_value(option));
    }
    return set_made(r, RT_PROBLEM_LETTER, &text, right);
}

static rt_status humaneval(const reader *r)
{
    const char *prompt = text_of(r->row, "prompt"), *entry = text_of(r->row, "entry_point"),
               *test = text_of(r->row, "test");
    if (!prompt || !entry || !test)
        return lacks(r, "a row with entry_point needs the texts prompt and test");
    rt_text text = {0}, tests = {0};
    rt_text_printf(&text,
                   "Complete this Python function. Answer with the whole function in one code block.\n\n"
                   "```python\n%s\n```",
                   prompt);
    rt_text_printf(&tests, "%s\n\ncheck(%s)\n", test, entry);
    return set_program(r, &text, &tests, prompt, entry);
}

static rt_status mbpp(const reader *r)
{
    const json_t *list = json_object_get(r->row, "test_list"), *test;
    const char *task = text_of(r->row, "text"), *setup = text_of(r->row, "test_setup_code");
    rt_text text = {0}, tests = {0};
    size_t i;
    if (!task || json_array_size(list) == 0)
        return lacks(r, "a row with test_list needs text and at least one test");
    rt_text_printf(
        &text, "%s Answer with the code in one code block. It must pass these tests:\n\n```python\n", task);
    json_array_foreach(list, i, test)
    {
        const char *line = json_string_value(test);
        if (!line) {
            rt_text_deinit(&text);
            rt_text_deinit(&tests);
            return lacks(r, "test_list must hold texts");
        }
        rt_text_printf(&text, "%s\n", line);
        rt_text_printf(&tests, "%s\n", line);
    }
    rt_text_puts(&text, "```");
    return set_program(r, &text, &tests, setup ? setup : "", "");
}

static rt_status ifeval(const reader *r)
{
    const json_t *ids = json_object_get(r->row, "instruction_id_list"),
                 *values = json_object_get(r->row, "kwargs");
    const char *prompt = text_of(r->row, "prompt");
    if (!prompt || !json_is_array(ids) || json_array_size(ids) != json_array_size(values))
        return lacks(r, "a row with instruction_id_list needs prompt, and kwargs for each instruction");
    return set(r, RT_PROBLEM_INSTRUCTIONS, prompt, "");
}

/* ---- choices ---- */

static rt_status take_choices(const reader *r, size_t n)
{
    rt_problem *p = r->p;
    p->kind = RT_PROBLEM_CHOICE;
    if (n < 2 || n > CHOICES_MAX)
        return lacks(r, "between 2 and 64 choices are possible");
    p->contexts = calloc(n, sizeof *p->contexts);
    p->endings = calloc(n, sizeof *p->endings);
    if (!p->contexts || !p->endings)
        return rt_error_set(r->err, RT_NO_MEMORY, "%.200s: no memory for %zu choices", r->where, n);
    p->n_choices = n;
    return RT_OK;
}

static rt_status set_choice(const reader *r, size_t i, const char *context, const char *ending)
{
    return keep(r, &r->p->contexts[i], context) == RT_OK ? keep(r, &r->p->endings[i], ending)
                                                         : r->err->status;
}

/* The right one: an index from 0, or a letter of `labels` (NULL: A, B, ...). */
static rt_status set_right(const reader *r, const json_t *value, const json_t *choices)
{
    const char *letter = json_string_value(value);
    size_t right = SIZE_MAX, i;
    const json_t *choice;
    if (json_is_integer(value))
        right = (size_t)json_integer_value(value);
    if (letter && letter[0] >= '0' && letter[0] <= '9' && !letter[1])
        right = (size_t)(letter[0] - '0');
    if (letter && letter[0] >= 'A' && letter[0] <= 'Z' && !letter[1])
        right = (size_t)(letter[0] - 'A');
    json_array_foreach(choices, i, choice)
    {
        const char *label = text_of(choice, "label");
        if (letter && label && strcmp(label, letter) == 0)
            right = i;
    }
    if (right >= r->p->n_choices)
        return lacks(r, "the right answer is none of the choices");
    r->p->right = right;
    return RT_OK;
}

/* Choices are told apart by their letters when the question lists them (MMLU's way), else by their words. */
static rt_status choices(const reader *r)
{
    const json_t *row = r->row, *inner = json_object_get(row, "question"), *list, *right;
    const char *question = json_is_object(inner) ? text_of(inner, "stem") : json_string_value(inner);
    list = json_object_get(json_is_object(inner) ? inner : row, "choices");
    if (!question)
        question = text_of(row, "query");
    right = json_object_get(row, "answer");
    right = right ? right : json_object_get(row, "gold");
    right = right ? right : json_object_get(row, "answerKey");
    if (!question || !json_is_array(list) || !right)
        return lacks(r, "a row with choices needs question (or query), and answer, gold or answerKey");
    if (take_choices(r, json_array_size(list)) != RT_OK)
        return r->err->status;
    const bool letters = text_of(row, "subject") != NULL;
    rt_text text = {0};
    rt_text_puts(&text, question);
    for (size_t i = 0; letters && i < r->p->n_choices; i++) {
        const char *choice = json_string_value(json_array_get(list, i));
        rt_text_printf(&text, "\n%c. %s", (int)('A' + i), choice ? choice : "");
    }
    rt_text_puts(&text, "\nAnswer:");
    char *context = NULL;
    rt_status status = keep_text(r, &context, &text);
    for (size_t i = 0; i < r->p->n_choices && status == RT_OK; i++) {
        const json_t *one = json_array_get(list, i);
        const char *words = json_is_object(one) ? text_of(one, "text") : json_string_value(one);
        rt_text ending = {0};
        if (!words) {
            status = lacks(r, "a choice is no text");
            break;
        }
        if (letters)
            rt_text_printf(&ending, " %c", (int)('A' + i));
        else
            rt_text_printf(&ending, " %s", words);
        status = ending.data ? set_choice(r, i, context, ending.data) : lacks(r, "no memory for a choice");
        rt_text_deinit(&ending);
    }
    free(context);
    return status == RT_OK ? set_right(r, right, list) : status;
}

static rt_status hellaswag(const reader *r)
{
    const json_t *list = json_object_get(r->row, "endings");
    const char *context = text_of(r->row, "ctx");
    if (!context || !json_is_array(list))
        return lacks(r, "a row with endings needs the text ctx and a list of endings");
    if (take_choices(r, json_array_size(list)) != RT_OK)
        return r->err->status;
    for (size_t i = 0; i < r->p->n_choices; i++) {
        const char *words = json_string_value(json_array_get(list, i));
        rt_text ending = {0};
        if (!words)
            return lacks(r, "an ending is no text");
        rt_text_printf(&ending, " %s", words);
        const rt_status status =
            ending.data ? set_choice(r, i, context, ending.data) : lacks(r, "no memory for an ending");
        rt_text_deinit(&ending);
        if (status != RT_OK)
            return status;
    }
    return set_right(r, json_object_get(r->row, "label"), NULL);
}

static rt_status winogrande(const reader *r)
{
    const json_t *list = json_object_get(r->row, "context_options");
    const char *rest = text_of(r->row, "continuation");
    if (!rest || !json_is_array(list))
        return lacks(r, "a row with context_options needs the text continuation");
    if (take_choices(r, json_array_size(list)) != RT_OK)
        return r->err->status;
    rt_text ending = {0};
    rt_text_printf(&ending, " %s", rest);
    rt_status status = ending.data ? RT_OK : lacks(r, "no memory for a continuation");
    for (size_t i = 0; i < r->p->n_choices && status == RT_OK; i++) {
        const char *context = json_string_value(json_array_get(list, i));
        status = context ? set_choice(r, i, context, ending.data) : lacks(r, "a context is no text");
    }
    rt_text_deinit(&ending);
    return status == RT_OK ? set_right(r, json_object_get(r->row, "gold"), NULL) : status;
}

/* ---- the general form ---- */

static rt_status general(const reader *r)
{
    const char *prompt = text_of(r->row, "question"), *pattern = text_of(r->row, "pattern"),
               *tests = text_of(r->row, "tests"), *target = text_of(r->row, "target");
    char room[64];
    if (!prompt)
        prompt = text_of(r->row, "prompt");
    if (!prompt)
        prompt = text_of(r->row, "input");
    const char *answer = scalar(json_object_get(r->row, "answer"), room);
    if (!prompt)
        return lacks(r, "a problem needs question or prompt");
    if (pattern)
        return set(r, RT_PROBLEM_PATTERN, prompt, pattern);
    if (tests)
        return set(r, RT_PROBLEM_PROGRAM, prompt, tests);
    if (target)
        return set(r, RT_PROBLEM_EXACT, prompt, target);
    if (!answer || !*answer)
        return lacks(r,
                     "a problem needs answer, target, pattern or tests: without one nothing can be checked");
    double number;
    return set(r, rt_parse_real(&number, answer) ? RT_PROBLEM_NUMBER : RT_PROBLEM_EXACT, prompt, answer);
}

static rt_status read_row(const reader *r)
{
    static const struct {
        const char *field;
        rt_status (*read)(const reader *r);
    } sets[] = {{"entry_point", humaneval},
                {"test_list", mbpp},
                {"instruction_id_list", ifeval},
                {"Body", svamp},
                {"options", aqua},
                {"choices", choices},
                {"endings", hellaswag},
                {"context_options", winogrande}};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (json_object_get(r->row, sets[i].field))
            return sets[i].read(r);
    if (json_is_object(json_object_get(r->row, "question")))
        return choices(r);
    const char *answer = text_of(r->row, "answer");
    if (text_of(r->row, "question") && answer && strstr(answer, "####"))
        return gsm8k(r);
    return general(r);
}

rt_status rt_problem_of_row(rt_problem *out, json_t *row, const char *where, rt_error *err)
{
    *out = (rt_problem){.row = json_incref(row)};
    const reader r = {out, row, where, err};
    const rt_status status = json_is_object(row) ? read_row(&r) : lacks(&r, "a row must be an object");
    if (status != RT_OK)
        rt_problem_deinit(out);
    return status;
}

/* ---- files ---- */

static rt_status add(rt_problems *problems, const rt_problem *problem, rt_error *err)
{
    if (problems->count == problems->capacity) {
        const size_t capacity = problems->capacity * 2 + 64;
        rt_problem *list = realloc(problems->list, capacity * sizeof *list);
        if (!list)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu problems", capacity);
        problems->list = list;
        problems->capacity = capacity;
    }
    problems->list[problems->count++] = *problem;
    return RT_OK;
}

static rt_status add_line(rt_problems *out, const char *line, size_t size, const char *path, size_t number,
                          rt_error *err)
{
    char where[320];
    json_t *row;
    rt_problem problem;
    (void)snprintf(where, sizeof where, "%.280s:%zu", path, number);
    if (rt_json_parse(&row, line, size, where, err) != RT_OK)
        return err->status;
    rt_status status = rt_problem_of_row(&problem, row, where, err);
    json_decref(row);
    if (status != RT_OK)
        return status;
    problem.line = number;
    status = add(out, &problem, err);
    if (status != RT_OK)
        rt_problem_deinit(&problem);
    return status;
}

rt_status rt_problems_read(rt_problems *out, const char *path, size_t most, rt_error *err)
{
    *out = (rt_problems){0};
    rt_lines *lines;
    if (rt_lines_open(&lines, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    const char *line;
    size_t size;
    bool whole;
    while (status == RT_OK && (most == 0 || out->count < most)) {
        if ((status = rt_lines_next(lines, &line, &size, &whole, err)) != RT_OK || !line)
            break;
        if (size > 0 && !(size == 1 && line[0] == '\r'))
            status = add_line(out, line, size, path, rt_lines_number(lines), err);
    }
    rt_lines_close(lines);
    if (status == RT_OK && out->count == 0)
        status = rt_error_set(err, RT_INVALID, "%.300s: holds no problem", path);
    if (status != RT_OK)
        rt_problems_deinit(out);
    return status;
}

void rt_problems_deinit(rt_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        rt_problem_deinit(&problems->list[i]);
    free(problems->list);
    *problems = (rt_problems){0};
}
