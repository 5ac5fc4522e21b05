/* judge/problem.h - problems whose answers can be checked: a question, and what makes an answer right.
 *
 * A row of a JSONL file (.zst too) is told by its fields, as the field's data sets have them:
 *
 *   question, answer "... #### N"                        a number (GSM8K)
 *   Body, Question, Answer                               a number (SVAMP)
 *   question, options ["A)...", ...], correct            a letter, answered in words (AQuA)
 *   prompt, entry_point, test                            a program (HumanEval)
 *   text, test_list [, test_setup_code]                  a program (MBPP)
 *   prompt, instruction_id_list, kwargs                  instructions that can be checked (IFEval)
 *   question|query|stem, choices, answer|gold|answerKey  a choice by likelihood (MMLU, ARC, PIQA)
 *   ctx, endings, label                                  the same (HellaSwag)
 *   context_options, continuation, gold                  the same, the contexts differ (Winogrande)
 *   input, target                                        the very words (BIG-Bench Hard)
 *   question|prompt, answer                              a number where the answer is one, else the very
 * words question|prompt, pattern                             a regular expression that the answer must hold
 *   question|prompt, tests                               a program: what is answered, then `tests`
 */
#ifndef RT_JUDGE_PROBLEM_H
#define RT_JUDGE_PROBLEM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "retort/error.h"

/* kind, its word */
#define RT_PROBLEM_MAP(X)                                                                                    \
    X(NUMBER, "number")                                                                                      \
    X(LETTER, "letter")                                                                                      \
    X(EXACT, "exact")                                                                                        \
    X(PATTERN, "pattern")                                                                                    \
    X(PROGRAM, "program")                                                                                    \
    X(INSTRUCTIONS, "instructions")                                                                          \
    X(CHOICE, "choice")

typedef enum rt_problem_kind {
#define RT_PROBLEM_ENUM(name, word) RT_PROBLEM_##name,
    RT_PROBLEM_MAP(RT_PROBLEM_ENUM)
#undef RT_PROBLEM_ENUM
        RT_PROBLEM_KINDS
} rt_problem_kind;
const char *rt_problem_kind_word(rt_problem_kind kind);

typedef struct rt_problem {
    rt_problem_kind kind;
    size_t line;  /* in the file, from 1 */
    json_t *row;  /* owned: instructions and tests are read from it */
    char *prompt; /* what a model is asked (not of CHOICE) */
    char *gold;   /* NUMBER, LETTER, EXACT: the answer; PATTERN: the pattern; PROGRAM: the tests */
    char *before; /* PROGRAM: code that goes in front (MBPP's set-up); "" */
    char *entry;  /* PROGRAM: the function that is asked for; "" */
    /* CHOICE: log p of endings[i] after contexts[i]; contexts may be one and the same */
    size_t n_choices, right;
    char **contexts, **endings; /* [n_choices] */
} rt_problem;

typedef struct rt_problems {
    rt_problem *list;
    size_t count, capacity;
} rt_problems;

/* Reads at most `most` rows (0: all).  RT_INVALID names file, line and what is missing. */
rt_status rt_problems_read(rt_problems *out, const char *path, size_t most, rt_error *err);
void rt_problems_deinit(rt_problems *problems);
/* The problem of a row, borrowed; `where` names it in errors. */
rt_status rt_problem_of_row(rt_problem *out, json_t *row, const char *where, rt_error *err);
void rt_problem_deinit(rt_problem *problem);

#endif
