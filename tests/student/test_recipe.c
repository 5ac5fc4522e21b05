/* tests/student/test_recipe.c - the recipe's keys: losses from words, layers, steps, and what cannot work
 * together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "student/recipe.h"

typedef struct loaded {
    rt_settings *settings;
    rt_recipe recipe;
    rt_error err;
} loaded;

static rt_status load(loaded *l, const char *yaml)
{
    memset(l, 0, sizeof *l);
    if (rt_settings_open(&l->settings, rt_recipe_fields, rt_recipe_field_count, &l->err) != RT_OK ||
        rt_settings_read_text(l->settings, yaml, strlen(yaml), "test.yaml", &l->err) != RT_OK ||
        rt_settings_fill(l->settings, &l->recipe, &l->err) != RT_OK)
        return l->err.status;
    return rt_recipe_check(&l->recipe, &l->err);
}

static rt_status loss_of(rt_loss_mix *mix, const char *a, const char *b, rt_error *err)
{
    const char *items[] = {a, b};
    const rt_strings terms = {items, b ? 2 : 1};
    rt_objective objective;
    const rt_status status = rt_recipe_loss(&objective, &terms, false, 100, err);
    *mix = objective.mix;
    return status;
}

static rt_status objective_of(rt_objective *out, const char *term, bool kept, rt_error *err)
{
    const rt_strings terms = {&term, 1};
    return rt_recipe_loss(out, &terms, kept, 100, err);
}

static void numbers_move_from_a_to_b(void **state)
{
    (void)state;
    rt_objective o;
    rt_error err = {0};
    assert_int_equal(
        objective_of(&o, "1..0.5 fkl temperature=4..1 tau2=yes shape=cosine over=0.5", false, &err), RT_OK);
    assert_int_equal(o.course.n_ramps, 2);
    assert_true(o.course.ramps[0].of == RT_RAMP_WEIGHT && o.course.ramps[0].to == 0.5);
    assert_true(o.course.ramps[1].of == RT_RAMP_TAU && o.course.ramps[1].from == 4 &&
                o.course.ramps[1].cosine);
    assert_true(o.course.ramps[0].over == 0.5 && o.mix.terms[0].spec.tau == 4);
    assert_int_equal(objective_of(&o, "taid", false, &err), RT_OK);
    assert_true(o.course.n_ramps == 1 && o.course.ramps[0].from == 0.4 && o.course.ramps[0].to == 1);
    assert_int_equal(objective_of(&o, "taid adaptive=yes t=0.2..0.9", false, &err), RT_OK);
    assert_true(o.course.adaptive && o.course.n_ramps == 0 && o.course.taid.t == 0.2 &&
                o.course.taid.t_end == 0.9);
    static const char *const bad[][2] = {{"fkl temperature=1..-1", "tau"},
                                         {"jsd beta=0..2", "beta"},
                                         {"fkl adaptive=yes", "only taid"},
                                         {"fkl over=0", "over=0"},
                                         {"fkl tail=bucket", "this teacher gives all ids"},
                                         {"rskd", "only a store holds"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(objective_of(&o, bad[i][0], false, &err), RT_INVALID);
        assert_non_null(strstr(err.text, bad[i][1]));
    }
}

static void a_store_as_teacher_gives_terms_a_tail(void **state)
{
    (void)state;
    rt_objective o;
    rt_error err = {0};
    assert_int_equal(objective_of(&o, "fkl", true, &err), RT_OK);
    assert_int_equal(o.mix.terms[0].spec.tail, RT_TAIL_BUCKET);
    assert_int_equal(objective_of(&o, "fkl tail=renorm temperature=2", true, &err), RT_OK);
    assert_int_equal(objective_of(&o, "rskd self=yes", true, &err), RT_OK);
    assert_true(o.mix.terms[0].spec.self_normalised && o.mix.terms[0].spec.tail == RT_TAIL_NONE);
    assert_int_equal(objective_of(&o, "taid", true, &err), RT_INVALID);
    assert_int_equal(objective_of(&o, "rkl tail=renorm", true, &err), RT_INVALID);
}

static void a_term_has_weight_one_unless_it_says_other(void **state)
{
    (void)state;
    rt_loss_mix mix;
    rt_error err = {0};
    assert_int_equal(loss_of(&mix, "fkl", NULL, &err), RT_OK);
    assert_int_equal(mix.n_terms, 1);
    assert_true(mix.terms[0].weight == 1);
    assert_int_equal(mix.terms[0].spec.kind, RT_LOSS_FKL);
    assert_int_equal(
        loss_of(&mix, "0.8 jsd beta=0.25 temperature=2 tau2=yes", "0.2 ce label_smoothing=0.1", &err), RT_OK);
    assert_true(mix.terms[0].weight == 0.8 && mix.terms[0].spec.beta == 0.25 && mix.terms[0].spec.tau == 2);
    assert_true(mix.terms[0].spec.tau2 && !mix.terms[1].spec.tau2);
    assert_true(mix.terms[1].weight == 0.2 && mix.terms[1].spec.label_smoothing == 0.1);
}

static void a_term_that_is_not_understood_is_named(void **state)
{
    (void)state;
    rt_loss_mix mix;
    rt_error err = {0};
    static const char *const bad[][2] = {
        {"klx", "'klx'"},         {"0.5", "names no kind"},        {"", "names no kind"},
        {"fkl beta=x", "beta=x"}, {"fkl colour=1", "colour=1"},    {"fkl rkl", "'rkl'"},
        {"jsd beta=2", "beta"},   {"fkl tau2=maybe", "tau2=maybe"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(loss_of(&mix, bad[i][0], NULL, &err), RT_INVALID);
        assert_non_null(strstr(err.text, bad[i][1]));
    }
}

static void layers_are_spread_evenly_and_keep_both_ends(void **state)
{
    (void)state;
    loaded l;
    size_t map[RT_LAYERS_MAX], n;
    assert_int_equal(load(&l, "teacher: {model: t}\ndata: {train: x}\nstudent: {n_layers: 10}\n"), RT_OK);
    assert_int_equal(rt_recipe_layers(map, &n, &l.recipe, 30, NULL, &l.err), RT_OK);
    static const size_t want[] = {0, 3, 6, 10, 13, 16, 19, 23, 26, 29};
    assert_int_equal(n, 10);
    assert_memory_equal(map, want, sizeof want);
    assert_int_equal(rt_recipe_layers(map, &n, &l.recipe, 9, NULL, &l.err),
                     RT_INVALID); /* more than there are */
    rt_settings_close(l.settings);
    assert_int_equal(load(&l, "teacher: {model: t}\ndata: {train: x}\nstudent: {layers: [0, 7, 30]}\n"),
                     RT_OK);
    assert_int_equal(rt_recipe_layers(map, &n, &l.recipe, 30, NULL, &l.err), RT_INVALID);
    assert_non_null(strstr(l.err.text, "30"));
    rt_settings_close(l.settings);
}

