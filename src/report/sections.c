/* report/sections.c - loss, judge, where it agrees, cost, samples; see sections.h. */
#include "report/sections.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/charts.h"
#include "report/html.h"
#include "report/page.h"

/* ---- loss ---- */

void rt_section_loss(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    rt_page_section_open(out, "training", "How it learnt");
    rt_text chart = {0}, caption = {0};
    const rt_loss_chart kind = rt_chart_loss(&chart, run);
    parts->loss = kind != RT_LOSS_CHART_NONE;
    if (!parts->loss) {
        rt_page_missing(out, "There is no training log with losses in this run, so there is no loss curve.");
    } else {
        rt_page_figure_open(out, NULL);
        rt_text_append(out, chart.data, chart.size);
        rt_text_puts(&caption, "Strong lines are moving averages, the faint ones behind them single steps.");
        const rt_curve *student = &run->student;
        if (student->steps > student->count)
            rt_text_printf(&caption, " The %zu steps are drawn as means of neighbouring ones.",
                           student->steps);
        if (kind == RT_LOSS_CHART_TWO_LOSSES)
            rt_text_puts(
                &caption,
                " The two runs minimise different losses: the teacher\xE2\x80\x99s distribution leaves "
                "nothing over when it is met, the text itself always does. Compare how "
                "they fall, not how deep.");
        if (kind == RT_LOSS_CHART_KL)
            rt_text_puts(
                &caption,
                " Both are measured against the teacher on the training text; only the distilled student "
                "was trained to make this small.");
        const size_t bad = student->bad_lines + run->ce.bad_lines;
        if (bad)
            rt_text_printf(&caption, " %zu line%s of the log could not be read.", bad, bad == 1 ? "" : "s");
        rt_page_figure_close(out, caption.data);
    }
    out->failed = out->failed || chart.failed || caption.failed;
    rt_text_deinit(&chart);
    rt_text_deinit(&caption);
    rt_page_section_close(out);
}

/* ---- the judge's figures ---- */

typedef struct metric {
    const char *key, *name, *note;
    rt_number kind;
    bool to_teacher; /* a distance from the teacher: says nothing of the teacher itself */
} metric;

static const metric metrics[] = {
    {"kl_teacher_student", "KL(teacher \xE2\x80\x96 model)", "nats, lower is better", RT_NUMBER_PLAIN, true},
    {"kl_student_teacher", "KL(model \xE2\x80\x96 teacher)", "nats, lower is better", RT_NUMBER_PLAIN, true},
    {"tvd", "Total variation", "lower is better", RT_NUMBER_PLAIN, true},
    {"acceptance", "Expected acceptance", "of its drafts by the teacher", RT_NUMBER_SHARE, true},
    {"tokens_per_round", "Tokens a round", "speculative decoding, 4 drafts", RT_NUMBER_PLAIN, true},
    {"top1", "Same first choice", "as the teacher", RT_NUMBER_SHARE, true},
    {"top5", "Teacher\xE2\x80\x99s choice in its top 5", "higher is better", RT_NUMBER_SHARE, true},
    {"perplexity", "Perplexity", "lower is better", RT_NUMBER_PLAIN, false},
    {"ece", "Calibration error", "lower is better", RT_NUMBER_SHARE, false},
    {"decode_tokens_per_s", "Decoding", "tokens a second", RT_NUMBER_PLAIN, false},
    {"memory_bytes", "Memory", "of the weights while it runs", RT_NUMBER_BYTES, false},
    {"bytes", "Weight file", "", RT_NUMBER_BYTES, false},
};
enum { METRICS = sizeof metrics / sizeof metrics[0] };

static void put_figure_cell(rt_text *out, const rt_figure *f, const metric *m, size_t model)
{
    char value[RT_NUMBER_SIZE], low[RT_NUMBER_SIZE], high[RT_NUMBER_SIZE];
    rt_number_format(value, f->value, m->kind);
    rt_text_printf(out, "<td class=\"s-%s\"><b>%s</b>", model == RT_RUN_STUDENT ? "student" : "", value);
    if (isfinite(f->value) && isfinite(f->low) && isfinite(f->high)) {
        rt_number_format_like(low, f->low, f->value, m->kind);
        rt_number_format_like(high, f->high, f->value, m->kind);
        const size_t size = strlen(low);
        if (m->kind == RT_NUMBER_SHARE && size && low[size - 1] == '%')
            low[size - 1] = '\0'; /* 43.1–45.6% */
        rt_text_printf(out, "<small>%s\xE2\x80\x93%s</small>", low, high);
    }
    rt_text_puts(out, "</td>");
}

