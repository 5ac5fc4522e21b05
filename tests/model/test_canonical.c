/* tests/model/test_canonical.c - tensors come out in the one layout, whatever the file's is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "model/config.h"

static rt_weights *open_golden(rt_model_config *config, const char *name)
{
    char path[512];
    rt_error err = {0};
    rt_weights *weights = NULL;
    (void)snprintf(path, sizeof path, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, name);
    if (rt_weights_open(&weights, path, &err) != RT_OK ||
        rt_model_config_read(config, weights, &err) != RT_OK)
        fail_msg("%s", err.text);
    return weights;
}

static float at(const void *data, size_t index)
{
    float value;
    memcpy(&value, (const char *)data + index * sizeof value, sizeof value);
    return value;
}

static void every_role_of_every_golden_folder_has_its_shape(void **state)
{
    (void)state;
    static const char *const folders[] = {"llama",          "llama_untied_rope3",
                                          "llama_head_dim", "llama_yarn",
                                          "mistral_window", "qwen2",
                                          "qwen3",          "gemma3",
                                          "gpt2",           "qwen3_moe",
                                          "deepseek_v3"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        rt_model_config config;
        rt_error err = {0};
        rt_weights *weights = open_golden(&config, folders[i]);
        size_t rows, cols, total = 0;
        rt_canonical tensor;
        for (size_t layer = 0; layer < config.n_layers; layer++)
            for (int role = 0; role < rt_role_span(&config); role++) {
                rt_role_shape(&config, layer, role, &rows, &cols);
                const rt_status status = rt_canonical_layer(&tensor, weights, &config, layer, role, &err);
                assert_int_equal(status, rows ? RT_OK : RT_INVALID);
                if (rows) {
                    assert_int_equal(tensor.rows, rows);
                    assert_int_equal(tensor.cols, cols);
                    assert_int_equal(tensor.dtype, RT_F32);
                    total += rows * (cols ? cols : 1);
                    free(tensor.owned);
                }
            }
        for (rt_global global = 0; global < RT_GLOBAL_COUNT; global++) {
            rt_global_shape(&config, global, &rows, &cols);
            const rt_status status = rt_canonical_global(&tensor, weights, &config, global, &err);
            assert_int_equal(status, rows ? RT_OK : RT_INVALID);
            if (rows) {
                total += rows * (cols ? cols : 1);
                assert_null(tensor.owned);
            }
        }
        /* nothing in the file is left over: what the roles hold is what the file holds */
        size_t in_file = 0;
        for (size_t k = 0; k < rt_weights_count(weights); k++)
            in_file += rt_weights_at(weights, k)->bytes / 4;
        assert_int_equal(total, in_file);
        assert_int_equal(total, rt_model_config_parameters(&config));
        rt_weights_close(weights);
    }
}

static void gpt2_weights_are_split_and_turned(void **state)
{
    (void)state;
    rt_model_config config;
    rt_error err = {0};
    rt_weights *weights = open_golden(&config, "gpt2");
    const rt_weight *fused = rt_weights_find(weights, "transformer.h.1.attn.c_attn.weight");
    const rt_weight *bias = rt_weights_find(weights, "transformer.h.1.attn.c_attn.bias");
    const rt_role roles[] = {RT_ROLE_Q, RT_ROLE_K, RT_ROLE_V},
                  biases[] = {RT_ROLE_Q_BIAS, RT_ROLE_K_BIAS, RT_ROLE_V_BIAS};
    for (size_t part = 0; part < 3; part++) {
        rt_canonical w, b;
        assert_int_equal(rt_canonical_layer(&w, weights, &config, 1, roles[part], &err), RT_OK);
        assert_int_equal(rt_canonical_layer(&b, weights, &config, 1, biases[part], &err), RT_OK);
        for (size_t out = 0; out < 32; out++) {
            assert_true(at(b.data, out) == at(bias->data, part * 32 + out));
            for (size_t in = 0; in < 32; in++)
                assert_true(at(w.data, out * 32 + in) == at(fused->data, in * 96 + part * 32 + out));
        }
        free(w.owned);
    }
    rt_canonical down;
    const rt_weight *stored = rt_weights_find(weights, "transformer.h.0.mlp.c_proj.weight");
    assert_int_equal(rt_canonical_layer(&down, weights, &config, 0, RT_ROLE_DOWN, &err), RT_OK);
    assert_int_equal(down.rows, 32);
    assert_int_equal(down.cols, 128);
    assert_true(at(down.data, 5 * 128 + 77) == at(stored->data, 77 * 32 + 5));
    free(down.owned);
    rt_weights_close(weights);
}

static void names_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *q, *up, *norm2, *embed;
    } cases[] = {
        {"llama", "model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight",
         "model.layers.1.post_attention_layernorm.weight", "model.embed_tokens.weight"},
        {"gemma3", "model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight",
         "model.layers.1.pre_feedforward_layernorm.weight", "model.embed_tokens.weight"},
        {"gpt2", "transformer.h.1.attn.c_attn.weight", "transformer.h.1.mlp.c_fc.weight",
         "transformer.h.1.ln_2.weight", "transformer.wte.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rt_model_config config;
        char name[128];
        rt_weights_close(open_golden(&config, cases[i].folder));
        rt_role_hf_name(name, &config, 1, RT_ROLE_Q);
        assert_string_equal(name, cases[i].q);
        rt_role_hf_name(name, &config, 1, RT_ROLE_UP);
        assert_string_equal(name, cases[i].up);
        rt_role_hf_name(name, &config, 1, RT_ROLE_NORM2);
        assert_string_equal(name, cases[i].norm2);
        rt_global_hf_name(name, &config, RT_GLOBAL_EMBED);
        assert_string_equal(name, cases[i].embed);
        rt_global_hf_name(name, &config, RT_GLOBAL_HEAD);
        assert_string_equal(name, "lm_head.weight");
    }
}

static void a_missing_or_misshapen_tensor_is_named(void **state)
{
    (void)state;
    rt_model_config config;
    rt_error err = {0};
    rt_canonical tensor;
    rt_weights *weights = open_golden(&config, "llama");
    rt_model_config wrong = config;
    wrong.n_ff = 57;
    assert_int_equal(rt_canonical_layer(&tensor, weights, &wrong, 0, RT_ROLE_UP, &err), RT_MISMATCH);
    assert_non_null(strstr(err.text, "model.layers.0.mlp.up_proj.weight"));
    assert_non_null(strstr(err.text, "[56, 32]"));
    wrong = config;
    wrong.bias_o = true;
    assert_int_equal(rt_canonical_layer(&tensor, weights, &wrong, 1, RT_ROLE_O_BIAS, &err), RT_NOT_FOUND);
    assert_non_null(strstr(err.text, "model.layers.1.self_attn.o_proj.bias"));
    wrong = config;
    wrong.tied = false;
    assert_int_equal(rt_canonical_global(&tensor, weights, &wrong, RT_GLOBAL_HEAD, &err), RT_NOT_FOUND);
    assert_int_equal(rt_canonical_layer(&tensor, weights, &config, 2, RT_ROLE_UP, &err), RT_INVALID);
    rt_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_role_of_every_golden_folder_has_its_shape),
        cmocka_unit_test(gpt2_weights_are_split_and_turned),
        cmocka_unit_test(names_are_those_of_transformers),
        cmocka_unit_test(a_missing_or_misshapen_tensor_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
