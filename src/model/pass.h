/* model/pass.h - the memory of a pass and the helpers that forward.c, attention.c, decode.c and
 * backward.c share.  Internal to the model room. */
#ifndef RT_MODEL_PASS_H
#define RT_MODEL_PASS_H

#include "model/decoder.h"

enum {
    TOKEN_BLOCK = 128, /* rows that go through a layer together, in one task, while they are in cache */
    TOKEN_BLOCK_PACKED = 64,
    QUERY_BLOCK = 64,      /* rows of an attention task */
    KEY_PIECE = 256,       /* keys a product: fixed, so that few kernels are compiled */
    CHUNK_POSITIONS = 256, /* of the cache that one task of decoding attends to; more when there were more
                              than CHUNKS_MAX of them */
    CHUNKS_MAX = 16,
    SMALL_BATCH = 32, /* up to this many tokens, rows of the weights are shared out instead of tokens */
    HEAD_TILE = 1024  /* ids a task when logits are made */
};

/* What one layer leaves behind; without `keep` all layers share one. T = tokens_max. */
typedef struct rt_kept {
    float *x1, *x2;                 /* [T, d] residual stream before attention, before the MLP */
    float *mean1, *r1, *mean2, *r2; /* [T] of the two norms */
    void *q;                        /* [T + QUERY_BLOCK, heads * head_dim] after norm and rope */
    void *k, *v;                    /* [T + KEY_BLOCK, heads_kv * head_dim] */
    void *att;                      /* [T + QUERY_BLOCK, heads * head_dim] */
    float *lse;                     /* [heads, T] */
    void *gate_up;                  /* [T, rows of gate_up]; NULL without keep */
    float *qk_raw;           /* [T, (heads + heads_kv) * head_dim] before qk_norm, keep and qk_norm only */
    float *qk_r;             /* [T, heads + heads_kv] */
    float *o_out, *down_out; /* [T, d] before the post norms, keep and post_norms only */
    float *r1_post, *r2_post;
    /* latent attention, keep only: [T, rows of qkv] before the norms, and [T, 2] of the two norms */
    float *latent, *latent_r;
    uint32_t *expert_ids;  /* [T, used], of each token rising; layers with experts */
    float *expert_weights; /* [T, used] */
    void *expert_gate_up;  /* [T * used, 2 n_ff] in the order of mixture.rows, keep only */
} rt_kept;

typedef struct rt_expert_task { /* rows [first, first + count) of mixture.rows through one expert */
    uint32_t expert, first, count;
} rt_expert_task;

/* Memory of a layer with experts; R = T * used. */
typedef struct rt_mixture {
    void *in;        /* [T, d] normed states: float32, or the activation type where experts read that */
    float *out;      /* [R, d] by token and slot: outputs; in the backward pass gradients of the input */
    float *dweights; /* [R], backward only */
    void *dlogits;   /* [T, experts] in the activation type, backward only */
    uint32_t *rows;  /* [R] token * used + slot, sorted by expert */
    uint32_t *first; /* [experts + 2] where in `rows` an expert's begin, and the end */
    rt_expert_task *tasks; /* [n_tasks] */
    size_t n_tasks;
} rt_mixture;

typedef struct rt_query_task { /* rows [row, row + count) of the batch, in segment `segment` */
    uint32_t segment, row, count;
} rt_query_task;

typedef struct rt_chunk { /* positions [from, from + count) as row `row` of a small batch sees them */
    size_t row, from, count;
} rt_chunk;

/* Buffers of the backward pass, one layer at a time. */
typedef struct rt_back {
    void *dx_act;       /* [T, d] gradient of the residual stream, activation type */
    void *act;          /* [T, n_ff] input of down */
    void *dgate_up;     /* [T, rows of gate_up] */
    void *h;            /* [T, d] normed input */
    void *att;          /* [T, columns of o]: attention without padding; latent attention only */
    void *dq_b, *dkv_b; /* [T, rows of q_b, of kv_b]: gradients; latent attention only */
    void *cq, *ckv;     /* [T, q_rank], [T, kv_rank]: normed latents; latent attention only */
    void *datt;         /* [T + QUERY_BLOCK, heads * head_dim] */
    float *delta;       /* [heads, T] */
    float *dq;          /* [T, heads * head_dim] */
    float *dk, *dv;     /* [heads, T, head_dim]: one of each query head, summed over the group later */
    void *dqkv;         /* [T, rows of qkv] */
    float *vector_sums; /* [blocks, sums_a_block]: partial gradients of vectors */
    size_t sums_a_block;
} rt_back;

