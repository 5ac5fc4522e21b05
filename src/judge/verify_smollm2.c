/* judge/verify_smollm2.c - the real model against what transformers computes for the same weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "judge/verify.h"
#include "model/session.h"
#include "tensor/row.h"

enum { TOP = 20, TEXTS_MAX = 1000, GREEDY_JSON_MAX = 64 << 20 };

typedef struct text_check {
    rt_verify *result;
    const rt_model *model;
    const rt_weights *vectors;
    rt_pass *pass;
    float *logits; /* [n_vocab] */
    double *rms;   /* [(layers + 1), n_tokens] of ours */
    size_t text;
    rt_error *err;
} text_check;

static const rt_weight *vector_of(const text_check *c, const char *kind, rt_dtype dtype, size_t bytes)
{
    char name[48];
    (void)snprintf(name, sizeof name, "%s.%zu", kind, c->text);
    const rt_weight *w = rt_weights_find(c->vectors, name);
    if (w && w->dtype == dtype && (!bytes || w->bytes == bytes))
        return w;
    (void)rt_error_set(c->err, RT_INVALID, "forward.safetensors: %s is missing or has another type or size",
                       name);
    return NULL;
}

static float f32_at(const rt_weight *w, size_t i)
{
    float x;
    memcpy(&x, (const unsigned char *)w->data + i * sizeof x, sizeof x);
    return x;
}

static int64_t i64_at(const rt_weight *w, size_t i)
{
    int64_t x;
    memcpy(&x, (const unsigned char *)w->data + i * sizeof x, sizeof x);
    return x;
}

static double rms_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

static void tap_rms(void *context, size_t layer, const float *x, size_t n_tokens)
{
    text_check *c = context;
    const size_t d = c->model->config.n_embd;
    for (size_t t = 0; t < n_tokens && layer < c->model->config.n_layers; t++)
        c->rms[layer * n_tokens + t] = rms_of(x + t * d, d);
}

typedef struct text_errors {
    double lse_max, lse_mean, top_max, overlap, nll, rms_max;
} text_errors;

/* How many of the reference's top ids are among our TOP largest. */
static double overlap_of(const float *z, size_t n, const rt_weight *top_id, size_t row)
{
    size_t found = 0;
    for (size_t k = 0; k < TOP; k++) {
        const float mine = z[(size_t)i64_at(top_id, row * TOP + k)];
        size_t above = 0;
        for (size_t i = 0; i < n; i++)
            above += z[i] > mine;
        found += above < TOP;
    }
    return (double)found / TOP;
}

static rt_status compare_rows(text_check *c, const int32_t *ids, size_t n, text_errors *e)
{
    const size_t vocab = c->model->config.n_vocab, layers = c->model->config.n_layers;
    const rt_weight *lse = vector_of(c, "lse", RT_F32, n * 4),
                    *top_id = vector_of(c, "top_id", RT_I64, n * TOP * 8);
    const rt_weight *top = vector_of(c, "top_logit", RT_F32, n * TOP * 4),
                    *nll = vector_of(c, "nll", RT_F32, 4);
    const rt_weight *rms = vector_of(c, "hidden_rms", RT_F32, (layers + 1) * n * 4);
    if (!lse || !top_id || !top || !nll || !rms)
        return c->err->status;
    double loss = 0;
    for (size_t t = 0; t < n; t++) {
        rt_logits(c->model, c->pass, &t, 1, c->logits);
        const double ours = rt_log_sum_exp(c->logits, vocab), off = fabs(ours - (double)f32_at(lse, t));
        e->lse_max = fmax(e->lse_max, off);
        e->lse_mean += off / (double)n;
        for (size_t k = 0; k < TOP; k++) {
            const int64_t id = i64_at(top_id, t * TOP + k);
            if (id < 0 || (size_t)id >= vocab)
                return rt_error_set(c->err, RT_INVALID,
                                    "forward.safetensors: an id is outside the vocabulary");
            e->top_max = fmax(e->top_max, fabs((double)c->logits[id] - (double)f32_at(top, t * TOP + k)));
        }
        e->overlap += overlap_of(c->logits, vocab, top_id, t) / (double)n;
        if (t + 1 < n)
            loss += (ours - (double)c->logits[ids[t + 1]]) / (double)(n - 1);
    }
    e->nll = n > 1 ? fabs(loss - (double)f32_at(nll, 0)) : 0;
    for (size_t i = 0; i < (layers + 1) * n; i++)
        e->rms_max = fmax(e->rms_max, fabs(c->rms[i] / (double)f32_at(rms, i) - 1));
    return RT_OK;
}

