/* model/gguf.c - reads the header of a GGUF file, versions 2 and 3, little-endian.
 *
 *   "GGUF", u32 version, u64 n_tensors, u64 n_meta
 *   n_meta    × { string key, u32 type, value }            string: u64 size, bytes
 *   n_tensors × { string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset }
 *   padding to general.alignment (32 when absent), then the data that the offsets count in
 *
 * A value of type array is u32 element type, u64 count, elements.  Every count is only a claim:
 * nothing is allocated for it before the bytes behind it have been seen. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/gguf_value.h"
#include "model/weights_parts.h"

enum { KEY_MAX = 65535, MARK_STEP = RT_GGUF_MARK_STEP };

typedef struct reader {
    const unsigned char *data;
    size_t size, at;
    size_t whole; /* of the file; size is less when only its beginning is mapped */
    rt_error *err;
} reader;

static rt_status cut_off(reader *r, const char *what)
{
    return rt_error_set(r->err, RT_CORRUPT, "byte %zu: the file ends inside %s; is it whole?", r->at, what);
}

/* The next `size` bytes, or NULL with the error set. */
static const unsigned char *take(reader *r, size_t size, const char *what)
{
    if (size > r->size - r->at) {
        (void)cut_off(r, what);
        return NULL;
    }
    const unsigned char *out = r->data + r->at;
    r->at += size;
    return out;
}

static bool take_u32(reader *r, uint32_t *out, const char *what)
{
    const unsigned char *p = take(r, sizeof *out, what);
    if (p)
        memcpy(out, p, sizeof *out);
    return p != NULL;
}

static bool take_u64(reader *r, uint64_t *out, const char *what)
{
    const unsigned char *p = take(r, sizeof *out, what);
    if (p)
        memcpy(out, p, sizeof *out);
    return p != NULL;
}

static bool take_string(reader *r, const char **data, size_t *size, const char *what)
{
    uint64_t n;
    if (!take_u64(r, &n, what))
        return false;
    if (n > r->size - r->at) {
        (void)rt_error_set(r->err, RT_CORRUPT, "byte %zu: %s claims %llu bytes, the file has %zu more", r->at,
                           what, (unsigned long long)n, r->size - r->at);
        return false;
    }
    *data = (const char *)take(r, n, what);
    *size = n;
    return true;
}

static bool take_type(reader *r, rt_meta_type *out)
{
    uint32_t number;
    if (!take_u32(r, &number, "a metadata value"))
        return false;
    if (number >= RT_META_COUNT) {
        (void)rt_error_set(r->err, RT_CORRUPT, "byte %zu: metadata of type %u, which GGUF does not have",
                           r->at - 4, number);
        return false;
    }
    *out = (rt_meta_type)number;
    return true;
}

static rt_status take_bools(reader *r, size_t count)
{
    const unsigned char *p = take(r, count, "a metadata value");
    if (!p)
        return r->err->status;
    for (size_t i = 0; i < count; i++)
        if (p[i] > 1)
            return rt_error_set(r->err, RT_CORRUPT, "byte %zu: a truth value is %u, neither 0 nor 1",
                                (size_t)(p + i - r->data), p[i]);
    return RT_OK;
}

/* Strings that follow each other; marks gets the offset of each MARK_STEP-th, so that any is near. */
static rt_status take_strings(reader *r, size_t count, size_t **marks)
{
    const size_t begin = r->at;
    if (count > (r->size - r->at) / 8)
        return cut_off(r, "an array of strings");
    size_t *list = malloc((count / MARK_STEP + 1) * sizeof *list);
    if (!list)
        return rt_error_set(r->err, RT_NO_MEMORY, "no memory to index %zu strings", count);
    *marks = list;
    for (size_t i = 0; i < count; i++) {
        const char *data;
        size_t size;
        if (i % MARK_STEP == 0)
            list[i / MARK_STEP] = r->at - begin;
        if (!take_string(r, &data, &size, "a string"))
            return r->err->status;
    }
    return RT_OK;
}

/* Walks arrays of arrays without recursion: at each depth so many elements are still to come. */
static rt_status take_nested(reader *r, size_t count)
{
    enum { DEPTH_MAX = 8 };
    size_t left[DEPTH_MAX], depth = 0;
    left[0] = count;
    for (;;) {
        if (left[depth] == 0) {
            if (depth-- == 0)
                return RT_OK;
            continue;
        }
        left[depth]--;
        rt_meta_type type;
        uint64_t n;
        if (!take_type(r, &type) || !take_u64(r, &n, "a nested array"))
            return r->err->status;
        if (type == RT_META_ARRAY) {
            if (depth + 1 == DEPTH_MAX)
                return rt_error_set(r->err, RT_CORRUPT, "byte %zu: arrays nested more than %d deep", r->at,
                                    DEPTH_MAX);
            left[++depth] = n;
        } else if (type == RT_META_STRING) {
            const char *data;
            size_t size;
            for (uint64_t i = 0; i < n; i++)
                if (!take_string(r, &data, &size, "a nested array"))
                    return r->err->status;
        } else if (type == RT_META_BOOL) {
            if (take_bools(r, n) != RT_OK)
                return r->err->status;
        } else {
            size_t bytes;
            if (!rt_size_mul(n, rt_meta_type_bytes(type), &bytes) || !take(r, bytes, "a nested array"))
                return cut_off(r, "a nested array");
        }
    }
}

