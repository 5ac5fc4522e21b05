/* model/weights_plan.h - what the writers of GGUF and safetensors share: the tensors declared, where
 * each will lie, and how much of their data has come. */
#ifndef RT_MODEL_WEIGHTS_PLAN_H
#define RT_MODEL_WEIGHTS_PLAN_H

#include "base/file.h"
#include "tensor/dtype.h"

typedef struct rt_planned {
    char *name;
    rt_dtype dtype;
    size_t n_dims, shape[4]; /* row-major */
    size_t bytes, offset;    /* the offset counts from the first byte of data; set by rt_plan_seal */
} rt_planned;

typedef struct rt_plan {
    rt_planned *list;
    size_t count, capacity;
    bool sealed;
    size_t alignment;
    size_t at, given; /* the tensor whose data come next, and how many bytes of it have come */
} rt_plan;

rt_status rt_plan_add(rt_plan *plan, const char *name, rt_dtype dtype, size_t n_dims, const size_t *shape,
                      rt_error *err);
/* Gives each tensor its offset, a multiple of `alignment`; RT_INVALID when a name is there twice. */
rt_status rt_plan_seal(rt_plan *plan, size_t alignment, rt_error *err);
/* Writes the next `size` bytes of data, which must not pass the end of the tensor that is due, and
 * the padding behind a finished one. */
rt_status rt_plan_give(rt_plan *plan, rt_writer *writer, const void *data, size_t size, rt_error *err);
rt_status rt_plan_check_complete(const rt_plan *plan, rt_error *err);
void rt_plan_deinit(rt_plan *plan);

#endif
