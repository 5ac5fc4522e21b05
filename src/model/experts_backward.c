/* model/experts_backward.c - the gradient through a mixture of experts.
 *
 * With y_j the output of a token's expert j, w_j its weight, dx the gradient of the sum:
 *   dact = W_downᵀ dx;  dw_j = dact . act (= dx . y_j, without y_j);  then w_j dact goes on as in any MLP.
 * A task takes a whole expert: it is the only one that adds to the gradients of its matrices. */
#include <string.h>

#include "base/size.h"
#include "model/backward_parts.h"
#include "model/experts.h"
#include "model/router.h"

enum { ROWS_STEP = 8 }; /* as in the forward pass: few numbers of rows, few compiled products */

typedef struct tiles {         /* of a run of one expert's rows; act: the activation type */
    void *dx, *h;              /* [rows, d] act */
    float *dact;               /* [rows, ff] */
    void *scaled;              /* [rows, ff] act: the activation times the weight */
    void *dgate_up;            /* [rows, 2 ff] act */
    float *dh;                 /* [rows, d] */
    float *wide, *dwide, *one; /* [2 ff], [2 ff], [ff] */
} tiles;

size_t rt_experts_backward_scratch(const rt_model *model, size_t block)
{
    const rt_expert_config *c = &model->config.experts;
    const size_t d = model->config.n_embd, rows = rt_size_round_up(block, ROWS_STEP);
    return rows * (3 * d + 4 * c->n_ff) * 4 + (5 * c->n_ff + c->count + d) * 4 + block * (c->count + d) * 4 +
           8192;
}

static tiles carve(const rt_model *model, rt_carver *scratch, size_t rows)
{
    const size_t d = model->config.n_embd, ff = model->config.experts.n_ff, act = rt_act_size(model);
    tiles t;
    t.dx = rt_carve(scratch, rows * d, act);
    t.h = rt_carve(scratch, rows * d, act);
    t.dact = rt_carve(scratch, rows * ff, 4);
    t.scaled = rt_carve(scratch, rows * ff, act);
    t.dgate_up = rt_carve(scratch, rows * 2 * ff, act);
    t.dh = rt_carve(scratch, rows * d, 4);
    t.wide = rt_carve(scratch, 2 * ff, 4);
    t.dwide = rt_carve(scratch, 2 * ff, 4);
    t.one = rt_carve(scratch, ff, 4);
    return t;
}

static void gather(const rt_back_job *job, const tiles *t, const uint32_t *rows, size_t n, size_t padded)
{
    const rt_back *back = &job->pass->back;
    const size_t d = job->model->config.n_embd, used = job->model->config.experts.used,
                 bytes = d * rt_act_size(job->model);
    for (size_t i = 0; i < n; i++) {
        const size_t token = rows[i] / used;
        memcpy((unsigned char *)t->dx + i * bytes, (const unsigned char *)back->dx_act + token * bytes,
               bytes);
        memcpy((unsigned char *)t->h + i * bytes, (const unsigned char *)back->h + token * bytes, bytes);
    }
    memset((unsigned char *)t->dx + n * bytes, 0, (padded - n) * bytes);
    memset((unsigned char *)t->h + n * bytes, 0, (padded - n) * bytes);
}

/* dw [rows, cols] += dyᵀ [rows, n] x [n, cols] */
static void add_weight_gradient(const rt_model *model, const void *dy, size_t rows, const void *x,
                                size_t cols, size_t n, float *dw)
{
    const rt_gemm_spec spec = {.m = rows,
                               .n = cols,
                               .k = n,
                               .lda = rows,
                               .ldb = cols,
                               .ldc = cols,
                               .ab = model->act,
                               .c = RT_F32,
                               .a_transposed = true,
                               .accumulate = true};
    rt_gemm(&spec, dy, x, dw);
}

