/* model/safetensors_write.c - see safetensors_write.h; the format is drawn in safetensors.c. */
#include "model/safetensors_write.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/weights_plan.h"

struct rt_safetensors_writer {
    rt_writer file;
    rt_plan plan;
};

rt_status rt_safetensors_writer_open(rt_safetensors_writer **out, const char *path, rt_error *err)
{
    *out = NULL;
    rt_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to write it", path);
    if (rt_writer_open(&writer->file, path, err) != RT_OK) {
        free(writer);
        return err->status;
    }
    *out = writer;
    return RT_OK;
}

rt_status rt_safetensors_writer_tensor(rt_safetensors_writer *writer, const char *name, rt_dtype dtype,
                                       size_t n_dims, const size_t *shape, rt_error *err)
{
    if (rt_dtype_is_quantised(dtype))
        return rt_error_set(err, RT_INVALID,
                            "tensor \"%.100s\": safetensors has no type %s; use F32, F16 or BF16, or GGUF",
                            name, rt_dtype_get(dtype)->name);
    if (strcmp(name, "__metadata__") == 0)
        return rt_error_set(err, RT_INVALID, "tensor \"%s\": safetensors keeps this name for itself", name);
    return rt_plan_add(&writer->plan, name, dtype, n_dims, shape, err);
}

static json_t *describe(const rt_planned *tensor)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < tensor->n_dims; i++)
        (void)json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    const size_t end = tensor->offset + tensor->bytes;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", rt_dtype_get(tensor->dtype)->name, "shape", shape,
                     "data_offsets", (json_int_t)tensor->offset, (json_int_t)end);
}

static rt_status make_header(json_t **out, const rt_plan *plan, rt_error *err)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    *out = header;
    if (!header)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a header");
    for (size_t i = 0; i < plan->count; i++) {
        const rt_planned *tensor = &plan->list[i];
        const size_t size = rt_dtype_get(tensor->dtype)->block_bytes;
        if (tensor->offset % size != 0)
            return rt_error_set(err, RT_INVALID,
                                "tensor \"%.100s\": would begin at byte %zu, not a multiple of %zu; declare "
                                "wider types first",
                                tensor->name, tensor->offset, size);
        if (json_object_set_new(header, tensor->name, describe(tensor)) != 0)
            return rt_error_set(err, RT_INVALID,
                                "tensor \"%.100s\": its name is not UTF-8, or no memory for it",
                                tensor->name);
    }
    return RT_OK;
}

static rt_status write_header(rt_writer *file, const json_t *header, rt_error *err)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a header");
    const size_t size = strlen(text);
    const uint64_t padded = rt_size_round_up(size, 8);
    rt_status status = rt_writer_write(file, &padded, sizeof padded, err);
    if (status == RT_OK)
        status = rt_writer_write(file, text, size, err);
    if (status == RT_OK)
        status = rt_writer_write(file, "       ", padded - size, err);
    free(text);
    return status;
}

rt_status rt_safetensors_writer_begin(rt_safetensors_writer *writer, rt_error *err)
{
    if (rt_plan_seal(&writer->plan, 1, err) != RT_OK)
        return rt_error_within(err, writer->file.path);
    json_t *header;
    rt_status status = make_header(&header, &writer->plan, err);
    if (status == RT_OK)
        status = write_header(&writer->file, header, err);
    else
        (void)rt_error_within(err, writer->file.path);
    json_decref(header);
    return status;
}

rt_status rt_safetensors_writer_data(rt_safetensors_writer *writer, const void *data, size_t size,
                                     rt_error *err)
{
    return rt_plan_give(&writer->plan, &writer->file, data, size, err);
}

rt_status rt_safetensors_writer_commit(rt_safetensors_writer *writer, rt_error *err)
{
    rt_status status = rt_plan_check_complete(&writer->plan, err);
    if (status == RT_OK)
        status = rt_writer_commit(&writer->file, err);
    rt_safetensors_writer_abort(writer);
    return status;
}

void rt_safetensors_writer_abort(rt_safetensors_writer *writer)
{
    if (!writer)
        return;
    rt_writer_abort(&writer->file);
    rt_plan_deinit(&writer->plan);
    free(writer);
}
