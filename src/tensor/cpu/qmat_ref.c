/* tensor/cpu/qmat_ref.c - the packed product in plain C: what every other level must equal, bit for bit.
 *
 * See qmat_format.h for the layout.  The integer dot of a group is exact in any order; the float part is
 * written with fmaf because the fast levels use fused multiply-adds. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/qmat_format.h"

enum { ROWS = RT_QSTRIP_ROWS, VECTORS = 8, VECTOR_BYTES = 64 };

/* The 32 columns of 16 rows as one byte a code, in vectors (see qmat_format.h). */
static void unpack(uint8_t codes[VECTORS][VECTOR_BYTES], const uint8_t *packed, unsigned bits)
{
    if (bits == 8) {
        memcpy(codes, packed, VECTORS * VECTOR_BYTES);
        return;
    }
    for (unsigned z = 0; z < 4; z++) {
        for (unsigned i = 0; i < VECTOR_BYTES; i++) {
            codes[z][i] = packed[z * VECTOR_BYTES + i] & 0x0F;
            codes[z + 4][i] = packed[z * VECTOR_BYTES + i] >> 4;
        }
    }
    const uint8_t *high = packed + 4 * VECTOR_BYTES;
    for (unsigned z = 0; z < VECTORS && bits > 4; z++) {
        for (unsigned i = 0; i < VECTOR_BYTES; i++) {
            const unsigned extra =
                bits == 5 ? high[i] >> z & 1u : high[z / 4 * VECTOR_BYTES + i] >> 2 * (z % 4) & 3u;
            codes[z][i] = (uint8_t)(codes[z][i] | extra << 4);
        }
    }
}

/* dot[row] = start + the sum over vectors [z_begin, z_end). */
static void dot(int32_t out[ROWS], int32_t start, uint8_t codes[VECTORS][VECTOR_BYTES], const int8_t *x,
                unsigned z_begin, unsigned z_end)
{
    for (unsigned r = 0; r < ROWS; r++)
        out[r] = start;
    for (unsigned z = z_begin; z < z_end; z++) {
        for (unsigned r = 0; r < ROWS; r++) {
            int32_t sum = 0;
            for (unsigned c = 0; c < 4; c++)
                sum += codes[z][4 * r + c] * x[4 * z + c];
            out[r] += sum;
        }
    }
}

/* The scales and mins of one half of a group as float32; exact for every type. */
static void load_scales(float d[ROWS], float min[ROWS], const rt_qstrip *strip, const rt_qformat *f, size_t g,
                        unsigned half)
{
    const uint8_t *scales = strip->scales + g * rt_qscale_bytes(f);
    const uint8_t *halves16 = f->k ? strip->supers + g / RT_QSUPER_GROUPS * rt_qsuper_bytes(f) : scales;
    for (unsigned r = 0; r < ROWS; r++) {
        uint16_t f16[2] = {0, 0};
        memcpy(&f16[0], halves16 + 2 * r, 2);
        if (!f->offset)
            memcpy(&f16[1], halves16 + 2 * (ROWS + r), 2);
        d[r] = rt_f16_to_f32(f16[0]);
        min[r] = rt_f16_to_f32(f16[1]);
        if (f->k) {
            d[r] *= (float)(int8_t)scales[half * ROWS + r];
            min[r] *= f->offset ? 0.0f : -(float)(int8_t)scales[(f->halves + half) * ROWS + r];
        }
    }
}

