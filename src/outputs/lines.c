/* outputs/lines.c - lines of a file of any size, unpacked on the way; see lines.h. */
#include "outputs/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

enum { IN_BYTES = 1 << 16 };

struct rt_lines {
    int fd;
    char *path;
    ZSTD_DStream *zstd; /* NULL: a plain file */
    ZSTD_inBuffer packed;
    bool frame_open; /* the last zstd frame is not finished */
    unsigned char *in;
    rt_text buffer; /* bytes from `at` on are not handed out yet */
    size_t at, number;
    bool ended;
};

void rt_lines_close(rt_lines *lines)
{
    if (!lines)
        return;
    if (lines->fd >= 0)
        (void)close(lines->fd);
    (void)ZSTD_freeDStream(lines->zstd);
    rt_text_deinit(&lines->buffer);
    free(lines->in);
    free(lines->path);
    free(lines);
}

rt_status rt_lines_open(rt_lines **out, const char *path, rt_error *err)
{
    *out = NULL;
    rt_lines *lines = calloc(1, sizeof *lines);
    if (!lines)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to read it", path);
    const size_t size = strlen(path);
    const bool packed = size > 4 && strcmp(path + size - 4, ".zst") == 0;
    lines->fd = open(path, O_RDONLY | O_CLOEXEC);
    lines->path = strdup(path);
    lines->in = malloc(IN_BYTES);
    lines->zstd = packed ? ZSTD_createDStream() : NULL;
    lines->buffer.size_max = RT_LINE_BYTES_MAX + 4 * IN_BYTES;
    if (lines->fd < 0) {
        rt_error_set(err, errno == ENOENT ? RT_NOT_FOUND : RT_IO, "%.300s cannot be opened: %s", path,
                     strerror(errno));
        rt_lines_close(lines);
        return err->status;
    }
    if (!lines->path || !lines->in || (packed && !lines->zstd)) {
        rt_lines_close(lines);
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to read it", path);
    }
    *out = lines;
    return RT_OK;
}

static rt_status read_some(rt_lines *lines, size_t *n, rt_error *err)
{
    ssize_t got;
    do
        got = read(lines->fd, lines->in, IN_BYTES);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return rt_error_set(err, RT_IO, "%.300s cannot be read: %s", lines->path, strerror(errno));
    *n = (size_t)got;
    return RT_OK;
}

static rt_status unpack_some(rt_lines *lines, rt_error *err)
{
    unsigned char out[IN_BYTES];
    if (lines->packed.pos == lines->packed.size) {
        size_t n = 0;
        if (read_some(lines, &n, err) != RT_OK)
            return err->status;
        lines->packed = (ZSTD_inBuffer){lines->in, n, 0};
        if (n == 0) {
            lines->ended = true;
            return lines->frame_open ? rt_error_set(err, RT_CORRUPT,
                                                    "%.300s ends in the middle of a zstd frame", lines->path)
                                     : RT_OK;
        }
    }
    ZSTD_outBuffer unpacked = {out, sizeof out, 0};
    const size_t left = ZSTD_decompressStream(lines->zstd, &unpacked, &lines->packed);
    if (ZSTD_isError(left))
        return rt_error_set(err, RT_CORRUPT, "%.300s is no zstd file, or it is damaged: %s", lines->path,
                            ZSTD_getErrorName(left));
    lines->frame_open = left != 0;
    rt_text_append(&lines->buffer, out, unpacked.pos);
    return RT_OK;
}

static rt_status fill(rt_lines *lines, rt_error *err)
{
    if (lines->at) {
        memmove(lines->buffer.data, lines->buffer.data + lines->at, lines->buffer.size - lines->at);
        lines->buffer.size -= lines->at;
        lines->at = 0;
    }
    if (lines->zstd) {
        if (unpack_some(lines, err) != RT_OK)
            return err->status;
    } else {
        size_t n = 0;
        if (read_some(lines, &n, err) != RT_OK)
            return err->status;
        rt_text_append(&lines->buffer, lines->in, n);
        lines->ended = n == 0;
    }
    if (lines->buffer.failed)
        return rt_error_set(err, RT_CORRUPT, "%.300s:%zu: the line is longer than %d MiB", lines->path,
                            lines->number + 1, (int)(RT_LINE_BYTES_MAX >> 20));
    return RT_OK;
}

rt_status rt_lines_next(rt_lines *lines, const char **line, size_t *size, bool *whole, rt_error *err)
{
    size_t looked = 0;
    *line = NULL;
    for (;;) {
        const size_t there = lines->buffer.size - lines->at;
        const char *start = lines->buffer.data ? lines->buffer.data + lines->at : "";
        const char *end = there > looked ? memchr(start + looked, '\n', there - looked) : NULL;
        if (end || (lines->ended && there)) {
            *line = start;
            *size = end ? (size_t)(end - start) : there;
            *whole = end != NULL;
            lines->at += *size + (end != NULL);
            lines->number++;
            return RT_OK;
        }
        if (lines->ended)
            return RT_OK;
        looked = there;
        if (fill(lines, err) != RT_OK)
            return err->status;
    }
}

size_t rt_lines_number(const rt_lines *lines) { return lines->number; }
