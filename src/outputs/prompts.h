/* outputs/prompts.h - the prompts of files, in any of the forms in which people keep them, as requests.
 *
 *   {"prompt": TEXT}                                    also "system"; ids ([1, 2, ..]) for completions
 *   {"messages": [{"role", "content"}, ..]}             a last answer is left out: it is what is asked for
 *   {"conversations": [{"from": "human", "value"}, ..]} ShareGPT
 *   {"instruction": TEXT, "input": TEXT?}               Alpaca; "context" is taken for input
 *   {"custom_id", "method": "POST", "url", "body"}      OpenAI Batch
 *   a file *.txt                                        one prompt a line
 *
 * JSONL may be packed (.zst).  Reasoning of earlier turns is never sent back: it is taken off. */
#ifndef RT_OUTPUTS_PROMPTS_H
#define RT_OUTPUTS_PROMPTS_H

#include <jansson.h>

#include "base/schema.h"
#include "base/text.h"

typedef struct rt_prompt_options {
    const char *system;     /* put first where a row has no system message; NULL: none */
    const char *prompt_key; /* rows hold the prompt under this key; NULL: the forms above */
    bool completions;       /* prompts stay texts to be continued; false: they become messages */
} rt_prompt_options;

typedef struct rt_prompt_row {
    json_t *body;     /* {"messages" or "prompt", and what the row's own body said}; owned */
    char *custom_id;  /* NULL: none; owned */
    size_t samples;   /* the body's "n", taken out of it; 0: not said */
    const char *file; /* borrowed from the reader */
    size_t line;      /* in the file, from 1 */
} rt_prompt_row;
void rt_prompt_row_deinit(rt_prompt_row *row);

/* One row from a line of JSON; `where` ("file:line") begins the error. */
rt_status rt_prompt_row_parse(rt_prompt_row *row, const char *line, size_t size,
                              const rt_prompt_options *options, const char *where, rt_error *err);
/* One row from plain text. */
rt_status rt_prompt_row_text(rt_prompt_row *row, const char *text, size_t size,
                             const rt_prompt_options *options, const char *where, rt_error *err);

typedef struct rt_prompt_reader rt_prompt_reader;
/* paths and options are borrowed. */
rt_status rt_prompt_reader_open(rt_prompt_reader **out, const rt_strings *paths,
                                const rt_prompt_options *options, rt_error *err);
/* The next row of the files in their order; *more false at the end. */
rt_status rt_prompt_reader_next(rt_prompt_reader *reader, rt_prompt_row *row, bool *more, rt_error *err);
void rt_prompt_reader_close(rt_prompt_reader *reader);

#endif
