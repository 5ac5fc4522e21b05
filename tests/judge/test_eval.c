/* tests/judge/test_eval.c - the judge's figures are those of full logits in double, whatever the threads and
 * batches; sums by position and kind add up; bad input is one sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/size.h"
#include "judge/eval.h"
#include "model/session.h"

#define ENGINE RT_TEST_SOURCE_DIR "/tests/golden/engine/"

enum { VOCAB = 97, DOCS = 11, LONGEST = 40, MODELS = 3 };

typedef struct scene {
    rt_pool *pool;
    rt_model *opened[MODELS];
    rt_eval_model models[MODELS];
    rt_eval_text text;
} scene;

static const char *const folders[MODELS] = {"llama", "llama_untied_rope3", "gpt2"};
static const char *const names[MODELS] = {"teacher", "student", "ce"};

static void open_scene(scene *s, unsigned n_threads, rt_precision precision)
{
    rt_error err = {0};
    *s = (scene){0};
    assert_int_equal(rt_pool_open(&s->pool, n_threads, &err), RT_OK);
    for (size_t m = 0; m < MODELS; m++) {
        char path[512];
        rt_weights *weights;
        (void)snprintf(path, sizeof path, ENGINE "%s", folders[m]);
        if (rt_weights_open(&weights, path, &err) != RT_OK ||
            rt_model_open(&s->opened[m], weights, precision, s->pool, &err) != RT_OK)
            fail_msg("%s", err.text);
        rt_weights_close(weights);
        s->models[m] = (rt_eval_model){
            .name = names[m], .label = folders[m], .model = s->opened[m], .file_bytes = 1000 + m};
    }
    rt_rng rng = rt_rng_make(3, 1);
    for (size_t d = 0; d < DOCS; d++) {
        int32_t ids[LONGEST];
        uint8_t mask[LONGEST];
        const size_t n = d == 0 ? LONGEST : 2 + (size_t)rt_rng_below(&rng, LONGEST - 2);
        for (size_t i = 0; i < n; i++) {
            ids[i] = (int32_t)rt_rng_below(&rng, VOCAB - 7);
            mask[i] = d % 3 != 1 || i > n / 2;
        }
        assert_int_equal(rt_documents_add(&s->text.docs, ids, mask, n, &err), RT_OK);
    }
    s->text.kinds = malloc(s->text.docs.n_tokens);
    for (size_t i = 0; i < s->text.docs.n_tokens; i++)
        s->text.kinds[i] = (uint8_t)(s->text.docs.ids[i] % RT_KIND_COUNT);
}

static void close_scene(scene *s)
{
    for (size_t m = 0; m < MODELS; m++)
        rt_model_close(s->opened[m]);
    rt_eval_text_deinit(&s->text);
    rt_pool_close(s->pool);
}

static void evaluate(rt_eval_result *result, const scene *s, const rt_eval_options *options)
{
    rt_error err = {0};
    if (rt_eval(result, s->models, MODELS, &s->text, options, &err) != RT_OK)
        fail_msg("%s", err.text);
}

/* ---- the plain way ---- */

typedef struct plain {
    double tokens, nll, fkl, rkl, tvd, top1, top5, ece;
    double kind_kl[RT_KIND_COUNT], kind_tokens[RT_KIND_COUNT];
    double late_top1, late_tokens; /* positions 16 to 31 */
    double bins[RT_ECE_BINS];      /* right less confidence */
} plain;

static void softmax(double *p, const float *z, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += p[i] = exp((double)z[i]);
    for (size_t i = 0; i < n; i++)
        p[i] /= sum;
}

static size_t rank_of(const float *z, size_t id, size_t n)
{
    size_t rank = 0;
    for (size_t i = 0; i < n; i++)
        rank += z[i] > z[id] || (z[i] == z[id] && i < id);
    return rank;
}

