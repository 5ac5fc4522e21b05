/* tests/base/test_schema.c - a recipe fills a struct; what is wrong in it is named with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/schema.h"

typedef struct recipe {
    const char *teacher, *note;
    size_t steps, seed;
    double rate;
    bool resume;
    int kind;
    rt_strings prompts;
    rt_counts layers;
} recipe;

static const rt_field fields[] = {
    {"teacher", RT_FIELD_STRING, offsetof(recipe, teacher), NULL, "the large model", NULL, 0, 0},
    {"note", RT_FIELD_STRING, offsetof(recipe, note), "''", "free words", NULL, 0, 0},
    {"prompts", RT_FIELD_STRINGS, offsetof(recipe, prompts), "[]", "files of prompts", NULL, 0, 0},
    {"student.layers", RT_FIELD_COUNTS, offsetof(recipe, layers), "[0, 1]", "layers to keep", NULL, 0, 255},
    {"train.steps", RT_FIELD_COUNT, offsetof(recipe, steps), "1K", "optimiser steps", NULL, 1, 1e9},
    {"train.seed", RT_FIELD_COUNT, offsetof(recipe, seed), "0", "of everything random", NULL, 0, 0},
    {"train.optimiser.kind", RT_FIELD_CHOICE, offsetof(recipe, kind), "adamw", "which", "adamw|sgd", 0, 0},
    {"train.optimiser.rate", RT_FIELD_REAL, offsetof(recipe, rate), "3e-4", "peak learning rate", NULL, 0, 1},
    {"train.resume", RT_FIELD_BOOL, offsetof(recipe, resume), "true", "go on where it stopped", NULL, 0, 0},
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static rt_settings *opened(void)
{
    rt_settings *settings = NULL;
    rt_error err = {0};
    assert_int_equal(rt_settings_open(&settings, fields, N_FIELDS, &err), RT_OK);
    return settings;
}

/* Reads a text and words; the first failure's sentence, or "" with the struct filled. */
static const char *outcome(rt_settings *settings, const char *text, const char *const *words, size_t n_words,
                           recipe *out)
{
    static rt_error err;
    err = (rt_error){0};
    rt_status status = rt_settings_read_text(settings, text, strlen(text), "r.yaml", &err);
    for (size_t i = 0; i < n_words && status == RT_OK; i++)
        status = rt_settings_override(settings, words[i], &err);
    if (status == RT_OK)
        status = rt_settings_fill(settings, out, &err);
    if (status != RT_OK)
        assert_int_equal(status, RT_INVALID);
    return err.text;
}

static void defaults_file_and_words_fill_the_struct_the_later_wins(void **state)
{
    (void)state;
    rt_settings *settings = opened();
    recipe r = {0};
    static const char *const words[] = {"train.optimiser.rate=0.5", "student.layers=[3, 5]", "note='a: b'"};
    assert_string_equal(
        outcome(settings,
                "teacher: big.gguf\ntrain:\n  steps: 2K\n  optimiser: {kind: sgd, rate: 1e-3}\n"
                "prompts: one.jsonl\n",
                words, 3, &r),
        "");
    assert_string_equal(r.teacher, "big.gguf");
    assert_string_equal(r.note, "a: b");
    assert_int_equal(r.steps, 2000);
    assert_int_equal(r.seed, 0);
    assert_int_equal(r.kind, 1);
    assert_true(r.rate == 0.5);
    assert_true(r.resume);
    assert_int_equal(r.prompts.count, 1);
    assert_string_equal(r.prompts.items[0], "one.jsonl");
    assert_int_equal(r.layers.count, 2);
    assert_int_equal(r.layers.items[1], 5);
    rt_settings_close(settings);
}

