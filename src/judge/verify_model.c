/* judge/verify_model.c - logits, hidden states, loss and every gradient against a folder of vectors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/size.h"
#include "judge/verify.h"
#include "model/families.h"
#include "student/head.h"
#include "tensor/quant.h"

void rt_verify_add(rt_verify *result, const char *name, double error, double tolerance)
{
    const bool ok = error <= tolerance;
    result->passed += ok;
    result->failed += !ok;
    const double now = isnan(error) ? (double)INFINITY : error / tolerance;
    const double before =
        result->worst_tolerance > 0
            ? (isnan(result->worst_error) ? (double)INFINITY : result->worst_error / result->worst_tolerance)
            : -1;
    if (now > before) {
        (void)snprintf(result->worst, sizeof result->worst, "%s", name);
        result->worst_error = error;
        result->worst_tolerance = tolerance;
    }
}

double rt_verify_bf16_tolerance(size_t n_layers, bool gradient)
{
    const double roundings = (10.0 * (double)n_layers + 4) * (gradient ? 2 : 1);
    return 6 * 0x1p-9 * sqrt(roundings);
}

typedef struct check {
    rt_verify *result;
    const rt_weights *vectors;
    rt_precision precision;
    size_t n_layers;
    rt_status status; /* of the taps */
    rt_error *err;
} check;

static size_t elements(const rt_weight *w)
{
    size_t n = 1;
    for (size_t i = 0; i < w->n_dims; i++)
        n *= w->shape[i];
    return n;
}

/* The reference tensor as doubles; F64 and F32 vectors are read exactly. */
static double *reference(const check *c, const char *name, size_t n)
{
    const rt_weight *w = rt_weights_find(c->vectors, name);
    if (!w || elements(w) != n || (w->dtype != RT_F64 && w->dtype != RT_F32)) {
        (void)rt_error_set(c->err, RT_INVALID,
                           "vectors.safetensors: %.100s is missing or has another shape than %zu values",
                           name, n);
        return NULL;
    }
    double *out = malloc(rt_size_max(n, 1) * sizeof *out);
    if (!out) {
        (void)rt_error_set(c->err, RT_NO_MEMORY, "no memory for %s", name);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (w->dtype == RT_F64) {
            memcpy(&out[i], (const unsigned char *)w->data + i * 8, 8);
        } else {
            float x;
            memcpy(&x, (const unsigned char *)w->data + i * 4, 4);
            out[i] = (double)x;
        }
    }
    return out;
}

static double tolerance_of(const check *c, bool gradient)
{
    return c->precision == RT_PRECISION_F32 ? 2e-4 : rt_verify_bf16_tolerance(c->n_layers, gradient);
}

static double largest_of(const double *x, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(x[i]));
    return largest;
}

/* What an error is relative to.  The gradient of the keys' bias is a sum that softmax makes cancel (exactly,
 * without rope), so what is left of it says nothing about the rounding of its terms: in bf16 the gradient of
 * the keys' weights, which adds up the same terms times normed inputs, is the scale when it is larger. */
static double scale_of(const check *c, const char *name, const double *ref, size_t n)
{
    static const char bias[] = "k_proj.bias";
    double scale = largest_of(ref, n);
    const size_t length = strlen(name), tail = sizeof bias - 1;
    if (c->precision == RT_PRECISION_F32 || length < tail || strcmp(name + length - tail, bias) != 0)
        return scale;
    char weight[192];
    (void)snprintf(weight, sizeof weight, "%.*sweight", (int)(length - strlen("bias")), name);
    const rt_weight *w = rt_weights_find(c->vectors, weight);
    double *values = w ? reference(c, weight, elements(w)) : NULL;
    if (values)
        scale = fmax(scale, largest_of(values, elements(w)));
    free(values);
    return scale;
}

static rt_status compare(check *c, const char *name, const float *x, size_t n, bool gradient)
{
    double *ref = reference(c, name, n);
    if (!ref)
        return c->err->status;
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double off = fabs((double)x[i] - ref[i]);
        worst = off > worst || isnan(off) ? off : worst;
    }
    const double scale = scale_of(c, name, ref, n);
    free(ref);
    rt_verify_add(c->result, name, scale > 0 ? worst / scale : worst, tolerance_of(c, gradient));
    return RT_OK;
}