/* The table's rows are the metrics that any model has, its columns the models that have any. */
static bool put_table(rt_text *out, const rt_run_record *run)
{
    rt_figure cells[METRICS][RT_RUN_MODELS];
    bool row[METRICS] = {false}, column[RT_RUN_MODELS] = {false};
    size_t columns = 0;
    for (size_t i = 0; i < METRICS; i++)
        for (size_t m = 0; m < RT_RUN_MODELS; m++) {
            cells[i][m] = rt_figure_get(rt_run_figures(run, (rt_run_model)m), metrics[i].key);
            if (metrics[i].to_teacher && m == RT_RUN_TEACHER)
                cells[i][m] = (rt_figure){(double)NAN, (double)NAN, (double)NAN};
            row[i] = row[i] || isfinite(cells[i][m].value);
            column[m] = column[m] || isfinite(cells[i][m].value);
        }
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        columns += column[m];
    if (!columns)
        return false;
    rt_text_printf(out, "<table class=\"models\" style=\"--n:%zu\">\n<thead><tr><th></th>", columns);
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        if (column[m])
            rt_text_printf(out, "<th class=\"s-%s\">%s</th>", rt_run_model_keys[m], rt_run_model_names[m]);
    rt_text_puts(out, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < METRICS; i++) {
        if (!row[i])
            continue;
        rt_text_printf(out, "<tr><th>%s<small>%s</small></th>", metrics[i].name, metrics[i].note);
        for (size_t m = 0; m < RT_RUN_MODELS; m++)
            if (column[m])
                put_figure_cell(out, &cells[i][m], &metrics[i], m);
        rt_text_puts(out, "</tr>\n");
    }
    rt_text_puts(out, "</tbody></table>\n");
    return true;
}

/* The baseline's figure less the distilled student's, from the judge's draws of the same documents; NAN
 * without. */
static rt_figure paired_difference(const rt_run_record *run, const char *key)
{
    const json_t *list = json_object_get(run->eval, "differences"), *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        const char *model = rt_string_get(item, "model"), *less = rt_string_get(item, "less");
        const rt_figure d = rt_figure_get(item, key);
        if (!model || !less)
            continue;
        if (strcmp(model, "ce") == 0 && strcmp(less, "student") == 0)
            return d;
        if (strcmp(model, "student") == 0 && strcmp(less, "ce") == 0)
            return (rt_figure){-d.value, -d.high, -d.low};
    }
    return (rt_figure){(double)NAN, (double)NAN, (double)NAN};
}

/* What the intervals allow to be said of student and baseline in one figure.  The same documents judge both,
 * so the interval of the difference is the sharper test; without it, two intervals apart are enough. */
static void put_verdict_on(rt_text *out, const rt_run_record *run, const char *key, const char *name,
                           rt_number kind, bool lower_is_better)
{
    const rt_figure a = rt_figure_get(rt_run_figures(run, RT_RUN_STUDENT), key);
    const rt_figure b = rt_figure_get(rt_run_figures(run, RT_RUN_CE), key);
    const rt_figure d = paired_difference(run, key);
    const bool paired = isfinite(d.low);
    if (!isfinite(a.value) || !isfinite(b.value) || (!paired && (!isfinite(a.low) || !isfinite(b.low))))
        return;
    const bool baseline_higher = paired ? d.low > 0 : a.high < b.low;
    const bool baseline_lower = paired ? d.high < 0 : b.high < a.low;
    char mine[RT_NUMBER_SIZE], other[RT_NUMBER_SIZE], low[RT_NUMBER_SIZE], high[RT_NUMBER_SIZE];
    rt_number_format(mine, a.value, kind);
    rt_number_format(other, b.value, kind);
    rt_number_format(low, baseline_lower ? -d.high : d.low, kind);
    rt_number_format(high, baseline_lower ? -d.low : d.high, kind);
    rt_text_printf(out, "%s: distilled %s, trained on the text alone %s. ", name, mine, other);
    if (!baseline_higher && !baseline_lower) {
        rt_text_puts(out, "This run does not tell them apart. ");
        return;
    }
    rt_text_printf(out, "The %s one is ahead", baseline_higher == lower_is_better ? "distilled" : "other");
    if (paired)
        rt_text_printf(out, ", on the same documents by %s to %s. ", low, high);
    else
        rt_text_puts(out, ", and the intervals do not overlap. ");
}

static void put_verdict(rt_text *out, const rt_run_record *run)
{
    rt_text text = {0};
    put_verdict_on(&text, run, "kl_teacher_student", "KL to the teacher", RT_NUMBER_PLAIN, true);
    put_verdict_on(&text, run, "acceptance", "Expected acceptance", RT_NUMBER_SHARE, false);
    if (text.size)
        rt_page_paragraph(out, "", text.data);
    out->failed = out->failed || text.failed;
    rt_text_deinit(&text);
}

