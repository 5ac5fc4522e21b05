/* model/forward.c - the forward pass over a large batch: blocks of tokens in parallel.
 *
 * A layer is three jobs of the pool: (A) norm, q k v, rope for each block of tokens; (B) attention for each
 * block of queries and kv head; (C) output projection, norm, MLP for each block of tokens, whose rows stay in
 * cache from one product to the next.  In a layer with experts (C) ends with their choice, and experts.c
 * goes on.  Batches of a few tokens go another way (decode.c). */
#include <assert.h>
#include <string.h>

#include "base/size.h"
#include "model/experts.h"
#include "model/latent.h"
#include "model/pass.h"
#include "model/row_source.h"
#include "model/stream.h"

typedef struct layer_job {
    const rt_model *model;
    rt_pass *pass;
    const rt_batch *batch;
    size_t layer;
} layer_job;

static size_t blocks_of(const rt_pass *pass) { return rt_size_ceil_div(pass->n_tokens, pass->block); }

/* ---- embedding ---- */

static void embed_row(const rt_model *model, float *x, int32_t id, size_t position)
{
    const size_t d = model->config.n_embd;
    if (model->embed_source)
        rt_row_source_row(model->embed_source, (size_t)id, x);
    else if (model->embed_packed)
        rt_qmat_row(model->embed_packed, (size_t)id, x);
    else
        rt_act_load(model, x, rt_act_at(model, model->embed, (size_t)id * d), d);
    if (model->config.embed_scale != 1)
        model->ops->scale(x, (float)model->config.embed_scale, d);
    if (model->positions)
        model->ops->add(x, model->positions + position * d, d);
}

static void embed_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const layer_job *job = context;
    const size_t begin = index * job->pass->block, d = job->model->config.n_embd;
    const size_t end = rt_size_min(begin + job->pass->block, job->pass->n_tokens);
    for (size_t i = begin; i < end; i++)
        embed_row(job->model, job->pass->kept[0].x1 + i * d, job->batch->ids[i], job->pass->position[i]);
}

/* ---- A: q k v ---- */

static void head_norms(const rt_model *model, rt_pass *pass, size_t layer, size_t row, float *qkv)
{
    const rt_model_config *c = &model->config;
    const size_t hd = c->head_dim, heads = c->n_heads + c->n_heads_kv;
    rt_kept *kept = &pass->kept[layer];
    if (kept->qk_raw)
        memcpy(kept->qk_raw + row * heads * hd, qkv, heads * hd * sizeof *qkv);
    for (size_t h = 0; h < heads; h++) {
        const float *w = h < c->n_heads ? model->layers[layer].q_norm : model->layers[layer].k_norm;
        const float r = model->ops->rms_norm(qkv + h * hd, qkv + h * hd, w, hd, (float)c->norm_eps);
        if (kept->qk_r)
            kept->qk_r[row * heads + h] = r;
    }
}

void rt_qkv_finish(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t row,
                   float *qkv)
{
    const rt_model_config *c = &model->config;
    const size_t hd = c->head_dim, q = c->n_heads * hd, kv = c->n_heads_kv * hd;
    const float *bias = model->layers[layer].qkv.bias;
    if (bias)
        model->ops->add(qkv, bias, q + 2 * kv);
    if (c->qk_norm)
        head_norms(model, pass, layer, row, qkv);
    const rt_rope *rope = rt_layer_rope(model, layer);
    const size_t position = pass->position[row];
    for (size_t h = 0; rope && h < c->n_heads + c->n_heads_kv; h++)
        model->ops->rope(qkv + h * hd, rope->cosines + position * rope->half,
                         rope->sines + position * rope->half, rope->half, 1.0f);
    rt_qkv_store(model, pass, batch, layer, row, qkv);
}

void rt_qkv_store(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t row,
                  const float *qkv)
{
    const rt_model_config *c = &model->config;
    const size_t q = c->n_heads * c->head_dim, kv = c->n_heads_kv * c->head_dim;
    const size_t position = pass->position[row], segment = pass->segment[row];
    rt_act_store(model, rt_act_at_mut(model, pass->kept[layer].q, row * q), qkv, q);
    rt_act_store(
        model,
        rt_act_at_mut(model, rt_segment_keys(model, pass, batch, layer, segment, false), position * kv),
        qkv + q, kv);
    rt_act_store(
        model, rt_act_at_mut(model, rt_segment_keys(model, pass, batch, layer, segment, true), position * kv),
        qkv + q + kv, kv);
}

