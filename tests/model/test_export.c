/* tests/model/test_export.c - models go to GGUF and folders and come back the same. */
#include "export_help.h"

#include <math.h>
#include <sys/stat.h>

#include "base/file.h"
#include "model/export_parts.h"
#include "model/tokenizer.h"
#include "tensor/quant.h"

static const char *const folders[] = {"llama",          "llama_untied_rope3",
                                      "llama_head_dim", "llama_yarn",
                                      "mistral_window", "qwen2",
                                      "qwen3",          "gemma3",
                                      "gpt2",           "qwen3_moe",
                                      "deepseek_v3"};
enum { N_FOLDERS = sizeof folders / sizeof *folders };

static void gather_notes(void *context, const char *sentence)
{
    char *notes = context;
    const size_t used = strlen(notes);
    (void)snprintf(notes + used, 4096 - used, "%s\n", sentence);
}

static void export_ok(const char *in, const char *out, const rt_dtype *type)
{
    rt_error err = {0};
    const rt_export_options options = {.keep = !type, .type = type ? *type : RT_F32};
    if (rt_export_path(in, out, &options, &err) != RT_OK)
        fail_msg("%s to %s: %s", in, out, err.text);
}

static void assert_same_tensor(const rt_canonical *a, const rt_canonical *b, float tolerance)
{
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    const size_t n = a->rows * (a->cols ? a->cols : 1);
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    assert_true(x && y);
    rt_dequantise(x, a->data, a->dtype, n);
    rt_dequantise(y, b->data, b->dtype, n);
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(x[i] - y[i]) <= tolerance);
    free(x);
    free(y);
}

/* Every canonical tensor of two files; norms may be meant in the two ways of gemma. */
static void assert_same_model(const opened_model *a, const opened_model *b, float tolerance)
{
    rt_error err = {0};
    rt_canonical x, y;
    size_t rows, cols;
    for (rt_global global = 0; global < RT_GLOBAL_COUNT; global++) {
        rt_global_shape(&a->config, global, &rows, &cols);
        if (rows == 0)
            continue;
        assert_int_equal(rt_canonical_global(&x, a->weights, &a->config, global, &err), RT_OK);
        assert_int_equal(rt_canonical_global(&y, b->weights, &b->config, global, &err), RT_OK);
        assert_same_tensor(&x, &y, tolerance);
    }
    for (size_t layer = 0; layer < a->config.n_layers; layer++)
        for (int role = 0; role < rt_role_span(&a->config); role++) {
            rt_role_shape(&a->config, layer, role, &rows, &cols);
            if (rows == 0)
                continue;
            assert_int_equal(rt_canonical_layer(&x, a->weights, &a->config, layer, role, &err), RT_OK);
            assert_int_equal(rt_canonical_layer(&y, b->weights, &b->config, layer, role, &err), RT_OK);
            assert_same_tensor(&x, &y, tolerance);
            free(x.owned);
            free(y.owned);
        }
}

static void assert_same_config(const rt_model_config *a, const rt_model_config *b)
{
    assert_string_equal(a->family, b->family);
    assert_memory_equal(a->window, b->window, sizeof a->window);
    assert_true(a->n_layers == b->n_layers && a->n_embd == b->n_embd && a->n_heads == b->n_heads &&
                a->n_heads_kv == b->n_heads_kv && a->head_dim == b->head_dim && a->n_ff == b->n_ff &&
                a->n_vocab == b->n_vocab && a->n_context == b->n_context);
    assert_true(a->norm_eps == b->norm_eps && a->embed_scale == b->embed_scale && a->tied == b->tied);
    assert_true(a->bias_qkv == b->bias_qkv && a->bias_o == b->bias_o && a->bias_mlp == b->bias_mlp);
    assert_true(fabs(a->attention_scale - b->attention_scale) < 1e-9);
    assert_int_equal(a->rope.scaling, b->rope.scaling);
    assert_true(a->rope.theta == b->rope.theta && a->rope.factor == b->rope.factor &&
                a->rope.beta_fast == b->rope.beta_fast &&
                a->rope.attention_factor == b->rope.attention_factor);
    assert_true(a->rope_local.theta == b->rope_local.theta);
    assert_memory_equal(&a->experts, &b->experts, sizeof a->experts);
    assert_true(a->latent.kv_rank == b->latent.kv_rank && a->latent.q_rank == b->latent.q_rank &&
                a->latent.nope == b->latent.nope && a->latent.rope == b->latent.rope &&
                a->latent.value == b->latent.value && a->latent.norm_eps == b->latent.norm_eps);
    assert_true(a->bos_id == b->bos_id && a->eos_id == b->eos_id && a->pad_id == b->pad_id);
}

