/* cli/cmd_inspect.c - `retort inspect PATH`: what a model file holds.
 *
 * The facts are gathered into one JSON object first; the table is printed from it, so the two forms
 * cannot disagree.  A family that this build cannot run is still described. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/open_model.h"
#include "model/config.h"
#include "model/known.h"
#include "model/tokenizer.h"

static json_t *count(size_t n) { return json_integer((json_int_t)n); }

static json_t *string_or_null(const char *data, size_t size)
{
    return size ? rt_json_text(data, size) : json_null();
}

/* "license: X" between the two "---" lines at the top of a model card. */
static json_t *licence_of_card(const char *dir)
{
    char *path = rt_path_join(dir, "README.md"), *text = NULL, *state = NULL;
    size_t size;
    json_t *out = NULL;
    if (path && rt_path_exists(path) && rt_file_read(&text, &size, path, 4 << 20, NULL) == RT_OK &&
        !strncmp(text, "---\n", 4)) {
        for (char *line = strtok_r(text + 4, "\n", &state); line && strcmp(line, "---") != 0 && !out;
             line = strtok_r(NULL, "\n", &state))
            if (!strncmp(line, "license:", 8)) {
                line += 8 + strspn(line + 8, " \"'");
                out = string_or_null(line, strcspn(line, " \"'\r"));
            }
    }
    free(text);
    free(path);
    return out ? out : json_null();
}

json_t *cli_model_licence(const rt_weights *weights, const char *path)
{
    const char *data;
    size_t size;
    if (rt_weights_meta_string(weights, "general.license", &data, &size))
        return string_or_null(data, size);
    if (rt_path_is_dir(path))
        return licence_of_card(path);
    const char *slash = strrchr(path, '/'); /* a pulled model whose file does not say */
    const rt_known *known = rt_known_find(slash ? slash + 1 : path);
    return known ? json_string(known->licence) : json_null();
}

static json_t *tensors(const rt_weights *weights, size_t *bytes)
{
    struct {
        size_t count, bytes;
    } types[RT_DTYPE_COUNT] = {0};
    json_t *list = json_array();
    *bytes = 0;
    for (size_t i = 0; i < rt_weights_count(weights); i++) {
        const rt_weight *weight = rt_weights_at(weights, i);
        types[weight->dtype].count++;
        types[weight->dtype].bytes += weight->bytes;
        *bytes += weight->bytes;
    }
    for (rt_dtype type = 0; type < RT_DTYPE_COUNT; type++)
        if (types[type].count)
            (void)json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "type", rt_dtype_get(type)->name,
                                                        "count", count(types[type].count), "bytes",
                                                        count(types[type].bytes)));
    return json_pack("{s:o, s:o, s:o}", "count", count(rt_weights_count(weights)), "bytes", count(*bytes),
                     "types", list);
}

static json_t *shape_of(const rt_model_config *config)
{
    size_t n_windows = 0, window = 0;
    for (size_t i = 0; i < config->n_layers; i++) {
        n_windows += config->window[i] != 0;
        window = rt_size_max(window, config->window[i]);
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:f, s:o, s:o}", "layers",
                     count(config->n_layers), "n_embd", count(config->n_embd), "heads",
                     count(config->n_heads), "heads_kv", count(config->n_heads_kv), "head_dim",
                     count(config->head_dim), "n_ff", count(config->n_ff), "n_vocab", count(config->n_vocab),
                     "context", count(config->n_context), "tied", config->tied, "rope_theta",
                     config->rope.theta, "window", count(window), "layers_with_window", count(n_windows));
}

/* What mixtures of experts and latent attention add to the shape. */
static void add_experts(json_t *json, json_t *shape, const rt_model_config *config)
{
    const rt_expert_config *e = &config->experts;
    size_t sparse = 0;
    for (size_t l = 0; l < config->n_layers; l++)
        sparse += e->sparse[l];
    const size_t idle = sparse * (e->count - e->used) * 3 * e->n_ff * config->n_embd;
    if (sparse)
        (void)json_object_set_new(json, "active_parameters",
                                  count(rt_model_config_parameters(config) - idle));
    (void)json_object_set_new(shape, "experts", count(e->count));
    (void)json_object_set_new(shape, "experts_used", count(e->used));
    (void)json_object_set_new(shape, "n_ff_expert", count(e->n_ff));
    (void)json_object_set_new(shape, "n_ff_shared", count(e->n_ff_shared));
    (void)json_object_set_new(shape, "layers_with_experts", count(sparse));
    (void)json_object_set_new(shape, "q_latent", count(config->latent.q_rank));
    (void)json_object_set_new(shape, "kv_latent", count(config->latent.kv_rank));
}

