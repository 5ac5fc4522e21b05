/* outputs/rls_memory.c - documents as a whole .rls file in memory, for answers of a server. */
#include <string.h>

#include "base/hash.h"
#include "outputs/rls_bytes.h"
#include "outputs/rls_marks.h"

typedef struct memory {
    rt_text *out, block, entries;
    uint32_t block_count, count;
} memory;

static void end_block(memory *m)
{
    unsigned char mark[RLS_BLOCK_HEADER];
    if (m->block_count == 0)
        return;
    rls_mark_write(mark, RLS_MARK_BLOCK, m->block_count, m->block.size,
                   rt_hash64(m->block.data, m->block.size, 0));
    rt_text_append(m->out, mark, sizeof mark);
    rt_text_append(m->out, m->block.data, m->block.size);
    rt_text_clear(&m->block);
    m->block_count = 0;
}

static rt_status add(memory *m, const rt_rls_header *header, const rt_store_document *doc, rt_error *err)
{
    unsigned char bytes[RLS_ENTRY_BYTES];
    const uint64_t at = m->out->size + RLS_BLOCK_HEADER + m->block.size;
    if (rls_record_write(&m->block, header, doc, err) != RT_OK)
        return err->status;
    rls_put_u64(bytes, at);
    rls_put_u32(bytes + 8, (uint32_t)doc->n_tokens);
    rls_put_u32(bytes + 12, (uint32_t)doc->rows.n_rows);
    rt_text_append(&m->entries, bytes, sizeof bytes);
    m->block_count++;
    m->count++;
    if (m->block.size >= RLS_BLOCK_BYTES)
        end_block(m);
    return RT_OK;
}

rt_status rt_rls_to_memory(rt_text *out, const rt_rls_header *header, const rt_store_document *docs, size_t n,
                           rt_error *err)
{
    unsigned char bytes[RT_RLS_HEADER_BYTES], mark[RLS_BLOCK_HEADER];
    memory m = {.out = out};
    rls_header_write(bytes, header);
    rt_text_append(out, bytes, sizeof bytes);
    rt_status status = RT_OK;
    for (size_t i = 0; i < n && status == RT_OK; i++)
        status = add(&m, header, &docs[i], err);
    end_block(&m);
    const uint64_t index_at = out->size;
    if (!m.entries.failed && m.entries.data) {
        rls_mark_write(mark, RLS_MARK_INDEX, m.count, m.entries.size,
                       rt_hash64(m.entries.data, m.entries.size, 0));
        rt_text_append(out, mark, sizeof mark);
        rt_text_append(out, m.entries.data, m.entries.size);
        rls_mark_write(mark, RLS_MARK_END, m.count, index_at, 0);
        rt_text_append(out, mark, sizeof mark);
    }
    if (status == RT_OK && (out->failed || m.block.failed || m.entries.failed))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu scored sequences", n);
    rt_text_deinit(&m.block);
    rt_text_deinit(&m.entries);
    return status;
}
