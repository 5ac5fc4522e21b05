/* report/story_page.c - see story_page.h.
 *
 * The order is that of the events: accounts and their requests, decisions, training, the examination by file
 * and by answers alone beside the controls, and what is weak or not shown. */
#include "report/story_page.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/html.h"
#include "report/page.h"
#include "report/svg.h"
#include "report/table.h"
#include "retort/version.h"

enum { POINTS_MAX = 2000, CURVES_MAX = 16, BARS_MAX = 40 };

static void cell_number(rt_text *out, double value, rt_number kind)
{
    char number[RT_NUMBER_SIZE];
    rt_number_format(number, value, kind);
    rt_table_cell(out, number);
}

/* ---- pictures ---- */

static size_t numbers(double out[POINTS_MAX], const json_t *list)
{
    const size_t n = json_array_size(list) < POINTS_MAX ? json_array_size(list) : POINTS_MAX;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        out[i] = json_is_number(value) ? json_number_value(value) : (double)NAN;
    }
    return n;
}

/* Lines of several series over one axis, each with its name at its end; honest or innocent ones in the other
 * colour. */
static void figure_lines(rt_text *out, const json_t *curves, const char *title, const char *x_title,
                         const char *y_title, const char *caption)
{
    double x[POINTS_MAX], y[POINTS_MAX];
    double x_most = 0, y_most = 0, ends[CURVES_MAX];
    size_t i, n_curves = 0;
    const json_t *curve, *drawn[CURVES_MAX];
    json_array_foreach(curves, i, curve)
    {
        const size_t n = numbers(x, json_object_get(curve, "x")), m = numbers(y, json_object_get(curve, "y"));
        if (n < 2 || m != n || n_curves == CURVES_MAX)
            continue;
        for (size_t k = 0; k < n; k++) {
            x_most = fmax(x_most, x[k]);
            y_most = fmax(y_most, y[k]);
        }
        drawn[n_curves++] = curve;
    }
    if (n_curves == 0 || !(x_most > 0) || !(y_most > 0))
        return;
    const rt_ticks xs = rt_ticks_cover(0, x_most, 6), ys = rt_ticks_cover(0, y_most, 5);
    rt_svg svg;
    rt_page_figure_open(out, title);
    rt_svg_open(&svg, out, 640, 320, (rt_margin){56, 90, 26, 40}, "chart", title);
    rt_svg_axis_y(&svg, &ys, RT_NUMBER_PLAIN, y_title);
    rt_svg_axis_x(&svg, &xs, x_most, RT_NUMBER_PLAIN, x_title);
    for (i = 0; i < n_curves; i++) {
        const bool honest = json_is_true(json_object_get(drawn[i], "honest"));
        const size_t n = numbers(x, json_object_get(drawn[i], "x"));
        (void)numbers(y, json_object_get(drawn[i], "y"));
        rt_svg_line(&svg, honest ? "line s-teacher" : "line s-student", x, y, n);
        ends[i] = rt_scale_at(&svg.y, y[n - 1]);
        const json_t *marks = json_object_get(drawn[i], "marks"), *mark;
        size_t k;
        json_array_foreach(marks, k, mark)
        {
            const double mx = rt_field_number(mark, "x"), my = rt_field_number(mark, "y");
            if (isfinite(mx) && isfinite(my) && mx >= 0 && mx <= x_most)
                rt_svg_dot(&svg, "fill s-student", rt_scale_at(&svg.x, mx), rt_scale_at(&svg.y, my), 4,
                           rt_field_text(mark, "what"));
        }
    }
    if (n_curves <= 8)
        rt_spread(ends, n_curves, 13, svg.top, svg.bottom);
    for (i = 0; i < n_curves; i++)
        rt_svg_text(&svg, svg.right + 6, ends[i] + 4, RT_ANCHOR_START, "tick",
                    rt_field_text(drawn[i], "name"));
    rt_svg_close(&svg);
    rt_page_figure_close(out, caption);
}