static json_t *memory(const rt_model_config *config, size_t stored)
{
    const size_t parameters = rt_model_config_parameters(config);
    const size_t kv = 2 * config->n_layers * config->n_heads_kv * config->head_dim * sizeof(rt_bf16);
    return json_pack("{s:o, s:o, s:o, s:o}", "stored_bytes", count(stored), "bf16_bytes",
                     count(2 * parameters), "f32_bytes", count(4 * parameters), "kv_bytes_per_token",
                     count(kv));
}

static json_t *describe_tokenizer(const rt_tokenizer *tokenizer)
{
    return json_pack("{s:s, s:o, s:s, s:i, s:i, s:b}", "kind", rt_tokenizer_kind(tokenizer), "size",
                     count(rt_tokenizer_size(tokenizer)), "hash", rt_tokenizer_hash(tokenizer), "bos",
                     rt_tokenizer_bos(tokenizer), "eos", rt_tokenizer_eos(tokenizer), "chat_template",
                     rt_tokenizer_chat_template(tokenizer) != NULL);
}

/* null when there is none; the sentence under "error" when there is one that cannot be read. */
static json_t *tokenizer_of(const rt_weights *weights, const char *path)
{
    rt_tokenizer *tokenizer = NULL;
    rt_error err = {0};
    size_t n;
    if (rt_weights_get_format(weights) == RT_FORMAT_GGUF) {
        if (!rt_weights_meta_array(weights, "tokenizer.ggml.tokens", &n))
            return json_null();
        (void)rt_tokenizer_from_weights(&tokenizer, weights, &err);
    } else {
        char *file = rt_path_is_dir(path) ? rt_path_join(path, "tokenizer.json") : NULL;
        const bool there = file && rt_path_exists(file);
        free(file);
        if (!there)
            return json_null();
        (void)rt_tokenizer_open(&tokenizer, path, &err);
    }
    json_t *out = tokenizer ? describe_tokenizer(tokenizer) : json_pack("{s:s}", "error", err.text);
    rt_tokenizer_close(tokenizer);
    return out;
}

static rt_status gather(json_t **out, const char *path, rt_error *err)
{
    rt_weights *weights = NULL;
    rt_model_config config;
    const char *name = "";
    size_t name_size = 0, stored;
    if (rt_weights_open(&weights, path, err) != RT_OK)
        return err->status;
    const bool gguf = rt_weights_get_format(weights) == RT_FORMAT_GGUF;
    const rt_status status = rt_model_config_read(&config, weights, err);
    if (status != RT_OK && status != RT_UNSUPPORTED) {
        rt_weights_close(weights);
        return status;
    }
    (void)rt_weights_meta_string(weights, "general.name", &name, &name_size);
    json_t *json = json_pack("{s:o, s:s, s:o, s:o}", "path", rt_json_text(path, strlen(path)), "format",
                             gguf ? "GGUF" : "safetensors", "name", string_or_null(name, name_size),
                             "licence", cli_model_licence(weights, path));
    (void)json_object_set_new(json, "tensors", tensors(weights, &stored));
    if (status == RT_OK) {
        (void)json_object_set_new(json, "family", json_string(config.family));
        (void)json_object_set_new(json, "parameters", count(rt_model_config_parameters(&config)));
        json_t *shape = shape_of(&config);
        add_experts(json, shape, &config);
        (void)json_object_set_new(json, "shape", shape);
        (void)json_object_set_new(json, "memory", memory(&config, stored));
    } else {
        (void)json_object_set_new(json, "unsupported", rt_json_text(err->text, strlen(err->text)));
    }
    (void)json_object_set_new(json, "tokenizer", tokenizer_of(weights, path));
    rt_weights_close(weights);
    *out = json;
    return json ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the description");
}

/* --- the table --- */

static json_int_t whole(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static double mib(const json_t *object, const char *key) { return (double)whole(object, key) / (1 << 20); }

static const char *word(const json_t *object, const char *key, const char *when_null)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : when_null;
}

