/* model/rope.h - rotary position embedding: angles pos * theta^(-2i/d), with the scalings of llama 3
 * and YaRN, kept as tables of cosines and sines that grow with the positions that are used. */
#ifndef RT_MODEL_ROPE_H
#define RT_MODEL_ROPE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "model/config.h"

typedef struct rt_rope {
    size_t half;            /* head_dim / 2 */
    size_t n_positions;     /* capacity */
    atomic_size_t n_ready;  /* rows that are computed */
    float *cosines, *sines; /* [n_positions, half]; attention_factor is multiplied in */
    double *frequency;      /* [half] */
    double factor;          /* of cosines and sines */
    rt_arena arena;
    pthread_mutex_t lock;
} rt_rope;

/* Frequencies [head_dim / 2] and the factor of cosines and sines.  Formed in double. */
void rt_rope_frequencies(double *frequency, double *factor, const rt_rope_config *config, size_t head_dim);
rt_status rt_rope_init(rt_rope *rope, const rt_rope_config *config, size_t head_dim, size_t n_positions,
                       rt_error *err);
void rt_rope_deinit(rt_rope *rope);
/* Makes rows 0 .. n-1 ready; n <= n_positions.  Safe from any thread. */
void rt_rope_prepare(rt_rope *rope, size_t n);

#endif
