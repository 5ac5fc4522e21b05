/* cli/eval_table.h - the judge's result for people: one row a figure, one column a model. */
#ifndef RT_CLI_EVAL_TABLE_H
#define RT_CLI_EVAL_TABLE_H

#include "judge/eval.h"
#include "judge/eval_own.h"

/* To standard output, at most 100 columns wide: with more than three models a table for each three. */
void cli_print_eval(const rt_eval_result *result);
/* What students say themselves: a row a student. */
void cli_print_eval_own(const rt_eval_own_result *result);

#endif