/* Adds one half (or the whole) of group g to the sums of one activation row. */
static void add_part(float sums[ROWS], const rt_qformat *f, uint8_t codes[VECTORS][VECTOR_BYTES],
                     const float d[ROWS], const float min[ROWS], const rt_qact_tile *tile, size_t entry,
                     unsigned half)
{
    const unsigned vectors = VECTORS / f->halves;
    int32_t neg_sum = tile->neg_sums[entry], dots[ROWS];
    float scaled_sum = tile->scaled_sums[entry];
    const float da = tile->scales[entry];
    if (f->halves == 2) {
        neg_sum = half ? neg_sum - tile->neg_half_sums[entry] : tile->neg_half_sums[entry];
        scaled_sum = (float)neg_sum * (da * -0x1p-7f);
    }
    dot(dots, f->offset ? neg_sum / (1 << f->shift) : 0, codes, tile->codes + entry * RT_QGROUP,
        half * vectors, (half + 1) * vectors);
    for (unsigned r = 0; r < ROWS; r++) {
        sums[r] = fmaf((float)dots[r], d[r] * da, sums[r]);
        if (!f->offset)
            sums[r] = fmaf(min[r], scaled_sum, sums[r]);
    }
}

static void tile_product(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile, bool add,
                         const rt_qformat *f)
{
    float sums[RT_QTILE_ROWS][ROWS] = {{0}}, d[ROWS], min[ROWS];
    uint8_t codes[VECTORS][VECTOR_BYTES];
    for (size_t g = 0; g < strip->groups; g++) {
        unpack(codes, strip->codes + g * rt_qcode_bytes(f), f->code_bits);
        for (unsigned half = 0; half < f->halves; half++) {
            load_scales(d, min, strip, f, g, half);
            for (size_t i = 0; i < tile->rows; i++)
                add_part(sums[i], f, codes, d, min, tile, g * tile->rows + i, half);
        }
    }
    for (size_t i = 0; i < tile->rows; i++) {
        for (unsigned r = 0; r < ROWS; r++)
            y[i * ldy + r] = add ? y[i * ldy + r] + sums[i][r] : sums[i][r];
    }
}

#define TILE_FUNCTION(name, bits, halves, offset, k, shift)                                                  \
    static void tile_##name(float *y, size_t ldy, const rt_qstrip *strip, const rt_qact_tile *tile,          \
                            bool add)                                                                        \
    {                                                                                                        \
        static const rt_qformat format = {RT_##name, bits, halves, offset, k, shift};                        \
        tile_product(y, ldy, strip, tile, add, &format);                                                     \
    }
RT_QFORMAT_MAP(TILE_FUNCTION)

/* One scale for 32 values: 127 steps to the largest magnitude.  A value that is not finite makes the
 * scale NaN, so that the product shows it. */
static void quantise_row(const rt_qact_out *out, size_t stride, const float *x, size_t groups)
{
    for (size_t g = 0; g < groups; g++, x += RT_QGROUP) {
        int32_t largest = 0;
        for (unsigned j = 0; j < RT_QGROUP; j++) {
            int32_t bits;
            memcpy(&bits, &x[j], sizeof bits);
            bits &= 0x7FFFFFFF;
            largest = bits > largest ? bits : largest;
        }
        float amax;
        memcpy(&amax, &largest, sizeof amax);
        const bool finite = largest < 0x7F800000, usable = finite && largest >= RT_QACT_TINY_BITS;
        const float scale = usable   ? amax / 127.0f
                            : finite ? 0.0f
                                     : NAN,
                    inverse = usable ? 127.0f / amax : 0.0f;
        int32_t sums[2] = {0, 0};
        for (unsigned j = 0; j < RT_QGROUP; j++) {
            const int q = usable ? (int)rintf(x[j] * inverse) : 0;
            out->codes[g * stride * RT_QGROUP + j] = (int8_t)q;
            sums[j / 16] += q;
        }
        out->scales[g * stride] = scale;
        out->scaled_sums[g * stride] = scale * (float)(sums[0] + sums[1]);
        out->neg_sums[g * stride] = -128 * (sums[0] + sums[1]);
        out->neg_half_sums[g * stride] = -128 * sums[0];
    }
}

#define TILE_ENTRY(name, bits, halves, offset, k, shift) [RT_QFORMAT_##name] = tile_##name,
const rt_qmat_kernels rt_qmat_kernels_ref = {.tile = {RT_QFORMAT_MAP(TILE_ENTRY)},
                                             .quantise_row = quantise_row};
