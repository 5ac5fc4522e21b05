/* base/unpack.c - see unpack.h. */
#include "base/unpack.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/file.h"

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static rt_status too_large(const rt_text *out, const char *path, rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "%.300s: more than %zu bytes of text, or no memory for them", path,
                        out->size_max);
}

static rt_status unpack(rt_text *out, ZSTD_DStream *stream, const rt_file *file, const char *path,
                        rt_error *err)
{
    ZSTD_inBuffer in = {file->data, file->size, 0};
    const size_t piece = ZSTD_DStreamOutSize();
    char *room = malloc(piece);
    if (!room)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to unpack it", path);
    rt_status status = RT_OK;
    size_t left = 1; /* 0 at the end of a frame */
    while (status == RT_OK && in.pos < in.size) {
        ZSTD_outBuffer to = {room, piece, 0};
        left = ZSTD_decompressStream(stream, &to, &in);
        if (ZSTD_isError(left))
            status = rt_error_set(err, RT_CORRUPT, "%.300s: is not a whole zstd file: %s", path,
                                  ZSTD_getErrorName(left));
        rt_text_append(out, room, ZSTD_isError(left) ? 0 : to.pos);
        if (status == RT_OK && out->failed)
            status = too_large(out, path, err);
    }
    if (status == RT_OK && left != 0)
        status = rt_error_set(err, RT_CORRUPT, "%.300s: the zstd stream ends early", path);
    free(room);
    return status;
}

/* Editors of some systems begin a text with a byte order mark, which is no part of it. */
static void drop_mark(rt_text *out, size_t from)
{
    if (out->size - from < 3 || memcmp(out->data + from, "\xEF\xBB\xBF", 3) != 0)
        return;
    out->size -= 3;
    memmove(out->data + from, out->data + from + 3, out->size - from);
    out->data[out->size] = '\0';
}

rt_status rt_file_read_unpacked(rt_text *out, const char *path, rt_error *err)
{
    const size_t from = out->size;
    rt_file file;
    if (rt_file_map(&file, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    if (!ends_with(path, ".zst")) {
        rt_text_append(out, file.data, file.size);
        if (out->failed)
            status = too_large(out, path, err);
    } else {
        ZSTD_DStream *stream = ZSTD_createDStream();
        status = stream ? unpack(out, stream, &file, path, err)
                        : rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to unpack it", path);
        (void)ZSTD_freeDStream(stream);
    }
    rt_file_unmap(&file);
    if (status == RT_OK)
        drop_mark(out, from);
    return status;
}