/* Rows [at, at + n) of the sorted list, all of one expert. */
static void run_backward(const rt_back_job *job, size_t expert, size_t at, size_t n, const tiles *t)
{
    const rt_model *model = job->model;
    const rt_mixture *mix = &job->pass->mixture;
    const rt_kept *kept = &job->pass->kept[job->layer];
    const rt_proj *gate_up = &model->layers[job->layer].experts[2 * expert], *down = gate_up + 1;
    const size_t d = model->config.n_embd, ff = model->config.experts.n_ff,
                 padded = rt_size_round_up(n, ROWS_STEP);
    gather(job, t, mix->rows + at, n, padded);
    rt_through_weights(model, down, t->dx, padded, t->dact);
    for (size_t i = 0; i < padded; i++) {
        void *scaled = rt_act_at_mut(model, t->scaled, i * ff),
             *dgate_up = rt_act_at_mut(model, t->dgate_up, i * 2 * ff);
        if (i >= n) {
            memset(scaled, 0, ff * rt_act_size(model));
            memset(dgate_up, 0, 2 * ff * rt_act_size(model));
            continue;
        }
        const size_t row = mix->rows[at + i];
        float *dact = t->dact + i * ff;
        rt_act_load(model, t->wide, rt_act_at(model, kept->expert_gate_up, (at + i) * 2 * ff), 2 * ff);
        rt_activate_row(model, t->one, t->wide, ff);
        mix->dweights[row] = (float)model->ops->dot(dact, t->one, ff);
        model->ops->scale(t->one, kept->expert_weights[row], ff);
        model->ops->scale(dact, kept->expert_weights[row], ff);
        rt_act_store(model, scaled, t->one, ff);
        rt_activate_row_backward(model, t->dwide, dact, t->wide, ff);
        rt_act_store(model, dgate_up, t->dwide, 2 * ff);
    }
    rt_through_weights(model, gate_up, t->dgate_up, padded, t->dh);
    for (size_t i = 0; i < n; i++)
        memcpy(mix->out + mix->rows[at + i] * d, t->dh + i * d, d * sizeof *t->dh);
    float *dw_up =
        job->grads +
        rt_layout_role(job->layout, job->layer, rt_expert_role(RT_ROLE_EXPERT_GATE, expert))->offset;
    float *dw_down =
        job->grads +
        rt_layout_role(job->layout, job->layer, rt_expert_role(RT_ROLE_EXPERT_DOWN, expert))->offset;
    add_weight_gradient(model, t->dx, d, t->scaled, ff, padded, dw_down);
    add_weight_gradient(model, t->dgate_up, 2 * ff, t->h, d, padded, dw_up);
}

static void expert_task(void *context, size_t expert, unsigned thread)
{
    const rt_back_job *job = context;
    const rt_mixture *mix = &job->pass->mixture;
    rt_carver scratch = rt_pass_scratch(job->pass, thread);
    const tiles t = carve(job->model, &scratch, rt_size_round_up(job->pass->block, ROWS_STEP));
    for (size_t at = mix->first[expert], n; at < mix->first[expert + 1]; at += n) {
        n = rt_size_min(job->pass->block, mix->first[expert + 1] - at);
        run_backward(job, expert, at, n, &t);
    }
}

void rt_experts_backward(const rt_back_job *job)
{
    rt_experts_sort(job->model, job->pass, job->layer);
    rt_pool_run(job->model->pool, job->model->config.experts.count, expert_task, (void *)(size_t)job);
}

void rt_experts_input_backward(const rt_back_job *job, size_t begin, size_t n, const float *h, float *dh,
                               rt_carver *scratch)
{
    const rt_model *model = job->model;
    const rt_expert_config *c = &model->config.experts;
    const rt_mixture *mix = &job->pass->mixture;
    const rt_layer *layer = &model->layers[job->layer];
    const size_t d = model->config.n_embd;
    float *logits = rt_carve(scratch, n * c->count, sizeof *logits);
    float *dlogits = rt_carve(scratch, c->count, sizeof *dlogits);
    rt_experts_logits(model, job->layer, h, n, logits);
    for (size_t i = 0; i < n; i++) {
        const size_t row = begin + i;
        for (size_t j = 0; j < c->used; j++)
            model->ops->add(dh + i * d, mix->out + (row * c->used + j) * d, d);
        rt_router_backward(dlogits, mix->dweights + row * c->used, logits + i * c->count,
                           job->pass->kept[job->layer].expert_ids + row * c->used, c);
        rt_act_store(model, rt_act_at_mut(model, mix->dlogits, row * c->count), dlogits, c->count);
        for (size_t e = 0; e < c->count; e++)
            if (dlogits[e] != 0)
                model->ops->axpy(dh + i * d, dlogits[e], layer->router + e * d, d);
    }
}
