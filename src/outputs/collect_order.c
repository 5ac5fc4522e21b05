/* outputs/collect_order.c - the rows of a finished collection in the order of the prompts.
 *
 * The file is written anew beside the old one and renamed, so a kill leaves one or the other; both hold the
 * same lines, so the journal stays true. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "outputs/collect_internal.h"
#include "outputs/lines.h"

/* Where each row's line begins, by id. */
static rt_status index_lines(rt_idmap *where, const rt_file *file, bool batch, rt_error *err)
{
    size_t at = 0;
    while (at < file->size) {
        const char *line = (const char *)file->data + at;
        const char *end = memchr(line, '\n', file->size - at);
        if (!end)
            break;
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        const json_t *id = json_object_get(row, batch ? "custom_id" : "id");
        rt_status status = RT_OK;
        if (json_is_string(id))
            status =
                rt_idmap_put(where, rt_idkey_of(json_string_value(id), json_string_length(id)), at + 1, err);
        json_decref(row);
        if (status != RT_OK)
            return status;
        at = (size_t)(end - (const char *)file->data) + 1;
    }
    return RT_OK;
}

static rt_status copy_line(rt_writer *out, const rt_file *file, unsigned char *copied, size_t at,
                           rt_error *err)
{
    const char *line = (const char *)file->data + at;
    const char *end = memchr(line, '\n', file->size - at);
    copied[at / 8] |= (unsigned char)(1U << (at % 8));
    return rt_writer_write(out, line, (size_t)(end - line) + 1, err);
}

/* First the rows of the prompts in their order, then those of earlier prompts. */
static rt_status write_sorted(collect *c, const rt_file *file, const rt_idmap *where, unsigned char *copied,
                              rt_writer *out)
{
    rt_prompt_reader_close(c->reader);
    c->reader = NULL;
    c->n_prompts = 0;
    c->sorting = true;
    rt_prompt_row_deinit(&c->row);
    json_decref(c->row_body);
    c->row_body = NULL;
    if (rt_prompt_reader_open(&c->reader, &c->options->inputs, &c->options->prompts, c->err) != RT_OK)
        return c->err->status;
    for (;;) {
        char *id = collect_next_id(c);
        if (!id)
            break;
        const uint64_t at = rt_idmap_get(where, rt_idkey_of(id, strlen(id)));
        free(id);
        if (at && !(copied[(at - 1) / 8] & (1U << ((at - 1) % 8))) &&
            copy_line(out, file, copied, (size_t)at - 1, c->err) != RT_OK)
            return c->err->status;
    }
    if (c->failure != RT_OK)
        return c->failure;
    for (size_t at = 0; at < file->size;) {
        const char *end = memchr(file->data + at, '\n', file->size - at);
        if (!end)
            break;
        if (!(copied[at / 8] & (1U << (at % 8))) && copy_line(out, file, copied, at, c->err) != RT_OK)
            return c->err->status;
        at = (size_t)(end - (const char *)file->data) + 1;
    }
    return RT_OK;
}

rt_status collect_sort(collect *c)
{
    rt_file file = {0};
    rt_idmap where = {0};
    rt_writer out = {0};
    if (rt_file_map(&file, c->sink.path, c->err) != RT_OK)
        return c->err->status;
    unsigned char *copied = calloc(file.size / 8 + 1, 1);
    rt_status status = copied ? index_lines(&where, &file, c->sink.batch, c->err)
                              : rt_error_set(c->err, RT_NO_MEMORY, "no memory to sort %zu bytes", file.size);
    if (status == RT_OK)
        status = rt_writer_open(&out, c->sink.path, c->err);
    if (status == RT_OK) {
        status = write_sorted(c, &file, &where, copied, &out);
        if (status == RT_OK)
            status = rt_writer_commit(&out, c->err);
        else
            rt_writer_abort(&out);
    }
    free(copied);
    rt_idmap_deinit(&where);
    rt_file_unmap(&file);
    return status;
}
