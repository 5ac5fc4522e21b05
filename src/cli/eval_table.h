/* cli/eval_table.h - the judge's result for people: one row a figure, one column a model. */
#ifndef RT_CLI_EVAL_TABLE_H
#define RT_CLI_EVAL_TABLE_H

#include "judge/eval.h"

/* To standard output, at most 100 columns wide: with more than three models a table for each three. */
void cli_print_eval(const rt_eval_result *result);

#endif
