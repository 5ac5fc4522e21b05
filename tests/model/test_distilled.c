/* tests/model/test_distilled.c - reasoning models distilled into Qwen2 and Llama, as their folders are found:
 * configurations, the Llama tokenizer class over byte-level pieces, and templates with think tags. */
#include "export_help.h"

#include <math.h>

#include "base/file.h"
#include "model/chat_template.h"
#include "model/export.h"
#include "model/session.h"
#include "model/tokenizer.h"
#include "student/data.h"

/* The keys that such a Qwen2 folder has; sizes are small here. */
#define QWEN                                                                                                 \
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"attention_dropout\": 0.0, \"bos_token_id\": 1,"           \
    "\"eos_token_id\": 1, \"hidden_act\": \"silu\", \"hidden_size\": 32, \"initializer_range\": 0.02,"       \
    "\"intermediate_size\": 48, \"max_position_embeddings\": 131072, \"max_window_layers\": 1,"              \
    "\"model_type\": \"qwen2\", \"num_attention_heads\": 4, \"num_hidden_layers\": 2,"                       \
    "\"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000,"                            \
    "\"sliding_window\": 4096, \"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\","               \
    "\"transformers_version\": \"4.44.0\", \"use_cache\": true, \"use_mrope\": false,"                       \
    "\"use_sliding_window\": false, \"vocab_size\": 64}"
#define LLAMA                                                                                                \
    "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0,"     \
    "\"bos_token_id\": 0, \"eos_token_id\": [1, 3], \"hidden_act\": \"silu\", \"hidden_size\": 32,"          \
    "\"intermediate_size\": 48, \"max_position_embeddings\": 131072, \"mlp_bias\": false,"                   \
    "\"model_type\": \"llama\", \"num_attention_heads\": 4, \"num_hidden_layers\": 2,"                       \
    "\"num_key_value_heads\": 2, \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05, \"rope_scaling\":"          \
    "{\"factor\": 8.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0,"                                 \
    "\"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}, \"rope_theta\": 500000.0,"      \
    "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\", \"use_cache\": true, \"vocab_size\": "   \
    "64}"

#define BOS                                                                                                  \
    "<\xEF\xBD\x9C"                                                                                          \
    "begin"                                                                                                  \
    "\xE2\x96\x81"                                                                                           \
    "of"                                                                                                     \
    "\xE2\x96\x81"                                                                                           \
    "text"                                                                                                   \
    "\xEF\xBD\x9C>"
#define EOS                                                                                                  \
    "<\xEF\xBD\x9C"                                                                                          \
    "end"                                                                                                    \
    "\xE2\x96\x81"                                                                                           \
    "of"                                                                                                     \
    "\xE2\x96\x81"                                                                                           \
    "text"                                                                                                   \
    "\xEF\xBD\x9C>"
#define USER                                                                                                 \
    "<\xEF\xBD\x9C"                                                                                          \
    "User"                                                                                                   \
    "\xEF\xBD\x9C>"
#define ASSISTANT                                                                                            \
    "<\xEF\xBD\x9C"                                                                                          \
    "Assistant"                                                                                              \
    "\xEF\xBD\x9C>"

static const char *const added[] = {BOS, EOS, USER, ASSISTANT, "<think>", "</think>"};
enum { N_ADDED = 6, N_LETTERS = 26 };

