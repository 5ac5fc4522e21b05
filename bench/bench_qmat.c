/* bench/bench_qmat.c - the packed product: bytes a second for one row, operations a second for many.
 *
 * usage: bench_qmat [threads] [seconds a line].  Each line is the best of many runs, so that a busy neighbour
 * costs least.  "reading" is what this run's memory gives to a plain read of the same bytes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/size.h"
#include "tensor/cpu.h"
#include "tensor/qmat.h"

typedef struct job {
    rt_qmat *mat;
    float *x, *y;
    void *qact;
    size_t m, task_rows;
    uint64_t sum[64][8]; /* one line for each thread */
    const uint64_t *words;
    size_t n_words;
} job;

static void fail(const char *what)
{
    (void)fprintf(stderr, "bench_qmat: %s\n", what);
    exit(1);
}

static void *allocate(size_t bytes)
{
    void *out = aligned_alloc(64, rt_size_round_up(bytes, 64));
    if (!out)
        fail("no memory");
    return out;
}

static void multiply(void *context, size_t index, unsigned thread)
{
    (void)thread;
    job *j = context;
    const size_t rows = rt_qmat_rows(j->mat), begin = index * j->task_rows;
    rt_qmat_mul(j->y, rows, j->mat, begin, rt_size_min(rows, begin + j->task_rows), j->qact, j->m, false);
}

static void quantise(void *context, size_t index, unsigned thread)
{
    (void)thread;
    job *j = context;
    const size_t cols = rt_qmat_cols(j->mat);
    rt_qact_quantise_rows(j->qact, j->x, cols, j->m, cols, index * 64, rt_size_min(j->m, index * 64 + 64));
}

static void read_words(void *context, size_t index, unsigned thread)
{
    job *j = context;
    const size_t part = (size_t)1 << 15, end = rt_size_min(j->n_words, (index + 1) * part);
    uint64_t sums[8] = {0};
    for (size_t i = index * part; i + 8 <= end; i += 8) {
        for (size_t k = 0; k < 8; k++)
            sums[k] += j->words[i + k];
    }
    for (size_t k = 0; k < 8; k++)
        j->sum[thread % 64][k] += sums[k];
}

/* The best time of one rt_pool_run in a budget of seconds. */
static double best(rt_pool *pool, size_t tasks, rt_task_fn fn, job *j, double budget)
{
    double least = 1e30;
    const double begin = rt_clock_seconds();
    for (double now = begin; now - begin < budget;) {
        rt_pool_run(pool, tasks, fn, j);
        const double then = now;
        now = rt_clock_seconds();
        least = now - then < least ? now - then : least;
    }
    return least;
}

static rt_qmat *make(rt_dtype type, size_t rows, size_t cols, rt_pool *pool, double *pack_seconds)
{
    size_t bytes;
    rt_error err = {0};
    rt_qmat *mat = NULL;
    if (!rt_dtype_bytes(&bytes, type, rows * cols))
        fail("shape");
    uint8_t *blocks = allocate(bytes);
    rt_rng rng = rt_rng_make(1, 0);
    for (size_t i = 0; i < bytes; i++)
        blocks[i] = (uint8_t)(rt_rng_u32(&rng) & 0xBF); /* an f16 is then small and finite */
    const double begin = rt_clock_seconds();
    if (rt_qmat_pack(&mat, blocks, type, rows, cols, pool, &err) != RT_OK)
        fail(err.text);
    *pack_seconds = rt_clock_seconds() - begin;
    free(blocks);
    return mat;
}

static void bench_shape(rt_pool *pool, rt_dtype type, size_t rows, size_t cols, double budget)
{
    static const size_t batches[] = {1, 2, 4, 8, 16, 64, 256};
    double pack_seconds;
    job j = {.mat = make(type, rows, cols, pool, &pack_seconds)};
    j.x = allocate(256 * cols * sizeof *j.x);
    j.y = allocate(256 * rows * sizeof *j.y);
    j.qact = allocate(rt_qact_bytes(256, cols));
    rt_rng rng = rt_rng_make(2, 0);
    for (size_t i = 0; i < 256 * cols; i++)
        j.x[i] = (float)rt_rng_normal(&rng);
    const size_t strips = rt_size_ceil_div(rows, 16), parts = 4 * rt_pool_threads(pool);
    j.task_rows = 16 * rt_size_max(1, rt_size_ceil_div(strips, parts));
    const size_t tasks = rt_size_ceil_div(rows, j.task_rows);
    const double bytes = (double)rt_qmat_bytes(j.mat);
    printf("%s %6zu x %4zu  %7.2f MB  packed in %.2f ms\n", rt_dtype_get(type)->name, rows, cols,
           bytes * 1e-6, pack_seconds * 1e3);
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        j.m = batches[b];
        const double rounding = best(pool, rt_size_ceil_div(j.m, 64), quantise, &j, budget / 4);
        const double t = best(pool, tasks, multiply, &j, budget);
        printf("  m %3zu  %9.1f us  %6.1f GB/s  %6.1f GOP/s   rounding %6.2f us\n", j.m, t * 1e6,
               bytes / t * 1e-9, 2e-9 * (double)j.m * (double)rows * (double)cols / t, rounding * 1e6);
    }
    rt_qmat_free(j.mat);
    free(j.x);
    free(j.y);
    free(j.qact);
}

