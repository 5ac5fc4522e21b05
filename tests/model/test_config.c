/* tests/model/test_config.c - what config.json and GGUF metadata say, and what is refused. */
#include "export_help.h"

#include <math.h>

#include "base/file.h"
#include "model/config.h"
#include "model/families.h"

static rt_status parse(rt_model_config *out, const char *text, rt_error *err)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    const rt_status status = rt_model_config_from_json(out, json, "config.json", err);
    json_decref(json);
    return status;
}

static void parse_ok(rt_model_config *out, const char *text)
{
    rt_error err = {0};
    if (parse(out, text, &err) != RT_OK)
        fail_msg("%s: %s", text, err.text);
}

static rt_status read_golden(rt_model_config *out, const char *name, rt_error *err)
{
    char path[512];
    rt_weights *weights = NULL;
    (void)snprintf(path, sizeof path, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, name);
    if (rt_weights_open(&weights, path, err) != RT_OK)
        fail_msg("%s", err->text);
    const rt_status status = rt_model_config_read(out, weights, err);
    rt_weights_close(weights);
    return status;
}

static rt_model_config golden(const char *name)
{
    rt_error err = {0};
    rt_model_config config;
    if (read_golden(&config, name, &err) != RT_OK)
        fail_msg("%s", err.text);
    return config;
}

static void every_golden_folder_gives_its_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *family;
        size_t heads, kv, head_dim, n_ff, context, parameters;
        bool tied, qkv, o, mlp;
    } cases[] = {
        {"llama", "llama", 4, 2, 8, 56, 128, 20160, true, false, false, false},
        {"llama_untied_rope3", "llama", 4, 2, 8, 56, 128, 23264, false, false, false, false},
        {"llama_head_dim", "llama", 4, 2, 16, 56, 128, 30016, false, true, true, true},
        {"llama_yarn", "llama", 4, 2, 8, 56, 128, 20160, true, false, false, false},
        {"mistral_window", "mistral", 4, 2, 8, 56, 128, 23264, false, false, false, false},
        {"qwen2", "qwen2", 4, 2, 8, 56, 128, 20288, true, true, false, false},
        {"qwen3", "qwen3", 4, 2, 16, 56, 128, 26368, true, false, false, false},
        {"gemma3", "gemma3", 4, 2, 16, 56, 128, 26496, true, false, false, false},
        {"gpt2", "gpt2", 4, 4, 8, 128, 64, 30624, true, true, true, true},
        {"qwen3_moe", "qwen3_moe", 4, 2, 16, 56, 128, 56096, false, false, false, false},
        {"deepseek_v3", "deepseek_v3", 4, 4, 12, 56, 128, 38584, false, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const rt_model_config config = golden(cases[i].folder);
        assert_string_equal(config.family, cases[i].family);
        assert_int_equal(config.n_layers, 2);
        assert_int_equal(config.n_embd, 32);
        assert_int_equal(config.n_vocab, 97);
        assert_int_equal(config.n_heads, cases[i].heads);
        assert_int_equal(config.n_heads_kv, cases[i].kv);
        assert_int_equal(config.head_dim, cases[i].head_dim);
        assert_int_equal(config.n_ff, cases[i].n_ff);
        assert_int_equal(config.n_context, cases[i].context);
        assert_int_equal(config.tied, cases[i].tied);
        assert_int_equal(config.bias_qkv, cases[i].qkv);
        assert_int_equal(config.bias_o, cases[i].o);
        assert_int_equal(config.bias_mlp, cases[i].mlp);
        assert_int_equal(config.bos_id, 1);
        assert_int_equal(config.eos_id, 2);
        assert_int_equal(rt_model_config_parameters(&config), cases[i].parameters);
    }
}

