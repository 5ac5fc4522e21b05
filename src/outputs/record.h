/* outputs/record.h - a local model's log-probabilities over given texts, into a store.
 *
 * Texts are packed into batches; the model's layers run once a batch (or, where layers are read from disk,
 * once for many), then logits are made a chunk of targets at a time and each row is reduced to its sparse
 * form by a task of the pool.  A text that is in the store already is passed over, so a recording that was
 * stopped, or killed, goes on where it was. */
#ifndef RT_OUTPUTS_RECORD_H
#define RT_OUTPUTS_RECORD_H

#include "model/decoder.h"
#include "outputs/store.h"

typedef struct rt_record_texts { /* as rt_documents has them; borrowed */
    const int32_t *ids;
    const uint8_t *mask;  /* 1: a target */
    const size_t *begins; /* [n_docs + 1] */
    size_t n_docs;
} rt_record_texts;

typedef struct rt_record_progress {
    size_t docs_done, docs_total; /* recorded, or there before */
    size_t docs_known;            /* of those: there before, or twice in the texts */
    uint64_t tokens, rows;        /* recorded by this run */
    double seconds;
} rt_record_progress;

typedef struct rt_record_options {
    rt_sparse_settings sparse; /* n_vocab: the tokenizer's ids; at most the model's */
    size_t batch_tokens;       /* a batch; no text may be longer */
    size_t batches;       /* that go through each layer together; more than 1 pays for a streamed model */
    double temperature;   /* of the distributions */
    double flush_seconds; /* what was recorded is on the disk after so long; 0: after each batch */
    bool (*progress)(void *context, const rt_record_progress *progress); /* after each batch; false: stop */
    void *context;
} rt_record_options;

/* RT_STOPPED when progress says so; everything recorded so far is flushed.  The document's number is its
 * place in the texts. */
rt_status rt_record(rt_store *store, const rt_model *model, const rt_record_texts *texts,
                    const rt_record_options *options, rt_record_progress *done, rt_error *err);

#endif
