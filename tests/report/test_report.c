/* tests/report/test_report.c - the page escapes what it is given, leaves out what is missing, and stays
 * small. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "report/html.h"
#include "report/page.h"
#include "report/report.h"
#include "report/svg.h"

/* A directory of its own for each test. */
typedef struct place {
    char dir[64];
} place;

static int place_make(void **state)
{
    static place here;
    (void)snprintf(here.dir, sizeof here.dir, "/tmp/retort-report-XXXXXX");
    *state = &here;
    return mkdtemp(here.dir) ? 0 : -1;
}

static int place_remove(void **state)
{
    static const char *const names[] = {"run.json",    "eval.json",    "samples.json",     "log.jsonl",
                                        "report.html", "ce/log.jsonl", "student/log.jsonl"};
    const place *here = *state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = rt_path_join(here->dir, names[i]);
        (void)unlink(path);
        free(path);
    }
    char *ce = rt_path_join(here->dir, "ce"), *student = rt_path_join(here->dir, "student");
    (void)rmdir(ce);
    (void)rmdir(student);
    free(ce);
    free(student);
    return rmdir(here->dir);
}

static void put(const place *here, const char *name, const char *text)
{
    rt_error err = {0};
    char *path = rt_path_join(here->dir, name);
    assert_int_equal(rt_file_write(path, text, strlen(text), &err), RT_OK);
    free(path);
}

static void put_subdir(const place *here, const char *name)
{
    rt_error err = {0};
    char *path = rt_path_join(here->dir, name);
    assert_int_equal(rt_dir_make(path, &err), RT_OK);
    free(path);
}

