/* tensor/qmat_pack.c - file blocks into strips of 16 interleaved rows, and one row back out.
 *
 * Nothing is rounded: codes keep their bits, scales their f16 or 6-bit form, so a row read back is
 * bit for bit what rt_dequantise gives for the file's blocks.  Q4_0, Q4_1 and Q8_0 need no more than
 * 32-bit moves (the nibble order of the file is the one of the strip); the others go through one byte a
 * code. */
#include <string.h>

#include "tensor/cpu/qmat_format.h"

enum { ROWS = RT_QSTRIP_ROWS, GROUP = RT_QGROUP, VECTOR_BYTES = 64, K_GROUPS = RT_QSUPER_GROUPS };

typedef struct group {
    uint8_t codes[GROUP];
    int8_t scales[2],
        mins[2]; /* K types: one for each half; scales[0] and mins[0] when there are no halves */
} group;

static uint32_t load32(const uint8_t *p)
{
    uint32_t out;
    memcpy(&out, p, sizeof out);
    return out;
}

static void q5_codes(uint8_t codes[GROUP], const uint8_t *fifth, const uint8_t *low)
{
    const uint32_t bits = load32(fifth);
    for (unsigned j = 0; j < 16; j++) {
        codes[j] = (uint8_t)((low[j] & 15u) | (bits >> j & 1u) << 4);
        codes[j + 16] = (uint8_t)(low[j] >> 4 | (bits >> (j + 16) & 1u) << 4);
    }
}

static void q2_k_group(group *out, const uint8_t *block, unsigned g)
{
    for (unsigned j = 0; j < GROUP; j++)
        out->codes[j] = block[16 + 32 * (g / 4) + j] >> 2 * (g % 4) & 3;
    for (unsigned half = 0; half < 2; half++) {
        out->scales[half] = (int8_t)(block[2 * g + half] & 15);
        out->mins[half] = (int8_t)(block[2 * g + half] >> 4);
    }
}

static void q3_k_group(group *out, const uint8_t *block, unsigned g)
{
    const uint8_t *packed = block + 96;
    for (unsigned j = 0; j < GROUP; j++) {
        const unsigned low = block[32 + 32 * (g / 4) + j] >> 2 * (g % 4) & 3u;
        out->codes[j] = (uint8_t)(low + 4u * (block[j] >> g & 1u));
    }
    for (unsigned half = 0; half < 2; half++) {
        const unsigned s = 2 * g + half;
        const int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4,
                  high = packed[8 + s % 4] >> 2 * (s / 4) & 3;
        out->scales[half] = (int8_t)((low | high << 4) - 32);
    }
}

