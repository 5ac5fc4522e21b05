/* outputs/store.h - the outputs store: a folder in which what a teacher said is kept once and never lost.
 *
 *   manifest.json     who was asked what, when and on which terms; totals
 *   rows/NNNNNN.jsonl.zst   text rows, one JSON object a line, in zstd frames that end with a whole row
 *   logits/NNNNNN.rls       token ids and sparse log-probabilities (docs/rls.md)
 *   lock              held while a process writes
 *
 * Appending is atomic: rows are durable when rt_store_flush has returned, and a store that was cut at any
 * byte opens with every row that is whole.  A store has one writer at a time; readers (outputs/reader.h) need
 * no lock.  Rows are content-addressed: a row whose key is there already is not written again. */
#ifndef RT_OUTPUTS_STORE_H
#define RT_OUTPUTS_STORE_H

#include <jansson.h>
#include <stdbool.h>

#include "outputs/sparse.h"

typedef struct rt_store rt_store;

/* Opens a folder for writing, made when it is not there, and takes its lock (RT_BUSY names the other
 * process). A torn tail of its newest files is cut off.
 *
 * facts: an object whose members say what the rows are.  "teacher" (name, kind, hash, tokenizer_hash,
 * licence, terms, ...), "sampling" (temperature, top_p, n, seed, ...) and "logits" (made by rt_rls_facts of
 * outputs/rls.h; absent in a store of text only) must be equal to the manifest's when the store exists
 * already: RT_MISMATCH names the first member that differs.  Others ("prompts", ...) are replaced.  NULL: go
 * on with what the manifest says; RT_NOT_FOUND without one.
 *
 * who: a word on who asks (a user, a program), kept in "runs" with the time. */
rt_status rt_store_open(rt_store **out, const char *dir, const json_t *facts, const char *who, rt_error *err);

/* Text rows.  An object with "completion" and "prompt" or "messages" can be trained on; "finish_reason",
 * "usage", "refusal", ... are kept as they are.  Its "key", else its "id" (a string), names the row;
 * without one the key is rt_store_row_key.  *added: false when a row with the key is in the store (NULL: not
 * asked). The row is durable after the next flush; a flush happens by itself when 1 MiB of rows waits. */
rt_status rt_store_add_text(rt_store *store, const json_t *row, bool *added, rt_error *err);
/* The same for a row that is a JSON object as text already (one line, which is not looked at), under the key
 * that stands in it as "key" or "id". */
rt_status rt_store_add_line(rt_store *store, const char *line, size_t size, const char *key, bool *added,
                            rt_error *err);
/* SHA-256 (32 hex digits of it) of the row's members but "key", sorted by name. */
rt_status rt_store_row_key(char out[33], const json_t *row, rt_error *err);
/* Is a text row with this key in the store (flushed or not)?  The first call reads the keys of all rows, 16
 * bytes of memory a row; stores that are only added to with keys that the caller knows to be new need not pay
 * for it: see rt_store_trust_keys. */
rt_status rt_store_has_text(rt_store *store, const char *key, bool *has, rt_error *err);
/* From now on the caller vouches that keys are new: nothing is looked up and no keys are held in memory. */
void rt_store_trust_keys(rt_store *store);

/* A document: tokens, which of them are targets, and a row for each target. */
typedef struct rt_store_document {
    int32_t *ids;  /* [n_tokens] */
    uint8_t *mask; /* [n_tokens] 1: this token is a target; the first never is */
    size_t n_tokens, capacity;
    rt_sparse_rows rows; /* row r is the distribution over the r-th target, in order of position */
    uint64_t number;     /* of the document in the data it came from; draws are keyed by it */
} rt_store_document;
void rt_store_document_deinit(rt_store_document *doc);

/* Appends to logits/; the store must have been opened with "logits" facts. *added as above; the key is made
 * from ids and mask. */
rt_status rt_store_add_document(rt_store *store, const rt_store_document *doc, bool *added, rt_error *err);
rt_status rt_store_has_document(rt_store *store, const int32_t *ids, const uint8_t *mask, size_t n, bool *has,
                                rt_error *err);

/* Everything that was added is on the disk when this has returned. */
rt_status rt_store_flush(rt_store *store, rt_error *err);
/* Flushes, writes indexes and totals, drops the lock.  The store is gone, whatever the status. NULL is fine.
 */
rt_status rt_store_close(rt_store *store, rt_error *err);

size_t rt_store_texts(const rt_store *store); /* rows in the store, those not flushed yet too */
size_t rt_store_documents(const rt_store *store);
json_t *rt_store_manifest(rt_store *store); /* borrowed; members of the caller's own may be set */

#endif
