/* model/decoder.h - the one decoder: a model ready to run, its forward and its backward pass.
 *
 * A model is either frozen (opened from a file, in float32, bf16, or as the file's own quantised blocks)
 * or a view of trainable parameters.  It is immutable while it runs and may be shared by sessions.
 *
 * Tokens of several sequences are packed end to end in a batch; a segment says which rows belong to a
 * sequence, at which position they begin and where its keys and values are kept. */
#ifndef RT_MODEL_DECODER_H
#define RT_MODEL_DECODER_H

#include "model/params.h"
#include "model/rope.h"
#include "tensor/gemm.h"
#include "tensor/ops.h"
#include "tensor/qmat.h"

typedef enum rt_precision {
    RT_PRECISION_F32,  /* all in float32: for comparison with references */
    RT_PRECISION_BF16, /* weights and activations between ops bf16, sums and residual stream float32 */
    RT_PRECISION_INT8 /* quantised blocks times activations rounded to int8 where the file has blocks, else as
                         BF16 */
} rt_precision;

/* One projection, or several that read the same input: y = W x + b with W [rows, cols]. */
typedef struct rt_proj {
    size_t rows, cols;
    const void *w;      /* [rows, cols] in the model's activation type; NULL when packed */
    rt_qmat *packed[3]; /* row blocks in order, when INT8 */
    size_t n_packed;
    struct rt_row_source
        *source;       /* rows are read when they are needed (model/stream.h); w and packed unused */
    const float *bias; /* [rows] or NULL */
} rt_proj;

typedef struct rt_layer {
    const float *norm1, *norm1_bias, *q_norm, *k_norm, *norm1_post, *norm2, *norm2_bias, *norm2_post;
    rt_proj qkv, o, gate_up, down; /* gate_up, down: of the MLP that every token passes; rows 0: none */
    /* latent attention: qkv gives the latents, q_b and kv_b open them; q_b.rows 0: queries have no latent */
    rt_proj q_b, kv_b;
    const float *q_a_norm, *kv_a_norm;
    const float *router, *router_bias; /* [experts, n_embd], [experts]; NULL: a layer without, no bias */
    rt_proj *experts;                  /* [2 * experts]: gate_up and down of each; NULL: a layer without */
} rt_layer;

typedef struct rt_model {
    rt_model_config config;
    rt_precision precision;
    rt_dtype act;      /* of activations between ops: F32, else BF16 */
    rt_layer *layers;  /* [n_layers] */
    rt_proj *experts;  /* of all layers */
    const void *embed; /* [n_vocab, n_embd] in the activation type; NULL when packed */
    rt_qmat *embed_packed;
    struct rt_row_source *embed_source; /* neither of the two: rows are read when they are needed */
    const float *positions;             /* [n_context, n_embd], learned positions only */
    const float *norm, *norm_bias;
    rt_proj head;
    uint32_t
        *head_ids; /* [head.rows] the ids of its rows, ascending (model/shortlist.h); NULL: row i is id i */
    rt_rope *rope, *rope_local; /* NULL: learned positions; no local base */
    rt_pool *pool;              /* borrowed */
    const rt_ops *ops;
    rt_arena arena;  /* weights of a frozen model */
    rt_qmat **owned; /* packed matrices to free */
    size_t n_owned;
    struct rt_stream *stream; /* layers come from disk, one after the other; NULL: all are in memory */
} rt_model;

/* Opens a frozen model.  The weight file may be closed afterwards. */
rt_status rt_model_open(rt_model **out, const rt_weights *weights, rt_precision precision, rt_pool *pool,
                        rt_error *err);
/* A view of parameters: matrices are read from `half` (bf16) in BF16 precision, from `values` in F32; vectors
 * always from `values`.  The arrays stay the caller's and may change between passes. */
rt_status rt_model_view(rt_model **out, const rt_model_config *config, const rt_layout *layout,
                        const float *values, const rt_bf16 *half, rt_precision precision, rt_pool *pool,
                        rt_error *err);
/* A model without weights, for the functions that compute sizes: it must not run.  The types of the file's
 * tensors decide what would be packed (weights NULL: nothing is).  *weight_bytes: what rt_model_weight_bytes
 * would say of the frozen model. */
rt_status rt_model_shape(rt_model **out, const rt_model_config *config, const rt_weights *weights,
                         rt_precision precision, rt_pool *pool, size_t *weight_bytes, rt_error *err);
void rt_model_close(rt_model *model);
size_t rt_model_weight_bytes(const rt_model *model); /* memory that the weights take */

