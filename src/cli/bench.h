/* cli/bench.h - what `retort bench` measures, each figure beside what this machine could do at best.
 *
 * A figure is the median of several runs; a limit is the best of short runs in the same process.  Shares that
 * were measured beside a busy neighbour are therefore too low and never too high. */
#ifndef RT_CLI_BENCH_H
#define RT_CLI_BENCH_H

#include <jansson.h>

#include "base/pool.h"
#include "cli/draft.h"
#include "model/sampler.h"
#include "retort/error.h"

typedef struct bench_options {
    const char *model, *precision, *teacher_precision;
    size_t runs, tokens, threads, layers;
    size_t lora;             /* train: a step of adapters of this rank too; 0: none */
    cli_draft_options draft; /* of speculate, and so are the next ones */
    const char *prompts;
    size_t answer;
    rt_sampling sampling;
} bench_options;

typedef struct bench_limits { /* operations and bytes a second */
    double f32, bf16, int8, read;
} bench_limits;

/* What a bar is about: nothing, the share of the limit, the value from below, the value from above. */
typedef enum bench_bar { BENCH_NO_BAR, BENCH_SHARE, BENCH_AT_LEAST, BENCH_AT_MOST } bench_bar;

typedef struct bench_row {
    const char *name, *unit;
    double value, limit; /* limit 0: there is none */
    bench_bar bar;
    double must, aim;
} bench_row;

enum { BENCH_ROWS_MAX = 64 };
typedef struct bench {
    bench_options options;
    bool all; /* what cannot run without more options is left out */
    bench_limits limits;
    rt_pool *pool;
    bench_row rows[BENCH_ROWS_MAX];
    size_t count;
} bench;

void bench_add(bench *b, const bench_row *row);
/* The median of values[0..n), which are sorted. */
double bench_median(double *values, size_t n);
rt_status bench_limits_measure(bench_limits *out, rt_pool *pool, rt_error *err);

/* Each measures one thing and adds its rows. */
rt_status bench_gemm(bench *b, rt_error *err);
rt_status bench_prefill(bench *b, rt_error *err);
rt_status bench_decode(bench *b, rt_error *err);
rt_status bench_train(bench *b, rt_error *err);
rt_status bench_store(bench *b, rt_error *err);
rt_status bench_outputs(bench *b, rt_error *err);
rt_status bench_start(bench *b, rt_error *err);
rt_status bench_stream(bench *b, rt_error *err);
rt_status bench_moe(bench *b, rt_error *err);
rt_status bench_speculate(bench *b, rt_error *err);
rt_status bench_guard(bench *b, rt_error *err);
rt_status bench_mark(bench *b, rt_error *err);

#endif