static void figure_suspects(rt_text *out, const json_t *suspects)
{
    double most = 6;
    size_t i, k, n = 0;
    const json_t *s, *t;
    json_array_foreach(suspects, i, s) json_array_foreach(json_object_get(s, "tests"), k, t)
    {
        const double p = rt_field_number(t, "log10_p");
        most = isfinite(p) ? fmax(most, -p) : most;
        n += isfinite(p);
    }
    if (n == 0 || n > BARS_MAX)
        return;
    const rt_ticks ticks = rt_ticks_cover(0, most, 6);
    rt_svg svg;
    rt_page_figure_open(out, "How unlikely each result is if the suspect is innocent");
    rt_svg_open(&svg, out, 640, 60 + 22 * (double)n, (rt_margin){210, 20, 10, 40}, "chart",
                "minus log10 p of each test of each suspect");
    rt_svg_axis_x(&svg, &ticks, ticks.values[ticks.count - 1], RT_NUMBER_PLAIN, "-log10 p");
    double y = svg.top + 12;
    json_array_foreach(suspects, i, s) json_array_foreach(json_object_get(s, "tests"), k, t)
    {
        char label[96];
        const double p = rt_field_number(t, "log10_p");
        if (!isfinite(p))
            continue;
        (void)snprintf(label, sizeof label, "%.30s, %.10s: %.20s", rt_field_text(s, "name"),
                       rt_field_text(t, "how"), rt_field_text(t, "test"));
        const double from = rt_scale_at(&svg.x, 0), to = rt_scale_at(&svg.x, -p);
        rt_svg_text(&svg, svg.left - 8, y + 4, RT_ANCHOR_END, "tick", label);
        rt_svg_rect(&svg, json_is_true(json_object_get(s, "innocent")) ? "fill s-teacher" : "fill s-student",
                    from, y - 6, fmax(to - from, 1), 12, rt_field_text(t, "p"));
        y += 22;
    }
    rt_svg_close(&svg);
    rt_page_figure_close(out,
                         "Strong evidence needs 5 and a second test, very strong evidence 10 and fresh data. "
                         "Innocent students' bars stay short.");
}

/* ---- sections ---- */

