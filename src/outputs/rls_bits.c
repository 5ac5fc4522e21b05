/* outputs/rls_bits.c - many numbers in Exp-Golomb code at once: what reading a store spends its time on.
 *
 * A window of at least 56 bits is kept in a register and topped up before each number by a load whose address
 * is known one number before, so that a number costs the latency of counting zeros and two shifts.  The same
 * text is compiled twice: machines with BMI2 have shifts by a register in one operation. */
#include "outputs/rls_bits.h"

#include "tensor/cpu.h"

enum { BYTES_A_NUMBER = 7 }; /* at most: 2 RLS_GOLOMB_MAX + 1 bits and a parameter of 15 below that */

static inline __attribute__((always_inline)) void get_run(rls_bits_in *b, unsigned p, size_t n, uint32_t *out)
{
    const unsigned char *at = b->data + b->at / 8;
    uint64_t window, next;
    memcpy(&window, at, 8);
    at += 7;
    unsigned have = 56;
    window &= ((uint64_t)1 << 56) - 1;
    window >>= b->at % 8;
    have -= (unsigned)(b->at % 8);
    unsigned most = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(&next, at, 8);
        window |= next << have;
        at += (63 - have) >> 3;
        have |= 56;
        const unsigned zeros = (unsigned)__builtin_ctzll(window | (uint64_t)1 << (RLS_GOLOMB_MAX + 1));
        most = zeros > most ? zeros : most;
        const unsigned length = zeros + p;
        const uint64_t top = (uint64_t)1 << length;
        out[i] = (uint32_t)(((window >> (zeros + 1)) & (top - 1)) + top - ((uint64_t)1 << p));
        const unsigned used = zeros + 1 + length;
        if (__builtin_expect(used > 55, 0)) { /* no writer makes such a number */
            most = RLS_GOLOMB_MAX + 1;
            break;
        }
        window >>= used;
        have -= used;
    }
    b->at = (size_t)(at - b->data) * 8 - have;
    b->bad |= most > RLS_GOLOMB_MAX;
}

#if defined(__x86_64__)
__attribute__((target("bmi,bmi2"))) static void get_run_bmi2(rls_bits_in *b, unsigned p, size_t n,
                                                             uint32_t *out)
{
    get_run(b, p, n, out);
}
#endif

static void get_run_plain(rls_bits_in *b, unsigned p, size_t n, uint32_t *out) { get_run(b, p, n, out); }

void rls_get_numbers(rls_bits_in *b, unsigned p, size_t n, uint32_t *out)
{
    if (b->at / 8 + n * BYTES_A_NUMBER + 16 > b->size) { /* near the end: every load is checked */
        for (size_t i = 0; i < n; i++)
            out[i] = rls_get_golomb(b, p);
        return;
    }
#if defined(__x86_64__)
    if (rt_cpu_level() >= RT_CPU_AVX2) {
        get_run_bmi2(b, p, n, out);
        return;
    }
#endif
    get_run_plain(b, p, n, out);
}