static void tap_hidden(void *context, size_t layer, const float *x, size_t n_tokens)
{
    check *c = context;
    if (c->status != RT_OK || layer == c->n_layers) /* the last one is compared after the final norm */
        return;
    char name[32];
    (void)snprintf(name, sizeof name, "hidden.%zu", layer);
    const rt_weight *w = rt_weights_find(c->vectors, name);
    const size_t n = w ? elements(w) : 0;
    c->status = n % n_tokens ? RT_INVALID : compare(c, name, x, n, false);
}

/* Everything that the comparison owns. */
typedef struct scene {
    rt_weights *weights, *vectors;
    rt_model_config config;
    rt_layout layout;
    float *values, *grads, *logits, *dhidden;
    rt_bf16 *half;
    rt_model *model;
    rt_pass *pass;
    rt_head *head;
    int32_t *ids, *labels;
    uint32_t *rows;
    double *scales;
    rt_segment *segments;
    rt_loss_stats *stats;
    size_t n_sequences, n_tokens, n_rows;
} scene;

static void scene_free(scene *s)
{
    rt_head_close(s->head);
    rt_pass_close(s->pass);
    rt_model_close(s->model);
    rt_layout_free(&s->layout);
    rt_weights_close(s->weights);
    rt_weights_close(s->vectors);
    void *owned[] = {s->values, s->grads, s->logits, s->dhidden,  s->half, s->ids,
                     s->labels, s->rows,  s->scales, s->segments, s->stats};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
}

static rt_status read_batch(scene *s, rt_error *err)
{
    const rt_weight *ids = rt_weights_find(s->vectors, "ids"), *mask = rt_weights_find(s->vectors, "mask");
    if (!ids || !mask || ids->dtype != RT_I64 || mask->dtype != RT_I64 || ids->n_dims != 2 ||
        mask->n_dims != 2 || ids->bytes != mask->bytes || !elements(ids))
        return rt_error_set(err, RT_INVALID, "vectors.safetensors: ids and mask must be [B, T] int64");
    s->n_sequences = ids->shape[0];
    s->n_tokens = elements(ids);
    const size_t length = ids->shape[1], n = s->n_tokens;
    if (length > s->config.n_context)
        return rt_error_set(err, RT_INVALID, "vectors.safetensors: %zu tokens, the context is %zu", length,
                            s->config.n_context);
    s->ids = calloc(n, sizeof *s->ids);
    s->labels = calloc(n, sizeof *s->labels);
    s->rows = calloc(n, sizeof *s->rows);
    s->scales = calloc(n, sizeof *s->scales);
    s->segments = calloc(s->n_sequences, sizeof *s->segments);
    s->stats = calloc(n, sizeof *s->stats);
    if (!s->ids || !s->labels || !s->rows || !s->scales || !s->segments || !s->stats)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        memcpy(&id, (const unsigned char *)ids->data + i * 8, 8);
        if (id < 0 || (uint64_t)id >= s->config.n_vocab)
            return rt_error_set(err, RT_INVALID, "vectors.safetensors: id %lld is outside the vocabulary",
                                (long long)id);
        s->ids[i] = (int32_t)id;
    }
    for (size_t b = 0; b < s->n_sequences; b++) {
        s->segments[b] = (rt_segment){.begin = b * length, .count = length};
        for (size_t t = 0; t + 1 < length; t++) {
            int64_t counted;
            memcpy(&counted, (const unsigned char *)mask->data + (b * length + t + 1) * 8, 8);
            if (!counted)
                continue;
            s->rows[s->n_rows] = (uint32_t)(b * length + t);
            s->labels[s->n_rows++] = s->ids[b * length + t + 1];
        }
    }
    for (size_t i = 0; i < s->n_rows; i++)
        s->scales[i] = 1.0 / (double)s->n_rows;
    return RT_OK;
}

