/* student/checkpoint.h - the state of a run in one safetensors file, replaced atomically.
 *
 * Tensors: state (I64: version, step, cursor, tokens, seconds in ms, an XXH3 of each array; then TAID's t,
 * mean and last loss as the bits of doubles, and its step), values, adam_m, adam_v (F32, flat, in the order
 * of rt_layout, projections behind it), identity (U8: the SHA-256 in hex of the settings that decide the
 * run's bits).  Where the student trains on its own answers, the set at hand too: own_state (I64:
 * rt_own_words, then an XXH3 of each array), own_ids (I32), own_mask (U8), own_logp (F32), own_begins (I64).
 *
 * Written by several ranks, the arrays are in a file of each rank beside it,
 * checkpoint.STEP.RANKofSIZE.safetensors (part: I64 step, begin, end, three sums), and this one says how many
 * (parts: I64).  It is replaced when all parts are on disk; then the parts of earlier steps are deleted.  Any
 * number of ranks reads what any number wrote. */
#ifndef RT_STUDENT_CHECKPOINT_H
#define RT_STUDENT_CHECKPOINT_H

#include "student/own.h"
#include "student/trainer.h"

typedef struct rt_run_state {
    uint64_t step, cursor, tokens; /* cursor: rt_dealer's */
    double seconds;                /* of training so far */
} rt_run_state;

/* own: NULL where there is none. */
rt_status rt_checkpoint_write(const char *path, const rt_trainer *trainer, const rt_run_state *state,
                              const rt_own *own, const char identity[65], rt_error *err);
/* RT_NOT_FOUND: there is none.  RT_MISMATCH: it belongs to other settings.  RT_CORRUPT: it is damaged (a sum
 * does not agree).  The trainer is changed only on success, but for the parts before one that is damaged. */
rt_status rt_checkpoint_read(const char *path, rt_trainer *trainer, rt_run_state *state, rt_own *own,
                             const char identity[65], rt_error *err);

#endif
