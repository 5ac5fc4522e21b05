/* model/latent.c - see latent.h. */
#include "model/latent.h"

#include <string.h>

#include "base/size.h"

size_t rt_latent_width(const rt_model *model)
{
    const rt_model_config *c = &model->config;
    const rt_latent_config *lat = &c->latent;
    if (!lat->kv_rank)
        return 0;
    return lat->q_rank + lat->kv_rank + c->n_heads * (2 * lat->nope + lat->rope + lat->value);
}

void rt_heads_copy(void *out, size_t to, const void *in, size_t from, size_t count, size_t heads, size_t size)
{
    for (size_t h = 0; h < heads; h++) {
        unsigned char *head = (unsigned char *)out + h * to * size;
        memcpy(head, (const unsigned char *)in + h * from * size, count * size);
        memset(head + count * size, 0, (to - count) * size);
    }
}

/* Where the latent of keys and values begins in a. */
static size_t kv_at(const rt_model *model)
{
    return model->layers[0].qkv.rows - model->config.latent.kv_rank - model->config.latent.rope;
}

void rt_latent_norms(const rt_model *model, rt_pass *pass, size_t layer, size_t row, float *a, float *cq,
                     float *ckv)
{
    const rt_latent_config *lat = &model->config.latent;
    const rt_layer *l = &model->layers[layer];
    rt_kept *kept = &pass->kept[layer];
    const float eps = (float)lat->norm_eps;
    float r[2] = {0};
    if (l->qkv.bias)
        model->ops->add(a, l->qkv.bias, l->qkv.rows);
    if (lat->q_rank)
        r[0] = model->ops->rms_norm(cq, a, l->q_a_norm, lat->q_rank, eps);
    r[1] = model->ops->rms_norm(ckv, a + kv_at(model), l->kv_a_norm, lat->kv_rank, eps);
    if (kept->latent)
        memcpy(kept->latent + row * l->qkv.rows, a, l->qkv.rows * sizeof *a);
    if (kept->latent_r)
        memcpy(kept->latent_r + row * 2, r, sizeof r);
}

void rt_latent_finish(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t row,
                      const float *a, float *q, const float *kv, float *room)
{
    const rt_model_config *c = &model->config;
    const rt_latent_config *lat = &c->latent;
    const size_t hd = c->head_dim, qk = lat->nope + lat->rope, all = c->n_heads * hd;
    const rt_rope *rope = rt_layer_rope(model, layer);
    const float *cosines = rope->cosines + pass->position[row] * rope->half,
                *sines = rope->sines + pass->position[row] * rope->half;
    float *keys = room + all, *values = keys + all;
    for (size_t h = 0; h < c->n_heads; h++)
        model->ops->rope(q + h * qk + lat->nope, cosines, sines, rope->half, 1.0f);
    rt_heads_copy(room, hd, q, qk, qk, c->n_heads, sizeof *q);
    rt_heads_copy(keys, hd, kv, lat->nope + lat->value, lat->nope, c->n_heads, sizeof *kv);
    rt_heads_copy(values, hd, kv + lat->nope, lat->nope + lat->value, lat->value, c->n_heads, sizeof *kv);
    float *turned = keys + lat->nope; /* the first head's; the others get copies */
    memcpy(turned, a + kv_at(model) + lat->kv_rank, lat->rope * sizeof *a);
    model->ops->rope(turned, cosines, sines, rope->half, 1.0f);
    for (size_t h = 1; h < c->n_heads; h++)
        memcpy(turned + h * hd, turned, lat->rope * sizeof *a);
    rt_qkv_store(model, pass, batch, layer, row, room);
}

/* out [n, proj.rows] = the projection of x [n, proj.cols] */
static void project(const rt_model *model, const rt_proj *proj, const float *x, size_t n, float *out,
                    rt_carver scratch)
{
    size_t ld;
    void *room = rt_carve(&scratch, rt_proj_operand_bytes(model, proj, n), 1);
    const void *operand = rt_proj_operand(model, proj, x, proj->cols, n, room, &ld);
    rt_proj_mul(model, proj, operand, ld, n, 0, proj->rows, out, proj->rows, RT_F32, false);
}

void rt_latent_block(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t begin,
                     size_t n, float *a, rt_carver *scratch)
{
    const rt_model_config *c = &model->config;
    const rt_layer *l = &model->layers[layer];
    const size_t q_rank = c->latent.q_rank, kv_rank = c->latent.kv_rank, rows = l->qkv.rows;
    float *cq = rt_carve(scratch, n * q_rank, sizeof *cq), *ckv = rt_carve(scratch, n * kv_rank, sizeof *ckv);
    float *q = rt_carve(scratch, n * l->q_b.rows, sizeof *q),
          *kv = rt_carve(scratch, n * l->kv_b.rows, sizeof *kv);
    float *room = rt_carve(scratch, 3 * c->n_heads * c->head_dim, sizeof *room);
    for (size_t i = 0; i < n; i++)
        rt_latent_norms(model, pass, layer, begin + i, a + i * rows, cq + i * q_rank, ckv + i * kv_rank);
    if (q_rank)
        project(model, &l->q_b, cq, n, q, *scratch);
    project(model, &l->kv_b, ckv, n, kv, *scratch);
    for (size_t i = 0; i < n; i++)
        rt_latent_finish(model, pass, batch, layer, begin + i, a + i * rows,
                         q_rank ? q + i * l->q_b.rows : a + i * rows, kv + i * l->kv_b.rows, room);
}