static void judge_errors(const text_check *c, const text_errors *e)
{
    const double coarse = c->model->precision == RT_PRECISION_INT8 ? 2.5 : 1;
    char name[64];
    const struct {
        const char *what;
        double error, tolerance;
    } exact[] = {{"log-sum-exp", e->lse_max, 2e-3},
                 {"top-20 logits", e->top_max, 2e-3},
                 {"loss", e->nll, 2e-4},
                 {"rms of states", e->rms_max, 1e-3}},
      near[] = {{"mean log-sum-exp", e->lse_mean, 0.15 * coarse},
                {"loss", e->nll, 0.06 * coarse},
                {"top-20 missed", 1 - e->overlap, 0.15}};
    const bool f32 = c->model->precision == RT_PRECISION_F32;
    const size_t count = f32 ? sizeof exact / sizeof exact[0] : sizeof near / sizeof near[0];
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "text %zu, %s", c->text, f32 ? exact[i].what : near[i].what);
        rt_verify_add(c->result, name, f32 ? exact[i].error : near[i].error,
                      f32 ? exact[i].tolerance : near[i].tolerance);
    }
}

static rt_status check_text(text_check *c, const rt_weight *w)
{
    const size_t n = w->bytes / 8, d = c->model->config.n_embd, layers = c->model->config.n_layers;
    int32_t *ids = malloc(rt_size_max(n, 1) * sizeof *ids);
    c->rms = malloc((layers + 1) * rt_size_max(n, 1) * sizeof *c->rms);
    rt_status status =
        ids && c->rms ? RT_OK : rt_error_set(c->err, RT_NO_MEMORY, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n && status == RT_OK; i++) {
        const int64_t id = i64_at(w, i);
        ids[i] = (int32_t)id;
        if (id < 0 || (size_t)id >= c->model->config.n_vocab || n > c->model->config.n_context)
            status = rt_error_set(c->err, RT_INVALID, "forward.safetensors: ids.%zu does not suit the model",
                                  c->text);
    }
    if (status == RT_OK && (status = rt_pass_open(&c->pass, c->model, n, false, c->err)) == RT_OK) {
        const rt_segment segment = {.count = n};
        const rt_batch batch = {ids, n, &segment, 1};
        rt_forward(c->model, c->pass, &batch, tap_rms, c);
        for (size_t t = 0; t < n; t++)
            c->rms[layers * n + t] = rms_of(rt_pass_hidden(c->pass) + t * d, d);
        text_errors e = {0};
        status = compare_rows(c, ids, n, &e);
        if (status == RT_OK)
            judge_errors(c, &e);
    }
    rt_pass_close(c->pass);
    c->pass = NULL;
    free(ids);
    free(c->rms);
    return status;
}

/* ---- greedy continuations ---- */

static rt_status ids_of(int32_t **out, size_t *n, const json_t *row, const char *key, size_t vocab,
                        rt_error *err)
{
    const json_t *list = json_object_get(row, key);
    *n = json_array_size(list);
    *out = malloc(rt_size_max(*n, 1) * sizeof **out);
    if (!*out)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", *n);
    for (size_t i = 0; i < *n; i++) {
        const json_int_t id = json_integer_value(json_array_get(list, i));
        if (id < 0 || (size_t)id >= vocab)
            return rt_error_set(err, RT_INVALID, "greedy.json: %s holds an id outside the vocabulary", key);
        (*out)[i] = (int32_t)id;
    }
    return *n ? RT_OK : rt_error_set(err, RT_INVALID, "greedy.json: a row has no %s", key);
}