static void plain_token(plain *sum, const float *z, const float *zt, size_t label, size_t n, size_t position,
                        size_t kind)
{
    double p[VOCAB] = {0}, q[VOCAB] = {0}, fkl = 0;
    size_t best = 0, best_t = 0;
    softmax(p, z, n);
    softmax(q, zt, n);
    for (size_t i = 0; i < n; i++) {
        fkl += q[i] * log(q[i] / p[i]);
        sum->rkl += p[i] * log(p[i] / q[i]);
        sum->tvd += 0.5 * fabs(p[i] - q[i]);
        best = z[i] > z[best] ? i : best;
        best_t = zt[i] > zt[best_t] ? i : best_t;
    }
    sum->tokens++;
    sum->nll -= log(p[label]);
    sum->fkl += fkl;
    sum->top1 += best == best_t;
    sum->top5 += rank_of(z, best_t, n) < 5;
    sum->kind_kl[kind] += fkl;
    sum->kind_tokens[kind]++;
    if (position >= 16 && position < 32) {
        sum->late_tokens++;
        sum->late_top1 += best == best_t;
    }
    size_t bin = 0;
    while (bin + 1 < RT_ECE_BINS && p[best] > (double)(bin + 1) / RT_ECE_BINS)
        bin++;
    sum->bins[bin] += (best == label) - p[best];
}

static void plain_model(plain *out, const scene *s, size_t m, size_t n_vocab)
{
    rt_error err = {0};
    rt_session *student, *teacher;
    static float z[LONGEST * VOCAB], zt[LONGEST * VOCAB];
    *out = (plain){0};
    assert_int_equal(rt_session_open(&student, s->opened[m], 1, LONGEST, &err), RT_OK);
    assert_int_equal(rt_session_open(&teacher, s->opened[0], 1, LONGEST, &err), RT_OK);
    for (size_t d = 0; d < DOCS; d++) {
        const size_t from = s->text.docs.begins[d], n = s->text.docs.begins[d + 1] - from;
        const int32_t *ids = s->text.docs.ids + from;
        rt_session_truncate(student, 0, 0);
        rt_session_truncate(teacher, 0, 0);
        assert_int_equal(rt_session_score(student, 0, ids, n, z, &err), RT_OK);
        assert_int_equal(rt_session_score(teacher, 0, ids, n, zt, &err), RT_OK);
        for (size_t i = 1; i < n; i++)
            if (s->text.docs.mask[from + i])
                plain_token(out, z + (i - 1) * VOCAB, zt + (i - 1) * VOCAB, (size_t)ids[i], n_vocab, i,
                            s->text.kinds[from + i]);
    }
    for (size_t b = 0; b < RT_ECE_BINS; b++)
        out->ece += fabs(out->bins[b]);
    rt_session_close(student);
    rt_session_close(teacher);
}

static void near(double got, double wanted, double tolerance)
{
    if (!(fabs(got - wanted) <= tolerance * (1 + fabs(wanted))))
        fail_msg("%.9g is not %.9g", got, wanted);
}

/* float32 logits that were made in another order of sums differ by some 1e-6. */
static void check_against_plain(const rt_eval_figures *f, const plain *p)
{
    const double n = p->tokens, tolerance = 2e-5;
    const rt_interval *figures = f->figures;
    near(f->total.tokens, n, 0);
    near(figures[RT_EVAL_perplexity].value, exp(p->nll / n), tolerance);
    near(figures[RT_EVAL_kl_teacher_student].value, p->fkl / n, tolerance);
    near(figures[RT_EVAL_kl_student_teacher].value, p->rkl / n, tolerance);
    near(figures[RT_EVAL_tvd].value, p->tvd / n, tolerance);
    near(figures[RT_EVAL_acceptance].value, 1 - p->tvd / n, tolerance);
    near(figures[RT_EVAL_top1].value, p->top1 / n, 1e-12);
    near(figures[RT_EVAL_top5].value, p->top5 / n, 1e-12);
    near(figures[RT_EVAL_ece].value, p->ece / n, tolerance);
    for (size_t k = 0; k < RT_KIND_COUNT; k++) {
        near(f->kinds[k].tokens, p->kind_tokens[k], 0);
        near(f->kinds[k].kl.value, p->kind_kl[k] / p->kind_tokens[k], tolerance);
    }
    near(f->positions[1].tokens, p->late_tokens, 0);
    near(f->positions[1].top1.value, p->late_top1 / p->late_tokens, 1e-12);
}

