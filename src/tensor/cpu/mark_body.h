/* tensor/cpu/mark_body.h - a watermark's loops, plain C that the compiler makes into vectors.
 *
 * mark_<isa>.c includes it with MARK_TABLE set to the table's name. */
#include "tensor/cpu/mark_tables.h"

#include <string.h>

enum { LANES = 16, BLOCK = 64, WORDS = 8 };

typedef uint64_t lanes __attribute__((vector_size(8 * WORDS))); /* one register of AVX-512, two of AVX2 */

/* macros where vectors would be passed: a call's way to pass them depends on the instruction set */
#define TURN(x, by) (((x) << (by)) | ((x) >> (64 - (by))))

static inline void sip_round(lanes v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = TURN(v[1], 13) ^ v[0];
    v[3] = TURN(v[3], 16) ^ v[2];
    v[0] = TURN(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = TURN(v[1], 17) ^ v[2];
    v[3] = TURN(v[3], 21) ^ v[0];
    v[2] = TURN(v[2], 32);
}

static inline void fill(lanes *out, uint64_t x) { *out = (lanes){0} + x; }

static uint64_t little_endian(const uint8_t *bytes)
{
    uint64_t x = 0;
    for (size_t b = 0; b < 8; b++)
        x |= (uint64_t)bytes[b] << (8 * b);
    return x;
}

enum { IDS_MAX = 16 };

static void mark_seeds(uint64_t *out, const uint8_t *key, const int32_t *contexts, size_t stride, size_t h,
                       size_t n)
{
    const uint64_t k0 = little_endian(key), k1 = little_endian(key + 8);
    const size_t size = 5 + 4 * h, full = size / 8;
    for (size_t i = 0; i < n; i += WORDS) {
        lanes v[4];
        fill(&v[0], k0 ^ 0x736F6D6570736575ull);
        fill(&v[1], k1 ^ 0x646F72616E646F6Dull);
        fill(&v[2], k0 ^ 0x6C7967656E657261ull);
        fill(&v[3], k1 ^ 0x7465646279746573ull);
        const size_t kept = n - i < WORDS ? n - i : WORDS;
        uint64_t ids[IDS_MAX + 2][WORDS]; /* zeros after the last */
        for (size_t a = 0; a < h + 2; a++)
            for (size_t k = 0; k < WORDS; k++)
                ids[a][k] = a < h && k < kept ? (uint32_t)contexts[(i + k) * stride + a] : 0;
        for (size_t j = 0; j <= full;
             j++) { /* five bytes of head stand before the ids: they lie across the words */
            lanes m, id;
            fill(&m, 0x314D5752u | (uint64_t)h << 32);
            if (j > 0) {
                memcpy(&id, ids[2 * j - 2], sizeof id);
                m = id >> 24;
                memcpy(&id, ids[2 * j - 1], sizeof id);
                m |= id << 8;
            }
            memcpy(&id, ids[2 * j], sizeof id);
            m |= id << 40;
            if (j == full)
                m |= (uint64_t)size << 56;
            v[3] ^= m;
            sip_round(v);
            sip_round(v);
            v[0] ^= m;
        }
        v[2] ^= 0xFF;
        for (size_t r = 0; r < 4; r++)
            sip_round(v);
        const lanes hash = v[0] ^ v[1] ^ v[2] ^ v[3];
        memcpy(out + i, &hash, kept * sizeof *out);
    }
}

static void mark_mix_each(uint64_t *x, const int32_t *tokens, size_t stride, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t z = x[i] + ((uint64_t)(uint32_t)tokens[i * stride] + 1) * 0x9E3779B97F4A7C15ull;
        z ^= z >> 30;
        z *= 0xBF58476D1CE4E5B9ull;
        z ^= z >> 27;
        z *= 0x94D049BB133111EBull;
        x[i] = z ^ (z >> 31);
    }
}

/* Sums of bits stand in columns over several words, as in paper addition (Harley and Seal): eight lanes take
 * a word each, and carries of 128 are counted out. */
