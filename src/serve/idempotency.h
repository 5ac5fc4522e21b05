/* serve/idempotency.h - answers kept under the Idempotency-Key that a client sent, for 24 hours (API.md 7).
 *
 * An entry belongs to an account and a key.  While its request runs a second one is told so; when it has
 * ended well the same request gets the stored bytes, another request with the same key a conflict.  What
 * failed is forgotten, so that a retry is a new attempt.  Bounded in entries and bytes: the oldest leave
 * first. */
#ifndef RT_SERVE_IDEMPOTENCY_H
#define RT_SERVE_IDEMPOTENCY_H

#include <stdbool.h>

#include "base/text.h"

typedef struct rt_kept_answer {
    char id[65], request[65]; /* SHA-256 of account and key; of path and body */
    bool running, stream;
    double until_s;
    rt_text body;
    struct rt_kept_answer *next;
} rt_kept_answer;

typedef struct rt_kept_answers {
    rt_kept_answer *newest;
    size_t count, bytes;
} rt_kept_answers;

typedef enum rt_kept_state {
    RT_KEPT_NEW,
    RT_KEPT_RUNNING,
    RT_KEPT_CONFLICT,
    RT_KEPT_DONE,
    RT_KEPT_FULL
} rt_kept_state;
/* NEW: *entry is this request's, to be ended with rt_kept_end.  DONE: *entry holds the answer. */
rt_kept_state rt_kept_begin(rt_kept_answers *answers, const char *account, const char *key, const char *path,
                            const char *body, size_t body_size, double now, rt_kept_answer **entry);
/* NEW becomes DONE with an answer that was kept elsewhere; takes the text. */
void rt_kept_fill(rt_kept_answers *answers, rt_kept_answer *entry, rt_text *body, bool stream);
void rt_kept_end(rt_kept_answers *answers, rt_kept_answer *entry, bool keep);
void rt_kept_deinit(rt_kept_answers *answers);

#endif
