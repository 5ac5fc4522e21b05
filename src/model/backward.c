/* model/backward.c - the backward pass: each job mirrors one of forward.c, in the opposite order.
 *
 * For a layer:  (C') gradient through the MLP for each block of tokens, then weight gradients of down and
 * gate_up by rows of the weight; through the output projection; (B') attention for each sequence and head;
 * (A') rope, head norms, q k v and the first norm, then weight gradients of o and q k v.
 * Normed inputs and activations are recomputed rather than kept.  Gradients of vectors are summed within a
 * block, then over blocks in order, so that the result does not depend on the number of threads. */
#include <string.h>

#include "base/size.h"
#include "model/backward_parts.h"
#include "model/experts.h"
#include "model/latent.h"

enum { WEIGHT_ROWS = 256, WEIGHT_TOKENS = 256 };

static rt_vector_sums sums_of(const rt_back_job *job, size_t block, size_t bias_rows)
{
    const size_t d = job->model->config.n_embd;
    const size_t first_norm =
        rt_is_latent(job->model) ? job->model->config.latent.q_rank : job->model->config.head_dim;
    float *at = job->pass->back.vector_sums + block * job->pass->back.sums_a_block;
    return (rt_vector_sums){.norm = at,
                            .norm_bias = at + d,
                            .post = at + 2 * d,
                            .out_bias = at + 3 * d,
                            .bias = at + 4 * d,
                            .q_norm = at + 4 * d + bias_rows,
                            .k_norm = at + 4 * d + bias_rows + first_norm};
}

static void clear_sums(const rt_back_job *job, size_t block)
{
    memset(job->pass->back.vector_sums + block * job->pass->back.sums_a_block, 0,
           job->pass->back.sums_a_block * sizeof(float));
}

/* grads of a vector += the blocks' sums at `offset`, in order. */
static void reduce(const rt_back_job *job, size_t offset, const rt_param *param)
{
    if (!param || !job->grads)
        return;
    const size_t blocks = rt_size_ceil_div(job->pass->n_tokens, job->pass->block);
    for (size_t b = 0; b < blocks; b++)
        job->model->ops->add(job->grads + param->offset,
                             job->pass->back.vector_sums + b * job->pass->back.sums_a_block + offset,
                             param->count);
}

static void reduce_role(const rt_back_job *job, size_t offset, rt_role role)
{
    reduce(job, offset, rt_layout_role(job->layout, job->layer, role));
}

void rt_through_weights(const rt_model *model, const rt_proj *proj, const void *dy, size_t n, float *out)
{
    const rt_gemm_spec spec = {.m = n,
                               .n = proj->cols,
                               .k = proj->rows,
                               .lda = proj->rows,
                               .ldb = proj->cols,
                               .ldc = proj->cols,
                               .ab = model->act,
                               .c = RT_F32};
    rt_gemm(&spec, dy, proj->w, out);
}

/* dx_row += the norm's gradient; h_row: the normed input again, in the activation type. */
static void norm_backward(const rt_back_job *job, float *dx_row, const float *dh, const float *x,
                          const float *w, const float *bias, float mean, float r, const rt_vector_sums *sums,
                          void *h_row, float *room)
{
    const rt_model *model = job->model;
    const size_t d = model->config.n_embd;
    const float eps = (float)model->config.norm_eps;
    float unused;
    if (model->config.norm == RT_NORM_RMS) {
        model->ops->rms_norm_backward(dx_row, sums->norm, dh, x, w, r, d);
        if (h_row)
            (void)model->ops->rms_norm(room, x, w, d, eps);
    } else {
        model->ops->layer_norm_backward(dx_row, sums->norm, sums->norm_bias, dh, x, w, mean, r, d);
        if (h_row)
            (void)model->ops->layer_norm(room, &unused, x, w, bias, d, eps);
    }
    if (h_row)
        rt_act_store(model, h_row, room, d);
}

/* dy = the gradient before a post norm (or dx itself); stored as the operand of the products, and its bias
 * summed. */
