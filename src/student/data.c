/* student/data.c - see data.h. */
#include "student/data.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"

enum { BATCH_STEP = 32 }; /* batches are padded to a multiple: few shapes of products occur */

void rt_documents_deinit(rt_documents *docs)
{
    free(docs->ids);
    free(docs->mask);
    free(docs->begins);
    *docs = (rt_documents){0};
}

static bool grow(void **data, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity)
        return true;
    const size_t wanted = rt_size_max(need, *capacity * 2 + 1024);
    void *grown = wanted <= SIZE_MAX / size ? realloc(*data, wanted * size) : NULL;
    if (!grown)
        return false;
    *data = grown;
    *capacity = wanted;
    return true;
}

size_t rt_documents_prompt(const rt_documents *docs, size_t doc)
{
    size_t n = 0;
    const size_t begin = docs->begins[doc], count = docs->begins[doc + 1] - begin;
    while (n < count && !docs->mask[begin + n])
        n++;
    return n;
}

rt_status rt_documents_add(rt_documents *docs, const int32_t *ids, const uint8_t *mask, size_t n,
                           rt_error *err)
{
    if (n < 2) /* nothing to predict */
        return RT_OK;
    size_t mask_capacity = docs->capacity;
    void *new_ids = docs->ids, *new_mask = docs->mask, *new_begins = docs->begins;
    bool ok = grow(&new_mask, &mask_capacity, docs->n_tokens + n, 1);
    docs->mask = new_mask;
    ok = ok && grow(&new_ids, &docs->capacity, docs->n_tokens + n, sizeof *docs->ids);
    docs->ids = new_ids;
    ok = ok && grow(&new_begins, &docs->docs_capacity, docs->n_docs + 2, sizeof *docs->begins);
    docs->begins = new_begins;
    if (!ok)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens of training text",
                            docs->n_tokens + n);
    memcpy(docs->ids + docs->n_tokens, ids, n * sizeof *ids);
    if (mask)
        memcpy(docs->mask + docs->n_tokens, mask, n);
    else
        memset(docs->mask + docs->n_tokens, 1, n);
    for (size_t i = 1; i < n; i++)
        docs->n_targets += docs->mask[docs->n_tokens + i];
    docs->begins[docs->n_docs++] = docs->n_tokens;
    docs->n_tokens += n;
    docs->begins[docs->n_docs] = docs->n_tokens;
    return RT_OK;
}

/* ---- dealing ---- */

rt_status rt_dealer_init(rt_dealer *dealer, const rt_documents *docs, uint64_t seed, size_t tokens_max,
                         rt_error *err)
{
    *dealer = (rt_dealer){.docs = docs,
                          .seed = seed,
                          .tokens_max = tokens_max / BATCH_STEP * BATCH_STEP,
                          .epoch_shuffled = UINT64_MAX};
    if (!docs->n_docs || !docs->n_targets)
        return rt_error_set(err, RT_INVALID, "the training text has no token to learn from");
    for (size_t i = 0; i < docs->n_docs; i++) {
        if (docs->begins[i + 1] - docs->begins[i] > dealer->tokens_max)
            return rt_error_set(err, RT_INVALID, "a document of %zu tokens does not fit in a batch of %zu",
                                docs->begins[i + 1] - docs->begins[i], dealer->tokens_max);
    }
    dealer->order = malloc(docs->n_docs * sizeof *dealer->order);
    if (!dealer->order)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the order of %zu documents", docs->n_docs);
    return RT_OK;
}

void rt_dealer_deinit(rt_dealer *dealer)
{
    free(dealer->order);
    dealer->order = NULL;
}

