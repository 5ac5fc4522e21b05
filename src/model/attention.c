/* model/attention.c - causal attention over packed sequences: forward, backward, and one token.
 *
 * A task is a block of QUERY_BLOCK rows of one sequence.  Scores of the block against all keys that any
 * of its rows sees are one tile of scratch; products run over KEY_PIECE keys at a time, so that only a few
 * shapes ever occur, and read up to RT_KEY_BLOCK - 1 keys past the end, whose probabilities are zero.
 * The backward pass recomputes the probabilities from the kept log-sum-exp:
 *   dV += Pᵀ dO;  dP = dO Vᵀ;  dS = P (dP - rowsum(dO O)) scale;  dQ = dS K;  dK += dSᵀ Q. */
#include <assert.h>
#include <string.h>

#include "base/size.h"
#include "model/pass.h"

/* The keys that a block of queries sees: [begin, end) visible to some row, padded to whole key blocks. */
typedef struct key_range {
    size_t begin, padded; /* padded: number of keys from begin, a multiple of RT_KEY_BLOCK */
} key_range;

static key_range keys_of(size_t window, size_t first_position, size_t count)
{
    size_t begin = 0;
    if (window && first_position + 1 > window)
        begin = (first_position + 1 - window) / RT_KEY_BLOCK * RT_KEY_BLOCK;
    return (key_range){begin, rt_size_round_up(first_position + count - begin, RT_KEY_BLOCK)};
}

/* Row r of the block, at `position`: keys [low, high) of the range are seen. */
static void row_range(size_t window, size_t position, size_t range_begin, size_t *low, size_t *high)
{
    const size_t from = window && position + 1 > window ? position + 1 - window : 0;
    *low = from - rt_size_min(from, range_begin);
    *high = position + 1 - range_begin;
}

typedef struct head_view { /* one kv head's rows, and the products' common numbers */
    const rt_model *model;
    size_t head_dim, ld_q, ld_kv, score_ld;
} head_view;

static head_view view_of(const rt_model *model, const rt_pass *pass)
{
    const rt_model_config *c = &model->config;
    return (head_view){model, c->head_dim, c->n_heads * c->head_dim, c->n_heads_kv * c->head_dim,
                       pass->score_ld};
}

/* scores [QUERY_BLOCK, n_keys] = rows (ld_rows apart) times keysᵀ */
static void times_keys(const head_view *v, float *scores, const void *rows, size_t ld_rows, const void *keys,
                       size_t n_keys)
{
    rt_gemm_spec spec = {.m = QUERY_BLOCK,
                         .k = v->head_dim,
                         .lda = ld_rows,
                         .ldb = v->ld_kv,
                         .ldc = v->score_ld,
                         .ab = v->model->act,
                         .c = RT_F32,
                         .b_transposed = true};
    for (size_t at = 0; at < n_keys; at += spec.n) {
        spec.n = rt_size_min(KEY_PIECE, n_keys - at);
        rt_gemm(&spec, rows, rt_act_at(v->model, keys, at * v->ld_kv), scores + at);
    }
}

/* out [QUERY_BLOCK, head_dim] = weights [QUERY_BLOCK, n_keys] times rows of K or V */
static void weigh_rows(const head_view *v, float *out, const void *weights, const void *rows, size_t n_keys)
{
    rt_gemm_spec spec = {.m = QUERY_BLOCK,
                         .n = v->head_dim,
                         .lda = v->score_ld,
                         .ldb = v->ld_kv,
                         .ldc = v->head_dim,
                         .ab = v->model->act,
                         .c = RT_F32};
    for (size_t at = 0; at < n_keys; at += spec.k) {
        spec.k = rt_size_min(KEY_PIECE, n_keys - at);
        spec.accumulate = at > 0;
        rt_gemm(&spec, rt_act_at(v->model, weights, at), rt_act_at(v->model, rows, at * v->ld_kv), out);
    }
}

/* out [n_keys, head_dim] += weightsᵀ [n_keys, QUERY_BLOCK] times rows [QUERY_BLOCK, head_dim] */
static void spread_rows(const head_view *v, float *out, const void *weights, const void *rows, size_t ld_rows,
                        size_t n_keys)
{
    rt_gemm_spec spec = {.n = v->head_dim,
                         .k = QUERY_BLOCK,
                         .lda = v->score_ld,
                         .ldb = ld_rows,
                         .ldc = v->head_dim,
                         .ab = v->model->act,
                         .c = RT_F32,
                         .a_transposed = true,
                         .accumulate = true};
    for (size_t at = 0; at < n_keys; at += spec.m) {
        spec.m = rt_size_min(KEY_PIECE, n_keys - at);
        rt_gemm(&spec, rt_act_at(v->model, weights, at), rows, out + at * v->head_dim);
    }
}