static void leave_residual(const rt_back_job *job, size_t row, const float *post, const float *y, float r,
                           bool has_bias, const rt_vector_sums *sums, float *room)
{
    const rt_model *model = job->model;
    const size_t d = model->config.n_embd;
    const float *dy = job->dx + row * d;
    if (post) {
        memset(room, 0, d * sizeof *room);
        model->ops->rms_norm_backward(room, sums->post, dy, y + row * d, post, r, d);
        dy = room;
    }
    if (has_bias)
        model->ops->add(sums->out_bias, dy, d);
    rt_act_store(model, rt_act_at_mut(model, job->pass->back.dx_act, row * d), dy, d);
}

/* ---- C': MLP ---- */

size_t rt_backward_scratch(const rt_model *model, size_t block)
{
    const rt_model_config *c = &model->config;
    const size_t q = c->n_heads * c->head_dim, wide = model->layers[0].qkv.rows;
    size_t ff = 0, more = 0;
    for (size_t l = 0; l < c->n_layers; l++)
        ff = rt_size_max(ff, rt_layer_ff(c, l));
    if (c->experts.count)
        more = rt_experts_backward_scratch(model, block);
    if (rt_is_latent(model))
        more = rt_size_max(more, rt_latent_backward_scratch(model, block));
    return block * 4 * (rt_size_max(ff, q) + c->n_embd) + (wide * 3 + 2 * ff + c->n_embd * 2 + q) * 8 + 8192 +
           more;
}

/* dh [n, d] = the gradient that comes through the MLP that every token passes. */
static void dense_backward(const rt_back_job *job, size_t begin, size_t n, const rt_vector_sums *sums,
                           float *dh, rt_carver *scratch)
{
    const rt_model *model = job->model;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_kept *kept = &job->pass->kept[job->layer];
    const rt_back *back = &job->pass->back;
    const size_t d = model->config.n_embd, ff = layer->down.cols, wide = layer->gate_up.rows;
    float *dact = rt_carve(scratch, n * ff, sizeof *dact), *act = rt_carve(scratch, ff, sizeof *act);
    float *gate_up = rt_carve(scratch, wide, sizeof *gate_up),
          *dgate_up = rt_carve(scratch, wide, sizeof *dgate_up);
    rt_through_weights(model, &layer->down, rt_act_at(model, back->dx_act, begin * d), n, dact);
    for (size_t i = 0; i < n; i++) {
        const size_t row = begin + i;
        rt_act_load(model, gate_up, rt_act_at(model, kept->gate_up, row * wide), wide);
        rt_activate_row(model, act, gate_up, ff);
        rt_act_store(model, rt_act_at_mut(model, back->act, row * ff), act, ff);
        rt_activate_row_backward(model, dgate_up, dact + i * ff, gate_up, ff);
        if (layer->gate_up.bias)
            model->ops->add(sums->bias, dgate_up, wide);
        rt_act_store(model, rt_act_at_mut(model, back->dgate_up, row * wide), dgate_up, wide);
    }
    rt_through_weights(model, &layer->gate_up, rt_act_at(model, back->dgate_up, begin * wide), n, dh);
}

/* What the experts' tasks read: the gradient of the layer's output and its normed input. */
static void mixture_ready_task(void *context, size_t index, unsigned thread)
{
    const rt_back_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = model->config.n_embd;
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *h = rt_carve(&scratch, n * d, sizeof *h);
    const rt_layer *layer = &model->layers[job->layer];
    rt_act_store(model, rt_act_at_mut(model, pass->back.dx_act, begin * d), job->dx + begin * d, n * d);
    rt_norm_rows(model, h, pass->kept[job->layer].x2 + begin * d, layer->norm2, layer->norm2_bias, n, NULL,
                 NULL);
    rt_act_store(model, rt_act_at_mut(model, pass->back.h, begin * d), h, n * d);
}

static void mlp_backward_task(void *context, size_t index, unsigned thread)
{
    const rt_back_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_kept *kept = &pass->kept[job->layer];
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = model->config.n_embd;
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *dh = rt_carve(&scratch, n * d, sizeof *dh), *room = rt_carve(&scratch, d, sizeof *room);
    clear_sums(job, index);
    const rt_vector_sums sums = sums_of(job, index, layer->gate_up.rows);
    for (size_t i = begin; i < begin + n; i++)
        leave_residual(job, i, layer->norm2_post, kept->down_out, kept->r2_post ? kept->r2_post[i] : 0,
                       layer->down.bias != NULL, &sums, room);
    if (layer->down.cols) {
        rt_carver rest = scratch;
        dense_backward(job, begin, n, &sums, dh, &rest);
    } else {
        memset(dh, 0, n * d * sizeof *dh);
    }
    if (layer->experts) {
        float *h = rt_carve(&scratch, n * d, sizeof *h);
        rt_norm_rows(model, h, kept->x2 + begin * d, layer->norm2, layer->norm2_bias, n, NULL, NULL);
        rt_experts_input_backward(job, begin, n, h, dh, &scratch);
    }
    for (size_t i = 0; i < n; i++) {
        const size_t row = begin + i;
        norm_backward(job, job->dx + row * d, dh + i * d, kept->x2 + row * d, layer->norm2, layer->norm2_bias,
                      kept->mean2[row], kept->r2[row], &sums, rt_act_at_mut(model, pass->back.h, row * d),
                      room);
    }
}

