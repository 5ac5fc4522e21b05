/* tests/judge/test_eval_own.c - figures on students' own text are those of judging that text as any other,
 * and two students are compared prompt by prompt. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/size.h"
#include "judge/eval_own.h"
#include "model/generate.h"
#include "model/weights.h"

#define ENGINE RT_TEST_SOURCE_DIR "/tests/golden/engine/"

enum { VOCAB = 97, DOCS = 9, ANSWER = 20, MODELS = 4, SEED = 4 };

typedef struct scene {
    rt_pool *pool;
    rt_model *opened[MODELS];
    rt_eval_model models[MODELS]; /* the last student is the teacher again */
    rt_eval_text text;
} scene;

/* Documents 1, 4, 7 have no prompt. */
static void open_scene(scene *s)
{
    static const char *const folders[MODELS] = {"llama", "llama_untied_rope3", "gpt2", "llama"};
    static const char *const names[MODELS] = {"teacher", "first", "second", "same"};
    rt_error err = {0};
    *s = (scene){0};
    assert_int_equal(rt_pool_open(&s->pool, 2, &err), RT_OK);
    for (size_t m = 0; m < MODELS; m++) {
        char path[512];
        rt_weights *weights;
        (void)snprintf(path, sizeof path, ENGINE "%s", folders[m]);
        if (rt_weights_open(&weights, path, &err) != RT_OK ||
            rt_model_open(&s->opened[m], weights, RT_PRECISION_F32, s->pool, &err) != RT_OK)
            fail_msg("%s", err.text);
        rt_weights_close(weights);
        s->models[m] = (rt_eval_model){.name = names[m], .label = folders[m], .model = s->opened[m]};
    }
    rt_rng rng = rt_rng_make(3, 1);
    for (size_t d = 0; d < DOCS; d++) {
        int32_t ids[30];
        uint8_t mask[30];
        for (size_t i = 0; i < 30; i++) {
            ids[i] = (int32_t)rt_rng_below(&rng, VOCAB);
            mask[i] = d % 3 == 1 || i > 5 + d;
        }
        assert_int_equal(rt_documents_add(&s->text.docs, ids, mask, 30, &err), RT_OK);
    }
}

static void close_scene(scene *s)
{
    for (size_t m = 0; m < MODELS; m++)
        rt_model_close(s->opened[m]);
    rt_eval_text_deinit(&s->text);
    rt_pool_close(s->pool);
}

typedef struct said {
    const rt_documents *asked;
    const uint32_t *documents;
    rt_documents docs;
} said;

static bool keep(void *context, const rt_answer *answer)
{
    said *s = context;
    rt_error err = {0};
    int32_t ids[64];
    uint8_t mask[64];
    const size_t doc = s->documents[answer->index], n = rt_documents_prompt(s->asked, doc);
    memcpy(ids, s->asked->ids + s->asked->begins[doc], n * sizeof *ids);
    memcpy(ids + n, answer->ids, answer->n * sizeof *ids);
    memset(mask, 0, n);
    memset(mask + n, 1, answer->n);
    assert_int_equal(rt_documents_add(&s->docs, ids, mask, n + answer->n, &err), RT_OK);
    return true;
}

/* What the model says to one prompt, and its sums by the judge of any text. */
static rt_metrics_sum judge_one(const scene *s, size_t m, size_t index, uint32_t doc)
{
    rt_error err = {0};
    said to = {.asked = &s->text.docs, .documents = &doc};
    rt_generate_options options = {
        .sampling = rt_sampling_default(), .n_slots = 1, .n_positions = 64, .answer = keep, .context = &to};
    options.sampling.temperature = 1;
    options.sampling.seed = SEED;
    const rt_prompt prompt = {s->text.docs.ids + s->text.docs.begins[doc],
                              rt_documents_prompt(&s->text.docs, doc), ANSWER, index};
    rt_generate_stats stats;
    assert_int_equal(rt_generate(s->models[m].model, NULL, &prompt, 1, &options, &stats, &err), RT_OK);
    const rt_eval_model pair[2] = {s->models[0], s->models[m]};
    rt_eval_result result;
    assert_int_equal(rt_eval(&result, pair, 2, &(rt_eval_text){.docs = to.docs}, &(rt_eval_options){0}, &err),
                     RT_OK);
    const rt_metrics_sum sum = result.figures[1].total;
    rt_eval_result_deinit(&result);
    rt_documents_deinit(&to.docs);
    return sum;
}

