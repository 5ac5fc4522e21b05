/* teacher/teacher.h - whoever is asked: a model file, a server on the network, or a store of what was said.
 *
 * Two verbs.  *ask*: requests in the form of the OpenAI API (chat or completions) give replies, many at once.
 * *score*: given token sequences give the teacher's distribution at every position.  Both pull their work:
 * the teacher calls `next` when it can take more, so nothing is queued that need not be, and returns when
 * `next` says RT_NEXT_END and all that was taken is answered.  Callbacks come from the thread that called,
 * one at a time.  Which teacher it is does not show, but for what `rt_teacher_info` says. */
#ifndef RT_TEACHER_TEACHER_H
#define RT_TEACHER_TEACHER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

typedef struct rt_teacher rt_teacher;

/* What is known of a teacher.  Texts are never NULL; "" where a thing is not known.  Owned by the teacher. */
typedef struct rt_teacher_info {
    const char *kind;            /* "local", "remote", "recorded" */
    const char *name;            /* the model, as it is asked for */
    const char *source;          /* file or base URL */
    size_t n_vocab;              /* 0: not known */
    const char *tokenizer_hash;  /* as rt_tokenizer_hash */
    const char *template_hash;   /* SHA-256 (hex) of the chat template's source */
    int32_t end_token;           /* -1: not known */
    const char *licence, *terms; /* a licence's short name; the address or the sentence of terms of use */
    bool forbids_training;       /* the terms do not allow other models to be trained on the outputs */
    const char *fingerprint;     /* equal values promise equal seeded output */
} rt_teacher_info;

/* ---- ask ---- */

typedef enum rt_next {
    RT_NEXT_TAKE,  /* *out is filled in */
    RT_NEXT_LATER, /* nothing may be taken now; ask again after the next reply */
    RT_NEXT_END,   /* nothing more will come */
} rt_next;

/* One request.  body: messages or prompt (text or ids), and any of max_tokens, max_completion_tokens,
 * temperature, top_p, top_k, min_p, seed, stop, frequency_penalty, presence_penalty, repetition_penalty,
 * logprobs, top_logprobs and others that only some servers know.  `model` is put in by the teacher.  Absent:
 * the teacher's defaults, and one sample: n > 1 is refused, ask n times with seeds of their own. */
typedef struct rt_ask {
    uint64_t tag; /* the caller's */
    json_t *body; /* the teacher takes this reference */
    char key[65]; /* names the request for the server (Idempotency-Key), "" for none */
} rt_ask;

/* The texts and numbers that stand for one token of a reply.  Bytes are in rt_answered.pool. */
typedef struct rt_answered_alternative {
    uint32_t bytes, n_bytes; /* offset and size */
    int32_t id;              /* -1: not known */
    float logprob;           /* nats, of the raw distribution */
} rt_answered_alternative;

typedef struct rt_answered_token {
    rt_answered_alternative chosen;
    uint32_t top, n_top; /* in rt_answered.alternatives, likeliest first */
    float tail;          /* 1 - sum of p of the alternatives; NAN where there are none */
} rt_answered_token;

/* What does not agree in a reply; each is reported once a run, the reply is kept. */
enum {
    RT_REPLY_SUM = 1,   /* probabilities sum to more than 1 + 1e-4: the row's log-probabilities are dropped */
    RT_REPLY_COUNT = 2, /* entries of logprobs are not usage.completion_tokens */
    RT_REPLY_BYTES = 4, /* the tokens' bytes are not the text */
    RT_REPLY_IDS = 8,   /* an id is outside the vocabulary: the ids are dropped */
    RT_REPLY_USAGE = 16,        /* usage is missing, negative or contradicts itself: counted by bytes / 4 */
    RT_REPLY_MODEL = 32,        /* another model answered than was asked */
    RT_REPLY_DUPLICATE = 64,    /* chunks came twice: the second was left out */
    RT_REPLY_NO_LOGPROBS = 128, /* asked for, not given */
    RT_REPLY_OPEN_THINK = 256,  /* the think tag is not closed: the reasoning was cut off */
};

typedef struct rt_usage {
    uint64_t prompt, cached, completion,
        reasoning; /* tokens; cached is part of prompt, reasoning of completion */
} rt_usage;

/* A reply, or why there is none.  Borrowed for the call that hands it over. */
typedef struct rt_answered {
    rt_status status;    /* RT_OK, or: RT_INVALID refused by the server for good; RT_IO attempts used up;
                            RT_CORRUPT answers that are no answers, attempts used up */
    int http_status;     /* of the last attempt; 0: no answer came */
    char error_code[64]; /* the server's, or ours: "attempts", "invalid_answer", ... */
    char error_text[512];
    rt_text text, reasoning, refusal;
    bool has_refusal;
    char finish[24]; /* "stop", "length", "content_filter", "tool_calls" */
    rt_usage usage;
    char model[128], fingerprint[64], request_id[128];
    rt_text pool;
    rt_answered_token *tokens; /* [n_tokens] of logprobs, in the order of the text */
    rt_answered_alternative *alternatives;
    size_t n_tokens, n_alternatives, tokens_capacity, alternatives_capacity;
    int32_t *ids, *prompt_ids; /* where the teacher gave them */
    size_t n_ids, n_prompt_ids;
    json_t *raw;    /* the answer as it came, where options ask for it; NULL otherwise */
    unsigned flags; /* RT_REPLY_* */
    unsigned attempts;
    double ms; /* of the attempt that gave it */
} rt_answered;
/* The words for the flags set in `flags`, one by one from *cursor (start at 0); NULL at the end. */
const char *rt_answered_flag_text(unsigned flags, unsigned *cursor);
void rt_answered_init(rt_answered *reply);
void rt_answered_reset(rt_answered *reply); /* keeps memory */
void rt_answered_deinit(rt_answered *reply);