static rt_status take_array(reader *r, rt_meta *meta, size_t **marks)
{
    uint64_t count;
    size_t bytes;
    if (!take_type(r, &meta->element) || !take_u64(r, &count, "an array"))
        return r->err->status;
    const size_t begin = r->at;
    rt_status status;
    if (meta->element == RT_META_STRING)
        status = take_strings(r, count, marks);
    else if (meta->element == RT_META_ARRAY)
        status = take_nested(r, count);
    else if (meta->element == RT_META_BOOL)
        status = take_bools(r, count);
    else if (!rt_size_mul(count, rt_meta_type_bytes(meta->element), &bytes) || !take(r, bytes, "an array"))
        status = cut_off(r, "an array");
    else
        status = RT_OK;
    meta->count = count;
    meta->data = r->data + begin;
    meta->bytes = r->at - begin;
    return status;
}

static rt_status take_value(reader *r, rt_meta *meta, size_t **marks)
{
    if (!take_type(r, &meta->type))
        return r->err->status;
    if (meta->type == RT_META_ARRAY)
        return take_array(r, meta, marks);
    if (meta->type == RT_META_STRING) {
        const char *data = NULL;
        if (!take_string(r, &data, &meta->bytes, "a string"))
            return r->err->status;
        meta->data = data;
        meta->count = meta->bytes;
        return RT_OK;
    }
    meta->count = 1;
    meta->bytes = rt_meta_type_bytes(meta->type);
    meta->data = r->data + r->at;
    if (meta->type == RT_META_BOOL)
        return take_bools(r, 1);
    return take(r, meta->bytes, "a metadata value") ? RT_OK : r->err->status;
}

static bool grow_meta(rt_meta_list *meta)
{
    if (meta->count < meta->capacity)
        return true;
    const size_t capacity = meta->capacity + meta->capacity / 2 + 16;
    size_t bytes;
    if (!rt_size_mul(capacity, sizeof *meta->list, &bytes))
        return false;
    rt_meta *list = realloc(meta->list, bytes);
    if (list)
        meta->list = list;
    size_t **marks = realloc(meta->marks, capacity * sizeof(*marks));
    if (marks)
        meta->marks = marks;
    if (!list || !marks)
        return false;
    meta->capacity = capacity;
    return true;
}

static rt_status read_meta(reader *r, rt_meta_list *meta, uint64_t count)
{
    char shown[64];
    for (uint64_t i = 0; i < count; i++) {
        rt_meta entry = {0};
        if (!take_string(r, &entry.key, &entry.key_size, "a metadata key"))
            return r->err->status;
        if (entry.key_size == 0 || entry.key_size > KEY_MAX || memchr(entry.key, '\0', entry.key_size))
            return rt_error_set(r->err, RT_CORRUPT,
                                "byte %zu: a metadata key has %zu bytes (1 to %d are valid) or a NUL", r->at,
                                entry.key_size, KEY_MAX);
        if (!grow_meta(meta) || !rt_name_index_add(&meta->index, entry.key, entry.key_size))
            return rt_error_set(r->err, RT_NO_MEMORY, "no memory for %zu metadata entries", meta->count + 1);
        meta->marks[meta->count] = NULL;
        size_t **marks = &meta->marks[meta->count++]; /* counted at once, so that a failure frees it */
        const rt_status status = take_value(r, &entry, marks);
        meta->list[meta->count - 1] = entry;
        if (status != RT_OK)
            return rt_error_within(r->err, rt_name_shown(shown, entry.key, entry.key_size));
    }
    const rt_name_entry *twice = rt_name_index_seal(&meta->index);
    if (twice)
        return rt_error_set(r->err, RT_CORRUPT, "metadata \"%s\" is there twice",
                            rt_name_shown(shown, twice->name, twice->size));
    return RT_OK;
}

