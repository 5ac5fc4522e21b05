/* student/calibrate.c - what this build reaches on this machine: forward, training, head and update of a
 * small model with random weights, the best of a few runs.
 *
 * The layers' time is the slope between two depths, the head's what is left at depth one; so the rates hold
 * for any depth.  The shape is SmolLM2-135M's, 2 x 512 tokens: products of the sizes that small students
 * have. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/size.h"
#include "student/cost.h"
#include "student/machine.h"
#include "student/trainer.h"
#include "tensor/quant.h"

enum { SEQUENCES = 2, LENGTH = 512, TOKENS = SEQUENCES * LENGTH, DEEP = 5, RUNS = 3 };

static rt_model_config reference_config(size_t n_layers)
{
    return (rt_model_config){.family = "llama",
                             .n_layers = n_layers,
                             .n_embd = 576,
                             .n_heads = 9,
                             .n_heads_kv = 3,
                             .head_dim = 64,
                             .n_ff = 1536,
                             .n_vocab = 49152,
                             .n_context = LENGTH,
                             .norm_eps = 1e-5,
                             .gated_mlp = true,
                             .tied = true,
                             .attention_scale = 0.125,
                             .embed_scale = 1,
                             .rope = {.theta = 1e5}};
}

typedef struct tokens {
    int32_t ids[TOKENS], labels[TOKENS];
    uint32_t rows[TOKENS];
    double scales[TOKENS];
    rt_segment segments[SEQUENCES];
    rt_batch batch;
    rt_head_rows targets;
} tokens;

static tokens *make_tokens(size_t n_vocab)
{
    tokens *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    rt_rng rng = rt_rng_make(1, 0);
    for (size_t i = 0; i < TOKENS; i++) {
        t->ids[i] = (int32_t)rt_rng_below(&rng, n_vocab);
        t->labels[i] = (int32_t)rt_rng_below(&rng, n_vocab);
        t->rows[i] = (uint32_t)i;
        t->scales[i] = 1.0 / TOKENS;
    }
    for (size_t i = 0; i < SEQUENCES; i++)
        t->segments[i] = (rt_segment){.begin = i * LENGTH, .count = LENGTH};
    t->batch = (rt_batch){t->ids, TOKENS, t->segments, SEQUENCES};
    t->targets = (rt_head_rows){.rows = t->rows, .labels = t->labels, .scales = t->scales, .n = TOKENS};
    return t;
}

/* ---- frozen models with random weights ---- */

typedef struct frozen {
    rt_layout layout;
    float *values;
    rt_bf16 *half;
    rt_model *model;
} frozen;

static void frozen_close(frozen *f)
{
    rt_model_close(f->model);
    rt_layout_free(&f->layout);
    free(f->values);
    free(f->half);
    *f = (frozen){0};
}

/* The projection's random matrix as Q4_1 blocks, packed as a quantised file's would be. */
static rt_status pack_projection(rt_model *model, rt_proj *proj, const float *w, rt_error *err)
{
    size_t bytes;
    rt_qmat **grown = realloc(model->owned, (model->n_owned + 1) * sizeof *grown);
    model->owned = grown ? grown : model->owned;
    void *blocks = rt_dtype_bytes(&bytes, RT_Q4_1, proj->rows * proj->cols) ? malloc(bytes) : NULL;
    if (!grown || !blocks) {
        free(blocks);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to measure this machine");
    }
    rt_quantise(blocks, w, RT_Q4_1, proj->rows * proj->cols);
    const rt_status status =
        rt_qmat_pack(&proj->packed[0], blocks, RT_Q4_1, proj->rows, proj->cols, model->pool, err);
    free(blocks);
    if (status != RT_OK)
        return status;
    model->owned[model->n_owned++] = proj->packed[0];
    proj->n_packed = 1;
    proj->w = NULL;
    return RT_OK;
}

static rt_status pack_model(frozen *f, rt_error *err)
{
    rt_model *m = f->model;
    m->precision = RT_PRECISION_INT8;
    for (size_t l = 0; l < m->config.n_layers; l++) {
        rt_proj *projections[] = {&m->layers[l].qkv, &m->layers[l].o, &m->layers[l].gate_up,
                                  &m->layers[l].down};
        static const rt_role firsts[] = {RT_ROLE_Q, RT_ROLE_O, RT_ROLE_GATE, RT_ROLE_DOWN};
        for (size_t i = 0; i < 4; i++)
            if (pack_projection(m, projections[i],
                                f->values + rt_layout_role(&f->layout, l, firsts[i])->offset, err) != RT_OK)
                return err->status;
    }
    if (pack_projection(m, &m->head, f->values + rt_layout_global(&f->layout, RT_GLOBAL_EMBED)->offset,
                        err) != RT_OK)
        return err->status;
    m->embed = NULL;
    m->embed_packed = m->head.packed[0];
    return RT_OK;
}

