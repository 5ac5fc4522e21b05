/* outputs/store_internal.h - what merging needs of a store beyond store.h.  Internal to the room. */
#ifndef RT_OUTPUTS_STORE_INTERNAL_H
#define RT_OUTPUTS_STORE_INTERNAL_H

#include "outputs/reader.h"
#include "outputs/rls_code.h"

/* The row's "key", or the one made from its content. */
rt_status store_key_of_row(unsigned char key[16], const json_t *row, rt_error *err);
/* A record of another file under the same header. */
rt_status store_add_record(rt_store *store, const rls_record *record, bool *added, rt_error *err);

/* The whole record of a document, checked by its checksum. */
rt_status reader_record(const rt_reader *reader, size_t index, rls_record *record, rt_error *err);
/* RT_MISMATCH says in what two files' headers differ; `path` is the one that is complained of. */
rt_status rls_headers_match(const rt_rls_header *a, const rt_rls_header *b, const char *path, rt_error *err);

#endif
