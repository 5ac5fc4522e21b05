/* cli/measure.c - see measure.h. */
#include "cli/measure.h"

#include <stdint.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/size.h"
#include "tensor/gemm.h"

enum {
    GEMM_M = 512,
    GEMM_N = 1536,
    GEMM_K = 576, /* SmolLM2-135M: n_ff and n_embd */
    GEMM_TASKS_PER_THREAD = 2,
    READ_BYTES = 256 << 20, /* past the last-level cache of most machines */
    READ_CHUNK = 1 << 20,
};

typedef struct gemm_work {
    const unsigned char *a, *b; /* a: one block a task */
    float *c;                   /* one block a task */
    size_t a_bytes;
    rt_dtype dtype;
} gemm_work;

static void gemm_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const gemm_work *work = context;
    const rt_gemm_spec spec = {.m = GEMM_M,
                               .n = GEMM_N,
                               .k = GEMM_K,
                               .lda = GEMM_K,
                               .ldb = GEMM_K,
                               .ldc = GEMM_N,
                               .ab = work->dtype,
                               .c = RT_F32,
                               .b_transposed = true};
    rt_gemm(&spec, work->a + index * work->a_bytes, work->b, work->c + index * GEMM_M * GEMM_N);
}

/* Values near 1 of either type: zeros and subnormals could be faster or slower than real ones. */
static void fill(void *data, size_t count, rt_dtype dtype)
{
    for (size_t i = 0; i < count; i++) {
        const float x = 0.5f + (float)(i % 64) / 128.0f;
        if (dtype == RT_BF16)
            ((rt_bf16 *)data)[i] = rt_f32_to_bf16(x);
        else
            ((float *)data)[i] = x;
    }
}

/* Runs the job again and again for `seconds`; the shortest time of one run. */
static double best_round(rt_pool *pool, size_t tasks, rt_task_fn fn, void *work, double seconds)
{
    rt_pool_run(pool, tasks, fn, work); /* compiles kernels, touches pages */
    double best = 1e30;
    const double end = rt_clock_seconds() + seconds;
    do {
        const double start = rt_clock_seconds();
        rt_pool_run(pool, tasks, fn, work);
        const double took = rt_clock_seconds() - start;
        best = took < best ? took : best;
    } while (rt_clock_seconds() < end);
    return best;
}

rt_status cli_measure_gemm(double *flops_per_s, rt_pool *pool, rt_dtype dtype, double seconds, rt_error *err)
{
    const size_t tasks = (size_t)GEMM_TASKS_PER_THREAD * rt_pool_threads(pool);
    const size_t element = rt_dtype_get(dtype)->block_bytes;
    const size_t a_bytes = element * GEMM_M * GEMM_K, b_bytes = element * GEMM_N * GEMM_K;
    const size_t c_bytes = sizeof(float) * GEMM_M * GEMM_N;
    rt_arena arena;
    if (rt_arena_init(&arena, tasks * (a_bytes + c_bytes) + b_bytes + 4096, err) != RT_OK)
        return err->status;
    unsigned char *a = rt_arena_push_raw(&arena, tasks, a_bytes);
    unsigned char *b = rt_arena_push_raw(&arena, 1, b_bytes);
    float *c = rt_arena_push_raw(&arena, tasks, c_bytes);
    fill(a, tasks * GEMM_M * GEMM_K, dtype);
    fill(b, (size_t)GEMM_N * GEMM_K, dtype);
    gemm_work work = {.a = a, .b = b, .c = c, .a_bytes = a_bytes, .dtype = dtype};
    const double best = best_round(pool, tasks, gemm_task, &work, seconds);
    *flops_per_s = 2.0 * GEMM_M * GEMM_N * GEMM_K * (double)tasks / best;
    rt_arena_deinit(&arena);
    return RT_OK;
}

typedef struct read_work {
    const uint64_t *data;
    uint64_t *sums; /* one a task: the reads must have a use */
} read_work;

static void read_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const read_work *work = context;
    const size_t n = READ_CHUNK / sizeof(uint64_t);
    const uint64_t *p = work->data + index * n;
    uint64_t sums[8] = {0}; /* eight chains: the adds must not be the limit */
    for (size_t i = 0; i < n; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += p[i + j];
    work->sums[index] = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

rt_status cli_measure_read(double *bytes_per_s, rt_pool *pool, double seconds, rt_error *err)
{
    const size_t tasks = READ_BYTES / READ_CHUNK;
    rt_arena arena;
    if (rt_arena_init(&arena, READ_BYTES + tasks * sizeof(uint64_t) + 4096, err) != RT_OK)
        return err->status;
    uint64_t *data = rt_arena_push_raw(&arena, 1, READ_BYTES);
    for (size_t i = 0; i < READ_BYTES / sizeof *data; i++)
        data[i] = i; /* pages that were never written share one page of zeros */
    read_work work = {.data = data, .sums = rt_arena_push(&arena, tasks, sizeof(uint64_t))};
    *bytes_per_s = (double)READ_BYTES / best_round(pool, tasks, read_task, &work, seconds);
    rt_arena_deinit(&arena);
    return RT_OK;
}