static void which_layers_have_experts_follows_the_family(void **state)
{
    (void)state;
    rt_model_config config = golden("qwen3_moe");
    assert_true(config.experts.count == 8 && config.experts.used == 2 && config.experts.n_ff == 24);
    assert_true(config.experts.router == RT_ROUTER_SOFTMAX && config.experts.normalised &&
                !config.experts.bias);
    assert_true(config.experts.sparse[0] && config.experts.sparse[1]);
    config = golden("deepseek_v3");
    assert_true(config.experts.count == 8 && config.experts.n_ff == 20 && config.experts.n_ff_shared == 20);
    assert_true(config.experts.groups == 4 && config.experts.groups_used == 2 && config.experts.scale == 2.5);
    assert_true(config.experts.router == RT_ROUTER_SIGMOID && config.experts.normalised &&
                config.experts.bias);
    assert_true(!config.experts.sparse[0] && config.experts.sparse[1]);
    assert_true(config.latent.q_rank == 24 && config.latent.kv_rank == 16 && config.latent.interleaved);
    assert_true(config.latent.nope == 8 && config.latent.rope == 4 && config.latent.value == 8);
    parse_ok(&config, "{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 6, \"decoder_sparse_step\": 2,"
                      "\"mlp_only_layers\": [3, 40]}");
    const bool sparse[] = {false, true, false, false, false, true};
    for (size_t l = 0; l < 6; l++)
        assert_int_equal(config.experts.sparse[l], sparse[l]);
    parse_ok(&config,
             "{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 2, \"mlp_only_layers\": [0, 1]}");
    assert_int_equal(config.experts.count, 0); /* a plain qwen3 */
    parse_ok(&config, "{\"model_type\": \"qwen3_moe\", \"use_sliding_window\": true, \"sliding_window\": 9}");
    assert_true(config.window[0] == 9 && config.window[23] == 9);
}

/* DeepSeek-V3 as published: the scores are scaled, the cosines are not. */
static void yarn_scales_the_scores_of_latent_attention(void **state)
{
    (void)state;
    rt_model_config config;
    parse_ok(&config,
             "{\"model_type\": \"deepseek_v3\", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40,"
             "\"beta_fast\": 32, \"beta_slow\": 1, \"mscale\": 1.0, \"mscale_all_dim\": 1.0,"
             "\"original_max_position_embeddings\": 4096}}");
    const double mscale = 0.1 * log(40.0) + 1;
    assert_true(fabs(config.attention_scale - mscale * mscale / sqrt(192)) < 1e-12);
    assert_true(fabs(config.rope.attention_factor - 1) < 1e-12);
    parse_ok(&config, "{\"model_type\": \"deepseek_v3\", \"q_lora_rank\": null}");
    assert_true(config.latent.q_rank == 0 && fabs(config.attention_scale - 1 / sqrt(192)) < 1e-12);
    assert_int_equal(config.head_dim, 192);
}

static void rope_scaling_is_read_from_both_generations(void **state)
{
    (void)state;
    rt_model_config config = golden("llama_untied_rope3");
    assert_int_equal(config.rope.scaling, RT_ROPE_LLAMA3);
    assert_true(config.rope.theta == 5e5 && config.rope.factor == 8 && config.rope.low_freq_factor == 1 &&
                config.rope.high_freq_factor == 4);
    assert_int_equal(config.rope.original_context, 32);
    config = golden("llama_yarn");
    assert_int_equal(config.rope.scaling, RT_ROPE_YARN);
    assert_true(config.rope.factor == 4 && config.rope.beta_fast == 32 && config.rope.beta_slow == 1 &&
                config.rope.attention_factor == 0);
    parse_ok(&config,
             "{\"model_type\": \"llama\", \"rope_theta\": 500000.0, \"max_position_embeddings\": 131072,"
             "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0,"
             "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}}");
    assert_int_equal(config.rope.scaling, RT_ROPE_LLAMA3);
    assert_true(config.rope.theta == 5e5 && config.rope.factor == 32);
    assert_int_equal(config.rope.original_context, 8192);
    parse_ok(&config,
             "{\"model_type\": \"llama\", \"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\","
             "\"factor\": 2}}");
    assert_int_equal(config.rope.scaling, RT_ROPE_LINEAR);
    parse_ok(&config, "{\"model_type\": \"qwen2\", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0,"
                      "\"mscale\": 0.707, \"mscale_all_dim\": 0.707}}");
    assert_true(fabs(config.rope.attention_factor - 1) < 1e-12);
    assert_int_equal(config.rope.original_context, 32768); /* transformers: the context when not given */
    parse_ok(&config, "{\"model_type\": \"llama\", \"rope_scaling\": null}");
    assert_int_equal(config.rope.scaling, RT_ROPE_PLAIN);
    assert_true(config.rope.theta == 1e4);
}