static void qkv_task(void *context, size_t index, unsigned thread)
{
    const layer_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_layer *layer = &model->layers[job->layer];
    rt_kept *kept = &pass->kept[job->layer];
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = model->config.n_embd;
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *h = rt_carve(&scratch, n * d, sizeof *h);
    float *qkv = rt_carve(&scratch, n * layer->qkv.rows, sizeof *qkv);
    void *room = rt_carve(&scratch, rt_proj_operand_bytes(model, &layer->qkv, n), 1);
    rt_norm_rows(model, h, kept->x1 + begin * d, layer->norm1, layer->norm1_bias, n, kept->mean1 + begin,
                 kept->r1 + begin);
    size_t ld;
    const void *operand = rt_proj_operand(model, &layer->qkv, h, d, n, room, &ld);
    rt_proj_mul(model, &layer->qkv, operand, ld, n, 0, layer->qkv.rows, qkv, layer->qkv.rows, RT_F32, false);
    if (rt_is_latent(model))
        rt_latent_block(model, pass, job->batch, job->layer, begin, n, qkv, &scratch);
    for (size_t i = 0; i < n && !rt_is_latent(model); i++)
        rt_qkv_finish(model, pass, job->batch, job->layer, begin + i, qkv + i * layer->qkv.rows);
}

/* ---- B: attention ---- */

static void attention_task(void *context, size_t index, unsigned thread)
{
    const layer_job *job = context;
    const size_t n_kv = job->model->config.n_heads_kv;
    /* the longest rows of a sequence come last: begin with them, so that the end is even */
    const size_t query = job->pass->n_queries - 1 - index / n_kv;
    rt_attention_block(job->model, job->pass, job->batch, job->layer, query, index % n_kv, thread);
}

/* ---- C: output projection and MLP ---- */

/* x += y, through a norm of its own where the family has one; y [n, d] is kept for the backward pass then. */
static void join_residual(const rt_model *model, float *x, float *y, size_t n, const float *bias,
                          const float *post, float *keep_y, float *keep_r)
{
    const size_t d = model->config.n_embd;
    for (size_t i = 0; i < n; i++) {
        float *row = y + i * d;
        if (bias)
            model->ops->add(row, bias, d);
        if (keep_y)
            memcpy(keep_y + i * d, row, d * sizeof *row);
        if (post) {
            const float r = model->ops->rms_norm(row, row, post, d, (float)model->config.norm_eps);
            if (keep_r)
                keep_r[i] = r;
        }
        model->ops->add(x + i * d, row, d);
    }
}

/* x += proj(operand) + bias; straight into x where nothing stands between. */
static void project_into(const rt_model *model, const rt_proj *proj, const void *operand, size_t ld, size_t n,
                         float *x, float *room, const float *post, float *keep_y, float *keep_r)
{
    const size_t d = model->config.n_embd;
    if (!post && !proj->bias) {
        rt_proj_mul(model, proj, operand, ld, n, 0, d, x, d, RT_F32, true);
        return;
    }
    rt_proj_mul(model, proj, operand, ld, n, 0, d, room, d, RT_F32, false);
    join_residual(model, x, room, n, proj->bias, post, keep_y, keep_r);
}

typedef struct block_rows { /* scratch of a block of n tokens in job C */
    float *h, *wide;
    void *room, *act;
} block_rows;

/* gate_up rows of the block -> act rows as down's operand. */
static const void *activate_block(const layer_job *job, const block_rows *rows, const void *operand,
                                  size_t ld, size_t begin, size_t n, size_t *ld_out)
{
    const rt_model *model = job->model;
    const rt_layer *layer = &model->layers[job->layer];
    const rt_proj *gate_up = &layer->gate_up;
    const size_t wide = gate_up->rows, n_ff = layer->down.cols;
    void *kept = job->pass->kept[job->layer].gate_up;
    const bool direct = kept && model->act == RT_BF16; /* the product writes what is kept */
    float *out = rows->wide;
    if (direct)
        rt_proj_mul(model, gate_up, operand, ld, n, 0, wide, (rt_bf16 *)kept + begin * wide, wide, RT_BF16,
                    false);
    else
        rt_proj_mul(model, gate_up, operand, ld, n, 0, wide, out, wide, RT_F32, false);
    float *act = rows->act;
    for (size_t i = 0; i < n; i++) {
        float *row = direct ? out : out + i * wide;
        if (direct)
            model->ops->from_bf16(row, (rt_bf16 *)kept + (begin + i) * wide, wide);
        if (gate_up->bias)
            model->ops->add(row, gate_up->bias, wide);
        if (kept && (gate_up->bias || !direct))
            rt_act_store(model, rt_act_at_mut(model, kept, (begin + i) * wide), row, wide);
        if (rt_proj_is_packed(&layer->down) || model->act == RT_F32) {
            rt_activate_row(model, act + i * n_ff, row, n_ff);
        } else {
            rt_activate_row(model, rows->h, row, n_ff); /* h is free by now and at least n_ff long */
            model->ops->to_bf16((rt_bf16 *)rows->act + i * n_ff, rows->h, n_ff);
        }
    }
    *ld_out = n_ff;
    if (rt_proj_is_packed(&layer->down)) {
        rt_qact_quantise(rows->room, act, n_ff, n, n_ff);
        return rows->room;
    }
    return rows->act;
}

