/* model/export.c - the folder that transformers loads, and exporting what lies in a file. */
#include "model/export.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "model/export_parts.h"
#include "model/safetensors_write.h"
#include "retort/version.h"

/* --- a folder --- */

static rt_status write_json(const char *dir, const char *name, const json_t *json, rt_error *err)
{
    char *path = rt_path_join(dir, name);
    const rt_status status = path && json
                                 ? rt_json_write(path, json, err)
                                 : rt_error_set(err, RT_NO_MEMORY, "%s: no memory to write it", name);
    free(path);
    return status;
}

static rt_status write_config(const rt_export_source *source, const char *dir, rt_dtype type, rt_error *err)
{
    const char *dtype = type == RT_F16 ? "float16" : type == RT_BF16 ? "bfloat16" : "float32";
    json_t *json = rt_model_config_to_json(source->config);
    if (json) { /* the name that transformers uses now, and the one that it used before */
        (void)json_object_set_new(json, "dtype", json_string(dtype));
        (void)json_object_set_new(json, "torch_dtype", json_string(dtype));
    }
    const rt_status status = write_json(dir, "config.json", json, err);
    json_decref(json);
    return status;
}

static rt_status to_safetensors(void *context, const void *data, size_t size, rt_error *err)
{
    return rt_safetensors_writer_data(context, data, size, err);
}

static rt_status write_tensors(rt_safetensors_writer *writer, const rt_export_plan *plan,
                               const rt_export_source *source, rt_pool *pool, rt_error *err)
{
    rt_status status = RT_OK;
    for (size_t i = 0; i < plan->count && status == RT_OK; i++) {
        size_t shape[3];
        const size_t n_dims = rt_export_shape(&plan->list[i], shape);
        status =
            rt_safetensors_writer_tensor(writer, plan->list[i].name, plan->list[i].dtype, n_dims, shape, err);
    }
    if (status == RT_OK)
        status = rt_safetensors_writer_begin(writer, err);
    for (size_t i = 0; i < plan->count && status == RT_OK; i++)
        status = rt_export_emit(&plan->list[i], source, pool, to_safetensors, writer, err);
    return status;
}

