/* tests/student/test_cost.c - parameters and operations counted from configurations alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "student/cost.h"

static rt_cost_shape shape_of(const char *path)
{
    rt_error err = {0};
    json_t *json = NULL;
    rt_cost_shape shape;
    if (rt_json_read(&json, path, 1 << 20, &err) != RT_OK ||
        rt_cost_shape_from_json(&shape, json, path, &err) != RT_OK)
        fail_msg("%s", err.text);
    json_decref(json);
    return shape;
}

static void near(double x, double wanted, double share)
{
    if (fabs(x - wanted) > share * fabs(wanted))
        fail_msg("%.6g is not within %g of %.6g", x, share, wanted);
}

static void deepseek_v3_has_671_billion_parameters_of_which_37_are_active(void **state)
{
    (void)state;
    const rt_cost_shape s = shape_of(RT_TEST_SOURCE_DIR "/tests/golden/plan/deepseek_v3.json");
    near(s.parameters, 671e9, 0.001);
    near(s.active, 37.5e9, 0.01);
    /* at the utilisation that the published hours imply, the count gives the published hours */
    const double hours = rt_cost_training_rule(s.active, 14.8e12) / (0.346 * 989.5e12 * 3600);
    near(hours, 2.664e6, 0.03);
    near((hours + 0.124e6) * 2, 5.576e6, 0.03); /* and the published price, with context and tuning */
}

/* The golden models' own tensors say how many parameters a configuration stands for. */
static void mixtures_count_what_their_files_hold(void **state)
{
    (void)state;
    static const char *const names[] = {"deepseek_v3", "qwen3_moe", "llama", "qwen3", "gemma3", "gpt2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, RT_TEST_SOURCE_DIR "/tests/golden/engine/%s", names[i]);
        rt_error err = {0};
        rt_weights *weights;
        if (rt_weights_open(&weights, path, &err) != RT_OK)
            fail_msg("%s", err.text);
        double count = 0;
        for (size_t t = 0; t < rt_weights_count(weights); t++) {
            double elements = 1;
            for (size_t d = 0; d < rt_weights_at(weights, t)->n_dims; d++)
                elements *= (double)rt_weights_at(weights, t)->shape[d];
            count += elements;
        }
        rt_cost_shape shape;
        if (rt_cost_shape_from_json(&shape, rt_weights_config_json(weights), path, &err) != RT_OK)
            fail_msg("%s", err.text);
        near(shape.parameters, count, 0);
        rt_weights_close(weights);
    }
}

static void a_window_bounds_the_keys_that_a_token_sees(void **state)
{
    (void)state;
    near(rt_cost_mean_keys(2048, 0), 1024.5, 0);
    near(rt_cost_mean_keys(4, 2), (1 + 2 + 2 + 2) / 4.0, 0);
    near(rt_cost_mean_keys(3, 8), 2, 0);
    near(rt_cost_mean_keys(0, 0), 0, 0);
}

static void sizes_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"model_type\":\"deepseek_v3\"}",
        "{\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":-1,\"hidden_size\":8}",
        "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":2,\"hidden_size\":32,\"intermediate_size\":56,"
        "\"moe_intermediate_size\":24,\"num_experts_per_tok\":9,\"num_experts\":8,\"vocab_size\":97,"
        "\"num_attention_heads\":4}",
        "{\"model_type\":\"nothing\"}",
        "[]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rt_error err = {0};
        json_t *json = json_loads(bad[i], 0, NULL);
        rt_cost_shape shape;
        assert_int_not_equal(rt_cost_shape_from_json(&shape, json, "bad.json", &err), RT_OK);
        assert_true(err.text[0] != '\0');
        json_decref(json);
    }
}

static void the_scaling_law_says_where_it_was_fitted(void **state)
{
    (void)state;
    assert_true(rt_scaling_is_valid(500e6, 10e9));
    assert_false(rt_scaling_is_valid(60e6, 10e9));
    assert_false(rt_scaling_is_valid(500e6, 1e12));
    const double taught =
        rt_scaling_loss_distilled(&rt_scaling_distilled_2025, &rt_scaling_supervised_2025, 5e8, 1e10, 2.2);
    near(taught, 2.4267198334442557, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_v3_has_671_billion_parameters_of_which_37_are_active),
        cmocka_unit_test(mixtures_count_what_their_files_hold),
        cmocka_unit_test(a_window_bounds_the_keys_that_a_token_sees),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
        cmocka_unit_test(the_scaling_law_says_where_it_was_fitted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
