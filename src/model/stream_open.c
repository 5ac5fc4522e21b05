/* model/stream_open.c - opening a streamed model: what each layer is made of in the files, how much memory
 * there is, and what of the embedding and the head fits into it. */
#include <assert.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/size.h"
#include "model/stream_parts.h"

enum { JOIN_GAP = 256 << 10 };

static int by_place(const void *a, const void *b)
{
    const rt_weight *x = *(const rt_weight *const *)a, *y = *(const rt_weight *const *)b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static rt_status list_tensors(rt_stream_layer *plan, const rt_stream *s, const rt_model_config *config,
                              size_t layer, rt_error *err)
{
    for (int g = 0; g < RT_GROUP_EXPERTS; g++) {
        const rt_group_parts parts = rt_group_parts_of(config, layer, g);
        for (size_t i = 0; i < parts.count; i++) {
            const rt_weight *weight;
            if (rt_canonical_source(&weight, s->weights, config, layer, parts.weights[i], err) != RT_OK)
                return err->status;
            bool there = false; /* gpt2 keeps q, k and v in one tensor */
            for (size_t t = 0; t < plan->n_tensors; t++)
                there = there || plan->tensors[t] == weight;
            if (!there)
                plan->tensors[plan->n_tensors++] = weight;
        }
    }
    qsort(plan->tensors, plan->n_tensors, sizeof plan->tensors[0], by_place);
    return RT_OK;
}

/* Tensors that lie near each other are read in one piece. */
static void join_spans(rt_stream_layer *plan)
{
    for (size_t t = 0; t < plan->n_tensors; t++) {
        const rt_weight *w = plan->tensors[t];
        const size_t begin = w->offset & ~((size_t)RT_READ_ALIGN - 1),
                     end = rt_size_round_up(w->offset + w->bytes, RT_READ_ALIGN);
        rt_span *last = plan->n_spans ? &plan->spans[plan->n_spans - 1] : NULL;
        if (last && last->file == w->file && begin <= last->begin + last->size + JOIN_GAP) {
            const size_t grown = rt_size_max(end, last->begin + last->size) - last->begin;
            plan->bytes += grown - last->size;
            last->size = grown;
        } else {
            plan->spans[plan->n_spans++] = (rt_span){w->file, begin, end - begin};
            plan->bytes += end - begin;
            last = &plan->spans[plan->n_spans - 1];
        }
        plan->at[t] = plan->bytes - last->size + (w->offset - last->begin);
    }
}

static rt_status plan_layers(rt_stream *s, const rt_model_config *config, size_t *raw_max, rt_error *err)
{
    s->n_layers = config->n_layers;
    s->plans = calloc(config->n_layers, sizeof *s->plans);
    if (!s->plans)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a table of %zu layers", config->n_layers);
    for (size_t l = 0; l < config->n_layers; l++) {
        if (list_tensors(&s->plans[l], s, config, l, err) != RT_OK)
            return err->status;
        join_spans(&s->plans[l]);
        *raw_max = rt_size_max(*raw_max, s->plans[l].bytes);
    }
    return RT_OK;
}

/* Shapes of all layers, as the passes' size functions want them; the largest layer in loaded form. */
static size_t shape_layers(rt_model *model, const rt_stream *s)
{
    size_t most = 0;
    for (size_t l = 0; l < s->n_layers; l++) {
        size_t bytes = 0;
        rt_shape_layer(model, s->weights, &s->layout, l, &bytes);
        most = rt_size_max(most, bytes);
    }
    return most + 64 * (size_t)RT_GROUP_EXPERTS * 3;
}

typedef struct table { /* the embedding or the head */
    const rt_weight *weight;
    const rt_param *param;
    size_t loaded; /* bytes in memory */
    rt_proj shape;
    bool resident;
} table;

/* In memory when it and its bytes from the file, which are needed meanwhile, fit in *left; else by rows. */
static rt_status choose_table(table *t, const rt_model *model, const rt_stream *s, rt_global global,
                              size_t *left, rt_error *err)
{
    *t = (table){.param = rt_layout_global(&s->layout, global)};
    if (!t->param)
        return RT_OK;
    rt_shape_group(&t->shape, model, s->weights, &t->param, 1, &t->loaded);
    t->loaded = rt_size_round_up(t->loaded, 64);
    if (rt_canonical_source(&t->weight, s->weights, &model->config, SIZE_MAX, (int)global, err) != RT_OK)
        return err->status;
    t->resident = t->loaded <= *left && t->weight->bytes <= *left - t->loaded;
    if (t->resident)
        *left -= t->loaded;
    return RT_OK;
}

static rt_status open_table(rt_proj *out, rt_row_source **source, const table *t, rt_model *model,
                            rt_stream *s, rt_error *err)
{
    const char *path = rt_weights_file_path(s->weights, t->weight->file);
    const unsigned threads = rt_pool_threads(model->pool);
    *out = t->shape;
    if (!t->resident)
        return rt_row_source_open(source, path, t->weight, out->n_packed > 0, model->act, threads, err);
    void *raw = malloc(t->weight->bytes);
    if (!raw)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for the %zu bytes of %.80s", path,
                            t->weight->bytes, t->weight->name);
    rt_status status = rt_file_read_at(raw, t->weight->bytes, path, t->weight->offset, err);
    rt_weights_place(s->weights, t->weight, raw);
    *out = (rt_proj){0};
    const rt_loader loader = {model, s->weights, &s->layout, &model->arena, false};
    if (status == RT_OK)
        status = rt_load_group(out, &loader, &t->param, 1, err);
    rt_weights_place(s->weights, t->weight, NULL);
    free(raw);
    return status;
}