static void print_model(const json_t *json)
{
    const json_t *shape = json_object_get(json, "shape"), *bytes = json_object_get(json, "memory");
    (void)printf("%-14s%s, %.1f M parameters", "family", word(json, "family", "?"),
                 (double)whole(json, "parameters") / 1e6);
    if (whole(json, "active_parameters"))
        (void)printf(", %.1f M of them for a token", (double)whole(json, "active_parameters") / 1e6);
    (void)printf("\n");
    (void)printf("%-14s%lld layers, width %lld, MLP %lld, %lld heads (%lld kv) of %lld\n", "shape",
                 whole(shape, "layers"), whole(shape, "n_embd"), whole(shape, "n_ff"), whole(shape, "heads"),
                 whole(shape, "heads_kv"), whole(shape, "head_dim"));
    if (whole(shape, "experts"))
        (void)printf("%-14s%lld of %lld experts of %lld in %lld layers", "experts",
                     whole(shape, "experts_used"), whole(shape, "experts"), whole(shape, "n_ff_expert"),
                     whole(shape, "layers_with_experts"));
    if (whole(shape, "n_ff_shared"))
        (void)printf(", %lld shared", whole(shape, "n_ff_shared"));
    if (whole(shape, "experts"))
        (void)printf("\n");
    if (whole(shape, "kv_latent"))
        (void)printf("%-14slatents of %lld and %lld for queries and keys\n", "attention",
                     whole(shape, "q_latent"), whole(shape, "kv_latent"));
    (void)printf("%-14s%lld tokens, head %s\n", "vocabulary", whole(shape, "n_vocab"),
                 json_is_true(json_object_get(shape, "tied")) ? "tied to the embedding" : "of its own");
    (void)printf("%-14s%lld tokens", "context", whole(shape, "context"));
    if (whole(shape, "window"))
        (void)printf(", a window of %lld in %lld layers", whole(shape, "window"),
                     whole(shape, "layers_with_window"));
    (void)printf("\n%-14s%.1f MiB as stored, %.1f in bf16, %.1f in f32; the cache takes %.1f KiB a token\n",
                 "memory", mib(bytes, "stored_bytes"), mib(bytes, "bf16_bytes"), mib(bytes, "f32_bytes"),
                 (double)whole(bytes, "kv_bytes_per_token") / 1024);
}

static void print_table(const json_t *json)
{
    const json_t *tokenizer = json_object_get(json, "tokenizer"), *all = json_object_get(json, "tensors"),
                 *type;
    size_t i;
    (void)printf("%-14s%s (%s)\n", "file", word(json, "path", "?"), word(json, "format", "?"));
    if (word(json, "name", NULL))
        (void)printf("%-14s%s\n", "name", word(json, "name", ""));
    if (word(json, "unsupported", NULL))
        (void)printf("%-14snot by this build: %s\n", "can be run", word(json, "unsupported", ""));
    else
        print_model(json);
    (void)printf("%-14s%lld:", "tensors", whole(all, "count"));
    json_array_foreach(json_object_get(all, "types"), i, type)(void)
        printf("%s %lld %s (%.1f MiB)", i ? "," : "", whole(type, "count"), word(type, "type", "?"),
               mib(type, "bytes"));
    if (word(tokenizer, "error", NULL))
        (void)printf("\n%-14scannot be read: %s\n", "tokenizer", word(tokenizer, "error", ""));
    else if (json_is_object(tokenizer))
        (void)printf("\n%-14s%s, %lld tokens\n%-14s%s\n", "tokenizer", word(tokenizer, "kind", "?"),
                     whole(tokenizer, "size"), "chat template",
                     json_is_true(json_object_get(tokenizer, "chat_template")) ? "yes" : "no");
    else
        (void)printf("\n%-14snone\n", "tokenizer");
    (void)printf("%-14s%s\n", "licence", word(json, "licence", "not stated"));
}

int cmd_inspect(int argc, char **argv)
{
    const char *model = NULL;
    bool as_json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, "Example:\n  retort inspect smollm2-135m-instruct"},
        {CLI_STRING, "PATH", &model,
         "a GGUF file, a folder or file of safetensors, or the name of a pulled model"},
        {CLI_FLAG, "--json", &as_json, "print the result as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    char *path = NULL;
    json_t *json = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = cli_model_path(&path, model, &err);
    if (status == RT_OK)
        status = gather(&json, path, &err);
    free(path);
    if (status != RT_OK)
        return cli_fail(&err);
    if (as_json)
        return cli_print_json(json);
    print_table(json);
    json_decref(json);
    return 0;
}
