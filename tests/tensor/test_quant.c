/* tests/tensor/test_quant.c - block formats: read exactly at each CPU level, written with small error.
 *
 * quant_vectors.h holds blocks of random bits with the floats that the format's reference gives. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tensor/cpu.h"
#include "tensor/quant.h"
#include "tensor/quant_vectors.h"

typedef struct decode_case {
    rt_dtype dtype;
    const unsigned char *blocks;
    const uint32_t *bits;
    size_t n;
} decode_case;

#define DECODE_CASE(type, name)                                                                              \
    {                                                                                                        \
        type, name##_blocks, name##_bits, sizeof name##_bits / sizeof *name##_bits                           \
    }
static const decode_case decode_cases[] = {
    DECODE_CASE(RT_F16, f16),   DECODE_CASE(RT_BF16, bf16), DECODE_CASE(RT_Q4_0, q4_0),
    DECODE_CASE(RT_Q4_1, q4_1), DECODE_CASE(RT_Q5_0, q5_0), DECODE_CASE(RT_Q5_1, q5_1),
    DECODE_CASE(RT_Q8_0, q8_0), DECODE_CASE(RT_Q2_K, q2_k), DECODE_CASE(RT_Q3_K, q3_k),
    DECODE_CASE(RT_Q4_K, q4_k), DECODE_CASE(RT_Q5_K, q5_k), DECODE_CASE(RT_Q6_K, q6_k),
};
static const char *const levels[] = {"ref", "avx2", "avx512", "avx512bf16"};
enum { LEVELS = sizeof levels / sizeof *levels };

static void use_level(const char *level)
{
    if (level)
        (void)setenv("RETORT_CPU", level, 1);
    else
        (void)unsetenv("RETORT_CPU");
    rt_cpu_reset();
}

static int restore_level(void **state)
{
    (void)state;
    use_level(NULL);
    return 0;
}

static void every_type_decodes_to_the_bits_of_the_reference(void **state)
{
    (void)state;
    for (size_t level = 0; level < LEVELS; level++) {
        use_level(levels[level]);
        for (size_t i = 0; i < sizeof decode_cases / sizeof *decode_cases; i++) {
            const decode_case *c = &decode_cases[i];
            float x[256];
            rt_dequantise(x, c->blocks, c->dtype, c->n);
            assert_memory_equal(x, c->bits, c->n * sizeof *x);
        }
    }
}

static void decoding_to_bf16_rounds_the_floats(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decode_cases / sizeof *decode_cases; i++) {
        const decode_case *c = &decode_cases[i];
        rt_bf16 x[256];
        rt_dequantise_bf16(x, c->blocks, c->dtype, c->n);
        for (size_t j = 0; j < c->n; j++) {
            float value;
            memcpy(&value, &c->bits[j], sizeof value);
            assert_int_equal(x[j], rt_f32_to_bf16(value));
        }
    }
}

static void every_half_decodes_as_the_scalar_conversion_does(void **state)
{
    (void)state;
    enum { HALVES = 65536 };
    uint16_t *halves = malloc(HALVES * sizeof *halves);
    float *x = malloc(HALVES * sizeof *x);
    assert_true(halves && x);
    for (size_t i = 0; i < HALVES; i++)
        halves[i] = (uint16_t)i;
    for (size_t level = 0; level < LEVELS; level++) {
        use_level(levels[level]);
        rt_dequantise(x, halves, RT_F16, HALVES);
        for (size_t i = 0; i < HALVES; i++) {
            const float wanted = rt_f16_to_f32(halves[i]);
            assert_true(isnan(wanted) ? isnan(x[i]) : memcmp(&x[i], &wanted, sizeof wanted) == 0);
            if (!isnan(wanted))
                assert_int_equal(rt_f32_to_f16(wanted), halves[i]);
        }
    }
    free(halves);
    free(x);
}

static void plain_integers_and_doubles_keep_their_values(void **state)
{
    (void)state;
    static const int64_t wide[] = {-3, 1 << 20};
    static const double doubles[] = {-0.5, 1e10};
    static const signed char bytes[] = {-128, 127};
    float x[2];
    rt_dequantise(x, wide, RT_I64, 2);
    assert_true(x[0] == -3.0f && x[1] == 1048576.0f);
    rt_dequantise(x, doubles, RT_F64, 2);
    assert_true(x[0] == -0.5f && x[1] == 1e10f);
    rt_dequantise(x, bytes, RT_I8, 2);
    assert_true(x[0] == -128.0f && x[1] == 127.0f);
}

static void the_old_types_round_to_the_blocks_of_the_reference(void **state)
{
    (void)state;
    enum { N = sizeof floats_bits / sizeof *floats_bits };
    float x[N];
    unsigned char blocks[N * 2];
    memcpy(x, floats_bits, sizeof x);
    rt_quantise(blocks, x, RT_Q4_0, N);
    assert_memory_equal(blocks, q4_0_rounded, sizeof q4_0_rounded);
    rt_quantise(blocks, x, RT_Q4_1, N);
    assert_memory_equal(blocks, q4_1_rounded, sizeof q4_1_rounded);
    rt_quantise(blocks, x, RT_Q8_0, N);
    assert_memory_equal(blocks, q8_0_rounded, sizeof q8_0_rounded);
}

enum { SAMPLES = 256 * 64 };

/* Sums of 12 uniform numbers: near enough to the bell curve of real weights. */
static void fill_bell(float x[SAMPLES], float offset)
{
    rt_rng rng = rt_rng_make(7, 0);
    for (size_t i = 0; i < SAMPLES; i++) {
        double sum = -6;
        for (int j = 0; j < 12; j++)
            sum += rt_rng_uniform(&rng);
        x[i] = (float)(sum * 0.02) + offset;
    }
}

