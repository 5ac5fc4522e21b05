/* judge/vectors_attention.c - cases of attention and of the head fused with the loss.
 *
 * They run through the code that trains: a model of one layer is put together around the case's tensors, and
 * the decoder's own attention (model/pass.h) and head (student/head.h) work on it, in float32. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "judge/vectors_case.h"
#include "model/pass.h"
#include "student/head.h"

enum { SEGMENTS_MAX = 64, TOKENS_MAX = 4096, HEAD_DIM_MAX = 512, HEADS_MAX = 256 };

typedef struct attention {
    size_t tokens, heads, heads_kv, head_dim;
    float *q, *k, *v, *upstream; /* [tokens, heads or heads_kv, head_dim] */
    rt_segment segments[SEGMENTS_MAX];
    size_t n_segments;
    rt_layer layer; /* only its sizes are looked at */
    rt_model model;
    rt_pass *pass;
} attention;

/* document_starts: [0, ..., tokens]; without it all tokens are one document. */
static rt_status load_segments(vec_run *run, attention *a, rt_error *err)
{
    const json_t *starts = json_object_get(json_object_get(run->entry, "params"), "document_starts");
    a->segments[0] = (rt_segment){.begin = 0, .count = a->tokens};
    a->n_segments = 1;
    if (!starts)
        return RT_OK;
    const size_t n = json_array_size(starts);
    if (n < 2 || n > SEGMENTS_MAX + 1)
        return vec_bad(run, err, "document_starts has %zu entries", n);
    json_int_t from = json_integer_value(json_array_get(starts, 0));
    for (size_t i = 1; i < n; i++) {
        const json_int_t to = json_integer_value(json_array_get(starts, i));
        if (from < 0 || to <= from || (size_t)to > a->tokens)
            return vec_bad(run, err, "document_starts does not rise within the tokens");
        a->segments[i - 1] = (rt_segment){.begin = (size_t)from, .count = (size_t)(to - from)};
        from = to;
    }
    a->n_segments = n - 1;
    if (a->segments[0].begin != 0 || (size_t)from != a->tokens)
        return vec_bad(run, err, "document_starts does not cover the tokens");
    return RT_OK;
}

static rt_status load_attention(vec_run *run, attention *a, rt_error *err)
{
    vec_array q, k, v, upstream;
    *a = (attention){0};
    if (vec_input(run, "q", &q, &a->q, err) != RT_OK || vec_input(run, "k", &k, &a->k, err) != RT_OK ||
        vec_input(run, "v", &v, &a->v, err) != RT_OK ||
        vec_input(run, "upstream", &upstream, &a->upstream, err) != RT_OK)
        return err->status;
    if (q.n_dims != 3 || k.n_dims != 3 || q.n == 0 || k.n == 0 || v.n != k.n || upstream.n != q.n ||
        k.shape[0] != q.shape[0] || k.shape[2] != q.shape[2] || q.shape[1] % k.shape[1] != 0 ||
        q.shape[0] > TOKENS_MAX || q.shape[1] > HEADS_MAX || q.shape[2] > HEAD_DIM_MAX)
        return vec_bad(run, err, "shapes of q, k, v and upstream do not fit, or are too large");
    a->tokens = q.shape[0];
    a->heads = q.shape[1];
    a->heads_kv = k.shape[1];
    a->head_dim = q.shape[2];
    return load_segments(run, a, err);
}

static rt_status open_attention(const vec_run *run, attention *a, rt_error *err)
{
    const size_t d = a->heads * a->head_dim, kv = a->heads_kv * a->head_dim;
    const double window = vec_param(run, "window", 0);
    a->layer = (rt_layer){.qkv = {.rows = d + 2 * kv, .cols = d},
                          .o = {.rows = d, .cols = d},
                          .gate_up = {.rows = 2 * d, .cols = d},
                          .down = {.rows = d, .cols = d}};
    a->model =
        (rt_model){.precision = RT_PRECISION_F32, .act = RT_F32, .layers = &a->layer, .ops = rt_ops_get()};
    rt_model_config *c = &a->model.config;
    c->n_layers = 1;
    c->n_embd = c->n_ff = d;
    c->n_heads = a->heads;
    c->n_heads_kv = a->heads_kv;
    c->head_dim = a->head_dim;
    c->n_vocab = 1;
    c->n_context = a->tokens;
    c->gated_mlp = true;
    c->attention_scale = 1 / sqrt((double)a->head_dim);
    c->window[0] = window > 0 && window < (double)a->tokens ? (size_t)window : 0;
    return rt_pass_open(&a->pass, &a->model, a->tokens, true, err);
}