static void near(double got, double wanted) { assert_true(fabs(got - wanted) <= 1e-6 * (1 + fabs(wanted))); }

static void figures_are_those_of_what_was_said(void **state)
{
    (void)state;
    static const uint32_t asked[] = {0, 2, 3, 5, 6, 8};
    enum { ASKED = sizeof asked / sizeof asked[0] };
    scene s;
    rt_error err = {0};
    rt_eval_own_result r;
    open_scene(&s);
    const rt_eval_options options = {.seed = SEED, .resamples = 200};
    if (rt_eval_own(&r, s.models, MODELS, &s.text, NULL, ANSWER, &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(r.n_prompts, ASKED);
    rt_metrics_sum sums[MODELS][ASKED];
    uint32_t draws[ASKED * 200];
    double scratch[200];
    rt_bootstrap_draw(draws, ASKED, 200, SEED);
    for (size_t m = 1; m < MODELS; m++) {
        rt_metrics_sum all = {0};
        for (size_t i = 0; i < ASKED; i++) {
            sums[m][i] = judge_one(&s, m, i, asked[i]);
            rt_metrics_add(&all, &sums[m][i]);
        }
        const rt_eval_own_figures *f = &r.figures[m];
        assert_true(f->total.tokens == ASKED * ANSWER && f->ended == 0);
        near(f->kl_student_teacher.value, rt_metrics_kl_reverse(&all));
        near(f->kl_teacher_student.value, rt_metrics_kl_forward(&all));
        near(f->top1.value, rt_metrics_top1_agree(&all));
        const rt_interval alone =
            rt_bootstrap_figure(rt_metrics_kl_reverse, sums[m], ASKED, draws, 200, scratch);
        near(f->kl_student_teacher.lo, alone.lo);
        near(f->kl_student_teacher.hi, alone.hi);
        const rt_interval less =
            rt_bootstrap_difference(rt_metrics_kl_reverse, sums[m], sums[1], ASKED, draws, 200, scratch);
        near(f->difference.value, less.value);
        near(f->difference.lo, less.lo);
        near(f->difference.hi, less.hi);
    }
    assert_true(r.figures[1].difference.lo == 0 && r.figures[1].difference.hi == 0);
    assert_true(fabs(r.figures[3].kl_student_teacher.value) < 1e-6 &&
                r.figures[1].kl_student_teacher.value > 1e-3);
    json_t *json = rt_eval_own_json(&r);
    assert_int_equal(json_object_size(json_object_get(json, "models")), MODELS - 1);
    assert_int_equal(json_array_size(json_object_get(json, "differences")), MODELS - 2);
    json_decref(json);
    rt_eval_own_deinit(&r);
    close_scene(&s);
}

static bool stop(void *context, uint64_t done, uint64_t total)
{
    size_t *calls = context;
    assert_true(done <= total);
    return ++*calls < 3;
}

static void bad_input_is_one_sentence(void **state)
{
    (void)state;
    scene s;
    rt_error err = {0};
    rt_eval_own_result r;
    size_t calls = 0;
    open_scene(&s);
    const rt_eval_options options = {0}, stopping = {.progress = stop, .context = &calls};
    assert_int_equal(rt_eval_own(&r, s.models, 2, &s.text, NULL, 123, &options, &err),
                     RT_INVALID); /* no room */
    assert_non_null(strstr(err.text, "leaves room for an answer of 123 tokens"));
    memset(s.text.docs.mask, 1, s.text.docs.n_tokens); /* plain text: no prompt */
    assert_int_equal(rt_eval_own(&r, s.models, 2, &s.text, NULL, ANSWER, &options, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "prompt and completion"));
    memset(s.text.docs.mask, 0, s.text.docs.begins[1] - 1);
    assert_int_equal(rt_eval_own(&r, s.models, 2, &s.text, NULL, ANSWER, &options, &err),
                     RT_OK); /* one has */
    assert_true(r.n_prompts == 1 && isnan(r.figures[1].kl_student_teacher.lo));
    rt_eval_own_deinit(&r);
    close_scene(&s);
    open_scene(&s);
    assert_int_equal(rt_eval_own(&r, s.models, MODELS, &s.text, NULL, ANSWER, &stopping, &err), RT_STOPPED);
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_what_was_said),
        cmocka_unit_test(bad_input_is_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
