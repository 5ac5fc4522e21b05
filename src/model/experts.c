/* model/experts.c - see experts.h. */
#include "model/experts.h"

#include <assert.h>
#include <string.h>

#include "base/size.h"
#include "model/router.h"

typedef struct experts_job {
    const rt_model *model;
    rt_pass *pass;
    size_t layer;
    float *x;
} experts_job;

void rt_experts_logits(const rt_model *model, size_t layer, const float *h, size_t n, float *out)
{
    const size_t d = model->config.n_embd, count = model->config.experts.count;
    const rt_gemm_spec spec = {.m = n,
                               .n = count,
                               .k = d,
                               .lda = d,
                               .ldb = d,
                               .ldc = count,
                               .ab = RT_F32,
                               .c = RT_F32,
                               .b_transposed = true};
    rt_gemm(&spec, h, model->layers[layer].router, out);
}

/* What the experts read: float32 to be rounded to int8, or the activation type. */
static bool reads_float(const rt_model *model, size_t layer)
{
    return model->act == RT_F32 || rt_proj_is_packed(&model->layers[layer].experts[0]);
}

void rt_experts_route(const rt_model *model, rt_pass *pass, size_t layer, const float *h, size_t begin,
                      size_t n, rt_carver *scratch)
{
    const rt_expert_config *c = &model->config.experts;
    const size_t d = model->config.n_embd;
    rt_kept *kept = &pass->kept[layer];
    float *logits = rt_carve(scratch, n * c->count, sizeof *logits);
    float *room = rt_carve(scratch, 2 * c->count, sizeof *room);
    rt_experts_logits(model, layer, h, n, logits);
    for (size_t i = 0; i < n; i++) {
        uint32_t *ids = kept->expert_ids + (begin + i) * c->used;
        float *weights = kept->expert_weights + (begin + i) * c->used;
        if (pass->hold_choice)
            rt_router_weigh(weights, ids, logits + i * c->count, c, room);
        else
            rt_router_choose(ids, weights, logits + i * c->count, model->layers[layer].router_bias, c, room);
    }
    if (reads_float(model, layer))
        memcpy((float *)pass->mixture.in + begin * d, h, n * d * sizeof *h);
    else
        model->ops->to_bf16((rt_bf16 *)pass->mixture.in + begin * d, h, n * d);
}

void rt_pass_hold_choice(rt_pass *pass, const rt_pass *from, const rt_model *model)
{
    const size_t used = model->config.experts.used;
    assert(pass->keep && from->keep && from->n_tokens <= pass->tokens_max);
    pass->hold_choice = true;
    for (size_t l = 0; l < pass->n_layers; l++)
        if (pass->kept[l].expert_ids)
            memcpy(pass->kept[l].expert_ids, from->kept[l].expert_ids,
                   from->n_tokens * used * sizeof(uint32_t));
}

void rt_experts_sort(const rt_model *model, rt_pass *pass, size_t layer)
{
    const rt_expert_config *c = &model->config.experts;
    const uint32_t *ids = pass->kept[layer].expert_ids;
    rt_mixture *mix = &pass->mixture;
    const size_t n = pass->n_tokens * c->used;
    memset(mix->first, 0, (c->count + 2) * sizeof *mix->first);
    uint32_t *next = mix->first + 1; /* where the next row of an expert goes; then the beginnings */
    for (size_t i = 0; i < n; i++)
        next[ids[i] + 1]++;
    for (size_t e = 1; e <= c->count; e++)
        next[e] += next[e - 1];
    for (size_t i = 0; i < n; i++)
        mix->rows[next[ids[i]]++] = (uint32_t)i;
}

/* One run of an expert's rows a task, the long ones first so that the end is even. */
static void cut(const rt_model *model, rt_pass *pass)
{
    rt_mixture *mix = &pass->mixture;
    mix->n_tasks = 0;
    for (size_t e = 0; e < model->config.experts.count; e++)
        for (uint32_t at = mix->first[e], step; at < mix->first[e + 1]; at += step) {
            step = (uint32_t)rt_size_min(pass->block, mix->first[e + 1] - at);
            mix->tasks[mix->n_tasks++] = (rt_expert_task){(uint32_t)e, at, step};
        }
}

/* Products compile a kernel for each number of rows, so there are few of them. */
enum { ROWS_STEP = 8 };