static void every_golden_checkpoint_survives_gguf_and_back(void **state)
{
    for (size_t i = 0; i < N_FOLDERS; i++) {
        char in[512], gguf[512], back[512];
        export_ok(golden_path(in, folders[i]), work_path(gguf, state, "model.gguf"), NULL);
        export_ok(gguf, work_path(back, state, "back"), NULL);
        opened_model before = open_model(in), between = open_model(gguf), after = open_model(back);
        assert_same_config(&before.config, &between.config);
        assert_same_config(&before.config, &after.config);
        assert_int_equal(before.config.norm_plus_one, after.config.norm_plus_one);
        assert_false(between.config.norm_plus_one);
        /* gemma3's norms go w -> 1 + w -> w: one rounding of a value near 1 */
        assert_same_model(&before, &after, before.config.norm_plus_one ? 0x1p-23f : 0.0f);
        rt_weights_close(before.weights);
        rt_weights_close(between.weights);
        rt_weights_close(after.weights);
    }
}

static void gguf_of_llama_holds_the_rows_of_q_in_the_order_of_interleaved_rope(void **state)
{
    char in[512], gguf[512];
    export_ok(golden_path(in, "llama"), work_path(gguf, state, "model.gguf"), NULL);
    opened_model before = open_model(in), after = open_model(gguf);
    const float *hf = rt_weights_find(before.weights, "model.layers.0.self_attn.q_proj.weight")->data;
    const float *stored = rt_weights_find(after.weights, "blk.0.attn_q.weight")->data;
    for (size_t head = 0; head < 4; head++)
        for (size_t i = 0; i < 8; i++) /* row 2 pair + half there is row half * 4 + pair here */
            assert_memory_equal(stored + (head * 8 + i) * 32, hf + (head * 8 + i % 2 * 4 + i / 2) * 32,
                                32 * 4);
    const float *v = rt_weights_find(before.weights, "model.layers.0.self_attn.v_proj.weight")->data;
    assert_memory_equal(rt_weights_find(after.weights, "blk.0.attn_v.weight")->data, v, 16 * 32 * 4);
    rt_weights_close(before.weights);
    rt_weights_close(after.weights);
}

