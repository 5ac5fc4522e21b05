/* evidence/prf.c - see prf.h.  libsodium's short hash is SipHash-2-4 with its 64 bits little-endian. */
#include "evidence/prf.h"

#include <assert.h>
#include <sodium.h>

_Static_assert(crypto_shorthash_KEYBYTES == RT_PRF_KEY_BYTES && crypto_shorthash_BYTES == 8,
               "the short hash is SipHash-2-4");

uint64_t rt_siphash(const uint8_t *message, size_t size, const uint8_t key[RT_PRF_KEY_BYTES])
{
    uint8_t out[8];
    uint64_t hash = 0;
    (void)crypto_shorthash(out, message, size, key);
    for (size_t b = 0; b < 8; b++)
        hash |= (uint64_t)out[b] << (8 * b);
    return hash;
}

uint64_t rt_prf_seed(const uint8_t key[RT_PRF_KEY_BYTES], const int32_t *context, size_t h)
{
    assert(h <= RT_PRF_CONTEXT_MAX);
    uint8_t message[5 + 4 * RT_PRF_CONTEXT_MAX] = {'R', 'W', 'M', '1', (uint8_t)h};
    for (size_t i = 0; i < h; i++)
        for (size_t b = 0; b < 4; b++)
            message[5 + 4 * i + b] = (uint8_t)((uint32_t)context[i] >> (8 * b));
    return rt_siphash(message, 5 + 4 * h, key);
}