/* The attention's rows [begin, begin + n) as the operand of the output projection; padding of heads is left
 * out. */
static const void *attention_operand(const rt_model *model, const rt_proj *o, const void *att, size_t begin,
                                     size_t n, float *wide, void *room, size_t *ld)
{
    const rt_model_config *c = &model->config;
    const size_t hd = c->head_dim, q = c->n_heads * hd, value = o->cols / c->n_heads;
    const void *rows = rt_act_at(model, att, begin * q);
    *ld = o->cols;
    if (!rt_proj_is_packed(o) && o->cols == q)
        return rows;
    if (!rt_proj_is_packed(o)) {
        rt_heads_copy(room, value, rows, hd, value, n * c->n_heads, rt_act_size(model));
        return room;
    }
    for (size_t i = 0; i < n * c->n_heads; i++)
        rt_act_load(model, wide + i * value, rt_act_at(model, rows, i * hd), value);
    rt_qact_quantise(room, wide, o->cols, n, o->cols);
    return room;
}

static void mlp_task(void *context, size_t index, unsigned thread)
{
    const layer_job *job = context;
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_layer *layer = &model->layers[job->layer];
    rt_kept *kept = &pass->kept[job->layer];
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin),
                 d = c->n_embd;
    const size_t widest = rt_size_max(rt_size_max(layer->gate_up.rows, layer->o.cols), d);
    const size_t ff = layer->down.cols;
    rt_carver scratch = rt_pass_scratch(pass, thread);
    block_rows rows;
    rows.h = rt_carve(&scratch, rt_size_max(n * d, ff), sizeof(float));
    rows.wide = rt_carve(&scratch, n * widest, sizeof(float));
    size_t room = rt_size_max(rt_proj_operand_bytes(model, &layer->o, n),
                              rt_proj_operand_bytes(model, &layer->gate_up, n));
    room = rt_size_max(room, rt_proj_operand_bytes(model, &layer->down, n));
    rows.room = rt_carve(&scratch, room, 1);
    rows.act = rt_carve(&scratch, n * ff, sizeof(float));

    float *x2 = kept->x2 + begin * d;
    float *next = (job->layer + 1 < c->n_layers ? pass->kept[job->layer + 1].x1 : pass->x) + begin * d;
    if (x2 != kept->x1 + begin * d)
        memcpy(x2, kept->x1 + begin * d, n * d * sizeof *x2);
    size_t ld;
    const void *att = attention_operand(model, &layer->o, kept->att, begin, n, rows.wide, rows.room, &ld);
    project_into(model, &layer->o, att, ld, n, x2, rows.wide, layer->norm1_post,
                 kept->o_out ? kept->o_out + begin * d : NULL, kept->r1_post ? kept->r1_post + begin : NULL);
    rt_norm_rows(model, rows.h, x2, layer->norm2, layer->norm2_bias, n, kept->mean2 + begin,
                 kept->r2 + begin);
    if (next != x2)
        memcpy(next, x2, n * d * sizeof *x2);
    if (layer->experts) {
        rt_carver rest = scratch;
        rt_experts_route(model, pass, job->layer, rows.h, begin, n, &rest);
    }
    if (!ff)
        return;
    const void *operand = rt_proj_operand(model, &layer->gate_up, rows.h, d, n, rows.room, &ld);
    operand = activate_block(job, &rows, operand, ld, begin, n, &ld);
    project_into(model, &layer->down, operand, ld, n, next, rows.wide, layer->norm2_post,
                 kept->down_out ? kept->down_out + begin * d : NULL,
                 kept->r2_post ? kept->r2_post + begin : NULL);
}

/* ---- the whole pass ---- */

static void final_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const layer_job *job = context;
    rt_pass *pass = job->pass;
    const size_t begin = index * pass->block, n = rt_size_min(pass->block, pass->n_tokens - begin);
    const size_t d = job->model->config.n_embd;
    rt_norm_rows(job->model, pass->hidden + begin * d, pass->x + begin * d, job->model->norm,
                 job->model->norm_bias, n, pass->mean + begin, pass->r + begin);
    if (job->model->act != RT_F32)
        job->model->ops->to_bf16((rt_bf16 *)pass->hidden_act + begin * d, pass->hidden + begin * d, n * d);
}

