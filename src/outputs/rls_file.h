/* outputs/rls_file.h - a whole .rls file: its header, blocks and index as bytes (docs/rls.md).
 *
 * Internal to the room.  Reading takes bytes in memory (a map): rls_index_load from the index at the end,
 * else by a scan of the blocks, which finds every whole sequence whatever happened to the rest.  Writing goes
 * to a new file; a file that exists is never changed, so what is on the disk cannot be lost by a later run.
 */
#ifndef RT_OUTPUTS_RLS_FILE_H
#define RT_OUTPUTS_RLS_FILE_H

#include "outputs/append.h"
#include "outputs/rls_code.h"

enum {
    RLS_VOCAB_MAX = 1 << 24,
    RLS_BLOCK_HEADER = 32,
    RLS_BLOCK_BYTES = 1 << 20, /* a block is written when its sequences have so many */
    RLS_ENTRY_BYTES = 16
};
#define RLS_FILE_BYTES ((uint64_t)1 << 30) /* then another file is begun */

void rls_header_write(unsigned char out[RT_RLS_HEADER_BYTES], const rt_rls_header *header);
/* RT_CORRUPT: not such a file, or a damaged header; RT_UNSUPPORTED: another version. */
rt_status rls_header_read(rt_rls_header *out, const unsigned char *data, size_t size, rt_error *err);
bool rls_hash_from_hex(unsigned char out[32], const char *hex); /* "": zeros */

/* ---- reading ---- */

typedef struct rls_entry {
    uint64_t offset; /* of the record */
    uint32_t n_tokens, n_rows;
} rls_entry;

typedef struct rls_index {
    rls_entry *entries;
    size_t n, capacity;
    uint64_t n_tokens, n_rows; /* of all entries */
    bool complete;             /* read from a sound index at the end */
    size_t n_damaged;          /* places where bytes are wrong or missing */
} rls_index;
void rls_index_deinit(rls_index *index);

/* A damaged place: bytes [offset, end) hold something that could not be used; saved: whole sequences (lines,
 * in a text file) that were found in it all the same. */
typedef struct rls_damage {
    uint64_t offset, end;
    size_t saved;
    bool torn; /* the file ends in it, as when its writer was killed */
    const char *what;
} rls_damage;
typedef void (*rls_damage_fn)(void *context, const rls_damage *damage);

/* data: the whole file.  full: do not trust the index, verify every block.  Only RT_NO_MEMORY fails. */
rt_status rls_index_load(rls_index *out, const unsigned char *data, size_t size, bool full,
                         rls_damage_fn damage, void *context, rt_error *err);

/* ---- writing ---- */

typedef struct rls_writer {
    append_file file;
    rt_rls_header header;
    rt_text block; /* records of the block under way */
    uint32_t block_count;
    rls_index index;  /* of written blocks, then of the block under way (offsets within it) */
    size_t n_written; /* entries of written blocks */
} rls_writer;

/* path must not exist when the first flush comes (RT_IO). */
rt_status rls_writer_init(rls_writer *writer, const char *path, const rt_rls_header *header, rt_error *err);
/* Into the block under way: flush when that has RLS_BLOCK_BYTES.  What a failed flush left is tried again by
 * the next one. */
rt_status rls_writer_add(rls_writer *writer, const rt_store_document *doc, rt_error *err);
/* A record of another file under the same header, as it is. */
rt_status rls_writer_add_record(rls_writer *writer, const rls_record *record, rt_error *err);
/* On the disk when this has returned. */
rt_status rls_writer_flush(rls_writer *writer, rt_error *err);
/* Flushes and writes the index (when anything was added). */
rt_status rls_writer_finish(rls_writer *writer, rt_error *err);
void rls_writer_deinit(rls_writer *writer); /* closes; what was not flushed is dropped */

#endif
