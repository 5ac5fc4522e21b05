/* model/stream.c - see stream.h.
 *
 * A buffer holds one layer's matrices as the file has them.  The reading thread fills the buffers in the
 * order of the layers, over the last one to the first again; the forward pass takes the layer that it wants,
 * brings it into the form of the products in one arena, which the layers share, and hands the buffer back for
 * the next. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"
#include "model/stream_parts.h"

/* ---- the reading thread ---- */

static rt_status read_layer(rt_stream *s, const rt_stream_layer *plan, unsigned char *out, uint64_t *bytes,
                            rt_error *err)
{
    for (size_t i = 0; i < plan->n_spans; i++) {
        size_t got;
        const rt_status status = rt_read_span(s->files, &plan->spans[i], out, &got, err);
        if (status != RT_OK ||
            got < plan->spans[i].size) /* the end of the file is not aligned: no fault by itself */
            memset(out + (status == RT_OK ? got : 0), 0, plan->spans[i].size - (status == RT_OK ? got : 0));
        if (status != RT_OK)
            return status;
        *bytes += got;
        for (size_t t = 0; t < plan->n_tensors; t++) {
            const rt_weight *w = plan->tensors[t];
            const rt_span *span = &plan->spans[i];
            if (w->file == span->file && w->offset >= span->begin && w->offset < span->begin + span->size &&
                w->offset + w->bytes > span->begin + got)
                return rt_error_set(err, RT_CORRUPT,
                                    "%.200s: the file ends inside tensor %.80s; it was cut while in use",
                                    rt_weights_file_path(s->weights, w->file), w->name);
        }
        out += plan->spans[i].size;
    }
    return RT_OK;
}

static rt_stream_buffer *next_wanted(rt_stream *s)
{
    for (size_t i = 0; i < s->n_buffers; i++) { /* of two, the one whose layer comes first */
        rt_stream_buffer *b = &s->buffers[i], *other = &s->buffers[s->n_buffers - 1 - i];
        if (b->state != RT_BUFFER_WANTED)
            continue;
        const bool other_first = other != b && other->state == RT_BUFFER_WANTED && s->n_layers > 2 &&
                                 (other->layer + 1) % s->n_layers == b->layer;
        return other_first ? other : b;
    }
    return NULL;
}