static rt_status open_tables(rt_model *model, rt_stream *s, const table *embed, const table *head,
                             rt_error *err)
{
    rt_proj rows;
    if (open_table(&rows, &s->embed, embed, model, s, err) != RT_OK)
        return err->status;
    model->embed_source = s->embed;
    model->embed = rows.w;
    model->embed_packed = rows.n_packed ? rows.packed[0] : NULL;
    if (!head->param) {
        model->head = rows;
        s->head = s->embed;
    } else if (open_table(&model->head, &s->head, head, model, s, err) != RT_OK) {
        return err->status;
    }
    model->head.source = s->head;
    return RT_OK;
}

static rt_status take_buffers(rt_stream *s, size_t raw_max, size_t loaded_max, size_t *left, rt_error *err)
{
    const size_t one = raw_max + RT_READ_ALIGN;
    s->n_buffers = RT_STREAM_BUFFERS;
    while (s->n_buffers > 1 && s->n_buffers * one + loaded_max > *left)
        s->n_buffers--;
    if (one + loaded_max > *left)
        return rt_error_set(
            err, RT_NO_MEMORY,
            "streaming this model takes %zu MiB for a layer as read and as multiplied, and there are "
            "%zu MiB; allow more memory, or --precision int8 for a quantised file",
            (one + loaded_max) >> 20, *left >> 20);
    if (rt_arena_init(&s->raw, s->n_buffers * one + RT_READ_ALIGN, err) != RT_OK ||
        rt_arena_init(&s->loaded, loaded_max, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < s->n_buffers; i++) {
        unsigned char *at = rt_arena_push_raw(&s->raw, one, 1);
        s->buffers[i].data = at + (RT_READ_ALIGN - (uintptr_t)at % RT_READ_ALIGN) % RT_READ_ALIGN;
    }
    *left -= s->n_buffers * one + loaded_max;
    return RT_OK;
}

/* Learned positions are a matrix that is held whole. */
static rt_status load_positions(rt_model *model, const rt_stream *s, const rt_loader *loader, rt_error *err)
{
    const rt_weight *weight;
    if (rt_canonical_source(&weight, s->weights, &model->config, SIZE_MAX, RT_GLOBAL_POSITIONS, err) != RT_OK)
        return err->status;
    void *raw = malloc(weight->bytes);
    if (!raw)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu bytes of positions", weight->bytes);
    rt_status status = rt_file_read_at(raw, weight->bytes, rt_weights_file_path(s->weights, weight->file),
                                       weight->offset, err);
    rt_weights_place(s->weights, weight, raw);
    if (status == RT_OK)
        status = rt_load_outer_vectors(loader, err);
    rt_weights_place(s->weights, weight, NULL);
    free(raw);
    return status;
}

/* Takes the model's arena, with room for tables that are widened, and fills in vectors. */
static rt_status take_vectors(rt_model *model, const rt_stream *s, size_t table_bytes, rt_error *err)
{
    size_t bytes = 0;
    const rt_param *positions = rt_layout_global(&s->layout, RT_GLOBAL_POSITIONS);
    for (size_t i = 0; i < s->layout.count; i++)
        if (!s->layout.list[i].cols || &s->layout.list[i] == positions)
            bytes += 2 * rt_size_round_up(s->layout.list[i].count * sizeof(float), 64) + 64;
    if (rt_arena_init(&model->arena, bytes + table_bytes + 4096, err) != RT_OK)
        return err->status;
    const rt_loader loader = {model, s->weights, &s->layout, &model->arena, false};
    rt_status status =
        positions ? load_positions(model, s, &loader, err) : rt_load_outer_vectors(&loader, err);
    for (size_t l = 0; l < s->n_layers && status == RT_OK; l++)
        status = rt_load_layer_vectors(&loader, l, err);
    return status;
}

static rt_status open_files(rt_stream *s, rt_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < rt_weights_count(s->weights); i++)
        n = rt_size_max(n, rt_weights_at(s->weights, i)->file + 1);
    const char **paths = calloc(n ? n : 1, sizeof(*paths));
    if (!paths)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a list of files");
    for (size_t i = 0; i < n; i++)
        paths[i] = rt_weights_file_path(s->weights, i);
    const rt_status status = rt_read_files_open(&s->files, paths, n, err);
    free(paths);
    return status;
}