static void every_level_rounds_to_the_same_blocks(void **state)
{
    (void)state;
    static const rt_dtype types[] = {RT_Q8_0, RT_Q4_0, RT_Q4_1, RT_Q4_K, RT_Q6_K};
    static float x[SAMPLES];
    static unsigned char first[SAMPLES * 2], again[SAMPLES * 2];
    fill_bell(x, 0.01f);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        size_t bytes;
        assert_true(rt_dtype_bytes(&bytes, types[t], SAMPLES));
        for (size_t level = 0; level < LEVELS; level++) {
            use_level(levels[level]);
            rt_quantise(level ? again : first, x, types[t], SAMPLES);
            if (level)
                assert_memory_equal(first, again, bytes);
        }
    }
}

static double relative_rms(const float *x, rt_dtype dtype)
{
    static unsigned char blocks[SAMPLES * 4];
    static float back[SAMPLES];
    double off = 0, all = 0;
    rt_quantise(blocks, x, dtype, SAMPLES);
    rt_dequantise(back, blocks, dtype, SAMPLES);
    for (size_t i = 0; i < SAMPLES; i++) {
        off += pow((double)back[i] - (double)x[i], 2);
        all += pow((double)x[i], 2);
    }
    return sqrt(off / all);
}

static void rounding_errors_stay_below_their_bounds(void **state)
{
    (void)state;
    static const struct {
        rt_dtype dtype;
        double bound; /* 3% above what was measured when this was written */
    } cases[] = {{RT_F16, 0.00022}, {RT_BF16, 0.0017}, {RT_Q8_0, 0.00538}, {RT_Q6_K, 0.0173},
                 {RT_Q4_K, 0.0708}, {RT_Q4_1, 0.0791}, {RT_Q4_0, 0.0864}};
    static float x[SAMPLES];
    fill_bell(x, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const double error = relative_rms(x, cases[i].dtype);
        if (error >= cases[i].bound)
            fail_msg("%s: relative error %.5f", rt_dtype_get(cases[i].dtype)->name, error);
    }
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void hard_values_round_without_harm(void **state)
{
    (void)state;
    static const float hard[] = {0,        -0.0f,  NAN,    INFINITY, -INFINITY, 3.4e38f,
                                 -3.4e38f, 1e-45f, 1e-38f, 6e4f,     1};
    enum { HARD = sizeof hard / sizeof *hard };
    static const rt_dtype types[] = {RT_Q8_0, RT_Q4_0, RT_Q4_1, RT_Q4_K, RT_Q6_K};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (size_t round = 0; round < HARD * HARD; round++) {
            float x[256], back[256];
            unsigned char blocks[1024];
            for (size_t i = 0; i < 256; i++)
                x[i] = i % 3 ? hard[round % HARD] : hard[round / HARD];
            rt_quantise(blocks, x, types[t], 256);
            rt_dequantise(back, blocks, types[t], 256);
            assert_true(all_finite(back, 256));
        }
    }
}

static void zeros_stay_zeros(void **state)
{
    (void)state;
    static const rt_dtype types[] = {RT_F32, RT_F16, RT_BF16, RT_Q8_0, RT_Q4_0, RT_Q4_1, RT_Q4_K, RT_Q6_K};
    static const float zeros[256];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        float back[256];
        unsigned char blocks[1024];
        assert_true(rt_can_quantise(types[t]));
        rt_quantise(blocks, zeros, types[t], 256);
        rt_dequantise(back, blocks, types[t], 256);
        for (size_t i = 0; i < 256; i++)
            assert_true(back[i] == 0.0f);
    }
    assert_false(rt_can_quantise(RT_Q5_0));
}

static void what_a_block_holds_is_written_again_nearly_unchanged(void **state)
{
    (void)state;
    static const struct {
        rt_dtype dtype;
        double bound; /* the K types search for scales among candidates that their own are not among */
    } cases[] = {{RT_Q8_0, 1e-9}, {RT_Q4_0, 1e-9}, {RT_Q6_K, 0.001}, {RT_Q4_K, 0.0075}};
    static float x[SAMPLES], once[SAMPLES];
    static unsigned char blocks[SAMPLES * 2];
    fill_bell(x, 0.003f);
    for (size_t t = 0; t < sizeof cases / sizeof *cases; t++) {
        rt_quantise(blocks, x, cases[t].dtype, SAMPLES);
        rt_dequantise(once, blocks, cases[t].dtype, SAMPLES);
        assert_true(relative_rms(once, cases[t].dtype) < cases[t].bound);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_type_decodes_to_the_bits_of_the_reference, restore_level),
        cmocka_unit_test(decoding_to_bf16_rounds_the_floats),
        cmocka_unit_test_teardown(every_half_decodes_as_the_scalar_conversion_does, restore_level),
        cmocka_unit_test(plain_integers_and_doubles_keep_their_values),
        cmocka_unit_test(the_old_types_round_to_the_blocks_of_the_reference),
        cmocka_unit_test_teardown(every_level_rounds_to_the_same_blocks, restore_level),
        cmocka_unit_test(rounding_errors_stay_below_their_bounds),
        cmocka_unit_test(hard_values_round_without_harm),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(what_a_block_holds_is_written_again_nearly_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