static rt_status open_scene(scene *s, const char *dir, rt_precision precision, rt_pool *pool, rt_error *err)
{
    char *path = rt_path_join(dir, "vectors.safetensors");
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    rt_status status = rt_weights_open(&s->vectors, path, err);
    free(path);
    char *model_path = rt_path_join(dir, "model.safetensors"),
         *config_path = rt_path_join(dir, "config.json");
    if (!model_path || !config_path)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    char *text = NULL;
    size_t size;
    json_error_t json_err;
    json_t *json = NULL;
    if (status == RT_OK && (status = rt_file_read(&text, &size, config_path, 1 << 20, err)) == RT_OK) {
        json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &json_err);
        status = json ? rt_model_config_from_json(&s->config, json, config_path, err)
                      : rt_error_set(err, RT_CORRUPT, "%.300s: not JSON: %.120s", config_path, json_err.text);
    }
    if (status == RT_OK)
        status = rt_weights_open(&s->weights, model_path, err);
    json_decref(json);
    free(text);
    free(model_path);
    free(config_path);
    if (status != RT_OK || (status = rt_layout_build(&s->layout, &s->config, err)) != RT_OK ||
        (status = read_batch(s, err)) != RT_OK)
        return status;
    const size_t total = s->layout.total, logits = s->n_tokens * s->config.n_vocab;
    s->values = calloc(total, sizeof(float));
    s->grads = calloc(total, sizeof(float));
    s->half = calloc(total, sizeof(rt_bf16));
    s->logits = calloc(logits, sizeof(float));
    s->dhidden = calloc(s->n_tokens * s->config.n_embd, sizeof(float));
    if (!s->values || !s->grads || !s->half || !s->logits || !s->dhidden)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a model of %zu parameters", total);
    if (rt_params_load(s->values, &s->layout, &s->config, s->weights, &s->config, NULL, pool, err) != RT_OK)
        return err->status;
    rt_ops_get()->to_bf16(s->half, s->values, total);
    if (rt_model_view(&s->model, &s->config, &s->layout, s->values, s->half, precision, pool, err) != RT_OK ||
        rt_pass_open(&s->pass, s->model, s->n_tokens, true, err) != RT_OK ||
        rt_head_open(&s->head, s->model, NULL, true, err) != RT_OK)
        return err->status;
    return RT_OK;
}

/* gpt2's files hold fused, transposed weights: [in, 3 out] for q k v, [in, out] else. */
static rt_status compare_conv1d(check *c, const scene *s, const rt_param *p)
{
    char hf[128], name[160];
    rt_param_name(hf, &s->config, p);
    (void)snprintf(name, sizeof name, "grad.%s", hf);
    const bool is_q = p->layer != RT_NO_LAYER && (p->which == RT_ROLE_Q || p->which == RT_ROLE_Q_BIAS);
    const bool is_kv = p->layer != RT_NO_LAYER && (p->which == RT_ROLE_K || p->which == RT_ROLE_V ||
                                                   p->which == RT_ROLE_K_BIAS || p->which == RT_ROLE_V_BIAS);
    if (is_kv) /* compared together with q: the three lie side by side */
        return RT_OK;
    const float *grad = s->grads + p->offset;
    const size_t rows = p->rows * (is_q ? 3 : 1), cols = p->cols;
    if (p->layer == RT_NO_LAYER || !cols)
        return compare(c, name, grad, rows * (cols ? cols : 1), true);
    float *turned = malloc(rows * cols * sizeof *turned);
    if (!turned)
        return rt_error_set(c->err, RT_NO_MEMORY, "no memory for %s", name);
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < cols; k++)
            turned[k * rows + r] = grad[r * cols + k];
    const rt_status status = compare(c, name, turned, rows * cols, true);
    free(turned);
    return status;
}

/* deepseek's files hold the rows that rope turns as pairs. */
static rt_status compare_pairs(check *c, const scene *s, const rt_param *p, const char *name)
{
    rt_rope_rows pairs = {0};
    const float *grad = s->grads + p->offset;
    if (p->layer != RT_NO_LAYER && rt_rope_rows_are_pairs(&s->config, false))
        pairs = rt_rope_rows_of(&s->config, rt_role_of(p->which));
    if (!pairs.count)
        return compare(c, name, grad, p->count, true);
    float *stored = malloc(p->count * sizeof *stored);
    if (!stored)
        return rt_error_set(c->err, RT_NO_MEMORY, "no memory for %s", name);
    const size_t cols = p->count / p->rows;
    for (size_t r = 0; r < p->rows; r++)
        memcpy(stored + rt_rope_rows_stored(&pairs, r) * cols, grad + r * cols, cols * sizeof *grad);
    const rt_status status = compare(c, name, stored, p->count, true);
    free(stored);
    return status;
}