/* The page in malloc'd memory; the write must succeed. */
static char *write_page(const place *here, rt_report_parts *parts)
{
    rt_error err = {0};
    char *path = rt_path_join(here->dir, "report.html"), *page = NULL;
    size_t size = 0;
    if (rt_report_write(here->dir, path, parts, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(rt_file_read(&page, &size, path, (size_t)1 << 30, &err), RT_OK);
    assert_int_equal(size, parts->bytes);
    assert_int_equal(size, strlen(page));
    assert_true(rt_utf8_valid(page, size));
    free(path);
    return page;
}

static rt_status fails(const place *here, rt_error *err)
{
    rt_report_parts parts;
    char *path = rt_path_join(here->dir, "report.html");
    const rt_status status = rt_report_write(here->dir, path, &parts, err);
    assert_false(rt_path_exists(path));
    free(path);
    return status;
}

static size_t count_of(const char *page, const char *what)
{
    size_t n = 0;
    for (const char *at = strstr(page, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

static void escapes(const char *in, const char *expected)
{
    rt_text out = {0};
    rt_html_text(&out, in, strlen(in), 1000);
    assert_false(out.failed);
    assert_string_equal(out.data ? out.data : "", expected);
    rt_text_deinit(&out);
}

static void text_is_escaped_for_content_and_attributes(void **state)
{
    (void)state;
    escapes("<b a='1' c=\"2\">&amp;", "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;amp;");
    escapes("caf\xC3\xA9\t\n\xF0\x9F\x90\x8C", "caf\xC3\xA9\t\n\xF0\x9F\x90\x8C");
    escapes("a\x01\x1B\x7F\xC2\x85z", "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");
    escapes("a\xE2\x80\xAEz\xE2\x81\xA6", "a\xEF\xBF\xBDz\xEF\xBF\xBD"); /* turns the line around */
    escapes("\xFF\xC0\xAF<", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD&lt;");
}

static void long_text_is_cut_between_characters(void **state)
{
    (void)state;
    rt_text out = {0};
    rt_html_text(&out, "ab\xC3\xA9\xC3\xA9", 6, 5);
    assert_string_equal(out.data, "ab\xC3\xA9\xE2\x80\xA6");
    rt_text_deinit(&out);
}

static void numbers_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        double value;
        rt_number kind;
        const char *text;
    } cases[] = {
        {1.7444, RT_NUMBER_PLAIN, "1.74"},
        {12.14, RT_NUMBER_PLAIN, "12.1"},
        {1234.4, RT_NUMBER_PLAIN, "1,234"},
        {0.03456, RT_NUMBER_PLAIN, "0.035"},
        {1512340, RT_NUMBER_PLAIN, "1.51\xC2\xA0M"},
        {-0.0001, RT_NUMBER_PLAIN, "0.000"},
        {(double)NAN, RT_NUMBER_PLAIN, "\xE2\x80\x93"},
        {(double)INFINITY, RT_NUMBER_BYTES, "\xE2\x80\x93"},
        {98362432, RT_NUMBER_BYTES, "98.4\xC2\xA0MB"},
        {204800, RT_NUMBER_INTEGER, "204,800"},
        {1234567, RT_NUMBER_INTEGER, "1,234,567"},
        {-1234, RT_NUMBER_INTEGER, "-1,234"},
        {1e300, RT_NUMBER_INTEGER, "1.00e+300"},
        {0.4432, RT_NUMBER_SHARE, "44.3%"},
        {640.2, RT_NUMBER_SECONDS, "10\xC2\xA0min 40\xC2\xA0s"},
        {7384, RT_NUMBER_SECONDS, "2\xC2\xA0h 3\xC2\xA0min"},
        {0.0006, RT_NUMBER_DIGITS, "0.0006"},
        {63700416, RT_NUMBER_COUNT, "63.7\xC2\xA0M"},
        {417e9, RT_NUMBER_FLOPS, "417\xC2\xA0GFLOP/s"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[RT_NUMBER_SIZE];
        rt_number_format(text, cases[i].value, cases[i].kind);
        assert_string_equal(text, cases[i].text);
    }
}

static void ticks_are_nice_and_cover_the_data(void **state)
{
    (void)state;
    static const double ranges[][2] = {
        {0, 12.4},  {0, 1},          {0.31, 0.47},       {-3, 7},          {5, 5}, {0, 0}, {1e-12, 3e-12},
        {0, 1e300}, {-1e308, 1e308}, {1e18, 1e18 + 512}, {(double)NAN, 1}, {2, -2}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        for (size_t wanted = 2; wanted < 10; wanted++) {
            const rt_ticks ticks = rt_ticks_cover(ranges[i][0], ranges[i][1], wanted);
            assert_in_range(ticks.count, 2, RT_TICKS_MAX);
            assert_true(ticks.step > 0 && isfinite(ticks.step));
            if (ranges[i][0] <= ranges[i][1]) {
                assert_true(ticks.values[0] <= ranges[i][0] + 1e-6 * ticks.step);
                assert_true(ticks.values[ticks.count - 1] >= ranges[i][1] - 1e-6 * ticks.step);
            }
            const double digits = ticks.step / pow(10, floor(log10(ticks.step * (1 + 1e-9))));
            assert_true(fabs(digits - 1) < 1e-6 || fabs(digits - 2) < 1e-6 || fabs(digits - 2.5) < 1e-6 ||
                        fabs(digits - 5) < 1e-6);
        }
}

static void labels_at_line_ends_are_moved_apart(void **state)
{
    (void)state;
    double y[4] = {100, 101, 99, 300};
    rt_spread(y, 4, 16, 10, 200);
    for (size_t i = 0; i < 4; i++) {
        assert_true(y[i] >= 10 - 1e-9 && y[i] <= 200 + 1e-9);
        for (size_t k = 0; k < i; k++)
            assert_true(fabs(y[i] - y[k]) >= 16 - 0.1);
    }
    assert_true(y[2] < y[0] && y[0] < y[1] && y[1] < y[3]); /* their order stays */
}

static void an_empty_run_says_what_is_missing(void **state)
{
    rt_report_parts parts;
    char *page = write_page(*state, &parts);
#define PART_ABSENT(part) assert_false(parts.part);
    RT_REPORT_PART_MAP(PART_ABSENT)
    assert_non_null(strstr(page, "no loss curve"));
    assert_non_null(strstr(page, "has not been judged"));
    assert_non_null(strstr(page, "no run.json"));
    assert_non_null(strstr(page, "samples.json is missing or empty"));
    assert_null(strstr(page, "<svg"));
    assert_null(strstr(page, "<table"));
    assert_null(strstr(page, "nan"));
    free(page);
}

static void the_made_up_run_has_every_part(void **state)
{
    const place *here = *state;
    static const char *const names[] = {"run.json", "eval.json", "samples.json"};
    rt_error err = {0};
    for (size_t i = 0; i < 3; i++) {
        char path[600], *text = NULL;
        size_t size;
        (void)snprintf(path, sizeof path, RT_TEST_SOURCE_DIR "/tests/report/made_up/%s", names[i]);
        assert_int_equal(rt_file_read(&text, &size, path, (size_t)1 << 20, &err), RT_OK);
        put(here, names[i], text);
        free(text);
    }
    put(here, "log.jsonl", "{\"step\":1,\"tokens\":8,\"loss\":3}\n{\"step\":2,\"tokens\":16,\"loss\":2}\n");
    rt_report_parts parts;
    char *page = write_page(here, &parts);
#define PART_PRESENT(part) assert_true(parts.part);
    RT_REPORT_PART_MAP(PART_PRESENT)
    assert_null(strstr(page, "class=\"missing\""));
    assert_non_null(strstr(page, "the intervals do not overlap"));
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "://")); /* nothing is fetched from anywhere */
    assert_null(strstr(page, "@import"));
    assert_null(strstr(page, "url("));
    assert_int_equal(count_of(page, "<svg"), count_of(page, "</svg>"));
    assert_int_equal(count_of(page, "<script"), 1);
    free(page);
}

static void hostile_text_stays_text(void **state)
{
    const place *here = *state;
#define EVIL "</p><script>alert(1)</script><img src=x onerror='x'>\\\"--></style>"
    put(here, "run.json",
        "{\"title\":\"" EVIL "\",\"started\":\"<script>a</script>\",\"teacher\":{\"name\":\"" EVIL
        "\",\"licence\":\"" EVIL "\",\"hash\":\"" EVIL "\"},\"recipe\":{\"" EVIL "\":\"" EVIL
        "\",\"o\":{\"a\":[\"" EVIL "\"]}},\"lineage\":[\"" EVIL "\"],\"versions\":{\"x\":\"" EVIL
        "\"},\"machine\":{\"cpu\":\"" EVIL "\"}}");
    put(here, "eval.json",
        "{\"models\":{\"teacher\":{\"label\":\"" EVIL "\",\"bytes\":10},\"student\":{\"label\":\"" EVIL
        "\",\"bytes\":5,\"kl_teacher_student\":{\"value\":1},\"by_kind\":[{\"kind\":\"" EVIL
        "\",\"tokens\":1,\"kl\":1,\"top1\":1}]}},\"exports\":[{\"label\":\"" EVIL
        "\",\"bytes\":3,\"kl_teacher_student\":2}]}");
    put(here, "samples.json",
        "[{\"prompt\":\"" EVIL "\",\"teacher\":\"" EVIL "\",\"student\":\"" EVIL "\",\"ce\":\"" EVIL "\"}]");
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_true(parts.samples && parts.size && parts.kinds && parts.facts);
    assert_int_equal(count_of(page, "<script"), 1); /* ours */
    assert_int_equal(count_of(page, "<img"), 0);
    assert_int_equal(count_of(page, "</style>"), 1);
    assert_int_equal(count_of(page, "-->"), 0);
    assert_true(count_of(page, "&lt;script&gt;alert(1)&lt;/script&gt;") >= 8);
    free(page);
}

static void the_policy_names_the_hash_of_the_script(void **state)
{
    /* printf '%s' "$script" | openssl dgst -sha256 -binary | base64, of the script in the page, is compared
     * by report_renders.sh, where the browser refuses a wrong one; here: there is one, of the right length.
     */
    rt_report_parts parts;
    char *page = write_page(*state, &parts);
    const char *hash = strstr(page, "script-src 'sha256-");
    assert_non_null(hash);
    hash += strlen("script-src 'sha256-");
    assert_int_equal(strcspn(hash, "'"), 44);
    assert_int_equal(hash[43], '=');
    free(page);
}

static void figures_that_are_not_numbers_are_dashes(void **state)
{
    const place *here = *state;
    put(here, "eval.json",
        "{\"documents\":null,\"tokens\":\"many\",\"models\":{\"student\":{\"perplexity\":null,\"top1\":{"
        "\"value\":null},"
        "\"kl_teacher_student\":{\"value\":1.5,\"low\":null,\"high\":2},\"tvd\":{\"value\":0.5,\"low\":0.6,"
        "\"high\":0.4},"
        "\"by_position\":[{\"from\":0,\"to\":1,\"top1\":null},7,null],\"reliability\":[{\"confidence\":2}],"
        "\"by_kind\":[{\"kind\":\"word\"}]},\"ce\":[],\"teacher\":null}}");
    put(here, "log.jsonl", "{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":1}\n");
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_true(parts.kl && parts.table && parts.loss && parts.kinds);
    assert_false(parts.position || parts.calibration || parts.size || parts.speed);
    assert_null(strstr(page, "<small>0.6")); /* an interval upside down is none */
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf"));
    free(page);
}

static void extreme_figures_draw_without_harm(void **state)
{
    const place *here = *state;
    put(here, "eval.json",
        "{\"documents\":1e308,\"tokens\":-1e308,\"models\":{\"teacher\":{\"bytes\":-1e308,\"decode_tokens_"
        "per_s\":0},"
        "\"student\":{\"perplexity\":1e308,\"bytes\":1e308,\"decode_tokens_per_s\":1e-308,"
        "\"kl_teacher_student\":{\"value\":1e308,\"low\":-1e308,\"high\":1e308},"
        "\"by_position\":[{\"from\":-1e308,\"to\":1e308,\"top1\":-5},{\"from\":1e300,\"to\":1e308,\"top1\":"
        "1e308}]},"
        "\"untrained\":{\"kl_teacher_student\":-3},\"ce\":{\"kl_teacher_student\":0}}}");
    put(here, "log.jsonl",
        "{\"step\":-1e308,\"tokens\":1e308,\"loss\":1e308}\n{\"step\":1e308,\"loss\":-1e308}\n");
    put(here, "run.json",
        "{\"tokens\":1e308,\"seconds\":1e308,\"student\":{\"parameters\":1e308},\"teacher\":{\"parameters\":"
        "1e-308},\"machine\":{\"cores\":1e308}}");
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "\"inf"));
    assert_true(parts.bytes < 200000);
    free(page);
}

static void a_huge_log_is_thinned(void **state)
{
    const place *here = *state;
    rt_text log = {0};
    const size_t steps = 50001;
    for (size_t i = 1; i <= steps; i++)
        rt_text_printf(&log, "{\"step\":%zu,\"tokens\":%zu,\"loss\":%g}\n", i, i * 10, 2 + 8 / (double)i);
    assert_false(log.failed);
    put(here, "log.jsonl", log.data);
    rt_text_deinit(&log);
    rt_run_record run;
    rt_error err = {0};
    assert_int_equal(rt_run_read(&run, here->dir, &err), RT_OK);
    assert_int_equal(run.student.steps, steps);
    assert_in_range(run.student.count, RT_CURVE_POINTS_MAX / 2, RT_CURVE_POINTS_MAX);
    for (size_t i = 1; i < run.student.count; i++)
        assert_true(run.student.step[i] > run.student.step[i - 1] && isfinite(run.student.tokens[i]));
    rt_run_deinit(&run);
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_true(parts.loss);
    assert_true(parts.bytes < 400000);
    free(page);
}

static void a_resumed_log_keeps_the_later_of_two_lines(void **state)
{
    const place *here = *state;
    put(here, "log.jsonl",
        "{\"step\":1,\"loss\":5}\n{\"step\":2,\"loss\":4}\n{\"step\":3,\"loss\":9}\nnot json\n\n"
        "{\"step\":2,\"loss\":3}\n{\"step\":3,\"loss\":2}\n{\"step\":4,\"lo");
    rt_run_record run;
    rt_error err = {0};
    assert_int_equal(rt_run_read(&run, here->dir, &err), RT_OK);
    assert_int_equal(run.student.count, 3);
    assert_float_equal(run.student.loss[1], 3, 0);
    assert_float_equal(run.student.loss[2], 2, 0);
    assert_int_equal(run.student.bad_lines,
                     1); /* the last line was cut off by a kill and is nobody's fault */
    rt_run_deinit(&run);
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_non_null(strstr(page, "1 line of the log could not be read"));
    free(page);
}

static void a_baseline_beside_the_run_is_the_second_curve(void **state)
{
    const place *here = *state;
    put_subdir(here, "ce");
    put_subdir(here, "student");
    put(here, "student/log.jsonl", "{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":1}\n");
    put(here, "ce/log.jsonl", "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n");
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_int_equal(count_of(page, "s-student raw\""), 2);
    assert_int_equal(count_of(page, "s-ce raw\""), 2);
    assert_non_null(strstr(page, "minimise different losses"));
    free(page);
    put(here, "student/log.jsonl", "{\"step\":1,\"loss\":2,\"kl\":2}\n{\"step\":2,\"loss\":1,\"kl\":1}\n");
    put(here, "ce/log.jsonl", "{\"step\":1,\"loss\":3,\"kl\":2}\n{\"step\":2,\"loss\":2,\"kl\":1.5}\n");
    page = write_page(here, &parts);
    assert_null(strstr(page, "minimise different losses"));
    assert_non_null(strstr(page, "measured against the teacher on the training text"));
    free(page);
}

static void the_paired_difference_decides_between_student_and_baseline(void **state)
{
    static const struct {
        const char *differences, *verdict;
    } cases[] = {
        {"", "does not tell them apart"}, /* the intervals below overlap */
        {"{\"model\":\"ce\",\"less\":\"student\",\"kl_teacher_student\":{\"value\":0.1,\"low\":0.05,\"high\":"
         "0.15}}",
         "The distilled one is ahead, on the same documents by 0.050 to 0.150."},
        {"{\"model\":\"student\",\"less\":\"ce\",\"kl_teacher_student\":{\"value\":0.1,\"low\":0.05,\"high\":"
         "0.15}}",
         "The other one is ahead, on the same documents by 0.050 to 0.150."},
        {"{\"model\":\"ce\",\"less\":\"student\",\"kl_teacher_student\":{\"value\":0.1,\"low\":-0.05,"
         "\"high\":0.15}}",
         "does not tell them apart"},
        {"7,{\"model\":\"untrained\",\"less\":\"student\"}", "does not tell them apart"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char eval[800];
        (void)snprintf(
            eval, sizeof eval,
            "{\"models\":{\"student\":{\"kl_teacher_student\":{\"value\":1,\"low\":0.9,\"high\":1.1}},"
            "\"ce\":{\"kl_teacher_student\":{\"value\":1.1,\"low\":1,\"high\":1.2}}},\"differences\":[%s]}",
            cases[i].differences);
        put(*state, "eval.json", eval);
        rt_report_parts parts;
        char *page = write_page(*state, &parts);
        assert_non_null(strstr(page, cases[i].verdict));
        free(page);
    }
}

static void a_missing_answer_is_told_from_an_empty_one(void **state)
{
    const place *here = *state;
    put(here, "samples.json",
        "[{\"prompt\":\"p\",\"teacher\":\"t\",\"untrained\":\"\"},{\"prompt\":\"q\",\"teacher\":\"u\"},"
        "5,{\"prompt\":\"fourth\",\"teacher\":\"v\"}]");
    rt_report_parts parts;
    char *page = write_page(here, &parts);
    assert_int_equal(count_of(page, "(no text)"), 1);
    assert_int_equal(count_of(page, "(not asked)"), 1);
    assert_null(strstr(page, "fourth"));
    assert_null(strstr(page, "<h3>trained student</h3>")); /* nobody answered as it: no column */
    free(page);
}

static void broken_files_are_named(void **state)
{
    const place *here = *state;
    static const struct {
        const char *name, *text;
    } cases[] = {{"run.json", "{\"a\":"}, {"run.json", "[]"},     {"eval.json", "7"},
                 {"eval.json", ""},       {"samples.json", "{}"}, {"samples.json", "[\"\xFF\"]"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_error err = {0};
        put(here, cases[i].name, cases[i].text);
        assert_int_equal(fails(here, &err), RT_CORRUPT);
        assert_non_null(strstr(err.text, cases[i].name));
        char *path = rt_path_join(here->dir, cases[i].name);
        assert_int_equal(unlink(path), 0);
        free(path);
    }
    rt_error err = {0};
    rt_report_parts parts;
    assert_int_equal(rt_report_write("/nonexistent/run", "/nonexistent/page", &parts, &err), RT_NOT_FOUND);
    assert_int_not_equal(rt_report_write(here->dir, "/nonexistent/page", &parts, &err), RT_OK);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, place_make, place_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_escaped_for_content_and_attributes),
        cmocka_unit_test(long_text_is_cut_between_characters),
        cmocka_unit_test(numbers_read_as_people_write_them),
        cmocka_unit_test(ticks_are_nice_and_cover_the_data),
        cmocka_unit_test(labels_at_line_ends_are_moved_apart),
        IN_PLACE(an_empty_run_says_what_is_missing),
        IN_PLACE(the_made_up_run_has_every_part),
        IN_PLACE(hostile_text_stays_text),
        IN_PLACE(the_policy_names_the_hash_of_the_script),
        IN_PLACE(figures_that_are_not_numbers_are_dashes),
        IN_PLACE(extreme_figures_draw_without_harm),
        IN_PLACE(a_huge_log_is_thinned),
        IN_PLACE(a_resumed_log_keeps_the_later_of_two_lines),
        IN_PLACE(a_baseline_beside_the_run_is_the_second_curve),
        IN_PLACE(the_paired_difference_decides_between_student_and_baseline),
        IN_PLACE(a_missing_answer_is_told_from_an_empty_one),
        IN_PLACE(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
