/* tensor/cpu/qmat_body.h - the packed product and the rounding of activations, once for each instruction set.
 *
 * One tile: a strip of 16 matrix rows times T activation rows whose sums stay in registers.  For each
 * group the codes are unpacked once into eight vectors, then every activation row takes eight integer
 * dots against broadcast activations, one conversion and two or three float operations.  The arguments
 * that describe the type and T are constants at each call, so every type has its own straight code.
 * QMAT_TABLE names the table that the including file makes. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "tensor/cpu/qmat_vector.h"

/* The eight code vectors of a group; `packed` points at this half's lanes of the first vector. */
INLINE void unpack(VI codes[8], const uint8_t *packed, unsigned bits)
{
    const VI nibble = vi_bytes(0x0F);
    if (bits == 8) {
        for (unsigned z = 0; z < 8; z++)
            codes[z] = vi_load(packed + 64 * z);
        return;
    }
    for (unsigned z = 0; z < 4; z++) {
        const VI both = vi_load(packed + 64 * z);
        codes[z] = vi_and(both, nibble);
        codes[z + 4] = vi_and(vi_right(both, 4), nibble);
    }
    if (bits == 5) {
        const VI high = vi_load(packed + 256), fifth = vi_bytes(0x10);
        for (unsigned z = 0; z < 8; z++) {
            const VI moved = z < 4 ? vi_left(high, 4 - z) : vi_right(high, z - 4);
            codes[z] = vi_or(codes[z], vi_and(moved, fifth));
        }
    }
    if (bits == 6) {
        const VI upper = vi_bytes(0x30);
        for (unsigned z = 0; z < 8; z++) {
            const VI high = vi_load(packed + 256 + z / 4 * 64);
            const VI moved = z % 4 < 2 ? vi_left(high, 4 - 2 * (z % 4)) : vi_right(high, 2 * (z % 4) - 4);
            codes[z] = vi_or(codes[z], vi_and(moved, upper));
        }
    }
}

/* d and min of one half of a group, for the lanes from `lane`; min is left alone when the type has an offset.
 */
INLINE void load_scales(VF *d, VF *min, const uint8_t *scales, const uint8_t *supers, const rt_qformat *f,
                        unsigned half, unsigned lane)
{
    const uint8_t *f16 = f->k ? supers : scales;
    *d = vf_load_f16(f16 + 2 * lane);
    if (f->k)
        *d = vf_mul(*d, vf_load_i8(scales + 16 * half + lane));
    if (f->offset)
        return;
    *min = vf_load_f16(f16 + 2 * (16 + lane));
    if (f->k)
        *min = vf_mul(*min, vf_mul(vf_load_i8(scales + 16 * (f->halves + half) + lane), vf_set1(-1.0f)));
}

/* Adds (one half of) a group to the sum of one activation row, entry `at` of the planes. */
INLINE VF add_row(VF sum, const VI codes[8], VF d, VF min, const rt_qact_tile *tile, size_t at,
                  const rt_qformat *f, unsigned half)
{
    const unsigned vectors = 8 / f->halves;
    const VF da = vf_set1(tile->scales[at]);
    VI start = vi_set1(0);
    VF scaled_sum = vf_set1(0);
    if (f->halves == 1 && !f->offset) {
        scaled_sum = vf_set1(tile->scaled_sums[at]);
    } else {
        const int32_t *neg_sums = f->halves == 1 || half ? tile->neg_sums : tile->neg_half_sums;
        start = vi_set1(neg_sums[at]);
        if (half)
            start = vi_sub(start, vi_set1(tile->neg_half_sums[at]));
    }
    if (f->halves == 2 && !f->offset) {
        scaled_sum = vf_mul(vf_of_int(start), vf_mul(da, vf_set1(-0x1p-7f)));
        start = vi_set1(0);
    }
    if (f->offset && f->shift)
        start = vi_sign_right32(start, f->shift);
    const int8_t *x = tile->codes + at * RT_QGROUP;
    const VI dot = dot_vectors(start, codes, x, half * vectors, (half + 1) * vectors, f->code_bits);
    sum = vf_fma(vf_of_int(dot), vf_mul(d, da), sum);
    return f->offset ? sum : vf_fma(min, scaled_sum, sum);
}

/* The same for T rows, `at` being the entry of the first. */
INLINE void add_rows(VF sums[SUBTILE], unsigned T, const VI codes[8], const uint8_t *scales,
                     const uint8_t *supers, const rt_qact_tile *tile, size_t at, const rt_qformat *f,
                     unsigned half, unsigned lane)
{
    VF d, min = vf_set1(0);
    load_scales(&d, &min, scales, supers, f, half, lane);
    for (unsigned i = 0; i < T; i++)
        sums[i] = add_row(sums[i], codes, d, min, tile, at + i, f, half);
}

/* One core keeps 30 GB/s in flight with 8 KiB of distance on Zen 4 (20 with 2 KiB).  Past the end of the
 * matrix lies, as a rule, the one that is used next. */
#define PREFETCH_DISTANCE 8192

INLINE void prefetch_group(const uint8_t *codes, size_t g, size_t group_bytes)
{
    const uintptr_t ahead = (uintptr_t)codes + g * group_bytes + PREFETCH_DISTANCE;
    for (size_t i = 0; i < group_bytes; i += 64)
        _mm_prefetch((const char *)(ahead + i), _MM_HINT_T0);
}

