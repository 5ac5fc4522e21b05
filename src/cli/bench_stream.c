/* cli/bench_stream.c - a model three times as large as the memory that its weights may take, streamed from
 * disk.
 *
 * The model has random bf16 weights and is written to a folder for temporary files; its limit is the disk's
 * own rate for the same file, past the page cache.  Few tokens, so that reading and not computing decides. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "model/export.h"
#include "model/stream.h"
#include "student/estimate.h"

enum { TOKENS = 32, LAYERS = 20, WIDTH = 1024, FF = 2816, RANDOM = 1 << 20 };

static rt_model_config stream_config(void)
{
    return (rt_model_config){.family = "llama",
                             .n_layers = LAYERS,
                             .n_embd = WIDTH,
                             .n_heads = 16,
                             .n_heads_kv = 4,
                             .head_dim = 64,
                             .n_ff = FF,
                             .n_vocab = 1024,
                             .n_context = 2048,
                             .norm_eps = 1e-5,
                             .gated_mlp = true,
                             .tied = true,
                             .attention_scale = 0.125,
                             .embed_scale = 1,
                             .rope = {.theta = 1e4},
                             .bos_id = -1,
                             .eos_id = -1,
                             .pad_id = -1};
}

/* Each tensor is a stretch of the same random numbers. */
static rt_status random_tensor(void *context, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const rt_model_config config = stream_config();
    size_t rows, cols;
    if (layer == RT_NO_LAYER)
        rt_global_shape(&config, (rt_global)which, &rows, &cols);
    else
        rt_role_shape(&config, 0, which, &rows, &cols);
    if (rows == 0)
        return rt_error_set(err, RT_NOT_FOUND, "the model has no such tensor");
    *out = (rt_canonical){.dtype = RT_F32, .rows = rows, .cols = cols, .data = context};
    return RT_OK;
}

static rt_status write_model(const char *dir, rt_pool *pool, rt_error *err)
{
    const rt_model_config config = stream_config();
    const size_t most = (size_t)WIDTH * FF;
    float *numbers = malloc(most * sizeof *numbers);
    if (!numbers)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a model to stream");
    rt_rng rng = rt_rng_make(5, 0);
    for (size_t i = 0; i < most; i++)
        numbers[i] = i < RANDOM ? (float)(0.02 * rt_rng_normal(&rng)) : numbers[i - RANDOM];
    const rt_export_source source = {
        .config = &config, .tensor = random_tensor, .context = numbers, .name = "bench"};
    const rt_export_options options = {.type = RT_BF16, .pool = pool};
    const rt_status status = rt_export_folder(&source, dir, &options, err);
    free(numbers);
    return status;
}

typedef struct measured {
    double pass_s, disk, layer_bytes, held;
} measured;

static rt_status run_passes(measured *out, const bench *b, rt_model *model, rt_error *err)
{
    rt_pass *pass = NULL;
    int32_t ids[TOKENS];
    const rt_segment segment = {.begin = 0, .count = TOKENS};
    const rt_batch batch = {ids, TOKENS, &segment, 1};
    float *states = malloc((size_t)TOKENS * WIDTH * sizeof *states);
    double *times = calloc(b->options.runs, sizeof *times);
    rt_status status = states && times ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a batch");
    for (size_t i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)(i * 7 % 1024);
    if (status == RT_OK)
        status = rt_pass_open(&pass, model, TOKENS, false, err);
    for (size_t run = 0; status == RT_OK && run <= b->options.runs; run++) {
        const double from = rt_clock_seconds();
        rt_forward_many(model, pass, &batch, 1, states);
        status = rt_stream_check(model, err);
        if (run > 0)
            times[run - 1] = rt_clock_seconds() - from;
    }
    if (status == RT_OK)
        out->pass_s = bench_median(times, b->options.runs);
    out->held = (double)rt_stream_stats_of(model).held_bytes;
    rt_pass_close(pass);
    free(states);
    free(times);
    return status;
}

static rt_status measure(measured *out, const bench *b, const char *file, const char *dir, rt_error *err)
{
    rt_weights *weights = NULL;
    rt_model *model = NULL;
    rt_status status = rt_stream_measure_disk(&out->disk, file, 1, err);
    if (status == RT_OK)
        status = rt_weights_open_headers(&weights, dir, err);
    double all = 0;
    for (size_t i = 0; status == RT_OK && i < rt_weights_count(weights); i++) {
        const rt_weight *w = rt_weights_at(weights, i);
        all += (double)w->bytes;
        out->layer_bytes += w->n_dims > 1 && !strstr(w->name, "embed") ? (double)w->bytes : 0;
    }
    const rt_stream_options options = {.memory_bytes = (size_t)(all / 3)};
    if (status == RT_OK)
        status = rt_model_open_streamed(&model, weights, RT_PRECISION_BF16, b->pool, &options, err);
    if (status == RT_OK)
        status = run_passes(out, b, model, err);
    rt_model_close(model);
    rt_weights_close(weights);
    return status;
}

static rt_status add_rows(bench *b, const measured *m, rt_error *err)
{
    const rt_model_config config = stream_config();
    rt_cost_shape shape;
    rt_cost_shape_of(&shape, &config);
    rt_machine machine = {.threads = rt_pool_threads(b->pool)};
    if (rt_machine_measure_load(&machine, RT_PRECISION_BF16, b->pool, err) != RT_OK ||
        rt_machine_measure_forward(&machine, RT_PRECISION_BF16, b->pool, err) != RT_OK)
        return err->status;
    const rt_estimate_stream_input in = {&shape, RT_PRECISION_BF16, &machine, m->disk, m->layer_bytes, TOKENS,
                                         TOKENS};
    rt_estimate_stream planned;
    rt_estimate_stream_pass(&planned, &in);
    bench_add(b, &(bench_row){.name = "layers streamed, 32 tokens",
                              .unit = "GB/s",
                              .value = m->layer_bytes / m->pass_s * 1e-9,
                              .limit = m->disk * 1e-9,
                              .bar = BENCH_SHARE,
                              .must = 0.7,
                              .aim = 0.9});
    bench_add(b, &(bench_row){.name = "that rate beside the planned one",
                              .unit = "of it",
                              .value = planned.pass_s / m->pass_s,
                              .bar = BENCH_AT_LEAST,
                              .must = 0.75,
                              .aim = 0.9});
    bench_add(b, &(bench_row){.name = "weights in memory, of the file",
                              .unit = "share",
                              .value = m->held / m->layer_bytes,
                              .bar = BENCH_AT_MOST,
                              .must = 0.333,
                              .aim = 0.25});
    return RT_OK;
}

rt_status bench_stream(bench *b, rt_error *err)
{
    static const char *const files[] = {"model.safetensors", "config.json", "generation_config.json"};
    const char *tmp = getenv("TMPDIR");
    char dir[256], path[512];
    (void)snprintf(dir, sizeof dir, "%.200s/retort-stream-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return rt_error_set(err, RT_IO, "%s: no folder for a model of 450 MB could be made", dir);
    measured m = {0};
    rt_status status = write_model(dir, b->pool, err);
    (void)snprintf(path, sizeof path, "%s/%s", dir, files[0]);
    if (status == RT_OK)
        status = measure(&m, b, path, dir, err);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        (void)remove(path);
    }
    (void)rmdir(dir);
    return status == RT_OK ? add_rows(b, &m, err) : status;
}