rt_status rt_deal_init(rt_deal *deal, size_t tokens_max, rt_error *err)
{
    *deal = (rt_deal){.ids = calloc(tokens_max, sizeof *deal->ids),
                      .segments = calloc(tokens_max, sizeof *deal->segments),
                      .rows = calloc(tokens_max, sizeof *deal->rows),
                      .labels = calloc(tokens_max, sizeof *deal->labels),
                      .scales = calloc(tokens_max, sizeof *deal->scales),
                      .documents = calloc(tokens_max, sizeof *deal->documents)};
    if (deal->ids && deal->segments && deal->rows && deal->labels && deal->scales && deal->documents)
        return RT_OK;
    rt_deal_deinit(deal);
    return rt_error_set(err, RT_NO_MEMORY, "no memory for a batch of %zu tokens", tokens_max);
}

void rt_deal_deinit(rt_deal *deal)
{
    free(deal->ids);
    free(deal->segments);
    free(deal->rows);
    free(deal->labels);
    free(deal->scales);
    free(deal->documents);
    *deal = (rt_deal){0};
}

static void shuffle(rt_dealer *dealer, uint64_t epoch)
{
    const size_t n = dealer->docs->n_docs;
    rt_rng rng = rt_rng_make(dealer->seed, epoch);
    for (size_t i = 0; i < n; i++)
        dealer->order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)rt_rng_below(&rng, i);
        const uint32_t kept = dealer->order[i - 1];
        dealer->order[i - 1] = dealer->order[j];
        dealer->order[j] = kept;
    }
    dealer->epoch_shuffled = epoch;
}

static void put_document(rt_deal *deal, const rt_documents *docs, size_t doc)
{
    const size_t from = docs->begins[doc], n = docs->begins[doc + 1] - from, at = deal->batch.n_tokens;
    deal->documents[deal->n_documents++] = (uint32_t)doc;
    memcpy(deal->ids + at, docs->ids + from, n * sizeof *deal->ids);
    deal->segments[deal->batch.n_segments++] = (rt_segment){.begin = at, .count = n};
    for (size_t i = 0; i + 1 < n; i++) {
        if (!docs->mask[from + i + 1])
            continue;
        deal->rows[deal->targets.n] = (uint32_t)(at + i);
        deal->labels[deal->targets.n] = docs->ids[from + i + 1];
        deal->scales[deal->targets.n++] = 1;
    }
    deal->batch.n_tokens += n;
}

size_t rt_deal_pad(int32_t *ids, rt_segment *segments, size_t *n_segments, size_t n)
{
    const size_t spare = (BATCH_STEP - n % BATCH_STEP) % BATCH_STEP;
    if (!spare)
        return n;
    memset(ids + n, 0, spare * sizeof *ids);
    segments[(*n_segments)++] = (rt_segment){.begin = n, .count = spare};
    return n + spare;
}

static size_t length_of(const rt_documents *docs, size_t doc)
{
    return docs ? docs->begins[doc + 1] - docs->begins[doc] : 0;
}

void rt_dealer_next(rt_dealer *dealer, rt_deal *deal)
{
    const rt_documents *docs = dealer->docs;
    size_t beside = 0; /* tokens of the other side */
    deal->n_documents = 0;
    deal->batch = (rt_batch){.ids = deal->ids, .segments = deal->segments};
    deal->targets = (rt_head_rows){.rows = deal->rows, .labels = deal->labels, .scales = deal->scales};
    for (;;) {
        const uint64_t epoch = dealer->cursor / docs->n_docs;
        if (epoch != dealer->epoch_shuffled)
            shuffle(dealer, epoch);
        const size_t doc = dealer->order[dealer->cursor % docs->n_docs];
        if (length_of(docs, doc) > dealer->tokens_max - deal->batch.n_tokens ||
            length_of(dealer->beside, doc) > dealer->tokens_max - beside)
            break;
        beside += length_of(dealer->beside, doc);
        put_document(deal, docs, doc);
        dealer->cursor++;
    }
    deal->batch.n_tokens =
        rt_deal_pad(deal->ids, deal->segments, &deal->batch.n_segments, deal->batch.n_tokens);
}
