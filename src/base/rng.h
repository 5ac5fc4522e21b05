/* base/rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * The value depends on (key, counter) alone, so position and not history decides it: a run that
 * is resumed, or split over threads in another way, draws the same numbers. */
#ifndef RT_BASE_RNG_H
#define RT_BASE_RNG_H

#include <stdint.h>

/* Four words for one counter under one key. */
void rt_philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

/* A sequential view of one stream: seed names the key, stream the upper half of the counter. */
typedef struct rt_rng {
    uint64_t seed, stream, index; /* index counts 32-bit words drawn */
} rt_rng;
rt_rng rt_rng_make(uint64_t seed, uint64_t stream);
uint32_t rt_rng_u32(rt_rng *rng);
uint64_t rt_rng_u64(rt_rng *rng);
uint64_t rt_rng_below(rt_rng *rng, uint64_t n); /* uniform on 0..n-1, without bias; n > 0 */
double rt_rng_uniform(rt_rng *rng);             /* [0, 1), 53 bits */
double rt_rng_normal(rt_rng *rng);              /* mean 0, variance 1 (Box-Muller) */

#endif