static void section_served(rt_text *out, const json_t *story)
{
    static const char *const heads[] = {"account",        "who", "requests", "tokens answered",
                                        "of them marked", "p",   "cluster",  "state at the end"};
    const json_t *accounts = json_object_get(story, "accounts"), *a;
    size_t i;
    rt_page_section_open(out, "served", "Who asked");
    figure_lines(
        out, json_object_get(story, "curves"), "Requests of each account", "minutes", "requests",
        "Dots are decisions of the guard and of the reviewer. Requests that were refused count too.");
    rt_table_open(out, heads, 8);
    json_array_foreach(accounts, i, a)
    {
        rt_text_puts(out, "<tr>");
        rt_table_cell(out, rt_field_text(a, "name"));
        rt_table_cell(out, json_is_true(json_object_get(a, "honest")) ? "honest customer" : "operator");
        cell_number(out, rt_field_number(a, "requests"), RT_NUMBER_INTEGER);
        cell_number(out, rt_field_number(a, "tokens"), RT_NUMBER_INTEGER);
        cell_number(out, rt_field_number(a, "marked"), RT_NUMBER_SHARE);
        cell_number(out, rt_field_number(a, "p"), RT_NUMBER_DIGITS);
        cell_number(out, rt_field_number(a, "cluster"), RT_NUMBER_INTEGER);
        rt_table_cell(out, rt_field_text(a, "state"));
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    rt_page_paragraph(out, "",
                      "p is the share of benign accounts, or for linked ones of clusters, that look at least "
                      "like this in a week. Accounts of "
                      "one cluster are used as one, by their prompts, times and programs.");
    rt_page_section_close(out);
}

static void section_decided(rt_text *out, const json_t *story)
{
    static const char *const heads[] = {"minute", "who", "what", "account", "why"};
    const json_t *events = json_object_get(story, "events"), *e;
    size_t i;
    rt_page_section_open(out, "decided", "What was decided, from the audit trail");
    if (json_array_size(events) == 0)
        rt_page_missing(out, "The trail has no decision.");
    rt_table_open(out, heads, 5);
    json_array_foreach(events, i, e)
    {
        if (i == 60)
            break;
        rt_text_puts(out, "<tr>");
        cell_number(out, rt_field_number(e, "minute"), RT_NUMBER_PLAIN);
        rt_table_cell(out, rt_field_text(e, "who"));
        rt_table_cell(out, rt_field_text(e, "what"));
        rt_table_cell(out, rt_field_text(e, "account"));
        rt_text_puts(out, "<td style=\"text-align:left\">");
        rt_html_text(out, rt_field_text(e, "why"), strlen(rt_field_text(e, "why")), 300);
        rt_text_puts(out, "</td></tr>\n");
    }
    rt_table_close(out);
    rt_page_section_close(out);
}

static void section_trained(rt_text *out, const json_t *story)
{
    char line[256];
    const json_t *taken = json_object_get(story, "taken");
    rt_page_section_open(out, "trained", "Meanwhile: a student from what was taken");
    (void)snprintf(line, sizeof line,
                   "%.0f answers trained a student that began as %.60s. Two control students have the same "
                   "shape, start, prompts and recipe, and other answers.",
                   rt_field_number(taken, "answers"), rt_field_text(taken, "start"));
    rt_page_paragraph(out, "", line);
    figure_lines(out, json_object_get(story, "losses"), "Loss on the training text", "thousand tokens",
                 "nats a token", "Moving means. What a loss says of origin: nothing.");
    rt_page_section_close(out);
}

static void section_examined(rt_text *out, const json_t *story)
{
    static const char *const heads[] = {"suspect", "known to be", "given", "test", "z", "p", "words"};
    static const char *const by[] = {"account", "test", "z", "log10 p, corrected for all accounts"};
    const json_t *suspects = json_object_get(story, "suspects"),
                 *owners = json_object_get(story, "by_account"), *s, *t;
    size_t i, k;
    rt_page_section_open(out, "examined", "Whose student is it?");
    rt_page_paragraph(
        out, "",
        "Each suspect is examined twice: its file, read with the provider's marked answers and "
        "compared with the public start; and its answers alone, asked over the network. Plans were "
        "hashed before looking.");
    figure_suspects(out, suspects);
    rt_table_open(out, heads, 7);
    json_array_foreach(suspects, i, s) json_array_foreach(json_object_get(s, "tests"), k, t)
    {
        rt_text_puts(out, "<tr>");
        rt_table_cell(out, rt_field_text(s, "name"));
        rt_table_cell(out, rt_field_text(s, "is"));
        rt_table_cell(out, rt_field_text(t, "how"));
        rt_table_cell(out, rt_field_text(t, "test"));
        cell_number(out, rt_field_number(t, "z"), RT_NUMBER_PLAIN);
        rt_table_cell(out, rt_field_text(t, "p"));
        rt_table_cell(out, rt_field_text(t, "words"));
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    if (json_array_size(owners) > 0) {
        rt_page_paragraph(
            out, "",
            "A share of every account's tokens carries a key of its own. Which of these keys are "
            "in the student:");
        rt_table_open(out, by, 4);
        json_array_foreach(owners, i, t)
        {
            rt_text_puts(out, "<tr>");
            rt_table_cell(out, rt_field_text(t, "name"));
            rt_table_cell(out, rt_field_text(t, "test"));
            cell_number(out, rt_field_number(t, "z"), RT_NUMBER_PLAIN);
            cell_number(out, rt_field_number(t, "log10_p_corrected"), RT_NUMBER_PLAIN);
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
    }
    rt_page_section_close(out);
}

static void section_identity(rt_text *out, const json_t *story)
{
    static const char *const heads[] = {"suspect", "name", "answers that claim it", "of", "95% from", "to"};
    const json_t *rows = json_object_get(story, "identity"), *r;
    size_t i;
    rt_page_section_open(out, "identity", "What they say they are (weak)");
    rt_page_paragraph(
        out, "",
        "Models have no knowledge of themselves, and all of these began as the same public model: "
        "students and controls answer alike. This lifts no verdict.");
    rt_table_open(out, heads, 6);
    json_array_foreach(rows, i, r)
    {
        rt_text_puts(out, "<tr>");
        rt_table_cell(out, rt_field_text(r, "suspect"));
        rt_table_cell(out, rt_field_text(r, "name"));
        cell_number(out, rt_field_number(r, "k"), RT_NUMBER_INTEGER);
        cell_number(out, rt_field_number(r, "n"), RT_NUMBER_INTEGER);
        cell_number(out, rt_field_number(r, "lo"), RT_NUMBER_SHARE);
        cell_number(out, rt_field_number(r, "hi"), RT_NUMBER_SHARE);
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    rt_page_section_close(out);
}

static void section_limits(rt_text *out)
{
    rt_page_section_open(out, "limits", "What this cannot say");
    rt_page_paragraph(
        out, "",
        "A key that is found says that marked text, or text made from it, was learnt: not by whom, "
        "not with what intent. Marked answers may have been published by a customer and read there. "
        "Paraphrase by another model removes most of a mark, so that nothing is found says little. "
        "All parties here run on one machine, within an hour, and two controls are few: the figures "
        "of many are in docs/results-evidence.md and docs/evidence.md.");
    rt_page_section_close(out);
}

void rt_report_story(rt_text *out, const json_t *story)
{
    char deck[400];
    (void)snprintf(deck, sizeof deck,
                   "%.100s is served with a watermark and a guard; four accounts of one operator "
                   "harvest it beside two honest customers. Who is stopped, and what the student tells.",
                   rt_field_text(story, "teacher"));
    rt_page_open(out, "Harvest, guard, student, evidence", "retort, the whole story", deck);
    section_served(out, story);
    section_decided(out, story);
    section_trained(out, story);
    section_examined(out, story);
    section_identity(out, story);
    section_limits(out);
    rt_page_close(out, "retort " RT_VERSION "; make story tells it again.");
}
