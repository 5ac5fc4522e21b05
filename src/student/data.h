/* student/data.h - training text: documents as token ids with a loss mask, and how they are packed.
 *
 * A row of a JSONL file is {"text"}, {"prompt", "completion"} (with "finish_reason": "stop" the answer's end
 * token is learnt too) or {"messages"} whose last one is the assistant's; "instruction" and "output" are
 * taken as prompt and completion, and so are collect's {"request": {"prompt" or "messages"}, "response"}.  A
 * prompt is put into the model's chat template when it has one.  The mask belongs to the token that is
 * predicted. */
#ifndef RT_STUDENT_DATA_H
#define RT_STUDENT_DATA_H

#include "model/chat_template.h"
#include "model/decoder.h"
#include "model/tokenizer.h"
#include "student/head.h"

typedef struct rt_documents {
    int32_t *ids;  /* all documents end to end */
    uint8_t *mask; /* 1: this token is a target */
    size_t n_tokens, capacity;
    size_t *begins; /* [n_docs + 1] */
    size_t n_docs, docs_capacity;
    size_t n_cut; /* documents that were cut at the sequence length */
    size_t n_targets;
} rt_documents;

typedef struct rt_document_options {
    size_t tokens_max; /* of a document; longer text is split, longer answers are cut and counted */
    bool loss_on_all;  /* else on the answer's tokens only (plain text: all) */
} rt_document_options;

void rt_documents_deinit(rt_documents *docs);
/* Appends one document; mask NULL: every token is a target. */
rt_status rt_documents_add(rt_documents *docs, const int32_t *ids, const uint8_t *mask, size_t n,
                           rt_error *err);
/* Renders a prompt (or messages) with the tokenizer's own template, ready for the answer. Appends ids. */
rt_status rt_render_prompt(const rt_tokenizer *tokenizer, const rt_chat_template *chat_template,
                           const json_t *messages, rt_token_list *out, rt_error *err);
/* Does a rendered prompt open the thought itself, as templates of reasoning models do?  tail: "<think>" and
 * the blanks behind it, which the answer then goes on from. */
enum { RT_THOUGHT_TAIL = 16 };
bool rt_prompt_opens_thought(char tail[RT_THOUGHT_TAIL], const rt_tokenizer *tokenizer, const int32_t *ids,
                             size_t n);
/* Reads a JSONL (or .jsonl.zst) file, or a plain .txt one.  chat_template NULL: prompts are used as they are.
 * Errors name file, line and what is wrong; a file without a usable row is RT_INVALID. */
rt_status rt_documents_read(rt_documents *docs, const char *path, const rt_tokenizer *tokenizer,
                            const rt_chat_template *chat_template, const rt_document_options *options,
                            rt_error *err);

/* The same for two tokenizers side by side: document i of both says the same.  A row that one side can make
 * nothing of is in neither. */
typedef struct rt_documents_side {
    rt_documents *docs;
    const rt_tokenizer *tokenizer;
    const rt_chat_template *chat_template; /* may be NULL */
} rt_documents_side;
rt_status rt_documents_read_both(const rt_documents_side *first, const rt_documents_side *second,
                                 const char *path, const rt_document_options *options, rt_error *err);

/* Appends one row of such a file, as JSON. */
rt_status rt_documents_add_row(rt_documents *docs, const json_t *row, const rt_tokenizer *tokenizer,
                               const rt_chat_template *chat_template, const rt_document_options *options,
                               rt_error *err);
/* What a row asks (a new list of messages) and the answer in it (borrowed); false: it has no such pair. */
bool rt_document_row_parts(const json_t *row, json_t **messages, const json_t **answer, bool *finished);

/* How many tokens of a document stand before the first that is a target: its prompt. */
size_t rt_documents_prompt(const rt_documents *docs, size_t doc);

/* Deals documents into batches: shuffled anew in each epoch by (seed, epoch), packed end to end, no loss
 * across a border.  The state is `cursor` alone: batch after batch is a function of seed and cursor. */
typedef struct rt_dealer {
    const rt_documents *docs;
    uint64_t seed, cursor; /* documents dealt so far, over all epochs */
    uint32_t *order;       /* [n_docs] of epoch_shuffled */
    uint64_t epoch_shuffled;
    size_t tokens_max;
    const rt_documents *beside; /* the same documents in another's tokens: they must fit too; NULL: none */
} rt_dealer;

typedef struct rt_deal { /* one micro-batch; arrays sized for tokens_max */
    int32_t *ids;
    rt_segment *segments;
    uint32_t *rows;
    int32_t *labels;
    double *scales;
    rt_batch batch;
    rt_head_rows targets; /* scales are 1 until the caller sets them */
    uint32_t *documents;  /* [n_documents] in the order of the batch */
    size_t n_documents;
} rt_deal;

rt_status rt_dealer_init(rt_dealer *dealer, const rt_documents *docs, uint64_t seed, size_t tokens_max,
                         rt_error *err);
void rt_dealer_deinit(rt_dealer *dealer);
rt_status rt_deal_init(rt_deal *deal, size_t tokens_max, rt_error *err);
void rt_deal_deinit(rt_deal *deal);
/* Fills up n tokens of a batch to the step that batches have; returns their number then. */
size_t rt_deal_pad(int32_t *ids, rt_segment *segments, size_t *n_segments, size_t n);
/* Fills the next micro-batch of at most tokens_max tokens (the dealer's). */
void rt_dealer_next(rt_dealer *dealer, rt_deal *deal);

#endif
