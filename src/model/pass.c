/* model/pass.c - memory of a pass, and the row helpers that the passes share. */
#include "model/pass.h"

#include <assert.h>
#include <stdlib.h>

#include "base/size.h"
#include "model/experts.h"
#include "model/latent.h"
#include "model/row_source.h"

static size_t most(size_t a, size_t b) { return rt_size_max(a, b); }

static size_t widest_rows(const rt_model *model)
{
    size_t out = 0;
    for (size_t l = 0; l < model->config.n_layers; l++) {
        const rt_layer *layer = &model->layers[l];
        out = most(out, most(most(layer->qkv.rows, layer->gate_up.rows), layer->o.rows));
        out = most(out, most(layer->q_b.rows, layer->kv_b.rows));
    }
    return out;
}

static size_t widest_ff(const rt_model *model)
{
    size_t out = 0;
    for (size_t l = 0; l < model->config.n_layers; l++)
        out = most(out, rt_layer_ff(&model->config, l));
    return out;
}

static size_t widest_cols(const rt_model *model)
{
    const rt_model_config *c = &model->config;
    return most(most(most(c->n_embd, widest_ff(model)), c->n_heads * c->head_dim),
                most(c->latent.q_rank, c->latent.kv_rank));
}

static size_t widest_gate_up(const rt_model *model)
{
    size_t out = 0;
    for (size_t l = 0; l < model->config.n_layers; l++)
        out = most(out, model->layers[l].gate_up.rows);
    return out;
}

/* One walk over everything that a pass owns: with `arena` NULL it counts bytes, else it takes them. */
typedef struct taker {
    rt_arena *arena;
    size_t bytes;
    bool overflow;
} taker;

static void *take(taker *t, size_t count, size_t size)
{
    size_t bytes;
    if (!rt_size_mul(count, size, &bytes) || bytes > SIZE_MAX / 4) {
        t->overflow = true;
        return NULL;
    }
    t->bytes += rt_size_round_up(bytes, 64);
    return t->arena ? rt_arena_push_raw(t->arena, count, size) : NULL;
}

static void take_kept(taker *t, rt_kept *kept, const rt_model *model, size_t layer, size_t tokens, bool keep)
{
    const rt_model_config *c = &model->config;
    const size_t act = rt_act_size(model), q = c->n_heads * c->head_dim, kv = c->n_heads_kv * c->head_dim;
    kept->mean1 = take(t, tokens, 4);
    kept->r1 = take(t, tokens, 4);
    kept->mean2 = take(t, tokens, 4);
    kept->r2 = take(t, tokens, 4);
    kept->q = take(t, (tokens + QUERY_BLOCK) * q, act);
    kept->k = take(t, (tokens + RT_KEY_BLOCK) * kv, act);
    kept->v = take(t, (tokens + RT_KEY_BLOCK) * kv, act);
    kept->att = take(t, (tokens + QUERY_BLOCK) * q, act);
    kept->lse = take(t, c->n_heads * tokens, 4);
    const rt_expert_config *experts = &c->experts;
    if (keep ? experts->sparse[layer] : experts->count > 0) { /* without keep all layers share this */
        kept->expert_ids = take(t, tokens * experts->used, 4);
        kept->expert_weights = take(t, tokens * experts->used, 4);
    }
    if (!keep)
        return;
    if (experts->sparse[layer])
        kept->expert_gate_up = take(t, tokens * experts->used * 2 * experts->n_ff, act);
    if (rt_is_latent(model)) {
        kept->latent = take(t, tokens * model->layers[layer].qkv.rows, 4);
        kept->latent_r = take(t, tokens * 2, 4);
    }
    kept->x2 = take(t, tokens * c->n_embd, 4);
    kept->gate_up = take(t, tokens * model->layers[layer].gate_up.rows, act);
    if (c->qk_norm) {
        kept->qk_raw = take(t, tokens * (q + kv), 4);
        kept->qk_r = take(t, tokens * (c->n_heads + c->n_heads_kv), 4);
    }
    if (c->post_norms) {
        kept->o_out = take(t, tokens * c->n_embd, 4);
        kept->down_out = take(t, tokens * c->n_embd, 4);
        kept->r1_post = take(t, tokens, 4);
        kept->r2_post = take(t, tokens, 4);
    }
}

