/* evidence/torch_rng.c - see torch_rng.h.  MT19937: Matsumoto and Nishimura 1998, with the initialisation of
 * 2002. */
#include "evidence/torch_rng.h"

enum { N = 624, M = 397 };

void rt_torch_rng_seed(rt_torch_rng *rng, uint64_t seed)
{
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++)
        rng->state[i] = 1812433253u * (rng->state[i - 1] ^ (rng->state[i - 1] >> 30)) + i;
    rng->next = N;
}

static void refill(rt_torch_rng *rng)
{
    for (size_t i = 0; i < N; i++) {
        const uint32_t y = (rng->state[i] & 0x80000000u) | (rng->state[(i + 1) % N] & 0x7FFFFFFFu);
        rng->state[i] = rng->state[(i + M) % N] ^ (y >> 1) ^ ((y & 1) ? 0x9908B0DFu : 0);
    }
    rng->next = 0;
}

uint32_t rt_torch_rng_u32(rt_torch_rng *rng)
{
    if (rng->next >= N)
        refill(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C5680u;
    y ^= (y << 15) & 0xEFC60000u;
    return y ^ (y >> 18);
}

void rt_torch_randperm(rt_torch_rng *rng, uint32_t *work, size_t n, size_t count)
{
    for (size_t i = 0; i < n; i++)
        work[i] = (uint32_t)i;
    for (size_t i = 0; i + 1 < n && i < count; i++) {
        const size_t z = i + rt_torch_rng_u32(rng) % (n - i);
        const uint32_t kept = work[i];
        work[i] = work[z];
        work[z] = kept;
    }
}
