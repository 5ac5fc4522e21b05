/* model/latent_backward.c - the gradient of latent attention's projections (latent.h). */
#include <string.h>

#include "base/size.h"
#include "model/backward_parts.h"
#include "model/latent.h"

size_t rt_latent_backward_scratch(const rt_model *model, size_t block)
{
    const rt_latent_config *lat = &model->config.latent;
    return (block * (lat->q_rank + lat->kv_rank) + rt_latent_width(model) + 2 * model->layers[0].qkv.rows +
            2 * lat->rope) *
               4 +
           4096;
}

typedef struct row_gradients {
    float *q;      /* [heads * (nope + rope)] */
    float *kv;     /* [heads * (nope + value)] */
    float *turned; /* [rope] of the shared part of the keys */
} row_gradients;

/* Gradients of a row's queries, keys and values back to what the projections gave. */
static void close_heads(const rt_back_job *job, size_t row, const row_gradients *out)
{
    const rt_model *model = job->model;
    const rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_latent_config *lat = &c->latent;
    const rt_rope *rope = rt_layer_rope(model, job->layer);
    const float *cosines = rope->cosines + pass->position[row] * rope->half,
                *sines = rope->sines + pass->position[row] * rope->half;
    const size_t hd = c->head_dim, qk = lat->nope + lat->rope, kv = lat->nope + lat->value;
    rt_heads_copy(out->q, qk, pass->back.dq + row * c->n_heads * hd, hd, qk, c->n_heads, sizeof(float));
    memset(out->turned, 0, lat->rope * sizeof(float));
    for (size_t h = 0; h < c->n_heads; h++) {
        const float *dk = pass->back.dk + (h * pass->tokens_max + row) * hd,
                    *dv = pass->back.dv + (h * pass->tokens_max + row) * hd;
        model->ops->rope(out->q + h * qk + lat->nope, cosines, sines, rope->half, -1.0f);
        memcpy(out->kv + h * kv, dk, lat->nope * sizeof *dk);
        memcpy(out->kv + h * kv + lat->nope, dv, lat->value * sizeof *dv);
        model->ops->add(out->turned, dk + lat->nope, lat->rope);
    }
    model->ops->rope(out->turned, cosines, sines, rope->half, -1.0f);
}

/* da [n] += through a norm; the normed latent again, for the weights' gradient. */
static void norm_backward(const rt_model *model, float *da, float *dw, const float *dy, const float *a,
                          const float *w, float r, size_t n, void *normed, float *room)
{
    memset(da, 0, n * sizeof *da);
    model->ops->rms_norm_backward(da, dw, dy, a, w, r, n);
    (void)model->ops->rms_norm(room, a, w, n, (float)model->config.latent.norm_eps);
    rt_act_store(model, normed, room, n);
}

void rt_latent_backward(const rt_back_job *job, size_t begin, size_t n, const rt_vector_sums *sums,
                        rt_carver *scratch)
{
    const rt_model *model = job->model;
    const rt_latent_config *lat = &model->config.latent;
    const rt_layer *l = &model->layers[job->layer];
    const rt_kept *kept = &job->pass->kept[job->layer];
    const rt_back *back = &job->pass->back;
    const size_t rows = l->qkv.rows, kv_at = rows - lat->kv_rank - lat->rope, q_rank = lat->q_rank;
    float *dcq = rt_carve(scratch, n * q_rank, 4), *dckv = rt_carve(scratch, n * lat->kv_rank, 4);
    float *da = rt_carve(scratch, rows, 4), *room = rt_carve(scratch, rows, 4);
    const size_t qk = model->config.n_heads * (lat->nope + lat->rope);
    const row_gradients one = {rt_carve(scratch, qk, 4), rt_carve(scratch, l->kv_b.rows, 4),
                               rt_carve(scratch, lat->rope, 4)};
    for (size_t i = begin; i < begin + n; i++) {
        close_heads(job, i, &one);
        rt_act_store(model, rt_act_at_mut(model, back->dkv_b, i * l->kv_b.rows), one.kv, l->kv_b.rows);
        if (q_rank)
            rt_act_store(model, rt_act_at_mut(model, back->dq_b, i * qk), one.q, qk);
    }
    rt_through_weights(model, &l->kv_b, rt_act_at(model, back->dkv_b, begin * l->kv_b.rows), n, dckv);
    if (q_rank)
        rt_through_weights(model, &l->q_b, rt_act_at(model, back->dq_b, begin * qk), n, dcq);
    for (size_t i = 0; i < n; i++) {
        const size_t row = begin + i;
        const float *a = kept->latent + row * rows, *r = kept->latent_r + row * 2;
        close_heads(job, row, &one); /* again: cheaper than to keep it */
        if (q_rank)
            norm_backward(model, da, sums->q_norm, dcq + i * q_rank, a, l->q_a_norm, r[0], q_rank,
                          rt_act_at_mut(model, back->cq, row * q_rank), room);
        else
            memcpy(da, one.q, qk * sizeof *da);
        norm_backward(model, da + kv_at, sums->k_norm, dckv + i * lat->kv_rank, a + kv_at, l->kv_a_norm, r[1],
                      lat->kv_rank, rt_act_at_mut(model, back->ckv, row * lat->kv_rank), room);
        memcpy(da + kv_at + lat->kv_rank, one.turned, lat->rope * sizeof *da);
        if (l->qkv.bias)
            model->ops->add(sums->bias, da, rows);
        rt_act_store(model, rt_act_at_mut(model, back->dqkv, row * rows), da, rows);
    }
}
