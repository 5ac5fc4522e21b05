/* tests/student/test_init.c - what of a teacher is kept in a smaller student. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "student/init.h"

static void kept_units_stand_in_their_old_order(void **state)
{
    (void)state;
    const double scores[] = {0.5, 3, 0.5, 2, 1};
    uint32_t kept[4], order[5];
    rt_error err = {0};
    assert_int_equal(rt_importance_order(order, scores, 5, &err), RT_OK);
    assert_memory_equal(order, ((const uint32_t[]){1, 3, 4, 0, 2}), sizeof order);
    assert_int_equal(rt_importance_keep(kept, 4, scores, 5, &err), RT_OK);
    assert_memory_equal(kept, ((const uint32_t[]){0, 1, 3, 4}), sizeof kept);
    assert_int_equal(rt_importance_keep(kept, 6, scores, 5, &err), RT_INVALID);
    const double bad[] = {1, NAN};
    assert_int_equal(rt_importance_order(order, bad, 2, &err), RT_NOT_FINITE);
}

static void heads_are_taken_evenly_from_each_group(void **state)
{
    (void)state;
    const double scores[] = {9, 8, 7, 1, 3, 2};
    uint32_t kept[4];
    rt_error err = {0};
    assert_int_equal(rt_importance_keep_heads(kept, 4, scores, 6, 2, &err), RT_OK);
    assert_memory_equal(kept, ((const uint32_t[]){0, 1, 4, 5}), sizeof kept);
    assert_int_equal(rt_importance_keep_heads(kept, 3, scores, 6, 2, &err), RT_INVALID);
}

static void layers_that_change_little_go_first_and_the_ends_stay(void **state)
{
    (void)state;
    enum { LAYERS = 4, D = 2 };
    rt_influence influence;
    rt_error err = {0};
    assert_int_equal(rt_influence_init(&influence, LAYERS, D, 1, &err), RT_OK);
    const float stream[LAYERS + 1][D] = {{1, 0}, {1, 0.1f}, {0, 1}, {0.01f, 1}, {0, 1}};
    for (size_t l = 0; l <= LAYERS; l++)
        rt_influence_tap(&influence, l, stream[l], 1);
    double scores[LAYERS];
    size_t kept[3];
    rt_influence_scores(&influence, scores);
    assert_true(scores[1] > scores[0] && scores[0] > scores[2]);
    assert_int_equal(rt_influence_keep(kept, 3, scores, LAYERS, &err), RT_OK);
    assert_memory_equal(kept, ((const size_t[]){0, 1, 3}), sizeof kept);
    assert_int_equal(rt_influence_keep(kept, 1, scores, LAYERS, &err), RT_INVALID);
    rt_influence_deinit(&influence);
}

static void full_rank_factors_give_the_matrix_back(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{7, 4}, {4, 7}, {5, 5}, {1, 3}};
    for (size_t k = 0; k < 4; k++) {
        const size_t rows = shapes[k][0], cols = shapes[k][1], rank = rows < cols ? rows : cols;
        double w[49], left[49], right[49], singular[7];
        rt_rng rng = rt_rng_make(3, k);
        for (size_t i = 0; i < rows * cols; i++)
            w[i] = rt_rng_normal(&rng);
        rt_error err = {0};
        assert_int_equal(rt_svd_factor(left, right, singular, w, rows, cols, rank, &err), RT_OK);
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < cols; c++) {
                double sum = 0;
                for (size_t i = 0; i < rank; i++)
                    sum += left[r * rank + i] * right[i * cols + c];
                assert_true(fabs(sum - w[r * cols + c]) < 1e-13);
            }
        }
        for (size_t i = 1; i < rank; i++)
            assert_true(singular[i] <= singular[i - 1]);
        w[0] = NAN;
        assert_int_equal(rt_svd_factor(left, right, singular, w, rows, cols, rank, &err), RT_NOT_FINITE);
        assert_int_equal(rt_svd_factor(left, right, singular, w, rows, cols, rank + 1, &err), RT_INVALID);
    }
}

/* Every value of the big model names its place, so a slice can be checked by looking. */
static void a_slice_takes_the_same_channels_units_and_heads_everywhere(void **state)
{
    (void)state;
    rt_model_config big = {.family = "llama",
                           .n_layers = 3,
                           .n_embd = 6,
                           .n_heads = 4,
                           .n_heads_kv = 2,
                           .head_dim = 2,
                           .n_ff = 5,
                           .n_vocab = 7,
                           .gated_mlp = true,
                           .tied = true};
    rt_model_config small = big;
    small.n_layers = 2;
    small.n_embd = 4;
    small.n_heads = 2;
    small.n_ff = 3;
    const uint32_t channels[] = {0, 2, 3, 5}, units[] = {0, 1, 4, 1, 2, 3}, heads[] = {1, 2, 0, 3};
    const size_t layers[] = {0, 2};
    const rt_width_map map = {channels, units, heads, NULL, layers};
    rt_layout from, to;
    rt_error err = {0};
    assert_int_equal(rt_layout_build(&from, &big, &err), RT_OK);
    assert_int_equal(rt_layout_build(&to, &small, &err), RT_OK);
    float *x = calloc(from.total, sizeof *x), *y = calloc(to.total, sizeof *y);
    for (size_t i = 0; i < from.total; i++)
        x[i] = (float)i;
    assert_int_equal(rt_params_slice(y, &to, &small, x, &from, &big, &map, &err), RT_OK);
    const rt_param *q = rt_layout_role(&to, 1, RT_ROLE_Q), *q_big = rt_layout_role(&from, 2, RT_ROLE_Q);
    /* row 3 of layer 1: second row of its second head, which is the teacher's head 3; channel 5 */
    assert_true(y[q->offset + 3 * 4 + 3] == (float)(q_big->offset + 7 * 6 + 5));
    const rt_param *down = rt_layout_role(&to, 0, RT_ROLE_DOWN),
                   *down_big = rt_layout_role(&from, 0, RT_ROLE_DOWN);
    assert_true(y[down->offset + 1 * 3 + 2] == (float)(down_big->offset + 2 * 5 + 4));
    const rt_param *o = rt_layout_role(&to, 0, RT_ROLE_O), *o_big = rt_layout_role(&from, 0, RT_ROLE_O);
    assert_true(y[o->offset + 2 * 4 + 0] == (float)(o_big->offset + 3 * 8 + 2));
    small.head_dim = 4;
    assert_int_equal(rt_params_slice(y, &to, &small, x, &from, &big, &map, &err), RT_MISMATCH);
    free(x);
    free(y);
    rt_layout_free(&from);
    rt_layout_free(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_units_stand_in_their_old_order),
        cmocka_unit_test(heads_are_taken_evenly_from_each_group),
        cmocka_unit_test(layers_that_change_little_go_first_and_the_ends_stay),
        cmocka_unit_test(full_rank_factors_give_the_matrix_back),
        cmocka_unit_test(a_slice_takes_the_same_channels_units_and_heads_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
