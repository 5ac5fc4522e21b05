/* base/rng.c - see rng.h. */
#include "base/rng.h"

#include <assert.h>
#include <math.h>

void rt_philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = (uint32_t)p1;
        c2 = n2;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

rt_rng rt_rng_make(uint64_t seed, uint64_t stream)
{
    return (rt_rng){.seed = seed, .stream = stream, .index = 0};
}

uint32_t rt_rng_u32(rt_rng *rng)
{
    const uint32_t key[2] = {(uint32_t)rng->seed, (uint32_t)(rng->seed >> 32)};
    const uint64_t block = rng->index / 4;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)rng->stream,
                                 (uint32_t)(rng->stream >> 32)};
    uint32_t out[4];
    rt_philox4x32(key, counter, out);
    return out[rng->index++ % 4];
}

uint64_t rt_rng_u64(rt_rng *rng)
{
    const uint64_t low = rt_rng_u32(rng);
    return low | (uint64_t)rt_rng_u32(rng) << 32;
}

uint64_t rt_rng_below(rt_rng *rng, uint64_t n)
{
    assert(n > 0);
    const uint64_t reject_from = UINT64_MAX - UINT64_MAX % n; /* a multiple of n */
    uint64_t x;
    do
        x = rt_rng_u64(rng);
    while (x >= reject_from);
    return x % n;
}

double rt_rng_uniform(rt_rng *rng) { return (double)(rt_rng_u64(rng) >> 11) * 0x1p-53; }

double rt_rng_normal(rt_rng *rng)
{
    const double u = 1.0 - rt_rng_uniform(rng), v = rt_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}
