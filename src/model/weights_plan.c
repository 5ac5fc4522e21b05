/* model/weights_plan.c - see weights_plan.h. */
#include "model/weights_plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/name_index.h"
#include "model/weights.h"
#include "model/weights_parts.h"

static rt_status plan_bytes(size_t *bytes, const char *name, rt_dtype dtype, size_t n_dims,
                            const size_t *shape, rt_error *err)
{
    const rt_dtype_info *info = rt_dtype_get(dtype);
    size_t elements = 1;
    for (size_t i = 0; i < n_dims; i++)
        if (!rt_size_mul(elements, shape[i], &elements))
            return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": its dimensions overflow", name);
    if ((n_dims ? shape[n_dims - 1] : 1) % info->block_elements != 0)
        return rt_error_set(
            err, RT_INVALID,
            "tensor \"%.100s\": rows of %zu elements do not divide into %s blocks of %zu; choose "
            "another type for it",
            name, shape[n_dims - 1], info->name, info->block_elements);
    if (!rt_dtype_bytes(bytes, dtype, elements))
        return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": its size overflows", name);
    return RT_OK;
}

rt_status rt_plan_add(rt_plan *plan, const char *name, rt_dtype dtype, size_t n_dims, const size_t *shape,
                      rt_error *err)
{
    const size_t name_size = strlen(name);
    rt_planned added = {.dtype = dtype, .n_dims = n_dims};
    if (plan->sealed)
        return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": declared after the data began", name);
    if (name_size == 0 || name_size > RT_TENSOR_NAME_MAX || n_dims > RT_DIMS_MAX)
        return rt_error_set(
            err, RT_INVALID,
            "tensor \"%.100s\": a name of 1 to %d bytes and at most %d dimensions can be written", name,
            RT_TENSOR_NAME_MAX, RT_DIMS_MAX);
    if (plan_bytes(&added.bytes, name, dtype, n_dims, shape, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n_dims; i++)
        added.shape[i] = shape[i];
    if (plan->count == plan->capacity) {
        const size_t capacity = plan->capacity * 2 + 16;
        rt_planned *list = realloc(plan->list, capacity * sizeof *list);
        if (!list)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a list of %zu tensors", capacity);
        plan->list = list;
        plan->capacity = capacity;
    }
    added.name = strdup(name);
    if (!added.name)
        return rt_error_set(err, RT_NO_MEMORY, "tensor \"%.100s\": no memory for its name", name);
    plan->list[plan->count++] = added;
    return RT_OK;
}

static rt_status check_names(const rt_plan *plan, rt_error *err)
{
    rt_name_index index = {0};
    rt_status status = RT_OK;
    for (size_t i = 0; i < plan->count && status == RT_OK; i++)
        if (!rt_name_index_add(&index, plan->list[i].name, strlen(plan->list[i].name)))
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu tensors", plan->count);
    const rt_name_entry *twice = rt_name_index_seal(&index);
    if (twice && status == RT_OK)
        status = rt_error_set(err, RT_INVALID, "tensor \"%.100s\": declared twice", twice->name);
    rt_name_index_deinit(&index);
    return status;
}

static void skip_empty(rt_plan *plan)
{
    while (plan->at < plan->count && plan->list[plan->at].bytes == 0)
        plan->at++;
}

rt_status rt_plan_seal(rt_plan *plan, size_t alignment, rt_error *err)
{
    size_t end = 0;
    if (plan->sealed)
        return rt_error_set(err, RT_INVALID, "the data have begun already");
    if (check_names(plan, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < plan->count; i++) {
        size_t padded;
        if (!rt_size_add(end, alignment - 1, &padded) ||
            !rt_size_add(rt_size_round_up(end, alignment), plan->list[i].bytes, &padded))
            return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": the file's size overflows",
                                plan->list[i].name);
        plan->list[i].offset = rt_size_round_up(end, alignment);
        end = padded;
    }
    plan->alignment = alignment;
    plan->sealed = true;
    skip_empty(plan);
    return RT_OK;
}

static rt_status pad(rt_writer *writer, size_t size, size_t alignment, rt_error *err)
{
    static const unsigned char zeros[256];
    size_t left = rt_size_round_up(size, alignment) - size;
    while (left) {
        const size_t n = rt_size_min(left, sizeof zeros);
        if (rt_writer_write(writer, zeros, n, err) != RT_OK)
            return err->status;
        left -= n;
    }
    return RT_OK;
}

rt_status rt_plan_give(rt_plan *plan, rt_writer *writer, const void *data, size_t size, rt_error *err)
{
    if (!plan->sealed)
        return rt_error_set(err, RT_INVALID, "data come before the header was written");
    if (size == 0)
        return RT_OK;
    if (plan->at == plan->count)
        return rt_error_set(err, RT_INVALID, "%zu bytes of data come after the last tensor", size);
    const rt_planned *due = &plan->list[plan->at];
    if (size > due->bytes - plan->given)
        return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": %zu bytes of data, it needs %zu more",
                            due->name, size, due->bytes - plan->given);
    if (rt_writer_write(writer, data, size, err) != RT_OK)
        return err->status;
    plan->given += size;
    if (plan->given < due->bytes)
        return RT_OK;
    plan->given = 0;
    plan->at++;
    skip_empty(plan);
    return pad(writer, due->bytes, plan->alignment, err);
}

rt_status rt_plan_check_complete(const rt_plan *plan, rt_error *err)
{
    if (!plan->sealed)
        return rt_error_set(err, RT_INVALID, "the header was not written");
    if (plan->at < plan->count)
        return rt_error_set(err, RT_INVALID, "tensor \"%.100s\": only %zu of its %zu bytes were given",
                            plan->list[plan->at].name, plan->given, plan->list[plan->at].bytes);
    return RT_OK;
}

void rt_plan_deinit(rt_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        free(plan->list[i].name);
    free(plan->list);
    *plan = (rt_plan){0};
}
