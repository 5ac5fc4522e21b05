/* cli/bench_outputs.c - reading an outputs store: documents decoded on one core, from the page cache, in
 * bytes of the file a second.
 *
 * The store is made for it, in a folder of its own: rows over 49,152 ids whose logits fall with the logarithm
 * of the id, as a vocabulary's frequencies do, with noise.  Sizes of real distributions are in docs/rls.md.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "outputs/check.h"

enum { VOCAB = 49152, DOCUMENTS = 8, TOKENS = 256 };

static rt_status make_document(rt_store_document *doc, const rt_sparse_settings *s, float *logits, void *work,
                               rt_sparse_out *out, rt_error *err)
{
    rt_rng rng = rt_rng_make(1, doc->number);
    rt_sparse_rows_clear(&doc->rows);
    for (size_t t = 0; t < TOKENS; t++) {
        doc->ids[t] = (int32_t)rt_rng_below(&rng, VOCAB);
        doc->mask[t] = t > 0;
        for (size_t i = 0; t > 0 && i < VOCAB; i++) {
            const uint32_t word = rt_rng_u32(&rng); /* the product of two uniforms: few ids stand out */
            logits[i] =
                -0.5f * logf((float)(i + 8)) + 24 * (float)(word >> 16) * (float)(word & 0xffff) * 0x1p-32f;
        }
        if (t == 0)
            continue;
        if (rt_sparse_make(out, logits, s, doc->number, t, work, err) != RT_OK ||
            rt_sparse_rows_add(&doc->rows,
                               &(rt_sparse_row){out->ids, out->logq, out->counts, out->head.n,
                                                out->head.n_topk, out->head.n_draws, out->head.tail_logprob,
                                                out->head.log_z, out->head.log_s},
                               err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status fill_store(rt_store *store, const rt_sparse_settings *s, rt_error *err)
{
    const size_t most = rt_sparse_entries_max(s);
    int32_t ids[TOKENS];
    uint8_t mask[TOKENS];
    rt_store_document doc = {.ids = ids, .mask = mask, .n_tokens = TOKENS};
    rt_sparse_out out = {malloc(most * sizeof *out.ids),
                         malloc(most * sizeof *out.logq),
                         malloc(most * sizeof *out.counts),
                         {0}};
    float *logits = malloc(VOCAB * sizeof *logits);
    void *work = aligned_alloc(64, (rt_sparse_work_bytes(s) + 63) / 64 * 64);
    rt_status status = out.ids && out.logq && out.counts && logits && work
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for rows");
    for (doc.number = 0; doc.number < DOCUMENTS && status == RT_OK; doc.number++) {
        status = make_document(&doc, s, logits, work, &out, err);
        if (status == RT_OK)
            status = rt_store_add_document(store, &doc, NULL, err);
    }
    rt_sparse_rows_deinit(&doc.rows);
    free(out.ids);
    free(out.logq);
    free(out.counts);
    free(logits);
    free(work);
    return status;
}

static rt_status make_store(const char *dir, const rt_sparse_settings *s, rt_error *err)
{
    const rt_rls_header header = {.version = RT_RLS_VERSION,
                                  .n_vocab = VOCAB,
                                  .n_logits = VOCAB,
                                  .topk = (uint32_t)s->topk,
                                  .draws = (uint32_t)s->draws,
                                  .code_bits = 8,
                                  .end_id = -1,
                                  .proposal = s->proposal,
                                  .temperature = 1};
    json_t *facts = json_pack("{s:o}", "logits", rt_rls_facts(&header));
    rt_store *store;
    rt_status status = facts ? rt_store_open(&store, dir, facts, "retort bench", err)
                             : rt_error_set(err, RT_NO_MEMORY, "no memory for a store");
    json_decref(facts);
    if (status != RT_OK)
        return status;
    status = fill_store(store, s, err);
    rt_error later;
    const rt_status closed = rt_store_close(store, status == RT_OK ? err : &later);
    return status == RT_OK ? closed : status;
}

/* The time of this thread on its core: reading is bound by the core alone, and neighbours do not count. */
static double core_seconds(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Passes over all documents for a quarter of a second; bytes of the file a second. */
static rt_status time_reading(double *bytes_per_s, const rt_reader *reader, double bytes, rt_error *err)
{
    rt_store_document doc = {0};
    size_t passes = 0;
    rt_status status = RT_OK;
    const double from = core_seconds();
    do {
        for (size_t i = 0; i < rt_reader_documents(reader) && status == RT_OK; i++)
            status = rt_reader_document(reader, i, &doc, err);
        passes++;
    } while (status == RT_OK && core_seconds() - from < 0.25);
    *bytes_per_s = bytes * (double)passes / (core_seconds() - from);
    rt_store_document_deinit(&doc);
    return status;
}

static rt_status read_store(double *median, const bench *b, const char *dir, rt_error *err)
{
    rt_reader *reader;
    json_t *stat;
    if (rt_store_stat(&stat, dir, 1, err) != RT_OK)
        return err->status;
    const double bytes = json_number_value(json_object_get(json_object_get(stat, "logits"), "bytes"));
    json_decref(stat);
    if (rt_reader_open(&reader, dir, err) != RT_OK)
        return err->status;
    double *rates = calloc(b->options.runs, sizeof *rates);
    rt_status status = rates ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for figures");
    for (size_t run = 0; run < b->options.runs && status == RT_OK; run++)
        status = time_reading(&rates[run], reader, bytes, err);
    if (status == RT_OK)
        *median = bench_median(rates, b->options.runs);
    free(rates);
    rt_reader_close(reader);
    return status;
}

static void remove_store(const char *dir)
{
    static const char *const files[] = {"logits/000001.rls", "logits", "rows", "manifest.json", "lock"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = rt_path_join(dir, files[i]);
        if (path)
            (void)remove(path);
        free(path);
    }
    (void)rmdir(dir);
}

rt_status bench_outputs(bench *b, rt_error *err)
{
    static const struct {
        const char *name;
        rt_sparse_settings settings;
    } kinds[] = {{"reading a store, 12 draws", {.n_vocab = VOCAB, .draws = 12, .proposal = 1}},
                 {"reading a store, top 50", {.n_vocab = VOCAB, .topk = 50, .proposal = 1}}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *place = getenv("TMPDIR");
        char dir[512];
        (void)snprintf(dir, sizeof dir, "%.400s/retort-bench-XXXXXX", place ? place : "/tmp");
        if (!mkdtemp(dir))
            return rt_error_set(err, RT_IO, "%.300s: cannot be made", dir);
        double rate = 0;
        rt_status status = make_store(dir, &kinds[i].settings, err);
        if (status == RT_OK)
            status = read_store(&rate, b, dir, err);
        remove_store(dir);
        if (status != RT_OK)
            return status;
        bench_add(b, &(bench_row){.name = kinds[i].name,
                                  .unit = "MB/s",
                                  .value = rate * 1e-6,
                                  .bar = BENCH_AT_LEAST,
                                  .must = 200,
                                  .aim = 300});
    }
    return RT_OK;
}
