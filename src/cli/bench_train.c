/* cli/bench_train.c - the training step: a teacher, a student of some of its layers, 4 x 512 tokens, the
 * forward KL over the whole vocabulary.
 *
 * The limit counts two operations a weight of the teacher and six a weight of the student for each token, at
 * the rate of bf16 products: 651 MFLOP for SmolLM2 and ten of its layers.  Adapters have no gradient of the
 * frozen weights: four a weight of the student, and six a trained value. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/open_model.h"
#include "student/trainer.h"

enum { SEQUENCES = 4, LENGTH = 512, TOKENS = SEQUENCES * LENGTH, LAYERS_MAX = 512 };

typedef struct step_batch {
    int32_t ids[TOKENS], labels[TOKENS];
    uint32_t rows[TOKENS];
    double scales[TOKENS];
    rt_segment segments[SEQUENCES];
} step_batch;

/* An even choice that keeps the first and the last layer. */
static void choose_layers(size_t *map, size_t n, size_t of)
{
    for (size_t i = 0; i < n; i++)
        map[i] = n > 1 ? (i * (of - 1) + (n - 1) / 2) / (n - 1) : 0;
}

/* One way of training the student: whole, or adapters alone. */
typedef struct way {
    rt_adapters *adapters; /* NULL: whole */
    rt_trainer *trainer;
} way;

static void way_close(way *w)
{
    rt_trainer_close(w->trainer);
    rt_adapters_close(w->adapters);
}

static rt_status open_adapters(way *w, const bench *b, const cli_model *teacher,
                               const rt_model_config *config, const size_t *map, rt_error *err)
{
    const rt_adapter_options options = {.kind = RT_ADAPTER_LORA,
                                        .rank = b->options.lora,
                                        .alpha = 16,
                                        .targets = (1U << RT_ADAPTER_TARGETS) - 1,
                                        .tokens_max = TOKENS,
                                        .precision = RT_PRECISION_BF16};
    return rt_adapters_open(&w->adapters, &options, config, teacher->weights, &teacher->model->config, map,
                            b->pool, err);
}

static rt_status fill_student(way *w, const bench *b, const cli_model *teacher, const size_t *map,
                              rt_error *err)
{
    rt_trainer *t = w->trainer;
    if (w->adapters)
        return rt_adapters_start(w->adapters, t->values, err);
    const rt_status status = rt_params_load(t->values, &t->layout, &t->config, teacher->weights,
                                            &teacher->model->config, map, b->pool, err);
    return status == RT_OK ? rt_trainer_start(t, err) : status;
}

static rt_status make_student(way *w, const bench *b, const cli_model *teacher, bool lora, rt_error *err)
{
    const rt_model_config *file_config = &teacher->model->config;
    size_t map[LAYERS_MAX];
    rt_model_config config = *file_config;
    config.n_layers = b->options.layers;
    if (config.n_layers == 0 || config.n_layers > file_config->n_layers || config.n_layers > LAYERS_MAX)
        return rt_error_set(err, RT_INVALID, "bench: --layers %zu is not in 1..%zu", config.n_layers,
                            file_config->n_layers);
    choose_layers(map, config.n_layers, file_config->n_layers);
    if (lora && open_adapters(w, b, teacher, &config, map, err) != RT_OK)
        return rt_error_within(err, "bench: --lora");
    const rt_trainer_options options = {
        .mix = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_FKL, .tau = 1}}}},
        .adamw = {1e-5, 0.9, 0.95, 1e-8, 0.1},
        .schedule = {.kind = RT_SCHEDULE_CONSTANT},
        .clip = 1,
        .precision = RT_PRECISION_BF16,
        .tokens_max = TOKENS,
        .adapters = w->adapters};
    if (rt_trainer_open(&w->trainer, &config, teacher->model, &options, b->pool, err) != RT_OK)
        return err->status;
    return fill_student(w, b, teacher, map, err);
}

static void fill_batch(step_batch *batch, size_t n_vocab, uint64_t step)
{
    rt_rng rng = rt_rng_make(1, step);
    for (size_t i = 0; i < TOKENS; i++) {
        batch->ids[i] = (int32_t)rt_rng_below(&rng, n_vocab);
        batch->labels[i] = -1;
        batch->rows[i] = (uint32_t)i;
        batch->scales[i] = 1.0 / TOKENS;
    }
    for (size_t i = 0; i < SEQUENCES; i++)
        batch->segments[i] = (rt_segment){.begin = i * LENGTH, .count = LENGTH};
}

