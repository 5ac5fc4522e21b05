/* student/ranks.h - several processes that train one student together: what the trainer asks of them.
 *
 * Every rank holds the whole student and deals the same text; of a step's micro-batches it runs those whose
 * number is its own modulo the number of ranks.  Gradients are added up over the ranks, layer by layer while
 * the backward pass goes on; each rank then updates its own part of the parameters (and holds the moments of
 * that part alone), and the parts are gathered.  src/dist fills this in with MPI; NULL everywhere else: one
 * process. */
#ifndef RT_STUDENT_RANKS_H
#define RT_STUDENT_RANKS_H

#include <stddef.h>

#include "retort/error.h"

typedef struct rt_ranks {
    size_t rank, size;
    void *self;
    /* Begins to add data [n] up over the ranks, in place; the same calls in the same order on every rank.
     * Until reduce_end the data must not be touched. */
    rt_status (*reduce_begin)(void *self, float *data, size_t n, rt_error *err);
    void (*progress)(void *self); /* lets what has begun go on */
    rt_status (*reduce_end)(void *self, rt_error *err);
    rt_status (*sum)(void *self, double *data, size_t n, rt_error *err); /* at once */
    /* data[begins[r] .. begins[r+1]) of rank r goes to all; begins [size + 1] */
    rt_status (*gather)(void *self, float *data, const size_t *begins, rt_error *err);
    /* RT_MISMATCH on every rank, naming the first whose text differs from rank 0's. */
    rt_status (*same)(void *self, const char *what, const char *text, rt_error *err);
} rt_ranks;

#endif
