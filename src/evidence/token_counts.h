/* evidence/token_counts.h - does a server cut text into tokens as a tokenizer does?
 *
 * What a server bills for a prompt is the count of its tokens and a constant (of the chat template, BOS).
 * With the same tokenizer the difference to our own count is that constant for every prompt; with another one
 * it varies from prompt to prompt. */
#ifndef RT_EVIDENCE_TOKEN_COUNTS_H
#define RT_EVIDENCE_TOKEN_COUNTS_H

#include "model/tokenizer.h"

typedef struct rt_token_counts {
    size_t prompts; /* different ones that are text and have a count */
    size_t alike;   /* of them with the most frequent difference */
} rt_token_counts;

/* Of rows as collect writes them ({"request": {"messages"} or {"prompt"}, "usage": {"prompt_tokens"}}): the
 * first 256 prompts that are one text or one message. */
rt_status rt_token_counts_read(rt_token_counts *out, const char *path, const rt_tokenizer *tokenizer,
                               rt_error *err);
/* At least 8 prompts were counted, and fewer than 4 in 5 alike.  (Servers differ in a token or two where a
 * template trims blanks.) */
bool rt_token_counts_differ(const rt_token_counts *counts);

#endif