static void write_text(void **state, const char *name, const char *text)
{
    char path[512];
    FILE *file = fopen(work_path(path, state, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void write_json(void **state, const char *name, json_t *json)
{
    char *text = json_dumps(json, 0);
    assert_non_null(text);
    write_text(state, name, text);
    free(text);
    json_decref(json);
}

/* Letters, the blank and the newline as byte-level pieces; the tags are ordinary added tokens. */
static void write_tokenizer(void **state)
{
    json_t *vocab = json_object(), *list = json_array();
    for (int i = 0; i < N_ADDED; i++) {
        (void)json_object_set_new(vocab, added[i], json_integer(i));
        (void)json_array_append_new(list, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", i, "content",
                                                    added[i], "single_word", 0, "lstrip", 0, "rstrip", 0,
                                                    "normalized", 0, "special", i < 2));
    }
    for (int i = 0; i < N_LETTERS; i++) {
        const char letter[2] = {(char)('a' + i), 0};
        (void)json_object_set_new(vocab, letter, json_integer(N_ADDED + i));
    }
    (void)json_object_set_new(vocab, "\xC4\xA0", json_integer(N_ADDED + N_LETTERS));     /* blank */
    (void)json_object_set_new(vocab, "\xC4\x8A", json_integer(N_ADDED + N_LETTERS + 1)); /* newline */
    write_json(state, "model/tokenizer.json",
               json_pack("{s:s,s:o,s:n,s:{s:s,s:b,s:b,s:b},s:{s:s,s:b,s:b,s:b},s:{s:s,s:o,s:[]}}", "version",
                         "1.0", "added_tokens", list, "normalizer", "pre_tokenizer", "type", "ByteLevel",
                         "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1, "decoder", "type",
                         "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1, "model",
                         "type", "BPE", "vocab", vocab, "merges"));
}

/* Earlier thoughts are left out, and the answer begins with a thought. */
static const char template_text[] =
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(first=true, system='') %}"
    "{%- for m in messages %}{%- if m['role'] == 'system' %}{% set ns.system = m['content'] %}{%- endif "
    "%}{%- endfor %}"
    "{{ bos_token }}{{ ns.system }}"
    "{%- for m in messages %}"
    "{%- if m['role'] == 'user' %}{{ '" USER "' + m['content'] }}{%- endif %}"
    "{%- if m['role'] == 'assistant' and m['content'] is not none %}{% set content = m['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '" ASSISTANT "' + content + '" EOS "' }}{%- endif %}"
    "{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '" ASSISTANT "<think>\\n' }}{% endif %}";

static json_t *piece(const char *content)
{
    return json_pack("{s:s,s:s,s:b,s:b,s:b,s:b}", "__type", "AddedToken", "content", content, "lstrip", 0,
                     "normalized", 1, "rstrip", 0, "single_word", 0);
}

static void write_tokenizer_config(void **state)
{
    write_json(state, "model/tokenizer_config.json",
               json_pack("{s:b,s:b,s:o,s:b,s:o,s:b,s:i,s:o,s:{},s:s,s:s}", "add_bos_token", 1,
                         "add_eos_token", 0, "bos_token", piece(BOS), "clean_up_tokenization_spaces", 0,
                         "eos_token", piece(EOS), "legacy", 1, "model_max_length", 16384, "pad_token",
                         piece(EOS), "sp_model_kwargs", "tokenizer_class", "LlamaTokenizerFast",
                         "chat_template", template_text));
}

typedef struct random_model {
    rt_model_config config;
    rt_layout layout;
    float *values;
} random_model;

static rt_status random_tensor(void *context, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const random_model *m = context;
    const rt_param *p = layer == RT_NO_LAYER ? rt_layout_global(&m->layout, (rt_global)which)
                                             : rt_layout_role(&m->layout, layer, which);
    if (!p)
        return rt_error_set(err, RT_NOT_FOUND, "no such tensor");
    *out = (rt_canonical){.dtype = RT_F32, .rows = p->rows, .cols = p->cols, .data = m->values + p->offset};
    return RT_OK;
}

/* Random weights in bf16 beside the configuration as it is found. */
static void write_model(void **state, const char *config)
{
    rt_error err = {0};
    char path[512];
    random_model m = {0};
    json_t *json = json_loads(config, 0, NULL);
    assert_non_null(json);
    if (rt_model_config_from_json(&m.config, json, "config.json", &err) != RT_OK ||
        rt_layout_build(&m.layout, &m.config, &err) != RT_OK)
        fail_msg("%s", err.text);
    json_decref(json);
    m.values = calloc(m.layout.total, sizeof(float));
    assert_non_null(m.values);
    rt_params_init(m.values, &m.layout, &m.config, 7);
    const rt_export_source source = {.config = &m.config, .tensor = random_tensor, .context = &m};
    const rt_export_options options = {.type = RT_BF16};
    if (rt_export_folder(&source, work_path(path, state, "model"), &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    write_text(state, "model/config.json", config);
    rt_layout_free(&m.layout);
    free(m.values);
}

static void check_template(const rt_tokenizer *tokenizer, rt_token_list *ids)
{
    rt_error err = {0};
    rt_text text = {0};
    rt_chat_template *chat;
    json_t *variables = json_pack("{s:s,s:b,s:[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}]}", "bos_token", BOS,
                                  "add_generation_prompt", 1, "messages", "role", "system", "content",
                                  "be kind", "role", "user", "content", "hi", "role", "assistant", "content",
                                  "<think>\nhm\n</think>\n\nhello", "role", "user", "content", "why");
    assert_non_null(variables);
    assert_non_null(rt_tokenizer_chat_template(tokenizer));
    if (rt_chat_template_parse(&chat, rt_tokenizer_chat_template(tokenizer), &err) != RT_OK ||
        rt_chat_template_render(chat, variables, &text, &err) != RT_OK ||
        rt_tokenizer_encode(tokenizer, text.data, text.size, true, ids, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_string_equal(text.data,
                        BOS "be kind" USER "hi" ASSISTANT "\n\nhello" EOS USER "why" ASSISTANT "<think>\n");
    const int32_t *end = ids->ids + ids->count;
    assert_true(ids->ids[0] == 0 && end[-1] == N_ADDED + N_LETTERS + 1 && end[-2] == 4 && end[-3] == 3);
    rt_chat_template_free(chat);
    rt_text_deinit(&text);
    json_decref(variables);
}

static void check_folder(void **state, const char *config)
{
    rt_error err = {0};
    char path[512];
    rt_tokenizer *tokenizer;
    rt_weights *weights;
    rt_model *model;
    rt_session *session;
    rt_token_list ids = {0};
    write_model(state, config);
    write_tokenizer(state);
    write_tokenizer_config(state);
    if (rt_tokenizer_open(&tokenizer, work_path(path, state, "model"), &err) != RT_OK ||
        rt_weights_open(&weights, path, &err) != RT_OK ||
        rt_model_open(&model, weights, RT_PRECISION_BF16, NULL, &err) != RT_OK ||
        rt_session_open(&session, model, 1, 256, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_true(rt_tokenizer_adds_bos(tokenizer));
    assert_true(rt_tokenizer_bos(tokenizer) == 0 && rt_tokenizer_eos(tokenizer) == 1 &&
                rt_tokenizer_pad(tokenizer) == 1);
    assert_true(rt_tokenizer_is_end(tokenizer, 1));
    check_template(tokenizer, &ids);
    /* thoughts are text that is shown: only the tokens that end or begin a text are dropped */
    rt_text back = {0};
    const int32_t thought[] = {4, N_ADDED + 7, N_ADDED + 12, 5, 1};
    assert_int_equal(rt_tokenizer_decode(tokenizer, thought, 5, true, &back, &err), RT_OK);
    assert_string_equal(back.data, "<think>hm</think>");
    rt_text_deinit(&back);
    assert_int_equal(model->config.n_vocab, 64); /* more rows than tokens, as padded heads have */
    assert_true(rt_tokenizer_size(tokenizer) < 64);
    float logits[64];
    assert_int_equal(rt_session_prefill(session, 0, ids.ids, ids.count, logits, &err), RT_OK);
    for (size_t i = 0; i < 64; i++)
        assert_true(isfinite(logits[i]));
    rt_token_list_deinit(&ids);
    rt_session_close(session);
    rt_model_close(model);
    rt_weights_close(weights);
    rt_tokenizer_close(tokenizer);
}

static void a_qwen2_folder_loads_and_thinks(void **state)
{
    check_folder(state, QWEN);
    char path[512];
    opened_model m = open_model(work_path(path, state, "model"));
    assert_string_equal(m.config.family, "qwen2");
    assert_true(m.config.bias_qkv && !m.config.tied && m.config.window[1] == 0 && m.config.rope.theta == 1e4);
    rt_weights_close(m.weights);
}

static void a_llama_folder_loads_and_thinks(void **state)
{
    check_folder(state, LLAMA);
    char path[512];
    opened_model m = open_model(work_path(path, state, "model"));
    assert_string_equal(m.config.family, "llama");
    assert_true(m.config.rope.scaling == RT_ROPE_LLAMA3 && m.config.rope.factor == 8 &&
                m.config.rope.original_context == 8192);
    assert_true(m.config.bos_id == 0 && m.config.eos_id == 1 && !m.config.tied);
    rt_weights_close(m.weights);
}

/* A thought in training text stays whole, and is opened once whoever opens it. */
static void thoughts_are_learnt_whole(void **state)
{
    static const char thought[] = "<think>\nso one and one\n</think>\n\ntwo";
    static const struct {
        const char *source, *learnt; /* of the template; the text that carries a loss */
    } cases[] = {{template_text, "so one and one\n</think>\n\ntwo"},
                 {"{{ messages[0]['content'] }}", thought}};
    rt_error err = {0};
    char path[512], tail[RT_THOUGHT_TAIL];
    rt_tokenizer *tokenizer;
    check_folder(state, QWEN);
    assert_int_equal(rt_tokenizer_open(&tokenizer, work_path(path, state, "model"), &err), RT_OK);
    json_t *row =
        json_pack("{s:s, s:s, s:s}", "prompt", "one and one", "completion", thought, "finish_reason", "stop");
    for (size_t i = 0; i < 2; i++) {
        rt_chat_template *chat_template;
        rt_documents docs = {0};
        rt_text text = {0};
        assert_int_equal(rt_chat_template_parse(&chat_template, cases[i].source, &err), RT_OK);
        if (rt_documents_add_row(&docs, row, tokenizer, chat_template,
                                 &(rt_document_options){.tokens_max = 99}, &err) != RT_OK)
            fail_msg("%s", err.text);
        const size_t prompt = rt_documents_prompt(&docs, 0);
        assert_int_equal(rt_prompt_opens_thought(tail, tokenizer, docs.ids, prompt), i == 0);
        if (i == 0)
            assert_string_equal(tail, "<think>\n");
        assert_int_equal(docs.ids[docs.n_tokens - 1],
                         rt_tokenizer_eos(tokenizer)); /* it ends, and that is learnt */
        assert_int_equal(
            rt_tokenizer_decode(tokenizer, docs.ids + prompt, docs.n_tokens - prompt, true, &text, &err),
            RT_OK);
        assert_string_equal(text.data, cases[i].learnt);
        for (size_t k = prompt; k < docs.n_tokens; k++)
            assert_int_equal(docs.mask[k], 1);
        rt_text_deinit(&text);
        rt_documents_deinit(&docs);
        rt_chat_template_free(chat_template);
    }
    assert_false(rt_prompt_opens_thought(tail, tokenizer, NULL, 0));
    json_decref(row);
    rt_tokenizer_close(tokenizer);
}

static void they_survive_gguf(void **state)
{
    rt_error err = {0};
    char in[512], out[512];
    const rt_export_options options = {.keep = true};
    rt_tokenizer *before, *after;
    check_folder(state, LLAMA);
    if (rt_export_path(work_path(in, state, "model"), work_path(out, state, "model.gguf"), &options, &err) !=
        RT_OK)
        fail_msg("%s", err.text);
    opened_model m = open_model(out);
    assert_int_equal(m.config.rope.scaling, RT_ROPE_LLAMA3);
    rt_weights_close(m.weights);
    assert_int_equal(rt_tokenizer_open(&before, in, &err), RT_OK);
    assert_int_equal(rt_tokenizer_open(&after, out, &err), RT_OK);
    assert_true(rt_tokenizer_adds_bos(after) && rt_tokenizer_bos(after) == 0 && rt_tokenizer_eos(after) == 1);
    assert_string_equal(rt_tokenizer_chat_template(after), template_text);
    rt_token_list ids = {0};
    check_template(after, &ids);
    rt_token_list_deinit(&ids);
    rt_tokenizer_close(before);
    rt_tokenizer_close(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_qwen2_folder_loads_and_thinks),
        cmocka_unit_test(a_llama_folder_loads_and_thinks),
        cmocka_unit_test(thoughts_are_learnt_whole),
        cmocka_unit_test(they_survive_gguf),
    };
    return cmocka_run_group_tests(tests, make_work, drop_work);
}
