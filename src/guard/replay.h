/* guard/replay.h - recorded traffic, row by row, from a file of JSON lines (.zst too). */
#ifndef RT_GUARD_REPLAY_H
#define RT_GUARD_REPLAY_H

#include "guard/ladders.h"

typedef struct rt_guard_replay_options {
    rt_ladders *ladders; /* of this guard: decisions are made too; NULL: verdicts only */
    bool sweep_at_end;   /* link the accounts once more after the last row */
    bool skip_bad;       /* pass over malformed rows and count them; else the first one is the error */
    void (*on_verdict)(void *context, const rt_guard_event *event,
                       const rt_guard_verdict *verdict); /* may be NULL */
    void *context;
} rt_guard_replay_options;

typedef struct rt_guard_replay_counts {
    size_t rows, bad_rows;
} rt_guard_replay_counts;

/* The key that lies beside recorded traffic as 16 hexadecimal digits in <path>.key; 0 where there is none. */
rt_status rt_guard_key_beside(uint64_t *key, const char *path, rt_error *err);
rt_status rt_guard_key_write_beside(uint64_t key, const char *path, rt_error *err);

rt_status rt_guard_replay(rt_guard *guard, const char *path, const rt_guard_replay_options *options,
                          rt_guard_replay_counts *counts, rt_error *err);

#endif