typedef struct rt_segment {
    size_t begin, count; /* rows of the batch */
    size_t position;     /* of its first token in the sequence */
    void *k, *v;         /* position 0 of layer 0, in the activation type, rows of n_heads_kv * head_dim.
                            NULL: the pass keeps keys and values itself (positions start at 0 then). */
    size_t layer_stride; /* elements from a layer's keys to the next layer's */
} rt_segment;

/* Keys and values are read in blocks of this many positions: a cache has room for its capacity rounded
 * up to a multiple, zeroed before first use. */
enum { RT_KEY_BLOCK = 64 };

typedef struct rt_batch {
    const int32_t *ids; /* [n_tokens], each < n_vocab */
    size_t n_tokens;
    const rt_segment *segments; /* cover the rows in order */
    size_t n_segments;
} rt_batch;

/* Memory of a pass: sized once for at most tokens_max tokens a batch, reused for every pass. */
typedef struct rt_pass rt_pass;
/* keep: remember what the backward pass needs (all layers); else one layer's worth is reused. */
rt_status rt_pass_open(rt_pass **out, const rt_model *model, size_t tokens_max, bool keep, rt_error *err);
void rt_pass_close(rt_pass *pass);
size_t rt_pass_bytes(const rt_model *model, size_t tokens_max, bool keep);

/* Forward passes of `pass` send tokens to the experts that the last one of `from` chose (both with keep, of
 * models of one shape, the same batch).  The choice is a step: where it is close, rounding to bf16 can turn
 * it and with it the result, so comparisons of two precisions hold it. */
void rt_pass_hold_choice(rt_pass *pass, const rt_pass *from, const rt_model *model);

/* Called after the embedding (layer 0) and after each layer with the residual stream [n_tokens, n_embd]. */
typedef void (*rt_tap_fn)(void *context, size_t layer, const float *x, size_t n_tokens);

/* Runs the layers.  Then rt_pass_hidden gives the final normed states. */
void rt_forward(const rt_model *model, rt_pass *pass, const rt_batch *batch, rt_tap_fn tap,
                void *tap_context);
/* Final states after the last norm [n_tokens, n_embd] float32. */
const float *rt_pass_hidden(const rt_pass *pass);
/* The same in the activation type, as the head reads them. */
const void *rt_pass_hidden_act(const rt_pass *pass);

/* Logits of rows [row, row + n) of the last pass for ids [id_begin, id_end): out[i * ld + id - id_begin]
 * float32, soft cap applied.  Serial: callers share out ids or rows in tasks; `thread` picks scratch. */
void rt_head_logits(const rt_model *model, const rt_pass *pass, size_t row, size_t n, size_t id_begin,
                    size_t id_end, float *out, size_t ld, unsigned thread);
/* All logits of the given rows, shared out over the pool: out [n_rows, n_vocab]. */
void rt_logits(const rt_model *model, const rt_pass *pass, const size_t *rows, size_t n_rows, float *out);

/* The gradient of the layers, the embedding look-up and the final norm, added to grads (in the layout that
 * the model views).  dhidden [n_tokens, n_embd] is d loss / d final normed states; it is destroyed.
 * The pass must have been opened with keep and hold this batch's forward. */
void rt_backward(const rt_model *model, rt_pass *pass, const rt_batch *batch, const rt_layout *layout,
                 float *dhidden, float *grads);

/* What the gradient of a group of matrices that read one input is made of: dW = dyᵀ x. */
typedef struct rt_weight_gradient {
    int role;           /* of the first of them */
    const void *dy, *x; /* [n_tokens, rows], [n_tokens, cols] in the activation type */
    size_t rows, cols, n_tokens;
} rt_weight_gradient;

/* Gradients that come in from elsewhere than the head, or go elsewhere.  Each function may be NULL. */
typedef struct rt_backward_hooks {
    void *context;
    /* dx [n_tokens, n_embd] is the gradient of the residual stream as rt_tap_fn shows it after `layer`
     * layers; what is added to it is carried back. */
    void (*stream)(void *context, size_t layer, float *dx);
    /* The gradients of layer `layer`'s queries, keys and values (after rope) are in the pass. */
    void (*heads)(void *context, size_t layer);
    /* The parameters are frozen, grads is NULL: what would be added to them is handed out instead (of dense
     * layers' matrices; vectors and the embedding have none). */
    void (*weight)(void *context, size_t layer, const rt_weight_gradient *part);
} rt_backward_hooks;
void rt_backward_hooked(const rt_model *model, rt_pass *pass, const rt_batch *batch, const rt_layout *layout,
                        float *dhidden, float *grads, const rt_backward_hooks *hooks);

#endif
