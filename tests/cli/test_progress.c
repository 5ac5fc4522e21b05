/* tests/cli/test_progress.c - the progress line fits its terminal and says what it must. */
#include <stdbool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"
#include "cli/progress.h"

static size_t columns_of(const char *text)
{
    size_t columns = 0;
    for (size_t i = 0, n; text[i]; i += n, columns++)
        (void)rt_utf8_decode(text + i, strlen(text + i), &n);
    return columns;
}

static const cli_progress_view half = {.title = "distil",
                                       .figures = "loss 1.93  2140 tokens/s",
                                       .fraction = 0.5,
                                       .elapsed = 65,
                                       .left = 3700,
                                       .columns = 100,
                                       .utf8 = true};

static void a_wide_line_has_title_bar_percentage_figures_and_times(void **state)
{
    (void)state;
    char line[512];
    cli_progress_line(line, sizeof line, &half);
    assert_string_equal(line, "distil ▕██████████████              ▏  50%  loss 1.93  2140 tokens/s  "
                              "1:05 gone, 1:01:40 left");
    cli_progress_view ascii = half;
    ascii.utf8 = false;
    cli_progress_line(line, sizeof line, &ascii);
    assert_string_equal(line, "distil [##############              ]  50%  loss 1.93  2140 tokens/s  "
                              "1:05 gone, 1:01:40 left");
}

static void at_every_width_the_line_fits_and_is_valid_utf8(void **state)
{
    (void)state;
    for (size_t columns = 1; columns < 200; columns++) {
        for (double fraction = -0.5; fraction < 1.6; fraction += 0.0625) {
            cli_progress_view view = half;
            view.columns = columns;
            view.fraction = fraction;
            view.title = "dïstil";
            view.utf8 = columns % 2 == 0;
            char line[512];
            cli_progress_line(line, sizeof line, &view);
            assert_true(columns_of(line) <= columns);
            assert_true(rt_utf8_valid(line, strlen(line)));
            if (columns >= 12)
                assert_non_null(strstr(line, "%"));
        }
    }
}

static void without_a_terminal_the_line_is_plain(void **state)
{
    (void)state;
    cli_progress_view view = half;
    view.columns = 0;
    view.left = -1;
    char line[512];
    cli_progress_line(line, sizeof line, &view);
    assert_string_equal(line, "distil  50%  loss 1.93  2140 tokens/s  1:05 gone, --:-- left");
    view.figures = "";
    cli_progress_line(line, sizeof line, &view);
    assert_string_equal(line, "distil  50%  1:05 gone, --:-- left");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wide_line_has_title_bar_percentage_figures_and_times),
        cmocka_unit_test(at_every_width_the_line_fits_and_is_valid_utf8),
        cmocka_unit_test(without_a_terminal_the_line_is_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
