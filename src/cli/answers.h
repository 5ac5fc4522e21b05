/* cli/answers.h - a JSONL file of answers that grows row by row.
 *
 * Each row is written whole and flushed, so a kill loses at most the row under way; opening again cuts off a
 * half-written last line.  Rows stand in the order in which answers ended and carry their prompt's index. */
#ifndef RT_CLI_ANSWERS_H
#define RT_CLI_ANSWERS_H

#include <stdbool.h>
#include <stdio.h>

#include "cli/prompts.h"

typedef struct cli_answers {
    FILE *stream;
    const char *path; /* NULL: standard output */
    bool *done;       /* [prompts]: answered by an earlier run */
    size_t n_done;
} cli_answers;

/* path NULL: standard output.  A file that is there is an error unless `resume`; with it the rows must be
 * answers to these prompts (else RT_MISMATCH), and another process that writes there is RT_BUSY. */
rt_status cli_answers_open(cli_answers *answers, const char *path, bool resume, const cli_prompts *prompts,
                           rt_error *err);
/* Appends a row and drops the reference to it. */
rt_status cli_answers_append(cli_answers *answers, json_t *row, rt_error *err);
/* Closes; RT_IO when the last bytes could not be written. */
rt_status cli_answers_close(cli_answers *answers, rt_error *err);

#endif