static rt_status compare_gradients(check *c, const scene *s)
{
    for (size_t i = 0; i < s->layout.count; i++) {
        const rt_param *p = &s->layout.list[i];
        rt_status status = RT_OK;
        if (p->layer != RT_NO_LAYER && p->which == RT_ROLE_ROUTER_BIAS)
            continue; /* it counts in the choice alone, which has no gradient */
        if (s->config.conv1d) {
            status = compare_conv1d(c, s, p);
        } else {
            char hf[128], name[160];
            rt_param_name(hf, &s->config, p);
            (void)snprintf(name, sizeof name, "grad.%s", hf);
            status = compare_pairs(c, s, p, name);
        }
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

/* The choice of experts of the model in float32, which is compared with the reference by itself. */
static rt_status hold_choice(scene *s, const rt_batch *batch, rt_pool *pool, rt_error *err)
{
    rt_model *model = NULL;
    rt_pass *pass = NULL;
    rt_status status =
        rt_model_view(&model, &s->config, &s->layout, s->values, NULL, RT_PRECISION_F32, pool, err);
    if (status == RT_OK)
        status = rt_pass_open(&pass, model, s->n_tokens, true, err);
    if (status == RT_OK) {
        rt_forward(model, pass, batch, NULL, NULL);
        rt_pass_hold_choice(s->pass, pass, model);
    }
    rt_pass_close(pass);
    rt_model_close(model);
    return status;
}

static rt_status run_scene(check *c, scene *s)
{
    const rt_batch batch = {s->ids, s->n_tokens, s->segments, s->n_sequences};
    if (s->config.experts.count && c->precision != RT_PRECISION_F32 &&
        hold_choice(s, &batch, s->model->pool, c->err) != RT_OK)
        return c->err->status;
    rt_forward(s->model, s->pass, &batch, tap_hidden, c);
    if (c->status != RT_OK)
        return c->status;
    const size_t vocab = s->config.n_vocab, d = s->config.n_embd;
    char name[32];
    (void)snprintf(name, sizeof name, "hidden.%zu", s->config.n_layers);
    rt_head_logits(s->model, s->pass, 0, s->n_tokens, 0, vocab, s->logits, vocab, 0);
    if (compare(c, name, rt_pass_hidden(s->pass), s->n_tokens * d, false) != RT_OK ||
        compare(c, "logits", s->logits, s->n_tokens * vocab, false) != RT_OK)
        return c->err->status;
    const rt_loss_mix ce = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_CE, .tau = 1}}}};
    const rt_head_rows rows = {.rows = s->rows, .labels = s->labels, .scales = s->scales, .n = s->n_rows};
    const rt_param *head = rt_layout_global(&s->layout, s->config.tied ? RT_GLOBAL_EMBED : RT_GLOBAL_HEAD);
    double loss;
    if (rt_head_run(s->head, s->pass, NULL, &ce, &rows, s->n_tokens, s->dhidden, s->grads + head->offset,
                    s->stats, NULL, NULL, &loss, c->err) != RT_OK)
        return c->err->status;
    rt_backward(s->model, s->pass, &batch, &s->layout, s->dhidden, s->grads);
    const float loss_f = (float)loss;
    if (compare(c, "loss", &loss_f, 1, false) != RT_OK)
        return c->err->status;
    return compare_gradients(c, s);
}

rt_status rt_verify_model(rt_verify *result, const char *dir, rt_precision precision, rt_pool *pool,
                          rt_error *err)
{
    *result = (rt_verify){0};
    scene s = {0};
    rt_status status = open_scene(&s, dir, precision, pool, err);
    check c = {result, s.vectors, precision, s.config.n_layers, RT_OK, err};
    if (status == RT_OK)
        status = run_scene(&c, &s);
    scene_free(&s);
    return status == RT_OK ? RT_OK : rt_error_within(err, dir);
}