/* ---- weight gradients ---- */

typedef struct weight_job {
    const rt_model *model;
    size_t n_tokens, n_parts;
    rt_weight_part parts[RT_WEIGHT_PARTS];
    size_t begin[RT_WEIGHT_PARTS + 1]; /* first task of a part */
} weight_job;

static void weight_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const weight_job *job = context;
    size_t k = 0;
    while (index >= job->begin[k + 1])
        k++;
    const rt_weight_part *part = &job->parts[k];
    const size_t begin = (index - job->begin[k]) * WEIGHT_ROWS;
    const size_t rows = rt_size_min(WEIGHT_ROWS, part->rows - begin);
    for (size_t t = 0; t < job->n_tokens; t += WEIGHT_TOKENS) {
        const rt_gemm_spec spec = {.m = rows,
                                   .n = part->cols,
                                   .k = rt_size_min(WEIGHT_TOKENS, job->n_tokens - t),
                                   .lda = part->rows,
                                   .ldb = part->cols,
                                   .ldc = part->cols,
                                   .ab = job->model->act,
                                   .c = RT_F32,
                                   .a_transposed = true,
                                   .accumulate = true};
        rt_gemm(&spec, rt_act_at(job->model, part->dy, t * part->rows + begin),
                rt_act_at(job->model, part->x, t * part->cols), part->dw + begin * part->cols);
    }
}

static void weight_gradients(const rt_back_job *job, const rt_weight_part *parts, size_t n)
{
    for (size_t k = 0; k < n && job->hooks->weight; k++) {
        const rt_weight_gradient part = {parts[k].role, parts[k].dy,   parts[k].x,
                                         parts[k].rows, parts[k].cols, job->pass->n_tokens};
        job->hooks->weight(job->hooks->context, job->layer, &part);
    }
    if (job->hooks->weight)
        return;
    weight_job work = {.model = job->model, .n_tokens = job->pass->n_tokens, .n_parts = n};
    for (size_t k = 0; k < n; k++) {
        work.parts[k] = parts[k];
        work.begin[k + 1] = work.begin[k] + rt_size_ceil_div(parts[k].rows, WEIGHT_ROWS);
    }
    rt_pool_run(job->model->pool, work.begin[n], weight_task, &work);
}

static rt_weight_part part_of(const rt_back_job *job, rt_role role, const void *dy, const void *x,
                              size_t rows, size_t cols)
{
    float *dw = job->grads ? job->grads + rt_layout_role(job->layout, job->layer, role)->offset : NULL;
    return (rt_weight_part){dy, x, rows, cols, dw, (int)role};
}

