/* tests/student/test_adapter.c - LoRA and DoRA: the base at first, gradients against finite differences, the
 * same bits however the base is held. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "student/trainer.h"

enum { TOKENS = 64, RANK = 4 };

typedef struct world {
    rt_pool *pool;
    rt_weights *weights;
    rt_model_config config;
    rt_adapters *adapters;
    rt_trainer *trainer;
    int32_t ids[TOKENS], labels[TOKENS];
    uint32_t rows[TOKENS];
    double scales[TOKENS];
    rt_segment segment;
} world;

static void world_open(world *w, const char *model, rt_adapter_options options, unsigned threads)
{
    char path[512];
    rt_error err = {0};
    memset(w, 0, sizeof *w);
    (void)snprintf(path, sizeof path, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, model);
    assert_int_equal(rt_pool_open(&w->pool, threads, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w->weights, path, &err), RT_OK);
    assert_int_equal(rt_model_config_read(&w->config, w->weights, &err), RT_OK);
    options.tokens_max = TOKENS;
    options.seed = 7;
    assert_int_equal(
        rt_adapters_open(&w->adapters, &options, &w->config, w->weights, &w->config, NULL, w->pool, &err),
        RT_OK);
    const rt_trainer_options trainer = {.mix = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_CE, .tau = 1}}}},
                                        .adamw = {1e-2, 0.9, 0.95, 1e-8, 0.1},
                                        .schedule = {.kind = RT_SCHEDULE_CONSTANT, .total = 3, .floor = 0.1},
                                        .clip = 1,
                                        .precision = options.precision,
                                        .tokens_max = TOKENS,
                                        .adapters = w->adapters};
    assert_int_equal(rt_trainer_open(&w->trainer, &w->config, NULL, &trainer, w->pool, &err), RT_OK);
    assert_int_equal(rt_adapters_start(w->adapters, w->trainer->values, &err), RT_OK);
    rt_rng rng = rt_rng_make(11, 0);
    for (uint32_t i = 0; i < TOKENS; i++) {
        w->ids[i] = (int32_t)rt_rng_below(&rng, w->config.n_vocab);
        w->labels[i] = (int32_t)rt_rng_below(&rng, w->config.n_vocab);
        w->rows[i] = i;
        w->scales[i] = 1.0 / TOKENS;
    }
    w->segment = (rt_segment){.count = TOKENS};
}

static void world_close(world *w)
{
    rt_trainer_close(w->trainer);
    rt_adapters_close(w->adapters);
    rt_weights_close(w->weights);
    rt_pool_close(w->pool);
}

static double loss_of(world *w)
{
    rt_error err = {0};
    const rt_batch batch = {w->ids, TOKENS, &w->segment, 1};
    const rt_head_rows rows = {.rows = w->rows, .labels = w->labels, .scales = w->scales, .n = TOKENS};
    const double before = w->trainer->sum.loss;
    assert_int_equal(rt_trainer_accumulate(w->trainer, &batch, &rows, &err), RT_OK);
    return w->trainer->sum.loss - before;
}

static const rt_adapter_options lora = {
    .kind = RT_ADAPTER_LORA, .rank = RANK, .alpha = 8, .targets = 0x7F, .precision = RT_PRECISION_F32};

static void the_first_model_is_the_base_to_the_last_bit(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        world w;
        rt_error err = {0};
        rt_adapter_options options = lora;
        options.kind = (rt_adapter_kind)kind;
        world_open(&w, "qwen3", options, 2);
        const rt_layout *layout = &w.trainer->layout;
        float *base = calloc(layout->total, sizeof *base);
        assert_non_null(base);
        assert_int_equal(rt_params_load(base, layout, &w.config, w.weights, &w.config, NULL, w.pool, &err),
                         RT_OK);
        assert_memory_equal(base, w.trainer->base, layout->total * sizeof *base);
        free(base);
        world_close(&w);
    }
}

/* Directional derivatives along random directions of each adapter's A, B and m. */
static void check_gradient(const char *model, rt_adapter_kind kind)
{
    world w;
    rt_adapter_options options = lora;
    options.kind = kind;
    world_open(&w, model, options, 2);
    rt_trainer *t = w.trainer;
    rt_rng rng = rt_rng_make(5, 1);
    for (size_t i = 0; i < t->total; i++)
        t->values[i] += (float)(0.02 * rt_rng_normal(&rng));
    rt_trainer_sync(t);
    float *grads = calloc(t->total, sizeof *grads), *at = calloc(t->total, sizeof *at);
    assert_true(grads && at);
    (void)loss_of(&w);
    memcpy(grads, t->grads, t->total * sizeof *grads);
    memcpy(at, t->values, t->total * sizeof *at);
    for (size_t i = 0; i < rt_adapters_count(w.adapters); i++) {
        const rt_adapter *a = rt_adapters_at(w.adapters, i);
        const size_t bounds[] = {a->a, a->b, a->m, a->m + (a->norms ? a->param->rows : 0)};
        for (size_t part = 0; part < 3; part++) {
            double size = 0, loss[2];
            for (size_t k = bounds[part]; k < bounds[part + 1]; k++)
                size += (double)grads[k] * (double)grads[k];
            if (bounds[part] == bounds[part + 1])
                continue;
            size = sqrt(size);
            assert_true(size > 0);
            const double h = 0.02; /* along the gradient itself: its derivative is its length */
            for (int side = 0; side < 2; side++) {
                for (size_t k = bounds[part]; k < bounds[part + 1]; k++)
                    t->values[k] = at[k] + (float)((side ? h : -h) * (double)grads[k] / size);
                rt_adapters_sync(w.adapters, true);
                loss[side] = loss_of(&w);
            }
            memcpy(t->values, at, t->total * sizeof *at);
            const double measured = (loss[1] - loss[0]) / (2 * h);
            if (fabs(measured - size) > 0.02 * size + 2e-5)
                fail_msg("%s layer %zu role %d part %zu: %g, by differences %g", model, a->param->layer,
                         a->param->which, part, size, measured);
        }
    }
    free(grads);
    free(at);
    world_close(&w);
}

