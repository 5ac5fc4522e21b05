/* cli/prompts.h - the prompts of a file, or one, as messages and as token ids.
 *
 * A row of a JSONL file is {"prompt": TEXT} ("instruction" is taken for it) or {"messages": [...]}; an
 * assistant's answer at the end of the messages is left out: it is what is asked for. */
#ifndef RT_CLI_PROMPTS_H
#define RT_CLI_PROMPTS_H

#include "cli/open_model.h"
#include "student/data.h"

typedef struct cli_prompt {
    const char *key; /* under which the row gave it: "prompt" or "messages" */
    json_t *value;   /* what the row gave */
    json_t *messages;
    size_t line; /* in the file, from 1 */
    rt_token_list ids;
    char
        thought[RT_THOUGHT_TAIL]; /* what the template has opened of a thought: "<think>" and blanks, or "" */
} cli_prompt;

typedef struct cli_prompts {
    cli_prompt *list;
    size_t count, capacity;
} cli_prompts;

/* system: put first as the system's message where the row has none; NULL: none. */
rt_status cli_prompts_add(cli_prompts *prompts, const char *text, size_t size, const char *system,
                          rt_error *err);
rt_status cli_prompts_read(cli_prompts *prompts, const char *path, const char *system, rt_error *err);
/* Fills in the ids; the model's template is used when it is open.  context: RT_INVALID for a prompt that
 * leaves no room for an answer, naming its line. */
rt_status cli_prompts_render(cli_prompts *prompts, const cli_model *model, size_t context, rt_error *err);
void cli_prompts_deinit(cli_prompts *prompts);

#endif
