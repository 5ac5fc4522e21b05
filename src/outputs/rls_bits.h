/* outputs/rls_bits.h - bits in a run of bytes, least significant first, and the one variable-length code of
 * .rls files.
 *
 * The code of a number g under a parameter p (Exp-Golomb): X = g + 2^p has L + 1 bits; L - p zeros, a one,
 * then the lower L bits of X.  Small numbers take p + 1 bits, large ones two more for each doubling: gaps
 * between sorted ids of a BPE vocabulary, dense among low ids and sparse above, cost a tenth less than under
 * Rice's code.
 *
 * Reading never leaves data[0..size): past the end bits are 0, and `bad` is set. */
#ifndef RT_OUTPUTS_RLS_BITS_H
#define RT_OUTPUTS_RLS_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/text.h"

enum { RLS_GOLOMB_MAX = 24 }; /* numbers are below 2^24, so that a code has at most 49 bits */

typedef struct rls_bits_out {
    rt_text *out;
    uint64_t held;
    unsigned n; /* bits held, < 8 between calls */
} rls_bits_out;

static inline void rls_put(rls_bits_out *b, uint64_t value, unsigned bits) /* bits <= 56 */
{
    b->held |= value << b->n;
    b->n += bits;
    if (b->n >= 8) {
        const unsigned bytes = b->n / 8;
        unsigned char data[8];
        for (unsigned i = 0; i < 8; i++)
            data[i] = (unsigned char)(b->held >> (8 * i));
        rt_text_append(b->out, data, bytes);
        b->held = bytes < 8 ? b->held >> (8 * bytes) : 0;
        b->n -= 8 * bytes;
    }
}

static inline void rls_put_end(rls_bits_out *b) /* to a whole byte */
{
    if (b->n)
        rls_put(b, 0, 8 - b->n);
}

static inline unsigned rls_log2(uint32_t x) { return 31u - (unsigned)__builtin_clz(x); } /* x > 0 */

static inline unsigned rls_golomb_bits(uint32_t g, unsigned p) { return 2 * rls_log2(g + (1u << p)) - p + 1; }

static inline void rls_put_golomb(rls_bits_out *b, uint32_t g, unsigned p) /* g < 2^24, p < 16 */
{
    const uint32_t x = g + (1u << p);
    const unsigned length = rls_log2(x);
    rls_put(b, (uint64_t)1 << (length - p), length - p + 1);
    rls_put(b, x & (((uint32_t)1 << length) - 1), length);
}

typedef struct rls_bits_in {
    const unsigned char *data;
    size_t size; /* bytes */
    size_t at;   /* bits */
    bool bad;
} rls_bits_in;

static inline uint64_t rls_peek(const rls_bits_in *b) /* at least 57 bits are right */
{
    const size_t byte = b->at / 8;
    uint64_t word = 0;
    if (__builtin_expect(byte + 8 <= b->size, 1))
        memcpy(&word, b->data + byte, 8);
    else if (byte < b->size)
        for (size_t i = 0; i < b->size - byte; i++)
            word |= (uint64_t)b->data[byte + i] << (8 * i);
    return word >> (b->at % 8);
}

static inline uint32_t rls_get(rls_bits_in *b, unsigned bits) /* bits <= 32 */
{
    const uint64_t word = rls_peek(b);
    b->at += bits;
    return (uint32_t)(word & (((uint64_t)1 << bits) - 1));
}

static inline uint32_t rls_get_golomb(rls_bits_in *b, unsigned p)
{
    const uint64_t word = rls_peek(b);
    const unsigned zeros = (unsigned)__builtin_ctzll(word | (uint64_t)1 << 40);
    b->bad |= zeros > RLS_GOLOMB_MAX;
    const unsigned length = (zeros + p) & 63;
    const uint64_t top = (uint64_t)1 << length;
    b->at += zeros + 1 + length;
    return (uint32_t)(((word >> (zeros + 1)) & (top - 1)) + top - ((uint64_t)1 << p));
}

/* n numbers one after the other; n <= 2^13. */
void rls_get_numbers(rls_bits_in *b, unsigned p, size_t n, uint32_t *out);
/* Gaps as ascending ids; returns the id after the last one. */
uint64_t rls_get_ids(rls_bits_in *b, unsigned p, size_t n, uint32_t *out);
/* Codes, as what they lie below `base`, as values of the table; false: one lies more than base below. */
bool rls_get_values(rls_bits_in *b, unsigned p, size_t n, uint32_t base, const float table[256], float *out);

static inline bool rls_bits_sound(const rls_bits_in *b) { return !b->bad && b->at <= 8 * b->size; }

#endif
