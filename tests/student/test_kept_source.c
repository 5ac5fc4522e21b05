/* tests/student/test_kept_source.c - rows of a store find the tokens that they teach: from .rls files, and
 * from an API's log-probabilities by their bytes; what does not fit the student is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "student/kept_source.h"

#define TEACHER RT_TEST_SOURCE_DIR "/data/teacher-small.gguf"

typedef struct world {
    char dir[64], command[128];
    rt_tokenizer *tokenizer;
    rt_error err;
} world;

static void open_world(world *w)
{
    memset(w, 0, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/retort-test-source-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(rt_tokenizer_open(&w->tokenizer, TEACHER, &w->err), RT_OK);
}

static void close_world(world *w)
{
    rt_tokenizer_close(w->tokenizer);
    (void)snprintf(w->command, sizeof w->command, "rm -r %s", w->dir);
    assert_int_equal(system(w->command), 0);
}

static void add_row(rt_store *store, const char *text)
{
    rt_error err = {0};
    json_t *row = json_loads(text, 0, NULL);
    assert_non_null(row);
    assert_int_equal(rt_store_add_text(store, row, NULL, &err), RT_OK);
    json_decref(row);
}

static void text_store(world *w)
{
    rt_store *store;
    json_t *facts = json_pack("{s:{s:s}}", "teacher", "name", "api");
    assert_int_equal(rt_store_open(&store, w->dir, facts, "test", &w->err), RT_OK);
    json_decref(facts);
    /* "ab!": b comes with two alternatives, one of which ("bc") is no token of a byte tokenizer */
    add_row(store,
            "{\"prompt\": \"say\", \"completion\": \"ab!\", \"finish_reason\": \"stop\", \"logprobs\": ["
            "{\"token\": \"a\", \"bytes\": [97], \"logprob\": -0.5, \"top\": [{\"token\": \"a\", \"bytes\": "
            "[97], "
            "\"logprob\": -0.5}, {\"token\": \"x\", \"bytes\": [120], \"logprob\": -2}], \"tail\": 0.2},"
            "{\"token\": \"b\", \"bytes\": [98], \"logprob\": -1, \"top\": [{\"token\": \"bc\", \"bytes\": "
            "[98, 99], "
            "\"logprob\": -0.6}], \"tail\": 0.4},"
            "{\"token\": \"!\", \"bytes\": [33], \"logprob\": 0, \"top\": [], \"tail\": 0}]}");
    /* the teacher says "cd" in one token: the student's "c" and "d" are apart from it; "e" is taught again,
     * in the API's own form without bytes */
    add_row(store,
            "{\"prompt\": \"say\", \"completion\": \"cde\", \"finish_reason\": \"length\", \"logprobs\": "
            "{\"content\": [{\"token\": \"cd\", \"logprob\": -0.1, \"top_logprobs\": []}, {\"token\": \"e\", "
            "\"logprob\": -0.2, \"top_logprobs\": [{\"token\": \"e\", \"logprob\": -0.2}]}]}}");
    add_row(store, "{\"prompt\": \"say\", \"completion\": \"no\", \"logprobs\": null}");
    add_row(store, "{\"prompt\": \"say\", \"completion\": \"I cannot\", \"refusal\": \"I cannot\"}");
    assert_int_equal(rt_store_close(store, &w->err), RT_OK);
}

static int32_t id_of(const world *w, const char *text)
{
    rt_token_list list = {0};
    rt_error err = {0};
    assert_int_equal(rt_tokenizer_encode(w->tokenizer, text, strlen(text), false, &list, &err), RT_OK);
    assert_int_equal(list.count, 1);
    const int32_t id = list.ids[0];
    rt_token_list_deinit(&list);
    return id;
}