/* Every matrix of SmolLM2-135M once, in the model's order: what decoding reads for a token (96 MB). */
static void bench_model(rt_pool *pool, double budget)
{
    enum { LAYERS = 30, A_LAYER = 7, ALL = LAYERS * A_LAYER + 1 };
    static const size_t shapes[A_LAYER][2] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
                                              {1536, 576}, {1536, 576}, {576, 1536}};
    static const size_t batches[] = {1, 2, 4, 8, 16};
    rt_qmat *mats[ALL];
    double bytes = 0, seconds = 0, weights = 0;
    for (size_t i = 0; i < ALL; i++) {
        const bool head = i == ALL - 1;
        const size_t rows = head ? 49152 : shapes[i % A_LAYER][0], cols = head ? 576 : shapes[i % A_LAYER][1];
        double pack_seconds;
        mats[i] = make(head ? RT_Q8_0 : RT_Q4_1, rows, cols, pool, &pack_seconds);
        bytes += (double)rt_qmat_bytes(mats[i]);
        weights += (double)rows * (double)cols;
        seconds += pack_seconds;
    }
    job j = {.x = allocate(16 * 1536 * sizeof *j.x),
             .y = allocate(16 * 49152 * sizeof *j.y),
             .qact = allocate(rt_qact_bytes(16, 1536))};
    for (size_t i = 0; i < (size_t)16 * 1536; i++)
        j.x[i] = (float)(i % 19) - 9.0f;
    printf("SmolLM2-135M  %.2f MB  packed in %.2f ms\n", bytes * 1e-6, seconds * 1e3);
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        j.m = batches[b];
        double least = 1e30;
        const double begin = rt_clock_seconds();
        for (double now = begin; now - begin < 4 * budget;) {
            for (size_t i = 0; i < ALL; i++) {
                j.mat = mats[i];
                const size_t rows = rt_qmat_rows(j.mat), cols = rt_qmat_cols(j.mat);
                j.task_rows = 16 * rt_size_ceil_div(rows / 16, 4 * rt_pool_threads(pool));
                rt_qact_quantise(j.qact, j.x, cols, j.m, cols);
                rt_pool_run(pool, rt_size_ceil_div(rows, j.task_rows), multiply, &j);
            }
            const double then = now;
            now = rt_clock_seconds();
            least = now - then < least ? now - then : least;
        }
        printf("  m %3zu  %9.1f us  %6.1f GB/s  %6.1f GOP/s  %8.1f tokens/s if there were nothing else\n",
               j.m, least * 1e6, bytes / least * 1e-9, 2e-9 * (double)j.m * weights / least,
               (double)j.m / least);
    }
    for (size_t i = 0; i < ALL; i++)
        rt_qmat_free(mats[i]);
    free(j.x);
    free(j.y);
    free(j.qact);
}

static void bench_memory(rt_pool *pool, double budget)
{
    job j = {.n_words = (size_t)16 << 20};
    uint64_t *words = allocate(j.n_words * sizeof *words);
    memset(words, 1, j.n_words * sizeof *words);
    j.words = words;
    const double t = best(pool, j.n_words >> 15, read_words, &j, budget);
    printf("reading %zu MB: %.1f GB/s\n", j.n_words * 8 >> 20, (double)j.n_words * 8 / t * 1e-9);
    free(words);
}

int main(int argc, char **argv)
{
    const unsigned threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    const double budget = argc > 2 ? strtod(argv[2], NULL) : 0.3;
    rt_pool *pool = NULL;
    rt_error err = {0};
    if (rt_pool_open(&pool, threads, &err) != RT_OK)
        fail(err.text);
    printf("%s, %u threads\n", rt_cpu_name(rt_cpu_level()), rt_pool_threads(pool));
    bench_memory(pool, budget);
    bench_model(pool, budget);
    static const rt_dtype types[] = {RT_Q4_1, RT_Q8_0};
    for (size_t t = 0; t < 2; t++) {
        bench_shape(pool, types[t], 576, 576, budget);
        bench_shape(pool, types[t], 1536, 576, budget);
        bench_shape(pool, types[t], 576, 1536, budget);
        bench_shape(pool, types[t], 49152, 576, budget);
    }
    rt_pool_close(pool);
    return 0;
}
