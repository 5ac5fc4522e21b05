/* model/session.c - see session.h.
 *
 * The cache is [layers][slots][positions][kv heads * head_dim], keys and values apart; positions are rounded
 * up to whole key blocks, which attention reads in full. */
#include "model/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/pass.h"
#include "model/stream.h"

enum { PREFILL_TOKENS = 1024 };

struct rt_session {
    const rt_model *model;
    size_t n_slots, n_positions, padded, row; /* row: elements of a token's keys in one layer */
    rt_arena cache;
    void *keys, *values;
    rt_pass *pass;
    size_t *lengths;      /* [n_slots] */
    rt_segment *segments; /* [n_slots] */
    size_t *rows;         /* [max(n_slots, PREFILL_TOKENS)] */
    int32_t *ids;         /* as many: the pieces of a pass end to end */
};

rt_status rt_session_open(rt_session **out, const rt_model *model, size_t n_slots, size_t n_positions,
                          rt_error *err)
{
    *out = NULL;
    const rt_model_config *c = &model->config;
    if (n_positions == 0 || n_positions > c->n_context)
        n_positions = c->n_context;
    rt_session *s = calloc(1, sizeof *s);
    if (!s || n_slots == 0) {
        free(s);
        return rt_error_set(err, n_slots ? RT_NO_MEMORY : RT_INVALID,
                            "a session needs a slot and some memory");
    }
    *s = (rt_session){.model = model,
                      .n_slots = n_slots,
                      .n_positions = n_positions,
                      .padded = rt_size_round_up(n_positions, RT_KEY_BLOCK),
                      .row = c->n_heads_kv * c->head_dim};
    size_t half, tokens = rt_size_max(n_slots, rt_size_min(PREFILL_TOKENS, n_positions));
    s->lengths = calloc(n_slots, sizeof *s->lengths);
    s->segments = calloc(n_slots, sizeof *s->segments);
    s->rows = calloc(tokens, sizeof *s->rows);
    s->ids = calloc(tokens, sizeof *s->ids);
    bool fits = s->lengths && s->segments && s->rows && s->ids && rt_size_mul(s->padded, s->row, &half) &&
                rt_size_mul(half, n_slots, &half) &&
                rt_size_mul(half, c->n_layers * rt_act_size(model), &half) && half < SIZE_MAX / 4;
    if (!fits || rt_arena_init(&s->cache, 2 * half + 128, err) != RT_OK) {
        rt_session_close(s);
        return rt_error_set(err, RT_NO_MEMORY,
                            "no memory for the keys and values of %zu sequences of %zu tokens", n_slots,
                            n_positions);
    }
    if (n_slots > 1) /* each slot and layer is used from its beginning, and most of them never to the end */
        rt_arena_use_small_pages(&s->cache);
    s->keys = rt_arena_push_raw(&s->cache, half, 1);
    s->values = rt_arena_push_raw(&s->cache, half, 1);
    if (rt_pass_open(&s->pass, model, tokens, false, err) != RT_OK) {
        rt_session_close(s);
        return err->status;
    }
    *out = s;
    return RT_OK;
}

void rt_session_close(rt_session *s)
{
    if (!s)
        return;
    rt_pass_close(s->pass);
    rt_arena_deinit(&s->cache);
    free(s->lengths);
    free(s->segments);
    free(s->rows);
    free(s->ids);
    free(s);
}

size_t rt_session_capacity(const rt_session *session) { return session->n_positions; }
size_t rt_session_length(const rt_session *session, size_t slot) { return session->lengths[slot]; }

void rt_session_truncate(rt_session *session, size_t slot, size_t n)
{
    if (n < session->lengths[slot])
        session->lengths[slot] = n;
}

static rt_segment segment_of(const rt_session *s, size_t slot, size_t begin, size_t count)
{
    const size_t at = slot * s->padded * s->row;
    return (rt_segment){.begin = begin,
                        .count = count,
                        .position = s->lengths[slot],
                        .k = rt_act_at_mut(s->model, s->keys, at),
                        .v = rt_act_at_mut(s->model, s->values, at),
                        .layer_stride = s->n_slots * s->padded * s->row};
}

static rt_status check(const rt_session *s, size_t slot, const int32_t *ids, size_t n, rt_error *err)
{
    if (slot >= s->n_slots)
        return rt_error_set(err, RT_INVALID, "slot %zu of %zu", slot, s->n_slots);
    if (n == 0)
        return rt_error_set(err, RT_INVALID, "there is no token to run: the text is empty");
    if (n > s->n_positions - s->lengths[slot])
        return rt_error_set(
            err, RT_INVALID,
            "the sequence would have %zu tokens, %zu more than the context of %zu; shorten it or raise "
            "the context",
            s->lengths[slot] + n, s->lengths[slot] + n - s->n_positions, s->n_positions);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= s->model->config.n_vocab)
            return rt_error_set(err, RT_INVALID, "token id %d is outside the model's vocabulary of %zu",
                                (int)ids[i], s->model->config.n_vocab);
    return RT_OK;
}

