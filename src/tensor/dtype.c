/* tensor/dtype.c - see dtype.h. */
#include "tensor/dtype.h"

#include <strings.h>

#include "base/size.h"

static const rt_dtype_info infos[RT_DTYPE_COUNT] = {
#define RT_DTYPE_ROW(name, gguf, elements, bytes) {#name, gguf, elements, bytes},
    RT_DTYPE_MAP(RT_DTYPE_ROW)
#undef RT_DTYPE_ROW
};

const rt_dtype_info *rt_dtype_get(rt_dtype dtype) { return &infos[dtype]; }

bool rt_dtype_from_name(rt_dtype *out, const char *name)
{
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        if (strcasecmp(infos[i].name, name) == 0) {
            *out = (rt_dtype)i;
            return true;
        }
    }
    return false;
}

bool rt_dtype_from_gguf(rt_dtype *out, uint32_t number)
{
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        if (infos[i].gguf >= 0 && (uint32_t)infos[i].gguf == number) {
            *out = (rt_dtype)i;
            return true;
        }
    }
    return false;
}

bool rt_dtype_bytes(size_t *out, rt_dtype dtype, size_t elements)
{
    const rt_dtype_info *info = &infos[dtype];
    return elements % info->block_elements == 0 &&
           rt_size_mul(elements / info->block_elements, info->block_bytes, out);
}

float rt_f16_to_f32(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = x >> 10 & 0x1F, fraction = x & 0x3FFu;
    uint32_t bits;
    float out;
    if (exponent == 0) {
        out = (float)fraction * 0x1p-24f; /* zero and subnormals, exact */
        memcpy(&bits, &out, sizeof bits);
        bits |= sign;
    } else if (exponent == 31) {
        bits = sign | 0x7F800000u | fraction << 13;
    } else {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    }
    memcpy(&out, &bits, sizeof out);
    return out;
}

uint16_t rt_f32_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude >= 0x7F800000u)
        return (uint16_t)(sign | 0x7C00u | (magnitude > 0x7F800000u ? 0x200u : 0));
    if (magnitude >= 0x477FF000u) /* rounds past 65504 */
        return (uint16_t)(sign | 0x7C00u);
    if (magnitude < 0x38800000u) { /* subnormal: let the FPU round at 2^-24 */
        float a;
        memcpy(&a, &magnitude, sizeof a);
        a += 0.5f; /* the last bit of 0.5's fraction is 2^-24 */
        uint32_t rounded;
        memcpy(&rounded, &a, sizeof rounded);
        return (uint16_t)(sign | (rounded - 0x3F000000u));
    }
    const uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}
