/* model/attend_rows.c - attention of single positions over their caches: decoding.
 *
 * The time is that of reading keys and values, so a task takes a run of positions with all its heads, which
 * is one piece of memory, and the threads get equal shares of it whatever the number of heads.  Each chunk
 * gives softmax-weighted values and the log of its sum of exponentials; they are put together by
 *   out = sum_c exp(lse_c - max) out_c / sum_c exp(lse_c - max).
 * The cut depends on the number of positions alone, so the bits do not depend on neighbours or threads. */
#include <math.h>

#include "base/size.h"
#include "model/pass.h"

enum { PREFETCH_BYTES_MAX = 256 << 10 }; /* keys or values of a chunk that the second-level cache can hold */

typedef struct rows_job {
    const rt_model *model;
    rt_pass *pass;
    const rt_batch *batch;
    size_t layer;
} rows_job;

static float *partial_of(const rows_job *job, size_t index)
{
    const rt_model_config *c = &job->model->config;
    return job->pass->partial + index * c->n_heads * (c->head_dim + 1);
}

static void chunk_task(void *context, size_t index, unsigned thread)
{
    const rows_job *job = context;
    const rt_model *model = job->model;
    const rt_pass *pass = job->pass;
    const rt_model_config *c = &model->config;
    const rt_chunk *chunk = &pass->chunks[index];
    const size_t hd = c->head_dim, ld = c->n_heads_kv * hd, group = c->n_heads / c->n_heads_kv;
    const size_t segment = pass->segment[chunk->row], at = chunk->from * ld;
    const void *keys =
        rt_act_at(model, rt_segment_keys(model, pass, job->batch, job->layer, segment, false), at);
    const void *values =
        rt_act_at(model, rt_segment_keys(model, pass, job->batch, job->layer, segment, true), at);
    const size_t bytes = chunk->count * ld * rt_act_size(model);
    if (bytes <= PREFETCH_BYTES_MAX) {
        rt_prefetch(keys, bytes);
        rt_prefetch(values, bytes);
    }
    rt_carver scratch = rt_pass_scratch(pass, thread);
    float *scores = rt_carve(&scratch, group * chunk->count, sizeof *scores);
    float *out = partial_of(job, index), *lse = out + c->n_heads * hd;
    const bool plain = model->act == RT_F32;
    for (size_t h = 0; h < c->n_heads_kv; h++) {
        const void *q =
            rt_act_at(model, pass->kept[job->layer].q, chunk->row * c->n_heads * hd + h * group * hd);
        (plain ? model->ops->scores_f32 : model->ops->scores_bf16)(
            scores, chunk->count, q, group, rt_act_at(model, keys, h * hd), ld, chunk->count, hd);
        for (size_t g = 0; g < group; g++)
            lse[h * group + g] =
                model->ops->softmax(scores + g * chunk->count, chunk->count, (float)c->attention_scale);
        (plain ? model->ops->weigh_f32 : model->ops->weigh_bf16)(out + h * group * hd, scores, chunk->count,
                                                                 group, rt_act_at(model, values, h * hd), ld,
                                                                 chunk->count, hd);
    }
}

/* Puts the chunks [first, first + count) of one row together, in the first one's place. */
static void merge(const rows_job *job, size_t first, size_t count)
{
    const rt_model_config *c = &job->model->config;
    const size_t hd = c->head_dim, lse_at = c->n_heads * hd;
    float *out = partial_of(job, first);
    for (size_t head = 0; head < c->n_heads && count > 1; head++) {
        float top = -INFINITY, weights[CHUNKS_MAX], sum = 0;
        for (size_t i = 0; i < count; i++)
            top = fmaxf(top, partial_of(job, first + i)[lse_at + head]);
        for (size_t i = 0; i < count; i++)
            sum += weights[i] = expf(partial_of(job, first + i)[lse_at + head] - top);
        job->model->ops->scale(out + head * hd, weights[0] / sum, hd);
        for (size_t i = 1; i < count; i++)
            job->model->ops->axpy(out + head * hd, weights[i] / sum, partial_of(job, first + i) + head * hd,
                                  hd);
    }
    const size_t row = job->pass->chunks[first].row;
    rt_act_store(job->model, rt_act_at_mut(job->model, job->pass->kept[job->layer].att, row * lse_at), out,
                 lse_at);
}

/* Cuts what each row sees; returns the number of chunks. */
static size_t cut(const rows_job *job)
{
    const size_t window = job->model->config.window[job->layer];
    size_t n_chunks = 0;
    for (size_t row = 0; row < job->pass->n_tokens; row++) {
        const size_t end = job->pass->position[row] + (size_t)1;
        const size_t from = window && end > window ? end - window : 0;
        const size_t even = rt_size_round_up(rt_size_ceil_div(end - from, CHUNKS_MAX), RT_KEY_BLOCK);
        const size_t step = rt_size_max(CHUNK_POSITIONS, even);
        for (size_t at = from; at < end; at += step)
            job->pass->chunks[n_chunks++] = (rt_chunk){row, at, rt_size_min(step, end - at)};
    }
    return n_chunks;
}

void rt_attention_rows(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer)
{
    rows_job job = {model, pass, batch, layer};
    const size_t n_chunks = cut(&job);
    rt_pool_run(model->pool, n_chunks, chunk_task, &job);
    for (size_t first = 0, end; first < n_chunks; first = end) {
        for (end = first + 1; end < n_chunks && pass->chunks[end].row == pass->chunks[first].row;)
            end++;
        merge(&job, first, end - first);
    }
}
