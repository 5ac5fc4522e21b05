/* model/gguf_value.h - facts about GGUF metadata values that its reader, getters and writer share. */
#ifndef RT_MODEL_GGUF_VALUE_H
#define RT_MODEL_GGUF_VALUE_H

#include "model/weights.h"

enum {
    RT_GGUF_MARK_STEP = 32,         /* an array of strings is indexed at each 32nd */
    RT_GGUF_ALIGNMENT = 32,         /* of the data, unless general.alignment says other */
    RT_GGUF_ALIGNMENT_MAX = 1 << 20 /* a power of two */
};

static inline size_t rt_meta_type_bytes(rt_meta_type type) /* 0: strings and arrays */
{
    static const unsigned char bytes[RT_META_COUNT] = {
#define RT_META_BYTES(name, number, size) [number] = (size),
        RT_META_MAP(RT_META_BYTES)
#undef RT_META_BYTES
    };
    return bytes[type];
}

#endif
