/* tests/student/test_features.c - inside a training step: features' gradients are slopes, kept rows train as
 * the teacher they came from, courses move what they name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "student/trainer.h"

enum { TOKENS = 64, SEQUENCES = 2, LENGTH = TOKENS / SEQUENCES };

typedef struct world {
    rt_pool *pool;
    rt_weights *weights;
    rt_model *teacher;
    rt_trainer *trainer;
    int32_t ids[TOKENS], labels[TOKENS];
    uint32_t positions[TOKENS];
    double scales[TOKENS];
    rt_segment segments[SEQUENCES];
    rt_batch batch;
    rt_head_rows rows;
} world;

static double softcap; /* of the student's logits; 0: none */

static rt_status world_open(world *w, const rt_trainer_options *base, const char *model, rt_error *err)
{
    memset(w, 0, sizeof *w);
    char path[256];
    (void)snprintf(path, sizeof path, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, model);
    assert_int_equal(rt_pool_open(&w->pool, 2, err), RT_OK);
    assert_int_equal(rt_weights_open(&w->weights, path, err), RT_OK);
    assert_int_equal(rt_model_open(&w->teacher, w->weights, RT_PRECISION_F32, w->pool, err), RT_OK);
    rt_model_config config = w->teacher->config;
    config.logit_softcap = softcap;
    rt_trainer_options options = *base;
    options.precision = RT_PRECISION_F32;
    options.tokens_max = TOKENS;
    if (rt_trainer_open(&w->trainer, &config, w->teacher, &options, w->pool, err) != RT_OK)
        return err->status;
    assert_int_equal(rt_params_load(w->trainer->values, &w->trainer->layout, &config, w->weights,
                                    &w->teacher->config, NULL, w->pool, err),
                     RT_OK);
    rt_rng rng = rt_rng_make(7, 1);
    for (size_t i = 0; i < w->trainer->total; i++) /* away from the teacher */
        w->trainer->values[i] += (float)(0.02 * rt_rng_normal(&rng));
    rt_trainer_sync(w->trainer);
    for (size_t i = 0; i < TOKENS; i++) {
        w->ids[i] = (int32_t)rt_rng_below(&rng, 90) + 1;
        w->labels[i] = (int32_t)rt_rng_below(&rng, 90) + 1;
        w->positions[i] = (uint32_t)i;
        w->scales[i] = i % 3 ? 0.02 : 0.01;
    }
    for (size_t s = 0; s < SEQUENCES; s++)
        w->segments[s] = (rt_segment){.begin = s * LENGTH, .count = LENGTH};
    w->batch = (rt_batch){w->ids, TOKENS, w->segments, SEQUENCES};
    w->rows = (rt_head_rows){.rows = w->positions, .labels = w->labels, .scales = w->scales, .n = TOKENS};
    return RT_OK;
}

static void world_close(world *w)
{
    rt_trainer_close(w->trainer);
    rt_model_close(w->teacher);
    rt_weights_close(w->weights);
    rt_pool_close(w->pool);
}

static double loss_of(world *w)
{
    rt_error err = {0};
    memset(w->trainer->grads, 0, w->trainer->total * sizeof(float));
    memset(&w->trainer->sum, 0, sizeof w->trainer->sum);
    assert_int_equal(rt_trainer_accumulate(w->trainer, &w->batch, &w->rows, &err), RT_OK);
    return w->trainer->sum.loss + w->trainer->sum.features;
}

/* Along random directions within each tensor, the loss moves as the gradient says. */
static void check_slopes(world *w)
{
    const size_t total = w->trainer->total, layout = w->trainer->layout.total;
    float *grad = malloc(total * sizeof *grad), *kept = malloc(total * sizeof *kept);
    (void)loss_of(w);
    memcpy(grad, w->trainer->grads, total * sizeof *grad);
    memcpy(kept, w->trainer->values, total * sizeof *kept);
    rt_rng rng = rt_rng_make(11, 1);
    const size_t tensors = w->trainer->layout.count + (total > layout);
    for (size_t i = 0; i < tensors; i++) {
        const rt_param *p = i < w->trainer->layout.count ? &w->trainer->layout.list[i] : NULL;
        const size_t begin = p ? p->offset : layout, end = p ? begin + p->count : total;
        double slope = 0, norm = 0, loss[2];
        for (size_t k = begin; k < end; k++)
            norm += (double)grad[k] * (double)grad[k];
        if (norm < 1e-10)
            continue;
        /* along the gradient, plus some noise of its size */
        float *way = calloc(total, sizeof *way);
        for (size_t k = begin; k < end; k++) {
            way[k] = (float)((double)grad[k] / sqrt(norm) +
                             0.3 * rt_rng_normal(&rng) / sqrt((double)(end - begin)));
            slope += (double)way[k] * (double)grad[k];
        }
        const double step = 4e-3;
        for (int side = 0; side < 2; side++) {
            for (size_t k = begin; k < end; k++)
                w->trainer->values[k] = kept[k] + (float)(side ? step : -step) * way[k];
            loss[side] = loss_of(w);
        }
        memcpy(w->trainer->values, kept, total * sizeof *kept);
        const double seen = (loss[1] - loss[0]) / (2 * step);
        if (fabs(seen - slope) > 0.01 * fabs(slope) + 2e-4)
            fail_msg("tensor %zu: the loss moves by %g, its gradient says %g", i, seen, slope);
        free(way);
    }
    free(grad);
    free(kept);
}

