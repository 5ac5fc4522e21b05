/* judge/audit.c - see audit.h.  One document at a time through both models; its rows' logits a chunk at a
 * time. */
#include "judge/audit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "tensor/row.h"

enum { CHUNK = 64, RESAMPLES = 1000 };

typedef struct side { /* a model and what it says of the chunk */
    const rt_model *model;
    rt_pass *pass;
    float *logits; /* [CHUNK, n_vocab of the model] */
} side;

typedef struct audit {
    const rt_reader *reader;
    const rt_rls_header *header;
    side held, other;
    rt_audit_result *result;
    size_t *targets; /* rows of the document's pass in front of its targets */
    size_t targets_capacity;
    double noise_sum, code_sum, top_sum, top_rows;
} audit;

/* ---- a row ---- */

typedef struct row_figures {
    double difference, noise, code_error; /* weighted means over the row's entries */
    bool top_known, top_same;
} row_figures;

/* Brings a row of logits to the store's temperature. */
static double log_z_of(const side *s, float *z, const rt_rls_header *h)
{
    if (h->temperature != 1)
        s->model->ops->scale(z, (float)(1 / h->temperature), h->n_vocab);
    return rt_log_sum_exp(z, h->n_vocab);
}

static row_figures compare_row(const audit *a, const rt_sparse_row *row, const float *z, double log_z,
                               const float *z_other, double log_z_other)
{
    row_figures out = {0};
    double weights = 0;
    uint32_t best = 0;
    for (uint32_t i = 0; i < row->n; i++) {
        const double recorded = (double)row->logq[i];
        /* an id that is kept for both reasons counts by its mass, as one of the top-k */
        const double w = i < row->n_topk ? exp(recorded) : (double)row->counts[i] / fmax(row->n_draws, 1);
        const double held = (double)z[row->ids[i]] - log_z;
        out.difference += w * fabs(recorded - held);
        out.noise += w * fabs(held - ((double)z_other[row->ids[i]] - log_z_other));
        out.code_error += w * rt_rls_code_error(a->header->code_bits, recorded) / 2;
        weights += w;
        if (i < row->n_topk && row->logq[i] > row->logq[best])
            best = i;
    }
    if (weights > 0) {
        out.difference /= weights;
        out.noise /= weights;
        out.code_error /= weights;
    }
    out.top_known = row->n_topk > 0;
    out.top_same = out.top_known;
    for (size_t id = 0; out.top_same && id < a->header->n_vocab; id++)
        out.top_same = z[id] <= z[row->ids[best]];
    return out;
}

/* ---- a document ---- */

