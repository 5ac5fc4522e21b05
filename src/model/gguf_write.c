/* model/gguf_write.c - see gguf_write.h; the format is drawn in gguf.c. */
#include "model/gguf_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "model/gguf_value.h"
#include "model/name_index.h"
#include "model/weights_plan.h"

struct rt_gguf_writer {
    rt_writer file;
    rt_plan plan;
    rt_text meta; /* the entries as the file will hold them */
    rt_text keys; /* each with a NUL: to find a key put twice */
    uint64_t n_meta;
    size_t strings_due;    /* of the array of strings that was put last */
    bool strings_confused; /* too few or too many were added */
    size_t alignment;
};

rt_status rt_gguf_writer_open(rt_gguf_writer **out, const char *path, rt_error *err)
{
    *out = NULL;
    rt_gguf_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to write it", path);
    writer->alignment = RT_GGUF_ALIGNMENT;
    if (rt_writer_open(&writer->file, path, err) != RT_OK) {
        free(writer);
        return err->status;
    }
    *out = writer;
    return RT_OK;
}

static void put_u32(rt_text *text, uint32_t value) { rt_text_append(text, &value, sizeof value); }
static void put_u64(rt_text *text, uint64_t value) { rt_text_append(text, &value, sizeof value); }
static void put_string(rt_text *text, const char *data, size_t size)
{
    put_u64(text, size);
    rt_text_append(text, data, size);
}

static void put_key(rt_gguf_writer *writer, const char *key, size_t size, rt_meta_type type)
{
    if (writer->strings_due)
        writer->strings_confused = true;
    rt_text_append(&writer->keys, key, size);
    rt_text_append(&writer->keys, "", 1);
    put_string(&writer->meta, key, size);
    put_u32(&writer->meta, (uint32_t)type);
    writer->n_meta++;
}

void rt_gguf_writer_put(rt_gguf_writer *writer, const rt_meta *meta)
{
    static const char alignment[] = "general.alignment";
    put_key(writer, meta->key, meta->key_size, meta->type);
    if (meta->type == RT_META_ARRAY)
        put_u32(&writer->meta, (uint32_t)meta->element);
    if (meta->type == RT_META_ARRAY || meta->type == RT_META_STRING)
        put_u64(&writer->meta, meta->count);
    rt_text_append(&writer->meta, meta->data, meta->bytes);
    if (meta->type == RT_META_U32 && meta->key_size == sizeof alignment - 1 &&
        memcmp(meta->key, alignment, meta->key_size) == 0) {
        uint32_t value;
        memcpy(&value, meta->data, sizeof value);
        writer->alignment = value;
    }
}

static void put_value(rt_gguf_writer *writer, const char *key, rt_meta_type type, const void *data,
                      size_t size)
{
    const rt_meta meta = {
        .key = key, .key_size = strlen(key), .type = type, .count = size, .data = data, .bytes = size};
    rt_gguf_writer_put(writer, &meta);
}

void rt_gguf_writer_string(rt_gguf_writer *writer, const char *key, const char *value)
{
    put_value(writer, key, RT_META_STRING, value, strlen(value));
}

void rt_gguf_writer_u32(rt_gguf_writer *writer, const char *key, uint32_t value)
{
    put_value(writer, key, RT_META_U32, &value, sizeof value);
}

void rt_gguf_writer_f32(rt_gguf_writer *writer, const char *key, float value)
{
    put_value(writer, key, RT_META_F32, &value, sizeof value);
}

void rt_gguf_writer_bool(rt_gguf_writer *writer, const char *key, bool value)
{
    const unsigned char byte = value;
    put_value(writer, key, RT_META_BOOL, &byte, 1);
}

void rt_gguf_writer_numbers(rt_gguf_writer *writer, const char *key, rt_meta_type element, const void *values,
                            size_t count)
{
    const rt_meta meta = {.key = key,
                          .key_size = strlen(key),
                          .type = RT_META_ARRAY,
                          .element = element,
                          .count = count,
                          .data = values,
                          .bytes = count * rt_meta_type_bytes(element)};
    rt_gguf_writer_put(writer, &meta);
}

void rt_gguf_writer_strings(rt_gguf_writer *writer, const char *key, size_t count)
{
    put_key(writer, key, strlen(key), RT_META_ARRAY);
    put_u32(&writer->meta, RT_META_STRING);
    put_u64(&writer->meta, count);
    writer->strings_due = count;
}