static void mark_count_bits(uint32_t *counts, const uint64_t *x, size_t n)
{
    enum { COLUMNS = 7 };
    lanes column[COLUMNS];
    memset(column, 0, sizeof column);
    size_t i = 0, held = 0;
    for (; i <= n; i += WORDS) {
        if (held == (1 << COLUMNS) - 1 || i + WORDS > n) {
            for (size_t c = 0; c < COLUMNS; c++) {
                for (size_t k = 0; k < WORDS; k++)
                    for (size_t bit = 0; bit < 64; bit++)
                        counts[bit] += (uint32_t)((column[c][k] >> bit) & 1) << c;
                fill(&column[c], 0);
            }
            held = 0;
        }
        if (i + WORDS > n)
            break;
        lanes carry;
        memcpy(&carry, x + i, sizeof carry);
        for (size_t c = 0; c < COLUMNS; c++) {
            const lanes both = column[c] & carry;
            column[c] ^= carry;
            carry = both;
        }
        held++;
    }
    for (; i < n; i++)
        for (size_t bit = 0; bit < 64; bit++)
            counts[bit] += (uint32_t)((x[i] >> bit) & 1);
}

static void mark_mix(uint32_t *lo, uint32_t *hi, uint64_t seed, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t z = seed + ((ids ? (uint64_t)(uint32_t)ids[i] : (uint64_t)i) + 1) * 0x9E3779B97F4A7C15ull;
        z ^= z >> 30;
        z *= 0xBF58476D1CE4E5B9ull;
        z ^= z >> 27;
        z *= 0x94D049BB133111EBull;
        z ^= z >> 31;
        lo[i] = (uint32_t)z;
        hi[i] = (uint32_t)(z >> 32);
    }
}

static float total(const float sum[LANES])
{
    float half[LANES / 2], all = 0;
    for (size_t k = 0; k < LANES / 2; k++)
        half[k] = sum[k] + sum[k + LANES / 2];
    for (size_t k = 0; k < LANES / 2; k++)
        all += half[k];
    return all;
}

/* One pass a layer: the layer's factor, and the mass of the next layer's ones. */
static void mark_tournament(float *restrict p, const uint32_t *restrict bits, size_t n, size_t layers)
{
    float mass = 0;
    for (size_t l = 0; l <= layers; l++) {
        const uint32_t before = l ? (uint32_t)l - 1 : 0, next = l < layers ? (uint32_t)l : 0;
        const float up = l ? 2 - mass : 1, down = l ? 1 - mass : 1;
        float sum[LANES] = {0};
        for (size_t i = 0; i < n; i += LANES)
            for (size_t k = 0; k < LANES; k++) {
                const float q = p[i + k] * (((bits[i + k] >> before) & 1) ? up : down);
                p[i + k] = q;
                sum[k] += ((bits[i + k] >> next) & 1) ? q : 0;
            }
        mass = total(sum);
        mass = mass < 1 ? mass : 1; /* rounding */
    }
}

static size_t mark_gather(int32_t *restrict places, float *restrict kept, const float *restrict p, size_t n,
                          float floor)
{
    size_t count = 0, i = 0;
    for (; i + BLOCK <= n; i += BLOCK) { /* most blocks of a vocabulary hold nothing */
        int any = 0;
        for (size_t k = 0; k < BLOCK; k++)
            any |= p[i + k] >= floor;
        for (size_t k = 0; any && k < BLOCK; k++) {
            places[count] = (int32_t)(i + k);
            kept[count] = p[i + k];
            count += p[i + k] >= floor;
        }
    }
    for (; i < n; i++) {
        places[count] = (int32_t)i;
        kept[count] = p[i];
        count += p[i] >= floor;
    }
    return count;
}

const rt_mark_ops MARK_TABLE = {.mix = mark_mix,
                                .seeds = mark_seeds,
                                .mix_each = mark_mix_each,
                                .count_bits = mark_count_bits,
                                .tournament = mark_tournament,
                                .gather = mark_gather};
