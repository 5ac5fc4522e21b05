/* outputs/rls_write.c - sequences as blocks at the end of a new .rls file.
 *
 * A block stays in memory until it is on the disk: when the disk is full, the next flush tries again. */
#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "outputs/rls_bytes.h"
#include "outputs/rls_marks.h"

rt_status rls_writer_init(rls_writer *w, const char *path, const rt_rls_header *header, rt_error *err)
{
    *w = (rls_writer){.header = *header};
    return append_init(&w->file, path, err);
}

void rls_writer_deinit(rls_writer *w)
{
    append_deinit(&w->file);
    rt_text_deinit(&w->block);
    rls_index_deinit(&w->index);
    *w = (rls_writer){.file.fd = -1};
}

rt_status rls_writer_flush(rls_writer *w, rt_error *err)
{
    if (!w->block_count)
        return RT_OK;
    unsigned char mark[RLS_BLOCK_HEADER], header[RT_RLS_HEADER_BYTES];
    if (w->file.size == 0) {
        rls_header_write(header, &w->header);
        if (append_write(&w->file, header, sizeof header, NULL, 0, err) != RT_OK)
            return err->status;
    }
    rls_mark_write(mark, RLS_MARK_BLOCK, w->block_count, w->block.size,
                   rt_hash64(w->block.data, w->block.size, 0));
    const uint64_t at = w->file.size + RLS_BLOCK_HEADER;
    if (append_write(&w->file, mark, sizeof mark, w->block.data, w->block.size, err) != RT_OK)
        return err->status;
    for (size_t i = w->n_written; i < w->index.n; i++)
        w->index.entries[i].offset += at;
    w->n_written = w->index.n;
    w->block_count = 0;
    rt_text_clear(&w->block);
    return RT_OK;
}

static rt_status count_record(rls_writer *w, size_t begin, rt_error *err)
{
    rls_record record;
    const bool whole =
        rls_record_header(&record, (unsigned char *)w->block.data + begin, w->block.size - begin);
    assert(whole);
    (void)whole;
    if (rls_index_add(&w->index, (rls_entry){begin, record.n_tokens, record.n_rows}, err) != RT_OK) {
        w->block.size = begin;
        return err->status;
    }
    w->block_count++;
    return RT_OK;
}

rt_status rls_writer_add(rls_writer *w, const rt_store_document *doc, rt_error *err)
{
    const size_t begin = w->block.size;
    if (rls_record_write(&w->block, &w->header, doc, err) != RT_OK) {
        w->block.size = begin; /* what was there stays */
        w->block.failed = false;
        return err->status;
    }
    return count_record(w, begin, err);
}

rt_status rls_writer_add_record(rls_writer *w, const rls_record *record, rt_error *err)
{
    const size_t begin = w->block.size;
    rt_text_append(&w->block, record->data, record->size);
    if (w->block.failed) {
        w->block.size = begin;
        w->block.failed = false;
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a sequence of %zu bytes", record->size);
    }
    return count_record(w, begin, err);
}

rt_status rls_writer_finish(rls_writer *w, rt_error *err)
{
    if (rls_writer_flush(w, err) != RT_OK)
        return err->status;
    if (w->file.size == 0) /* nothing was ever added: no file */
        return RT_OK;
    rt_text entries = {0};
    for (size_t i = 0; i < w->index.n; i++) {
        const rls_entry *e = &w->index.entries[i];
        unsigned char bytes[RLS_ENTRY_BYTES];
        rls_put_u64(bytes, e->offset);
        rls_put_u32(bytes + 8, e->n_tokens);
        rls_put_u32(bytes + 12, e->n_rows);
        rt_text_append(&entries, bytes, sizeof bytes);
    }
    unsigned char mark[RLS_BLOCK_HEADER], end[RLS_BLOCK_HEADER];
    rls_mark_write(end, RLS_MARK_END, (uint32_t)w->index.n, w->file.size, 0);
    if (!entries.failed) { /* the end mark travels with the index: one write, one flush */
        const size_t size = entries.size;
        rls_mark_write(mark, RLS_MARK_INDEX, (uint32_t)w->index.n, size, rt_hash64(entries.data, size, 0));
        rt_text_append(&entries, end, sizeof end);
    }
    const rt_status status = entries.failed
                                 ? rt_error_set(err, RT_NO_MEMORY, "no memory for an index")
                                 : append_write(&w->file, mark, sizeof mark, entries.data, entries.size, err);
    rt_text_deinit(&entries);
    return status;
}