static void figures_are_those_of_full_logits(void **state)
{
    (void)state;
    static const size_t n_vocabs[] = {0, 92};
    for (size_t v = 0; v < 2; v++) {
        scene s;
        plain p;
        rt_eval_result result;
        open_scene(&s, 2, RT_PRECISION_F32);
        evaluate(&result, &s,
                 &(rt_eval_options){.n_vocab = n_vocabs[v], .batch_tokens = 64, .resamples = 50});
        assert_int_equal(result.n_docs, DOCS);
        assert_int_equal(result.n_vocab, n_vocabs[v] ? n_vocabs[v] : VOCAB);
        for (size_t m = 0; m < MODELS; m++) {
            plain_model(&p, &s, m, result.n_vocab);
            near((double)result.n_targets, p.tokens, 0);
            check_against_plain(&result.figures[m], &p);
        }
        assert_true(result.figures[0].figures[RT_EVAL_kl_teacher_student].value == 0);
        assert_true(result.figures[0].figures[RT_EVAL_acceptance].value == 1);
        rt_eval_result_deinit(&result);
        close_scene(&s);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    static const rt_precision precisions[] = {RT_PRECISION_F32, RT_PRECISION_BF16};
    for (size_t i = 0; i < 2; i++) {
        scene one, three;
        rt_eval_result a, b;
        const rt_eval_options options = {.resamples = 60, .seed = 4};
        open_scene(&one, 1, precisions[i]);
        open_scene(&three, 3, precisions[i]);
        evaluate(&a, &one, &options);
        evaluate(&b, &three, &options);
        assert_memory_equal(a.figures, b.figures, MODELS * sizeof *a.figures);
        rt_eval_result_deinit(&a);
        rt_eval_result_deinit(&b);
        close_scene(&one);
        close_scene(&three);
    }
}

static void check_interval(const rt_interval *i) { assert_true(i->lo <= i->value && i->value <= i->hi); }

static void groups_add_up_and_intervals_hold_their_figures(void **state)
{
    (void)state;
    scene s;
    rt_eval_result result;
    open_scene(&s, 2, RT_PRECISION_BF16);
    evaluate(&result, &s, &(rt_eval_options){.resamples = 200});
    for (size_t m = 0; m < MODELS; m++) {
        const rt_eval_figures *f = &result.figures[m];
        rt_eval_group by_position = {0}, by_kind = {0};
        for (size_t g = 0; g < RT_EVAL_POSITIONS; g++) {
            by_position.tokens += f->positions[g].tokens;
            by_position.kl_sum += f->positions[g].kl_sum;
            by_position.top1_sum += f->positions[g].top1_sum;
            check_interval(&f->positions[g].top1);
        }
        for (size_t g = 0; g < RT_KIND_COUNT; g++) {
            by_kind.tokens += f->kinds[g].tokens;
            by_kind.kl_sum += f->kinds[g].kl_sum;
            by_kind.tvd_sum += f->kinds[g].tvd_sum;
            check_interval(&f->kinds[g].kl);
        }
        near(by_position.tokens, f->total.tokens, 0);
        near(by_position.kl_sum, f->total.kl_forward, 1e-12);
        near(by_position.top1_sum, f->total.top1_agree, 0);
        near(by_kind.tokens, f->total.tokens, 0);
        near(by_kind.kl_sum, f->total.kl_forward, 1e-12);
        near(by_kind.tvd_sum, f->total.tvd, 1e-12);
        for (size_t i = 0; i < RT_EVAL_FIGURES; i++)
            check_interval(&f->figures[i]);
    }
    const rt_interval *kl = &result.figures[2].kl_difference;
    check_interval(kl);
    near(kl->value,
         result.figures[2].figures[RT_EVAL_kl_teacher_student].value -
             result.figures[1].figures[RT_EVAL_kl_teacher_student].value,
         1e-12);
    assert_true(kl->lo < kl->hi);
    rt_eval_result_deinit(&result);
    close_scene(&s);
}

/* Each piece by itself gives its sums; pieces of one document are drawn together. */
static void intervals_are_those_of_the_bootstrap_over_documents(void **state)
{
    (void)state;
    enum { SOURCES = 5, DRAWS = 80 };
    static uint32_t resamples[DRAWS * SOURCES];
    static double draws[DRAWS];
    scene s;
    rt_eval_result all, one;
    rt_metrics_sum sums[SOURCES] = {0};
    rt_error err = {0};
    open_scene(&s, 2, RT_PRECISION_F32);
    s.text.sources = calloc(DOCS, sizeof *s.text.sources);
    for (size_t d = 0; d < DOCS; d++)
        s.text.sources[d] = (uint32_t)(d * SOURCES / DOCS);
    const rt_eval_options options = {.resamples = DRAWS, .seed = 9};
    evaluate(&all, &s, &options);
    assert_int_equal(all.n_docs, SOURCES);
    assert_int_equal(all.n_pieces, DOCS);
    const rt_documents *whole = &s.text.docs;
    for (size_t d = 0; d < DOCS; d++) {
        const size_t from = whole->begins[d], n = whole->begins[d + 1] - from;
        size_t begins[] = {0, n};
        const rt_eval_text single = {.docs = {.ids = whole->ids + from,
                                              .mask = whole->mask + from,
                                              .begins = begins,
                                              .n_docs = 1,
                                              .n_tokens = n}};
        assert_int_equal(rt_eval(&one, s.models, 2, &single, &options, &err), RT_OK);
        assert_true(isnan(one.figures[1].figures[RT_EVAL_perplexity].lo)); /* one document has no interval */
        rt_metrics_add(&sums[s.text.sources[d]], &one.figures[1].total);
        rt_eval_result_deinit(&one);
    }
    rt_bootstrap_draw(resamples, SOURCES, DRAWS, 9);
    const rt_interval kl = rt_bootstrap_figure(rt_metrics_kl_forward, sums, SOURCES, resamples, DRAWS, draws);
    const rt_interval *got = &all.figures[1].figures[RT_EVAL_kl_teacher_student];
    near(got->value, kl.value, 1e-5);
    near(got->lo, kl.lo, 1e-5);
    near(got->hi, kl.hi, 1e-5);
    rt_eval_result_deinit(&all);
    close_scene(&s);
}

static void text_is_split_and_answers_are_cut(void **state)
{
    (void)state;
    rt_documents whole = {0};
    rt_eval_text text;
    rt_error err = {0};
    int32_t ids[10];
    uint8_t mask[10] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1};
    for (int i = 0; i < 10; i++)
        ids[i] = i;
    assert_int_equal(rt_documents_add(&whole, ids, NULL, 9, &err), RT_OK); /* 4 + 4, a lone one is left out */
    assert_int_equal(rt_documents_add(&whole, ids, mask, 10, &err), RT_OK); /* its answer begins too late */
    assert_int_equal(rt_documents_add(&whole, ids + 4, mask + 4, 6, &err), RT_OK);
    assert_int_equal(rt_documents_add(&whole, ids + 6, NULL, 4, &err), RT_OK);
    assert_int_equal(rt_eval_text_split(&text, &whole, 4, &err), RT_OK);
    static const struct {
        int32_t first;
        size_t n;
        uint32_t source;
    } pieces[] = {{0, 4, 0}, {4, 4, 0}, {4, 4, 1}, {6, 4, 2}};
    assert_int_equal(text.docs.n_docs, 4);
    for (size_t d = 0; d < 4; d++) {
        assert_int_equal(text.docs.ids[text.docs.begins[d]], pieces[d].first);
        assert_int_equal(text.docs.begins[d + 1] - text.docs.begins[d], pieces[d].n);
        assert_int_equal(text.sources[d], pieces[d].source);
    }
    assert_int_equal(text.docs.n_cut, 2);
    assert_int_equal(text.docs.n_targets, 3 + 3 + 2 + 3);
    rt_eval_text_deinit(&text);
    rt_documents_deinit(&whole);
}