static void gradients_of_lora_agree_with_finite_differences(void **state)
{
    (void)state;
    check_gradient("llama", RT_ADAPTER_LORA);
    check_gradient("qwen2", RT_ADAPTER_LORA);
}

static void gradients_of_dora_agree_with_finite_differences_at_held_norms(void **state)
{
    (void)state;
    check_gradient("qwen3", RT_ADAPTER_DORA);
}

static void train(world *w)
{
    rt_error err = {0};
    rt_step_report report;
    double first = 0;
    for (int step = 0; step < 3; step++) {
        const double loss = loss_of(w);
        first = step ? first : loss;
        assert_int_equal(rt_trainer_update(w->trainer, &report, &err), RT_OK);
    }
    assert_true(loss_of(w) < first);
}

static void threads_and_where_the_base_lies_change_no_bit(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        world kept, filed;
        rt_adapter_options options = lora;
        options.kind = (rt_adapter_kind)kind;
        options.precision = RT_PRECISION_BF16;
        options.targets = 0x4D; /* q v o down: the others are frozen beside them */
        world_open(&kept, "llama", options, 1);
        options.from_file = true;
        world_open(&filed, "llama", options, 3);
        train(&kept);
        train(&filed);
        assert_memory_equal(kept.trainer->values, filed.trainer->values, kept.trainer->total * sizeof(float));
        world_close(&kept);
        world_close(&filed);
    }
}

static void what_cannot_have_adapters_is_refused(void **state)
{
    (void)state;
    static const char *const models[] = {"gpt2", "qwen3_moe", "deepseek_v3"};
    for (size_t i = 0; i < 3; i++) {
        char path[512];
        rt_error err = {0};
        rt_weights *weights;
        rt_model_config config;
        rt_adapters *adapters;
        rt_pool *pool;
        (void)snprintf(path, sizeof path, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, models[i]);
        assert_int_equal(rt_pool_open(&pool, 1, &err), RT_OK);
        assert_int_equal(rt_weights_open(&weights, path, &err), RT_OK);
        assert_int_equal(rt_model_config_read(&config, weights, &err), RT_OK);
        assert_int_equal(rt_adapters_open(&adapters, &lora, &config, weights, &config, NULL, pool, &err),
                         RT_UNSUPPORTED);
        rt_weights_close(weights);
        rt_pool_close(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_model_is_the_base_to_the_last_bit),
        cmocka_unit_test(gradients_of_lora_agree_with_finite_differences),
        cmocka_unit_test(gradients_of_dora_agree_with_finite_differences_at_held_norms),
        cmocka_unit_test(threads_and_where_the_base_lies_change_no_bit),
        cmocka_unit_test(what_cannot_have_adapters_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
