/* tests/base/test_yaml.c - the tree knows its lines; what recipes do not need is refused in one sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"
#include "base/yaml.h"

static rt_yaml *parsed(const char *text)
{
    rt_yaml *yaml = NULL;
    rt_error err = {0};
    if (rt_yaml_parse(&yaml, text, strlen(text), "r.yaml", &err) != RT_OK)
        fail_msg("%s", err.text);
    return yaml;
}

static void a_document_keeps_values_order_lines_and_columns(void **state)
{
    (void)state;
    rt_yaml *yaml = parsed("a: 1\n\nb:\n  - x\n  - 'y z'\n  -\nc: {d: \"\", e: [1, 2]}\n");
    const rt_yaml_node *root = rt_yaml_root(yaml);
    assert_int_equal(root->kind, RT_YAML_MAPPING);
    assert_int_equal(root->count, 3);
    const rt_yaml_node *a = rt_yaml_find(root, "a"), *b = rt_yaml_find(root, "b"),
                       *c = rt_yaml_find(root, "c");
    assert_string_equal(a->text, "1");
    assert_false(a->quoted);
    assert_int_equal(a->line, 1);
    assert_int_equal(b->line, 3);
    assert_int_equal(b->count, 3);
    assert_string_equal(b->first->next->text, "y z");
    assert_true(b->first->next->quoted);
    assert_int_equal(b->first->next->line, 5);
    assert_int_equal(b->first->next->column, 5);
    assert_string_equal(b->first->next->next->text, "");
    assert_int_equal(rt_yaml_find(c, "e")->count, 2);
    assert_true(rt_yaml_find(c, "d")->quoted);
    assert_null(rt_yaml_find(root, "d"));
    rt_yaml_free(yaml);
}

static void an_empty_document_is_an_empty_mapping(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\n\n", "# only a comment\n"};
    for (size_t i = 0; i < 3; i++) {
        rt_yaml *yaml = parsed(texts[i]);
        assert_int_equal(rt_yaml_root(yaml)->kind, RT_YAML_MAPPING);
        assert_int_equal(rt_yaml_root(yaml)->count, 0);
        rt_yaml_free(yaml);
    }
}

static void what_is_not_wanted_is_refused_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", "r.yaml:3: the key 'a' stands here and in line 1"},
        {"a: &x 1\n", "r.yaml:1: anchors"},
        {"a: 1\nb: *x\n", "r.yaml:2: aliases"},
        {"a: !!str 1\n", "r.yaml:1: tags"},
        {"a: !x [1]\n", "r.yaml:1: anchors ('&') and tags"},
        {"<<: {a: 1}\n", "r.yaml:1: merge keys"},
        {"[a]: 1\n", "r.yaml:1: a key must be a plain word"},
        {"a: 1\n---\nb: 1\n", "r.yaml:2: a second document"},
        {"a: [1\nb: 2\n", "is not valid YAML"},
        {"a: \"\\0\"\n", "NUL"},
        {"a: \xff\n", "UTF-8"},
        {"a: b: c\n", "r.yaml:1: is not valid YAML"},
        {"\ta: 1\n", "r.yaml:1: is not valid YAML"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_yaml *yaml = NULL;
        rt_error err = {0};
        assert_int_equal(rt_yaml_parse(&yaml, cases[i].text, strlen(cases[i].text), "r.yaml", &err),
                         RT_INVALID);
        assert_null(yaml);
        if (!strstr(err.text, cases[i].words))
            fail_msg("case %zu: '%s' lacks '%s'", i, err.text, cases[i].words);
    }
}

static void depth_size_and_number_of_values_are_bounded(void **state)
{
    (void)state;
    rt_yaml *yaml = NULL;
    rt_error err = {0};
    char deep[2 * RT_YAML_DEPTH_MAX + 2];
    memset(deep, '[', sizeof deep);
    assert_int_equal(rt_yaml_parse(&yaml, deep, RT_YAML_DEPTH_MAX + 1, "r", &err), RT_INVALID);
    assert_non_null(strstr(err.text, "nested too deep"));
    memset(deep, '[', RT_YAML_DEPTH_MAX);
    memset(deep + RT_YAML_DEPTH_MAX, ']', RT_YAML_DEPTH_MAX);
    assert_int_equal(rt_yaml_parse(&yaml, deep, 2 * RT_YAML_DEPTH_MAX, "r", &err), RT_OK);
    rt_yaml_free(yaml);

    const size_t size = 3 * ((size_t)RT_YAML_NODES_MAX + 1);
    char *many = malloc(size);
    for (size_t i = 0; i < size; i++)
        many[i] = "- \n"[i % 3];
    assert_int_equal(rt_yaml_parse(&yaml, many, size, "r", &err), RT_INVALID);
    assert_non_null(strstr(err.text, "too many values"));
    assert_int_equal(rt_yaml_parse(&yaml, many, 3 * ((size_t)RT_YAML_NODES_MAX - 1), "r", &err), RT_OK);
    rt_yaml_free(yaml);
    free(many);

    char *large = calloc(1, RT_YAML_BYTES_MAX + 1);
    memset(large, 'a', RT_YAML_BYTES_MAX + 1);
    assert_int_equal(rt_yaml_parse(&yaml, large, RT_YAML_BYTES_MAX + 1, "r", &err), RT_INVALID);
    assert_int_equal(rt_yaml_parse(&yaml, large, RT_YAML_BYTES_MAX, "r", &err), RT_OK);
    assert_int_equal(strlen(rt_yaml_root(yaml)->text), RT_YAML_BYTES_MAX);
    rt_yaml_free(yaml);
    free(large);
}

static void every_prefix_of_a_document_ends_in_a_tree_or_a_sentence(void **state)
{
    (void)state;
    static const char text[] =
        "model: {a: [1, 2, \"x\\n\"], b: 'y'}\nlist:\n  - a: 1\n    b: |\n      long\n  - {}\n";
    for (size_t n = 0; n < sizeof text; n++) {
        rt_yaml *yaml = NULL;
        rt_error err = {0};
        if (rt_yaml_parse(&yaml, text, n, "r.yaml", &err) != RT_OK)
            assert_true(err.text[0] != '\0');
        rt_yaml_free(yaml);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_keeps_values_order_lines_and_columns),
        cmocka_unit_test(an_empty_document_is_an_empty_mapping),
        cmocka_unit_test(what_is_not_wanted_is_refused_with_its_line),
        cmocka_unit_test(depth_size_and_number_of_values_are_bounded),
        cmocka_unit_test(every_prefix_of_a_document_ends_in_a_tree_or_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