static void refuse(const scene *s, const rt_documents *docs, const rt_eval_options *options, rt_status status,
                   const char *words)
{
    rt_error err = {0};
    rt_eval_result result;
    assert_int_equal(rt_eval(&result, s->models, MODELS, &(rt_eval_text){.docs = *docs}, options, &err),
                     status);
    assert_null(result.figures);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say '%s'", err.text, words);
}

static bool stop_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    return done > total;
}

static void bad_input_is_one_sentence(void **state)
{
    (void)state;
    scene s;
    const rt_eval_options options = {.resamples = 10};
    rt_documents docs = {0};
    rt_error err = {0};
    int32_t ids[80] = {0};
    open_scene(&s, 2, RT_PRECISION_F32);
    refuse(&s, &docs, &options, RT_INVALID, "there is no text");
    assert_int_equal(rt_documents_add(&docs, ids, NULL, 80, &err), RT_OK);
    refuse(&s, &docs, &options, RT_INVALID,
           "80 tokens is longer than the context of 64 tokens that the model ce");
    rt_documents_deinit(&docs);
    ids[1] = VOCAB;
    assert_int_equal(rt_documents_add(&docs, ids, NULL, 4, &err), RT_OK);
    refuse(&s, &docs, &options, RT_MISMATCH, "token id 97");
    rt_documents_deinit(&docs);
    refuse(&s, &s.text.docs, &(rt_eval_options){.progress = stop_at_once}, RT_STOPPED, "stopped before");
    ((float *)(size_t)s.opened[1]->norm)[0] = NAN;
    refuse(&s, &s.text.docs, &options, RT_NOT_FINITE, "student: its logits for token 2 of document 1");
    ((float *)(size_t)s.opened[0]->norm)[0] = NAN;
    refuse(&s, &s.text.docs, &options, RT_NOT_FINITE, "teacher: its logits");
    close_scene(&s);
}