size_t rt_experts_scratch(const rt_model *model, size_t block)
{
    const rt_expert_config *c = &model->config.experts;
    const size_t d = model->config.n_embd, rows = rt_size_round_up(block, ROWS_STEP);
    const size_t operands = rt_size_max(rt_qact_bytes(rows, d), rt_qact_bytes(rows, c->n_ff));
    return rows * (2 * d + 3 * c->n_ff) * 4 + rt_size_max(operands, rows * rt_size_max(d, c->n_ff) * 4) +
           (rows + 2) * c->count * 4 + 4096;
}

/* y [count, d]: the run's rows through the expert.  gate_up of them is kept for the backward pass. */
static const float *run_expert(const experts_job *job, const rt_expert_task *task, rt_carver *scratch)
{
    const rt_model *model = job->model;
    const rt_mixture *mix = &job->pass->mixture;
    const size_t d = model->config.n_embd, ff = model->config.experts.n_ff, used = model->config.experts.used;
    const rt_proj *gate_up = &model->layers[job->layer].experts[2 * task->expert], *down = gate_up + 1;
    const size_t n = task->count, rows = rt_size_round_up(n, ROWS_STEP);
    const size_t in_size = reads_float(model, job->layer) ? 4 : 2;
    unsigned char *in = rt_carve(scratch, rows * d, in_size);
    float *wide = rt_carve(scratch, rows * 2 * ff, sizeof *wide),
          *act = rt_carve(scratch, rows * ff, sizeof *act);
    float *y = rt_carve(scratch, rows * d, sizeof *y);
    void *room = rt_carve(
        scratch,
        rt_size_max(rt_proj_operand_bytes(model, gate_up, rows), rt_proj_operand_bytes(model, down, rows)),
        1);
    for (size_t i = 0; i < n; i++)
        memcpy(in + i * d * in_size,
               (const unsigned char *)mix->in + mix->rows[task->first + i] / used * d * in_size, d * in_size);
    memset(in + n * d * in_size, 0, (rows - n) * d * in_size);
    size_t ld = d;
    const void *operand = in;
    /* rounded rows lie in a layout of their own for each number of them */
    const size_t m_up = rt_proj_is_packed(gate_up) ? n : rows, m_down = rt_proj_is_packed(down) ? n : rows;
    if (rt_proj_is_packed(gate_up))
        operand = rt_proj_operand(model, gate_up, (const float *)(const void *)in, d, n, room, &ld);
    rt_proj_mul(model, gate_up, operand, ld, m_up, 0, 2 * ff, wide, 2 * ff, RT_F32, false);
    void *kept = job->pass->kept[job->layer].expert_gate_up;
    if (kept)
        rt_act_store(model, rt_act_at_mut(model, kept, task->first * 2 * ff), wide, n * 2 * ff);
    for (size_t i = 0; i < n; i++)
        rt_activate_row(model, act + i * ff, wide + i * 2 * ff, ff);
    memset(act + n * ff, 0, (rows - n) * ff * sizeof *act);
    operand = rt_proj_operand(model, down, act, ff, m_down, room, &ld);
    rt_proj_mul(model, down, operand, ld, m_down, 0, d, y, d, RT_F32, false);
    return y;
}

static void expert_task(void *context, size_t index, unsigned thread)
{
    const experts_job *job = context;
    const rt_mixture *mix = &job->pass->mixture;
    const rt_expert_task *task = &mix->tasks[index];
    const size_t d = job->model->config.n_embd;
    rt_carver scratch = rt_pass_scratch(job->pass, thread);
    const float *y = run_expert(job, task, &scratch);
    for (size_t i = 0; i < task->count; i++)
        memcpy(mix->out + mix->rows[task->first + i] * d, y + i * d, d * sizeof *y);
}

static void combine_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const experts_job *job = context;
    const rt_pass *pass = job->pass;
    const size_t d = job->model->config.n_embd, used = job->model->config.experts.used;
    const size_t begin = index * pass->block, end = rt_size_min(begin + pass->block, pass->n_tokens);
    const float *weights = pass->kept[job->layer].expert_weights;
    for (size_t i = begin * used; i < end * used; i++)
        job->model->ops->axpy(job->x + i / used * d, weights[i], pass->mixture.out + i * d, d);
}

void rt_experts_run(const rt_model *model, rt_pass *pass, size_t layer, float *x)
{
    experts_job job = {model, pass, layer, x};
    rt_experts_sort(model, pass, layer);
    cut(model, pass);
    rt_pool_run(model->pool, pass->mixture.n_tasks, expert_task, &job);
    rt_pool_run(model->pool, rt_size_ceil_div(pass->n_tokens, pass->block), combine_task, &job);
}