static void take_back(taker *t, rt_back *back, const rt_model *model, size_t tokens, size_t block)
{
    const rt_model_config *c = &model->config;
    const size_t act = rt_act_size(model), d = c->n_embd, q = c->n_heads * c->head_dim;
    const rt_layer *first = &model->layers[0];
    const size_t gate_up = widest_gate_up(model), qkv = first->qkv.rows;
    back->dx_act = take(t, tokens * d, act);
    back->act = take(t, tokens * widest_ff(model), act);
    back->dgate_up = take(t, tokens * gate_up, act);
    back->h = take(t, tokens * d, act);
    back->datt = take(t, (tokens + QUERY_BLOCK) * q, act);
    back->delta = take(t, tokens * c->n_heads, 4);
    back->dq = take(t, tokens * q, 4);
    back->dk = take(t, tokens * q, 4);
    back->dv = take(t, tokens * q, 4);
    back->dqkv = take(t, tokens * qkv, act);
    if (rt_is_latent(model)) {
        back->att = take(t, tokens * first->o.cols, act);
        back->dq_b = take(t, tokens * first->q_b.rows, act);
        back->dkv_b = take(t, tokens * first->kv_b.rows, act);
        back->cq = take(t, tokens * c->latent.q_rank, act);
        back->ckv = take(t, tokens * c->latent.kv_rank, act);
    }
    const size_t head_sums = most(2 * c->head_dim, c->latent.q_rank + c->latent.kv_rank);
    back->sums_a_block = rt_size_round_up(4 * d + most(gate_up, qkv + head_sums), 16);
    back->vector_sums = take(t, rt_size_ceil_div(tokens, block) * back->sums_a_block, 4);
}

static void take_mixture(taker *t, rt_mixture *mix, const rt_model *model, const rt_pass *pass)
{
    const rt_expert_config *c = &model->config.experts;
    const size_t tokens = pass->tokens_max, rows = tokens * c->used, d = model->config.n_embd;
    if (!c->count)
        return;
    mix->in = take(t, tokens * d, 4);
    mix->out = take(t, rows * d, 4);
    mix->rows = take(t, rows, 4);
    mix->first = take(t, c->count + 2, 4);
    mix->tasks = take(t, c->count + rows / pass->block + 1, sizeof *mix->tasks);
    if (pass->keep) {
        mix->dweights = take(t, rows, 4);
        mix->dlogits = take(t, tokens * c->count, rt_act_size(model));
    }
}

static void take_all(taker *t, rt_pass *pass, const rt_model *model)
{
    const size_t tokens = pass->tokens_max, d = model->config.n_embd;
    float *x = take(t, tokens * d, 4);
    for (size_t l = 0; l < pass->n_layers; l++) {
        rt_kept *kept = &pass->kept[l];
        if (l > 0 && !pass->keep) {
            *kept = pass->kept[0];
            continue;
        }
        take_kept(t, kept, model, l, tokens, pass->keep);
        kept->x1 = x; /* without keep the residual stream is updated in place */
        if (pass->keep)
            x = take(t, tokens * d, 4);
        else
            kept->x2 = x;
    }
    pass->x = x;
    pass->hidden = take(t, tokens * d, 4);
    pass->hidden_act = model->act == RT_F32 ? (void *)pass->hidden : take(t, tokens * d, 2);
    pass->mean = take(t, tokens, 4);
    pass->r = take(t, tokens, 4);
    pass->position = take(t, tokens, 4);
    pass->segment = take(t, tokens, 4);
    pass->queries_max = tokens; /* every segment has a row at least */
    pass->queries = take(t, pass->queries_max, sizeof *pass->queries);
    pass->scratch = take(t, pass->n_threads, pass->scratch_bytes);
    pass->widest_rows = most(widest_rows(model), model->config.n_heads * model->config.head_dim);
    pass->wide = take(t, SMALL_BATCH * (pass->widest_rows + widest_cols(model)), 4);
    pass->operand = take(t, SMALL_BATCH * widest_cols(model), 8);
    const size_t chunks = (size_t)SMALL_BATCH * CHUNKS_MAX;
    pass->chunks = take(t, chunks, sizeof *pass->chunks);
    pass->partial = take(t, chunks * model->config.n_heads * (model->config.head_dim + 1), 4);
    pass->latent =
        take(t, SMALL_BATCH * rt_latent_width(model) + 3 * model->config.n_heads * model->config.head_dim, 4);
    take_mixture(t, &pass->mixture, model, pass);
    if (pass->keep)
        take_back(t, &pass->back, model, tokens, pass->block);
}