static void mlp_backward(const rt_back_job *job)
{
    const rt_model *model = job->model;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_back *back = &job->pass->back;
    const size_t d = model->config.n_embd, ff = layer->down.cols;
    const size_t blocks = rt_size_ceil_div(job->pass->n_tokens, job->pass->block);
    const bool gated = model->config.gated_mlp;
    void *context = (void *)(size_t)job;
    if (layer->experts) {
        rt_pool_run(model->pool, blocks, mixture_ready_task, context);
        rt_experts_backward(job);
    }
    rt_pool_run(model->pool, blocks, mlp_backward_task, context);
    reduce_role(job, 0, RT_ROLE_NORM2);
    reduce_role(job, d, RT_ROLE_NORM2_BIAS);
    reduce_role(job, 2 * d, RT_ROLE_NORM2_POST);
    reduce_role(job, 3 * d, RT_ROLE_DOWN_BIAS);
    reduce_role(job, 4 * d, gated ? RT_ROLE_GATE_BIAS : RT_ROLE_UP_BIAS);
    if (gated)
        reduce_role(job, 4 * d + ff, RT_ROLE_UP_BIAS);
    rt_weight_part parts[RT_WEIGHT_PARTS];
    size_t n = 0;
    if (ff) {
        const bool shared = layer->experts != NULL;
        const rt_role first = shared ? RT_ROLE_SHARED_GATE : gated ? RT_ROLE_GATE : RT_ROLE_UP;
        parts[n++] =
            part_of(job, shared ? RT_ROLE_SHARED_DOWN : RT_ROLE_DOWN, back->dx_act, back->act, d, ff);
        parts[n++] = part_of(job, first, back->dgate_up, back->h, layer->gate_up.rows, d);
    }
    if (layer->experts)
        parts[n++] =
            part_of(job, RT_ROLE_ROUTER, job->pass->mixture.dlogits, back->h, model->config.experts.count, d);
    weight_gradients(job, parts, n);
}

/* ---- through the output projection ---- */

static void output_backward_task(void *context, size_t index, unsigned thread)
{
    const rt_back_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_kept *kept = &pass->kept[job->layer];
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = c->n_embd, hd = c->head_dim, q = c->n_heads * hd, cols = layer->o.cols;
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *narrow = rt_carve(&scratch, cols == q ? 0 : n * cols, sizeof *narrow);
    float *datt = rt_carve(&scratch, n * q, sizeof *datt), *room = rt_carve(&scratch, d, sizeof *room);
    float *att = rt_carve(&scratch, q, sizeof *att);
    clear_sums(job, index);
    const rt_vector_sums sums = sums_of(job, index, layer->qkv.rows);
    for (size_t i = begin; i < begin + n; i++)
        leave_residual(job, i, layer->norm1_post, kept->o_out, kept->r1_post ? kept->r1_post[i] : 0,
                       layer->o.bias != NULL, &sums, room);
    rt_through_weights(model, &layer->o, rt_act_at(model, pass->back.dx_act, begin * d), n,
                       cols == q ? datt : narrow);
    if (cols != q) { /* heads are padded */
        const size_t value = cols / c->n_heads;
        rt_heads_copy(datt, hd, narrow, value, value, n * c->n_heads, sizeof *datt);
        rt_heads_copy(rt_act_at_mut(model, pass->back.att, begin * cols), value,
                      rt_act_at(model, kept->att, begin * q), hd, value, n * c->n_heads, rt_act_size(model));
    }
    for (size_t i = 0; i < n; i++) {
        const size_t row = begin + i;
        rt_act_load(model, att, rt_act_at(model, kept->att, row * q), q);
        for (size_t h = 0; h < c->n_heads; h++)
            pass->back.delta[h * pass->tokens_max + row] =
                (float)model->ops->dot(datt + i * q + h * hd, att + h * hd, hd);
        rt_act_store(model, rt_act_at_mut(model, pass->back.datt, row * q), datt + i * q, q);
    }
}

/* ---- B' ---- */

static void attention_backward_task(void *context, size_t index, unsigned thread)
{
    const rt_back_job *job = context;
    const size_t heads = job->model->config.n_heads;
    rt_attention_backward(job->model, job->pass, job->batch, job->layer, index / heads, index % heads,
                          thread);
}

/* ---- A' ---- */

