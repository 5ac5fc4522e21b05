/* teacher/remote.h - a server that speaks the OpenAI API, as a teacher.
 *
 * One thread and libcurl's multi interface keep up to hundreds of requests in flight.  Retries, pauses and
 * the number of requests at once follow API.md section 12: 408, 409, 429, 500, 502, 503, 504, lost
 * connections and answers that are none are tried again; other 4xx are the row's answer; 401, 403, a model
 * that is not there, and a quota that is used up end the call. */
#ifndef RT_TEACHER_REMOTE_H
#define RT_TEACHER_REMOTE_H

#include "teacher/teacher.h"

typedef struct rt_remote_options {
    const char *url;   /* "http://host:8000", ".../v1", or the whole path of an endpoint */
    const char *model; /* "": none is sent, the server's first */
    const char *key;   /* bearer token; NULL or "": none */
    bool completions;  /* /completions for bodies with a prompt; false: /chat/completions */
    bool stream, keep_raw;
    bool token_ids;         /* ask for return_token_ids; given up when the server refuses it */
    size_t top_logprobs;    /* 0: none; lowered to 5, then none, where the server refuses it */
    size_t attempts;        /* of one request; 0: 8.  A 429 does not count */
    size_t concurrency;     /* 0: adaptive */
    size_t concurrency_max; /* 0: 256 */
    double timeout_s;       /* of one request; 0: 600 */
    double silence_s;       /* without a byte; 0: 120 */
    double patience_s;      /* the host out of reach, or only 429s, for so long: the call stops; 0: 300 */
    size_t n_vocab;         /* 0: not known */
    const char *licence, *terms; /* NULL: not known */
    bool forbids_training;
    uint64_t seed;                  /* of the jitter */
    double (*clock)(void *context); /* seconds, steady; NULL: rt_clock_seconds */
    void *clock_context;
    const char *user_agent; /* NULL: "retort/VERSION" */
} rt_remote_options;

/* Texts are copied.  No connection is made yet. */
rt_status rt_remote_open(rt_teacher **out, const rt_remote_options *options, rt_error *err);

/* The base of an address: "http://host:8000/v1" from any of the forms above; *endpoint (may be NULL) is
 * "chat", "completions" or "" as the address said.  malloc'd; NULL with RT_INVALID for what is no http
 * address. */
char *rt_remote_base_url(const char *url, const char **endpoint, rt_error *err);

/* RT_INVALID for a key that holds what would end a header; NULL and "" are no key. */
rt_status rt_remote_key_check(const char *key, rt_error *err);

/* One plain request outside the machinery, for probes and batches: method "GET" or "POST" on base + path (or
 * on a whole address).  Status below 100 never comes back with RT_OK.  `body` may be NULL; `form_file`, when
 * not NULL, uploads body as multipart file with purpose "batch" under that name. */
typedef struct rt_remote_plain {
    const char *url, *key, *method;
    const char *body;
    size_t body_size;
    const char *form_file;
    double timeout_s;
} rt_remote_plain;
rt_status rt_remote_fetch(const rt_remote_plain *request, int *http_status, rt_text *answer, rt_error *err);

#endif