static void windows_follow_the_family(void **state)
{
    (void)state;
    rt_model_config config = golden("mistral_window");
    assert_int_equal(config.window[0], 7);
    assert_int_equal(config.window[1], 7);
    config = golden("gemma3");
    assert_int_equal(config.window[0], 8);
    assert_int_equal(config.window[1], 0);
    config = golden("qwen2");
    assert_int_equal(config.window[0], 0);
    parse_ok(&config, "{\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"sliding_window\": 64,"
                      "\"max_window_layers\": 3, \"num_hidden_layers\": 5}");
    assert_int_equal(config.window[2], 0);
    assert_int_equal(config.window[3], 64);
    parse_ok(&config, "{\"model_type\": \"qwen2\", \"use_sliding_window\": false, \"sliding_window\": 64,"
                      "\"max_window_layers\": 0}");
    assert_int_equal(config.window[3], 0);
    parse_ok(&config, "{\"model_type\": \"mistral\"}");
    assert_int_equal(config.window[31], 4096);
    parse_ok(&config, "{\"model_type\": \"mistral\", \"sliding_window\": null}");
    assert_int_equal(config.window[31], 0);
    parse_ok(&config,
             "{\"model_type\": \"gemma3_text\", \"sliding_window\": 512, \"sliding_window_pattern\": 2}");
    assert_int_equal(config.window[0], 512);
    assert_int_equal(config.window[1], 0);
    assert_int_equal(config.window[2], 512);
}

static void gemma3_is_scaled_as_in_transformers(void **state)
{
    (void)state;
    rt_model_config config = golden("gemma3");
    assert_true(config.norm_plus_one && config.post_norms && config.qk_norm && config.has_rope_local);
    assert_int_equal(config.act, RT_ACT_GELU_TANH);
    assert_true(fabs(config.embed_scale - sqrt(32.0)) < 1e-12);
    assert_true(fabs(config.attention_scale - 0.25) < 1e-12);
    assert_true(config.rope.theta == 1e6 && config.rope_local.theta == 1e4);
    /* the published 4B: vision outside, the decoder under text_config, and defaults left out */
    parse_ok(&config,
             "{\"model_type\": \"gemma3\", \"eos_token_id\": [1, 106], \"text_config\": {"
             "\"model_type\": \"gemma3_text\", \"hidden_size\": 2560, \"intermediate_size\": 10240,"
             "\"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"},"
             "\"sliding_window\": 1024}}");
    assert_string_equal(config.family, "gemma3");
    assert_int_equal(config.n_vocab, 262208);
    assert_int_equal(config.n_heads, 8);
    assert_int_equal(config.head_dim, 256);
    assert_int_equal(config.eos_id, 1);
    assert_true(config.tied);
    assert_int_equal(config.window[4], 1024);
    assert_int_equal(config.window[5], 0);
    assert_int_equal(config.rope.scaling, RT_ROPE_LINEAR);
    assert_int_equal(config.rope_local.scaling, RT_ROPE_PLAIN);
    assert_true(config.rope.theta == 1e6 && config.rope.factor == 8 && config.rope_local.theta == 1e4);
}

static void gpt2_has_its_own_keys(void **state)
{
    (void)state;
    rt_model_config config = golden("gpt2");
    assert_true(config.conv1d && config.learned_positions && !config.gated_mlp);
    assert_int_equal(config.norm, RT_NORM_LAYER);
    assert_int_equal(config.act, RT_ACT_GELU_TANH);
    assert_int_equal(config.pad_id, -1);
    parse_ok(&config, "{\"model_type\": \"gpt2\", \"n_embd\": 1024, \"n_head\": 16, \"n_layer\": 24}");
    assert_int_equal(config.n_ff, 4096);
    assert_int_equal(config.eos_id, 50256);
}