void rt_gguf_writer_strings_add(rt_gguf_writer *writer, const char *data, size_t size)
{
    if (writer->strings_due == 0) {
        writer->strings_confused = true;
        return;
    }
    writer->strings_due--;
    put_string(&writer->meta, data, size);
}

rt_status rt_gguf_writer_tensor(rt_gguf_writer *writer, const char *name, rt_dtype dtype, size_t n_dims,
                                const size_t *shape, rt_error *err)
{
    if (rt_dtype_get(dtype)->gguf < 0)
        return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": GGUF has no type %s", name,
                            rt_dtype_get(dtype)->name);
    return rt_plan_add(&writer->plan, name, dtype, n_dims, shape, err);
}

static rt_status check_meta(const rt_gguf_writer *writer, rt_error *err)
{
    rt_name_index index = {0};
    rt_status status = RT_OK;
    if (writer->meta.failed || writer->keys.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the metadata");
    if (writer->strings_confused || writer->strings_due)
        return rt_error_set(err, RT_INVALID,
                            "an array of strings got another number of strings than it was made for");
    if (writer->alignment == 0 || (writer->alignment & (writer->alignment - 1)) != 0 ||
        writer->alignment > RT_GGUF_ALIGNMENT_MAX)
        return rt_error_set(err, RT_INVALID, "general.alignment is %zu; a power of two up to %d is valid",
                            writer->alignment, RT_GGUF_ALIGNMENT_MAX);
    for (size_t at = 0; at < writer->keys.size && status == RT_OK;) {
        const char *key = writer->keys.data + at;
        at += strlen(key) + 1;
        if (!rt_name_index_add(&index, key, strlen(key)))
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for an index of metadata");
    }
    const rt_name_entry *twice = rt_name_index_seal(&index);
    if (twice && status == RT_OK)
        status = rt_error_set(err, RT_INVALID, "metadata \"%.100s\": put twice", twice->name);
    rt_name_index_deinit(&index);
    return status;
}

static void put_tensor(rt_text *text, const rt_planned *tensor)
{
    put_string(text, tensor->name, strlen(tensor->name));
    put_u32(text, (uint32_t)tensor->n_dims);
    for (size_t i = tensor->n_dims; i-- > 0;)
        put_u64(text, tensor->shape[i]);
    put_u32(text, (uint32_t)rt_dtype_get(tensor->dtype)->gguf);
    put_u64(text, tensor->offset);
}

/* What comes before the data: the counts, the metadata, the records, padding. */
static rt_status write_head(rt_gguf_writer *writer, rt_error *err)
{
    rt_text head = {0};
    rt_text_append(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, writer->plan.count);
    put_u64(&head, writer->n_meta);
    rt_text_append(&head, writer->meta.data, writer->meta.size);
    for (size_t i = 0; i < writer->plan.count; i++)
        put_tensor(&head, &writer->plan.list[i]);
    while (head.size % writer->alignment != 0 && !head.failed)
        rt_text_append(&head, "", 1);
    const rt_status status = head.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the file's header")
                                         : rt_writer_write(&writer->file, head.data, head.size, err);
    rt_text_deinit(&head);
    return status;
}

rt_status rt_gguf_writer_begin(rt_gguf_writer *writer, rt_error *err)
{
    if (check_meta(writer, err) != RT_OK || rt_plan_seal(&writer->plan, writer->alignment, err) != RT_OK)
        return rt_error_within(err, writer->file.path);
    return write_head(writer, err);
}

rt_status rt_gguf_writer_data(rt_gguf_writer *writer, const void *data, size_t size, rt_error *err)
{
    return rt_plan_give(&writer->plan, &writer->file, data, size, err);
}

rt_status rt_gguf_writer_commit(rt_gguf_writer *writer, rt_error *err)
{
    rt_status status = rt_plan_check_complete(&writer->plan, err);
    if (status == RT_OK)
        status = rt_writer_commit(&writer->file, err);
    rt_gguf_writer_abort(writer);
    return status;
}

void rt_gguf_writer_abort(rt_gguf_writer *writer)
{
    if (!writer)
        return;
    rt_writer_abort(&writer->file);
    rt_plan_deinit(&writer->plan);
    rt_text_deinit(&writer->meta);
    rt_text_deinit(&writer->keys);
    free(writer);
}