struct rt_pass {
    size_t tokens_max, block; /* block: TOKEN_BLOCK or TOKEN_BLOCK_PACKED */
    size_t n_layers;
    bool keep;
    bool hold_choice; /* experts were chosen before (rt_pass_hold_choice) */
    bool by_blocks;   /* never the way of small batches: the bits then do not depend on how a text was cut */
    rt_arena arena;
    rt_kept *kept; /* [n_layers] */
    float *x;      /* [T, d] residual stream after the last layer */
    float *hidden; /* [T, d] */
    void *hidden_act;
    float *mean, *r;              /* [T] of the last norm */
    uint32_t *position, *segment; /* [T] */
    rt_query_task *queries;       /* [n_queries] */
    size_t n_queries, queries_max;
    size_t score_ld; /* elements from row to row of score scratch; grows with the longest context */
    unsigned n_threads;
    unsigned char *scratch; /* [n_threads][scratch_bytes] */
    size_t scratch_bytes;
    size_t widest_rows; /* of the projections */
    float *wide;        /* [SMALL_BATCH, widest projection]: decode's shared rows */
    void *operand;      /* decode's shared operand */
    rt_chunk *chunks;   /* [SMALL_BATCH * CHUNKS_MAX] */
    float *partial;     /* [chunks, heads * (head_dim + 1)]: outputs of each head, then log-sum-exps */
    float *latent;      /* [SMALL_BATCH, rt_latent_width] and a row of q k v: decode */
    rt_mixture mixture;
    rt_back back;
    size_t n_tokens; /* of the last forward */
};

/* Hands out pieces of a thread's scratch; asserts that they fit. */
typedef struct rt_carver {
    unsigned char *at, *end;
} rt_carver;
rt_carver rt_pass_scratch(const rt_pass *pass, unsigned thread);
void *rt_carve(rt_carver *carver, size_t count, size_t size);

static inline size_t rt_act_size(const rt_model *model) { return model->act == RT_F32 ? 4 : 2; }
static inline const void *rt_act_at(const rt_model *model, const void *base, size_t index)
{
    return (const unsigned char *)base + index * rt_act_size(model);
}
static inline void *rt_act_at_mut(const rt_model *model, void *base, size_t index)
{
    return (unsigned char *)base + index * rt_act_size(model);
}
/* n values into / out of the activation type. */
void rt_act_store(const rt_model *model, void *out, const float *x, size_t n);
void rt_act_load(const rt_model *model, float *out, const void *x, size_t n);

/* The operand of a projection for n rows of x (float32, rows `ld` apart), made in `room`:
 * float32 x itself, bf16, or int8 blocks. *ld_out: its row stride. */
const void *rt_proj_operand(const rt_model *model, const rt_proj *proj, const float *x, size_t ld, size_t n,
                            void *room, size_t *ld_out);
size_t rt_proj_operand_bytes(const rt_model *model, const rt_proj *proj, size_t n);
static inline bool rt_proj_is_packed(const rt_proj *proj) { return proj->n_packed > 0; }
/* out[i * ldo + r] (=|+=) W[row_begin + r, :] . operand[i, :], r < row_end - row_begin, no bias.  out_type
 * BF16 only for unpacked bf16. */
void rt_proj_mul(const rt_model *model, const rt_proj *proj, const void *operand, size_t ld, size_t n,
                 size_t row_begin, size_t row_end, void *out, size_t ldo, rt_dtype out_type, bool add);

/* A norm of n rows: out float32; mean and r may be NULL. */
void rt_norm_rows(const rt_model *model, float *out, const float *x, const float *w, const float *bias,
                  size_t n, float *mean, float *r);
/* act(gate) * up, or act(up) without a gate, for one row of ff units in float32. */
void rt_activate_row(const rt_model *model, float *out, const float *gate_up, size_t ff);
void rt_activate_row_backward(const rt_model *model, float *dgate_up, const float *dout, const float *gate_up,
                              size_t ff);

const rt_rope *rt_layer_rope(const rt_model *model, size_t layer);
/* Bias, head norms and rope of one token's q k v row (in place), kept where asked; writes q, k, v. */
void rt_qkv_finish(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t row,
                   float *qkv);
/* The last step of it: q [heads * head_dim], k and v [heads_kv * head_dim] to where attention reads them. */
void rt_qkv_store(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer, size_t row,
                  const float *qkv);
void *rt_segment_keys(const rt_model *model, const rt_pass *pass, const rt_batch *batch, size_t layer,
                      size_t segment, bool values);

/* Attention of one query block and one kv head. */
void rt_attention_block(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer,
                        size_t query, size_t head_kv, unsigned thread);
size_t rt_attention_scratch(const rt_model *model, size_t score_ld);
/* The attention of every row of a small batch (at most SMALL_BATCH), shared out over the pool. */
void rt_attention_rows(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer);
/* dq, and dk dv of one query head over one segment. */
void rt_attention_backward(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer,
                           size_t segment, size_t head, unsigned thread);
size_t rt_attention_backward_scratch(const rt_model *model, size_t score_ld);
size_t rt_backward_scratch(const rt_model *model, size_t block);

/* A layer for a batch of at most SMALL_BATCH tokens. */
void rt_forward_small_layer(const rt_model *model, rt_pass *pass, const rt_batch *batch, size_t layer);

#endif
