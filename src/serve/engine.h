/* serve/engine.h - the thread that runs the models: continuous batching of many requests.
 *
 * A lane is a model with slots for sequences.  The engine's thread goes round: take new jobs in, give free
 * slots to whose turn it is (fair.h), one pass of prefill over at most prefill_tokens of waiting prompts, one
 * decoding step of all running sequences.  So a long prompt delays the others by a pass, not by itself, and a
 * cancelled job ends within one step.
 *
 * Keys and values: every slot has room for the whole context, as address space; pages are touched when they
 * are used, so the operating system does the paging and a token costs memory only once it is there.  What a
 * finished sequence leaves is kept, and a new prompt that begins alike takes it over (or a copy, when its
 * owner runs); what slots no longer hold lies in a store (prefix.h).  A job sees only what jobs of its own
 * scope left.  Only keys and values made by prefill are reused: those of generated tokens were made by
 * another way through the model and differ in the last bits, and an answer must not depend on what was
 * cached.
 *
 * Determinism: rows of a pass do not influence each other, prefill always goes by blocks, and where products
 * depend on the number of rows (f32, bf16) decoding and logits are padded to a constant number. */
#ifndef RT_SERVE_ENGINE_H
#define RT_SERVE_ENGINE_H

#include "model/session.h"
#include "serve/job.h"
#include "serve/prefix.h"

typedef struct rt_lane_options { /* models are borrowed for the engine's life */
    const rt_model *model;
    const rt_tokenizer *tokenizer;
    size_t n_slots, n_positions; /* n_positions 0: the model's context */
    size_t prefix_bytes;         /* for beginnings that slots no longer hold (prefix.h); 0: none are kept */
} rt_lane_options;

typedef struct rt_engine_options {
    size_t prefill_tokens;          /* of a pass, between decoding steps; 0: 256 */
    size_t queue_max;               /* jobs that wait; 0: 256 */
    void (*changed)(void *context); /* from the engine's thread: rt_engine_changed has something */
    void *context;
} rt_engine_options;

typedef struct rt_engine rt_engine;
rt_status rt_engine_open(rt_engine **out, const rt_lane_options *lanes, size_t n_lanes,
                         const rt_engine_options *options, rt_error *err);
/* All jobs must have come back. */
void rt_engine_close(rt_engine *engine);
size_t rt_engine_context(const rt_engine *engine, size_t lane); /* tokens a sequence may have */

/* false: the queue is full (the job stays the caller's). */
bool rt_engine_submit(rt_engine *engine, rt_job *job);
/* The next job that has grown or ended since it was last returned; NULL: none.  *done: it is the caller's
 * again and the engine has forgotten it. */
rt_job *rt_engine_changed(rt_engine *engine, bool *done);
void rt_engine_poke(rt_engine *engine); /* a job was cancelled, or is no longer paused */

typedef struct rt_engine_stats {
    size_t running, queued;    /* sequences in slots; jobs not begun */
    size_t kv_tokens, kv_room; /* tokens kept in slots, and how many there could be */
    uint64_t prompt_tokens, cached_tokens, generated_tokens;
    rt_prefix_stats prefix; /* of all models */
} rt_engine_stats;
rt_engine_stats rt_engine_get_stats(rt_engine *engine);

#endif
