/* report/evidence_page.c - see evidence_page.h.
 *
 * The order is that of a reader who has one minute: what is claimed and what may be said, the plan, figures
 * of every test with its null hypothesis and what it cannot say, whether p-values are honest here, other
 * explanations, and the commands that make it again. */
#include "report/evidence_page.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "report/html.h"
#include "report/page.h"
#include "report/svg.h"
#include "report/table.h"
#include "retort/version.h"

static void cell_number(rt_text *out, double value, const char *format)
{
    if (isfinite(value)) {
        rt_text_puts(out, "<td style=\"text-align:left\">");
        rt_text_printf(out, format, value); /* formats are ours */
        rt_text_puts(out, "</td>");
    } else {
        rt_table_cell(out, "\xE2\x80\x93");
    }
}

static void alarm(rt_text *out, const char *sentence)
{
    rt_text_puts(out, "<p style=\"color:#b00020;font-weight:600\">");
    rt_html_puts(out, sentence);
    rt_text_puts(out, "</p>\n");
}

static void section_verdict(rt_text *out, const json_t *record, bool intact)
{
    const json_t *v = json_object_get(record, "verdict");
    char line[512];
    rt_page_section_open(out, "verdict", "What may be said");
    if (!intact)
        alarm(out, "The plan was altered after it was hashed: what follows was not fixed before looking.");
    const int combined = (int)json_integer_value(json_object_get(v, "tests_combined"));
    if (combined)
        (void)snprintf(
            line, sizeof line, "The words for it: %.60s. Combined p %.40s over %d tests, by %.120s.",
            rt_field_text(v, "words"), rt_field_text(v, "p"), combined, rt_field_text(v, "combined_by"));
    else
        (void)snprintf(line, sizeof line,
                       "Whether it was trained on these outputs: %.60s. No test here gives a p that counts "
                       "for that; each figure "
                       "below stands for itself.",
                       rt_field_text(v, "words"));
    rt_page_paragraph(out, "lead", line);
    if (rt_field_text(v, "missing_for_more")[0]) {
        (void)snprintf(line, sizeof line, "For stronger words this is missing: %.300s.",
                       rt_field_text(v, "missing_for_more"));
        rt_page_paragraph(out, "", line);
    }
    size_t i;
    const json_t *warning;
    json_array_foreach(json_object_get(record, "warnings"), i, warning)
    {
        (void)snprintf(line, sizeof line, "Take care: %.400s.",
                       json_string_value(warning) ? json_string_value(warning) : "");
        alarm(out, line);
    }
    rt_page_paragraph(out, "",
                      "p is how often an innocent model would show at least this much. It is not the chance "
                      "that the suspect is innocent, and no figure here tells intent.");
    const double lr = rt_field_number(v, "log10_likelihood_ratio_at_most");
    if (isfinite(lr)) {
        (void)snprintf(line, sizeof line,
                       "As a likelihood ratio this p is worth at most 10 to the power %.1f, whatever the "
                       "alternative.",
                       lr);
        rt_page_paragraph(out, "", line);
    }
    rt_page_section_close(out);
}

static void row_text(rt_text *out, const char *name, const char *value)
{
    if (!value[0])
        return;
    const bool one_word = strlen(value) > 48 && !strchr(value, ' '); /* a hash, a path */
    rt_text_puts(out, "<tr>");
    rt_table_cell(out, name);
    rt_text_puts(out, one_word ? "<td style=\"text-align:left;overflow-wrap:anywhere\">"
                               : "<td style=\"text-align:left\">");
    rt_html_puts(out, value);
    rt_text_puts(out, "</td></tr>\n");
}

/* Seconds since 1970 as a date. */
static void row_date(rt_text *out, const char *name, double seconds)
{
    const time_t at = (time_t)fmin(fmax(seconds, 0), 4e9);
    struct tm parts;
    char text[40];
    if (gmtime_r(&at, &parts) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) > 0)
        row_text(out, name, text);
}

