/* model/decode.c - the forward pass over a few tokens: rows of the weights in parallel.
 *
 * With few tokens a layer is bound by reading its weights, so each product is shared out by rows of the
 * matrix; norms and the like are done by one thread.  Also: logits, which are shared out by ids. */
#include <string.h>

#include "base/size.h"
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

static void small_layer(const token_job *job)
{
    const rt_model *model = job->model;
    rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_layer *layer = &model->layers[job->layer];
    const size_t n = pass->n_tokens, d = c->n_embd, q = c->n_heads * c->head_dim;
    float *x = pass->kept[job->layer].x1, *h = pass->hidden; /* the final states are written last */
    float *wide = pass->wide, *narrow = wide + n * rt_size_max(layer->gate_up.rows, layer->qkv.rows);
    size_t ld;

    rt_norm_rows(model, h, x, layer->norm1, layer->norm1_bias, n, NULL, NULL);
    const void *operand = rt_proj_operand(model, &layer->qkv, h, d, n, pass->operand, &ld);
    project(model, &layer->qkv, operand, ld, n, wide, layer->qkv.rows, false);
    for (size_t i = 0; i < n; i++)
        rt_qkv_finish(model, pass, job->batch, job->layer, i, wide + i * layer->qkv.rows);
    rt_attention_rows(model, pass, job->batch, job->layer);
    for (size_t i = 0; i < n; i++)
        rt_act_load(model, narrow + i * q, rt_act_at(model, pass->kept[job->layer].att, i * q), q);
    project_into(model, &layer->o, narrow, n, pass->operand, x, wide, layer->norm1_post);

    rt_norm_rows(model, h, x, layer->norm2, layer->norm2_bias, n, NULL, NULL);
    operand = rt_proj_operand(model, &layer->gate_up, h, d, n, pass->operand, &ld);
    project(model, &layer->gate_up, operand, ld, n, wide, layer->gate_up.rows, false);
    for (size_t i = 0; i < n; i++) {
        float *row = wide + i * layer->gate_up.rows;
        if (layer->gate_up.bias)
            model->ops->add(row, layer->gate_up.bias, layer->gate_up.rows);
        rt_activate_row(model, narrow + i * c->n_ff, row);
    }
    project_into(model, &layer->down, narrow, n, pass->operand, x, wide, layer->norm2_post);
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
    const size_t end = rt_size_min(begin + HEAD_TILE, vocab);
    rt_proj_mul(job->model, &job->model->head, job->operand, job->ld, job->n, begin, end, job->out + begin,
                vocab, RT_F32, false);
    finish_logits(job->model, job->out + begin, vocab, job->n, end - begin);
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
        rt_pool_run(model->pool, rt_size_ceil_div(vocab, HEAD_TILE), logits_task, &job);
    }
}
