/* tests/model/test_chat_template.c - chat templates against what Jinja, set up as transformers does, gives;
 * damaged and hostile templates.  The cases are made by make_template_cases.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/chat_template.h"
#include "tokenizer_help.h"

static json_t *read_cases(void)
{
    json_error_t problem;
    json_t *cases = json_load_file(RT_TEST_SOURCE_DIR "/tests/model/template_cases.json", 0, &problem);
    if (!cases)
        fail_msg("line %d: %s", problem.line, problem.text);
    return cases;
}

static rt_status render(const char *source, const json_t *variables, rt_text *out, rt_error *err)
{
    rt_chat_template *chat = NULL;
    rt_text_append(out, "", 0);
    rt_status status = rt_chat_template_parse(&chat, source, err);
    if (status == RT_OK)
        status = rt_chat_template_render(chat, variables, out, err);
    rt_chat_template_free(chat);
    return status;
}

static void every_case_gives_what_jinja_gives(void **state)
{
    (void)state;
    json_t *file = read_cases(), *row;
    const json_t *variables = json_object_get(file, "variables");
    size_t index, wrong = 0;
    json_array_foreach(json_object_get(file, "cases"), index, row)
    {
        const char *source = json_string_value(json_array_get(row, 0)),
                   *want = json_string_value(json_array_get(row, 1));
        rt_error err = {0};
        rt_text got = {0};
        const rt_status status = render(source, variables, &got, &err);
        if (status != RT_OK || strcmp(got.data, want) != 0) {
            print_error("%s\n  gives %s\n  for   %s\n", source, status == RT_OK ? got.data : err.text, want);
            wrong++;
        }
        rt_text_deinit(&got);
    }
    assert_int_equal(wrong, 0);
    assert_true(index > 200);
    json_decref(file);
}

static void what_jinja_refuses_is_an_error_with_its_line(void **state)
{
    (void)state;
    json_t *file = read_cases(), *row;
    size_t index;
    json_array_foreach(json_object_get(file, "errors"), index, row)
    {
        rt_error err = {0};
        rt_text got = {0};
        if (render(json_string_value(row), json_object_get(file, "variables"), &got, &err) == RT_OK)
            fail_msg("%s gives %s", json_string_value(row), got.data);
        assert_non_null(strstr(err.text, "line "));
        rt_text_deinit(&got);
    }
    assert_true(index > 15);
    json_decref(file);
}

static void an_exception_of_the_template_keeps_its_words(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_text got = {0};
    json_t *none = json_object();
    assert_int_equal(render("a\n{{ raise_exception('roles must alternate') }}", none, &got, &err),
                     RT_INVALID);
    assert_non_null(strstr(err.text, "line 2"));
    assert_non_null(strstr(err.text, "roles must alternate"));
    assert_int_equal(render("{% include 'x' %}", none, &got, &err), RT_UNSUPPORTED);
    assert_non_null(strstr(err.text, "include"));
    json_decref(none);
    rt_text_deinit(&got);
}

static void hostile_templates_end(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ g() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s "
        "%}{% endfor %}",
        "{{ 'x' * 999999999999 }}",
        "{{ range(99999999999) }}",
        "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' * 99999 "
        "}}{% endfor %}",
    };
    json_t *none = json_object();
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        rt_error err = {0};
        rt_text got = {.size_max = (size_t)64 << 20};
        assert_int_not_equal(render(sources[i], none, &got, &err), RT_OK);
        assert_true(err.text[0] != '\0');
        rt_text_deinit(&got);
    }
    rt_error err = {0};
    rt_text deep = {0}, got = {0};
    for (int i = 0; i < 5000; i++)
        rt_text_puts(&deep, i ? "(" : "{{ ");
    for (int i = 0; i < 5000; i++)
        rt_text_puts(&deep, i ? ")" : "1");
    rt_text_puts(&deep, " }}");
    assert_int_not_equal(render(deep.data, none, &got, &err), RT_OK);
    assert_non_null(strstr(err.text, "deep"));
    rt_text_deinit(&deep);
    rt_text_deinit(&got);
    json_decref(none);
}

static void extreme_numbers_do_no_harm(void **state)
{
    (void)state;
    static const char *const sources[] = {"{{ (-9223372036854775807 - 1) | abs }}",
                                          "{{ (m - 1) is divisibleby(-1) }}",
                                          "{{ m - 5 }}{{ m * m }}",
                                          "{{ range(0, 5, 9223372036854775807) | list }}",
                                          "{{ 'abc'[m:] }}{{ 'abc'[::m] }}{{ 'abc'[m] }}",
                                          "{{ m // -1 }}{{ m % -1 }}",
                                          "{{ 1e308 * 1e308 }}",
                                          "{{ '9' | int(m) }}{{ 1e300 | int }}"};
    json_t *variables = json_pack("{s:I}", "m", (json_int_t)(-INT64_MAX - 1));
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        rt_error err = {0};
        rt_text got = {0};
        (void)render(sources[i], variables, &got, &err);
        rt_text_deinit(&got);
    }
    json_decref(variables);
}

/* Every truncation and every changed bit of a template with all constructs in it: an error or a text. */
static void damaged_templates_do_no_harm(void **state)
{
    (void)state;
    static const char source[] =
        "{% macro m(a, b=1) %}{{ a|upper ~ b }}{% endmacro %}{%- set ns = namespace(n=0) -%}\n"
        "{% for k, v in {'x': [1, 2.5]}.items() if v %}{{ loop.index }}{{ m(k)[::-1] }}{% set ns.n = 1 %}{% "
        "else %}-{% endfor %}"
        "{% if 'a' in 'abc' and not ns.n is none %}{{ ['\\u00e9']|tojson(indent=2) }}{% elif 1 < 2 %}{# c "
        "#}{% endif %}";
    json_t *none = json_object();
    for (size_t i = 0; i < (sizeof source - 1) * 9; i++) {
        char copy[sizeof source];
        rt_error err = {0};
        rt_text got = {0};
        memcpy(copy, source, sizeof source);
        if (i < sizeof source - 1)
            copy[i] = '\0';
        else
            copy[(i - sizeof source + 1) / 8] =
                (char)(copy[(i - sizeof source + 1) / 8] ^ 1 << (i - sizeof source + 1) % 8);
        if (render(copy, none, &got, &err) != RT_OK)
            assert_true(err.text[0] != '\0');
        rt_text_deinit(&got);
    }
    json_decref(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_gives_what_jinja_gives),
        cmocka_unit_test(what_jinja_refuses_is_an_error_with_its_line),
        cmocka_unit_test(an_exception_of_the_template_keeps_its_words),
        cmocka_unit_test(hostile_templates_end),
        cmocka_unit_test(extreme_numbers_do_no_harm),
        cmocka_unit_test(damaged_templates_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