/* Everything that decides the arithmetic survives a trip through the written config.json. */
static void a_written_configuration_reads_back_the_same(void **state)
{
    (void)state;
    static const char *const folders[] = {"llama",
                                          "llama_untied_rope3",
                                          "llama_head_dim",
                                          "llama_yarn",
                                          "mistral_window",
                                          "qwen2",
                                          "qwen3",
                                          "gemma3",
                                          "gpt2"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        rt_error err = {0};
        const rt_model_config config = golden(folders[i]);
        rt_model_config again;
        json_t *json = rt_model_config_to_json(&config);
        assert_non_null(json);
        if (rt_model_config_from_json(&again, json, folders[i], &err) != RT_OK)
            fail_msg("%s", err.text);
        json_decref(json);
        assert_memory_equal(&again.window, &config.window, sizeof config.window);
        assert_memory_equal(&again.rope, &config.rope, sizeof config.rope);
        assert_memory_equal(&again.rope_local, &config.rope_local, sizeof config.rope_local);
        assert_string_equal(again.family, config.family);
        assert_true(again.n_layers == config.n_layers && again.n_embd == config.n_embd &&
                    again.n_heads == config.n_heads && again.n_heads_kv == config.n_heads_kv &&
                    again.head_dim == config.head_dim && again.n_ff == config.n_ff &&
                    again.n_vocab == config.n_vocab && again.n_context == config.n_context);
        assert_true(again.norm_eps == config.norm_eps && again.embed_scale == config.embed_scale &&
                    again.act == config.act && again.tied == config.tied &&
                    again.bias_qkv == config.bias_qkv && again.bias_o == config.bias_o &&
                    again.bias_mlp == config.bias_mlp && again.bos_id == config.bos_id &&
                    again.eos_id == config.eos_id && again.pad_id == config.pad_id);
        assert_true(fabs(again.attention_scale - config.attention_scale) < 1e-12);
    }
}

