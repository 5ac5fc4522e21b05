/* model/export.h - writes a model as a Hugging Face folder or as GGUF, from whatever holds it.
 *
 * The source gives canonical tensors (config.h) one at a time; the writers choose names, types and
 * layout: gpt2's fused and turned weights, gemma's norms less or plus one, the rows of llama's q and k in
 * GGUF's order.  A tensor whose type does not change is copied byte for byte.
 *
 * GGUF: vectors and position embeddings stay float32.  With a 4-bit type the head (and a tied
 * embedding) is written as Q6_K.  Rows that are no whole number of blocks become Q8_0, and where not
 * even 32 divides them F16. */
#ifndef RT_MODEL_EXPORT_H
#define RT_MODEL_EXPORT_H

#include <jansson.h>

#include "base/pool.h"
#include "model/params.h"

typedef struct rt_export_source {
    const rt_model_config *config; /* norm_plus_one says how the norms that `tensor` gives are meant */
    /* Lends or makes one tensor (rt_canonical; the exporter frees `owned`): layer RT_NO_LAYER: `which` is
     * an rt_global, else an rt_role.  Called more than once for the same tensor. */
    rt_status (*tensor)(void *context, rt_canonical *out, size_t layer, int which, rt_error *err);
    void *context;
    const char *tokenizer_path; /* GGUF file, tokenizer.json or a folder with one; NULL: none is written */
    const rt_weights *meta;     /* a GGUF whose name, licence and languages are taken over; may be NULL */
    const char *name;           /* general.name; NULL: that of `meta` */
    const json_t *lineage; /* where the model comes from: retort.json, retort.lineage in GGUF; may be NULL */
} rt_export_source;

typedef struct rt_export_options {
    bool keep;     /* every tensor in the type that it has (in a folder: bf16 for block types) */
    rt_dtype type; /* otherwise: of all matrices */
    rt_pool *pool; /* may be NULL */
    void (*note)(void *context, const char *sentence); /* what differs from what was asked; may be NULL */
    void *note_context;
} rt_export_options;

/* dir gets model.safetensors, config.json, generation_config.json, the tokenizer's files and retort.json. */
rt_status rt_export_folder(const rt_export_source *source, const char *dir, const rt_export_options *options,
                           rt_error *err);
rt_status rt_export_gguf(const rt_export_source *source, const char *path, const rt_export_options *options,
                         rt_error *err);
/* The model in a file or folder, to a folder or, when `out` ends in .gguf, to GGUF. */
rt_status rt_export_path(const char *in, const char *out, const rt_export_options *options, rt_error *err);

#endif