/* The 6-bit scale and min of group g of Q4_K and Q5_K. */
static void k_scale(group *out, const uint8_t packed[12], unsigned g)
{
    if (g < 4) {
        out->scales[0] = (int8_t)(packed[g] & 63);
        out->mins[0] = (int8_t)(packed[g + 4] & 63);
    } else {
        out->scales[0] = (int8_t)((packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4);
        out->mins[0] = (int8_t)(packed[g + 4] >> 4 | (packed[g] >> 6) << 4);
    }
}

static void q4_k_group(group *out, const uint8_t *block, unsigned g)
{
    k_scale(out, block + 4, g);
    for (unsigned j = 0; j < GROUP; j++)
        out->codes[j] = block[16 + 32 * (g / 2) + j] >> 4 * (g % 2) & 15;
}

static void q5_k_group(group *out, const uint8_t *block, unsigned g)
{
    k_scale(out, block + 4, g);
    for (unsigned j = 0; j < GROUP; j++) {
        const unsigned low = block[48 + 32 * (g / 2) + j] >> 4 * (g % 2) & 15u;
        out->codes[j] = (uint8_t)(low | (block[16 + j] >> g & 1u) << 4);
    }
}

static void q6_k_group(group *out, const uint8_t *block, unsigned g)
{
    const uint8_t *low = block + 64 * (g / 4) + 32 * (g % 2), *high = block + 128 + 32 * (g / 4);
    for (unsigned j = 0; j < GROUP; j++)
        out->codes[j] = (uint8_t)((low[j] >> 4 * (g % 4 / 2) & 15u) | (high[j] >> 2 * (g % 4) & 3u) << 4);
    out->scales[0] = (int8_t)block[192 + 2 * g];
    out->scales[1] = (int8_t)block[192 + 2 * g + 1];
}

/* Group g of a row whose blocks begin at `row`: codes, and the small scales of K types. */
static void read_group(group *out, rt_dtype dtype, const uint8_t *row, size_t g)
{
    const rt_dtype_info *info = rt_dtype_get(dtype);
    const uint8_t *block = row + g / (info->block_elements / GROUP) * info->block_bytes;
    const unsigned in_block = (unsigned)(g % K_GROUPS);
    switch (dtype) {
    case RT_Q5_0:
        q5_codes(out->codes, block + 2, block + 6);
        break;
    case RT_Q5_1:
        q5_codes(out->codes, block + 4, block + 8);
        break;
    case RT_Q2_K:
        q2_k_group(out, block, in_block);
        break;
    case RT_Q3_K:
        q3_k_group(out, block, in_block);
        break;
    case RT_Q4_K:
        q4_k_group(out, block, in_block);
        break;
    case RT_Q5_K:
        q5_k_group(out, block, in_block);
        break;
    default:
        q6_k_group(out, block, in_block);
    }
}

/* Where d (and dmin or m, 2 bytes after it) lies in a block. */
static size_t scale_offset(rt_dtype dtype)
{
    switch (dtype) {
    case RT_Q2_K:
        return 80;
    case RT_Q3_K:
        return 108;
    case RT_Q6_K:
        return 208;
    default:
        return 0;
    }
}

/* The high bits of row r: see the planes in qmat_format.h. */
static void write_high_bits(uint8_t *high, const uint8_t codes[GROUP], unsigned bits, size_t r)
{
    for (unsigned c = 0; c < 4; c++) {
        unsigned first = 0, second = 0;
        for (unsigned z = 0; z < 4; z++) {
            const unsigned a = codes[4 * z + c] >> 4, b = codes[4 * z + 16 + c] >> 4;
            first |= bits == 5 ? a << z | b << (z + 4) : a << 2 * z;
            second |= b << 2 * z;
        }
        high[4 * r + c] = (uint8_t)first;
        if (bits == 6)
            high[VECTOR_BYTES + 4 * r + c] = (uint8_t)second;
    }
}

static void write_codes(uint8_t *out, const uint8_t codes[GROUP], unsigned bits, size_t r)
{
    for (unsigned z = 0; z < 4; z++) {
        const uint32_t low = load32(codes + 4 * z), high = load32(codes + 16 + 4 * z),
                       both = low & 0x0F0F0F0Fu;
        const uint32_t packed = both | (high & 0x0F0F0F0Fu) << 4;
        memcpy(out + z * VECTOR_BYTES + 4 * r, &packed, sizeof packed);
    }
    if (bits > 4)
        write_high_bits(out + 4 * VECTOR_BYTES, codes, bits, r);
}

/* Q4_0, Q4_1: the 16 bytes of nibbles go out as four words; Q8_0: eight words, signed to offset 128. */
static void move_codes(uint8_t *out, const uint8_t *in, unsigned bits, size_t r)
{
    const uint32_t flip = bits == 8 ? 0x80808080u : 0;
    for (unsigned z = 0; z < bits; z++) {
        const uint32_t word = load32(in + 4 * z) ^ flip;
        memcpy(out + z * VECTOR_BYTES + 4 * r, &word, sizeof word);
    }
}

static bool is_moved(rt_dtype dtype) { return dtype == RT_Q4_0 || dtype == RT_Q4_1 || dtype == RT_Q8_0; }

static void pack_row(uint8_t *codes, uint8_t *scales, uint8_t *supers, const rt_qformat *f,
                     const uint8_t *row, size_t r, size_t groups)
{
    const rt_dtype_info *info = rt_dtype_get(f->dtype);
    const size_t groups_a_block = info->block_elements / GROUP, header = f->offset ? 2 : 4;
    const size_t code_bytes = rt_qcode_bytes(f), scale_bytes = rt_qscale_bytes(f);
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *block = row + g / groups_a_block * info->block_bytes;
        const uint8_t *halves16 = block + scale_offset(f->dtype);
        if (is_moved(f->dtype)) {
            move_codes(codes + g * code_bytes, block + header, f->code_bits, r);
        } else {
            group in = {.scales = {0}};
            read_group(&in, f->dtype, row, g);
            write_codes(codes + g * code_bytes, in.codes, f->code_bits, r);
            for (unsigned half = 0; f->k && half < f->halves; half++) {
                scales[g * scale_bytes + half * ROWS + r] = (uint8_t)in.scales[half];
                if (!f->offset)
                    scales[g * scale_bytes + (f->halves + half) * ROWS + r] = (uint8_t)in.mins[half];
            }
        }
        uint8_t *d = f->k ? supers + g / K_GROUPS * rt_qsuper_bytes(f) : scales + g * scale_bytes;
        memcpy(d + 2 * r, halves16, 2);
        if (!f->offset)
            memcpy(d + 2 * (ROWS + r), halves16 + 2, 2);
    }
}