size_t rt_attention_scratch(const rt_model *model, size_t score_ld)
{
    return QUERY_BLOCK * (score_ld * (4 + rt_act_size(model)) + model->config.head_dim * 4) + 1024;
}

void *rt_segment_keys(const rt_model *model, const rt_pass *pass, const rt_batch *batch, size_t layer,
                      size_t segment, bool values)
{
    const rt_segment *s = &batch->segments[segment];
    const size_t ld = model->config.n_heads_kv * model->config.head_dim;
    if (s->k)
        return rt_act_at_mut(model, values ? s->v : s->k, layer * s->layer_stride);
    return rt_act_at_mut(model, values ? pass->kept[layer].v : pass->kept[layer].k, s->begin * ld);
}

/* Turns a row of scores into probabilities in the activation type; keys that the row does not see get 0. */
static float finish_row(const rt_model *model, void *out, float *scores, size_t low, size_t high,
                        size_t n_keys)
{
    memset(scores, 0, low * sizeof *scores);
    const float lse = model->ops->softmax(scores + low, high - low, (float)model->config.attention_scale);
    memset(scores + high, 0, (n_keys - high) * sizeof *scores);
    if (out != scores)
        rt_act_store(model, out, scores, n_keys);
    return lse;
}

void rt_attention_block(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer,
                        size_t query, size_t head_kv, unsigned thread)
{
    const rt_model_config *c = &model->config;
    const rt_query_task task = pass->queries[query];
    const rt_segment *segment = &batch->segments[task.segment];
    const rt_kept *kept = &pass->kept[layer];
    const head_view v = view_of(model, pass);
    const size_t window = c->window[layer], first = segment->position + (task.row - segment->begin);
    const key_range range = keys_of(window, first, task.count);
    const size_t key_at = range.begin * v.ld_kv + head_kv * v.head_dim;
    const void *keys =
        rt_act_at(model, rt_segment_keys(model, pass, batch, layer, task.segment, false), key_at);
    const void *values =
        rt_act_at(model, rt_segment_keys(model, pass, batch, layer, task.segment, true), key_at);
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *scores = rt_carve(&scratch, QUERY_BLOCK * v.score_ld, 4);
    void *weights = model->act == RT_F32 ? scores : rt_carve(&scratch, QUERY_BLOCK * v.score_ld, 2);
    float *out = rt_carve(&scratch, QUERY_BLOCK * v.head_dim, 4);
    const size_t group = c->n_heads / c->n_heads_kv;
    for (size_t head = head_kv * group; head < (head_kv + 1) * group; head++) {
        const size_t q_at = task.row * v.ld_q + head * v.head_dim;
        times_keys(&v, scores, rt_act_at(model, kept->q, q_at), v.ld_q, keys, range.padded);
        for (size_t r = 0; r < QUERY_BLOCK; r++) {
            void *row = rt_act_at_mut(model, weights, r * v.score_ld);
            if (r >= task.count) {
                memset(row, 0, range.padded * rt_act_size(model));
                continue;
            }
            size_t low, high;
            row_range(window, first + r, range.begin, &low, &high);
            kept->lse[head * pass->tokens_max + task.row + r] =
                finish_row(model, row, scores + r * v.score_ld, low, high, range.padded);
        }
        weigh_rows(&v, out, weights, values, range.padded);
        for (size_t r = 0; r < task.count; r++)
            rt_act_store(model, rt_act_at_mut(model, kept->att, q_at + r * v.ld_q), out + r * v.head_dim,
                         v.head_dim);
    }
}

/* ---- backward ---- */

size_t rt_attention_backward_scratch(const rt_model *model, size_t score_ld)
{
    return QUERY_BLOCK * (score_ld * 2 * (4 + rt_act_size(model)) + model->config.head_dim * 4) +
           score_ld * 2 * model->config.head_dim * 4 + 4096;
}

typedef struct backward_tiles {
    float *scores, *dp; /* [QUERY_BLOCK, score_ld] */
    void *p, *ds;       /* the same in the activation type */
    float *dq;          /* [QUERY_BLOCK, head_dim] */
    float *dk, *dv;     /* [keys of the segment, padded; head_dim] */
} backward_tiles;