static rt_status frozen_open(frozen *f, size_t n_layers, rt_precision precision, rt_pool *pool, rt_error *err)
{
    const rt_model_config config = reference_config(n_layers);
    *f = (frozen){0};
    if (rt_layout_build(&f->layout, &config, err) != RT_OK)
        return err->status;
    f->values = malloc(f->layout.total * sizeof *f->values);
    f->half = malloc(f->layout.total * sizeof *f->half);
    if (!f->values || !f->half)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to measure this machine");
    rt_params_init(f->values, &f->layout, &config, 7);
    for (size_t i = 0; i < f->layout.total; i++)
        f->half[i] = rt_f32_to_bf16(f->values[i]);
    const rt_precision view = precision == RT_PRECISION_F32 ? RT_PRECISION_F32 : RT_PRECISION_BF16;
    if (rt_model_view(&f->model, &config, &f->layout, f->values, f->half, view, pool, err) != RT_OK)
        return err->status;
    return precision == RT_PRECISION_INT8 ? pack_model(f, err) : RT_OK;
}

static rt_status time_forward(double *seconds, size_t n_layers, rt_precision precision, const tokens *t,
                              rt_pool *pool, rt_error *err)
{
    frozen f;
    rt_pass *pass = NULL;
    rt_status status = frozen_open(&f, n_layers, precision, pool, err);
    if (status == RT_OK)
        status = rt_pass_open(&pass, f.model, TOKENS, false, err);
    *seconds = HUGE_VAL;
    for (size_t run = 0; status == RT_OK && run <= RUNS; run++) { /* the first one warms up */
        const double from = rt_clock_seconds();
        rt_forward(f.model, pass, &t->batch, NULL, NULL);
        const double took = rt_clock_seconds() - from;
        *seconds = run > 0 && took < *seconds ? took : *seconds;
    }
    rt_pass_close(pass);
    frozen_close(&f);
    return status;
}

/* Seconds of one micro-batch and of one update; teacher: NULL or its precision (with one layer). */
static rt_status time_training(double *batch_s, double *update_s, size_t n_layers, rt_precision precision,
                               const rt_precision *teacher, const tokens *t, rt_pool *pool, rt_error *err)
{
    const rt_model_config config = reference_config(n_layers);
    const rt_trainer_options options = {
        .mix = {.n_terms = 1, .terms = {{1, {.kind = teacher ? RT_LOSS_FKL : RT_LOSS_CE, .tau = 1}}}},
        .adamw = {1e-5, 0.9, 0.95, 1e-8, 0.1},
        .schedule = {.kind = RT_SCHEDULE_CONSTANT},
        .clip = 1,
        .precision = precision,
        .tokens_max = TOKENS};
    frozen f = {0};
    rt_trainer *trainer = NULL;
    rt_status status = teacher ? frozen_open(&f, 1, *teacher, pool, err) : RT_OK;
    if (status == RT_OK)
        status = rt_trainer_open(&trainer, &config, f.model, &options, pool, err);
    if (status == RT_OK) {
        rt_params_init(trainer->values, &trainer->layout, &config, 3);
        rt_trainer_sync(trainer);
    }
    *batch_s = *update_s = HUGE_VAL;
    for (size_t run = 0; status == RT_OK && run <= RUNS; run++) {
        rt_step_report report;
        const double from = rt_clock_seconds();
        status = rt_trainer_accumulate(trainer, &t->batch, &t->targets, err);
        const double middle = rt_clock_seconds();
        if (status == RT_OK)
            status = rt_trainer_update(trainer, &report, err);
        const double end = rt_clock_seconds();
        if (run > 0) {
            *batch_s = fmin(*batch_s, middle - from);
            *update_s = fmin(*update_s, end - middle);
        }
    }
    rt_trainer_close(trainer);
    frozen_close(&f);
    return status;
}

/* ---- rates ---- */

/* Operations of one layer's forward for all tokens. */
static double layer_flops(void)
{
    const rt_model_config config = reference_config(1);
    rt_cost_shape shape;
    rt_cost_shape_of(&shape, &config);
    return TOKENS * (2 * (shape.matmul - shape.head) + rt_cost_attention(&shape, LENGTH));
}

static double head_flops(void)
{
    const rt_model_config config = reference_config(1);
    return 2.0 * TOKENS * (double)config.n_embd * (double)config.n_vocab;
}

static rt_status measure_forward(rt_machine *machine, rt_precision precision, const tokens *t, rt_pool *pool,
                                 rt_error *err)
{
    double shallow, deep;
    if (machine->rates.forward[precision] > 0)
        return RT_OK;
    if (time_forward(&shallow, 1, precision, t, pool, err) != RT_OK ||
        time_forward(&deep, DEEP, precision, t, pool, err) != RT_OK)
        return err->status;
    machine->rates.forward[precision] = layer_flops() * (DEEP - 1) / fmax(deep - shallow, 1e-9);
    return RT_OK;
}

