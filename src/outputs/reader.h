/* outputs/reader.h - reading a store: text rows in order, documents with their sparse rows at random.
 *
 * Files are mapped; a store that is being written, or that was cut, is read as far as its rows are whole.
 * Each block's checksum is verified once, when it is first read.  rt_reader_document may be called from
 * several threads, each with a document of its own. */
#ifndef RT_OUTPUTS_READER_H
#define RT_OUTPUTS_READER_H

#include "outputs/rls.h"
#include "outputs/store.h"

typedef struct rt_reader rt_reader;

/* RT_NOT_FOUND without a manifest.  The headers of all .rls files must agree (RT_MISMATCH says in what). */
rt_status rt_reader_open(rt_reader **out, const char *dir, rt_error *err);
void rt_reader_close(rt_reader *reader);
const json_t *rt_reader_manifest(const rt_reader *reader);      /* borrowed */
const rt_rls_header *rt_reader_header(const rt_reader *reader); /* NULL: a store without logits */

/* Documents: index 0 .. count-1, in order of the files. */
size_t rt_reader_documents(const rt_reader *reader);
uint64_t rt_reader_tokens(const rt_reader *reader); /* of all documents */
size_t rt_reader_document_tokens(const rt_reader *reader, size_t index);
bool rt_reader_document_has_rows(const rt_reader *reader, size_t index); /* else it is tokens alone */
/* Fills doc (its memory is used again).  RT_CORRUPT names file, offset and what is wrong. */
rt_status rt_reader_document(const rt_reader *reader, size_t index, rt_store_document *doc, rt_error *err);
/* The same without the sparse rows: doc->rows is empty. */
rt_status rt_reader_tokens_only(const rt_reader *reader, size_t index, rt_store_document *doc, rt_error *err);
/* A hint: these documents will be read soon. */
void rt_reader_prefetch(const rt_reader *reader, const size_t *indexes, size_t n);

/* Text rows in order.  row_fn: a borrowed object; anything but RT_OK stops and is returned. */
typedef rt_status (*rt_text_row_fn)(void *context, const json_t *row, rt_error *err);
rt_status rt_reader_texts(const rt_reader *reader, rt_text_row_fn row_fn, void *context, rt_error *err);

#endif
