/* serve/request.h - chat/completions and completions requests: JSON in, a job's options and prompts out. */
#ifndef RT_SERVE_REQUEST_H
#define RT_SERVE_REQUEST_H

#include <jansson.h>

#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "serve/fault.h"
#include "serve/job.h"

typedef struct rt_served_model { /* what requests need to know of a model; immutable */
    const char *id;              /* how clients call it */
    const rt_tokenizer *tokenizer;
    const rt_chat_template *chat_template; /* NULL: contents are joined */
    size_t n_vocab, context;               /* context: tokens of prompt and answer */
    size_t token_bytes_max;                /* of the longest token */
    bool thinks;                           /* its template knows <think> tags */
} rt_served_model;

typedef struct rt_request {
    bool chat, stream, include_usage, echo, return_token_ids, tokens_as_ids;
    bool has_logprobs, has_prompt_logprobs; /* asked for by these names */
    int n_prompt_logprobs;                  /* entries a position, of prompt_logprobs */
    bool thinking;                          /* the prompt ends inside <think> */
    bool has_tokens_max;                    /* the request names a limit */
    bool hide_reasoning;                    /* thoughts are not shown to this account */
    rt_job_options options;                 /* owned until a job takes them */
    rt_token_list *prompts;                 /* [n_prompts] */
    rt_text *prompt_texts;                  /* [n_prompts], for echo */
    size_t n_prompts;
    const char *user; /* borrowed from the body, or NULL */
} rt_request;

/* Without headers: the fields of `body` that this endpoint does not know are handed to `unknown`; with strict
 * they are faults. */
typedef struct rt_request_rules {
    bool strict;
    void (*unknown)(void *context, const char *name);
    void *context;
    int64_t tokens_cap;  /* of an answer whose length the request does not name; < 0: none */
    int64_t tokens_room; /* of prompts and such answers together; < 0: none */
} rt_request_rules;

/* Fills *out; on failure it is empty and *fault says why.  The request borrows from body. */
bool rt_request_read(rt_request *out, bool chat, const json_t *body, const rt_served_model *model,
                     const rt_request_rules *rules, rt_fault *fault);
void rt_request_deinit(rt_request *request);

/* The ids of a conversation; *thinking: the template has opened a think tag. */
bool rt_render_messages(const rt_served_model *model, const json_t *body, rt_token_list *out, bool *thinking,
                        rt_fault *fault);
/* The ids of a text: with BOS where the model wants one and add_special, control tokens on. */
bool rt_encode_prompt(const rt_served_model *model, const char *text, size_t size, bool add_special,
                      const char *param, rt_token_list *out, rt_fault *fault);

#endif
