/* model/decode.c - the forward pass over a few tokens: rows of the weights in parallel.
 *
 * With few tokens a layer is bound by reading its weights, so each product is shared out by rows of the
 * matrix; norms and the like are done by one thread.  Also: logits, which are shared out by ids. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "model/experts.h"
#include "model/latent.h"
#include "model/pass.h"

enum { ROWS_A_TASK = 96, PACKED_ROWS = 16 };

typedef struct mul_job {
    const rt_model *model;
    const rt_proj *proj;
    const void *operand;
    size_t ld, n, rows_a_task, ldo;
    float *out;
    bool add;
} mul_job;

static void mul_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const mul_job *job = context;
    const size_t begin = index * job->rows_a_task,
                 end = rt_size_min(begin + job->rows_a_task, job->proj->rows);
    rt_proj_mul(job->model, job->proj, job->operand, job->ld, job->n, begin, end, job->out + begin, job->ldo,
                RT_F32, job->add);
}

/* Rows a task: a multiple of the packed interleave, so that every task owns whole groups of each part. */
static size_t task_rows(const rt_model *model, const rt_proj *proj)
{
    const size_t threads = rt_pool_threads(model->pool);
    const size_t even = rt_size_ceil_div(proj->rows, threads * 4);
    return rt_size_max(rt_size_round_up(even, PACKED_ROWS), ROWS_A_TASK);
}

static bool parts_are_aligned(const rt_proj *proj)
{
    for (size_t i = 0; i + 1 < proj->n_packed; i++)
        if (rt_qmat_rows(proj->packed[i]) % PACKED_ROWS != 0)
            return false;
    return true;
}

static void project(const rt_model *model, const rt_proj *proj, const void *operand, size_t ld, size_t n,
                    float *out, size_t ldo, bool add)
{
    mul_job job = {model, proj, operand, ld, n, task_rows(model, proj), ldo, out, add};
    if (!parts_are_aligned(proj))
        job.rows_a_task = proj->rows;
    rt_pool_run(model->pool, rt_size_ceil_div(proj->rows, job.rows_a_task), mul_task, &job);
}

typedef struct token_job {
    const rt_model *model;
    rt_pass *pass;
    const rt_batch *batch;
    size_t layer;
} token_job;

/* x += proj(rows) + bias, through the post norm where there is one; `room` holds n rows of d. */
static void project_into(const rt_model *model, const rt_proj *proj, const float *rows, size_t n,
                         void *operand_room, float *x, float *room, const float *post)
{
    const size_t d = model->config.n_embd;
    size_t ld;
    const void *operand = rt_proj_operand(model, proj, rows, proj->cols, n, operand_room, &ld);
    const bool direct = !proj->bias && !post;
    project(model, proj, operand, ld, n, direct ? x : room, d, direct);
    for (size_t i = 0; i < n && !direct; i++) {
        float *row = room + i * d;
        if (proj->bias)
            model->ops->add(row, proj->bias, d);
        if (post)
            (void)model->ops->rms_norm(row, row, post, d, (float)model->config.norm_eps);
        model->ops->add(x + i * d, row, d);
    }
}

/* a [n, qkv.rows] -> queries, keys and values of each row, through the latents. */
static void open_latents(const token_job *job, float *a)
{
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_layer *layer = &model->layers[job->layer];
    const size_t n = pass->n_tokens, q_rank = model->config.latent.q_rank,
                 kv_rank = model->config.latent.kv_rank;
    float *cq = pass->latent, *ckv = cq + n * q_rank, *q = ckv + n * kv_rank, *kv = q + n * layer->q_b.rows;
    float *room = kv + n * layer->kv_b.rows;
    size_t ld;
    for (size_t i = 0; i < n; i++)
        rt_latent_norms(model, pass, job->layer, i, a + i * layer->qkv.rows, cq + i * q_rank,
                        ckv + i * kv_rank);
    if (q_rank) {
        const void *operand = rt_proj_operand(model, &layer->q_b, cq, q_rank, n, pass->operand, &ld);
        project(model, &layer->q_b, operand, ld, n, q, layer->q_b.rows, false);
    }
    const void *operand = rt_proj_operand(model, &layer->kv_b, ckv, kv_rank, n, pass->operand, &ld);
    project(model, &layer->kv_b, operand, ld, n, kv, layer->kv_b.rows, false);
    for (size_t i = 0; i < n; i++) {
        float *row = a + i * layer->qkv.rows;
        rt_latent_finish(model, pass, job->batch, job->layer, i, row, q_rank ? q + i * layer->q_b.rows : row,
                         kv + i * layer->kv_b.rows, room);
    }
}

