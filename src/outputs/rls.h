/* outputs/rls.h - the .rls file: sequences of token ids with sparse log-probabilities; docs/rls.md is the
 * format byte by byte.
 *
 * A file is a header, blocks of sequences with a checksum each, and an index at the end that can be made
 * again from the blocks.  A file without its index, or cut anywhere, is read as far as its sequences are
 * whole. */
#ifndef RT_OUTPUTS_RLS_H
#define RT_OUTPUTS_RLS_H

#include <jansson.h>
#include <stdbool.h>

#include "model/tokenizer.h"
#include "base/text.h"
#include "outputs/sparse.h"
#include "outputs/store.h"

enum { RT_RLS_VERSION = 1, RT_RLS_HEADER_BYTES = 256 };

/* Hashes are 32 bytes, SHA-256; all zero: unknown, or (template) none was used. */
typedef struct rt_rls_header {
    uint32_t version;
    uint32_t n_vocab;  /* real ids: those that the distributions are normalised over */
    uint32_t n_logits; /* the teacher's logits, padding included; informative */
    uint32_t topk, draws;
    uint32_t code_bits; /* 8 or 16: of log-probabilities */
    int32_t end_id;     /* the token that ends an answer; -1: none */
    double proposal, temperature;
    uint64_t seed;
    unsigned char tokenizer_hash[32], template_hash[32], teacher_hash[32];
} rt_rls_header;

/* As the manifest's "logits" member, and back. The caller owns the result; NULL when out of memory. */
json_t *rt_rls_facts(const rt_rls_header *header);
rt_status rt_rls_header_from_facts(rt_rls_header *out, const json_t *facts, const char *where, rt_error *err);
/* RT_INVALID: a field is out of range. */
rt_status rt_rls_header_check(const rt_rls_header *header, rt_error *err);
/* Writes who speaks into a header: the tokenizer's hash and end token, the hash of its chat template where
 * one was used, and the teacher's hash (hex; NULL: not known). */
void rt_rls_header_identify(rt_rls_header *header, const rt_tokenizer *tokenizer, bool with_template,
                            const char *teacher_hash);
/* Appends a whole .rls file of these documents, its index at the end. */
rt_status rt_rls_to_memory(rt_text *out, const rt_rls_header *header, const rt_store_document *docs, size_t n,
                           rt_error *err);
/* The largest error of a log-probability `logq` under a code width, in nats (docs/rls.md). */
double rt_rls_code_error(unsigned code_bits, double logq);

#endif
