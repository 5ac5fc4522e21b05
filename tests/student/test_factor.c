/* tests/student/test_factor.c - an embedding as two factors: the nearest product at the start, gradients
 * against finite differences, the merged matrix against the factors, resumed and on any number of threads the
 * same bits. */
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
#include "student/checkpoint.h"
#include "student/init.h"
#include "student/trainer.h"

enum { TOKENS = 64, RANK = 8 };

typedef struct world {
    rt_pool *pool;
    rt_weights *weights;
    rt_model_config config;
    rt_trainer *trainer;
    int32_t ids[TOKENS], labels[TOKENS];
    uint32_t rows[TOKENS];
    double scales[TOKENS];
    rt_segment segment;
} world;

static void world_open(world *w, const char *model, size_t rank, rt_precision precision, unsigned threads)
{
    char path[512];
    rt_error err = {0};
    memset(w, 0, sizeof *w);
    (void)snprintf(path, sizeof path, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, model);
    assert_int_equal(rt_pool_open(&w->pool, threads, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w->weights, path, &err), RT_OK);
    assert_int_equal(rt_model_config_read(&w->config, w->weights, &err), RT_OK);
    const rt_trainer_options options = {.mix = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_CE, .tau = 1}}}},
                                        .adamw = {1e-2, 0.9, 0.95, 1e-8, 0.1},
                                        .schedule = {.kind = RT_SCHEDULE_CONSTANT, .total = 4, .floor = 0.1},
                                        .clip = 1,
                                        .precision = precision,
                                        .tokens_max = TOKENS,
                                        .embd_rank = rank};
    assert_int_equal(rt_trainer_open(&w->trainer, &w->config, NULL, &options, w->pool, &err), RT_OK);
    assert_int_equal(rt_params_load(w->trainer->values, &w->trainer->layout, &w->config, w->weights,
                                    &w->config, NULL, w->pool, &err),
                     RT_OK);
    assert_int_equal(rt_trainer_start(w->trainer, &err), RT_OK);
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

static void train(world *w, int steps)
{
    rt_error err = {0};
    rt_step_report report;
    for (int step = 0; step < steps; step++) {
        (void)loss_of(w);
        assert_int_equal(rt_trainer_update(w->trainer, &report, &err), RT_OK);
        assert_true(isfinite(report.grad_norm) && report.grad_norm > 0);
    }
}

/* No product of that rank is nearer to the file's matrix: what is missing are the other singular values. */
static void the_start_is_the_nearest_product_of_the_rank(void **state)
{
    (void)state;
    world whole, narrow;
    rt_error err = {0};
    world_open(&whole, "llama", 0, RT_PRECISION_F32, 2);
    world_open(&narrow, "llama", RANK, RT_PRECISION_F32, 2);
    const rt_param *e = rt_layout_global(&whole.trainer->layout, RT_GLOBAL_EMBED);
    const rt_param *product = rt_layout_global(&narrow.trainer->layout, RT_GLOBAL_EMBED);
    const size_t n = e->cols;
    double *w = calloc(e->count, sizeof *w), *left = calloc(e->rows * n, sizeof *left);
    double *right = calloc(n * n, sizeof *right), *singular = calloc(n, sizeof *singular);
    assert_true(w && left && right && singular);
    double error = 0, rest = 0;
    for (size_t i = 0; i < e->count; i++) {
        w[i] = (double)whole.trainer->values[e->offset + i];
        const double d = w[i] - (double)narrow.trainer->values[product->offset + i];
        error += d * d;
    }
    assert_int_equal(rt_svd_factor(left, right, singular, w, e->rows, n, n, &err), RT_OK);
    for (size_t k = RANK; k < n; k++)
        rest += singular[k] * singular[k];
    assert_true(rest > 0 && fabs(error - rest) < 1e-5 * rest);
    free(w);
    free(left);
    free(right);
    free(singular);
    world_close(&whole);
    world_close(&narrow);
}

