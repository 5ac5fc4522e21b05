/* student/run.h - a training run in a folder: resumable, logged, checkpointed.
 *
 * RUN/log.jsonl          one object a step
 * RUN/checkpoint.safetensors
 * RUN/lock               held while a process works in the folder
 * Stopped at any step and run again, it gives the bits of the run that was not stopped. */
#ifndef RT_STUDENT_RUN_H
#define RT_STUDENT_RUN_H

#include "student/across_text.h"
#include "student/checkpoint.h"
#include "student/data.h"
#include "student/kept_source.h"

typedef struct rt_run_options {
    const char *dir;
    const char *identity; /* SHA-256 hex: settings that decide the bits */
    uint64_t seed, steps;
    size_t micro_batches;      /* a step */
    double checkpoint_seconds; /* <= 0: only at the end and when stopped */
    rt_kept_source *kept;      /* the documents' teacher; NULL: a model, or none */
    const rt_across_text
        *across; /* the documents in the tokens of a teacher with another tokenizer; or NULL */
    rt_own *own; /* a share of the steps is on the student's own answers; NULL: none */
} rt_run_options;

typedef struct rt_run_progress {
    rt_step_report report;
    uint64_t steps_done, steps_total, tokens;
    double seconds, tokens_per_s;
    bool own;        /* the step was on the student's own answers */
    double sample_s; /* of the step: taken by sampling them */
} rt_run_progress;

/* Called after each step; false: stop here (the state is saved, RT_STOPPED). */
typedef bool (*rt_run_step_fn)(void *context, const rt_run_progress *progress);

/* Trains until options->steps.  The trainer's values hold the student's start; a checkpoint in the folder
 * takes their place (*resumed_at: its step, 0 for a fresh start).  The folder must be locked by the caller.
 */
rt_status rt_run(rt_trainer *trainer, const rt_documents *docs, const rt_run_options *options,
                 rt_run_step_fn step_fn, void *context, rt_run_state *state, uint64_t *resumed_at,
                 rt_error *err);

#endif
