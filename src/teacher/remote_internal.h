/* teacher/remote_internal.h - the parts of the remote teacher that its files share. */
#ifndef RT_TEACHER_REMOTE_INTERNAL_H
#define RT_TEACHER_REMOTE_INTERNAL_H

#include <curl/curl.h>

#include "teacher/answer.h"
#include "teacher/flow.h"
#include "teacher/remote.h"

typedef struct remote_slot remote_slot;

typedef struct remote {
    rt_remote_options options; /* texts owned */
    char *base;                /* "http://host/v1" */
    rt_teacher_info info;
    char fingerprint[64];
    rt_flow flow;
    double (*clock)(void *context);
    void *clock_context;
    size_t top_logprobs; /* what the server takes */
    bool token_ids;
    char notice[256];
    uint64_t attempts, retries, limited, failures;
    struct curl_slist *headers; /* of every request */
} remote;

/* What a run of the loop is about: `next` gives work, `read` makes a reply of an answer, `refused` may change
 * the work after a 4xx (true: send again), `done` takes the reply. */
typedef struct remote_work {
    uint64_t tag;
    json_t *body; /* owned by the loop once taken */
    char key[65];
    size_t prompt_bytes;
} remote_work;

typedef struct remote_job {
    rt_next (*next)(void *context, remote_work *out);
    /* The path below the base, and the bytes to send, for the state of the server as now known. */
    const char *(*path)(void *context, const remote_work *work);
    char *(*bytes)(void *context, const remote_work *work, bool stream);
    rt_status (*read)(void *context, rt_answered *reply, const remote_work *work, bool streamed,
                      const char *data, size_t size, rt_error *err);
    bool (*refused)(void *context, const remote_work *work, const rt_answered *reply);
    void (*done)(void *context, const remote_work *work, const rt_answered *reply);
    rt_status (*tick)(void *context, const rt_teacher_state *state, rt_error *err); /* may be NULL */
    void *tick_context, *context;
    bool stream;
} remote_job;

rt_status remote_run(remote *self, const remote_job *job, rt_error *err);
rt_status remote_score(void *self, const rt_score_options *options, const rt_score_calls *calls,
                       rt_error *err);
/* Bytes of the prompt in a body, for estimates of its tokens. */
size_t remote_prompt_bytes(const json_t *body);

#endif
