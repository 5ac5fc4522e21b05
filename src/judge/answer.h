/* judge/answer.h - is an answer right?  Rules, and a program where the problem asks for one; no model judges.
 *
 * What counts is the text after the thought: after the last </think>; a thought that was never closed is no
 * answer. The final answer is looked for behind "####", in \boxed{}, behind "the answer is" or "answer:";
 * without any of these it is the last number (number), the last letter in brackets or alone on a line
 * (letter), or the last line (exact).  Numbers are compared as numbers: 1,234.50 is $1234.5; 3/4 is 0.75. */
#ifndef RT_JUDGE_ANSWER_H
#define RT_JUDGE_ANSWER_H

#include "base/text.h"
#include "judge/problem.h"
#include "judge/sandbox.h"

typedef enum rt_verdict {
    RT_VERDICT_WRONG,
    RT_VERDICT_RIGHT,
    RT_VERDICT_NONE,   /* no answer was found: an open thought, no number, no code */
    RT_VERDICT_STOPPED /* a program that ran into a limit */
} rt_verdict;

typedef struct rt_answer_options {
    rt_sandbox_limits limits; /* of programs */
    const char *interpreter;  /* of programs; NULL: python3 */
} rt_answer_options;

/* text [n]: the whole answer, thought included.  *final (may be NULL, empty before): what was compared, for
 * majorities: equal answers have equal texts.  RT_INVALID: a pattern that is none; RT_UNSUPPORTED,
 * RT_NOT_FOUND: programs cannot be run here. */
rt_status rt_answer_check(rt_verdict *out, const rt_problem *problem, const char *text, size_t n,
                          const rt_answer_options *options, rt_text *final, rt_error *err);

/* The part after the thought, inside text; *size 0 where the thought is open. */
const char *rt_answer_visible(const char *text, size_t n, size_t *size);
/* The first number in text [n]; false: there is none. */
bool rt_answer_number(double *out, const char *text, size_t n);
/* The code of an answer, as the field's benchmarks take it: its first fenced block that defines `entry` ("":
 * any), of these the first that says python; without such a block the first of python, the first, all of it.
 */
rt_status rt_answer_code(rt_text *out, const char *text, size_t n, const char *entry, rt_error *err);

/* IFEval (judge/instructions.c): how many of the problem's instructions the answer follows. */
typedef struct rt_instructions {
    size_t asked, followed;
    size_t unknown; /* of kinds that cannot be checked here (response_language): not counted in asked */
} rt_instructions;
rt_status rt_instructions_check(rt_instructions *out, const rt_problem *problem, const char *text, size_t n,
                                rt_error *err);

#endif