static void *read_ahead(void *context)
{
    rt_stream *s = context;
    (void)pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        rt_stream_buffer *b = next_wanted(s);
        if (!b) {
            (void)pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        b->state = RT_BUFFER_READING;
        const size_t layer = b->layer;
        (void)pthread_mutex_unlock(&s->lock);
        rt_error err = {0};
        uint64_t bytes = 0;
        const double from = rt_clock_seconds();
        const rt_status status = read_layer(s, &s->plans[layer], b->data, &bytes, &err);
        const double took = rt_clock_seconds() - from;
        (void)pthread_mutex_lock(&s->lock);
        if (status != RT_OK && s->error.status == RT_OK)
            s->error = err;
        s->stats.bytes += bytes;
        s->stats.layers++;
        s->stats.read_s += took;
        b->state = RT_BUFFER_READY;
        (void)pthread_cond_broadcast(&s->changed);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the forward pass's side ---- */

static rt_stream_buffer *buffer_of(rt_stream *s, size_t layer)
{
    for (size_t i = 0; i < s->n_buffers; i++)
        if (s->buffers[i].state != RT_BUFFER_FREE && s->buffers[i].layer == layer)
            return &s->buffers[i];
    return NULL;
}

/* Under lock: the layer is asked for, in a buffer that is not being filled. */
static rt_stream_buffer *ask_for(rt_stream *s, size_t layer)
{
    for (;;) {
        for (size_t i = 0; i < s->n_buffers; i++) {
            rt_stream_buffer *b = &s->buffers[i];
            if (b->state == RT_BUFFER_READING)
                continue;
            b->layer = layer;
            b->state = RT_BUFFER_WANTED;
            (void)pthread_cond_broadcast(&s->changed);
            return b;
        }
        (void)pthread_cond_wait(&s->changed, &s->lock);
    }
}

/* The buffer is free: the first layer after the one at hand that no buffer has or gets. */
static void ask_for_next(rt_stream *s, rt_stream_buffer *b)
{
    b->state = RT_BUFFER_FREE;
    for (size_t step = 1; step <= s->n_buffers; step++) {
        const size_t layer = ((size_t)s->current + step) % s->n_layers;
        if (layer == (size_t)s->current || buffer_of(s, layer))
            continue;
        b->layer = layer;
        b->state = RT_BUFFER_WANTED;
        (void)pthread_cond_broadcast(&s->changed);
        return;
    }
}

static void drop_packed(rt_layer *layer)
{
    for (int g = 0; g < RT_GROUP_EXPERTS; g++) {
        rt_proj *proj = rt_group_of(layer, g);
        for (size_t i = 0; i < proj->n_packed; i++) {
            rt_qmat_free(proj->packed[i]);
            proj->packed[i] = NULL; /* n_packed stays: it is part of the shape */
        }
        proj->w = NULL;
    }
}

static void place_tensors(rt_stream *s, const rt_stream_layer *plan, const unsigned char *data)
{
    for (size_t i = 0; i < plan->n_tensors; i++)
        rt_weights_place(s->weights, plan->tensors[i], data ? data + plan->at[i] : NULL);
}

static bool load_from(const rt_model *model, const rt_stream_buffer *b)
{
    rt_stream *s = model->stream;
    rt_model *mutable = (rt_model *)(uintptr_t)model; /* of this model's layers, one at a time exists */
    const double from = rt_clock_seconds();
    rt_error err = {0};
    if (s->current != RT_STREAM_NONE)
        drop_packed(&mutable->layers[s->current]);
    rt_arena_reset(&s->loaded);
    place_tensors(s, &s->plans[b->layer], b->data);
    const rt_loader loader = {mutable, s->weights, &s->layout, &s->loaded, true};
    const rt_status status = rt_load_layer_matrices(&loader, b->layer, &err);
    place_tensors(s, &s->plans[b->layer], NULL);
    s->current = (long)b->layer;
    (void)pthread_mutex_lock(&s->lock);
    if (status != RT_OK && s->error.status == RT_OK)
        s->error = err;
    s->stats.load_s += rt_clock_seconds() - from;
    (void)pthread_mutex_unlock(&s->lock);
    return status == RT_OK;
}

bool rt_stream_want(const rt_model *model, size_t layer)
{
    rt_stream *s = model->stream;
    if (!s || s->current == (long)layer)
        return true;
    const double from = rt_clock_seconds();
    (void)pthread_mutex_lock(&s->lock);
    rt_stream_buffer *b = buffer_of(s, layer);
    if (!b)
        b = ask_for(s, layer);
    while (b->state != RT_BUFFER_READY)
        (void)pthread_cond_wait(&s->changed, &s->lock);
    s->stats.wait_s += rt_clock_seconds() - from;
    (void)pthread_mutex_unlock(&s->lock);
    const bool loaded = load_from(model, b);
    (void)pthread_mutex_lock(&s->lock);
    ask_for_next(s, b);
    (void)pthread_mutex_unlock(&s->lock);
    if (!loaded)
        s->current = RT_STREAM_NONE; /* tried again, should somebody want it */
    return loaded;
}

rt_status rt_stream_check(const rt_model *model, rt_error *err)
{
    rt_stream *s = model->stream;
    if (!s)
        return RT_OK;
    rt_error found;
    (void)pthread_mutex_lock(&s->lock);
    found = s->error;
    (void)pthread_mutex_unlock(&s->lock);
    if (found.status != RT_OK)
        return rt_error_set(err, found.status, "%.500s", found.text);
    if (rt_row_source_check(s->embed, err) != RT_OK)
        return err->status;
    return rt_row_source_check(s->head, err);
}

rt_stream_stats rt_stream_stats_of(const rt_model *model)
{
    rt_stream *s = model->stream;
    if (!s)
        return (rt_stream_stats){0};
    (void)pthread_mutex_lock(&s->lock);
    rt_stream_stats out = s->stats;
    (void)pthread_mutex_unlock(&s->lock);
    out.held_bytes = rt_stream_bytes(model);
    out.direct = rt_read_files_direct(s->files);
    out.head_resident = !s->head;
    out.embed_resident = !s->embed;
    return out;
}

size_t rt_stream_bytes(const rt_model *model)
{
    const rt_stream *s = model->stream;
    if (!s)
        return 0;
    return s->raw.size + s->loaded.size + (s->embed ? rt_row_source_bytes(s->embed) : 0) +
           (s->head && s->head != s->embed ? rt_row_source_bytes(s->head) : 0);
}

void rt_stream_close(rt_model *model)
{
    rt_stream *s = model->stream;
    if (!s)
        return;
    if (s->has_thread) {
        (void)pthread_mutex_lock(&s->lock);
        s->quit = true;
        (void)pthread_cond_broadcast(&s->changed);
        (void)pthread_mutex_unlock(&s->lock);
        (void)pthread_join(s->thread, NULL);
    }
    if (s->current != RT_STREAM_NONE)
        drop_packed(&model->layers[s->current]);
    if (s->head != s->embed)
        rt_row_source_close(s->head);
    rt_row_source_close(s->embed);
    rt_read_files_close(s->files);
    rt_layout_free(&s->layout);
    rt_arena_deinit(&s->raw);
    rt_arena_deinit(&s->loaded);
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_cond_destroy(&s->changed);
    free(s->plans);
    free(s);
    model->stream = NULL;
}

rt_status rt_stream_start(rt_stream *s, rt_error *err)
{
    s->current = RT_STREAM_NONE;
    for (size_t i = 0; i < s->n_buffers && i < s->n_layers; i++) {
        s->buffers[i].layer = i;
        s->buffers[i].state = RT_BUFFER_WANTED;
    }
    if (pthread_create(&s->thread, NULL, read_ahead, s) != 0)
        return rt_error_set(err, RT_NO_MEMORY, "no thread to read with could be started");
    s->has_thread = true;
    return RT_OK;
}
