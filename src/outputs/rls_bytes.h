/* outputs/rls_bytes.h - little-endian numbers in .rls files. */
#ifndef RT_OUTPUTS_RLS_BYTES_H
#define RT_OUTPUTS_RLS_BYTES_H

#include <stdint.h>
#include <string.h>

static inline void rls_put_u32(unsigned char *at, uint32_t x)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (unsigned char)(x >> (8 * i));
}

static inline void rls_put_u64(unsigned char *at, uint64_t x)
{
    rls_put_u32(at, (uint32_t)x);
    rls_put_u32(at + 4, (uint32_t)(x >> 32));
}

static inline void rls_put_f64(unsigned char *at, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    rls_put_u64(at, bits);
}

static inline uint32_t rls_get_u32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t rls_get_u64(const unsigned char *at)
{
    return rls_get_u32(at) | (uint64_t)rls_get_u32(at + 4) << 32;
}

static inline double rls_get_f64(const unsigned char *at)
{
    const uint64_t bits = rls_get_u64(at);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif
