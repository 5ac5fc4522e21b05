/* model/row_source.c - see row_source.h.  The page cache serves rows that are read again and again. */
#include "model/row_source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "tensor/quant.h"

typedef struct buffer {
    void *raw, *made; /* a tile as the file holds it, and as it is multiplied */
    float *row;       /* [cols] */
    bool taken;
} buffer;

struct rt_row_source {
    int fd;
    size_t offset, rows, cols, row_bytes, made_bytes;
    rt_dtype dtype, act;
    bool packed;
    buffer *buffers; /* one a thread: nobody waits long */
    unsigned n_buffers;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    rt_error error; /* under lock; of the first failure */
};

static rt_status take_buffers(rt_row_source *s, unsigned n, rt_error *err)
{
    size_t raw, element = s->act == RT_F32 ? 4 : 2;
    if (s->packed)
        s->made_bytes = rt_qmat_packed_bytes(s->dtype, RT_ROW_TILE, s->cols);
    else if (!rt_size_mul(RT_ROW_TILE * element, s->cols, &s->made_bytes))
        return rt_error_set(err, RT_NO_MEMORY, "rows of %zu values are too long", s->cols);
    if (!rt_size_mul(RT_ROW_TILE, s->row_bytes, &raw) || !(s->buffers = calloc(n, sizeof *s->buffers)))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for rows of %zu values", s->cols);
    s->n_buffers = n;
    for (unsigned i = 0; i < n; i++) {
        buffer *b = &s->buffers[i];
        b->raw = aligned_alloc(64, rt_size_round_up(raw, 64));
        b->made = aligned_alloc(64, rt_size_round_up(s->made_bytes, 64));
        b->row = malloc(s->cols * sizeof *b->row);
        if (!b->raw || !b->made || !b->row)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %d rows of %zu values", (int)RT_ROW_TILE,
                                s->cols);
    }
    return RT_OK;
}

rt_status rt_row_source_open(rt_row_source **out, const char *path, const rt_weight *weight, bool packed,
                             rt_dtype act, unsigned n_threads, rt_error *err)
{
    *out = NULL;
    if (weight->dtype == RT_F8_E4M3)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "%.300s: %s is of 8-bit floats; an embedding or head of them is not read row by row", path,
            weight->name);
    rt_row_source *s = calloc(1, sizeof *s);
    if (!s)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a table", path);
    *s = (rt_row_source){.fd = open(path, O_RDONLY | O_CLOEXEC),
                         .offset = weight->offset,
                         .rows = weight->shape[0],
                         .cols = weight->shape[1],
                         .dtype = weight->dtype,
                         .act = act,
                         .packed = packed};
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->freed, NULL);
    rt_status status =
        s->fd >= 0 ? RT_OK : rt_error_set(err, RT_IO, "%.300s: cannot open: %s", path, strerror(errno));
    if (status == RT_OK && !rt_dtype_bytes(&s->row_bytes, s->dtype, s->cols))
        status = rt_error_set(err, RT_CORRUPT, "%.300s: rows of %zu values are too long", path, s->cols);
    if (status == RT_OK)
        status = take_buffers(s, n_threads, err);
    if (status == RT_OK)
        *out = s;
    else
        rt_row_source_close(s);
    return status;
}

void rt_row_source_close(rt_row_source *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->n_buffers; i++) {
        free(s->buffers[i].raw);
        free(s->buffers[i].made);
        free(s->buffers[i].row);
    }
    free(s->buffers);
    if (s->fd >= 0)
        (void)close(s->fd);
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_cond_destroy(&s->freed);
    free(s);
}

size_t rt_row_source_bytes(const rt_row_source *s)
{
    return s->n_buffers * (RT_ROW_TILE * s->row_bytes + s->made_bytes + s->cols * sizeof(float));
}