static void put_judged_on(rt_text *out, const rt_run_record *run)
{
    const double documents = rt_number_get(run->eval, "documents"),
                 tokens = rt_number_get(run->eval, "tokens");
    const double interval = rt_number_get(run->eval, "interval");
    char d[RT_NUMBER_SIZE], t[RT_NUMBER_SIZE], text[300];
    if (!isfinite(documents) || !isfinite(tokens))
        return;
    rt_number_format(d, documents, RT_NUMBER_INTEGER);
    rt_number_format(t, tokens, RT_NUMBER_INTEGER);
    (void)snprintf(text, sizeof text,
                   "Judged on %s held-back documents, %s tokens, which no student was trained on. Ranges are "
                   "%.0f%% intervals.",
                   d, t, 100 * (interval > 0 && interval < 1 ? interval : 0.95));
    rt_page_paragraph(out, "", text);
}

void rt_section_judge(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    rt_page_section_open(out, "judge", "How close it came");
    if (!run->eval) {
        rt_page_missing(out, "This run has not been judged: there is no eval.json, so there are no figures "
                             "on held-back text.");
        rt_page_section_close(out);
        return;
    }
    put_judged_on(out, run);
    put_verdict(out, run);
    rt_text chart = {0};
    parts->kl =
        rt_chart_bars(&chart, run, "kl_teacher_student", "KL(teacher \xE2\x80\x96 model), nats per token");
    if (parts->kl) {
        rt_page_figure_open(out, NULL);
        rt_text_append(out, chart.data, chart.size);
        rt_page_figure_close(out, "Distance from the teacher\xE2\x80\x99s distribution over the next token; "
                                  "the teacher itself is at "
                                  "zero. The thin bars are the intervals.");
    } else {
        rt_page_missing(out, "No KL to the teacher was measured.");
    }
    out->failed = out->failed || chart.failed;
    rt_text_deinit(&chart);
    rt_text_puts(out, "<figure>\n");
    parts->table = put_table(out, run);
    rt_text_puts(out, "</figure>\n");
    if (!parts->table)
        rt_page_missing(out, "eval.json has no figures of any model.");
    rt_page_section_close(out);
}

/* ---- where it agrees ---- */

static bool put_kinds(rt_text *out, const rt_run_record *run)
{
    enum { KINDS_MAX = 16 };
    const json_t *list = json_object_get(rt_run_figures(run, RT_RUN_STUDENT), "by_kind"), *item;
    size_t i, rows = 0;
    json_array_foreach(list, i, item)
    {
        const char *kind = rt_string_get(item, "kind");
        char tokens[RT_NUMBER_SIZE], kl[RT_NUMBER_SIZE], top1[RT_NUMBER_SIZE];
        if (!kind || rows == KINDS_MAX)
            continue;
        rt_number_format(tokens, rt_number_get(item, "tokens"), RT_NUMBER_INTEGER);
        rt_number_format(kl, rt_figure_get(item, "kl").value, RT_NUMBER_PLAIN);
        rt_number_format(top1, rt_figure_get(item, "top1").value, RT_NUMBER_SHARE);
        if (!rows++)
            rt_text_puts(out, "<table>\n<thead><tr><th>kind of token</th><th>tokens</th><th>KL</th>"
                              "<th>same choice</th></tr></thead>\n<tbody>\n");
        rt_text_puts(out, "<tr><th>");
        rt_html_text(out, kind, strlen(kind), 40);
        rt_text_printf(out, "</th><td>%s</td><td>%s</td><td>%s</td></tr>\n", tokens, kl, top1);
    }
    if (rows)
        rt_text_puts(out, "</tbody></table>\n");
    return rows > 0;
}

