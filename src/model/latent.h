/* model/latent.h - latent attention (MLA of DeepSeek-V2 and V3): from the latents of a token to the queries,
 * keys and values that plain attention reads, and back.  Internal to the model room.
 *
 *   [cq; ckv; kr] = W_a h      (layer.qkv; without a latent for queries: [q; ckv; kr])
 *   q  = W_qb norm(cq)         of each head [nope | rope]
 *   kv = W_kvb norm(ckv)       of each head [nope | value]
 *   key of a head = [kv's nope | rope(kr)], the same kr for all heads
 * (DeepSeek-V2 report, section 2.1.)  A head is padded with zeros to head_dim. */
#ifndef RT_MODEL_LATENT_H
#define RT_MODEL_LATENT_H

#include "model/pass.h"

static inline bool rt_is_latent(const rt_model *model) { return model->config.latent.kv_rank > 0; }

/* Of row `row` of the batch: bias and the two norms on a [qkv.rows], in place of its latents' copies cq
 * [q_rank] and ckv [kv_rank]; a is kept where the backward pass wants it. */
void rt_latent_norms(const rt_model *model, rt_pass *pass, size_t layer, size_t row, float *a, float *cq,
                     float *ckv);
/* From a, q [heads * (nope + rope)], changed, and kv [heads * (nope + value)]: writes the row's queries, keys
 * and values.  room [3 * heads * head_dim]. */
void rt_latent_finish(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t row,
                      const float *a, float *q, const float *kv, float *room);
/* Both for rows [begin, begin + n), with the products between; a [n, qkv.rows]. */
void rt_latent_block(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t begin,
                     size_t n, float *a, rt_carver *scratch);
size_t rt_latent_width(const rt_model *model); /* floats a row between a and the result; 0: plain attention */

/* Rows of heads, `from` values each, of which the first `count` go to rows of `to` values; more are zero. */
void rt_heads_copy(void *out, size_t to, const void *in, size_t from, size_t count, size_t heads,
                   size_t size);

#endif