static const rt_trainer_options plain = {
    .mix = {.n_terms = 1, .terms = {{0, {.kind = RT_LOSS_CE, .tau = 1}}}},
    .adamw = {1e-3, 0.9, 0.95, 1e-8, 0.1},
    .schedule = {.kind = RT_SCHEDULE_CONSTANT, .total = 10},
    .clip = 1,
    .seed = 5};

static void hidden_states_have_right_gradients(void **state)
{
    (void)state;
    rt_error err = {0};
    for (int kind = RT_HIDDEN_MSE; kind <= RT_HIDDEN_COSINE; kind++) {
        world w;
        rt_trainer_options options = plain;
        options.features = (rt_feature_options){.hidden_weight = 1,
                                                .hidden = (rt_hidden_kind)kind,
                                                .projection = kind != RT_HIDDEN_COSINE,
                                                .n_pairs = 2,
                                                .pairs = {{0, 0}, {1, 1}}};
        assert_int_equal(world_open(&w, &options, "llama", &err), RT_OK);
        check_slopes(&w);
        world_close(&w);
    }
}

static void relations_have_right_gradients(void **state)
{
    (void)state;
    rt_error err = {0};
    static const char *const models[] = {"llama", "qwen3"};
    for (size_t m = 0; m < 2; m++) {
        world w;
        rt_trainer_options options = plain;
        options.features = (rt_feature_options){.relation_weight = 5,
                                                .relations = RT_RELATION_Q | RT_RELATION_K | RT_RELATION_V,
                                                .relation_heads = m ? 1 : 0,
                                                .relation_student = 1,
                                                .relation_teacher = 1,
                                                .sequence_max = LENGTH};
        assert_int_equal(world_open(&w, &options, models[m], &err), RT_OK);
        check_slopes(&w);
        world_close(&w);
    }
}

/* ---- kept rows ---- */

typedef struct taught {
    uint32_t *ids;
    float *logq;
    rt_kept_row rows[TOKENS];
} taught;

static void keep_rows(taught *t, const world *w, size_t k)
{
    const size_t v = w->teacher->config.n_vocab;
    rt_pass *pass;
    rt_error err = {0};
    size_t index[TOKENS];
    float *logits = malloc(TOKENS * v * sizeof *logits);
    t->ids = malloc(TOKENS * v * sizeof *t->ids);
    t->logq = malloc(TOKENS * v * sizeof *t->logq);
    for (size_t i = 0; i < TOKENS; i++)
        index[i] = i;
    assert_int_equal(rt_pass_open(&pass, w->teacher, TOKENS, false, &err), RT_OK);
    rt_forward(w->teacher, pass, &w->batch, NULL, NULL);
    rt_logits(w->teacher, pass, index, TOKENS, logits);
    for (size_t i = 0; i < TOKENS; i++) {
        const float *z = logits + i * v;
        double sum = 0, mass = 0;
        for (size_t j = 0; j < v; j++)
            sum += exp((double)z[j]);
        bool *taken = calloc(v, 1);
        for (size_t r = 0; r < k; r++) {
            size_t best = v;
            for (size_t j = 0; j < v; j++)
                if (!taken[j] && (best == v || z[j] > z[best]))
                    best = j;
            taken[best] = true;
            t->ids[i * v + r] = (uint32_t)best;
            t->logq[i * v + r] = (float)((double)z[best] - log(sum));
            mass += exp((double)z[best]) / sum;
        }
        free(taken);
        t->rows[i] = (rt_kept_row){.ids = t->ids + i * v,
                                   .logq = t->logq + i * v,
                                   .n = (uint32_t)k,
                                   .n_topk = (uint32_t)k,
                                   .tail_logprob = k < v ? log1p(-mass) : -HUGE_VAL};
    }
    rt_pass_close(pass);
    free(logits);
}