static buffer *take_buffer(rt_row_source *s)
{
    buffer *found = NULL;
    (void)pthread_mutex_lock(&s->lock);
    while (!found) {
        for (unsigned i = 0; i < s->n_buffers && !found; i++)
            if (!s->buffers[i].taken)
                found = &s->buffers[i];
        if (!found)
            (void)pthread_cond_wait(&s->freed, &s->lock);
    }
    found->taken = true;
    (void)pthread_mutex_unlock(&s->lock);
    return found;
}

static void give_buffer(rt_row_source *s, buffer *b)
{
    (void)pthread_mutex_lock(&s->lock);
    b->taken = false;
    (void)pthread_cond_signal(&s->freed);
    (void)pthread_mutex_unlock(&s->lock);
}

static void read_rows(rt_row_source *s, void *out, size_t begin, size_t n)
{
    const size_t size = n * s->row_bytes, from = s->offset + begin * s->row_bytes;
    for (size_t done = 0; done < size;) {
        const ssize_t got = pread(s->fd, (char *)out + done, size - done, (off_t)(from + done));
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            memset((char *)out + done, 0, size - done);
            (void)pthread_mutex_lock(&s->lock);
            if (s->error.status == RT_OK)
                (void)rt_error_set(&s->error, RT_IO, "reading rows of the embedding or the head failed: %s",
                                   got == 0 ? "the file ends" : strerror(errno));
            (void)pthread_mutex_unlock(&s->lock);
            return;
        }
    }
}

void rt_row_source_row(rt_row_source *s, size_t row, float *out)
{
    buffer *b = take_buffer(s);
    read_rows(s, b->raw, row, 1);
    if (s->packed || s->act == RT_F32) {
        rt_dequantise(out, b->raw, s->dtype, s->cols);
    } else { /* through bf16, as the widened matrix */
        rt_dequantise_bf16(b->made, b->raw, s->dtype, s->cols);
        for (size_t i = 0; i < s->cols; i++)
            out[i] = rt_bf16_to_f32(((const rt_bf16 *)b->made)[i]);
    }
    give_buffer(s, b);
}

static void mul_tile(const rt_row_source *s, const buffer *b, const void *operand, size_t ld, size_t n,
                     size_t rows, void *out, size_t ldo, rt_dtype out_type, bool add)
{
    if (s->packed) {
        rt_qmat *mat;
        rt_error unused;
        if (rt_qmat_pack_into(&mat, b->made, b->raw, s->dtype, rows, s->cols, NULL, &unused) == RT_OK)
            rt_qmat_mul(out, ldo, mat, 0, rows, operand, n, add);
        rt_qmat_free(mat);
        return;
    }
    if (s->act == RT_F32)
        rt_dequantise(b->made, b->raw, s->dtype, rows * s->cols);
    else
        rt_dequantise_bf16(b->made, b->raw, s->dtype, rows * s->cols);
    const rt_gemm_spec spec = {.m = n,
                               .n = rows,
                               .k = s->cols,
                               .lda = ld,
                               .ldb = s->cols,
                               .ldc = ldo,
                               .ab = s->act,
                               .c = out_type,
                               .b_transposed = true,
                               .accumulate = add};
    rt_gemm(&spec, operand, b->made, out);
}

void rt_row_source_mul(rt_row_source *s, const void *operand, size_t ld, size_t n, size_t row_begin,
                       size_t row_end, void *out, size_t ldo, rt_dtype out_type, bool add)
{
    const size_t size = rt_dtype_get(out_type)->block_bytes;
    buffer *b = take_buffer(s);
    for (size_t at = row_begin; at < row_end; at += RT_ROW_TILE) {
        const size_t rows = rt_size_min(RT_ROW_TILE, row_end - at);
        read_rows(s, b->raw, at, rows);
        mul_tile(s, b, operand, ld, n, rows, (unsigned char *)out + (at - row_begin) * size, ldo, out_type,
                 add);
    }
    give_buffer(s, b);
}

rt_status rt_row_source_check(const rt_row_source *s, rt_error *err)
{
    if (!s || s->error.status == RT_OK)
        return RT_OK;
    return rt_error_set(err, s->error.status, "%.400s", s->error.text);
}
