/* report/guard_page.c - see guard_page.h.
 *
 * The order is that of somebody who has to answer for it: what was found and done, each suspected account
 * with its reasons and its course, clusters with their links, the trail of decisions with its hashes, whether
 * the figures can be trusted here, and how to make them again. */
#include "report/guard_page.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "report/html.h"
#include "report/page.h"
#include "report/svg.h"
#include "report/table.h"
#include "retort/version.h"

enum { GRAPH_MEMBERS_MAX = 60 };

static void cell(rt_text *out, const char *text) { rt_table_cell(out, text[0] ? text : "\xE2\x80\x93"); }

static void cell_number(rt_text *out, double value, const char *format)
{
    char text[48] = "";
    if (isfinite(value))
        (void)snprintf(text, sizeof text, format, value); /* formats are ours */
    cell(out, text);
}

static void cell_time(rt_text *out, double seconds)
{
    char text[32] = "";
    struct tm tm;
    const time_t whole = isfinite(seconds) && seconds > 0 && seconds < 1e11 ? (time_t)seconds : 0;
    if (whole && gmtime_r(&whole, &tm))
        (void)strftime(text, sizeof text, "%Y-%m-%d %H:%M", &tm);
    cell(out, text);
}

#define TABLE(out, ...)                                                                                      \
    rt_table_open(out, (const char *const[]){__VA_ARGS__},                                                   \
                  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void alarm(rt_text *out, const char *sentence)
{
    rt_text_puts(out, "<p style=\"color:#b00020;font-weight:600\">");
    rt_html_puts(out, sentence);
    rt_text_puts(out, "</p>\n");
}

/* ---- what was found */

static void section_found(rt_text *out, const json_t *record)
{
    const json_t *items = json_object_get(json_object_get(record, "review"), "items"), *item;
    char line[400];
    size_t i;
    rt_page_section_open(out, "found", "What was found");
    (void)snprintf(line, sizeof line,
                   "%.0f accounts were judged. %zu findings are listed, those that wait for a person first, "
                   "then those of "
                   "which one decision settles most.",
                   rt_field_number(record, "accounts"), json_array_size(items));
    rt_page_paragraph(out, "lead", line);
    rt_page_paragraph(
        out, "",
        "p is the share of benign accounts that look at least so suspect in their worst moment of a week. e "
        "is "
        "the evidence of all weeks together: at most one benign account in e ever gets so far, however often "
        "one looks. Neither is the chance that an account is innocent.");
    if (json_array_size(items)) {
        TABLE(out, "what", "why here", "rung", "requests", "p", "e");
        json_array_foreach(items, i, item)
        {
            const json_t *first = json_array_get(json_object_get(item, "accounts"), 0);
            char name[96];
            double requests = 0;
            size_t k;
            const json_t *row;
            json_array_foreach(json_object_get(item, "accounts"), k, row) requests +=
                rt_field_number(row, "requests");
            if (strcmp(rt_field_text(item, "kind"), "cluster") == 0)
                (void)snprintf(name, sizeof name, "cluster %.0f: %zu accounts", rt_field_number(item, "id"),
                               json_array_size(json_object_get(item, "accounts")));
            else
                (void)snprintf(name, sizeof name, "%.80s", rt_field_text(item, "id"));
            rt_text_puts(out, "<tr>");
            cell(out, name);
            cell(out, rt_field_text(item, "why"));
            cell(out, json_is_true(json_object_get(first, "proposed")) ? "suspension proposed"
                                                                       : rt_field_text(first, "rung"));
            cell_number(out, requests, "%.0f");
            cell_number(out, rt_field_number(item, "p"), "%.3g");
            cell_number(out, rt_field_number(item, "e"), "%.4g");
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
    }
    rt_page_section_close(out);
}

/* ---- one account */

static void figure_course(rt_text *out, const json_t *points)
{
    const size_t n = json_array_size(points);
    double xs[256], ys[256], most = 1;
    if (n < 2 || n > 256)
        return;
    for (size_t i = 0; i < n; i++) {
        const json_t *point = json_array_get(points, i);
        xs[i] = rt_field_number(point, "requests");
        ys[i] = fmin(12, fmax(-3, rt_field_number(point, "log_e") / log(10)));
        most = fmax(most, ys[i]);
    }
    rt_svg svg;
    const rt_ticks across = rt_ticks_cover(xs[0], xs[n - 1], 5),
                   up = rt_ticks_cover(fmin(0, ys[0]), fmax(3, most), 4);
    rt_page_figure_open(out, "Its evidence, request by request");
    rt_svg_open(&svg, out, 640, 200, (rt_margin){50, 30, 28, 40}, "chart", "log10 of e by requests");
    rt_svg_axis_y(&svg, &up, RT_NUMBER_PLAIN, "log10 e");
    rt_svg_axis_x(&svg, &across, across.values[across.count - 1], RT_NUMBER_INTEGER, "requests");
    rt_svg_line(&svg, "line s-student", xs, ys, n);
    rt_svg_close(&svg);
    rt_page_figure_close(out, NULL);
}

static void account(rt_text *out, const json_t *a)
{
    char line[400];
    const json_t *row, *history = json_object_get(a, "history");
    size_t i;
    rt_text_puts(out, "<h3 style=\"margin-top:44px\">");
    rt_html_puts(out, rt_field_text(a, "account"));
    rt_text_puts(out, "</h3>\n");
    (void)snprintf(line, sizeof line,
                   "Rung: %.30s%s. %.0f requests over %.0f weeks, p %.3g, e %.4g; first under 1%% after %.0f "
                   "requests. Judged "
                   "among benign %.20s by reference %.20s.",
                   rt_field_text(a, "rung"),
                   json_is_true(json_object_get(a, "proposed")) ? ", suspension proposed" : "",
                   rt_field_number(a, "requests"), rt_field_number(a, "weeks"), rt_field_number(a, "p"),
                   rt_field_number(a, "e"), rt_field_number(a, "flagged_at"), rt_field_text(a, "use_class"),
                   rt_field_text(a, "reference"));
    rt_page_paragraph(out, "", line);
    figure_course(out, json_object_get(history, "points"));
    TABLE(out, "signal", "value", "percentile among benign", "part in the score");
    json_array_foreach(json_object_get(a, "signals"), i, row)
    {
        const double part = rt_field_number(row, "contribution");
        if (!(fabs(part) >= 0.02))
            continue;
        rt_text_puts(out, "<tr>");
        cell(out, rt_field_text(row, "signal"));
        cell_number(out, rt_field_number(row, "value"), "%.4g");
        cell_number(out, rt_field_number(row, "percentile"), "%.0f");
        cell_number(out, part, "%+.3f");
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    (void)snprintf(line, sizeof line, "These and the base %.3f sum up to the score %.3f.",
                   rt_field_number(a, "base"), rt_field_number(a, "score_now"));
    rt_page_paragraph(out, "", line);
    const json_t *exemplars = json_object_get(history, "exemplars");
    if (json_array_size(exemplars)) {
        TABLE(out, "telling request", "time", "asks for", "how sure");
        json_array_foreach(exemplars, i, row)
        {
            rt_text_puts(out, "<tr>");
            cell(out, rt_field_text(row, "request"));
            cell_time(out, rt_field_number(row, "ts"));
            cell(out, rt_field_text(row, "wants"));
            cell_number(out, rt_field_number(row, "probability"), "%.2f");
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
    }
}

static void section_accounts(rt_text *out, const json_t *record)
{
    const json_t *people = json_object_get(record, "people"), *a;
    size_t i;
    rt_page_section_open(out, "accounts", "Each suspected account");
    if (!json_array_size(people))
        rt_page_missing(out, "No account stands out or is on the ladder.");
    json_array_foreach(people, i, a) account(out, a);
    rt_page_section_close(out);
}

/* ---- clusters */

static void figure_links(rt_text *out, const json_t *cluster)
{
    const json_t *members = json_object_get(cluster, "members"), *links = json_object_get(cluster, "links"),
                 *l;
    const size_t n = json_array_size(members);
    size_t i;
    if (n < 2 || n > GRAPH_MEMBERS_MAX)
        return;
    rt_svg svg;
    rt_page_figure_open(out, "Who is linked with whom");
    rt_svg_open(&svg, out, 640, 340, (rt_margin){10, 10, 10, 10}, "chart",
                "links between the accounts of a cluster");
    double x[GRAPH_MEMBERS_MAX], y[GRAPH_MEMBERS_MAX];
    for (size_t k = 0; k < n; k++) {
        x[k] = 320 + 200 * cos(2 * M_PI * (double)k / (double)n);
        y[k] = 170 + 130 * sin(2 * M_PI * (double)k / (double)n);
    }
    json_array_foreach(links, i, l)
    {
        const double a = rt_field_number(l, "a"), b = rt_field_number(l, "b");
        if (a >= 0 && b >= 0 && a < (double)n && b < (double)n)
            rt_svg_segment(&svg, "grid", x[(size_t)a], y[(size_t)a], x[(size_t)b], y[(size_t)b]);
    }
    for (size_t k = 0; k < n; k++) {
        const char *name = rt_field_text(json_array_get(members, k), "account");
        rt_svg_dot(&svg, "fill s-ce", x[k], y[k], 6, name);
        if (n <= 16) {
            const size_t size = strlen(name);
            rt_svg_text(&svg, x[k] + (x[k] < 320 ? -10 : 10), y[k] + 4,
                        x[k] < 320 ? RT_ANCHOR_END : RT_ANCHOR_START, "tick",
                        size > 12 ? name + size - 12 : name);
        }
    }
    rt_svg_close(&svg);
    rt_page_figure_close(
        out,
        "A line: the evidence that two accounts have one operator is over the threshold. Names are cut to "
        "their ends.");
}

static void section_clusters(rt_text *out, const json_t *record)
{
    const json_t *clusters = json_object_get(record, "clusters"), *c, *row;
    size_t i, k;
    char line[300];
    rt_page_section_open(out, "clusters", "Linked accounts");
    rt_page_paragraph(out, "",
                      "Being linked accuses nobody: classes, offices and families are clusters. Accused are "
                      "those whose members "
                      "together do what benign accounts do not.");
    if (!json_array_size(clusters))
        rt_page_missing(out, "No accused cluster.");
    json_array_foreach(clusters, i, c)
    {
        (void)snprintf(
            line, sizeof line, "Cluster %.0f: %.0f accounts, p %.3g that its members are benign%s.",
            rt_field_number(c, "cluster"), rt_field_number(c, "size"), rt_field_number(c, "p"),
            json_is_true(json_object_get(c, "confirmed")) ? "; confirmed by e-BH among all clusters" : "");
        rt_page_paragraph(out, "lead", line);
        figure_links(out, c);
        TABLE(out, "account", "rung", "requests", "p", "e");
        json_array_foreach(json_object_get(c, "members"), k, row)
        {
            rt_text_puts(out, "<tr>");
            cell(out, rt_field_text(row, "account"));
            cell(out, rt_field_text(row, "rung"));
            cell_number(out, rt_field_number(row, "requests"), "%.0f");
            cell_number(out, rt_field_number(row, "p"), "%.3g");
            cell_number(out, rt_field_number(row, "e"), "%.4g");
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
    }
    rt_page_section_close(out);
}

/* ---- decisions */

static void section_decisions(rt_text *out, const json_t *record)
{
    const json_t *trail = json_object_get(record, "trail"), *rows = json_object_get(trail, "rows"), *row;
    size_t i;
    rt_page_section_open(out, "decisions", "What was decided, by whom");
    if (!json_is_object(trail)) {
        rt_page_missing(
            out,
            "No account database was given (--db): decisions and their hashes are not part of this record.");
        rt_page_section_close(out);
        return;
    }
    if (json_is_true(json_object_get(trail, "valid")))
        rt_page_paragraph(
            out, "",
            "The audit trail is whole: each row holds the hash of the one before, and the last is signed.");
    else
        alarm(
            out,
            "The audit trail is NOT whole: rows were changed, added or taken away after they were written.");
    TABLE(out, "time", "by", "what", "to", "why", "hash");
    json_array_foreach(rows, i, row)
    {
        const json_t *detail = json_object_get(row, "detail");
        const char *why = rt_field_text(detail, "reason")[0] ? rt_field_text(detail, "reason")
                                                             : rt_field_text(detail, "note");
        rt_text_puts(out, "<tr>");
        cell_time(out, rt_field_number(row, "at"));
        cell(out, rt_field_text(row, "actor"));
        cell(out, rt_field_text(row, "action"));
        cell(out, rt_field_text(row, "subject"));
        cell(out, why);
        rt_text_puts(out, "<td style=\"text-align:left\" class=\"hash\">");
        rt_html_text(out, rt_field_text(row, "hash"), strlen(rt_field_text(row, "hash")), 16);
        rt_text_puts(out, "</td></tr>\n");
    }
    rt_table_close(out);
    rt_page_section_close(out);
}

/* ---- may the figures be trusted */

static void figure_p(rt_text *out, const json_t *k)
{
    const json_t *bins = json_object_get(k, "bins");
    const size_t n = json_array_size(bins);
    double most = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, json_number_value(json_array_get(bins, i)));
        sum += json_number_value(json_array_get(bins, i));
    }
    if (!(sum > 0) || n > 64)
        return;
    rt_svg svg;
    const rt_ticks across = rt_ticks_cover(0, 1, 5),
                   up = rt_ticks_cover(0, fmax(most, 2 * sum / (double)n), 4);
    rt_page_figure_open(out, "P-values of full weeks");
    rt_svg_open(&svg, out, 640, 180, (rt_margin){50, 20, 28, 40}, "chart", "histogram of p-values");
    rt_svg_axis_y(&svg, &up, RT_NUMBER_PLAIN, "accounts");
    rt_svg_axis_x(&svg, &across, 1, RT_NUMBER_PLAIN, "p");
    for (size_t i = 0; i < n; i++) {
        const double from = rt_scale_at(&svg.x, (double)i / (double)n),
                     to = rt_scale_at(&svg.x, (double)(i + 1) / (double)n),
                     top = rt_scale_at(&svg.y, json_number_value(json_array_get(bins, i)));
        rt_svg_rect(&svg, "fill s-student", from + 1, top, to - from - 2, svg.bottom - top, NULL);
    }
    const double even = rt_scale_at(&svg.y, sum / (double)n);
    rt_svg_segment(&svg, "diagonal", svg.left, even, svg.right, even);
    rt_svg_close(&svg);
    rt_page_figure_close(out, "Dotted: how they lie when the reference fits and all are benign.");
}

static void section_trust(rt_text *out, const json_t *record)
{
    const json_t *calibration = json_object_get(record, "calibration"), *k, *r, *a;
    size_t i, c;
    rt_page_section_open(out, "trust", "May the figures be trusted here?");
    json_array_foreach(json_object_get(calibration, "classes"), i, k)
    {
        if (json_is_true(json_object_get(k, "alarm")))
            alarm(out, rt_field_text(k, "sentence"));
        else
            rt_page_paragraph(out, "", rt_field_text(k, "sentence"));
        figure_p(out, k);
    }
    TABLE(out, "rung", "taken at", "reads", "use", "best that one account alone reaches in a week");
    json_array_foreach(json_object_get(calibration, "rungs"), i, r)
        json_array_foreach(json_object_get(r, "alone"), c, a)
    {
        rt_text_puts(out, "<tr>");
        cell(out, rt_field_text(r, "rung"));
        cell_number(out, rt_field_number(r, "p"), "%.4g");
        cell(out, rt_field_text(r, "reads"));
        cell(out, rt_field_text(a, "class"));
        cell_number(out, rt_field_number(a, "best"), "%.3g");
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    rt_page_section_close(out);
}

static void section_policy(rt_text *out, const json_t *record)
{
    rt_page_section_open(out, "policy", "The policy, and how to make this again");
    rt_text_puts(out, "<pre style=\"font:13px/1.5 var(--mono);white-space:pre-wrap\">");
    rt_html_puts(out, rt_field_text(record, "policy"));
    rt_text_puts(out, "</pre>\n");
    rt_page_paragraph(out, "",
                      "`retort guard replay` over the recorded traffic, with this policy and the key beside "
                      "the traffic, gives "
                      "the same figures bit for bit; `retort guard explain` shows one account, `retort audit "
                      "verify` checks the "
                      "trail.");
    rt_page_section_close(out);
}

void rt_report_guard(rt_text *out, const json_t *record)
{
    char deck[300];
    (void)snprintf(deck, sizeof deck, "From %.160s, made %.40s.", rt_field_text(record, "source"),
                   rt_field_text(record, "made"));
    rt_page_open(out, "Accounts that collect", "retort guard: the record", deck);
    section_found(out, record);
    section_decisions(out, record);
    section_accounts(out, record);
    section_clusters(out, record);
    section_trust(out, record);
    section_policy(out, record);
    rt_page_close(out, "Made by retort " RT_VERSION ". It fetches nothing, and holds no prompt.");
}
