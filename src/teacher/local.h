/* teacher/local.h - a model file as teacher: asked with many answers side by side, scored in batches, and,
 * when it is larger than memory, with its layers streamed from disk. */
#ifndef RT_TEACHER_LOCAL_H
#define RT_TEACHER_LOCAL_H

#include "base/pool.h"
#include "model/decoder.h"
#include "model/stream.h"
#include "teacher/teacher.h"

typedef struct rt_local_options {
    const char *name; /* what it is called; NULL: the last part of the path */
    rt_precision precision;
    bool stream;                /* layers from disk; each is read once for all that is run together */
    size_t stream_memory_bytes; /* for weights; 0: half of what there is */
    size_t n_slots;             /* answers side by side; 0: 16, streamed 128 */
    size_t n_positions;  /* of a prompt with its answer, and of a text to score; 0: 2048 (or the context) */
    size_t batch_tokens; /* scored together; 0: 1024, streamed 16384; less when memory is short */
    size_t threads;      /* of a pool of its own, where none is given; 0: all */
    uint64_t seed;       /* of asks that bring none: together with their tag */
} rt_local_options;

/* path: a GGUF file or a model folder.  The pool must outlive the teacher; NULL: it has one of its own. */
rt_status rt_local_open(rt_teacher **out, const char *path, const rt_local_options *options, rt_pool *pool,
                        rt_error *err);

#endif