static rt_status read_alignment(const rt_weights *weights, size_t *out, rt_error *err)
{
    uint64_t alignment = RT_GGUF_ALIGNMENT;
    size_t position;
    static const char key[] = "general.alignment";
    if (rt_name_index_find(&weights->meta.index, key, sizeof key - 1, &position) &&
        !rt_weights_meta_u64(weights, key, &alignment))
        return rt_error_set(err, RT_CORRUPT, "%s is not a whole number", key);
    if (alignment == 0 || alignment > RT_GGUF_ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0)
        return rt_error_set(err, RT_CORRUPT, "%s is %llu; a power of two up to %d is valid", key,
                            (unsigned long long)alignment, RT_GGUF_ALIGNMENT_MAX);
    *out = alignment;
    return RT_OK;
}

typedef struct tensor_info {
    const char *name;
    size_t name_size;
    uint64_t offset;
    rt_weight weight;
} tensor_info;

static rt_status take_info(reader *r, tensor_info *info, size_t alignment)
{
    uint32_t n_dims, type;
    char shown[64];
    if (!take_string(r, &info->name, &info->name_size, "a tensor's name") ||
        !take_u32(r, &n_dims, "a tensor's record"))
        return r->err->status;
    (void)rt_name_shown(shown, info->name, info->name_size);
    if (n_dims > RT_DIMS_MAX)
        return rt_error_set(r->err, RT_CORRUPT, "tensor \"%s\": %u dimensions; GGUF has at most %d", shown,
                            n_dims, RT_DIMS_MAX);
    info->weight.n_dims = n_dims;
    for (uint32_t i = n_dims; i-- > 0;) {
        uint64_t dim;
        if (!take_u64(r, &dim, "a tensor's record"))
            return r->err->status;
        info->weight.shape[i] = dim;
    }
    if (!take_u32(r, &type, "a tensor's record") || !take_u64(r, &info->offset, "a tensor's record"))
        return r->err->status;
    if (!rt_dtype_from_gguf(&info->weight.dtype, type))
        return rt_error_set(
            r->err, RT_UNSUPPORTED,
            "tensor \"%s\": GGUF type %u cannot be read here; use a file of a type from Q2_K to F32", shown,
            type);
    if (info->offset % alignment != 0)
        return rt_error_set(r->err, RT_CORRUPT,
                            "tensor \"%s\": offset %llu is not a multiple of the alignment %zu", shown,
                            (unsigned long long)info->offset, alignment);
    return RT_OK;
}

/* Two passes: the data begin where the records end, which only a first walk finds. */
static rt_status read_tensors(reader *r, rt_weights *weights, uint64_t count)
{
    size_t alignment = RT_GGUF_ALIGNMENT;
    tensor_info info = {0};
    if (read_alignment(weights, &alignment, r->err) != RT_OK)
        return r->err->status;
    const size_t records = r->at;
    for (uint64_t i = 0; i < count; i++)
        if (take_info(r, &info, alignment) != RT_OK)
            return r->err->status;
    const size_t begin = rt_size_min(rt_size_round_up(r->at, alignment), r->whole);
    r->at = records;
    for (uint64_t i = 0; i < count; i++) {
        if (take_info(r, &info, alignment) != RT_OK ||
            rt_weights_append(weights, info.name, info.name_size, &info.weight, r->data + begin,
                              r->whole - begin, info.offset, r->err) != RT_OK)
            return r->err->status;
    }
    return rt_weights_check_layout(weights, 0, r->data + begin, r->whole - begin, false, r->err);
}

static rt_status read_version(reader *r)
{
    uint32_t version;
    if (!take(r, 4, "its magic") || !take_u32(r, &version, "its version"))
        return r->err->status;
    if (version == 2 || version == 3)
        return RT_OK;
    if ((version & 0xFFFFu) == 0)
        return rt_error_set(r->err, RT_UNSUPPORTED, "a big-endian GGUF file; convert it to little-endian");
    return rt_error_set(r->err, RT_UNSUPPORTED, "GGUF version %u; versions 2 and 3 are read here", version);
}

rt_status rt_gguf_read(rt_weights *weights, const unsigned char *data, size_t size, rt_error *err)
{
    reader r = {.data = data, .size = size, .whole = weights->whole ? weights->whole : size, .err = err};
    uint64_t n_tensors, n_meta;
    if (read_version(&r) != RT_OK || !take_u64(&r, &n_tensors, "its header") ||
        !take_u64(&r, &n_meta, "its header"))
        return err->status;
    const size_t rest = size - r.at;
    /* a record takes at least 25 bytes, a metadata entry 14 */
    if (n_tensors > rest / 25 || n_meta > rest / 14)
        return rt_error_set(err, RT_CORRUPT,
                            "claims %llu tensors and %llu metadata entries, too many for %zu bytes",
                            (unsigned long long)n_tensors, (unsigned long long)n_meta, size);
    if (read_meta(&r, &weights->meta, n_meta) != RT_OK)
        return err->status;
    return read_tensors(&r, weights, n_tensors);
}
