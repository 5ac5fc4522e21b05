/* fuzz/fuzz_config.c - any bytes as a config.json, or, when they begin as one, as a GGUF file whose
 * metadata are the configuration.  What is accepted must be sound: shapes and sizes computed from it stay
 * in bounds, every tensor can be fetched, and what is written again reads back. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void walk_shapes(const rt_model_config *config)
{
    size_t rows, cols, total = 0;
    for (size_t layer = 0; layer < config->n_layers; layer++)
        for (int role = 0; role < (int)RT_ROLE_COUNT; role++) {
            rt_role_shape(config, layer, role, &rows, &cols);
            if (__builtin_mul_overflow(rows, cols ? cols : 1, &rows) ||
                __builtin_add_overflow(total, rows, &total))
                __builtin_trap();
        }
    if (total == 0 || rt_model_config_parameters(config) < total)
        __builtin_trap();
}

static void one_json(const unsigned char *data, size_t size)
{
    rt_error err = {0};
    json_t *json = NULL;
    rt_model_config config, again;
    if (rt_json_parse(&json, (const char *)data, size, "fuzz", &err) != RT_OK)
        return;
    if (rt_model_config_from_json(&config, json, "fuzz", &err) == RT_OK) {
        walk_shapes(&config);
        json_t *written = rt_model_config_to_json(&config);
        if (rt_model_config_from_json(&again, written, "written", &err) != RT_OK ||
            rt_model_config_parameters(&again) != rt_model_config_parameters(&config))
            __builtin_trap();
        json_decref(written);
    } else if (err.text[0] == '\0') {
        __builtin_trap(); /* a failure always says why */
    }
    json_decref(json);
}

static void one_gguf(const unsigned char *data, size_t size)
{
    rt_error err = {0};
    rt_weights *weights = NULL;
    rt_model_config config;
    rt_canonical tensor;
    if (rt_weights_open_memory(&weights, data, size, "fuzz", &err) != RT_OK)
        return;
    if (rt_model_config_read(&config, weights, &err) == RT_OK) {
        walk_shapes(&config);
        for (size_t layer = 0; layer < config.n_layers; layer++)
            for (int role = 0; role < rt_role_span(&config); role++)
                if (rt_canonical_layer(&tensor, weights, &config, layer, role, &err) == RT_OK)
                    free(tensor.owned);
        json_decref(rt_model_config_to_json(&config));
    } else if (err.text[0] == '\0') {
        __builtin_trap();
    }
    rt_weights_close(weights);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size >= 4 && !memcmp(data, "GGUF", 4))
        one_gguf(data, size);
    else
        one_json(data, size);
    return 0;
}
