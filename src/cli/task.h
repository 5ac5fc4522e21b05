/* cli/task.h - the words of `retort task`, and what they share. */
#ifndef RT_CLI_TASK_H
#define RT_CLI_TASK_H

#include "judge/task.h"

int cli_task_run(int argc, char **argv);
int cli_task_prompts(int argc, char **argv);
int cli_task_check(int argc, char **argv);
int cli_task_duel(int argc, char **argv);

typedef struct cli_task_answers {
    rt_task_answer *list;
    size_t count, capacity;
} cli_task_answers;
/* Appends; final is copied.  false: no memory. */
bool cli_task_add(cli_task_answers *answers, size_t problem, rt_verdict verdict, const char *final);
void cli_task_deinit(cli_task_answers *answers);

/* --seconds of processor time, at least 1, and five times as much on the clock: a busy machine fails no
 * program. */
void cli_task_limit(rt_sandbox_limits *limits, size_t seconds);
const char *cli_verdict_word(rt_verdict verdict); /* "right", "wrong", "none", "stopped" */
json_t *cli_task_json(const rt_task_figures *figures);
void cli_task_print(const rt_task_figures *figures);

#endif