/* logits: NULL, or for the last token ([n_vocab]), or for every token when all is true. */
static rt_status append(rt_session *s, size_t slot, const int32_t *ids, size_t n, bool all, float *logits,
                        rt_error *err)
{
    if (check(s, slot, ids, n, err) != RT_OK)
        return err->status;
    const size_t vocab = s->model->config.n_vocab;
    for (size_t at = 0, count; at < n; at += count) {
        count = rt_size_min(n - at, rt_size_min(PREFILL_TOKENS, s->pass->tokens_max));
        s->segments[0] = segment_of(s, slot, 0, count);
        const rt_batch batch = {ids + at, count, s->segments, 1};
        rt_forward(s->model, s->pass, &batch, NULL, NULL);
        if (rt_stream_check(s->model, err) != RT_OK)
            return err->status;
        s->lengths[slot] += count;
        if (!logits || (!all && at + count < n))
            continue;
        const size_t first = all ? 0 : count - 1;
        for (size_t i = first; i < count; i++)
            s->rows[i - first] = i;
        rt_logits(s->model, s->pass, s->rows, count - first, logits + (all ? at * vocab : 0));
    }
    return RT_OK;
}

rt_status rt_session_prefill(rt_session *session, size_t slot, const int32_t *ids, size_t n, float *logits,
                             rt_error *err)
{
    return append(session, slot, ids, n, false, logits, err);
}

rt_status rt_session_score(rt_session *session, size_t slot, const int32_t *ids, size_t n, float *out,
                           rt_error *err)
{
    return append(session, slot, ids, n, true, out, err);
}

rt_status rt_session_decode(rt_session *s, const size_t *slots, const int32_t *ids, size_t n, float *logits,
                            rt_error *err)
{
    if (n == 0 || n > s->n_slots)
        return rt_error_set(err, RT_INVALID, "%zu tokens for %zu slots", n, s->n_slots);
    for (size_t i = 0; i < n; i++) {
        if (check(s, slots[i], &ids[i], 1, err) != RT_OK)
            return err->status;
        s->segments[i] = segment_of(s, slots[i], i, 1);
        s->rows[i] = i;
    }
    const rt_batch batch = {ids, n, s->segments, n};
    rt_forward(s->model, s->pass, &batch, NULL, NULL);
    if (rt_stream_check(s->model, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++)
        s->lengths[slots[i]]++;
    rt_logits(s->model, s->pass, s->rows, n, logits);
    return RT_OK;
}

size_t rt_session_pass_max(const rt_session *session) { return session->pass->tokens_max; }

rt_status rt_session_append(rt_session *s, const rt_piece *pieces, size_t n_pieces, bool by_blocks,
                            rt_error *err)
{
    size_t total = 0;
    if (n_pieces == 0 || n_pieces > s->n_slots)
        return rt_error_set(err, RT_INVALID, "%zu pieces for %zu slots", n_pieces, s->n_slots);
    for (size_t i = 0; i < n_pieces; i++) {
        const rt_piece *piece = &pieces[i];
        if (check(s, piece->slot, piece->ids, piece->n, err) != RT_OK)
            return err->status;
        if (piece->n > s->pass->tokens_max - total)
            return rt_error_set(err, RT_INVALID, "more than the %zu tokens that one pass takes",
                                s->pass->tokens_max);
        s->segments[i] = segment_of(s, piece->slot, total, piece->n);
        memcpy(s->ids + total, piece->ids, piece->n * sizeof *s->ids);
        total += piece->n;
    }
    const rt_batch batch = {s->ids, total, s->segments, n_pieces};
    s->pass->by_blocks = by_blocks;
    rt_forward(s->model, s->pass, &batch, NULL, NULL);
    s->pass->by_blocks = false;
    if (rt_stream_check(s->model, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n_pieces; i++)
        s->lengths[pieces[i].slot] += pieces[i].n;
    return RT_OK;
}

void rt_session_logits(const rt_session *session, const size_t *rows, size_t n, float *out)
{
    rt_logits(session->model, session->pass, rows, n, out);
}

void rt_session_copy(rt_session *s, size_t to, size_t from, size_t n)
{
    for (size_t layer = 0; layer < s->model->config.n_layers && to != from; layer++) {
        const size_t base = layer * s->n_slots * s->padded * s->row, slot = s->padded * s->row;
        const size_t bytes = n * s->row * rt_act_size(s->model);
        memcpy(rt_act_at_mut(s->model, s->keys, base + to * slot),
               rt_act_at(s->model, s->keys, base + from * slot), bytes);
        memcpy(rt_act_at_mut(s->model, s->values, base + to * slot),
               rt_act_at(s->model, s->values, base + from * slot), bytes);
    }
    s->lengths[to] = n;
}

size_t rt_session_token_bytes(const rt_session *s)
{
    return 2 * s->model->config.n_layers * s->row * rt_act_size(s->model);
}

void rt_session_save(const rt_session *s, size_t slot, size_t begin, size_t n, void *out)
{
    const size_t bytes = n * s->row * rt_act_size(s->model);
    unsigned char *to = out;
    for (size_t layer = 0; layer < s->model->config.n_layers; layer++, to += 2 * bytes) {
        const size_t at = ((layer * s->n_slots + slot) * s->padded + begin) * s->row;
        memcpy(to, rt_act_at(s->model, s->keys, at), bytes);
        memcpy(to + bytes, rt_act_at(s->model, s->values, at), bytes);
    }
}

void rt_session_restore(rt_session *s, size_t slot, const void *block, size_t saved, size_t n)
{
    const size_t token = s->row * rt_act_size(s->model);
    const unsigned char *from = block;
    for (size_t layer = 0; layer < s->model->config.n_layers; layer++, from += 2 * saved * token) {
        const size_t at = ((layer * s->n_slots + slot) * s->padded + s->lengths[slot]) * s->row;
        memcpy(rt_act_at_mut(s->model, s->keys, at), from, n * token);
        memcpy(rt_act_at_mut(s->model, s->values, at), from + saved * token, n * token);
    }
    s->lengths[slot] += n;
}
