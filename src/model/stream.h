/* model/stream.h - models larger than memory: layers are read from disk while the one before them computes.
 *
 * A streamed model is an rt_model like any other (its weights were opened by rt_weights_open_headers), used
 * by one thread at a time.  Each forward pass reads every layer once, so it pays to give it many tokens:
 * rt_forward_many runs a large number of batches layer by layer.  The bits are those of the model in memory.
 *
 * In memory are: vectors, one layer as the products want it, two layers as the file holds them (read ahead by
 * a thread of its own, past the page cache where the file system allows), and the embedding and the head, if
 * they fit; otherwise their rows are read when they are needed. */
#ifndef RT_MODEL_STREAM_H
#define RT_MODEL_STREAM_H

#include "model/decoder.h"

typedef struct rt_stream_options {
    size_t memory_bytes; /* for the weights; 0: half of what the process may still take */
} rt_stream_options;

/* The weights must stay open until the model is closed.  RT_NO_MEMORY says what the least would be. */
rt_status rt_model_open_streamed(rt_model **out, rt_weights *weights, rt_precision precision, rt_pool *pool,
                                 const rt_stream_options *options, rt_error *err);
/* RT_OK, or why reading failed since the model was opened: results after that are worthless.  To be asked
 * after a forward pass; RT_OK for models that are not streamed. */
rt_status rt_stream_check(const rt_model *model, rt_error *err);

typedef struct rt_stream_stats {
    uint64_t bytes, layers; /* read so far */
    double read_s;          /* the reading thread was busy */
    double wait_s;          /* the forward pass waited for it */
    double load_s;          /* layers were brought into the form of the products */
    size_t held_bytes;      /* of weights in memory, all buffers together */
    bool direct;            /* past the page cache */
    bool head_resident, embed_resident;
} rt_stream_stats;
rt_stream_stats rt_stream_stats_of(const rt_model *model); /* zeros for others */

/* Bytes that the process may still take: by ulimit -v, its cgroup, and what is free. */
size_t rt_memory_left(void);
/* Bytes a second that the disk gives for this file, read past the page cache in large pieces. */
rt_status rt_stream_measure_disk(double *bytes_per_s, const char *path, double seconds, rt_error *err);

/* The forward pass of n batches, layer by layer.  The pass (without keep) is big enough for each of them.
 * states [sum of n_tokens, n_embd] receives the final normed states; segments without a cache of their own.
 */
void rt_forward_many(const rt_model *model, rt_pass *pass, const rt_batch *batches, size_t n, float *states);
/* Makes states [n_tokens, n_embd] the pass's, as after a forward of that batch: for heads. */
void rt_pass_set_hidden(const rt_model *model, rt_pass *pass, const float *states, size_t n_tokens);

/* ---- for the model room ---- */
/* After it the layer's matrices are there; false: they are not, the layer must not run (rt_stream_check says
 * why). */
bool rt_stream_want(const rt_model *model, size_t layer);
void rt_stream_close(rt_model *model);
size_t rt_stream_bytes(const rt_model *model);

#endif
