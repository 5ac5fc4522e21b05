/* model/canonical.c - tensors in the one layout that the decoder knows, whatever the file's is.
 *
 *   file                       what is done
 *   safetensors                nothing: pointers into the map
 *   safetensors of gpt2        Conv1D weights are [in, out], turned; c_attn holds q, k and v side by side
 *   GGUF                       nothing, but for
 *   GGUF of llama and mistral  rows of q and k (and their biases) stand in the order of interleaved rope:
 *                              row 2i + half of a head is row half * head_dim/2 + i here; whole rows move,
 *                              so quantised blocks stay as they are
 *   GGUF of gpt2               attn_qkv holds q, k and v one below the other: pointers into the map
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/families.h"

typedef struct place { /* where a tensor lies in the file */
    const rt_weight *weight;
    size_t rows, cols;    /* canonical */
    size_t part, n_parts; /* of a fused tensor; 0 of 1 otherwise */
    bool turned;          /* stored [in, out] */
    bool permuted;
} place;

static bool is_matrix_of_linear(rt_role role)
{
    return role == RT_ROLE_Q || role == RT_ROLE_K || role == RT_ROLE_V || role == RT_ROLE_O ||
           role == RT_ROLE_GATE || role == RT_ROLE_UP || role == RT_ROLE_DOWN;
}

static bool is_qkv(rt_role role, size_t *part)
{
    *part = role == RT_ROLE_K || role == RT_ROLE_K_BIAS   ? 1
            : role == RT_ROLE_V || role == RT_ROLE_V_BIAS ? 2
                                                          : 0;
    return *part != 0 || role == RT_ROLE_Q || role == RT_ROLE_Q_BIAS;
}

static void layer_name(char out[128], const rt_family *family, const char *prefix, size_t layer, rt_role role)
{
    (void)snprintf(out, 128, "%s%s.%zu.%s", prefix, family->layer_prefix, layer, family->hf_roles[role]);
}

static void global_name(char out[128], const rt_family *family, const char *prefix, rt_global global)
{
    if (global != RT_GLOBAL_HEAD) {
        (void)snprintf(out, 128, "%s%s", prefix, family->hf_globals[global]);
        return;
    }
    /* The head stands beside the body, not in it. */
    const bool nested = !strncmp(prefix, "language_model.", 15);
    (void)snprintf(out, 128, "%s%s", nested ? "language_model." : "", family->hf_globals[global]);
}

/* The prefix that a file's names have: the first under which its embedding is found. */
static const char *file_prefix(const rt_weights *weights, const rt_family *family)
{
    char name[128];
    for (const char *const *prefix = family->prefixes; *prefix; prefix++) {
        global_name(name, family, *prefix, RT_GLOBAL_EMBED);
        if (rt_weights_find(weights, name))
            return *prefix;
    }
    return family->prefixes[0];
}

static rt_status check_place(const place *at, const char *where, const char *name, rt_error *err)
{
    const rt_weight *weight = at->weight;
    size_t rows = at->rows * at->n_parts, cols = at->cols;
    if (!weight)
        return rt_error_set(err, RT_NOT_FOUND, "%s: the tensor %s is missing", where, name);
    if (at->turned) {
        rows = at->cols;
        cols = at->rows * at->n_parts;
    }
    const bool fits = at->cols ? weight->n_dims == 2 && weight->shape[0] == rows && weight->shape[1] == cols
                               : weight->n_dims == 1 && weight->shape[0] == rows;
    if (!fits) {
        char shape[96] = "";
        for (size_t i = 0, used = 0; i < weight->n_dims && used < sizeof shape; i++)
            used +=
                (size_t)snprintf(shape + used, sizeof shape - used, "%s%zu", i ? ", " : "", weight->shape[i]);
        if (at->cols)
            return rt_error_set(
                err, RT_MISMATCH,
                "%s: the tensor %s has the shape [%s], but the configuration means [%zu, %zu]", where, name,
                shape, rows, cols);
        return rt_error_set(err, RT_MISMATCH,
                            "%s: the tensor %s has the shape [%s], but the configuration means [%zu]", where,
                            name, shape, rows);
    }
    const rt_dtype dtype = weight->dtype;
    if (dtype != RT_F32 && dtype != RT_F16 && dtype != RT_BF16 && dtype != RT_F64 &&
        !rt_dtype_is_quantised(dtype))
        return rt_error_set(err, RT_UNSUPPORTED,
                            "%s: the tensor %s has the type %s, which no weight can have", where, name,
                            rt_dtype_get(dtype)->name);
    if (at->turned && rt_dtype_is_quantised(dtype))
        return rt_error_set(err, RT_UNSUPPORTED, "%s: the tensor %s is stored turned and cannot be quantised",
                            where, name);
    return RT_OK;
}