static rt_status list_targets(audit *a, const rt_store_document *doc, rt_error *err)
{
    if (doc->n_tokens > a->targets_capacity) {
        size_t *grown = realloc(a->targets, doc->n_tokens * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a document of %zu tokens", doc->n_tokens);
        a->targets = grown;
        a->targets_capacity = doc->n_tokens;
    }
    size_t n = 0;
    for (size_t i = 1; i < doc->n_tokens; i++)
        if (doc->mask[i])
            a->targets[n++] = i - 1;
    if (n != doc->rows.n_rows)
        return rt_error_set(err, RT_CORRUPT, "document %llu has %zu targets and %zu rows",
                            (unsigned long long)doc->number, n, doc->rows.n_rows);
    return RT_OK;
}

static rt_status check_ids(const audit *a, const rt_store_document *doc, rt_error *err)
{
    for (size_t i = 0; i < doc->n_tokens; i++)
        if (doc->ids[i] < 0 || (size_t)doc->ids[i] >= a->held.model->config.n_vocab)
            return rt_error_set(err, RT_MISMATCH, "document %llu has the id %d, which the model lacks",
                                (unsigned long long)doc->number, (int)doc->ids[i]);
    if (doc->n_tokens > a->held.model->config.n_context)
        return rt_error_set(err, RT_MISMATCH,
                            "document %llu has %zu tokens and the model a context of %zu: it was recorded "
                            "from another model",
                            (unsigned long long)doc->number, doc->n_tokens, a->held.model->config.n_context);
    return RT_OK;
}

static void run_side(side *s, const rt_store_document *doc)
{
    const rt_segment segment = {.begin = 0, .count = doc->n_tokens};
    const rt_batch batch = {
        .ids = doc->ids, .n_tokens = doc->n_tokens, .segments = &segment, .n_segments = 1};
    rt_forward(s->model, s->pass, &batch, NULL, NULL);
}

static rt_status add_row(audit *a, const rt_sparse_row *row, size_t i, rt_audit_document *sums, rt_error *err)
{
    float *z = a->held.logits + i * a->held.model->config.n_vocab,
          *z_other = a->other.logits + i * a->other.model->config.n_vocab;
    const double log_z = log_z_of(&a->held, z, a->header),
                 log_z_other = log_z_of(&a->other, z_other, a->header);
    const row_figures f = compare_row(a, row, z, log_z, z_other, log_z_other);
    if (!isfinite(f.difference + f.noise))
        return rt_error_set(err, RT_NOT_FINITE,
                            "document %llu: log-probabilities, of the store or of the model, are not finite",
                            (unsigned long long)sums->number);
    sums->rows += 1;
    sums->sum += f.difference;
    a->noise_sum += f.noise;
    a->code_sum += f.code_error;
    a->top_rows += f.top_known;
    a->top_sum += f.top_same;
    return RT_OK;
}

static rt_status audit_document(audit *a, const rt_store_document *doc, rt_audit_document *sums,
                                rt_error *err)
{
    *sums = (rt_audit_document){.number = doc->number};
    if (check_ids(a, doc, err) != RT_OK || list_targets(a, doc, err) != RT_OK)
        return err->status;
    run_side(&a->held, doc);
    run_side(&a->other, doc);
    for (size_t first = 0; first < doc->rows.n_rows; first += CHUNK) {
        const size_t n = rt_size_min(CHUNK, doc->rows.n_rows - first);
        rt_logits(a->held.model, a->held.pass, a->targets + first, n, a->held.logits);
        rt_logits(a->other.model, a->other.pass, a->targets + first, n, a->other.logits);
        for (size_t i = 0; i < n; i++) {
            const rt_sparse_row row = rt_sparse_rows_at(&doc->rows, first + i);
            for (uint32_t k = 0; k < row.n; k++)
                if (row.ids[k] >= a->header->n_vocab)
                    return rt_error_set(err, RT_CORRUPT, "document %llu: id %u is beyond the vocabulary",
                                        (unsigned long long)doc->number, row.ids[k]);
            if (row.n && add_row(a, &row, i, sums, err) != RT_OK)
                return err->status;
        }
    }
    return RT_OK;
}

/* ---- all ---- */

static rt_status open_side(side *s, const rt_model *model, size_t longest, rt_error *err)
{
    s->model = model;
    s->logits = malloc(CHUNK * model->config.n_vocab * sizeof *s->logits);
    return s->logits ? rt_pass_open(&s->pass, model, longest, false, err)
                     : rt_error_set(err, RT_NO_MEMORY, "no memory for logits");
}

static void close_side(side *s)
{
    rt_pass_close(s->pass);
    free(s->logits);
}

/* Documents with rows; *longest: tokens of the longest. */
static size_t count_documents(const rt_reader *reader, size_t *longest)
{
    size_t n = 0;
    *longest = 1;
    for (size_t i = 0; i < rt_reader_documents(reader); i++)
        if (rt_reader_document_has_rows(reader, i)) {
            n++;
            *longest = rt_size_max(*longest, rt_reader_document_tokens(reader, i));
        }
    return n;
}

static rt_status audit_all(audit *a, const rt_audit_options *o, size_t total, rt_error *err)
{
    rt_audit_result *r = a->result;
    const size_t want = o->documents ? rt_size_min(o->documents, total) : total;
    rt_store_document doc = {0};
    rt_status status = RT_OK;
    r->documents = calloc(want, sizeof *r->documents);
    if (!r->documents)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu documents", want);
    for (size_t i = 0, with_rows = 0; i < rt_reader_documents(a->reader) && status == RT_OK; i++) {
        if (!rt_reader_document_has_rows(a->reader, i))
            continue;
        /* the k-th of `want` is the first whose rank is at least k total / want */
        const bool taken = r->n_documents < want && with_rows++ * want >= r->n_documents * total;
        if (!taken)
            continue;
        if ((status = rt_reader_document(a->reader, i, &doc, err)) == RT_OK &&
            (status = audit_document(a, &doc, &r->documents[r->n_documents], err)) == RT_OK)
            r->n_documents++;
        if (status == RT_OK && o->progress && !o->progress(o->context, r->n_documents, want))
            status =
                rt_error_set(err, RT_STOPPED, "stopped after %zu of %zu documents", r->n_documents, want);
    }
    rt_store_document_deinit(&doc);
    return status;
}

static rt_status summarise(audit *a, rt_error *err)
{
    rt_audit_result *r = a->result;
    const size_t n = r->n_documents;
    double *values = calloc(2 * n + RESAMPLES, sizeof *values), sum = 0;
    uint32_t *draws = calloc(n * RESAMPLES, sizeof *draws);
    if (!values || !draws) {
        free(values);
        free(draws);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to draw %zu documents", n);
    }
    for (size_t d = 0; d < n; d++) {
        values[d] = r->documents[d].sum;
        values[n + d] = r->documents[d].rows;
        sum += r->documents[d].sum;
        r->rows += r->documents[d].rows;
    }
    const double rows = fmax(r->rows, 1);
    rt_bootstrap_draw(draws, n, RESAMPLES, 1);
    rt_bootstrap_ratios(values + 2 * n, values, values + n, n, draws, RESAMPLES);
    r->difference = n > 1 ? rt_interval_make(sum / rows, values + 2 * n, RESAMPLES)
                          : (rt_interval){sum / rows, (double)NAN, (double)NAN};
    free(values);
    free(draws);
    r->noise = a->noise_sum / rows;
    r->code_error = a->code_sum / rows;
    r->bound = r->noise + r->code_error + RT_AUDIT_FLOOR;
    r->top1 = a->top_rows > 0 ? a->top_sum / a->top_rows : (double)NAN;
    for (size_t d = 0; d < n; d++)
        r->n_beyond += r->documents[d].sum > RT_AUDIT_DOCUMENT * r->bound * r->documents[d].rows;
    r->same = r->difference.value <= r->bound && r->n_beyond == 0;
    return RT_OK;
}

rt_status rt_audit(rt_audit_result *out, const rt_reader *reader, const rt_model *model,
                   const rt_model *other, const rt_audit_options *options, rt_error *err)
{
    *out = (rt_audit_result){0};
    audit a = {.reader = reader, .header = rt_reader_header(reader), .result = out};
    size_t longest;
    const size_t total = a.header ? count_documents(reader, &longest) : 0;
    if (!total)
        return rt_error_set(err, RT_INVALID, "the store has no log-probabilities to be compared");
    if (a.header->n_vocab > model->config.n_vocab)
        return rt_error_set(err, RT_MISMATCH, "the store's rows are over %u ids and the model has %zu logits",
                            a.header->n_vocab, (size_t)model->config.n_vocab);
    rt_status status = open_side(&a.held, model, longest, err);
    if (status == RT_OK)
        status = open_side(&a.other, other, longest, err);
    if (status == RT_OK)
        status = audit_all(&a, options, total, err);
    if (status == RT_OK)
        status = summarise(&a, err);
    close_side(&a.held);
    close_side(&a.other);
    free(a.targets);
    if (status != RT_OK)
        rt_audit_result_deinit(out);
    return status;
}

void rt_audit_result_deinit(rt_audit_result *result)
{
    free(result->documents);
    *result = (rt_audit_result){0};
}
