/* tests/student/test_optimiser.c - AdamW is its formula, the same bits however it is shared out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "student/optimiser.h"
#include "tensor/cpu.h"

enum { N = 1003, STEPS = 5 };

typedef struct group {
    float master[N], m[N], v[N];
    rt_bf16 weights[N];
} group;

static const rt_adamw_options options = {
    .lr = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};

static void fill(float *x, size_t n, uint64_t stream)
{
    rt_rng rng = rt_rng_make(99, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rt_rng_normal(&rng);
}

static void run(group *g, size_t split)
{
    float grad[N];
    *g = (group){0};
    fill(g->master, N, 0);
    for (uint64_t s = 1; s <= STEPS; s++) {
        const rt_adamw_step step = rt_adamw_step_make(&options, s, 1, 0.5);
        fill(grad, N, s);
        for (size_t i = 0; i < N; i += split)
            rt_adamw_update(&step, grad, g->master, g->m, g->v, g->weights, i, i + split < N ? i + split : N);
    }
}

static void adamw_follows_its_formula(void **state)
{
    (void)state;
    static group g;
    float w0[N], grad[N];
    run(&g, N);
    fill(w0, N, 0);
    for (size_t i = 0; i < N; i++) {
        double w = (double)w0[i], m = 0, v = 0;
        for (uint64_t s = 1; s <= STEPS; s++) {
            fill(grad, i + 1, s);
            const double x = 0.5 * (double)grad[i], n = (double)s;
            m = 0.9 * m + 0.1 * x;
            v = 0.95 * v + 0.05 * x * x;
            w *= 1 - 3e-3 * 0.1;
            w -= 3e-3 / (1 - pow(0.9, n)) * m / (sqrt(v) / sqrt(1 - pow(0.95, n)) + 1e-8);
        }
        assert_true(fabs((double)g.master[i] - w) < 2e-6 * (1 + fabs(w)));
        assert_true(fabs((double)g.m[i] - m) < 2e-6 && fabs((double)g.v[i] - v) < 2e-6);
        assert_int_equal(g.weights[i], rt_f32_to_bf16(g.master[i]));
    }
}

static void splits_and_instruction_sets_give_the_same_bits(void **state)
{
    (void)state;
    static group whole, other;
    float grad[3 * N];
    fill(grad, 3 * N, 7);
    run(&whole, N);
    const double norm = rt_norm_chunk(grad, 3 * N, 0);
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512BF16; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        run(&other, 37 + level);
        assert_memory_equal(&other, &whole, sizeof whole);
        assert_true(rt_norm_chunk(grad, 3 * N, 0) == norm);
    }
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
}

static void the_norm_adds_chunks_in_order(void **state)
{
    (void)state;
    const size_t n = 2 * RT_NORM_CHUNK + 5;
    float *grad = malloc(n * sizeof *grad);
    double chunks[3], sum = 0;
    assert_non_null(grad);
    fill(grad, n, 3);
    assert_int_equal(rt_norm_chunks(n), 3);
    assert_int_equal(rt_norm_chunks(0), 0);
    for (size_t i = 0; i < 3; i++)
        chunks[i] = rt_norm_chunk(grad, n, i);
    for (size_t i = 0; i < n; i++)
        sum += (double)grad[i] * (double)grad[i];
    assert_true(fabs(rt_norm_total(chunks, 3) / sqrt(sum) - 1) < 1e-12);
    free(grad);
}

static void clipping_never_enlarges(void **state)
{
    (void)state;
    assert_true(rt_clip_factor(0.3, 1) == 1);
    assert_true(rt_clip_factor(0, 1) == 1);
    assert_true(fabs(rt_clip_factor(4, 1) - 1 / 4.000001) < 1e-15);
    assert_true(rt_clip_factor(4, 0) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_follows_its_formula),
        cmocka_unit_test(splits_and_instruction_sets_give_the_same_bits),
        cmocka_unit_test(the_norm_adds_chunks_in_order),
        cmocka_unit_test(clipping_never_enlarges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
