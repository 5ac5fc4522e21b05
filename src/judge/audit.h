/* judge/audit.h - are the log-probabilities in a store those of the model that is at hand?
 *
 * The model reads recorded documents again; at every kept id of every row
 *
 *   d = log q recorded - log q of the model,  weighted by what the recorded row says of the id (its mass
 *   among the top-k, its count among the draws)
 *
 * and the mean of |d| over rows is what is judged.  It is never zero: codes are rounded (docs/rls.md), and
 * arithmetic in bf16 or int8 has noise of its own.  That noise is measured on the same rows, as the mean |d|
 * between two precisions of the model at hand, and the bound is
 *
 *   noise + half the codes' largest error, on average + RT_AUDIT_FLOOR
 *
 * A teacher that was changed midway shows in documents of its own: each is held against RT_AUDIT_DOCUMENT
 * times the bound. */
#ifndef RT_JUDGE_AUDIT_H
#define RT_JUDGE_AUDIT_H

#include "judge/bootstrap.h"
#include "model/decoder.h"
#include "outputs/reader.h"

#define RT_AUDIT_FLOOR 1e-3
#define RT_AUDIT_DOCUMENT 4.0

typedef struct rt_audit_options {
    size_t documents; /* so many, spread evenly over those with rows; 0: all */
    /* after each document; false ends with RT_STOPPED.  May be NULL. */
    bool (*progress)(void *context, size_t done, size_t total);
    void *context;
} rt_audit_options;

typedef struct rt_audit_document {
    uint64_t number;  /* of the document in the data that it came from */
    double rows, sum; /* of |d|, a row's mean each */
} rt_audit_document;

typedef struct rt_audit_result {
    rt_audit_document *documents; /* [n_documents] owned; those that were read */
    size_t n_documents, n_beyond; /* beyond: past RT_AUDIT_DOCUMENT times the bound */
    double rows;
    rt_interval difference;          /* mean |d|, nats; 95% over documents (NAN with one) */
    double noise, code_error, bound; /* code_error: half the largest, as of even rounding */
    double top1; /* share of rows whose most probable recorded id is the model's; NAN: a store of draws */
    bool same;   /* difference.value <= bound and no document beyond */
} rt_audit_result;

/* model: at the precision that was recorded, where it is known.  other: the same weights at another one, for
 * the noise.  RT_MISMATCH: the store's ids are not the model's; RT_INVALID: no document has rows. */
rt_status rt_audit(rt_audit_result *out, const rt_reader *reader, const rt_model *model,
                   const rt_model *other, const rt_audit_options *options, rt_error *err);
void rt_audit_result_deinit(rt_audit_result *result);

#endif