void rt_section_where(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    rt_text position = {0}, calibration = {0}, kinds = {0};
    parts->position = rt_chart_position(&position, run);
    parts->calibration = rt_chart_reliability(&calibration, run);
    parts->kinds = put_kinds(&kinds, run);
    rt_page_section_open(out, "where", "Where it agrees");
    if (parts->position) {
        rt_page_figure_open(out, NULL);
        rt_text_append(out, position.data, position.size);
        rt_page_figure_close(out, "How often each student\xE2\x80\x99s likeliest next token is the "
                                  "teacher\xE2\x80\x99s, by place in the "
                                  "text; shades are the intervals.");
    } else {
        rt_page_missing(out, "Agreement by position was not measured.");
    }
    if (parts->calibration && parts->kinds)
        rt_text_puts(out, "<div class=\"pair\">\n");
    if (parts->calibration) {
        rt_page_figure_open(out, "Does it know what it knows?");
        rt_text_append(out, calibration.data, calibration.size);
        rt_page_figure_close(out,
                             "A model that is as often right as it is sure lies on the dotted line; larger "
                             "dots stand for more tokens. Groups of fewer than ten tokens are left out.");
    } else {
        rt_page_missing(out, "Calibration was not measured.");
    }
    if (parts->kinds) {
        rt_page_figure_open(out, "By kind of token");
        rt_text_append(out, kinds.data, kinds.size);
        rt_page_figure_close(out, NULL);
    } else {
        rt_page_missing(out, "Agreement by kind of token was not measured.");
    }
    if (parts->calibration && parts->kinds)
        rt_text_puts(out, "</div>\n");
    out->failed = out->failed || position.failed || calibration.failed || kinds.failed;
    rt_text_deinit(&position);
    rt_text_deinit(&calibration);
    rt_text_deinit(&kinds);
    rt_page_section_close(out);
}

/* ---- cost ---- */

void rt_section_cost(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    rt_text size = {0}, speed = {0};
    parts->size = rt_chart_cost(&size, run, "bytes", "size of the weight file");
    parts->speed = rt_chart_cost(&speed, run, "decode_tokens_per_s", "decoding, tokens a second");
    rt_page_section_open(out, "cost", "What it costs to run");
    if (parts->size || parts->speed) {
        rt_text_puts(out, "<figure>\n<div class=\"pair\">\n");
        if (parts->size)
            rt_text_append(out, size.data, size.size);
        if (parts->speed)
            rt_text_append(out, speed.data, speed.size);
        rt_text_puts(out, "</div>\n");
        rt_page_figure_close(out, "Lower is closer to the teacher, which is at zero by definition. Vertical "
                                  "lines are the intervals.");
    }
    if (!parts->size)
        rt_page_missing(
            out, "Sizes of at least two models with their distance from the teacher were not measured.");
    if (!parts->speed)
        rt_page_missing(
            out,
            "Decoding speeds of at least two models with their distance from the teacher were not measured.");
    out->failed = out->failed || size.failed || speed.failed;
    rt_text_deinit(&size);
    rt_text_deinit(&speed);
    rt_page_section_close(out);
}

/* ---- samples ---- */

enum { SAMPLES_SHOWN = 3, SAMPLE_BYTES_MAX = 4000 };

static void put_sample(rt_text *out, const json_t *sample, const bool *column, size_t columns)
{
    const char *prompt = rt_string_get(sample, "prompt");
    rt_text_puts(out, "<div class=\"sample\">\n<blockquote dir=\"auto\">");
    if (prompt)
        rt_html_text(out, prompt, strlen(prompt), SAMPLE_BYTES_MAX);
    rt_text_printf(out, "</blockquote>\n<div class=\"answers\" style=\"--n:%zu\">\n", columns);
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        if (!column[m])
            continue;
        const char *answer = rt_string_get(sample, rt_run_model_keys[m]);
        rt_text_printf(out, "<div class=\"s-%s\"><h3>%s</h3><p dir=\"auto\"", rt_run_model_keys[m],
                       rt_run_model_names[m]);
        if (answer && answer[0]) {
            rt_text_puts(out, ">");
            rt_html_text(out, answer, strlen(answer), SAMPLE_BYTES_MAX);
        } else {
            rt_text_puts(out, answer ? " class=\"empty\">(no text)" : " class=\"empty\">(not asked)");
        }
        rt_text_puts(out, "</p></div>\n");
    }
    rt_text_puts(out, "</div>\n</div>\n");
}

void rt_section_samples(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    bool column[RT_RUN_MODELS] = {false};
    size_t columns = 0, shown = 0, i;
    const json_t *sample;
    json_array_foreach(run->samples, i, sample)
    {
        for (size_t m = 0; m < RT_RUN_MODELS; m++)
            column[m] = column[m] || (i < SAMPLES_SHOWN && rt_string_get(sample, rt_run_model_keys[m]));
    }
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        columns += column[m];
    rt_text_puts(out, "<div class=\"wider\">\n");
    rt_page_section_open(out, "samples", "In their own words");
    json_array_foreach(run->samples, i, sample)
    {
        if (i < SAMPLES_SHOWN && columns && json_is_object(sample)) {
            put_sample(out, sample, column, columns);
            shown++;
        }
    }
    parts->samples = shown > 0;
    if (!shown)
        rt_page_missing(out, "There are no answers to show side by side: samples.json is missing or empty.");
    rt_page_section_close(out);
    rt_text_puts(out, "</div>\n");
}