static void fewer_tokens_are_whole_documents(void **state)
{
    (void)state;
    scene s;
    rt_eval_result all, some;
    open_scene(&s, 2, RT_PRECISION_F32);
    evaluate(&all, &s, &(rt_eval_options){.resamples = 10});
    evaluate(&some, &s, &(rt_eval_options){.resamples = 10, .tokens = 60});
    assert_true(some.n_targets <= 60 && some.n_docs < all.n_docs && some.n_docs > 0);
    rt_eval_result_deinit(&some);
    evaluate(&some, &s, &(rt_eval_options){.resamples = 10, .tokens = 1}); /* one document at least */
    assert_int_equal(some.n_docs, 1);
    rt_eval_result_deinit(&some);
    rt_eval_result_deinit(&all);
    close_scene(&s);
}

static void the_report_holds_every_figure(void **state)
{
    (void)state;
    scene s;
    rt_eval_result result;
    open_scene(&s, 2, RT_PRECISION_F32);
    evaluate(&result, &s, &(rt_eval_options){.resamples = 20, .speed_seconds = 0.01});
    json_t *json = rt_eval_json(&result);
    assert_non_null(json);
    assert_int_equal(json_integer_value(json_object_get(json, "documents")), DOCS);
    const json_t *models = json_object_get(json, "models");
    for (size_t m = 0; m < MODELS; m++) {
        const json_t *model = json_object_get(models, names[m]);
        const json_t *ppl = json_object_get(model, "perplexity");
        near(json_real_value(json_object_get(ppl, "value")),
             result.figures[m].figures[RT_EVAL_perplexity].value, 0);
        assert_true(json_real_value(json_object_get(ppl, "low")) > 0);
        assert_true(json_real_value(json_object_get(model, "decode_tokens_per_s")) > 0);
        assert_int_equal(json_integer_value(json_object_get(model, "bytes")), 1000 + (json_int_t)m);
        const json_t *positions = json_object_get(model, "by_position"),
                     *first = json_array_get(positions, 0);
        assert_int_equal(json_array_size(positions), 3); /* 0 to 15, 16 to 31, 32 to 39 */
        assert_int_equal(json_integer_value(json_object_get(first, "to")), 15);
        assert_int_equal(json_integer_value(json_object_get(json_array_get(positions, 2), "to")),
                         LONGEST - 1);
        assert_int_equal(json_array_size(json_object_get(model, "by_kind")), RT_KIND_COUNT);
        json_int_t count = 0;
        for (size_t b = 0; b < json_array_size(json_object_get(model, "reliability")); b++)
            count += json_integer_value(
                json_object_get(json_array_get(json_object_get(model, "reliability"), b), "count"));
        assert_int_equal(count, result.n_targets);
    }
    const json_t *difference = json_array_get(json_object_get(json, "differences"), 0);
    assert_string_equal(json_string_value(json_object_get(difference, "model")), "ce");
    json_decref(json);
    rt_eval_result_deinit(&result);
    close_scene(&s);
}