static void nonsense_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        rt_status status;
        const char *names; /* what the sentence must contain */
    } cases[] = {
        {"[]", RT_CORRUPT, "object"},
        {"{}", RT_CORRUPT, "model_type"},
        {"{\"model_type\": 3}", RT_CORRUPT, "model_type"},
        {"{\"model_type\": \"mamba\"}", RT_UNSUPPORTED, "mamba"},
        {"{\"model_type\": \"qwen3_moe\", \"num_experts_per_tok\": 129}", RT_CORRUPT, "num_experts_per_tok"},
        {"{\"model_type\": \"qwen3_moe\", \"num_experts_per_tok\": 0}", RT_CORRUPT, "num_experts_per_tok"},
        {"{\"model_type\": \"qwen3_moe\", \"num_experts\": 5000}", RT_CORRUPT, "experts"},
        {"{\"model_type\": \"qwen3_moe\", \"decoder_sparse_step\": 0}", RT_CORRUPT, "decoder_sparse_step"},
        {"{\"model_type\": \"qwen3_moe\", \"mlp_only_layers\": [\"a\"]}", RT_CORRUPT, "mlp_only_layers"},
        {"{\"model_type\": \"qwen3_moe\", \"mlp_only_layers\": 3}", RT_CORRUPT, "mlp_only_layers"},
        {"{\"model_type\": \"qwen3_moe\", \"moe_intermediate_size\": 0}", RT_CORRUPT,
         "moe_intermediate_size"},
        {"{\"model_type\": \"deepseek_v3\", \"n_group\": 7}", RT_CORRUPT, "n_group"},
        {"{\"model_type\": \"deepseek_v3\", \"n_group\": 0}", RT_CORRUPT, "n_group"},
        {"{\"model_type\": \"deepseek_v3\", \"n_group\": 256}", RT_CORRUPT, "n_group"},
        {"{\"model_type\": \"deepseek_v3\", \"topk_group\": 9}", RT_CORRUPT, "topk_group"},
        {"{\"model_type\": \"deepseek_v3\", \"topk_group\": 1, \"num_experts_per_tok\": 33}", RT_CORRUPT,
         "topk_group"},
        {"{\"model_type\": \"deepseek_v3\", \"routed_scaling_factor\": 0}", RT_CORRUPT,
         "routed_scaling_factor"},
        {"{\"model_type\": \"deepseek_v3\", \"kv_lora_rank\": 0}", RT_CORRUPT, "kv_lora_rank"},
        {"{\"model_type\": \"deepseek_v3\", \"kv_lora_rank\": 10000000}", RT_CORRUPT, "kv_lora_rank"},
        {"{\"model_type\": \"deepseek_v3\", \"qk_rope_head_dim\": 63}", RT_CORRUPT, "qk_rope_head_dim"},
        {"{\"model_type\": \"deepseek_v3\", \"qk_nope_head_dim\": 0}", RT_CORRUPT, "qk_nope_head_dim"},
        {"{\"model_type\": \"deepseek_v3\", \"v_head_dim\": 0}", RT_CORRUPT, "v_head_dim"},
        {"{\"model_type\": \"deepseek_v3\", \"n_shared_experts\": 9223372036854775807}", RT_CORRUPT,
         "shared"},
        {"{\"model_type\": \"deepseek_v3\", \"scoring_func\": \"softmax\"}", RT_UNSUPPORTED, "scoring_func"},
        {"{\"model_type\": \"deepseek_v3\", \"q_lora_rank\": null, \"attention_bias\": true}", RT_UNSUPPORTED,
         "q_lora_rank"},
        {"{\"model_type\": \"llama\", \"hidden_size\": \"big\"}", RT_CORRUPT, "hidden_size"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 0}", RT_CORRUPT, "hidden_size"},
        {"{\"model_type\": \"llama\", \"hidden_size\": -4}", RT_CORRUPT, "hidden_size"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 9223372036854775807, \"head_dim\": 8}", RT_CORRUPT,
         "hidden_size"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 4097}", RT_CORRUPT, "num_attention_heads"},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 0}", RT_CORRUPT, "num_hidden_layers"},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 257}", RT_CORRUPT, "num_hidden_layers"},
        {"{\"model_type\": \"llama\", \"num_attention_heads\": 0}", RT_CORRUPT, "num_attention_heads"},
        {"{\"model_type\": \"llama\", \"num_attention_heads\": 32, \"num_key_value_heads\": 5}", RT_CORRUPT,
         "num_key_value_heads"},
        {"{\"model_type\": \"llama\", \"num_key_value_heads\": 0}", RT_CORRUPT, "num_key_value_heads"},
        {"{\"model_type\": \"llama\", \"head_dim\": 7}", RT_CORRUPT, "head_dim"},
        {"{\"model_type\": \"llama\", \"head_dim\": 0}", RT_CORRUPT, "head_dim"},
        {"{\"model_type\": \"llama\", \"vocab_size\": 0}", RT_CORRUPT, "vocab_size"},
        {"{\"model_type\": \"llama\", \"vocab_size\": 99999999999}", RT_CORRUPT, "vocab_size"},
        {"{\"model_type\": \"llama\", \"rms_norm_eps\": -1e-6}", RT_CORRUPT, "rms_norm_eps"},
        {"{\"model_type\": \"llama\", \"rms_norm_eps\": \"nan\"}", RT_CORRUPT, "rms_norm_eps"},
        {"{\"model_type\": \"llama\", \"hidden_act\": \"relu6\"}", RT_UNSUPPORTED, "relu6"},
        {"{\"model_type\": \"gpt2\", \"activation_function\": \"gelu\"}", RT_UNSUPPORTED,
         "activation_function"},
        {"{\"model_type\": \"llama\", \"rope_theta\": 0}", RT_CORRUPT, "rope_theta"},
        {"{\"model_type\": \"llama\", \"rope_parameters\": []}", RT_CORRUPT, "rope_parameters"},
        {"{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"longrope\"}}", RT_UNSUPPORTED,
         "longrope"},
        {"{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"linear\"}}", RT_CORRUPT, "factor"},
        {"{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8,"
         "\"low_freq_factor\": 4, \"high_freq_factor\": 4}}",
         RT_CORRUPT, "low_freq_factor"},
        {"{\"model_type\": \"llama\", \"rope_parameters\": {\"partial_rotary_factor\": 0.5}}", RT_UNSUPPORTED,
         "partial_rotary_factor"},
        {"{\"model_type\": \"llama\", \"attention_bias\": 1}", RT_CORRUPT, "attention_bias"},
        {"{\"model_type\": \"llama\", \"tie_word_embeddings\": \"yes\"}", RT_CORRUPT, "tie_word_embeddings"},
        {"{\"model_type\": \"llama\", \"eos_token_id\": \"</s>\"}", RT_CORRUPT, "eos_token_id"},
        {"{\"model_type\": \"qwen3\", \"num_hidden_layers\": 2, \"layer_types\": [\"full_attention\"]}",
         RT_CORRUPT, "layer_types"},
        {"{\"model_type\": \"qwen3\", \"num_hidden_layers\": 1, \"layer_types\": [\"chunked\"]}",
         RT_UNSUPPORTED, "chunked"},
        {"{\"model_type\": \"qwen3\", \"num_hidden_layers\": 1, \"layer_types\": [\"sliding_attention\"]}",
         RT_CORRUPT, "sliding_window"},
        {"{\"model_type\": \"gemma3_text\", \"sliding_window_pattern\": 0}", RT_CORRUPT,
         "sliding_window_pattern"},
        {"{\"model_type\": \"gemma3_text\", \"query_pre_attn_scalar\": 0}", RT_CORRUPT, "scale of attention"},
        {"{\"model_type\": \"gemma3_text\", \"use_bidirectional_attention\": true}", RT_UNSUPPORTED,
         "use_bidirectional_attention"},
        {"{\"model_type\": \"gemma3\", \"text_config\": 1}", RT_CORRUPT, "text_config"},
        {"{\"model_type\": \"gpt2\", \"n_head\": 7}", RT_CORRUPT, "n_head"},
        {"{\"model_type\": \"gpt2\", \"scale_attn_by_inverse_layer_idx\": true}", RT_UNSUPPORTED,
         "scale_attn_by_inverse_layer_idx"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rt_error err = {0};
        rt_model_config config;
        assert_int_equal(parse(&config, cases[i].text, &err), cases[i].status);
        if (!strstr(err.text, cases[i].names) || !strstr(err.text, "config.json"))
            fail_msg("%s: \"%s\" does not name %s", cases[i].text, err.text, cases[i].names);
    }
}

