/* model/stream_parts.h - what stream.c (running) and stream_open.c (opening) share. */
#ifndef RT_MODEL_STREAM_PARTS_H
#define RT_MODEL_STREAM_PARTS_H

#include <pthread.h>

#include "model/load_parts.h"
#include "model/row_source.h"
#include "model/stream.h"
#include "model/stream_read.h"

enum { RT_STREAM_BUFFERS = 2, RT_STREAM_TENSORS = 8, RT_STREAM_NONE = -1 };

typedef struct rt_stream_layer { /* what of the files a layer is made of */
    const rt_weight *tensors[RT_STREAM_TENSORS];
    size_t at[RT_STREAM_TENSORS]; /* in the buffer */
    size_t n_tensors;
    rt_span spans[RT_STREAM_TENSORS];
    size_t n_spans, bytes; /* bytes: of the spans, what a buffer must hold */
} rt_stream_layer;

typedef enum rt_stream_state {
    RT_BUFFER_FREE,
    RT_BUFFER_WANTED,
    RT_BUFFER_READING,
    RT_BUFFER_READY
} rt_stream_state;

typedef struct rt_stream_buffer {
    unsigned char *data;
    size_t layer;
    rt_stream_state state;
} rt_stream_buffer;

typedef struct rt_stream {
    rt_weights *weights;
    rt_layout layout;
    rt_read_files *files;
    rt_stream_layer *plans; /* [n_layers] */
    size_t n_layers;
    rt_arena raw, loaded; /* the buffers; the layer at hand */
    rt_stream_buffer buffers[RT_STREAM_BUFFERS];
    size_t n_buffers;
    long current; /* the layer in `loaded` */
    rt_row_source *embed, *head;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool quit;      /* under lock, as are the states of the buffers, error and stats */
    rt_error error; /* the first failure */
    rt_stream_stats stats;
} rt_stream;

rt_status rt_stream_start(rt_stream *stream, rt_error *err); /* starts the reading thread at layer 0 */

#endif
