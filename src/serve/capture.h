/* serve/capture.h - what was asked and answered becomes rows to train on: an outputs store (outputs/store.h)
 * in the form of `retort collect`.
 *
 * A thread of its own reads answers and writes rows; who serves only hands the bytes over.  What waits is
 * bounded by 1,024 answers and 64 MiB: beyond that answers are dropped and counted, never delayed.  Rows are
 * durable a moment after the answer, and a process killed at any byte leaves whole rows alone. */
#ifndef RT_SERVE_CAPTURE_H
#define RT_SERVE_CAPTURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "retort/error.h"

typedef struct rt_capture rt_capture;

/* The folder is made, or gone on with; RT_BUSY when another process writes there. */
rt_status rt_capture_open(rt_capture **out, const char *dir, rt_error *err);
/* Writes what waits.  NULL is allowed. */
void rt_capture_close(rt_capture *capture);

typedef struct rt_captured {  /* borrowed for the call */
    const char *id;           /* of the request; a row a choice, "id-1" and so on after the first */
    const char *account;      /* NULL: nobody had to say who he is */
    const char *model, *body; /* the request's, with its members */
    size_t body_size;
    const rt_text *answer; /* as it was sent: JSON, or events */
    bool chat, stream;
    size_t prompt_tokens, cached_tokens, output_tokens;
    double seconds;
} rt_captured;
/* From any thread; copies. */
void rt_capture_add(rt_capture *capture, const rt_captured *what);
/* Says once for each account that nothing of it is kept, and why. */
void rt_capture_not_kept(rt_capture *capture, const char *account);

typedef struct rt_capture_counts {
    uint64_t rows, dropped, skipped; /* dropped: no room or no disk; skipped: no text to train on */
} rt_capture_counts;
rt_capture_counts rt_capture_count(rt_capture *capture);

#endif