/* h [n_embd] on the factors one after the other, in double, is what the merged head says of it. */
static void logits_of_the_factors_are_those_of_the_merged_matrix(void **state)
{
    (void)state;
    world w;
    world_open(&w, "qwen3", RANK, RT_PRECISION_F32, 2);
    train(&w, 2);
    const rt_trainer *t = w.trainer;
    const rt_factor *f = &t->factors.list[0];
    const rt_param *e = &t->layout.list[f->param];
    rt_rng rng = rt_rng_make(2, 0);
    double narrow[RANK] = {0}, *h = calloc(e->cols, sizeof *h);
    assert_non_null(h);
    for (size_t i = 0; i < e->cols; i++) {
        h[i] = rt_rng_normal(&rng);
        for (size_t r = 0; r < RANK; r++)
            narrow[r] += h[i] * (double)t->values[f->b + r * e->cols + i];
    }
    for (size_t v = 0; v < e->rows; v++) {
        double merged = 0, apart = 0, size = 0;
        for (size_t i = 0; i < e->cols; i++) {
            merged += h[i] * (double)t->values[e->offset + v * e->cols + i];
            size += fabs(h[i] * (double)t->values[e->offset + v * e->cols + i]);
        }
        for (size_t r = 0; r < RANK; r++)
            apart += narrow[r] * (double)t->values[f->a + v * RANK + r];
        assert_true(fabs(merged - apart) < 1e-6 * size + 1e-7);
    }
    free(h);
    world_close(&w);
}

static void check_part(world *w, const char *what, const float *grads, const float *at, size_t begin,
                       size_t end)
{
    rt_trainer *t = w->trainer;
    double size = 0, loss[2];
    for (size_t k = begin; k < end; k++)
        size += (double)grads[k] * (double)grads[k];
    size = sqrt(size);
    assert_true(size > 0);
    const double h = 0.01; /* along the gradient itself: its derivative is its length */
    for (int side = 0; side < 2; side++) {
        for (size_t k = begin; k < end; k++)
            t->values[k] = at[k] + (float)((side ? h : -h) * (double)grads[k] / size);
        rt_trainer_sync(t);
        loss[side] = loss_of(w);
    }
    memcpy(t->values, at, t->total * sizeof *at);
    const double measured = (loss[1] - loss[0]) / (2 * h);
    if (fabs(measured - size) > 0.01 * size + 2e-5)
        fail_msg("%s: %g, by differences %g", what, size, measured);
}

static void gradients_agree_with_finite_differences(void **state)
{
    (void)state;
    static const char *const models[] = {"llama", "qwen2", "gemma3", "gpt2"};
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        world w;
        world_open(&w, models[m], RANK, RT_PRECISION_F32, 2);
        rt_trainer *t = w.trainer;
        float *grads = calloc(t->total, sizeof *grads), *at = calloc(t->total, sizeof *at);
        assert_true(grads && at);
        (void)loss_of(&w);
        rt_factors_gradient(&t->factors, &t->layout, t->values, t->grads, t->pool);
        memcpy(grads, t->grads, t->total * sizeof *grads);
        memcpy(at, t->values, t->total * sizeof *at);
        assert_int_equal(t->factors.count, w.config.tied ? 1 : 2);
        for (size_t i = 0; i < t->factors.count; i++) {
            const rt_factor *f = &t->factors.list[i];
            const rt_param *p = &t->layout.list[f->param];
            check_part(&w, models[m], grads, at, f->a, f->a + p->rows * RANK);
            check_part(&w, models[m], grads, at, f->b, f->b + RANK * p->cols);
        }
        for (size_t i = 0; i < t->layout.count - t->factors.count;
             i += 7) { /* the others are where they were */
            const rt_param *p = &t->layout.list[i];
            check_part(&w, models[m], grads, at, p->offset, p->offset + p->count);
        }
        free(grads);
        free(at);
        world_close(&w);
    }
}