/* The gradient of one token's q k v row, before rope, head norms and bias. */
static void qkv_row_backward(const rt_back_job *job, size_t row, const rt_vector_sums *sums, float *dqkv,
                             float *room)
{
    const rt_model *model = job->model;
    const rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_kept *kept = &pass->kept[job->layer];
    const size_t hd = c->head_dim, q = c->n_heads * hd, kv = c->n_heads_kv * hd,
                 group = c->n_heads / c->n_heads_kv;
    memcpy(dqkv, pass->back.dq + row * q, q * sizeof *dqkv);
    memset(dqkv + q, 0, 2 * kv * sizeof *dqkv);
    for (size_t h = 0; h < c->n_heads; h++) {
        const size_t at = (h * pass->tokens_max + row) * hd;
        model->ops->add(dqkv + q + h / group * hd, pass->back.dk + at, hd);
        model->ops->add(dqkv + q + kv + h / group * hd, pass->back.dv + at, hd);
    }
    const rt_rope *rope = rt_layer_rope(model, job->layer);
    const size_t heads = c->n_heads + c->n_heads_kv, angles = rope ? pass->position[row] * rope->half : 0;
    for (size_t h = 0; rope && h < heads; h++)
        model->ops->rope(dqkv + h * hd, rope->cosines + angles, rope->sines + angles, rope->half, -1.0f);
    for (size_t h = 0; c->qk_norm && h < heads; h++) {
        const bool is_q = h < c->n_heads;
        memset(room, 0, hd * sizeof *room);
        model->ops->rms_norm_backward(
            room, is_q ? sums->q_norm : sums->k_norm, dqkv + h * hd, kept->qk_raw + (row * heads + h) * hd,
            is_q ? model->layers[job->layer].q_norm : model->layers[job->layer].k_norm,
            kept->qk_r[row * heads + h], hd);
        memcpy(dqkv + h * hd, room, hd * sizeof *room);
    }
    if (model->layers[job->layer].qkv.bias)
        model->ops->add(sums->bias, dqkv, q + 2 * kv);
}

static void qkv_backward_task(void *context, size_t index, unsigned thread)
{
    const rt_back_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_kept *kept = &pass->kept[job->layer];
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = model->config.n_embd, rows = layer->qkv.rows;
    const bool latent = rt_is_latent(model);
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *dh = rt_carve(&scratch, n * d, sizeof *dh), *dqkv = rt_carve(&scratch, rows, sizeof *dqkv);
    float *room = rt_carve(&scratch, rt_size_max(d, model->config.head_dim), sizeof *room);
    const rt_vector_sums sums =
        sums_of(job, index, rows); /* cleared by output_backward_task, which has summed into it */
    if (latent)
        rt_latent_backward(job, begin, n, &sums, &scratch);
    for (size_t i = begin; i < begin + n && !latent; i++) {
        qkv_row_backward(job, i, &sums, dqkv, room);
        rt_act_store(model, rt_act_at_mut(model, pass->back.dqkv, i * rows), dqkv, rows);
    }
    rt_through_weights(model, &layer->qkv, rt_act_at(model, pass->back.dqkv, begin * rows), n, dh);
    for (size_t i = 0; i < n; i++) {
        const size_t row = begin + i;
        norm_backward(job, job->dx + row * d, dh + i * d, kept->x1 + row * d, layer->norm1, layer->norm1_bias,
                      kept->mean1[row], kept->r1[row], &sums, rt_act_at_mut(model, pass->back.h, row * d),
                      room);
    }
}

static void attention_backward(const rt_back_job *job)
{
    const rt_model *model = job->model;
    const rt_model_config *c = &model->config;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_back *back = &job->pass->back;
    const size_t blocks = rt_size_ceil_div(job->pass->n_tokens, job->pass->block), d = c->n_embd,
                 hd = c->head_dim;
    const size_t q = c->n_heads * hd, kv = c->n_heads_kv * hd;
    void *context = (void *)(size_t)job;
    rt_pool_run(model->pool, blocks, output_backward_task, context);
    rt_pool_run(model->pool, job->batch->n_segments * c->n_heads, attention_backward_task, context);
    if (job->hooks->heads)
        job->hooks->heads(job->hooks->context, job->layer);
    rt_pool_run(model->pool, blocks, qkv_backward_task, context);
    reduce_role(job, 0, RT_ROLE_NORM1);
    reduce_role(job, d, RT_ROLE_NORM1_BIAS);
    reduce_role(job, 2 * d, RT_ROLE_NORM1_POST);
    reduce_role(job, 3 * d, RT_ROLE_O_BIAS);
    const size_t rows = layer->qkv.rows, q_rank = c->latent.q_rank, n_parts = rt_is_latent(model) ? 4 : 2;
    if (rt_is_latent(model)) {
        reduce_role(job, 4 * d, RT_ROLE_Q_A_BIAS);
        reduce_role(job, 4 * d + q_rank, RT_ROLE_KV_A_BIAS);
        reduce_role(job, 4 * d + rows, RT_ROLE_Q_A_NORM);
        reduce_role(job, 4 * d + rows + q_rank, RT_ROLE_KV_A_NORM);
    } else {
        reduce_role(job, 4 * d, RT_ROLE_Q_BIAS);
        reduce_role(job, 4 * d + q, RT_ROLE_K_BIAS);
        reduce_role(job, 4 * d + q + kv, RT_ROLE_V_BIAS);
        reduce_role(job, 4 * d + rows, RT_ROLE_Q_NORM);
        reduce_role(job, 4 * d + rows + hd, RT_ROLE_K_NORM);
    }
    const bool padded = layer->o.cols != q;
    const rt_role first = q_rank ? RT_ROLE_Q_A : RT_ROLE_Q;
    rt_weight_part parts[RT_WEIGHT_PARTS] = {
        part_of(job, RT_ROLE_O, back->dx_act, padded ? back->att : job->pass->kept[job->layer].att, d,
                layer->o.cols),
        part_of(job, first, back->dqkv, back->h, rows, d),
    };
    if (n_parts == 4) {
        parts[2] = part_of(job, RT_ROLE_KV_B, back->dkv_b, back->ckv, layer->kv_b.rows, c->latent.kv_rank);
        if (q_rank)
            parts[3] = part_of(job, RT_ROLE_Q_B, back->dq_b, back->cq, layer->q_b.rows, q_rank);
    }
    weight_gradients(job, parts, n_parts - (n_parts == 4 && !q_rank));
}

