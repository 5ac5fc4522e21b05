/* tensor/qmat_pack.c - file blocks into strips of 16 interleaved rows, and one row back out.
 *
 * Nothing is rounded: codes keep their bits, scales their f16 or 6-bit form, so a row read back is
 * bit for bit what rt_dequantise gives for the file's blocks.  Q4_0, Q4_1 and Q8_0 need no more than a
 * transposition of 32-bit words (the nibble order of the file is the one of the strip), which runs at the
 * memory's speed; the others go through one byte a code, four codes in a word. */
#include <string.h>

#include "tensor/cpu/qmat_format.h"

enum { ROWS = RT_QSTRIP_ROWS, GROUP = RT_QGROUP, VECTOR_BYTES = 64, K_GROUPS = RT_QSUPER_GROUPS };

typedef struct group {
    uint32_t codes[GROUP / 4]; /* four bytes a word, in order: "vector z" of this row */
    int8_t scales[2],
        mins[2]; /* K types: one for each half; scales[0] and mins[0] when there are no halves */
} group;

static uint32_t load32(const uint8_t *p)
{
    uint32_t out;
    memcpy(&out, p, sizeof out);
    return out;
}

/* Bits [shift, shift + count) of each byte of 32 bytes. */
static void take_bits(uint32_t out[GROUP / 4], const uint8_t *bytes, unsigned shift, unsigned count)
{
    const uint32_t mask = 0x01010101u * ((1u << count) - 1);
    for (unsigned z = 0; z < GROUP / 4; z++)
        out[z] = load32(bytes + 4 * z) >> shift & mask;
}

/* The same bits on top of codes that have `below` bits. */
static void add_bits(uint32_t out[GROUP / 4], const uint8_t *bytes, unsigned shift, unsigned count,
                     unsigned below)
{
    uint32_t upper[GROUP / 4];
    take_bits(upper, bytes, shift, count);
    for (unsigned z = 0; z < GROUP / 4; z++)
        out[z] |= upper[z] << below;
}

static void q5_codes(uint32_t codes[GROUP / 4], const uint8_t *fifth, const uint8_t *low)
{
    const uint32_t bits = load32(fifth);
    for (unsigned z = 0; z < GROUP / 4; z++) {
        const uint32_t nibbles = load32(low + z % 4 * 4) >> (z / 4 * 4) & 0x0F0F0F0Fu;
        const uint32_t spread = (bits >> 4 * z & 15u) * 0x00204081u & 0x01010101u; /* bit c to byte c */
        codes[z] = nibbles | spread << 4;
    }
}

static void q2_k_group(group *out, const uint8_t *block, unsigned g)
{
    take_bits(out->codes, block + 16 + 32 * (g / 4), 2 * (g % 4), 2);
    for (unsigned half = 0; half < 2; half++) {
        out->scales[half] = (int8_t)(block[2 * g + half] & 15);
        out->mins[half] = (int8_t)(block[2 * g + half] >> 4);
    }
}

static void q3_k_group(group *out, const uint8_t *block, unsigned g)
{
    const uint8_t *packed = block + 96;
    take_bits(out->codes, block + 32 + 32 * (g / 4), 2 * (g % 4), 2);
    add_bits(out->codes, block, g, 1, 2);
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
    take_bits(out->codes, block + 16 + 32 * (g / 2), 4 * (g % 2), 4);
}

static void q5_k_group(group *out, const uint8_t *block, unsigned g)
{
    k_scale(out, block + 4, g);
    take_bits(out->codes, block + 48 + 32 * (g / 2), 4 * (g % 2), 4);
    add_bits(out->codes, block + 16, g, 1, 4);
}

static void q6_k_group(group *out, const uint8_t *block, unsigned g)
{
    take_bits(out->codes, block + 64 * (g / 4) + 32 * (g % 2), 4 * (g % 4 / 2), 4);
    add_bits(out->codes, block + 128 + 32 * (g / 4), 2 * (g % 4), 2, 4);
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

/* Row r of a group: see the planes in qmat_format.h. */
static void write_codes(uint8_t *out, const uint32_t codes[GROUP / 4], unsigned bits, size_t r)
{
    for (unsigned z = 0; z < 4; z++) {
        const uint32_t both = (codes[z] & 0x0F0F0F0Fu) | (codes[z + 4] & 0x0F0F0F0Fu) << 4;
        memcpy(out + z * VECTOR_BYTES + 4 * r, &both, sizeof both);
    }
    uint32_t high[2] = {0, 0};
    for (unsigned z = 0; z < GROUP / 4; z++) {
        if (bits == 5)
            high[0] |= (codes[z] >> 4 & 0x01010101u) << z;
        else
            high[z / 4] |= (codes[z] >> 4 & 0x03030303u) << 2 * (z % 4);
    }
    for (unsigned i = 0; i + 4 < bits; i++)
        memcpy(out + (4 + i) * VECTOR_BYTES + 4 * r, &high[i], sizeof high[i]);
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

typedef uint32_t quad __attribute__((vector_size(16)));

/* 16 bytes of 4 rows as columns of words: word z of row r goes to out[64 z + 4 r]. */
static void transpose_words(uint8_t *out, const uint8_t *in, size_t row_bytes, uint32_t flip)
{
    quad row[4];
    for (unsigned r = 0; r < 4; r++) {
        memcpy(&row[r], in + r * row_bytes, sizeof row[r]);
        row[r] ^= flip;
    }
    const quad low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
    const quad low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
    const quad high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
    const quad high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    const quad word[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                          __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                          __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                          __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
    for (unsigned z = 0; z < 4; z++)
        memcpy(out + VECTOR_BYTES * z, &word[z], sizeof word[z]);
}

/* A whole strip of Q4_0, Q4_1 or Q8_0. */
static void pack_moved(uint8_t *codes, uint8_t *scales, const rt_qformat *f, const uint8_t *blocks,
                       size_t row_bytes, size_t groups)
{
    const size_t block_bytes = rt_dtype_get(f->dtype)->block_bytes, header = f->offset ? 2 : 4;
    const uint32_t flip = f->code_bits == 8 ? 0x80808080u : 0;
    const uintptr_t next = (uintptr_t)(blocks + ROWS * row_bytes); /* the next strip, in the file's order */
    for (size_t g = 0; g < groups; g++, blocks += block_bytes) {
        for (size_t i = 0; i < ROWS * block_bytes; i += 64)
            __builtin_prefetch((const void *)(next + g * ROWS * block_bytes + i));
        for (size_t r = 0; r < ROWS; r += 4) {
            const uint8_t *in = blocks + r * row_bytes + header;
            transpose_words(codes + 4 * r, in, row_bytes, flip);
            if (f->code_bits == 8)
                transpose_words(codes + 4 * VECTOR_BYTES + 4 * r, in + 16, row_bytes, flip);
        }
        for (size_t r = 0; r < ROWS; r++)
            memcpy(scales + 2 * r, blocks + r * row_bytes, 2);
        for (size_t r = 0; r < ROWS && !f->offset; r++)
            memcpy(scales + 2 * (ROWS + r), blocks + r * row_bytes + 2, 2);
        codes += rt_qcode_bytes(f);
        scales += rt_qscale_bytes(f);
    }
}

void rt_qstrip_pack(uint8_t *codes, uint8_t *scales, uint8_t *supers, const rt_qformat *f,
                    const uint8_t *blocks, size_t row_bytes, size_t n_rows, size_t groups)
{
    if (n_rows == ROWS && is_moved(f->dtype)) {
        pack_moved(codes, scales, f, blocks, row_bytes, groups);
        return;
    }
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
