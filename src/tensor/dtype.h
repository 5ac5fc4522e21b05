/* tensor/dtype.h - the element types of tensors, quantised blocks included (as in GGUF). */
#ifndef RT_TENSOR_DTYPE_H
#define RT_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* name, GGUF type number (-1: none), elements a block, bytes a block */
#define RT_DTYPE_MAP(X)                                                                                      \
    X(F32, 0, 1, 4)                                                                                          \
    X(F16, 1, 1, 2)                                                                                          \
    X(Q4_0, 2, 32, 18)                                                                                       \
    X(Q4_1, 3, 32, 20)                                                                                       \
    X(Q5_0, 6, 32, 22)                                                                                       \
    X(Q5_1, 7, 32, 24)                                                                                       \
    X(Q8_0, 8, 32, 34)                                                                                       \
    X(Q2_K, 10, 256, 84)                                                                                     \
    X(Q3_K, 11, 256, 110)                                                                                    \
    X(Q4_K, 12, 256, 144)                                                                                    \
    X(Q5_K, 13, 256, 176)                                                                                    \
    X(Q6_K, 14, 256, 210)                                                                                    \
    X(I8, 24, 1, 1)                                                                                          \
    X(I16, 25, 1, 2)                                                                                         \
    X(I32, 26, 1, 4)                                                                                         \
    X(I64, 27, 1, 8)                                                                                         \
    X(F64, 28, 1, 8)                                                                                         \
    X(BF16, 30, 1, 2)                                                                                        \
    X(U8, -1, 1, 1)                                                                                          \
    X(BOOL, -1, 1, 1)                                                                                        \
    X(F8_E4M3, -1, 1, 1)

typedef enum rt_dtype {
#define RT_DTYPE_ENUM(name, gguf, elements, bytes) RT_##name,
    RT_DTYPE_MAP(RT_DTYPE_ENUM)
#undef RT_DTYPE_ENUM
        RT_DTYPE_COUNT
} rt_dtype;

typedef struct rt_dtype_info {
    const char *name;      /* "F32", "Q4_1", ... */
    int gguf;              /* GGUF's number, -1 when it has none */
    size_t block_elements; /* 1 for plain types */
    size_t block_bytes;
} rt_dtype_info;

const rt_dtype_info *rt_dtype_get(rt_dtype dtype);
bool rt_dtype_from_name(rt_dtype *out, const char *name); /* either case */
bool rt_dtype_from_gguf(rt_dtype *out, uint32_t number);
static inline bool rt_dtype_is_quantised(rt_dtype t) { return t >= RT_Q4_0 && t <= RT_Q6_K; }
/* Bytes of `elements` values; false when not a whole number of blocks or past size_t. */
bool rt_dtype_bytes(size_t *out, rt_dtype dtype, size_t elements);

typedef uint16_t rt_bf16; /* the upper half of a float */

static inline float rt_bf16_to_f32(rt_bf16 x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}
/* Round to nearest, ties to even; a NaN stays one. */
static inline rt_bf16 rt_f32_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (rt_bf16)(bits >> 16 | 0x40);
    return (rt_bf16)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}
float rt_f16_to_f32(uint16_t x);
uint16_t rt_f32_to_f16(float x); /* round to nearest, ties to even */

#endif