static void attention_forward(attention *a, const rt_batch *batch)
{
    rt_pass *pass = a->pass;
    rt_kept *kept = &pass->kept[0];
    memcpy(kept->q, a->q, a->tokens * a->heads * a->head_dim * sizeof(float));
    memcpy(kept->k, a->k, a->tokens * a->heads_kv * a->head_dim * sizeof(float));
    memcpy(kept->v, a->v, a->tokens * a->heads_kv * a->head_dim * sizeof(float));
    pass->n_tokens = a->tokens;
    pass->n_queries = 0;
    for (size_t s = 0; s < batch->n_segments; s++) {
        const rt_segment *segment = &batch->segments[s];
        for (size_t i = 0; i < segment->count; i += QUERY_BLOCK)
            pass->queries[pass->n_queries++] =
                (rt_query_task){(uint32_t)s, (uint32_t)(segment->begin + i),
                                (uint32_t)rt_size_min(QUERY_BLOCK, segment->count - i)};
    }
    for (size_t i = 0; i < pass->n_queries; i++)
        for (size_t h = 0; h < a->heads_kv; h++)
            rt_attention_block(&a->model, pass, batch, 0, i, h, 0);
}

static void attention_backward(attention *a, const rt_batch *batch)
{
    rt_pass *pass = a->pass;
    const size_t hd = a->head_dim;
    const float *att = pass->kept[0].att;
    memcpy(pass->back.datt, a->upstream, a->tokens * a->heads * hd * sizeof(float));
    for (size_t t = 0; t < a->tokens; t++)
        for (size_t h = 0; h < a->heads; h++) {
            const size_t at = (t * a->heads + h) * hd;
            pass->back.delta[h * pass->tokens_max + t] =
                (float)a->model.ops->dot(a->upstream + at, att + at, hd);
        }
    for (size_t s = 0; s < batch->n_segments; s++)
        for (size_t h = 0; h < a->heads; h++)
            rt_attention_backward(&a->model, pass, batch, 0, s, h, 0);
}

/* The pass keeps a gradient of keys or values for each query head, [heads, tokens, head_dim]: sums of groups.
 */
static void sum_groups(const attention *a, const float *each, float *out)
{
    const size_t hd = a->head_dim, group = a->heads / a->heads_kv, ld = a->pass->tokens_max;
    for (size_t t = 0; t < a->tokens; t++)
        for (size_t h = 0; h < a->heads; h++)
            a->model.ops->add(out + (t * a->heads_kv + h / group) * hd, each + (h * ld + t) * hd, hd);
}

static rt_status attention_case(vec_run *run, rt_error *err)
{
    attention a;
    float *dk, *dv;
    if (load_attention(run, &a, err) != RT_OK)
        return err->status;
    const size_t n_q = a.tokens * a.heads * a.head_dim, n_kv = a.tokens * a.heads_kv * a.head_dim;
    if (vec_room(run, &dk, n_kv, sizeof *dk, err) != RT_OK ||
        vec_room(run, &dv, n_kv, sizeof *dv, err) != RT_OK || open_attention(run, &a, err) != RT_OK)
        return err->status;
    const rt_batch batch = {.n_tokens = a.tokens, .segments = a.segments, .n_segments = a.n_segments};
    attention_forward(&a, &batch);
    attention_backward(&a, &batch);
    sum_groups(&a, a.pass->back.dk, dk);
    sum_groups(&a, a.pass->back.dv, dv);
    rt_status status = vec_output(run, "out", a.pass->kept[0].att, n_q, vec_tol_loss, err);
    if (status == RT_OK)
        status = vec_output(run, "grad_q", a.pass->back.dq, n_q, vec_tol_grad, err);
    if (status == RT_OK)
        status = vec_output(run, "grad_k", dk, n_kv, vec_tol_grad, err);
    if (status == RT_OK)
        status = vec_output(run, "grad_v", dv, n_kv, vec_tol_grad, err);
    rt_pass_close(a.pass);
    return status;
}

typedef struct head_case { /* h [tokens, d], W [vocab, d], zt [tokens, vocab] */
    size_t tokens, d, vocab;
    float *h, *w, *zt, *identity, *dh, *dw;
    int32_t *labels;
    uint32_t *rows;
    double *scales;
    rt_loss_stats *stats;
} head_case;