static rt_status write_safetensors(const rt_export_source *source, const char *dir, rt_dtype type,
                                   rt_pool *pool, rt_error *err)
{
    rt_export_plan plan;
    rt_safetensors_writer *writer = NULL;
    if (rt_export_plan_build(&plan, source->config, false, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < plan.count; i++)
        plan.list[i].dtype = type;
    char *path = rt_path_join(dir, "model.safetensors");
    rt_status status = path ? rt_safetensors_writer_open(&writer, path, err)
                            : rt_error_set(err, RT_NO_MEMORY, "%s: no memory to write it", dir);
    if (status == RT_OK)
        status = write_tensors(writer, &plan, source, pool, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_commit(writer, err);
    else
        rt_safetensors_writer_abort(writer);
    rt_export_plan_free(&plan);
    free(path);
    return status;
}

/* Folders have one type for all tensors: transformers casts them to it anyway. */
static rt_status folder_type(rt_dtype *out, const rt_export_source *source, const rt_export_options *options,
                             rt_error *err)
{
    *out = options->type;
    if (options->keep) {
        rt_canonical embed = {0};
        if (source->tensor(source->context, &embed, RT_NO_LAYER, RT_GLOBAL_EMBED, err) != RT_OK)
            return err->status;
        *out = rt_dtype_is_quantised(embed.dtype) ? RT_BF16 : embed.dtype == RT_F64 ? RT_F32 : embed.dtype;
        free(embed.owned);
        if (rt_dtype_is_quantised(embed.dtype))
            rt_export_note(options, "a folder has no %s: its tensors are BF16",
                           rt_dtype_get(embed.dtype)->name);
    }
    if (*out == RT_F32 || *out == RT_F16 || *out == RT_BF16)
        return RT_OK;
    return rt_error_set(
        err, RT_INVALID,
        "a folder for transformers holds F32, F16 or BF16, not %s; give OUT a name that ends in "
        ".gguf",
        rt_dtype_get(*out)->name);
}

rt_status rt_export_folder(const rt_export_source *source, const char *dir, const rt_export_options *options,
                           rt_error *err)
{
    rt_dtype type;
    rt_error own = {0};
    err = err ? err : &own;
    if (folder_type(&type, source, options, err) != RT_OK || rt_dir_make(dir, err) != RT_OK)
        return err->status;
    if (source->tokenizer_path && rt_export_tokenizer_folder(source->tokenizer_path, dir, err) != RT_OK)
        return err->status;
    if (source->lineage && write_json(dir, "retort.json", source->lineage, err) != RT_OK)
        return err->status;
    if (write_safetensors(source, dir, type, options->pool, err) != RT_OK)
        return err->status;
    return write_config(source, dir, type, err); /* last: a folder without it is not taken for a model */
}

/* --- from a file --- */

typedef struct opened {
    rt_weights *weights;
    rt_model_config config;
} opened;

static rt_status tensor_of_file(void *context, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const opened *in = context;
    if (layer == RT_NO_LAYER)
        return rt_canonical_global(out, in->weights, &in->config, (rt_global)which, err);
    return rt_canonical_layer(out, in->weights, &in->config, layer, which, err);
}

static json_t *lineage_of(const char *in, const char *family)
{
    char hash[65] = "";
    const char *slash = strrchr(in, '/');
    json_t *source = json_pack("{s:s, s:s}", "name", slash && slash[1] ? slash + 1 : in, "family", family);
    if (source && !rt_path_is_dir(in) && rt_sha256_file(hash, in, NULL) == RT_OK)
        (void)json_object_set_new(source, "sha256", json_string(hash));
    return json_pack("{s:s, s:s, s:o}", "program", "retort " RT_VERSION, "made_by", "export", "source",
                     source);
}

/* The lineage that a folder or GGUF brings goes on in the new file under "source". */
static void add_earlier_lineage(json_t *lineage, const char *in, const rt_weights *weights)
{
    const char *text = NULL;
    size_t size = 0;
    json_t *earlier = NULL;
    if (rt_weights_meta_string(weights, "retort.lineage", &text, &size)) {
        earlier = json_loadb(text, size, 0, NULL);
    } else if (rt_path_is_dir(in)) {
        char *path = rt_path_join(in, "retort.json");
        if (path && rt_path_exists(path))
            earlier = json_load_file(path, 0, NULL);
        free(path);
    }
    if (earlier)
        (void)json_object_set_new(json_object_get(lineage, "source"), "lineage", earlier);
}

static bool has_tokenizer(const char *in, const rt_weights *weights)
{
    size_t count;
    if (rt_weights_get_format(weights) == RT_FORMAT_GGUF)
        return rt_weights_meta_array(weights, "tokenizer.ggml.tokens", &count);
    char *path = rt_path_is_dir(in) ? rt_path_join(in, "tokenizer.json") : NULL;
    const bool found = path && rt_path_exists(path);
    free(path);
    return found;
}

static bool is_gguf_name(const char *path)
{
    const size_t size = strlen(path);
    return size > 5 && !strcmp(path + size - 5, ".gguf");
}

rt_status rt_export_path(const char *in, const char *out, const rt_export_options *options, rt_error *err)
{
    opened model = {0};
    rt_error own = {0};
    err = err ? err : &own;
    rt_status status = rt_weights_open(&model.weights, in, err);
    if (status == RT_OK)
        status = rt_model_config_read(&model.config, model.weights, err);
    if (status == RT_OK) {
        json_t *lineage = lineage_of(in, model.config.family);
        add_earlier_lineage(lineage, in, model.weights);
        const rt_export_source source = {
            .config = &model.config,
            .tensor = tensor_of_file,
            .context = &model,
            .tokenizer_path = has_tokenizer(in, model.weights) ? in : NULL,
            .meta = rt_weights_get_format(model.weights) == RT_FORMAT_GGUF ? model.weights : NULL,
            .lineage = lineage,
        };
        if (!source.tokenizer_path)
            rt_export_note(options, "%s has no tokenizer, so none is written", in);
        status = is_gguf_name(out) ? rt_export_gguf(&source, out, options, err)
                                   : rt_export_folder(&source, out, options, err);
        json_decref(lineage);
    }
    rt_weights_close(model.weights);
    return status;
}
