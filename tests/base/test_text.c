/* tests/base/test_text.c - UTF-8 by the table of the standard, growing text, numbers, the nearest word. */
#include <stdbool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"

static void well_formed_utf8_decodes_and_encodes_back(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code <= 0xDFFF)
            continue;
        char bytes[4];
        size_t length = 0;
        const size_t n = rt_utf8_encode(code, bytes);
        assert_int_equal(n, code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4);
        assert_int_equal(rt_utf8_decode(bytes, n, &length), code);
        assert_int_equal(length, n);
        assert_true(rt_utf8_valid(bytes, n));
        if (n > 1) /* cut short it is not valid, and the whole rest is one ill-formed part */
            assert_false(rt_utf8_valid(bytes, n - 1));
    }
    char bytes[4];
    assert_int_equal(rt_utf8_encode(0xD800, bytes), 3);
    assert_memory_equal(bytes, "\xEF\xBF\xBD", 3);
    assert_int_equal(rt_utf8_encode(0x110000, bytes), 3);
}

/* Table 3-7 of the Unicode standard and the examples of its section on maximal subparts. */
static void ill_formed_utf8_gives_the_replacement_for_each_maximal_part(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size, length;
    } cases[] = {
        {"\x80", 1, 1},     /* a lone continuation */
        {"\xC0\x80", 2, 1}, /* overlong NUL */
        {"\xC1\xBF", 2, 1},
        {"\xE0\x80\x80", 3, 1}, /* overlong */
        {"\xE0\x9F\xBF", 3, 1},
        {"\xED\xA0\x80", 3, 1}, /* a surrogate */
        {"\xF0\x8F\xBF\xBF", 4, 1},
        {"\xF4\x90\x80\x80", 4, 1}, /* past U+10FFFF */
        {"\xF5\x80\x80\x80", 4, 1},
        {"\xFF", 1, 1},
        {"\xC2", 1, 1},
        {"\xC2\x41", 2, 1},
        {"\xE1\x80", 2, 2},
        {"\xE1\x80\xE2", 3, 2},
        {"\xF1\x80\x80", 3, 3},
        {"\xF1\x80\x80\x41", 4, 3},
        {"\xF1\x80\xE1", 3, 2},
        {"\xF0\x90\x41", 3, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t length = 0;
        assert_int_equal(rt_utf8_decode(cases[i].bytes, cases[i].size, &length), 0xFFFD);
        assert_int_equal(length, cases[i].length);
        assert_false(rt_utf8_valid(cases[i].bytes, cases[i].size));
    }
    assert_true(rt_utf8_valid("\xEF\xBF\xBD", 3)); /* the replacement character itself */
    assert_true(rt_utf8_valid("", 0));
    assert_true(rt_utf8_valid("a\0b", 3));
}

static void text_grows_and_stays_terminated(void **state)
{
    (void)state;
    rt_text text = {0};
    for (int i = 0; i < 1000; i++)
        rt_text_printf(&text, "%d,", i);
    rt_text_append(&text, NULL, 0);
    rt_text_puts(&text, "end");
    assert_false(text.failed);
    assert_int_equal(text.size, 3893);
    assert_string_equal(text.data + text.size - 7, "999,end");
    rt_text_clear(&text);
    assert_string_equal(text.data, "");
    rt_text_deinit(&text);
    assert_null(text.data);
}

static void text_past_its_maximum_fails_once_and_for_all(void **state)
{
    (void)state;
    rt_text text = {.size_max = 8};
    rt_text_puts(&text, "1234567"); /* with the NUL: eight bytes */
    assert_false(text.failed);
    rt_text_puts(&text, "8");
    assert_true(text.failed);
    assert_string_equal(text.data, "1234567");
    rt_text_clear(&text);
    rt_text_printf(&text, "%s", "123456789");
    assert_true(text.failed);
    rt_text_deinit(&text);
    rt_text huge = {0};
    rt_text_append(&huge, "x", 1);
    rt_text_append(&huge, "", SIZE_MAX);
    assert_true(huge.failed);
    rt_text_deinit(&huge);
}

static void numbers_are_read_whole_or_not_at_all(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t value;
    } counts[] = {{"0", 0},
                  {"17", 17},
                  {"2K", 2000},
                  {"2k", 2000},
                  {"3M", 3000000},
                  {"1G", 1000000000},
                  {"4Ki", 4096},
                  {"1Mi", 1 << 20},
                  {"1Gi", 1u << 30},
                  {"007", 7},
                  {"18446744073709551615", SIZE_MAX}};
    size_t count;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        assert_true(rt_parse_count(&count, counts[i].text));
        assert_int_equal(count, counts[i].value);
    }
    static const char *const no_counts[] = {"",
                                            "-1",
                                            "+1",
                                            " 1",
                                            "1 ",
                                            "1.5",
                                            "K",
                                            "1KB",
                                            "0x10",
                                            "1e3",
                                            "18446744073709551616",
                                            "18446744073709551615K",
                                            "1T"};
    for (size_t i = 0; i < sizeof no_counts / sizeof no_counts[0]; i++)
        assert_false(rt_parse_count(&count, no_counts[i]));
    double real;
    assert_true(rt_parse_real(&real, "3e-4") && real == 3e-4);
    assert_true(rt_parse_real(&real, "-2") && real == -2.0);
    static const char *const no_reals[] = {"", "x", "1x", "inf", "nan", "1e999", "1 ", "."};
    for (size_t i = 0; i < sizeof no_reals / sizeof no_reals[0]; i++)
        assert_false(rt_parse_real(&real, no_reals[i]));
}

static void the_nearest_word_is_near_or_none(void **state)
{
    (void)state;
    static const char *const names[] = {"distill", "doctor", "eval", "export"};
    assert_string_equal(rt_nearest_word("distil", names, 4), "distill");
    assert_string_equal(rt_nearest_word("exprot", names, 4), "export");
    assert_string_equal(rt_nearest_word("doctor", names, 4), "doctor");
    assert_null(rt_nearest_word("zzzzzz", names, 4));
    assert_null(rt_nearest_word("", names, 4));
    assert_null(rt_nearest_word("eval", names, 0));
    char long_word[500];
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = '\0';
    assert_null(rt_nearest_word(long_word, names, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_utf8_decodes_and_encodes_back),
        cmocka_unit_test(ill_formed_utf8_gives_the_replacement_for_each_maximal_part),
        cmocka_unit_test(text_grows_and_stays_terminated),
        cmocka_unit_test(text_past_its_maximum_fails_once_and_for_all),
        cmocka_unit_test(numbers_are_read_whole_or_not_at_all),
        cmocka_unit_test(the_nearest_word_is_near_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