/* A folder of the golden llama's weights beside another config.json; the text names what is wrong. */
static void expect_folder(void **state, const char *config, size_t size, rt_status status, const char *names)
{
    char weights_path[512], path[512];
    rt_error err = {0};
    rt_weights *weights = NULL;
    rt_model_config out;
    (void)work_path(path, state, "model.safetensors");
    (void)unlink(path);
    assert_int_equal(symlink(golden_path(weights_path, "llama/model.safetensors"), path), 0);
    (void)work_path(path, state, "config.json");
    assert_int_equal(rt_file_write(path, config, size, &err), RT_OK);
    rt_status got = rt_weights_open(&weights, *state, &err);
    if (got == RT_OK)
        got = rt_model_config_read(&out, weights, &err);
    rt_weights_close(weights);
    if (got != status || (names && !strstr(err.text, names)))
        fail_msg("%.*s: status %d: %s", (int)size, config, (int)got, err.text);
}

static void a_config_cut_at_any_byte_is_refused(void **state)
{
    char path[512], *text = NULL;
    size_t size;
    rt_error err = {0};
    assert_int_equal(rt_file_read(&text, &size, golden_path(path, "llama/config.json"), 1 << 20, &err),
                     RT_OK);
    expect_folder(state, text, size, RT_OK, NULL);
    for (size_t cut = strcspn(text, "}"); cut > 0; cut -= cut > 40 ? 40 : cut)
        expect_folder(state, text, cut, RT_CORRUPT, "config.json");
    free(text);
}

/* Sizes that the file does not bear out are found before anything is made from them. */
static void sizes_that_the_tensors_do_not_have_are_refused(void **state)
{
    static const struct {
        const char *key, *value;
        rt_status status;
        const char *names;
    } cases[] = {
        {"num_hidden_layers", "256", RT_NOT_FOUND, "model.layers.2.input_layernorm.weight"},
        {"num_hidden_layers", "1e9", RT_CORRUPT, "num_hidden_layers"},
        {"hidden_size", "131072", RT_MISMATCH, "model.embed_tokens.weight"},
        {"vocab_size", "4000000", RT_MISMATCH, "model.embed_tokens.weight"},
        {"vocab_size", "96", RT_MISMATCH, "[97, 32]"},
        {"intermediate_size", "1048576", RT_MISMATCH, "mlp.gate_proj.weight"},
        {"num_attention_heads", "2", RT_MISMATCH, "self_attn.q_proj.weight"},
        {"num_key_value_heads", "4", RT_MISMATCH, "self_attn.k_proj.weight"},
        {"attention_bias", "true", RT_NOT_FOUND, "self_attn.q_proj.bias"},
        {"tie_word_embeddings", "false", RT_NOT_FOUND, "lm_head.weight"},
        {"max_position_embeddings", "18446744073709551615", RT_CORRUPT, NULL},
    };
    char path[512], *text = NULL, changed[4096];
    size_t size;
    rt_error err = {0};
    assert_int_equal(rt_file_read(&text, &size, golden_path(path, "llama/config.json"), 1 << 20, &err),
                     RT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *key = strstr(text, cases[i].key), *colon = key ? strchr(key, ':') : NULL;
        assert_non_null(colon);
        const int n = snprintf(changed, sizeof changed, "%.*s: %s%s", (int)(colon - text), text,
                               cases[i].value, colon + strcspn(colon, ",\n"));
        expect_folder(state, changed, (size_t)n, cases[i].status, cases[i].names);
    }
    free(text);
}