/* Rows [first, first + T) of a tile that has `stride` rows, lanes [lane, lane + LANES) of the strip. */
INLINE void tile_lanes(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile, bool add,
                       unsigned T, size_t stride, size_t first, unsigned lane, const rt_qformat *f)
{
    const size_t code_bytes = rt_qcode_bytes(f), scale_bytes = rt_qscale_bytes(f),
                 super_bytes = rt_qsuper_bytes(f);
    VF sums[SUBTILE];
    for (unsigned i = 0; i < T; i++)
        sums[i] = vf_set1(0);
    for (size_t g = 0; g < strip->groups; g++) {
        const uint8_t *scales = strip->scales + g * scale_bytes;
        const uint8_t *supers = strip->supers + g / RT_QSUPER_GROUPS * super_bytes;
        VI codes[8];
        if (strip->prefetch && lane == 0 && first == 0)
            prefetch_group(strip->codes, g, code_bytes + scale_bytes + super_bytes / RT_QSUPER_GROUPS);
        unpack(codes, strip->codes + g * code_bytes + 4 * lane, f->code_bits);
        add_rows(sums, T, codes, scales, supers, tile, g * stride + first, f, 0, lane);
        if (f->halves == 2)
            add_rows(sums, T, codes, scales, supers, tile, g * stride + first, f, 1, lane);
    }
    y += lane + first * ldy;
    for (unsigned i = 0; i < T; i++, y += ldy)
        vf_store(y, add ? vf_add(vf_load(y), sums[i]) : sums[i]);
}

/* Rows [first, first + T) of a tile that has `stride` rows, all lanes. */
INLINE void tile_part(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile, bool add,
                      unsigned T, size_t stride, size_t first, const rt_qformat *f)
{
    for (unsigned lane = 0; lane < RT_QSTRIP_ROWS; lane += LANES)
        tile_lanes(y, ldy, strip, tile, add, T, stride, first, lane, f);
}

/* A part of each size has its own code, so that the codes are unpacked once for it: a whole tile where the
 * registers hold the sums of all its rows (the distance between groups is a constant then), else SUBTILE rows
 * and what is left. */
#define PART_CASE(T)                                                                                         \
    case T:                                                                                                  \
        if (T <= SUBTILE)                                                                                    \
            tile_part(y, ldy, strip, tile, add, T, SUBTILE == RT_QTILE_ROWS ? T : rows, first, f);           \
        break;
INLINE void tile_product(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile, bool add,
                         const rt_qformat *f)
{
    const size_t rows = tile->rows;
    for (size_t first = 0, part; first < rows; first += part) {
        part = rows - first < SUBTILE ? rows - first : SUBTILE;
        switch (part) {
            PART_CASE(1)
            PART_CASE(2)
            PART_CASE(3)
            PART_CASE(4)
            PART_CASE(5)
            PART_CASE(6)
            PART_CASE(7)
            PART_CASE(8)
            PART_CASE(16)
        default:
            assert(false); /* tiles have no other sizes */
        }
    }
}
#undef PART_CASE

#define TILE_FUNCTION(name, bits, halves, offset, k, shift)                                                  \
    static void tile_##name(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile,          \
                            bool add)                                                                        \
    {                                                                                                        \
        static const rt_qformat format = {RT_##name, bits, halves, offset, k, shift};                        \
        tile_product(y, ldy, strip, tile, add, &format);                                                     \
    }
RT_QFORMAT_MAP(TILE_FUNCTION)

/* The largest of the 32 magnitudes as bits: NaN and infinity are above every number. */
INLINE int32_t largest_bits(const __m256 x[4])
{
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i m = _mm256_and_si256(_mm256_castps_si256(x[0]), magnitude);
    for (unsigned i = 1; i < 4; i++)
        m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    __m128i n = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_max_epi32(n, _mm_shuffle_epi32(n, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(n, _mm_shuffle_epi32(n, 0xB1)));
}

/* 32 products rounded to the nearest even integer, as bytes in order. */
INLINE __m256i round_group(const __m256 x[4], float inverse)
{
    __m256i q[4];
    for (unsigned i = 0; i < 4; i++)
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], _mm256_set1_ps(inverse)));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_permutevar8x32_epi32(bytes,
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); /* packs goes by halves */
}

static void quantise_row(const rt_qact_out *out, size_t stride, const float *x, size_t groups)
{
    for (size_t g = 0, at = 0; g < groups; g++, at += stride, x += RT_QGROUP) {
        const __m256 in[4] = {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), _mm256_loadu_ps(x + 16),
                              _mm256_loadu_ps(x + 24)};
        const int32_t largest = largest_bits(in);
        float amax;
        memcpy(&amax, &largest, sizeof amax);
        float scale = amax / 127.0f, inverse = 127.0f / amax;
        __m256i q;
        if (largest >= RT_QACT_TINY_BITS && largest < 0x7F800000) {
            q = round_group(in, inverse);
        } else {
            scale = largest < 0x7F800000 ? 0.0f : NAN;
            q = _mm256_setzero_si256();
        }
        _mm256_storeu_si256((void *)(out->codes + at * RT_QGROUP), q);
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
        __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        sums = _mm256_hadd_epi32(sums, sums);
        sums = _mm256_hadd_epi32(sums, sums);
        const int32_t first = _mm_cvtsi128_si32(_mm256_castsi256_si128(sums));
        const int32_t sum = first + _mm_cvtsi128_si32(_mm256_extracti128_si256(sums, 1));
        out->scales[at] = scale;
        out->scaled_sums[at] = scale * (float)sum;
        out->neg_sums[at] = -128 * sum;
        out->neg_half_sums[at] = -128 * first;
    }
}

#define TILE_ENTRY(name, bits, halves, offset, k, shift) [RT_QFORMAT_##name] = tile_##name,
const rt_qmat_kernels QMAT_TABLE = {.tile = {RT_QFORMAT_MAP(TILE_ENTRY)}, .quantise_row = quantise_row};
