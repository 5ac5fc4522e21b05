/* serve/job.h - one request for the engine: prompts, how to go on from them, and what has come of it.
 *
 * The event thread makes a job from a request and hands it to the engine; the engine thread runs it and fills
 * in the choices; the event thread writes them out as they grow.  `lock` guards what both touch; the rest
 * belongs to whoever the comment says. */
#ifndef RT_SERVE_JOB_H
#define RT_SERVE_JOB_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/text.h"
#include "model/penalty.h"
#include "model/sampler.h"
#include "model/tokenizer.h"
#include "serve/json_grammar.h"
#include "serve/marking.h"

enum {
    RT_CHOICES_MAX = 16, /* n */
    RT_STOPS_MAX = 16,
    RT_STOP_BYTES_MAX = 256,
    RT_JOB_TOP_MAX = 20,
    RT_PROMPTS_MAX = 1024,
    RT_STOP_IDS_MAX = 64
};

typedef struct rt_stop {
    char bytes[RT_STOP_BYTES_MAX];
    size_t size;
} rt_stop;

typedef struct rt_job_options {
    rt_sampling sampling; /* without penalties */
    rt_penalties penalties;
    rt_logit_bias *biases; /* behind penalties.biases, owned */
    rt_stop *stops;        /* [n_stops], owned */
    size_t n_stops;
    int32_t stop_ids[RT_STOP_IDS_MAX];
    size_t n_stop_ids;
    bool ignore_eos;
    size_t tokens_max;       /* of a choice; SIZE_MAX: what the context holds */
    size_t n;                /* choices of a prompt */
    int top_logprobs;        /* of generated tokens; -1: no log-probabilities */
    int prompt_top_logprobs; /* of prompt tokens; -1: none */
    bool score_last;         /* also the distribution after the prompt's last token: top[n], without scored */
    rt_grammar *grammar;     /* what the text has to obey; owned; NULL: nothing */
} rt_job_options;

typedef struct rt_top { /* one of the likeliest tokens of a position */
    int32_t id;
    float logprob; /* nats, of the model's own distribution */
} rt_top;

typedef struct rt_scored { /* a token with its place in the model's own distribution */
    int32_t id;
    float logprob;
    uint32_t rank;     /* 1: the likeliest */
    uint32_t text_end; /* bytes of the choice's text with this token */
    uint32_t n_top;
} rt_scored;

typedef struct rt_job_prompt {
    int32_t *ids;
    size_t n;
    size_t cached;     /* tokens whose keys and values were there already */
    rt_scored *scored; /* [n] from 1 on, when prompt_top_logprobs >= 0 */
    rt_top *top;       /* [n + 1][prompt_top_logprobs], likewise */
} rt_job_prompt;

typedef enum rt_job_finish {
    RT_JOB_RUNNING,
    RT_JOB_STOP,
    RT_JOB_LENGTH,
    RT_JOB_ABORTED /* the client has gone, the deadline has passed, a fault */
} rt_job_finish;

typedef struct rt_choice {
    size_t prompt, index; /* index: 0 .. n-1 of the prompt */
    /* under the lock */
    rt_text text;      /* safe to send: whole characters, free of stop strings */
    rt_scored *tokens; /* shown ones, in order */
    rt_top *top;       /* [n_tokens][top_logprobs] */
    size_t n_tokens, tokens_capacity;
    size_t n_ready;   /* tokens whose text is part of `text`; all when finished */
    size_t n_sampled; /* with a hidden end token */
    rt_job_finish finish;
    /* the engine's */
    rt_text raw;             /* bytes as they were decoded */
    size_t raw_taken;        /* of them, turned into text */
    rt_grammar_state *state; /* NULL without a grammar */
} rt_choice;

typedef struct rt_job rt_job;
struct rt_job {
    /* fixed once submitted */
    rt_job_options options;
    rt_job_prompt *prompts;
    size_t n_prompts;
    rt_choice *choices; /* [n_prompts * n] */
    size_t n_choices;
    uint64_t account; /* whose turn it is; 0 without accounts */
    uint64_t scope;   /* whose keys and values it may use again */
    double arrived_s, deadline_s;
    size_t lane;         /* which model */
    void *owner;         /* the event thread's */
    void *pair;          /* the event thread's: a twin belongs to its pair and has no owner; else NULL */
    rt_marking_use mark; /* behind options.sampling.marker; taken back with the job */

    atomic_bool cancelled; /* by the event thread: free the sequences */
    atomic_bool paused;    /* by the event thread: the client does not read */

    pthread_mutex_t lock;
    double first_token_s, started_s, ended_s; /* 0: not yet */
    bool timed_out;
    rt_error fault; /* a fault of the engine */

    /* the engine's */
    size_t n_started, n_finished;
    float **prompt_logits; /* [n_prompts] of the last token, kept for n > 1; NULL entries: not there */
    rt_job *next;          /* in a queue */
    bool dirty, done;      /* under the engine's outbox lock; done: it will not touch the job again */
    rt_job *next_dirty;
};

void rt_job_options_deinit(rt_job_options *options);
/* Takes over what options and prompts own, and leaves them empty; on failure they are unchanged. */
rt_status rt_job_new(rt_job **out, rt_job_options *options, rt_token_list *prompts, size_t n_prompts,
                     rt_error *err);
void rt_job_free(rt_job *job);
size_t rt_job_prompt_tokens(const rt_job *job);

#endif