static void llama3_factors_of_gguf_give_the_scaling_back(void **state)
{
    (void)state;
    static const struct {
        double theta, factor, high;
        size_t context, head_dim;
    } cases[] = {{5e5, 8, 4, 8192, 128},
                 {5e5, 32, 4, 8192, 64},
                 {5e5, 8, 4, 32, 8},
                 {1e4, 4, 6, 512, 64},
                 {5e5, 8, 4, 8192, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const rt_rope_config rope = {.theta = cases[i].theta,
                                     .scaling = RT_ROPE_LLAMA3,
                                     .factor = cases[i].factor,
                                     .low_freq_factor = 1,
                                     .high_freq_factor = cases[i].high,
                                     .original_context = cases[i].context};
        rt_rope_config made = {.theta = cases[i].theta};
        float factors[64], again[64];
        rt_error err = {0};
        rt_rope_to_factors(factors, &rope, cases[i].head_dim);
        if (rt_rope_from_factors(&made, cases[i].head_dim, factors, "file", &err) != RT_OK)
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(made.scaling, RT_ROPE_LLAMA3);
        rt_rope_to_factors(again, &made, cases[i].head_dim);
        for (size_t j = 0; j < cases[i].head_dim / 2; j++)
            assert_float_equal(again[j], factors[j], 1e-3f * factors[j]);
    }
    const float odd[4] = {1, 2, 8, 3};
    rt_rope_config made = {.theta = 1e4};
    rt_error err = {0};
    assert_int_equal(rt_rope_from_factors(&made, 8, odd, "file", &err), RT_UNSUPPORTED);
    const float bad[4] = {1, NAN, 8, 8};
    assert_int_equal(rt_rope_from_factors(&made, 8, bad, "file", &err), RT_CORRUPT);
}

static void the_real_gguf_gives_smollm2s_figures(void **state)
{
    (void)state;
    char path[512];
    if (!find_smollm2(path)) {
        print_message("the model SmolLM2 is not in the cache (retort pull smollm2-135m-instruct): %s\n",
                      path);
        skip();
    }
    rt_error err = {0};
    rt_weights *weights = NULL;
    rt_model_config config;
    assert_int_equal(rt_weights_open(&weights, path, &err), RT_OK);
    if (rt_model_config_read(&config, weights, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_string_equal(config.family, "llama");
    assert_int_equal(config.n_layers, 30);
    assert_int_equal(config.n_embd, 576);
    assert_int_equal(config.n_ff, 1536);
    assert_int_equal(config.n_heads, 9);
    assert_int_equal(config.n_heads_kv, 3);
    assert_int_equal(config.head_dim, 64);
    assert_int_equal(config.n_vocab, 49152);
    assert_int_equal(config.n_context, 8192);
    assert_true(config.rope.theta == 1e5 && config.norm_eps == 1e-5 && config.tied && !config.bias_qkv);
    assert_int_equal(config.rope.scaling, RT_ROPE_PLAIN);
    assert_int_equal(config.bos_id, 1);
    assert_int_equal(config.eos_id, 2);
    assert_int_equal(rt_model_config_parameters(&config), 134515008);
    rt_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_folder_gives_its_sizes),
        cmocka_unit_test(which_layers_have_experts_follows_the_family),
        cmocka_unit_test(yarn_scales_the_scores_of_latent_attention),
        cmocka_unit_test(rope_scaling_is_read_from_both_generations),
        cmocka_unit_test(windows_follow_the_family),
        cmocka_unit_test(gemma3_is_scaled_as_in_transformers),
        cmocka_unit_test(gpt2_has_its_own_keys),
        cmocka_unit_test(a_written_configuration_reads_back_the_same),
        cmocka_unit_test(nonsense_is_refused_by_name),
        cmocka_unit_test_setup_teardown(a_config_cut_at_any_byte_is_refused, make_work, drop_work),
        cmocka_unit_test_setup_teardown(sizes_that_the_tensors_do_not_have_are_refused, make_work, drop_work),
        cmocka_unit_test(llama3_factors_of_gguf_give_the_scaling_back),
        cmocka_unit_test(the_real_gguf_gives_smollm2s_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