/* ---- the ends ---- */

static void final_backward_task(void *context, size_t index, unsigned thread)
{
    const rt_back_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = model->config.n_embd;
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *dy = rt_carve(&scratch, d, sizeof *dy);
    clear_sums(job, index);
    const rt_vector_sums sums = sums_of(job, index, 0);
    for (size_t row = begin; row < begin + n; row++) {
        memcpy(dy, job->dx + row * d, d * sizeof *dy);
        memset(job->dx + row * d, 0, d * sizeof *dy);
        norm_backward(job, job->dx + row * d, dy, pass->x + row * d, model->norm, model->norm_bias,
                      pass->mean[row], pass->r[row], &sums, NULL, NULL);
    }
}

/* Serial: several tokens may share an id, and the order of the sums must not change.  The look-up of the
 * padding token learns nothing, as in transformers (padding_idx); gpt2 has no such rule. */
static void embed_backward(const rt_back_job *job)
{
    const rt_model *model = job->model;
    const size_t d = model->config.n_embd;
    float *embed = job->grads + rt_layout_global(job->layout, RT_GLOBAL_EMBED)->offset;
    const rt_param *positions = rt_layout_global(job->layout, RT_GLOBAL_POSITIONS);
    const int32_t pad = positions ? -1 : model->config.pad_id;
    for (size_t t = 0; t < job->pass->n_tokens; t++) {
        const float *dx = job->dx + t * d;
        if (job->batch->ids[t] != pad)
            model->ops->axpy(embed + (size_t)job->batch->ids[t] * d, (float)model->config.embed_scale, dx, d);
        if (positions)
            model->ops->add(job->grads + positions->offset + job->pass->position[t] * d, dx, d);
    }
}

static void stream_hook(const rt_back_job *job, size_t layer)
{
    if (job->hooks->stream)
        job->hooks->stream(job->hooks->context, layer, job->dx);
}

void rt_backward_hooked(const rt_model *model, rt_pass *pass, const rt_batch *batch, const rt_layout *layout,
                        float *dhidden, float *grads, const rt_backward_hooks *hooks)
{
    rt_back_job job = {model, pass, batch, layout, 0, dhidden, grads, hooks};
    rt_pool_run(model->pool, rt_size_ceil_div(pass->n_tokens, pass->block), final_backward_task, &job);
    reduce(&job, 0, rt_layout_global(layout, RT_GLOBAL_NORM));
    reduce(&job, model->config.n_embd, rt_layout_global(layout, RT_GLOBAL_NORM_BIAS));
    for (size_t l = model->config.n_layers; l-- > 0;) {
        job.layer = l;
        stream_hook(&job, l + 1);
        mlp_backward(&job);
        attention_backward(&job);
    }
    stream_hook(&job, 0);
    if (grads)
        embed_backward(&job);
}

void rt_backward(const rt_model *model, rt_pass *pass, const rt_batch *batch, const rt_layout *layout,
                 float *dhidden, float *grads)
{
    const rt_backward_hooks none = {0};
    rt_backward_hooked(model, pass, batch, layout, dhidden, grads, &none);
}