/* How things stand, for progress lines. */
typedef struct rt_teacher_state {
    size_t in_flight, limit;                       /* requests; limit: how many may be, now */
    uint64_t attempts, retries, limited, failures; /* so far: sent; sent again; 429s; faults of other kinds */
    double paused_s;                               /* > 0: the host is paused for so long */
    const char *notice;                            /* last thing worth saying; "" */
} rt_teacher_state;

typedef struct rt_ask_calls {
    rt_next (*next)(void *context, rt_ask *out);
    void (*done)(void *context, uint64_t tag, const rt_answered *reply);
    /* At least every 100 ms, and between replies; RT_STOPPED drains (no more is taken, what is in flight is
     * awaited), anything else but RT_OK ends at once.  May be NULL. */
    rt_status (*tick)(void *context, const rt_teacher_state *state, rt_error *err);
    void *context;
} rt_ask_calls;

/* ---- score ---- */

typedef struct rt_score_ask {
    uint64_t tag;
    const int32_t *ids; /* [n], borrowed until its end call */
    size_t n;
} rt_score_ask;

/* One position's distribution, sparse: log-probabilities at temperature 1, nats, normalised over the whole
 * vocabulary.  Valid during the call. */
typedef struct rt_score_row {
    const uint32_t *ids;    /* [n] */
    const float *logq;      /* [n] */
    const uint16_t *counts; /* [n] how often drawn (random sampling); NULL: top-k only */
    size_t n;
    uint32_t n_draws, n_topk;
    float tail_logprob; /* log of the mass off the top-k; -INFINITY: none */
    float log_z;        /* log of the sum of exp(logits); 0 where only log-probabilities are known */
} rt_score_row;

typedef struct rt_score_options {
    size_t top_k;      /* likeliest ids of each position; a remote teacher may give fewer */
    size_t n_draws;    /* random-sampling draws of each position; local teachers only */
    double draw_power; /* draws are proportional to q^power; 1 */
    uint64_t seed;     /* of the draws */
    bool dense;        /* whole rows by `dense` instead of `row`; local teachers only */
} rt_score_options;

typedef struct rt_score_calls {
    rt_next (*next)(void *context, rt_score_ask *out);
    /* The distribution of ids[position] given those before it, for position 1 .. n-1 in order; false ends the
     * whole call with RT_STOPPED. */
    bool (*row)(void *context, uint64_t tag, size_t position, const rt_score_row *row);
    /* logits [n_rows, n_vocab] for positions first .. first+n_rows-1. */
    bool (*dense)(void *context, uint64_t tag, size_t first, size_t n_rows, const float *logits,
                  size_t n_vocab);
    /* The sequence is finished (RT_OK) or cannot be scored (err says why). */
    void (*end)(void *context, uint64_t tag, rt_status status, const rt_error *err);
    rt_status (*tick)(void *context, const rt_teacher_state *state, rt_error *err); /* as in rt_ask_calls */
    void *context;
} rt_score_calls;

/* ---- the handle ---- */

/* What a teacher is made of; `self` is its own. */
typedef struct rt_teacher_verbs {
    rt_status (*ask)(void *self, const rt_ask_calls *calls, rt_error *err);
    rt_status (*score)(void *self, const rt_score_options *options, const rt_score_calls *calls,
                       rt_error *err); /* NULL: cannot */
    const rt_teacher_info *(*info)(void *self);
    void (*close)(void *self);
} rt_teacher_verbs;

/* Takes `self` over (on failure too: it is closed). */
rt_status rt_teacher_open(rt_teacher **out, const rt_teacher_verbs *verbs, void *self, rt_error *err);
/* RT_STOPPED after a drain, RT_OK when everything was answered (replies that failed count as answered). */
rt_status rt_teacher_ask(rt_teacher *teacher, const rt_ask_calls *calls, rt_error *err);
/* RT_UNSUPPORTED where this teacher, or its server, gives no log-probabilities of given tokens. */
rt_status rt_teacher_score(rt_teacher *teacher, const rt_score_options *options, const rt_score_calls *calls,
                           rt_error *err);
const rt_teacher_info *rt_teacher_info_of(const rt_teacher *teacher);
void rt_teacher_close(rt_teacher *teacher); /* NULL is allowed */

#endif
