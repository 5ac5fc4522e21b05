/* model/export_parts.h - what the two writers of export.h share; for export*.c only. */
#ifndef RT_MODEL_EXPORT_PARTS_H
#define RT_MODEL_EXPORT_PARTS_H

#include "model/export.h"
#include "model/families.h"
#include "model/gguf_write.h"

typedef struct rt_export_item { /* one tensor of the file */
    char name[128];
    rt_dtype dtype;
    size_t layer;
    int which[3]; /* rt_export_which; the canonical tensors that it is made of, one below the other */
    size_t n_parts;
    size_t rows, cols;  /* of one part, canonical; cols 0: a vector */
    bool turned;        /* written [cols, n_parts * rows] */
    rt_rope_rows pairs; /* rows written as pairs; count 0: none */
    bool stacked;       /* written [n_parts, rows, cols]: the parts are the experts of role which[0] */
    float shift;        /* added to every value */
} rt_export_item;

typedef struct rt_export_plan {
    rt_export_item *list;
    size_t count, capacity;
} rt_export_plan;

/* Every tensor of the model under its name in a folder (gguf false) or GGUF, types not chosen yet. */
rt_status rt_export_plan_build(rt_export_plan *plan, const rt_model_config *config, bool gguf, rt_error *err);
void rt_export_plan_free(rt_export_plan *plan);
/* shape as the writers take it (row-major); returns the number of dimensions. */
size_t rt_export_shape(const rt_export_item *item, size_t shape[3]);
int rt_export_which(const rt_export_item *item, size_t part);

typedef rt_status (*rt_export_sink)(void *context, const void *data, size_t size, rt_error *err);
/* The bytes of a tensor, in order, to the sink. */
rt_status rt_export_emit(const rt_export_item *item, const rt_export_source *source, rt_pool *pool,
                         rt_export_sink sink, void *sink_context, rt_error *err);

void rt_export_note(const rt_export_options *options, const char *fmt, ...) RT_PRINTF(2, 3);

/* tokenizer.ggml.* and the chat template, from GGUF (copied) or tokenizer.json (translated). */
rt_status rt_export_tokenizer_gguf(rt_gguf_writer *writer, const char *path, size_t n_vocab, rt_error *err);
/* tokenizer.ggml.pre of a parsed tokenizer.json; RT_UNSUPPORTED when no name stands for its steps. */
rt_status rt_export_pre_name(const char **out, const json_t *tokenizer, rt_error *err);
/* The tokenizer's files and generation_config.json into a folder. */
rt_status rt_export_tokenizer_folder(const char *path, const char *dir, rt_error *err);

#endif
