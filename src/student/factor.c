/* student/factor.c - see factor.h.  A task's result depends on its index alone. */
#include "student/factor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "student/init.h"
#include "tensor/gemm.h"
#include "tensor/ops.h"

enum { ALIGN = 64, ROWS = 256, COLS = 64 };

/* ---- where things lie ---- */

static bool is_factored(const rt_param *p)
{
    return p->layer == RT_NO_LAYER && (p->which == RT_GLOBAL_EMBED || p->which == RT_GLOBAL_HEAD);
}

/* The list without E in front and E behind; returns how many stay in front. */
static rt_status reorder(rt_layout *layout, size_t *n_kept, rt_error *err)
{
    rt_param moved[RT_FACTORS_MAX];
    size_t kept = 0, n_moved = 0, before_layers = 0;
    for (size_t i = 0; i < layout->count; i++) {
        const rt_param p = layout->list[i];
        if (!is_factored(&p)) {
            layout->list[kept++] = p;
            continue;
        }
        if (n_moved == RT_FACTORS_MAX)
            return rt_error_set(err, RT_INVALID, "a model with more than one embedding and one head");
        before_layers += i < layout->first[0];
        moved[n_moved++] = p;
    }
    memcpy(layout->list + kept, moved, n_moved * sizeof *moved);
    for (size_t l = 0; l < layout->n_layers; l++) {
        layout->first[l] -= before_layers;
        layout->experts[l] -= before_layers;
    }
    *n_kept = kept;
    return RT_OK;
}

rt_status rt_factors_place(rt_factors *out, rt_layout *layout, size_t rank, size_t more, rt_error *err)
{
    size_t kept = 0, at = 0;
    *out = (rt_factors){.rank = rank};
    if (reorder(layout, &kept, err) != RT_OK)
        return err->status;
    const size_t gap = kept ? layout->list[0].offset / ALIGN * ALIGN : 0; /* where the embedding was */
    for (size_t i = 0; i < kept; i++) {
        layout->list[i].offset -= gap;
        at = layout->list[i].offset + layout->list[i].count;
    }
    for (size_t i = kept; i < layout->count; i++) {
        const rt_param *p = &layout->list[i];
        if (rank == 0 || rank >= rt_size_min(p->rows, p->cols) || rank * (p->rows + p->cols) >= p->count)
            return rt_error_set(err, RT_INVALID,
                                "student.embd_rank %zu: two factors of an embedding of %zu x %zu hold fewer "
                                "values than it only below rank %zu",
                                rank, p->rows, p->cols, rt_size_ceil_div(p->count, p->rows + p->cols));
        rt_factor *f = &out->list[out->count++];
        f->param = i;
        f->a = rt_size_round_up(at, ALIGN);
        f->b = rt_size_round_up(f->a + p->rows * rank, ALIGN);
        at = f->b + rank * p->cols;
    }
    out->trained = rt_size_round_up(at, ALIGN);
    at = out->trained + more;
    for (size_t i = kept; i < layout->count; i++) {
        layout->list[i].offset = rt_size_round_up(at, ALIGN);
        at = layout->list[i].offset + layout->list[i].count;
        out->merged += layout->list[i].count;
    }
    layout->total = rt_size_round_up(at, ALIGN);
    return RT_OK;
}

/* ---- products ---- */

typedef struct factor_job {
    const rt_factor *factor;
    const rt_param *param;
    size_t rank;
    float *values, *grads;
    rt_bf16 *half;
    const float *right; /* start: [cols, rank] */
    double *gram;       /* start: [cols, cols] */
} factor_job;

static factor_job job_of(const rt_factors *factors, const rt_layout *layout, size_t i, float *values)
{
    const rt_factor *f = &factors->list[i];
    return (factor_job){
        .factor = f, .param = &layout->list[f->param], .rank = factors->rank, .values = values};
}

/* c [m, n] (+)= a b, or with transposed operands, all float32. */
static void product(float *c, size_t ldc, const float *a, size_t lda, bool a_transposed, const float *b,
                    size_t ldb, bool b_transposed, const size_t shape[3], bool add)
{
    const rt_gemm_spec spec = {.m = shape[0],
                               .n = shape[1],
                               .k = shape[2],
                               .lda = lda,
                               .ldb = ldb,
                               .ldc = ldc,
                               .ab = RT_F32,
                               .c = RT_F32,
                               .a_transposed = a_transposed,
                               .b_transposed = b_transposed,
                               .accumulate = add};
    rt_gemm(&spec, a, b, c);
}

static void merge_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const factor_job *job = context;
    const size_t rank = job->rank, cols = job->param->cols, row = index * ROWS;
    const size_t n = rt_size_min(ROWS, job->param->rows - row), at = job->param->offset + row * cols;
    product(job->values + at, cols, job->values + job->factor->a + row * rank, rank, false,
            job->values + job->factor->b, cols, false, (const size_t[]){n, cols, rank}, false);
    if (job->half)
        rt_ops_get()->to_bf16(job->half + at, job->values + at, n * cols);
}