void rt_qstrip_pack(uint8_t *codes, uint8_t *scales, uint8_t *supers, const rt_qformat *f,
                    const uint8_t *blocks, size_t row_bytes, size_t n_rows, size_t groups)
{
    for (size_t r = 0; r < n_rows; r++)
        pack_row(codes, scales, supers, f, blocks + r * row_bytes, r, groups);
}

/* Code of column `column` (of the group's 32) of row r. */
static unsigned code_at(const uint8_t *codes, unsigned bits, unsigned column, size_t r)
{
    const unsigned z = column / 4;
    const size_t in_vector = 4 * r + column % 4;
    if (bits == 8)
        return codes[z * VECTOR_BYTES + in_vector];
    unsigned code = codes[z % 4 * VECTOR_BYTES + in_vector] >> (z / 4 * 4) & 15u;
    const uint8_t *high = codes + 4 * VECTOR_BYTES;
    if (bits == 5)
        code |= (high[in_vector] >> z & 1u) << 4;
    if (bits == 6)
        code |= (high[z / 4 * VECTOR_BYTES + in_vector] >> 2 * (z % 4) & 3u) << 4;
    return code;
}

static float load_f16(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return rt_f16_to_f32(bits);
}

void rt_qstrip_row(float *out, const rt_qstrip *strip, const rt_qformat *f, size_t r)
{
    for (size_t g = 0; g < strip->groups; g++, out += GROUP) {
        const uint8_t *codes = strip->codes + g * rt_qcode_bytes(f),
                      *scales = strip->scales + g * rt_qscale_bytes(f);
        const uint8_t *halves16 = f->k ? strip->supers + g / K_GROUPS * rt_qsuper_bytes(f) : scales;
        float d[2] = {load_f16(halves16 + 2 * r), 0}, min[2] = {0, 0};
        d[1] = d[0];
        if (!f->offset)
            min[0] = min[1] = load_f16(halves16 + 2 * (ROWS + r));
        for (unsigned half = 0; f->k && half < 2; half++) {
            const size_t at = (half < f->halves ? half : 0) * ROWS + r;
            d[half] *= (float)(int8_t)scales[at];
            if (!f->offset)
                min[half] *= -(float)(int8_t)scales[f->halves * ROWS + at];
        }
        for (unsigned j = 0; j < GROUP; j++) {
            const float product =
                d[j / 16] * (float)((int)code_at(codes, f->code_bits, j, r) - (int)f->offset);
            out[j] = f->offset ? product : product + min[j / 16];
        }
    }
}