/* x += the output projection of the attention's rows; narrow [n, columns of o]. */
static void leave_attention(const token_job *job, float *x, float *narrow, float *room)
{
    const rt_model *model = job->model;
    const rt_model_config *c = &model->config;
    const rt_layer *layer = &model->layers[job->layer];
    const size_t q = c->n_heads * c->head_dim, cols = layer->o.cols, n = job->pass->n_tokens;
    for (size_t i = 0; i < n; i++) {
        rt_act_load(model, room, rt_act_at(model, job->pass->kept[job->layer].att, i * q), q);
        if (cols == q)
            memcpy(narrow + i * q, room, q * sizeof *room);
        else
            rt_heads_copy(narrow + i * cols, c->latent.value, room, c->head_dim, c->latent.value, c->n_heads,
                          sizeof *room);
    }
    project_into(model, &layer->o, narrow, n, job->pass->operand, x, room, layer->norm1_post);
}

/* x += the MLP of the normed rows h. */
static void pass_mlp(const token_job *job, float *x, const float *h, float *wide, float *narrow)
{
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_layer *layer = &model->layers[job->layer];
    const size_t n = pass->n_tokens, ff = layer->down.cols;
    size_t ld;
    const void *operand =
        rt_proj_operand(model, &layer->gate_up, h, model->config.n_embd, n, pass->operand, &ld);
    project(model, &layer->gate_up, operand, ld, n, wide, layer->gate_up.rows, false);
    for (size_t i = 0; i < n; i++) {
        float *row = wide + i * layer->gate_up.rows;
        if (layer->gate_up.bias)
            model->ops->add(row, layer->gate_up.bias, layer->gate_up.rows);
        rt_activate_row(model, narrow + i * ff, row, ff);
    }
    project_into(model, &layer->down, narrow, n, pass->operand, x, wide, layer->norm2_post);
}

static void small_layer(const token_job *job)
{
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_layer *layer = &model->layers[job->layer];
    const size_t n = pass->n_tokens, d = c->n_embd;
    float *x = pass->kept[job->layer].x1, *h = pass->hidden; /* the final states are written last */
    float *wide = pass->wide, *narrow = wide + n * pass->widest_rows;
    size_t ld;

    rt_norm_rows(model, h, x, layer->norm1, layer->norm1_bias, n, NULL, NULL);
    const void *operand = rt_proj_operand(model, &layer->qkv, h, d, n, pass->operand, &ld);
    project(model, &layer->qkv, operand, ld, n, wide, layer->qkv.rows, false);
    if (rt_is_latent(model))
        open_latents(job, wide);
    for (size_t i = 0; i < n && !rt_is_latent(model); i++)
        rt_qkv_finish(model, pass, job->batch, job->layer, i, wide + i * layer->qkv.rows);
    rt_attention_rows(model, pass, job->batch, job->layer);
    leave_attention(job, x, narrow, wide);

    rt_norm_rows(model, h, x, layer->norm2, layer->norm2_bias, n, NULL, NULL);
    if (layer->experts) {
        rt_carver scratch = rt_pass_scratch(pass, 0);
        rt_experts_route(model, pass, job->layer, h, 0, n, &scratch);
    }
    if (layer->down.cols)
        pass_mlp(job, x, h, wide, narrow);
    if (layer->experts)
        rt_experts_run(model, pass, job->layer, x);
}

