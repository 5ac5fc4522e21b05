/* teacher/answer.h - what OpenAI-compatible servers answer, read into an rt_answered and checked.
 *
 * Chat and completions, whole or streamed; log-probabilities in the chat form and the legacy form; reasoning
 * in reasoning_content, reasoning, or think tags at the start; ids where given.  Nothing in it is trusted:
 * what cannot be an answer is RT_CORRUPT, what is one but does not agree with itself sets a flag
 * (RT_REPLY_*). */
#ifndef RT_TEACHER_ANSWER_H
#define RT_TEACHER_ANSWER_H

#include "teacher/teacher.h"

typedef struct rt_answer_wish { /* what was asked */
    bool chat, logprobs, keep_raw;
    bool once;           /* no chunk of a stream came twice: equal ones are text that repeats itself */
    const char *model;   /* borrowed */
    size_t n_vocab;      /* 0: not known */
    size_t prompt_bytes; /* for the estimate where usage is of no use */
} rt_answer_wish;

enum { RT_ANSWER_BYTES_MAX = 64 << 20 };

/* A whole answer with status 200.  Fills in everything of the reply but status, attempts and times.  A member
 * "error" in it is RT_IO with the server's sentence. */
rt_status rt_answer_read(rt_answered *reply, const rt_answer_wish *wish, const char *data, size_t size,
                         rt_error *err);
/* The same for a streamed answer (server-sent events), whole in memory.  RT_CORRUPT without [DONE], and where
 * chunks came twice and cannot be told from text that repeats itself. */
rt_status rt_answer_read_stream(rt_answered *reply, const rt_answer_wish *wish, const char *data, size_t size,
                                rt_error *err);

/* The body of a refusal: error code and sentence, from {"error": {...}}, {"detail": ...} or plain text. */
void rt_answer_read_error(rt_answered *reply, const char *data, size_t size);

/* Splits think tags off the start of reply->text into reply->reasoning. */
void rt_answer_split_thinking(rt_answered *reply);

/* JSON from a server: one value, nothing after it; strings may hold NUL. */
json_t *rt_answer_json(const char *data, size_t size, rt_error *err);

/* ---- answer_logprobs.c ---- */

/* Adds the entries of a "logprobs" object in either form; RT_CORRUPT when it is neither. */
rt_status rt_answer_logprobs(rt_answered *reply, const json_t *logprobs, rt_error *err);
/* Sum, bytes, count and ids, after everything was read; `shown` is the text that the tokens should spell. */
void rt_answer_check_logprobs(rt_answered *reply, const rt_answer_wish *wish, const rt_text *shown);
/* One alternative: appended to reply->alternatives; `bytes` may be NULL (then `token` says it). */
rt_status rt_answer_alternative(rt_answered_alternative *out, rt_answered *reply, const char *token,
                                size_t token_size, const json_t *bytes, const json_t *id, double logprob);

#endif
