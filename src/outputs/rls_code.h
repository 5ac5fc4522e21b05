/* outputs/rls_code.h - one sequence as bytes: the record of a .rls file (docs/rls.md, "Record").
 *
 * Internal to the room.  Pure functions on memory: safe from any thread. */
#ifndef RT_OUTPUTS_RLS_CODE_H
#define RT_OUTPUTS_RLS_CODE_H

#include "base/text.h"
#include "outputs/rls.h"
#include "outputs/store.h"

enum {
    RLS_RECORD_HEADER = 48,    /* check, bytes, key, number, tokens, rows */
    RLS_SEQUENCE_MAX = 1 << 24 /* tokens */
};

typedef struct rls_record { /* the header of a record; `data` is the whole of it */
    const unsigned char *data;
    size_t size; /* bytes, header included */
    unsigned char key[16];
    uint64_t number;
    uint32_t n_tokens, n_rows;
} rls_record;

/* SHA-256 (its first half) of the sequence: ids, then mask. */
void rls_document_key(unsigned char key[16], const int32_t *ids, const uint8_t *mask, size_t n);

/* Appends the record of doc.  RT_INVALID: an id outside the vocabulary, a number of rows that is not that of
 * the targets, rows out of order, log-probabilities above 0. */
rt_status rls_record_write(rt_text *out, const rt_rls_header *header, const rt_store_document *doc,
                           rt_error *err);

/* Looks at data[0..size): is there a whole record with a sound checksum?  False: no. */
bool rls_record_find(rls_record *out, const unsigned char *data, size_t size);
/* The same without the checksum, for an index that is trusted. */
bool rls_record_header(rls_record *out, const unsigned char *data, size_t size);
/* Decodes into doc, whose memory is used again; with_rows false: ids and mask alone.  RT_CORRUPT says what.
 */
rt_status rls_record_read(rt_store_document *doc, const rls_record *record, const rt_rls_header *header,
                          bool with_rows, rt_error *err);

#endif