static size_t block_scratch(const rt_model *model, size_t block)
{
    const size_t rows = widest_rows(model), cols = widest_cols(model);
    const rt_model_config *c = &model->config;
    size_t more = rt_latent_width(model) * block * 4;
    more += more ? 3 * c->n_heads * c->head_dim * 4 : 0;
    if (c->experts.count)
        more = most(more, rt_experts_scratch(model, block));
    return more + block * (rows + cols) * 4 + block * cols * 12 + (rows + cols) * 16 + 4096;
}

static bool shape_pass(rt_pass *pass, const rt_model *model, size_t tokens_max, bool keep, size_t context)
{
    const rt_layer *layer = &model->layers[0];
    const bool packed = rt_proj_is_packed(layer->gate_up.rows ? &layer->gate_up : &layer->experts[0]);
    pass->tokens_max = tokens_max;
    pass->keep = keep;
    pass->block = packed ? TOKEN_BLOCK_PACKED : TOKEN_BLOCK;
    pass->n_layers = model->config.n_layers;
    pass->n_threads = rt_pool_threads(model->pool);
    pass->score_ld = rt_size_round_up(context, KEY_PIECE) + 2 * KEY_PIECE + 16;
    size_t bytes = most(block_scratch(model, pass->block), rt_attention_scratch(model, pass->score_ld));
    if (keep)
        bytes = most(bytes, most(rt_attention_backward_scratch(model, pass->score_ld),
                                 rt_backward_scratch(model, pass->block)));
    pass->scratch_bytes = rt_size_round_up(bytes, 4096);
    return tokens_max > 0 && tokens_max < ((size_t)1 << 31);
}

size_t rt_pass_bytes(const rt_model *model, size_t tokens_max, bool keep)
{
    rt_pass pass = {0};
    taker t = {0};
    pass.kept = calloc(model->config.n_layers, sizeof *pass.kept);
    if (pass.kept && shape_pass(&pass, model, tokens_max, keep, keep ? tokens_max : model->config.n_context))
        take_all(&t, &pass, model);
    free(pass.kept);
    return t.bytes;
}

rt_status rt_pass_open(rt_pass **out, const rt_model *model, size_t tokens_max, bool keep, rt_error *err)
{
    *out = NULL;
    rt_pass *pass = calloc(1, sizeof *pass);
    rt_kept *kept = calloc(model->config.n_layers, sizeof *kept);
    if (!pass || !kept) {
        free(pass);
        free(kept);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a pass");
    }
    pass->kept = kept;
    taker count = {0};
    const size_t context = keep ? rt_size_min(tokens_max, model->config.n_context) : model->config.n_context;
    if (!shape_pass(pass, model, tokens_max, keep, context) ||
        (take_all(&count, pass, model), count.overflow)) {
        rt_pass_close(pass);
        return rt_error_set(err, RT_NO_MEMORY, "a batch of %zu tokens is too large", tokens_max);
    }
    if (rt_arena_init(&pass->arena, count.bytes + 64, err) != RT_OK) {
        rt_pass_close(pass);
        return err->status;
    }
    taker real = {.arena = &pass->arena};
    take_all(&real, pass, model);
    assert(real.bytes == count.bytes);
    *out = pass;
    return RT_OK;
}

void rt_pass_close(rt_pass *pass)
{
    if (!pass)
        return;
    rt_arena_deinit(&pass->arena);
    free(pass->kept);
    free(pass);
}

const float *rt_pass_hidden(const rt_pass *pass) { return pass->hidden; }
const void *rt_pass_hidden_act(const rt_pass *pass) { return pass->hidden_act; }

rt_carver rt_pass_scratch(const rt_pass *pass, unsigned thread)
{
    unsigned char *base = pass->scratch + (size_t)thread * pass->scratch_bytes;
    return (rt_carver){base, base + pass->scratch_bytes};
}

void *rt_carve(rt_carver *carver, size_t count, size_t size)
{
    void *out = carver->at;
    carver->at += rt_size_round_up(count * size, 64);
    assert(carver->at <= carver->end);
    return out;
}

void rt_act_store(const rt_model *model, void *out, const float *x, size_t n)
{
    if (model->act == RT_F32)
        memcpy(out, x, n * sizeof *x);
    else
        model->ops->to_bf16(out, x, n);
}

