/* tests/outputs/store_help.h - made-up documents with sparse rows, and folders to keep them in. */
#ifndef TESTS_OUTPUTS_STORE_HELP_H
#define TESTS_OUTPUTS_STORE_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "outputs/rls_file.h"

static inline void must(rt_status status, const rt_error *err)
{
    if (status != RT_OK)
        print_message("%s\n", err->text);
    assert_int_equal(status, RT_OK);
}

static inline rt_rls_header small_header(void)
{
    rt_rls_header h = {.version = RT_RLS_VERSION,
                       .n_vocab = 1000,
                       .n_logits = 1024,
                       .topk = 8,
                       .draws = 12,
                       .code_bits = 8,
                       .end_id = 2,
                       .proposal = 1,
                       .temperature = 1,
                       .seed = 7};
    for (size_t i = 0; i < 32; i++) {
        h.tokenizer_hash[i] = (unsigned char)(i + 1);
        h.template_hash[i] = (unsigned char)(i + 40);
        h.teacher_hash[i] = (unsigned char)(i + 80);
    }
    return h;
}

static inline rt_sparse_settings settings_of(const rt_rls_header *h)
{
    return (rt_sparse_settings){
        .n_vocab = h->n_vocab, .topk = h->topk, .draws = h->draws, .proposal = h->proposal, .seed = h->seed};
}

/* Random logits, peaked for odd positions. */
static inline void make_logits(float *z, size_t n, uint64_t seed, uint64_t position)
{
    rt_rng rng = rt_rng_make(seed, position);
    for (size_t i = 0; i < n; i++)
        z[i] = (float)(rt_rng_normal(&rng) * (position % 2 ? 6 : 1.5));
}

/* A document of n tokens under the header; every other run of targets. */
static inline void make_document(rt_store_document *doc, const rt_rls_header *h, uint64_t number, size_t n)
{
    rt_error err = {0};
    rt_rng rng = rt_rng_make(number, 99);
    const rt_sparse_settings s = settings_of(h);
    const size_t most = rt_sparse_entries_max(&s);
    if (n > doc->capacity) {
        doc->ids = realloc(doc->ids, n * sizeof *doc->ids);
        doc->mask = realloc(doc->mask, n);
        doc->capacity = n;
    }
    float *z = malloc(h->n_vocab * sizeof *z);
    void *work = aligned_alloc(64, (rt_sparse_work_bytes(&s) + 63) / 64 * 64);
    rt_sparse_out out = {malloc((most + 1) * sizeof(uint32_t)),
                         malloc((most + 1) * sizeof(float)),
                         malloc((most + 1) * sizeof(uint16_t)),
                         {0}};
    assert_true(doc->ids && doc->mask && z && work && out.ids && out.logq && out.counts);
    rt_sparse_rows_clear(&doc->rows);
    doc->n_tokens = n;
    doc->number = number;
    for (size_t i = 0; i < n; i++) {
        doc->ids[i] = (int32_t)rt_rng_below(&rng, h->n_vocab);
        doc->mask[i] = i > 0 && (i / 5) % 2 == 0;
        if (!doc->mask[i])
            continue;
        make_logits(z, h->n_vocab, number, i);
        must(rt_sparse_make(&out, z, &s, number, i, work, &err), &err);
        must(rt_sparse_rows_add(&doc->rows,
                                &(rt_sparse_row){.ids = out.ids,
                                                 .logq = out.logq,
                                                 .counts = out.counts,
                                                 .n = out.head.n,
                                                 .n_topk = out.head.n_topk,
                                                 .n_draws = out.head.n_draws,
                                                 .tail_logprob = out.head.tail_logprob,
                                                 .log_z = out.head.log_z,
                                                 .log_s = out.head.log_s},
                                &err),
             &err);
    }
    free(z);
    free(work);
    free(out.ids);
    free(out.logq);
    free(out.counts);
}

/* Is `got` what was kept of `want`, as near as the codes allow? */
static inline void assert_same_document(const rt_store_document *got, const rt_store_document *want,
                                        const rt_rls_header *h)
{
    assert_int_equal(got->n_tokens, want->n_tokens);
    assert_int_equal(got->number, want->number);
    assert_memory_equal(got->ids, want->ids, want->n_tokens * sizeof *want->ids);
    assert_memory_equal(got->mask, want->mask, want->n_tokens);
    assert_int_equal(got->rows.n_rows, want->rows.n_rows);
    for (size_t r = 0; r < want->rows.n_rows; r++) {
        const rt_sparse_row a = rt_sparse_rows_at(&got->rows, r), b = rt_sparse_rows_at(&want->rows, r);
        assert_int_equal(a.n, b.n);
        assert_int_equal(a.n_topk, b.n_topk);
        assert_int_equal(a.n_draws, b.n_draws);
        if (b.n) {
            assert_memory_equal(a.ids, b.ids, b.n * sizeof *b.ids);
            assert_memory_equal(a.counts, b.counts, b.n * sizeof *b.counts);
        }
        for (size_t i = 0; i < b.n; i++)
            assert_true(fabs((double)a.logq[i] - (double)b.logq[i]) <=
                        rt_rls_code_error(h->code_bits, (double)b.logq[i]));
        assert_true(isnan(b.log_z) ? isnan(a.log_z) : fabsf(a.log_z - b.log_z) <= 1 / 512.0f + 1e-5f);
        assert_true(a.tail_logprob == b.tail_logprob || fabsf(a.tail_logprob - b.tail_logprob) < 1e-3f);
        assert_true(fabsf(a.log_s - b.log_s) < 1e-3f);
    }
}

#endif
