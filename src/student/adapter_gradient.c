/* student/adapter_gradient.c - the gradient of adapters, from what the gradient of their matrices would be
 * made of.  A task's result depends on its index alone; sums over tokens go in their order. */
#include <string.h>

#include "base/size.h"
#include "student/adapter_parts.h"

enum { TOKENS = 256, ROWS = 256, DORA_ROWS = 64 };

typedef struct gradient_job {
    const rt_adapters *a;
    const rt_adapter *adapter;
    const void *dy, *x; /* dy: of this matrix's first row, rows ld apart */
    size_t ld, n;       /* tokens */
} gradient_job;

const void *rt_adapters_act_at(const rt_adapters *a, const void *base, size_t index)
{
    return (const unsigned char *)base + index * rt_adapters_act_size(a);
}

static rt_dtype act_of(const rt_adapters *a) { return a->half ? RT_BF16 : RT_F32; }

/* u = x Aᵀ and w = dy (s c B) of a block of tokens. */
static void narrow_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const gradient_job *job = context;
    const rt_adapters *a = job->a;
    const size_t rank = a->options.rank, rows = job->adapter->param->rows, cols = job->adapter->param->cols;
    const size_t begin = index * TOKENS, n = rt_size_min(TOKENS, job->n - begin);
    const size_t out = begin * rank * rt_adapters_act_size(a);
    const rt_gemm_spec down = {.m = n,
                               .n = rank,
                               .k = cols,
                               .lda = cols,
                               .ldb = cols,
                               .ldc = rank,
                               .ab = act_of(a),
                               .c = act_of(a),
                               .b_transposed = true};
    rt_gemm(&down, rt_adapters_act_at(a, job->x, begin * cols),
            rt_adapters_act_at(a, a->acts, job->adapter->a), (unsigned char *)a->u + out);
    const rt_gemm_spec back = {.m = n,
                               .n = rank,
                               .k = rows,
                               .lda = job->ld,
                               .ldb = rank,
                               .ldc = rank,
                               .ab = act_of(a),
                               .c = act_of(a)};
    rt_gemm(&back, rt_adapters_act_at(a, job->dy, begin * job->ld),
            rt_adapters_act_at(a, a->acts, job->adapter->b), (unsigned char *)a->w + out);
}

/* c [m, n] (+)= aᵀ b over all tokens; a's rows lda apart, b's ldb, c's ldc. */
static void over_tokens(const gradient_job *job, const void *left, size_t lda, size_t m, const void *right,
                        size_t ldb, size_t n, float *c, size_t ldc, bool add)
{
    for (size_t t = 0; t < job->n; t += TOKENS) {
        const rt_gemm_spec spec = {.m = m,
                                   .n = n,
                                   .k = rt_size_min(TOKENS, job->n - t),
                                   .lda = lda,
                                   .ldb = ldb,
                                   .ldc = ldc,
                                   .ab = act_of(job->a),
                                   .c = RT_F32,
                                   .a_transposed = true,
                                   .accumulate = add || t > 0};
        rt_gemm(&spec, rt_adapters_act_at(job->a, left, t * lda), rt_adapters_act_at(job->a, right, t * ldb),
                c);
    }
}

/* Blocks of rows of dB, then blocks of columns of dA. */
static void wide_task(void *context, size_t index, unsigned thread)
{
    const gradient_job *job = context;
    const rt_adapters *a = job->a;
    const rt_adapter *adapter = job->adapter;
    const size_t rank = a->options.rank, rows = adapter->param->rows, cols = adapter->param->cols;
    const size_t row_blocks = rt_size_ceil_div(rows, ROWS);
    if (index >= row_blocks) {
        const size_t begin = (index - row_blocks) * ROWS;
        over_tokens(job, a->w, rank, rank, rt_adapters_act_at(a, job->x, begin), cols,
                    rt_size_min(ROWS, cols - begin), a->grads + adapter->a + begin, cols, true);
        return;
    }
    const size_t begin = index * ROWS, n = rt_size_min(ROWS, rows - begin);
    float *tile = rt_adapters_scratch(a, thread);
    over_tokens(job, rt_adapters_act_at(a, job->dy, begin), job->ld, n, a->u, rank, rank, tile, rank, false);
    for (size_t r = 0; r < n; r++) {
        const float scale = rt_adapters_scale(a) * (adapter->factors ? adapter->factors[begin + r] : 1);
        rt_ops_get()->axpy(a->grads + adapter->b + (begin + r) * rank, scale, tile + r * rank, rank);
    }
}

/* dm = rowsum(dW' W') / m. */
static void magnitude_task(void *context, size_t index, unsigned thread)
{
    const gradient_job *job = context;
    const rt_adapters *a = job->a;
    const rt_param *p = job->adapter->param;
    const size_t begin = index * DORA_ROWS, n = rt_size_min(DORA_ROWS, p->rows - begin), cols = p->cols;
    const size_t place = rt_adapters_place(a, p);
    float *tile = rt_adapters_scratch(a, thread), *room = tile + DORA_ROWS * cols;
    over_tokens(job, rt_adapters_act_at(a, job->dy, begin), job->ld, n, job->x, cols, cols, tile, cols,
                false);
    for (size_t r = 0; r < n; r++) {
        const size_t at = place + (begin + r) * cols;
        const float *row = a->half ? room : a->base + at, m = a->values[job->adapter->m + begin + r];
        if (a->half)
            rt_ops_get()->from_bf16(room, a->half + at, cols);
        if (m != 0)
            a->grads[job->adapter->m + begin + r] +=
                (float)(rt_ops_get()->dot(tile + r * cols, row, cols) / (double)m);
    }
}

void rt_adapters_gradient(void *context, size_t layer, const rt_weight_gradient *part)
{
    const rt_adapters *a = context;
    const rt_param *p = rt_layout_role(&a->layout, layer, part->role);
    for (size_t row = 0; row < part->rows; row += p->rows, p++) { /* matrices of a group lie together */
        const size_t index = a->index[p - a->layout.list];
        if (index == SIZE_MAX)
            continue;
        gradient_job job = {a,       &a->list[index], rt_adapters_act_at(a, part->dy, row),
                            part->x, part->rows,      part->n_tokens};
        rt_pool_run(a->pool, rt_size_ceil_div(job.n, TOKENS), narrow_task, &job);
        rt_pool_run(a->pool, rt_size_ceil_div(p->rows, ROWS) + rt_size_ceil_div(p->cols, ROWS), wide_task,
                    &job);
        if (job.adapter->norms)
            rt_pool_run(a->pool, rt_size_ceil_div(p->rows, DORA_ROWS), magnitude_task, &job);
    }
}
