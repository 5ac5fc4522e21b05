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
 *   deepseek, both files       the rows that rope turns stand in pairs, as llama's do
 *   experts                    safetensors: one tensor each, or all of a layer stacked, gate and up fused;
 *                              GGUF: stacked; pointers into the map
 *   GGUF of deepseek           kv_b may be split: attn_k_b, each head's keys turned, and attn_v_b
 *   8-bit floats (E4M3)        multiplied by the scale of their block of 128 x 128 (NAME_scale_inv,
 *                              quantization_config.weight_block_size), as float32
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/families.h"
#include "tensor/quant.h"

typedef struct place { /* where a tensor lies in the file */
    const rt_weight *weight;
    const rt_weight *values; /* of a kv_b that is split: the values; weight holds the keys */
    size_t rows, cols;       /* canonical */
    size_t part, n_parts;    /* of a fused tensor; 0 of 1 otherwise */
    size_t slice, n_slices;  /* of a stack of them, the first of three dimensions; n_slices 0: no stack */
    bool turned;             /* stored [in, out] */
    rt_rope_rows pairs;      /* rows stored as pairs; count 0: none */
    const rt_weight *scales; /* of 8-bit floats [rows / block, cols / block]; else NULL */
    size_t block[2];         /* rows and columns that share one */
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

/* A name of the table with the expert's number for its star. */
static void role_name(char *out, size_t room, const char *text, int which)
{
    const char *star = strchr(text, '*');
    if (star)
        (void)snprintf(out, room, "%.*s%zu%s", (int)(star - text), text, rt_role_expert(which), star + 1);
    else
        (void)snprintf(out, room, "%s", text);
}

static void layer_name(char out[128], const rt_family *family, const char *prefix, size_t layer, int which)
{
    char role[96];
    role_name(role, sizeof role, family->hf_roles[rt_role_of(which)], which);
    (void)snprintf(out, 128, "%s%s.%zu.%s", prefix, family->layer_prefix, layer, role);
}

rt_rope_rows rt_rope_rows_of(const rt_model_config *config, rt_role role)
{
    const rt_latent_config *lat = &config->latent;
    switch (role) {
    case RT_ROLE_Q:
        if (lat->kv_rank)
            return (rt_rope_rows){lat->nope + lat->rope, lat->nope, lat->rope};
        return (rt_rope_rows){config->head_dim, 0, config->head_dim};
    case RT_ROLE_K:
    case RT_ROLE_Q_BIAS:
    case RT_ROLE_K_BIAS:
        return (rt_rope_rows){config->head_dim, 0, config->head_dim};
    case RT_ROLE_Q_B:
        return (rt_rope_rows){lat->nope + lat->rope, lat->nope, lat->rope};
    case RT_ROLE_KV_A:
    case RT_ROLE_KV_A_BIAS:
        return (rt_rope_rows){lat->kv_rank + lat->rope, lat->kv_rank, lat->rope};
    default:
        return (rt_rope_rows){0};
    }
}

bool rt_rope_rows_are_pairs(const rt_model_config *config, bool gguf)
{
    return gguf ? rt_family_of(config)->gguf_permuted : config->latent.kv_rank && config->latent.interleaved;
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

static void shape_text(char *out, size_t room, const size_t *shape, size_t n)
{
    out[0] = '\0';
    for (size_t i = 0, used = 0; i < n && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%zu", i ? ", " : "", shape[i]);
}

static rt_status check_shape(const rt_weight *weight, const size_t *wanted, size_t n, const char *where,
                             rt_error *err)
{
    bool fits = weight->n_dims == n;
    for (size_t i = 0; i < n && fits; i++)
        fits = weight->shape[i] == wanted[i];
    if (fits)
        return RT_OK;
    char is[96], means[96];
    shape_text(is, sizeof is, weight->shape, weight->n_dims);
    shape_text(means, sizeof means, wanted, n);
    return rt_error_set(err, RT_MISMATCH,
                        "%s: the tensor %s has the shape [%s], but the configuration means [%s]", where,
                        weight->name, is, means);
}

/* The scales of 8-bit floats: float32, one for each block. */
static rt_status find_scales(place *at, const rt_weights *weights, rt_error *err)
{
    char name[160];
    const char *where = rt_weights_path(weights);
    const json_t *config = rt_weights_config_json(weights);
    const json_t *sides =
        json_object_get(json_object_get(config, "quantization_config"), "weight_block_size");
    at->block[0] = at->block[1] = 128;
    for (size_t i = 0; i < 2 && json_is_array(sides); i++) {
        const json_int_t side = json_integer_value(json_array_get(sides, i));
        if (side < 1 || side > 1 << 20 || json_array_size(sides) != 2)
            return rt_error_set(
                err, RT_CORRUPT,
                "%s: quantization_config.weight_block_size must be two whole numbers above zero", where);
        at->block[i] = (size_t)side;
    }
    if (at->n_slices || at->n_parts != 1 || at->turned || !at->cols)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "%s: the tensor %s is of 8-bit floats; only plain matrices may be", where,
                            at->weight->name);
    (void)snprintf(name, sizeof name, "%s_scale_inv", at->weight->name);
    at->scales = rt_weights_find(weights, name);
    if (!at->scales)
        return rt_error_set(err, RT_NOT_FOUND, "%s: the tensor %s is of 8-bit floats, and %s is missing",
                            where, at->weight->name, name);
    const size_t shape[] = {rt_size_ceil_div(at->rows, at->block[0]),
                            rt_size_ceil_div(at->cols, at->block[1])};
    if (at->scales->dtype != RT_F32)
        return rt_error_set(err, RT_UNSUPPORTED, "%s: the tensor %s must be F32", where, name);
    return check_shape(at->scales, shape, 2, where, err);
}

static rt_status check_place(place *at, const rt_weights *weights, const char *name, rt_error *err)
{
    const rt_weight *weight = at->weight;
    const char *where = rt_weights_path(weights);
    if (!weight)
        return rt_error_set(err, RT_NOT_FOUND, "%s: the tensor %s is missing", where, name);
    size_t shape[3], n = 0;
    if (at->n_slices)
        shape[n++] = at->n_slices;
    shape[n++] = at->turned ? at->cols : at->rows * at->n_parts;
    if (at->cols)
        shape[n++] = at->turned ? at->rows * at->n_parts : at->cols;
    if (check_shape(weight, shape, n, where, err) != RT_OK)
        return RT_MISMATCH;
    const rt_dtype dtype = weight->dtype;
    if (dtype == RT_F8_E4M3)
        return find_scales(at, weights, err);
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

/* Experts of a safetensors layer in one tensor: gate and up fused, [experts, 2 n_ff, d], or down. */
static void find_stack(place *at, const rt_weights *weights, const rt_model_config *config,
                       const char *prefix, size_t layer, int which)
{
    char name[128];
    const rt_family *family = rt_family_of(config);
    const rt_role role = rt_role_of(which);
    const bool is_down = role == RT_ROLE_EXPERT_DOWN;
    (void)snprintf(name, sizeof name, "%s%s.%zu.mlp.experts.%s", prefix, family->layer_prefix, layer,
                   is_down ? "down_proj" : "gate_up_proj");
    at->weight = rt_weights_find(weights, name);
    if (!at->weight)
        return;
    at->slice = rt_role_expert(which);
    at->n_slices = config->experts.count;
    at->n_parts = is_down ? 1 : 2;
    at->part = role == RT_ROLE_EXPERT_UP;
}

/* kv_b as newer GGUF files have it: k_b [heads, kv_rank, nope], v_b [heads, value, kv_rank]. */
static rt_status find_split(place *at, const rt_weights *weights, const rt_model_config *config, size_t layer,
                            rt_error *err)
{
    char keys[64], values[64];
    const rt_latent_config *lat = &config->latent;
    (void)snprintf(keys, sizeof keys, "blk.%zu.attn_k_b.weight", layer);
    (void)snprintf(values, sizeof values, "blk.%zu.attn_v_b.weight", layer);
    place k = {.rows = lat->kv_rank, .cols = lat->nope, .n_parts = 1, .n_slices = config->n_heads},
          v = {.rows = lat->value, .cols = lat->kv_rank, .n_parts = 1, .n_slices = config->n_heads};
    k.weight = rt_weights_find(weights, keys);
    v.weight = rt_weights_find(weights, values);
    rt_status status = check_place(&k, weights, keys, err);
    if (status == RT_OK)
        status = check_place(&v, weights, values, err);
    at->weight = k.weight;
    at->values = v.weight;
    return status;
}

static rt_status find_layer(place *at, const rt_weights *weights, const rt_model_config *config,
                            const char *prefix, size_t layer, int which, rt_error *err)
{
    const rt_family *family = rt_family_of(config);
    const bool gguf = rt_weights_get_format(weights) == RT_FORMAT_GGUF;
    const char *path = rt_weights_path(weights);
    const rt_role role = rt_role_of(which);
    char name[128];
    size_t part;
    *at = (place){.n_parts = 1};
    if (layer < config->n_layers)
        rt_role_shape(config, layer, which, &at->rows, &at->cols);
    const char *const *names = gguf ? family->gguf_roles : family->hf_roles;
    if (at->rows == 0 || !names[role])
        return rt_error_set(err, RT_INVALID, "%s: the family %s has no tensor for role %d of layer %zu", path,
                            config->family, (int)role, layer);
    if (gguf)
        (void)snprintf(name, sizeof name, "blk.%zu.%s", layer, names[role]);
    else
        layer_name(name, family, prefix, layer, which);
    if (is_qkv(role, &part) && (gguf ? family->gguf_fused_qkv : config->conv1d)) {
        at->part = part;
        at->n_parts = 3;
    }
    at->turned = !gguf && config->conv1d && is_matrix_of_linear(role);
    if (rt_rope_rows_are_pairs(config, gguf))
        at->pairs = rt_rope_rows_of(config, role);
    at->weight = rt_weights_find(weights, name);
    if (gguf && rt_role_is_expert(role)) {
        at->slice = rt_role_expert(which);
        at->n_slices = config->experts.count;
    } else if (!at->weight && rt_role_is_expert(role)) {
        find_stack(at, weights, config, prefix, layer, which);
    } else if (!at->weight && gguf && role == RT_ROLE_KV_B) {
        char keys[64];
        (void)snprintf(keys, sizeof keys, "blk.%zu.attn_k_b.weight", layer);
        if (rt_weights_find(weights, keys))
            return find_split(at, weights, config, layer, err);
    }
    return check_place(at, weights, name, err);
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
    return check_place(at, weights, name, err);
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
        for (int which = 0; which < rt_role_span(config) && status == RT_OK; which++) {
            if (which >= (int)RT_ROLE_COUNT && !rt_role_is_expert(rt_role_of(which)))
                continue;
            rt_role_shape(config, layer, which, &rows, &cols);
            if (rows)
                status = find_layer(&at, weights, config, prefix, layer, which, err);
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

size_t rt_rope_rows_stored(const rt_rope_rows *pairs, size_t row)
{
    const size_t i = row % pairs->stride - pairs->first, half = pairs->count / 2;
    if (row % pairs->stride < pairs->first || i >= pairs->count)
        return row;
    return row - i + 2 * (i % half) + i / half;
}

size_t rt_rope_rows_of_pair(const rt_rope_rows *pairs, size_t stored)
{
    const size_t i = stored % pairs->stride - pairs->first;
    if (stored % pairs->stride < pairs->first || i >= pairs->count)
        return stored;
    return stored - i + i % 2 * (pairs->count / 2) + i / 2;
}

/* Each head's keys and values one below the other, from the two parts. */
static void join_split(float *out, const place *at, const rt_model_config *config, float *keys)
{
    const size_t rank = config->latent.kv_rank, nope = config->latent.nope, value = config->latent.value;
    const size_t k_bytes = at->weight->bytes / config->n_heads, v_bytes = at->values->bytes / config->n_heads;
    for (size_t h = 0; h < config->n_heads; h++, out += (nope + value) * rank) {
        rt_dequantise(keys, (const unsigned char *)at->weight->data + h * k_bytes, at->weight->dtype,
                      rank * nope);
        for (size_t r = 0; r < nope; r++)
            for (size_t c = 0; c < rank; c++)
                out[r * rank + c] = keys[c * nope + r];
        rt_dequantise(out + nope * rank, (const unsigned char *)at->values->data + h * v_bytes,
                      at->values->dtype, value * rank);
    }
}

static rt_status fetch_split(rt_canonical *out, const place *at, const rt_model_config *config, rt_error *err)
{
    *out = (rt_canonical){.dtype = RT_F32, .rows = at->rows, .cols = at->cols};
    out->owned = malloc(at->rows * at->cols * sizeof(float));
    float *keys = malloc(config->latent.kv_rank * config->latent.nope * sizeof *keys);
    if (out->owned && keys)
        join_split(out->owned, at, config, keys);
    free(keys);
    out->data = out->owned;
    if (out->owned && keys)
        return RT_OK;
    free(out->owned);
    *out = (rt_canonical){0};
    return rt_error_set(err, RT_NO_MEMORY, "%s: no room to put keys and values together", at->weight->name);
}

/* Each value times the scale of its block, one rounding to float32. */
static rt_status fetch_scaled(rt_canonical *out, const place *at, rt_error *err)
{
    const size_t rows = at->rows, cols = at->cols, scale_cols = rt_size_ceil_div(cols, at->block[1]);
    const unsigned char *data = at->weight->data, *scales = at->scales->data;
    if (!scales)
        return rt_error_set(err, RT_UNSUPPORTED, "%s: its scales are too many to be read beside the layers",
                            at->scales->name);
    *out = (rt_canonical){.dtype = RT_F32, .rows = rows, .cols = cols};
    float *values = malloc(rows * cols * sizeof *values); /* checked: the file has as many bytes */
    if (!values)
        return rt_error_set(err, RT_NO_MEMORY, "%s: no room for its %zu values", at->weight->name,
                            rows * cols);
    for (size_t r = 0; r < rows; r++) {
        const size_t stored = at->pairs.count ? rt_rope_rows_stored(&at->pairs, r) : r;
        float *row = values + r * cols;
        rt_dequantise(row, data + stored * cols, RT_F8_E4M3, cols);
        for (size_t c = 0; c < cols; c += at->block[1]) {
            float scale;
            const size_t end = rt_size_min(c + at->block[1], cols);
            memcpy(&scale, scales + (stored / at->block[0] * scale_cols + c / at->block[1]) * sizeof scale,
                   sizeof scale);
            for (size_t i = c; i < end; i++)
                row[i] *= scale;
        }
    }
    out->data = out->owned = values;
    return RT_OK;
}

static rt_status fetch(rt_canonical *out, const place *at, const rt_model_config *config, rt_error *err)
{
    const rt_weight *weight = at->weight;
    const unsigned char *data = weight->data;
    if (at->values)
        return fetch_split(out, at, config, err);
    if (at->scales)
        return fetch_scaled(out, at, err);
    /* parts and slices are equal where there are several */
    const size_t bytes = weight->bytes / at->n_parts / rt_size_max(at->n_slices, 1);
    *out = (rt_canonical){.dtype = weight->dtype, .rows = at->rows, .cols = at->cols};
    data += (at->turned ? 0 : at->slice * at->n_parts + at->part) * bytes;
    if (!at->turned && !at->pairs.count) {
        out->data = data;
        return RT_OK;
    }
    out->owned = malloc(bytes);
    if (!out->owned)
        return rt_error_set(err, RT_NO_MEMORY, "%s: no room for %zu bytes of rearranged weights",
                            weight->name, bytes);
    out->data = out->owned;
    if (at->turned) {
        turn(out->owned, data, at, rt_dtype_get(weight->dtype)->block_bytes);
        return RT_OK;
    }
    const size_t row_bytes = bytes / at->rows;
    for (size_t row = 0; row < at->rows; row++)
        memcpy((unsigned char *)out->owned + row * row_bytes,
               data + rt_rope_rows_stored(&at->pairs, row) * row_bytes, row_bytes);
    return RT_OK;
}

rt_status rt_canonical_layer(rt_canonical *out, const rt_weights *weights, const rt_model_config *config,
                             size_t layer, int which, rt_error *err)
{
    place at;
    *out = (rt_canonical){0};
    const char *prefix = file_prefix(weights, rt_family_of(config));
    const rt_status status = find_layer(&at, weights, config, prefix, layer, which, err);
    return status == RT_OK ? fetch(out, &at, config, err) : status;
}

rt_status rt_canonical_global(rt_canonical *out, const rt_weights *weights, const rt_model_config *config,
                              rt_global global, rt_error *err)
{
    place at;
    *out = (rt_canonical){0};
    const char *prefix = file_prefix(weights, rt_family_of(config));
    const rt_status status = find_global(&at, weights, config, prefix, global, err);
    return status == RT_OK ? fetch(out, &at, config, err) : status;
}

rt_status rt_canonical_source(const rt_weight **out, const rt_weights *weights, const rt_model_config *config,
                              size_t layer, int which, rt_error *err)
{
    place at;
    const char *prefix = file_prefix(weights, rt_family_of(config));
    const rt_status status = layer == SIZE_MAX
                                 ? find_global(&at, weights, config, prefix, (rt_global)which, err)
                                 : find_layer(&at, weights, config, prefix, layer, which, err);
    *out = status == RT_OK ? at.weight : NULL;
    return status;
}

void rt_role_hf_name(char out[128], const rt_model_config *config, size_t layer, int which)
{
    const rt_family *family = rt_family_of(config);
    if (family->hf_roles[rt_role_of(which)])
        layer_name(out, family, family->prefixes[0], layer, which);
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
