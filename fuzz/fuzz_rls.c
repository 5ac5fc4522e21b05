/* fuzz/fuzz_rls.c - any bytes as a .rls file: header, index, blocks, records, rows. */
#include <assert.h>
#include <stdint.h>

#include "outputs/rls_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_error err = {0};
    rt_rls_header header = {.version = RT_RLS_VERSION,
                            .n_vocab = 1000,
                            .n_logits = 1024,
                            .topk = 8,
                            .draws = 12,
                            .code_bits = 8,
                            .end_id = 2,
                            .proposal = 1,
                            .temperature = 1};
    (void)rls_header_read(&header, data, size, &err); /* a damaged one is replaced by the manifest's */
    rt_store_document doc = {0};
    for (unsigned full = 0; full < 2; full++) {
        rls_index index;
        if (rls_index_load(&index, data, size, full, NULL, NULL, &err) != RT_OK)
            continue;
        for (size_t i = 0; i < index.n && i < 64; i++) {
            rls_record record;
            const size_t at = (size_t)index.entries[i].offset;
            if (rls_record_header(&record, data + at, size - at))
                (void)rls_record_read(&doc, &record, &header, true, &err);
        }
        rls_index_deinit(&index);
    }
    /* checksums stop most inputs: the bytes as a record whose sum is right */
    rls_record record;
    if (rls_record_header(&record, data, size) &&
        rls_record_read(&doc, &record, &header, true, &err) == RT_OK)
        for (size_t r = 0; r < doc.rows.n_rows; r++) {
            const rt_sparse_row row = rt_sparse_rows_at(&doc.rows, r);
            for (size_t i = 0; i < row.n; i++)
                assert(row.ids[i] < header.n_vocab);
        }
    rt_store_document_deinit(&doc);
    return 0;
}