static void what_cannot_work_together_is_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"data: {train: x}\n", "teacher.model"},
        {"teacher: {model: t}\ndata: {train: x}\nstudent: {init: random}\n", "student.model"},
        {"teacher: {model: t}\ndata: {train: x}\nstudent: {model: y}\n", "student.init"},
        {"teacher: {model: t}\ndata: {train: x}\nstudent: {init: random, model: y, n_layers: 3}\n",
         "n_layers"},
        {"teacher: {model: t}\ndata: {train: x, tokens_max: 4096}\n", "batch_tokens"},
        {"teacher: {model: t}\ndata: {train: x}\ntrain: {batch_tokens: 1000}\n", "multiple of 32"},
        {"teacher: {model: t}\ndata: {train: x}\noutput: {types: [Q9_9]}\n", "Q9_9"},
        {"teacher: {model: t}\ndata: {train: []}\n", "data.train"},
        {"teacher: {model: t}\ndata: {train: x}\nstudent: {n_layer: 3}\n", "n_layers"},
        {"teacher: {model: t}\ndata: {train: x}\ntrain: {lr: fast}\n", "lr"},
        {"teacher: {model: t}\n", "data.train"},
        {"teacher: {model: t, store: s}\ndata: {train: x}\n", "leave one of them out"},
        {"teacher: {model: t, store: s}\nfeatures: {hidden: mse}\n", "teacher's inside"},
        {"teacher: {model: t, store: s, accept: [x]}\n", "teacher.accept"},
        {"teacher: {model: t}\ndata: {train: x}\nfeatures: {layers: pairs, hidden: mse}\n", "features.pairs"},
        {"teacher: {model: t}\ndata: {train: x}\nfeatures: {relations: [w]}\n", "none of q, k, v"},
        {"teacher: {model: t}\ndata: {train: x}\nfeature: {hidden: mse}\n", "features"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        loaded l;
        assert_int_equal(load(&l, bad[i][0]), RT_INVALID);
        assert_non_null(strstr(l.err.text, bad[i][1]));
        rt_settings_close(l.settings);
    }
}

static void steps_follow_from_tokens(void **state)
{
    (void)state;
    loaded l;
    assert_int_equal(load(&l, "teacher: {model: t}\ndata: {train: x}\ntrain: {tokens: 100K, batch_tokens: "
                              "1024, micro_batches: 2}\n"),
                     RT_OK);
    assert_int_equal(rt_recipe_steps(&l.recipe), 48);
    assert_int_equal(rt_recipe_schedule(&l.recipe).warmup, 2);
    rt_settings_close(l.settings);
    assert_int_equal(load(&l, "teacher: {model: t}\ndata: {train: x}\ntrain: {tokens: 5}\n"), RT_OK);
    assert_int_equal(rt_recipe_steps(&l.recipe), 1);
    rt_settings_close(l.settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_term_has_weight_one_unless_it_says_other),
        cmocka_unit_test(a_term_that_is_not_understood_is_named),
        cmocka_unit_test(numbers_move_from_a_to_b),
        cmocka_unit_test(a_store_as_teacher_gives_terms_a_tail),
        cmocka_unit_test(layers_are_spread_evenly_and_keep_both_ends),
        cmocka_unit_test(what_cannot_work_together_is_refused),
        cmocka_unit_test(steps_follow_from_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
