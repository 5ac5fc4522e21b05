/* evidence/prf.h - the native pseudo-random function RWM1 (METHODS-evidence section 2.1).
 *
 * seed = SipHash-2-4(key, "RWM1", u8 h, h x u32 little-endian ids oldest first); x(v) = mix64(seed + (v + 1)
 * phi). Every native scheme reads the same x(v), so a key belongs to one scheme. */
#ifndef RT_EVIDENCE_PRF_H
#define RT_EVIDENCE_PRF_H

#include <stddef.h>
#include <stdint.h>

enum { RT_PRF_KEY_BYTES = 16, RT_PRF_CONTEXT_MAX = 16, RT_PRF_LAYERS_MAX = 64 };

/* SipHash-2-4 with its 64 bits read little-endian. */
uint64_t rt_siphash(const uint8_t *message, size_t size, const uint8_t key[RT_PRF_KEY_BYTES]);
/* h <= RT_PRF_CONTEXT_MAX ids. */
uint64_t rt_prf_seed(const uint8_t key[RT_PRF_KEY_BYTES], const int32_t *context, size_t h);

static inline uint64_t rt_mix64(uint64_t z)
{
    z ^= z >> 30;
    z *= 0xBF58476D1CE4E5B9ull;
    z ^= z >> 27;
    z *= 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static inline uint64_t rt_prf_x(uint64_t seed, int32_t v)
{
    return rt_mix64(seed + ((uint64_t)(uint32_t)v + 1) * 0x9E3779B97F4A7C15ull);
}

/* green(v) <=> x(v) < limit; gamma in [0, 1]. */
static inline uint64_t rt_prf_limit(double gamma)
{
    return gamma >= 1 ? UINT64_MAX : (uint64_t)(gamma * 0x1p64);
}
static inline int rt_prf_green(uint64_t x, uint64_t limit) { return x < limit; }
static inline double rt_prf_u(uint64_t x) { return ((double)(x >> 11) + 0.5) * 0x1p-53; } /* in (0, 1) */
static inline int rt_prf_bit(uint64_t x, size_t layer) { return (int)((x >> layer) & 1); }

#endif
