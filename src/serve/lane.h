/* serve/lane.h - one model and its slots; all of it belongs to the engine's thread. */
#ifndef RT_SERVE_LANE_H
#define RT_SERVE_LANE_H

#include "serve/draw.h"
#include "serve/engine.h"
#include "serve/fair.h"
#include "serve/prefix.h"

typedef enum rt_slot_state { RT_SLOT_FREE, RT_SLOT_PREFILL, RT_SLOT_DECODE } rt_slot_state;

typedef struct rt_slot {
    rt_slot_state state;
    rt_job *job;
    rt_choice *choice;
    size_t prompt;      /* of the job */
    int32_t *ids;       /* [positions + 1]: prompt and answer; of a free slot: what is kept */
    size_t n_prompt, n; /* n - n_prompt: sampled */
    size_t filled;      /* keys and values that are there */
    size_t clean;       /* of them from the start, made by prefill: what others may reuse */
    uint64_t scope;     /* of the job whose they are */
    uint64_t last_used;
} rt_slot;

typedef struct rt_lane {
    rt_lane_options options;
    rt_session *session;
    rt_prefix_store *prefixes; /* NULL: only slots keep anything */
    size_t n_vocab, capacity;  /* positions a slot */
    rt_slot *slots;            /* [n_slots]; the session has one more, for padding */
    size_t pad_rows;           /* a decoding pass has at least so many rows; 0: any number */
    size_t logit_rows;         /* logits are made for multiples of so many rows */
    rt_fair queue;
    rt_drawer *drawers; /* [threads] */
    float *logits;      /* [LANE_ROWS][n_vocab] */
    rt_piece *pieces;   /* [n_slots + 1] */
    size_t *turns;      /* [n_slots]: slots of the present pass */
    size_t *whole,
        *whole_rows;  /* [n_slots]: those whose prompt is complete, and the rows of its last token */
    rt_scored *drawn; /* [LANE_ROWS] */
    rt_top *tops;     /* [LANE_ROWS][RT_JOB_TOP_MAX] */
    uint64_t clock;
} rt_lane;

/* What a lane tells the engine. */
typedef struct rt_lane_sink {
    void (*grown)(void *context, rt_job *job); /* text, scores or the state of a choice */
    void (*ended)(void *context, rt_job *job); /* no sequence is left */
    void *context;
    uint64_t prompt_tokens, cached_tokens, generated_tokens; /* sums */
} rt_lane_sink;

rt_status rt_lane_open(rt_lane *lane, const rt_lane_options *options, rt_error *err);
void rt_lane_close(rt_lane *lane);
/* Ends sequences of cancelled jobs and of those past their deadline, queued ones too. */
void rt_lane_reap(rt_lane *lane, double now, rt_lane_sink *sink);
/* Gives free slots to queued jobs. */
void rt_lane_admit(rt_lane *lane, double now, rt_lane_sink *sink);
/* One pass of prefill, one decoding step; false: there was nothing to do. */
bool rt_lane_prefill(rt_lane *lane, size_t tokens_max, rt_lane_sink *sink);
bool rt_lane_decode(rt_lane *lane, rt_lane_sink *sink);
size_t rt_lane_running(const rt_lane *lane);
size_t rt_lane_kv_tokens(const rt_lane *lane);

/* lane.c, for lane_run.c */
void rt_slot_finish(rt_lane *lane, rt_slot *slot, rt_job_finish why, rt_lane_sink *sink);

#endif