static rt_status find_layer(place *at, const rt_weights *weights, const rt_model_config *config,
                            const char *prefix, size_t layer, rt_role role, rt_error *err)
{
    const rt_family *family = rt_family_of(config);
    const bool gguf = rt_weights_get_format(weights) == RT_FORMAT_GGUF;
    const char *path = rt_weights_path(weights);
    char name[128];
    size_t part;
    *at = (place){.n_parts = 1};
    rt_role_shape(config, role, &at->rows, &at->cols);
    const char *const *names = gguf ? family->gguf_roles : family->hf_roles;
    if (at->rows == 0 || !names[role] || layer >= config->n_layers)
        return rt_error_set(err, RT_INVALID, "%s: the family %s has no tensor for role %d of layer %zu", path,
                            config->family, (int)role, layer);
    if (gguf)
        (void)snprintf(name, sizeof name, "blk.%zu.%s", layer, names[role]);
    else
        layer_name(name, family, prefix, layer, role);
    const bool qkv = is_qkv(role, &part);
    if (qkv && (gguf ? family->gguf_fused_qkv : config->conv1d)) {
        at->part = part;
        at->n_parts = 3;
    }
    at->turned = !gguf && config->conv1d && is_matrix_of_linear(role);
    at->permuted = gguf && family->gguf_permuted && qkv && part < 2;
    at->weight = rt_weights_find(weights, name);
    return check_place(at, path, name, err);
}

static rt_status find_global(place *at, const rt_weights *weights, const rt_model_config *config,
                             const char *prefix, rt_global global, rt_error *err)
{
    const rt_family *family = rt_family_of(config);
    const bool gguf = rt_weights_get_format(weights) == RT_FORMAT_GGUF;
    char name[128];
    *at = (place){.n_parts = 1};
    rt_global_shape(config, global, &at->rows, &at->cols);
    if (at->rows == 0)
        return rt_error_set(err, RT_INVALID, "%s: the family %s has no tensor for global %d",
                            rt_weights_path(weights), config->family, (int)global);
    if (gguf)
        (void)snprintf(name, sizeof name, "%s", family->gguf_globals[global]);
    else
        global_name(name, family, prefix, global);
    at->weight = rt_weights_find(weights, name);
    return check_place(at, rt_weights_path(weights), name, err);
}

rt_status rt_canonical_check(const rt_weights *weights, const rt_model_config *config, rt_error *err)
{
    const char *prefix = file_prefix(weights, rt_family_of(config));
    rt_status status = RT_OK;
    size_t rows, cols;
    place at;
    for (rt_global global = 0; global < RT_GLOBAL_COUNT && status == RT_OK; global++) {
        rt_global_shape(config, global, &rows, &cols);
        if (rows)
            status = find_global(&at, weights, config, prefix, global, err);
    }
    for (size_t layer = 0; layer < config->n_layers; layer++)
        for (rt_role role = 0; role < RT_ROLE_COUNT && status == RT_OK; role++) {
            rt_role_shape(config, role, &rows, &cols);
            if (rows)
                status = find_layer(&at, weights, config, prefix, layer, role, err);
        }
    return status;
}