static void a_wrong_recipe_is_answered_with_place_key_and_what_was_wanted(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word, *sentence;
    } cases[] = {
        {"teacher: a\ntraim:\n  steps: 1\n", NULL, "r.yaml:2: unknown key 'traim' (did you mean 'train'?)"},
        {"teacher: a\ntrain:\n  stops: 1\n", NULL,
         "r.yaml:3: unknown key 'train.stops' (did you mean 'train.steps'?)"},
        {"teacher: a\nqqqqqq: 1\n", NULL, "r.yaml:2: unknown key 'qqqqqq'"},
        {"note: x\n", NULL, "the recipe lacks 'teacher' (the large model)"},
        {"teacher:\n", NULL, "r.yaml:1: teacher: '' is not a text (write '' for an empty one)"},
        {"teacher: [a]\n", NULL, "r.yaml:1: teacher: a list is not a text"},
        {"teacher: a\ntrain: {steps: few}\n", NULL,
         "r.yaml:2: train.steps: 'few' is not a whole number such as 512, 2K or 1M"},
        {"teacher: a\ntrain: {steps: '5'}\n", NULL,
         "r.yaml:2: train.steps: '5' is not a whole number such as 512, 2K or 1M"},
        {"teacher: a\ntrain: {steps: 0}\n", NULL,
         "r.yaml:2: train.steps: '0' is not in the range 1 to 1e+09"},
        {"teacher: a\ntrain:\n  optimiser:\n    rate: inf\n", NULL,
         "r.yaml:4: train.optimiser.rate: 'inf' is not a number such as 0.7 or 3e-4"},
        {"teacher: a\ntrain: {optimiser: {kind: adam}}\n", NULL,
         "r.yaml:2: train.optimiser.kind: 'adam' is not one of adamw|sgd"},
        {"teacher: a\ntrain: {resume: perhaps}\n", NULL,
         "r.yaml:2: train.resume: 'perhaps' is not true or false"},
        {"teacher: a\nstudent:\n  layers:\n  - 1\n  - two\n", NULL,
         "r.yaml:5: student.layers: 'two' is not a whole number such as 512, 2K or 1M"},
        {"teacher: a\ntrain: 5\n", NULL, "r.yaml:2: 'train' is a section: its keys go below it, indented"},
        {"- teacher\n", NULL, "r.yaml:1: a recipe is 'key: value' lines, this is something else"},
        {"teacher: a\n", "train.steps=no",
         "train.steps=no: train.steps: 'no' is not a whole number such as 512, 2K or 1M"},
        {"teacher: a\n", "train.step=5",
         "train.step=5: unknown key 'train.step' (did you mean 'train.steps'?)"},
        {"teacher: a\n", "trian.steps=5", "trian.steps=5: unknown key 'trian' (did you mean 'train'?)"},
        {"teacher: a\n", "steps", "'steps' is no key=value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_settings *settings = opened();
        recipe r = {0};
        assert_string_equal(outcome(settings, cases[i].text, &cases[i].word, cases[i].word ? 1 : 0, &r),
                            cases[i].sentence);
        rt_settings_close(settings);
    }
}

static void the_printed_recipe_reads_back_as_the_same_settings(void **state)
{
    (void)state;
    rt_settings *settings = opened();
    recipe r = {0}, again = {0};
    static const char *const words[] = {"train.seed=7"};
    assert_string_equal(outcome(settings,
                                "teacher: \"a # \\\"b\\\" \\\\ \\t\\x01 é\"\nprompts: [a b, '-', 'null']\n",
                                words, 1, &r),
                        "");
    rt_text text = {0};
    rt_settings_print(settings, &text);
    assert_false(text.failed);
    assert_non_null(strstr(text.data, "train:\n  steps: 1K  # optimiser steps [default]\n"));
    assert_non_null(strstr(text.data, "  seed: 7  # of everything random [command line]\n"));
    assert_non_null(strstr(text.data, "  optimiser:\n    kind: adamw  # which (adamw|sgd) [default]\n"));
    rt_settings *second = opened();
    assert_string_equal(outcome(second, text.data, NULL, 0, &again), "");
    assert_string_equal(again.teacher, r.teacher);
    assert_int_equal(again.prompts.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(again.prompts.items[i], r.prompts.items[i]);
    assert_int_equal(again.seed, 7);
    assert_true(again.rate == r.rate);
    rt_text_deinit(&text);
    rt_settings_close(second);
    rt_settings_close(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_file_and_words_fill_the_struct_the_later_wins),
        cmocka_unit_test(a_wrong_recipe_is_answered_with_place_key_and_what_was_wanted),
        cmocka_unit_test(the_printed_recipe_reads_back_as_the_same_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
