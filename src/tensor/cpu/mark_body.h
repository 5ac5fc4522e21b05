/* tensor/cpu/mark_body.h - a watermark's loops, plain C that the compiler makes into vectors.
 *
 * mark_<isa>.c includes it with MARK_TABLE set to the table's name. */
#include "tensor/cpu/mark_tables.h"

enum { LANES = 16, BLOCK = 64 };

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

const rt_mark_ops MARK_TABLE = {.mix = mark_mix, .tournament = mark_tournament, .gather = mark_gather};
