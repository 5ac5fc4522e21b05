/* serve/compose.h - a job's choices as JSON: whole answers, and the events of a stream (API.md 4 to 6 and 9).
 */
#ifndef RT_SERVE_COMPOSE_H
#define RT_SERVE_COMPOSE_H

#include "serve/request.h"
#include "serve/think.h"

typedef struct rt_compose_cursor { /* what of a choice has been told */
    size_t text, tokens;
    size_t offset; /* code points before the next token's text, for text_offset */
    rt_think think;
    bool begun, finished;
} rt_compose_cursor;

typedef struct rt_compose { /* of one request; belongs to the event thread */
    const rt_served_model *model;
    const rt_request *request;
    rt_job *job;
    char id[48];
    int64_t created;
    const char *fingerprint;
    rt_compose_cursor *cursors; /* [n_choices] */
} rt_compose;

rt_status rt_compose_init(rt_compose *reply, const rt_served_model *model, const rt_request *request,
                          rt_job *job, const char *fingerprint, bool reasoning, rt_error *err);
void rt_compose_deinit(rt_compose *reply);
/* The whole answer; the job has ended. */
void rt_compose_whole(rt_compose *reply, rt_text *out);
/* Events for all that has come since the last call; takes the job's lock. */
void rt_compose_events(rt_compose *reply, rt_text *out);
/* The end of a stream: usage where it was asked for, and [DONE]. */
void rt_compose_last_events(rt_compose *reply, rt_text *out);
/* Tokens that were sampled, all choices together; takes the job's lock. */
size_t rt_compose_sampled(const rt_compose *reply);

/* compose_logprobs.c */
void rt_compose_chat_logprobs(const rt_compose *reply, const rt_choice *choice, size_t from, size_t to,
                              rt_text *out);
/* offset: code points before token `from`; moved past the tokens written. With prompt: its tokens first. */
void rt_compose_text_logprobs(const rt_compose *reply, const rt_choice *choice, bool prompt, size_t from,
                              size_t to, size_t *offset, rt_text *out);
void rt_compose_prompt_logprobs(const rt_compose *reply, size_t prompt, rt_text *out);
size_t rt_code_points(const char *data, size_t size);

#endif