void rt_forward_small_layer(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer)
{
    const token_job job = {model, pass, batch, layer};
    small_layer(&job);
}

/* ---- logits ---- */

static const void *head_operand(const rt_model *model, const rt_pass *pass, size_t row, size_t n, void *room,
                                size_t *ld)
{
    const size_t d = model->config.n_embd;
    if (rt_proj_is_packed(&model->head))
        return rt_proj_operand(model, &model->head, pass->hidden + row * d, d, n, room, ld);
    *ld = d;
    return rt_act_at(model, pass->hidden_act, row * d);
}

static void finish_logits(const rt_model *model, float *out, size_t ld, size_t n, size_t count)
{
    if (model->config.logit_softcap > 0)
        for (size_t i = 0; i < n; i++)
            model->ops->softcap(out + i * ld, (float)model->config.logit_softcap, count);
}

void rt_head_logits(const rt_model *model, const rt_pass *pass, size_t row, size_t n, size_t id_begin,
                    size_t id_end, float *out, size_t ld, unsigned thread)
{
    const bool packed = rt_proj_is_packed(&model->head);
    const size_t step =
        packed ? TOKEN_BLOCK_PACKED : n; /* the packed operand of so many rows fits in scratch */
    for (size_t at = 0; at < n; at += step) {
        const size_t rows = rt_size_min(step, n - at);
        rt_carver scratch = rt_pass_scratch(pass, thread);
        void *room = packed ? rt_carve(&scratch, rt_proj_operand_bytes(model, &model->head, rows), 1) : NULL;
        size_t ld_operand;
        const void *operand = head_operand(model, pass, row + at, rows, room, &ld_operand);
        rt_proj_mul(model, &model->head, operand, ld_operand, rows, id_begin, id_end, out + at * ld, ld,
                    RT_F32, false);
    }
    finish_logits(model, out, ld, n, id_end - id_begin);
}

typedef struct logits_job {
    const rt_model *model;
    const void *operand;
    size_t ld, n;
    float *out;
} logits_job;

static void logits_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const logits_job *job = context;
    const size_t vocab = job->model->config.n_vocab, begin = index * HEAD_TILE;
    const size_t end = rt_size_min(begin + HEAD_TILE, job->model->head.rows);
    rt_proj_mul(job->model, &job->model->head, job->operand, job->ld, job->n, begin, end, job->out + begin,
                vocab, RT_F32, false);
    finish_logits(job->model, job->out + begin, vocab, job->n, end - begin);
}

/* Logits of a short head stand at the front of their row and go to the places of their ids.  From the last
 * one on: ids ascend, so that no place is written before what stands there has been read. */
static void spread(const rt_model *model, float *row)
{
    size_t end = model->config.n_vocab;
    for (size_t i = model->head.rows; i-- > 0;) {
        const size_t at = model->head_ids[i];
        row[at] = row[i];
        for (size_t k = at + 1; k < end; k++)
            row[k] = -INFINITY;
        end = at;
    }
    for (size_t k = 0; k < end; k++)
        row[k] = -INFINITY;
}

void rt_logits(const rt_model *model, const rt_pass *pass, const size_t *rows, size_t n_rows, float *out)
{
    const size_t d = model->config.n_embd, vocab = model->config.n_vocab;
    for (size_t at = 0; at < n_rows; at += SMALL_BATCH) {
        const size_t n = rt_size_min(SMALL_BATCH, n_rows - at);
        float *picked = pass->wide; /* rows side by side */
        for (size_t i = 0; i < n; i++)
            memcpy(picked + i * d, pass->hidden + rows[at + i] * d, d * sizeof *picked);
        logits_job job = {.model = model, .n = n, .out = out + at * vocab};
        job.operand = rt_proj_operand(model, &model->head, picked, d, n, pass->operand, &job.ld);
        rt_pool_run(model->pool, rt_size_ceil_div(model->head.rows, HEAD_TILE), logits_task, &job);
        for (size_t i = 0; i < n && model->head_ids; i++)
            spread(model, job.out + i * vocab);
    }
}
