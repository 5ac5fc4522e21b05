/* model/session.h - running a model over sequences that grow: a kv cache with slots, prefill and batched
 * decoding.  One session is used by one thread at a time; the model may be shared. */
#ifndef RT_MODEL_SESSION_H
#define RT_MODEL_SESSION_H

#include "model/decoder.h"

typedef struct rt_session rt_session;
/* n_slots sequences of at most n_positions tokens each (0: the model's context). */
rt_status rt_session_open(rt_session **out, const rt_model *model, size_t n_slots, size_t n_positions,
                          rt_error *err);
void rt_session_close(rt_session *session);
size_t rt_session_capacity(const rt_session *session);            /* positions a slot */
size_t rt_session_length(const rt_session *session, size_t slot); /* tokens in it */
/* Forgets all but the first n tokens of a slot; n <= length. */
void rt_session_truncate(rt_session *session, size_t slot, size_t n);
/* Appends n > 0 tokens to a slot; logits [n_vocab] of the last one, or NULL.  RT_INVALID when the slot would
 * overflow (says by how much) or an id is out of range; the slot is then unchanged. */
rt_status rt_session_prefill(rt_session *session, size_t slot, const int32_t *ids, size_t n, float *logits,
                             rt_error *err);
/* Appends one token to each of n different slots; logits [n, n_vocab]. */
rt_status rt_session_decode(rt_session *session, const size_t *slots, const int32_t *ids, size_t n,
                            float *logits, rt_error *err);
/* Logits of every one of the n tokens appended: out [n, n_vocab] (scoring). */
rt_status rt_session_score(rt_session *session, size_t slot, const int32_t *ids, size_t n, float *out,
                           rt_error *err);

/* ---- for servers: pieces of several sequences in one pass ---- */

typedef struct rt_piece { /* n > 0 tokens to append to a slot; the slots of a pass are different ones */
    size_t slot;
    const int32_t *ids;
    size_t n;
} rt_piece;
size_t rt_session_pass_max(const rt_session *session); /* tokens that one pass takes */
/* Appends all pieces in one pass; no logits yet.  by_blocks: the bits of keys, values and logits do not
 * depend on how a text was cut into pieces, nor on the other pieces; without it (decoding) a few tokens are
 * faster. */
rt_status rt_session_append(rt_session *session, const rt_piece *pieces, size_t n_pieces, bool by_blocks,
                            rt_error *err);
/* Logits after rows of the last pass (the tokens of its pieces one after the other): out [n, n_vocab]. */
void rt_session_logits(const rt_session *session, const size_t *rows, size_t n, float *out);
/* Slot `to` then holds the first n tokens of slot `from`; n <= its length. */
void rt_session_copy(rt_session *session, size_t to, size_t from, size_t n);
/* Keys and values apart from any slot: rt_session_save writes those of n tokens from `begin` on, n *
 * rt_session_token_bytes; rt_session_restore appends the first n of the `saved` tokens of such a block to a
 * slot with room for them, which has to hold the tokens that came before. */
size_t rt_session_token_bytes(const rt_session *session);
void rt_session_save(const rt_session *session, size_t slot, size_t begin, size_t n, void *out);
void rt_session_restore(rt_session *session, size_t slot, const void *block, size_t saved, size_t n);

#endif