static size_t best_of(const float *z, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (z[i] > z[best])
            best = i;
    return best;
}

static rt_status check_greedy_row(rt_verify *result, const rt_model *model, rt_session *session,
                                  float *logits, const json_t *row, size_t index, rt_error *err)
{
    int32_t *prompt = NULL, *want = NULL;
    size_t n_prompt = 0, n_want = 0, wrong = 0;
    const size_t vocab = model->config.n_vocab, slot = 0;
    const double unsure = model->precision == RT_PRECISION_F32 ? 2e-3 : 0.5;
    rt_status status = ids_of(&prompt, &n_prompt, row, "prompt_ids", vocab, err);
    if (status == RT_OK)
        status = ids_of(&want, &n_want, row, "new_ids", vocab, err);
    rt_session_truncate(session, 0, 0);
    if (status == RT_OK)
        status = rt_session_prefill(session, 0, prompt, n_prompt, logits, err);
    const json_t *gaps = json_object_get(row, "gap");
    for (size_t i = 0; i < n_want && status == RT_OK; i++) {
        if (json_number_value(json_array_get(gaps, i)) < unsure)
            break; /* either choice is right from here on */
        if (best_of(logits, vocab) != (size_t)want[i]) {
            wrong++;
            break;
        }
        if (i + 1 < n_want)
            status = rt_session_decode(session, &slot, &want[i], 1, logits, err);
    }
    char name[48];
    (void)snprintf(name, sizeof name, "greedy answer %zu", index);
    if (status == RT_OK)
        rt_verify_add(result, name, (double)wrong, 0.5);
    free(prompt);
    free(want);
    return status;
}

static rt_status check_greedy(rt_verify *result, const char *path, const rt_model *model, rt_error *err)
{
    json_t *rows;
    if (rt_json_read(&rows, path, GREEDY_JSON_MAX, err) != RT_OK)
        return err->status;
    rt_session *session = NULL;
    float *logits = malloc(model->config.n_vocab * sizeof *logits);
    rt_status status =
        logits ? rt_session_open(&session, model, 1, 0, err) : rt_error_set(err, RT_NO_MEMORY, "no memory");
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (status == RT_OK)
            status = check_greedy_row(result, model, session, logits, row, i, err);
    }
    rt_session_close(session);
    free(logits);
    json_decref(rows);
    return status;
}

rt_status rt_verify_smollm2(rt_verify *result, const char *dir, const rt_model *model, rt_error *err)
{
    *result = (rt_verify){0};
    text_check c = {.result = result, .model = model, .err = err};
    rt_weights *vectors = NULL;
    char *path = rt_path_join(dir, "forward.safetensors"), *greedy = rt_path_join(dir, "greedy.json");
    c.logits = malloc(model->config.n_vocab * sizeof *c.logits);
    rt_status status = path && greedy && c.logits
                           ? rt_weights_open(&vectors, path, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for the comparison");
    c.vectors = vectors;
    for (; status == RT_OK && c.text < TEXTS_MAX; c.text++) {
        char name[32];
        (void)snprintf(name, sizeof name, "ids.%zu", c.text);
        const rt_weight *w = rt_weights_find(vectors, name);
        if (!w)
            break;
        status =
            w->dtype == RT_I64 ? check_text(&c, w) : rt_error_set(err, RT_INVALID, "%s must be int64", name);
    }
    if (status == RT_OK && !c.text)
        status = rt_error_set(err, RT_INVALID, "%.300s: holds no text", path);
    if (status == RT_OK)
        status = check_greedy(result, greedy, model, err);
    rt_weights_close(vectors);
    free(c.logits);
    free(path);
    free(greedy);
    return status;
}