static void section_plan(rt_text *out, const json_t *record)
{
    static const char *const heads[] = {"part", "as planned"};
    const json_t *plan = json_object_get(record, "plan"), *key = json_object_get(record, "key"), *value;
    const char *name;
    rt_page_section_open(out, "plan", "The plan, written before looking");
    rt_table_open(out, heads, 2);
    json_object_foreach((json_t *)(uintptr_t)plan, name, value)
    {
        char number[48];
        if (strcmp(name, "retort_evidence_plan") == 0)
            continue;
        if (strcmp(name, "created") == 0) {
            row_date(out, name, json_number_value(value));
        } else if (json_is_string(value)) {
            row_text(out, name, json_string_value(value));
        } else if (json_is_number(value)) {
            (void)snprintf(number, sizeof number, "%.15g", json_number_value(value));
            row_text(out, name, number);
        } else if (json_is_array(value) && json_array_size(value) > 0) {
            rt_text list = {0};
            for (size_t i = 0; i < json_array_size(value); i++) {
                const char *item = json_string_value(json_array_get(value, i));
                rt_text_printf(&list, "%s%s", i ? ", " : "", item ? item : "");
            }
            row_text(out, name, list.data ? list.data : "");
            rt_text_deinit(&list);
        }
    }
    row_text(out, "key's commitment", rt_field_text(key, "commitment"));
    rt_table_close(out);
    rt_page_section_close(out);
}

/* log10 p of each test against the levels that words need. */
static void figure_p(rt_text *out, const json_t *results)
{
    double least = -12;
    size_t i, n = 0;
    const json_t *r;
    json_array_foreach(results, i, r)
    {
        const double p = rt_field_number(r, "log10_p");
        if (isfinite(p)) {
            least = fmin(least, p);
            n++;
        }
    }
    if (n == 0 || n > 40)
        return;
    const rt_ticks ticks = rt_ticks_cover(0, -least, 6);
    rt_svg svg;
    rt_page_figure_open(out, "How unlikely each result is if the suspect is innocent");
    rt_svg_open(&svg, out, 640, 60 + 26 * (double)n, (rt_margin){110, 20, 10, 40}, "chart",
                "minus log10 p of each test");
    rt_svg_axis_x(&svg, &ticks, ticks.values[ticks.count - 1], RT_NUMBER_PLAIN, "-log10 p");
    double y = svg.top + 14;
    json_array_foreach(results, i, r)
    {
        const double p = rt_field_number(r, "log10_p");
        if (!isfinite(p))
            continue;
        const double from = rt_scale_at(&svg.x, 0), to = rt_scale_at(&svg.x, -p);
        rt_svg_text(&svg, svg.left - 8, y + 4, RT_ANCHOR_END, "tick", rt_field_text(r, "test"));
        rt_svg_rect(&svg, "fill s-student", from, y - 7, fmax(to - from, 1), 14, rt_field_text(r, "p"));
        y += 26;
    }
    rt_svg_close(&svg);
    rt_page_figure_close(out, "5 is what strong evidence needs, 10 what very strong evidence needs, with the "
                              "conditions of the section before.");
}

/* What would have been found, in the best words that the record allows: a dose measured on students, a share
 * of what was found, or a rise of the mean score. */
static void power_line(rt_text *out, const json_t *r)
{
    char line[512];
    const double dose = rt_field_number(r, "least_dose_at_1e-5"),
                 ratio = rt_field_number(r, "likelihood_ratio"),
                 share = rt_field_number(r, "share_of_dose_at_1e-5"),
                 rise = rt_field_number(r, "least_rise_at_1e-5");
    line[0] = '\0';
    if (isfinite(dose))
        (void)snprintf(
            line, sizeof line,
            "%.40s: of students with %.3g%% marked text, four of five were found at p = 1e-5; less may be "
            "missed.",
            rt_field_text(r, "test"), 100 * dose);
    else if (isfinite(share))
        (void)snprintf(line, sizeof line, "%.40s: about %.3g%% of this dose would still have shown p = 1e-5.",
                       rt_field_text(r, "test"), 100 * share);
    else if (isfinite(rise))
        (void)snprintf(
            line, sizeof line,
            "%.40s: a mean score %.4g above chance would have shown p = 1e-5; less than that cannot be "
            "told from nothing.",
            rt_field_text(r, "test"), rise);
    if (line[0])
        rt_page_paragraph(out, "", line);
    if (isfinite(ratio)) {
        (void)snprintf(
            line, sizeof line,
            "%.40s: such a figure is %.3g times more expected if the suspect is one of the students than if "
            "it is one of the controls; the numbers of models allow no larger or smaller ratio than theirs.",
            rt_field_text(r, "test"), ratio);
        rt_page_paragraph(out, "", line);
    }
}