static rt_status load_head(vec_run *run, head_case *c, rt_error *err)
{
    vec_array h, w, zt, y;
    if (vec_input(run, "h", &h, &c->h, err) != RT_OK || vec_input(run, "W", &w, &c->w, err) != RT_OK ||
        vec_input(run, "zt", &zt, &c->zt, err) != RT_OK)
        return err->status;
    if (h.n_dims != 2 || w.n_dims != 2 || h.n == 0 || w.n == 0 || w.shape[1] != h.shape[1] ||
        w.shape[0] > TOKENS_MAX || h.shape[0] > TOKENS_MAX || zt.n != h.shape[0] * w.shape[0])
        return vec_bad(run, err, "shapes of h, W and zt do not fit, or are too large");
    *c = (head_case){
        .tokens = h.shape[0], .d = h.shape[1], .vocab = w.shape[0], .h = c->h, .w = c->w, .zt = c->zt};
    if (vec_tensor_sized(run, "in", "y", c->tokens, &y, err) != RT_OK ||
        vec_room(run, &c->identity, c->vocab * c->vocab, sizeof(float), err) != RT_OK ||
        vec_room(run, &c->dh, h.n, sizeof(float), err) != RT_OK ||
        vec_room(run, &c->dw, w.n, sizeof(float), err) != RT_OK ||
        vec_room(run, &c->labels, c->tokens, sizeof *c->labels, err) != RT_OK ||
        vec_room(run, &c->rows, c->tokens, sizeof *c->rows, err) != RT_OK ||
        vec_room(run, &c->scales, c->tokens, sizeof *c->scales, err) != RT_OK ||
        vec_room(run, &c->stats, c->tokens, sizeof *c->stats, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < c->vocab; i++)
        c->identity[i * c->vocab + i] = 1;
    for (size_t t = 0; t < c->tokens; t++) {
        if (!(y.x[t] >= 0 && y.x[t] < (double)c->vocab))
            return vec_bad(run, err, "label %zu is outside the vocabulary", t);
        c->labels[t] = (int32_t)y.x[t];
        c->rows[t] = (uint32_t)t;
        c->scales[t] = 1 / (double)c->tokens;
    }
    return RT_OK;
}

static rt_model head_model(const float *w, size_t vocab, size_t d)
{
    rt_model model = {.precision = RT_PRECISION_F32,
                      .act = RT_F32,
                      .ops = rt_ops_get(),
                      .head = {.rows = vocab, .cols = d, .w = w}};
    model.config.n_vocab = vocab;
    model.config.n_embd = d;
    return model;
}

/* The teacher's logits come from a head that is the identity. */
static rt_status run_head(const head_case *c, const rt_loss_mix *mix, double *loss, rt_error *err)
{
    const rt_model student = head_model(c->w, c->vocab, c->d),
                   teacher = head_model(c->identity, c->vocab, c->vocab);
    const rt_pass hidden = {.hidden = c->h}, teacher_hidden = {.hidden = c->zt};
    const rt_head_rows rows = {.rows = c->rows, .labels = c->labels, .scales = c->scales, .n = c->tokens};
    rt_head *head;
    if (rt_head_open(&head, &student, &teacher, true, err) != RT_OK)
        return err->status;
    const rt_status status = rt_head_run(head, &hidden, &teacher_hidden, mix, &rows, c->tokens, c->dh, c->dw,
                                         c->stats, NULL, NULL, loss, err);
    rt_head_close(head);
    return status;
}

static rt_status head_loss(vec_run *run, bool *covered, rt_error *err)
{
    head_case c = {0};
    rt_loss_mix mix = {.n_terms = 1,
                       .terms = {{1,
                                  {.tau = vec_param(run, "tau", 1),
                                   .beta = vec_param(run, "beta", 0.5),
                                   .alpha = vec_param(run, "alpha", 0)}}}};
    const char *reduction = vec_param_text(run, "reduction");
    double loss, ref;
    *covered = rt_loss_kind_from_name(&mix.terms[0].spec.kind, run->loss + strlen("head_")) &&
               (!reduction || strcmp(reduction, "token_mean") == 0);
    if (!*covered)
        return RT_OK;
    if (rt_loss_mix_check(&mix, err) != RT_OK || load_head(run, &c, err) != RT_OK ||
        run_head(&c, &mix, &loss, err) != RT_OK || vec_number(run, "out", "loss", &ref, err) != RT_OK)
        return err->status;
    vec_check(run, loss, ref, vec_tol_loss);
    if (vec_output(run, "grad_h", c.dh, c.tokens * c.d, vec_tol_grad, err) != RT_OK)
        return err->status;
    return vec_output(run, "grad_W", c.dw, c.vocab * c.d, vec_tol_grad, err);
}

rt_status vec_attention(vec_run *run, bool *covered, rt_error *err)
{
    if (strcmp(run->loss, "attention") != 0)
        return head_loss(run, covered, err);
    const json_t *causal = json_object_get(json_object_get(run->entry, "params"), "causal");
    *covered = !causal || json_is_true(causal);
    return *covered ? attention_case(run, err) : RT_OK;
}
