/* tests/tensor/test_qmat.c - the packed product is the product of the file's weights with rounded
 * activations.
 *
 * Weights are random blocks (every code, scale and min pattern may occur; scales are kept finite), decoded
 * with rt_dequantise; the reference is a float64 product with activations rounded here in the plainest way.
 * All levels of RETORT_CPU that the machine has must give the same bits. */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tensor/cpu.h"
#include "tensor/qmat.h"
#include "tensor/qmat_memory.h"
#include "tensor/quant.h"

static const rt_dtype types[] = {RT_Q4_0, RT_Q4_1, RT_Q5_0, RT_Q5_1, RT_Q8_0,
                                 RT_Q2_K, RT_Q3_K, RT_Q4_K, RT_Q5_K, RT_Q6_K};
enum { N_TYPES = sizeof types / sizeof *types };
static const char *const levels[] = {"ref", "avx2", "avx512", "avx512bf16"};

static void set_level(const char *level)
{
    if (level)
        assert_int_equal(setenv("RETORT_CPU", level, 1), 0);
    else
        assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
}

static void *allocate(size_t bytes)
{
    void *out = NULL;
    assert_int_equal(posix_memalign(&out, 64, bytes ? bytes : 1), 0);
    return out;
}

/* Random bytes, with the f16 fields of each block replaced by values of moderate size. */
static uint8_t *random_blocks(rt_rng *rng, rt_dtype type, size_t rows, size_t cols, size_t *bytes)
{
    const rt_dtype_info *info = rt_dtype_get(type);
    assert_true(rt_dtype_bytes(bytes, type, rows * cols));
    uint8_t *blocks = allocate(*bytes);
    for (size_t i = 0; i < *bytes; i++)
        blocks[i] = (uint8_t)rt_rng_u32(rng);
    const size_t at = type == RT_Q2_K ? 80 : type == RT_Q3_K ? 108 : type == RT_Q6_K ? 208 : 0;
    const bool has_min =
        type == RT_Q4_1 || type == RT_Q5_1 || type == RT_Q2_K || type == RT_Q4_K || type == RT_Q5_K;
    for (uint8_t *b = blocks; b < blocks + *bytes; b += info->block_bytes) {
        const uint16_t d = rt_f32_to_f16(((float)(rt_rng_u32(rng) % 2001) - 1000.0f) * 1e-5f);
        const uint16_t m = rt_f32_to_f16(((float)(rt_rng_u32(rng) % 2001) - 1000.0f) * 1e-4f);
        memcpy(b + at, &d, 2);
        if (has_min)
            memcpy(b + at + 2, &m, 2);
    }
    return blocks;
}