/* A p in one line, or in words why there is none. */
static void cell_p(rt_text *out, const json_t *r)
{
    if (!rt_field_text(r, "p")[0]) {
        rt_table_cell(out, isfinite(rt_field_number(r, "z")) ? "not calibrated here" : "a figure, no p");
        return;
    }
    rt_text_puts(out, "<td style=\"text-align:left;white-space:nowrap\">");
    rt_html_puts(out, rt_field_text(r, "p"));
    rt_text_puts(out, "</td>");
}

static void section_results(rt_text *out, const json_t *record)
{
    static const char *const heads[] = {
        "test", "n", "figure", "z", "p", "null hypothesis", "assumes; cannot say"};
    const json_t *results = json_object_get(record, "results"), *r;
    size_t i;
    rt_page_section_open(out, "tests", "Every test");
    rt_page_paragraph(
        out, "",
        "T is the model that the claim says was copied; the suspect is the model that is accused. n is "
        "how many places or rows were counted, figure the test's own measure, z how many standard "
        "deviations it lies above what innocence gives, p how often innocence gives as much.");
    figure_p(out, results);
    rt_table_open(out, heads, 7);
    json_array_foreach(results, i, r)
    {
        rt_text_puts(out, "<tr>");
        rt_table_cell(out, rt_field_text(r, "test"));
        cell_number(out, rt_field_number(r, "n"), "%.0f");
        cell_number(out, rt_field_number(r, "statistic"), "%.4g");
        cell_number(out, rt_field_number(r, "z"), "%.2f");
        cell_p(out, r);
        rt_table_cell(out, rt_field_text(r, "null"));
        rt_text says = {0};
        rt_text_printf(&says, "Assumes that %.300s. Cannot say: %.300s.", rt_field_text(r, "assumes"),
                       rt_field_text(r, "cannot_say"));
        rt_table_cell(out, says.data ? says.data : "");
        rt_text_deinit(&says);
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    json_array_foreach(results, i, r)
    {
        char line[512];
        if (rt_field_text(r, "note")[0]) {
            (void)snprintf(line, sizeof line, "%.40s: %.400s.", rt_field_text(r, "test"),
                           rt_field_text(r, "note"));
            rt_page_paragraph(out, "", line);
        }
        power_line(out, r);
    }
    rt_page_section_close(out);
}

static void section_accounts(rt_text *out, const json_t *record)
{
    static const char *const heads[] = {"account", "test", "z", "log10 p, corrected for all accounts"};
    const json_t *accounts = json_object_get(record, "accounts"),
                 *identity = json_object_get(record, "identity"), *r;
    size_t i;
    if (json_array_size(accounts) > 0) {
        rt_page_section_open(out, "accounts", "Whose answers");
        rt_table_open(out, heads, 4);
        json_array_foreach(accounts, i, r)
        {
            rt_text_puts(out, "<tr>");
            rt_table_cell(out, rt_field_text(r, "account"));
            rt_table_cell(out, rt_field_text(r, "test"));
            cell_number(out, rt_field_number(r, "z"), "%.2f");
            cell_number(out, rt_field_number(r, "log10_p_corrected"), "%.2f");
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
        rt_page_section_close(out);
    }
    if (json_array_size(identity) > 0) {
        static const char *const names[] = {
            "name", "answers that claim it", "of", "95% from",
            "to",   "prompts that do",       "of", "controls' prompts, log10 p"};
        rt_page_section_open(out, "identity", "What it says it is (weak)");
        rt_page_paragraph(out, "",
                          "Models have no knowledge of themselves, and web text is full of such sentences: "
                          "this lifts no verdict.");
        rt_table_open(out, names, 8);
        json_array_foreach(identity, i, r)
        {
            rt_text_puts(out, "<tr>");
            rt_table_cell(out, rt_field_text(r, "name"));
            cell_number(out, rt_field_number(r, "k"), "%.0f");
            cell_number(out, rt_field_number(r, "n"), "%.0f");
            cell_number(out, rt_field_number(r, "lo"), "%.4f");
            cell_number(out, rt_field_number(r, "hi"), "%.4f");
            cell_number(out, rt_field_number(r, "prompts_claiming"), "%.0f");
            cell_number(out, rt_field_number(r, "prompts"), "%.0f");
            cell_number(out, rt_field_number(json_object_get(r, "controls"), "log10_p"), "%.2f");
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
        rt_page_section_close(out);
    }
}

/* "name (count)" of each member. */
static void row_counts(rt_text *out, const char *name, const json_t *counts)
{
    const char *key;
    const json_t *value;
    rt_text list = {0};
    json_object_foreach((json_t *)(uintptr_t)counts, key, value)
        rt_text_printf(&list, "%s%.120s (%d)", list.size ? ", " : "", key, (int)json_integer_value(value));
    row_text(out, name, list.data ? list.data : "");
    rt_text_deinit(&list);
}

static void row_count(rt_text *out, const char *name, const json_t *o, const char *key)
{
    char number[48];
    const json_t *value = json_object_get(o, key);
    if (!json_is_number(value))
        return;
    (void)snprintf(number, sizeof number, "%.15g", json_number_value(value));
    row_text(out, name, number);
}

static void section_asked(rt_text *out, const json_t *record)
{
    static const char *const heads[] = {"what", "figure"};
    const json_t *e = json_object_get(record, "endpoint"), *answers = json_object_get(record, "answers"),
                 *again = json_object_get(e, "again");
    if (!json_is_object(e) && !json_is_object(answers))
        return;
    rt_page_section_open(out, "asked", json_is_object(e) ? "What was asked of the server" : "The answers");
    rt_table_open(out, heads, 2);
    row_text(out, "address", rt_field_text(e, "url"));
    row_text(out, "model asked for", rt_field_text(e, "model"));
    row_counts(out, "models that answered", json_object_get(e, "models"));
    row_counts(out, "fingerprints", json_object_get(e, "fingerprints"));
    row_count(out, "answers kept", e, "rows");
    row_count(out, "texts scored", e, "scored");
    row_count(out, "tokens paid for", e, "tokens");
    row_count(out, "asked again at temperature 0, early and late", again, "asked");
    row_count(out, "of them with the same answer", again, "same");
    row_count(out, "answers looked at", answers, "asked");
    row_count(out, "refusals, left out", answers, "refusals");
    row_count(out, "copies of logged answers, left out", answers, "copies");
    rt_table_close(out);
    rt_page_section_close(out);
}

/* Sorted p-values against what uniform ones would be. */
static void figure_qq(rt_text *out, const char *test, const char *kind, const json_t *o)
{
    enum { MOST = 512 };
    const json_t *q = json_object_get(o, "quantiles");
    const size_t n = json_array_size(q);
    double x[MOST], y[MOST];
    char title[120], caption[200];
    if (n < 2 || n > MOST)
        return;
    for (size_t i = 0; i < n; i++) {
        x[i] = ((double)i + 0.5) / (double)n;
        y[i] = json_number_value(json_array_get(q, i));
    }
    (void)snprintf(title, sizeof title, "%.40s, %.40s: p-values of innocent cases", test, kind);
    (void)snprintf(
        caption, sizeof caption,
        "On the diagonal they are honest. Kolmogorov-Smirnov p %.3g over %.0f cases; %.2f%% below 0.01.",
        rt_field_number(o, "ks_p"), rt_field_number(o, "n"), 100 * rt_field_number(o, "below_0.01"));
    const rt_ticks ticks = rt_ticks_cover(0, 1, 5);
    rt_svg svg;
    rt_page_figure_open(out, title);
    rt_svg_open(&svg, out, 340, 340, (rt_margin){44, 16, 24, 40}, "chart", "QQ plot of p-values");
    rt_svg_axis_y(&svg, &ticks, RT_NUMBER_DIGITS, "observed p");
    rt_svg_axis_x(&svg, &ticks, 1, RT_NUMBER_DIGITS, "uniform");
    rt_svg_segment(&svg, "diagonal", rt_scale_at(&svg.x, 0), rt_scale_at(&svg.y, 0), rt_scale_at(&svg.x, 1),
                   rt_scale_at(&svg.y, 1));
    for (size_t i = 0; i < n; i++)
        rt_svg_dot(&svg, "fill s-student", rt_scale_at(&svg.x, x[i]), rt_scale_at(&svg.y, y[i]), 2, NULL);
    rt_svg_close(&svg);
    rt_page_figure_close(out, caption);
}

/* Students of known doses: how many of them each test found. */
static void table_doses(rt_text *out, const json_t *tests)
{
    static const char *const heads[] = {"test", "share of marked text", "students", "found at p = 1e-5"};
    const char *name;
    json_t *test;
    bool open = false;
    json_object_foreach((json_t *)(uintptr_t)tests, name, test)
    {
        size_t i;
        const json_t *dose;
        json_array_foreach(json_object_get(json_object_get(test, "power"), "doses"), i, dose)
        {
            if (!open)
                rt_table_open(out, heads, 4);
            open = true;
            rt_text_puts(out, "<tr>");
            rt_table_cell(out, name);
            cell_number(out, rt_field_number(dose, "dose"), "%.3g");
            cell_number(out, rt_field_number(dose, "students"), "%.0f");
            cell_number(out, rt_field_number(dose, "reached"), "%.0f");
            rt_text_puts(out, "</tr>\n");
        }
    }
    if (open)
        rt_table_close(out);
}

static void section_calibration(rt_text *out, const json_t *record)
{
    static const char *const heads[] = {"test",    "random keys", "mean z",
                                        "sd of z", "p by rank",   "honest here"};
    const json_t *results = json_object_get(record, "results"), *tests, *r;
    size_t i;
    rt_page_section_open(out, "calibration", "Are the p-values honest here?");
    rt_table_open(out, heads, 6);
    json_array_foreach(results, i, r)
    {
        const json_t *check = json_object_get(r, "key_check");
        if (!check)
            continue;
        rt_text_puts(out, "<tr>");
        rt_table_cell(out, rt_field_text(r, "test"));
        cell_number(out, rt_field_number(check, "keys"), "%.0f");
        cell_number(out, rt_field_number(check, "mean"), "%.2f");
        cell_number(out, rt_field_number(check, "sd"), "%.2f");
        cell_number(out, rt_field_number(check, "p"), "%.3g");
        rt_table_cell(out, json_is_true(json_object_get(check, "calibrated")) ? "yes" : "no");
        rt_text_puts(out, "</tr>\n");
    }
    rt_table_close(out);
    tests = json_object_get(json_object_get(record, "calibration"), "tests");
    if (!tests)
        rt_page_missing(
            out, "No calibration file was given: random keys alone speak here, and no control students.");
    const char *name;
    json_t *test;
    table_doses(out, tests);
    json_object_foreach((json_t *)(uintptr_t)tests, name, test)
    {
        figure_qq(out, name, "random keys", json_object_get(test, "random_keys"));
        figure_qq(out, name, "control students", json_object_get(test, "controls"));
    }
    rt_page_section_close(out);
}

static void section_alternatives(rt_text *out, const json_t *record)
{
    static const char *const heads[] = {"another explanation", "tested how", "here"};
    const json_t *list = json_object_get(record, "alternatives"), *r;
    size_t i;
    rt_page_section_open(out, "alternatives", "What else could explain it");
    if (json_array_size(list) == 0)
        rt_page_missing(
            out, "Nothing was found that needs explaining; that nothing was found says little, see the "
                 "power of each test.");
    else {
        rt_table_open(out, heads, 3);
        json_array_foreach(list, i, r)
        {
            rt_text_puts(out, "<tr>");
            rt_table_cell(out, rt_field_text(r, "explanation"));
            rt_table_cell(out, rt_field_text(r, "tested_how"));
            rt_table_cell(out, rt_field_text(r, "here"));
            rt_text_puts(out, "</tr>\n");
        }
        rt_table_close(out);
    }
    rt_page_paragraph(
        out, "",
        "To check it: whoever is given the key and the inputs whose SHA-256 the plan names runs "
        "'retort evidence run' on this plan and must get these figures.");
    rt_page_section_close(out);
}

void rt_report_evidence(rt_text *out, const json_t *record, bool plan_intact)
{
    const json_t *plan = json_object_get(record, "plan"), *v = json_object_get(record, "verdict");
    const char *claim = rt_field_text(plan, "claim");
    const size_t end = strlen(claim);
    char deck[400], foot[160];
    (void)snprintf(deck, sizeof deck, "Claim: %.200s%s Outcome: %.60s%s.", claim,
                   end > 0 && end <= 200 && strchr(".!?", claim[end - 1]) ? "" : ".",
                   rt_field_text(v, "words"),
                   plan_intact ? "" : ", which may not be relied on: the plan was altered");
    rt_page_open(out, rt_field_text(plan, "suspect")[0] ? rt_field_text(plan, "suspect") : "Recorded answers",
                 "Evidence", deck);
    section_verdict(out, record, plan_intact);
    section_plan(out, record);
    section_results(out, record);
    section_accounts(out, record);
    section_asked(out, record);
    section_calibration(out, record);
    section_alternatives(out, record);
    (void)snprintf(foot, sizeof foot, "Made by retort %s in %.0f s.", RT_VERSION,
                   rt_field_number(record, "wall_s"));
    rt_page_close(out, foot);
}
