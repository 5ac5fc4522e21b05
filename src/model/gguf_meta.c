/* model/gguf_meta.c - getters for the metadata that model/gguf.c has checked and listed. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf_value.h"
#include "model/weights_parts.h"

void rt_meta_list_deinit(rt_meta_list *meta)
{
    for (size_t i = 0; i < meta->count; i++)
        free(meta->marks[i]);
    free(meta->list);
    free(meta->marks);
    rt_name_index_deinit(&meta->index);
    *meta = (rt_meta_list){0};
}

size_t rt_weights_meta_count(const rt_weights *weights) { return weights->meta.count; }

const rt_meta *rt_weights_meta_at(const rt_weights *weights, size_t index)
{
    assert(index < weights->meta.count);
    return &weights->meta.list[index];
}

static const rt_meta *find(const rt_weights *weights, const char *key, size_t *position)
{
    return rt_name_index_find(&weights->meta.index, key, strlen(key), position)
               ? &weights->meta.list[*position]
               : NULL;
}

/* A number at `data`: integers as a magnitude and a sign, which 64 bits of either kind fit. */
typedef struct number {
    bool integer, negative;
    uint64_t magnitude;
    double real; /* set for every number */
} number;

static number unsigned_number(uint64_t x) { return (number){true, false, x, (double)x}; }
static number signed_number(int64_t x)
{
    return (number){true, x < 0, x < 0 ? 0 - (uint64_t)x : (uint64_t)x, (double)x};
}
static number real_number(double x) { return (number){false, false, 0, x}; }

static uint64_t load_bits(const unsigned char *p, size_t bytes)
{
    uint64_t bits = 0;
    memcpy(&bits, p, bytes);
    return bits;
}

static double float_of_bits(uint32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return (double)out;
}

static double double_of_bits(uint64_t bits)
{
    double out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static bool load_number(number *out, rt_meta_type type, const unsigned char *p)
{
    const uint64_t bits = load_bits(p, rt_meta_type_bytes(type));
    switch (type) {
    case RT_META_U8:
    case RT_META_U16:
    case RT_META_U32:
    case RT_META_U64:
        *out = unsigned_number(bits);
        return true;
    case RT_META_I8:
        *out = signed_number((int8_t)bits);
        return true;
    case RT_META_I16:
        *out = signed_number((int16_t)bits);
        return true;
    case RT_META_I32:
        *out = signed_number((int32_t)bits);
        return true;
    case RT_META_I64:
        *out = signed_number((int64_t)bits);
        return true;
    case RT_META_F32:
        *out = real_number(float_of_bits((uint32_t)bits));
        return true;
    case RT_META_F64:
        *out = real_number(double_of_bits(bits));
        return true;
    case RT_META_BOOL:
    case RT_META_STRING:
    case RT_META_ARRAY:
    case RT_META_COUNT:
        break;
    }
    return false;
}

bool rt_weights_meta_string(const rt_weights *weights, const char *key, const char **data, size_t *size)
{
    size_t at;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || meta->type != RT_META_STRING)
        return false;
    *data = meta->data;
    *size = meta->bytes;
    return true;
}

bool rt_weights_meta_u64(const rt_weights *weights, const char *key, uint64_t *out)
{
    size_t at;
    number n;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || !load_number(&n, meta->type, meta->data) || !n.integer || n.negative)
        return false;
    *out = n.magnitude;
    return true;
}

bool rt_weights_meta_f64(const rt_weights *weights, const char *key, double *out)
{
    size_t at;
    number n;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || !load_number(&n, meta->type, meta->data))
        return false;
    *out = n.real;
    return true;
}

bool rt_weights_meta_bool(const rt_weights *weights, const char *key, bool *out)
{
    size_t at;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || meta->type != RT_META_BOOL)
        return false;
    *out = *(const unsigned char *)meta->data != 0;
    return true;
}

bool rt_weights_meta_array(const rt_weights *weights, const char *key, size_t *count)
{
    size_t at;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || meta->type != RT_META_ARRAY)
        return false;
    *count = meta->count;
    return true;
}

bool rt_weights_meta_array_string(const rt_weights *weights, const char *key, size_t index, const char **data,
                                  size_t *size)
{
    size_t at;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || meta->type != RT_META_ARRAY || meta->element != RT_META_STRING || index >= meta->count)
        return false;
    const unsigned char *p =
        (const unsigned char *)meta->data + weights->meta.marks[at][index / RT_GGUF_MARK_STEP];
    for (size_t i = index % RT_GGUF_MARK_STEP; i > 0; i--)
        p += 8 + load_bits(p, 8); /* within the file: checked when it was opened */
    *size = load_bits(p, 8);
    *data = (const char *)p + 8;
    return true;
}

bool rt_weights_meta_array_f64(const rt_weights *weights, const char *key, size_t index, double *out)
{
    size_t at;
    number n;
    const rt_meta *meta = find(weights, key, &at);
    if (!meta || meta->type != RT_META_ARRAY || index >= meta->count ||
        !load_number(&n, meta->element,
                     (const unsigned char *)meta->data + index * rt_meta_type_bytes(meta->element)))
        return false;
    *out = n.real;
    return true;
}
