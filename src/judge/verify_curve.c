/* judge/verify_curve.c - a reference distillation run, repeated: the whole training step against PyTorch's.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "judge/verify.h"
#include "student/trainer.h"

enum { SEQUENCES = 2, FILE_MAX = 64 << 20 };

typedef struct curve {
    json_t *json;
    const json_t *rows, *steps, *layers, *norms;
    size_t length; /* inputs of a sequence; a row has one id more */
    size_t map[RT_LAYERS_MAX];
    rt_trainer *trainer;
    int32_t *ids, *labels;
    uint32_t *positions;
    double *scales;
} curve;

static void curve_free(curve *c)
{
    rt_trainer_close(c->trainer);
    json_decref(c->json);
    free(c->ids);
    free(c->labels);
    free(c->positions);
    free(c->scales);
}

static rt_status open_curve(curve *c, const char *path, const rt_model *teacher, rt_error *err)
{
    if (rt_json_read(&c->json, path, FILE_MAX, err) != RT_OK)
        return err->status;
    c->rows = json_object_get(c->json, "ids");
    c->steps = json_object_get(c->json, "steps");
    c->layers = json_object_get(c->json, "layers");
    c->norms = json_object_get(c->json, "norms");
    const size_t n_layers = json_array_size(c->layers), row = json_array_size(json_array_get(c->rows, 0));
    if (row < 2 || n_layers == 0 || n_layers > RT_LAYERS_MAX || !json_array_size(c->steps) ||
        json_array_size(c->rows) < SEQUENCES * json_array_size(c->steps) ||
        row - 1 > teacher->config.n_context)
        return rt_error_set(err, RT_INVALID,
                            "%.300s: ids, steps or layers are missing or do not fit together", path);
    c->length = row - 1;
    for (size_t i = 0; i < n_layers; i++) {
        const json_int_t layer = json_integer_value(json_array_get(c->layers, i));
        if (layer < 0 || (size_t)layer >= teacher->config.n_layers)
            return rt_error_set(err, RT_INVALID, "%.300s: layer %lld is not one of the model's", path,
                                (long long)layer);
        c->map[i] = (size_t)layer;
    }
    const size_t n = SEQUENCES * c->length;
    c->ids = calloc(n, sizeof *c->ids);
    c->labels = calloc(n, sizeof *c->labels);
    c->positions = calloc(n, sizeof *c->positions);
    c->scales = calloc(n, sizeof *c->scales);
    return c->ids && c->labels && c->positions && c->scales
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", n);
}

static rt_status open_student(curve *c, const rt_weights *weights, const rt_model *teacher, rt_error *err)
{
    rt_model_config config = teacher->config;
    config.n_layers = json_array_size(c->layers);
    const rt_trainer_options options = {
        .mix = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_FKL, .tau = 1}}}},
        .adamw = {3e-4, 0.9, 0.95, 1e-8, 0.1},
        .schedule = {.kind = RT_SCHEDULE_CONSTANT},
        .clip = 1,
        .precision = RT_PRECISION_F32,
        .tokens_max = SEQUENCES * c->length};
    if (rt_trainer_open(&c->trainer, &config, teacher, &options, teacher->pool, err) != RT_OK)
        return err->status;
    return rt_params_load(c->trainer->values, &c->trainer->layout, &config, weights, &teacher->config, c->map,
                          teacher->pool, err);
}

static rt_status fill_step(curve *c, size_t step, rt_error *err)
{
    const size_t vocab = c->trainer->config.n_vocab;
    for (size_t i = 0; i < SEQUENCES * c->length; i++) {
        const json_t *row = json_array_get(c->rows, SEQUENCES * step + i / c->length);
        const json_int_t id = json_integer_value(json_array_get(row, i % c->length));
        const json_int_t next = json_integer_value(json_array_get(row, i % c->length + 1));
        if (id < 0 || (size_t)id >= vocab || next < 0 || (size_t)next >= vocab)
            return rt_error_set(err, RT_INVALID, "step %zu has an id outside the vocabulary", step);
        c->ids[i] = (int32_t)id;
        c->labels[i] = (int32_t)next;
        c->positions[i] = (uint32_t)i;
        c->scales[i] = 1.0 / (double)(SEQUENCES * c->length);
    }
    return RT_OK;
}

static rt_status run_step(curve *c, rt_verify *result, size_t step, rt_error *err)
{
    if (fill_step(c, step, err) != RT_OK)
        return err->status;
    rt_segment segments[SEQUENCES];
    for (size_t s = 0; s < SEQUENCES; s++)
        segments[s] = (rt_segment){.begin = s * c->length, .count = c->length};
    const rt_batch batch = {c->ids, SEQUENCES * c->length, segments, SEQUENCES};
    const rt_head_rows rows = {
        .rows = c->positions, .labels = c->labels, .scales = c->scales, .n = SEQUENCES * c->length};
    rt_step_report report;
    if (rt_trainer_accumulate(c->trainer, &batch, &rows, err) != RT_OK ||
        rt_trainer_update(c->trainer, &report, err) != RT_OK)
        return err->status;
    const json_t *want = json_array_get(c->steps, step);
    const double loss = json_number_value(json_object_get(want, "loss")),
                 norm = json_number_value(json_object_get(want, "grad_norm"));
    char name[48];
    (void)snprintf(name, sizeof name, "loss of step %zu", step);
    rt_verify_add(result, name, fabs(report.loss / loss - 1), 5e-3);
    (void)snprintf(name, sizeof name, "gradient norm of step %zu", step);
    rt_verify_add(result, name, fabs(report.grad_norm / norm - 1), 1e-2);
    return RT_OK;
}

static void compare_norms(const curve *c, rt_verify *result)
{
    const rt_trainer *t = c->trainer;
    for (size_t i = 0; i < t->layout.count; i++) {
        const rt_param *p = &t->layout.list[i];
        char name[128];
        rt_param_name(name, &t->config, p);
        const json_t *want = json_object_get(c->norms, name);
        double sum = 0;
        for (size_t k = 0; k < p->count; k++)
            sum += (double)t->values[p->offset + k] * (double)t->values[p->offset + k];
        if (want)
            rt_verify_add(result, name, fabs(sqrt(sum) / json_number_value(want) - 1), 5e-3);
        else
            result->not_covered++;
    }
}

rt_status rt_verify_curve(rt_verify *result, const char *path, const rt_weights *weights,
                          const rt_model *teacher, size_t steps_max, rt_error *err)
{
    *result = (rt_verify){0};
    curve c = {0};
    rt_status status = open_curve(&c, path, teacher, err);
    if (status == RT_OK)
        status = open_student(&c, weights, teacher, err);
    const size_t all = json_array_size(c.steps), steps = steps_max ? rt_size_min(steps_max, all) : all;
    for (size_t step = 0; step < steps && status == RT_OK; step++)
        status = run_step(&c, result, step, err);
    if (status == RT_OK && steps == all)
        compare_norms(&c, result);
    curve_free(&c);
    return status;
}