static rt_status run_steps(double *seconds, const bench *b, rt_trainer *trainer, rt_error *err)
{
    step_batch *batch = malloc(sizeof *batch);
    double *times = calloc(b->options.runs, sizeof *times);
    rt_status status = batch && times ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a batch");
    for (size_t run = 0; run <= b->options.runs && status == RT_OK; run++) { /* the first one warms up */
        fill_batch(batch, trainer->config.n_vocab, run);
        const rt_batch tokens = {batch->ids, TOKENS, batch->segments, SEQUENCES};
        const rt_head_rows rows = {
            .rows = batch->rows, .labels = batch->labels, .scales = batch->scales, .n = TOKENS};
        rt_step_report report;
        const double from = rt_clock_seconds();
        status = rt_trainer_accumulate(trainer, &tokens, &rows, err);
        if (status == RT_OK)
            status = rt_trainer_update(trainer, &report, err);
        if (run > 0)
            times[run - 1] = rt_clock_seconds() - from;
    }
    *seconds = status == RT_OK ? bench_median(times, b->options.runs) : 0;
    free(batch);
    free(times);
    return status;
}

/* Operations a token of the step. */
static double step_flops(const way *w, const rt_layout *teacher)
{
    const double student = (double)w->trainer->layout.total;
    const double trained = w->adapters ? (double)rt_adapters_total(w->adapters) : student;
    return 2 * (double)teacher->total + (w->adapters ? 4 * student : 0) + 6 * trained;
}

static rt_status measure_whole(bench *b, const cli_model *teacher, const rt_layout *layout, rt_error *err)
{
    way w = {0};
    double seconds = 0;
    rt_status status = make_student(&w, b, teacher, false, err);
    if (status == RT_OK)
        status = run_steps(&seconds, b, w.trainer, err);
    if (status == RT_OK) {
        bench_add(b, &(bench_row){.name = b->options.teacher_precision[0] == 'i'
                                              ? "training step, teacher in int8"
                                              : "training step, teacher in bf16",
                                  .unit = "tokens/s",
                                  .value = TOKENS / seconds,
                                  .limit = b->limits.bf16 / step_flops(&w, layout),
                                  .bar = BENCH_SHARE,
                                  .must = 0.65,
                                  .aim = 0.9});
        bench_add(b, &(bench_row){.name = "peak memory of the training step",
                                  .unit = "GiB",
                                  .value = (double)rt_peak_memory_bytes() / (1 << 30),
                                  .bar = BENCH_AT_MOST,
                                  .must = 2.0,
                                  .aim = 1.3});
    }
    way_close(&w);
    return status;
}

/* The peak of the process is the whole step's; a trainer's own bytes can be told apart. */
static rt_status measure_lora(bench *b, const cli_model *teacher, const rt_layout *layout, rt_error *err)
{
    way w = {0};
    double seconds = 0;
    if (b->options.lora == 0)
        return RT_OK;
    rt_status status = make_student(&w, b, teacher, true, err);
    if (status == RT_OK)
        status = run_steps(&seconds, b, w.trainer, err);
    if (status == RT_OK) {
        bench_add(b, &(bench_row){.name = "training step of LoRA adapters",
                                  .unit = "tokens/s",
                                  .value = TOKENS / seconds,
                                  .limit = b->limits.bf16 / step_flops(&w, layout)});
        bench_add(b, &(bench_row){.name = "values that LoRA trains",
                                  .unit = "M",
                                  .value = (double)rt_adapters_total(w.adapters) / 1e6});
        bench_add(b, &(bench_row){.name = "memory of LoRA's trainer",
                                  .unit = "GiB",
                                  .value = (double)rt_trainer_bytes(w.trainer) / (1 << 30)});
    }
    way_close(&w);
    return status;
}

rt_status bench_train(bench *b, rt_error *err)
{
    cli_model teacher;
    rt_layout layout = {0};
    rt_status status = cli_model_open(&teacher, b->options.model, cli_precision(b->options.teacher_precision),
                                      CLI_MODEL_NO_TOKENIZER, b->pool, err);
    if (status == RT_OK)
        status = rt_layout_build(&layout, &teacher.model->config, err);
    if (status == RT_OK)
        status = measure_whole(b, &teacher, &layout, err);
    if (status == RT_OK)
        status = measure_lora(b, &teacher, &layout, err);
    rt_layout_free(&layout);
    cli_model_close(&teacher);
    return status;
}