static void an_apis_alternatives_become_ids_by_their_bytes(void **state)
{
    (void)state;
    world w;
    rt_kept_source source;
    rt_documents docs = {0};
    rt_dealer dealer;
    rt_deal deal;
    open_world(&w);
    text_store(&w);
    const rt_kept_match match = {.tokenizer = w.tokenizer, .n_logits = 272};
    const rt_document_options options = {.tokens_max = 64};
    assert_int_equal(rt_kept_source_open(&source, w.dir, &match, &w.err), RT_OK);
    assert_false(rt_kept_source_has_rows(&source));
    assert_int_equal(rt_kept_source_logprobs(&source, &docs, w.tokenizer, NULL, &options, true, &w.err),
                     RT_OK);
    assert_int_equal(docs.n_docs, 2);
    assert_int_equal(source.counts.texts, 4);
    assert_int_equal(source.counts.without, 2);
    assert_int_equal(source.counts.taught, 4); /* a, b, !, e */
    assert_int_equal(source.counts.apart, 2);  /* c, d */
    assert_int_equal(source.counts.unmapped, 1);
    assert_int_equal(rt_dealer_init(&dealer, &docs, 1, 64, &w.err), RT_OK);
    assert_int_equal(rt_deal_init(&deal, 64, &w.err), RT_OK);
    rt_dealer_next(&dealer, &deal);
    assert_int_equal(rt_kept_source_fill(&source, &deal, &w.err), RT_OK);
    bool seen_a = false, seen_b = false, seen_e = false;
    for (size_t i = 0; i < deal.targets.n; i++) {
        const rt_kept_row *row = &deal.targets.kept[i];
        if (deal.targets.labels[i] == id_of(&w, "a")) {
            seen_a = true;
            assert_int_equal(row->n_topk, 2);
            assert_int_equal(row->ids[1], id_of(&w, "x"));
            assert_true(fabs(row->tail_logprob - log(1 - exp(-0.5) - exp(-2.0))) < 1e-6);
        } else if (deal.targets.labels[i] == id_of(&w, "b")) {
            seen_b = true;
            assert_int_equal(row->n_topk, 1); /* itself; "bc" is left to the tail */
            assert_true(fabs(row->tail_logprob - log(1 - exp(-1.0))) < 1e-6);
        } else if (deal.targets.labels[i] == id_of(&w, "e")) {
            seen_e = true;
            assert_int_equal(row->n_topk, 1);
        }
    }
    assert_true(seen_a && seen_b && seen_e);
    rt_deal_deinit(&deal);
    rt_dealer_deinit(&dealer);
    rt_documents_deinit(&docs);
    rt_kept_source_close(&source);

    /* with all tokens as targets, those without a distribution have an empty row */
    assert_int_equal(rt_kept_source_open(&source, w.dir, &match, &w.err), RT_OK);
    assert_int_equal(rt_kept_source_logprobs(&source, &docs, w.tokenizer, NULL, &options, false, &w.err),
                     RT_OK);
    assert_int_equal(docs.n_targets, 3 + 1 + 3); /* "ab!" and its end, "cde" */
    assert_int_equal(source.memory.n_rows, 7);
    rt_documents_deinit(&docs);
    rt_kept_source_close(&source);

    /* texts alone: refusals are left out */
    assert_int_equal(rt_kept_source_open(&source, w.dir, &match, &w.err), RT_OK);
    assert_int_equal(rt_kept_source_texts(&source, &docs, w.tokenizer, NULL, &options, &w.err), RT_OK);
    assert_int_equal(docs.n_docs, 3);
    rt_documents_deinit(&docs);
    rt_kept_source_close(&source);
    close_world(&w);
}

/* ---- .rls ---- */

static void rls_store(world *w, rt_rls_header header)
{
    rt_store *store;
    rt_store_document doc = {0};
    int32_t ids[] = {5, 6, 7, 8};
    uint8_t mask[] = {0, 1, 0, 1};
    const uint32_t kept[] = {6, 9};
    const float logq[] = {-0.25f, -3};
    const uint16_t counts[] = {3, 1};
    json_t *facts = json_pack("{s:{s:s},s:o}", "teacher", "name", "t", "logits", rt_rls_facts(&header));
    if (rt_store_open(&store, w->dir, facts, "test", &w->err) != RT_OK)
        fail_msg("%s", w->err.text);
    json_decref(facts);
    doc.ids = ids;
    doc.mask = mask;
    doc.n_tokens = 4;
    const rt_sparse_row row = {.ids = kept,
                               .logq = logq,
                               .counts = counts,
                               .n = 2,
                               .n_topk = 2,
                               .n_draws = 4,
                               .tail_logprob = (float)log(1 - exp(-0.25) - exp(-3.0)),
                               .log_z = 1};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(rt_sparse_rows_add(&doc.rows, &row, &w->err), RT_OK);
    if (rt_store_add_document(store, &doc, NULL, &w->err) != RT_OK)
        fail_msg("%s", w->err.text);
    assert_int_equal(rt_store_close(store, &w->err), RT_OK);
    rt_sparse_rows_deinit(&doc.rows);
}