/* Everything but the thread; `left`: bytes that the weights may take. */
static rt_status open_parts(rt_model *model, rt_stream *s, size_t left, rt_error *err)
{
    size_t raw_max = 0;
    table embed, head;
    if (rt_layout_build(&s->layout, &model->config, err) != RT_OK ||
        plan_layers(s, &model->config, &raw_max, err) != RT_OK || open_files(s, err) != RT_OK ||
        take_buffers(s, raw_max, shape_layers(model, s), &left, err) != RT_OK ||
        choose_table(&embed, model, s, RT_GLOBAL_EMBED, &left, err) != RT_OK ||
        choose_table(&head, model, s, RT_GLOBAL_HEAD, &left, err) != RT_OK)
        return err->status;
    size_t widened = embed.resident && !embed.shape.n_packed ? embed.loaded : 0;
    widened += head.resident && !head.shape.n_packed ? head.loaded : 0;
    if (take_vectors(model, s, widened, err) != RT_OK)
        return err->status;
    return open_tables(model, s, &embed, &head, err);
}

rt_status rt_model_open_streamed(rt_model **out, rt_weights *weights, rt_precision precision, rt_pool *pool,
                                 const rt_stream_options *options, rt_error *err)
{
    assert(rt_weights_is_headers(weights));
    *out = NULL;
    rt_model_config config;
    rt_model *model = NULL;
    if (rt_model_config_read(&config, weights, err) != RT_OK)
        return err->status;
    if (config.experts.count || config.latent.kv_rank)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "%s: a %s cannot be run from disk, because a layer's experts would be read for every "
            "pass; it must fit in memory",
            rt_weights_path(weights), config.family);
    rt_stream *s = calloc(1, sizeof *s);
    if (!s)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a streamed model");
    if (rt_model_new(&model, &config, precision, pool, err) != RT_OK) {
        free(s);
        return err->status;
    }
    model->stream = s; /* from here on rt_model_close cleans up */
    s->weights = weights;
    s->current = RT_STREAM_NONE;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    rt_status status = open_parts(
        model, s, options && options->memory_bytes ? options->memory_bytes : rt_memory_left() / 2, err);
    if (status == RT_OK)
        status = rt_stream_start(s, err);
    if (status != RT_OK) {
        rt_model_close(model);
        return status;
    }
    *out = model;
    return RT_OK;
}