static rt_status measure_student(rt_machine *machine, rt_precision precision, const tokens *t, rt_pool *pool,
                                 rt_error *err)
{
    rt_machine_rates *rates = &machine->rates;
    double shallow, deep, update, update_deep;
    if (rates->train[precision] > 0 && rates->head_train[precision] > 0 && rates->update > 0)
        return RT_OK;
    if (time_training(&shallow, &update, 1, precision, NULL, t, pool, err) != RT_OK ||
        time_training(&deep, &update_deep, DEEP, precision, NULL, t, pool, err) != RT_OK)
        return err->status;
    const double layer = fmax(deep - shallow, 1e-9) / (DEEP - 1);
    const rt_model_config config = reference_config(DEEP);
    rates->train[precision] = 3 * layer_flops() / layer;
    rates->head_train[precision] = 3 * head_flops() / fmax(shallow - layer, 1e-9);
    rates->update = (double)rt_model_config_parameters(&config) / update_deep;
    return RT_OK;
}

static rt_status measure_teacher_head(rt_machine *machine, rt_precision student, rt_precision teacher,
                                      const tokens *t, rt_pool *pool, rt_error *err)
{
    rt_machine_rates *rates = &machine->rates;
    double alone, taught, update;
    if (rates->head_loss[teacher] > 0)
        return RT_OK;
    if (time_training(&alone, &update, 1, student, NULL, t, pool, err) != RT_OK ||
        time_training(&taught, &update, 1, student, &teacher, t, pool, err) != RT_OK)
        return err->status;
    const double known = (layer_flops() + head_flops()) / rates->forward[teacher];
    const double ids = head_flops() / (2 * (double)reference_config(1).n_embd); /* tokens x vocabulary */
    rates->head_loss[teacher] = fmax(taught - alone - known, 1e-12) / ids;
    return RT_OK;
}

rt_status rt_machine_measure_forward(rt_machine *machine, rt_precision precision, rt_pool *pool,
                                     rt_error *err)
{
    tokens *t = make_tokens(reference_config(1).n_vocab);
    if (!t)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to measure this machine");
    const rt_status status = measure_forward(machine, precision, t, pool, err);
    free(t);
    return status;
}

/* ---- loading ---- */

enum { LOAD_ROWS = 8192, LOAD_COLS = 2048, LOAD_TASK = 256 };

typedef struct load_work {
    const rt_bf16 *from;
    void *to;
    rt_precision precision;
} load_work;

static void load_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const load_work *w = context;
    const size_t n = (size_t)LOAD_TASK * LOAD_COLS, at = index * n;
    if (w->precision == RT_PRECISION_F32)
        rt_dequantise((float *)w->to + at, w->from + at, RT_BF16, n);
    else
        rt_dequantise_bf16((rt_bf16 *)w->to + at, w->from + at, RT_BF16, n);
}

static rt_status load_once(void *to, const void *from, rt_precision precision, rt_pool *pool, rt_error *err)
{
    if (precision != RT_PRECISION_INT8) {
        load_work work = {from, to, precision};
        rt_pool_run(pool, LOAD_ROWS / LOAD_TASK, load_task, &work);
        return RT_OK;
    }
    rt_qmat *mat;
    const rt_status status = rt_qmat_pack_into(&mat, to, from, RT_Q4_1, LOAD_ROWS, LOAD_COLS, pool, err);
    rt_qmat_free(mat);
    return status;
}

rt_status rt_machine_measure_load(rt_machine *machine, rt_precision precision, rt_pool *pool, rt_error *err)
{
    const size_t count = (size_t)LOAD_ROWS * LOAD_COLS;
    size_t bytes = count * sizeof(rt_bf16);
    if (machine->rates.load[precision] > 0)
        return RT_OK;
    if (precision == RT_PRECISION_INT8)
        (void)rt_dtype_bytes(&bytes, RT_Q4_1, count);
    rt_arena arena;
    if (rt_arena_init(&arena, bytes + count * sizeof(float) + 4096, err) != RT_OK)
        return err->status;
    void *from = rt_arena_push(&arena, bytes, 1), *to = rt_arena_push_raw(&arena, count, sizeof(float));
    double best = HUGE_VAL;
    rt_status status = RT_OK;
    for (size_t run = 0; status == RT_OK && run <= 2 * RUNS; run++) { /* the first one touches the pages */
        const double begun = rt_clock_seconds();
        status = load_once(to, from, precision, pool, err);
        const double took = rt_clock_seconds() - begun;
        best = run > 0 && took < best ? took : best;
    }
    rt_arena_deinit(&arena);
    if (status == RT_OK)
        machine->rates.load[precision] = (double)bytes / fmax(best, 1e-9);
    return status;
}

rt_status rt_machine_measure(rt_machine *machine, rt_precision student, const rt_precision *teacher,
                             rt_pool *pool, rt_error *err)
{
    tokens *t = make_tokens(reference_config(1).n_vocab);
    if (!t)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to measure this machine");
    rt_status status = measure_student(machine, student, t, pool, err);
    if (status == RT_OK && teacher)
        status = measure_forward(machine, *teacher, t, pool, err);
    if (status == RT_OK && teacher)
        status = measure_teacher_head(machine, student, *teacher, t, pool, err);
    free(t);
    machine->measured = status == RT_OK;
    return status;
}
