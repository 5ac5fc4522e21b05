/* evidence/texts.h - texts under test as token ids: plain text, JSON Lines, standard input.
 *
 * A row of a JSONL file gives its text as "completion", "answer", "response", "output", "text" or "content",
 * as the last assistant's message of "messages", or as ids: "ids", "token_ids", "completion_ids" or
 * "answer_ids". */
#ifndef RT_EVIDENCE_TEXTS_H
#define RT_EVIDENCE_TEXTS_H

#include <jansson.h>

#include "base/pool.h"
#include "model/tokenizer.h"

typedef struct rt_text_item {
    char *text; /* NULL: ids came */
    size_t size;
    char *prompt;     /* what was asked, when the row says it; NULL */
    uint64_t unit;    /* hash of all that was asked, a system prompt too; 0: not said */
    json_t *logprobs; /* of a collected row: [{token, bytes, id?, logprob, top: [..]}]; NULL */
    rt_token_list ids;
} rt_text_item;

typedef struct rt_texts {
    rt_text_item *list;
    size_t count, capacity, tokens, bytes;
    char tokenizer[65]; /* that rows say they were marked with; empty: none says */
} rt_texts;

enum { RT_TEXTS_AUTO, RT_TEXTS_PLAIN, RT_TEXTS_ROWS };

/* Appends a file's texts; path "-": standard input.  form RT_TEXTS_AUTO: rows when the name ends in .jsonl
 * (.zst) or the first byte that is no blank is '{'. */
rt_status rt_texts_read(rt_texts *texts, const char *path, int form, rt_error *err);
rt_status rt_texts_parse(rt_texts *texts, const char *data, size_t size, int form, const char *where,
                         rt_error *err);
/* Questions alone: rows with "prompt", "instruction", "question", "text" or messages; plain text, one a line.
 */
rt_status rt_texts_read_prompts(rt_texts *texts, const char *path, rt_error *err);
/* Appends a sampled answer: its prompt (NULL: none), text and ids; its tokens are counted. */
rt_status rt_texts_add_answer(rt_texts *texts, const char *prompt, uint64_t unit, const char *text,
                              size_t size, const int32_t *ids, size_t n, rt_error *err);
/* Ids are dropped, and texts that are ids alone become text: another tokenizer can then read them. */
rt_status rt_texts_decode(rt_texts *texts, const rt_tokenizer *tokenizer, rt_error *err);
/* Leaves out the texts for which drop [count] is set. */
void rt_texts_drop(rt_texts *texts, const uint8_t *drop);
/* Fills in the ids of texts; RT_INVALID without a tokenizer when one has only text, RT_MISMATCH when rows say
 * another tokenizer or hold ids that this one has not. */
rt_status rt_texts_encode(rt_texts *texts, const rt_tokenizer *tokenizer, rt_pool *pool, rt_error *err);
void rt_texts_deinit(rt_texts *texts);

#endif
