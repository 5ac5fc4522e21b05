/* outputs/text_rows.c - see text_rows.h. */
#include "outputs/text_rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"

enum { LEVEL = 3, PIECE = 256 << 10, WINDOW_LOG_MAX = 27 };

/* ---- writing ---- */

rt_status text_writer_init(text_writer *w, const char *path, rt_error *err)
{
    *w = (text_writer){.file.fd = -1, .zstd = ZSTD_createCCtx()};
    if (!w->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1))) {
        text_writer_deinit(w);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to pack rows");
    }
    if (append_init(&w->file, path, err) != RT_OK)
        text_writer_deinit(w);
    return w->zstd ? RT_OK : err->status;
}

void text_writer_deinit(text_writer *w)
{
    append_deinit(&w->file);
    rt_text_deinit(&w->waiting);
    rt_text_deinit(&w->packed);
    (void)ZSTD_freeCCtx(w->zstd);
    *w = (text_writer){.file.fd = -1};
}

rt_status text_writer_add_line(text_writer *w, const char *line, size_t size, rt_error *err)
{
    const size_t begin = w->waiting.size;
    if (size > TEXT_ROW_MAX)
        return rt_error_set(err, RT_INVALID, "a row of %zu bytes is larger than the %d that are kept", size,
                            TEXT_ROW_MAX);
    rt_text_append(&w->waiting, line, size);
    rt_text_append(&w->waiting, "\n", 1);
    if (w->waiting.failed) {
        w->waiting.size = begin;
        w->waiting.failed = false;
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row of %zu bytes", size);
    }
    w->n_rows++;
    return RT_OK;
}

rt_status text_writer_add(text_writer *w, const json_t *row, rt_error *err)
{
    if (!json_is_object(row))
        return rt_error_set(err, RT_INVALID, "a row must be a JSON object");
    char *line = json_dumps(row, JSON_COMPACT);
    if (!line)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a row");
    const rt_status status = text_writer_add_line(w, line, strlen(line), err);
    free(line);
    return status;
}

rt_status text_writer_flush(text_writer *w, rt_error *err)
{
    if (!w->waiting.size)
        return RT_OK;
    const size_t bound = ZSTD_compressBound(w->waiting.size);
    char *room = bound > w->packed.capacity ? realloc(w->packed.data, bound) : w->packed.data;
    if (!room)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to pack %zu bytes of rows", w->waiting.size);
    w->packed.capacity = bound > w->packed.capacity ? bound : w->packed.capacity;
    w->packed.data = room;
    const size_t size = ZSTD_compress2(w->zstd, room, w->packed.capacity, w->waiting.data, w->waiting.size);
    if (ZSTD_isError(size))
        return rt_error_set(err, RT_NO_MEMORY, "rows cannot be packed: %s", ZSTD_getErrorName(size));
    if (append_write(&w->file, room, size, NULL, 0, err) != RT_OK)
        return err->status;
    rt_text_clear(&w->waiting);
    return RT_OK;
}

/* ---- reading ---- */

typedef struct lines {
    text_line_fn line_fn;
    void *context;
    rls_damage_fn damage;
    void *damage_context;
    ZSTD_DCtx *zstd;
    rt_text text; /* of one frame */
    size_t saved; /* lines of the frame that were handed on */
} lines;

/* Unpacks the frame at data into `text`.  *used: bytes of it; false: it is cut or damaged. */
static bool unpack(lines *l, const unsigned char *data, size_t size, size_t *used, bool *cut)
{
    ZSTD_inBuffer in = {data, size, 0};
    static const size_t piece = PIECE;
    char *out = malloc(piece);
    size_t left = 1;
    rt_text_clear(&l->text);
    (void)ZSTD_DCtx_reset(l->zstd, ZSTD_reset_session_only);
    while (out && left && !ZSTD_isError(left) && !l->text.failed) {
        ZSTD_outBuffer o = {out, piece, 0};
        const size_t before = in.pos;
        left = ZSTD_decompressStream(l->zstd, &o, &in);
        if (ZSTD_isError(left))
            break;
        rt_text_append(&l->text, out, o.pos);
        if (left && in.pos == before && o.pos == 0)
            break; /* it wants more than there is */
    }
    const bool had_room = out != NULL;
    free(out);
    *used = in.pos;
    *cut = had_room && left && !ZSTD_isError(left) && in.pos == size;
    return had_room && left == 0 && !l->text.failed;
}

static rt_status hand_on(lines *l, rt_error *err)
{
    const char *at = l->text.data, *end = at + l->text.size;
    l->saved = 0;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline)
            break;
        if (newline > at && l->line_fn(l->context, at, (size_t)(newline - at), err) != RT_OK)
            return err->status;
        l->saved += newline > at;
        at = newline + 1;
    }
    return RT_OK;
}

static size_t next_frame(const unsigned char *data, size_t size, size_t at)
{
    static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    const unsigned char *hit = at < size ? memmem(data + at, size - at, magic, sizeof magic) : NULL;
    return hit ? (size_t)(hit - data) : size;
}

rt_status text_lines(const unsigned char *data, size_t size, text_line_fn line_fn, void *context,
                     rls_damage_fn damage, void *damage_context, rt_error *err)
{
    lines l = {line_fn, context, damage, damage_context, ZSTD_createDCtx(), {.size_max = TEXT_FRAME_MAX}, 0};
    rt_status status = RT_OK;
    if (!l.zstd || ZSTD_isError(ZSTD_DCtx_setParameter(l.zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory to unpack rows");
    for (size_t at = 0; at < size && status == RT_OK;) {
        size_t used = 0;
        bool cut = false;
        const bool whole = unpack(&l, data + at, size - at, &used, &cut);
        l.saved = 0;
        if ((whole || cut) && l.text.size)
            status = hand_on(&l, err);
        const size_t known = whole ? used : ZSTD_findFrameCompressedSize(data + at, size - at);
        const size_t next = cut                             ? size
                            : !ZSTD_isError(known) && known ? at + known
                                                            : next_frame(data, size, at + 1);
        if (!whole && l.damage && status == RT_OK)
            l.damage(l.damage_context,
                     &(rls_damage){at, next, l.saved, cut,
                                   cut ? "the file ends in a frame" : "a frame of rows is damaged"});
        at = next;
    }
    rt_text_deinit(&l.text);
    (void)ZSTD_freeDCtx(l.zstd);
    return status;
}