static void rows_that_keep_everything_train_as_the_teacher_does(void **state)
{
    (void)state;
    rt_error err = {0};
    world live, kept;
    taught t;
    rt_trainer_options options = plain;
    options.mix = (rt_loss_mix){.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_FKL, .tau = 1}}}};
    assert_int_equal(world_open(&live, &options, "llama", &err), RT_OK);
    const size_t v = live.teacher->config.n_vocab;
    options.mix.terms[0].spec.tail = RT_TAIL_BUCKET;
    options.kept.topk = true;
    options.kept.n_max = v;
    options.kept.n_vocab = v;
    assert_int_equal(world_open(&kept, &options, "llama", &err), RT_OK);
    keep_rows(&t, &live, v);
    kept.rows.kept = t.rows;
    const double a = loss_of(&live), b = loss_of(&kept);
    assert_true(fabs(a - b) < 1e-5 * (1 + fabs(a)));
    double worst = 0, largest = 0;
    for (size_t i = 0; i < live.trainer->total; i++) {
        worst = fmax(worst, fabs((double)live.trainer->grads[i] - (double)kept.trainer->grads[i]));
        largest = fmax(largest, fabs((double)live.trainer->grads[i]));
    }
    assert_true(worst < 1e-4 * largest);
    free(t.ids);
    free(t.logq);
    world_close(&live);
    world_close(&kept);
}

static void kept_rows_have_right_gradients(void **state)
{
    (void)state;
    rt_error err = {0};
    static const rt_loss_spec specs[] = {{.kind = RT_LOSS_FKL, .tau = 1, .tail = RT_TAIL_BUCKET},
                                         {.kind = RT_LOSS_RKL, .tau = 1, .tail = RT_TAIL_BUCKET},
                                         {.kind = RT_LOSS_FKL, .tau = 1, .tail = RT_TAIL_UNIFORM}};
    for (size_t i = 0; i < 3; i++) {
        world w;
        taught t;
        rt_trainer_options options = plain;
        options.mix =
            (rt_loss_mix){.n_terms = 2, .terms = {{1, specs[i]}, {0.5, {.kind = RT_LOSS_CE, .tau = 1}}}};
        options.kept.topk = true;
        options.kept.n_max = 5;
        options.kept.n_vocab = 1 << 20;
        softcap = i == 1 ? 3 : 0;
        assert_int_equal(world_open(&w, &options, "llama", &err), RT_OK);
        keep_rows(&t, &w, 5);
        w.rows.kept = t.rows;
        check_slopes(&w);
        free(t.ids);
        free(t.logq);
        world_close(&w);
        softcap = 0;
    }
}

/* ---- courses ---- */

static void a_course_moves_its_numbers_from_end_to_end(void **state)
{
    (void)state;
    const rt_loss_mix base = {
        .n_terms = 2,
        .terms = {{1, {.kind = RT_LOSS_FKL, .tau = 4}}, {0.5, {.kind = RT_LOSS_TAID, .tau = 1, .t = 0.4}}}};
    const rt_course course = {.n_ramps = 3,
                              .ramps = {{0, RT_RAMP_TAU, 4, 1, 1, true},
                                        {0, RT_RAMP_WEIGHT, 1, 0, 0.5, false},
                                        {1, RT_RAMP_T, 0.4, 1, 1, false}}};
    rt_loss_mix mix;
    rt_course_at(&mix, &base, &course, 0, 101, 0);
    assert_true(mix.terms[0].spec.tau == 4 && mix.terms[0].weight == 1 && mix.terms[1].spec.t == 0.4);
    rt_course_at(&mix, &base, &course, 50, 101, 0);
    assert_true(fabs(mix.terms[0].spec.tau - 2.5) < 1e-12 && mix.terms[0].weight == 0);
    assert_true(fabs(mix.terms[1].spec.t - 0.7) < 1e-12);
    rt_course_at(&mix, &base, &course, 100, 101, 0);
    assert_true(fabs(mix.terms[0].spec.tau - 1) < 1e-12 && mix.terms[0].weight == 0 &&
                mix.terms[1].spec.t == 1);
    assert_int_equal(rt_layer_map_uniform(0, 2, 4), 1);
    assert_int_equal(rt_layer_map_uniform(1, 2, 4), 3);
    assert_int_equal(rt_layer_map_uniform(0, 1, 1), 0);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    world w;
    rt_trainer_options options = plain;
    options.features = (rt_feature_options){.hidden_weight = 1, .n_pairs = 1, .pairs = {{0, 99}}};
    assert_int_equal(world_open(&w, &options, "llama", &err), RT_INVALID);
    assert_non_null(strstr(err.text, "layers 0 and 99 are no pair"));
    world_close(&w);
    options.features =
        (rt_feature_options){.relation_weight = 1, .relations = 7, .relation_heads = 7, .sequence_max = 9};
    assert_int_equal(world_open(&w, &options, "llama", &err), RT_INVALID);
    assert_non_null(strstr(err.text, "relation_heads"));
    world_close(&w);
    options = plain;
    options.course = (rt_course){.n_ramps = 1, .ramps = {{0, RT_RAMP_TAU, 1, -2, 1, false}}};
    assert_int_equal(world_open(&w, &options, "llama", &err), RT_INVALID); /* its end has no meaning */
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_have_right_gradients),
        cmocka_unit_test(relations_have_right_gradients),
        cmocka_unit_test(rows_that_keep_everything_train_as_the_teacher_does),
        cmocka_unit_test(kept_rows_have_right_gradients),
        cmocka_unit_test(a_course_moves_its_numbers_from_end_to_end),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