static void it_learns_and_threads_change_no_bit(void **state)
{
    (void)state;
    world one, three;
    world_open(&one, "llama", RANK, RT_PRECISION_BF16, 1);
    world_open(&three, "llama", RANK, RT_PRECISION_BF16, 3);
    const double first = loss_of(&one);
    memset(one.trainer->grads, 0, one.trainer->layout.total * sizeof(float));
    train(&one, 4);
    train(&three, 4);
    assert_memory_equal(one.trainer->values, three.trainer->values,
                        one.trainer->layout.total * sizeof(float));
    assert_true(loss_of(&one) < first);
    world_close(&one);
    world_close(&three);
}

/* The checkpoint has no merged matrix: it comes from the factors. */
static void a_checkpoint_holds_the_factors_and_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    world whole, kept, back;
    rt_error err = {0};
    const char identity[65] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    rt_run_state run = {.step = 2};
    char path[] = "/tmp/retort_factor_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    world_open(&whole, "llama", RANK, RT_PRECISION_BF16, 2);
    world_open(&kept, "llama", RANK, RT_PRECISION_BF16, 2);
    world_open(&back, "llama", RANK, RT_PRECISION_BF16, 2);
    train(&whole, 4);
    train(&kept, 2);
    assert_int_equal(rt_checkpoint_write(path, kept.trainer, &run, NULL, identity, &err), RT_OK);
    memset(back.trainer->values, 0, back.trainer->layout.total * sizeof(float));
    assert_int_equal(rt_checkpoint_read(path, back.trainer, &run, NULL, identity, &err), RT_OK);
    train(&back, 2);
    assert_memory_equal(whole.trainer->values, back.trainer->values,
                        back.trainer->layout.total * sizeof(float));
    assert_true(back.trainer->total < back.trainer->layout.total);
    assert_int_equal(remove(path), 0);
    world_close(&whole);
    world_close(&kept);
    world_close(&back);
}

static void a_rank_that_saves_nothing_is_refused(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    world_open(&w, "llama", 0, RT_PRECISION_F32, 1);
    rt_trainer *t = NULL;
    rt_trainer_options options = w.trainer->options;
    for (size_t rank = w.config.n_embd; rank > 0; rank--) {
        const size_t values = rank * (w.config.n_vocab + w.config.n_embd);
        options.embd_rank = rank;
        const rt_status status = rt_trainer_open(&t, &w.config, NULL, &options, w.pool, &err);
        const bool saves = values < w.config.n_vocab * w.config.n_embd;
        assert_int_equal(status, saves ? RT_OK : RT_INVALID);
        if (!saves)
            assert_non_null(strstr(err.text, "student.embd_rank"));
        rt_trainer_close(t);
        t = NULL;
    }
    world_close(&w);
}

static void an_embedding_that_is_not_finite_is_named(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    world_open(&w, "llama", RANK, RT_PRECISION_F32, 1);
    const rt_param *e = rt_layout_global(&w.trainer->layout, RT_GLOBAL_EMBED);
    w.trainer->values[e->offset + 5] = NAN;
    assert_int_equal(rt_trainer_start(w.trainer, &err), RT_NOT_FINITE);
    assert_non_null(strstr(err.text, "student.embd_rank"));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_start_is_the_nearest_product_of_the_rank),
        cmocka_unit_test(logits_of_the_factors_are_those_of_the_merged_matrix),
        cmocka_unit_test(gradients_agree_with_finite_differences),
        cmocka_unit_test(it_learns_and_threads_change_no_bit),
        cmocka_unit_test(a_checkpoint_holds_the_factors_and_goes_on_with_the_same_bits),
        cmocka_unit_test(a_rank_that_saves_nothing_is_refused),
        cmocka_unit_test(an_embedding_that_is_not_finite_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