static float *random_values(rt_rng *rng, size_t n)
{
    float *x = allocate(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = ((float)(rt_rng_u32(rng) % 200001) - 100000.0f) * 1e-4f * (i / 32 % 3 ? 1.0f : 0.01f);
    return x;
}

static rt_qmat *pack(const void *blocks, rt_dtype type, size_t rows, size_t cols, rt_pool *pool)
{
    rt_qmat *mat = NULL;
    rt_error err = {0};
    assert_true(rt_qmat_can_pack(type, rows, cols));
    assert_int_equal(rt_qmat_pack(&mat, blocks, type, rows, cols, pool, &err), RT_OK);
    assert_int_equal(rt_qmat_rows(mat), rows);
    assert_int_equal(rt_qmat_cols(mat), cols);
    return mat;
}

/* y [m, rows] with a gap of `gap` values between its rows; the gaps hold 7. */
static float *product(const rt_qmat *mat, const float *x, size_t m, size_t gap, float before)
{
    const size_t rows = rt_qmat_rows(mat), cols = rt_qmat_cols(mat), ldy = rows + gap;
    float *y = allocate(m * ldy * sizeof *y);
    void *qact = allocate(rt_qact_bytes(m, cols));
    for (size_t i = 0; i < m * ldy; i++)
        y[i] = i % ldy < rows ? before : 7.0f;
    rt_qact_quantise(qact, x, cols, m, cols);
    rt_qmat_mul(y, ldy, mat, 0, rows, qact, m, before != 0);
    for (size_t i = 0; i < m * ldy; i++)
        assert_true(i % ldy < rows || y[i] == 7.0f);
    free(qact);
    return y;
}

/* One activation row rounded by the book: 127 steps to the largest of 32. */
static void round_row(double *out, const float *x, size_t cols)
{
    for (size_t g = 0; g < cols; g += 32) {
        float largest = 0;
        for (size_t j = 0; j < 32; j++)
            largest = fmaxf(largest, fabsf(x[g + j]));
        const float inverse = largest > 0 ? 127.0f / largest : 0;
        for (size_t j = 0; j < 32; j++)
            out[g + j] = (double)(largest / 127.0f) * (double)rintf(x[g + j] * inverse);
    }
}

/* `mat` times `x` against float64, relative to the sum of magnitudes of each dot. */
static void check_product(const rt_qmat *mat, const float *w, const float *x, size_t m, float before)
{
    const size_t rows = rt_qmat_rows(mat), cols = rt_qmat_cols(mat);
    float *y = product(mat, x, m, 3, before);
    double *rounded = allocate(cols * sizeof *rounded);
    for (size_t i = 0; i < m; i++) {
        round_row(rounded, x + i * cols, cols);
        for (size_t r = 0; r < rows; r++) {
            double sum = (double)before, scale = fabs((double)before) + 1e-12;
            for (size_t c = 0; c < cols; c++) {
                sum += (double)w[r * cols + c] * rounded[c];
                scale += fabs((double)w[r * cols + c] * rounded[c]);
            }
            /* float32 sums of d * dot and min * sum, which may cancel: 2^-24 for each of a few steps a group.
             * Types with a min have terms larger than the products of weights that are near zero. */
            if (fabs((double)y[i * (rows + 3) + r] - sum) > 2e-5 * scale)
                fail_msg("type row %zu of %zu, m %zu of %zu: %.9g, not %.9g", r, rows, i, m,
                         (double)y[i * (rows + 3) + r], sum);
        }
    }
    free(rounded);
    free(y);
}

static size_t block_of(rt_dtype type) { return rt_dtype_get(type)->block_elements; }

static void every_type_gives_the_float64_product(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(1, 0);
    for (size_t t = 0; t < N_TYPES; t++) {
        for (size_t rows = 1; rows <= 40; rows += rows == 1 ? 14 : rows < 18 ? 1 : 11) {
            const size_t cols = block_of(types[t]) * (1 + rows % 3), m_max = 33;
            size_t bytes;
            uint8_t *blocks = random_blocks(&rng, types[t], rows, cols, &bytes);
            float *w = allocate(rows * cols * sizeof *w), *x = random_values(&rng, m_max * cols);
            rt_dequantise(w, blocks, types[t], rows * cols);
            rt_qmat *mat = pack(blocks, types[t], rows, cols, NULL);
            for (size_t m = 1; m <= m_max; m += m < 9 ? 1 : 6)
                check_product(mat, w, x, m, m % 2 ? 0.0f : 0.5f);
            rt_qmat_free(mat);
            free(w);
            free(x);
            free(blocks);
        }
    }
}

static void every_level_gives_the_same_bits(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(2, 0);
    for (size_t t = 0; t < N_TYPES; t++) {
        const size_t rows = 37, cols = block_of(types[t]) * 5, m = 31;
        size_t bytes;
        uint8_t *blocks = random_blocks(&rng, types[t], rows, cols, &bytes);
        float *x = random_values(&rng, m * cols);
        memset(x, 0, 32 * sizeof *x); /* a group of zeros */
        x[40] = 1e-40f;               /* too small to matter */
        rt_qmat *mat = pack(blocks, types[t], rows, cols, NULL);
        float *want = NULL;
        for (size_t level = 0; level < 4; level++) {
            set_level(levels[level]);
            for (int add = 0; add < 2; add++) {
                float *y = product(mat, x, m, 0, add ? 0.25f : 0.0f);
                if (level == 0 && !add)
                    want = y;
                for (size_t i = 0; i < m * rows; i++)
                    assert_true(y[i] == (add ? 0.25f + want[i] : want[i]));
                if (y != want)
                    free(y);
            }
        }
        set_level(NULL);
        free(want);
        rt_qmat_free(mat);
        free(x);
        free(blocks);
    }
}

static void a_row_does_not_depend_on_its_batch(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(3, 0);
    const size_t rows = 48, cols = 96, m_max = 33;
    size_t bytes;
    for (size_t level = 0; level < 4; level++) {
        set_level(levels[level]);
        uint8_t *blocks = random_blocks(&rng, RT_Q4_1, rows, cols, &bytes);
        float *x = random_values(&rng, m_max * cols);
        rt_qmat *mat = pack(blocks, RT_Q4_1, rows, cols, NULL);
        float *all = product(mat, x, m_max, 0, 0);
        for (size_t first = 0; first < m_max; first += 5) {
            for (size_t m = 1; m <= m_max - first; m++) {
                float *y = product(mat, x + first * cols, m, 0, 0);
                assert_memory_equal(y, all + first * rows, m * rows * sizeof *y);
                free(y);
            }
        }
        free(all);
        rt_qmat_free(mat);
        free(x);
        free(blocks);
    }
    set_level(NULL);
}

static void shared_out_ranges_give_the_same_bits(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(4, 0);
    const size_t rows = 200, cols = 64, m = 37; /* the last range has 8 rows */
    size_t bytes;
    uint8_t *blocks = random_blocks(&rng, RT_Q8_0, rows, cols, &bytes);
    float *x = random_values(&rng, m * cols), *part = allocate(m * rows * sizeof *part);
    void *qact = allocate(rt_qact_bytes(m, cols)), *other = allocate(rt_qact_bytes(m, cols));
    rt_qmat *mat = pack(blocks, RT_Q8_0, rows, cols, NULL);
    float *whole = product(mat, x, m, 0, 0);
    rt_qact_quantise(qact, x, cols, m, cols);
    memset(other, 0, rt_qact_bytes(m, cols));
    rt_qact_quantise_rows(other, x, cols, m, cols, 16, m);
    rt_qact_quantise_rows(other, x, cols, m, cols, 0, 16);
    for (int turn = 0; turn < 20; turn++) {
        memset(part, 0, m * rows * sizeof *part);
        size_t cut[2] = {rt_rng_u32(&rng) % 13 * 16, rt_rng_u32(&rng) % 13 * 16};
        if (cut[0] > cut[1]) {
            const size_t swap = cut[0];
            cut[0] = cut[1];
            cut[1] = swap;
        }
        const size_t ranges[3][2] = {{cut[1], rows}, {0, cut[0]}, {cut[0], cut[1]}};
        for (size_t i = 0; i < 3; i++)
            rt_qmat_mul(part, rows, mat, ranges[i][0], ranges[i][1], turn % 2 ? qact : other, m, false);
        assert_memory_equal(part, whole, m * rows * sizeof *part);
    }
    rt_qmat_free(mat);
    free(qact);
    free(other);
    free(whole);
    free(part);
    free(x);
    free(blocks);
}

static void rows_read_back_are_the_file_s_values(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(5, 0);
    rt_pool *pool = NULL;
    rt_error err = {0};
    assert_int_equal(rt_pool_open(&pool, 2, &err), RT_OK);
    for (size_t t = 0; t < N_TYPES; t++) {
        const size_t rows = 1000, cols = block_of(types[t]) * 3;
        size_t bytes;
        uint8_t *blocks = random_blocks(&rng, types[t], rows, cols, &bytes);
        float *w = allocate(rows * cols * sizeof *w), *row = allocate(cols * sizeof *row);
        rt_dequantise(w, blocks, types[t], rows * cols);
        rt_qmat *mat = pack(blocks, types[t], rows, cols, pool);
        if (types[t] == RT_Q4_1 || types[t] == RT_Q8_0 || types[t] == RT_Q4_K)
            assert_true(rt_qmat_bytes(mat) <= bytes + bytes / 20); /* 63 strips of 16 are 1,008 rows */
        for (size_t i = 0; i < 200; i++) {
            const size_t r = i == 0 ? rows - 1 : rt_rng_u32(&rng) % rows;
            rt_qmat_row(mat, r, row);
            for (size_t c = 0; c < cols; c++)
                assert_true(row[c] == w[r * cols + c]);
        }
        rt_qmat_free(mat);
        free(w);
        free(row);
        free(blocks);
    }
    rt_pool_close(pool);
}

static void a_value_that_is_not_finite_makes_the_product_nan(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(6, 0);
    const size_t rows = 20, cols = 64, m = 3;
    size_t bytes;
    uint8_t *blocks = random_blocks(&rng, RT_Q4_1, rows, cols, &bytes);
    rt_qmat *mat = pack(blocks, RT_Q4_1, rows, cols, NULL);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t level = 0; level < 4; level++) {
        set_level(levels[level]);
        for (size_t b = 0; b < 3; b++) {
            float *x = random_values(&rng, m * cols);
            x[cols + 50] = bad[b];
            float *y = product(mat, x, m, 0, 0);
            for (size_t i = 0; i < m * rows; i++)
                assert_true(isnan(y[i]) == (i / rows == 1));
            free(y);
            free(x);
        }
    }
    set_level(NULL);
    rt_qmat_free(mat);
    free(blocks);
}