/* Position and segment of each row, the blocks of queries, and rope tables as long as they are needed. */
static void prepare(const rt_model *model, rt_pass *pass, const rt_batch *batch)
{
    assert(batch->n_tokens > 0 && batch->n_tokens <= pass->tokens_max);
    pass->n_tokens = batch->n_tokens;
    pass->n_queries = 0;
    size_t positions = 0;
    for (size_t s = 0; s < batch->n_segments; s++) {
        const rt_segment *segment = &batch->segments[s];
        positions = rt_size_max(positions, segment->position + segment->count);
        for (size_t i = 0; i < segment->count; i++) {
            pass->position[segment->begin + i] = (uint32_t)(segment->position + i);
            pass->segment[segment->begin + i] = (uint32_t)s;
            if (i % QUERY_BLOCK == 0)
                pass->queries[pass->n_queries++] =
                    (rt_query_task){(uint32_t)s, (uint32_t)(segment->begin + i),
                                    (uint32_t)rt_size_min(QUERY_BLOCK, segment->count - i)};
        }
    }
    assert(positions <= model->config.n_context);
    if (model->rope)
        rt_rope_prepare(model->rope, positions);
    if (model->rope_local)
        rt_rope_prepare(model->rope_local, positions);
}

static bool is_small(const rt_pass *pass)
{
    return !pass->keep && !pass->by_blocks && pass->n_tokens <= SMALL_BATCH;
}

static void run_layer(layer_job *job, size_t layer)
{
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    job->layer = layer;
    if (is_small(pass)) {
        rt_forward_small_layer(model, pass, job->batch, layer);
        return;
    }
    rt_pool_run(model->pool, blocks_of(pass), qkv_task, job);
    rt_pool_run(model->pool, pass->n_queries * model->config.n_heads_kv, attention_task, job);
    rt_pool_run(model->pool, blocks_of(pass), mlp_task, job);
    if (model->layers[layer].experts)
        rt_experts_run(model, pass, layer,
                       layer + 1 < model->config.n_layers ? pass->kept[layer + 1].x1 : pass->x);
}

void rt_forward(const rt_model *model, rt_pass *pass, const rt_batch *batch, rt_tap_fn tap, void *tap_context)
{
    prepare(model, pass, batch);
    layer_job job = {model, pass, batch, 0};
    rt_pool_run(model->pool, blocks_of(pass), embed_task, &job);
    if (tap)
        tap(tap_context, 0, pass->kept[0].x1, pass->n_tokens);
    for (size_t l = 0; l < model->config.n_layers; l++) {
        if (rt_stream_want(model, l))
            run_layer(&job, l);
        if (tap)
            tap(tap_context, l + 1, l + 1 < model->config.n_layers ? pass->kept[l + 1].x1 : pass->x,
                pass->n_tokens);
    }
    rt_pool_run(model->pool, blocks_of(pass), final_task, &job);
}

/* Without keep all layers work in place on one residual stream: let it be this one. */
static void use_stream(rt_pass *pass, float *x)
{
    for (size_t l = 0; l < pass->n_layers; l++)
        pass->kept[l].x1 = pass->kept[l].x2 = x;
    pass->x = x;
}

void rt_forward_many(const rt_model *model, rt_pass *pass, const rt_batch *batches, size_t n, float *states)
{
    assert(!pass->keep);
    float *own = pass->x;
    const size_t d = model->config.n_embd, n_layers = model->config.n_layers;
    for (size_t l = 0; l <= n_layers; l++) { /* step l: the embedding, if it is the first, then layer l */
        float *x = states;
        const bool there = l < n_layers && rt_stream_want(model, l);
        for (size_t b = 0; b < n; x += batches[b].n_tokens * d, b++) {
            layer_job job = {model, pass, &batches[b], 0};
            prepare(model, pass, &batches[b]);
            use_stream(pass, x);
            if (l == 0)
                rt_pool_run(model->pool, blocks_of(pass), embed_task, &job);
            if (there)
                run_layer(&job, l);
            if (l < n_layers)
                continue;
            rt_pool_run(model->pool, blocks_of(pass), final_task, &job);
            memcpy(x, pass->hidden, pass->n_tokens * d * sizeof *x);
        }
    }
    use_stream(pass, own);
}

void rt_pass_set_hidden(const rt_model *model, rt_pass *pass, const float *states, size_t n_tokens)
{
    const size_t d = model->config.n_embd;
    assert(n_tokens <= pass->tokens_max);
    pass->n_tokens = n_tokens;
    memcpy(pass->hidden, states, n_tokens * d * sizeof *states);
    if (model->act != RT_F32)
        model->ops->to_bf16(pass->hidden_act, states, n_tokens * d);
}
