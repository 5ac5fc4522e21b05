/* student/adapter_files.c - the merged model's tensors for an export, and adapters as PEFT keeps them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "model/safetensors_write.h"
#include "student/adapter_parts.h"

static rt_status merged(const rt_adapters *a, size_t param, rt_canonical *out, rt_error *err)
{
    const rt_param *p = &a->layout.list[param];
    const rt_adapter *adapter = &a->list[a->index[param]];
    float *data = malloc(p->count * sizeof *data), unused = 0;
    if (!data)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a merged matrix of %zu values", p->count);
    (void)adapter;
    for (size_t r = 0; r < p->rows; r++)
        rt_adapters_row(a, a->values, param, r, data + r * p->cols, &unused, false);
    *out = (rt_canonical){.dtype = RT_F32, .rows = p->rows, .cols = p->cols, .data = data, .owned = data};
    return RT_OK;
}

rt_status rt_adapters_tensor(const rt_adapters *a, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const rt_param *p = layer == RT_NO_LAYER ? rt_layout_global(&a->layout, (rt_global)which)
                                             : rt_layout_role(&a->layout, layer, which);
    if (!p)
        return rt_error_set(err, RT_NOT_FOUND, "the student has no such tensor");
    const size_t param = (size_t)(p - a->layout.list);
    if (a->index[param] != SIZE_MAX)
        return merged(a, param, out, err);
    if (p->cols) {
        *out = a->frozen[param];
        out->owned = NULL; /* stays the adapters' */
    } else {
        *out = (rt_canonical){.dtype = RT_F32, .rows = p->rows, .cols = 0, .data = a->base + p->offset};
    }
    return RT_OK;
}

/* ---- PEFT ---- */

enum { PARTS = 3 };

/* The tensors of one adapter: A, B and DoRA's m. */
static size_t parts_of(const rt_adapters *a, const rt_adapter *adapter, char names[PARTS][192],
                       size_t shapes[PARTS][2], const float *data[PARTS])
{
    static const char *const suffixes[] = {"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"};
    const rt_param *p = adapter->param;
    char name[128];
    rt_param_name(name, &a->config, p);
    const int stem = (int)(strlen(name) - strlen("weight")); /* with its dot */
    for (size_t i = 0; i < PARTS; i++)
        (void)snprintf(names[i], 192, "base_model.model.%.*s%s", stem, name, suffixes[i]);
    shapes[0][0] = a->options.rank;
    shapes[0][1] = p->cols;
    shapes[1][0] = p->rows;
    shapes[1][1] = a->options.rank;
    shapes[2][0] = p->rows;
    shapes[2][1] = 1;
    data[0] = a->values + adapter->a;
    data[1] = a->values + adapter->b;
    data[2] = a->values + adapter->m;
    return adapter->norms ? 3 : 2;
}

static rt_status write_tensors(const rt_adapters *a, rt_safetensors_writer *writer, rt_error *err)
{
    char names[PARTS][192];
    size_t shapes[PARTS][2];
    const float *data[PARTS];
    for (size_t i = 0; i < a->count; i++) {
        const size_t n = parts_of(a, &a->list[i], names, shapes, data);
        for (size_t k = 0; k < n; k++)
            if (rt_safetensors_writer_tensor(writer, names[k], RT_F32, k == 2 ? 1 : 2, shapes[k], err) !=
                RT_OK)
                return err->status;
    }
    if (rt_safetensors_writer_begin(writer, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < a->count; i++) {
        const size_t n = parts_of(a, &a->list[i], names, shapes, data);
        for (size_t k = 0; k < n; k++)
            if (rt_safetensors_writer_data(writer, data[k], shapes[k][0] * shapes[k][1] * sizeof(float),
                                           err) != RT_OK)
                return err->status;
    }
    return RT_OK;
}

static json_t *config_of(const rt_adapters *a, const char *base_name)
{
    json_t *modules = json_array();
    for (size_t i = 0; i < a->count && a->list[i].param->layer == a->list[0].param->layer; i++) {
        char name[128];
        rt_param_name(name, &a->config, a->list[i].param);
        name[strlen(name) - strlen(".weight")] = '\0';
        const char *dot = strrchr(name, '.');
        (void)json_array_append_new(modules, json_string(dot ? dot + 1 : name));
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:b, s:b, s:o, s:s, s:b, s:b, s:b}", "peft_type", "LORA",
                     "task_type", "CAUSAL_LM", "base_model_name_or_path", base_name, "r",
                     (json_int_t)a->options.rank, "lora_alpha", a->options.alpha, "lora_dropout", 0.0,
                     "use_dora", a->options.kind == RT_ADAPTER_DORA, "use_rslora", 0, "target_modules",
                     modules, "bias", "none", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights",
                     1);
}

rt_status rt_adapters_write(const rt_adapters *a, const char *dir, const char *base_name, rt_error *err)
{
    if (rt_dir_make(dir, err) != RT_OK)
        return err->status;
    char *tensors = rt_path_join(dir, "adapter_model.safetensors"),
         *config = rt_path_join(dir, "adapter_config.json");
    json_t *json = config_of(a, base_name);
    rt_safetensors_writer *writer = NULL;
    rt_status status = tensors && config && json
                           ? rt_safetensors_writer_open(&writer, tensors, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for the adapters' files");
    if (status == RT_OK)
        status = write_tensors(a, writer, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_commit(writer, err);
    else
        rt_safetensors_writer_abort(writer);
    if (status == RT_OK)
        status = rt_json_write(config, json, err);
    json_decref(json);
    free(tensors);
    free(config);
    return status;
}