void rt_act_load(const rt_model *model, float *out, const void *x, size_t n)
{
    if (model->act == RT_F32)
        memcpy(out, x, n * sizeof *out);
    else
        model->ops->from_bf16(out, x, n);
}

size_t rt_proj_operand_bytes(const rt_model *model, const rt_proj *proj, size_t n)
{
    return rt_proj_is_packed(proj) ? rt_qact_bytes(n, proj->cols) : n * proj->cols * rt_act_size(model);
}

const void *rt_proj_operand(const rt_model *model, const rt_proj *proj, const float *x, size_t ld, size_t n,
                            void *room, size_t *ld_out)
{
    *ld_out = proj->cols;
    if (rt_proj_is_packed(proj)) {
        rt_qact_quantise(room, x, ld, n, proj->cols);
        return room;
    }
    if (model->act == RT_F32) {
        *ld_out = ld;
        return x;
    }
    for (size_t i = 0; i < n; i++)
        model->ops->to_bf16((rt_bf16 *)room + i * proj->cols, x + i * ld, proj->cols);
    return room;
}

void rt_proj_mul(const rt_model *model, const rt_proj *proj, const void *operand, size_t ld, size_t n,
                 size_t row_begin, size_t row_end, void *out, size_t ldo, rt_dtype out_type, bool add)
{
    if (proj->source) {
        rt_row_source_mul(proj->source, operand, ld, n, row_begin, row_end, out, ldo, out_type, add);
        return;
    }
    if (!rt_proj_is_packed(proj)) {
        const rt_gemm_spec spec = {.m = n,
                                   .n = row_end - row_begin,
                                   .k = proj->cols,
                                   .lda = ld,
                                   .ldb = proj->cols,
                                   .ldc = ldo,
                                   .ab = model->act,
                                   .c = out_type,
                                   .b_transposed = true,
                                   .accumulate = add};
        rt_gemm(&spec, operand, rt_act_at(model, proj->w, row_begin * proj->cols), out);
        return;
    }
    assert(out_type == RT_F32);
    size_t first = 0; /* row of the projection where the present part begins */
    for (size_t i = 0; i < proj->n_packed; i++) {
        const size_t rows = rt_qmat_rows(proj->packed[i]);
        const size_t begin = most(row_begin, first), end = rt_size_min(row_end, first + rows);
        if (begin < end) /* y is indexed by the part's own row number */
            rt_qmat_mul((float *)out + (begin - row_begin) - (begin - first), ldo, proj->packed[i],
                        begin - first, end - first, operand, n, add);
        first += rows;
    }
}

void rt_norm_rows(const rt_model *model, float *out, const float *x, const float *w, const float *bias,
                  size_t n, float *mean, float *r)
{
    const size_t d = model->config.n_embd;
    const float eps = (float)model->config.norm_eps;
    for (size_t i = 0; i < n; i++) {
        float m = 0, s;
        if (model->config.norm == RT_NORM_RMS)
            s = model->ops->rms_norm(out + i * d, x + i * d, w, d, eps);
        else
            s = model->ops->layer_norm(out + i * d, &m, x + i * d, w, bias, d, eps);
        if (mean)
            mean[i] = m;
        if (r)
            r[i] = s;
    }
}

void rt_activate_row(const rt_model *model, float *out, const float *gate_up, size_t ff)
{
    const rt_model_config *c = &model->config;
    const rt_ops *ops = model->ops;
    const bool silu = c->act == RT_ACT_SILU;
    if (c->gated_mlp)
        (silu ? ops->silu_gate : ops->gelu_gate)(out, gate_up, gate_up + ff, ff);
    else
        (silu ? ops->silu : ops->gelu)(out, gate_up, ff);
}

void rt_activate_row_backward(const rt_model *model, float *dgate_up, const float *dout, const float *gate_up,
                              size_t ff)
{
    const rt_model_config *c = &model->config;
    const rt_ops *ops = model->ops;
    const bool silu = c->act == RT_ACT_SILU;
    if (c->gated_mlp)
        (silu ? ops->silu_gate_backward : ops->gelu_gate_backward)(dgate_up, dgate_up + ff, dout, gate_up,
                                                                   gate_up + ff, ff);
    else
        (silu ? ops->silu_backward : ops->gelu_backward)(dgate_up, dout, gate_up, ff);
}

const rt_rope *rt_layer_rope(const rt_model *model, size_t layer)
{
    return model->rope_local && model->config.window[layer] ? model->rope_local : model->rope;
}