static void a_quantised_file_is_copied_byte_for_byte_when_types_are_kept(void **state)
{
    char in[512], first[512], second[512];
    const rt_dtype type = RT_Q8_0;
    export_ok(golden_path(in, "llama"), work_path(first, state, "first.gguf"), &type);
    export_ok(first, work_path(second, state, "second.gguf"), NULL);
    opened_model a = open_model(first), b = open_model(second);
    assert_int_equal(rt_weights_count(a.weights), rt_weights_count(b.weights));
    for (size_t i = 0; i < rt_weights_count(a.weights); i++) {
        const rt_weight *x = rt_weights_at(a.weights, i), *y = rt_weights_find(b.weights, x->name);
        assert_non_null(y);
        assert_int_equal(x->dtype, y->dtype);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
    assert_int_equal(rt_weights_find(a.weights, "blk.0.attn_q.weight")->dtype, RT_Q8_0);
    assert_int_equal(rt_weights_find(a.weights, "blk.0.attn_norm.weight")->dtype, RT_F32);
    rt_weights_close(a.weights);
    rt_weights_close(b.weights);
}

static void rows_that_are_no_whole_blocks_fall_back_and_it_is_said(void **state)
{
    char in[512], out[512], notes[4096] = "";
    rt_error err = {0};
    const rt_export_options options = {.type = RT_Q4_K, .note = gather_notes, .note_context = notes};
    assert_int_equal(
        rt_export_path(golden_path(in, "llama"), work_path(out, state, "k.gguf"), &options, &err), RT_OK);
    opened_model model = open_model(out);
    assert_int_equal(rt_weights_find(model.weights, "blk.0.attn_q.weight")->dtype, RT_Q8_0);  /* rows of 32 */
    assert_int_equal(rt_weights_find(model.weights, "blk.0.ffn_down.weight")->dtype, RT_F16); /* rows of 56 */
    assert_non_null(strstr(notes, "12 tensors are Q8_0 and 2 F16 instead of Q4_K"));
    rt_weights_close(model.weights);
}

static void a_folder_has_one_plain_type(void **state)
{
    static const rt_dtype types[] = {RT_F32, RT_F16, RT_BF16};
    char in[512], out[512];
    rt_error err = {0};
    (void)golden_path(in, "qwen3");
    (void)work_path(out, state, "folder");
    for (size_t i = 0; i < 3; i++) {
        export_ok(in, out, &types[i]);
        opened_model before = open_model(in), after = open_model(out);
        for (size_t k = 0; k < rt_weights_count(after.weights); k++)
            assert_int_equal(rt_weights_at(after.weights, k)->dtype, types[i]);
        assert_same_model(&before, &after, types[i] == RT_F32 ? 0 : types[i] == RT_F16 ? 1e-3f : 1e-2f);
        rt_weights_close(before.weights);
        rt_weights_close(after.weights);
    }
    const rt_export_options options = {.type = RT_Q8_0};
    assert_int_equal(rt_export_path(in, out, &options, &err), RT_INVALID);
    assert_non_null(strstr(err.text, ".gguf"));
}

/* --- a source that is no file: flat arrays, as the trainer has --- */

typedef struct flat {
    rt_layout layout;
    float *values;
} flat;

static rt_status tensor_of_flat(void *context, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const flat *in = context;
    const rt_param *param = layer == RT_NO_LAYER ? rt_layout_global(&in->layout, (rt_global)which)
                                                 : rt_layout_role(&in->layout, layer, which);
    if (!param)
        return rt_error_set(err, RT_NOT_FOUND, "no such tensor");
    *out = (rt_canonical){
        .dtype = RT_F32, .rows = param->rows, .cols = param->cols, .data = in->values + param->offset};
    return RT_OK;
}

static flat make_flat(const rt_model_config *config)
{
    flat out = {0};
    rt_error err = {0};
    assert_int_equal(rt_layout_build(&out.layout, config, &err), RT_OK);
    out.values = calloc(out.layout.total, sizeof *out.values);
    assert_non_null(out.values);
    for (size_t i = 0; i < out.layout.total; i++)
        out.values[i] = sinf((float)i);
    return out;
}

static void drop_flat(flat *source)
{
    rt_layout_free(&source->layout);
    free(source->values);
}

static void parameters_in_memory_are_written_with_their_lineage(void **state)
{
    char in[512], folder[512], gguf[512], path[600];
    rt_error err = {0};
    for (size_t i = 0; i < N_FOLDERS; i++) {
        opened_model shape = open_model(golden_path(in, folders[i]));
        flat values = make_flat(&shape.config);
        json_t *lineage = json_pack("{s:s}", "teacher", "somebody");
        const rt_export_source source = {.config = &shape.config,
                                         .tensor = tensor_of_flat,
                                         .context = &values,
                                         .name = "small",
                                         .lineage = lineage};
        const rt_export_options options = {.type = RT_F32};
        (void)work_path(folder, state, folders[i]);
        (void)work_path(gguf, state, "student.gguf");
        assert_int_equal(rt_export_folder(&source, folder, &options, &err), RT_OK);
        assert_int_equal(rt_export_gguf(&source, gguf, &options, &err), RT_OK);
        opened_model a = open_model(folder), b = open_model(gguf);
        assert_same_config(&shape.config, &a.config);
        if (!shape.config.norm_plus_one)
            assert_same_model(&a, &b, 0);
        rt_canonical embed;
        assert_int_equal(rt_canonical_global(&embed, a.weights, &a.config, RT_GLOBAL_EMBED, &err), RT_OK);
        assert_memory_equal(embed.data,
                            values.values + rt_layout_global(&values.layout, RT_GLOBAL_EMBED)->offset,
                            97 * 32 * sizeof(float));
        const char *text;
        size_t size;
        assert_true(rt_weights_meta_string(b.weights, "general.name", &text, &size) && size == 5);
        assert_true(rt_weights_meta_string(b.weights, "retort.lineage", &text, &size));
        (void)snprintf(path, sizeof path, "%s/retort.json", folder);
        assert_true(rt_path_exists(path));
        rt_weights_close(a.weights);
        rt_weights_close(b.weights);
        rt_weights_close(shape.weights);
        json_decref(lineage);
        drop_flat(&values);
    }
}

static void values_that_a_type_cannot_hold_are_refused_and_nothing_is_left(void **state)
{
    static const struct {
        float value;
        rt_dtype type;
        const char *says;
    } cases[] = {{NAN, RT_F16, "not finite"},     {INFINITY, RT_Q8_0, "not finite"},
                 {NAN, RT_Q4_1, "not finite"},    {70000.0f, RT_F16, "above 65504"},
                 {-70000.0f, RT_F16, "use BF16"}, {-INFINITY, RT_BF16, "not finite"}};
    char in[512], folder[512], gguf[512], path[600];
    opened_model shape = open_model(golden_path(in, "llama"));
    flat values = make_flat(&shape.config);
    float *bad = values.values + rt_layout_role(&values.layout, 1, RT_ROLE_UP)->offset + 17;
    const rt_export_source source = {.config = &shape.config, .tensor = tensor_of_flat, .context = &values};
    (void)work_path(folder, state, "student");
    (void)work_path(gguf, state, "student.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const rt_export_options options = {.type = cases[i].type};
        rt_error err = {0};
        *bad = cases[i].value;
        assert_int_equal(rt_export_gguf(&source, gguf, &options, &err), RT_NOT_FINITE);
        assert_non_null(strstr(err.text, "blk.1.ffn_up.weight"));
        assert_non_null(strstr(err.text, cases[i].says));
        assert_false(rt_path_exists(gguf));
        if (rt_dtype_is_quantised(cases[i].type))
            continue;
        assert_int_equal(rt_export_folder(&source, folder, &options, &err), RT_NOT_FINITE);
        (void)snprintf(path, sizeof path, "%s/config.json", folder);
        assert_false(rt_path_exists(path));
        (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
        assert_false(rt_path_exists(path));
    }
    rt_weights_close(shape.weights);
    drop_flat(&values);
}

static void a_place_that_cannot_be_written_is_an_error(void **state)
{
    char in[512], out[512];
    rt_error err = {0};
    const rt_export_options options = {.keep = true};
    (void)golden_path(in, "llama");
    (void)work_path(out, state, "missing/model.gguf");
    assert_int_not_equal(rt_export_path(in, out, &options, &err), RT_OK);
    assert_non_null(strstr(err.text, "missing"));
    assert_int_not_equal(rt_export_path(in, "/proc/retort", &options, &err), RT_OK);
    assert_non_null(strstr(err.text, "/proc/retort"));
    assert_int_not_equal(rt_export_path("/nowhere/at/all", out, &options, &err), RT_OK);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

/* --- tokenizers --- */

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[600];
    rt_error err = {0};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(rt_dir_make(dir, &err), RT_OK);
    assert_int_equal(rt_file_write(path, text, strlen(text), &err), RT_OK);
}

static rt_status tokenizer_to_gguf(const char *from, const char *to, size_t n_vocab, rt_error *err)
{
    rt_gguf_writer *writer = NULL;
    assert_int_equal(rt_gguf_writer_open(&writer, to, err), RT_OK);
    rt_gguf_writer_string(writer, "general.architecture", "llama");
    rt_status status = rt_export_tokenizer_gguf(writer, from, n_vocab, err);
    if (status == RT_OK)
        status = rt_gguf_writer_begin(writer, err);
    if (status == RT_OK)
        return rt_gguf_writer_commit(writer, err);
    rt_gguf_writer_abort(writer);
    return status;
}

#define SMALL_TOKENIZER(pre)                                                                                 \
    "{\"added_tokens\": [{\"id\": 3, \"content\": \"<s>\", \"special\": true},"                              \
    "{\"id\": 4, \"content\": \"<tool>\", \"special\": false}], \"normalizer\": null,"                       \
    "\"pre_tokenizer\": " pre ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\","     \
    "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}}"

static void a_tokenizer_json_becomes_metadata_with_types_and_padding(void **state)
{
    char dir[512], gguf[512];
    rt_error err = {0};
    rt_weights *weights = NULL;
    static const char *const tokens[] = {"a", "b", "ab", "<s>", "<tool>", "[PAD5]"};
    static const double types[] = {1, 1, 1, 3, 4, 5};
    (void)work_path(gguf, state, "tokenizer.gguf");
    write_text(work_path(dir, state, "hf"), "tokenizer.json",
               SMALL_TOKENIZER("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}"));
    write_text(dir, "tokenizer_config.json",
               "{\"bos_token\": \"<s>\", \"add_bos_token\": true, \"chat_template\": \"hello\"}");
    if (tokenizer_to_gguf(dir, gguf, 6, &err) != RT_OK || rt_weights_open(&weights, gguf, &err) != RT_OK)
        fail_msg("%s", err.text);
    const char *text;
    size_t size, count;
    double type;
    uint64_t id;
    assert_true(rt_weights_meta_array(weights, "tokenizer.ggml.tokens", &count) && count == 6);
    for (size_t i = 0; i < 6; i++) {
        assert_true(rt_weights_meta_array_string(weights, "tokenizer.ggml.tokens", i, &text, &size));
        assert_true(size == strlen(tokens[i]) && !memcmp(text, tokens[i], size));
        assert_true(rt_weights_meta_array_f64(weights, "tokenizer.ggml.token_type", i, &type));
        assert_true(type == types[i]);
    }
    assert_true(rt_weights_meta_array_string(weights, "tokenizer.ggml.merges", 0, &text, &size));
    assert_true(size == 3 && !memcmp(text, "a b", 3));
    assert_true(rt_weights_meta_string(weights, "tokenizer.ggml.pre", &text, &size));
    assert_true(size == 5 && !memcmp(text, "gpt-2", 5));
    assert_true(rt_weights_meta_string(weights, "tokenizer.chat_template", &text, &size) && size == 5);
    assert_true(rt_weights_meta_u64(weights, "tokenizer.ggml.bos_token_id", &id) && id == 3);
    rt_weights_close(weights);
    assert_int_equal(tokenizer_to_gguf(dir, gguf, 4, &err), RT_CORRUPT); /* more tokens than rows */
    assert_non_null(strstr(err.text, "4 rows"));
}

static void a_pre_tokenizer_without_a_name_in_gguf_is_refused(void **state)
{
    char dir[512], gguf[512];
    rt_error err = {0};
    write_text(
        work_path(dir, state, "hf"), "tokenizer.json",
        SMALL_TOKENIZER("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\":"
                        "{\"Regex\": \"xyz+\"}, \"behavior\": \"Isolated\", \"invert\": false},"
                        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}"));
    assert_int_equal(tokenizer_to_gguf(dir, work_path(gguf, state, "t.gguf"), 6, &err), RT_UNSUPPORTED);
    assert_non_null(strstr(err.text, "pre_tokenizer"));
    assert_false(rt_path_exists(gguf));
}

static void the_real_tokenizer_survives_a_folder_and_gguf(void **state)
{
    char path[512], dir[512], gguf[512];
    rt_error err = {0};
    rt_tokenizer *there = NULL, *folder = NULL, *back = NULL;
    if (!find_smollm2(path)) {
        print_message("the model SmolLM2 is not in the cache (retort pull smollm2-135m-instruct)\n");
        skip();
    }
    (void)work_path(gguf, state, "tokenizer.gguf");
    assert_int_equal(rt_dir_make(work_path(dir, state, "hf"), &err), RT_OK);
    if (rt_export_tokenizer_folder(path, dir, &err) != RT_OK ||
        tokenizer_to_gguf(dir, gguf, 49152, &err) != RT_OK ||
        rt_tokenizer_open(&there, path, &err) != RT_OK || rt_tokenizer_open(&folder, dir, &err) != RT_OK ||
        rt_tokenizer_open(&back, gguf, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_string_equal(rt_tokenizer_hash(folder), rt_tokenizer_hash(there));
    assert_string_equal(rt_tokenizer_hash(back), rt_tokenizer_hash(there));
    assert_string_equal(rt_tokenizer_kind(back), rt_tokenizer_kind(there));
    assert_string_equal(rt_tokenizer_chat_template(back), rt_tokenizer_chat_template(there));
    assert_int_equal(rt_tokenizer_eos(back), rt_tokenizer_eos(there));
    rt_tokenizer_close(there);
    rt_tokenizer_close(folder);
    rt_tokenizer_close(back);
}

int main(void)
{
#define IN_WORK(test) cmocka_unit_test_setup_teardown(test, make_work, drop_work)
    const struct CMUnitTest tests[] = {
        IN_WORK(every_golden_checkpoint_survives_gguf_and_back),
        IN_WORK(gguf_of_llama_holds_the_rows_of_q_in_the_order_of_interleaved_rope),
        IN_WORK(a_quantised_file_is_copied_byte_for_byte_when_types_are_kept),
        IN_WORK(rows_that_are_no_whole_blocks_fall_back_and_it_is_said),
        IN_WORK(a_folder_has_one_plain_type),
        IN_WORK(parameters_in_memory_are_written_with_their_lineage),
        IN_WORK(values_that_a_type_cannot_hold_are_refused_and_nothing_is_left),
        IN_WORK(a_tokenizer_json_becomes_metadata_with_types_and_padding),
        IN_WORK(a_pre_tokenizer_without_a_name_in_gguf_is_refused),
        IN_WORK(the_real_tokenizer_survives_a_folder_and_gguf),
        IN_WORK(a_place_that_cannot_be_written_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
