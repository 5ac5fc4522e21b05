/* cli/bench_store.c - what learning from kept rows costs beside plain cross-entropy: the same student, the
 * same tokens, steps of each kind in turn.
 *
 * Rows are made up: 50 ids with the mass of the rest, and 12 draws.  The figure is the median over rounds of
 * a step's time divided by the same round's step of cross-entropy, so that a neighbour disturbs both. */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/open_model.h"
#include "student/trainer.h"

enum {
    SEQUENCES = 4,
    LENGTH = 512,
    TOKENS = SEQUENCES * LENGTH,
    KEPT = 50,
    DRAWS = 12,
    KINDS = 3,
    LAYERS_MAX = 512
};

typedef struct kept_batch {
    int32_t ids[TOKENS], labels[TOKENS];
    uint32_t rows[TOKENS], kept_ids[TOKENS][KEPT];
    float logq[TOKENS][KEPT];
    uint16_t counts[TOKENS][KEPT];
    double scales[TOKENS];
    rt_kept_row kept[TOKENS];
    rt_segment segments[SEQUENCES];
} kept_batch;

static const rt_loss_mix mixes[KINDS] = {
    {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_CE, .tau = 1}}}},
    {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_FKL, .tau = 1, .tail = RT_TAIL_BUCKET}}}},
    {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_RSKD, .tau = 1}}}}};

static void fill_row(kept_batch *b, size_t t, size_t n_vocab, rt_rng *rng)
{
    double mass = 0;
    const size_t stride = n_vocab / KEPT, first = (size_t)rt_rng_below(rng, stride);
    for (size_t i = 0; i < KEPT; i++) { /* distinct ids of falling probability */
        b->kept_ids[t][i] = (uint32_t)(first + i * stride);
        b->logq[t][i] = (float)(-1.2 - 0.1 * (double)i);
        b->counts[t][i] = i < DRAWS / 2 ? 2 : 0;
        mass += exp((double)b->logq[t][i]) / 4;
        b->logq[t][i] -= (float)log(4.0);
    }
    b->kept[t] = (rt_kept_row){.ids = b->kept_ids[t],
                               .logq = b->logq[t],
                               .counts = b->counts[t],
                               .n = KEPT,
                               .n_topk = KEPT,
                               .n_draws = DRAWS,
                               .tail_logprob = log1p(-mass)};
}

static void fill_batch(kept_batch *b, size_t n_vocab)
{
    rt_rng rng = rt_rng_make(1, 0);
    for (size_t t = 0; t < TOKENS; t++) {
        b->ids[t] = (int32_t)rt_rng_below(&rng, n_vocab);
        b->labels[t] = (int32_t)rt_rng_below(&rng, n_vocab);
        b->rows[t] = (uint32_t)t;
        b->scales[t] = 1.0 / TOKENS;
        fill_row(b, t, n_vocab, &rng);
    }
    for (size_t i = 0; i < SEQUENCES; i++)
        b->segments[i] = (rt_segment){.begin = i * LENGTH, .count = LENGTH};
}

static rt_status open_student(rt_trainer **out, const bench *b, const cli_model *teacher, rt_error *err)
{
    rt_model_config config = teacher->model->config;
    size_t map[LAYERS_MAX];
    const size_t of = config.n_layers, n = b->options.layers;
    if (n == 0 || n > of || n > LAYERS_MAX || config.n_vocab < KEPT)
        return rt_error_set(err, RT_INVALID, "bench: --layers %zu is not in 1..%zu", n, of);
    for (size_t i = 0; i < n; i++)
        map[i] = n > 1 ? (i * (of - 1) + (n - 1) / 2) / (n - 1) : 0;
    config.n_layers = n;
    rt_trainer_options options = {.mix = mixes[1],
                                  .adamw = {1e-5, 0.9, 0.95, 1e-8, 0.1},
                                  .schedule = {.kind = RT_SCHEDULE_CONSTANT},
                                  .clip = 1,
                                  .precision = RT_PRECISION_BF16,
                                  .tokens_max = TOKENS};
    options.kept.topk = options.kept.draws = true;
    options.kept.n_max = KEPT;
    options.kept.n_vocab = config.n_vocab;
    if (rt_trainer_open(out, &config, NULL, &options, b->pool, err) != RT_OK ||
        rt_params_load((*out)->values, &(*out)->layout, &config, teacher->weights, &teacher->model->config,
                       map, b->pool, err) != RT_OK)
        return err->status;
    rt_trainer_sync(*out);
    return RT_OK;
}

static rt_status step(double *seconds, rt_trainer *trainer, kept_batch *batch, size_t kind, rt_error *err)
{
    const rt_batch tokens = {batch->ids, TOKENS, batch->segments, SEQUENCES};
    const rt_head_rows rows = {.rows = batch->rows,
                               .labels = batch->labels,
                               .scales = batch->scales,
                               .n = TOKENS,
                               .kept = kind ? batch->kept : NULL};
    rt_step_report report;
    trainer->options.mix = mixes[kind];
    const double from = rt_clock_seconds();
    if (rt_trainer_accumulate(trainer, &tokens, &rows, err) != RT_OK ||
        rt_trainer_update(trainer, &report, err) != RT_OK)
        return err->status;
    *seconds = rt_clock_seconds() - from;
    return RT_OK;
}

static rt_status rounds(bench *b, rt_trainer *trainer, kept_batch *batch, double *ratios[KINDS],
                        rt_error *err)
{
    for (size_t round = 0; round <= b->options.runs; round++) { /* the first one warms up */
        double seconds[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++)
            if (step(&seconds[kind], trainer, batch, kind, err) != RT_OK)
                return err->status;
        for (size_t kind = 0; round > 0 && kind < KINDS; kind++)
            ratios[kind][round - 1] = kind ? seconds[kind] / seconds[0] : TOKENS / seconds[0];
    }
    bench_add(b, &(bench_row){.name = "cross-entropy step",
                              .unit = "tokens/s",
                              .value = bench_median(ratios[0], b->options.runs)});
    static const char *const names[KINDS] = {NULL, "step from top-50 rows with tail", "step from drawn rows"};
    for (size_t kind = 1; kind < KINDS; kind++)
        bench_add(b, &(bench_row){.name = names[kind],
                                  .unit = "x of it",
                                  .value = bench_median(ratios[kind], b->options.runs),
                                  .bar = BENCH_AT_MOST,
                                  .must = 1.05,
                                  .aim = 1.02});
    return RT_OK;
}

rt_status bench_store(bench *b, rt_error *err)
{
    cli_model teacher;
    rt_trainer *trainer = NULL;
    kept_batch *batch = malloc(sizeof *batch);
    double *ratios[KINDS], *room = calloc(KINDS * b->options.runs, sizeof *room);
    for (size_t kind = 0; kind < KINDS; kind++)
        ratios[kind] = room ? room + kind * b->options.runs : NULL;
    rt_status status = cli_model_open(&teacher, b->options.model, cli_precision(b->options.teacher_precision),
                                      CLI_MODEL_NO_TOKENIZER, b->pool, err);
    if (status == RT_OK && (!batch || !room))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for a batch");
    if (status == RT_OK)
        status = open_student(&trainer, b, &teacher, err);
    if (status == RT_OK) {
        fill_batch(batch, trainer->config.n_vocab);
        status = rounds(b, trainer, batch, ratios, err);
    }
    rt_trainer_close(trainer);
    cli_model_close(&teacher);
    free(batch);
    free(room);
    return status;
}
