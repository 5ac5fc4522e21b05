/* cli/progress.c - see progress.h. */
#include "cli/progress.h"

#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/size.h"
#include "base/text.h"

enum { BAR_MAX = 30, BAR_MIN = 8, LINE_MAX_BYTES = 512 };

static void format_time(char out[16], double seconds)
{
    if (seconds < 0 || seconds > 1e6) {
        (void)snprintf(out, 16, "--:--");
        return;
    }
    const unsigned s = (unsigned)(seconds + 0.5);
    if (s >= 3600)
        (void)snprintf(out, 16, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    else
        (void)snprintf(out, 16, "%u:%02u", s / 60, s % 60);
}

static size_t count_columns(const char *text) /* one a code point: enough for what is shown here */
{
    size_t columns = 0;
    for (size_t i = 0, n, size = strlen(text); i < size; i += n, columns++)
        (void)rt_utf8_decode(text + i, size - i, &n);
    return columns;
}

static void append_columns(rt_text *out, const char *text, size_t columns_max)
{
    for (size_t i = 0, n, size = strlen(text); i < size && columns_max > 0; i += n, columns_max--) {
        (void)rt_utf8_decode(text + i, size - i, &n);
        rt_text_append(out, text + i, n);
    }
}

static void append_bar(rt_text *out, double fraction, size_t cells, bool utf8)
{
    static const char *const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    const size_t filled = (size_t)(fraction * (double)(cells * 8));
    rt_text_puts(out, utf8 ? "▕" : "[");
    for (size_t i = 0; i < cells; i++) {
        const size_t part = filled > i * 8 ? rt_size_min(filled - i * 8, 8) : 0;
        rt_text_puts(out, utf8 ? eighths[part] : part == 8 ? "#" : part > 0 ? "-" : " ");
    }
    rt_text_puts(out, utf8 ? "▏" : "]");
}

void cli_progress_line(char *out, size_t size, const cli_progress_view *view)
{
    const double fraction = view->fraction < 0 ? 0 : view->fraction > 1 ? 1 : view->fraction;
    char elapsed[16], left[16], times[64], percent[8];
    format_time(elapsed, view->elapsed);
    format_time(left, view->left);
    (void)snprintf(percent, sizeof percent, "%3d%%", (int)(fraction * 100));
    (void)snprintf(times, sizeof times, "%s gone, %s left", elapsed, left);
    rt_text text = {.size_max = LINE_MAX_BYTES};
    const char *gap = view->figures[0] ? "  " : "";
    if (view->columns == 0) {
        rt_text_printf(&text, "%s %s%s%s  %s", view->title, percent, gap, view->figures, times);
    } else {
        const size_t fixed = count_columns(view->title) + 2 + strlen(percent) + 2 + strlen(times) + 2;
        const size_t room = view->columns > fixed ? view->columns - fixed : 0;
        const size_t wanted = count_columns(view->figures) + strlen(gap);
        size_t bar = room > wanted ? room - wanted : 0;
        bar = rt_size_min(rt_size_max(bar, rt_size_min(BAR_MIN, room)), BAR_MAX);
        append_columns(&text, view->title, view->columns);
        if (bar > 2) {
            rt_text_puts(&text, " ");
            append_bar(&text, fraction, bar - 2, view->utf8);
        }
        rt_text_printf(&text, " %s", percent);
        if (room > bar + 2) {
            rt_text_puts(&text, gap);
            append_columns(&text, view->figures, room - bar - 2);
        }
        if (view->columns > fixed)
            rt_text_printf(&text, "  %s", times);
    }
    rt_text cut = {.size_max = size};
    append_columns(&cut, text.failed ? "" : text.data, view->columns ? view->columns : SIZE_MAX);
    (void)snprintf(out, size, "%s", cut.data ? cut.data : "");
    rt_text_deinit(&cut);
    rt_text_deinit(&text);
}

static size_t terminal_columns(void)
{
    struct winsize window = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0)
        return window.ws_col;
    return 80;
}

static bool speaks_utf8(void)
{
    (void)setlocale(LC_CTYPE, "");
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

void cli_progress_open(cli_progress *progress, const char *title, uint64_t first, uint64_t total,
                       double plain_every_s)
{
    const char *term = getenv("TERM");
    *progress = (cli_progress){
        .title = title,
        .first = first,
        .done = first,
        .total = total ? total : 1,
        .started = rt_clock_seconds(),
        .shown = -1,
        .plain_every = plain_every_s > 0 ? plain_every_s : 10,
        .terminal = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0),
        .utf8 = speaks_utf8(),
    };
}

static void draw(cli_progress *progress, double now)
{
    const double elapsed = now - progress->started;
    const uint64_t here = progress->done - progress->first;
    const uint64_t to_do = progress->total > progress->done ? progress->total - progress->done : 0;
    const cli_progress_view view = {
        .title = progress->title,
        .figures = progress->figures,
        .fraction = (double)progress->done / (double)progress->total,
        .elapsed = elapsed,
        .left = here ? elapsed / (double)here * (double)to_do : -1,
        .columns = progress->terminal ? terminal_columns() - 1 : 0, /* the last column makes some wrap */
        .utf8 = progress->utf8,
    };
    char line[LINE_MAX_BYTES];
    cli_progress_line(line, sizeof line, &view);
    (void)fprintf(stderr, progress->terminal ? "\r%s\033[K" : "%s\n", line);
    (void)fflush(stderr);
    progress->shown = now;
}

void cli_progress_update(cli_progress *progress, uint64_t done, const char *figures)
{
    progress->done = done < progress->first ? progress->first : done;
    (void)snprintf(progress->figures, sizeof progress->figures, "%s", figures ? figures : "");
    const double now = rt_clock_seconds();
    const double every = progress->terminal ? 0.1 : progress->plain_every;
    const double since = progress->shown < 0 ? progress->started : progress->shown;
    if (now - since >= every || (progress->terminal && progress->shown < 0))
        draw(progress, now);
}

void cli_progress_hide(cli_progress *progress)
{
    if (progress->terminal && progress->shown >= 0)
        (void)fputs("\r\033[K", stderr);
    progress->shown = progress->terminal ? -1 : progress->shown;
}

void cli_progress_close(cli_progress *progress)
{
    draw(progress, rt_clock_seconds());
    if (progress->terminal)
        (void)fputc('\n', stderr);
}
