/* evidence/torch_rng.h - PyTorch's CPU generator bit for bit: MT19937 seeded with the low 32 bits of the seed
 * (METHODS-evidence section 2.5).  Its CUDA generators are others: what was marked with them is not found by
 * this one. */
#ifndef RT_EVIDENCE_TORCH_RNG_H
#define RT_EVIDENCE_TORCH_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct rt_torch_rng {
    uint32_t state[624];
    size_t next;
} rt_torch_rng;

void rt_torch_rng_seed(rt_torch_rng *rng, uint64_t seed);
uint32_t rt_torch_rng_u32(rt_torch_rng *rng);
/* The first `count` entries of randperm(n), in `work` [n]; the whole of it when count >= n.  n <= 2^32 - 1.
 */
void rt_torch_randperm(rt_torch_rng *rng, uint32_t *work, size_t n, size_t count);
static inline int rt_torch_randint2(rt_torch_rng *rng) { return (int)(rt_torch_rng_u32(rng) & 1); }
static inline float rt_torch_rand(rt_torch_rng *rng)
{
    return (float)(rt_torch_rng_u32(rng) & 0xFFFFFF) * 0x1p-24f;
}

#endif