static void other_shapes_and_types_cannot_be_packed(void **state)
{
    (void)state;
    assert_false(rt_qmat_can_pack(RT_F32, 16, 32));
    assert_false(rt_qmat_can_pack(RT_BF16, 16, 32));
    assert_false(rt_qmat_can_pack(RT_Q4_1, 16, 33));
    assert_false(rt_qmat_can_pack(RT_Q4_K, 16, 32));
    assert_false(rt_qmat_can_pack(RT_Q4_1, 0, 32));
    assert_false(rt_qmat_can_pack(RT_Q4_1, SIZE_MAX / 16, 320));
    rt_qmat *mat = NULL;
    rt_error err = {0};
    assert_int_equal(rt_qmat_pack(&mat, "", RT_F16, 16, 32, NULL, &err), RT_UNSUPPORTED);
    assert_null(mat);
    rt_qmat_free(NULL);
}

static void pieces_of_memory_lie_apart_and_go_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {100, (size_t)20 << 20, 1, (size_t)20 << 20, (size_t)70 << 20, 64, 4000};
    enum { N = sizeof sizes / sizeof *sizes };
    unsigned char *piece[N];
    rt_qchunk *chunk[N], *none;
    for (size_t i = 0; i < N; i++) {
        piece[i] = rt_qmemory_acquire(sizes[i], &chunk[i]);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % 64, 0);
        assert_true(piece[i][0] == 0 && piece[i][sizes[i] - 1] == 0);
        piece[i][0] = piece[i][sizes[i] - 1] = (unsigned char)(i + 1); /* its own edges, nobody else's */
    }
    assert_null(rt_qmemory_acquire(SIZE_MAX, &none));
    assert_null(none);
    assert_null(rt_qmemory_acquire(SIZE_MAX / 4, &none));
    for (size_t i = 0; i < N; i++)
        assert_true(piece[i][0] == i + 1 && piece[i][sizes[i] - 1] == i + 1);
    for (size_t i = 0; i < N; i++)
        rt_qmemory_release(chunk[(3 * i + 2) % N]);
    rt_qmemory_release(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gives_the_float64_product),
        cmocka_unit_test(every_level_gives_the_same_bits),
        cmocka_unit_test(a_row_does_not_depend_on_its_batch),
        cmocka_unit_test(shared_out_ranges_give_the_same_bits),
        cmocka_unit_test(rows_read_back_are_the_file_s_values),
        cmocka_unit_test(a_value_that_is_not_finite_makes_the_product_nan),
        cmocka_unit_test(other_shapes_and_types_cannot_be_packed),
        cmocka_unit_test(pieces_of_memory_lie_apart_and_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
