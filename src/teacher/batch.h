/* teacher/batch.h - a server's Batch API as teacher: requests go up in files, answers come down hours later.
 *
 * Files of at most 50,000 requests and 200 MB are uploaded (purpose batch), a batch is made of each
 * (completion_window 24h), looked at ever more seldom, and its output and error files are matched by
 * custom_id; what expired is sent again. The jobs stand in a file, with the requests beside it, so that a run
 * that was stopped or killed goes on waiting for them and sends nothing twice. */
#ifndef RT_TEACHER_BATCH_H
#define RT_TEACHER_BATCH_H

#include "teacher/remote.h"

typedef struct rt_batch_options {
    const char *url, *model, *key; /* as in rt_remote_options */
    const char *state;             /* path of the jobs' file; request files are "<state>.N.jsonl" */
    size_t requests_max;           /* of a file; 0: 50,000 */
    size_t top_logprobs;           /* 0: none */
    bool keep_raw;
    double poll_s, poll_max_s; /* first wait and longest; 0: 10 and 300 */
    size_t n_vocab;
    const char *licence, *terms;
    bool forbids_training;
} rt_batch_options;

/* Texts are copied. */
rt_status rt_batch_open(rt_teacher **out, const rt_batch_options *options, rt_error *err);

#endif