static void tokens_are_told_apart_by_their_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *before;
        rt_token_kind kind;
    } cases[] = {
        {" the", "of", RT_KIND_WORD_START},
        {"The", "", RT_KIND_WORD_START},
        {"The", "\n", RT_KIND_WORD_START},
        {"ing", " walk", RT_KIND_WORD_CONTINUATION},
        {"ing", "4", RT_KIND_WORD_CONTINUATION},
        {"b", "(", RT_KIND_WORD_START},
        {"\xC3\xA9t\xC3\xA9", " l'", RT_KIND_WORD_START},
        {"\xC3\xA9t\xC3\xA9", " \xC3\xA9", RT_KIND_WORD_CONTINUATION},
        {"'s", " cat", RT_KIND_WORD_CONTINUATION},
        {"\xE2\x80\x99s", " cat", RT_KIND_WORD_CONTINUATION},
        {"'s", "", RT_KIND_PUNCTUATION},
        {" '", " cat", RT_KIND_PUNCTUATION},
        {"7", " 1", RT_KIND_NUMBER},
        {" 42nd", "", RT_KIND_NUMBER},
        {".\n", "end", RT_KIND_PUNCTUATION},
        {" +=", "a", RT_KIND_PUNCTUATION},
        {"\n\n", ".", RT_KIND_WHITE_SPACE},
        {"\xC2\xA0\t", ".", RT_KIND_WHITE_SPACE},
        {"\xE4\xB8", "\xE4\xBD\xA0", RT_KIND_OTHER},
        {"\x80", "a", RT_KIND_OTHER},
        {"\x01", "a", RT_KIND_OTHER},
        {"", "a", RT_KIND_OTHER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const rt_token_kind kind = rt_token_kind_of(cases[i].bytes, strlen(cases[i].bytes), cases[i].before,
                                                    strlen(cases[i].before));
        if (kind != cases[i].kind)
            fail_msg("'%s' after '%s' is %s", cases[i].bytes, cases[i].before, rt_token_kind_name(kind));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_full_logits),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(groups_add_up_and_intervals_hold_their_figures),
        cmocka_unit_test(intervals_are_those_of_the_bootstrap_over_documents),
        cmocka_unit_test(text_is_split_and_answers_are_cut),
        cmocka_unit_test(bad_input_is_one_sentence),
        cmocka_unit_test(fewer_tokens_are_whole_documents),
        cmocka_unit_test(the_report_holds_every_figure),
        cmocka_unit_test(tokens_are_told_apart_by_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
