/* student/kept_source.c - see kept_source.h: a store with .rls files. */
#include "student/kept_source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "student/kept_source_internal.h"

rt_status rt_kept_source_open(rt_kept_source *source, const char *dir, const rt_kept_match *match,
                              rt_error *err)
{
    *source =
        (rt_kept_source){.tau = 1,
                         .proposal = 1,
                         .n_vocab = match->n_logits ? match->n_logits : rt_tokenizer_size(match->tokenizer)};
    if (rt_reader_open(&source->reader, dir, err) != RT_OK)
        return err->status;
    const rt_rls_header *h = rt_reader_header(source->reader);
    if (!h)
        return RT_OK;
    if (rt_recorded_match(h, match, source->note, err) != RT_OK)
        return rt_error_within(err, dir);
    source->topk = h->topk > 0;
    source->draws = h->draws > 0;
    source->n_max = rt_size_min((size_t)h->topk + h->draws, RT_KEPT_MAX);
    source->n_vocab = h->n_vocab;
    source->tau = h->temperature;
    source->proposal = h->proposal;
    return RT_OK;
}

void rt_kept_source_close(rt_kept_source *source)
{
    for (size_t i = 0; i < source->docs_capacity; i++)
        rt_store_document_deinit(&source->docs[i]);
    rt_sparse_rows_deinit(&source->memory);
    rt_reader_close(source->reader);
    free(source->docs);
    free(source->rows);
    free(source->first);
    *source = (rt_kept_source){0};
}

bool rt_kept_source_has_rows(const rt_kept_source *source)
{
    return rt_reader_header(source->reader) != NULL;
}

/* ---- documents ---- */

rt_status kept_source_note(rt_kept_source *s, size_t first, rt_error *err)
{
    if (s->n_first == s->first_capacity) {
        const size_t wanted = s->first_capacity * 2 + 256;
        size_t *grown = realloc(s->first, wanted * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu documents", wanted);
        s->first = grown;
        s->first_capacity = wanted;
    }
    s->first[s->n_first++] = first;
    return RT_OK;
}

rt_status rt_kept_source_documents(rt_kept_source *s, rt_documents *docs, size_t tokens_max, rt_error *err)
{
    rt_store_document doc = {0};
    const size_t n = rt_reader_documents(s->reader);
    rt_status status = RT_OK;
    for (size_t i = 0; i < n && status == RT_OK; i++) {
        status = rt_reader_tokens_only(s->reader, i, &doc, err);
        if (status != RT_OK)
            break;
        const size_t length = rt_size_min(doc.n_tokens, tokens_max), before = docs->n_docs;
        for (size_t k = 0; k < length && status == RT_OK; k++)
            if (doc.ids[k] < 0 || (size_t)doc.ids[k] >= s->n_vocab)
                status =
                    rt_error_set(err, RT_CORRUPT, "document %zu of the store holds id %d, past its %zu ids",
                                 i, doc.ids[k], s->n_vocab);
        if (status == RT_OK)
            status = rt_documents_add(docs, doc.ids, doc.mask, length, err);
        if (status == RT_OK && docs->n_docs > before) {
            docs->n_cut += doc.n_tokens > tokens_max;
            status = kept_source_note(s, i, err);
        }
    }
    rt_store_document_deinit(&doc);
    if (status == RT_OK && docs->n_docs == 0)
        return rt_error_set(err, RT_INVALID, "the store holds no document to learn from");
    return status;
}

/* ---- a batch ---- */

static rt_status take_room(rt_kept_source *s, const rt_deal *deal, rt_error *err)
{
    if (deal->n_documents > s->docs_capacity) {
        rt_store_document *grown = realloc(s->docs, deal->n_documents * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a batch of %zu documents",
                                deal->n_documents);
        memset(grown + s->docs_capacity, 0, (deal->n_documents - s->docs_capacity) * sizeof *grown);
        s->docs = grown;
        s->docs_capacity = deal->n_documents;
    }
    if (deal->targets.n > s->rows_capacity) {
        rt_kept_row *grown = realloc(s->rows, deal->targets.n * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", deal->targets.n);
        s->rows = grown;
        s->rows_capacity = deal->targets.n;
    }
    return RT_OK;
}

static rt_status view(rt_kept_row *out, const rt_kept_source *s, const rt_sparse_row *row, size_t document,
                      rt_error *err)
{
    if (row->n > s->n_max)
        return rt_error_set(err, RT_CORRUPT,
                            "document %zu of the store has a row of %u ids; its header says %zu", document,
                            row->n, s->n_max);
    for (size_t i = 0; i < row->n; i++)
        if (row->ids[i] >= s->n_vocab)
            return rt_error_set(err, RT_CORRUPT, "document %zu of the store names id %u, past its %zu ids",
                                document, row->ids[i], s->n_vocab);
    *out = (rt_kept_row){.ids = row->ids,
                         .logq = row->logq,
                         .counts = row->counts,
                         .n = row->n,
                         .n_topk = row->n_topk,
                         .n_draws = row->n_draws,
                         .tau = s->tau,
                         .tail_logprob = (double)row->tail_logprob,
                         .proposal = s->proposal,
                         .log_s = (double)row->log_s};
    return RT_OK;
}

rt_status rt_kept_source_fill(rt_kept_source *s, rt_deal *deal, rt_error *err)
{
    size_t target = 0;
    if (take_room(s, deal, err) != RT_OK)
        return err->status;
    for (size_t d = 0; d < deal->n_documents; d++) {
        const rt_segment *segment = &deal->batch.segments[d];
        const size_t document = deal->documents[d], first = s->first[document];
        if (!s->from_text && rt_reader_document(s->reader, first, &s->docs[d], err) != RT_OK)
            return err->status;
        const rt_sparse_rows *rows = s->from_text ? &s->memory : &s->docs[d].rows;
        const size_t begin = s->from_text ? first : 0;
        for (size_t r = begin;
             target < deal->targets.n && deal->targets.rows[target] < segment->begin + segment->count;
             r++, target++) {
            if (r >= rows->n_rows)
                return rt_error_set(err, RT_CORRUPT,
                                    "document %zu of the store has %zu rows, fewer than targets", first,
                                    rows->n_rows);
            const rt_sparse_row row = rt_sparse_rows_at(rows, r);
            if (view(&s->rows[target], s, &row, first, err) != RT_OK)
                return err->status;
        }
    }
    deal->targets.kept = s->rows;
    return RT_OK;
}
