/* tensor/mark.h - a watermark's loops over the vocabulary, behind one table for each instruction set: the
 * function that mixes token ids, and the tournament over float probabilities.
 *
 * Sums run over 16 lanes in a fixed order and nothing is contracted, so every table gives the same bits. */
#ifndef RT_TENSOR_MARK_H
#define RT_TENSOR_MARK_H

#include <stddef.h>
#include <stdint.h>

typedef struct rt_mark_ops {
    /* x(v) = mix64(seed + (v + 1) phi) of ids [n] (NULL: 0..n-1), as its low and high halves. */
    void (*mix)(uint32_t *lo, uint32_t *hi, uint64_t seed, const int32_t *ids, size_t n);
    /* The native function's seeds (SipHash-2-4 of "RWM1", h and the ids, under a key of 16 bytes) of n
     * contexts of h ids, which begin every `stride` ids. */
    void (*seeds)(uint64_t *out, const uint8_t *key, const int32_t *contexts, size_t stride, size_t h,
                  size_t n);
    /* x [n] seeds in, x(v) out, for tokens that stand every `stride` ids. */
    void (*mix_each)(uint64_t *x, const int32_t *tokens, size_t stride, size_t n);
    /* counts [64] += how many of x [n] have each bit; n < 2^32 in all. */
    void (*count_bits)(uint32_t *counts, const uint64_t *x, size_t n);
    /* p [n, rounded up to 16 with zeros] of sum 1: `layers` rounds of p *= 1 + g - G, bit l of `bits` being
     * g at round l < 32. */
    void (*tournament)(float *p, const uint32_t *bits, size_t n, size_t layers);
    /* Ids with p >= floor, in order: writes their places and probabilities; returns how many. */
    size_t (*gather)(int32_t *places, float *kept, const float *p, size_t n, float floor);
} rt_mark_ops;

const rt_mark_ops *rt_mark_ops_get(void);

#endif
