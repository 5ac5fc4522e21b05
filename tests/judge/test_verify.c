/* tests/judge/test_verify.c - the decoder agrees with every family's reference vectors, in float32 and in
 * bf16, at every level of instruction sets; and a comparison that is off is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "judge/verify.h"
#include "tensor/cpu.h"

#define GOLDEN RT_TEST_SOURCE_DIR "/tests/golden/engine/"

static const char *const families[] = {"llama",          "llama_untied_rope3",
                                       "llama_head_dim", "llama_yarn",
                                       "mistral_window", "qwen2",
                                       "qwen3",          "gemma3",
                                       "gpt2",           "qwen3_moe",
                                       "deepseek_v3"};

static void verify_all(rt_precision precision)
{
    rt_error err = {0};
    rt_pool *pool;
    assert_int_equal(rt_pool_open(&pool, 2, &err), RT_OK);
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512BF16; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
            char dir[512];
            rt_verify result;
            (void)snprintf(dir, sizeof dir, "%s%s", GOLDEN, families[i]);
            if (rt_verify_model(&result, dir, precision, pool, &err) != RT_OK)
                fail_msg("%s", err.text);
            if (result.failed)
                fail_msg("%s at %s: %zu failed, worst %s: %g, tolerance %g", families[i], rt_cpu_name(level),
                         result.failed, result.worst, result.worst_error, result.worst_tolerance);
            assert_true(result.passed >= 25); /* hidden states, logits, loss and each parameter */
            assert_true(result.worst_error > 0);
        }
    }
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
    rt_pool_close(pool);
}

static void every_family_agrees_in_float32_at_every_level(void **state)
{
    (void)state;
    verify_all(RT_PRECISION_F32);
}

static void every_family_agrees_in_bf16_at_every_level(void **state)
{
    (void)state;
    verify_all(RT_PRECISION_BF16);
}

static void float32_is_far_inside_its_tolerance(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_verify result;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char dir[512];
        (void)snprintf(dir, sizeof dir, "%s%s", GOLDEN, families[i]);
        if (rt_verify_model(&result, dir, RT_PRECISION_F32, NULL, &err) != RT_OK)
            fail_msg("%s", err.text);
        assert_true(result.worst_error < 2e-5);
    }
}

static void a_folder_that_is_not_there_is_an_error_that_names_it(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_verify result;
    assert_int_not_equal(rt_verify_model(&result, "/no/such/folder", RT_PRECISION_F32, NULL, &err), RT_OK);
    assert_non_null(strstr(err.text, "/no/such/folder"));
}

static void the_worst_comparison_is_the_one_furthest_past_its_tolerance(void **state)
{
    (void)state;
    rt_verify result = {0};
    rt_verify_add(&result, "large but allowed", 0.5, 1);
    rt_verify_add(&result, "small but beyond", 2e-4, 1e-4);
    rt_verify_add(&result, "fine", 0, 1e-4);
    assert_int_equal(result.passed, 2);
    assert_int_equal(result.failed, 1);
    assert_string_equal(result.worst, "small but beyond");
    rt_verify_add(&result, "not a number", strtod("nan", NULL), 1);
    rt_verify_add(&result, "huge", 1e9, 1e-4);
    assert_int_equal(result.failed, 3);
    assert_string_equal(result.worst, "not a number");
}

static void the_tolerance_of_bf16_grows_with_depth_and_stays_small(void **state)
{
    (void)state;
    assert_true(rt_verify_bf16_tolerance(2, false) < rt_verify_bf16_tolerance(3, false));
    assert_true(rt_verify_bf16_tolerance(2, false) < rt_verify_bf16_tolerance(2, true));
    assert_true(rt_verify_bf16_tolerance(3, true) < 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_agrees_in_float32_at_every_level),
        cmocka_unit_test(every_family_agrees_in_bf16_at_every_level),
        cmocka_unit_test(float32_is_far_inside_its_tolerance),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error_that_names_it),
        cmocka_unit_test(the_worst_comparison_is_the_one_furthest_past_its_tolerance),
        cmocka_unit_test(the_tolerance_of_bf16_grows_with_depth_and_stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
