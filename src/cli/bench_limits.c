/* cli/bench_limits.c - the machine's limits: matrix products in three types, and reading memory. */
#include "cli/bench.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/size.h"
#include "cli/measure.h"
#include "tensor/qmat.h"
#include "tensor/quant.h"

enum { INT8_M = 2048, INT8_N = 1536, INT8_K = 576, INT8_TASK_ROWS = 128 };
static const double seconds_each = 0.5;

typedef struct int8_work {
    const rt_qmat *mat;
    const void *qact;
    float *y;
} int8_work;

static void int8_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const int8_work *w = context;
    const size_t begin = index * INT8_TASK_ROWS;
    rt_qmat_mul(w->y, INT8_N, w->mat, begin, begin + INT8_TASK_ROWS, w->qact, INT8_M, false);
}

/* The product that prefill makes: Q4_1 weights, activations rounded before the clock starts. */
static rt_status measure_int8(double *ops_per_s, rt_pool *pool, rt_error *err)
{
    rt_arena arena;
    const size_t x_count = (size_t)INT8_M * INT8_K, w_count = (size_t)INT8_N * INT8_K;
    const size_t y_count = (size_t)INT8_M * INT8_N, qact_bytes = rt_qact_bytes(INT8_M, INT8_K);
    if (rt_arena_init(&arena, (x_count + 2 * w_count + y_count) * sizeof(float) + qact_bytes + 4096, err) !=
        RT_OK)
        return err->status;
    float *x = rt_arena_push_raw(&arena, x_count, sizeof *x), *w = rt_arena_push_raw(&arena, w_count, 4);
    void *blocks = rt_arena_push_raw(&arena, w_count, 4), *qact = rt_arena_push_raw(&arena, qact_bytes, 1);
    rt_rng rng = rt_rng_make(1, 0);
    for (size_t i = 0; i < x_count; i++)
        x[i] = (float)rt_rng_uniform(&rng) - 0.5f;
    for (size_t i = 0; i < w_count; i++)
        w[i] = (float)rt_rng_uniform(&rng) - 0.5f;
    rt_quantise(blocks, w, RT_Q4_1, w_count);
    rt_qact_quantise(qact, x, INT8_K, INT8_M, INT8_K);
    rt_qmat *mat;
    const rt_status status = rt_qmat_pack(&mat, blocks, RT_Q4_1, INT8_N, INT8_K, pool, err);
    if (status == RT_OK) {
        int8_work work = {mat, qact, rt_arena_push_raw(&arena, y_count, sizeof(float))};
        double best = 1e30;
        const double end = rt_clock_seconds() + seconds_each;
        for (double now = 0; now < end;) {
            const double from = rt_clock_seconds();
            rt_pool_run(pool, INT8_N / INT8_TASK_ROWS, int8_task, &work);
            now = rt_clock_seconds();
            best = now - from < best ? now - from : best;
        }
        *ops_per_s = 2.0 * INT8_M * INT8_N * INT8_K / best;
        rt_qmat_free(mat);
    }
    rt_arena_deinit(&arena);
    return status;
}

rt_status bench_limits_measure(bench_limits *out, rt_pool *pool, rt_error *err)
{
    if (cli_measure_gemm(&out->f32, pool, RT_F32, seconds_each, err) != RT_OK ||
        cli_measure_gemm(&out->bf16, pool, RT_BF16, seconds_each, err) != RT_OK ||
        cli_measure_read(&out->read, pool, seconds_each, err) != RT_OK)
        return err->status;
    return measure_int8(&out->int8, pool, err);
}

rt_status bench_gemm(bench *b, rt_error *err)
{
    (void)err;
    bench_add(b, &(bench_row){.name = "products, f32", .unit = "GFLOP/s", .value = b->limits.f32 * 1e-9});
    bench_add(b, &(bench_row){.name = "products, bf16", .unit = "GFLOP/s", .value = b->limits.bf16 * 1e-9});
    bench_add(b,
              &(bench_row){.name = "products, Q4_1 x int8", .unit = "GOP/s", .value = b->limits.int8 * 1e-9});
    bench_add(b, &(bench_row){.name = "reading memory", .unit = "GB/s", .value = b->limits.read * 1e-9});
    return RT_OK;
}
