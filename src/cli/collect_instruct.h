/* cli/collect_instruct.h - `retort collect --self-instruct N`: prompts that the teacher makes up from seeds.
 */
#ifndef RT_CLI_COLLECT_INSTRUCT_H
#define RT_CLI_COLLECT_INSTRUCT_H

#include "outputs/collect.h"

/* Reads the seeds of options->inputs, asks in rounds until there are `wanted` new prompts (or a round brings
 * none), and writes them to options->out; questions and answers of round R are kept in files beside it, so
 * that the same call goes on.  *made: how many there are. */
rt_status collect_instruct(rt_teacher *teacher, const rt_collect_options *options, size_t wanted,
                           size_t *made, rt_collect_report *report, rt_error *err);

#endif