static rt_rls_header header_for(const world *w)
{
    rt_rls_header h = {.version = RT_RLS_VERSION,
                       .n_vocab = 272,
                       .n_logits = 272,
                       .topk = 2,
                       .draws = 4,
                       .code_bits = 16,
                       .end_id = rt_tokenizer_eos(w->tokenizer),
                       .proposal = 1,
                       .temperature = 1};
    const char *hex = rt_tokenizer_hash(w->tokenizer);
    for (size_t i = 0; i < 32; i++) {
        unsigned byte;
        (void)sscanf(hex + 2 * i, "%2x", &byte);
        h.tokenizer_hash[i] = (unsigned char)byte;
    }
    return h;
}

static void rows_of_a_file_meet_their_targets(void **state)
{
    (void)state;
    world w;
    rt_kept_source source;
    rt_documents docs = {0};
    rt_dealer dealer;
    rt_deal deal;
    open_world(&w);
    rls_store(&w, header_for(&w));
    const rt_kept_match match = {.tokenizer = w.tokenizer, .n_logits = 272};
    assert_int_equal(rt_kept_source_open(&source, w.dir, &match, &w.err), RT_OK);
    assert_true(rt_kept_source_has_rows(&source) && source.topk && source.draws && source.n_max == 6);
    assert_int_equal(rt_kept_source_documents(&source, &docs, 64, &w.err), RT_OK);
    assert_int_equal(docs.n_targets, 2);
    assert_int_equal(rt_dealer_init(&dealer, &docs, 1, 64, &w.err), RT_OK);
    assert_int_equal(rt_deal_init(&deal, 64, &w.err), RT_OK);
    rt_dealer_next(&dealer, &deal);
    assert_int_equal(rt_kept_source_fill(&source, &deal, &w.err), RT_OK);
    assert_int_equal(deal.targets.n % 2, 0);
    for (size_t i = 0; i < deal.targets.n; i++) {
        assert_int_equal(deal.targets.labels[i], i % 2 ? 8 : 6);
        assert_int_equal(deal.targets.kept[i].n, 2);
        assert_int_equal(deal.targets.kept[i].ids[0], 6);
        assert_int_equal(deal.targets.kept[i].n_draws, 4);
    }
    rt_deal_deinit(&deal);
    rt_dealer_deinit(&dealer);
    rt_documents_deinit(&docs);
    rt_kept_source_close(&source);
    close_world(&w);
}

static void what_is_not_the_students_is_named(void **state)
{
    (void)state;
    static const char *const words[] = {"tokenizer", "padding", "chat template", "end with id"};
    for (size_t i = 0; i < 4; i++) {
        world w;
        rt_kept_source source;
        open_world(&w);
        rt_rls_header h = header_for(&w);
        if (i == 0)
            h.tokenizer_hash[3] ^= 1;
        if (i == 1)
            h.n_vocab = h.n_logits = 384;
        if (i == 2)
            h.template_hash[0] = 1;
        if (i == 3)
            h.end_id = 200;
        rls_store(&w, h);
        rt_kept_match match = {.tokenizer = w.tokenizer, .n_logits = 272};
        assert_int_equal(rt_kept_source_open(&source, w.dir, &match, &w.err), RT_MISMATCH);
        assert_non_null(strstr(w.err.text, words[i]));
        rt_kept_source_close(&source);
        match.any_template = match.any_end = true;
        assert_int_equal(rt_kept_source_open(&source, w.dir, &match, &w.err), i < 2 ? RT_MISMATCH : RT_OK);
        rt_kept_source_close(&source);
        close_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_apis_alternatives_become_ids_by_their_bytes),
        cmocka_unit_test(rows_of_a_file_meet_their_targets),
        cmocka_unit_test(what_is_not_the_students_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