/* Rows [part * rows, ...) of a matrix stored [in, n_parts * rows] become the rows of the result. */
static void turn(unsigned char *out, const unsigned char *in, const place *at, size_t size)
{
    const size_t stride = at->rows * at->n_parts;
    for (size_t r = 0; r < at->rows; r++)
        for (size_t c = 0; c < at->cols; c++)
            memcpy(out + (r * at->cols + c) * size, in + (c * stride + at->part * at->rows + r) * size, size);
}

static void put_back_rows(unsigned char *out, const unsigned char *in, size_t rows, size_t head_dim,
                          size_t row_bytes)
{
    for (size_t head = 0; head < rows; head += head_dim)
        for (size_t i = 0; i < head_dim; i++) {
            const size_t half = i / (head_dim / 2), pair = i % (head_dim / 2);
            memcpy(out + (head + i) * row_bytes, in + (head + 2 * pair + half) * row_bytes, row_bytes);
        }
}

static rt_status fetch(rt_canonical *out, const place *at, size_t head_dim, rt_error *err)
{
    const rt_weight *weight = at->weight;
    const unsigned char *data = weight->data;
    const size_t bytes = weight->bytes / at->n_parts; /* parts are equal where there are several */
    *out = (rt_canonical){.dtype = weight->dtype, .rows = at->rows, .cols = at->cols};
    if (!at->turned && !at->permuted) {
        out->data = data + at->part * bytes;
        return RT_OK;
    }
    out->owned = malloc(bytes);
    if (!out->owned)
        return rt_error_set(err, RT_NO_MEMORY, "%s: no room for %zu bytes of rearranged weights",
                            weight->name, bytes);
    out->data = out->owned;
    if (at->turned)
        turn(out->owned, data, at, rt_dtype_get(weight->dtype)->block_bytes);
    else
        put_back_rows(out->owned, data, at->rows, head_dim, bytes / at->rows);
    return RT_OK;
}

rt_status rt_canonical_layer(rt_canonical *out, const rt_weights *weights, const rt_model_config *config,
                             size_t layer, rt_role role, rt_error *err)
{
    place at;
    *out = (rt_canonical){0};
    const char *prefix = file_prefix(weights, rt_family_of(config));
    const rt_status status = find_layer(&at, weights, config, prefix, layer, role, err);
    return status == RT_OK ? fetch(out, &at, config->head_dim, err) : status;
}

rt_status rt_canonical_global(rt_canonical *out, const rt_weights *weights, const rt_model_config *config,
                              rt_global global, rt_error *err)
{
    place at;
    *out = (rt_canonical){0};
    const char *prefix = file_prefix(weights, rt_family_of(config));
    const rt_status status = find_global(&at, weights, config, prefix, global, err);
    return status == RT_OK ? fetch(out, &at, config->head_dim, err) : status;
}

rt_status rt_canonical_source(const rt_weight **out, const rt_weights *weights, const rt_model_config *config,
                              size_t layer, int which, rt_error *err)
{
    place at;
    const char *prefix = file_prefix(weights, rt_family_of(config));
    const rt_status status = layer == SIZE_MAX
                                 ? find_global(&at, weights, config, prefix, (rt_global)which, err)
                                 : find_layer(&at, weights, config, prefix, layer, (rt_role)which, err);
    *out = status == RT_OK ? at.weight : NULL;
    return status;
}

void rt_role_hf_name(char out[128], const rt_model_config *config, size_t layer, rt_role role)
{
    const rt_family *family = rt_family_of(config);
    if (family->hf_roles[role])
        layer_name(out, family, family->prefixes[0], layer, role);
    else
        out[0] = '\0';
}

void rt_global_hf_name(char out[128], const rt_model_config *config, rt_global global)
{
    const rt_family *family = rt_family_of(config);
    if (family->hf_globals[global])
        global_name(out, family, family->prefixes[0], global);
    else
        out[0] = '\0';
}