void rt_factors_merge(const rt_factors *factors, const rt_layout *layout, float *values, rt_bf16 *half,
                      rt_pool *pool)
{
    for (size_t i = 0; i < factors->count; i++) {
        factor_job job = job_of(factors, layout, i, values);
        job.half = half;
        rt_pool_run(pool, rt_size_ceil_div(job.param->rows, ROWS), merge_task, &job);
    }
}

/* dB, a block of its columns a task: all rows in their order. */
static void gradient_b_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const factor_job *job = context;
    const size_t rank = job->rank, cols = job->param->cols, col = index * COLS;
    const size_t n = rt_size_min(COLS, cols - col);
    for (size_t row = 0; row < job->param->rows; row += ROWS)
        product(job->grads + job->factor->b + col, cols, job->values + job->factor->a + row * rank, rank,
                true, job->grads + job->param->offset + row * cols + col, cols, false,
                (const size_t[]){rank, n, rt_size_min(ROWS, job->param->rows - row)}, true);
}

/* dA, and nothing is left of dE. */
static void gradient_a_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const factor_job *job = context;
    const size_t rank = job->rank, cols = job->param->cols, row = index * ROWS;
    const size_t n = rt_size_min(ROWS, job->param->rows - row);
    float *de = job->grads + job->param->offset + row * cols;
    product(job->grads + job->factor->a + row * rank, rank, de, cols, false, job->values + job->factor->b,
            cols, true, (const size_t[]){n, rank, cols}, true);
    memset(de, 0, n * cols * sizeof *de);
}

void rt_factors_gradient(const rt_factors *factors, const rt_layout *layout, const float *values,
                         float *grads, rt_pool *pool)
{
    for (size_t i = 0; i < factors->count; i++) {
        factor_job job = job_of(factors, layout, i, (float *)values); /* only read */
        job.grads = grads;
        rt_pool_run(pool, rt_size_ceil_div(job.param->cols, COLS), gradient_b_task, &job);
        rt_pool_run(pool, rt_size_ceil_div(job.param->rows, ROWS), gradient_a_task, &job);
    }
}

/* ---- the start ---- */

/* Rows [index * COLS, ...) of EᵀE, from the diagonal on. */
static void gram_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const factor_job *job = context;
    const size_t cols = job->param->cols, end = rt_size_min((index + 1) * COLS, cols);
    const float *e = job->values + job->param->offset;
    for (size_t r = 0; r < job->param->rows; r++, e += cols)
        for (size_t i = index * COLS; i < end; i++) {
            const double x = e[i];
            double *out = job->gram + i * cols;
            for (size_t k = i; k < cols; k++)
                out[k] += x * (double)e[k];
        }
}

static void project_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const factor_job *job = context;
    const size_t rank = job->rank, cols = job->param->cols, row = index * ROWS;
    product(job->values + job->factor->a + row * rank, rank, job->values + job->param->offset + row * cols,
            cols, false, job->right, rank, false,
            (const size_t[]){rt_size_min(ROWS, job->param->rows - row), rank, cols}, false);
}

/* From the eigenvectors V of EᵀE, whose eigenvalues are the squares of E's singular values: B = sqrt(S) Vᵀ
 * and A = E V / sqrt(S). */
static rt_status start_one(factor_job *job, rt_pool *pool, rt_error *err)
{
    const size_t rank = job->rank, cols = job->param->cols;
    double *gram = calloc(cols, cols * sizeof *gram), *left = calloc(cols, rank * sizeof *left);
    double *right = calloc(rank, cols * sizeof *right), *singular = calloc(cols, sizeof *singular);
    float *wide = calloc(cols, rank * sizeof *wide);
    rt_status status =
        gram && left && right && singular && wide
            ? RT_OK
            : rt_error_set(err, RT_NO_MEMORY, "no memory to factor an embedding %zu wide", cols);
    if (status == RT_OK) {
        job->gram = gram;
        rt_pool_run(pool, rt_size_ceil_div(cols, COLS), gram_task, job);
        for (size_t i = 0; i < cols; i++)
            for (size_t k = 0; k < i; k++)
                gram[i * cols + k] = gram[k * cols + i];
        status = rt_svd_factor(left, right, singular, gram, cols, cols, rank, err);
    }
    for (size_t r = 0; status == RT_OK && r < rank; r++) {
        const double root = sqrt(sqrt(singular[r])); /* of E's singular value */
        for (size_t i = 0; i < cols && root > 0; i++) {
            const double v = right[r * cols + i] / (root * root);
            wide[i * rank + r] = (float)(v / root);
            job->values[job->factor->b + r * cols + i] = (float)(v * root);
        }
    }
    if (status == RT_OK) {
        job->right = wide;
        rt_pool_run(pool, rt_size_ceil_div(job->param->rows, ROWS), project_task, job);
    }
    free(gram);
    free(left);
    free(right);
    free(singular);
    free(wide);
    return status;
}

rt_status rt_factors_start(const rt_factors *factors, const rt_layout *layout, float *values, rt_pool *pool,
                           rt_error *err)
{
    for (size_t i = 0; i < factors->count; i++) {
        factor_job job = job_of(factors, layout, i, values);
        if (start_one(&job, pool, err) != RT_OK)
            return rt_error_within(err, "student.embd_rank");
    }
    return RT_OK;
}