static backward_tiles carve_tiles(rt_carver *scratch, const head_view *v)
{
    const bool plain = v->model->act == RT_F32;
    backward_tiles t;
    t.scores = rt_carve(scratch, QUERY_BLOCK * v->score_ld, 4);
    t.dp = rt_carve(scratch, QUERY_BLOCK * v->score_ld, 4);
    t.p = plain ? (void *)t.scores : rt_carve(scratch, QUERY_BLOCK * v->score_ld, 2);
    t.ds = plain ? (void *)t.dp : rt_carve(scratch, QUERY_BLOCK * v->score_ld, 2);
    t.dq = rt_carve(scratch, QUERY_BLOCK * v->head_dim, 4);
    t.dk = rt_carve(scratch, v->score_ld * v->head_dim, 4);
    t.dv = rt_carve(scratch, v->score_ld * v->head_dim, 4);
    return t;
}

/* Probabilities and score gradients of one row; both zero where the row sees nothing. */
static void row_backward(const rt_model *model, const backward_tiles *t, size_t at, float lse, float delta,
                         size_t low, size_t high, size_t n_keys)
{
    float *p = t->scores + at, *dp = t->dp + at;
    const float scale = (float)model->config.attention_scale;
    memset(p, 0, low * sizeof *p);
    memset(dp, 0, low * sizeof *dp);
    model->ops->softmax_again(p + low, high - low, scale, lse);
    model->ops->softmax_backward(dp + low, p + low, dp + low, delta, scale, high - low);
    memset(p + high, 0, (n_keys - high) * sizeof *p);
    memset(dp + high, 0, (n_keys - high) * sizeof *dp);
    if (model->act != RT_F32) {
        model->ops->to_bf16((rt_bf16 *)t->p + at, p, n_keys);
        model->ops->to_bf16((rt_bf16 *)t->ds + at, dp, n_keys);
    }
}

void rt_attention_backward(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer,
                           size_t segment, size_t head, unsigned thread)
{
    const rt_model_config *c = &model->config;
    const rt_segment *s = &batch->segments[segment];
    const rt_kept *kept = &pass->kept[layer];
    const head_view v = view_of(model, pass);
    const size_t window = c->window[layer], group = c->n_heads / c->n_heads_kv, hd = v.head_dim;
    const size_t kv_at = head / group * hd, lse_at = head * pass->tokens_max;
    const void *keys = rt_act_at(model, rt_segment_keys(model, pass, batch, layer, segment, false), kv_at);
    const void *values = rt_act_at(model, rt_segment_keys(model, pass, batch, layer, segment, true), kv_at);
    rt_carver scratch = rt_pass_scratch(pass, thread);
    const backward_tiles t = carve_tiles(&scratch, &v);
    const size_t all_keys = rt_size_round_up(s->count, RT_KEY_BLOCK);
    memset(t.dk, 0, all_keys * hd * sizeof *t.dk);
    memset(t.dv, 0, all_keys * hd * sizeof *t.dv);
    for (size_t first = 0; first < s->count; first += QUERY_BLOCK) {
        const size_t count = rt_size_min(QUERY_BLOCK, s->count - first), row = s->begin + first;
        const key_range range = keys_of(window, first, count);
        const size_t q_at = row * v.ld_q + head * hd;
        const void *q = rt_act_at(model, kept->q, q_at), *datt = rt_act_at(model, pass->back.datt, q_at);
        times_keys(&v, t.scores, q, v.ld_q, rt_act_at(model, keys, range.begin * v.ld_kv), range.padded);
        times_keys(&v, t.dp, datt, v.ld_q, rt_act_at(model, values, range.begin * v.ld_kv), range.padded);
        for (size_t r = 0; r < QUERY_BLOCK; r++) {
            size_t low = 0, high = 0;
            if (r < count)
                row_range(window, first + r, range.begin, &low, &high);
            const size_t at = lse_at + row + (r < count ? r : 0);
            row_backward(model, &t, r * v.score_ld, kept->lse[at], pass->back.delta[at], low, high,
                         range.padded);
        }
        spread_rows(&v, t.dv + range.begin * hd, t.p, datt, v.ld_q, range.padded);
        spread_rows(&v, t.dk + range.begin * hd, t.ds, q, v.ld_q, range.padded);
        weigh_rows(&v, t.dq, t.ds, rt_act_at(model, keys, range.begin * v.ld_kv), range.padded);
        for (size_t r = 0; r < count; r++)
            memcpy(pass->back.dq + q_at + r * v.ld_q, t.dq + r * hd, hd * sizeof(float));
    }
    const size_t out_at = (lse_at + s->begin) * hd;
    memcpy(pass->back.dk + out_at, t.dk, s->count * hd * sizeof(float));
    memcpy(pass->back.dv + out_at, t.dv, s->count * hd * sizeof(float));
}

/* ---- one token ---- */
